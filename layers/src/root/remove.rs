//! Removing whatever a path is.

use std::fs;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use rayon::prelude::*;
use rustix::fs::{AtFlags, Mode};
use rustix::io::Errno;

use super::put::inode;
use super::{READ_DIRECTORY, Root, at, names};
use crate::{RelPath, Result};

impl Root {
    /// Removes `path` and all below it. A symbolic link is removed, not followed; what is absent is fine. The root itself
    /// stays and is emptied.
    pub fn remove(&self, path: &RelPath) -> Result<()> {
        let absent = |code| [Errno::NOENT, Errno::NOTDIR].iter().any(|errno| Some(errno.raw_os_error()) == code);
        match self.parent(path) {
            Ok(dir) => match path.file_name() {
                Some(name) => remove_at(dir.as_fd(), name),
                None => empty(dir.as_fd()),
            }
            .map_err(at("remove", path)),
            Err(error) if absent(error.raw_os_error()) => Ok(()),
            Err(error) => Err(error),
        }
    }
}

/// So many directories are enough for all threads to have something to do to the end.
const PARTS: usize = 64;

/// Removes a directory and all below it, on all threads. Symbolic links are removed, not followed.
pub fn remove_all(directory: &Path) -> io::Result<()> {
    let mut parts = vec![directory.to_owned()];
    while parts.len() < PARTS {
        let below: Vec<PathBuf> = parts.iter().flat_map(|part| directories(part)).collect();
        if below.is_empty() {
            break;
        }
        parts = below;
    }
    if parts.len() > 1 {
        // What one of them leaves is told below.
        parts.par_iter().for_each(|part| _ = remove_path(part));
    }
    fs::symlink_metadata(directory)?;
    remove_path(directory)
}

fn remove_path(path: &Path) -> io::Result<()> {
    Ok(remove_at(rustix::fs::CWD, path.as_os_str().as_bytes())?)
}

/// The directories in a directory, as far as it can be read.
fn directories(parent: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(parent).into_iter().flatten().flatten();
    let is_directory = |entry: &fs::DirEntry| entry.file_type().is_ok_and(|kind| kind.is_dir());
    entries.filter(is_directory).map(|entry| entry.path()).collect()
}

/// Removes `name` from `dir`, and all below it.
pub(super) fn remove_at(dir: BorrowedFd<'_>, name: &[u8]) -> Result<(), Errno> {
    if is_gone(dir, name)? {
        return Ok(());
    }
    empty(rustix::fs::openat(dir, name, READ_DIRECTORY, Mode::empty())?.as_fd())?;
    rustix::fs::unlinkat(dir, name, AtFlags::REMOVEDIR)
}

/// Removes `name` from `dir`, unless it is a directory that holds something.
fn is_gone(dir: BorrowedFd<'_>, name: &[u8]) -> Result<bool, Errno> {
    match rustix::fs::unlinkat(dir, name, AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => return Ok(true),
        // Linux says EISDIR; POSIX and some file systems say EPERM.
        Err(Errno::ISDIR | Errno::PERM) => {}
        Err(errno) => return Err(errno),
    }
    match rustix::fs::unlinkat(dir, name, AtFlags::REMOVEDIR) {
        Ok(()) | Err(Errno::NOENT) => Ok(true),
        Err(Errno::NOTEMPTY | Errno::EXIST) => Ok(false),
        Err(errno) => Err(errno),
    }
}

/// A directory on the way down.
struct Level {
    /// Its name in the one above.
    name: Vec<u8>,
    /// What is still in it.
    left: Vec<Vec<u8>>,
    inode: (u64, u64),
}

impl Level {
    fn of(dir: BorrowedFd<'_>, name: Vec<u8>) -> Result<Self, Errno> {
        Ok(Self { name, left: names(dir)?, inode: inode(dir, b".")? })
    }
}

/// Removes all that is in a directory. Directories can be deeper than there are descriptors, or than a thread's stack has room
/// for: only one is open at a time, and the way back up is `..`, which must lead to where the way down came from.
fn empty(dir: BorrowedFd<'_>) -> Result<(), Errno> {
    let mut here = rustix::fs::openat(dir, ".", READ_DIRECTORY, Mode::empty())?;
    let mut levels = vec![Level::of(here.as_fd(), Vec::new())?];
    while let Some(level) = levels.last_mut() {
        if let Some(name) = level.left.pop() {
            if !is_gone(here.as_fd(), &name)? {
                here = rustix::fs::openat(&here, &name[..], READ_DIRECTORY, Mode::empty())?;
                levels.push(Level::of(here.as_fd(), name)?);
            }
            continue;
        }
        let name = std::mem::take(&mut level.name);
        levels.pop();
        let Some(above) = levels.last() else { break };
        here = rustix::fs::openat(&here, "..", READ_DIRECTORY, Mode::empty())?;
        if inode(here.as_fd(), b".")? != above.inode {
            // Somebody has moved it.
            return Err(Errno::STALE);
        }
        rustix::fs::unlinkat(&here, &name[..], AtFlags::REMOVEDIR)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_is_removed_to_the_last_file_and_nothing_behind_a_link() {
        for width in [0, 1, 3, 100] {
            let parent = tempfile::tempdir().unwrap();
            let (directory, other) = (parent.path().join("directory"), parent.path().join("other"));
            fs::create_dir_all(other.join("below")).unwrap();
            fs::create_dir(&directory).unwrap();
            for number in 0..width {
                let deep = directory.join(format!("{number}/a/b"));
                fs::create_dir_all(&deep).unwrap();
                fs::write(deep.join("file"), "content").unwrap();
                std::os::unix::fs::symlink(&other, directory.join(format!("{number}/link"))).unwrap();
            }
            remove_all(&directory).unwrap();
            assert!(!directory.exists() && other.join("below").exists(), "{width}");
            assert_eq!(remove_all(&directory).unwrap_err().kind(), io::ErrorKind::NotFound);
        }
    }

    #[test]
    fn a_tree_deeper_than_any_path_is_removed_with_few_descriptors_and_little_stack() {
        let parent = tempfile::tempdir().unwrap();
        let (directory, canary) = (parent.path().join("directory"), parent.path().join("canary"));
        fs::create_dir(&directory).unwrap();
        fs::write(&canary, "kept").unwrap();
        let mut here = fs::File::open(&directory).map(std::os::fd::OwnedFd::from).unwrap();
        for _ in 0..3_000 {
            rustix::fs::mkdirat(&here, "d", Mode::from_raw_mode(0o700)).unwrap();
            rustix::fs::symlinkat(&canary, &here, "link").unwrap();
            here = rustix::fs::openat(&here, "d", READ_DIRECTORY, Mode::empty()).unwrap();
        }
        drop(here);
        let small = std::thread::Builder::new().stack_size(64 * 1024);
        small.spawn(move || remove_all(&directory).unwrap()).unwrap().join().unwrap();
        assert_eq!(fs::read_dir(parent.path()).unwrap().count(), 1);
        assert_eq!(fs::read_to_string(canary).unwrap(), "kept");
    }
}
