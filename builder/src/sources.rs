//! What a build takes from elsewhere: base images, images copied from, and what ADD names.

mod bounds;
mod layouts;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fs;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use futures_util::future::{join_all, try_join, try_join_all};
use yadokari_layers::{Compression, Digest, Index, Limits, blob_path};
use yadokari_registry::media::LayerCompression;
use yadokari_registry::{Client, ImageManifest, Layout, Reference, Resolved, Size, Store, digest_of, resolve};

use crate::cache::{Cache, LayerOrigin};
use crate::context::Contexts;
use crate::dockerfile::{Diagnostic, Dockerfile, Span};
use crate::execute::{Begun, Fetch, Interrupt};
use crate::image::ImageConfig;
use crate::lock::Lock;
use crate::plan::{BaseImage, Checked, ImageName, Known, LayerRef, Needs, Options, Plan, Planned, check, plan};
use crate::progress::{Progress, WhileItComes, read_to};
use crate::{remote, sandbox};

use bounds::Bounds;
use layouts::{layout_name, only_tag};

/// The scheme of images in an OCI layout directory: `oci:DIR`, `oci:DIR:TAG`, `oci:DIR@DIGEST`.
const LAYOUT: &str = "oci:";

/// Images by name, and where their layers can be had.
pub struct Sources {
    bounds: Bounds,
    cache: Option<Arc<Cache>>,
    /// A directory that has layers of images already.
    warm: Option<Layout>,
    /// Who is told of transfers.
    progress: Arc<Progress>,
    found: Mutex<Found>,
    /// For each layer, held by whoever brings it.
    bringing: Mutex<HashMap<Digest, Arc<tokio::sync::Mutex<()>>>>,
    sent: Arc<Sent>,
    /// What layers may hold.
    limits: Limits,
}

#[derive(Default)]
struct Found {
    known: Known,
    layers: BTreeMap<Digest, Arc<ImageLayer>>,
    /// What layers say that had to be read for it.
    indexes: Vec<(LayerRef, Arc<Index>)>,
}

/// The stores to which layers went that were made here: from there they can be had again.
#[derive(Default)]
pub struct Sent(Mutex<BTreeMap<Digest, LayerOrigin>>);

impl Sent {
    /// Takes note of a layer that a store has by now.
    pub fn add(&self, layer: Digest, origin: LayerOrigin) {
        self.lock().entry(layer).or_insert(origin);
    }

    fn find(&self, layer: &Digest) -> Option<LayerOrigin> {
        self.lock().get(layer).cloned()
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<Digest, LayerOrigin>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Where the layers of an image are.
struct ImageLayer {
    origin: LayerOrigin,
    /// The image, as the Dockerfile names it.
    name: String,
}

impl Sources {
    /// Takes images from registries through `client`, and from layout directories.
    pub fn new(client: Client) -> Self {
        let (found, bringing, sent) = Default::default();
        let progress = Arc::new(Progress::silent());
        let bounds = Bounds { client, lock: None };
        Self { bounds, cache: None, warm: None, progress, found, bringing, sent, limits: Limits::default() }
    }

    /// The same, with what layers may hold.
    pub fn with_limits(self, limits: Limits) -> Self {
        Self { limits, ..self }
    }

    /// What layers may hold.
    pub fn limits(&self) -> Limits {
        self.limits
    }

    /// The same, with the layers that a layout directory has. It may be missing.
    pub fn with_warm(self, directory: Option<&Path>) -> Self {
        Self { warm: directory.and_then(|directory| Layout::open(directory).ok()), ..self }
    }

    /// The same, with the digests that a lock gives images.
    pub fn with_lock(self, lock: Option<Arc<Lock>>) -> Self {
        Self { bounds: Bounds { lock, ..self.bounds }, ..self }
    }

    /// The images that were looked for and found.
    pub fn images(&self) -> Vec<ImageName> {
        self.lock().known.images.keys().cloned().collect()
    }

    /// The same, which says what is transferred.
    pub fn with_progress(self, progress: Arc<Progress>) -> Self {
        Self { progress, ..self }
    }

    /// The same, with the layers that the cache has.
    pub fn with_cache(self, cache: Option<Arc<Cache>>) -> Self {
        Self { cache, ..self }
    }

    /// The cache.
    pub fn cache(&self) -> Option<&Arc<Cache>> {
        self.cache.as_ref()
    }

    /// Who is told of transfers.
    pub fn progress(&self) -> &Arc<Progress> {
        &self.progress
    }

    /// The layers of an image that the plan names, the lowest first.
    pub fn layers(&self, image: &ImageName) -> Vec<LayerRef> {
        self.lock().known.images.get(image).map(|image| image.layers.clone()).unwrap_or_default()
    }

    /// Where layers went that were made here.
    pub fn sent(&self) -> &Arc<Sent> {
        &self.sent
    }

    /// What layers of images say that had to be read for it, each once.
    pub fn new_indexes(&self) -> Vec<(LayerRef, Arc<Index>)> {
        std::mem::take(&mut self.lock().indexes)
    }

    /// Plans, fetching what the plan says it needs, until it needs nothing more. What is no image comes by `fetcher`.
    pub async fn plan(
        &self,
        file: &Dockerfile,
        options: &Options,
        contexts: &Contexts,
        fetcher: &remote::Fetcher,
        progress: &Progress,
    ) -> Result<Plan, crate::Error> {
        loop {
            let known = self.lock().known.clone();
            let needs = match plan(file, options, contexts, &known)? {
                Planned::Ready(plan) => return Ok(plan),
                Planned::Needs(needs) => needs,
            };
            // What cannot be executed here is an error before anything is asked for.
            if self.tried(&needs) {
                continue;
            }
            let Needs { images, remotes, .. } = needs;
            self.bounds.check(file, &images, &remotes)?;
            let found = try_join_all(images.iter().map(|(name, place)| self.resolve(file, name, *place, progress)));
            let fetched = remotes.iter().map(|(remote, place)| async {
                let fetched = fetcher.fetch(remote, progress).await;
                fetched.map_err(|error| error.asked_for_at(*place))
            });
            let (found, fetched) = try_join(found, try_join_all(fetched)).await?;
            let known = &mut self.lock().known;
            known.images.extend(images.into_keys().zip(found));
            known.remotes.extend(remotes.into_keys().zip(fetched));
        }
    }

    /// Tries the platforms of which it must be known whether they can be executed here. False where there are none.
    fn tried(&self, needs: &Needs) -> bool {
        let tried: Vec<_> = needs.platforms.iter().map(|one| (one.clone(), sandbox::executes(one))).collect();
        self.lock().known.executes.extend(tried);
        !needs.platforms.is_empty()
    }

    /// The warnings about what the target needs, as far as they can be had without fetching anything more.
    pub fn found(&self, file: &Dockerfile, options: &Options, contexts: &Contexts) -> Vec<Diagnostic> {
        let known = self.lock().known.clone();
        let last = file.stages.len().saturating_sub(1).to_string();
        let options = Options { target: options.target.clone().or(Some(last)), ..options.clone() };
        check(file, &options, contexts, &known).warnings
    }

    /// Looks at a Dockerfile, fetching what is needed for it. What cannot be had is an error beside the others.
    pub async fn check(
        &self,
        file: &Dockerfile,
        options: &Options,
        contexts: &Contexts,
        progress: &Progress,
    ) -> Checked {
        let mut missing = BTreeMap::new();
        loop {
            let known = self.lock().known.clone();
            let mut checked = check(file, options, contexts, &known);
            if self.tried(&checked.needs) {
                continue;
            }
            checked.needs.images.retain(|name, _| !missing.contains_key(name));
            if checked.needs.images.is_empty() {
                checked.errors.extend(missing.into_values());
                let remotes = checked.needs.remotes.iter();
                checked.errors.extend(remotes.filter_map(|(remote, place)| self.bounds.remote(remote, *place).err()));
                return checked;
            }
            let fetched = checked.needs.images.iter().map(async |(name, place)| {
                self.bounds.image(file, name, *place)?;
                self.resolve(file, name, *place, progress).await
            });
            let fetched = join_all(fetched).await;
            for (name, image) in checked.needs.images.into_keys().zip(fetched) {
                match image {
                    Ok(image) => _ = self.lock().known.images.insert(name, image),
                    Err(error) => _ = missing.insert(name, error),
                }
            }
        }
    }

    /// Where a layer can be had from, for mounting it across repositories: the registry and repository.
    pub fn repository_of(&self, layer: &Digest) -> Option<(String, String)> {
        if let Some(image) = self.lock().layers.get(layer) {
            return image.origin.repository.clone();
        }
        if let Some(origin) = self.sent.find(layer) {
            return origin.repository;
        }
        self.cache.as_ref()?.origin(layer)?.repository
    }

    /// Looks whether a layer that the cache named has its size there. One that has not was cut off, and must not be
    /// mounted into another repository.
    pub async fn check_size(&self, layer: &LayerRef) -> Result<(), crate::Error> {
        let of_image = self.lock().layers.contains_key(&layer.digest);
        let Some(cache) = self.cache.as_ref().filter(|_| !of_image) else { return Ok(()) };
        let Some(origin) = cache.origin(&layer.digest) else { return Ok(()) };
        match origin.store.blob_size(&layer.digest).await {
            Ok(Some(Size::Told(size))) if size != layer.size => {
                cache.spoil(layer.digest, &format!("{} has {size} bytes of {}", origin.store.describe(), layer.size));
                Err(crate::Error::Stale { layer: layer.digest })
            }
            _ => Ok(()),
        }
    }

    /// What brings layers while steps are executed.
    pub fn fetcher<'a>(&'a self, progress: &'a Progress, interrupt: &'a Interrupt) -> Fetcher<'a> {
        Fetcher { sources: self, progress, interrupt, runtime: tokio::runtime::Handle::current() }
    }

    async fn resolve(
        &self,
        file: &Dockerfile,
        image: &ImageName,
        place: Option<Span>,
        progress: &Progress,
    ) -> Result<BaseImage, crate::Error> {
        let (name, platform) = (&image.name[..], &image.platform);
        let failed = |source| self.bounds.failed(file, name, place, source);
        let (store, repository, resolved): (Arc<dyn Store>, _, Resolved) = match name.strip_prefix(LAYOUT) {
            Some(rest) => {
                let (directory, version) = layout_name(rest);
                let layout = Layout::open(directory).map_err(failed)?;
                let version = match version {
                    Some(version) => version,
                    None => only_tag(&layout).await.map_err(failed)?,
                };
                let resolved = resolve(&layout, &version, platform).await.map_err(failed)?;
                (Arc::new(layout), None, resolved)
            }
            None => {
                let reference: Reference = name.parse().map_err(failed)?;
                let pulled = self.bounds.pull(&reference, platform).await.map_err(failed)?;
                let repository = (pulled.store.registry().to_owned(), pulled.store.repository().to_owned());
                (Arc::new(pulled.store), Some(repository), pulled.resolved)
            }
        };
        progress.debug(&format!("image {name} for {platform}: {}", resolved.manifest.digest));
        let image = base_image(name, &resolved)?;
        let origin = Arc::new(ImageLayer { origin: LayerOrigin { store, repository }, name: name.to_owned() });
        let mut found = self.lock();
        for layer in &image.layers {
            found.layers.entry(layer.digest).or_insert_with(|| Arc::clone(&origin));
        }
        Ok(image)
    }

    /// Brings one layer to the blob directory, under a temporary name until all of it is verified. Where somebody else
    /// brings it, it is waited for. False when it was or came there without this call.
    ///
    /// `begun` is given what can be read meanwhile, at most once, where a failure of that is the end of all ways to have it.
    pub async fn download(
        &self,
        layer: &LayerRef,
        directory: &Path,
        begun: Option<WhileItComes<'_>>,
    ) -> Result<bool, crate::Error> {
        let bringing = Arc::clone(lock(&self.bringing).entry(layer.digest).or_default());
        let _bringing = bringing.lock().await;
        let to = blob_path(directory, &layer.digest);
        if to.exists() {
            return Ok(false);
        }
        self.bring(layer, &to, begun).await?;
        Ok(true)
    }

    async fn bring(&self, layer: &LayerRef, to: &Path, begun: Option<WhileItComes<'_>>) -> Result<(), crate::Error> {
        let blob = (&layer.digest, layer.size);
        let of_image = self.lock().layers.get(&layer.digest).map(Arc::clone);
        if let Some(image) = of_image {
            if self.bring_warm(layer, to).await {
                return Ok(());
            }
            let failed =
                |source| crate::Error::Image { name: image.name.clone(), meant: None, source: Box::new(source) };
            return read_to(&self.progress, &*image.origin.store, blob, to, begun, failed).await;
        }
        let stale = crate::Error::Stale { layer: layer.digest };
        if let Some(origin) = self.sent.find(&layer.digest) {
            match read_to(&self.progress, &*origin.store, blob, to, None, |_| stale).await {
                // Who takes a layer and does not give it back may have it in the cache, and else it is made again.
                Err(crate::Error::Stale { .. }) => _ = self.sent.lock().remove(&layer.digest),
                read => return read,
            }
        }
        let stale = crate::Error::Stale { layer: layer.digest };
        let Some(cache) = &self.cache else { return Err(stale) };
        let Some(origin) = cache.origin(&layer.digest) else { return Err(stale) };
        let spoiled = |error| {
            cache.spoil(layer.digest, &error);
            crate::Error::Stale { layer: layer.digest }
        };
        read_to(&self.progress, &*origin.store, blob, to, begun, spoiled).await
    }

    /// Takes a layer from the directory that was filled before. What is wrong there costs no more than a download.
    async fn bring_warm(&self, layer: &LayerRef, to: &Path) -> bool {
        let Some(warm) = self.warm.as_ref().filter(|warm| warm.blob_path(&layer.digest).exists()) else { return false };
        let unread = |source: yadokari_registry::Error| crate::Error::Image {
            name: warm.describe(),
            meant: None,
            source: Box::new(source),
        };
        read_to(&self.progress, warm, (&layer.digest, layer.size), to, None, unread).await.is_ok()
    }

    /// Where layers come from, for the user.
    fn names_of(&self, layers: &[&LayerRef]) -> String {
        let found = self.lock();
        let name = |layer: &&LayerRef| match found.layers.get(&layer.digest) {
            Some(image) => image.name.clone(),
            None => "the cache".to_owned(),
        };
        let names: BTreeSet<String> = layers.iter().map(name).collect();
        names.into_iter().collect::<Vec<_>>().join(" and ")
    }

    fn lock(&self) -> MutexGuard<'_, Found> {
        lock(&self.found)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Brings layers from within the threads that execute steps.
pub struct Fetcher<'a> {
    sources: &'a Sources,
    progress: &'a Progress,
    interrupt: &'a Interrupt,
    runtime: tokio::runtime::Handle,
}

impl Fetch for Fetcher<'_> {
    fn layers(&self, image: &ImageName) -> Vec<LayerRef> {
        self.sources.layers(image)
    }

    fn indexes(&self, layers: &[LayerRef]) -> HashMap<Digest, Arc<Index>> {
        let cache = self.sources.cache.as_ref().filter(|_| !layers.is_empty());
        cache.map(|cache| self.runtime.block_on(cache.indexes(layers))).unwrap_or_default()
    }

    fn indexed(&self, layer: &LayerRef, index: &Arc<Index>) {
        let mut found = self.sources.lock();
        if self.sources.cache.is_some() && found.layers.contains_key(&layer.digest) {
            found.indexes.push((*layer, Arc::clone(index)));
        }
    }

    fn distrust(&self, layer: &Digest, with_indexes: bool, error: &crate::Error) -> bool {
        self.sources.cache.as_ref().is_some_and(|cache| cache.distrust(layer, with_indexes, error))
    }

    fn fetch(&self, layers: &[LayerRef], directory: &Path, begun: Option<Begun<'_>>) -> Result<(), crate::Error> {
        let missing = layers.iter().filter(|layer| !fs::exists(blob_path(directory, &layer.digest)).unwrap_or(false));
        let missing: Vec<&LayerRef> = missing.collect();
        if missing.is_empty() {
            return Ok(());
        }
        let start = std::time::Instant::now();
        let downloads = missing.iter().map(|layer| async move {
            let Some(begun) = begun else { return self.sources.download(layer, directory, None).await };
            let arriving = |arriving| begun(layer, Some(arriving));
            let brought = self.sources.download(layer, directory, Some(&arriving)).await?;
            begun(layer, None);
            Ok(brought)
        });
        let brought = self.runtime.block_on(async {
            tokio::select! {
                brought = try_join_all(downloads) => brought,
                error = self.interrupt.stopped() => Err(error),
            }
        })?;
        // What another stage waited for as well is said once.
        let brought: Vec<&LayerRef> =
            missing.into_iter().zip(brought).filter(|(_, is_ours)| *is_ours).map(|(layer, _)| layer).collect();
        if !brought.is_empty() {
            let (from, size) = (self.sources.names_of(&brought), brought.iter().map(|layer| layer.size).sum());
            self.progress.pulled(&from, brought.len(), size, start.elapsed());
        }
        Ok(())
    }
}

/// What planning needs of a resolved image.
fn base_image(name: &str, resolved: &Resolved) -> Result<BaseImage, crate::Error> {
    let bad = |reason| crate::Error::BadImage { name: name.to_owned(), reason };
    let (config, layers) = layers_of(&resolved.image, &resolved.config).map_err(bad)?;
    Ok(BaseImage { manifest: resolved.manifest.digest, config, layers })
}

/// An image's config and its layers, the lowest first. The error says what is wrong with it.
pub(crate) fn layers_of(image: &ImageManifest, config: &[u8]) -> Result<(ImageConfig, Vec<LayerRef>), String> {
    let config = ImageConfig::parse(config).map_err(|error| format!("its config: {error}"))?;
    let descriptors = image.layers();
    let diff_ids = &config.rootfs.diff_ids;
    if descriptors.len() != diff_ids.len() {
        return Err(format!("{} layers, but {} diff ids in its config", descriptors.len(), diff_ids.len()));
    }
    let mut layers = Vec::new();
    for (descriptor, diff_id) in descriptors.iter().zip(diff_ids) {
        let media_type = descriptor.media_type().to_string();
        let compression =
            compression(&media_type).ok_or_else(|| format!("a layer has the unknown media type {media_type}"))?;
        let digest = digest_of(descriptor).map_err(|error| error.to_string())?;
        layers.push(LayerRef { digest, size: descriptor.size(), compression, diff_id: *diff_id });
    }
    Ok((config, layers))
}

/// How a layer of this media type is compressed.
pub(crate) fn compression(media_type: &str) -> Option<Compression> {
    Some(match LayerCompression::of(media_type)? {
        LayerCompression::None => Compression::None,
        LayerCompression::Gzip => Compression::Gzip,
        LayerCompression::Zstd => Compression::Zstd,
    })
}

#[cfg(test)]
mod hostile;
