//! Directories that go away with the value that made them, and with the next run where a run was killed.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use rustix::fs::{FlockOperation, flock};
use rustix::mount::{UnmountFlags, unmount};
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use crate::cache;
use crate::error::{At, Result};

/// A fresh directory, on the same filesystem as the cache, which overlayfs and rename want, and open to every user,
/// since containers run as several.
pub(crate) fn directory() -> Result<TempDir> {
    directory_in(&cache::directory()?)
}

/// The same below `place`, which may be on a faster file system.
pub(crate) fn directory_in(place: &Path) -> Result<TempDir> {
    use std::os::unix::fs::PermissionsExt;
    let parent = of_this_process(place)?;
    let mode = fs::Permissions::from_mode(0o755);
    tempfile::Builder::new().permissions(mode).tempdir_in(&parent).at("make a directory in", &parent)
}

/// This process's own directory in `place`. A lock on the file beside it, held until the process ends however it ends, says that
/// it is in use.
fn of_this_process(place: &Path) -> Result<PathBuf> {
    static OWN: Mutex<BTreeMap<PathBuf, (PathBuf, File)>> = Mutex::new(BTreeMap::new());
    let mut own = OWN.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    if let Some((directory, _)) = own.get(place) {
        return Ok(directory.clone());
    }
    let parent = place.join("scratch");
    fs::create_dir_all(&parent).at("create", &parent)?;
    let _lock = cache::lock("scratch")?;
    sweep(&parent)?;
    // Process ids repeat, but a file of that name was swept just now or belongs to another namespace's process.
    let name = format!("{}-{}", std::process::id(), fs::read_dir(&parent).at("list", &parent)?.count());
    let (directory, file) = (parent.join(&name), parent.join(format!("{name}.lock")));
    let held = OpenOptions::new().create_new(true).write(true).open(&file).at("create", &file)?;
    flock(&held, FlockOperation::NonBlockingLockExclusive).at("lock", &file)?;
    fs::create_dir(&directory).at("create", &directory)?;
    own.insert(place.to_owned(), (directory.clone(), held));
    Ok(directory)
}

/// Removes what belongs to processes that are no more.
fn sweep(parent: &Path) -> Result<()> {
    for found in fs::read_dir(parent).at("list", parent)?.flatten() {
        let file = found.path();
        if file.extension().is_some_and(|extension| extension == "lock") {
            let held = File::open(&file).at("open", &file)?;
            if flock(&held, FlockOperation::NonBlockingLockExclusive).is_ok() {
                end(&file.with_extension(""))?;
                fs::remove_file(&file).at("remove", &file)?;
            }
        }
    }
    Ok(())
}

/// Ends the processes and the mounts of a killed run, then removes its directory.
fn end(directory: &Path) -> Result<()> {
    let Ok(left) = fs::read_dir(directory) else { return Ok(()) };
    for left in left.flatten() {
        let state = left.path().join("state");
        for container in fs::read_dir(&state).into_iter().flatten().flatten() {
            let words = ["--root".as_ref(), state.as_os_str(), "delete".as_ref(), "--force".as_ref()];
            crate::run("runc", words.into_iter().chain([container.file_name().as_os_str()]))?;
        }
        if left.path().join("merged").is_dir() {
            // Nothing is mounted there where the run was killed before it was, or after it no longer was.
            let _ = unmount(left.path().join("merged"), UnmountFlags::DETACH);
        }
    }
    for process in fs::read_dir("/proc").at("list", "/proc")?.flatten() {
        let pid = process.file_name().to_str().and_then(|name| name.parse().ok()).and_then(Pid::from_raw);
        let command = fs::read(process.path().join("cmdline")).unwrap_or_default();
        let prefix = format!("{}/", directory.display());
        if let Some(pid) = pid.filter(|_| String::from_utf8_lossy(&command).contains(&prefix)) {
            // It may have ended by itself since it was listed.
            let _ = kill_process(pid, Signal::KILL);
        }
    }
    fs::remove_dir_all(directory).at("remove", directory)
}
