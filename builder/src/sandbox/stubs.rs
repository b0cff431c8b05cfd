//! What a plain directory must hold while a RUN runs in it, and must not hold in a layer: mount points, and the resolver's
//! files.
//!
//! Everything is undone to the nanosecond of the directories' times, so that a later walk finds nothing. Only the
//! status change time cannot be set back; the paths that differ in nothing else are told to the walk to forgive.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::RenameFlags;
use yadokari_layers::{Entry, RelPath, Root, Timestamp, Tree};

use super::Run;
use super::error::{During, Result, Syscall};
use super::files;
use super::mount::supplies::{Supply, find, over_root};
use super::rootfs::{MOUNT_POINTS, NETWORK_FILES};

/// What was put into a root and has to be taken out again.
#[derive(Debug, Default)]
pub(super) struct Stubs {
    /// Files that were made, and the directories made for them, in the order of making.
    made: Vec<RelPath>,
    /// Entries of the image that were moved aside, and the names that they have there.
    aside: Vec<(RelPath, String)>,
    /// The directories that were changed.
    parents: Vec<RelPath>,
}

impl Stubs {
    /// Makes what the launcher mounts over: `proc`, `sys` and `dev`, and the resolver's files where they resolve to.
    pub(super) fn mount_points(&mut self, root: &Root, tree: &Tree) -> Result<()> {
        for name in MOUNT_POINTS {
            let path = RelPath::new(name).map_err(yadokari_layers::Error::from)?;
            if root.entry(&path)?.is_none() {
                self.made.extend(root.create_dir_all(&path, 0o755)?);
            }
        }
        for (_, target) in NETWORK_FILES {
            let path = RelPath::new(target).map_err(yadokari_layers::Error::from)?;
            let path = tree.resolve(&path)?;
            if root.entry(&path)?.is_none() {
                self.file(root, &path, b"")?;
            }
        }
        Ok(())
    }

    /// Makes the mount points of a RUN's mounts.
    pub(super) fn targets(&mut self, root: &Root, supplies: &[Supply]) -> Result<()> {
        for (path, supply) in uncovered(supplies, |path| files::real(root, path))? {
            let made = match find(root, &path)? {
                Some(_) => Ok(()),
                None if supply.is_directory() => self.directories(root, &path),
                None => self.file(root, &path, b""),
            };
            made.during(supply.phrase())?;
        }
        Ok(())
    }

    /// Puts the resolver's files in as plain files. What the image has in their place waits in `aside`, a directory of
    /// the same file system.
    pub(super) fn network_files(&mut self, root: &Root, tree: &Tree, run: &Run, aside: &OwnedFd) -> Result<()> {
        for ((name, target), content) in NETWORK_FILES.into_iter().zip([&run.resolv_conf, &run.hosts]) {
            let path = RelPath::new(target).map_err(yadokari_layers::Error::from)?;
            let path = tree.resolve_parent(&path)?;
            if root.entry(&path)?.is_some() {
                let directory = self.changing(root, &path)?;
                let own = path.file_name().unwrap_or_default();
                rustix::fs::renameat_with(&directory.0, own, aside, name, RenameFlags::NOREPLACE)
                    .on("rename", format!("'/{path}'"))?;
                self.aside.push((path.clone(), name.to_owned()));
                directory.settle()?;
            }
            self.file(root, &path, content)?;
        }
        Ok(())
    }

    fn file(&mut self, root: &Root, path: &RelPath, content: &[u8]) -> Result<()> {
        self.directories(root, &path.parent().unwrap_or_default())?;
        let directory = self.changing(root, path)?;
        let entry = Entry::file(content.len() as u64, 0o644, Timestamp::default());
        // Nothing can be refused to root of the namespace that this file asks for.
        root.put(path, &entry, &mut &*content)?;
        self.made.push(path.clone());
        directory.settle()
    }

    /// Makes a directory and those above it, as far as they are missing.
    fn directories(&mut self, root: &Root, path: &RelPath) -> Result<()> {
        let Some(first) = self.first_missing(root, path)? else { return Ok(()) };
        let directory = self.changing(root, &first)?;
        self.made.extend(root.create_dir_all(path, 0o755)?);
        directory.settle()
    }

    /// The highest directory of `path` that does not exist.
    fn first_missing(&self, root: &Root, path: &RelPath) -> Result<Option<RelPath>> {
        let mut missing = None;
        let mut at = path.clone();
        while !at.is_root() && root.entry(&at)?.is_none() {
            let above = at.parent().unwrap_or_default();
            missing = Some(std::mem::replace(&mut at, above));
        }
        Ok(missing)
    }

    /// Remembers the time of the directory that holds `path`.
    fn changing(&mut self, root: &Root, path: &RelPath) -> Result<Settling> {
        let parent = path.parent().unwrap_or_default();
        if !parent.is_root() && !self.made.contains(&parent) && !self.parents.contains(&parent) {
            self.parents.push(parent);
        }
        Settling::of(root, path)
    }

    /// The directories of the image that were changed, and that look unchanged now.
    pub(super) fn parents(&self) -> impl Iterator<Item = RelPath> {
        self.parents.iter().cloned()
    }

    /// The entries of the image that no RUN saw, because they were aside.
    pub(super) fn unseen(&self) -> Vec<RelPath> {
        self.aside.iter().map(|(path, _)| path.clone()).collect()
    }

    /// Takes everything out again. Directories that were made stay when the RUN put something into them.
    pub(super) fn undo(self, root: &Root, aside: Option<&OwnedFd>) -> Result<()> {
        for path in self.made.iter().rev() {
            let Some(entry) = root.entry(path)? else { continue };
            let directory = Settling::of(root, path)?;
            let name = path.file_name().unwrap_or_default();
            if !entry.is_directory() {
                root.remove(path)?;
            } else if files::remove_directory(directory.0.as_fd(), name).is_err() {
                // Not empty, so it is the RUN's directory now.
                continue;
            }
            directory.settle()?;
        }
        for (path, name) in &self.aside {
            let directory = Settling::of(root, path)?;
            let (Some(own), Some(aside)) = (path.file_name(), aside) else { continue };
            rustix::fs::renameat_with(aside, name, &directory.0, own, RenameFlags::empty())
                .on("rename", format!("'/{path}' back"))?;
            directory.settle()?;
        }
        Ok(())
    }
}

/// Where each mount goes that does not lie in an earlier one. `real` follows links as they are before any mount.
pub(super) fn uncovered(
    supplies: &[Supply],
    real: impl Fn(&RelPath) -> Result<RelPath>,
) -> Result<Vec<(RelPath, &Supply)>> {
    let mut mounted = Vec::new();
    for name in MOUNT_POINTS {
        mounted.push(RelPath::new(name).map_err(yadokari_layers::Error::from)?);
    }
    let mut found = Vec::new();
    for supply in supplies {
        let path = real(&supply.target).during(supply.phrase())?;
        if path.is_root() {
            return Err(over_root()).during(supply.phrase());
        }
        if !mounted.iter().any(|mount| path.starts_with(mount)) {
            found.push((path.clone(), supply));
        }
        mounted.push(path);
    }
    Ok(found)
}

/// A directory whose time is put back after it was changed.
pub(super) struct Settling(OwnedFd, rustix::fs::Stat);

impl Settling {
    /// The directory that holds `path`.
    fn of(root: &Root, path: &RelPath) -> Result<Self> {
        Self::open(root.parent(path)?)
    }

    /// This directory.
    pub(super) fn open(directory: OwnedFd) -> Result<Self> {
        let stat = files::stat_of(directory.as_fd())?;
        Ok(Self(directory, stat))
    }

    /// The directory itself.
    pub(super) fn directory(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }

    /// Puts its time back.
    pub(super) fn settle(self) -> Result<()> {
        // The descriptor may be one that only names the directory, on which futimens is EBADF: open it anew.
        let directory = files::open(self.0.as_fd(), ".")?;
        files::set_times(&self.1, directory.as_fd())
    }
}
