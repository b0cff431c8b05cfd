//! The one interface to every place where an image lives.

use std::io;

use async_trait::async_trait;
use yadokari_layers::{Digest, Growing};

use crate::{BlobSource, Error, Manifest, Result, Upload, Version};

/// Takes the pieces of a blob in order. It is called on the runtime's thread: whatever may take long belongs behind a
/// bounded channel.
pub type Sink<'a> = dyn FnMut(&[u8]) -> io::Result<()> + Send + 'a;

/// One repository of images: a registry's, an OCI layout directory, or memory.
///
/// # Contract
///
/// - Every method may be called from many tasks at once, and again after any failure: all writes are idempotent.
/// - Absence is an answer, not a failure. `Ok(false)` and `Ok(None)` say that the store was asked and does not have
///   the content; when that cannot be known, the result is an error.
/// - `Ok` from a write means that the content is in the store, not that this call put it there.
/// - What is read is verified: `Ok` says that the bytes are those that the digest names.
/// - `Ok` from a deletion means that the content is gone. `false` says that it was not there, which after a lost answer
///   may be this very call's doing.
/// - Order is the caller's duty: blobs first, then the manifest that names them, then tags. A store may refuse a
///   manifest whose blobs it lacks.
#[async_trait]
pub trait Store: Send + Sync {
    /// Whether the store has the blob.
    async fn has_blob(&self, digest: &Digest) -> Result<bool> {
        Ok(self.blob_size(digest).await?.is_some())
    }

    /// The size of a blob as the store tells it, without reading the blob; `None` where there is none.
    async fn blob_size(&self, digest: &Digest) -> Result<Option<Size>>;

    /// Streams a blob into `sink`, checking its digest, and its size where `size` is known.
    ///
    /// The sink sees bytes before they are verified as a whole, and never sees a byte twice, even where a broken
    /// connection was resumed: only `Ok` says that what it took is the blob. A blob that is absent is
    /// [`Error::NotFound`](crate::Error::NotFound).
    async fn read_blob(&self, digest: &Digest, size: Option<u64>, sink: &mut Sink<'_>) -> Result<()>;

    /// Puts a blob into the store, transferring as little as possible: nothing if it is there with its size, nothing if the store
    /// can link it from `mount_from` (another repository of the same registry, a hint that may be wrong), else its
    /// bytes. A blob with the wrong digest or size never becomes visible.
    async fn write_blob(&self, blob: &dyn BlobSource, mount_from: Option<&str>) -> Result<Written>;

    /// Puts a blob into the store whether or not it says that it is there: somebody read it and found something else. A
    /// registry may take the bytes and go on with what it has.
    async fn replace_blob(&self, blob: &dyn BlobSource) -> Result<()>;

    /// Takes a blob as it grows, whose digest is not known yet. Returns when all of it was taken, and it is no blob before
    /// [`Store::complete_blob`]. Nothing is looked for or linked, and nothing tried again: who fails here has
    /// [`Store::write_blob`] when the blob is complete. `None` where the store takes only what is complete.
    async fn begin_blob(&self, _blob: &Growing) -> Result<Option<Upload>> {
        Ok(None)
    }

    /// Makes what was taken a blob. One whose digest is another never becomes visible.
    async fn complete_blob(&self, _upload: Upload, digest: &Digest) -> Result<()> {
        Err(Error::NotFound { what: format!("an upload of blob {digest}"), store: self.describe() })
    }

    /// Lets the store forget what was taken, as far as it can.
    async fn cancel_blob(&self, _upload: Upload) {}

    /// The manifest that `version` names, its bytes exactly as stored; `None` where there is none.
    async fn read_manifest(&self, version: &Version) -> Result<Option<Manifest>>;

    /// The digest of the manifest that `version` names, without its bytes where the store can tell: registries that
    /// count pulls do not count this. `None` where there is none.
    async fn manifest_digest(&self, version: &Version) -> Result<Option<Digest>> {
        Ok(self.read_manifest(version).await?.map(|manifest| manifest.digest))
    }

    /// Stores a manifest under its digest and, if `version` is a tag, points the tag at it. A digest that is not the
    /// manifest's own is refused.
    async fn write_manifest(&self, version: &Version, manifest: &Manifest) -> Result<()>;

    /// All tags, sorted. A repository that does not exist has none.
    async fn tags(&self) -> Result<Vec<String>>;

    /// Removes a manifest, and with it all tags that point to it; `false` where there was none.
    ///
    /// An index that names the manifest stays, and lacks it from then on. Blobs that nothing names any more go sooner
    /// or later: a registry collects its own garbage, and a layout's is collected here. A store that does not let go
    /// of manifests says so in an error.
    async fn delete_manifest(&self, digest: &Digest) -> Result<bool>;

    /// Removes several manifests, and counts those that were there. Where garbage is collected with every deletion this
    /// is done once for all of them; elsewhere they are removed one after the other.
    async fn delete_manifests(&self, digests: &[Digest]) -> Result<usize> {
        let mut removed = 0;
        for digest in digests {
            removed += usize::from(self.delete_manifest(digest).await?);
        }
        Ok(removed)
    }

    /// The store's name in messages: `registry.example/app`, `oci:/dir`.
    fn describe(&self) -> String;
}

/// The size of a blob that is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Size {
    /// The number of bytes, as the store declares it: only a reader knows whether it is true.
    Told(u64),
    /// The store has the blob and does not say how large it is: some registries answer without a length.
    Untold,
}

impl Size {
    /// Whether a blob of `size` bytes can be what is there.
    pub fn may_be(self, size: u64) -> bool {
        match self {
            Self::Told(told) => told == size,
            Self::Untold => true,
        }
    }
}

/// How a blob came to be in a store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Written {
    /// It was there already.
    Already,
    /// The store linked it from another repository.
    Mounted,
    /// Its bytes were sent.
    Uploaded,
}

/// Reads a small blob, such as an image's configuration, into memory. A blob of unknown size is cut off at `limit`
/// bytes, and a larger one is refused.
pub async fn read_small(store: &dyn Store, digest: &Digest, size: Option<u64>, limit: u64) -> Result<bytes::Bytes> {
    let mut bytes = Vec::new();
    let too_large = || io::Error::new(io::ErrorKind::FileTooLarge, format!("larger than {limit} bytes"));
    // What says that it is too large is not asked for.
    if size.is_some_and(|size| size > limit) {
        return Err(Error::Io { operation: "take blob", path: digest.to_string().into(), source: too_large() });
    }
    let mut take = |piece: &[u8]| {
        if (bytes.len() + piece.len()) as u64 > limit {
            return Err(too_large());
        }
        bytes.extend_from_slice(piece);
        Ok(())
    };
    store.read_blob(digest, size, &mut take).await?;
    Ok(bytes.into())
}
