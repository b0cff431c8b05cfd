//! From a Dockerfile to an image in a registry, without a daemon and without privilege.
//!
//! ```text
//!  text ─parse→ Dockerfile ─plan→ Plan ─look up→ Plan + hits ─execute→ Layers ─assemble→ Image ─push→ registry
//! ```
//!
//! [`build`] is this line. Each arrow is a module:
//!
//! - [`dockerfile`] parses, [`plan`] lowers to three operations: pure, save that planning hashes the [`context`].
//! - [`check`] does these two alone and says what they find.
//! - [`sources`] fetches what the plan needs from elsewhere: images, by the digests that a [`lock`] gives them, and what is
//!   [`remote`] in other ways.
//! - [`cache`] knows what steps made in earlier builds.
//! - [`execute`] turns operations into layers. Only a RUN needs a root file system, and gets it from a [`sandbox`].
//! - [`image`] holds configs and manifests as values; [`output`] puts them where they should go.
//! - [`secrets`] are what a RUN may see and an image never holds, and so is whom it [`trust`]s.
//! - [`cli`] reads arguments, environment and files of the user; [`progress`] talks to the user. Nothing else does.
//!
//! Deliberately absent: a daemon, a store that outlives a build, and any way to reach the network from a RUN's files.

mod archive;
pub mod cache;
pub mod check;
mod claim;
pub mod cli;
pub mod context;
mod csv;
pub mod dockerfile;
mod error;
pub mod execute;
mod failed;
pub mod image;
pub mod lock;
mod login;
mod look;
mod making;
pub mod output;
pub mod plan;
mod prepare;
pub mod progress;
pub mod remote;
mod reuse;
pub mod sandbox;
pub mod secrets;
pub mod sources;
mod space;
pub mod trust;

use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use futures_util::future::join;
use yadokari_layers::{Digest, Key, Limits, pack};
use yadokari_registry::Platform;

pub use error::{Error, ExitCode};
pub use look::{content_key, look_ahead};

use dockerfile::Source;
use execute::Interrupt;
use making::Making;
use output::{Destination, Uploads};
use plan::Options;
use prepare::Prepared;
use progress::Progress;
use reuse::Found;
use secrets::{Agents, Secrets};

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
    /// The platforms to build for when the result is an index of images. Without them the result
    /// is one image, for the platform of the options.
    pub index: Option<Vec<Platform>>,
    /// Where the image goes. With none, it is built and forgotten.
    pub destinations: Vec<Destination>,
    /// What is left out when it is pushed.
    pub pushing: output::Pushing,
    /// How its manifests are written.
    pub form: image::Form,
    /// Whether it has to be known what the image is to a registry, which otherwise need not be read where it was built before.
    pub describe: bool,
    /// How layers are written. Their latest time is the plan's.
    pub pack: pack::Options,
    /// How many stages are worked on at once.
    pub jobs: NonZeroUsize,
    /// Whether all layers that the build makes on top of the base image become one.
    pub squash: bool,
    /// How much each layer of a base image, or of the cache, and each archive may hold.
    pub limits: Limits,
    /// Where RUN steps run.
    pub sandbox: sandbox::Settings,
    /// What RUN steps may mount, and what fetches of private sources log in with.
    pub secrets: Secrets,
    /// The SSH agents that RUN steps may mount.
    pub agents: Agents,
    /// `/etc/resolv.conf` and `/etc/hosts` for RUN steps.
    pub network_files: execute::NetworkFiles,
    /// Whom RUN steps trust beside the authorities of their image.
    pub trust: Option<trust::RunAuthorities>,
    /// Where steps that were executed before are looked for, and written; `None` for no cache.
    pub cache: Option<cache::Settings>,
    /// A layout directory that has layers of base images already, or may have.
    pub warm: Option<PathBuf>,
    /// The digests that names of base images stand for. What is found out besides is for the caller to write.
    pub lock: Option<Arc<lock::Lock>>,
    /// Whether the root in which a RUN fails is kept as an image, beside the destinations.
    pub save_failed: bool,
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
    /// The content hash, which stands for `{key}` in the destinations' tags.
    pub key: Key,
    /// What it is to whoever asks a registry for it; `None` where nobody asked, and it was not read.
    pub described: Option<output::Described>,
}

/// Builds an image: the whole line, in its order.
pub async fn build(mut request: Request, progress: Arc<Progress>, interrupt: Interrupt) -> Result<Built, Error> {
    let prepared = Prepared::new(&request, &progress).await?;
    let key = prepared.key();
    output::name_by_key(&mut request.destinations, &key, request.skip_existing);
    if request.skip_existing
        && let Some(built) = reuse::existing(&request, &prepared, &key, &progress).await?
    {
        return Ok(built);
    }
    let found = match reuse::look(&request, &prepared, &key, &progress).await? {
        Found::There(built) => {
            prepared.finish_cache().await;
            return Ok(built);
        }
        Found::Somewhere(found) => Some(found),
        Found::Nowhere => None,
    };
    join(prepared.look_up(), prepared.explain(&progress)).await;
    let (sources, work) = (&prepared.sources, &prepared.work);
    let uploads = Uploads::start(&request.destinations, &request.client, sources, work, request.pushing).await?;
    let built = async {
        let brought = match &found {
            Some(found) => reuse::bring(&prepared, found, &uploads).await?,
            None => None,
        };
        let made = match brought {
            Some(made) => made,
            None => Making::new(&request, &prepared, &uploads, &progress, &interrupt).make().await?,
        };
        let digest = uploads.finish(&made, &progress).await?;
        Ok::<_, Error>((digest, made))
    };
    let built = built.await;
    // What steps made is kept, however the build ended.
    uploads.close().await;
    if let Ok((_, made)) = &built {
        prepared.keep(&key, made).await;
    }
    prepared.finish_cache().await;
    let (digest, made) = built?;
    let (size, layers) = (made.layers().map(|layer| layer.size).sum(), made.layers().count());
    Ok(Built { digest, size, layers, key, described: Some(made.described()) })
}

/// The time in whole seconds since the Unix epoch.
fn clock() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs() as i64)
}

#[cfg(test)]
mod tests;
