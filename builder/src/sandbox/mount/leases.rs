//! Which cache directories exist, and who uses them: the builder's side of caches, because waiting can be interrupted
//! there.
//!
//! ```text
//!  WORK/caches/IDS           one for each way in which ids are on disk; locked as long as somebody may use it
//!  WORK/caches/IDS/NAME/0    what most use
//!  WORK/caches/IDS/NAME/1    what a private user gets while another one has that
//! ```

use std::collections::BTreeMap;
use std::fs::File;
use std::io::ErrorKind;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use rustix::fs::FlockOperation;
use rustix::io::Errno;

use super::super::error::{During, Error, Result, Syscall};
use super::{Mount, MountKind, Sharing};

/// How often someone who waits for a cache looks whether it is free, or he is interrupted.
const TICK: Duration = Duration::from_millis(50);

/// The longest name of a cache.
const LONGEST: usize = 128;

/// The directory of caches. While this lives nobody removes it; afterwards it is removed if it is empty.
#[derive(Debug)]
pub(in crate::sandbox) struct Caches {
    path: PathBuf,
    owner: u32,
    lock: File,
}

/// The caches of one RUN, which keep others out until this is dropped.
#[derive(Debug, Default)]
pub(in crate::sandbox) struct Leases {
    /// For each mount, which directory its cache has.
    pub(in crate::sandbox) slots: Vec<Option<u32>>,
    _locks: Vec<File>,
}

impl Caches {
    /// Makes the directory, which belongs to `owner`.
    pub(in crate::sandbox) fn open(path: &Path, owner: u32) -> Result<Self> {
        let path = std::path::absolute(path).on("realpath", path.display())?;
        loop {
            let made = std::fs::create_dir_all(&path).and_then(|()| File::open(&path));
            let lock = match made {
                // Somebody removed it, or what it is in.
                Err(error) if error.kind() == ErrorKind::NotFound => continue,
                made => made.on("mkdir", path.display())?,
            };
            rustix::fs::flock(&lock, FlockOperation::LockShared).on("flock", path.display())?;
            let (ours, there) = (lock.metadata().on("stat", path.display())?, std::fs::metadata(&path));
            if there.is_ok_and(|there| (there.dev(), there.ino()) == (ours.dev(), ours.ino())) {
                std::os::unix::fs::fchown(&lock, Some(owner), Some(owner)).on("chown", path.display())?;
                return Ok(Self { path, owner, lock });
            }
        }
    }

    /// Where it is.
    pub(in crate::sandbox) fn path(&self) -> &Path {
        &self.path
    }

    /// Takes the caches that the mounts of a RUN need, and waits for those that others have.
    pub(in crate::sandbox) fn lease(&self, mounts: &[Mount], interrupted: &AtomicBool) -> Result<Leases> {
        // In the order of names, so that no two RUNs wait for each other. One that is mounted twice is taken once.
        let mut wanted: BTreeMap<&str, Sharing> = BTreeMap::new();
        for (target, name, sharing) in mounts.iter().filter_map(cache) {
            check(name).during(format!("the mount at '{target}'"))?;
            let strictest = wanted.entry(name).or_insert(sharing);
            if strictness(sharing) > strictness(*strictest) {
                *strictest = sharing;
            }
        }
        let mut leases = Leases::default();
        let mut taken = BTreeMap::new();
        for (name, sharing) in wanted {
            let (slot, lock) = self.take(name, sharing, interrupted)?;
            taken.insert(name, slot);
            leases._locks.push(lock);
        }
        let slot = |mount| cache(mount).and_then(|(_, name, _)| taken.get(name).copied());
        leases.slots = mounts.iter().map(slot).collect();
        Ok(leases)
    }

    fn take(&self, name: &str, sharing: Sharing, interrupted: &AtomicBool) -> Result<(u32, File)> {
        let cache = self.path.join(name);
        self.make(&cache)?;
        let mut slot = 0;
        loop {
            let path = cache.join(slot.to_string());
            self.make(&path)?;
            let lock = File::open(&path).on("open", path.display())?;
            let operation = match sharing {
                Sharing::Shared => FlockOperation::NonBlockingLockShared,
                Sharing::Private | Sharing::Locked => FlockOperation::NonBlockingLockExclusive,
            };
            match rustix::fs::flock(&lock, operation) {
                Ok(()) => return Ok((slot, lock)),
                Err(Errno::WOULDBLOCK) if sharing == Sharing::Private => slot += 1,
                Err(Errno::WOULDBLOCK | Errno::INTR) => std::thread::sleep(TICK),
                Err(error) => return Err(error).on("flock", path.display()),
            }
            if interrupted.load(Ordering::SeqCst) {
                return Err(Error::Interrupted);
            }
        }
    }

    /// Makes a directory whose owner is the worker, unless it is there.
    fn make(&self, path: &Path) -> Result<()> {
        match std::fs::create_dir(path) {
            Ok(()) => {}
            Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
            Err(error) => return Err(error).on("mkdir", path.display()),
        }
        std::os::unix::fs::lchown(path, Some(self.owner), Some(self.owner)).on("chown", path.display())
    }
}

impl Drop for Caches {
    fn drop(&mut self) {
        // Whoever has the same directory open still needs it; one that is not empty cannot be removed.
        if rustix::fs::flock(&self.lock, FlockOperation::NonBlockingLockExclusive).is_ok() {
            let removed = std::fs::remove_dir(&self.path).is_ok();
            self.path.parent().filter(|_| removed).map(std::fs::remove_dir);
        }
    }
}

fn cache(mount: &Mount) -> Option<(&str, &str, Sharing)> {
    match &mount.kind {
        MountKind::Cache { name, sharing, .. } => Some((&mount.target, name, *sharing)),
        _ => None,
    }
}

fn check(name: &str) -> Result<()> {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
    if !name.is_empty() && name.len() <= LONGEST && name.chars().all(is_plain) {
        return Ok(());
    }
    Err(Error::Refused(format!("'{}' is no name of a cache", name.escape_default())))
}

fn strictness(sharing: Sharing) -> u8 {
    match sharing {
        Sharing::Shared => 0,
        Sharing::Private => 1,
        Sharing::Locked => 2,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    static NEVER: AtomicBool = AtomicBool::new(false);

    fn mount(name: &str, sharing: Sharing) -> Mount {
        let (seed, mode, uid, gid, read_only) = (None, 0o755, 0, 0, false);
        let kind = MountKind::Cache { name: name.to_owned(), sharing, seed, mode, uid, gid, read_only };
        Mount { target: "/cache".to_owned(), kind }
    }

    fn caches(directory: &Path) -> Caches {
        Caches::open(&directory.join("caches/own"), rustix::process::getuid().as_raw()).unwrap()
    }

    #[test]
    fn a_private_cache_in_use_has_a_sibling_and_a_shared_one_has_none() {
        let directory = tempfile::tempdir().unwrap();
        let caches = caches(directory.path());
        let lease = |mounts: &[Mount]| caches.lease(mounts, &NEVER).unwrap();
        let first = lease(&[mount("a", Sharing::Private), mount("a", Sharing::Shared), mount("b", Sharing::Shared)]);
        assert_eq!(first.slots, [Some(0), Some(0), Some(0)]);
        assert_eq!(lease(&[mount("b", Sharing::Shared), mount("a", Sharing::Private)]).slots, [Some(0), Some(1)]);
        drop(first);
        assert_eq!(lease(&[mount("a", Sharing::Private)]).slots, [Some(0)]);
    }

    #[test]
    fn a_locked_cache_is_waited_for_and_the_wait_ends_by_an_interrupt() {
        let directory = tempfile::tempdir().unwrap();
        let caches = caches(directory.path());
        let first = caches.lease(&[mount("a", Sharing::Locked), mount("a", Sharing::Locked)], &NEVER).unwrap();
        let interrupted = AtomicBool::new(true);
        let waited = caches.lease(&[mount("a", Sharing::Locked)], &interrupted).unwrap_err();
        assert!(waited.to_string().ends_with("interrupted"), "{waited}");
        std::thread::scope(|scope| {
            let second = scope.spawn(|| caches.lease(&[mount("a", Sharing::Locked)], &NEVER).unwrap());
            std::thread::sleep(TICK);
            assert!(!second.is_finished());
            drop(first);
            assert_eq!(second.join().unwrap().slots, [Some(0)]);
        });
    }

    #[test]
    fn a_name_that_is_a_path_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let caches = caches(directory.path());
        for name in ["", ".", "..", "../x", "a/b", "/etc", "a\0", &"x".repeat(200)] {
            let error = caches.lease(&[mount(name, Sharing::Shared)], &NEVER).unwrap_err().to_string();
            assert!(error.contains("is no name of a cache") && error.contains("'/cache'"), "{error}");
        }
    }

    #[test]
    fn an_unused_directory_of_caches_is_removed_with_its_last_user() {
        let directory = tempfile::tempdir().unwrap();
        let (one, two) = (caches(directory.path()), caches(directory.path()));
        drop(one);
        assert!(directory.path().join("caches/own").exists());
        drop(two);
        assert!(!directory.path().join("caches").exists());
        let used = caches(directory.path());
        drop(used.lease(&[mount("a", Sharing::Shared)], &NEVER).unwrap());
        drop(used);
        assert!(directory.path().join("caches/own/a/0").exists());
    }
}
