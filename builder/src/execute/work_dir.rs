//! The directory of one build.

use std::fs;
use std::path::{Path, PathBuf};

/// A build's own directory below the work directory. It is gone, with all it held, when this is dropped.
#[derive(Debug)]
pub struct WorkDir {
    directory: tempfile::TempDir,
    blobs: PathBuf,
}

impl WorkDir {
    /// Makes a directory below `parent`, which is made where it is missing.
    pub fn create(parent: &Path) -> Result<Self, crate::Error> {
        let failed =
            |source| crate::Error::Host { operation: "make the work directory", path: parent.to_owned(), source };
        fs::create_dir_all(parent).map_err(failed)?;
        let directory = tempfile::Builder::new().prefix("build-").tempdir_in(parent).map_err(failed)?;
        let blobs = directory.path().join("blobs");
        fs::create_dir(&blobs).map_err(failed)?;
        Ok(Self { directory, blobs })
    }

    /// The directory itself.
    pub fn path(&self) -> &Path {
        self.directory.path()
    }

    /// Where blobs are kept, under their digests.
    pub fn blobs(&self) -> &Path {
        &self.blobs
    }
}
