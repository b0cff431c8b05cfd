//! What people do to a project between two builds.

use proptest::prelude::*;

use crate::world::{Node, Step, World, any_node, any_path, any_rename, any_step};

/// One change.
#[derive(Debug, Clone)]
pub(crate) enum Edit {
    /// Another content, kind or mode, or a new path.
    Put(usize, Node),
    Remove(usize),
    Rename(usize, usize),
    /// The file changes its mode alone.
    Executable(usize),
    /// All links point elsewhere.
    Links(usize),
    /// What are names of one file become files of the same content, and the other way round.
    Names,
    Ignore(usize),
    /// The clone is made under another umask. The image shows it, and so do the keys if they are to.
    Umask,
    Argument(usize),
    /// `base:1` is another image, in its labels and times, or in its files too.
    Base(usize),
    Insert(usize, usize, Step),
    Replace(usize, usize, Step),
    Delete(usize, usize),
    From(usize, usize),
    /// As it was some edits ago.
    Back(usize),
    /// Only time goes by.
    Nothing,
}

impl Edit {
    /// The world after it. `past` has all worlds so far, the last of them is what is edited.
    pub(crate) fn of(&self, past: &[World]) -> World {
        let mut world = past.last().unwrap().clone();
        let count = world.stages.len();
        match self {
            Self::Put(path, node) => _ = world.context.insert(*path, node.clone()),
            Self::Remove(path) => _ = world.context.remove(path),
            Self::Rename(from, to) => {
                if let Some(node) = world.context.remove(from) {
                    world.context.insert(*to, node);
                }
            }
            Self::Executable(path) => {
                if let Some(Node::File { executable, .. }) = world.context.get_mut(path) {
                    *executable = !*executable;
                }
            }
            Self::Links(by) => {
                for node in world.context.values_mut() {
                    if let Node::Link(target) = node {
                        *target += by;
                    }
                }
            }
            Self::Names => world.links_are_copies = !world.links_are_copies,
            Self::Ignore(line) => match world.ignored.iter().position(|known| known == line) {
                Some(at) => _ = world.ignored.remove(at),
                None => world.ignored.push(*line),
            },
            Self::Umask => world.group_writes ^= world.raw,
            Self::Argument(value) => world.argument = *value,
            Self::Base(base) => world.base = *base,
            Self::Insert(stage, at, step) => {
                let steps = &mut world.stages[stage % count].steps;
                steps.insert(at % (steps.len() + 1), step.clone());
            }
            Self::Replace(stage, at, step) => {
                let steps = &mut world.stages[stage % count].steps;
                let length = steps.len().max(1);
                if let Some(old) = steps.get_mut(at % length) {
                    *old = step.clone();
                }
            }
            Self::Delete(stage, at) => {
                let steps = &mut world.stages[stage % count].steps;
                if !steps.is_empty() {
                    steps.remove(at % steps.len());
                }
            }
            Self::From(stage, from) => world.stages[stage % count].from = *from,
            Self::Back(ago) => world = past[past.len() - 1 - ago % past.len()].clone(),
            Self::Nothing => {}
        }
        world
    }
}

pub(crate) fn any_edit() -> impl Strategy<Value = Edit> {
    let at = || 0..12_usize;
    prop_oneof![
        5 => (any_path(), any_node()).prop_map(|(path, node)| Edit::Put(path, node)),
        1 => any_path().prop_map(Edit::Remove),
        6 => any_rename().prop_map(|(from, to)| Edit::Rename(from, to)),
        1 => any_path().prop_map(Edit::Executable),
        2 => at().prop_map(Edit::Links),
        2 => Just(Edit::Names),
        2 => at().prop_map(Edit::Ignore),
        1 => Just(Edit::Umask),
        2 => at().prop_map(Edit::Argument),
        2 => at().prop_map(Edit::Base),
        3 => (at(), at(), any_step()).prop_map(|(stage, at, step)| Edit::Insert(stage, at, step)),
        4 => (at(), at(), any_step()).prop_map(|(stage, at, step)| Edit::Replace(stage, at, step)),
        2 => (at(), at()).prop_map(|(stage, at)| Edit::Delete(stage, at)),
        1 => (at(), at()).prop_map(|(stage, from)| Edit::From(stage, from)),
        2 => at().prop_map(Edit::Back),
        1 => Just(Edit::Nothing),
    ]
}
