//! What can go wrong with layers and roots.

use std::io;
use std::path::PathBuf;

use crate::{Digest, InvalidPath, Mismatch, RelPath};

/// The result of working with layers.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// A failed operation, with its operand.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A system call on a path inside a root failed.
    #[error("{operation} '/{path}': {source}")]
    Path {
        /// The system call or what it was for.
        operation: &'static str,
        /// The path inside the root.
        path: RelPath,
        /// The kernel's answer.
        source: io::Error,
    },
    /// A system call on a path of the host failed.
    #[error("{operation} '{}': {source}", path.display())]
    Host {
        /// The system call or what it was for.
        operation: &'static str,
        /// The path.
        path: PathBuf,
        /// The kernel's answer.
        source: io::Error,
    },
    /// A stream of bytes broke.
    #[error("{operation}: {source}")]
    Stream {
        /// What was being read or written.
        operation: &'static str,
        /// The cause.
        source: io::Error,
    },
    /// A blob is not what its descriptor says.
    #[error(transparent)]
    Mismatch(#[from] Mismatch),
    /// The uncompressed tar of a layer does not have the diff id that the image's config names.
    #[error("layer {layer}: its uncompressed content has digest {found}, the image's config says {expected}")]
    DiffId {
        /// The compressed blob.
        layer: Digest,
        /// What `rootfs.diff_ids` says.
        expected: Digest,
        /// What was found.
        found: Digest,
    },
    /// A tar entry that no layer may hold.
    #[error("entry '{name}': {reason}")]
    Entry {
        /// The entry's name as it stands in the tar, made printable.
        name: String,
        /// Why it is refused.
        reason: &'static str,
    },
    /// A path that leaves its root, or is none.
    #[error(transparent)]
    InvalidPath(#[from] InvalidPath),
    /// Symbolic links that lead to each other.
    #[error("'/{0}': too many levels of symbolic links")]
    SymlinkLoop(RelPath),
    /// An index of another version, or not an index.
    #[error("not a layer index of version {expected}: {reason}")]
    Index {
        /// The version that this program reads.
        expected: u32,
        /// What was found.
        reason: String,
    },
}

impl Error {
    /// A broken stream, or the mismatch that a [`VerifiedReader`](crate::VerifiedReader) below it found.
    pub(crate) fn stream(operation: &'static str, source: io::Error) -> Self {
        match source.get_ref().and_then(|inner| inner.downcast_ref::<Mismatch>()) {
            Some(mismatch) => Self::Mismatch(mismatch.clone()),
            None => Self::Stream { operation, source },
        }
    }

    /// The kernel's error number, where the kernel refused something.
    pub fn raw_os_error(&self) -> Option<i32> {
        self.io()?.raw_os_error()
    }

    /// Whether whoever was written to is gone.
    pub fn is_broken_pipe(&self) -> bool {
        self.io().is_some_and(|source| source.kind() == io::ErrorKind::BrokenPipe)
    }

    /// Whether something ended before it should have.
    pub fn is_end_of_file(&self) -> bool {
        self.io().is_some_and(|source| source.kind() == io::ErrorKind::UnexpectedEof)
    }

    fn io(&self) -> Option<&io::Error> {
        match self {
            Self::Path { source, .. } | Self::Host { source, .. } | Self::Stream { source, .. } => Some(source),
            _ => None,
        }
    }
}
