//! Putting an upper directory onto the lower one that it belongs to.

use std::collections::HashMap;
use std::os::fd::{AsFd, OwnedFd};

use rustix::io::Errno;

use super::Mark;
use crate::root::{at, names, strip};
use crate::{Entry, Kind, RelPath, Result, Root, Skipped};

/// Makes the lower directory `base` what the mount of `upper` over it showed. Afterwards `upper` is used up: what it held
/// was moved where both are on one file system, and copied where not. The root's own owner, mode and time are taken over
/// as well, since the mount showed those of the upper. Returns what the kernel refused to this process.
pub fn fold(upper: &Root, base: &Root) -> Result<Vec<Skipped>> {
    let mut fold = Fold { upper, base, copied: HashMap::new(), skipped: Vec::new() };
    fold.directory(upper.open_dir(&RelPath::root())?, &RelPath::root())?;
    Ok(fold.skipped)
}

struct Fold<'a> {
    upper: &'a Root,
    base: &'a Root,
    /// Where the first name of a copied inode with several names is now.
    copied: HashMap<(u64, u64), RelPath>,
    skipped: Vec<Skipped>,
}

impl Fold<'_> {
    fn directory(&mut self, dir: OwnedFd, path: &RelPath) -> Result<()> {
        if Mark::of_file(dir.as_fd(), path)? == Mark::Opaque {
            self.base.remove(path)?;
        }
        let Some(entry) = self.upper.entry(path)? else { return Ok(()) };
        self.put(path, &entry)?;
        for name in names(dir.as_fd()).map_err(at("read directory", path))? {
            let path = path.child(&name)?;
            match Mark::of(dir.as_fd(), &name, &path)? {
                Mark::Whiteout => self.base.remove(&path)?,
                Mark::Directory(dir) => self.directory(dir, &path)?,
                Mark::None | Mark::Opaque => self.file(&path)?,
            }
        }
        // Everything is inside now.
        self.base.set_times(path, entry.mtime)
    }

    fn file(&mut self, path: &RelPath) -> Result<()> {
        let Some(look) = self.upper.look(path)? else {
            // A socket. What listened on it is gone, but what it replaced is gone too.
            return self.base.remove(path);
        };
        self.clean(path, &look.entry)?;
        if self.rename(path)? {
            return Ok(());
        }
        if look.links > 1 {
            if let Some(first) = self.copied.get(&look.inode) {
                let link = Entry { kind: Kind::Hardlink { target: first.clone() }, ..look.entry };
                return self.put(path, &link);
            }
            self.copied.insert(look.inode, path.clone());
        }
        self.put(path, &look.entry)
    }

    /// Removes what overlayfs keeps in a file's attributes. Other kinds carry none.
    fn clean(&self, path: &RelPath, entry: &Entry) -> Result<()> {
        if !entry.is_file() {
            return Ok(());
        }
        let is_overlay = |name: &[u8]| name.starts_with(b"user.overlay.") || name.starts_with(b"trusted.overlay.");
        let file = self.upper.open_file(path)?;
        strip(file.as_fd(), is_overlay).map_err(at("removexattr", path))
    }

    /// Moves a path. `false` when that is not possible because the two are on different file systems.
    fn rename(&self, path: &RelPath) -> Result<bool> {
        let (from, to) = (self.upper.parent(path)?, self.base.parent(path)?);
        let name = path.file_name().unwrap_or(b".");
        let mut moved = rustix::fs::renameat(&from, name, &to, name);
        if moved == Err(Errno::ISDIR) {
            // A file does not replace a directory by itself.
            self.base.remove(path)?;
            moved = rustix::fs::renameat(&from, name, &to, name);
        }
        match moved {
            Err(Errno::XDEV) => Ok(false),
            answer => answer.map(|()| true).map_err(at("rename", path)),
        }
    }

    fn put(&mut self, path: &RelPath, entry: &Entry) -> Result<()> {
        let skipped = if entry.is_file() {
            self.base.put(path, entry, &mut self.upper.open_file(path)?)?
        } else {
            self.base.put(path, entry, &mut std::io::empty())?
        };
        self.skipped.extend(skipped);
        Ok(())
    }
}
