//! From changes, or from a layer's tar, to a directory.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Read;
use std::ops::Bound;

use crate::root::at;
use crate::root::names;
use crate::tar::{self, Item};
use crate::{Change, Changes, Content, Entry, RelPath, Result, Root, Skipped, Timestamp};

/// Makes `changes` in `root`: first what they delete, then what they put. A directory in which something changes, but which
/// is not itself put, keeps its time. Returns what the kernel refused to this process.
pub fn apply(changes: &Changes, root: &Root) -> Result<Vec<Skipped>> {
    let mut applier = Applier::new(root);
    for (path, change) in changes.iter() {
        if let Change::Delete = change {
            applier.delete(path)?;
        }
    }
    for (path, change) in changes.iter() {
        if let Change::Put(entry, content) = change {
            applier.put(path, entry, &mut *open(entry, content)?)?;
        }
    }
    applier.finish()
}

fn open(entry: &Entry, content: &Content) -> Result<Box<dyn Read>> {
    if entry.is_file() { content.open() } else { Content::Empty.open() }
}

/// Puts one more layer on `root`. Whiteouts and opaque markers remove what was there before this layer, wherever in the tar
/// they stand; everything else replaces. Directories that the layer takes for granted are made with mode 0755.
pub fn apply_tar(tar: impl Read, root: &Root) -> Result<Vec<Skipped>> {
    let mut applier = Applier::new(root);
    tar::read(tar, |path, item, content| match item {
        Item::Put(entry) => applier.put(&path, &entry, content),
        Item::Delete => applier.delete(&path),
        Item::Opaque => applier.hide(&path),
    })?;
    applier.finish()
}

struct Applier<'a> {
    root: &'a Root,
    /// What this layer put so far.
    put: BTreeSet<RelPath>,
    /// The directories whose time, and whose mode where that is the entry's, are set when everything is in place.
    times: BTreeMap<RelPath, Timestamp>,
    skipped: Vec<Skipped>,
}

impl<'a> Applier<'a> {
    fn new(root: &'a Root) -> Self {
        Self { root, put: BTreeSet::new(), times: BTreeMap::new(), skipped: Vec::new() }
    }

    /// Remembers the time of the directory in which something is about to change.
    fn touch(&mut self, path: &RelPath) -> Result<()> {
        let parent = path.parent().unwrap_or_default();
        if !self.times.contains_key(&parent)
            && let Some(entry) = self.root.entry(&parent)?
            && entry.is_directory()
        {
            self.times.insert(parent, entry.mtime);
        }
        Ok(())
    }

    fn put(&mut self, path: &RelPath, entry: &Entry, content: &mut dyn Read) -> Result<()> {
        let parent = path.parent().unwrap_or_default();
        if self.root.parent(path).is_err() {
            let made = self.root.create_dir_all(&parent, 0o755)?;
            if let Some(highest) = made.first() {
                self.touch(highest)?;
            }
        }
        self.touch(path)?;
        self.skipped.extend(self.root.put(path, entry, content)?);
        if entry.is_directory() {
            self.times.insert(path.clone(), entry.mtime);
        } else {
            self.times.remove(path);
        }
        self.put.insert(path.clone());
        Ok(())
    }

    fn delete(&mut self, path: &RelPath) -> Result<()> {
        if self.holds(path) {
            return self.hide(path);
        }
        self.touch(path)?;
        self.root.remove(path)
    }

    /// Whether this layer put `path` or something below it.
    fn holds(&self, path: &RelPath) -> bool {
        let start = [path.as_bytes(), b"/"].concat();
        let end = [path.as_bytes(), b"0"].concat();
        let below = (Bound::Included(&start[..]), Bound::Excluded(&end[..]));
        self.put.contains(path) || self.put.range::<[u8], _>(below).next().is_some()
    }

    /// Removes from the directory `path` what this layer did not put.
    fn hide(&mut self, path: &RelPath) -> Result<()> {
        let is_directory = path.is_root() || self.root.entry(path)?.is_some_and(|entry| entry.is_directory());
        if !is_directory {
            return Ok(());
        }
        let dir = self.root.open_dir(path)?;
        for name in names(std::os::fd::AsFd::as_fd(&dir)).map_err(at("read directory", path))? {
            self.delete(&path.child(&name)?)?;
        }
        Ok(())
    }

    fn finish(self) -> Result<Vec<Skipped>> {
        for (path, mtime) in self.times.iter().rev() {
            if self.root.entry(path)?.is_some_and(|entry| entry.is_directory()) {
                self.root.set_times(path, *mtime)?;
            }
        }
        Ok(self.skipped)
    }
}
