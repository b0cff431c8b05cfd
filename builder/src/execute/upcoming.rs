//! What of a plan is still to be done, by what is made already.

use yadokari_layers::pack;

use crate::plan::{Base, Op, Origin, Plan, Run, Stage, Step};

use super::Executor;
use super::earlier::{Done, Earlier, Outcome};

/// The stages of which something is needed, and the steps that have to be executed for it.
///
/// A stage is needed for the image, as the base of a needed one, or because a step takes files from it that has to be
/// executed. So a stage whose files were all copied in an earlier build is neither built nor pulled.
#[derive(Debug)]
pub struct Upcoming<'p> {
    plan: &'p Plan,
    /// For each stage whether it is needed, and what of its steps is made.
    stages: Vec<(bool, Vec<Option<Made>>)>,
}

/// A step that is made.
#[derive(Debug, Clone)]
pub(super) struct Made {
    pub(super) outcome: Outcome,
    /// Whether an earlier build made it.
    pub(super) is_cached: bool,
}

impl<'p> Upcoming<'p> {
    /// Looks at a plan.
    pub fn of(plan: &'p Plan, pack: &pack::Options, done: &Done, earlier: Option<&Earlier<'_>>) -> Self {
        let made = |step: &Step| {
            let here = done.find(step, pack).map(|outcome| Made { outcome, is_cached: false });
            let before = || earlier?.find(step).map(|outcome| Made { outcome, is_cached: true });
            here.or_else(before)
        };
        let steps = |stage: &'p Stage| stage.steps.iter().map(made).collect();
        let mut stages: Vec<(bool, Vec<Option<Made>>)> =
            plan.stages.iter().map(|stage| (false, steps(stage))).collect();
        // Stages come after those they need.
        if let Some((needed, _)) = stages.last_mut() {
            *needed = true;
        }
        for position in (0..stages.len()).rev() {
            if !stages[position].0 {
                continue;
            }
            let stage = &plan.stages[position];
            let missed = stage.steps.iter().zip(&stages[position].1).filter(|(_, made)| made.is_none());
            let from: Vec<usize> = missed.flat_map(|(step, _)| taken_from(step)).chain(base(stage)).collect();
            from.into_iter().for_each(|needed| stages[needed].0 = true);
        }
        Self { plan, stages }
    }

    /// Whether anything of a stage is needed.
    pub fn needs(&self, stage: usize) -> bool {
        self.stages[stage].0
    }

    /// Whether a step of a stage is made.
    pub fn is_made(&self, stage: usize, step: usize) -> bool {
        self.made(stage, step).is_some()
    }

    /// What a step of a stage made. This is what was known when somebody looked at the plan: it holds until what is needed of
    /// the plan is executed, whatever the cache turns out to lack meanwhile, because whether another stage is needed was
    /// decided by it.
    pub(super) fn made(&self, stage: usize, step: usize) -> Option<&Made> {
        self.stages[stage].1[step].as_ref()
    }

    /// Whether a RUN of a stage will be executed, from a step on. Where the cache has to do with RUNs nobody can say: it may
    /// know what one makes as soon as it is known what is below it.
    pub(super) fn is_to_run(&self, stage: usize, from: usize, earlier: Option<&Earlier<'_>>) -> bool {
        let steps = self.plan.stages[stage].steps.iter().zip(&self.stages[stage].1).skip(from);
        let mut runs = steps.filter(|(step, made)| made.is_none() && matches!(step.op, Op::Run(_)));
        runs.any(|(step, _)| !earlier.is_some_and(|earlier| earlier.covers(step)))
    }

    /// The stages with commands to be executed that a stage waits for before it executes one itself, from one of its steps on.
    pub(super) fn awaited(&self, stage: usize, from: usize) -> Vec<usize> {
        let steps = self.plan.stages[stage].steps.iter().zip(&self.stages[stage].1).skip(from);
        let mut left = steps.filter(|(_, made)| made.is_none()).map(|(step, _)| step);
        let next = left.find(|step| matches!(step.op, Op::Run(_)) || !taken_from(step).is_empty());
        let taken = next.filter(|step| !matches!(step.op, Op::Run(_))).map(taken_from).unwrap_or_default();
        taken.into_iter().filter(|taken| self.is_to_run(*taken, 0, None)).collect()
    }

    /// The stages that are needed, each with the stage that it is based on.
    pub(super) fn needed(&self) -> impl Iterator<Item = (usize, Option<usize>)> {
        let needed = (0..self.stages.len()).filter(|stage| self.needs(*stage));
        needed.map(|stage| (stage, base(&self.plan.stages[stage])))
    }

    /// The steps of needed stages, each with its stage's position and whether it is made.
    pub fn steps(&self) -> impl Iterator<Item = (usize, &'p Step, bool)> {
        let needed = self.plan.stages.iter().zip(&self.stages).enumerate().filter(|(_, (_, (needed, _)))| *needed);
        needed.flat_map(|(position, (stage, (_, made)))| {
            stage.steps.iter().zip(made).map(move |(step, made)| (position, step, made.is_some()))
        })
    }

    /// The commands that have to be executed, with their steps.
    pub fn commands(&self) -> impl Iterator<Item = (&'p Step, &'p Run)> {
        let missed = self.steps().filter(|(_, _, made)| !made);
        missed.filter_map(|(_, step, _)| if let Op::Run(run) = &step.op { Some((step, run)) } else { None })
    }
}

/// The stage that a stage is based on.
fn base(stage: &Stage) -> Option<usize> {
    if let Base::Stage(below) = stage.base { Some(below) } else { None }
}

/// The stages that a step takes files from.
pub(super) fn taken_from(step: &Step) -> Vec<usize> {
    let taken = step.op.taken().into_iter().map(|taken| taken.origin());
    taken.filter_map(|origin| if let Origin::Stage(from) = origin { Some(*from) } else { None }).collect()
}

impl Executor<'_> {
    /// What is still to be done.
    pub(super) fn upcoming(&self) -> Upcoming<'_> {
        Upcoming::of(self.plan, self.pack, self.done, self.earlier.as_ref())
    }
}
