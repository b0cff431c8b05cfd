//! The keys of steps: the only place that computes them.
//!
//! A key says what a step's result depends on: the result below it, the operation with its inputs, and the stages and
//! images that it takes files from. It leaves out what does not change the result: modification times, inode numbers,
//! labels, proxy settings. Every input has a name, so that whoever asks why a step has another key than before can be told
//! which of its inputs is another one; names are for people, and only values are hashed.
//!
//! A change of this encoding changes [`KeyHasher::VERSION`], and a test fails until its golden values are written anew.

mod content;
mod inputs;
mod result;
#[cfg(test)]
mod tests;

use serde::{Deserialize, Serialize};
use yadokari_layers::{Digest, Key, KeyHasher};
use yadokari_registry::Platform;

use super::{LayerRef, Op, Step};
use crate::dockerfile::Span;

pub(super) use content::selected_content;
pub use content::{content_of, state};
pub(super) use inputs::{ContextInput, MountInput, Sources, cache, copy, mkdir, run};
pub use result::{formed_result_key, record_key, result_key, result_key_of_index, squash_key, squashed_result_key};

/// One of the things that a key is made of, by a name that means something to whoever wrote the Dockerfile.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Input {
    /// `command`, `variable PATH`, `file src/main.c`
    pub name: String,
    /// What stands for its value.
    pub value: Digest,
}

/// What the key of a step is made of beside what is below it.
#[derive(Debug)]
pub(super) struct Parts {
    /// The operation's own.
    pub(super) inputs: Vec<Input>,
    /// The keys of the stages and images that it takes files from, in the order of [`Op::taken`].
    pub(super) from: Vec<Key>,
}

/// The key of nothing, for a platform.
pub(super) fn scratch(platform: &Platform) -> Key {
    let mut key = KeyHasher::new("scratch");
    key.bytes(platform.to_string());
    key.finish()
}

/// The key of an image for a platform: what its layers hold. Its labels, its history, its time, and how its layers are
/// compressed, change no step; what does of its config (variables, user, directory, shell, triggers) is in the steps.
pub(crate) fn image(platform: &Platform, layers: &[LayerRef]) -> Key {
    let mut key = KeyHasher::new("image");
    key.bytes(platform.to_string()).list(layers.iter().map(|layer| layer.diff_id.as_bytes()));
    key.finish()
}

/// The key of an operation's result, for `domain`. Without `below` it is that of its layer alone.
fn step(domain: &str, op: &Op, below: Option<&Key>, inputs: &[Input], from: &[Key]) -> Key {
    let mut key = KeyHasher::new(domain);
    key.bytes(match op {
        Op::Run(_) => "run",
        Op::Copy(_) => "copy",
        Op::Mkdir(_) => "mkdir",
    });
    key.option(below.map(|below| *below.digest().as_bytes()));
    key.list(inputs.iter().map(|input| input.value.as_bytes()));
    key.list(from.iter().map(|from| *from.digest().as_bytes()));
    key.finish()
}

/// The key of a layer that was made by itself, on what is below it.
fn on(below: &Key, layer: &Key) -> Key {
    let mut key = KeyHasher::new("layer on");
    key.digest(&below.digest()).digest(&layer.digest());
    key.finish()
}

impl Step {
    /// A step on what has the key `below`.
    pub(super) fn new(op: Op, below: &Key, parts: Parts, text: String, span: Option<Span>) -> Self {
        let Parts { inputs, from } = parts;
        debug_assert_eq!(op.taken().len(), from.len(), "{op:?}");
        let layer_key = op.is_linked().then(|| step("step", &op, None, &inputs, &from));
        let key = match &layer_key {
            Some(layer) => on(below, layer),
            None => step("step", &op, Some(below), &inputs, &from),
        };
        Self { op, key, layer_key, inputs, text, span }
    }

    /// The key under which the step's layer is found: its own where the layer does not depend on what is below.
    pub fn stored_under(&self) -> Key {
        self.layer_key.unwrap_or(self.key)
    }

    /// The key of the step's layer by contents: `below` is the [`state`] of all that is below, and `from` says what the
    /// step takes from stages and images, in the order of [`Op::taken`]. Another build has the same content key where
    /// what was rebuilt turned out to be what it was.
    pub fn content_key(&self, below: &Key, from: &[Key]) -> Key {
        step("content", &self.op, Some(below).filter(|_| !self.op.is_linked()), &self.inputs, from)
    }
}

/// An input called `name`. `kind` tells it from inputs of other kinds, and `value` adds what it is.
fn input(name: impl Into<String>, kind: &str, value: impl FnOnce(&mut KeyHasher)) -> Input {
    let mut hasher = KeyHasher::new("input");
    hasher.bytes(kind);
    value(&mut hasher);
    Input { name: name.into(), value: hasher.finish().digest() }
}
