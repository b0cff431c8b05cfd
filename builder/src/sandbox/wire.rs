//! What the builder and a worker say to each other.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use yadokari_layers::{Digest, Limits};

use super::hide::HiddenFile;
use super::{Commit, Exit, Failure, Priority, Run};

/// The first message to a worker. The stage's directory comes with it, and the lock on `/` where there is one.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Start {
    /// The driver, and what it needs.
    pub(super) kind: Kind,
    /// This is a trial: the base gets what the trial takes apart.
    pub(super) trial: bool,
    /// Where caches are, if any may be asked for.
    pub(super) caches: Option<PathBuf>,
}

/// A driver and what it needs.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) enum Kind {
    /// The overlay driver.
    Overlay {
        /// Whether there is a user namespace.
        user: bool,
        /// The size in bytes of an own tmpfs for the upper directories, where no file system can hold them.
        tmpfs: Option<u64>,
    },
    /// The flat driver.
    Flat {
        /// Whether there is a user namespace.
        user: bool,
    },
    /// The in-place driver.
    InPlace {
        /// The directory that holds everything of the driver.
        place: PathBuf,
        /// What stays in `/`.
        pinned: Vec<PathBuf>,
        /// Use it even where `/` holds foreign files.
        force: bool,
    },
}

impl Kind {
    /// Whether the worker has a mount namespace of its own.
    pub(super) fn is_isolated(&self) -> bool {
        match self {
            Self::Overlay { .. } | Self::Flat { .. } => true,
            Self::InPlace { .. } => false,
        }
    }

    /// Whether the worker enters a user namespace.
    pub(super) fn user(&self) -> bool {
        match self {
            Self::Overlay { user, .. } | Self::Flat { user } => *user,
            Self::InPlace { .. } => false,
        }
    }
}

/// What the builder asks for, after [`Start`].
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Request {
    /// The maps of the user namespace are written.
    Mapped,
    /// Fill the root with this many layers; each follows as [`Request::Layer`].
    Materialise(u32, Priority),
    /// Make a tree beside the root of this many layers, which follow.
    Provide(u32),
    /// A layer: its digest, its diff id, how much it may hold, the size that its blob is going to have, if that is not all there
    /// yet, and its index as it is stored, where that is known. The blob comes as a descriptor, and with it what tells of more.
    Layer(Digest, Digest, Limits, Option<u64>, Option<serde_bytes::ByteBuf>),
    /// Put on the root what comes as a descriptor.
    Push(Form),
    /// Put these files back if the builder is killed; their contents come as a descriptor. None: no longer.
    Guard(Vec<HiddenFile>),
    /// Execute; the standard output and error come as descriptors. Each mount that is a cache has a slot.
    Run(Box<Run>, Vec<Option<u32>>),
    /// Write what changed to the descriptor that comes along.
    Commit(Commit),
    /// The index of what was pushed or committed.
    Learn(#[serde(with = "serde_bytes")] Vec<u8>),
}

/// In which form a layer comes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Form {
    /// A layer's blob, compressed or not: its beginning says. It has this digest, and may hold so much.
    Blob(Digest, Limits),
    /// The tar of one that is being made, not compressed.
    Tar,
}

/// What the worker answers, once for each request, save for [`Reply::Index`], which comes before the answer for each layer whose
/// index was not known, and [`Reply::Socket`], which may come before the answer to a RUN.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Reply {
    /// It is in its user namespace and waits for the maps.
    Unshared,
    /// What a layer was found to say, as it is stored: those without an index, in their order.
    Index(#[serde(with = "serde_bytes")] Vec<u8>),
    /// It is done, with warnings.
    Done(Vec<String>),
    /// The tree of this number is there, with warnings.
    Provided(u32, Vec<String>),
    /// The socket of the mount of this number. Its listening end comes along.
    Socket(u32),
    /// The command has ended, and so have all processes it started.
    Exited(Exit, Vec<String>),
    /// Whether anything changed, and was written. The index of that comes next.
    Committed(bool),
    /// It failed.
    Failed(Failure),
}
