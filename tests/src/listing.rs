//! What a directory holds: every path, and everything about it that an image keeps.

use std::collections::BTreeMap;
use std::fmt;
use std::fs;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use rustix::fs::{lgetxattr, llistxattr};
use walkdir::WalkDir;

use crate::bases::file_digest;
use crate::error::{At, Result};

/// The paths below a directory, sorted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Listing(pub BTreeMap<PathBuf, Entry>);

/// One path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Its kind and content.
    pub kind: Kind,
    /// Permission bits, with set-id and sticky.
    pub mode: u32,
    /// The owner.
    pub uid: u32,
    /// The group.
    pub gid: u32,
    /// Modification time in seconds.
    pub mtime: i64,
    /// Extended attributes.
    pub xattrs: BTreeMap<String, Vec<u8>>,
}

/// What a path is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A directory.
    Directory,
    /// A regular file.
    File {
        /// In bytes.
        size: u64,
        /// The content's digest.
        digest: String,
        /// The first path of the same file, where it has several.
        same_as: Option<PathBuf>,
    },
    /// A symbolic link, and where it points.
    Symlink(PathBuf),
    /// A device, its letter and its number.
    Device(char, u64),
    /// A named pipe.
    Fifo,
    /// A socket.
    Socket,
}

impl Listing {
    /// Lists `root`, which is not itself listed. Crosses no mount point.
    pub fn of(root: &Path) -> Result<Self> {
        let mut listing = BTreeMap::new();
        let mut first: BTreeMap<(u64, u64), PathBuf> = BTreeMap::new();
        for found in WalkDir::new(root).min_depth(1).same_file_system(true).sort_by_file_name() {
            let found = found.map_err(std::io::Error::from).at("list", root)?;
            let path = found.path().strip_prefix(root).unwrap_or(found.path()).to_owned();
            let mut entry = entry(found.path())?;
            if let Kind::File { same_as, .. } = &mut entry.kind {
                let metadata = fs::symlink_metadata(found.path()).at("stat", found.path())?;
                let key = (metadata.dev(), metadata.ino());
                *same_as = first.get(&key).cloned();
                first.entry(key).or_insert_with(|| path.clone());
            }
            listing.insert(path, entry);
        }
        Ok(Self(listing))
    }

    /// What is at `path`, which has no leading slash.
    pub fn at(&self, path: &str) -> Option<&Entry> {
        self.0.get(Path::new(path))
    }

    /// The same with every time set to zero.
    pub fn timeless(mut self) -> Self {
        self.0.values_mut().for_each(|entry| entry.mtime = 0);
        self
    }

    /// What differs from `other`, one line a path: `-` is only here, `+` only there, `-` and then `+` in both.
    pub fn difference(&self, other: &Self) -> String {
        let mut lines = String::new();
        let mut paths: Vec<_> = self.0.keys().chain(other.0.keys()).collect();
        paths.sort();
        paths.dedup();
        for path in paths {
            let (here, there) = (self.0.get(path), other.0.get(path));
            if here != there {
                let line = |sign, entry: &Entry| format!("{sign} {} {entry}\n", path.display());
                lines += &here.map(|entry| line('-', entry)).unwrap_or_default();
                lines += &there.map(|entry| line('+', entry)).unwrap_or_default();
            }
        }
        lines
    }
}

impl fmt::Display for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:04o} {}:{} @{} ", self.mode, self.uid, self.gid, self.mtime)?;
        match &self.kind {
            Kind::Directory => f.write_str("directory")?,
            Kind::File { size, digest, same_as } => {
                write!(f, "file of {size} bytes, {}", digest.get(..19).unwrap_or(digest))?;
                same_as.iter().try_for_each(|path| write!(f, ", linked to {}", path.display()))?;
            }
            Kind::Symlink(target) => write!(f, "link to {}", target.display())?,
            Kind::Device(letter, number) => write!(f, "device {letter} {number}")?,
            Kind::Fifo => f.write_str("fifo")?,
            Kind::Socket => f.write_str("socket")?,
        }
        self.xattrs.iter().try_for_each(|(name, value)| write!(f, ", {name}={}", value.escape_ascii()))
    }
}

fn entry(path: &Path) -> Result<Entry> {
    let metadata = fs::symlink_metadata(path).at("stat", path)?;
    let kind = metadata.file_type();
    let kind = if kind.is_dir() {
        Kind::Directory
    } else if kind.is_file() {
        Kind::File { size: metadata.len(), digest: file_digest(path)?, same_as: None }
    } else if kind.is_symlink() {
        Kind::Symlink(fs::read_link(path).at("read link", path)?)
    } else if kind.is_fifo() {
        Kind::Fifo
    } else if kind.is_socket() {
        Kind::Socket
    } else {
        Kind::Device(if kind.is_char_device() { 'c' } else { 'b' }, metadata.rdev())
    };
    Ok(Entry {
        kind,
        mode: metadata.mode() & 0o7777,
        uid: metadata.uid(),
        gid: metadata.gid(),
        mtime: metadata.mtime(),
        xattrs: xattrs(path)?,
    })
}

fn xattrs(path: &Path) -> Result<BTreeMap<String, Vec<u8>>> {
    let mut buffer = [0; 4096];
    let size = llistxattr(path, &mut buffer[..]).at("list attributes of", path)?;
    let names = buffer[..size].split(|byte| *byte == 0).filter(|name| !name.is_empty());
    let names: Vec<_> = names.map(|name| String::from_utf8_lossy(name).into_owned()).collect();
    let value = |name: String| {
        let mut value = [0; 4096];
        let size = lgetxattr(path, &*name, &mut value[..]).at("read an attribute of", path)?;
        Ok((name, value[..size].to_owned()))
    };
    names.into_iter().map(value).collect()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn differences_are_told_by_path() {
        let [one, two] = [(); 2].map(|()| tempfile::tempdir().unwrap());
        for directory in [&one, &two] {
            fs::write(directory.path().join("same"), "x").unwrap();
        }
        fs::write(one.path().join("gone"), "x").unwrap();
        symlink("a", one.path().join("link")).unwrap();
        symlink("b", two.path().join("link")).unwrap();
        fs::hard_link(two.path().join("same"), two.path().join("twin")).unwrap();
        let [one, two] = [one, two].map(|directory| Listing::of(directory.path()).unwrap().timeless());
        let difference = one.difference(&two);
        let lines: Vec<_> =
            difference.lines().map(|line| line.split_whitespace().take(2).collect::<String>()).collect();
        assert_eq!(lines, ["-gone", "-link", "+link", "+twin"]);
        assert!(difference.contains("linked to same"), "{difference}");
        assert_eq!(one.difference(&one), "");
    }
}
