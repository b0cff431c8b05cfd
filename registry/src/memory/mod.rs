//! A store in memory, for tests, and the registry that serves it.
//!
//! Both are stricter than the real ones: what a real registry tolerates now and refuses in its next version is
//! refused here.

mod api;
mod http;
mod login;
mod serve;

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::io::{self, Read};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use bytes::Bytes;
use yadokari_layers::{Digest, Verifier};

pub use self::login::Auth;
pub use self::serve::{Checks, Effect, Fault, Locations, Seen, Served, Serving};
use crate::manifest::digest_of;
use crate::media::{self, ManifestKind};
use crate::store::Sink;
use crate::{BlobSource, Error, Manifest, Result, Size, Store, Version, Written};

/// One repository of an in-memory registry. Clones and [`Memory::repository`] share the registry.
///
/// A manifest is refused as long as a blob or manifest that it names is missing in its own repository.
#[derive(Clone)]
pub struct Memory {
    registry: Arc<Mutex<Registry>>,
    name: String,
}

#[derive(Default)]
pub(crate) struct Registry {
    repositories: BTreeMap<String, Repository>,
}

#[derive(Default)]
pub(crate) struct Repository {
    blobs: HashMap<Digest, Bytes>,
    manifests: HashMap<Digest, Manifest>,
    tags: BTreeMap<String, Digest>,
}

impl Memory {
    /// An empty registry, seen from its repository `test`.
    pub fn new() -> Self {
        Self { registry: Arc::default(), name: "test".into() }
    }

    /// Another repository of the same registry.
    pub fn repository(&self, name: &str) -> Self {
        Self { registry: Arc::clone(&self.registry), name: name.into() }
    }

    /// The digests of the repository's blobs, in order; manifests are not among them.
    pub fn blobs(&self) -> Vec<Digest> {
        let mut blobs: Vec<_> =
            self.lock().existing(&self.name).map(|found| found.blobs.keys().copied().collect()).unwrap_or_default();
        blobs.sort();
        blobs
    }

    /// Replaces a blob's content under its old digest, as bit rot does.
    pub fn corrupt_blob(&self, digest: &Digest, content: impl Into<Bytes>) {
        self.lock().repository(&self.name).blobs.insert(*digest, content.into());
    }

    /// Removes a blob, as a careless garbage collection does.
    pub fn forget_blob(&self, digest: &Digest) {
        self.lock().repository(&self.name).blobs.remove(digest);
    }

    /// Replaces a manifest's content under its old digest.
    pub fn corrupt_manifest(&self, digest: &Digest, content: Manifest) {
        self.lock().repository(&self.name).manifests.insert(*digest, content);
    }

    /// Serves the whole registry in plain HTTP on a free loopback port, until the result is dropped.
    pub async fn serve(&self) -> io::Result<Served> {
        self.serve_with(Serving::default()).await
    }

    /// As [`Memory::serve`], with logins and manners to order.
    pub async fn serve_with(&self, serving: Serving) -> io::Result<Served> {
        Served::start(Arc::clone(&self.registry), serving).await
    }

    fn lock(&self) -> MutexGuard<'_, Registry> {
        lock(&self.registry)
    }
}

pub(crate) fn lock(registry: &Mutex<Registry>) -> MutexGuard<'_, Registry> {
    registry.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Registry {
    /// A repository, which comes to be when it is first written to.
    fn repository(&mut self, name: &str) -> &mut Repository {
        self.repositories.entry(name.into()).or_default()
    }

    fn existing(&self, name: &str) -> Option<&Repository> {
        self.repositories.get(name)
    }

    /// Links a blob; whether the source has it.
    fn mount(&mut self, digest: &Digest, source: &str, target: &str) -> bool {
        let Some(blob) = self.existing(source).and_then(|found| found.blobs.get(digest)).cloned() else { return false };
        self.repository(target).blobs.insert(*digest, blob);
        true
    }

    /// Removes a manifest and its tags; whether it was there. Its blobs stay, as they do in a registry.
    fn delete_manifest(&mut self, name: &str, digest: &Digest) -> bool {
        let Some(found) = self.repositories.get_mut(name) else { return false };
        found.tags.retain(|_, named| named != digest);
        found.manifests.remove(digest).is_some()
    }
}

impl Repository {
    fn manifest(&self, version: &Version) -> Option<(Digest, &Manifest)> {
        let digest = match version {
            Version::Tag(tag) => self.tags.get(tag)?,
            Version::Digest(digest) => digest,
        };
        Some((*digest, self.manifests.get(digest)?))
    }

    /// Stores a complete manifest; the reason where it is not.
    fn put_manifest(&mut self, version: &Version, manifest: Manifest) -> Result<(), String> {
        let descriptors = match manifest.kind() {
            Some(ManifestKind::Image) => {
                let image = manifest.image().map_err(|error| error.to_string())?;
                let layers = image.layers().iter().filter(|layer| !media::is_foreign(layer.media_type().as_ref()));
                layers.chain([image.config()]).cloned().collect::<Vec<_>>()
            }
            Some(ManifestKind::Index) => manifest.index().map_err(|error| error.to_string())?.manifests().clone(),
            _ => return Err(format!("{} is not a media type of manifests", manifest.media_type)),
        };
        for descriptor in &descriptors {
            let digest = digest_of(descriptor).map_err(|error| error.to_string())?;
            let size = match manifest.kind() {
                Some(ManifestKind::Index) => self.manifests.get(&digest).map(|found| found.bytes.len()),
                _ => self.blobs.get(&digest).map(Bytes::len),
            };
            match size {
                None => return Err(format!("{digest} is unknown to the repository")),
                Some(size) if size as u64 != descriptor.size() => {
                    return Err(format!("{digest} has {size} bytes, not {}", descriptor.size()));
                }
                Some(_) => {}
            }
        }
        if let Version::Tag(tag) = version {
            self.tags.insert(tag.clone(), manifest.digest);
        }
        self.manifests.insert(manifest.digest, manifest);
        Ok(())
    }
}

#[async_trait]
impl Store for Memory {
    async fn blob_size(&self, digest: &Digest) -> Result<Option<Size>> {
        let registry = self.lock();
        let blob = registry.existing(&self.name).and_then(|found| found.blobs.get(digest));
        Ok(blob.map(|blob| Size::Told(blob.len() as u64)))
    }

    async fn read_blob(&self, digest: &Digest, size: Option<u64>, sink: &mut Sink<'_>) -> Result<()> {
        let blob = self.lock().existing(&self.name).and_then(|found| found.blobs.get(digest)).cloned();
        let absent = || Error::NotFound { what: format!("blob {digest}"), store: self.describe() };
        let blob = blob.ok_or_else(absent)?;
        let mismatch = |mismatch| Error::Mismatch { store: self.describe(), mismatch };
        let mut verifier = Verifier::new(*digest, size);
        // Small pieces, so that no reader comes to rely on large ones.
        for piece in blob.chunks(1000) {
            verifier.update(piece).map_err(mismatch)?;
            let taken = sink(piece);
            taken.map_err(|source| Error::Io { operation: "take blob", path: digest.to_string().into(), source })?;
        }
        verifier.finish().map_err(mismatch)
    }

    async fn write_blob(&self, blob: &dyn BlobSource, mount_from: Option<&str>) -> Result<Written> {
        let digest = blob.digest();
        if self.blob_size(&digest).await?.is_some_and(|size| size.may_be(blob.size())) {
            return Ok(Written::Already);
        }
        if let Some(source) = mount_from
            && self.lock().mount(&digest, source, &self.name)
        {
            return Ok(Written::Mounted);
        }
        self.replace_blob(blob).await?;
        Ok(Written::Uploaded)
    }

    async fn replace_blob(&self, blob: &dyn BlobSource) -> Result<()> {
        let digest = blob.digest();
        let unreadable = |source| Error::Io { operation: "read blob", path: digest.to_string().into(), source };
        let mut bytes = Vec::new();
        // One byte more than promised is enough to see a broken promise.
        let mut reader = blob.open().map_err(unreadable)?.take(blob.size() + 1);
        reader.read_to_end(&mut bytes).map_err(unreadable)?;
        let mut verifier = Verifier::new(digest, Some(blob.size()));
        let checked = verifier.update(&bytes).and_then(|()| verifier.finish());
        checked.map_err(|mismatch| Error::Mismatch { store: self.describe(), mismatch })?;
        self.lock().repository(&self.name).blobs.insert(digest, bytes.into());
        Ok(())
    }

    async fn read_manifest(&self, version: &Version) -> Result<Option<Manifest>> {
        let registry = self.lock();
        let Some((digest, found)) = registry.existing(&self.name).and_then(|found| found.manifest(version)) else {
            return Ok(None);
        };
        Manifest::new("", found.bytes.clone()).expect(digest, &self.describe())?;
        Manifest::received(Some(&found.media_type), found.bytes.clone(), &self.describe()).map(Some)
    }

    async fn write_manifest(&self, version: &Version, manifest: &Manifest) -> Result<()> {
        if let Version::Digest(digest) = version {
            manifest.expect(*digest, &self.describe())?;
        }
        let stored = self.lock().repository(&self.name).put_manifest(version, manifest.clone());
        stored.map_err(|reason| Error::Manifest { digest: manifest.digest, store: self.describe(), reason })
    }

    async fn tags(&self) -> Result<Vec<String>> {
        let registry = self.lock();
        Ok(registry.existing(&self.name).map(|found| found.tags.keys().cloned().collect()).unwrap_or_default())
    }

    async fn delete_manifest(&self, digest: &Digest) -> Result<bool> {
        Ok(self.lock().delete_manifest(&self.name, digest))
    }

    fn describe(&self) -> String {
        format!("memory:{}", self.name)
    }
}

impl Default for Memory {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for Memory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Memory").field(&self.name).finish()
    }
}
