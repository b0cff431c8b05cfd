//! What a layer holds, by directory.

use std::collections::HashMap;

use yadokari_layers::{Index, Kind, Record};

/// How deep directories are told apart.
const DEPTH: usize = 3;
/// A directory is one of the largest where it has at least one part of this many of the layer.
const PARTS: u64 = 50;
/// How many of them there are at most.
const MOST: usize = 20;

/// The largest directories of a layer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Directories {
    /// The size of all its files in bytes, uncompressed.
    pub bytes: u64,
    /// Their number.
    pub files: u64,
    /// How many paths of lower layers it takes away.
    pub deleted: u64,
    /// The largest directories, by their paths.
    pub largest: Vec<Directory>,
}

/// A directory of a layer, with all that is below it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Directory {
    /// Its path, as the image's user sees it.
    pub path: String,
    /// The size of the files in bytes, uncompressed.
    pub bytes: u64,
    /// Their number.
    pub files: u64,
}

impl Directories {
    /// What an index says.
    pub fn of(index: &Index) -> Self {
        let mut sums: HashMap<&[u8], (u64, u64)> = HashMap::new();
        let mut deleted = 0;
        for (path, record) in index.records() {
            deleted += u64::from(matches!(record, Record::Delete));
            let Some(Kind::File { size, .. }) = record.entry().map(|entry| &entry.kind) else { continue };
            let path = path.as_bytes();
            let slashes = path.iter().enumerate().filter(|(_, byte)| **byte == b'/').map(|(at, _)| at);
            for end in std::iter::once(0).chain(slashes.take(DEPTH)) {
                let (bytes, files) = sums.entry(&path[..end]).or_default();
                (*bytes, *files) = (bytes.saturating_add(*size), *files + 1);
            }
        }
        let (bytes, files) = sums.get(&b""[..]).copied().unwrap_or_default();
        let is_large = |sum: &(u64, u64)| sum.0 > 0 && sum.0.saturating_mul(PARTS) >= bytes;
        let mut largest: Vec<_> =
            sums.iter().filter(|(_, sum)| is_large(sum)).map(|(path, sum)| (*path, *sum)).collect();
        // Where one directory below has everything, that one says it.
        let parents: Vec<(&[u8], (u64, u64))> =
            largest.iter().filter_map(|(path, sum)| Some((parent(path)?, *sum))).collect();
        largest.retain(|own| !parents.contains(own));
        largest.sort_by(|a, b| b.1.0.cmp(&a.1.0).then(a.0.cmp(b.0)));
        largest.truncate(MOST);
        largest.sort();
        let directory =
            |(path, (bytes, files))| Directory { path: format!("/{}", String::from_utf8_lossy(path)), bytes, files };
        Self { bytes, files, deleted, largest: largest.into_iter().map(directory).collect() }
    }
}

/// The directory that a directory is in; the root is in none.
fn parent(path: &[u8]) -> Option<&[u8]> {
    let slash = path.iter().rposition(|byte| *byte == b'/').unwrap_or(0);
    (!path.is_empty()).then(|| &path[..slash])
}

#[cfg(test)]
mod tests {
    use yadokari_layers::{Entry, IndexBuilder, RelPath, Timestamp};

    use super::*;

    fn index(files: &[(&str, u64)]) -> Index {
        let mut builder = IndexBuilder::new();
        for (path, size) in files {
            let entry = Entry::file(*size, 0o644, Timestamp::from_secs(0));
            builder.put(RelPath::new(path).unwrap(), entry, None);
        }
        builder.finish()
    }

    #[test]
    fn the_largest_directories_are_told_apart_where_they_differ() {
        let directories = Directories::of(&index(&[
            ("usr/lib/a/x/y", 500),
            ("usr/lib/b/z", 300),
            ("opt/app/deep/er/most/file", 200),
            ("etc/small", 1),
            ("top", 0),
        ]));
        assert_eq!((directories.bytes, directories.files), (1001, 5));
        let found: Vec<_> = directories.largest.iter().map(|d| (d.path.as_str(), d.bytes, d.files)).collect();
        let expected = [
            ("/", 1001, 5),
            ("/opt/app/deep", 200, 1),
            ("/usr/lib", 800, 2),
            ("/usr/lib/a", 500, 1),
            ("/usr/lib/b", 300, 1),
        ];
        assert_eq!(found, expected);
    }

    #[test]
    fn there_are_twenty_directories_at_most_and_none_of_nothing() {
        let names: Vec<String> = (0..40).map(|number| format!("d{number}/f")).collect();
        let files: Vec<(&str, u64)> = names.iter().map(|name| (name.as_str(), 10)).collect();
        assert_eq!(Directories::of(&index(&files)).largest.len(), 20);
        assert!(Directories::of(&index(&[("a/b", 0)])).largest.is_empty());
        assert!(Directories::of(&Index::default()).largest.is_empty());
    }
}
