//! Unpacking a context: a tar, however it is compressed, becomes a directory that nothing in it can leave.

use std::fs::File;
use std::io;
use std::path::Path;

use rustix::process::{getegid, geteuid};
use yadokari_layers::{Entry, Kind, Limits, RelPath, Root, tar};

use crate::archive::{self, decoder, head};

/// Whether a file is an archive.
pub(super) fn is_archive(file: &Path) -> Result<bool, crate::Error> {
    Ok(head(decoder(open(file)?)?).is_some_and(|head| archive::is_archive(&head)))
}

fn open(file: &Path) -> Result<File, crate::Error> {
    File::open(file).map_err(|source| crate::Error::Context { path: file.to_owned(), source })
}

/// Unpacks a tar into `directory`. Files belong to this process, and their attributes are left out: a context has neither.
pub(super) fn unpack(file: &Path, limits: &Limits, directory: &Path) -> Result<(), crate::Error> {
    let root = Root::open(directory)?;
    let mut directories: Vec<(RelPath, Entry)> = Vec::new();
    tar::read(decoder(open(file)?)?, limits, |path, item, content| {
        let tar::Item::Put(mut entry) = item else {
            // What layers use to delete files is, in a context, a file like any other; none has a use for it.
            let reason = "a name that starts with .wh. is kept for layers";
            let source = io::Error::new(io::ErrorKind::InvalidData, reason);
            return Err(yadokari_layers::Error::Path { operation: "unpack", path, source });
        };
        (entry.uid, entry.gid) = (geteuid().as_raw(), getegid().as_raw());
        entry.xattrs.clear();
        if let Some(parent) = path.parent() {
            root.create_dir_all(&parent, 0o755)?;
        }
        if matches!(entry.kind, Kind::Directory) {
            directories.push((path.clone(), entry.clone()));
            // Whatever the archive says, files are still to be put into it.
            entry.mode |= 0o700;
        }
        root.put(&path, &entry, content)?;
        Ok(())
    })?;
    // The innermost first: a change in a directory would change its time.
    for (path, entry) in directories.iter().rev() {
        root.set_metadata(path, entry)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn archive(entries: &[(&str, ::tar::EntryType, u32, &str)]) -> Vec<u8> {
        let mut builder = ::tar::Builder::new(Vec::new());
        for (name, kind, mode, content) in entries {
            let mut header = ::tar::Header::new_ustar();
            header.set_entry_type(*kind);
            header.set_mode(*mode);
            header.as_ustar_mut().unwrap().name[..name.len()].copy_from_slice(name.as_bytes());
            let is_link = matches!(kind, ::tar::EntryType::Symlink | ::tar::EntryType::Link);
            header.set_size(if is_link { 0 } else { content.len() as u64 });
            if is_link {
                header.set_link_name(content).unwrap();
            }
            header.set_cksum();
            builder.append(&header, if is_link { &b""[..] } else { content.as_bytes() }).unwrap();
        }
        builder.into_inner().unwrap()
    }

    fn unpacked(bytes: &[u8]) -> Result<tempfile::TempDir, String> {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("archive");
        fs::write(&file, bytes).unwrap();
        fs::create_dir(directory.path().join("out")).unwrap();
        unpack(&file, &Limits { size: 1 << 20, entries: 100 }, &directory.path().join("out"))
            .map_err(|error| error.to_string())?;
        Ok(directory)
    }

    const FILE: ::tar::EntryType = ::tar::EntryType::Regular;

    #[test]
    fn an_archive_becomes_a_directory() {
        let bytes = archive(&[
            ("./", ::tar::EntryType::Directory, 0o755, ""),
            ("./locked", ::tar::EntryType::Directory, 0o555, ""),
            ("./locked/file", FILE, 0o4711, "content"),
            ("deep/below/file", FILE, 0o600, ""),
            ("link", ::tar::EntryType::Symlink, 0o777, "locked/file"),
            ("hard", ::tar::EntryType::Link, 0o644, "locked/file"),
        ]);
        let directory = unpacked(&bytes).unwrap();
        let out = directory.path().join("out");
        let mode = |path: &str| fs::symlink_metadata(out.join(path)).unwrap().permissions().mode() & 0o7777;
        assert_eq!([mode("locked"), mode("locked/file"), mode("deep/below/file")], [0o555, 0o4711, 0o600]);
        assert_eq!(fs::read_to_string(out.join("link")).unwrap(), "content");
        assert_eq!(fs::read_to_string(out.join("hard")).unwrap(), "content");
    }

    #[test]
    fn nothing_leaves_the_directory() {
        let outside = tempfile::tempdir().unwrap();
        let target = outside.path().to_str().unwrap();
        for entries in [
            &[("../escaped", FILE, 0o644, "x")][..],
            &[("link", ::tar::EntryType::Symlink, 0o777, target), ("link/escaped", FILE, 0o644, "x")],
            &[("link", ::tar::EntryType::Symlink, 0o777, ".."), ("link/escaped", FILE, 0o644, "x")],
            &[("/escaped", FILE, 0o644, "x")],
            &[("hard", ::tar::EntryType::Link, 0o644, "../archive")],
        ] {
            // It is refused, or stays inside.
            if let Ok(directory) = unpacked(&archive(entries)) {
                assert!(!directory.path().join("escaped").exists());
                assert!(!directory.path().join("out/hard").exists());
            }
            assert_eq!(fs::read_dir(outside.path()).unwrap().count(), 0);
        }
    }

    #[test]
    fn cut_and_foreign_archives_are_errors() {
        let whole = archive(&[("a", FILE, 0o644, &"1".repeat(2000))]);
        assert!(unpacked(&whole[..1000]).is_err());
        assert!(unpacked(&archive(&[(".wh.a", FILE, 0o644, "")])).unwrap_err().contains(".wh."));
    }
}
