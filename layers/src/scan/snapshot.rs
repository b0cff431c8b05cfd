//! What the kernel says of every path below a root, in about 80 bytes each.

use std::cmp::Ordering;
use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use crate::{RelPath, Timestamp};

/// What tells one state of a path from another. Only equality counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Key {
    pub(super) ino: u64,
    /// The size of a file or link, or the number of a device.
    pub(super) size: u64,
    /// Nanoseconds since the epoch. Beyond three centuries they wrap, which equality survives.
    pub(super) mtime: i64,
    pub(super) ctime: i64,
    /// The first bytes of the digest of the content, where it was hashed.
    pub(super) content: u64,
    pub(super) mode: u32,
    pub(super) uid: u32,
    pub(super) gid: u32,
    pub(super) nlink: u32,
}

impl Key {
    pub(super) fn is_directory(&self) -> bool {
        rustix::fs::FileType::from_raw_mode(self.mode).is_dir()
    }

    /// Whether the path changed. What a directory holds is compared on its own, so that its size and its number of
    /// subdirectories say nothing; when a name comes or goes its times move as well.
    fn differs(&self, after: &Self) -> bool {
        let comparable = |key: &Self| if key.is_directory() { Self { size: 0, nlink: 0, ..*key } } else { *key };
        comparable(self) != comparable(after)
    }
}

/// What one directory holds, sorted by name. Snapshots share what did not change between them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Listing {
    /// One after the other.
    names: Arc<[u8]>,
    /// Where each name ends, and what it is.
    entries: Arc<[(u32, Key)]>,
}

impl Listing {
    pub(super) fn new(mut found: Vec<(Vec<u8>, Key)>) -> Self {
        found.sort_unstable_by(|(a, _), (b, _)| a.cmp(b));
        let mut names = Vec::with_capacity(found.iter().map(|(name, _)| name.len()).sum());
        let mut entries = Vec::with_capacity(found.len());
        for (name, key) in found {
            names.extend_from_slice(&name);
            entries.push((names.len() as u32, key));
        }
        Self { names: names.into(), entries: entries.into() }
    }

    /// The same names with perhaps other keys, as many and in their order.
    pub(super) fn with(&self, keys: &[Key]) -> Self {
        let pairs = || self.entries.iter().zip(keys);
        if pairs().all(|((_, was), key)| was == key) {
            return self.clone();
        }
        let entries = pairs().map(|(&(end, _), &key)| (end, key)).collect();
        Self { names: Arc::clone(&self.names), entries }
    }

    /// Whether this was made of the other and is the same; that it is not says nothing.
    pub(super) fn is_shared_with(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.names, &other.names) && Arc::ptr_eq(&self.entries, &other.entries)
    }

    fn name(&self, at: usize) -> &[u8] {
        let start = at.checked_sub(1).map_or(0, |before| self.entries[before].0 as usize);
        &self.names[start..self.entries[at].0 as usize]
    }

    pub(super) fn get(&self, name: &[u8]) -> Option<&Key> {
        self.find(name).map(|at| &self.entries[at].1)
    }

    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (&[u8], &Key)> {
        self.entries.iter().enumerate().map(|(at, (_, key))| (self.name(at), key))
    }

    fn find(&self, name: &[u8]) -> Option<usize> {
        let (mut low, mut high) = (0, self.entries.len());
        while low < high {
            let middle = low + (high - low) / 2;
            match self.name(middle).cmp(name) {
                Ordering::Less => low = middle + 1,
                Ordering::Greater => high = middle,
                Ordering::Equal => return Some(middle),
            }
        }
        None
    }
}

/// What the kernel said of every path below a root at one time.
#[derive(Debug, Clone, Default)]
pub struct Snapshot {
    pub(super) listings: HashMap<RelPath, Listing>,
    /// Mount points, which were not looked at.
    pub(super) mounts: BTreeSet<RelPath>,
    pub(super) newest: Timestamp,
}

/// The paths at which two states may differ.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Candidates {
    /// New or perhaps different.
    pub changed: BTreeSet<RelPath>,
    /// Gone; nothing below such a path is mentioned.
    pub deleted: BTreeSet<RelPath>,
}

impl Snapshot {
    /// The paths at which `after` may differ from this. What either of the two did not look at is no candidate.
    pub fn diff(&self, after: &Self) -> Candidates {
        let mut candidates = Candidates::default();
        let is_hidden = |path: &RelPath| self.mounts.contains(path) || after.mounts.contains(path);
        let none = Listing::default();
        // What is only in a directory that is gone as a whole is not mentioned: its listing has no partner here.
        for (directory, new) in &after.listings {
            let was_hidden = |path: &RelPath| self.mounts.contains(path);
            if was_hidden(directory) || (!self.mounts.is_empty() && directory.ancestors().any(|p| was_hidden(&p))) {
                continue;
            }
            let old = self.listings.get(directory).unwrap_or(&none);
            if new.is_shared_with(old) {
                continue;
            }
            let mut before = old.iter().peekable();
            let mut now = new.iter().peekable();
            loop {
                let order = match (before.peek(), now.peek()) {
                    (None, None) => break,
                    (Some(_), None) => Ordering::Less,
                    (None, Some(_)) => Ordering::Greater,
                    (Some((a, _)), Some((b, _))) => a.cmp(b),
                };
                let gone = if order.is_le() { before.next() } else { None };
                let come = if order.is_ge() { now.next() } else { None };
                let (name, set) = match (gone, come) {
                    (Some((name, _)), None) => (name, &mut candidates.deleted),
                    (None, Some((name, _))) => (name, &mut candidates.changed),
                    (Some((name, old)), Some((_, key))) if old.differs(key) => (name, &mut candidates.changed),
                    _ => continue,
                };
                let path = directory.child(name).expect("the kernel lists names without slashes");
                if !is_hidden(&path) {
                    set.insert(path);
                }
            }
        }
        candidates
    }

    /// Takes over what `after` says of `path`, because the change is known not to be the RUN's (a rename of ours). What is
    /// below `path` is still compared.
    pub fn forgive(&mut self, path: &RelPath, after: &Self) {
        let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else { return };
        let Some(&key) = after.listings.get(&parent).and_then(|listing| listing.get(name)) else { return };
        let Some(listing) = self.listings.get_mut(&parent) else { return };
        if let Some(at) = listing.find(name) {
            Arc::make_mut(&mut listing.entries)[at].1 = key;
        }
    }

    /// The newest ctime, for [`wait_for_clock`](super::wait_for_clock).
    pub fn newest_ctime(&self) -> Timestamp {
        self.newest
    }

    /// The number of paths.
    pub fn len(&self) -> usize {
        self.listings.values().map(Listing::len).sum()
    }

    /// What the kernel said of a path.
    #[cfg(test)]
    pub(super) fn key(&self, path: &str) -> Option<&Key> {
        let path = RelPath::new(path).ok()?;
        self.listings.get(&path.parent()?)?.get(path.file_name()?)
    }

    /// Whether the root is empty.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}
