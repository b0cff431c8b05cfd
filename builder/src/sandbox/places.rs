//! Where roots can be.

use std::path::{Path, PathBuf};

use super::Settings;
use super::error::{Error, Result, Syscall};
use super::mountinfo::{self, Mount};

/// File systems on local disks that can hold the upper directory of an overlay. The trial has the last word.
const DISKS: [&str; 7] = ["ext4", "ext3", "xfs", "btrfs", "f2fs", "bcachefs", "zfs"];

/// The least space for a base image and what RUNs do to it.
const DISK_SPACE: u64 = 2 << 30;

/// The least memory for which it is worth having upper directories in it.
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
        directory: mount.point.join(format!(".yadokari-{}", std::process::id())),
        tmpfs: None,
        detail: format!("on the volume '{}'", mount.point.display()),
    }));
    if let Some(size) = memory().map(|size| size / 2).filter(|&size| size >= MEMORY) {
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

/// The memory that this container may still use, as far as it is known.
fn memory() -> Option<u64> {
    let limits = ["/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"];
    let limit = limits.iter().find_map(|path| std::fs::read_to_string(path).ok()?.trim().parse().ok());
    let text = std::fs::read_to_string("/proc/meminfo").ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
    let available: u64 = line.split_whitespace().next()?.parse().ok()?;
    Some(limit.unwrap_or(u64::MAX).min(available << 10))
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
    let ours = [&settings.home, &settings.work_dir].into_iter().chain(&settings.contexts);
    // What does not exist cannot be moved.
    ours.filter_map(|path| path.canonicalize().ok()).collect()
}

/// The real path of a directory, which is made if it is missing.
fn resolved(path: &Path) -> Result<PathBuf> {
    std::fs::create_dir_all(path).on("mkdir", path.display())?;
    path.canonicalize().on("realpath", path.display())
}
