//! What one step did to a file system.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read};
use std::path::PathBuf;
use std::sync::Arc;

use crate::{Entry, Kind, RelPath, Result, Root, Spooled};

/// What happened to one path.
#[derive(Debug, Clone)]
pub enum Change {
    /// The path is now this entry with this content, whatever it was before. A directory keeps what it holds when it
    /// was a directory before.
    Put(Entry, Content),
    /// The path, and all below it, is gone.
    Delete,
}

/// Where the bytes of a changed file are until they are packed or applied.
#[derive(Debug, Clone)]
pub enum Content {
    /// There are none: not a regular file, or an empty one.
    Empty,
    /// Here.
    Bytes(Arc<[u8]>),
    /// In a file under a root.
    In(Arc<Root>, RelPath),
    /// In a file of the host that nobody else can change.
    Host(PathBuf),
    /// On the way from another layer.
    Spooled(Spooled),
}

impl Content {
    /// Opens the bytes for reading. Nothing about their number is promised: who reads checks it against the entry.
    pub fn open(&self) -> Result<Opened> {
        Ok(match self {
            Self::Empty => Opened::Other(Box::new(io::empty())),
            Self::Bytes(bytes) => Opened::Other(Box::new(io::Cursor::new(Arc::clone(bytes)))),
            Self::In(root, path) => Opened::File(root.open_file(path)?),
            Self::Spooled(spooled) => Opened::Other(Box::new(spooled.clone())),
            Self::Host(path) => Opened::File(File::open(path).map_err(|source| crate::Error::Host {
                operation: "open",
                path: path.clone(),
                source,
            })?),
        })
    }
}

/// A content that is read.
pub enum Opened {
    /// A file, at its beginning.
    File(File),
    /// What is no file, or none of its own.
    Other(Box<dyn Read>),
}

impl Read for Opened {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::File(file) => file.read(buffer),
            Self::Other(other) => other.read(buffer),
        }
    }
}

/// The changes of one step, sorted by path.
///
/// Invariants that the writers of layers rely on: a hard link's target sorts before the link and is put in the same
/// changes; a path below a deleted path is not mentioned unless some ancestor is put again as a directory.
#[derive(Debug, Clone, Default)]
pub struct Changes {
    changes: BTreeMap<RelPath, Change>,
}

impl Changes {
    /// No change.
    pub fn new() -> Self {
        Self::default()
    }

    /// Says that `path` is now `entry`. The root itself is never part of a layer and is passed over.
    pub fn put(&mut self, path: RelPath, entry: Entry, content: Content) {
        if !path.is_root() {
            self.changes.insert(path, Change::Put(entry, content));
        }
    }

    /// Says that `path` is gone.
    pub fn delete(&mut self, path: RelPath) {
        if !path.is_root() {
            self.changes.insert(path, Change::Delete);
        }
    }

    /// What happened to `path`.
    pub fn get(&self, path: &RelPath) -> Option<&Change> {
        self.changes.get(path)
    }

    /// The changes by path, a directory before what it holds.
    pub fn iter(&self) -> impl Iterator<Item = (&RelPath, &Change)> {
        self.changes.iter()
    }

    /// The number of paths.
    pub fn len(&self) -> usize {
        self.changes.len()
    }

    /// Whether nothing changed.
    pub fn is_empty(&self) -> bool {
        self.changes.is_empty()
    }

    /// The bytes of all changed files.
    pub fn content_size(&self) -> u64 {
        self.changes
            .values()
            .map(|change| match change {
                Change::Put(Entry { kind: Kind::File { size, .. }, .. }, _) => *size,
                _ => 0,
            })
            .sum()
    }
}

impl IntoIterator for Changes {
    type Item = (RelPath, Change);
    type IntoIter = std::collections::btree_map::IntoIter<RelPath, Change>;

    fn into_iter(self) -> Self::IntoIter {
        self.changes.into_iter()
    }
}
