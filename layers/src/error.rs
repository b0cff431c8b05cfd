//! What can go wrong with layers and roots.

use std::io;
use std::path::PathBuf;

use crate::{Digest, InvalidPath, Limit, Mismatch, RelPath};

/// The result of working with layers.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// A failed operation, with its operand.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A system call on a path inside a root failed.
    #[error("{operation} '/{}': {source}", printable(path))]
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
    /// What is wrong with one layer, or with unpacking it.
    #[error("layer {layer}: {source}")]
    Layer {
        /// The compressed blob.
        layer: Digest,
        /// What it is.
        source: Box<Error>,
    },
    /// A layer or an archive holds more than it may.
    #[error("{} is beyond the {allowed} {limit} that are allowed (--{})", printable(what), limit.name())]
    Limit {
        /// What is too much: an entry, by its name, or what belongs to none.
        what: String,
        /// Which limit it is.
        limit: Limit,
        /// As much is allowed.
        allowed: u64,
    },
    /// A tar entry that no layer may hold.
    #[error("entry '{}': {reason}", printable(name))]
    Entry {
        /// The entry's name as it stands in the tar.
        name: String,
        /// Why it is refused.
        reason: &'static str,
    },
    /// A path that leaves its root, or is none.
    #[error(transparent)]
    InvalidPath(#[from] InvalidPath),
    /// Symbolic links that lead to each other.
    #[error("'/{}': too many levels of symbolic links", printable(.0))]
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

    /// The same, with the layer that it is about. Where that is said already, nothing is added.
    pub fn in_layer(self, layer: Digest) -> Self {
        match self {
            Self::Layer { .. } | Self::Mismatch(_) | Self::DiffId { .. } => self,
            other => Self::Layer { layer, source: Box::new(other) },
        }
    }

    /// The layer that it is about, where that is known.
    pub fn layer(&self) -> Option<Digest> {
        match self {
            Self::Layer { layer, .. } | Self::DiffId { layer, .. } => Some(*layer),
            Self::Mismatch(mismatch) => Some(mismatch.blob()),
            _ => None,
        }
    }

    /// What is wrong, whichever layer it is about.
    pub fn cause(&self) -> &Self {
        match self {
            Self::Layer { source, .. } => source.cause(),
            other => other,
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
        match self.cause() {
            Self::Path { source, .. } | Self::Host { source, .. } | Self::Stream { source, .. } => Some(source),
            _ => None,
        }
    }
}

/// Names are chosen by whoever made the layer, and are shown in terminals and logs, to which control characters are orders.
pub(crate) fn printable(name: &impl std::fmt::Display) -> String {
    let escaped = |c: char| if c.is_control() { c.escape_default().to_string() } else { c.to_string() };
    name.to_string().chars().map(escaped).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_in_errors_give_no_orders_to_terminals() {
        let name = "a\u{1b}[2J\n::error::b\0c";
        let path = RelPath::new("a\nb").unwrap();
        let source = || io::Error::from(io::ErrorKind::NotFound);
        for error in [
            Error::Entry { name: name.to_owned(), reason: "is odd" },
            Error::Limit { what: format!("entry '{name}'"), limit: Limit::Size, allowed: 1 },
            Error::Path { operation: "open", path: path.clone(), source: source() },
            Error::SymlinkLoop(path).in_layer(Digest::of("")),
            RelPath::new(name).unwrap_err().into(),
        ] {
            let text = error.to_string();
            assert!(!text.chars().any(char::is_control) && text.contains("\\n"), "{text}");
        }
    }

    #[test]
    fn an_error_names_its_layer_once() {
        let (layer, other) = (Digest::of("layer"), Digest::of("other"));
        let error = Error::Entry { name: "a".into(), reason: "is odd" }.in_layer(layer).in_layer(other);
        assert_eq!(error.to_string(), format!("layer {layer}: entry 'a': is odd"));
        assert_eq!(error.layer(), Some(layer));
        let mismatch = Error::from(Mismatch::Digest { expected: layer, found: other }).in_layer(other);
        assert_eq!(mismatch.layer(), Some(layer));
    }
}
