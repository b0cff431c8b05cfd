//! What stays in `/` whatever happens.

use std::path::{Path, PathBuf};

use yadokari_layers::RelPath;

use crate::sandbox::error::Result;
use crate::sandbox::mountinfo;

/// Mount points that every container has, and whose image counterparts stay parked without a word.
pub(super) const RESERVED: [&str; 3] = ["proc", "sys", "dev"];

/// The paths that stay: mount points, since nothing can be renamed over or away from one, and what is ours.
#[derive(Debug)]
pub(super) struct Keep {
    pinned: Vec<RelPath>,
    mounts: Vec<RelPath>,
}

/// What a path in `/` means for moving it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Class {
    /// It stays.
    Stays,
    /// Something of ours is below it, so it cannot be moved as a whole.
    HoldsOurs,
    /// A mount point is below it. Directories that the runtime made can be moved with their mounts; those of an image's
    /// layers cannot.
    HoldsMounts,
    /// It can be moved.
    Free,
}

impl Keep {
    /// What stays now. Mounts move when a directory is renamed with them, so this holds until the next rename.
    pub(super) fn now(pinned: &[PathBuf]) -> Result<Self> {
        let mounts = mountinfo::mounts()?;
        Ok(Self::of(pinned, mounts.iter().map(|mount| &*mount.point)))
    }

    pub(super) fn of<'a>(pinned: &[PathBuf], mounts: impl Iterator<Item = &'a Path>) -> Self {
        let below_root = |path: &Path| {
            let path = RelPath::new(path.as_os_str().as_encoded_bytes()).ok()?;
            (!path.is_root()).then_some(path)
        };
        let reserved = RESERVED.iter().map(Path::new);
        let pinned = pinned.iter().map(PathBuf::as_path).chain(reserved).filter_map(below_root).collect();
        Self { pinned, mounts: mounts.filter_map(below_root).collect() }
    }

    /// What stays that `path` is or lies in, the deepest, and whether it is the container's and not ours.
    pub(super) fn around(&self, path: &RelPath) -> Option<(&RelPath, bool)> {
        let is_reserved = |kept: &RelPath| RESERVED.iter().any(|name| name.as_bytes() == kept.as_bytes());
        let ours = self.pinned.iter().map(|kept| (kept, is_reserved(kept)));
        // Of a directory that is both, the last is taken.
        let kept = self.mounts.iter().map(|kept| (kept, true)).chain(ours);
        kept.filter(|(kept, _)| path.starts_with(kept)).max_by_key(|(kept, _)| kept.components().count())
    }

    /// What `path` means.
    pub(super) fn class(&self, path: &RelPath) -> Class {
        let holds = |kept: &[RelPath]| kept.iter().any(|kept| kept.starts_with(path));
        if self.pinned.contains(path) || self.mounts.contains(path) {
            Class::Stays
        } else if holds(&self.pinned) {
            Class::HoldsOurs
        } else if holds(&self.mounts) {
            Class::HoldsMounts
        } else {
            Class::Free
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mounts_and_what_is_ours_stay_and_the_rest_moves() {
        let pinned = [PathBuf::from("/kaniko"), PathBuf::from("/home/ci/project")];
        let mounts = ["/", "/proc", "/etc/hosts", "/builds"].map(Path::new);
        let keep = Keep::of(&pinned, mounts.into_iter());
        let class = |path: &str| keep.class(&RelPath::new(path).unwrap());
        assert_eq!(class("kaniko"), Class::Stays);
        assert_eq!(class("dev"), Class::Stays);
        assert_eq!(class("builds"), Class::Stays);
        assert_eq!(class("home"), Class::HoldsOurs);
        assert_eq!(class("home/ci"), Class::HoldsOurs);
        assert_eq!(class("home/other"), Class::Free);
        assert_eq!(class("etc"), Class::HoldsMounts);
        assert_eq!(class("et"), Class::Free);
    }

    #[test]
    fn the_deepest_of_what_stays_has_a_path() {
        let pinned = [PathBuf::from("/kaniko"), PathBuf::from("/builds/project")];
        let keep =
            Keep::of(&pinned, ["/", "/dev", "/dev/shm", "/builds", "/builds/project"].map(Path::new).into_iter());
        let around = |path: &str| {
            let found = keep.around(&RelPath::new(path).unwrap());
            found.map(|(kept, container)| (kept.to_string(), container))
        };
        assert_eq!(around("builds/other"), Some(("builds".into(), true)));
        assert_eq!(around("builds/project/x"), Some(("builds/project".into(), false)));
        assert_eq!(around("kaniko"), Some(("kaniko".into(), false)));
        assert_eq!(around("dev/shm/x"), Some(("dev/shm".into(), true)));
        assert_eq!(around("dev/x"), Some(("dev".into(), true)));
        assert_eq!(around("usr/bin"), None);
    }
}
