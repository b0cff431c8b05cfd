//! From changes to a layer.

use std::io::{self, Read, Write};
use std::path::Path;
use std::sync::Arc;

use crate::{BlobWriter, Changes, Compression, Error, Index, Layer, Result, tar};

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
    if changes.is_empty() {
        return Ok(None);
    }
    let blob = BlobWriter::create(blobs, options.compression, options.level)?;
    let (blob, index) = tar::write(changes, options.clamp, blob)?;
    finish(blob, index, options)
}

/// Makes a layer of a tar that [`tar::write`] wrote in another process; it is indexed as it passes, and read to its end.
/// Its times are what they are. `None` when it holds no entry.
pub fn pack_tar(tar: &mut dyn Read, options: &Options, blobs: &Path) -> Result<Option<Layer>> {
    let mut blob = BlobWriter::create(blobs, options.compression, options.level)?;
    let mut failed = None;
    let index = tar::index(Tee { from: tar, to: &mut blob, failed: &mut failed });
    if let Some(source) = failed {
        return Err(Error::Host { operation: "write a blob in", path: blobs.to_owned(), source });
    }
    let index = index?;
    if index.is_empty() { Ok(None) } else { finish(blob, index, options) }
}

fn finish(blob: BlobWriter, index: Index, options: &Options) -> Result<Option<Layer>> {
    let blob = blob.finish()?;
    Ok(Some(Layer {
        digest: blob.digest,
        diff_id: blob.diff_id,
        size: blob.size,
        compression: options.compression,
        index: Arc::new(index),
    }))
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
        assert!(pack_tar(&mut empty, &Options::default(), dir.path()).unwrap().is_none());
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
    }

    #[test]
    fn a_tar_from_elsewhere_gives_the_same_layer() {
        let dir = tempfile::tempdir().unwrap();
        let mut changes = Changes::new();
        changes.put(path("f"), Entry::file(3, 0o644, Timestamp::from_secs(9)), Content::Bytes((*b"abc").into()));
        for compression in [Compression::None, Compression::Gzip, Compression::Zstd] {
            let options = Options { compression, level: None, clamp: Some(5) };
            let here = pack(&changes, &options, dir.path()).unwrap().unwrap();
            let (tar, _) = tar::write(&changes, options.clamp, Vec::new()).unwrap();
            // What follows the end of the archive belongs to the digest.
            let there = pack_tar(&mut &tar[..], &options, dir.path()).unwrap().unwrap();
            assert_eq!((here.digest, here.diff_id, here.size), (there.digest, there.diff_id, there.size));
            assert_eq!(here.index, there.index);
            let padded = [tar, vec![0; 9000]].concat();
            let longer = pack_tar(&mut &padded[..], &options, dir.path()).unwrap().unwrap();
            assert_eq!(longer.diff_id, crate::Digest::of(&padded));
        }
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
        assert!(pack_tar(&mut &tar[..700], &Options::default(), dir.path()).is_err());
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
    }
}
