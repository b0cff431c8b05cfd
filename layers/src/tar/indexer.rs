//! Making an index while a layer passes.

use std::collections::BTreeSet;
use std::io::{self, BufRead};

use super::Item;
use crate::digest::Hasher;
use crate::{Entry, Error, Index, IndexBuilder, Kind, Record, RelPath, Result};

/// Makes the [`Index`] of a layer from its items in the order of the tar, and refuses the layers of which an index cannot
/// tell the truth.
#[derive(Debug, Default)]
pub(crate) struct Indexer {
    builder: IndexBuilder,
    /// The files that have a second name.
    linked: BTreeSet<RelPath>,
    /// The last directory that was found to lie below no file of this layer.
    checked: Option<RelPath>,
    /// Whether it lies below a symbolic link of this layer.
    is_behind_link: bool,
}

impl Indexer {
    /// Takes the next item, and computes the digest of its content.
    pub(crate) fn take(&mut self, path: RelPath, item: Item, content: &mut dyn BufRead) -> Result<()> {
        match item {
            Item::Delete => self.mark(path, false),
            Item::Opaque => self.mark(path, true),
            Item::Put(mut entry) => {
                let mut inline = None;
                if let Kind::File { size, content: digest } = &mut entry.kind {
                    let mut hasher = Hasher::default();
                    let mut kept = IndexBuilder::wants(&path, *size).then(Vec::new);
                    loop {
                        let piece = match content.fill_buf() {
                            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                            Err(source) if source.get_ref().is_some_and(|inner| inner.is::<crate::Mismatch>()) => {
                                return Err(Error::stream("read layer", source));
                            }
                            Err(source) => return Err(Error::Path { operation: "read content of", path, source }),
                            Ok([]) => break,
                            Ok(piece) => piece,
                        };
                        hasher.update(piece);
                        if let Some(kept) = &mut kept {
                            kept.extend_from_slice(piece);
                        }
                        let length = piece.len();
                        content.consume(length);
                    }
                    *digest = Some(hasher.finish());
                    inline = kept;
                }
                self.put(path, entry, inline)?;
            }
        }
        Ok(())
    }

    /// Takes an entry whose content was hashed already.
    pub(crate) fn put(&mut self, path: RelPath, mut entry: Entry, inline: Option<Vec<u8>>) -> Result<()> {
        let refuse = |reason| Error::Entry { name: path.to_string(), reason };
        if let Kind::Hardlink { target } = &mut entry.kind {
            let first = match self.builder.get(target).and_then(Record::entry) {
                Some(Entry { kind: Kind::Hardlink { target: first }, .. }) => Some(first.clone()),
                Some(found) if found.is_directory() => return Err(refuse("is a hard link to a directory")),
                _ => None,
            };
            if let Some(first) = first {
                *target = first;
            }
            if *target == path {
                return Err(refuse("is a hard link to no file"));
            }
            self.linked.insert(target.clone());
        }
        // The other names would have to keep content that the index no longer names.
        if self.linked.contains(&path) && self.builder.get(&path).and_then(Record::entry).is_some() {
            return Err(refuse("replaces a file of its own layer that has another name"));
        }
        self.check_parents(&path)?;
        self.builder.put(path, entry, inline);
        Ok(())
    }

    /// A symbolic link of the layer may have something below it, which lands where the link leads; a file may not.
    fn check_parents(&mut self, path: &RelPath) -> Result<()> {
        let parent = path.parent();
        if parent == self.checked {
            return Ok(());
        }
        let mut is_behind_link = false;
        for above in path.ancestors() {
            match self.builder.get(&above).and_then(Record::entry).map(|entry| &entry.kind) {
                None | Some(Kind::Directory) => {}
                Some(Kind::Symlink { .. }) => is_behind_link = true,
                Some(_) => return Err(Error::Entry { name: path.to_string(), reason: "lies below a file" }),
            }
        }
        (self.checked, self.is_behind_link) = (parent, is_behind_link);
        Ok(())
    }

    /// Whether `entry`, which comes next, stays at `path` whatever else this layer has said so far: it lies below no
    /// symbolic link, and is no second statement but of a directory.
    pub(crate) fn is_plain(&mut self, path: &RelPath, entry: &Entry) -> Result<bool> {
        self.check_parents(path)?;
        let is_new = if entry.is_directory() {
            self.builder.get(path).and_then(Record::entry).is_none_or(Entry::is_directory)
        } else {
            self.builder.get(path).and_then(Record::entry).is_none() && !self.builder.holds_below(path)
        };
        Ok(is_new && !self.is_behind_link)
    }

    /// Takes what is no entry.
    pub(crate) fn mark(&mut self, path: RelPath, is_opaque: bool) {
        if is_opaque { self.builder.opaque(path) } else { self.builder.delete(path) }
    }

    /// The finished index.
    pub(crate) fn finish(self) -> Index {
        self.builder.finish()
    }
}
