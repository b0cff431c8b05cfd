//! What higher layers say, for those below them.

use std::collections::HashMap;

use crate::{Entry, Index, Kind, Record, RelPath};

/// A higher layer says what the path is.
const STATED: u8 = 1;
/// Neither the path nor anything below it comes from a lower layer.
const GONE: u8 = 2;
/// Nothing below the path comes from a lower layer.
const COVERED: u8 = 4;
/// A higher layer says something of what is below the path.
const ENTERED: u8 = 8;

/// What the layers above one say of each path. Together with the layer's own tar it decides what of the layer is visible,
/// unless a symbolic link leads elsewhere.
#[derive(Debug, Default)]
pub(super) struct Above {
    said: HashMap<RelPath, u8>,
    /// The directory that was asked about last, and whether what is in it is hidden.
    parent: Option<(RelPath, bool)>,
}

impl Above {
    /// Takes one more layer, which lies below all that were taken before.
    pub(super) fn add(&mut self, index: &Index) {
        self.parent = None;
        let mut entered = None;
        for (path, record) in index.records() {
            let parent = path.parent();
            if parent != entered {
                // Where one directory is marked, those above it are.
                for above in path.ancestors() {
                    if self.mark(above, ENTERED) & ENTERED != 0 {
                        break;
                    }
                }
                entered = parent;
            }
            let entry = match record.entry() {
                None => 0,
                Some(entry) if entry.is_directory() => STATED,
                Some(_) => STATED | COVERED,
            };
            let marker = match record {
                Record::Put(_) => 0,
                Record::Delete => GONE,
                Record::Opaque(_) => COVERED,
            };
            self.mark(path.clone(), entry | marker);
        }
    }

    /// Says more of a path. Returns what was said before.
    fn mark(&mut self, path: RelPath, more: u8) -> u8 {
        let said = self.said.entry(path).or_default();
        std::mem::replace(said, *said | more)
    }

    fn said(&self, path: &RelPath) -> u8 {
        self.said.get(path).copied().unwrap_or_default()
    }

    /// Whether what the next layer says of `path` cannot be seen.
    pub(super) fn hides(&mut self, path: &RelPath) -> bool {
        if self.said.is_empty() {
            return false;
        }
        if self.said(path) & (STATED | GONE) != 0 {
            return true;
        }
        let parent = path.parent().unwrap_or_default();
        if let Some((known, is_hidden)) = &self.parent
            && *known == parent
        {
            return *is_hidden;
        }
        let hides = |above: &RelPath| self.said(above) & (GONE | COVERED) != 0;
        let is_hidden = hides(&RelPath::root()) || path.ancestors().any(|above| hides(&above));
        self.parent = Some((parent, is_hidden));
        is_hidden
    }

    /// Whether `entry` of the next layer stands where higher layers take a directory for granted: they mean what is behind
    /// a symbolic link, or are wrong.
    pub(super) fn enters(&self, path: &RelPath, entry: &Entry, is_hidden: bool) -> bool {
        let is_link = matches!(entry.kind, Kind::Symlink { .. });
        !entry.is_directory() && (is_link || !is_hidden) && self.said(path) & ENTERED != 0
    }
}
