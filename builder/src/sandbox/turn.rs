//! Whose turn it is to have `/`.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Duration;

use rustix::fs::FlockOperation;
use rustix::io::Errno;
use yadokari_registry::Surroundings;

use super::error::{During, Error, Result, Syscall};
use super::in_place;

/// How often someone who waits for a turn looks whether he is interrupted.
const TICK: Duration = Duration::from_millis(50);

/// Who has `/`: a command in place, alone, or those of the builder who need it as it was before the build.
#[derive(Debug, Clone, Default)]
pub struct Gate(Arc<Passage>);

#[derive(Debug, Default)]
struct Passage {
    inside: Mutex<Within>,
    given_back: Condvar,
}

/// Who is inside.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Within {
    Command,
    Builder(u32),
}

impl Default for Within {
    fn default() -> Self {
        Self::Builder(0)
    }
}

/// `/` as it was before the build, or for a command alone, until this is dropped.
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
        self.change(|within| match within {
            Within::Command => None,
            Within::Builder(count) => Some(Within::Builder(count + 1)),
        })
    }

    /// Waits no longer than a moment until nobody is inside, for a command.
    pub(crate) fn try_take(&self) -> Option<Inside<'_>> {
        self.change(|within| (within == Within::Builder(0)).then_some(Within::Command))
    }

    fn change(&self, to: impl Fn(Within) -> Option<Within>) -> Option<Inside<'_>> {
        let within = self.0.inside.lock().unwrap_or_else(PoisonError::into_inner);
        let waited = self.0.given_back.wait_timeout_while(within, TICK, |within| to(*within).is_none());
        let (mut within, _) = waited.unwrap_or_else(PoisonError::into_inner);
        *within = to(*within)?;
        Some(Inside(self))
    }
}

/// The client looks up names in files of `/`.
impl Surroundings for Gate {
    fn try_within(&self, look: &mut dyn FnMut()) -> bool {
        let inside = self.try_enter();
        inside.is_some().then(look).is_some()
    }
}

impl Drop for Inside<'_> {
    fn drop(&mut self) {
        let mut within = self.0.0.inside.lock().unwrap_or_else(PoisonError::into_inner);
        *within = match *within {
            Within::Command => Within::default(),
            Within::Builder(count) => Within::Builder(count.saturating_sub(1)),
        };
        self.0.0.given_back.notify_all();
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
            if let Some(inside) = self.gate.try_take() {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_is_alone_and_the_builder_is_not_kept_from_itself() {
        let gate = Gate::default();
        let (first, second) = (gate.enter(), gate.enter());
        assert!(gate.try_take().is_none());
        drop(first);
        assert!(gate.try_take().is_none());
        drop(second);
        let command = gate.try_take().unwrap();
        assert!(gate.try_enter().is_none() && gate.try_take().is_none());
        assert!(!gate.try_within(&mut || panic!("a command has the files")));
        drop(command);
        let mut looked = false;
        assert!(gate.try_within(&mut || looked = true) && looked);
        assert!(gate.try_take().is_some(), "who looked is gone");
    }
}
