//! `yadokari push` and `yadokari index create`: images that are there already get other names.

use std::path::PathBuf;
use std::sync::Arc;

use clap::{Args, Subcommand};
use serde_json::{Value, json};
use yadokari_layers::Digest;
use yadokari_registry::media::{self, ManifestKind};
use yadokari_registry::{Client, Manifest, Reference, digest_of, read_small};

use super::args::path;
use super::log::LogFlags;
use super::outputs::{PushFlags, ReportFlags, Reports};
use super::registry::RegistryFlags;
use super::{given, paths};
use crate::Error;
use crate::execute::WorkDir;
use crate::image::ImageConfig;
use crate::output::relay::{self, Place, Relay};
use crate::output::{Described, Pushing, saved, tags};
use crate::progress::Progress;
use crate::sandbox::Gate;

/// `yadokari push`
#[derive(Debug, Args)]
pub(super) struct Push {
    /// An archive of `docker save`, --tar-path or an OCI layout, or the directory of a layout.
    #[arg(value_parser = path())]
    path: PathBuf,
    #[command(flatten)]
    to: Destinations,
}

/// `yadokari index`
#[derive(Debug, Args)]
pub(super) struct Index {
    #[command(subcommand)]
    pub(super) command: IndexCommand,
}

#[derive(Debug, Subcommand)]
pub(super) enum IndexCommand {
    /// Make one index of images that are in registries, and push it.
    Create(Create),
}

/// `yadokari index create`
#[derive(Debug, Args)]
pub(super) struct Create {
    /// The images, or indexes of images. Those of other repositories are copied.
    #[arg(required = true, value_name = "IMAGE")]
    images: Vec<String>,
    #[command(flatten)]
    to: Destinations,
}

/// Where images go, and how.
#[derive(Debug, Args)]
struct Destinations {
    /// Push under this name. Repeatable.
    #[arg(
        long,
        short = 'd',
        short_alias = 't',
        visible_alias = "tag",
        value_name = "REGISTRY/REPOSITORY:TAG",
        required = true
    )]
    destination: Vec<String>,
    #[command(flatten)]
    reports: ReportFlags,
    #[command(flatten)]
    push: PushFlags,
    #[command(flatten)]
    registry: RegistryFlags,
    /// Where blobs wait that cannot be linked.
    #[arg(long, value_name = "DIR", value_parser = path())]
    work_dir: Option<PathBuf>,
    #[command(flatten)]
    log: LogFlags,
}

/// Images that get other names.
pub struct PushInvocation {
    /// Whom to tell.
    pub progress: Arc<Progress>,
    what: What,
    names: Vec<Reference>,
    reports: Reports,
    pushing: Pushing,
    client: Client,
    work_dir: PathBuf,
}

enum What {
    Saved(PathBuf),
    Index(Vec<Reference>),
}

impl Push {
    pub(super) fn invocation(self) -> Result<PushInvocation, Error> {
        self.to.invocation(What::Saved(self.path))
    }
}

impl Create {
    pub(super) fn invocation(self) -> Result<PushInvocation, Error> {
        let images = references("IMAGE", &self.images)?;
        self.to.invocation(What::Index(images))
    }
}

impl Destinations {
    fn invocation(self, what: What) -> Result<PushInvocation, Error> {
        let progress = Arc::new(self.log.progress(&|name| std::env::var(name).ok(), Vec::new()));
        let names = references("--destination", &self.destination)?;
        let reports = self.reports.reports(true, &|name| std::env::var(name).ok())?;
        let pushed: Vec<String> = names.iter().map(|name| name.registry().to_owned()).collect();
        let read: Vec<&str> = match &what {
            What::Index(images) => images.iter().map(Reference::registry).collect(),
            What::Saved(_) => Vec::new(),
        };
        let client = self.registry.session(&pushed, &read, &progress, &Gate::default())?.client;
        reports.admitted(&client)?;
        Ok(PushInvocation {
            what,
            names,
            reports,
            pushing: self.push.pushing(),
            client,
            work_dir: given(&self.work_dir).unwrap_or_else(|| paths::work_dir(&paths::home())),
            progress,
        })
    }
}

fn references(flag: &'static str, texts: &[String]) -> Result<Vec<Reference>, Error> {
    let bad = |error: yadokari_registry::Error| Error::Usage { flag, message: error.to_string() };
    texts.iter().map(|text| text.parse().map_err(bad)).collect()
}

impl PushInvocation {
    /// Pushes, and writes what is asked for.
    pub(super) async fn execute(&self) -> Result<u8, Error> {
        let work = WorkDir::create(&self.work_dir)?;
        let manifest = match &self.what {
            What::Saved(path) => {
                let saved = saved::open(path, work.downloads()).await?;
                let from = Place::from(saved.layout);
                let manifest = from.manifest(&saved.version).await?;
                let how = (self.pushing, work.blobs());
                relay::publish(&from, &manifest, &self.names, &self.client, how, &self.progress).await?;
                manifest
            }
            What::Index(images) => self.index(images, &work).await?,
        };
        let described = Described::of(&manifest)
            .map_err(|source| Error::Push { destination: self.names[0].to_string(), source: Box::new(source) })?;
        self.reports.write(&manifest.digest, Some(&described), &self.names, &self.client).await?;
        Ok(0)
    }

    /// Brings all images to every repository, then their index, then its tags.
    async fn index(&self, images: &[Reference], work: &WorkDir) -> Result<Manifest, Error> {
        let mut sources = Vec::new();
        let mut parts: Vec<Value> = Vec::new();
        for image in images {
            let place = Place::from(self.client.repository(image));
            let manifest = place.manifest(&image.version()).await?;
            parts.extend(self.parts(image, &place, &manifest).await?);
            sources.push((place, manifest));
        }
        refuse_twins(&parts)?;
        let text = json!({"schemaVersion": 2, "mediaType": media::OCI_INDEX, "manifests": parts}).to_string();
        let index = Manifest::new(media::OCI_INDEX, text);
        for (to, tags) in relay::repositories(&self.names, &self.client, self.pushing).await? {
            for (from, manifest) in &sources {
                let relay = Relay { from, to: &to, scratch: work.blobs(), anew: false };
                match manifest.kind() {
                    Some(ManifestKind::Index) => relay.bring(manifest).await?,
                    _ => relay.bring_whole(manifest).await?,
                }
            }
            for tag in &tags {
                tags::write(to.store(), tag, &index, self.pushing, &self.progress).await?;
            }
        }
        Ok(index)
    }

    /// What an index says of an image: of one that is an index itself, what that says.
    async fn parts(&self, name: &Reference, place: &Place, manifest: &Manifest) -> Result<Vec<Value>, Error> {
        let bad = |reason: String| Error::BadImage { name: name.to_string(), reason };
        let failed = |source| Error::Image { name: name.to_string(), meant: None, source: Box::new(source) };
        match manifest.kind() {
            Some(ManifestKind::Index) => {
                let index: Value = serde_json::from_slice(&manifest.bytes).map_err(|error| bad(error.to_string()))?;
                Ok(index["manifests"].as_array().cloned().unwrap_or_default())
            }
            Some(ManifestKind::Image) => {
                let config = manifest.image().map_err(failed)?.config().clone();
                let digest: Digest = digest_of(&config).map_err(failed)?;
                let config = read_small(place.store(), &digest, Some(config.size()), LARGEST_CONFIG).await;
                let config = ImageConfig::parse(&config.map_err(failed)?).map_err(|error| bad(error.to_string()))?;
                let mut platform = json!({"architecture": config.architecture, "os": config.os});
                if let Some(variant) = &config.variant {
                    platform["variant"] = json!(variant);
                }
                Ok(vec![json!({
                    "mediaType": manifest.media_type, "digest": manifest.digest, "size": manifest.bytes.len(),
                    "platform": platform,
                })])
            }
            _ => Err(bad(format!("'{}' is no image's type", manifest.media_type))),
        }
    }
}

/// The largest config that is read.
const LARGEST_CONFIG: u64 = 16 << 20;

/// Nobody could choose one of two images for the same platform. What is for none, such as BuildKit's attestations, is not chosen.
fn refuse_twins(parts: &[Value]) -> Result<(), Error> {
    let platforms: Vec<&Value> = parts.iter().map(|part| &part["platform"]).collect();
    for (number, platform) in platforms.iter().enumerate() {
        if platform["os"] != "unknown" && platforms[..number].contains(platform) {
            let name = |field: &str| platform[field].as_str().unwrap_or_default().to_owned();
            let message = format!("there are two images for {}/{}", name("os"), name("architecture"));
            return Err(Error::Usage { flag: "IMAGE", message });
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
