//! The same Dockerfiles, built by this project and by others, one after the other: how long it takes, and with how much
//! processor time and memory.
//!
//! Every build starts from nothing but what a registry on loopback holds, and pushes to it. That registry, and all state of
//! the builders, is new for each [`Workload`] and each round, in memory where there is enough of it. Ours runs in a container
//! without privileges; the others are root, in the root that the [`oracle`](crate::oracle) has them from.

mod builder;
mod group;
mod table;
mod workload;

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::time::Duration;

pub use builder::Builder;
pub use table::table;
pub use workload::Workload;

use crate::error::At;
use crate::oracle::Oracle;
use crate::{Context, Executor, Registry, cache};

/// A memory file system with this much room is where everything happens.
const ROOM: u64 = 8 << 30;

/// Errors of the harness, and reasons for which a builder cannot be had.
pub type Result<T, E = Box<dyn std::error::Error>> = std::result::Result<T, E>;

/// What is built, by whom and how.
#[derive(Clone, Debug)]
pub struct Plan {
    /// What.
    pub workloads: Vec<Workload>,
    /// By whom. In each round they take turns.
    pub builders: Vec<Builder>,
    /// The number of rounds.
    pub rounds: usize,
    /// With a cache in the registry, which is empty. BuildKit as Docker has it can write none, and does without.
    pub cache: bool,
    /// How our layers are compressed, where not by default.
    pub compression: Option<String>,
    /// More build arguments, for all.
    pub arguments: Vec<String>,
    /// Our executable, where it is not to be built from this workspace.
    pub executable: Option<PathBuf>,
    /// A directory for what the builders print, a file for each build.
    pub logs: Option<PathBuf>,
    /// Where everything happens, where that is not chosen by the room that there is.
    pub place: Option<PathBuf>,
}

/// One build.
#[derive(Clone, Debug)]
pub struct Measurement {
    /// Of what.
    pub workload: Workload,
    /// By whom.
    pub builder: Builder,
    /// What it took.
    pub cost: Cost,
}

/// What a build took.
#[derive(Clone, Copy, Debug)]
pub struct Cost {
    /// From the start of the builder's command to its end. Daemons are there before.
    pub wall: Duration,
    /// The time of all processors, for everything: daemons from their start on, and what the RUNs themselves did.
    pub processors: Duration,
    /// The most memory, in bytes, that the builder's own processes were seen with: neither the page cache nor the RUNs.
    pub own_memory: u64,
    /// The same with the RUNs, where the control groups of this machine tell.
    pub all_memory: Option<u64>,
}

/// Carries out the plan, and tells every measurement as soon as it is there.
pub fn compare(plan: &Plan, tell: &mut dyn FnMut(&Measurement)) -> Result<Vec<Measurement>> {
    let place = plan.place.clone().map_or_else(place, Ok)?;
    // What cannot be written is better known before hours of measuring.
    if let Some(directory) = &plan.logs {
        fs::create_dir_all(directory).at("make", directory)?;
    }
    let ours = plan.builders.iter().any(|builder| builder.is_ours()).then(|| match &plan.executable {
        Some(program) => Executor::of(program),
        None => Executor::build(),
    });
    let others = plan.builders.iter().any(|builder| !builder.is_ours()).then(Oracle::obtain);
    let (ours, others) = (ours.transpose()?, others.transpose()?);
    let mut contexts = BTreeMap::new();
    for &workload in &plan.workloads {
        // All that takes long to make is made before anything is measured.
        workload.bases().iter().try_for_each(|base| base.layout().map(drop))?;
        contexts.insert(workload, workload.fill(Context::new_in(&place)?)?);
    }
    let mut measurements = Vec::new();
    for round in 1..=plan.rounds {
        for (&workload, context) in &contexts {
            let registry = Registry::start_in(&place)?;
            workload.bases().iter().try_for_each(|base| registry.hold(*base).map(drop))?;
            for &builder in &plan.builders {
                let build =
                    builder::Build { plan, place: &place, registry: &registry, context: context.path(), builder };
                let (cost, output) = build.carry_out(ours.as_ref(), others.as_ref())?;
                if let Some(directory) = &plan.logs {
                    let file = directory.join(format!("{}-{}-{round}.log", workload.name(), builder.name()));
                    fs::write(&file, output.to_string()).at("write", &file)?;
                }
                let measurement = Measurement { workload, builder, cost };
                tell(&measurement);
                measurements.push(measurement);
            }
        }
    }
    Ok(measurements)
}

/// Where everything happens: disks write when they like to.
fn place() -> Result<PathBuf> {
    let memory = PathBuf::from("/dev/shm");
    let room = rustix::fs::statvfs(&memory).map_or(0, |stat| stat.f_bavail * stat.f_frsize);
    if room < ROOM { Ok(cache::directory()?) } else { Ok(memory.join("yadokari-tests")) }
}
