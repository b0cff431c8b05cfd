//! The directories into which files are put.

use std::collections::HashMap;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use rustix::fs::Mode;
use rustix::io::Errno;

use super::IMPLIED_MODE;
use crate::root::at;
use crate::{RelPath, Result, Root};

/// As many directories are kept open.
const OPEN: usize = 128;

/// Makes directories, and keeps some of them open.
#[derive(Debug)]
pub(super) struct Directories<'a> {
    root: &'a Root,
    open: HashMap<RelPath, Arc<OwnedFd>>,
}

impl<'a> Directories<'a> {
    pub(super) fn new(root: &'a Root) -> Self {
        Self { root, open: HashMap::new() }
    }

    /// The open directory that holds `path`. It is made when it is not there.
    pub(super) fn of(&mut self, path: &RelPath) -> Result<Arc<OwnedFd>> {
        let parent = path.parent().unwrap_or_default();
        if let Some(open) = self.open.get(&parent) {
            return Ok(Arc::clone(open));
        }
        let directory = match self.root.parent(path) {
            Err(error) if error.raw_os_error() == Some(Errno::NOENT.raw_os_error()) => {
                self.root.create_dir_all(&parent, IMPLIED_MODE)?;
                self.root.parent(path)?
            }
            answer => answer?,
        };
        if self.open.len() >= OPEN {
            self.open.clear();
        }
        let directory = Arc::new(directory);
        self.open.insert(parent, Arc::clone(&directory));
        Ok(directory)
    }

    /// Makes a directory, for its owner alone until it gets what its layer says of it. It may be there already.
    pub(super) fn make(&mut self, path: &RelPath) -> Result<()> {
        let directory = self.of(path)?;
        let name = path.file_name().unwrap_or(b".");
        match rustix::fs::mkdirat(directory.as_fd(), name, Mode::from_raw_mode(0o700)) {
            Ok(()) | Err(Errno::EXIST) => Ok(()),
            Err(errno) => Err(at("mkdir", path)(errno)),
        }
    }
}
