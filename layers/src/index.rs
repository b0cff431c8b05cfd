//! What a layer says, without the file contents.

use std::collections::BTreeMap;
use std::io::{self, Write as _};
use std::ops::Bound;

use serde::{Deserialize, Serialize};

use crate::limits::Counted;
use crate::{Entry, Error, Limits, RelPath, Result};

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

    /// Reads the stored form. Indexes also come from registries, and may say what is in no layer: one that is not sorted, or that
    /// no layer within `limits` can have, is refused before more memory is used than such a layer needs.
    pub fn decode(bytes: &[u8], limits: &Limits) -> Result<Self> {
        let failed = |reason: String| Error::Index { expected: Self::VERSION, reason };
        let (version, rest) = bytes.split_first_chunk().ok_or_else(|| failed("it is too short".into()))?;
        let version = u32::from_le_bytes(*version);
        if version != Self::VERSION {
            return Err(failed(format!("it has version {version}")));
        }
        let mut plain = Vec::new();
        let mut decoder = zstd::stream::Decoder::new(rest).map_err(|error| failed(error.to_string()))?;
        let most = limits.index_size();
        io::copy(&mut io::Read::take(&mut decoder, most), &mut plain).map_err(|error| failed(error.to_string()))?;
        let mut counted = Counted::new(limits);
        let mut records: Vec<(RelPath, Record)> = Vec::new();
        let rest = each(&plain, |(path, record): (RelPath, Record)| {
            counted.entry(&path, record.entry()).map_err(|error| error.to_string())?;
            if records.last().is_some_and(|(before, _)| *before >= path) {
                return Err("its paths are not sorted".to_owned());
            }
            // A layer may hide all that is below it, and says nothing else of the root.
            if path.is_root() && record != Record::Opaque(None) {
                return Err("it says what the root is".to_owned());
            }
            records.push((path, record));
            Ok(())
        });
        let mut inline = BTreeMap::new();
        let rest = each(rest.map_err(failed)?, |(path, content): (RelPath, serde_bytes::ByteBuf)| {
            if !IndexBuilder::wants(&path, content.len() as u64) {
                return Err(format!("it holds the content of '{path}'"));
            }
            inline.insert(path, content.into_vec());
            Ok(())
        });
        match rest.map_err(failed)? {
            [] => Ok(Self { records, inline }),
            _ => Err(failed("it goes on after its end".into())),
        }
    }
}

/// Gives the parts of a sequence to `take`, one at a time, and returns what follows it: how many there are is not believed
/// before they are there.
fn each<'b, T: Deserialize<'b>>(
    bytes: &'b [u8],
    mut take: impl FnMut(T) -> Result<(), String>,
) -> Result<&'b [u8], String> {
    let broken = |error: postcard::Error| error.to_string();
    let (length, mut rest): (u64, _) = postcard::take_from_bytes(bytes).map_err(broken)?;
    for _ in 0..length {
        let (part, after) = postcard::take_from_bytes(rest).map_err(broken)?;
        take(part)?;
        rest = after;
    }
    Ok(rest)
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
        let decoded = Index::decode(&index.encode().unwrap(), &Limits::default()).unwrap();
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
        let decode = |bytes: &[u8]| Index::decode(bytes, &Limits::default());
        assert!(decode(&other).is_err());
        assert!(decode(&good[..good.len() - 1]).is_err());
        assert!(decode(&good[..2]).is_err());
        for entries in 0..=4 {
            let limits = Limits { entries, ..Limits::default() };
            assert_eq!(Index::decode(&good, &limits).is_ok(), entries == 4, "{entries}");
        }
        // A stored form that is 100 GB of zeros, if anyone reads it all.
        let zeros = zstd::bulk::compress(&vec![0; 1 << 20], 19).unwrap();
        let bomb = [&Index::VERSION.to_le_bytes()[..], &zeros.repeat(100_000)].concat();
        let refused = Index::decode(&bomb, &Limits { entries: 1, ..Limits::default() }).unwrap_err().to_string();
        assert!(refused.contains("after its end"), "{refused}");
    }

    #[test]
    fn an_index_that_no_layer_can_have_is_refused() {
        let stored = |records: &[(RelPath, Record)], inline: &[(RelPath, &[u8])]| {
            let inline = inline.iter().map(|(path, bytes)| (path, serde_bytes::Bytes::new(bytes))).collect();
            let plain = postcard::to_stdvec(&Storing { records, inline }).unwrap();
            [&Index::VERSION.to_le_bytes()[..], &zstd::bulk::compress(&plain, 1).unwrap()].concat()
        };
        let refused = |records: &[(RelPath, Record)], inline: &[(RelPath, &[u8])]| {
            let decoded = Index::decode(&stored(records, inline), &Limits::default());
            decoded.err().map(|error| error.to_string()).unwrap_or_default()
        };
        let gone = |name: &str| (path(name), Record::Delete);
        assert_eq!(refused(&[gone("a"), gone("b")], &[(path("etc/passwd"), b"x")]), "");
        assert!(refused(&[gone("b"), gone("a")], &[]).contains("not sorted"));
        assert!(refused(&[gone("a"), gone("a")], &[]).contains("not sorted"));
        assert_eq!(refused(&[(RelPath::root(), Record::Opaque(None)), gone("a")], &[]), "");
        assert!(refused(&[gone("")], &[]).contains("what the root is"));
        assert!(refused(&[], &[(path("etc/shadow"), b"x")]).contains("'etc/shadow'"));
        assert!(refused(&[], &[(path("etc/passwd"), &[0; (1 << 20) + 1])]).contains("'etc/passwd'"));
        // Few bytes that claim to be more records than there is memory for.
        let mut many = Index::VERSION.to_le_bytes().to_vec();
        many.extend(zstd::bulk::compress(&postcard::to_stdvec(&u64::MAX).unwrap(), 1).unwrap());
        assert!(Index::decode(&many, &Limits::NONE).is_err());
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
