//! What steps made: in this build, or in an earlier one.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use tokio::runtime::Handle;
use yadokari_layers::{Digest, Index, Key, Layer, pack};

use crate::cache::{Cache, Hit, NewIndex, NewStep};
use crate::plan::{LayerRef, Step, content_of, record_key};

/// What a step made.
#[derive(Debug, Clone, Default)]
pub(super) struct Outcome {
    /// Its layer, if it changed anything.
    pub(super) layer: Option<LayerRef>,
    /// What stands for the layer's content where later steps depend on it. Without a cache nobody asks.
    pub(super) content: Option<Digest>,
    /// What the layer says, where this build made it.
    pub(super) index: Option<Arc<Index>>,
}

impl Outcome {
    /// The same, with what stands for the content of a layer that was just made.
    pub(super) fn with_content(self, pack: &pack::Options) -> Self {
        let made = self.layer.as_ref().zip(self.index.as_ref());
        let content = made.map(|(layer, index)| content_of(index, &layer.diff_id, pack.clamp));
        Self { content, ..self }
    }
}

impl From<Option<Layer>> for Outcome {
    /// What was just made.
    fn from(layer: Option<Layer>) -> Self {
        let Some(layer) = layer else { return Self::default() };
        Self { layer: Some(LayerRef::from(&layer)), content: None, index: Some(layer.index) }
    }
}

impl From<Hit> for Outcome {
    fn from(hit: Hit) -> Self {
        Self { layer: hit.layer, content: hit.content, index: None }
    }
}

/// The steps that were executed.
///
/// A key says all that a result depends on, so a step that several stages or platforms have in common, such as one of a stage
/// for `$BUILDPLATFORM`, is executed once, also where they come to it at the same time.
#[derive(Debug, Default)]
pub struct Done {
    /// `None` where a step is under way.
    steps: Mutex<HashMap<Key, Option<Outcome>>>,
    changed: Condvar,
}

/// Who executes a step.
pub(super) enum Claimed<'a> {
    /// Nobody: it was executed.
    Made(Outcome),
    /// Somebody else, right now.
    Elsewhere,
    /// Whoever asked.
    Here(Claim<'a>),
}

/// The right to execute a step. Where it is dropped without an outcome, somebody else may try.
#[derive(Debug)]
pub(super) struct Claim<'a> {
    done: &'a Done,
    key: Key,
}

impl Done {
    /// What a step made whose layers are written so; `None` where it was not executed yet.
    pub(super) fn find(&self, step: &Step, pack: &pack::Options) -> Option<Outcome> {
        self.lock().get(&record_key(&step.key, pack)).cloned().flatten()
    }

    /// Asks for the right to execute a step.
    pub(super) fn claim(&self, step: &Step, pack: &pack::Options) -> Claimed<'_> {
        let key = record_key(&step.key, pack);
        match self.lock().entry(key) {
            Entry::Occupied(entry) => entry.get().clone().map_or(Claimed::Elsewhere, Claimed::Made),
            Entry::Vacant(entry) => {
                entry.insert(None);
                Claimed::Here(Claim { done: self, key })
            }
        }
    }

    /// Forgets the steps that made a layer which cannot be had any more: they are executed once more.
    pub(crate) fn forget(&self, layer: &Digest) {
        let is_other = |outcome: &Outcome| outcome.layer.is_none_or(|made| made.digest != *layer);
        self.lock().retain(|_, outcome| outcome.as_ref().is_none_or(is_other));
    }

    /// Waits until nobody executes a step.
    pub(super) fn wait(&self, step: &Step, pack: &pack::Options) {
        let key = record_key(&step.key, pack);
        let mut steps = self.lock();
        while matches!(steps.get(&key), Some(None)) {
            steps = self.changed.wait(steps).unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Key, Option<Outcome>>> {
        self.steps.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Claim<'_> {
    /// Remembers what the step made.
    pub(super) fn remember(self, outcome: Outcome) {
        self.done.lock().insert(self.key, Some(outcome));
    }
}

impl Drop for Claim<'_> {
    fn drop(&mut self) {
        let mut steps = self.done.lock();
        if let Some(None) = steps.get(&self.key) {
            steps.remove(&self.key);
        }
        self.done.changed.notify_all();
    }
}

/// What earlier builds left in the cache, for the threads that execute steps.
#[derive(Clone)]
pub struct Earlier<'a> {
    cache: &'a Cache,
    pack: pack::Options,
    runtime: Handle,
}

impl<'a> Earlier<'a> {
    /// Looks at `cache` for layers that are written as `pack` says.
    pub fn new(cache: &'a Cache, pack: pack::Options) -> Self {
        Self { cache, pack, runtime: Handle::current() }
    }

    /// Whether the layer of a step is looked for, and kept.
    pub fn covers(&self, step: &Step) -> bool {
        self.cache.covers(step)
    }

    /// The key under which the layer of a step is looked for.
    pub fn key(&self, step: &Step) -> Key {
        record_key(&step.stored_under(), &self.pack)
    }

    /// What the cache said of a step when it was asked for all of them.
    pub(super) fn find(&self, step: &Step) -> Option<Outcome> {
        self.cache.hit(&self.key(step)).map(Outcome::from)
    }

    /// Asks the cache for a step by what is below it, whatever made that, or for the layer that others were merged into.
    pub(super) fn look(&self, content: &Key) -> Option<Outcome> {
        self.runtime.block_on(self.cache.look(record_key(content, &self.pack))).map(Outcome::from)
    }

    /// What the cache is to keep of a step that it had by content: next time it is to be found by its key, before anything
    /// below it is looked at.
    pub(super) fn known(&self, step: &Step, outcome: &Outcome) -> Option<NewStep> {
        let layer = match (outcome.layer, outcome.content) {
            (Some(layer), Some(content)) => {
                Some((layer, NewIndex::Kept(self.cache.kept_index(&layer.digest)?), content))
            }
            _ => None,
        };
        Some(NewStep { keys: vec![self.key(step)], layer })
    }

    /// What the cache is to keep of a step that was executed.
    pub(super) fn record(&self, step: &Step, content: Option<Key>, outcome: &Outcome) -> Option<NewStep> {
        let by_content = content.map(|content| record_key(&content, &self.pack));
        Self::new_step(std::iter::once(self.key(step)).chain(by_content).collect(), outcome)
    }

    /// What the cache is to keep of layers that were merged into one, under a key that [`Earlier::look`] finds.
    pub(super) fn record_merged(&self, key: &Key, outcome: &Outcome) -> Option<NewStep> {
        Self::new_step(vec![record_key(key, &self.pack)], outcome)
    }

    fn new_step(keys: Vec<Key>, outcome: &Outcome) -> Option<NewStep> {
        let layer = match outcome {
            Outcome { layer: Some(layer), content: Some(content), index: Some(index) } => {
                Some((*layer, NewIndex::Made(Arc::clone(index)), *content))
            }
            Outcome { layer: None, .. } => None,
            // It was not made here.
            _ => return None,
        };
        Some(NewStep { keys, layer })
    }
}
