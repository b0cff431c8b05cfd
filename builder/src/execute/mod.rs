//! From steps to layers.
//!
//! Instructions are unknown here; there are three operations. COPY and WORKDIR are worked out on the
//! [`Tree`](yadokari_layers::Tree) of the stage. A root file system is made when the first RUN of a stage needs one, and
//! kept up to date from then on: a layer that a COPY makes is put on it like any other.
//!
//! ```text
//!  Op::Run ─sandbox→ tar ┐        what its mounts show is provided to the sandbox before
//!  Op::Copy ──placing────┼─→ Changes ─pack→ Layer ─→ uploads, and the stage's tree
//!  Op::Mkdir ─placing────┘
//! ```

mod blobs;
mod copy;
mod earlier;
mod ending;
mod holders;
mod interrupt;
mod mounts;
mod readers;
mod remote;
mod schedule;
mod squash;
mod stage;
mod transfer;
mod unpack;
mod upcoming;
mod users;
mod work_dir;

use std::collections::HashSet;
use std::num::NonZeroUsize;
use std::sync::OnceLock;

use yadokari_layers::{Growing, Key, RelPath, Timestamp, pack};

use crate::context::{Context, Contexts};
use crate::output::Finished;
use crate::plan::{LayerRef, Origin, Plan};
use crate::progress::Progress;
use crate::sandbox::{Probe, Settings, doctor_lines, probe};
use crate::secrets::{Agents, Secrets};
use crate::trust::RunAuthorities;

pub use blobs::{Begun, Blobs, Fetch};
pub use earlier::{Done, Earlier};
pub use holders::{Hold, Holders};
pub use interrupt::Interrupt;
pub use mounts::check;
pub use readers::{Pending, Readers};
pub use squash::Merged;
pub use stage::FailedRoot;
pub use upcoming::Upcoming;
pub use users::{Identity, UnknownName, identity, owner};
pub use work_dir::WorkDir;

use schedule::{Job, Node, Schedule};
use stage::StageRun;

/// Files of the host that make names resolve in a RUN. They never enter a layer.
#[derive(Debug, Clone, Default)]
pub struct NetworkFiles {
    /// `/etc/resolv.conf`
    pub resolv_conf: Vec<u8>,
    /// `/etc/hosts`
    pub hosts: Vec<u8>,
    /// The host's name.
    pub hostname: String,
}

/// All that executing a plan needs.
pub struct Executor<'a> {
    /// What is done.
    pub plan: &'a Plan,
    /// Where COPY takes files from.
    pub contexts: &'a Contexts,
    /// What steps made so far, in this plan and in those for other platforms.
    pub done: &'a Done,
    /// What the lines of progress begin with: the platform, where there are several.
    pub label: &'a str,
    /// What earlier builds made.
    pub earlier: Option<Earlier<'a>>,
    /// Says which blobs are still going to be read.
    pub readers: &'a Readers<'a>,
    /// The position of the plan among those that it knows.
    pub number: usize,
    /// Brings layers that were not made here.
    pub fetch: &'a dyn Fetch,
    /// All layers that this build has to do with, whatever it builds.
    pub blobs: &'a Blobs<'a>,
    /// How layers are written.
    pub pack: &'a pack::Options,
    /// Whether all layers on top of the base image become one.
    pub squash: bool,
    /// Paths that no step may change.
    pub ignored: &'a [RelPath],
    /// Where blobs and roots are.
    pub work: &'a WorkDir,
    /// The chosen driver, when the plan has a RUN.
    pub sandbox: Option<(&'a Probe, &'a Settings)>,
    /// What RUN steps may mount.
    pub secrets: &'a Secrets,
    /// The SSH agents that RUN steps may mount.
    pub agents: &'a Agents,
    /// For RUN steps.
    pub network_files: &'a NetworkFiles,
    /// Whom RUN steps trust beside the authorities of their image.
    pub trust: Option<&'a RunAuthorities>,
    /// Whom to tell.
    pub progress: &'a Progress,
    /// Ends the build early.
    pub interrupt: &'a Interrupt,
    /// Told of layers of the image while they are being written, if nobody can have made the same ones before.
    pub begun: &'a (dyn Fn(&Growing) + Sync),
    /// Takes the root in which a command failed, where that is to be kept.
    pub failed: Option<&'a (dyn Fn(FailedRoot) + Sync)>,
    /// Takes what steps have made, as soon as it is there.
    pub finished: &'a (dyn Fn(Finished) -> Result<(), crate::Error> + Sync),
}

/// What became of a stage. Of one that nothing needed, nothing did.
#[derive(Debug, Clone, Default)]
pub struct StageResult {
    /// All layers, the lowest first.
    pub layers: Vec<LayerRef>,
    /// For each step, the layer that it made, if it changed anything.
    pub made: Vec<Option<LayerRef>>,
    /// What stands for all that the stage holds.
    pub(crate) state: Option<Key>,
    /// What the layers that were made on top of the base image have become, where they were merged.
    pub merged: Option<Merged>,
}

/// What became of the stages of a plan, as far as they are done.
struct Results(Vec<OnceLock<StageResult>>);

impl Results {
    /// A stage that is done. Nobody asks for another one: stages begin after those that they are based on, and steps after
    /// those that they take files from.
    fn of(&self, stage: usize) -> &StageResult {
        self.0[stage].get().expect("it is waited for before anything is taken from it")
    }
}

/// A plan whose stages are under way.
struct PlanRun<'a> {
    executor: &'a Executor<'a>,
    upcoming: Upcoming<'a>,
    results: Results,
    /// The stages that the layers of the image come from.
    chain: Vec<usize>,
    /// The steps of such stages, of this plan and of the others.
    of_images: &'a HashSet<Key>,
}

/// Executes what is needed of the plans, `jobs` stages at once, each as soon as what it needs is there. The results are in the
/// order of the plans and of their stages, and do not depend on the number of jobs. When this returns, nothing runs any more.
pub fn execute(
    executors: &[Executor<'_>],
    jobs: NonZeroUsize,
    interrupt: &Interrupt,
) -> Result<Vec<Vec<StageResult>>, crate::Error> {
    let chains = executors.iter().map(|executor| (executor.plan, executor.plan.target_chain()));
    let steps = chains.flat_map(|(plan, chain)| chain.into_iter().flat_map(|stage| &plan.stages[stage].steps));
    let of_images = steps.map(|step| step.key).collect();
    let runs: Vec<PlanRun<'_>> = executors.iter().map(|executor| PlanRun::new(executor, &of_images)).collect();
    let schedule = Schedule::new(jobs, runs.iter().enumerate().flat_map(|(plan, run)| run.stages(plan)), interrupt);
    std::thread::scope(|scope| {
        while let Some(job) = schedule.begin() {
            let run = &runs[job.node().0];
            scope.spawn(move || run.execute(job));
        }
    });
    schedule.end()?;
    let results = runs.into_iter().zip(executors).map(|(run, executor)| {
        let results = run.results.0.into_iter().map(|result| result.into_inner().unwrap_or_default());
        let mut results: Vec<StageResult> = results.collect();
        if executor.squash {
            executor.merge(&mut results)?;
        }
        Ok(results)
    });
    results.collect()
}

impl<'a> PlanRun<'a> {
    fn new(executor: &'a Executor<'a>, of_images: &'a HashSet<Key>) -> Self {
        let results = Results(executor.plan.stages.iter().map(|_| OnceLock::new()).collect());
        Self { executor, upcoming: executor.upcoming(), results, chain: executor.plan.target_chain(), of_images }
    }

    /// What is needed of it as the plan at a position, each stage with the one that it is based on.
    fn stages(&self, plan: usize) -> impl Iterator<Item = (Node, Option<Node>)> {
        self.upcoming.needed().map(move |(stage, base)| ((plan, stage), base.map(|base| (plan, base))))
    }

    /// Works on a stage until it is done or has failed.
    fn execute(&self, job: Job<'_>) {
        let (_, stage) = job.node();
        // Of layers that are merged nobody but the cache wants one.
        let wanted = self.chain.contains(&stage) && !self.executor.squash;
        let done = StageRun::new(self, &job, stage).execute(wanted);
        let done = done.map_err(|error| self.executor.blobs.blamed(error));
        // It is set once, since a stage begins once.
        job.end(done.map(|result| _ = self.results.0[stage].set(result)));
    }
}

impl Executor<'_> {
    /// The directory that the plan takes files from.
    fn directory(&self, origin: &Origin) -> &Context {
        match origin {
            Origin::Named(name) => self.contexts.directory(name).expect("the plan found it there"),
            _ => self.contexts.main(),
        }
    }

    /// The time of what is made now.
    fn now(&self) -> Timestamp {
        made_at(crate::clock(), self.pack.clamp)
    }
}

/// SOURCE_DATE_EPOCH where there is one, but nothing is made in the future.
fn made_at(clock: i64, epoch: Option<i64>) -> Timestamp {
    Timestamp::from_secs(epoch.map_or(clock, |epoch| epoch.min(clock)))
}

/// Chooses the driver by trying.
pub fn choose_driver(settings: &Settings, progress: &Progress) -> Result<Probe, crate::Error> {
    let probe = probe(settings);
    match probe.chosen {
        Some(driver) if settings.isolated && !driver.is_isolated() => {
            return Err(crate::Error::NotIsolated { driver, drivers: doctor_lines(&probe).join("\n") });
        }
        Some(driver) => progress.info(&format!("sandbox: {driver}")),
        None => return Err(crate::Error::NoDriver(doctor_lines(&probe).join("\n"))),
    }
    Ok(probe)
}

#[cfg(test)]
mod tests;
