//! Small work on directories by descriptor, which the in-place driver and the stubs share.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{AtFlags, Dir, FileType, Gid, Mode, OFlags, RenameFlags, Stat, Timespec, Timestamps, Uid};
use rustix::io::Errno;
use yadokari_layers::{Entry, Kind, RelPath, Root, Timestamp, follow_links};

use super::error::{Result, Syscall};

const DIRECTORY: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

/// The working directory, for names that are relative to the stage's directory.
pub(super) use rustix::fs::CWD as HERE;

/// Opens a directory; a symbolic link is none.
pub(super) fn open(dir: BorrowedFd<'_>, name: impl AsRef<[u8]>) -> Result<OwnedFd> {
    let name = name.as_ref();
    rustix::fs::openat(dir, name, DIRECTORY, Mode::empty()).on("open", quoted(name))
}

/// Opens a directory if there is one under this name.
pub(super) fn open_if_directory(dir: BorrowedFd<'_>, name: impl AsRef<[u8]>) -> Result<Option<OwnedFd>> {
    match open(dir, name) {
        Ok(fd) => Ok(Some(fd)),
        Err(error) if is_one_of(&error, &[Errno::NOENT, Errno::NOTDIR, Errno::LOOP]) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Makes a directory, or opens the one that is there.
pub(super) fn make(dir: BorrowedFd<'_>, name: impl AsRef<[u8]>) -> Result<OwnedFd> {
    let name = name.as_ref();
    match rustix::fs::mkdirat(dir, name, Mode::from_raw_mode(0o755)) {
        Ok(()) | Err(Errno::EXIST) => open(dir, name),
        Err(error) => Err(error).on("mkdir", quoted(name)),
    }
}

/// The names in a directory, which may be changed while the caller goes through them.
pub(super) fn names(dir: BorrowedFd<'_>) -> Result<Vec<Vec<u8>>> {
    let mut names = Vec::new();
    for entry in Dir::read_from(dir).on("open", "a directory for reading")? {
        let entry = entry.on("getdents", "a directory")?;
        match entry.file_name().to_bytes() {
            b"." | b".." => {}
            name => names.push(name.to_vec()),
        }
    }
    Ok(names)
}

/// What is under a name, if anything. Links are not followed.
pub(super) fn stat(dir: BorrowedFd<'_>, name: &[u8]) -> Result<Option<Stat>> {
    match rustix::fs::statat(dir, name, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(stat) => Ok(Some(stat)),
        Err(Errno::NOENT | Errno::NOTDIR) => Ok(None),
        Err(error) => Err(error).on("stat", quoted(name)),
    }
}

/// What an open directory is.
pub(super) fn stat_of(dir: BorrowedFd<'_>) -> Result<Stat> {
    rustix::fs::fstat(dir).on("stat", "a directory")
}

/// Gives a directory the owner, mode and times of another. The mode comes after the owner, whose change clears bits.
pub(super) fn copy_attributes(from: &Stat, to: BorrowedFd<'_>) -> Result<()> {
    let (uid, gid) = (Uid::from_raw(from.st_uid), Gid::from_raw(from.st_gid));
    rustix::fs::fchown(to, Some(uid), Some(gid)).on("chown", "a directory")?;
    rustix::fs::fchmod(to, Mode::from_raw_mode(from.st_mode & 0o7777)).on("chmod", "a directory")?;
    set_times(from, to)
}

/// Gives a directory the times of another.
pub(super) fn set_times(from: &Stat, to: BorrowedFd<'_>) -> Result<()> {
    let times = Timestamps {
        last_access: Timespec { tv_sec: from.st_atime, tv_nsec: from.st_atime_nsec as _ },
        last_modification: Timespec { tv_sec: from.st_mtime, tv_nsec: from.st_mtime_nsec as _ },
    };
    rustix::fs::futimens(to, &times).on("utimens", "a directory")
}

/// Moves an entry to another directory of the same file system under the same name. Nothing is ever replaced.
pub(super) fn rename(from: BorrowedFd<'_>, to: BorrowedFd<'_>, name: &[u8]) -> Result<()> {
    rustix::fs::renameat_with(from, name, to, name, RenameFlags::NOREPLACE).on("rename", quoted(name))
}

/// Like [`rename`], to another name.
pub(super) fn rename_as(from: BorrowedFd<'_>, name: &[u8], to: BorrowedFd<'_>, as_name: &[u8]) -> Result<()> {
    rustix::fs::renameat_with(from, name, to, as_name, RenameFlags::NOREPLACE)
        .on("rename", format!("{} to {}", quoted(name), quoted(as_name)))
}

/// Removes a name that is no directory, or whatever a directory holds and itself. What is absent is fine.
pub(super) fn discard(dir: BorrowedFd<'_>, name: &[u8]) -> Result<()> {
    if let Some(inside) = open_if_directory(dir, name)? {
        for child in names(inside.as_fd())? {
            discard(inside.as_fd(), &child)?;
        }
        return remove_directory(dir, name);
    }
    match rustix::fs::unlinkat(dir, name, AtFlags::empty()) {
        Err(Errno::NOENT) => Ok(()),
        done => done.on("unlink", quoted(name)),
    }
}

/// Gives what a name is, without following it, an owner and, unless it is a link, a mode.
pub(super) fn give(dir: BorrowedFd<'_>, name: &[u8], mode: u32, uid: u32, gid: u32) -> Result<()> {
    let (uid, gid) = (Uid::from_raw(uid), Gid::from_raw(gid));
    rustix::fs::chownat(dir, name, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW).on("chown", quoted(name))?;
    rustix::fs::chmodat(dir, name, Mode::from_raw_mode(mode & 0o7777), AtFlags::empty()).on("chmod", quoted(name))
}

/// Where `path` leads in a root when every symbolic link in it is followed, the last one too. What does not exist is kept
/// as it is written.
pub(super) fn real(root: &Root, path: &RelPath) -> Result<RelPath> {
    let link = |here: &RelPath| match root.entry(here) {
        Ok(Some(Entry { kind: Kind::Symlink { target }, .. })) => Some(target),
        _ => None,
    };
    Ok(follow_links(path, true, link)?)
}

/// Whether an open file is a directory.
pub(super) fn is_directory(fd: BorrowedFd<'_>) -> Result<bool> {
    let stat = rustix::fs::statat(fd, "", AtFlags::EMPTY_PATH).on("stat", "an open file")?;
    Ok(FileType::from_raw_mode(stat.st_mode) == FileType::Directory)
}

/// The path of a descriptor, for the system calls that take only paths.
pub(super) fn by_fd(fd: impl AsFd) -> String {
    format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&fd.as_fd()))
}

/// Removes an empty directory.
pub(super) fn remove_directory(dir: BorrowedFd<'_>, name: &[u8]) -> Result<()> {
    rustix::fs::unlinkat(dir, name, AtFlags::REMOVEDIR).on("rmdir", quoted(name))
}

/// Whether an error is one of these answers of the kernel.
pub(super) fn is_one_of(error: &super::Error, errnos: &[Errno]) -> bool {
    errnos.iter().any(|errno| error.raw_os_error() == Some(errno.raw_os_error()))
}

fn quoted(name: &[u8]) -> String {
    format!("'{}'", String::from_utf8_lossy(name))
}

/// What paths are at one moment, to find out at a later one whether anybody touched them.
#[derive(Debug, Default)]
pub(super) struct Watched(Vec<(RelPath, Option<Sighting>)>);

/// The fields that change when anything does; of the times, that of the last status change is enough.
type Sighting = (u64, u32, u32, u32, i64, i64, i64);

impl Watched {
    /// Looks at paths below a directory.
    pub(super) fn look(dir: BorrowedFd<'_>, paths: impl IntoIterator<Item = RelPath>) -> Result<Self> {
        let sighted = paths.into_iter().map(|path| Ok((path.clone(), sight(dir, &path)?)));
        Ok(Self(sighted.collect::<Result<_>>()?))
    }

    /// The newest time that was seen: a process that starts now must get later ones.
    pub(super) fn newest(&self) -> Timestamp {
        let times = self.0.iter().filter_map(|(_, sighting)| sighting.as_ref());
        let newest = times.map(|&(.., secs, nanos)| Timestamp { secs, nanos: nanos as u32 }).max();
        newest.unwrap_or_default()
    }

    /// Looks again: each path, and whether it is what it was.
    pub(super) fn again(self, dir: BorrowedFd<'_>) -> Result<Vec<(RelPath, bool)>> {
        let compared = self.0.into_iter().map(|(path, before)| {
            let same = before.is_some() && sight(dir, &path)? == before;
            Ok((path, same))
        });
        compared.collect()
    }
}

fn sight(dir: BorrowedFd<'_>, path: &RelPath) -> Result<Option<Sighting>> {
    let stat = stat(dir.as_fd(), path.as_path().as_os_str().as_encoded_bytes())?;
    Ok(stat.map(|stat| {
        let ctime = (stat.st_ctime, stat.st_ctime_nsec as i64);
        (stat.st_ino, stat.st_mode, stat.st_uid, stat.st_gid, stat.st_size, ctime.0, ctime.1)
    }))
}
