//! Removing whatever a path is.

use std::fs;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::{Path, PathBuf};

use rayon::prelude::*;
use rustix::fs::{AtFlags, Mode};
use rustix::io::Errno;

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
        parts.par_iter().for_each(|part| _ = fs::remove_dir_all(part));
    }
    fs::remove_dir_all(directory)
}

/// The directories in a directory, as far as it can be read.
fn directories(parent: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(parent).into_iter().flatten().flatten();
    let is_directory = |entry: &fs::DirEntry| entry.file_type().is_ok_and(|kind| kind.is_dir());
    entries.filter(is_directory).map(|entry| entry.path()).collect()
}

/// Removes `name` from `dir`, and all below it.
pub(super) fn remove_at(dir: BorrowedFd<'_>, name: &[u8]) -> Result<(), Errno> {
    match rustix::fs::unlinkat(dir, name, AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => return Ok(()),
        // Linux says EISDIR; POSIX and some file systems say EPERM.
        Err(Errno::ISDIR | Errno::PERM) => {}
        Err(errno) => return Err(errno),
    }
    match rustix::fs::unlinkat(dir, name, AtFlags::REMOVEDIR) {
        Ok(()) | Err(Errno::NOENT) => return Ok(()),
        Err(Errno::NOTEMPTY | Errno::EXIST) => {}
        Err(errno) => return Err(errno),
    }
    empty(rustix::fs::openat(dir, name, READ_DIRECTORY, Mode::empty())?.as_fd())?;
    rustix::fs::unlinkat(dir, name, AtFlags::REMOVEDIR)
}

fn empty(dir: BorrowedFd<'_>) -> Result<(), Errno> {
    names(dir)?.iter().try_for_each(|name| remove_at(dir, name))
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
}
