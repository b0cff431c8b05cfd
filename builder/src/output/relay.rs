//! An image on its way from one store to another, byte for byte.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use futures_util::stream::{self, StreamExt as _, TryStreamExt as _};
use yadokari_layers::{Digest, blob_path};
use yadokari_registry::media::{self, ManifestKind};
use yadokari_registry::{
    Client, Descriptor, FileBlob, Layout, Manifest, Reference, RegistryStore, Store, Version, digest_of,
};

use super::{Pushing, mountable, tags};
use crate::Error;
use crate::progress::{Progress, read_to};

/// How many blobs of an image are under way at once.
const AT_ONCE: usize = 4;

/// Indexes of indexes are legal and unknown in practice.
const DEEPEST: usize = 4;

/// A place where an image is, or where it goes.
#[derive(Clone)]
pub struct Place {
    store: Arc<dyn Store>,
    /// The registry and repository, where the place is one.
    repository: Option<(String, String)>,
    /// The directory, where the place is one: its files can be read in place.
    layout: Option<Layout>,
}

impl From<RegistryStore> for Place {
    fn from(store: RegistryStore) -> Self {
        let repository = Some((store.registry().to_owned(), store.repository().to_owned()));
        Self { store: Arc::new(store), repository, layout: None }
    }
}

impl From<Layout> for Place {
    fn from(layout: Layout) -> Self {
        Self { store: Arc::new(layout.clone()), repository: None, layout: Some(layout) }
    }
}

/// What carries images from one place to another.
pub struct Relay<'a> {
    /// Where they are.
    pub from: &'a Place,
    /// Where they go.
    pub to: &'a Place,
    /// Where blobs wait that can neither be linked nor read in place.
    pub scratch: &'a Path,
    /// Whether what is there already is written again: somebody may have found it to be something else.
    pub anew: bool,
}

impl Place {
    /// What stands at this place.
    pub fn store(&self) -> &dyn Store {
        &*self.store
    }

    /// The manifest that a version names. That there is none is an error.
    pub async fn manifest(&self, version: &Version) -> Result<Manifest, Error> {
        let read = self.store.read_manifest(version).await.map_err(|error| self.unread(error))?;
        let missing = || {
            let what = format!("manifest {version}");
            self.unread(yadokari_registry::Error::NotFound { what, store: self.store.describe() })
        };
        read.ok_or_else(missing)
    }

    fn unread(&self, source: yadokari_registry::Error) -> Error {
        Error::Image { name: self.store.describe(), meant: None, source: Box::new(source) }
    }

    fn unwritten(&self, source: yadokari_registry::Error) -> Error {
        Error::Push { destination: self.store.describe(), source: Box::new(source) }
    }
}

/// Puts an image under names in registries. Every repository is asked before whether it lets us write.
pub async fn publish(
    from: &Place,
    manifest: &Manifest,
    names: &[Reference],
    client: &Client,
    (pushing, scratch): (Pushing, &Path),
    progress: &Progress,
) -> Result<(), Error> {
    for (to, tags) in repositories(names, client, pushing).await? {
        Relay { from, to: &to, scratch, anew: false }.bring(manifest).await?;
        for tag in &tags {
            tags::write(to.store(), tag, manifest, pushing, progress).await?;
        }
    }
    Ok(())
}

/// The repositories of names, each once with the tags that it gets. One that does not let us write is an error.
pub async fn repositories(
    names: &[Reference],
    client: &Client,
    pushing: Pushing,
) -> Result<Vec<(Place, Vec<Version>)>, Error> {
    let mut repositories: Vec<(Place, Vec<Version>)> = Vec::new();
    for name in names {
        let store = client.repository(name);
        let known = store.describe();
        match repositories.iter_mut().find(|(place, _)| place.store.describe() == known) {
            Some((_, tags)) => tags.push(name.version()),
            None => {
                let may = if pushing.unchecked { Ok(()) } else { store.check_push().await };
                let place = Place::from(store);
                may.map_err(|error| place.unwritten(error))?;
                repositories.push((place, vec![name.version()]));
            }
        }
    }
    Ok(repositories)
}

impl Relay<'_> {
    /// Brings what a manifest names, and what that names, and the manifests that are named in the end. The manifest itself
    /// is left to the caller, who knows its tags.
    pub async fn bring(&self, manifest: &Manifest) -> Result<(), Error> {
        let mut indexes = vec![(manifest.clone(), 0)];
        let (mut images, mut named) = (Vec::new(), Vec::new());
        while let Some((manifest, depth)) = indexes.pop() {
            match manifest.kind() {
                Some(ManifestKind::Index) if depth < DEEPEST => {
                    let index = manifest.index().map_err(|error| self.from.unread(error))?;
                    for part in index.manifests() {
                        let digest = digest_of(part).map_err(|error| self.from.unread(error))?;
                        let part = self.from.manifest(&Version::Digest(digest)).await?;
                        named.push(part.clone());
                        indexes.push((part, depth + 1));
                    }
                }
                Some(ManifestKind::Image) => images.push(manifest),
                _ => {
                    let what = format!("a manifest of the type '{}'", manifest.media_type);
                    return Err(self.from.unread(yadokari_registry::Error::Unsupported { what }));
                }
            }
        }
        for image in &images {
            self.blobs(image).await?;
        }
        // What an index names is there before it.
        for manifest in named.iter().rev() {
            self.manifest(manifest).await?;
        }
        Ok(())
    }

    /// The same, and brings the manifest itself, which has no tag there then.
    pub async fn bring_whole(&self, manifest: &Manifest) -> Result<(), Error> {
        self.bring(manifest).await?;
        self.manifest(manifest).await
    }

    async fn manifest(&self, manifest: &Manifest) -> Result<(), Error> {
        let written = self.to.store.write_manifest(&Version::Digest(manifest.digest), manifest).await;
        written.map_err(|error| self.to.unwritten(error))
    }

    async fn blobs(&self, manifest: &Manifest) -> Result<(), Error> {
        let image = manifest.image().map_err(|error| self.from.unread(error))?;
        // Layers that nobody may pass on are read from where their licence says.
        let layers = image.layers().iter().filter(|layer| !media::is_foreign(layer.media_type().as_ref()));
        let mut blobs: Vec<&Descriptor> = layers.collect();
        blobs.sort_by_key(|blob| blob.digest().to_string());
        blobs.dedup_by_key(|blob| blob.digest().to_string());
        let brought = blobs.into_iter().map(|layer| self.blob(layer));
        stream::iter(brought).buffer_unordered(AT_ONCE).try_collect::<()>().await?;
        self.blob(image.config()).await
    }

    async fn blob(&self, descriptor: &Descriptor) -> Result<(), Error> {
        let digest = digest_of(descriptor).map_err(|error| self.from.unread(error))?;
        let size = descriptor.size();
        if !self.anew {
            let here = self.to.store.blob_size(&digest).await.map_err(|error| self.to.unwritten(error))?;
            if here.is_some_and(|here| here.may_be(size)) {
                return Ok(());
            }
        }
        let in_place = self.from.layout.as_ref().map(|layout| layout.blob_path(&digest));
        if let Some(path) = in_place.filter(|path| path.exists()) {
            return self.write(path, digest, size).await;
        }
        let path = blob_path(self.scratch, &digest);
        let from: Vec<_> = self.from.repository.iter().cloned().collect();
        let mount = mountable(self.to.repository.as_ref(), &from);
        // Only a transfer of its bytes needs the file, so the transfer is left to fail before the file is fetched.
        let missing = FileBlob { path: path.clone(), digest, size };
        if mount.is_some() && self.to.store.write_blob(&missing, mount).await.is_ok() {
            return Ok(());
        }
        read_to(&Arc::new(Progress::silent()), &*self.from.store, (&digest, size), &path, None, |error| {
            self.from.unread(error)
        })
        .await?;
        let written = self.write(path.clone(), digest, size).await;
        let removed = tokio::fs::remove_file(&path).await;
        written?;
        removed.map_err(|source| Error::Host { operation: "remove", path, source })
    }

    async fn write(&self, path: PathBuf, digest: Digest, size: u64) -> Result<(), Error> {
        let blob = FileBlob { path, digest, size };
        let written = match self.anew {
            true => self.to.store.replace_blob(&blob).await,
            false => self.to.store.write_blob(&blob, None).await.map(drop),
        };
        written.map_err(|error| self.to.unwritten(error))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use yadokari_registry::{BlobSource as _, BytesBlob, ClientOptions, Memory};

    use super::*;

    /// Writes an image with one layer, and says what an index says of it.
    async fn image(store: &dyn Store, text: &str) -> Manifest {
        let [config, layer] = ["{}", text].map(|text| BytesBlob::new(text.to_owned()));
        for blob in [&config, &layer] {
            store.write_blob(blob, None).await.unwrap();
        }
        let blob = |media_type: &str, blob: &BytesBlob| json!({"mediaType": media_type, "digest": blob.digest(), "size": blob.size()});
        let foreign = json!({"mediaType": "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip",
            "digest": Digest::of("foreign"), "size": 7, "urls": ["https://h.example/x"]});
        let manifest = json!({"schemaVersion": 2, "mediaType": media::OCI_MANIFEST, "config": blob(media::OCI_CONFIG, &config),
            "layers": [blob(media::OCI_LAYER_GZIP, &layer), foreign, blob(media::OCI_LAYER_GZIP, &layer)]});
        let manifest = Manifest::new(media::OCI_MANIFEST, manifest.to_string());
        store.write_manifest(&Version::Digest(manifest.digest), &manifest).await.unwrap();
        manifest
    }

    async fn index(store: &dyn Store) -> Manifest {
        let mut parts = Vec::new();
        for text in ["one", "two"] {
            parts.push(serde_json::to_value(image(store, text).await.descriptor().unwrap()).unwrap());
        }
        let index = json!({"schemaVersion": 2, "mediaType": media::OCI_INDEX, "manifests": parts});
        let index = Manifest::new(media::OCI_INDEX, index.to_string());
        store.write_manifest(&Version::Tag("t".into()), &index).await.unwrap();
        index
    }

    #[tokio::test]
    async fn an_index_is_brought_whole_from_a_directory_to_a_registry_and_back() {
        let directory = tempfile::tempdir().unwrap();
        let place = |name: &str| Layout::create(directory.path().join(name)).unwrap();
        let (first, last) = (place("first"), place("last"));
        let index = index(&first).await;
        let registry = Memory::new();
        let served = registry.serve().await.unwrap();
        let client = Client::new(ClientOptions::default()).unwrap();
        let repository = client.repository(&format!("{}/app:1", served.host()).parse().unwrap());
        let [first, middle, end]: [Place; 3] = [first.into(), repository.into(), last.clone().into()];
        let tag = Version::Tag("t".into());
        for (from, to) in [(&first, &middle), (&middle, &end)] {
            let manifest = from.manifest(&tag).await.unwrap();
            Relay { from, to, scratch: directory.path(), anew: false }.bring(&manifest).await.unwrap();
            to.store().write_manifest(&tag, &manifest).await.unwrap();
        }
        assert_eq!(Store::read_manifest(&last, &tag).await.unwrap(), Some(index));
        for text in ["{}", "one", "two"] {
            assert!(last.has_blob(&Digest::of(text)).await.unwrap(), "{text}");
        }
        assert_eq!(registry.repository("app").blobs().len(), 3);
        // Nothing waits any more.
        assert!(!directory.path().join(Digest::of("one").hex()).exists());
    }

    #[tokio::test]
    async fn what_is_there_is_not_sent_and_what_is_near_is_linked() {
        let directory = tempfile::tempdir().unwrap();
        let registry = Memory::new();
        let manifest = image(&registry.repository("a"), "one").await;
        let served = registry.serve().await.unwrap();
        let client = Client::new(ClientOptions::default()).unwrap();
        let place =
            |name: &str| Place::from(client.repository(&format!("{}/{name}:1", served.host()).parse().unwrap()));
        let (from, to) = (place("a"), place("b"));
        let relay = Relay { from: &from, to: &to, scratch: directory.path(), anew: false };
        relay.bring(&manifest).await.unwrap();
        assert_eq!(registry.repository("b").blobs().len(), 2);
        let seen = served.seen();
        assert!(
            seen.iter().all(|seen| seen.method != "PUT" && seen.method != "GET" || seen.path == "/v2/"),
            "{seen:#?}"
        );
        relay.bring(&manifest).await.unwrap();
        assert!(served.seen()[seen.len()..].iter().all(|seen| seen.method == "HEAD"));
    }

    #[tokio::test]
    async fn what_is_spoiled_is_written_anew_where_that_is_asked_for() {
        let directory = tempfile::tempdir().unwrap();
        let registry = Memory::new();
        let manifest = image(&registry.repository("a"), "one").await;
        let served = registry.serve().await.unwrap();
        let client = Client::new(ClientOptions::default()).unwrap();
        let from = Place::from(client.repository(&format!("{}/a:1", served.host()).parse().unwrap()));
        let layout = Layout::create(directory.path().join("layout")).unwrap();
        let to = Place::from(layout.clone());
        let path = layout.blob_path(&Digest::of("one"));
        for (anew, expected) in [(false, "eno"), (true, "one")] {
            std::fs::write(&path, "eno").unwrap();
            Relay { from: &from, to: &to, scratch: directory.path(), anew }.bring(&manifest).await.unwrap();
            assert_eq!(std::fs::read_to_string(&path).unwrap(), expected);
        }
    }

    #[tokio::test]
    async fn what_lacks_a_part_is_an_error_that_names_it() {
        let directory = tempfile::tempdir().unwrap();
        let layout = Layout::create(directory.path().join("from")).unwrap();
        let manifest = image(&layout, "one").await;
        std::fs::remove_file(layout.blob_path(&Digest::of("one"))).unwrap();
        let (from, to) = (Place::from(layout), Place::from(Layout::create(directory.path().join("to")).unwrap()));
        let relay = Relay { from: &from, to: &to, scratch: directory.path(), anew: false };
        let error = relay.bring(&manifest).await.unwrap_err().to_string();
        assert!(error.contains(&Digest::of("one").to_string()), "{error}");
        let error = from.manifest(&Version::Tag("none".into())).await.unwrap_err();
        assert_eq!(error.exit_code(), 66);
    }
}
