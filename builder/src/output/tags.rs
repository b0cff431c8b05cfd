//! Tags: of an image that is there already, and how they are written.

use futures_util::future::{join_all, try_join_all};
use yadokari_layers::Digest;
use yadokari_registry::{Client, Descriptor, Error, Manifest, RegistryStore, Store, Version};

use super::{Described, Destination};
use crate::progress::Progress;

/// What is left out when an image is pushed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Pushing {
    /// Nobody asks before the build whether the registry lets us write.
    pub unchecked: bool,
    /// A tag that must not be changed stays what it is, and that is no failure.
    pub keeps_immutable_tags: bool,
}

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
        Destination::Layout { .. } | Destination::Tarball { .. } | Destination::Root(_) => None,
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

/// The compressed size of an image's layers in bytes, their number, and what it is, as far as the first repository tells. Of an
/// index of several images the first two are nothing.
pub async fn measure(tags: &[Tag], digest: &Digest) -> (u64, usize, Option<Described>) {
    let Some(tag) = tags.first() else { return (0, 0, None) };
    let Ok(Some(manifest)) = tag.store.read_manifest(&Version::Digest(*digest)).await else { return (0, 0, None) };
    let described = Described::of(&manifest).ok();
    let image = manifest.image().ok();
    let (size, layers) =
        image.map_or((0, 0), |image| (image.layers().iter().map(Descriptor::size).sum(), image.layers().len()));
    (size, layers, described)
}

/// Points all tags to a manifest. False, with nothing changed, where a repository does not have it.
pub async fn point(tags: &[Tag], digest: &Digest, pushing: Pushing, progress: &Progress) -> Result<bool, crate::Error> {
    let others = tags.iter().filter(|tag| tag.now != Some(*digest));
    let manifests = join_all(others.map(async |tag| {
        let manifest = tag.store.read_manifest(&Version::Digest(*digest)).await.ok().flatten();
        manifest.map(|manifest| (tag, manifest))
    }));
    let Some(manifests) = manifests.await.into_iter().collect::<Option<Vec<_>>>() else { return Ok(false) };
    try_join_all(manifests.iter().map(|(tag, manifest)| write(&tag.store, &tag.version, manifest, pushing, progress)))
        .await?;
    for tag in tags.iter().filter(|tag| tag.now == Some(*digest)) {
        progress.unchanged(&tag.store.describe(), &tag.version, digest);
    }
    Ok(true)
}

/// Points a tag to a manifest, and says so.
pub async fn write(
    store: &dyn Store,
    tag: &Version,
    manifest: &Manifest,
    pushing: Pushing,
    progress: &Progress,
) -> Result<(), crate::Error> {
    match store.write_manifest(tag, manifest).await {
        Ok(()) => progress.pushed(&store.describe(), tag, &manifest.digest),
        Err(error) if pushing.keeps_immutable_tags && is_immutable(&error) => {
            progress.warning(&format!("{}:{tag} stays what it is: {error}", store.describe()));
        }
        Err(source) => {
            return Err(crate::Error::Push { destination: store.describe(), source: Box::new(source) });
        }
    }
    Ok(())
}

/// Whether a registry refused to change a tag because it never changes one. They have no code for it in common: ECR calls it
/// an invalid tag, Artifact Registry an invalid manifest, Harbor a failed precondition. All of them say the word.
fn is_immutable(error: &Error) -> bool {
    let said = match error {
        Error::Refused { status: 400..=499, message, .. } | Error::Unauthorized { message, .. } => message,
        _ => return false,
    };
    said.to_ascii_lowercase().contains("immutab")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_registries_say_of_tags_that_never_change_is_known() {
        let refused = |status, message: &str| Error::Refused {
            operation: "write manifest 1".into(),
            url: "https://r.example/v2/app/manifests/1".into(),
            status,
            code: None,
            message: message.into(),
        };
        for (status, message, expected) in [
            (
                400,
                "The image tag '1' already exists in the 'app' repository and cannot be overwritten because the repository is immutable.",
                true,
            ),
            (400, "cannot update tag 1. The repository has enabled tag immutability", true),
            (412, "Failed to process request due to 'app:1' configured as immutable.", true),
            (400, "manifest invalid", false),
            (500, "immutable", false),
        ] {
            assert_eq!(is_immutable(&refused(status, message)), expected, "{message}");
        }
    }
}
