//! Making a path what an entry says.

use std::fmt;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::fd::{AsFd, BorrowedFd};

use rustix::fs::{AtFlags, FileType, Gid, Mode, OFlags, Timespec, Timestamps, Uid, XattrFlags};
use rustix::io::Errno;

use super::look::{is_kept, xattr_names};
use super::remove::remove_at;
use super::{READ_DIRECTORY, Root, at, io_at};
use crate::entry::XattrName;
use crate::error::printable;
use crate::{Entry, Error, Kind, RelPath, Result, Timestamp};

/// Content passes in pieces of at most this size.
const PIECE: u64 = 128 * 1024;

/// A part of an entry that the kernel did not let this process make. The rest of the entry was made; the root lacks this
/// part, and only the image's layers still have it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Skipped {
    /// The entry.
    pub path: RelPath,
    /// What it lacks.
    pub lost: Lost,
}

/// What a root can lack.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Lost {
    /// The device node, and with it the path: only root outside of user namespaces may make one.
    Device,
    /// One extended attribute: the file system or the kernel refuses it.
    Xattr(XattrName),
}

impl fmt::Display for Skipped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.lost {
            Lost::Device => write!(f, "'/{}': device node left out", printable(&self.path)),
            Lost::Xattr(name) => {
                let name = String::from_utf8_lossy(name);
                write!(f, "'/{}': extended attribute {} left out", printable(&self.path), printable(&name))
            }
        }
    }
}

/// A name in an open directory, and the whole path for errors.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Place<'a> {
    pub(crate) dir: BorrowedFd<'a>,
    pub(crate) name: &'a [u8],
    pub(crate) path: &'a RelPath,
}

impl Root {
    /// Makes `path` what `entry` says, whatever it was before; a directory stays and keeps what it holds. The directory
    /// that holds `path` must exist.
    ///
    /// A file's `content` must have exactly the entry's size, else this fails and leaves a part of the file. A hard
    /// link's target must exist; the link's own attributes are those of the target, and are not looked at. What the
    /// kernel refuses to this process alone is returned, not an error.
    pub fn put(&self, path: &RelPath, entry: &Entry, content: &mut dyn Read) -> Result<Vec<Skipped>> {
        if path.is_root() {
            return if entry.is_directory() {
                self.set_metadata(path, entry)
            } else {
                Err(at("put", path)(Errno::ISDIR))
            };
        }
        let (dir, name) = self.place(path)?;
        let size = if let Kind::File { size, .. } = entry.kind { size } else { 0 };
        let mut content = BufReader::with_capacity(size.clamp(1, PIECE) as usize, content);
        self.put_at(Place { dir: dir.as_fd(), name, path }, entry, &mut content)
    }

    /// Like [`Root::put`], in a directory that is open already, and from what is in memory.
    pub(crate) fn put_at(&self, place: Place<'_>, entry: &Entry, content: &mut dyn BufRead) -> Result<Vec<Skipped>> {
        let Place { dir, name, path } = place;
        match &entry.kind {
            Kind::File { size, .. } => {
                let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
                let create = || rustix::fs::openat(dir, name, flags, Mode::from_raw_mode(entry.mode & 0o777));
                let mut file = File::from(replacing(place, "create", create)?);
                copy(&mut file, *size, content, path)?;
                dress_new(file.as_fd(), entry, path)
            }
            Kind::Directory => {
                let existed = make_directory(place)?;
                let fd = rustix::fs::openat(dir, name, READ_DIRECTORY, Mode::empty()).map_err(at("open", path))?;
                if existed {
                    let is_stated = |name: &[u8]| entry.xattrs.keys().any(|stated| &stated[..] == name);
                    strip(fd.as_fd(), |name| is_kept(name) && !is_stated(name)).map_err(at("removexattr", path))?;
                }
                dress(fd.as_fd(), entry, path)
            }
            Kind::Hardlink { target } => {
                self.link_at(place, target)?;
                Ok(Vec::new())
            }
            Kind::Symlink { target } => {
                replacing(place, "symlink", || rustix::fs::symlinkat(&target[..], dir, name))?;
                dress_at(place, entry, false)
            }
            Kind::Fifo => {
                let mode = Mode::from_raw_mode(entry.mode);
                replacing(place, "mkfifo", || rustix::fs::mknodat(dir, name, FileType::Fifo, mode, 0))?;
                dress_at(place, entry, true)
            }
            &Kind::CharDevice { major, minor } => {
                self.put_device(place, entry, FileType::CharacterDevice, (major, minor))
            }
            &Kind::BlockDevice { major, minor } => self.put_device(place, entry, FileType::BlockDevice, (major, minor)),
        }
    }

    fn put_device(
        &self,
        place: Place<'_>,
        entry: &Entry,
        kind: FileType,
        (major, minor): (u32, u32),
    ) -> Result<Vec<Skipped>> {
        let number = rustix::fs::makedev(major, minor);
        let mode = Mode::from_raw_mode(entry.mode);
        let made = replacing(place, "mknod", || rustix::fs::mknodat(place.dir, place.name, kind, mode, number));
        match made {
            Err(error) if error.raw_os_error() == Some(Errno::PERM.raw_os_error()) => {
                // Whatever was there before is gone all the same, as the layer says.
                remove_at(place.dir, place.name).map_err(at("remove", place.path))?;
                Ok(vec![Skipped { path: place.path.clone(), lost: Lost::Device }])
            }
            Err(error) => Err(error),
            Ok(()) => dress_at(place, entry, true),
        }
    }

    /// Makes `place` another name of `target`.
    pub(crate) fn link_at(&self, place: Place<'_>, target: &RelPath) -> Result<()> {
        let (from, first) = self.place(target)?;
        // Replacing a name by a link to itself would lose the file.
        if let (Ok(a), Ok(b)) = (inode(from.as_fd(), first), inode(place.dir, place.name))
            && a == b
        {
            return Ok(());
        }
        replacing(place, "link", || rustix::fs::linkat(&from, first, place.dir, place.name, AtFlags::empty()))
    }

    /// Gives what `path` is the owner, mode, attributes and time of `entry`, without looking at its kind or content.
    pub fn set_metadata(&self, path: &RelPath, entry: &Entry) -> Result<Vec<Skipped>> {
        let (dir, name) = self.place(path)?;
        if entry.is_directory() {
            let fd = rustix::fs::openat(&dir, name, READ_DIRECTORY, Mode::empty()).map_err(at("open", path))?;
            return dress(fd.as_fd(), entry, path);
        }
        if entry.is_file() {
            let file = self.open_file(path)?;
            return dress(file.as_fd(), entry, path);
        }
        let is_link = matches!(entry.kind, Kind::Symlink { .. });
        dress_at(Place { dir: dir.as_fd(), name, path }, entry, !is_link)
    }

    /// Sets the modification time of `path`, which is not followed.
    pub fn set_times(&self, path: &RelPath, mtime: Timestamp) -> Result<()> {
        let (dir, name) = self.place(path)?;
        rustix::fs::utimensat(dir, name, &times(mtime), AtFlags::SYMLINK_NOFOLLOW).map_err(at("set times of", path))
    }
}

pub(super) fn inode(dir: BorrowedFd<'_>, name: &[u8]) -> Result<(u64, u64), Errno> {
    let stat = rustix::fs::statat(dir, name, AtFlags::SYMLINK_NOFOLLOW)?;
    #[expect(clippy::useless_conversion, reason = "the width of this field differs between architectures")]
    Ok((u64::from(stat.st_dev), stat.st_ino))
}

/// Makes something new under a name; when the name is taken, removes what has it and tries once more.
fn replacing<T>(place: Place<'_>, operation: &'static str, make: impl Fn() -> Result<T, Errno>) -> Result<T> {
    match make() {
        Err(Errno::EXIST) => {
            remove_at(place.dir, place.name).map_err(at("remove", place.path))?;
            make().map_err(at(operation, place.path))
        }
        answer => answer.map_err(at(operation, place.path)),
    }
}

/// Makes a directory, unless there is one. Says whether there was.
fn make_directory(place: Place<'_>) -> Result<bool> {
    let Place { dir, name, path } = place;
    let make = || rustix::fs::mkdirat(dir, name, Mode::from_raw_mode(0o700));
    match make() {
        Err(Errno::EXIST) => {
            let stat = rustix::fs::statat(dir, name, AtFlags::SYMLINK_NOFOLLOW).map_err(at("stat", path))?;
            if FileType::from_raw_mode(stat.st_mode) == FileType::Directory {
                return Ok(true);
            }
            replacing(place, "mkdir", make)?;
            Ok(false)
        }
        answer => answer.map(|()| false).map_err(at("mkdir", path)),
    }
}

/// Copies exactly `size` bytes.
fn copy(file: &mut File, size: u64, content: &mut dyn BufRead, path: &RelPath) -> Result<()> {
    let wrong = |reason: &str| io_at("write", path)(io::Error::new(io::ErrorKind::InvalidData, reason.to_owned()));
    let mut left = size;
    loop {
        let piece = match content.fill_buf() {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            answer => answer.map_err(io_at("read content of", path))?,
        };
        let length = piece.len();
        if length == 0 {
            return if left == 0 { Ok(()) } else { Err(wrong("its content is shorter than its size")) };
        }
        left = left.checked_sub(length as u64).ok_or_else(|| wrong("its content is longer than its size"))?;
        file.write_all(piece).map_err(io_at("write", path))?;
        content.consume(length);
    }
}

/// Like [`dress`], for a file that was just made: a look at what it got is cheaper than setting that again.
fn dress_new(fd: BorrowedFd<'_>, entry: &Entry, path: &RelPath) -> Result<Vec<Skipped>> {
    let (uid, gid) = owner(entry, path)?;
    let stat = rustix::fs::fstat(fd).map_err(at("stat", path))?;
    if (stat.st_uid, stat.st_gid, stat.st_mode & 0o7777) == (uid.as_raw(), gid.as_raw(), entry.mode) {
        return dress_more(fd, entry, path);
    }
    dress(fd, entry, path)
}

/// Owner, then mode, since chown clears setuid; then attributes, since both clear capabilities; then the time.
fn dress(fd: BorrowedFd<'_>, entry: &Entry, path: &RelPath) -> Result<Vec<Skipped>> {
    let (uid, gid) = owner(entry, path)?;
    rustix::fs::fchown(fd, Some(uid), Some(gid)).map_err(at("chown", path))?;
    rustix::fs::fchmod(fd, Mode::from_raw_mode(entry.mode)).map_err(at("chmod", path))?;
    dress_more(fd, entry, path)
}

/// What comes after owner and mode.
fn dress_more(fd: BorrowedFd<'_>, entry: &Entry, path: &RelPath) -> Result<Vec<Skipped>> {
    let mut skipped = Vec::new();
    for (name, value) in &entry.xattrs {
        match rustix::fs::fsetxattr(fd, &name[..], value, XattrFlags::empty()) {
            Ok(()) => {}
            // More than the kernel takes, or than the file system has room for at one file, is said so, too.
            Err(
                Errno::PERM
                | Errno::ACCESS
                | Errno::OPNOTSUPP
                | Errno::INVAL
                | Errno::TOOBIG
                | Errno::RANGE
                | Errno::NOSPC,
            ) => {
                skipped.push(Skipped { path: path.clone(), lost: Lost::Xattr(name.clone()) });
            }
            Err(errno) => return Err(at("setxattr", path)(errno)),
        }
    }
    rustix::fs::futimens(fd, &times(entry.mtime)).map_err(at("set times of", path))?;
    Ok(skipped)
}

/// Like [`dress`], for what cannot be opened: links, devices and pipes. They carry no attributes that matter to a
/// container, and the kernel before 6.13 has no call that sets one without following a link.
fn dress_at(place: Place<'_>, entry: &Entry, chmod: bool) -> Result<Vec<Skipped>> {
    let Place { dir, name, path } = place;
    let (uid, gid) = owner(entry, path)?;
    rustix::fs::chownat(dir, name, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW).map_err(at("chown", path))?;
    if chmod {
        rustix::fs::chmodat(dir, name, Mode::from_raw_mode(entry.mode), AtFlags::empty()).map_err(at("chmod", path))?;
    }
    rustix::fs::utimensat(dir, name, &times(entry.mtime), AtFlags::SYMLINK_NOFOLLOW)
        .map_err(at("set times of", path))?;
    let lost = |name: &XattrName| Skipped { path: path.clone(), lost: Lost::Xattr(name.clone()) };
    Ok(entry.xattrs.keys().map(lost).collect())
}

/// The ids for chown. The kernel takes the highest one for "unchanged".
fn owner(entry: &Entry, path: &RelPath) -> Result<(Uid, Gid)> {
    if entry.uid == u32::MAX || entry.gid == u32::MAX {
        return Err(Error::Entry { name: path.to_string(), reason: "has an owner that no file can have" });
    }
    Ok((Uid::from_raw(entry.uid), Gid::from_raw(entry.gid)))
}

pub(crate) fn times(mtime: Timestamp) -> Timestamps {
    let time = Timespec { tv_sec: mtime.secs, tv_nsec: mtime.nanos.into() };
    Timestamps { last_access: time, last_modification: time }
}

/// Removes the attributes that `unwanted` picks.
pub(crate) fn strip(fd: BorrowedFd<'_>, unwanted: impl Fn(&[u8]) -> bool) -> Result<(), Errno> {
    for name in xattr_names(fd)? {
        if unwanted(&name) {
            match rustix::fs::fremovexattr(fd, &name[..]) {
                Ok(()) | Err(Errno::NODATA) => {}
                Err(errno) => return Err(errno),
            }
        }
    }
    Ok(())
}
