//! Walking a root, one task per directory.

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

/// File systems of which it is known that a directory's times move with each name that comes or goes: tmpfs, ext4, XFS,
/// btrfs and overlayfs.
const TIMED: [i64; 5] = [TMPFS_MAGIC, 0xef53, 0x5846_5342, 0x9123_683e, 0x794c_7630];

const DIRECTORY: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

/// Takes a snapshot of what is below `root`, on the threads of rayon's current pool. Nothing may run in the root meanwhile.
///
/// The names in a directory that is what it was in the snapshot `before` are taken from there, which saves a fifth of the
/// time. Not looked at are mount points and what is below them: what lies there is another file system's, and unchanged by
/// definition. On tmpfs all contents are read.
pub fn scan(root: &Root, before: Option<&Snapshot>) -> Result<Snapshot> {
    let dir = Arc::new(root.open_dir(&RelPath::root())?);
    let stat = statx(dir.as_fd(), b"").map_err(at("statx", &RelPath::root()))?;
    let file_system = file_system(&dir)?;
    // What a mount point covers is in no snapshot, and may come to light.
    let before = before.filter(|before| TIMED.contains(&file_system) && before.mounts.is_empty());
    let found = Mutex::new(Ok(Snapshot::default()));
    let walk = Walk { before, mount: mount(&stat), hash: file_system == TMPFS_MAGIC, found };
    rayon::scope(|scope| walk.directory(scope, dir, RelPath::root(), None));
    walk.found.into_inner().unwrap_or_else(PoisonError::into_inner)
}

/// What kind of file system a root is on.
fn file_system(dir: &OwnedFd) -> Result<i64> {
    let found = rustix::fs::fstatfs(dir).map_err(at("statfs", &RelPath::root()))?;
    #[expect(clippy::useless_conversion, reason = "the width of this field differs between architectures")]
    Ok(i64::from(found.f_type))
}

#[cfg(test)]
pub(super) fn tells_names_by_times(dir: &OwnedFd) -> Result<bool> {
    Ok(TIMED.contains(&file_system(dir)?))
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

/// What was found in one directory.
#[derive(Default)]
struct Listed<'a> {
    listing: Listing,
    mounts: Vec<RelPath>,
    newest: Timestamp,
    below: Vec<Below<'a>>,
}

/// A directory in a directory, and what was in it before if it is the same.
struct Below<'a> {
    name: Vec<u8>,
    path: RelPath,
    same: Option<&'a Listing>,
}

struct Walk<'a> {
    before: Option<&'a Snapshot>,
    mount: (u64, u32, u32),
    hash: bool,
    found: Mutex<Result<Snapshot>>,
}

impl<'a> Walk<'a> {
    /// Reads one directory, and spawns a task for each one in it. A task opens its directory only when it runs, and keeps
    /// the one above alive until then, so that few are open at any time; rayon runs the newest first, which is depth first.
    fn directory<'s>(&'s self, scope: &rayon::Scope<'s>, dir: Arc<OwnedFd>, path: RelPath, same: Option<&'a Listing>)
    where
        'a: 's,
    {
        let listed = match same.and_then(|same| self.again(&dir, &path, same)) {
            Some(listed) => Ok(listed),
            None => self.list(&dir, &path),
        };
        let mut found = self.found.lock().unwrap_or_else(PoisonError::into_inner);
        let Ok(all) = &mut *found else { return };
        match listed {
            Err(error) => *found = Err(error),
            Ok(Listed { listing, mounts, newest, below }) => {
                all.newest = all.newest.max(newest);
                all.mounts.extend(mounts);
                all.listings.insert(path, listing);
                drop(found);
                for Below { name, path, same } in below {
                    let above = Arc::clone(&dir);
                    scope.spawn(move |scope| {
                        let opened = rustix::fs::openat(&above, &name[..], DIRECTORY, Mode::empty());
                        drop(above);
                        match opened.map_err(at("open directory", &path)) {
                            Ok(dir) => self.directory(scope, Arc::new(dir), path, same),
                            Err(error) => *self.found.lock().unwrap_or_else(PoisonError::into_inner) = Err(error),
                        }
                    });
                }
            }
        }
    }

    /// Looks at the names that a directory had before; nothing if one of them is not there to be looked at.
    fn again(&self, dir: &OwnedFd, path: &RelPath, before: &Listing) -> Option<Listed<'a>> {
        let mut listed = Listed::default();
        let mut keys = Vec::with_capacity(before.len());
        for (name, was) in before.iter() {
            keys.push(self.look(dir, path, name, Some(was), &mut listed).ok()??);
        }
        listed.listing = before.with(&keys);
        Some(listed)
    }

    /// Reads the names in a directory.
    fn list(&self, dir: &OwnedFd, path: &RelPath) -> Result<Listed<'a>> {
        let mut listed = Listed::default();
        let before = self.before.and_then(|before| before.listings.get(path));
        let mut buffer = Vec::with_capacity(32 * 1024);
        let mut names = RawDir::new(dir, buffer.spare_capacity_mut());
        let mut keys = Vec::new();
        while let Some(entry) = names.next() {
            let entry = entry.map_err(at("read directory", path))?;
            let name = entry.file_name().to_bytes();
            if name == b"." || name == b".." {
                continue;
            }
            let was = before.and_then(|before| before.get(name));
            if let Some(key) = self.look(dir, path, name, was, &mut listed)? {
                keys.push((name.to_vec(), key));
            }
        }
        listed.listing = Listing::new(keys);
        Ok(listed)
    }

    /// Looks at a name, which `was` something before; nothing if it is a mount point.
    fn look(
        &self,
        dir: &OwnedFd,
        path: &RelPath,
        name: &[u8],
        was: Option<&Key>,
        listed: &mut Listed<'a>,
    ) -> Result<Option<Key>> {
        let stat = match statx(dir.as_fd(), name) {
            Ok(stat) => stat,
            Err(errno) => return Err(at("statx", &path.child(name)?)(errno)),
        };
        if mount(&stat) != self.mount {
            listed.mounts.push(path.child(name)?);
            return Ok(None);
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
        listed.newest = listed.newest.max(Timestamp { secs: stat.stx_ctime.tv_sec, nanos: stat.stx_ctime.tv_nsec });
        if key.is_directory() {
            let path = path.child(name)?;
            let before = self.before.filter(|_| was == Some(&key));
            let same = before.and_then(|before| before.listings.get(&path));
            listed.below.push(Below { name: name.to_vec(), path, same });
        }
        Ok(Some(key))
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
