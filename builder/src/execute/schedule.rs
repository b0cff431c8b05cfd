//! Which stages are worked on when.
//!
//! A stage begins as soon as the one that it is based on is done and one of the jobs is free. It has the job until it ends,
//! save while it waits: for a stage that the step which it came to takes files from, or for a step that another stage is
//! executing already. What comes before such a step, and the unpacking of its base, so overlaps with what it waits for; but the
//! stage that it is going to wait for unpacks first.
//!
//! Of those that could have a job, the first in the order of the plans and of their stages gets it. That is the order of the
//! file, and no stage takes anything from a later one; so with one job the stages are done one after the other in it, none ever
//! waits, and with any number of jobs the first of all that are left has what it needs.

use std::collections::{BTreeMap, BTreeSet};
use std::num::NonZeroUsize;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

use super::Interrupt;
use crate::Error;

/// A plan and a stage of it, by their positions.
pub(super) type Node = (usize, usize);

/// The needed stages of all plans, and what each is at.
pub(super) struct Schedule<'a> {
    jobs: NonZeroUsize,
    interrupt: &'a Interrupt,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug)]
struct State {
    stages: BTreeMap<Node, At>,
    /// Those that have their root file system.
    rooted: BTreeSet<Node>,
    failure: Option<Error>,
    /// Whether nothing more begins.
    is_over: bool,
}

/// What a stage is at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum At {
    /// It has not begun. It can when the stage that it is based on is done.
    Outstanding(Option<Node>),
    /// It has a job.
    Working,
    /// It has begun, and waits for others.
    Waiting,
    /// It has begun, and could go on if it had a job.
    Ready,
    /// It has ended, well or not.
    Ended,
}

impl State {
    fn is_ended(&self, node: Node) -> bool {
        self.stages.get(&node) == Some(&At::Ended)
    }

    /// Who gets the next job, if there is one.
    fn next(&self, jobs: NonZeroUsize) -> Option<Node> {
        if self.stages.values().filter(|at| **at == At::Working).count() >= jobs.get() {
            return None;
        }
        let could_work = |at: &At| match at {
            At::Outstanding(base) => base.is_none_or(|base| self.is_ended(base)),
            At::Ready => true,
            At::Working | At::Waiting | At::Ended => false,
        };
        self.stages.iter().find(|(_, at)| could_work(at)).map(|(node, _)| *node)
    }
}

impl<'a> Schedule<'a> {
    /// A schedule of these stages, each with the one that it is based on. When one of them fails, `interrupt` ends the others.
    pub(super) fn new(
        jobs: NonZeroUsize,
        stages: impl IntoIterator<Item = (Node, Option<Node>)>,
        interrupt: &'a Interrupt,
    ) -> Self {
        let stages = stages.into_iter().map(|(node, base)| (node, At::Outstanding(base))).collect();
        let state = State { stages, rooted: BTreeSet::new(), failure: None, is_over: false };
        Self { jobs, interrupt, state: Mutex::new(state), changed: Condvar::new() }
    }

    /// Waits until the next stage can begin. `None` when all have begun, or none will any more.
    pub(super) fn begin(&self) -> Option<Job<'_>> {
        let mut state = self.lock();
        loop {
            let is_outstanding = |at: &At| matches!(at, At::Outstanding(_));
            if state.is_over || !state.stages.values().any(is_outstanding) {
                return None;
            }
            match state.next(self.jobs) {
                Some(node) if is_outstanding(&state.stages[&node]) => {
                    self.set(&mut state, node, At::Working);
                    return Some(Job { schedule: self, node });
                }
                _ => state = self.wait(state),
            }
        }
    }

    /// How it ended, when all jobs have: the first failure, which the others followed from.
    pub(super) fn end(self) -> Result<(), Error> {
        let state = self.state.into_inner().unwrap_or_else(PoisonError::into_inner);
        state.failure.map_or(Ok(()), Err)
    }

    /// Notes a failure. One that ends the build ends what other stages are doing, too; where only a layer of the cache is
    /// not what it should be, they finish their steps, which will not have to be executed again.
    fn fail(&self, state: &mut State, error: Error) {
        state.is_over = true;
        match (&state.failure, &error) {
            // Neither is a cause.
            (_, Error::Abandoned) | (Some(_), Error::Stale { .. }) => {}
            (None, Error::Stale { .. }) => state.failure = Some(error),
            (None | Some(Error::Stale { .. }), _) => {
                state.failure = Some(error);
                self.interrupt.abandon();
            }
            (Some(_), _) => {}
        }
    }

    fn set(&self, state: &mut State, node: Node, at: At) {
        state.stages.insert(node, at);
        self.changed.notify_all();
    }

    fn wait<'g>(&self, state: MutexGuard<'g, State>) -> MutexGuard<'g, State> {
        self.changed.wait(state).unwrap_or_else(PoisonError::into_inner)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The right to work on a stage. Dropping it without an end, as a panic does, ends the whole schedule.
pub(super) struct Job<'s> {
    schedule: &'s Schedule<'s>,
    node: Node,
}

impl Job<'_> {
    /// What it is the right to work on.
    pub(super) fn node(&self) -> Node {
        self.node
    }

    /// Fails when nothing more is to begin.
    pub(super) fn check(&self) -> Result<(), Error> {
        if self.schedule.lock().is_over { Err(Error::Abandoned) } else { Ok(()) }
    }

    /// Whether these stages of the same plan are done.
    pub(super) fn is_given(&self, stages: &[usize]) -> bool {
        let state = self.schedule.lock();
        stages.iter().all(|stage| state.is_ended((self.node.0, *stage)))
    }

    /// Waits until these stages of the same plan are done. Meanwhile somebody else has the job.
    pub(super) fn wait_for(&self, stages: &[usize]) -> Result<(), Error> {
        let mut state = self.schedule.lock();
        let is_given = |state: &State| stages.iter().all(|stage| state.is_ended((self.node.0, *stage)));
        if state.is_over || is_given(&state) {
            return if state.is_over { Err(Error::Abandoned) } else { Ok(()) };
        }
        self.schedule.set(&mut state, self.node, At::Waiting);
        while !state.is_over && !is_given(&state) {
            state = self.schedule.wait(state);
        }
        self.resume(state)
    }

    /// Says that the stage has its root file system.
    pub(super) fn has_root(&self) {
        self.schedule.lock().rooted.insert(self.node);
        self.schedule.changed.notify_all();
    }

    /// Waits while one of these stages of the same plan, which are going to be waited for anyway, is at work and has no root
    /// file system yet: it gets on with its own sooner when two are not made at the same time.
    pub(super) fn give_way(&self, stages: &[usize]) -> Result<(), Error> {
        let is_behind = |state: &State| {
            let mut nodes = stages.iter().map(|stage| (self.node.0, *stage));
            nodes.any(|node| state.stages.get(&node) == Some(&At::Working) && !state.rooted.contains(&node))
        };
        let mut state = self.schedule.lock();
        if !is_behind(&state) {
            return Ok(());
        }
        self.schedule.set(&mut state, self.node, At::Waiting);
        while !state.is_over && is_behind(&state) {
            state = self.schedule.wait(state);
        }
        self.resume(state)
    }

    /// Lets somebody else have the job while `wait` waits for what will not take long to end when the schedule is over.
    pub(super) fn lend(&self, wait: impl FnOnce()) -> Result<(), Error> {
        self.schedule.set(&mut self.schedule.lock(), self.node, At::Waiting);
        wait();
        self.resume(self.schedule.lock())
    }

    fn resume(&self, mut state: MutexGuard<'_, State>) -> Result<(), Error> {
        self.schedule.set(&mut state, self.node, At::Ready);
        while !state.is_over && state.next(self.schedule.jobs) != Some(self.node) {
            state = self.schedule.wait(state);
        }
        if state.is_over {
            return Err(Error::Abandoned);
        }
        self.schedule.set(&mut state, self.node, At::Working);
        Ok(())
    }

    /// Ends the work. What others take from the stage must be in its place by now.
    pub(super) fn end(self, ended: Result<(), Error>) {
        let mut state = self.schedule.lock();
        if let Err(error) = ended {
            self.schedule.fail(&mut state, error);
        }
        self.schedule.set(&mut state, self.node, At::Ended);
    }
}

impl Drop for Job<'_> {
    fn drop(&mut self) {
        let mut state = self.schedule.lock();
        if !state.is_ended(self.node) {
            state.is_over = true;
            self.schedule.interrupt.abandon();
            self.schedule.set(&mut state, self.node, At::Ended);
        }
    }
}

#[cfg(test)]
mod tests;
