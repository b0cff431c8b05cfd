//! What the builder and a worker say to each other.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::{Exit, Failure, Run};

/// The first message to a worker. The stage's directory comes with it.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Start {
    /// The driver, and what it needs.
    pub(super) kind: Kind,
    /// This is a trial: the base gets what the trial takes apart.
    pub(super) trial: bool,
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
    Materialise(u32),
    /// The index of a layer, as it is stored; the blob comes as a descriptor.
    Layer(#[serde(with = "serde_bytes")] Vec<u8>),
    /// Put the layer that follows on the root.
    Push,
    /// Execute; the standard output and error come as descriptors.
    Run(Run),
    /// Write what changed to the descriptor that comes along.
    Commit(Option<i64>),
}

/// What the worker answers, once for each request.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Reply {
    /// It is in its user namespace and waits for the maps.
    Unshared,
    /// It is done, with warnings.
    Done(Vec<String>),
    /// The command has ended, and so have all processes it started.
    Exited(Exit, Vec<String>),
    /// Whether anything changed.
    Committed(bool),
    /// It failed.
    Failed(Failure),
}
