//! The files of a layout: how they appear, who may change them, and off which thread.

use std::fs::{self, File, OpenOptions};
use std::hash::{BuildHasher, Hasher, RandomState};
use std::io::{self, Read as _, Write};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, OFlags, flock};

use crate::{Error, Result};

/// How the names of files begin that are not yet where they belong.
pub(super) const TEMPORARY: &str = ".new-";

const LOCK: &str = ".lock";

/// The largest `index.json` that is read, in bytes.
const LARGEST: u64 = 64 << 20;

/// Opens a file for reading that somebody else may have put there. A pipe would be waited for, and a device has no end.
pub(super) fn open(path: &Path) -> io::Result<File> {
    let flags = OFlags::NONBLOCK.bits() as i32;
    let file = OpenOptions::new().read(true).custom_flags(flags).open(path)?;
    if file.metadata()?.is_file() {
        Ok(file)
    } else {
        Err(io::Error::new(io::ErrorKind::InvalidInput, "it is no file"))
    }
}

/// Reads the whole of a file that has to be small.
pub(super) fn read(path: &Path) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let read = open(path).and_then(|file| file.take(LARGEST + 1).read_to_end(&mut bytes));
    read.map_err(|error| failed("read", path, error))?;
    if bytes.len() as u64 > LARGEST {
        return Err(failed("read", path, io::Error::new(io::ErrorKind::FileTooLarge, "it is larger than 64 MiB")));
    }
    Ok(bytes)
}

/// The layout's lock, among processes and within one; dropped, or with its process dead, it is free.
#[derive(Debug)]
pub(super) struct Lock {
    _file: File,
}

impl Lock {
    /// For one who changes the index.
    pub(super) fn exclusive(directory: &Path) -> Result<Self> {
        Self::take(directory, FlockOperation::LockExclusive)
    }

    /// For those who only mind that the index, and what it names, is changed meanwhile.
    pub(super) fn shared(directory: &Path) -> Result<Self> {
        Self::take(directory, FlockOperation::LockShared)
    }

    /// Waits, however long it takes.
    fn take(directory: &Path, operation: FlockOperation) -> Result<Self> {
        let path = directory.join(LOCK);
        // Over NFS an exclusive lock needs a file that is open for writing. One that another user made need not be:
        // without NFS reading is enough.
        let file = match OpenOptions::new().create(true).truncate(false).write(true).open(&path) {
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => File::open(&path),
            opened => opened,
        };
        let file = file.map_err(|error| failed("open", &path, error))?;
        let locked = rustix::io::retry_on_intr(|| flock(&file, operation));
        locked.map_err(|error| failed("lock", &path, error.into()))?;
        Ok(Self { _file: file })
    }
}

/// A file that is not yet where it belongs; dropped, it is gone.
pub(super) struct Temporary {
    path: PathBuf,
    file: File,
}

impl Temporary {
    /// Creates it beside `target`, so that the rename stays on one file system.
    pub(super) fn create(target: &Path) -> Result<Self> {
        let unique = format!("{TEMPORARY}{:016x}", RandomState::new().build_hasher().finish());
        let path = target.with_file_name(unique);
        let file = File::create_new(&path).map_err(|error| failed("create", &path, error))?;
        Ok(Self { path, file })
    }

    pub(super) fn write(&mut self, bytes: &[u8]) -> Result<()> {
        self.file.write_all(bytes).map_err(|error| failed("write", &self.path, error))
    }

    pub(super) fn publish(self, target: &Path) -> Result<()> {
        fs::rename(&self.path, target).map_err(|error| failed("rename", target, error))
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        // After a rename there is nothing left to remove.
        let _ = fs::remove_file(&self.path);
    }
}

/// Removes a file, or finds that somebody else did.
pub(super) fn remove(path: &Path) -> Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(failed("remove", path, error)),
        _ => Ok(()),
    }
}

/// Runs file work off the runtime's threads. Once begun it is finished, even if nobody waits for it any more.
pub(super) async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(error) => std::panic::resume_unwind(error.into_panic()),
    }
}

pub(super) fn parse<T: serde::de::DeserializeOwned>(path: &Path, bytes: &[u8]) -> Result<T> {
    serde_json::from_slice(bytes).map_err(|error| failed("parse", path, error.into()))
}

pub(super) fn failed(operation: &'static str, path: &Path, source: io::Error) -> Error {
    Error::Io { operation, path: path.into(), source }
}
