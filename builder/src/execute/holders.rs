//! Blobs leave the disk as soon as nothing here needs them any more.

use std::collections::{HashMap, HashSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use yadokari_layers::{Digest, blob_path};

/// Knows who still needs the blobs of a directory, and removes the others.
///
/// A blob is removed only when it can be had from elsewhere: whoever reads one that was thought to be needed no more gets
/// it by fetching it again. So what this is told may be incomplete without harm, as long as whoever opens a blob holds it
/// while making sure that it is there.
#[derive(Debug)]
pub struct Holders {
    blobs: PathBuf,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// How many hold a blob right now.
    holds: HashMap<Digest, usize>,
    /// What steps are going to read.
    awaited: HashSet<Digest>,
    /// What can be had again from where it came or went.
    elsewhere: HashSet<Digest>,
    /// Whether nothing is removed at all.
    keeps_all: bool,
}

/// Keeps blobs from being removed until it is dropped. It does not say that they are there.
#[derive(Debug)]
#[must_use]
pub struct Hold {
    holders: Arc<Holders>,
    digests: Vec<Digest>,
}

impl Holders {
    /// Nobody needs anything of the directory `blobs` yet, and nothing can be had from elsewhere.
    pub(super) fn new(blobs: &Path) -> Self {
        Self { blobs: blobs.to_owned(), state: Mutex::default() }
    }

    /// Holds blobs, whether or not they are there yet.
    pub fn hold(self: &Arc<Self>, blobs: impl IntoIterator<Item = Digest>) -> Hold {
        let digests: Vec<Digest> = blobs.into_iter().collect();
        let mut state = self.lock();
        for digest in &digests {
            *state.holds.entry(*digest).or_default() += 1;
        }
        Hold { holders: Arc::clone(self), digests }
    }

    /// Takes note that a blob can be had from elsewhere from now on.
    pub fn is_elsewhere(&self, blob: &Digest) {
        let mut state = self.lock();
        state.elsewhere.insert(*blob);
        self.settle(&state, blob);
    }

    /// Takes note of all that steps are going to read, in the place of what was said before.
    pub(super) fn await_only(&self, blobs: HashSet<Digest>) {
        let mut state = self.lock();
        let before = std::mem::replace(&mut state.awaited, blobs);
        before.iter().for_each(|blob| self.settle(&state, blob));
    }

    /// Removes nothing any more: all of it is wanted in the end.
    pub fn keep_all(&self) {
        self.lock().keeps_all = true;
    }

    /// Removes a blob if it can be.
    fn settle(&self, state: &State, blob: &Digest) {
        let is_needed = state.keeps_all || state.holds.contains_key(blob) || state.awaited.contains(blob);
        if !is_needed && state.elsewhere.contains(blob) {
            // Mostly it is gone already. What cannot be removed takes its space until the build is over.
            _ = fs::remove_file(blob_path(&self.blobs, blob));
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        let mut state = self.holders.lock();
        for digest in &self.digests {
            match state.holds.get_mut(digest) {
                Some(holds) if *holds > 1 => *holds -= 1,
                _ => {
                    state.holds.remove(digest);
                    self.holders.settle(&state, digest);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Blobs {
        directory: tempfile::TempDir,
        holders: Arc<Holders>,
    }

    impl Blobs {
        fn new(names: &[&str]) -> Self {
            let directory = tempfile::tempdir().unwrap();
            let holders = Arc::new(Holders::new(directory.path()));
            for name in names {
                fs::write(blob_path(directory.path(), &Digest::of(name)), name).unwrap();
            }
            Self { directory, holders }
        }

        fn has(&self, name: &str) -> bool {
            blob_path(self.directory.path(), &Digest::of(name)).exists()
        }
    }

    #[test]
    fn a_blob_goes_when_nobody_needs_it_and_it_is_elsewhere_whatever_comes_last() {
        let [a, b, c] = ["a", "b", "c"].map(Digest::of);
        let blobs = Blobs::new(&["a", "b", "c", "d"]);
        let holders = &blobs.holders;
        holders.await_only([a, b].into());
        let (first, second) = (holders.hold([b, c]), holders.hold([c]));
        [a, b, c].iter().for_each(|blob| holders.is_elsewhere(blob));
        assert!(blobs.has("a") && blobs.has("b") && blobs.has("c"));
        drop(first);
        assert!(blobs.has("b") && blobs.has("c"), "one is awaited, the other held a second time");
        drop(second);
        assert!(!blobs.has("c"));
        holders.await_only([b].into());
        assert!(!blobs.has("a") && blobs.has("b"));
        holders.await_only(HashSet::new());
        assert!(!blobs.has("b") && blobs.has("d"), "what is nowhere else stays");
    }

    #[test]
    fn what_came_back_goes_again() {
        let blobs = Blobs::new(&["a"]);
        blobs.holders.is_elsewhere(&Digest::of("a"));
        assert!(!blobs.has("a"));
        let hold = blobs.holders.hold([Digest::of("a")]);
        fs::write(blob_path(blobs.directory.path(), &Digest::of("a")), "a").unwrap();
        assert!(blobs.has("a"));
        drop(hold);
        assert!(!blobs.has("a"));
    }

    #[test]
    fn whoever_wants_all_of_it_in_the_end_gets_it() {
        let blobs = Blobs::new(&["a"]);
        blobs.holders.keep_all();
        blobs.holders.is_elsewhere(&Digest::of("a"));
        drop(blobs.holders.hold([Digest::of("a")]));
        assert!(blobs.has("a"));
    }
}
