//! What steps made: in this build, or in an earlier one.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

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
/// A key says all that a result depends on, so a step that several platforms have in common, such as one of a stage for
/// `$BUILDPLATFORM`, is executed once.
#[derive(Debug, Default)]
pub struct Done(Mutex<HashMap<Key, Outcome>>);

impl Done {
    /// What a step made whose layers are written so; `None` where it was not executed yet.
    pub(super) fn find(&self, step: &Step, pack: &pack::Options) -> Option<Outcome> {
        self.lock().get(&record_key(&step.key, pack)).cloned()
    }

    /// Remembers what a step made.
    pub(super) fn remember(&self, step: &Step, pack: &pack::Options, outcome: Outcome) {
        self.lock().insert(record_key(&step.key, pack), outcome);
    }

    /// Forgets the steps that made a layer which cannot be had any more: they are executed once more.
    pub(crate) fn forget(&self, layer: &Digest) {
        self.lock().retain(|_, outcome| outcome.layer.is_none_or(|made| made.digest != *layer));
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<Key, Outcome>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
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

    /// Asks the cache for a step by what is below it, whatever made that.
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
        let keys = std::iter::once(self.key(step)).chain(by_content).collect();
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
