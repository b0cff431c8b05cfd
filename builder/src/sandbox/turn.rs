//! Whose turn it is to have `/`.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Condvar, Mutex, PoisonError};
use std::time::Duration;

use rustix::fs::FlockOperation;
use rustix::io::Errno;

use super::error::{During, Error, Result, Syscall};
use super::in_place;

/// How often someone who waits for a turn looks whether he is interrupted.
const TICK: Duration = Duration::from_millis(50);

/// The right to change `/`, which the stages of this build take in turns and no other build has meanwhile.
#[derive(Debug)]
pub(super) struct Turns {
    /// The directory that holds everything of the driver.
    pub(super) place: PathBuf,
    /// What stays in `/`.
    pub(super) pinned: Vec<PathBuf>,
    taken: Mutex<bool>,
    given_back: Condvar,
    _lock: File,
}

/// A turn, until it is dropped.
#[derive(Debug)]
pub(super) struct Turn<'a>(&'a Turns);

impl Turns {
    /// Locks `/` against other builds, and puts it back if one was killed.
    pub(super) fn new(place: &Path, pinned: Vec<PathBuf>) -> Result<Self> {
        std::fs::create_dir_all(place).on("mkdir", place.display())?;
        let path = place.join("lock");
        let mut options = File::options();
        let lock = options.create(true).truncate(false).write(true).open(&path).on("open", path.display())?;
        match rustix::fs::flock(&lock, FlockOperation::NonBlockingLockExclusive) {
            Err(Errno::WOULDBLOCK) => {
                return Err(Error::Foreign("another build in this container has '/'".to_owned()));
            }
            done => done.on("flock", path.display())?,
        }
        in_place::recover(place, &pinned)?;
        let (taken, given_back) = (Mutex::new(false), Condvar::new());
        Ok(Self { place: place.to_owned(), pinned, taken, given_back, _lock: lock })
    }

    /// Waits for a turn.
    pub(super) fn take(&self, interrupted: &AtomicBool) -> Result<Turn<'_>> {
        let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        while *taken {
            if interrupted.load(Ordering::SeqCst) {
                return Err(Error::Interrupted);
            }
            let waited = self.given_back.wait_timeout(taken, TICK).unwrap_or_else(PoisonError::into_inner);
            taken = waited.0;
        }
        *taken = true;
        Ok(Turn(self))
    }
}

impl Turn<'_> {
    /// Puts `/` back after a worker died.
    pub(super) fn recover(&self) -> Result<()> {
        in_place::recover(&self.0.place, &self.0.pinned).during("a worker died")
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        *self.0.taken.lock().unwrap_or_else(PoisonError::into_inner) = false;
        self.0.given_back.notify_one();
    }
}
