//! The layers on disk: fetched when something needs their bytes, indexed as soon as they are there.

use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::panic::resume_unwind;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, mpsc};

use yadokari_layers::{
    Arriving, Coming, Content, Digest, Error as LayersError, Index, Limits, RelPath, Spool, Tree, blob_path, compress,
    materialise, tar,
};

use super::{Hold, Holders, WorkDir};
use crate::plan::{ImageName, LayerRef};
use crate::progress::bytes;
use crate::space;

/// Knows the base images' layers, and brings their blobs to the blob directory.
pub trait Fetch: Sync {
    /// The layers of an image that the plan names, the lowest first.
    fn layers(&self, image: &ImageName) -> Vec<LayerRef>;

    /// What layers say, of which that is known without reading them.
    fn indexes(&self, _layers: &[LayerRef]) -> HashMap<Digest, Arc<Index>> {
        HashMap::new()
    }

    /// Takes note of what a layer says that had to be read for it.
    fn indexed(&self, _layer: &LayerRef, _index: &Arc<Index>) {}

    /// Says what is wrong with a layer. True where that may be because of what was believed without reading it: then nothing
    /// that did is believed again. `with_indexes` says whether [`Fetch::indexes`] said what any layer holds.
    fn distrust(&self, _layer: &Digest, _with_indexes: bool, _error: &crate::Error) -> bool {
        false
    }

    /// Fetches those of `layers` that are not in `directory` yet, side by side. `Ok` means that each is there, whole and
    /// verified; it can be fetched again once it is not. Meanwhile `begun` is told of each layer that it is there, and before
    /// that, where it can be read as it comes, how.
    fn fetch(&self, layers: &[LayerRef], directory: &Path, begun: Option<Begun<'_>>) -> Result<(), crate::Error>;
}

/// What is told of layers while they are fetched.
pub type Begun<'a> = &'a (dyn Fn(&LayerRef, Option<Arriving>) + Sync);

/// A blob, and what is to come of it yet.
pub(super) type Opened = (File, Option<Coming>);

/// A directory of blobs, and the indexes of those that were read or made. Whatever several stages need at once is fetched and
/// read once.
pub struct Blobs<'a> {
    directory: PathBuf,
    holders: Arc<Holders>,
    fetch: &'a dyn Fetch,
    limits: Limits,
    indexes: Mutex<HashMap<Digest, Arc<Index>>>,
    /// Whether the layers themselves did not say all of them.
    is_told: AtomicBool,
    /// The layers that were found out not to be what they were believed to be.
    blamed: Mutex<HashSet<Digest>>,
    /// Held by whoever asks what layers say.
    asking: Mutex<()>,
    /// For each layer, held by whoever reads what it says.
    reading: Mutex<HashMap<Digest, Arc<Mutex<()>>>>,
}

impl<'a> Blobs<'a> {
    /// Keeps blobs in a work directory.
    pub fn new(work: &WorkDir, fetch: &'a dyn Fetch) -> Self {
        let (directory, holders) = (work.blobs().to_owned(), Arc::clone(work.holders()));
        let (indexes, is_told, blamed, asking, reading) = Default::default();
        Self { directory, holders, fetch, limits: Limits::default(), indexes, is_told, blamed, asking, reading }
    }

    /// The same, with what layers may hold.
    pub fn with_limits(self, limits: Limits) -> Self {
        Self { limits, ..self }
    }

    /// What each layer may hold.
    pub(super) fn limits(&self) -> &Limits {
        &self.limits
    }

    /// Where the blobs are.
    pub(super) fn directory(&self) -> &Path {
        &self.directory
    }

    /// Remembers the index of a layer that was just made.
    pub(super) fn made(&self, layer: &LayerRef, index: &Arc<Index>) {
        self.lock().insert(layer.digest, Arc::clone(index));
    }

    /// What the layers say together, the lowest first.
    pub(super) fn tree(&self, layers: &[LayerRef]) -> Result<Tree, crate::Error> {
        Ok(Tree::of(self.indexes(layers)?))
    }

    /// What each of the layers says. Those of which nobody knows it are fetched and read, side by side.
    pub(super) fn indexes(&self, layers: &[LayerRef]) -> Result<Vec<Arc<Index>>, crate::Error> {
        let known = self.known(layers);
        let unknown = layers.iter().zip(&known).filter(|(_, index)| index.is_none());
        let mut unknown: Vec<LayerRef> = unknown.map(|(layer, _)| *layer).collect();
        let _until_read = self.bring(&unknown)?;
        // A layer may be in an image twice.
        unknown.sort_by_key(|layer| layer.digest);
        unknown.dedup_by_key(|layer| layer.digest);
        let threads = unknown.len().min(std::thread::available_parallelism().map_or(1, usize::from));
        let unknown = Mutex::new(unknown.into_iter());
        let next = || unknown.lock().unwrap_or_else(PoisonError::into_inner).next();
        let read = || std::iter::from_fn(next).try_for_each(|layer| self.index(&layer).map(drop));
        std::thread::scope(|scope| {
            let threads: Vec<_> = (0..threads).map(|_| scope.spawn(read)).collect();
            threads.into_iter().try_for_each(|thread| thread.join().unwrap_or_else(|panic| resume_unwind(panic)))
        })?;
        layers.iter().map(|layer| self.index(layer)).collect()
    }

    /// What each of the layers says, of which that is known without reading them.
    pub(crate) fn known(&self, layers: &[LayerRef]) -> Vec<Option<Arc<Index>>> {
        let unknown: Vec<LayerRef> = {
            let known = self.lock();
            layers.iter().filter(|layer| !known.contains_key(&layer.digest)).copied().collect()
        };
        let _asking = lock(&self.asking);
        let found = self.fetch.indexes(&unknown);
        self.is_told.fetch_or(!found.is_empty(), Ordering::Relaxed);
        let mut known = self.lock();
        known.extend(found);
        layers.iter().map(|layer| known.get(&layer.digest).map(Arc::clone)).collect()
    }

    /// Takes note of what a layer says, that somebody had to read.
    pub(super) fn found(&self, layer: &LayerRef, index: &Arc<Index>) {
        self.fetch.indexed(layer, index);
        self.lock().insert(layer.digest, Arc::clone(index));
    }

    /// The same error, or where it is about a layer that was believed to be something else: that this layer is stale.
    pub(super) fn blamed(&self, error: crate::Error) -> crate::Error {
        let Some(layer) = error.layer() else { return error };
        let mut blamed = lock(&self.blamed);
        let is_told = self.is_told.load(Ordering::Relaxed);
        if blamed.contains(&layer) || self.fetch.distrust(&layer, is_told, &error) {
            blamed.insert(layer);
            return crate::Error::Stale { layer };
        }
        error
    }

    /// What one layer says.
    pub(super) fn index(&self, layer: &LayerRef) -> Result<Arc<Index>, crate::Error> {
        let known = || self.lock().get(&layer.digest).map(Arc::clone);
        if let Some(index) = known() {
            return Ok(index);
        }
        let reading = Arc::clone(lock(&self.reading).entry(layer.digest).or_default());
        let _reading = lock(&reading);
        if let Some(index) = known() {
            return Ok(index);
        }
        let mut blob = self.open(layer)?;
        let (digest, diff_id) = (layer.digest, layer.diff_id);
        let index = Arc::new(materialise::index(&mut blob, digest, diff_id, &self.limits)?);
        self.found(layer, &index);
        Ok(index)
    }

    /// Sees to it that blobs are here, and stay while they are held.
    pub(super) fn bring(&self, layers: &[LayerRef]) -> Result<Hold, crate::Error> {
        let hold = self.holders.hold(layers.iter().map(|layer| layer.digest));
        self.fetch(&self.missing(layers), None)?;
        Ok(hold)
    }

    /// Gives `read` all the blobs, those that are not here yet while they come. What it makes of them holds once they are all
    /// here and verified; what is wrong with one of them comes before whatever went wrong in reading it.
    pub(super) fn bring_beside<T>(
        &self,
        layers: &[LayerRef],
        read: impl FnOnce(Vec<Opened>) -> Result<T, crate::Error>,
    ) -> Result<T, crate::Error> {
        let _until_read = self.holders.hold(layers.iter().map(|layer| layer.digest));
        let missing = self.missing(layers);
        // One that is in the image twice would need two readers.
        let is_single = |digest: &Digest| layers.iter().filter(|layer| layer.digest == *digest).count() == 1;
        std::thread::scope(|scope| {
            let (sender, receiver) = mpsc::channel();
            let fetching = scope.spawn({
                let missing = &missing;
                move || {
                    let begun = |layer: &LayerRef, arriving| _ = sender.send((layer.digest, arriving));
                    self.fetch(missing, Some(&begun))
                }
            });
            let fetched = || fetching.join().unwrap_or_else(|panic| resume_unwind(panic));
            let mut awaited: HashSet<Digest> = missing.iter().map(|layer| layer.digest).collect();
            let mut coming: HashMap<Digest, Arriving> = HashMap::new();
            while !awaited.is_empty() {
                match receiver.recv() {
                    Ok((digest, Some(arriving))) if is_single(&digest) => {
                        awaited.remove(&digest);
                        coming.insert(digest, arriving);
                    }
                    Ok((_, Some(_))) => {}
                    Ok((digest, None)) => _ = awaited.remove(&digest),
                    // It is over: what was not told of is here, or what went wrong is told below.
                    Err(mpsc::RecvError) => break,
                }
            }
            let opened = layers.iter().map(|layer| match coming.remove(&layer.digest) {
                Some(arriving) => {
                    let (file, coming) = arriving.into_parts();
                    Ok((file, Some(coming)))
                }
                None => self.open_here(layer),
            });
            let made = opened.collect::<Result<_, _>>().and_then(read);
            fetched().and(made)
        })
    }

    /// Those of the layers whose blobs are not here.
    fn missing(&self, layers: &[LayerRef]) -> Vec<LayerRef> {
        let is_missing = |layer: &&LayerRef| !blob_path(&self.directory, &layer.digest).exists();
        let mut seen = HashSet::new();
        layers.iter().filter(is_missing).filter(|layer| seen.insert(layer.digest)).copied().collect()
    }

    fn fetch(&self, missing: &[LayerRef], begun: Option<Begun<'_>>) -> Result<(), crate::Error> {
        let needed = || {
            let size = missing.iter().map(|layer| layer.size).sum();
            Some(format!("the layers that are downloaded have {}", bytes(size)))
        };
        let fetched = self.fetch.fetch(missing, &self.directory, begun);
        fetched.map_err(|error| space::explained(error, &self.directory, needed))?;
        missing.iter().for_each(|layer| self.holders.is_elsewhere(&layer.digest));
        Ok(())
    }

    /// Opens the compressed blob of a layer, which is fetched first where it is not here.
    pub(super) fn open(&self, layer: &LayerRef) -> Result<File, crate::Error> {
        let _until_opened = self.bring(&[*layer])?;
        self.open_here(layer).map(|(blob, _)| blob)
    }

    /// Opens one that is here.
    fn open_here(&self, layer: &LayerRef) -> Result<Opened, crate::Error> {
        let path = blob_path(&self.directory, &layer.digest);
        let blob = File::open(&path).map_err(|source| crate::Error::Host { operation: "open", path, source })?;
        Ok((blob, None))
    }

    /// Copies the contents of some files of a layer into a spool, in one pass over its blob. Only files under their first
    /// name count; the paths are those of the layer's own tar.
    pub(super) fn extract(
        &self,
        layer: &LayerRef,
        wanted: &[RelPath],
        spool: &mut Spool,
    ) -> Result<HashMap<RelPath, Content>, crate::Error> {
        let mut missing: HashSet<&RelPath> = wanted.iter().collect();
        let mut found = HashMap::new();
        let blob = self.open(layer)?;
        let read = compress::decoder(blob).and_then(|tar| {
            tar::read(tar, &self.limits, |path, item, content| {
                let tar::Item::Put(entry) = item else { return Ok(()) };
                if entry.is_file() && missing.contains(&path) {
                    // Of two entries for one path the later one holds, as in the index.
                    found.insert(path, spool.take(content)?);
                }
                Ok(())
            })
        });
        read.map_err(|error| error.in_layer(layer.digest))?;
        missing.retain(|path| !found.contains_key(*path));
        match missing.into_iter().next() {
            Some(path) => {
                let source = std::io::Error::from(std::io::ErrorKind::NotFound);
                let error = LayersError::Path { operation: "find in its layer", path: path.clone(), source };
                Err(error.in_layer(layer.digest).into())
            }
            None => Ok(found),
        }
    }

    /// For contents on their way from one layer to another.
    pub(super) fn spool(&self) -> Result<Spool, crate::Error> {
        Ok(Spool::create(&self.directory)?)
    }

    /// A fresh directory.
    pub(super) fn scratch(&self) -> Result<tempfile::TempDir, crate::Error> {
        let failed =
            |source| crate::Error::Host { operation: "make a directory in", path: self.directory.clone(), source };
        let parent = self.directory.parent().unwrap_or(&self.directory);
        tempfile::Builder::new().prefix("scratch-").tempdir_in(parent).map_err(failed)
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Digest, Arc<Index>>> {
        lock(&self.indexes)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write as _};

    use yadokari_layers::{Arrival, BlobWriter, Compression};

    use super::*;

    struct NothingToFetch;

    impl Fetch for NothingToFetch {
        fn layers(&self, _image: &ImageName) -> Vec<LayerRef> {
            Vec::new()
        }

        fn fetch(&self, layers: &[LayerRef], directory: &Path, _begun: Option<Begun<'_>>) -> Result<(), crate::Error> {
            assert!(layers.iter().all(|layer| blob_path(directory, &layer.digest).exists()));
            Ok(())
        }
    }

    fn layer(directory: &Path, files: &[(&str, &str)]) -> LayerRef {
        let mut archive = ::tar::Builder::new(Vec::new());
        for (name, content) in files {
            let mut header = ::tar::Header::new_ustar();
            header.set_size(content.len() as u64);
            header.set_mode(0o644);
            archive.append_data(&mut header, name, content.as_bytes()).unwrap();
        }
        let mut writer = BlobWriter::create(directory, Compression::Gzip, None).unwrap();
        writer.write_all(&archive.into_inner().unwrap()).unwrap();
        let blob = writer.finish().unwrap();
        LayerRef { digest: blob.digest, size: blob.size, compression: Compression::Gzip, diff_id: blob.diff_id }
    }

    #[test]
    fn a_path_that_a_layer_states_twice_does_not_mix_contents_up() {
        let directory = tempfile::tempdir().unwrap();
        let work = WorkDir::create(directory.path()).unwrap();
        let blobs = Blobs::new(&work, &NothingToFetch);
        let layer = layer(work.blobs(), &[("a", "old"), ("a", "new"), ("b", "other")]);
        let wanted = ["a", "b"].map(|name| RelPath::new(name).unwrap());
        let found = blobs.extract(&layer, &wanted, &mut blobs.spool().unwrap()).unwrap();
        let content = |path: &RelPath| std::io::read_to_string(found[path].open().unwrap()).unwrap();
        assert_eq!(wanted.map(|path| content(&path)), ["new", "other"]);
    }

    /// Fetches layers of the bytes `0123456789`, the first one last: its second half comes when the first was read.
    struct HalfByHalf {
        first_was_read: Mutex<mpsc::Receiver<()>>,
        fails: bool,
    }

    impl Fetch for HalfByHalf {
        fn layers(&self, _image: &ImageName) -> Vec<LayerRef> {
            Vec::new()
        }

        fn fetch(&self, layers: &[LayerRef], directory: &Path, begun: Option<Begun<'_>>) -> Result<(), crate::Error> {
            let begun = begun.expect("somebody reads meanwhile");
            let mut arrivals = Vec::new();
            for layer in layers {
                let path = blob_path(directory, &layer.digest).with_extension("part");
                let (arrival, arriving) = Arrival::begin(File::create_new(path).unwrap(), layer.size).unwrap();
                begun(layer, Some(arriving));
                arrivals.push((layer, arrival));
            }
            for (layer, mut arrival) in arrivals.into_iter().rev() {
                arrival.write_all(b"01234").unwrap();
                if layer.digest == layers[0].digest {
                    lock(&self.first_was_read).recv().unwrap();
                }
                arrival.write_all(b"56789").unwrap();
                let path = blob_path(directory, &layer.digest);
                std::fs::write(path, "0123456789").unwrap();
                begun(layer, None);
            }
            if self.fails { Err(crate::Error::BadImage { name: "x".into(), reason: "fetched".into() }) } else { Ok(()) }
        }
    }

    #[test]
    fn layers_are_read_while_they_come_and_hold_when_they_are_all_there() {
        let image = |name: &str| LayerRef {
            digest: Digest::of(name),
            size: 10,
            compression: Compression::None,
            diff_id: Digest::of(name),
        };
        for (fails, misread, expected) in [
            (false, false, Ok(())),
            (true, false, Err("image 'x': fetched")),
            (false, true, Err("image 'y': read")),
            (true, true, Err("image 'x': fetched")),
        ] {
            let directory = tempfile::tempdir().unwrap();
            let work = WorkDir::create(directory.path()).unwrap();
            let (told, first_was_read) = mpsc::channel();
            let fetch = HalfByHalf { first_was_read: Mutex::new(first_was_read), fails };
            let blobs = Blobs::new(&work, &fetch);
            // The second is there twice, and is waited for: nobody could read one file for both.
            let layers = if misread { vec![image("a")] } else { vec![image("a"), image("b"), image("b")] };
            let made = blobs.bring_beside(&layers, |opened| {
                let mut all = Vec::new();
                for (number, (file, coming)) in opened.into_iter().enumerate() {
                    assert_eq!(coming.is_some(), number == 0);
                    let mut blob: Box<dyn Read> = match coming {
                        Some(coming) => Box::new(Arriving::new(file, coming)),
                        None => Box::new(file),
                    };
                    let mut half = [0; 5];
                    blob.read_exact(&mut half).unwrap();
                    told.send(()).unwrap();
                    all.push(std::io::read_to_string(blob).unwrap());
                }
                let error = crate::Error::BadImage { name: "y".into(), reason: "read".into() };
                if misread { Err(error) } else { Ok(all) }
            });
            let made = made.map(|all| assert_eq!(all, ["56789"; 3]));
            assert_eq!(made.map_err(|error| error.to_string()), expected.map_err(str::to_owned));
        }
    }

    #[test]
    fn a_layer_that_is_not_what_the_config_says_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let work = WorkDir::create(directory.path()).unwrap();
        let blobs = Blobs::new(&work, &NothingToFetch);
        let layer = LayerRef { diff_id: Digest::of("other"), ..layer(work.blobs(), &[("a", "x")]) };
        let error = blobs.index(&layer).unwrap_err();
        assert!(matches!(error, crate::Error::Layers(LayersError::DiffId { .. })), "{error}");
    }
}
