//! Writing a layer's blob: one pass from tar bytes to a compressed file with both digests.

use std::fs::{self, File};
use std::io::{self, BufRead, BufWriter, Write};
use std::path::{Path, PathBuf};

use crate::compress::Encoder;
use crate::digest::Hasher;
use crate::growing::{Growing, Growth};
use crate::{Compression, Digest, Error, HashingWriter, Result};

/// A blob in a directory of blobs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Blob {
    /// The digest of the compressed bytes, which names the file.
    pub digest: Digest,
    /// The digest of the tar.
    pub diff_id: Digest,
    /// The size of the compressed bytes.
    pub size: u64,
}

/// Where the blob `digest` is in the directory `blobs`.
pub fn blob_path(blobs: &Path, digest: &Digest) -> PathBuf {
    blobs.join(digest.hex())
}

/// Takes the bytes of a tar and makes a blob of them, reading nothing twice.
///
/// The file has its final name only after [`BlobWriter::finish`], so that a blob that is there is complete. Dropped before
/// that, it leaves nothing.
#[derive(Debug)]
pub struct BlobWriter {
    tar: Hasher,
    file: BlobFile,
}

/// The part of it that compresses and writes.
#[derive(Debug)]
pub(crate) struct BlobFile {
    blobs: PathBuf,
    partial: Partial,
    encoder: Encoder<HashingWriter<BufWriter<Growth>>>,
    growing: Growing,
}

/// A file that is removed unless it was renamed.
#[derive(Debug)]
struct Partial(Option<PathBuf>);

impl Partial {
    fn rename(mut self, to: &Path) -> io::Result<()> {
        let Some(path) = &self.0 else { return Ok(()) };
        fs::rename(path, to)?;
        // From now on the name may be another writer's.
        self.0 = None;
        Ok(())
    }
}

impl Drop for Partial {
    fn drop(&mut self) {
        _ = self.0.take().map(fs::remove_file);
    }
}

impl BlobWriter {
    /// Starts a blob in the directory `blobs`, which must exist.
    pub fn create(blobs: &Path, compression: Compression, level: Option<i32>) -> Result<Self> {
        Ok(Self { tar: Hasher::default(), file: BlobFile::create(blobs, compression, level)? })
    }

    /// The blob, for those who read it before it is complete.
    pub fn growing(&self) -> &Growing {
        self.file.growing()
    }

    /// Completes the blob and gives it its name. A blob of that name that was there before is the same one.
    pub fn finish(self) -> Result<Blob> {
        let (digest, size) = self.file.finish()?;
        Ok(Blob { digest, diff_id: self.tar.finish(), size })
    }
}

impl Write for BlobWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let length = self.file.encoder.write(bytes)?;
        self.tar.update(&bytes[..length]);
        Ok(length)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.encoder.flush()
    }
}

impl BlobFile {
    pub(crate) fn create(blobs: &Path, compression: Compression, level: Option<i32>) -> Result<Self> {
        let (path, file) = create(blobs)?;
        let partial = Partial(Some(path));
        let growth = Growth::new(file);
        let growing = growth.blob().clone();
        let out = HashingWriter::new(BufWriter::with_capacity(128 * 1024, growth));
        let encoder = Encoder::new(compression, level, out)?;
        Ok(Self { blobs: blobs.to_owned(), partial, encoder, growing })
    }

    pub(crate) fn growing(&self) -> &Growing {
        &self.growing
    }

    /// Takes all that `tar` gives.
    pub(crate) fn fill(&mut self, tar: &mut impl BufRead) -> Result<()> {
        let failed = |source| Error::Stream { operation: "write blob", source };
        loop {
            let bytes = tar.fill_buf().map_err(failed)?;
            let length = bytes.len();
            if length == 0 {
                return Ok(());
            }
            self.encoder.write_all(bytes).map_err(failed)?;
            tar.consume(length);
        }
    }

    /// The digest and the size of the blob, which has its name now.
    pub(crate) fn finish(self) -> Result<(Digest, u64)> {
        let failed = |source| Error::Stream { operation: "write blob", source };
        let (file, hasher) = self.encoder.finish()?.finish();
        let growth = file.into_inner().map_err(|error| failed(error.into_error()))?;
        let size = hasher.size();
        let digest = hasher.finish();
        let path = blob_path(&self.blobs, &digest);
        let renamed = self.partial.rename(&path);
        renamed.map_err(|source| Error::Host { operation: "rename blob to", path, source })?;
        growth.complete(digest);
        Ok((digest, size))
    }
}

/// A file in the directory `blobs` that has no name, and is gone when it is closed.
pub(crate) fn unnamed(blobs: &Path) -> Result<File> {
    let (path, file) = create(blobs)?;
    drop(Partial(Some(path)));
    Ok(file)
}

/// Several blobs may be written at once, by this process or by others.
fn create(blobs: &Path) -> Result<(PathBuf, File)> {
    for number in 0_u32.. {
        let path = blobs.join(format!(".partial-{}-{number}", std::process::id()));
        match File::options().read(true).write(true).create_new(true).open(&path) {
            Ok(file) => return Ok((path, file)),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(source) => return Err(Error::Host { operation: "create", path, source }),
        }
    }
    Err(Error::Stream { operation: "write blob", source: io::ErrorKind::AlreadyExists.into() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_blob_is_named_by_what_it_holds() {
        let dir = tempfile::tempdir().unwrap();
        for compression in [Compression::None, Compression::Gzip, Compression::Zstd] {
            let mut writer = BlobWriter::create(dir.path(), compression, None).unwrap();
            writer.write_all(b"tar").unwrap();
            let blob = writer.finish().unwrap();
            let bytes = fs::read(blob_path(dir.path(), &blob.digest)).unwrap();
            assert_eq!((blob.digest, blob.size), (Digest::of(&bytes), bytes.len() as u64));
            assert_eq!(blob.diff_id, Digest::of("tar"));
        }
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 3);
    }

    #[test]
    fn writers_at_the_same_time_do_not_take_each_others_files() {
        let dir = tempfile::tempdir().unwrap();
        let write = |text: String| {
            let mut writer = BlobWriter::create(dir.path(), Compression::None, None).unwrap();
            writer.write_all(text.as_bytes()).unwrap();
            writer.finish().unwrap();
        };
        std::thread::scope(|scope| {
            for thread in 0..4 {
                scope.spawn(move || (0..500).for_each(|number| write(format!("{thread} {number}"))));
            }
        });
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 2000);
    }

    #[test]
    fn a_blob_that_is_not_finished_leaves_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let mut writers: Vec<BlobWriter> =
            (0..3).map(|_| BlobWriter::create(dir.path(), Compression::Gzip, None).unwrap()).collect();
        writers[1].write_all(b"tar").unwrap();
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 3);
        drop(writers);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
    }
}
