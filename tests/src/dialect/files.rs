//! The files of a case, made in a directory.

use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::process::Stdio;

use flate2::Compression;
use flate2::write::GzEncoder;
use rustix::fs::{
    AtFlags, CWD, FileType, Mode, Timespec, Timestamps, XattrFlags, makedev, mknodat, setxattr, utimensat,
};
use walkdir::WalkDir;

use super::case::{Case, File, unescape};
use crate::command::command;
use crate::error::{At, Error, Result};

/// The time of every file that has none of its own.
const TIME: i64 = 1_000_000_000;
/// The time of what is in an archive.
const PACKED: u64 = 1_100_000_000;

impl Case {
    /// Makes the context in `directory`, which is there and empty: the files that all cases have, then its own.
    pub fn write(&self, common: &[File], directory: &Path) -> Result<()> {
        let own = |path: &str| self.files.iter().any(|file| file.path == path);
        let files: Vec<_> = common.iter().filter(|file| !own(&file.path)).chain(&self.files).collect();
        for file in &files {
            file.write(directory)
                .map_err(|error| Error::Case { place: self.place.clone(), detail: error.to_string() })?;
        }
        let times: Vec<_> = files.iter().filter_map(|file| Some((file.name(), file.number("mtime")?))).collect();
        for found in WalkDir::new(directory).contents_first(true) {
            let found = found.map_err(io::Error::from).at("list", directory)?;
            let path = found.path().strip_prefix(directory).unwrap_or(found.path());
            let own = times.iter().find(|(name, _)| Path::new(name) == path).map(|(_, time)| *time);
            let time = Timespec { tv_sec: own.unwrap_or(TIME), tv_nsec: 0 };
            let times = Timestamps { last_access: time, last_modification: time };
            utimensat(CWD, found.path(), &times, AtFlags::SYMLINK_NOFOLLOW).at("set the time of", found.path())?;
        }
        Ok(())
    }
}

impl File {
    fn number(&self, name: &str) -> Option<i64> {
        self.attribute(name)?.parse().ok()
    }

    fn write(&self, directory: &Path) -> Result<()> {
        let path = directory.join(self.name());
        let parent = path.parent().unwrap_or(directory);
        fs::create_dir_all(parent).at("create", parent)?;
        let node = |kind, device| mknodat(CWD, &path, kind, Mode::from_raw_mode(0o644), device).at("make", &path);
        let value = |name| self.attribute(name).map(|value| String::from_utf8_lossy(&unescape(value)).into_owned());
        if let Some(target) = value("link") {
            return symlink(target, &path).at("link", &path);
        } else if let Some(first) = value("hard") {
            return fs::hard_link(directory.join(first), &path).at("link", &path);
        } else if self.attribute("dir").is_some() {
            fs::create_dir_all(&path).at("create", &path)?;
        } else if self.attribute("fifo").is_some() {
            node(FileType::Fifo, 0)?;
        } else if self.attribute("socket").is_some() {
            UnixListener::bind(&path).at("bind", &path)?;
        } else if let Some((major, minor)) = self.attribute("char").and_then(|number| number.split_once(':')) {
            let number = |text: &str| text.parse().unwrap_or(0);
            node(FileType::CharacterDevice, makedev(number(major), number(minor)))?;
        } else {
            let content = match self.attribute("tar") {
                Some(packing) => pack(&archive(&self.body).at("pack", &path)?, packing)?,
                None => self.content(),
            };
            fs::write(&path, content).at("write", &path)?;
        }
        let usual = if self.attribute("dir").is_some() { 0o755 } else { 0o644 };
        let mode = self.attribute("mode").map_or(Ok(usual), |mode| u32::from_str_radix(mode, 8));
        let mode = mode.map_err(io::Error::other).at("read the mode of", &path)?;
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).at("chmod", &path)?;
        for (_, attribute) in self.attributes.iter().filter(|(name, _)| name == "xattr") {
            let (name, value) = attribute.split_once('=').unwrap_or((attribute, ""));
            setxattr(&path, name, &unescape(value), XattrFlags::empty()).at("set an attribute of", &path)?;
        }
        Ok(())
    }
}

/// A tar of what the lines of `body` say: `dir NAME MODE`, `file NAME MODE UID:GID CONTENT`, `link NAME TARGET`,
/// `hard NAME TARGET MODE UID:GID`, `fifo NAME`, `char NAME 1:3`.
fn archive(body: &str) -> io::Result<Vec<u8>> {
    let mut tar = tar::Builder::new(Vec::new());
    for line in body.lines().filter(|line| !line.is_empty()) {
        let words: Vec<&str> = line.split(' ').collect();
        let word = |n: usize| words.get(n).copied().unwrap_or_default();
        let pair = |n: usize, usual: u64| {
            let (one, two) = word(n).split_once(':').unwrap_or_default();
            (one.parse().unwrap_or(usual), two.parse().unwrap_or(usual))
        };
        let mut header = tar::Header::new_gnu();
        header.set_mode(u32::from_str_radix(word(2), 8).unwrap_or(0o644));
        header.set_mtime(PACKED);
        let (uid, gid) = pair(3, 0);
        header.set_uid(uid);
        header.set_gid(gid);
        let content = words.get(4..).filter(|_| word(0) == "file").unwrap_or_default().join(" ");
        header.set_size(0);
        header.set_entry_type(match word(0) {
            "dir" => tar::EntryType::Directory,
            "link" => tar::EntryType::Symlink,
            "hard" => tar::EntryType::Link,
            "fifo" => tar::EntryType::Fifo,
            "char" => tar::EntryType::Char,
            "file" => tar::EntryType::Regular,
            other => return Err(io::Error::other(format!("'{other}' is no kind of entry"))),
        });
        let name = String::from_utf8_lossy(&unescape(word(1))).into_owned();
        match word(0) {
            "link" => {
                header.set_link_name_literal(word(2))?;
                header.set_mode(0o777);
            }
            "hard" => {
                let (uid, gid) = pair(4, 0);
                header.set_uid(uid);
                header.set_gid(gid);
                header.set_link_name_literal(word(2))?;
                header.set_mode(u32::from_str_radix(word(3), 8).unwrap_or(0o644));
            }
            "char" => {
                header.set_mode(0o644);
                let (major, minor) = pair(2, 0);
                header.set_device_major(major as u32)?;
                header.set_device_minor(minor as u32)?;
            }
            _ => header.set_size(content.len() as u64),
        }
        // The name is written as it is: `tar` refuses those that leave the root.
        let field = &mut header.as_old_mut().name;
        field[..name.len()].copy_from_slice(name.as_bytes());
        header.set_cksum();
        tar.append(&header, content.as_bytes())?;
    }
    tar.into_inner()
}

/// Compresses an archive: by a program where no crate is here for it.
fn pack(tar: &[u8], packing: &str) -> Result<Vec<u8>> {
    match packing {
        "gzip" => {
            let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
            encoder.write_all(tar).and_then(|()| encoder.finish()).at("compress", packing)
        }
        "zstd" => zstd::encode_all(tar, 0).at("compress", packing),
        "bzip2" | "xz" => {
            let mut child = command(packing);
            let mut child =
                child.arg("-c").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().at("start", packing)?;
            let written = child.stdin.take().map_or(Ok(()), |mut stdin| stdin.write_all(tar));
            written.at("write to", packing)?;
            Ok(child.wait_with_output().at("wait for", packing)?.stdout)
        }
        _ => Ok(tar.to_owned()),
    }
}
