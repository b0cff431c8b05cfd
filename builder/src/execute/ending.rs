//! What follows when a step has made its layer: it is remembered, handed on, kept and said.

use std::time::Instant;

use yadokari_layers::{Key, Layer, pack};

use super::Executor;
use super::blobs::Blobs;
use super::earlier::Outcome;
use crate::cache::NewStep;
use crate::output::Finished;
use crate::plan::{LayerRef, Stage, Step};
use crate::progress::StepDone;

/// What a step came to.
pub(super) enum Fresh {
    /// It was made before, in this build or in an earlier one; this is what the cache is to keep of it.
    Known { outcome: Outcome, record: Option<NewStep>, is_cached: bool },
    /// It was made now.
    Made(Work),
}

/// What was made now.
pub(super) enum Work {
    /// The layer, if anything changed.
    Layer(Option<Layer>),
    /// A layer that is still being compressed.
    Packing(pack::Packing),
}

/// A step whose end is still to come, on whatever thread that will be.
pub(super) struct Ending<'a> {
    executor: &'a Executor<'a>,
    blobs: &'a Blobs<'a>,
    pub(super) step: &'a Step,
    /// What progress calls it.
    pub(super) name: String,
    /// Whether the layer is the image's.
    wanted: bool,
    start: Instant,
    /// The key by what is below the step, whatever made that, where the cache was asked for it.
    pub(super) by_content: Option<Key>,
}

impl<'a> Ending<'a> {
    /// A step of a stage begins.
    pub(super) fn begin(
        executor: &'a Executor<'a>,
        blobs: &'a Blobs<'a>,
        stage: &'a Stage,
        number: usize,
        wanted: bool,
    ) -> Self {
        let step = &stage.steps[number];
        let name = format!("{}{} {}/{}", executor.label, stage.name, number + 1, stage.steps.len());
        executor.progress.step(&name, &step.text, &step.key);
        Self { executor, blobs, step, name, wanted, start: Instant::now(), by_content: None }
    }

    /// A step ends that was made now.
    pub(super) fn made(self, layer: Option<Layer>) -> Result<Option<LayerRef>, crate::Error> {
        let outcome = Outcome::from(layer);
        let Some(earlier) = &self.executor.earlier else { return self.end(outcome, None, false) };
        let outcome = outcome.with_content(self.executor.pack);
        let record =
            if earlier.covers(self.step) { earlier.record(self.step, self.by_content, &outcome) } else { None };
        self.end(outcome, record, false)
    }

    /// A step ends that was made, now or before.
    pub(super) fn end(
        self,
        outcome: Outcome,
        record: Option<NewStep>,
        is_cached: bool,
    ) -> Result<Option<LayerRef>, crate::Error> {
        let executor = self.executor;
        let layer = outcome.layer;
        let size = layer.as_ref().map(|layer| layer.size);
        executor.progress.step_done(&self.name, StepDone { time: self.start.elapsed(), size, is_cached });
        if !is_cached {
            if let (Some(layer), Some(index)) = (&layer, &outcome.index) {
                self.blobs.made(layer, index);
            }
            executor.done.remember(self.step, executor.pack, outcome);
        }
        // What the cache has is not here, and goes from there where it has to.
        let here = layer.filter(|_| !is_cached);
        if self.wanted && here.is_some() || record.is_some() {
            (executor.finished)(Finished { layer: here, wanted: self.wanted, record })?;
        }
        Ok(layer)
    }
}
