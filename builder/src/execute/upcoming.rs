//! What of a plan is still to be done, by what is made already.

use yadokari_layers::pack;

use crate::plan::{Base, Op, Origin, Plan, Run, Step};

use super::Executor;
use super::earlier::{Done, Earlier};

/// The stages of which something is needed, and the steps that have to be executed for it.
///
/// A stage is needed for the image, as the base of a needed one, or because a step takes files from it that has to be
/// executed. So a stage whose files were all copied in an earlier build is neither built nor pulled.
#[derive(Debug)]
pub struct Upcoming<'p> {
    plan: &'p Plan,
    /// For each stage whether it is needed, and for each of its steps whether it is made.
    stages: Vec<(bool, Vec<bool>)>,
}

impl<'p> Upcoming<'p> {
    /// Looks at a plan.
    pub fn of(plan: &'p Plan, pack: &pack::Options, done: &Done, earlier: Option<&Earlier<'_>>) -> Self {
        let is_made =
            |step: &Step| done.find(step, pack).or_else(|| earlier.and_then(|earlier| earlier.find(step))).is_some();
        let steps = |stage: &'p crate::plan::Stage| stage.steps.iter().map(is_made).collect();
        let mut stages: Vec<(bool, Vec<bool>)> = plan.stages.iter().map(|stage| (false, steps(stage))).collect();
        // Stages come after those they need.
        if let Some((needed, _)) = stages.last_mut() {
            *needed = true;
        }
        for position in (0..stages.len()).rev() {
            if !stages[position].0 {
                continue;
            }
            let stage = &plan.stages[position];
            let missed = stage.steps.iter().zip(stages[position].1.clone()).filter(|(_, made)| !made);
            let taken = missed.flat_map(|(step, _)| step.op.taken()).map(|taken| taken.origin());
            let from = taken.filter_map(|origin| if let Origin::Stage(from) = origin { Some(*from) } else { None });
            let base = if let Base::Stage(below) = stage.base { Some(below) } else { None };
            from.chain(base).for_each(|needed| stages[needed].0 = true);
        }
        Self { plan, stages }
    }

    /// Whether anything of a stage is needed.
    pub fn needs(&self, stage: usize) -> bool {
        self.stages[stage].0
    }

    /// Whether a step of a stage is made.
    pub fn is_made(&self, stage: usize, step: usize) -> bool {
        self.stages[stage].1[step]
    }

    /// The steps of needed stages, each with its stage's position and whether it is made.
    pub fn steps(&self) -> impl Iterator<Item = (usize, &'p Step, bool)> {
        let needed = self.plan.stages.iter().zip(&self.stages).enumerate().filter(|(_, (_, (needed, _)))| *needed);
        needed.flat_map(|(position, (stage, (_, made)))| {
            stage.steps.iter().zip(made).map(move |(step, made)| (position, step, *made))
        })
    }

    /// The commands that have to be executed, with their steps.
    pub fn commands(&self) -> impl Iterator<Item = (&'p Step, &'p Run)> {
        let missed = self.steps().filter(|(_, _, made)| !made);
        missed.filter_map(|(_, step, _)| if let Op::Run(run) = &step.op { Some((step, run)) } else { None })
    }
}

impl Executor<'_> {
    /// What is still to be done.
    pub(super) fn upcoming(&self) -> Upcoming<'_> {
        Upcoming::of(self.plan, self.pack, self.done, self.earlier.as_ref())
    }
}
