//! What the mounts of a RUN are made of. In the stage's directory:
//!
//! ```text
//!  sources/0, sources/1, ..        trees that were provided
//!  caches/NAME/SLOT/data           where there are mounts, the work directory's caches are mounted here
//! ```
//!
//! This is the worker's business, since only there ids and file capabilities are those of the image.

use std::os::fd::AsFd;
use std::path::PathBuf;

use rustix::io::Errno;
use yadokari_layers::{RelPath, Root};

use super::super::error::{During, Error, Failure, Result};
use super::super::files::{self, is_one_of};
use super::super::{LayerFile, Unpacked, walk};
use super::caches::{self, First};
use super::{Mount, MountKind, Secret};

const SOURCES: &str = "sources";

/// Where the caches are mounted.
pub(in crate::sandbox) const CACHES: &str = "caches";

/// The trees and the caches of a stage.
#[derive(Debug)]
pub(in crate::sandbox) struct Supplies {
    sources: u32,
    /// Where the caches are, or why they are out of reach.
    caches: Result<PathBuf, Failure>,
}

/// A mount whose parts are all there.
#[derive(Debug)]
pub(in crate::sandbox) struct Supply {
    /// Where it is in the root, as it is written.
    pub(in crate::sandbox) target: RelPath,
    /// What it is.
    pub(in crate::sandbox) what: What,
}

/// What a mount is made of.
#[derive(Debug)]
pub(in crate::sandbox) enum What {
    /// Something in a tree that nothing may write to.
    Source { tree: String, path: RelPath, is_directory: bool, read_only: bool },
    /// The directory [`caches::DATA`] of a slot.
    Cache { slot: PathBuf, read_only: bool },
    /// An empty directory.
    Tmpfs { size: Option<u64> },
    /// A file.
    File { content: Secret, secret: bool, mode: u32, uid: u32, gid: u32 },
    /// A socket that the mount of this number listens on.
    Socket { number: u32, mode: u32, uid: u32, gid: u32 },
}

impl Supply {
    /// Whether the mount is a directory.
    pub(in crate::sandbox) fn is_directory(&self) -> bool {
        match self.what {
            What::Source { is_directory, .. } => is_directory,
            What::Cache { .. } | What::Tmpfs { .. } => true,
            What::File { .. } | What::Socket { .. } => false,
        }
    }

    /// The phrase for what goes wrong with it.
    pub(in crate::sandbox) fn phrase(&self) -> String {
        phrase(&self.target)
    }
}

/// The phrase for what goes wrong with the mount of a target.
pub(in crate::sandbox) fn phrase(target: &RelPath) -> String {
    format!("the mount at '/{target}'")
}

/// The error of a mount whose place in the root is of another type.
pub(in crate::sandbox) fn mismatch(is_directory: bool, path: &RelPath) -> Error {
    let (is, there) = if is_directory { ("a directory", "none") } else { ("no directory", "one") };
    Error::Refused(format!("what is mounted is {is}, and '/{path}' is {there}"))
}

/// The error of a mount that would hide everything.
pub(in crate::sandbox) fn over_root() -> Error {
    Error::Refused("it is '/', which nothing can be mounted over".to_owned())
}

impl Supplies {
    /// No trees yet.
    pub(in crate::sandbox) fn new(caches: Result<PathBuf, Failure>) -> Self {
        Self { sources: 0, caches }
    }

    /// See [`Sandbox::provide`](super::super::Sandbox::provide).
    pub(in crate::sandbox) fn provide(&mut self, layers: Vec<LayerFile>) -> Result<(u32, Unpacked)> {
        let number = self.sources;
        let sources = files::make(files::HERE, SOURCES)?;
        let root = Root::from_dir(files::make(sources.as_fd(), number.to_string())?);
        let (_, filled) = walk::fill(&root, layers).during("unpacking what is mounted")?;
        self.sources += 1;
        Ok((number, filled))
    }

    /// Finds or makes what the mounts of a RUN are made of. `slots` says which directory each cache has.
    pub(in crate::sandbox) fn gather(&self, mounts: Vec<Mount>, slots: &[Option<u32>]) -> Result<Vec<Supply>> {
        let mut supplies = Vec::new();
        for (number, mount) in mounts.into_iter().enumerate() {
            let named = RelPath::clamped(&mount.target).map_err(yadokari_layers::Error::from)?;
            let slot = slots.get(number).copied().flatten();
            let supply = self.supply(number as u32, mount, slot).during(phrase(&named))?;
            supplies.push(supply);
        }
        Ok(supplies)
    }

    fn supply(&self, number: u32, mount: Mount, slot: Option<u32>) -> Result<Supply> {
        if !mount.target.starts_with('/') {
            return Err(Error::Refused(format!("'{}' is no absolute path", mount.target)));
        }
        let target = RelPath::clamped(&mount.target).map_err(yadokari_layers::Error::from)?;
        if target.is_root() {
            return Err(over_root());
        }
        let what = match mount.kind {
            MountKind::Bind { source, path, read_only } => self.source(source, &path, read_only)?,
            MountKind::Cache { name, seed, mode, uid, gid, read_only, .. } => {
                let caches = self.caches.clone().during("the work directory's caches are out of reach")?;
                let slot = slot.ok_or(Error::Protocol("builder"))?;
                let slot = caches.join(name).join(slot.to_string());
                let seed = seed.map(|(source, path)| self.seed(source, &path)).transpose()?;
                caches::fill(&slot, First { seed, mode, uid, gid }).during("making the cache")?;
                What::Cache { slot, read_only }
            }
            MountKind::Tmpfs { size } => What::Tmpfs { size },
            MountKind::File { content, secret, mode, uid, gid } => What::File { content, secret, mode, uid, gid },
            MountKind::Socket { mode, uid, gid, .. } => What::Socket { number, mode, uid, gid },
        };
        Ok(Supply { target, what })
    }

    fn source(&self, source: u32, path: &[u8], read_only: bool) -> Result<What> {
        let (tree, root, path) = self.tree(source, path)?;
        let found = find(&root, &path)?.ok_or_else(|| absent(&path))?;
        let is_directory = files::is_directory(found.as_fd())?;
        Ok(What::Source { tree, path, is_directory, read_only })
    }

    fn seed(&self, source: u32, path: &[u8]) -> Result<Root> {
        let (_, root, path) = self.tree(source, path)?;
        let found = find(&root, &path)?.ok_or_else(|| absent(&path))?;
        if !files::is_directory(found.as_fd())? {
            return Err(Error::Refused(format!("'/{path}' of what the cache holds at first is no directory")));
        }
        Ok(Root::from_dir(found))
    }

    fn tree(&self, source: u32, path: &[u8]) -> Result<(String, Root, RelPath)> {
        if source >= self.sources {
            return Err(Error::Protocol("builder"));
        }
        let name = format!("{SOURCES}/{source}");
        let root = Root::open(name.as_ref())?;
        Ok((name, root, RelPath::clamped(path).map_err(yadokari_layers::Error::from)?))
    }
}

/// What a path leads to in a tree, if it leads to anything.
pub(in crate::sandbox) fn find(root: &Root, path: &RelPath) -> Result<Option<std::os::fd::OwnedFd>> {
    match root.find(path).map_err(Error::from) {
        Err(error) if is_one_of(&error, &[Errno::NOENT, Errno::NOTDIR]) => Ok(None),
        found => found.map(Some),
    }
}

fn absent(path: &RelPath) -> Error {
    Error::Refused(format!("there is no '/{path}' in what it is mounted from"))
}
