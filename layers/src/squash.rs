//! Several layers as one.

use std::collections::hash_map::Entry as Slot;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use crate::materialise::IMPLIED_MODE;
use crate::{Change, Changes, Content, Entry, Error, Index, Kind, RelPath, Result, Timestamp, Tree};

/// What several layers do together to the layers below them.
#[derive(Debug, Clone, Default)]
pub struct Squashed {
    /// The changes. Files have no content yet.
    changes: Changes,
    /// Where the content is of each file that has some: the position of its layer, and its name in that layer's tar.
    contents: BTreeMap<RelPath, (usize, RelPath)>,
}

/// What the layers `above`, the lowest first, do together to what is `below`.
///
/// On `below` the changes make what the layers make one after the other. What a layer put and a higher one took away is not
/// in them, and neither is what is again as it was below; only what is there below is deleted, path by path. Directories on
/// the way to a change are stated where one of the layers stated them.
pub fn squash(below: &Tree, above: &[Arc<Index>]) -> Result<Squashed> {
    let mut tree = below.clone();
    above.iter().for_each(|index| tree.push(Arc::clone(index)));
    let squash = Squash { below, tree: &tree };
    let mut statements = squash.stated()?;
    squash.delete(&mut statements);
    squash.drop_unchanged(&mut statements);
    let mut squashed = Squashed::default();
    for (path, statement) in statements {
        let Some(Statement { entry, held, .. }) = statement else {
            squashed.changes.delete(path);
            continue;
        };
        if matches!(entry.kind, Kind::File { size: 1.., .. }) {
            squashed.contents.insert(path.clone(), held);
        }
        squashed.changes.put(path, entry, Content::Empty);
    }
    Ok(squashed)
}

impl Squashed {
    /// The files whose content is wanted: for each layer, by its position among all with the lowest being 0, their names in
    /// its tar.
    pub fn wanted(&self) -> BTreeMap<usize, Vec<RelPath>> {
        let mut wanted: BTreeMap<usize, Vec<RelPath>> = BTreeMap::new();
        for (layer, name) in self.contents.values() {
            wanted.entry(*layer).or_default().push(name.clone());
        }
        wanted
    }

    /// The changes with the contents that [`Squashed::wanted`] asked for.
    pub fn changes(self, content: &dyn Fn(usize, &RelPath) -> Content) -> Changes {
        let mut changes = self.changes;
        for (path, (layer, name)) in self.contents {
            if let Some(Change::Put(entry, _)) = changes.get(&path) {
                let entry = entry.clone();
                changes.put(path, entry, content(layer, &name));
            }
        }
        changes
    }
}

struct Squash<'a> {
    below: &'a Tree,
    tree: &'a Tree,
}

/// What the layers say of a path together; `None` where it is gone.
type Statements = BTreeMap<RelPath, Option<Statement>>;

/// What is put at a path.
struct Statement {
    entry: Entry,
    /// The layer that holds its content, and its name there.
    held: (usize, RelPath),
    /// Whether it is one of several names.
    is_shared: bool,
}

impl Squash<'_> {
    /// What is visible of that which the layers state. The first of the visible names of a file holds it.
    fn stated(&self) -> Result<Statements> {
        let mut statements = Statements::new();
        let mut first_names: HashMap<(usize, &RelPath), &RelPath> = HashMap::new();
        let base = self.below.layers().len();
        for (path, _) in self.tree.iter().filter(|(_, found)| found.layer >= base) {
            let (name, found) = self.tree.content(path).ok_or_else(|| Error::Entry {
                name: path.to_string(),
                reason: "is a hard link to a file that no layer holds",
            })?;
            let held = (found.layer, name.clone());
            let mut entry = found.entry.clone();
            let is_shared = match first_names.entry((found.layer, name)) {
                Slot::Vacant(slot) => {
                    slot.insert(path);
                    false
                }
                Slot::Occupied(first) => {
                    let first: &RelPath = first.get();
                    entry.kind = Kind::Hardlink { target: first.clone() };
                    if let Some(Some(first)) = statements.get_mut(first) {
                        first.is_shared = true;
                    }
                    true
                }
            };
            statements.insert(path.clone(), Some(Statement { entry, held, is_shared }));
        }
        Ok(statements)
    }

    /// Says what is gone, unless that follows from what is put.
    fn delete(&self, statements: &mut Statements) {
        for (path, found) in self.below.iter() {
            if self.tree.get(path).is_some() {
                continue;
            }
            if self.tree.is_directory(path) {
                // It was deleted, and something was put below it without saying what it is then.
                let entry = Entry::directory(IMPLIED_MODE, Timestamp::default());
                let held = (found.layer, path.clone());
                statements.insert(path.clone(), Some(Statement { entry, held, is_shared: false }));
            } else if let Some(gone) = self.gone(path) {
                statements.insert(gone, None);
            }
        }
    }

    /// The highest of a path that is gone and the directories above it that is gone as well; `None` where one of these is
    /// no directory any more, and so holds nothing.
    fn gone(&self, path: &RelPath) -> Option<RelPath> {
        let mut ways: Vec<RelPath> = std::iter::once(path.clone()).chain(path.ancestors()).collect();
        ways.reverse();
        for way in ways {
            match self.tree.get(&way) {
                Some(found) if found.entry.is_directory() => {}
                Some(_) => return None,
                None if self.tree.is_directory(&way) => {}
                None => return Some(way),
            }
        }
        None
    }

    /// Leaves out what is as it is below. A directory stays where it is on the way to something.
    fn drop_unchanged(&self, statements: &mut Statements) {
        let linked = self.linked();
        let mut ways = HashSet::new();
        let mut unchanged = Vec::new();
        // What is below a directory comes after it.
        for (path, statement) in statements.iter().rev() {
            if !ways.contains(path)
                && let Some(statement) = statement
                && self.is_unchanged(path, statement, &linked)
            {
                unchanged.push(path.clone());
                continue;
            }
            for above in path.ancestors() {
                if !ways.insert(above) {
                    break;
                }
            }
        }
        unchanged.iter().for_each(|path| _ = statements.remove(path));
    }

    /// The files below that have several names, or had.
    fn linked(&self) -> HashSet<(usize, &RelPath)> {
        let links = self.below.iter().filter(|(_, found)| matches!(found.entry.kind, Kind::Hardlink { .. }));
        links.filter_map(|(path, _)| self.below.content(path).map(|(name, found)| (found.layer, name))).collect()
    }

    /// Whether a path is what it is below. What has several names never is: they may have been parted, or be other ones.
    fn is_unchanged(&self, path: &RelPath, statement: &Statement, linked: &HashSet<(usize, &RelPath)>) -> bool {
        let Some((name, before)) = self.below.content(path).filter(|_| !statement.is_shared) else { return false };
        if linked.contains(&(before.layer, name)) {
            return false;
        }
        visible(before.entry) == visible(&statement.entry)
    }
}

/// An entry as it is written: in whole seconds, and with the mode that Linux shows for every symbolic link.
fn visible(entry: &Entry) -> Entry {
    let mode = if matches!(entry.kind, Kind::Symlink { .. }) { 0o777 } else { entry.mode };
    Entry { mode, mtime: entry.mtime.truncated(), ..entry.clone() }
}

#[cfg(test)]
mod tests;
