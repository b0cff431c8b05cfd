//! Whose turn it is to have `/`.

use std::ffi::OsStr;
use std::fs::File;
use std::io::Read;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

use rustix::fs::FlockOperation;
use rustix::io::Errno;
use yadokari_registry::Surroundings;

use super::error::{During, Error, Result, Syscall};
use super::in_place;

/// How often someone who waits for a turn looks whether he is interrupted.
const TICK: Duration = Duration::from_millis(50);

/// How long the workers of a killed build may take to put `/` back: a RUN has ten seconds to end by itself.
const PATIENCE: Duration = Duration::from_secs(90);

/// The file that is locked. It holds the paths that stay in `/`, with a zero between them.
const LOCK: &str = "lock";

/// The most of that file that is read.
const MOST_PINNED: u64 = 1 << 20;

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
    /// Held by this process alone: it says that the builder lives.
    _builder: File,
    /// Held by the workers, too.
    lock: File,
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
        let Some(builder) = announced(place)? else {
            return Err(Error::Foreign("another build in this container has '/'".to_owned()));
        };
        let mut options = File::options();
        let path = place.join(LOCK);
        let lock = options.create(true).truncate(false).read(true).write(true).open(&path);
        let lock = lock.on("open", path.display())?;
        wait_for(&lock, &path)?;
        in_place::recover(place, &left_pinned(&lock).unwrap_or_else(|| pinned.clone()))?;
        let names: Vec<&[u8]> = pinned.iter().map(|path| path.as_os_str().as_bytes()).collect();
        lock.set_len(0).and_then(|()| lock.write_all_at(&names.join(&0), 0)).on("write", path.display())?;
        Ok(Self { place: place.to_owned(), pinned, gate, _builder: builder, lock })
    }

    /// The lock on `/`, which whoever changes it has to have.
    pub(super) fn lock(&self) -> BorrowedFd<'_> {
        self.lock.as_fd()
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

/// Waits until a build that was killed has put `/` back, and does so itself where nobody is left who would. What is read from `/`
/// before that may be an image's. `places` are the work directory and the home.
pub fn settle(places: [&Path; 2]) -> Result<()> {
    for place in places {
        let path = place.join(LOCK);
        // Where no build ever was in place, or we may not look, there is nothing to wait for.
        let Ok(lock) = File::open(&path) else { continue };
        // A build that lives keeps `/` in order for as long as it likes.
        if let Some(_builder) = announced(place)? {
            wait_for(&lock, &path)?;
            if let Some(pinned) = left_pinned(&lock) {
                in_place::recover(place, &pinned)?;
            }
        }
    }
    Ok(())
}

/// Says that a builder lives that has `/`, unless there is another one.
fn announced(place: &Path) -> Result<Option<File>> {
    let builder = File::open(place).on("open", place.display())?;
    Ok(try_lock(&builder, place)?.then_some(builder))
}

/// Takes the lock that lasts as long as a builder and its workers. Where there is no builder, they are putting `/` back.
fn wait_for(lock: &File, path: &Path) -> Result<()> {
    let since = Instant::now();
    while !try_lock(lock, path)? {
        if since.elapsed() > PATIENCE {
            let late = Err(Error::Timeout(PATIENCE.as_secs()));
            return late.during("waiting for a build that was killed to put '/' back");
        }
        std::thread::sleep(TICK);
    }
    Ok(())
}

/// What had to stay in `/` for the last build: whatever else is there while its image is in `/` belongs to that.
fn left_pinned(lock: &File) -> Option<Vec<PathBuf>> {
    let mut text = Vec::new();
    lock.take(MOST_PINNED).read_to_end(&mut text).ok().filter(|&length| length > 0)?;
    Some(text.split(|&byte| byte == 0).map(|path| PathBuf::from(OsStr::from_bytes(path))).collect())
}

/// Takes the lock, if nobody has it.
fn try_lock(file: &File, path: &Path) -> Result<bool> {
    match rustix::fs::flock(file, FlockOperation::NonBlockingLockExclusive) {
        Err(Errno::WOULDBLOCK) => Ok(false),
        done => done.map(|()| true).on("flock", path.display()),
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
    fn what_has_to_stay_is_that_of_the_last_build() {
        let directory = tempfile::tempdir().unwrap();
        for pinned in [vec!["/kaniko", "/workspace", "/a longer path than before"], vec!["/kaniko"], vec!["/a", "/b"]] {
            let pinned: Vec<PathBuf> = pinned.into_iter().map(PathBuf::from).collect();
            drop(Turns::new(directory.path(), pinned.clone(), Gate::default()).unwrap());
            assert_eq!(left_pinned(&File::open(directory.path().join(LOCK)).unwrap()), Some(pinned));
        }
    }

    #[test]
    fn a_build_that_lives_is_not_waited_for() {
        let directory = tempfile::tempdir().unwrap();
        settle([directory.path(), &directory.path().join("absent")]).unwrap();
        let turns = Turns::new(directory.path(), vec!["/kaniko".into()], Gate::default()).unwrap();
        settle([directory.path(), directory.path()]).unwrap();
        let second = Turns::new(directory.path(), Vec::new(), Gate::default());
        assert!(matches!(second, Err(Error::Foreign(text)) if text.contains("another build")));
        drop(turns);
        Turns::new(directory.path(), Vec::new(), Gate::default()).unwrap();
    }

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
