//! From a Dockerfile to an image in a registry, without a daemon and without privilege.
//!
//! ```text
//!  text ─parse→ Dockerfile ─plan→ Plan ─execute→ Layers ─assemble→ Image ─push→ registry
//! ```
//!
//! [`build`] is this line. Each arrow is a module:
//!
//! - [`dockerfile`] parses, [`plan`] lowers to three operations: pure, save that planning hashes the [`context`].
//! - [`check`] does these two alone and says what they find.
//! - [`sources`] fetches what the plan needs from elsewhere.
//! - [`execute`] turns operations into layers. Only a RUN needs a root file system, and gets it from a [`sandbox`].
//! - [`image`] holds configs and manifests as values; [`output`] puts them where they should go.
//! - [`secrets`] are what a RUN may see and an image never holds.
//! - [`cli`] reads arguments, environment and files of the user; [`progress`] talks to the user. Nothing else does.
//!
//! Deliberately absent: a daemon, a store that outlives a build, and any way to reach the network from a RUN's files.

pub mod check;
pub mod cli;
pub mod context;
mod csv;
pub mod dockerfile;
mod error;
pub mod execute;
pub mod image;
pub mod output;
pub mod plan;
pub mod progress;
pub mod sandbox;
pub mod secrets;
pub mod sources;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use yadokari_layers::{Digest, pack};

pub use error::{Error, ExitCode};

use context::Context;
use dockerfile::Source;
use execute::{Executor, Interrupt};
use output::{Destination, Uploads};
use plan::Options;
use progress::Progress;
use secrets::{Agents, Secrets};
use sources::Sources;

/// Everything that a build is asked to do.
#[derive(Debug)]
pub struct Request {
    /// The Dockerfile's text, under the name that messages give it.
    pub dockerfile: Source,
    /// Where it is, to find the ignore file beside it.
    pub dockerfile_path: PathBuf,
    /// The directory that COPY and ADD take files from.
    pub context: PathBuf,
    /// What the plan depends on.
    pub options: Options,
    /// Where the image goes. With none, it is built and forgotten.
    pub destinations: Vec<Destination>,
    /// How layers are written. Their latest time is the plan's.
    pub pack: pack::Options,
    /// Where RUN steps run.
    pub sandbox: sandbox::Settings,
    /// What RUN steps may mount, and what fetches of private sources log in with.
    pub secrets: Secrets,
    /// The SSH agents that RUN steps may mount.
    pub agents: Agents,
    /// `/etc/resolv.conf` and `/etc/hosts` for RUN steps.
    pub network_files: execute::NetworkFiles,
    /// The client of all registries.
    pub client: yadokari_registry::Client,
}

/// A finished build.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Built {
    /// The digest of the image's manifest.
    pub digest: Digest,
    /// The compressed size of its layers in bytes.
    pub size: u64,
    /// The number of its layers.
    pub layers: usize,
}

/// Builds an image: the whole line, in its order.
pub async fn build(request: Request, progress: Arc<Progress>, interrupt: Interrupt) -> Result<Built, Error> {
    let file = dockerfile::parse(&request.dockerfile)?;
    let context = Context::open(&request.context, &request.dockerfile_path)?;
    let sources = Sources::new(request.client.clone(), request.options.platform.clone());
    let plan = sources.plan(&file, &request.options, &context, &progress).await;
    let warn = |warning: &dockerfile::Diagnostic| progress.warning(&warning.render(&request.dockerfile, false));
    // What is found often explains why there is no plan.
    let plan = plan.inspect_err(|_| sources.found(&file, &request.options, &context).iter().for_each(warn))?;
    plan.warnings.iter().for_each(warn);
    check::fail_on_findings(&plan.warnings, plan.findings_are_errors)?;
    // The file may say itself what time it is.
    let pack = pack::Options { clamp: plan.epoch, ..request.pack };
    let work = execute::WorkDir::create(&request.sandbox.work_dir)?;
    let probe = execute::choose_driver(&plan, &request.sandbox, &progress)?;
    let driver = probe.as_ref().and_then(|probe| probe.chosen);
    execute::check(&plan, driver, &request.secrets, &request.agents)?;
    let uploads = Uploads::start(&request.destinations, &request.client, &sources, work.blobs()).await?;
    let executor = Executor {
        plan: &plan,
        context: &context,
        fetch: &sources.fetcher(&progress),
        pack: &pack,
        work: &work,
        sandbox: probe.as_ref().map(|probe| (probe, &request.sandbox)),
        secrets: &request.secrets,
        agents: &request.agents,
        network_files: &request.network_files,
        progress: &progress,
        interrupt: &interrupt,
        finished: &|layer| uploads.send(layer),
    };
    let stages = tokio::task::block_in_place(|| executor.execute())?;
    let image = output::assemble(&plan, &stages, pack.clamp);
    let digest = uploads.finish(&image, &progress).await?;
    Ok(Built { digest, size: image.layers.iter().map(|layer| layer.size).sum(), layers: image.layers.len() })
}

/// The time in whole seconds since the Unix epoch.
fn clock() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs() as i64)
}
