//! The content of cache directories. Which directory a RUN gets is the builder's business, see `leases`.
//!
//! ```text
//!  NAME/SLOT/data    the cache; away while a RUN in place has it
//!  NAME/SLOT/new     one that is being made
//!  NAME/SLOT/old     the one before, while a copy takes its place
//! ```

use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::fs::{FlockOperation, Gid, Mode, OFlags, Uid};
use yadokari_layers::Root;

use super::super::copy::copy;
use super::super::error::{Result, Syscall};
use super::super::files;

/// The name of the cache in its slot.
pub(in crate::sandbox) const DATA: &[u8] = b"data";
const NEW: &[u8] = b"new";
const OLD: &[u8] = b"old";
/// Locked by whoever makes or replaces the cache: those who share it may come at the same time.
const LOCK: &str = "lock";

/// What a cache is when it is first made.
#[derive(Debug)]
pub(in crate::sandbox) struct First {
    /// What it holds.
    pub(in crate::sandbox) seed: Option<Root>,
    /// Its mode.
    pub(in crate::sandbox) mode: u32,
    /// Its owner.
    pub(in crate::sandbox) uid: u32,
    /// Its group.
    pub(in crate::sandbox) gid: u32,
}

/// Opens a slot.
pub(in crate::sandbox) fn open(slot: &Path) -> Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    rustix::fs::open(slot, flags, Mode::empty()).on("open", slot.display())
}

/// Makes the cache of a slot unless it is there.
pub(in crate::sandbox) fn fill(slot: &Path, first: First) -> Result<()> {
    let slot = open(slot)?;
    let _lock = lock(slot.as_fd())?;
    tidy(slot.as_fd())?;
    if files::stat(slot.as_fd(), DATA)?.is_some() {
        return Ok(());
    }
    let fresh = files::make(slot.as_fd(), NEW)?;
    if let Some(seed) = first.seed {
        copy(&seed, &Root::from_dir(fresh.try_clone().on("fcntl", "the cache")?))?;
    }
    let (uid, gid) = (Uid::from_raw(first.uid), Gid::from_raw(first.gid));
    rustix::fs::fchown(&fresh, Some(uid), Some(gid)).on("chown", format!("{}:{}", first.uid, first.gid))?;
    rustix::fs::fchmod(&fresh, Mode::from_raw_mode(first.mode & 0o7777)).on("chmod", format!("{:o}", first.mode))?;
    files::rename_as(slot.as_fd(), NEW, slot.as_fd(), DATA)
}

/// Replaces the cache of a slot by a copy of a directory. Whatever happens, the cache is the old one or the new one.
pub(in crate::sandbox) fn replace(slot: BorrowedFd<'_>, content: OwnedFd) -> Result<()> {
    let _lock = lock(slot)?;
    tidy(slot)?;
    let fresh = files::make(slot, NEW)?;
    copy(&Root::from_dir(content), &Root::from_dir(fresh))?;
    if files::stat(slot, DATA)?.is_some() {
        files::rename_as(slot, DATA, slot, OLD)?;
    }
    files::rename_as(slot, NEW, slot, DATA)?;
    files::discard(slot, OLD)
}

/// Forgets the cache of a slot, because a RUN removed it. The next one gets a new one.
pub(in crate::sandbox) fn remove(slot: BorrowedFd<'_>) -> Result<()> {
    let _lock = lock(slot)?;
    files::discard(slot, OLD)?;
    files::discard(slot, DATA)
}

/// Ends what somebody who was killed had begun.
fn tidy(slot: BorrowedFd<'_>) -> Result<()> {
    if files::stat(slot, DATA)?.is_none() && files::stat(slot, OLD)?.is_some() {
        files::rename_as(slot, OLD, slot, DATA)?;
    }
    files::discard(slot, NEW)?;
    files::discard(slot, OLD)
}

fn lock(slot: BorrowedFd<'_>) -> Result<File> {
    let flags = OFlags::RDWR | OFlags::CREATE | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let lock = rustix::fs::openat(slot, LOCK, flags, Mode::from_raw_mode(0o600)).on("open", LOCK)?;
    rustix::fs::flock(&lock, FlockOperation::LockExclusive).on("flock", LOCK)?;
    Ok(lock.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn first(mode: u32) -> First {
        let (uid, gid) = (rustix::process::getuid().as_raw(), rustix::process::getgid().as_raw());
        First { seed: None, mode, uid, gid }
    }

    #[test]
    fn a_cache_is_made_once_and_survives_whoever_is_killed() {
        let slot = tempfile::tempdir().unwrap();
        let data = slot.path().join("data");
        fill(slot.path(), first(0o700)).unwrap();
        std::fs::write(data.join("kept"), "x").unwrap();
        fill(slot.path(), first(0o755)).unwrap();
        let mode = std::os::unix::fs::PermissionsExt::mode(&data.metadata().unwrap().permissions());
        assert_eq!(mode & 0o7777, 0o700);
        // Killed between the two renames of a replacement, and while one was copied.
        std::fs::rename(&data, slot.path().join("old")).unwrap();
        std::fs::create_dir(slot.path().join("new")).unwrap();
        fill(slot.path(), first(0o755)).unwrap();
        assert!(data.join("kept").exists() && !slot.path().join("new").exists());
    }

    #[test]
    fn a_copy_takes_its_place() {
        let (slot, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        fill(slot.path(), first(0o755)).unwrap();
        std::fs::write(slot.path().join("data/gone"), "").unwrap();
        std::fs::write(other.path().join("come"), "").unwrap();
        replace(open(slot.path()).unwrap().as_fd(), open(other.path()).unwrap()).unwrap();
        assert!(slot.path().join("data/come").exists() && !slot.path().join("data/gone").exists());
        assert!(!slot.path().join("old").exists());
    }
}
