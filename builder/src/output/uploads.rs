//! Layers on their way out while the build goes on.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use yadokari_layers::{Digest, Layer, blob_path};
use yadokari_registry::{BytesBlob, Client, FileBlob, Layout, RegistryStore, Store, Version, Written};

use super::{Destination, Made, tarball};
use crate::plan::LayerRef;
use crate::progress::Progress;
use crate::sources::Sources;

/// How many finished layers may wait before the next step has to.
const QUEUE: usize = 4;

/// Sends finished layers to every destination, side by side with the build.
pub struct Uploads<'a> {
    targets: Arc<Vec<Target>>,
    tarballs: Vec<&'a Destination>,
    sources: &'a Sources,
    blobs: PathBuf,
    queue: mpsc::Sender<LayerRef>,
    /// Gives the layers that every target has by now, and how each target came by them.
    sender: JoinHandle<Vec<(Digest, Written)>>,
    failure: Arc<Mutex<Option<crate::Error>>>,
}

/// A repository, and the names that the image gets there.
struct Target {
    store: Arc<dyn Store>,
    registry: Option<String>,
    tags: Vec<Version>,
}

impl<'a> Uploads<'a> {
    /// Opens all destinations. A registry that refuses to be written to says so now, not after the build.
    pub async fn start(
        destinations: &'a [Destination],
        client: &Client,
        sources: &'a Sources,
        blobs: &Path,
    ) -> Result<Self, crate::Error> {
        let mut targets: Vec<Target> = Vec::new();
        let mut tarballs = Vec::new();
        for destination in destinations {
            match destination {
                Destination::Registry(reference) => {
                    let tag = reference.version();
                    let store = client.repository(reference);
                    let name = store.describe();
                    if let Some(target) = targets.iter_mut().find(|target| target.store.describe() == name) {
                        target.tags.push(tag);
                        continue;
                    }
                    check(&store).await?;
                    let registry = Some(store.registry().to_owned());
                    targets.push(Target { store: Arc::new(store), registry, tags: vec![tag] });
                }
                Destination::Layout { directory, tag } => {
                    let layout = Layout::create(directory).map_err(|source| failed(directory.display(), source))?;
                    let tags = vec![Version::Tag(tag.clone())];
                    targets.push(Target { store: Arc::new(layout), registry: None, tags });
                }
                Destination::Tarball { .. } => tarballs.push(destination),
            }
        }
        let targets = Arc::new(targets);
        let (queue, mut finished) = mpsc::channel::<LayerRef>(QUEUE);
        let (to, from) = (Arc::clone(&targets), blobs.to_owned());
        let failure = Arc::new(Mutex::new(None));
        let slot = Arc::clone(&failure);
        let sender = tokio::spawn(async move {
            let mut written = Vec::new();
            while let Some(layer) = finished.recv().await {
                let blob = file_blob(&from, &layer);
                for target in to.iter() {
                    match target.store.write_blob(&blob, None).await {
                        Ok(done) => written.push((layer.digest, done)),
                        Err(source) => {
                            *lock(&slot) = Some(failed(target.store.describe(), source));
                            return written;
                        }
                    }
                }
            }
            written
        });
        Ok(Self { targets, tarballs, sources, blobs: blobs.to_owned(), queue, sender, failure })
    }

    /// Takes a layer that was just made. Waits when too many are under way; fails when an earlier one could not be
    /// sent, since the image would lack it.
    pub fn send(&self, layer: Layer) -> Result<(), crate::Error> {
        match self.queue.blocking_send(LayerRef::from(&layer)) {
            Ok(()) => Ok(()),
            Err(_) => lock(&self.failure).take().map_or(Ok(()), Err),
        }
    }

    /// Sends what is left: base layers, the configs, the manifests and their index, and last the tags. Returns the digest
    /// that the tags point to.
    pub async fn finish(self, made: &Made, progress: &Progress) -> Result<Digest, crate::Error> {
        drop(self.queue);
        let sent = match self.sender.await {
            Ok(sent) => sent,
            Err(panic) => std::panic::resume_unwind(panic.into_panic()),
        };
        if let Some(error) = lock(&self.failure).take() {
            return Err(error);
        }
        let mut seen: BTreeSet<Digest> = sent.iter().map(|(digest, _)| *digest).collect();
        let left: Vec<&LayerRef> = made.layers().filter(|layer| seen.insert(layer.digest)).collect();
        let mut written: Vec<Written> = sent.iter().map(|(_, written)| *written).collect();
        for target in self.targets.iter() {
            for layer in &left {
                written.push(base_layer(self.sources, target, layer, &self.blobs).await?);
            }
            let fail = |source| failed(target.store.describe(), source);
            for image in &made.images {
                let config = BytesBlob::new(image.config.clone());
                target.store.write_blob(&config, None).await.map_err(fail)?;
            }
        }
        let root = made.root();
        for target in self.targets.iter() {
            let fail = |source| failed(target.store.describe(), source);
            // Tags point to the index: what it names is there before.
            for image in made.images.iter().filter(|_| made.index.is_some()) {
                let version = Version::Digest(image.manifest.digest);
                target.store.write_manifest(&version, &image.manifest).await.map_err(fail)?;
            }
            for tag in &target.tags {
                target.store.write_manifest(tag, root).await.map_err(fail)?;
                progress.pushed(&target.store.describe(), tag, &root.digest);
            }
        }
        for destination in self.tarballs {
            let Destination::Tarball { path, names } = destination else { continue };
            // The command line lets no more than one image into an archive.
            let image = &made.images[0];
            for layer in &image.layers {
                self.sources.download(layer, &self.blobs).await?;
            }
            tokio::task::block_in_place(|| tarball::write(path, image, names, &self.blobs))?;
            progress.info(&format!("wrote {}", path.display()));
        }
        progress.transfers(&written);
        Ok(root.digest)
    }
}

/// Puts a layer into a target: nothing is sent when it is there or can be mounted from the base image's repository; a
/// base layer that is nowhere near is fetched first.
async fn base_layer(
    sources: &Sources,
    target: &Target,
    layer: &LayerRef,
    blobs: &Path,
) -> Result<Written, crate::Error> {
    let fail = |source| failed(target.store.describe(), source);
    let from = sources.repository_of(&layer.digest).filter(|(registry, _)| Some(registry) == target.registry.as_ref());
    let from = from.as_ref().map(|(_, repository)| repository.as_str());
    let blob = file_blob(blobs, layer);
    if !blob.path.exists() {
        // Only a transfer of its bytes needs the file, so the transfer is left to fail before the file is fetched.
        if let Ok(written) = target.store.write_blob(&blob, from).await {
            return Ok(written);
        }
        sources.download(layer, blobs).await?;
    }
    target.store.write_blob(&blob, from).await.map_err(fail)
}

fn lock(failure: &Mutex<Option<crate::Error>>) -> MutexGuard<'_, Option<crate::Error>> {
    failure.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn check(store: &RegistryStore) -> Result<(), crate::Error> {
    store.check_push().await.map_err(|source| failed(store.describe(), source))
}

fn file_blob(blobs: &Path, layer: &LayerRef) -> FileBlob {
    FileBlob { path: blob_path(blobs, &layer.digest), digest: layer.digest, size: layer.size }
}

fn failed(destination: impl std::fmt::Display, source: yadokari_registry::Error) -> crate::Error {
    crate::Error::Push { destination: destination.to_string(), source: Box::new(source) }
}
