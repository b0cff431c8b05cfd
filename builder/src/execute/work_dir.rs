//! The directory of one build.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use super::Holders;
use crate::claim::{self, Claim};
use crate::sandbox::Worker;

/// A build's own directory below the work directory. It is gone, with all it held, when this is dropped.
#[derive(Debug)]
pub struct WorkDir {
    directory: Claim,
    blobs: PathBuf,
    holders: Arc<Holders>,
    downloads: PathBuf,
    retired: Mutex<Vec<JoinHandle<()>>>,
}

impl WorkDir {
    /// Makes a directory below `parent`, which is made where it is missing. What a killed build left there is removed.
    pub fn create(parent: &Path) -> Result<Self, crate::Error> {
        let failed =
            |source| crate::Error::Host { operation: "make the work directory", path: parent.to_owned(), source };
        fs::create_dir_all(parent).map_err(failed)?;
        claim::sweep(parent);
        let directory = Claim::make(parent, "build", 0o700).map_err(failed)?;
        let blobs = directory.path().join("blobs");
        let downloads = directory.path().join("downloads");
        [&blobs, &downloads].into_iter().try_for_each(fs::create_dir).map_err(failed)?;
        let holders = Arc::new(Holders::new(&blobs));
        Ok(Self { directory, blobs, holders, downloads, retired: Mutex::default() })
    }

    /// The directory itself.
    pub fn path(&self) -> &Path {
        self.directory.path()
    }

    /// Where blobs are kept, under their digests.
    pub fn blobs(&self) -> &Path {
        &self.blobs
    }

    /// Who needs them.
    pub fn holders(&self) -> &Arc<Holders> {
        &self.holders
    }

    /// Where files and repositories are put that come from elsewhere.
    pub fn downloads(&self) -> &Path {
        &self.downloads
    }

    /// Lets a worker go whose stage is finished. Its root file system is removed meanwhile, and is gone when this is
    /// dropped: removing many files takes longer than the next steps should have to wait.
    pub(super) fn retire(&self, worker: Worker) {
        let removal = std::thread::spawn(move || drop(worker));
        self.retired.lock().unwrap_or_else(PoisonError::into_inner).push(removal);
    }
}

impl Drop for WorkDir {
    fn drop(&mut self) {
        for removal in self.retired.get_mut().unwrap_or_else(PoisonError::into_inner).drain(..) {
            // A panic there was reported by its own thread.
            _ = removal.join();
        }
        // A context that was fetched may be deeper than what would else remove it can go.
        _ = yadokari_layers::remove_all(self.directory.path());
    }
}
