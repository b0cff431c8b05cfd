//! What follows when a step has made its layer: it is remembered, handed on, kept and said.

use std::time::Instant;

use yadokari_layers::{Digest, Key, Layer, pack};

use super::Executor;
use super::earlier::{Claim, Outcome};
use super::upcoming::Made;
use crate::cache::NewStep;
use crate::output::Finished;
use crate::plan::{LayerRef, Step};

/// What a step came to.
pub(super) enum Fresh {
    /// It was made before, in this build or in an earlier one; this is what the cache is to keep of it.
    Known(Box<(Made, Option<NewStep>)>),
    /// It was made now: the layer, if anything changed.
    Layer(Option<Layer>),
    /// It was made now, and its layer is still being compressed.
    Packing(pack::Packing),
}

/// A step whose end is still to come, on whatever thread that will be.
pub(super) struct Ending<'a> {
    executor: &'a Executor<'a>,
    pub(super) step: &'a Step,
    /// What progress calls it.
    pub(super) name: String,
    /// Whether the layer is the image's.
    pub(super) wanted: bool,
    start: Instant,
    /// The right to execute it, if it has to be.
    pub(super) claim: Option<Claim<'a>>,
    /// The key by what is below the step, whatever made that, where the cache was asked for it.
    pub(super) by_content: Option<Key>,
}

impl<'a> Ending<'a> {
    /// A step begins; `is_made` says that there is nothing to execute.
    pub(super) fn begin(executor: &'a Executor<'a>, step: &'a Step, name: String, wanted: bool, is_made: bool) -> Self {
        executor.progress.step(&name, &step.text, &step.key, is_made);
        Self { executor, step, name, wanted, start: Instant::now(), claim: None, by_content: None }
    }

    /// A step ends that was made now, with what stands for the content of its layer.
    pub(super) fn made(self, layer: Option<Layer>, content: Option<Digest>) -> Result<Option<LayerRef>, crate::Error> {
        let outcome = Outcome { content, ..Outcome::from(layer) };
        let earlier = self.executor.earlier.as_ref().filter(|earlier| earlier.covers(self.step));
        let record = earlier.and_then(|earlier| earlier.record(self.step, self.by_content, &outcome));
        self.end(Made { outcome, is_cached: false }, record)
    }

    /// A step ends that was made, now or before.
    pub(super) fn end(self, made: Made, record: Option<NewStep>) -> Result<Option<LayerRef>, crate::Error> {
        let (executor, Made { outcome, is_cached }) = (self.executor, made);
        let layer = outcome.layer;
        let said = layer.map(|layer| (layer.digest, layer.size));
        executor.progress.step_done(&self.name, &self.step.key, self.start.elapsed(), said, is_cached);
        if !is_cached {
            if let (Some(layer), Some(index)) = (&layer, &outcome.index) {
                executor.blobs.made(layer, index);
            }
            self.claim.into_iter().for_each(|claim| claim.remember(outcome.clone()));
            // Before somebody else has it, so that it stays here as long as it is read.
            executor.readers.ended();
        }
        // What the cache has is not here, and goes from there where it has to.
        let here = layer.filter(|_| !is_cached);
        if self.wanted && here.is_some() || record.is_some() {
            (executor.finished)(Finished { layer: here, wanted: self.wanted, record })?;
        }
        Ok(layer)
    }
}
