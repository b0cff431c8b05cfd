//! Layers on their way out while the build goes on.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use futures_util::future::try_join_all;
use futures_util::stream::{self, StreamExt as _, TryStreamExt as _};
use tokio::runtime::Handle;
use tokio::sync::{mpsc, oneshot};
use tokio::task::{JoinHandle, JoinSet};
use yadokari_layers::{Digest, Growing, blob_path};
use yadokari_registry::{BytesBlob, Client, FileBlob, Layout, Store, Version, Written};

use super::ahead::Ahead;
use super::{Destination, Made, Pushing, export, tags, tarball};
use crate::cache::{Cache, LayerOrigin, NewStep};
use crate::execute::{Begun, Blobs, Fetch, Hold, Holders, WorkDir};
use crate::plan::{ImageName, LayerRef};
use crate::progress::{Direction, Outcome, Progress, bytes, write_blob};
use crate::sources::{Sent, Sources};
use crate::space;

/// How many finished layers may wait before the next step has to.
const QUEUE: usize = 4;
/// How many blobs are looked for, linked or sent at once when the build is over.
const AT_ONCE: usize = 8;

/// What a step has made.
#[derive(Debug, Clone)]
pub struct Finished {
    /// Its layer, if it changed anything.
    pub layer: Option<LayerRef>,
    /// Whether the layer is the image's.
    pub wanted: bool,
    /// What the cache keeps of it.
    pub record: Option<NewStep>,
}

/// Sends finished layers to every destination, and to the cache, side by side with the build.
pub struct Uploads<'a> {
    shared: Arc<Shared>,
    /// Those that are made of all layers at once, in the end.
    files: Vec<&'a Destination>,
    sources: &'a Sources,
    work: &'a WorkDir,
    pushing: Pushing,
    queue: mpsc::Sender<Message>,
    sender: JoinHandle<()>,
}

enum Message {
    /// The layer is held until all has been done with it.
    Finished(Box<Finished>, Hold),
    /// Answered when everything before it has been sent to the destinations.
    Barrier(oneshot::Sender<()>),
}

struct Shared {
    targets: Vec<Target>,
    blobs: PathBuf,
    holders: Arc<Holders>,
    cache: Option<Arc<Cache>>,
    progress: Arc<Progress>,
    sent: Arc<Sent>,
    ahead: Ahead,
    runtime: Handle,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// The layers that every target has by now, and how each target came by them.
    written: BTreeMap<Digest, Vec<Written>>,
    failure: Option<crate::Error>,
    /// Whether there was a failure: it is given to whoever asks first.
    has_failed: bool,
}

/// For layers that are all on disk.
struct AllHere;

impl Fetch for AllHere {
    fn layers(&self, _image: &ImageName) -> Vec<LayerRef> {
        Vec::new()
    }

    fn fetch(&self, _layers: &[LayerRef], _directory: &Path, _begun: Option<Begun<'_>>) -> Result<(), crate::Error> {
        Ok(())
    }
}

/// A repository, and the names that the image gets there.
struct Target {
    store: Arc<dyn Store>,
    /// The registry and repository, when that is what the store is.
    repository: Option<(String, String)>,
    tags: Vec<Version>,
}

impl<'a> Uploads<'a> {
    /// Opens all destinations. A registry that refuses to be written to says so now, not after the build.
    pub async fn start(
        destinations: &'a [Destination],
        client: &Client,
        sources: &'a Sources,
        work: &'a WorkDir,
        pushing: Pushing,
    ) -> Result<Self, crate::Error> {
        let mut targets: Vec<Target> = Vec::new();
        let mut files = Vec::new();
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
                    if !pushing.unchecked {
                        store.check_push().await.map_err(|source| failed(&store, source))?;
                    }
                    let repository = Some((store.registry().to_owned(), store.repository().to_owned()));
                    targets.push(Target { store: Arc::new(store), repository, tags: vec![tag] });
                }
                Destination::Layout { directory, tag } => {
                    let layout = Layout::create(directory).map_err(|source| {
                        let destination = directory.display().to_string();
                        crate::Error::Push { destination, source: Box::new(source) }
                    })?;
                    let tags = vec![Version::Tag(tag.clone())];
                    targets.push(Target { store: Arc::new(layout), repository: None, tags });
                }
                Destination::Tarball { .. } | Destination::Root(_) => files.push(destination),
            }
        }
        let (blobs, holders) = (work.blobs().to_owned(), Arc::clone(work.holders()));
        if !files.is_empty() {
            holders.keep_all();
        }
        let (cache, sent) = (sources.cache().cloned(), Arc::clone(sources.sent()));
        let (progress, ahead, state) = (Arc::clone(sources.progress()), Ahead::default(), Mutex::default());
        let runtime = Handle::current();
        let shared = Arc::new(Shared { targets, blobs, holders, cache, progress, sent, ahead, runtime, state });
        let (queue, finished) = mpsc::channel(QUEUE);
        let sender = tokio::spawn(send_all(Arc::clone(&shared), finished));
        Ok(Self { shared, files, sources, work, pushing, queue, sender })
    }

    /// Takes a layer of the image that is still being compressed, and that no destination can have. It goes to the first of
    /// them, from which the others can be given it.
    pub fn begin(&self, layer: &Growing) {
        if let Some(target) = self.shared.targets.first() {
            self.shared.ahead.begin(layer, &target.store, &self.shared.runtime);
        }
    }

    /// Takes what a step has just made. Waits when too much is under way; fails when an earlier layer could not be
    /// sent, since the image would lack it.
    pub fn send(&self, finished: Finished) -> Result<(), crate::Error> {
        let hold = self.shared.holders.hold(finished.layer.iter().map(|layer| layer.digest));
        // The task at the other end goes on until this one is gone.
        _ = self.queue.blocking_send(Message::Finished(Box::new(finished), hold));
        self.failure()
    }

    /// Whether the bytes of a layer that was not made here are going to be needed: a destination cannot link it.
    pub fn owes(&self, layer: &LayerRef) -> bool {
        let from: Vec<_> = self.sources.repository_of(&layer.digest).into_iter().collect();
        let mut targets = self.shared.targets.iter();
        !self.shared.has_written(layer) && targets.any(|target| mountable(target.repository.as_ref(), &from).is_none())
    }

    /// Sees to it that every destination has all layers. One that cannot be had from the cache is
    /// [`Error::Stale`](crate::Error::Stale).
    pub async fn complete(&self, made: &Made) -> Result<(), crate::Error> {
        let (all_sent, sent) = oneshot::channel();
        if self.queue.send(Message::Barrier(all_sent)).await.is_ok() {
            _ = sent.await;
        }
        self.failure()?;
        let mut seen: BTreeSet<Digest> = self.shared.lock().written.keys().copied().collect();
        let left: Vec<&LayerRef> = made.layers().filter(|layer| seen.insert(layer.digest)).collect();
        let transfers = left.into_iter().map(async |layer| {
            let _until_sent = self.shared.holders.hold([layer.digest]);
            let mut had = Vec::new();
            let mut written = Vec::new();
            for target in &self.shared.targets {
                written.push(base_layer(self.sources, target, &had, layer, &self.shared.blobs).await?);
                had.extend(target.repository.clone());
            }
            self.shared.is_written(layer, written);
            Ok::<_, crate::Error>(())
        });
        stream::iter(transfers).buffer_unordered(AT_ONCE).try_collect::<()>().await?;
        if !self.files.is_empty() {
            let needed = || {
                let size = made.layers().map(|layer| layer.size).sum();
                Some(format!("the image's layers have {}", bytes(size)))
            };
            let layers = made.layers().map(|layer| self.sources.download(layer, &self.shared.blobs, None));
            let downloaded = try_join_all(layers).await;
            downloaded.map_err(|error| space::explained(error, &self.shared.blobs, needed))?;
        }
        Ok(())
    }

    /// Sends what is left when every destination has all layers: the configs, the manifests and their index, and last the
    /// tags. Returns the digest that the tags point to.
    pub async fn finish(&self, made: &Made, progress: &Progress) -> Result<Digest, crate::Error> {
        let targets = &self.shared.targets;
        let configs = made.images.iter().map(|image| BytesBlob::new(image.config.clone())).collect::<Vec<_>>();
        let configs = targets.iter().flat_map(|target| configs.iter().map(move |config| (target, config)));
        let written = configs.map(async |(target, config)| {
            target.store.write_blob(config, None).await.map_err(|source| failed(&*target.store, source))
        });
        try_join_all(written).await?;
        let root = made.root();
        for target in targets {
            let fail = |source| failed(&*target.store, source);
            // Tags point to the index: what it names is there before.
            for image in made.images.iter().filter(|_| made.index.is_some()) {
                let version = Version::Digest(image.manifest.digest);
                target.store.write_manifest(&version, &image.manifest).await.map_err(fail)?;
            }
            for tag in &target.tags {
                tags::write(&*target.store, tag, root, self.pushing, progress).await?;
            }
        }
        for destination in &self.files {
            match destination {
                Destination::Tarball { path, names } => {
                    // The command line lets no more than one image into an archive.
                    tokio::task::block_in_place(|| tarball::write(path, &made.images[0], names, &self.shared.blobs))?;
                    progress.info(&format!("wrote {}", path.display()));
                }
                Destination::Root(export) => {
                    let blobs = Blobs::new(self.work, &AllHere).with_limits(self.sources.limits());
                    tokio::task::block_in_place(|| export::write(export, made, &blobs, progress))?;
                }
                Destination::Registry(_) | Destination::Layout { .. } => {}
            }
        }
        let written: Vec<Written> = self.shared.lock().written.values().flatten().copied().collect();
        progress.transfers(&written);
        Ok(root.digest)
    }

    /// Waits until the cache has what was on its way there.
    pub async fn close(self) {
        drop(self.queue);
        if let Err(error) = self.sender.await {
            std::panic::resume_unwind(error.into_panic());
        }
        self.shared.ahead.cancel_all().await;
    }

    fn failure(&self) -> Result<(), crate::Error> {
        self.shared.lock().failure.take().map_or(Ok(()), Err)
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn has_written(&self, layer: &LayerRef) -> bool {
        self.lock().written.contains_key(&layer.digest)
    }

    /// Takes note that every target has a layer, which can be had from there from now on.
    fn is_written(&self, layer: &LayerRef, written: Vec<Written>) {
        self.lock().written.insert(layer.digest, written);
        if let Some(Target { store, repository, .. }) = self.targets.first() {
            self.sent.add(layer.digest, LayerOrigin { store: Arc::clone(store), repository: repository.clone() });
            self.holders.is_elsewhere(&layer.digest);
        }
    }

    /// Sends a layer to every target that lacks it. After a failure nothing is sent any more.
    async fn send(&self, layer: &LayerRef) {
        let blob = file_blob(&self.blobs, layer);
        // One that was made for another image, and is not here any more, goes from where it is when the build is over.
        let is_needless = self.lock().has_failed || self.has_written(layer) || !blob.path.exists();
        if is_needless {
            self.ahead.cancel(&layer.digest).await;
            return;
        }
        let was_sent = self.ahead.complete(&layer.digest).await;
        if let Some(target) = self.targets.first().filter(|_| was_sent) {
            // It was on its way since before anybody knew what it is: that it is there is all there is to say.
            let transfer =
                self.progress.transfer(Direction::Upload, &target.store.describe(), &layer.digest, layer.size);
            transfer.add(layer.size);
            transfer.end(Outcome::Transferred);
            self.progress.debug(&format!("{} was sent while it was compressed", layer.digest));
        }
        let sent = async {
            let mut had: Vec<(String, String)> = Vec::new();
            let mut written = Vec::new();
            // The first target has what was sent before.
            let mut before = was_sent.then_some(Written::Uploaded);
            for target in &self.targets {
                let from = mountable(target.repository.as_ref(), &had);
                let done = match before.take() {
                    Some(written) => Ok(written),
                    None => write_blob(&self.progress, &*target.store, &blob, from).await,
                };
                written.push(done.map_err(|source| failed(&*target.store, source))?);
                had.extend(target.repository.clone());
            }
            Ok(written)
        };
        match sent.await {
            Ok(written) => self.is_written(layer, written),
            Err(error) => {
                let mut state = self.lock();
                (state.failure, state.has_failed) = (Some(error), true);
            }
        }
    }
}

/// Sends what comes, each layer to the destinations first: the cache can be given it from there.
async fn send_all(shared: Arc<Shared>, mut queue: mpsc::Receiver<Message>) {
    let mut records = JoinSet::new();
    while let Some(message) = queue.recv().await {
        let (finished, hold) = match message {
            Message::Finished(finished, hold) => (*finished, hold),
            Message::Barrier(done) => {
                _ = done.send(());
                continue;
            }
        };
        let wanted = finished.layer.filter(|_| finished.wanted);
        if let Some(layer) = &wanted {
            shared.send(layer).await;
        }
        if let (Some(cache), Some(record)) = (&shared.cache, finished.record) {
            let (shared, cache) = (Arc::clone(&shared), Arc::clone(cache));
            if records.len() >= QUEUE {
                _ = records.join_next().await;
            }
            records.spawn(async move {
                let sent = wanted.is_some_and(|layer| shared.has_written(&layer));
                let targets = shared.targets.iter().filter(|_| sent);
                let repositories: Vec<_> = targets.filter_map(|target| target.repository.clone()).collect();
                cache.write_step(&record, &shared.blobs, &repositories).await;
                if let Some(layer) = finished.layer.filter(|layer| cache.origin(&layer.digest).is_some()) {
                    shared.holders.is_elsewhere(&layer.digest);
                }
                drop(hold);
            });
        }
    }
    while records.join_next().await.is_some() {}
}

/// Puts a layer into a target: nothing is sent when it is there, or can be mounted from where it comes from or from one of
/// the repositories that `had` it before; a layer that is nowhere near is fetched first.
async fn base_layer(
    sources: &Sources,
    target: &Target,
    had: &[(String, String)],
    layer: &LayerRef,
    blobs: &Path,
) -> Result<Written, crate::Error> {
    let origin: Vec<_> = sources.repository_of(&layer.digest).into_iter().chain(had.iter().cloned()).collect();
    let from = mountable(target.repository.as_ref(), &origin);
    let blob = file_blob(blobs, layer);
    if !blob.path.exists() {
        match target.store.blob_size(&layer.digest).await {
            Ok(Some(size)) if size.may_be(layer.size) => return Ok(Written::Already),
            Ok(_) | Err(_) => {}
        }
        sources.check_size(layer).await?;
        // Only a transfer of its bytes needs the file, so the transfer is left to fail before the file is fetched.
        if let Ok(written) = write_blob(sources.progress(), &*target.store, &blob, from).await {
            return Ok(written);
        }
        let needed = || Some(format!("the layer has {}", bytes(layer.size)));
        sources.download(layer, blobs, None).await.map_err(|error| space::explained(error, blobs, needed))?;
    }
    let written = write_blob(sources.progress(), &*target.store, &blob, from).await;
    written.map_err(|source| failed(&*target.store, source))
}

/// The first of these repositories, each the second of a pair with its registry, that is of the same registry as `own`: a
/// blob of it can be mounted.
pub(crate) fn mountable<'r>(own: Option<&(String, String)>, repositories: &'r [(String, String)]) -> Option<&'r str> {
    let (own, _) = own?;
    repositories.iter().find(|(registry, _)| registry == own).map(|(_, repository)| repository.as_str())
}

/// A layer in the directory of blobs.
pub(crate) fn file_blob(blobs: &Path, layer: &LayerRef) -> FileBlob {
    FileBlob { path: blob_path(blobs, &layer.digest), digest: layer.digest, size: layer.size }
}

fn failed(store: &dyn Store, source: yadokari_registry::Error) -> crate::Error {
    crate::Error::Push { destination: store.describe(), source: Box::new(source) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_repository_of_the_same_registry_is_mounted_from() {
        let at = |registry: &str, repository: &str| (registry.to_owned(), repository.to_owned());
        let own = at("a.example", "app");
        let near =
            [at("b.example", "base"), at("a.example:5000", "base"), at("a.example", "first"), at("a.example", "next")];
        assert_eq!(mountable(Some(&own), &near), Some("first"));
        assert_eq!(mountable(Some(&own), &near[..2]), None);
        assert_eq!(mountable(None, &near), None, "a directory has no registry");
    }
}
