//! What a layer says, without the file contents.

use std::collections::BTreeMap;
use std::io::{self, Write as _};
use std::ops::Bound;

use serde::{Deserialize, Serialize};

use crate::{Entry, Error, RelPath, Result};

/// Files that name resolution needs (`--chown=app`, `USER app`): their contents are kept in the index.
pub const INLINE: [&str; 2] = ["etc/passwd", "etc/group"];

/// The largest file kept in an index, in bytes. A larger one is treated as absent when names are resolved.
const INLINE_LIMIT: usize = 1 << 20;

/// An index is written in pieces of this size.
const BUFFER: usize = 64 << 10;

/// What a layer says of one path.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Record {
    /// The path is this.
    Put(Entry),
    /// The path of a lower layer is gone (a `.wh.` file).
    Delete,
    /// The directory hides everything that lower layers put into it (`.wh..wh..opq`), and is this where the layer also
    /// says what it is.
    Opaque(Option<Entry>),
}

impl Record {
    /// The entry, where the record puts one.
    pub fn entry(&self) -> Option<&Entry> {
        match self {
            Self::Put(entry) | Self::Opaque(Some(entry)) => Some(entry),
            Self::Delete | Self::Opaque(None) => None,
        }
    }
}

/// What a layer says, sorted by path.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Index {
    records: Vec<(RelPath, Record)>,
    inline: BTreeMap<RelPath, Vec<u8>>,
}

/// The stored form, on its way out.
#[derive(Serialize)]
struct Storing<'a> {
    records: &'a [(RelPath, Record)],
    inline: Vec<(&'a RelPath, &'a serde_bytes::Bytes)>,
}

/// The stored form. The version comes before everything else, outside the compressed part.
#[derive(Deserialize)]
struct Stored {
    records: Vec<(RelPath, Record)>,
    inline: Vec<(RelPath, serde_bytes::ByteBuf)>,
}

impl Index {
    /// Changes whenever the stored form changes: an index of another version is made anew.
    pub const VERSION: u32 = 1;

    /// What the layer says, sorted by path.
    pub fn records(&self) -> &[(RelPath, Record)] {
        &self.records
    }

    /// What the layer says of `path`.
    pub fn get(&self, path: &RelPath) -> Option<&Record> {
        let at = self.records.binary_search_by(|(other, _)| other.cmp(path)).ok()?;
        Some(&self.records[at].1)
    }

    /// The content of one of the [`INLINE`] files, when the layer puts it.
    pub fn inline(&self, path: &RelPath) -> Option<&[u8]> {
        self.inline.get(path).map(Vec::as_slice)
    }

    /// The number of records.
    pub fn len(&self) -> usize {
        self.records.len()
    }

    /// Whether the layer says nothing.
    pub fn is_empty(&self) -> bool {
        self.records.is_empty()
    }

    /// The stored form: a version, then zstd. Beside it nothing is held in memory.
    pub fn encode(&self) -> Result<Vec<u8>> {
        let inline = self.inline.iter().map(|(path, bytes)| (path, serde_bytes::Bytes::new(bytes))).collect();
        let failed = |reason: String| Error::Index { expected: Self::VERSION, reason };
        let unwritten = |error: io::Error| failed(error.to_string());
        let bytes = Self::VERSION.to_le_bytes().to_vec();
        let encoder = zstd::stream::Encoder::new(bytes, 1).map_err(unwritten)?;
        // What is written comes in pieces of a few bytes.
        let out = io::BufWriter::with_capacity(BUFFER, encoder);
        let stored = Storing { records: &self.records, inline };
        let mut out = postcard::to_io(&stored, out).map_err(|error| failed(error.to_string()))?;
        out.flush().map_err(unwritten)?;
        let encoder = out.into_inner().map_err(|error| unwritten(error.into_error()))?;
        encoder.finish().map_err(unwritten)
    }

    /// Reads the stored form. `limit` bounds the decompressed size in bytes, since indexes also come from registries.
    pub fn decode(bytes: &[u8], limit: u64) -> Result<Self> {
        let failed = |reason: String| Error::Index { expected: Self::VERSION, reason };
        let (version, rest) = bytes.split_first_chunk().ok_or_else(|| failed("it is too short".into()))?;
        let version = u32::from_le_bytes(*version);
        if version != Self::VERSION {
            return Err(failed(format!("it has version {version}")));
        }
        let mut plain = Vec::new();
        let mut decoder = zstd::stream::Decoder::new(rest).map_err(|error| failed(error.to_string()))?;
        io::copy(&mut io::Read::take(&mut decoder, limit), &mut plain).map_err(|error| failed(error.to_string()))?;
        let stored: Stored = postcard::from_bytes(&plain).map_err(|error| failed(error.to_string()))?;
        if !stored.records.is_sorted_by(|(a, _), (b, _)| a < b) {
            return Err(failed("its paths are not sorted".into()));
        }
        let inline = stored.inline.into_iter().map(|(path, bytes)| (path, bytes.into_vec())).collect();
        Ok(Self { records: stored.records, inline })
    }
}

/// Collects what a layer says in the order of its tar; of two entries for one path the later one holds.
#[derive(Debug, Default)]
pub struct IndexBuilder {
    records: BTreeMap<RelPath, Record>,
    inline: BTreeMap<RelPath, Vec<u8>>,
}

impl IndexBuilder {
    /// Starts an empty index.
    pub fn new() -> Self {
        Self::default()
    }

    /// Whether the content of `path` belongs into the index when it has `size` bytes.
    pub fn wants(path: &RelPath, size: u64) -> bool {
        size <= INLINE_LIMIT as u64 && INLINE.iter().any(|inline| path.as_bytes() == inline.as_bytes())
    }

    /// Puts an entry. `content` is the file's bytes where [`IndexBuilder::wants`] asked for them. The root is passed
    /// over. What is no directory replaces all that this layer said below it.
    pub fn put(&mut self, path: RelPath, entry: Entry, content: Option<Vec<u8>>) {
        if path.is_root() {
            return;
        }
        if !entry.is_directory() {
            self.remove_below(&path);
        }
        self.inline.remove(&path);
        if let Some(content) = content {
            self.inline.insert(path.clone(), content);
        }
        let record = match self.records.get(&path) {
            // A whiteout hides what lower layers hold, never what its own layer puts: together with a directory it
            // says what an opaque marker says.
            Some(Record::Opaque(_) | Record::Delete) if entry.is_directory() => Record::Opaque(Some(entry)),
            // So does what is no directory, which this layer put there first and then replaced.
            Some(Record::Put(before)) if entry.is_directory() && !before.is_directory() => Record::Opaque(Some(entry)),
            _ => Record::Put(entry),
        };
        self.records.insert(path, record);
    }

    fn below(&self, path: &RelPath) -> impl Iterator<Item = &RelPath> {
        let bounds = ([path.as_bytes(), b"/"].concat(), [path.as_bytes(), b"0"].concat());
        let range = (Bound::Included(&bounds.0[..]), Bound::Excluded(&bounds.1[..]));
        self.records.range::<[u8], _>(range).map(|(path, _)| path)
    }

    /// Whether the layer said something so far of what lies below `path`.
    pub(crate) fn holds_below(&self, path: &RelPath) -> bool {
        self.below(path).next().is_some()
    }

    fn remove_below(&mut self, path: &RelPath) {
        let below: Vec<RelPath> = self.below(path).cloned().collect();
        for path in below {
            self.records.remove(&path);
            self.inline.remove(&path);
        }
    }

    /// Says that lower layers' `path` is gone. What this layer itself puts there stays, whatever the order in the tar.
    pub fn delete(&mut self, path: RelPath) {
        if path.is_root() {
            return;
        }
        let record = match self.records.remove(&path) {
            Some(Record::Put(entry)) if entry.is_directory() => Record::Opaque(Some(entry)),
            // What is gone holds nothing.
            None | Some(Record::Opaque(None)) => Record::Delete,
            Some(record) => record,
        };
        self.records.insert(path, record);
    }

    /// Says that the directory hides what lower layers put into it.
    pub fn opaque(&mut self, path: RelPath) {
        let record = match self.records.remove(&path) {
            Some(Record::Put(entry) | Record::Opaque(Some(entry))) => Record::Opaque(Some(entry)),
            Some(Record::Delete) => Record::Delete,
            None | Some(Record::Opaque(None)) => Record::Opaque(None),
        };
        self.records.insert(path, record);
    }

    /// What the layer said so far of `path`.
    pub fn get(&self, path: &RelPath) -> Option<&Record> {
        self.records.get(path)
    }

    /// The finished index.
    pub fn finish(self) -> Index {
        Index { records: self.records.into_iter().collect(), inline: self.inline }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Timestamp;

    fn path(text: &str) -> RelPath {
        RelPath::new(text).unwrap()
    }

    fn sample() -> Index {
        let mut builder = IndexBuilder::new();
        builder.put(path("etc"), Entry::directory(0o755, Timestamp::from_secs(1)), None);
        builder.put(path("etc/passwd"), Entry::file(2, 0o644, Timestamp::from_secs(2)), Some(b"hi".to_vec()));
        builder.delete(path("gone"));
        builder.opaque(path("var"));
        builder.finish()
    }

    #[test]
    fn an_index_survives_its_stored_form() {
        let index = sample();
        let decoded = Index::decode(&index.encode().unwrap(), 1 << 20).unwrap();
        assert_eq!(decoded, index);
        assert_eq!(decoded.inline(&path("etc/passwd")), Some(&b"hi"[..]));
    }

    #[test]
    fn the_stored_form_is_pinned() {
        let bytes = sample().encode().unwrap();
        let plain = zstd::decode_all(&bytes[4..]).unwrap();
        assert_eq!(crate::Digest::of(plain).hex(), "2707212359620b77f139d89d000ed6557b786a54a5eb2be0b3d228f368c693cf");
    }

    #[test]
    fn other_versions_truncation_and_bombs_are_refused() {
        let good = sample().encode().unwrap();
        let mut other = good.clone();
        other[0] = 99;
        assert!(Index::decode(&other, 1 << 20).is_err());
        assert!(Index::decode(&good[..good.len() - 1], 1 << 20).is_err());
        assert!(Index::decode(&good[..2], 1 << 20).is_err());
        assert!(Index::decode(&good, 8).is_err());
    }

    #[test]
    fn a_whiteout_beside_its_directory_hides_lower_layers_in_either_order() {
        let directory = Entry::directory(0o700, Timestamp::default());
        let mut first = IndexBuilder::new();
        first.delete(path("d"));
        first.put(path("d"), directory.clone(), None);
        let mut second = IndexBuilder::new();
        second.put(path("d"), directory.clone(), None);
        second.delete(path("d"));
        assert_eq!(first.finish().records(), [(path("d"), Record::Opaque(Some(directory)))]);
        assert_eq!(second.finish().records().len(), 1);
    }

    #[test]
    fn what_is_gone_and_opaque_is_gone() {
        let mut first = IndexBuilder::new();
        first.delete(path("d"));
        first.opaque(path("d"));
        let mut second = IndexBuilder::new();
        second.opaque(path("d"));
        second.delete(path("d"));
        assert_eq!(first.finish().records(), [(path("d"), Record::Delete)]);
        assert_eq!(second.finish().records(), [(path("d"), Record::Delete)]);
    }

    #[test]
    fn a_directory_in_place_of_its_own_layers_file_hides_lower_layers() {
        let directory = Entry::directory(0o700, Timestamp::default());
        let mut builder = IndexBuilder::new();
        builder.put(path("a"), Entry::file(0, 0o644, Timestamp::default()), None);
        builder.put(path("a"), directory.clone(), None);
        assert_eq!(builder.finish().records(), [(path("a"), Record::Opaque(Some(directory)))]);
    }

    #[test]
    fn a_file_replaces_what_its_layer_put_below_it() {
        let mut builder = IndexBuilder::new();
        builder.put(path("a"), Entry::directory(0o755, Timestamp::default()), None);
        builder.put(path("a/x"), Entry::file(0, 0o644, Timestamp::default()), None);
        builder.put(path("a-b"), Entry::file(0, 0o644, Timestamp::default()), None);
        builder.put(path("a"), Entry::file(0, 0o644, Timestamp::default()), None);
        let paths: Vec<_> = builder.finish().records().iter().map(|(path, _)| path.clone()).collect();
        assert_eq!(paths, [path("a"), path("a-b")]);
    }

    #[test]
    fn an_opaque_marker_and_its_directory_meet_in_either_order() {
        let directory = Entry::directory(0o700, Timestamp::default());
        let mut first = IndexBuilder::new();
        first.opaque(path("d"));
        first.put(path("d"), directory.clone(), None);
        let mut second = IndexBuilder::new();
        second.put(path("d"), directory.clone(), None);
        second.opaque(path("d"));
        assert_eq!(first.finish().records(), [(path("d"), Record::Opaque(Some(directory)))]);
        assert_eq!(second.finish().records().len(), 1);
    }
}
