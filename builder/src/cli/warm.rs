//! `yadokari warm`: base images are put into a directory, from which builds take their layers.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::{ArgAction, Args};
use futures_util::stream::{self, StreamExt as _};
use yadokari_registry::{Client, Layout, Platform, Reference, Version, pull_manifest};

use super::args::{Environment, Pairs, build_args, path, truth};
use super::cache::{WARM, ttl};
use super::contexts;
use super::log::LogFlags;
use super::registry::RegistryFlags;
use crate::Error;
use crate::context::{Context, Contexts};
use crate::dockerfile;
use crate::output::relay::{Place, Relay};
use crate::plan::{ContextMode, ImageName, Options};
use crate::progress::Progress;
use crate::remote::{Fetcher, is_url};
use crate::sandbox::Gate;
use crate::sources::Sources;

/// How many images are under way at once.
const AT_ONCE: usize = 2;

/// `yadokari warm`, with the flags of Kaniko's warmer.
#[derive(Debug, Args)]
pub(super) struct Warm {
    /// Put this image there. Repeatable.
    #[arg(long, short = 'i')]
    image: Vec<String>,
    /// The directory, which becomes an OCI layout.
    #[arg(long, short = 'c', value_name = "DIR", default_value = WARM, value_parser = path())]
    cache_dir: PathBuf,
    /// Write what is there already again, too.
    #[arg(long, short = 'f', action = ArgAction::Set, num_args = 0..=1, default_missing_value = "true", default_value = "false", value_parser = truth)]
    force: bool,
    /// Not needed: an image that a name means now has layers that never change.
    #[arg(long, value_name = "DURATION", value_parser = ttl)]
    cache_ttl: Option<std::time::Duration>,
    /// Put the images there that this Dockerfile names.
    #[arg(long, short = 'd', value_name = "FILE|URL", value_parser = path())]
    dockerfile: Option<PathBuf>,
    /// Give an ARG of the Dockerfile a value; without `=` the environment's. Repeatable.
    #[arg(long, value_name = "NAME[=VALUE]")]
    build_arg: Vec<String>,
    /// The platform of the images, where it is not this machine's.
    #[arg(long, visible_alias = "custom-platform", alias = "customPlatform", value_name = "OS/ARCH[/VARIANT]")]
    platform: Option<String>,
    #[command(flatten)]
    registry: RegistryFlags,
    #[command(flatten)]
    log: LogFlags,
}

/// Images that are put into a directory.
pub struct WarmInvocation {
    /// Whom to tell.
    pub progress: Arc<Progress>,
    images: Vec<Reference>,
    dockerfile: Option<PathBuf>,
    build_args: Pairs,
    platform: Option<Platform>,
    directory: PathBuf,
    force: bool,
    client: Client,
}

impl Warm {
    pub(super) fn invocation(self) -> Result<WarmInvocation, Error> {
        let progress = Arc::new(self.log.progress(&|name| std::env::var(name).ok(), Vec::new()));
        let client = self.registry.session(&[], &[], &progress, &Gate::default())?.client;
        self.with(client, progress, &|name| std::env::var(name).ok())
    }

    fn with(self, client: Client, progress: Arc<Progress>, env: Environment<'_>) -> Result<WarmInvocation, Error> {
        let bad = |flag| move |error: yadokari_registry::Error| Error::Usage { flag, message: error.to_string() };
        let images = self.image.iter().filter(|text| !text.is_empty());
        let images = images.map(|text| text.parse().map_err(bad("--image"))).collect::<Result<Vec<_>, _>>()?;
        let dockerfile = super::given(&self.dockerfile);
        if images.is_empty() && dockerfile.is_none() {
            return Err(Error::Usage { flag: "--image", message: "give at least one, or a --dockerfile".into() });
        }
        let platform = self.platform.filter(|text| !text.is_empty());
        let platform = platform.map(|text| text.parse().map_err(bad("--platform"))).transpose()?;
        if self.cache_ttl.is_some() {
            progress.info("--cache-ttl is not needed: an image that a name means now has layers that never change");
        }
        let (build_args, _) = build_args(&self.build_arg, env)?;
        let (directory, force) = (self.cache_dir, self.force);
        Ok(WarmInvocation { progress, images, dockerfile, build_args, platform, directory, force, client })
    }
}

impl WarmInvocation {
    /// Puts all images there. It fails where none of them can be had; of others that cannot there is a warning.
    pub(super) async fn execute(&self) -> Result<u8, Error> {
        let failed =
            |source| Error::Push { destination: self.directory.display().to_string(), source: Box::new(source) };
        let layout = Layout::create(&self.directory).map_err(failed)?;
        let host = |operation| move |source| Error::Host { operation, path: self.directory.clone(), source };
        let scratch = tempfile::Builder::new().prefix(".warm-").tempdir_in(&self.directory);
        let scratch = scratch.map_err(host("make a directory in"))?;
        let own = self.platform.clone().unwrap_or_else(Platform::host);
        let mut images: BTreeSet<(Reference, Platform)> =
            self.images.iter().map(|image| (image.clone(), own.clone())).collect();
        let mut failures = Vec::new();
        if let Some(path) = &self.dockerfile {
            let (named, missing) = self.named(path, scratch.path()).await?;
            for name in named {
                // What is in a layout is near enough.
                if let Ok(reference) = name.name.parse() {
                    images.insert((reference, name.platform));
                }
            }
            failures.extend(missing);
        }
        let to = Place::from(layout);
        let brought = images.iter().map(|(image, platform)| self.bring(image, platform, &to, scratch.path()));
        let brought: Vec<_> = stream::iter(brought).buffer_unordered(AT_ONCE).collect().await;
        let there = brought.iter().filter(|result| result.is_ok()).count();
        failures.extend(brought.into_iter().filter_map(Result::err));
        if there == 0
            && let Some(first) = failures.pop()
        {
            failures.iter().for_each(|error| self.progress.error(&error.to_string()));
            return Err(first);
        }
        failures.iter().for_each(|error| self.progress.warning(&error.to_string()));
        Ok(0)
    }

    async fn bring(&self, image: &Reference, platform: &Platform, to: &Place, scratch: &Path) -> Result<(), Error> {
        let start = std::time::Instant::now();
        let pulled = pull_manifest(&self.client, image, platform).await;
        let pulled =
            pulled.map_err(|source| Error::Image { name: image.to_string(), meant: None, source: Box::new(source) })?;
        let manifest = pulled.resolved.manifest;
        let from = Place::from(pulled.store);
        // Images with layers in common may be under way at once.
        let own = tempfile::tempdir_in(scratch);
        let own =
            own.map_err(|source| Error::Host { operation: "make a directory in", path: scratch.into(), source })?;
        Relay { from: &from, to, scratch: own.path(), anew: self.force }.bring(&manifest).await?;
        let tag = Version::Tag(format!("{image}+{platform}"));
        let written = to.store().write_manifest(&tag, &manifest).await;
        written.map_err(|source| Error::Push { destination: to.store().describe(), source: Box::new(source) })?;
        let layers = pulled.resolved.image.layers();
        let size = layers.iter().map(yadokari_registry::Descriptor::size).sum();
        self.progress.pulled(&image.to_string(), layers.len(), size, start.elapsed());
        Ok(())
    }

    /// The images that a Dockerfile names in any of its stages, and why others cannot be had.
    async fn named(&self, path: &Path, scratch: &Path) -> Result<(Vec<ImageName>, Vec<Error>), Error> {
        let path = match path.to_str() {
            Some(url) if is_url(url) => {
                let fetcher = Fetcher::new(self.client.clone(), scratch, Arc::new(|_| None));
                fetcher.file(url, &self.progress).await?.path
            }
            _ => path.to_owned(),
        };
        let source = contexts::read(&path, path.display().to_string())?;
        let file = dockerfile::parse(&source)?;
        // What COPY takes is of no interest, and so the context holds nothing.
        let empty = tempfile::tempdir_in(scratch);
        let empty =
            empty.map_err(|source| Error::Host { operation: "make a directory in", path: scratch.into(), source })?;
        let contexts = Contexts::open(Context::open(empty.path(), &path)?, &[])?;
        let host = Platform::host();
        let options = Options {
            target: None,
            build_args: self.build_args.clone(),
            labels: Vec::new(),
            platform: self.platform.clone().unwrap_or_else(|| host.clone()),
            platform_is_given: self.platform.is_some(),
            host,
            epoch: None,
            reproducible: false,
            context_mode: ContextMode::default(),
            ignored: Vec::new(),
        };
        let sources = Sources::new(self.client.clone());
        let checked = sources.check(&file, &options, &contexts, &self.progress).await;
        let missing = checked
            .errors
            .into_iter()
            .filter(|error| matches!(error, Error::Image { .. } | Error::BadImage { .. } | Error::Barred(_)));
        Ok((sources.images(), missing.collect()))
    }
}

#[cfg(test)]
mod tests;
