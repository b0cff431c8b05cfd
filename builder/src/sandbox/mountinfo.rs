//! What is mounted where.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

use super::error::{Result, Syscall};

/// One line of `/proc/self/mountinfo`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Mount {
    /// What of its file system it shows.
    pub(super) root: PathBuf,
    /// Where it is.
    pub(super) point: PathBuf,
    /// What kind of file system it is.
    pub(super) kind: String,
    /// Whether it, or its file system, is read-only.
    pub(super) read_only: bool,
    /// The options of its file system.
    pub(super) options: String,
}

/// All mounts of this process, in the order in which they were made.
pub(super) fn mounts() -> Result<Vec<Mount>> {
    let path = "/proc/self/mountinfo";
    let text = std::fs::read(path).on("read", path)?;
    Ok(text.split(|&byte| byte == b'\n').filter_map(parse).collect())
}

/// `36 35 98:0 /mnt1 /mnt2 rw,noatime master:1 - ext3 /dev/root rw,errors=continue`: proc(5). The number of optional
/// fields before the dash varies.
pub(super) fn parse(line: &[u8]) -> Option<Mount> {
    let path = |field: &[u8]| PathBuf::from(OsString::from_vec(unescape(field)));
    let mut fields = line.split(|&byte| byte == b' ');
    let root = fields.nth(3)?;
    let point = fields.next()?;
    let options = fields.next()?;
    let mut rest = fields.skip_while(|&field| field != b"-").skip(1);
    let kind = rest.next()?;
    let super_options = rest.nth(1)?;
    let is_read_only = |options: &[u8]| options.split(|&byte| byte == b',').any(|option| option == b"ro");
    Some(Mount {
        root: path(root),
        point: path(point),
        kind: String::from_utf8_lossy(kind).into_owned(),
        read_only: is_read_only(options) || is_read_only(super_options),
        options: String::from_utf8_lossy(super_options).into_owned(),
    })
}

/// The kernel writes space, tab, newline and backslash as three octal digits.
fn unescape(field: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some((&byte, tail)) = rest.split_first() {
        let octal = |digits: &[u8]| {
            let text = std::str::from_utf8(digits).ok()?;
            u8::from_str_radix(text, 8).ok()
        };
        match tail.get(..3).filter(|_| byte == b'\\').and_then(octal) {
            Some(code) => {
                out.push(code);
                rest = &tail[3..];
            }
            None => {
                out.push(byte);
                rest = tail;
            }
        }
    }
    out
}

/// The mount that a path is on: of those that hold it, the deepest, and of equally deep ones the last.
pub(super) fn mount_of<'a>(mounts: &'a [Mount], path: &Path) -> Option<&'a Mount> {
    let holding = mounts.iter().filter(|mount| path.starts_with(&mount.point));
    holding.max_by_key(|mount| mount.point.components().count())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_have_a_varying_number_of_fields_and_escaped_names() {
        let line = b"36 35 98:0 /a /mnt\\0402 rw,noatime master:1 shared:2 - ext4 /dev/vda ro,discard";
        let mount = parse(line).unwrap();
        let (root, point, kind) = ("/a".into(), "/mnt 2".into(), "ext4".into());
        assert_eq!(mount, Mount { root, point, kind, read_only: true, options: "ro,discard".into() });
        assert_eq!(parse(b"22 1 0:5 / / rw - overlay overlay rw").unwrap().kind, "overlay");
        assert!(parse(b"").is_none());
    }

    #[test]
    fn the_last_of_the_deepest_mounts_holds_a_path() {
        let mount = |point: &str, kind: &str| {
            let (root, options) = ("/".into(), "rw".into());
            Mount { root, point: point.into(), kind: kind.into(), read_only: false, options }
        };
        let mounts = [mount("/", "overlay"), mount("/b", "ext4"), mount("/b", "tmpfs"), mount("/bc", "xfs")];
        let kind = |path| mount_of(&mounts, Path::new(path)).unwrap().kind.as_str();
        assert_eq!((kind("/a"), kind("/b/x"), kind("/bc"), kind("/bcd")), ("overlay", "tmpfs", "xfs", "overlay"));
    }
}
