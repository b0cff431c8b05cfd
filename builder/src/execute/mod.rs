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
mod holders;
mod interrupt;
mod mounts;
mod readers;
mod remote;
mod stage;
mod transfer;
mod unpack;
mod upcoming;
mod users;
mod work_dir;

use yadokari_layers::{Key, Timestamp, pack};

use crate::context::{Context, Contexts};
use crate::output::Finished;
use crate::plan::{LayerRef, Origin, Plan};
use crate::progress::Progress;
use crate::sandbox::{Probe, Settings, doctor_lines, probe};
use crate::secrets::{Agents, Secrets};

pub use blobs::Fetch;
pub use earlier::{Done, Earlier};
pub use holders::{Hold, Holders};
pub use interrupt::Interrupt;
pub use mounts::check;
pub use readers::{Pending, Readers};
pub use upcoming::Upcoming;
pub use users::{Identity, UnknownName, identity, owner};
pub use work_dir::WorkDir;

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
    /// How layers are written.
    pub pack: &'a pack::Options,
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
    /// Whom to tell.
    pub progress: &'a Progress,
    /// Ends the build early.
    pub interrupt: &'a Interrupt,
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
}

impl Executor<'_> {
    /// Executes what is needed of the plan, each stage after those it needs. The result is in the plan's order.
    pub fn execute(&self) -> Result<Vec<StageResult>, crate::Error> {
        let blobs = blobs::Blobs::new(self.work, self.fetch);
        let chain = self.plan.target_chain();
        let upcoming = self.upcoming();
        let mut results: Vec<StageResult> = Vec::new();
        for position in 0..self.plan.stages.len() {
            if !upcoming.needs(position) {
                results.push(StageResult::default());
                continue;
            }
            let run = stage::StageRun::new(self, &blobs, &results, position)?;
            let result = run.execute(chain.contains(&position))?;
            results.push(result);
        }
        Ok(results)
    }

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
        Some(driver) => progress.info(&format!("sandbox: {driver}")),
        None => return Err(crate::Error::NoDriver(doctor_lines(&probe).join("\n"))),
    }
    Ok(probe)
}

#[cfg(test)]
mod tests;
