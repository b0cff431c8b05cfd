//! Whose turn it is to have `/`.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Duration;

use rustix::fs::FlockOperation;
use rustix::io::Errno;

use super::error::{During, Error, Result, Syscall};
use super::in_place;

/// How often someone who waits for a turn looks whether he is interrupted.
const TICK: Duration = Duration::from_millis(50);

/// Who has `/`: a command in place, or somebody of the builder who needs it as it was before the build. One at a time.
#[derive(Debug, Clone, Default)]
pub struct Gate(Arc<Passage>);

#[derive(Debug, Default)]
struct Passage {
    taken: Mutex<bool>,
    given_back: Condvar,
}

/// `/` as it was before the build, until this is dropped.
#[derive(Debug)]
pub struct Inside<'a>(&'a Gate);

impl Gate {
    /// Waits until no command runs in place, and keeps others from beginning.
    pub fn enter(&self) -> Inside<'_> {
        loop {
            if let Some(inside) = self.try_enter() {
                return inside;
            }
        }
    }

    /// The same, for no longer than a moment.
    fn try_enter(&self) -> Option<Inside<'_>> {
        let taken = self.0.taken.lock().unwrap_or_else(PoisonError::into_inner);
        let waited = self.0.given_back.wait_timeout_while(taken, TICK, |taken| *taken);
        let (mut taken, _) = waited.unwrap_or_else(PoisonError::into_inner);
        if *taken {
            return None;
        }
        *taken = true;
        Some(Inside(self))
    }
}

impl Drop for Inside<'_> {
    fn drop(&mut self) {
        *self.0.0.taken.lock().unwrap_or_else(PoisonError::into_inner) = false;
        self.0.0.given_back.notify_one();
    }
}

/// The right to change `/`, which the stages of this build take in turns and no other build has meanwhile.
#[derive(Debug)]
pub(super) struct Turns {
    /// The directory that holds everything of the driver.
    pub(super) place: PathBuf,
    /// What stays in `/`.
    pub(super) pinned: Vec<PathBuf>,
    gate: Gate,
    _lock: File,
}

/// A turn, until it is dropped.
#[derive(Debug)]
pub(super) struct Turn<'a> {
    turns: &'a Turns,
    _inside: Inside<'a>,
}

impl Turns {
    /// Locks `/` against other builds, and puts it back if one was killed.
    pub(super) fn new(place: &Path, pinned: Vec<PathBuf>, gate: Gate) -> Result<Self> {
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
        Ok(Self { place: place.to_owned(), pinned, gate, _lock: lock })
    }

    /// Waits for a turn.
    pub(super) fn take(&self, interrupted: &AtomicBool) -> Result<Turn<'_>> {
        loop {
            if interrupted.load(Ordering::SeqCst) {
                return Err(Error::Interrupted);
            }
            if let Some(inside) = self.gate.try_enter() {
                return Ok(Turn { turns: self, _inside: inside });
            }
        }
    }
}

impl Turn<'_> {
    /// Puts `/` back after a worker died.
    pub(super) fn recover(&self) -> Result<()> {
        in_place::recover(&self.turns.place, &self.turns.pinned).during("a worker died")
    }
}
