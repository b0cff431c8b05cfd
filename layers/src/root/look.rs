//! Reading what a path is.

use std::collections::BTreeMap;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{AtFlags, FileType, Mode, OFlags, RawDir, Stat};
use rustix::io::Errno;

use super::{READ_DIRECTORY, Root, at};
use crate::entry::{XattrName, XattrValue};
use crate::{Entry, Kind, RelPath, Result, Timestamp};

/// What a path is, and which inode it names.
#[derive(Debug)]
pub(crate) struct Look {
    /// What a layer would say of it.
    pub(crate) entry: Entry,
    /// The device and number of the inode.
    pub(crate) inode: (u64, u64),
    /// How many names the inode has.
    pub(crate) links: u64,
}

impl Root {
    /// What `path` is, without following a link and without reading content: the digest of a file is unknown, and a hard
    /// link is a file. `None` when it is absent. A socket is absent too: it means nothing without the process that
    /// listens, and no layer can hold it.
    ///
    /// Attributes are those that belong to an image: `user.*`, `security.capability`, `trusted.*` and POSIX ACLs. What
    /// overlayfs keeps in attributes, and labels that the host's security modules give, are none.
    pub fn entry(&self, path: &RelPath) -> Result<Option<Entry>> {
        Ok(self.look(path)?.map(|look| look.entry))
    }

    /// Like [`Root::entry`], with the inode.
    pub(crate) fn look(&self, path: &RelPath) -> Result<Option<Look>> {
        let dir = match self.parent(path) {
            Ok(dir) => dir,
            Err(error) if is_absence(error.raw_os_error()) => return Ok(None),
            Err(error) => return Err(error),
        };
        look_at(dir.as_fd(), path.file_name().unwrap_or(b"."), path)
    }
}

fn is_absence(code: Option<i32>) -> bool {
    [Errno::NOENT, Errno::NOTDIR].iter().any(|errno| Some(errno.raw_os_error()) == code)
}

fn look_at(dir: BorrowedFd<'_>, name: &[u8], path: &RelPath) -> Result<Option<Look>> {
    let stat = match rustix::fs::statat(dir, name, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(stat) => stat,
        Err(Errno::NOENT) => return Ok(None),
        Err(errno) => return Err(at("stat", path)(errno)),
    };
    let (major, minor) = (rustix::fs::major(stat.st_rdev), rustix::fs::minor(stat.st_rdev));
    let kind = match FileType::from_raw_mode(stat.st_mode) {
        FileType::RegularFile => Kind::File { size: stat.st_size as u64, content: None },
        FileType::Directory => Kind::Directory,
        FileType::Symlink => {
            let target = rustix::fs::readlinkat(dir, name, Vec::new()).map_err(at("readlink", path))?;
            Kind::Symlink { target: target.into_bytes() }
        }
        FileType::CharacterDevice => Kind::CharDevice { major, minor },
        FileType::BlockDevice => Kind::BlockDevice { major, minor },
        FileType::Fifo => Kind::Fifo,
        FileType::Socket | FileType::Unknown => return Ok(None),
    };
    // The kernel lets only files and directories carry attributes of users, capabilities and default ACLs.
    let xattrs = match kind {
        Kind::File { .. } | Kind::Directory => {
            let fd = open_quietly(dir, name).map_err(at("open", path))?;
            xattrs(fd.as_fd()).map_err(at("listxattr", path))?
        }
        _ => BTreeMap::new(),
    };
    let entry =
        Entry { kind, mode: stat.st_mode & 0o7777, uid: stat.st_uid, gid: stat.st_gid, mtime: mtime(&stat), xattrs };
    #[expect(clippy::useless_conversion, reason = "the width of these fields differs between architectures")]
    let (dev, links) = (u64::from(stat.st_dev), u64::from(stat.st_nlink));
    Ok(Some(Look { entry, inode: (dev, stat.st_ino), links }))
}

fn mtime(stat: &Stat) -> Timestamp {
    Timestamp { secs: stat.st_mtime, nanos: stat.st_mtime_nsec as u32 }
}

/// Opens a file or directory for reading without a trace: only its owner may ask for O_NOATIME.
pub(crate) fn open_quietly(dir: BorrowedFd<'_>, name: &[u8]) -> Result<OwnedFd, Errno> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    match rustix::fs::openat(dir, name, flags | OFlags::NOATIME, Mode::empty()) {
        Err(Errno::PERM) => rustix::fs::openat(dir, name, flags, Mode::empty()),
        answer => answer,
    }
}

/// Whether an attribute belongs to the image, not to overlayfs or to a security module of the host.
pub(crate) fn is_kept(name: &[u8]) -> bool {
    let overlay = name.starts_with(b"user.overlay.") || name.starts_with(b"trusted.overlay.");
    let image = name.starts_with(b"user.")
        || name.starts_with(b"trusted.")
        || name == b"security.capability"
        || name == b"system.posix_acl_access"
        || name == b"system.posix_acl_default";
    image && !overlay
}

/// The attributes that belong to the image.
pub(super) fn xattrs(fd: BorrowedFd<'_>) -> Result<BTreeMap<XattrName, XattrValue>, Errno> {
    let mut found = BTreeMap::new();
    for name in xattr_names(fd)? {
        if is_kept(&name)
            && let Some(value) = value(fd, &name)?
        {
            found.insert(XattrName::from(name), XattrValue::from(value));
        }
    }
    Ok(found)
}

/// The names of all attributes. A file system without attributes has none.
pub(crate) fn xattr_names(fd: BorrowedFd<'_>) -> Result<Vec<Vec<u8>>, Errno> {
    let listed = growing(|| rustix::fs::flistxattr_query(fd), |buffer| rustix::fs::flistxattr(fd, buffer));
    match listed {
        Ok(list) => Ok(list.split(|&byte| byte == 0).filter(|name| !name.is_empty()).map(<[u8]>::to_vec).collect()),
        Err(Errno::OPNOTSUPP) => Ok(Vec::new()),
        Err(errno) => Err(errno),
    }
}

pub(crate) fn value(fd: BorrowedFd<'_>, name: &[u8]) -> Result<Option<Vec<u8>>, Errno> {
    let read = growing(|| rustix::fs::fgetxattr_query(fd, name), |buffer| rustix::fs::fgetxattr(fd, name, buffer));
    match read {
        Ok(value) => Ok(Some(value)),
        Err(Errno::NODATA | Errno::OPNOTSUPP) => Ok(None),
        Err(errno) => Err(errno),
    }
}

/// Asks for a size, then for as many bytes, and again while what is asked for grows in between.
fn growing(
    size: impl Fn() -> Result<usize, Errno>,
    fill: impl Fn(&mut [u8]) -> Result<usize, Errno>,
) -> Result<Vec<u8>, Errno> {
    loop {
        let mut buffer = vec![0; size()?];
        if buffer.is_empty() {
            return Ok(buffer);
        }
        match fill(&mut buffer) {
            Ok(length) => {
                buffer.truncate(length);
                return Ok(buffer);
            }
            Err(Errno::RANGE) => {}
            Err(errno) => return Err(errno),
        }
    }
}

/// The names in an open directory, in no order, without `.` and `..`.
pub(crate) fn names(dir: BorrowedFd<'_>) -> Result<Vec<Vec<u8>>, Errno> {
    let dir = rustix::fs::openat(dir, ".", READ_DIRECTORY, Mode::empty())?;
    let mut buffer = Vec::with_capacity(32 * 1024);
    let mut entries = RawDir::new(dir.as_fd(), buffer.spare_capacity_mut());
    let mut names = Vec::new();
    while let Some(entry) = entries.next() {
        let entry = entry?;
        let name = entry.file_name().to_bytes();
        if name != b"." && name != b".." {
            names.push(name.to_vec());
        }
    }
    Ok(names)
}
