//! From changes, or from a layer's tar, to a directory.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Read;
use std::ops::Bound;
use std::os::fd::AsFd;

use rustix::fs::AtFlags;
use rustix::io::Errno;

use crate::materialise::IMPLIED_MODE;
use crate::root::{at, names, times};
use crate::tar::{self, Item};
use crate::{Change, Changes, Content, Entry, Error, Limits, Opened, RelPath, Result, Root, Skipped, Timestamp};

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
            applier.put(path, entry, &mut open(entry, content)?)?;
        }
    }
    applier.finish()
}

fn open(entry: &Entry, content: &Content) -> Result<Opened> {
    if entry.is_file() { content.open() } else { Content::Empty.open() }
}

/// Puts one more layer on `root`. Whiteouts and opaque markers remove what was there before this layer, wherever in the tar
/// they stand; everything else replaces. Directories that the layer takes for granted are made with mode 0755.
pub fn apply_tar(tar: impl Read, limits: &Limits, root: &Root) -> Result<Vec<Skipped>> {
    let mut applier = Applier::new(root);
    tar::read(tar, limits, |path, item, content| match item {
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
    /// The directories in which something changed, and what their time was before. They may be named through symbolic
    /// links.
    touched: BTreeMap<RelPath, Timestamp>,
    /// The directories that this layer put, and the time that it gives them.
    times: BTreeMap<RelPath, Timestamp>,
    skipped: Vec<Skipped>,
}

impl<'a> Applier<'a> {
    fn new(root: &'a Root) -> Self {
        Self { root, put: BTreeSet::new(), touched: BTreeMap::new(), times: BTreeMap::new(), skipped: Vec::new() }
    }

    /// Remembers the time of the directory in which something is about to change.
    fn touch(&mut self, path: &RelPath) -> Result<()> {
        let parent = path.parent().unwrap_or_default();
        if !self.touched.contains_key(&parent) {
            match self.root.parent(path) {
                Ok(dir) => {
                    let stat = rustix::fs::statat(&dir, "", AtFlags::EMPTY_PATH).map_err(at("stat", &parent))?;
                    let mtime = Timestamp { secs: stat.st_mtime, nanos: stat.st_mtime_nsec as u32 };
                    self.touched.insert(parent, mtime);
                }
                Err(error) if is_absence(&error) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    fn put(&mut self, path: &RelPath, entry: &Entry, content: &mut dyn Read) -> Result<()> {
        let parent = path.parent().unwrap_or_default();
        if self.root.parent(path).is_err_and(|error| is_absence(&error)) {
            // The lowest directory that exists keeps its time, too.
            for above in path.ancestors() {
                self.touch(&above)?;
            }
            self.root.create_dir_all(&parent, IMPLIED_MODE)?;
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
        for name in names(dir.as_fd()).map_err(at("read directory", path))? {
            self.delete(&path.child(&name)?)?;
        }
        Ok(())
    }

    fn finish(self) -> Result<Vec<Skipped>> {
        // What the layer says comes last, since a touched directory may be a put one under another name.
        for (path, mtime) in self.touched.iter().rev().chain(self.times.iter().rev()) {
            match self.root.directory(path) {
                Ok(dir) => rustix::fs::utimensat(dir, ".", &times(*mtime), AtFlags::empty())
                    .map_err(at("set times of", path))?,
                Err(error) if is_absence(&error) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(self.skipped)
    }
}

fn is_absence(error: &Error) -> bool {
    [Errno::NOENT, Errno::NOTDIR].iter().any(|errno| error.raw_os_error() == Some(errno.raw_os_error()))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;
    use crate::Kind;
    use crate::testing::{Hostile, is_root, listing, path, temp, write};

    fn names(root: &Root) -> Vec<String> {
        let first = |line: &String| line.split(' ').next().map(str::to_owned);
        listing(root, false).iter().filter_map(first).collect()
    }

    #[test]
    fn whiteouts_hide_lower_layers_and_nothing_of_their_own() {
        if !is_root("owners") {
            return;
        }
        let (dir, root) = temp();
        for name in ["a/x", "a/y/z", "b", "c/x", "d/old", "e/old", "f"] {
            write(dir.path(), name, "");
        }
        let tar = Hostile::default()
            .file("a/.wh.y", "")
            .file("a/new", "")
            .file("b", "new")
            .file(".wh.b", "")
            .dir("c/")
            .file("c/new", "")
            .file("c/.wh..wh..opq", "")
            .file(".wh.d", "")
            .dir("d/")
            .file("d/new", "")
            .file("e/new", "")
            .file(".wh.e", "")
            .file(".wh.f", "")
            .file(".wh.absent", "")
            .end();
        assert_eq!(apply_tar(&tar[..], &Limits::NONE, &root).unwrap(), []);
        assert_eq!(names(&root), ["a", "a/new", "a/x", "b", "c", "c/new", "d", "d/new", "e", "e/new"]);
        assert_eq!(root.entry(&path("b")).unwrap().unwrap().kind, Kind::File { size: 3, content: None });
    }

    #[test]
    fn directories_that_are_merely_touched_keep_their_time() {
        if !is_root("owners") {
            return;
        }
        let (dir, root) = temp();
        write(dir.path(), "usr/lib/old", "");
        write(dir.path(), "put/old", "");
        symlink("usr/lib", dir.path().join("lib")).unwrap();
        for name in ["usr/lib", "usr", "put"] {
            root.set_times(&path(name), Timestamp::from_secs(5)).unwrap();
        }
        root.set_times(&RelPath::root(), Timestamp::from_secs(6)).unwrap();
        let tar = Hostile::default()
            .file("lib/new", "")
            .file("usr/lib/.wh.old", "")
            .file("usr/made/deep/file", "")
            .dir("put/")
            .file("put/new", "")
            .end();
        apply_tar(&tar[..], &Limits::NONE, &root).unwrap();
        let time = |path: &RelPath| root.entry(path).unwrap().unwrap().mtime.secs;
        assert_eq!(names(&root).iter().filter(|name| name.starts_with("usr/lib/")).count(), 1);
        assert_eq!(["usr/lib", "usr", "put"].map(|name| time(&path(name))), [5, 5, 1_000_000]);
        assert_eq!(time(&RelPath::root()), 6);
    }

    #[test]
    fn nothing_is_written_outside_of_the_root() {
        let (outside, _) = temp();
        write(outside.path(), "victim", "kept");
        let target = outside.path().to_str().unwrap();
        for tar in [
            Hostile::default().symlink("l", target).file("l/victim", "changed"),
            Hostile::default().symlink("l", &format!("../../../../../../{target}")).file("l/victim", "changed"),
            Hostile::default().symlink("l", &format!("{target}/victim")).file("l", "changed"),
            Hostile::default().symlink("l", target).file("l/.wh.victim", ""),
            Hostile::default().symlink("l", target).file("l/.wh..wh..opq", ""),
            Hostile::default().symlink("l", target).hardlink("h", "l/victim").file("h", "changed"),
            Hostile::default().symlink("a", target).symlink("b", "a").dir("b/").file("b/victim", "changed"),
            Hostile::default().hardlink("h", &format!("{target}/victim")).file("h", "changed"),
            Hostile::default().entry(b'3', b"dev", b"", b"").symlink("dev", target).dir("dev/x"),
        ] {
            let (_dir, root) = temp();
            _ = apply_tar(&tar.end()[..], &Limits::NONE, &root);
            assert_eq!(std::fs::read_to_string(outside.path().join("victim")).unwrap(), "kept");
            assert_eq!(std::fs::read_dir(outside.path()).unwrap().count(), 1);
        }
    }

    #[test]
    fn changes_and_their_tar_make_the_same_directory() {
        if !is_root("owners") {
            return;
        }
        let (dir_a, a) = temp();
        let (dir_b, b) = temp();
        for dir in [&dir_a, &dir_b] {
            for name in ["gone/x", "kept/x", "kept/y", "replaced/deep/x"] {
                write(dir.path(), name, "old");
            }
        }
        let at = Timestamp::from_secs(77);
        let mut changes = Changes::new();
        changes.delete(path("gone"));
        changes.put(path("kept"), Entry::directory(0o711, at), Content::Empty);
        changes.delete(path("kept/y"));
        changes.put(path("kept/new"), Entry::file(3, 0o4755, at), Content::Bytes((*b"new").into()));
        let link = Kind::Hardlink { target: path("kept/new") };
        changes.put(path("link"), Entry { kind: link, ..Entry::file(0, 0o4755, at) }, Content::Empty);
        changes.put(path("replaced"), Entry::file(0, 0o600, at), Content::Empty);
        apply(&changes, &a).unwrap();
        apply_tar(&tar::write(&changes, None, Vec::new()).unwrap().0[..], &Limits::NONE, &b).unwrap();
        let now = |lines: Vec<String>| lines.into_iter().filter(|line| !line.contains("old")).collect::<Vec<_>>();
        assert_eq!(now(listing(&a, true)), now(listing(&b, true)));
        assert_eq!(names(&a), ["kept", "kept/new", "kept/x", "link", "replaced"]);
        assert_eq!(a.entry(&path("kept")).unwrap().unwrap().mtime, at);
    }
}
