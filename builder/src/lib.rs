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
//! - [`sources`] fetches what the plan needs from elsewhere: images, and what is [`remote`] in other ways.
//! - [`execute`] turns operations into layers. Only a RUN needs a root file system, and gets it from a [`sandbox`].
//! - [`image`] holds configs and manifests as values; [`output`] puts them where they should go.
//! - [`secrets`] are what a RUN may see and an image never holds.
//! - [`cli`] reads arguments, environment and files of the user; [`progress`] talks to the user. Nothing else does.
//!
//! Deliberately absent: a daemon, a store that outlives a build, and any way to reach the network from a RUN's files.

mod archive;
pub mod cache;
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
pub mod remote;
pub mod sandbox;
pub mod secrets;
pub mod sources;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use yadokari_layers::{Digest, Key, pack};
use yadokari_registry::Platform;

pub use error::{Error, ExitCode};

use context::{Context, Contexts};
use dockerfile::Source;
use execute::{Done, Executor, Interrupt};
use output::{Destination, Made, Uploads};
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
    /// Contexts beside it, by their names.
    pub named_contexts: Vec<(String, context::Source)>,
    /// What the plan depends on.
    pub options: Options,
    /// The platforms to build for, one after the other, when the result is an index of images. Without them the result
    /// is one image, for the platform of the options.
    pub index: Option<Vec<Platform>>,
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
    /// Where steps that were executed before are looked for, and written; `None` for no cache.
    pub cache: Option<cache::Settings>,
    /// Whether nothing is built where the destinations have an image of the same content already.
    pub skip_existing: bool,
    /// The client of all registries.
    pub client: yadokari_registry::Client,
}

/// A finished build.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Built {
    /// The digest of the image's manifest, or of the index of several images.
    pub digest: Digest,
    /// The compressed size of all layers in bytes.
    pub size: u64,
    /// The number of layers.
    pub layers: usize,
}

/// Builds an image: the whole line, in its order.
pub async fn build(request: Request, progress: Arc<Progress>, interrupt: Interrupt) -> Result<Built, Error> {
    let file = dockerfile::parse(&request.dockerfile)?;
    let context = Context::open(&request.context, &request.dockerfile_path)?;
    let contexts = Contexts::open(context, &request.named_contexts)?;
    let work = execute::WorkDir::create(&request.sandbox.work_dir)?;
    let secrets = request.secrets.clone();
    let remotes =
        remote::Fetcher::new(request.client.clone(), work.downloads(), Arc::new(move |name: &str| secrets.text(name)));
    let sources = Sources::new(request.client.clone());
    let platforms = request.index.clone().unwrap_or_else(|| vec![request.options.platform.clone()]);
    let (mut plans, mut said) = (Vec::new(), Vec::new());
    let mut warn = |warning: &dockerfile::Diagnostic| {
        // Most platforms have the same ones.
        if !said.contains(warning) {
            progress.warning(&warning.render(&request.dockerfile, false));
            said.push(warning.clone());
        }
    };
    // All platforms are planned before anything is executed for one.
    for platform in &platforms {
        let options = Options { platform: platform.clone(), ..request.options.clone() };
        let plan = sources.plan(&file, &options, &contexts, &remotes, &progress).await;
        // What is found often explains why there is no plan.
        let plan = plan.inspect_err(|_| sources.found(&file, &options, &contexts).iter().for_each(&mut warn))?;
        plan.warnings.iter().for_each(&mut warn);
        check::fail_on_findings(&plan.warnings, plan.findings_are_errors)?;
        plans.push(plan);
    }
    let probe = execute::choose_driver(&plans, &request.sandbox, &progress)?;
    let driver = probe.as_ref().and_then(|probe| probe.chosen);
    plans.iter().try_for_each(|plan| execute::check(plan, driver, &request.secrets, &request.agents))?;
    let uploads = Uploads::start(&request.destinations, &request.client, &sources, work.blobs()).await?;
    let done = Done::default();
    let mut images = Vec::new();
    for (plan, platform) in plans.iter().zip(&platforms) {
        let label = if platforms.len() > 1 { format!("{platform} ") } else { String::new() };
        // The file may say itself what time it is.
        let pack = pack::Options { clamp: plan.epoch, ..request.pack };
        let executor = Executor {
            plan,
            contexts: &contexts,
            done: &done,
            label: &label,
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
        images.push(output::assemble(plan, &stages, pack.clamp));
    }
    let made = match &request.index {
        Some(platforms) => Made::index(images.into_iter().zip(platforms.iter().cloned()).collect()),
        None => Made::image(images.remove(0)),
    };
    let digest = uploads.finish(&made, &progress).await?;
    Ok(Built { digest, size: made.layers().map(|layer| layer.size).sum(), layers: made.layers().count() })
}

/// Looks at the cache as a build would, and builds nothing.
pub async fn look_ahead(_request: &Request, _progress: &Progress) -> Result<cache::Outlook, Error> {
    Err(Error::Usage { flag: "yadokari plan", message: "it is not carried out yet".into() })
}

/// The content hash of what a build would make.
pub async fn content_key(_request: &Request, _progress: &Progress) -> Result<Key, Error> {
    Err(Error::Usage { flag: "yadokari key", message: "it is not carried out yet".into() })
}

/// The time in whole seconds since the Unix epoch.
fn clock() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs() as i64)
}

#[cfg(test)]
mod tests;
