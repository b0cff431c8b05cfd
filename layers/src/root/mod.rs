//! A directory that paths cannot leave.
//!
//! Whatever a layer or a RUN put below it, no symbolic link leads out: links are followed as in a chroot, `..` of the
//! root is the root, and every call works on a descriptor of the directory that holds the path, never on a path of the
//! host. What is absent here is any protection against processes that move directories while we write: nothing runs in
//! a root while it is filled or read.

mod look;
mod put;
mod remove;
mod resolve;

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::fs::{AtFlags, FileType, Mode, OFlags};
use rustix::io::Errno;

pub(crate) use look::{Look, is_kept, names, open_quietly, value, xattr_names};
pub use put::{Lost, Skipped};
pub(crate) use put::{Place, strip, times};
pub use remove::remove_all;
use resolve::Resolver;

use crate::{Error, RelPath, Result};

/// How directories are opened for reading their names.
const READ_DIRECTORY: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

/// A directory that paths cannot leave.
#[derive(Debug)]
pub struct Root {
    dir: OwnedFd,
    resolver: Resolver,
}

impl Root {
    /// Opens the directory of the host at `path`; links in `path` itself are followed as usual.
    pub fn open(path: &Path) -> Result<Self> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let dir = rustix::fs::open(path, flags, Mode::empty()).map_err(|errno| Error::Host {
            operation: "open root",
            path: path.to_owned(),
            source: errno.into(),
        })?;
        Ok(Self::from_dir(dir))
    }

    /// Takes an open directory as the root.
    pub fn from_dir(fd: OwnedFd) -> Self {
        let resolver = Resolver::probe(fd.as_fd());
        Self { dir: fd, resolver }
    }

    /// The same root, resolved as on a kernel without `openat2`.
    #[cfg(test)]
    pub(crate) fn walking(self) -> Self {
        Self { resolver: Resolver::Walk, ..self }
    }

    /// Another handle of the same directory.
    pub fn try_clone(&self) -> Result<Self> {
        let dir = self.dir.try_clone().map_err(io_at("duplicate", &RelPath::root()))?;
        Ok(Self { dir, resolver: self.resolver })
    }

    /// The directory itself.
    pub fn dir(&self) -> BorrowedFd<'_> {
        self.dir.as_fd()
    }

    /// The directory that holds the last component of `path`. Symbolic links among the directories are followed inside
    /// the root. The root's own parent is the root.
    pub fn parent(&self, path: &RelPath) -> Result<OwnedFd> {
        self.resolve(&path.parent().unwrap_or_default(), path)
    }

    /// Opens the directory `path` with `O_PATH`, following every symbolic link inside the root.
    pub(crate) fn directory(&self, path: &RelPath) -> Result<OwnedFd> {
        self.resolve(path, path)
    }

    /// Opens whatever `path` leads to with `O_PATH`, following every symbolic link inside the root, the last one too.
    pub fn find(&self, path: &RelPath) -> Result<OwnedFd> {
        self.resolver.anything(self.dir(), path).map_err(|errno| match errno {
            Errno::LOOP => Error::SymlinkLoop(path.clone()),
            _ => at("open", path)(errno),
        })
    }

    /// Opens `directory` on behalf of `path`, which the error names.
    fn resolve(&self, directory: &RelPath, path: &RelPath) -> Result<OwnedFd> {
        self.resolver.directory(self.dir(), directory).map_err(|errno| match errno {
            Errno::LOOP => Error::SymlinkLoop(path.clone()),
            _ => at("open directory of", path)(errno),
        })
    }

    /// The directory that holds `path`, and the name of `path` in it: `.` for the root.
    fn place<'a>(&self, path: &'a RelPath) -> Result<(OwnedFd, &'a [u8])> {
        Ok((self.parent(path)?, path.file_name().unwrap_or(b".")))
    }

    /// Opens a directory for reading. A symbolic link in the last component is not followed.
    pub fn open_dir(&self, path: &RelPath) -> Result<OwnedFd> {
        let (dir, name) = self.place(path)?;
        rustix::fs::openat(dir, name, READ_DIRECTORY, Mode::empty()).map_err(at("open directory", path))
    }

    /// Opens a regular file for reading, and nothing else: a device is not touched, a FIFO does not block, and a symbolic
    /// link in the last component is not followed.
    pub fn open_file(&self, path: &RelPath) -> Result<File> {
        let (dir, name) = self.place(path)?;
        let irregular = || at("open", path)(Errno::INVAL);
        let stat = rustix::fs::statat(&dir, name, AtFlags::SYMLINK_NOFOLLOW).map_err(at("open", path))?;
        if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
            return Err(irregular());
        }
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
        let file = File::from(rustix::fs::openat(&dir, name, flags, Mode::empty()).map_err(at("open", path))?);
        let metadata = file.metadata().map_err(io_at("stat", path))?;
        if metadata.is_file() { Ok(file) } else { Err(irregular()) }
    }

    /// Makes `path` a directory, with the directories above it that are missing, each of mode `mode`. Symbolic links that
    /// lead to directories count as directories. Returns those that were made, the highest first.
    pub fn create_dir_all(&self, path: &RelPath, mode: u32) -> Result<Vec<RelPath>> {
        let mut missing = Vec::new();
        let mut known = path.clone();
        loop {
            match self.directory(&known) {
                Ok(_) => break,
                Err(error) if error.raw_os_error() == Some(Errno::NOENT.raw_os_error()) && !known.is_root() => {
                    let above = known.parent().unwrap_or_default();
                    missing.push(std::mem::replace(&mut known, above));
                }
                Err(error) => return Err(error),
            }
        }
        missing.reverse();
        for path in &missing {
            let (dir, name) = self.place(path)?;
            rustix::fs::mkdirat(&dir, name, Mode::from_raw_mode(0o700)).map_err(at("mkdir", path))?;
            let made = rustix::fs::openat(&dir, name, READ_DIRECTORY, Mode::empty()).map_err(at("open", path))?;
            // Not left to mkdir, whose mode the umask cuts.
            rustix::fs::fchmod(made, Mode::from_raw_mode(mode)).map_err(at("chmod", path))?;
        }
        Ok(missing)
    }
}

/// Turns a refusal of the kernel into an error that names the operation and the path.
pub(crate) fn at<'a>(operation: &'static str, path: &'a RelPath) -> impl Fn(Errno) -> Error + 'a {
    move |errno| Error::Path { operation, path: path.clone(), source: errno.into() }
}

/// Like [`at`], for what the standard library reports.
pub(crate) fn io_at<'a>(operation: &'static str, path: &'a RelPath) -> impl Fn(io::Error) -> Error + 'a {
    move |source| Error::Path { operation, path: path.clone(), source }
}

#[cfg(test)]
mod tests;
