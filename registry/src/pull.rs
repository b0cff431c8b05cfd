//! From a reference to the one image that this machine runs.

use bytes::Bytes;
use oci_spec::image::{Descriptor, ImageManifest};

use crate::client::{Client, RegistryStore, clean};
use crate::manifest::digest_of;
use crate::media::ManifestKind;
use crate::store::read_small;
use crate::{Error, Manifest, Platform, Reference, Result, Store, Version};

/// The largest image configuration that is read.
const MAX_CONFIG: u64 = 16 << 20;

/// Indexes of indexes are legal and unknown in practice; deeper than this, something is playing with us.
const MAX_DEPTH: usize = 4;

/// One image of one platform.
#[derive(Debug, Clone)]
pub struct Resolved {
    /// The digest that the version itself has: the index's, where there is one.
    pub root: crate::Digest,
    /// The platform's manifest.
    pub manifest: Manifest,
    /// What it says.
    pub image: ImageManifest,
    /// The image configuration's bytes, verified.
    pub config: Bytes,
}

/// An image and the source that served it, which also has its layers.
#[derive(Debug)]
pub struct Pulled {
    /// The mirror or the registry.
    pub store: RegistryStore,
    /// The image.
    pub resolved: Resolved,
}

/// Finds the image for `platform` that `version` names in `store`, through an OCI index or a Docker manifest list
/// where there is one, and reads its configuration.
///
/// An image outside an index is taken as it is: old images say nothing, or nonsense, about their platform.
pub async fn resolve(store: &dyn Store, version: &Version, platform: &Platform) -> Result<Resolved> {
    let absent = |version: &Version| Error::NotFound { what: format!("manifest {version}"), store: store.describe() };
    let mut manifest = store.read_manifest(version).await?.ok_or_else(|| absent(version))?;
    let root = manifest.digest;
    for _ in 0..MAX_DEPTH {
        let refuse = |reason: String| Error::Manifest {
            digest: manifest.digest,
            store: store.describe(),
            reason: clean(&reason),
        };
        match manifest.kind() {
            Some(ManifestKind::Image) => {
                let image = manifest.image()?;
                let config = image.config();
                let config = read_small(store, &digest_of(config)?, Some(config.size()), MAX_CONFIG).await?;
                return Ok(Resolved { root, manifest, image, config });
            }
            Some(ManifestKind::Index) => {
                let (chosen, digest) = choose(&manifest, platform).map_err(|reason| refuse(reason.to_string()))?;
                let version = Version::Digest(digest);
                let read = store.read_manifest(&version).await?.ok_or_else(|| absent(&version))?;
                agree(&chosen, &read).map_err(refuse)?;
                manifest = read;
            }
            Some(ManifestKind::Schema1) => {
                return Err(refuse(
                    "it is in Docker's schema 1, obsolete since 2017: pull and push the image with a current tool"
                        .into(),
                ));
            }
            None => return Err(refuse(format!("{} is no image", manifest.media_type))),
        }
    }
    Err(Error::Manifest { digest: root, store: store.describe(), reason: "its indexes nest too deeply".into() })
}

/// Resolves `reference` from the first of its sources that has it: mirrors in their order, then the registry.
///
/// When all fail the registry's own error is returned, since it is the one that the user can act on.
pub async fn pull_manifest(client: &Client, reference: &Reference, platform: &Platform) -> Result<Pulled> {
    let mut failed = None;
    for store in client.pull_sources(reference) {
        match resolve(&store, &reference.version(), platform).await {
            Ok(resolved) => return Ok(Pulled { store, resolved }),
            Err(error) if error.worth_another_source() => failed = Some(error),
            Err(error) => return Err(error),
        }
    }
    // Without a source there is none that may be asked.
    let offline = || Error::Offline { operation: format!("pull {reference}"), host: reference.registry().to_owned() };
    Err(failed.unwrap_or_else(offline))
}

/// Whether a manifest is what its index says, besides its digest, which was compared when it was read.
fn agree(said: &Descriptor, read: &Manifest) -> Result<(), String> {
    let (says, has) = (said.size(), read.bytes.len() as u64);
    if says != has {
        return Err(format!("it says that {} has {says} bytes, which has {has}", read.digest));
    }
    let media_type = said.media_type().to_string();
    match ManifestKind::of(&media_type) {
        Some(kind) if Some(kind) != read.kind() => {
            Err(format!("it says that {} is {media_type}, which is {}", read.digest, read.media_type))
        }
        _ => Ok(()),
    }
}

/// The best manifest in an index: of those that suit equally, the first.
fn choose(index: &Manifest, platform: &Platform) -> Result<(Descriptor, crate::Digest)> {
    let index = index.index()?;
    let mut best = None;
    let mut offered = Vec::new();
    for descriptor in index.manifests() {
        let Some(theirs) = descriptor.platform().as_ref().map(Platform::from) else { continue };
        if let Some(rank) = platform.suits(&theirs)
            && best.as_ref().is_none_or(|&(other, _)| rank > other)
        {
            best = Some((rank, descriptor));
        }
        // Attestations ride along as manifests for a platform of this name.
        if theirs.os != "unknown" {
            offered.push(theirs.to_string());
        }
    }
    match (best, &index.manifests()[..]) {
        (Some((_, descriptor)), _) => Ok((descriptor.clone(), digest_of(descriptor)?)),
        // The specification lets an index leave platforms out; with one entry there is nothing to choose.
        (None, [only]) if only.platform().is_none() => Ok((only.clone(), digest_of(only)?)),
        (None, _) => Err(Error::Unsupported {
            what: format!(
                "platform {platform} (the image is for {})",
                if offered.is_empty() { "none".into() } else { offered.join(", ") }
            ),
        }),
    }
}
