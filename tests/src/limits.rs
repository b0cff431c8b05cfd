//! Builds in containers with little memory.

use crate::{Context, Executor, Output, Registry, Result, Variant};

/// Where a file system can hold an overlay's upper directory.
const VOLUME: &str = "/volume";

/// Builds a Dockerfile and pushes the image under `name`. The container has `memory` bytes, if a limit is given, its page
/// cache included, and what is needed for `driver`.
pub fn build_within(
    memory: Option<u64>,
    registry: &Registry,
    driver: &str,
    dockerfile: &str,
    name: &str,
) -> Result<Output> {
    let context = Context::new()?.file("Dockerfile", dockerfile)?;
    let (volume, destination) = (Context::new()?, registry.reference(name));
    let in_place = driver == "in-place";
    let variant = if in_place { Variant::Docker } else { Variant::Unconfined };
    let mut container = Executor::build()?.container(variant).readonly_volume(context.path(), "/workspace");
    if let Some(bytes) = memory {
        container = container.memory(bytes);
    }
    let job = Executor::job(registry).args(["--driver", driver, "--destination", &destination]);
    if in_place {
        container.run(job)
    } else {
        container.volume(volume.path(), VOLUME).run(job.args(["--work-dir", VOLUME]))
    }
}
