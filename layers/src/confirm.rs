//! From candidates to changes: what is really different from the tree.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::materialise::IMPLIED_MODE;
use crate::root::{Look, is_kept};
use crate::scan::Candidates;
use crate::{Change, Changes, Content, Digest, Entry, HashingWriter, Kind, RelPath, Result, Root, Timestamp, Tree};

/// What `root` says of the `candidates`, where that is not what `tree` says already.
///
/// The same states give the same changes, whichever way the candidates were found: a path is dropped when its kind, mode,
/// owner, whole-second time, attributes and content are the tree's, and content is read only when all the rest is. `root`
/// is the whole directory, or the upper directory of an overlay mount.
///
/// The names of one inode become one file, under the name that sorts first, and hard links to it; where one of them is
/// changed all of them are put. Sockets count as absent. Each directory above a change is put as well, with its real
/// attributes. Above a deleted path the tree's directory remains, and below it nothing is said.
pub fn confirm(root: &Arc<Root>, tree: &Tree, candidates: &Candidates) -> Result<Changes> {
    confirm_clamped(root, tree, candidates, None)
}

/// Like [`confirm`], for layers in which no time is later than `clamp`: times that differ only beyond it are equal.
pub fn confirm_clamped(root: &Arc<Root>, tree: &Tree, candidates: &Candidates, clamp: Option<i64>) -> Result<Changes> {
    let confirm = Confirm { root, tree, clamp };
    let mut gone: BTreeSet<RelPath> = candidates.deleted.difference(&candidates.changed).cloned().collect();
    let mut looks = BTreeMap::new();
    for path in candidates.changed.iter().filter(|path| !path.is_root()) {
        match root.look(path)? {
            Some(look) => _ = looks.insert(path.clone(), look),
            None => _ = gone.insert(path.clone()),
        }
    }
    let mut changes = Changes::new();
    confirm.put(looks, &mut changes)?;
    confirm.delete(gone, &mut changes);
    confirm.put_ancestors(&mut changes)?;
    Ok(changes)
}

struct Confirm<'a> {
    root: &'a Arc<Root>,
    tree: &'a Tree,
    clamp: Option<i64>,
}

impl Confirm<'_> {
    fn put(&self, looks: BTreeMap<RelPath, Look>, changes: &mut Changes) -> Result<()> {
        // All names of an inode, by its first one; what has one name is a group of one.
        let mut groups: Vec<Vec<(RelPath, Look)>> = Vec::new();
        let mut by_inode = BTreeMap::new();
        for (path, look) in looks {
            if look.links > 1 && !look.entry.is_directory() {
                let group = *by_inode.entry(look.inode).or_insert(groups.len());
                if group < groups.len() {
                    groups[group].push((path, look));
                    continue;
                }
            }
            groups.push(vec![(path, look)]);
        }
        for group in groups {
            let mut digest = None;
            let mut is_changed = false;
            for (path, look) in &group {
                is_changed = is_changed || !self.is_unchanged(path, &look.entry, &mut digest)?;
            }
            if is_changed {
                self.put_group(group, changes);
            }
        }
        Ok(())
    }

    fn put_group(&self, group: Vec<(RelPath, Look)>, changes: &mut Changes) {
        let mut first = None;
        for (path, Look { entry, .. }) in group {
            match &first {
                None => {
                    let content = match entry.kind {
                        Kind::File { size: 1.., .. } => Content::In(Arc::clone(self.root), path.clone()),
                        _ => Content::Empty,
                    };
                    first = Some(path.clone());
                    changes.put(path, entry, content);
                }
                Some(target) => {
                    let kind = Kind::Hardlink { target: target.clone() };
                    changes.put(path, Entry { kind, ..entry }, Content::Empty);
                }
            }
        }
    }

    /// Whether the tree says the same. `digest` is that of the inode's content, once it was needed.
    fn is_unchanged(&self, path: &RelPath, entry: &Entry, digest: &mut Option<Digest>) -> Result<bool> {
        let Some((_, before)) = self.tree.content(path) else {
            // No layer states the directory, so that materialising made it.
            let implied = Entry { mtime: entry.mtime, ..Entry::directory(IMPLIED_MODE, Timestamp::default()) };
            return Ok(self.tree.get(path).is_none() && self.tree.is_directory(path) && *entry == implied);
        };
        let before = before.entry;
        let same_kind = match (&entry.kind, &before.kind) {
            (Kind::File { size: a, .. }, Kind::File { size: b, .. }) => a == b,
            (a, b) => a == b,
        };
        // Every symbolic link has the same mode.
        let same_mode = entry.mode == before.mode || matches!(entry.kind, Kind::Symlink { .. });
        let same_owner = (entry.uid, entry.gid) == (before.uid, before.gid);
        let same_time = self.time(entry) == self.time(before);
        let kept = before.xattrs.iter().filter(|(name, _)| is_kept(name));
        if !(same_kind && same_mode && same_owner && same_time && entry.xattrs.iter().eq(kept)) {
            return Ok(false);
        }
        let Kind::File { size, content: Some(before) } = before.kind else {
            return Ok(!entry.is_file());
        };
        if digest.is_none() {
            *digest = Some(if size == 0 { Digest::of("") } else { self.digest(path)? });
        }
        Ok(*digest == Some(before))
    }

    fn time(&self, entry: &Entry) -> i64 {
        entry.mtime.secs.min(self.clamp.unwrap_or(i64::MAX))
    }

    fn digest(&self, path: &RelPath) -> Result<Digest> {
        let mut hasher = HashingWriter::new(std::io::sink());
        let read = |source| crate::Error::Path { operation: "read content of", path: path.clone(), source };
        let mut file = std::io::BufReader::with_capacity(128 * 1024, self.root.open_file(path)?);
        std::io::copy(&mut file, &mut hasher).map_err(read)?;
        Ok(hasher.finish().1.finish())
    }

    /// Says that paths are gone, unless that follows from what was said already.
    fn delete(&self, gone: BTreeSet<RelPath>, changes: &mut Changes) {
        for path in gone {
            let is_known = self.tree.get(&path).is_some() || self.tree.is_directory(&path);
            let follows = |above: RelPath| match changes.get(&above) {
                Some(Change::Delete) => true,
                Some(Change::Put(entry, _)) => !entry.is_directory(),
                None => false,
            };
            if is_known && !path.ancestors().any(follows) {
                changes.delete(path);
            }
        }
    }

    fn put_ancestors(&self, changes: &mut Changes) -> Result<()> {
        let mut missing = BTreeSet::new();
        for (path, _) in changes.iter() {
            for above in path.ancestors() {
                if changes.get(&above).is_some() || !missing.insert(above) {
                    break;
                }
            }
        }
        for path in missing {
            if let Some(entry) = self.root.entry(&path)?.filter(Entry::is_directory) {
                changes.put(path, entry, Content::Empty);
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
