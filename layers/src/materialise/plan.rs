//! Which names each record of each layer gets.

use crate::{Error, Found, Index, Kind, RelPath, Result, Tree};

/// As many links lead from one to the next before they are taken for a loop.
const MAX_LINKS: u32 = 64;

/// For each layer and each of its records, the names under which its file is written: its own where that is visible, and
/// those of visible hard links that lead to it from this layer or from a higher one.
pub(super) struct Plan {
    pub(super) layers: Vec<Vec<Vec<RelPath>>>,
}

impl Plan {
    /// An error comes with the layer that it is about.
    pub(super) fn of(tree: &Tree) -> Result<Self, (usize, Error)> {
        check_parents(tree)?;
        let mut layers: Vec<Vec<Vec<RelPath>>> =
            tree.layers().iter().map(|index| vec![Vec::new(); index.len()]).collect();
        let mut links = Vec::new();
        for (layer, index) in tree.layers().iter().enumerate() {
            for (record, path) in tree.visible(layer).into_iter().enumerate() {
                let Some(path) = path else { continue };
                match index.records()[record].1.entry().map(|entry| &entry.kind) {
                    None | Some(Kind::Directory) => {}
                    Some(Kind::Hardlink { target }) => links.push((layer, target, path)),
                    Some(_) => layers[layer][record].push(path.clone()),
                }
            }
        }
        for (layer, target, path) in links {
            let (layer, record) = source(tree, layer, target).ok_or_else(|| {
                let reason = "is a hard link to a file that no layer holds";
                (layer, Error::Entry { name: path.to_string(), reason })
            })?;
            layers[layer][record].push(path.clone());
        }
        Ok(Self { layers })
    }
}

/// What lies below a file cannot be made, in whatever order.
fn check_parents(tree: &Tree) -> Result<(), (usize, Error)> {
    let mut checked = None;
    for (path, Found { layer, .. }) in tree.iter() {
        let parent = path.parent();
        if parent == checked {
            continue;
        }
        // A directory that a layer states was looked at itself.
        match path.ancestors().find_map(|above| tree.get(&above)) {
            Some(found) if !found.entry.is_directory() => {
                let reason = "lies below what is no directory";
                return Err((layer, Error::Entry { name: path.to_string(), reason }));
            }
            _ => checked = parent,
        }
    }
    Ok(())
}

/// The record that holds the content to which a hard link of `layer` leads.
fn source(tree: &Tree, mut layer: usize, target: &RelPath) -> Option<(usize, usize)> {
    let mut target = target.clone();
    for _ in 0..MAX_LINKS {
        let (found, record) = find(tree, layer, &target)
            // A link may also name its target through symbolic links among the directories.
            .or_else(|| find(tree, layer, &tree.resolve_parent(&target).ok()?))?;
        match &tree.layers()[found].records()[record].1.entry()?.kind {
            Kind::Directory => return None,
            Kind::Hardlink { target: next } => (layer, target) = (found, next.clone()),
            _ => return Some((found, record)),
        }
    }
    None
}

/// The highest layer up to `layer` that puts `path`.
fn find(tree: &Tree, layer: usize, path: &RelPath) -> Option<(usize, usize)> {
    (0..=layer).rev().find_map(|layer| {
        let index = &tree.layers()[layer];
        let record = position(index, path)?;
        index.records()[record].1.entry().map(|_| (layer, record))
    })
}

/// The record of `path`.
pub(super) fn position(index: &Index, path: &RelPath) -> Option<usize> {
    index.records().binary_search_by(|(other, _)| other.cmp(path)).ok()
}
