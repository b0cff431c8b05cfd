//! The root file system in which a command failed.

use super::{Compressing, StageRun};
use crate::plan::{LayerRef, Op};

/// A root file system as a command left it that failed, as layers. What was mounted for the command is not in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FailedRoot {
    /// The position of the plan among those that are executed.
    pub plan: usize,
    /// The position of the stage in the plan.
    pub stage: usize,
    /// The position of the step in the stage.
    pub step: usize,
    /// What the command exited with.
    pub code: u8,
    /// All layers, the lowest first. The last one is what the command changed, if it changed anything.
    pub layers: Vec<LayerRef>,
}

impl StageRun<'_> {
    /// Hands on the root in which the command of the step under way has failed, where somebody wants it. That this cannot be
    /// done is no failure of its own.
    pub(super) fn keep_root(&mut self, error: &crate::Error, packing: &mut Option<Compressing<'_>>) {
        let (crate::Error::Run { code, .. }, Some(failed)) = (error, self.executor.failed) else { return };
        let (plan, stage, step) = (self.executor.number, self.position, self.number);
        match self.root_as_it_is(packing) {
            Ok(layers) => failed(FailedRoot { plan, stage, step, code: *code, layers }),
            Err(error) => self.voice.warning(&format!("the root in which it failed cannot be kept: {error}")),
        }
    }

    /// The layers of the root as it is, what the last command changed included.
    fn root_as_it_is(&mut self, packing: &mut Option<Compressing<'_>>) -> Result<Vec<LayerRef>, crate::Error> {
        self.settle(packing)?;
        let changed = match &self.stage.steps[self.number].op {
            Op::Run(run) => self.commit(run, false, false)?.map(|packing| packing.finish()).transpose()?,
            Op::Copy(_) | Op::Mkdir(_) => None,
        };
        Ok(self.layers.iter().copied().chain(changed.as_ref().map(LayerRef::from)).collect())
    }
}
