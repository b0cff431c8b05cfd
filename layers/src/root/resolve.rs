//! Finding a directory below a root without leaving it.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{AtFlags, FileType, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;

use crate::RelPath;
use crate::links::MAX_LINKS;

/// The kernel answers EAGAIN when something is renamed anywhere while it looks at a `..`, which passes.
const MAX_ATTEMPTS: u32 = 128;

const ANYTHING: OFlags = OFlags::PATH.union(OFlags::CLOEXEC);
const DIRECTORY: OFlags = ANYTHING.union(OFlags::DIRECTORY);

/// Who follows symbolic links.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Resolver {
    /// `openat2` with `RESOLVE_IN_ROOT`, since Linux 5.6.
    Kernel,
    /// We do, one component at a time: the system call is missing (ENOSYS), or a seccomp filter that does not know it
    /// answers EPERM.
    Walk,
}

impl Resolver {
    /// Tries the system call.
    pub(super) fn probe(root: BorrowedFd<'_>) -> Self {
        match kernel(root, &RelPath::root(), DIRECTORY) {
            Err(Errno::NOSYS | Errno::PERM) => Self::Walk,
            _ => Self::Kernel,
        }
    }

    /// Opens the directory `path` with `O_PATH`, following every symbolic link inside `root`.
    pub(super) fn directory(self, root: BorrowedFd<'_>, path: &RelPath) -> Result<OwnedFd, Errno> {
        if path.is_root() {
            return rustix::io::fcntl_dupfd_cloexec(root, 0);
        }
        match self {
            Self::Kernel => kernel(root, path, DIRECTORY),
            Self::Walk => walk(root, path, DIRECTORY),
        }
    }

    /// Opens whatever `path` leads to with `O_PATH`, following every symbolic link inside `root`, the last one too.
    pub(super) fn anything(self, root: BorrowedFd<'_>, path: &RelPath) -> Result<OwnedFd, Errno> {
        match self {
            _ if path.is_root() => self.directory(root, path),
            Self::Kernel => kernel(root, path, ANYTHING),
            Self::Walk => walk(root, path, ANYTHING),
        }
    }
}

fn kernel(root: BorrowedFd<'_>, path: &RelPath, wanted: OFlags) -> Result<OwnedFd, Errno> {
    let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
    let mut attempt = 0;
    loop {
        attempt += 1;
        match rustix::fs::openat2(root, path.as_path(), wanted, Mode::empty(), resolve) {
            Err(Errno::AGAIN | Errno::INTR) if attempt < MAX_ATTEMPTS => {}
            answer => return answer,
        }
    }
}

/// The directories from the root down to the current one stay open, so that `..` is the one before and never a question
/// to the kernel.
fn walk(root: BorrowedFd<'_>, path: &RelPath, wanted: OFlags) -> Result<OwnedFd, Errno> {
    let mut todo: Vec<Vec<u8>> = path.components().rev().map(<[u8]>::to_vec).collect();
    let mut chain: Vec<OwnedFd> = Vec::new();
    let mut links = 0;
    while let Some(name) = todo.pop() {
        match &name[..] {
            b"" | b"." => continue,
            b".." => {
                chain.pop();
                continue;
            }
            _ => {}
        }
        let here = chain.last().map_or(root, |dir| dir.as_fd());
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let next = rustix::fs::openat(here, &name[..], flags, Mode::empty())?;
        let stat = rustix::fs::statat(&next, "", AtFlags::EMPTY_PATH)?;
        match FileType::from_raw_mode(stat.st_mode) {
            FileType::Directory => chain.push(next),
            FileType::Symlink => {
                links += 1;
                if links > MAX_LINKS {
                    return Err(Errno::LOOP);
                }
                let target = rustix::fs::readlinkat(&next, "", Vec::new())?.into_bytes();
                if target.starts_with(b"/") {
                    chain.clear();
                }
                todo.extend(target.split(|&byte| byte == b'/').rev().map(<[u8]>::to_vec));
            }
            _ if todo.is_empty() && !wanted.contains(OFlags::DIRECTORY) => return Ok(next),
            _ => return Err(Errno::NOTDIR),
        }
    }
    match chain.pop() {
        Some(dir) => Ok(dir),
        None => rustix::io::fcntl_dupfd_cloexec(root, 0),
    }
}
