//! Walking a root, one task per directory.

use std::collections::BTreeSet;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::{Arc, Mutex, PoisonError};

use rustix::fs::{AtFlags, FileType, Mode, OFlags, RawDir, Statx, StatxFlags};
use rustix::io::Errno;

use super::snapshot::{Key, Listing, Snapshot};
use crate::digest::Hasher;
use crate::root::at;
use crate::{RelPath, Result, Root, Timestamp};

/// `statfs` says this of tmpfs.
const TMPFS_MAGIC: i64 = 0x0102_1994;

const DIRECTORY: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

/// Takes a snapshot of what is below `root`, on the threads of rayon's current pool. Nothing may run in the root meanwhile.
///
/// Not looked at are the `masked` paths and what is below them, and mount points: what lies there is another file system's,
/// and unchanged by definition. On tmpfs all contents are read.
pub fn scan(root: &Root, masked: &BTreeSet<RelPath>) -> Result<Snapshot> {
    let dir = Arc::new(root.open_dir(&RelPath::root())?);
    let stat = statx(dir.as_fd(), b"").map_err(at("statx", &RelPath::root()))?;
    let file_system = rustix::fs::fstatfs(&dir).map_err(at("statfs", &RelPath::root()))?;
    #[expect(clippy::useless_conversion, reason = "the width of this field differs between architectures")]
    let hash = i64::from(file_system.f_type) == TMPFS_MAGIC;
    let walk = Walk { masked, mount: mount(&stat), hash, found: Mutex::new(Ok(Found::default())) };
    rayon::scope(|scope| walk.directory(scope, dir, RelPath::root()));
    let found = walk.found.into_inner().unwrap_or_else(PoisonError::into_inner)?;
    let mut passed_over = found.mounts;
    passed_over.extend(masked.iter().cloned());
    Ok(Snapshot::new(found.listings, passed_over, found.newest))
}

/// What identifies a mount: its id since Linux 5.8, before that the device of its file system.
fn mount(stat: &Statx) -> (u64, u32, u32) {
    if StatxFlags::from_bits_retain(stat.stx_mask).contains(StatxFlags::MNT_ID) {
        (stat.stx_mnt_id, 0, 0)
    } else {
        (0, stat.stx_dev_major, stat.stx_dev_minor)
    }
}

fn statx(dir: BorrowedFd<'_>, name: &[u8]) -> Result<Statx, Errno> {
    let flags = AtFlags::SYMLINK_NOFOLLOW | AtFlags::STATX_DONT_SYNC | AtFlags::NO_AUTOMOUNT | AtFlags::EMPTY_PATH;
    rustix::fs::statx(dir, name, flags, StatxFlags::BASIC_STATS | StatxFlags::MNT_ID)
}

#[derive(Default)]
struct Found {
    listings: Vec<Listing>,
    mounts: BTreeSet<RelPath>,
    newest: Timestamp,
}

struct Walk<'a> {
    masked: &'a BTreeSet<RelPath>,
    mount: (u64, u32, u32),
    hash: bool,
    found: Mutex<Result<Found>>,
}

impl<'a> Walk<'a> {
    /// Reads one directory, and spawns a task for each one in it. A task opens its directory only when it runs, and keeps
    /// the one above alive until then, so that few are open at any time; rayon runs the newest first, which is depth first.
    fn directory<'s>(&'s self, scope: &rayon::Scope<'s>, dir: Arc<OwnedFd>, path: RelPath)
    where
        'a: 's,
    {
        let outcome = self.list(&dir, &path);
        let mut found = self.found.lock().unwrap_or_else(PoisonError::into_inner);
        let Ok(all) = &mut *found else { return };
        match outcome {
            Err(error) => *found = Err(error),
            Ok((listing, mounts, newest, below)) => {
                all.newest = all.newest.max(newest);
                all.mounts.extend(mounts);
                all.listings.push(listing);
                drop(found);
                for (name, path) in below {
                    let above = Arc::clone(&dir);
                    scope.spawn(move |scope| {
                        let opened = rustix::fs::openat(&above, &name[..], DIRECTORY, Mode::empty());
                        drop(above);
                        match opened.map_err(at("open directory", &path)) {
                            Ok(dir) => self.directory(scope, Arc::new(dir), path),
                            Err(error) => *self.found.lock().unwrap_or_else(PoisonError::into_inner) = Err(error),
                        }
                    });
                }
            }
        }
    }

    #[expect(clippy::type_complexity, reason = "the parts go to different places at once")]
    fn list(
        &self,
        dir: &OwnedFd,
        path: &RelPath,
    ) -> Result<(Listing, Vec<RelPath>, Timestamp, Vec<(Vec<u8>, RelPath)>)> {
        let mut buffer = Vec::with_capacity(32 * 1024);
        let mut names = RawDir::new(dir, buffer.spare_capacity_mut());
        let (mut keys, mut mounts, mut below) = (Vec::new(), Vec::new(), Vec::new());
        let mut newest = Timestamp::default();
        while let Some(entry) = names.next() {
            let entry = entry.map_err(at("read directory", path))?;
            let name = entry.file_name().to_bytes();
            if name == b"." || name == b".." {
                continue;
            }
            if !self.masked.is_empty() && self.masked.contains(&path.child(name)?) {
                continue;
            }
            let stat = match statx(dir.as_fd(), name) {
                Ok(stat) => stat,
                Err(errno) => return Err(at("statx", &path.child(name)?)(errno)),
            };
            if mount(&stat) != self.mount {
                mounts.push(path.child(name)?);
                continue;
            }
            let mut key = key(&stat);
            if self.hash && FileType::from_raw_mode(key.mode).is_file() {
                let path = path.child(name)?;
                key.content = fingerprint(dir.as_fd(), name).map_err(|source| crate::Error::Path {
                    operation: "read content of",
                    path,
                    source,
                })?;
            }
            newest = newest.max(Timestamp { secs: stat.stx_ctime.tv_sec, nanos: stat.stx_ctime.tv_nsec });
            if key.is_directory() {
                below.push((name.to_vec(), path.child(name)?));
            }
            keys.push((name.to_vec(), key));
        }
        Ok((Listing::new(path.clone(), keys), mounts, newest, below))
    }
}

fn key(stat: &Statx) -> Key {
    let nanos = |secs: i64, nanos: u32| secs.wrapping_mul(1_000_000_000).wrapping_add(nanos.into());
    let device = u64::from(stat.stx_rdev_major) << 32 | u64::from(stat.stx_rdev_minor);
    Key {
        ino: stat.stx_ino,
        size: if device == 0 { stat.stx_size } else { device },
        mtime: nanos(stat.stx_mtime.tv_sec, stat.stx_mtime.tv_nsec),
        ctime: nanos(stat.stx_ctime.tv_sec, stat.stx_ctime.tv_nsec),
        content: 0,
        mode: stat.stx_mode.into(),
        uid: stat.stx_uid,
        gid: stat.stx_gid,
        nlink: stat.stx_nlink,
    }
}

fn fingerprint(dir: BorrowedFd<'_>, name: &[u8]) -> std::io::Result<u64> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let mut file = std::fs::File::from(rustix::fs::openat(dir, name, flags, Mode::empty())?);
    let mut hasher = crate::HashingWriter::new(std::io::sink());
    std::io::copy(&mut file, &mut hasher)?;
    let hasher: Hasher = hasher.finish().1;
    let digest = hasher.finish();
    let first = digest.as_bytes().first_chunk().expect("a digest has 32 bytes");
    Ok(u64::from_le_bytes(*first))
}
