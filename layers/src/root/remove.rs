//! Removing whatever a path is.

use std::os::fd::{AsFd, BorrowedFd};

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
