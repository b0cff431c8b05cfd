//! What a layer or a directory says of one path.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::{Digest, RelPath};

/// One path's metadata. It says everything that a tar header and its PAX records can say and that a container sees.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// What it is.
    pub kind: Kind,
    /// The permission bits with setuid, setgid and sticky: at most `0o7777`.
    pub mode: u32,
    /// The owner, as the container sees it.
    pub uid: u32,
    /// The group, as the container sees it.
    pub gid: u32,
    /// When the content changed last.
    pub mtime: Timestamp,
    /// Extended attributes by full name (`security.capability`, `user.x`).
    pub xattrs: BTreeMap<XattrName, XattrValue>,
}

/// The full name of an extended attribute.
pub type XattrName = serde_bytes::ByteBuf;
/// The value of an extended attribute.
pub type XattrValue = serde_bytes::ByteBuf;

/// A time since the Unix epoch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
pub struct Timestamp {
    /// Whole seconds, negative before 1970.
    pub secs: i64,
    /// Nanoseconds within the second.
    pub nanos: u32,
}

impl Timestamp {
    /// A time of whole seconds.
    pub fn from_secs(secs: i64) -> Self {
        Self { secs, nanos: 0 }
    }

    /// The same time without its fraction: layers carry whole seconds, as BuildKit's and containerd's do.
    pub fn truncated(self) -> Self {
        Self::from_secs(self.secs)
    }
}

/// What a path is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Kind {
    /// A regular file.
    File {
        /// Its size in bytes.
        size: u64,
        /// The digest of its content, where it is known: always in an [`Index`](crate::Index), not in a fresh scan. A layer
        /// into which another content would go is not written.
        content: Option<Digest>,
    },
    /// A directory.
    Directory,
    /// A symbolic link and the text it holds.
    Symlink {
        /// The text, which may name anything.
        #[serde(with = "serde_bytes")]
        target: Vec<u8>,
    },
    /// Another name of a file that the same layer, or a lower one, holds.
    Hardlink {
        /// The first name.
        target: RelPath,
    },
    /// A character device.
    CharDevice {
        /// Its major number.
        major: u32,
        /// Its minor number.
        minor: u32,
    },
    /// A block device.
    BlockDevice {
        /// Its major number.
        major: u32,
        /// Its minor number.
        minor: u32,
    },
    /// A named pipe.
    Fifo,
}

impl Entry {
    /// A directory of mode `mode` that belongs to root.
    pub fn directory(mode: u32, mtime: Timestamp) -> Self {
        Self { kind: Kind::Directory, mode, uid: 0, gid: 0, mtime, xattrs: BTreeMap::new() }
    }

    /// A file of mode `mode` that belongs to root.
    pub fn file(size: u64, mode: u32, mtime: Timestamp) -> Self {
        Self { kind: Kind::File { size, content: None }, mode, uid: 0, gid: 0, mtime, xattrs: BTreeMap::new() }
    }

    /// Whether this is a directory.
    pub fn is_directory(&self) -> bool {
        matches!(self.kind, Kind::Directory)
    }

    /// Whether this is a regular file under its first name.
    pub fn is_file(&self) -> bool {
        matches!(self.kind, Kind::File { .. })
    }
}
