//! What a RUN finds in its root beside the image: `RUN --mount`, scripts, and whether there is a network.
//!
//! ```text
//!  Mount ─supplies→ Supply ─scratch→ Attachment ─attach→ a mount in the launcher's namespace (overlay, flat)
//!              │       └─in_place::placed→ a file or directory in `/`
//!              └ caches: the content of cache directories, of which `leases` says who has them
//! ```
//!
//! `leases` and `proxy`, which serves agent sockets, are the builder's side; `attach` is the launcher's; the others are the
//! worker's.

pub(super) mod attach;
pub(super) mod caches;
pub(super) mod leases;
pub(super) mod proxy;
pub(super) mod scratch;
pub(super) mod supplies;

use std::fmt;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// Something that a RUN finds at a path of its root and that never enters a layer, nor do the directories that had to be
/// made for it. What the image has at that path is hidden meanwhile, and there again afterwards as it was.
///
/// Mounts are made in the order of their list, so that one may lie in another. The target is found inside the root,
/// whatever symbolic links the image has; a missing one is made. It is an error when it is, or leads to, `/`.
///
/// What a mount is depends on the driver. `overlay` and `flat` have real mounts. `in-place` cannot mount anything: there
/// the target itself is put into `/` before the RUN and taken away afterwards, so that a RUN of root can remove or rename
/// it, and nothing can be refused to it. A target in one of the container's own volumes is an error there when the volume
/// has something at that path.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mount {
    /// Where it is, an absolute path of the root.
    pub target: String,
    /// What it is.
    pub kind: MountKind,
}

/// What can be mounted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum MountKind {
    /// A file or directory of a tree that [`Sandbox::provide`](super::Sandbox::provide) made. Nothing that a RUN does to it
    /// lasts.
    Bind {
        /// The number of the tree.
        source: u32,
        /// The path in the tree. Links are followed inside the tree, and `..` does not leave it.
        #[serde(with = "serde_bytes")]
        path: Vec<u8>,
        /// Refuse writing, where that is possible: in place it is not, and what is written is discarded just so.
        read_only: bool,
    },
    /// A directory that outlives the RUN and the build, below the work directory.
    Cache {
        /// Which one: a hash of what the user calls it. A name that is not made of ASCII letters, digits, `-` and `_` is
        /// refused.
        name: String,
        /// Who may use it at the same time.
        sharing: Sharing,
        /// What it holds at first: a directory of a tree that was provided, found as that of [`MountKind::Bind`] is.
        seed: Option<(u32, Vec<u8>)>,
        /// Its mode when it is first made. Later it is what RUNs made it.
        mode: u32,
        /// Its owner when it is first made.
        uid: u32,
        /// Its group when it is first made.
        gid: u32,
        /// Refuse writing, where that is possible. In place it is not, and what is written stays.
        read_only: bool,
    },
    /// An empty directory that is gone afterwards. In place it is on disk, and has no size.
    Tmpfs {
        /// The most bytes that it takes.
        size: Option<u64>,
    },
    /// A file.
    File {
        /// What it says.
        content: Secret,
        /// Whether it must never be on a disk. In place it is in a tmpfs of the container then, and the target is a
        /// symbolic link to it; that it can be executed there is not promised.
        secret: bool,
        /// Its mode.
        mode: u32,
        /// Its owner.
        uid: u32,
        /// Its group.
        gid: u32,
    },
    /// A socket. Whoever connects to it talks to the one of the builder's host; the RUN needs no permission on that.
    Socket {
        /// The path of the real socket, as the builder sees it before the RUN.
        agent: PathBuf,
        /// The mode of the socket that the RUN sees.
        mode: u32,
        /// Its owner.
        uid: u32,
        /// Its group.
        gid: u32,
    },
}

/// Who may use a cache directory at the same time. Only builds with the same work directory know of each other.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Sharing {
    /// Everybody, save for whoever has it locked.
    #[default]
    Shared,
    /// Only one; whoever comes while it is in use gets another directory, which is kept as well.
    Private,
    /// Only one; whoever comes while it is in use waits.
    Locked,
}

/// Which network a RUN has.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Network {
    /// That of the builder.
    #[default]
    Default,
    /// None but the loopback interface. It is an error where [`Driver::can_isolate_network`](super::Driver) says no, or the
    /// kernel does.
    None,
}

/// Bytes that no message shows.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Secret(#[serde(with = "serde_bytes")] Vec<u8>);

impl Secret {
    /// The bytes themselves.
    pub fn expose(&self) -> &[u8] {
        &self.0
    }
}

impl From<Vec<u8>> for Secret {
    fn from(bytes: Vec<u8>) -> Self {
        Self(bytes)
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Secret({} bytes)", self.0.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_message_shows_a_secret() {
        let content = Secret::from(b"hunter2".to_vec());
        let kind = MountKind::File { content, secret: true, mode: 0o400, uid: 0, gid: 0 };
        let text = format!("{:?}", Mount { target: "/run/secrets/x".into(), kind });
        assert!(text.contains("Secret(7 bytes)") && !text.contains("hunter2") && !text.contains("104"), "{text}");
    }
}
