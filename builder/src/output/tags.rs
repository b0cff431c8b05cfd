//! Tags of an image that is there already.

use futures_util::future::{join_all, try_join_all};
use yadokari_layers::Digest;
use yadokari_registry::{Client, Descriptor, RegistryStore, Store as _, Version};

use super::Destination;
use crate::progress::Progress;

/// A tag, and what it points to now.
pub struct Tag {
    store: RegistryStore,
    version: Version,
    now: Option<Digest>,
}

/// Looks where all destinations point to now; `None` where one of them is no registry. What cannot be read is taken for
/// absent: whoever writes to it will hear the reason.
pub async fn look(destinations: &[Destination], client: &Client) -> Option<Vec<Tag>> {
    let references = destinations.iter().map(|destination| match destination {
        Destination::Registry(reference) => Some(reference),
        Destination::Layout { .. } | Destination::Tarball { .. } => None,
    });
    let references: Vec<_> = references.collect::<Option<_>>()?;
    let tags = references.into_iter().map(async |reference| {
        let (store, version) = (client.repository(reference), reference.version());
        let now = store.manifest_digest(&version).await.ok().flatten();
        Tag { store, version, now }
    });
    Some(join_all(tags).await)
}

/// The digest that the tag `name` points to in every repository; `None` where one lacks it, or they differ.
pub fn held(tags: &[Tag], name: &str) -> Option<Digest> {
    let mut digests =
        tags.iter().filter(|tag| matches!(&tag.version, Version::Tag(tag) if tag == name)).map(|tag| tag.now);
    let first = digests.next()??;
    digests.all(|other| other == Some(first)).then_some(first)
}

/// The compressed size of an image's layers in bytes, and their number, as far as the first repository tells. Of an index
/// of several images it is nothing.
pub async fn measure(tags: &[Tag], digest: &Digest) -> (u64, usize) {
    let Some(tag) = tags.first() else { return (0, 0) };
    let manifest = tag.store.read_manifest(&Version::Digest(*digest)).await.ok().flatten();
    let image = manifest.and_then(|manifest| manifest.image().ok());
    image.map_or((0, 0), |image| (image.layers().iter().map(Descriptor::size).sum(), image.layers().len()))
}

/// Points all tags to a manifest. False, with nothing changed, where a repository does not have it.
pub async fn point(tags: &[Tag], digest: &Digest, progress: &Progress) -> Result<bool, crate::Error> {
    let others = tags.iter().filter(|tag| tag.now != Some(*digest));
    let manifests = join_all(others.map(async |tag| {
        let manifest = tag.store.read_manifest(&Version::Digest(*digest)).await.ok().flatten();
        manifest.map(|manifest| (tag, manifest))
    }));
    let Some(manifests) = manifests.await.into_iter().collect::<Option<Vec<_>>>() else { return Ok(false) };
    let pointed = manifests.iter().map(async |(tag, manifest)| {
        let written = tag.store.write_manifest(&tag.version, manifest).await;
        written.map_err(|source| crate::Error::Push { destination: tag.store.describe(), source: Box::new(source) })
    });
    try_join_all(pointed).await?;
    for tag in tags {
        match tag.now == Some(*digest) {
            true => progress.unchanged(&tag.store.describe(), &tag.version, digest),
            false => progress.pushed(&tag.store.describe(), &tag.version, digest),
        }
    }
    Ok(true)
}
