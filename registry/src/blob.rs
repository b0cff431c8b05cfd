//! Where the bytes of a blob to be written come from.

use std::fs::File;
use std::io::{self, Cursor, Read, Seek as _, SeekFrom};
use std::path::PathBuf;

use bytes::Bytes;
use reqwest::Url;
use yadokari_layers::Digest;

/// The bytes of a blob, replayable: a registry may ask for them again after a lost connection or an expired token.
///
/// `size` and `digest` are what `open` gives, each time. A source that breaks its word is refused by every store
/// before the blob becomes visible.
pub trait BlobSource: Send + Sync {
    /// The number of bytes.
    fn size(&self) -> u64;

    /// The digest of the bytes.
    fn digest(&self) -> Digest;

    /// A reader from the first byte.
    fn open(&self) -> io::Result<Box<dyn Read + Send>>;

    /// A reader from the byte `offset` on.
    fn open_from(&self, offset: u64) -> io::Result<Box<dyn Read + Send>> {
        let mut reader = self.open()?;
        io::copy(&mut reader.by_ref().take(offset), &mut io::sink())?;
        Ok(reader)
    }
}

/// What a store has taken of a blob that has no name there yet.
#[derive(Debug)]
pub struct Upload(pub(crate) Url);

/// A blob in memory.
#[derive(Debug, Clone)]
pub struct BytesBlob {
    bytes: Bytes,
    digest: Digest,
}

impl BytesBlob {
    /// The blob of these bytes.
    pub fn new(bytes: impl Into<Bytes>) -> Self {
        let bytes = bytes.into();
        Self { digest: Digest::of(&bytes), bytes }
    }

    /// The bytes.
    pub fn bytes(&self) -> &Bytes {
        &self.bytes
    }
}

impl BlobSource for BytesBlob {
    fn size(&self) -> u64 {
        self.bytes.len() as u64
    }

    fn digest(&self) -> Digest {
        self.digest
    }

    fn open(&self) -> io::Result<Box<dyn Read + Send>> {
        Ok(Box::new(Cursor::new(self.bytes.clone())))
    }
}

/// A blob in a file, whose digest and size its writer noted.
#[derive(Debug, Clone)]
pub struct FileBlob {
    /// The file.
    pub path: PathBuf,
    /// The digest of its content.
    pub digest: Digest,
    /// Its size in bytes.
    pub size: u64,
}

impl BlobSource for FileBlob {
    fn size(&self) -> u64 {
        self.size
    }

    fn digest(&self) -> Digest {
        self.digest
    }

    fn open(&self) -> io::Result<Box<dyn Read + Send>> {
        self.open_from(0)
    }

    fn open_from(&self, offset: u64) -> io::Result<Box<dyn Read + Send>> {
        let name = |error: io::Error| io::Error::new(error.kind(), format!("{}: {error}", self.path.display()));
        let mut file = File::open(&self.path).map_err(name)?;
        file.seek(SeekFrom::Start(offset)).map_err(name)?;
        Ok(Box::new(file))
    }
}
