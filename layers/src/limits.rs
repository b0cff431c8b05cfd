//! How much a layer may hold.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::tar::Item;
use crate::{Entry, Error, Kind, RelPath, Result};

/// As many bytes of its name, link and attributes belong to an entry; more of them count as more entries.
const BYTES: usize = 256;

/// What an attribute costs beside its bytes.
const ATTRIBUTE: usize = 64;

/// As deep may a name be; each directory more counts as an entry.
const DEPTH: usize = 32;

/// The largest stored form of an index, unpacked.
const LARGEST_INDEX: u64 = 1 << 30;

/// How much one layer, or one archive, may hold. What holds more is refused as soon as that is known, and before the content of
/// the entry is read that is too much.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limits {
    /// The bytes of its tar: what it is unpacked.
    pub size: u64,
    /// The number of its entries, which is what an index of it needs memory for. One whose name, link and attributes are long, or
    /// whose name is deep, counts as several.
    pub entries: u64,
}

/// One of the limits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Limit {
    /// [`Limits::size`]
    Size,
    /// [`Limits::entries`]
    Entries,
}

impl Limits {
    /// For what was made here.
    pub const NONE: Self = Self { size: u64::MAX, entries: u64::MAX };

    /// The largest stored form of an index of a layer within these limits, unpacked, in bytes.
    pub(crate) fn index_size(&self) -> u64 {
        let per_entry = 2 * BYTES as u64;
        self.entries.saturating_mul(per_entry).saturating_add(4 << 20).min(LARGEST_INDEX)
    }
}

impl Default for Limits {
    /// Hardly a layer in use comes near them.
    fn default() -> Self {
        Self { size: 50_000_000_000, entries: 1_000_000 }
    }
}

impl fmt::Display for Limit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Size => "bytes unpacked",
            Self::Entries => "entries",
        })
    }
}

impl Limit {
    /// What the user calls it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Size => "limit-unpacked-size",
            Self::Entries => "limit-entries",
        }
    }
}

/// How much of its limits a layer has used up.
#[derive(Debug)]
pub(crate) struct Counted {
    limits: Limits,
    size: u64,
    entries: u64,
}

impl Counted {
    pub(crate) fn new(limits: &Limits) -> Self {
        Self { limits: *limits, size: 0, entries: 0 }
    }

    /// The bytes that may still come.
    pub(crate) fn left(&self) -> u64 {
        self.limits.size - self.size
    }

    /// Counts bytes of `what`.
    pub(crate) fn bytes(&mut self, bytes: u64, what: impl FnOnce() -> String) -> Result<()> {
        match self.size.checked_add(bytes).filter(|&size| size <= self.limits.size) {
            Some(size) => self.size = size,
            None => return Err(Error::Limit { what: what(), limit: Limit::Size, allowed: self.limits.size }),
        }
        Ok(())
    }

    /// Counts what a tar says next. What means nothing counts as well.
    pub(crate) fn said(&mut self, said: Option<&(RelPath, Item)>) -> Result<()> {
        match said {
            Some((path, Item::Put(entry))) => self.entry(path, Some(entry)),
            Some((path, Item::Delete | Item::Opaque)) => self.entry(path, None),
            None => self.entry(&RelPath::root(), None),
        }
    }

    /// Counts what a layer says of a path.
    pub(crate) fn entry(&mut self, path: &RelPath, entry: Option<&Entry>) -> Result<()> {
        match self.entries.checked_add(weight(path, entry)).filter(|&entries| entries <= self.limits.entries) {
            Some(entries) => self.entries = entries,
            None => {
                let (limit, allowed) = (Limit::Entries, self.limits.entries);
                return Err(Error::Limit { what: format!("entry '{path}'"), limit, allowed });
            }
        }
        Ok(())
    }
}

/// As how many entries something counts.
fn weight(path: &RelPath, entry: Option<&Entry>) -> u64 {
    let link = match entry.map(|entry| &entry.kind) {
        Some(Kind::Symlink { target }) => target.len(),
        Some(Kind::Hardlink { target }) => target.as_bytes().len(),
        _ => 0,
    };
    let attributes = entry.iter().flat_map(|entry| &entry.xattrs);
    let attributes: usize = attributes.map(|(name, value)| name.len() + value.len() + ATTRIBUTE).sum();
    let more = (path.as_bytes().len() + link + attributes) / BYTES;
    let deeper = path.components().count().saturating_sub(DEPTH);
    (1 + more + deeper) as u64
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Timestamp;
    use crate::testing::path;

    #[test]
    fn an_entry_that_needs_more_memory_counts_as_several() {
        let file = || Entry::file(1 << 40, 0o644, Timestamp::default());
        let link = |length| Entry { kind: Kind::Symlink { target: vec![b'x'; length] }, ..file() };
        let mut dressed = file();
        dressed.xattrs.insert(b"user.a".to_vec().into(), vec![0; 1 << 20].into());
        assert_eq!(weight(&path("usr/lib/os-release"), Some(&file())), 1);
        assert_eq!(weight(&path(&"d/".repeat(32)), None), 1);
        assert_eq!(weight(&path(&"d/".repeat(33)), None), 2);
        assert_eq!(weight(&path("l"), Some(&link(4095))), 17);
        assert_eq!(weight(&path("f"), Some(&dressed)), 4097);
    }
}
