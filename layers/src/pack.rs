//! From changes to a layer.

use std::io::{self, BufWriter, Read, Write};
use std::path::Path;
use std::sync::Arc;
use std::thread::JoinHandle;

use crate::blob::BlobFile;
use crate::growing::Growing;
use crate::spill::spill;
use crate::{Blob, BlobWriter, Changes, Compression, Digest, Error, HashingWriter, Index, Layer, Result, tar};

/// How layers are written.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Options {
    /// How the blob is compressed.
    pub compression: Compression,
    /// How hard; each format has its own default.
    pub level: Option<i32>,
    /// No time in the layer is later than this, in seconds since the epoch (SOURCE_DATE_EPOCH).
    pub clamp: Option<i64>,
}

/// Writes `changes` as a layer into the directory `blobs`. `None` when nothing changed.
pub fn pack(changes: &Changes, options: &Options, blobs: &Path) -> Result<Option<Layer>> {
    pack_to(changes, options, blobs, io::sink())
}

/// The same, with the tar written to `beside` as well: contents are read once for both.
pub fn pack_beside(
    changes: &Changes,
    options: &Options,
    blobs: &Path,
    beside: &mut dyn Write,
) -> Result<Option<Layer>> {
    pack_to(changes, options, blobs, BufWriter::with_capacity(1 << 18, beside))
}

fn pack_to(changes: &Changes, options: &Options, blobs: &Path, beside: impl Write) -> Result<Option<Layer>> {
    if changes.is_empty() {
        return Ok(None);
    }
    let blob = BlobWriter::create(blobs, options.compression, options.level)?;
    let (Both { blob, mut beside }, index) = tar::write(changes, options.clamp, Both { blob, beside })?;
    beside.flush().map_err(|source| Error::Stream { operation: "write layer", source })?;
    let Blob { digest, diff_id, size } = blob.finish()?;
    Ok(Some(Layer { digest, diff_id, size, compression: options.compression, index: Arc::new(index) }))
}

/// Makes a layer of a tar that [`tar::write`] or [`tar::stream`] wrote in another process; it is indexed as it passes, and
/// read to its end. Its times are what they are. `None` when it holds no entry.
///
/// What the layer says is known when this returns, and is [`Packing::index`]. With `ahead` the tar is taken as fast as it
/// comes, and what the compressor has not taken by then waits in a file without a name in `blobs`; without it there is no
/// such file, and the tar comes as fast as it is compressed.
///
/// `begun` is given the blob, to be read while it is written.
pub fn pack_tar(
    tar: &mut dyn Read,
    options: &Options,
    blobs: &Path,
    ahead: bool,
    begun: &dyn Fn(&Growing),
) -> Result<Option<Packing>> {
    let mut file = BlobFile::create(blobs, options.compression, options.level)?;
    begun(file.growing());
    let (writer, mut reader) = spill(ahead.then_some(blobs))?;
    let work = move || file.fill(&mut reader).and_then(|()| file.finish());
    let thread = std::thread::Builder::new().name("pack".into()).spawn(work);
    let blob =
        Unfinished(Some(thread.map_err(|source| Error::Stream { operation: "start a thread for a layer", source })?));
    let (mut to, mut failed) = (HashingWriter::new(writer), None);
    let index = tar::index(Tee { from: tar, to: &mut to, failed: &mut failed });
    let (writer, hasher) = to.finish();
    let taken = match (index, failed) {
        (_, Some(source)) => Err(source),
        (Err(error), None) => return Err(error),
        (Ok(index), None) if index.is_empty() => return Ok(None),
        (Ok(index), None) => writer.finish().map(|()| Arc::new(index)),
    };
    match taken {
        Ok(index) => {
            let compression = options.compression;
            Ok(Some(Packing { index, diff_id: hasher.finish(), compression, blob }))
        }
        Err(source) => {
            let is_broken_pipe = source.kind() == io::ErrorKind::BrokenPipe;
            let error = Error::Host { operation: "write a blob in", path: blobs.to_owned(), source };
            // Where nobody takes the bytes any more, it is the other thread that knows why.
            Err(if is_broken_pipe { blob.finish().err().unwrap_or(error) } else { error })
        }
    }
}

/// A layer whose content is known, and whose blob is being written. Dropped before it is finished, it leaves nothing but
/// perhaps the whole blob.
#[derive(Debug)]
pub struct Packing {
    index: Arc<Index>,
    diff_id: Digest,
    compression: Compression,
    blob: Unfinished,
}

impl Packing {
    /// What the layer says.
    pub fn index(&self) -> &Arc<Index> {
        &self.index
    }

    /// The digest of its tar.
    pub fn diff_id(&self) -> Digest {
        self.diff_id
    }

    /// Waits for the blob.
    pub fn finish(self) -> Result<Layer> {
        let Self { index, diff_id, compression, blob } = self;
        let (digest, size) = blob.finish()?;
        Ok(Layer { digest, diff_id, size, compression, index })
    }
}

/// The thread that writes a blob. It ends with the queue that feeds it.
#[derive(Debug)]
struct Unfinished(Option<JoinHandle<Result<(Digest, u64)>>>);

impl Unfinished {
    fn finish(mut self) -> Result<(Digest, u64)> {
        let thread = self.0.take().expect("only this and drop take it");
        thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    }
}

impl Drop for Unfinished {
    fn drop(&mut self) {
        // A panic there was reported by its own thread.
        _ = self.0.take().map(JoinHandle::join);
    }
}

/// Writes to two places.
struct Both<W> {
    blob: BlobWriter,
    beside: W,
}

impl<W: Write> Write for Both<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let length = self.blob.write(bytes)?;
        self.beside.write_all(&bytes[..length])?;
        Ok(length)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.blob.flush()
    }
}

/// Writes what is read.
struct Tee<'a, W> {
    from: &'a mut dyn Read,
    to: &'a mut W,
    /// Why it could not be written, so that this is not taken for a failure to read.
    failed: &'a mut Option<io::Error>,
}

impl<W: Write> Read for Tee<'_, W> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let length = self.from.read(buffer)?;
        match self.to.write_all(&buffer[..length]) {
            Ok(()) => Ok(length),
            Err(error) => {
                let kind = error.kind();
                *self.failed = Some(error);
                Err(kind.into())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Hostile, path};
    use crate::{Content, Entry, Timestamp};

    #[test]
    fn nothing_makes_no_layer() {
        let dir = tempfile::tempdir().unwrap();
        assert!(pack(&Changes::new(), &Options::default(), dir.path()).unwrap().is_none());
        let mut empty = &Hostile::default().dir("./").end()[..];
        assert!(pack_tar(&mut empty, &Options::default(), dir.path(), true, &|_| ()).unwrap().is_none());
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
    }

    #[test]
    fn a_tar_from_elsewhere_gives_the_same_layer() {
        let dir = tempfile::tempdir().unwrap();
        let mut changes = Changes::new();
        changes.put(path("f"), Entry::file(3, 0o644, Timestamp::from_secs(9)), Content::Bytes((*b"abc").into()));
        for compression in [Compression::None, Compression::Gzip, Compression::Zstd] {
            let options = Options { compression, level: None, clamp: Some(5) };
            let mut beside = Vec::new();
            let here = pack_beside(&changes, &options, dir.path(), &mut beside).unwrap().unwrap();
            let (tar, _) = tar::write(&changes, options.clamp, Vec::new()).unwrap();
            assert_eq!(beside, tar);
            // What follows the end of the archive belongs to the digest.
            for ahead in [false, true] {
                let packing = pack_tar(&mut &tar[..], &options, dir.path(), ahead, &|_| ()).unwrap().unwrap();
                assert_eq!((packing.index(), packing.diff_id()), (&here.index, here.diff_id));
                let there = packing.finish().unwrap();
                assert_eq!((here.digest, here.diff_id, here.size), (there.digest, there.diff_id, there.size));
                assert_eq!(here.index, there.index);
            }
            let padded = [tar, vec![0; 9000]].concat();
            let longer = pack_tar(&mut &padded[..], &options, dir.path(), true, &|_| ()).unwrap().unwrap();
            assert_eq!(longer.diff_id(), Digest::of(&padded));
        }
    }

    /// Bytes that come as fast as they are read, unlike what compresses them.
    fn large() -> Vec<u8> {
        let content: Vec<u8> = (0..24_u32 << 20).map(|n| (n.wrapping_mul(2_654_435_761) >> 23) as u8).collect();
        let mut changes = Changes::new();
        let entry = Entry::file(content.len() as u64, 0o644, Timestamp::default());
        changes.put(path("f"), entry, Content::Bytes(content.into()));
        tar::write(&changes, None, Vec::new()).unwrap().0
    }

    #[test]
    fn what_waits_in_a_file_gives_the_same_layer() {
        let dir = tempfile::tempdir().unwrap();
        let tar = large();
        let layers = [false, true].map(|ahead| {
            let growing = std::cell::RefCell::new(None);
            let begun = |blob: &Growing| _ = growing.replace(Some(blob.clone()));
            let packing = pack_tar(&mut &tar[..], &Options::default(), dir.path(), ahead, &begun).unwrap().unwrap();
            assert_eq!(packing.diff_id(), Digest::of(&tar));
            let read = growing.take().unwrap();
            let (mut blob, layer) = (Vec::new(), packing.finish().unwrap());
            read.open().read_to_end(&mut blob).unwrap();
            assert_eq!((read.digest(), Digest::of(&blob)), (Some(layer.digest), layer.digest));
            layer
        });
        assert_eq!(layers[0].digest, layers[1].digest);
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_packing_that_nobody_finishes_is_over_when_it_is_dropped() {
        let dir = tempfile::tempdir().unwrap();
        let tar = large();
        drop(pack_tar(&mut &tar[..], &Options::default(), dir.path(), true, &|_| ()).unwrap().unwrap());
        let names: Vec<_> = std::fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert!(names.len() == 1 && names[0].len() == 64, "{names:?}");
    }

    #[test]
    fn a_full_disk_is_no_failure_to_read() {
        let disk = Path::new("/dev/full");
        let tar = Hostile::default().file("f", "content").end();
        let (mut from, mut to, mut failed) = (&tar[..], std::fs::File::create(disk).unwrap(), None);
        let mut tee = Tee { from: &mut from, to: &mut to, failed: &mut failed };
        assert!(tar::index(&mut tee).is_err());
        assert_eq!(failed.unwrap().kind(), io::ErrorKind::StorageFull);
    }

    #[test]
    fn a_broken_tar_leaves_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let tar = Hostile::default().file("f", "content").end();
        assert!(pack_tar(&mut &tar[..700], &Options::default(), dir.path(), true, &|_| ()).is_err());
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
    }
}
