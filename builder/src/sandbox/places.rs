//! Where roots can be.

use std::path::{Path, PathBuf};

use super::Settings;
use super::error::{Error, Result, Syscall};
use super::memory;
use super::mountinfo::{self, Mount};

/// File systems on local disks that can hold the upper directory of an overlay. The trial has the last word.
const DISKS: [&str; 7] = ["ext4", "ext3", "xfs", "btrfs", "f2fs", "bcachefs", "zfs"];

/// The least space for a base image and what RUNs do to it.
const DISK_SPACE: u64 = 2 << 30;

/// The least memory for which it is worth having upper directories in it: what is in them cannot be given back, and a RUN
/// that fills them is killed where one that fills a disk has an error. In a container with less the driver is another one.
const MEMORY: u64 = 512 << 20;

/// A place for the stages of the overlay driver.
#[derive(Debug)]
pub(super) struct Place {
    /// The directory.
    pub(super) directory: PathBuf,
    /// The size of the tmpfs for the upper directories, where the directory itself cannot hold them.
    pub(super) tmpfs: Option<u64>,
    /// Where the upper directories are, in a few words.
    pub(super) detail: String,
}

/// The places for upper directories, the best first: an overlay cannot have its upper directory on an overlay, which a
/// container's own root file system is.
pub(super) fn for_uppers(settings: &Settings) -> Result<Vec<Place>> {
    let mounts = mountinfo::mounts()?;
    let mut places = Vec::new();
    let work_dir = resolved(&settings.work_dir)?;
    if mountinfo::mount_of(&mounts, &work_dir).is_none_or(|mount| mount.kind != "overlay") {
        let detail = format!("in '{}'", settings.work_dir.display());
        places.push(Place { directory: settings.work_dir.clone(), tmpfs: None, detail });
    }
    let others = mounts.iter().filter(|mount| is_suitable(mount, settings));
    places.extend(others.map(|mount| Place {
        directory: mount.point.clone(),
        tmpfs: None,
        detail: format!("on the volume '{}'", mount.point.display()),
    }));
    if let Some(size) = memory::available(&mounts).and_then(in_memory) {
        let detail = format!("in memory, at most {} MiB", size >> 20);
        places.push(Place { directory: settings.work_dir.clone(), tmpfs: Some(size), detail });
    }
    Ok(places)
}

fn is_suitable(mount: &Mount, settings: &Settings) -> bool {
    let is_of = |prefix: &str| mount.point.starts_with(prefix);
    let is_context = settings.contexts.iter().any(|context| mount.point.starts_with(context));
    let is_special = is_of("/proc") || is_of("/sys") || is_of("/dev") || mount.point == Path::new("/");
    if mount.read_only || is_special || is_context || !DISKS.contains(&mount.kind.as_str()) || !mount.point.is_dir() {
        return false;
    }
    let space = rustix::fs::statvfs(&mount.point).map_or(0, |fs| fs.f_bavail.saturating_mul(fs.f_frsize));
    space >= DISK_SPACE
}

/// How much of the memory that may be used upper directories can have, where that is enough for them.
fn in_memory(available: u64) -> Option<u64> {
    Some(available / 2).filter(|&size| size >= MEMORY)
}

/// The place of the in-place driver: a directory that can be renamed from and to `/`.
pub(super) fn for_in_place(settings: &Settings) -> Result<PathBuf> {
    let mounts = mountinfo::mounts()?;
    // The home is not made: where there is none, this is no container of ours.
    for path in [resolved(&settings.work_dir).ok(), settings.home.canonicalize().ok()].into_iter().flatten() {
        if mountinfo::mount_of(&mounts, &path).is_none_or(|mount| mount.point == Path::new("/")) {
            return Ok(path);
        }
    }
    let names = [&settings.work_dir, &settings.home].map(|path| format!("'{}'", path.display()));
    Err(Error::Foreign(format!("neither {} is on the file system of '/'", names.join(" nor "))))
}

/// What of ours stays in `/`.
pub(super) fn pinned(settings: &Settings) -> Vec<PathBuf> {
    let ours = [&settings.home, &settings.work_dir].into_iter().chain(&settings.contexts).chain(&settings.kept);
    // What does not exist cannot be moved.
    ours.filter_map(|path| path.canonicalize().ok()).collect()
}

/// The real path of a directory, which is made if it is missing.
fn resolved(path: &Path) -> Result<PathBuf> {
    std::fs::create_dir_all(path).on("mkdir", path.display())?;
    path.canonicalize().on("realpath", path.display())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn upper_directories_are_in_memory_only_where_there_is_much_of_it() {
        let available = [256 << 20, 1023 << 20, 1 << 30, 8 << 30];
        assert_eq!(available.map(in_memory), [None, None, Some(512 << 20), Some(4 << 30)]);
    }
}
