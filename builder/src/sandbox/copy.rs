//! Copying a directory to another file system, or so that a RUN may change it.

use std::collections::HashMap;
use std::os::fd::AsFd;

use yadokari_layers::{Entry, Kind, RelPath, Root, Skipped};

use super::error::{During, Error, Result};
use super::files;

/// Gives an empty directory what another holds, and its attributes. Several names of one file stay so; sockets are left
/// out. Returns what the kernel refused to this process.
pub(super) fn copy(from: &Root, to: &Root) -> Result<Vec<Skipped>> {
    let mut copying = Copying { from, to, names: HashMap::new(), skipped: Vec::new() };
    copying.directory(&RelPath::root()).during("copying a directory")?;
    Ok(copying.skipped)
}

/// Puts what a path is, which is no directory, under another path of another root.
pub(super) fn copy_one(from: &Root, path: &RelPath, to: &Root, at: &RelPath) -> Result<()> {
    let entry = from.entry(path)?.ok_or_else(|| Error::Refused(format!("'/{path}' cannot be copied")))?;
    match entry.kind {
        Kind::File { .. } => to.put(at, &entry, &mut from.open_file(path)?)?,
        _ => to.put(at, &entry, &mut std::io::empty())?,
    };
    Ok(())
}

struct Copying<'a> {
    from: &'a Root,
    to: &'a Root,
    /// The first name of each file that has several.
    names: HashMap<(u64, u64), RelPath>,
    skipped: Vec<Skipped>,
}

impl Copying<'_> {
    fn directory(&mut self, path: &RelPath) -> Result<()> {
        let directory = self.from.open_dir(path)?;
        for name in files::names(directory.as_fd())? {
            let at = path.child(&name).map_err(yadokari_layers::Error::from)?;
            let (Some(entry), Some(stat)) = (self.from.entry(&at)?, files::stat(directory.as_fd(), &name)?) else {
                continue;
            };
            if entry.is_directory() {
                self.put(&at, &entry)?;
                self.directory(&at)?;
                continue;
            }
            #[expect(clippy::useless_conversion, reason = "the width of these fields differs between architectures")]
            let (inode, names) = ((u64::from(stat.st_dev), stat.st_ino), u64::from(stat.st_nlink));
            match self.names.get(&inode).filter(|_| names > 1).cloned() {
                Some(target) => self.put(&at, &Entry { kind: Kind::Hardlink { target }, ..entry })?,
                None => {
                    self.put(&at, &entry)?;
                    self.names.insert(inode, at);
                }
            }
        }
        // What was put into it changed its time.
        if let Some(entry) = self.from.entry(path)? {
            self.skipped.extend(self.to.set_metadata(path, &entry)?);
        }
        Ok(())
    }

    fn put(&mut self, path: &RelPath, entry: &Entry) -> Result<()> {
        let skipped = match entry.kind {
            Kind::File { .. } => self.to.put(path, entry, &mut self.from.open_file(path)?)?,
            _ => self.to.put(path, entry, &mut std::io::empty())?,
        };
        self.skipped.extend(skipped);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};

    use super::*;

    #[test]
    fn a_copy_is_what_it_was_copied_from() {
        let directory = tempfile::tempdir().unwrap();
        let [from, to] = ["from", "to"].map(|name| directory.path().join(name));
        std::fs::create_dir_all(from.join("d/e")).unwrap();
        std::fs::create_dir(&to).unwrap();
        std::fs::write(from.join("d/f"), "content").unwrap();
        std::fs::hard_link(from.join("d/f"), from.join("g")).unwrap();
        symlink("/nowhere", from.join("l")).unwrap();
        let _socket = std::os::unix::net::UnixListener::bind(from.join("s")).unwrap();
        std::fs::set_permissions(from.join("d"), std::fs::Permissions::from_mode(0o2710)).unwrap();
        let old = std::time::UNIX_EPOCH + std::time::Duration::from_nanos(1_000_000_001);
        for name in ["d/f", "d/e", "d", "."] {
            std::fs::File::open(from.join(name)).unwrap().set_modified(old).unwrap();
        }
        let roots = [&from, &to].map(|path| Root::open(path).unwrap());
        assert!(copy(&roots[0], &roots[1]).unwrap().is_empty());
        let said = |root: &std::path::Path, name: &str| {
            let metadata = root.join(name).symlink_metadata().unwrap();
            (metadata.mode(), metadata.modified().unwrap(), metadata.nlink())
        };
        for name in ["d/f", "d/e", "d", "."] {
            assert_eq!(said(&from, name), said(&to, name), "{name}");
        }
        assert_eq!(to.join("g").metadata().unwrap().ino(), to.join("d/f").metadata().unwrap().ino());
        assert_eq!(to.join("l").read_link().unwrap(), std::path::Path::new("/nowhere"));
        assert_eq!(std::fs::read(to.join("g")).unwrap(), b"content");
        assert!(!to.join("s").exists());
    }
}
