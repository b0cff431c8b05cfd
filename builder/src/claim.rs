//! Directories that belong to running processes.
//!
//! Each is locked by whoever uses it, so that a later build can tell what a killed one left behind, and remove it. The lock
//! goes with an open descriptor: it lasts as long as the last process that has one, however that ends.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, Mode, OFlags, flock};

/// What the names of these directories begin with. Nobody else's do: they are removed where nobody holds them.
const PREFIX: &str = ".yadokari-";

/// A directory that is removed, with all that is in it, when this is dropped, or else by the next [`sweep`].
#[derive(Debug)]
pub(crate) struct Claim {
    path: PathBuf,
    held: File,
}

impl Claim {
    /// Makes a directory in `parent` whose name holds `kind`, and locks it.
    pub(crate) fn make(parent: &Path, kind: &str, mode: u32) -> io::Result<Self> {
        let prefix = format!("{PREFIX}{kind}-");
        loop {
            let permissions = fs::Permissions::from_mode(mode);
            let made = tempfile::Builder::new().prefix(&prefix).permissions(permissions).tempdir_in(parent)?;
            let path = made.keep();
            // Before it is locked, somebody who sweeps may have taken it for one of a killed build.
            match open(&path).and_then(|held| Ok(flock(&held, FlockOperation::LockExclusive).map(|()| held)?)) {
                Ok(held) if is(&path, &held) => return Ok(Self { path, held }),
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
    }

    /// The directory.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// The directory, open and locked. Whoever has a copy of this descriptor has the lock, too.
    pub(crate) fn held(&self) -> &File {
        &self.held
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        // What cannot be removed now is for the next build's sweep.
        let _ = yadokari_layers::remove_all(&self.path);
    }
}

/// Removes the directories in `parent` that nobody holds any more.
pub(crate) fn sweep(parent: &Path) {
    for entry in fs::read_dir(parent).into_iter().flatten().flatten() {
        let path = entry.path();
        let is_one = entry.file_name().to_string_lossy().starts_with(PREFIX);
        if is_one
            && let Ok(held) = open(&path)
            && flock(&held, FlockOperation::NonBlockingLockExclusive).is_ok()
        {
            // One that cannot be removed stays, which harms nobody but the disk.
            let _ = yadokari_layers::remove_all(&path);
        }
    }
}

fn open(path: &Path) -> io::Result<File> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    Ok(rustix::fs::open(path, flags, Mode::empty())?.into())
}

/// Whether `path` still leads to the directory that is `held`.
fn is(path: &Path, held: &File) -> bool {
    let of = |metadata: fs::Metadata| (metadata.dev(), metadata.ino());
    let there = fs::symlink_metadata(path).map(of);
    there.is_ok_and(|there| held.metadata().is_ok_and(|held| of(held) == there))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(directory: &Path) -> Vec<String> {
        let entries = fs::read_dir(directory).unwrap();
        let mut names: Vec<String> = entries.map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    #[test]
    fn what_nobody_holds_is_swept_away_and_nothing_else() {
        let parent = tempfile::tempdir().unwrap();
        let at = |name: &str| parent.path().join(name);
        let held = Claim::make(parent.path(), "build", 0o700).unwrap();
        fs::create_dir_all(at(".yadokari-build-killed/blobs")).unwrap();
        fs::create_dir(at("build-output")).unwrap();
        fs::write(at(".yadokari-file"), "").unwrap();
        fs::create_dir(at("elsewhere")).unwrap();
        std::os::unix::fs::symlink("elsewhere", at(".yadokari-link")).unwrap();
        sweep(parent.path());
        let own = held.path().file_name().unwrap().to_str().unwrap().to_owned();
        let mut left = vec![own.as_str(), ".yadokari-file", ".yadokari-link", "build-output", "elsewhere"];
        left.sort_unstable();
        assert_eq!(names(parent.path()), left);
    }

    #[test]
    fn a_directory_is_held_as_long_as_anybody_has_its_descriptor() {
        let parent = tempfile::tempdir().unwrap();
        let claim = Claim::make(parent.path(), "stage", 0o755).unwrap();
        let (path, of_a_worker) = (claim.path().to_owned(), claim.held().try_clone().unwrap());
        // As when a process is killed: nothing is removed.
        std::mem::forget(claim);
        sweep(parent.path());
        assert!(path.is_dir(), "its builder and its worker live");
        drop(of_a_worker);
        sweep(parent.path());
        assert!(path.is_dir(), "its builder lives");
    }

    #[test]
    fn a_directory_goes_with_its_claim() {
        let parent = tempfile::tempdir().unwrap();
        let claim = Claim::make(parent.path(), "build", 0o700).unwrap();
        fs::write(claim.path().join("blob"), "x").unwrap();
        assert_eq!(claim.path().metadata().unwrap().permissions().mode() & 0o777, 0o700);
        drop(claim);
        assert_eq!(names(parent.path()), [""; 0]);
    }
}
