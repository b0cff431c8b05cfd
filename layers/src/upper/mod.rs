//! The upper directory of an overlay mount.
//!
//! A deleted path is a character device 0:0 there, or an empty file with the attribute `user.overlay.whiteout` where no
//! device can be made; a directory that replaces another has the attribute `user.overlay.opaque`, or `trusted.overlay.opaque`
//! when the mount was made without `userxattr`. Nothing may be mounted while these functions read or write.

mod fold;

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{AtFlags, FileType};

pub use fold::fold;

use crate::root::{at, names, open_quietly, value, xattr_names};
use crate::scan::Candidates;
use crate::{Error, RelPath, Result, Root, Tree};

/// The paths at which the mount may differ from `tree`, which is what the lower directories hold.
///
/// A directory or file that points to a lower one instead of standing for itself is an error: the mount must be made with
/// `redirect_dir` and `metacopy` off.
pub fn upper(upper: &Root, tree: &Tree) -> Result<Candidates> {
    let mut walk = Walk { tree, candidates: Candidates::default() };
    walk.directory(upper.open_dir(&RelPath::root())?, &RelPath::root(), false)?;
    Ok(walk.candidates)
}

struct Walk<'a> {
    tree: &'a Tree,
    candidates: Candidates,
}

impl Walk<'_> {
    /// Below an opaque directory everything is new: the kernel marks only the highest one, since a directory that is made
    /// inside it has nothing to hide from itself.
    fn directory(&mut self, dir: OwnedFd, path: &RelPath, is_new: bool) -> Result<()> {
        let is_new = is_new || Mark::of_file(dir.as_fd(), path)? == Mark::Opaque;
        let mut hidden = if is_new { self.tree.names(path) } else { Default::default() };
        for name in names(dir.as_fd()).map_err(at("read directory", path))? {
            let path = path.child(&name)?;
            match Mark::of(dir.as_fd(), &name, &path)? {
                Mark::Whiteout => _ = self.candidates.deleted.insert(path),
                Mark::Directory(dir) => {
                    hidden.remove(&name);
                    self.directory(dir, &path, is_new)?;
                    self.candidates.changed.insert(path);
                }
                Mark::None | Mark::Opaque => {
                    hidden.remove(&name);
                    self.candidates.changed.insert(path);
                }
            }
        }
        for name in hidden {
            self.candidates.deleted.insert(path.child(&name)?);
        }
        Ok(())
    }
}

/// What overlayfs says with a path of the upper directory beyond what it is.
#[derive(Debug)]
enum Mark {
    /// Nothing.
    None,
    /// A directory, whose own mark is asked for when it is read.
    Directory(OwnedFd),
    /// A directory that hides the lower one.
    Opaque,
    /// A path that is gone.
    Whiteout,
}

impl PartialEq for Mark {
    fn eq(&self, other: &Self) -> bool {
        std::mem::discriminant(self) == std::mem::discriminant(other)
    }
}

impl Mark {
    fn of(dir: BorrowedFd<'_>, name: &[u8], path: &RelPath) -> Result<Self> {
        let stat = rustix::fs::statat(dir, name, AtFlags::SYMLINK_NOFOLLOW).map_err(at("stat", path))?;
        let kind = FileType::from_raw_mode(stat.st_mode);
        Ok(match kind {
            FileType::CharacterDevice if stat.st_rdev == 0 => Self::Whiteout,
            FileType::RegularFile | FileType::Directory => {
                let fd = open_quietly(dir, name).map_err(at("open", path))?;
                if kind == FileType::Directory {
                    return Ok(Self::Directory(fd));
                }
                match Self::of_file(fd.as_fd(), path)? {
                    Self::Whiteout if stat.st_size == 0 => Self::Whiteout,
                    _ => Self::None,
                }
            }
            _ => Self::None,
        })
    }

    /// What the attributes of an open file or directory say.
    fn of_file(fd: BorrowedFd<'_>, path: &RelPath) -> Result<Self> {
        for name in xattr_names(fd).map_err(at("listxattr", path))? {
            let Some(own) = [&b"user.overlay."[..], b"trusted.overlay."].iter().find_map(|own| name.strip_prefix(*own))
            else {
                continue;
            };
            match own {
                b"whiteout" => return Ok(Self::Whiteout),
                // The value x says that there may be whiteouts in the form of attributes, which are looked for anyway.
                b"opaque" if value(fd, &name).map_err(at("getxattr", path))?.as_deref() == Some(b"y") => {
                    return Ok(Self::Opaque);
                }
                b"redirect" | b"metacopy" => {
                    let reason = "only points to a lower directory: overlayfs must be mounted without redirects";
                    return Err(Error::Entry { name: path.to_string(), reason });
                }
                _ => {}
            }
        }
        Ok(Self::None)
    }
}
