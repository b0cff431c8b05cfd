//! What most tests begin with: a registry that holds the bases, and a container with the executor and a context in it.

use std::path::Path;

use yadokari_tests::{Base, Container, Executor, Job, Output, Registry, Result, Variant};

/// The SOURCE_DATE_EPOCH of all builds here.
pub(crate) const EPOCH: &str = "1000000000";

/// The volume of a container that has one, where overlayfs can hold an upper directory.
pub(crate) const VOLUME: &str = "/volume";

/// A registry with some bases in it.
pub(crate) fn registry(bases: &[Base]) -> Result<Registry> {
    let registry = Registry::start()?;
    bases.iter().try_for_each(|base| registry.hold(*base).map(drop))?;
    Ok(registry)
}

/// The executor's container with `context` as its workspace.
pub(crate) fn container(variant: Variant, context: &Path) -> Result<Container> {
    Ok(Executor::build()?.debug_container(variant).readonly_volume(context, "/workspace"))
}

/// A build of the context's `dockerfile` that pushes `name`. The build argument REGISTRY is the registry's address.
pub(crate) fn job(registry: &Registry, dockerfile: &str, name: &str) -> Job {
    job_at(registry.host(), dockerfile, name)
}

/// The same with a registry by its address.
pub(crate) fn job_at(host: &str, dockerfile: &str, name: &str) -> Job {
    let (destination, argument) = (format!("{host}/{name}"), format!("REGISTRY={host}"));
    let words = ["--dockerfile", dockerfile, "--destination", &destination, "--build-arg", &argument];
    Executor::job_at(host).env("SOURCE_DATE_EPOCH", EPOCH).args(words)
}

/// Everything that a command printed.
pub(crate) fn printed(output: &Output) -> String {
    format!("{}{}", output.stdout, output.stderr)
}
