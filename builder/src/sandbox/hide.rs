//! Credential files that are ours, out of sight while a RUN runs in place.
//!
//! Meanwhile they are in a file in memory that no path leads to. The builder and the worker of that RUN have a descriptor of it,
//! which a RUN cannot reach: each puts the files back where the other one was killed.

use std::fs::{self, File, Permissions};
use std::io::{self, ErrorKind, Read, Seek, SeekFrom};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use rustix::fs::MemfdFlags;
use serde::{Deserialize, Serialize};
use yadokari_layers::remove_all;

use super::error::{During, Result, Syscall};

/// Copies of files that are to be gone for a while.
#[derive(Debug)]
pub(super) struct Hidden {
    files: Vec<HiddenFile>,
    /// Their contents, one after the other.
    contents: File,
}

/// What a file is, but for its content.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct HiddenFile {
    path: PathBuf,
    /// The process that hid it.
    by: u32,
    /// Where its content begins.
    at: u64,
    length: u64,
    mode: u32,
    owner: (u32, u32),
    modified: Option<SystemTime>,
}

impl Hidden {
    /// Copies the files, and warns of those that cannot be read. Files that do not exist need no hiding.
    pub(super) fn copy(paths: &[PathBuf]) -> Result<(Self, Vec<String>)> {
        let contents = rustix::fs::memfd_create("yadokari-hidden", MemfdFlags::CLOEXEC).on("memfd_create", "hidden")?;
        let mut hidden = Self { files: Vec::new(), contents: contents.into() };
        let mut warnings = Vec::new();
        for path in paths {
            match hidden.copy_one(path) {
                Ok(file) => hidden.files.extend(file),
                Err(error) => warnings.push(is_seen(path, &error)),
            }
        }
        Ok((hidden, warnings))
    }

    /// What somebody else has copied.
    pub(super) fn received(files: Vec<HiddenFile>, contents: OwnedFd) -> Self {
        Self { files, contents: contents.into() }
    }

    /// What [`Hidden::received`] takes.
    pub(super) fn parts(&self) -> (&[HiddenFile], &File) {
        (&self.files, &self.contents)
    }

    /// Removes the files, and warns of those that cannot be removed.
    pub(super) fn remove(&self) -> Vec<String> {
        // A file mounted into the container is EBUSY, one on a read-only file system EROFS.
        let removed = self.files.iter().map(|file| (file, fs::remove_file(&file.path)));
        removed.filter_map(|(file, removed)| Some(is_seen(&file.path, &removed.err()?))).collect()
    }

    /// Puts the files back as they were, whatever a RUN left in their place.
    pub(super) fn reveal(&self) -> Result<()> {
        let results: Vec<Result<()>> = self.files.iter().map(|file| self.put(file)).collect();
        results.into_iter().collect::<Result<()>>().during("writing back a credential file")
    }

    fn copy_one(&mut self, path: &Path) -> io::Result<Option<HiddenFile>> {
        let mut file = match File::open(path) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            opened => opened?,
        };
        let metadata = file.metadata()?;
        let owner = (metadata.uid(), metadata.gid());
        let (mode, modified) = (metadata.mode() & 0o7777, metadata.modified().ok());
        // Through a symbolic link, it is the file that has to go.
        let path = path.canonicalize()?;
        let at = self.contents.seek(SeekFrom::End(0))?;
        let length = io::copy(&mut file, &mut self.contents)?;
        Ok(Some(HiddenFile { path, by: std::process::id(), at, length, mode, owner, modified }))
    }

    /// Writes a file beside its place, and moves it there in one step, so that there is one at any time: builder and worker may
    /// do so at once, and either may be killed meanwhile.
    fn put(&self, file: &HiddenFile) -> Result<()> {
        let HiddenFile { path, by, mode, owner, modified, .. } = file;
        let name = path.display();
        make_room(path).on("unlink", &name)?;
        let beside = beside(path, std::process::id());
        let made = match self.write(file, &beside) {
            // What cannot be replaced could not be removed either, and has been there all the time.
            Err(error) if error.kind() == ErrorKind::ReadOnlyFilesystem => return Ok(()),
            made => made.on("write", beside.display())?,
        };
        std::os::unix::fs::fchown(&made, Some(owner.0), Some(owner.1)).on("chown", &name)?;
        made.set_permissions(Permissions::from_mode(*mode)).on("chmod", &name)?;
        modified.map_or(Ok(()), |modified| made.set_modified(modified)).on("utimens", &name)?;
        let moved = match fs::rename(&beside, path) {
            // A file mounted into the container.
            Err(error) if error.kind() == ErrorKind::ResourceBusy => fs::remove_file(&beside),
            // A worker took it away when it had done the same.
            Err(error) if error.kind() == ErrorKind::NotFound && path.exists() => Ok(()),
            moved => moved,
        };
        moved.on("rename", &name)?;
        if *by != std::process::id() {
            // The builder may have been killed just before its own last step.
            _ = fs::remove_file(self::beside(path, *by));
        }
        Ok(())
    }

    fn write(&self, file: &HiddenFile, to: &Path) -> io::Result<File> {
        clear(to)?;
        let mut made = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(to)?;
        // A descriptor that is shared has one position; opened anew it has its own.
        let mut contents = self.reopened()?;
        contents.seek(SeekFrom::Start(file.at))?;
        io::copy(&mut contents.take(file.length), &mut made)?;
        Ok(made)
    }

    fn reopened(&self) -> io::Result<File> {
        File::open(format!("/proc/self/fd/{}", self.contents.as_raw_fd()))
    }
}

fn is_seen(path: &Path, error: &io::Error) -> String {
    format!("a RUN of root can read '{}': {error}", path.display())
}

/// Where a process writes what is to be moved to `path`.
fn beside(path: &Path, process: u32) -> PathBuf {
    path.with_file_name(format!(".yadokari-{process}"))
}

/// Makes the directory above `path`, which a RUN may have removed, and removes a directory that one left there: what else it
/// left can be replaced. No RUN is left by now.
fn make_room(path: &Path) -> io::Result<()> {
    if fs::symlink_metadata(path).is_ok_and(|metadata| metadata.is_dir()) {
        clear(path)?;
    }
    path.parent().map_or(Ok(()), fs::create_dir_all)
}

/// Removes whatever is at `path`, however deep it is.
fn clear(path: &Path) -> io::Result<()> {
    match remove_all(path) {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A directory with a file in it, hidden.
    fn hidden() -> (tempfile::TempDir, PathBuf, Hidden) {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("config.json");
        fs::write(&path, "secret").unwrap();
        fs::set_permissions(&path, Permissions::from_mode(0o640)).unwrap();
        let second = directory.path().join("token");
        fs::write(&second, "another").unwrap();
        let (hidden, warnings) = Hidden::copy(&[path.clone(), directory.path().join("absent"), second]).unwrap();
        assert!(warnings.is_empty() && hidden.remove().is_empty() && !path.exists());
        assert!(!format!("{hidden:?}").contains("secret"));
        (directory, path, hidden)
    }

    #[test]
    fn files_come_back_as_they_were() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("config.json");
        fs::write(&path, "secret").unwrap();
        fs::set_permissions(&path, Permissions::from_mode(0o640)).unwrap();
        let before = fs::metadata(&path).unwrap();
        let (hidden, _) = Hidden::copy(std::slice::from_ref(&path)).unwrap();
        hidden.remove();
        hidden.reveal().unwrap();
        let after = fs::metadata(&path).unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"secret");
        assert_eq!((after.mode(), after.modified().unwrap()), (before.mode(), before.modified().unwrap()));
    }

    #[test]
    fn files_come_back_whatever_is_in_their_place() {
        let (directory, path, hidden) = hidden();
        let is_back = || {
            hidden.reveal().unwrap();
            assert_eq!(fs::read(&path).unwrap(), b"secret");
            assert_eq!(fs::read(directory.path().join("token")).unwrap(), b"another");
            assert_eq!(fs::read_dir(directory.path()).unwrap().filter(|entry| entry.is_ok()).count(), 2);
        };
        std::os::unix::fs::symlink("token", &path).unwrap();
        is_back();
        fs::remove_file(&path).unwrap();
        fs::create_dir_all(path.join("below")).unwrap();
        is_back();
        fs::remove_dir_all(directory.path()).unwrap();
        is_back();
        // Whoever else was told to has done so already.
        is_back();
    }

    #[test]
    fn there_is_a_file_at_any_time_while_it_is_put_back_again() {
        let (_directory, path, hidden) = hidden();
        hidden.reveal().unwrap();
        let is_over = std::sync::atomic::AtomicBool::new(false);
        std::thread::scope(|scope| {
            let watcher = scope.spawn(|| {
                while !is_over.load(std::sync::atomic::Ordering::Relaxed) {
                    assert_eq!(fs::read(&path).unwrap(), b"secret");
                }
            });
            (0..200).for_each(|_| hidden.reveal().unwrap());
            is_over.store(true, std::sync::atomic::Ordering::Relaxed);
            watcher.join().unwrap();
        });
    }

    #[test]
    fn what_a_killed_builder_left_beside_a_file_is_taken_away() {
        let (directory, path, mut hidden) = hidden();
        let half = beside(&path, u32::MAX);
        fs::write(&half, "secr").unwrap();
        hidden.files.iter_mut().for_each(|file| file.by = u32::MAX);
        hidden.reveal().unwrap();
        assert!(path.exists() && !half.exists());
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 2);
    }

    #[test]
    fn another_process_can_put_files_back() {
        let (_directory, path, hidden) = hidden();
        let (files, contents) = hidden.parts();
        let message = postcard::to_stdvec(files).unwrap();
        let received = Hidden::received(postcard::from_bytes(&message).unwrap(), contents.try_clone().unwrap().into());
        drop(hidden);
        received.reveal().unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"secret");
    }
}
