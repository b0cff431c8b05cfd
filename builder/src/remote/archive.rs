//! Unpacking a context: a tar, however it is compressed, becomes a directory that nothing in it can leave.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use rustix::process::{getegid, geteuid};
use yadokari_layers::{Entry, Kind, RelPath, Root, compress, tar};

/// The bytes that say whether a file is an archive: one tar header, decompressed.
const HEADER: usize = 512;

/// What a file is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Format {
    /// A tar, perhaps compressed.
    Tar,
    /// Compressed by a program whose format is not read here.
    Unsupported(&'static str),
    /// Something else.
    Other,
}

/// Looks at the first bytes of a file.
pub(super) fn format(file: &Path) -> io::Result<Format> {
    let start = head(File::open(file)?);
    if start.starts_with(b"BZh") {
        return Ok(Format::Unsupported("bzip2"));
    }
    if start.starts_with(b"\xfd7zXZ\0") {
        return Ok(Format::Unsupported("xz"));
    }
    let plain = match compress::decoder(File::open(file)?) {
        Ok(plain) => head(plain),
        Err(_) => return Ok(Format::Other),
    };
    let is_tar = plain.len() == HEADER && (plain[257..262] == *b"ustar" || has_checksum(&plain));
    Ok(if is_tar { Format::Tar } else { Format::Other })
}

/// The first bytes; fewer where the file ends or breaks before.
fn head(reader: impl Read) -> Vec<u8> {
    let mut bytes = Vec::new();
    _ = reader.take(HEADER as u64).read_to_end(&mut bytes);
    bytes
}

/// Whether a header is one of the oldest form, which has no magic: its checksum says so.
fn has_checksum(header: &[u8]) -> bool {
    let field = &header[148..156];
    let digits = String::from_utf8_lossy(field);
    let digits = digits.trim_matches([' ', '\0']);
    let sum = |bytes: &[u8]| bytes.iter().map(|&byte| u32::from(byte)).sum::<u32>();
    let expected = sum(&header[..148]) + 8 * u32::from(b' ') + sum(&header[156..]);
    header[0] != 0 && u32::from_str_radix(digits, 8) == Ok(expected)
}

/// Unpacks a tar into `directory`. Files belong to this process, and their attributes are left out: a context has neither.
pub(super) fn unpack(file: &Path, directory: &Path) -> yadokari_layers::Result<()> {
    let open = File::open(file);
    let open = open.map_err(|source| yadokari_layers::Error::Host { operation: "open", path: file.into(), source })?;
    let root = Root::open(directory)?;
    let mut directories: Vec<(RelPath, Entry)> = Vec::new();
    tar::read(compress::decoder(open)?, |path, item, content| {
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
        unpack(&file, &directory.path().join("out")).map_err(|error| error.to_string())?;
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

    #[test]
    fn archives_are_known_by_their_content() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("x");
        let of = |bytes: &[u8]| {
            fs::write(&file, bytes).unwrap();
            format(&file).unwrap()
        };
        let tar = archive(&[("a", FILE, 0o644, "")]);
        assert_eq!(of(&tar), Format::Tar);
        let mut old = ::tar::Header::new_old();
        old.set_path("a").unwrap();
        old.set_size(0);
        old.set_cksum();
        assert_eq!(of(old.as_bytes()), Format::Tar);
        assert_eq!(of(b"FROM scratch\n"), Format::Other);
        assert_eq!(of(b""), Format::Other);
        assert_eq!(of(&[0; 1024]), Format::Other);
        assert_eq!(of(b"BZh91AY"), Format::Unsupported("bzip2"));
        assert_eq!(of(b"\xfd7zXZ\0"), Format::Unsupported("xz"));
    }
}
