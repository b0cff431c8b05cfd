//! What a RUN costs that changes one file of many: finding that file, packing it, and all around it.

use crate::{Base, Context, Executor, Registry, Result, Variant};

/// Where a filesystem can hold an overlay's upper directory.
const VOLUME: &str = "/volume";

/// What one RUN took, in seconds, as the build's log says.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct RunTime {
    /// From its beginning to the end of its layer.
    pub whole: f64,
    /// What finding its changes took of that.
    pub changes: f64,
}

/// Builds `runs` RUNs, each of which changes one file, on a base of `files`, with `driver` in a container that has it.
/// Returns what each RUN took. The first one unpacks the base.
pub fn run_times(registry: &Registry, driver: &str, files: u32, runs: usize) -> Result<Vec<RunTime>> {
    registry.hold(Base::Files(files))?;
    let lines: String = (0..runs).map(|n| format!("RUN echo {n} > /srv/changed\n")).collect();
    let context = Context::new()?.file("Dockerfile", format!("FROM files:{files}\n{lines}"))?;
    let (volume, destination) = (Context::new()?, registry.reference(&format!("snapshot/{driver}:1")));
    let in_place = driver == "in-place";
    let variant = if in_place { Variant::Docker } else { Variant::Unconfined };
    let job = Executor::job(registry).args(["--driver", driver, "--destination", &destination, "--verbosity", "debug"]);
    let container = Executor::build()?.container(variant).readonly_volume(context.path(), "/workspace");
    let output = if in_place {
        container.run(job)
    } else {
        container.volume(volume.path(), VOLUME).run(job.args(["--work-dir", VOLUME]))
    };
    let output = output?.ok(driver)?;
    let changes = output.stderr.lines().filter_map(|line| seconds(line, "changes looked for in "));
    let whole = output.stderr.lines().filter_map(|line| seconds(line, "done in "));
    Ok(whole.zip(changes).map(|(whole, changes)| RunTime { whole, changes }).collect())
}

/// The time in `[stage-0 2/10] done in 0.21 s, 140 B` after `what` stands there.
fn seconds(line: &str, what: &str) -> Option<f64> {
    line.split_once("] ")?.1.strip_prefix(what)?.split(' ').next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_steps_time_is_read() {
        assert_eq!(seconds("[stage-0 2/10] done in 0.21 s, 140 B", "done in "), Some(0.21));
        assert_eq!(seconds("[stage-0 2/10] RUN echo done in 3", "done in "), None);
    }
}
