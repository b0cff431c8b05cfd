//! What a header and its extensions say of an entry.

use std::collections::BTreeMap;

use tar::Header;

use super::pax::{self, Records};
use super::{AUFS, Item, OPAQUE, WHITEOUT};
use crate::{Entry, Error, Kind, RelPath, Result, Timestamp};

/// PATH_MAX, without the NUL byte at the end: nothing that is longer can be put into a root by its name.
const LONGEST_PATH: usize = 4095;

/// NAME_MAX.
const LONGEST_NAME: usize = 255;

/// What the kernel has bits for.
const LARGEST_MAJOR: u32 = (1 << 12) - 1;
const LARGEST_MINOR: u32 = (1 << 20) - 1;

/// A header with everything that came before it on its behalf.
#[derive(Debug)]
pub(super) struct Member {
    pub(super) header: Header,
    pub(super) records: Records,
    /// GNU's long name and long link name.
    pub(super) long_name: Option<Vec<u8>>,
    pub(super) long_link: Option<Vec<u8>>,
}

impl Member {
    fn name(&self) -> Vec<u8> {
        let stated = self.long_name.as_ref().or_else(|| self.records.get(&b"path"[..]));
        stated.cloned().unwrap_or_else(|| self.header.path_bytes().into_owned())
    }

    fn link(&self) -> Vec<u8> {
        let stated = self.long_link.as_ref().or_else(|| self.records.get(&b"linkpath"[..]));
        stated.cloned().or_else(|| self.header.link_name_bytes().map(Into::into)).unwrap_or_default()
    }

    /// The name as it stands in the tar.
    pub(super) fn printable(&self) -> String {
        String::from_utf8_lossy(&self.name()).into_owned()
    }

    pub(super) fn refuse(&self, reason: &'static str) -> Error {
        Error::Entry { name: self.printable(), reason }
    }

    /// The bytes that follow the header. Links, directories, devices and pipes have none, whatever their size says.
    pub(super) fn size(&self) -> Result<u64> {
        match self.flag() {
            b'1'..=b'6' => Ok(0),
            _ => {
                let size = self.number("size", &self.header.as_old().size)?;
                // No file is larger, and with the blocks around it its size is still a number.
                if i64::try_from(size).is_ok() {
                    Ok(size)
                } else {
                    Err(self.refuse("has a size that no file can have"))
                }
            }
        }
    }

    /// The kind of entry. Before POSIX a directory was a file whose name ends with a slash.
    fn flag(&self) -> u8 {
        match self.header.as_old().linkflag[0] {
            0 if self.name().ends_with(b"/") => b'5',
            0 | b'7' => b'0',
            flag => flag,
        }
    }

    /// A number that an extension may state in place of the header.
    fn number(&self, key: &str, field: &[u8]) -> Result<u64> {
        let number = match self.records.get(key.as_bytes()) {
            Some(stated) => pax::decimal(stated),
            None => number(field).and_then(|number| number.try_into().ok()),
        };
        number.ok_or_else(|| self.refuse("has a number in its header that is none"))
    }

    fn id(&self, key: &str, field: &[u8]) -> Result<u32> {
        let id = self.number(key, field)?;
        // The highest id means "unchanged" to the kernel, so that no file can have it.
        u32::try_from(id).ok().filter(|&id| id != u32::MAX).ok_or_else(|| self.refuse("has an owner beyond 32 bits"))
    }

    fn mtime(&self) -> Result<Timestamp> {
        match self.records.get(&b"mtime"[..]) {
            Some(stated) => pax::time(stated),
            None => number(&self.header.as_old().mtime).map(Timestamp::from_secs),
        }
        .ok_or_else(|| self.refuse("has no valid modification time"))
    }

    fn device(&self) -> Result<(u32, u32)> {
        let fields = match (self.header.as_ustar(), self.header.as_gnu()) {
            (Some(ustar), _) => Some((&ustar.dev_major, &ustar.dev_minor)),
            (_, Some(gnu)) => Some((&gnu.dev_major, &gnu.dev_minor)),
            _ => None,
        };
        let read = |field: &[u8]| number(field).and_then(|number| u32::try_from(number).ok());
        fields
            .and_then(|(major, minor)| Some((read(major)?, read(minor)?)))
            .filter(|&(major, minor)| major <= LARGEST_MAJOR && minor <= LARGEST_MINOR)
            .ok_or_else(|| self.refuse("has no valid device number"))
    }

    /// The path and what is said of it. `None` for what means nothing: the root itself, and AUFS's own files.
    pub(super) fn decode(&self) -> Result<Option<(RelPath, Item)>> {
        let path = RelPath::new(self.name()).map_err(|invalid| self.refuse(invalid.reason))?;
        if path.as_bytes().len() > LONGEST_PATH || path.components().any(|component| component.len() > LONGEST_NAME) {
            return Err(self.refuse("has a name that is longer than any file's"));
        }
        let kind = self.kind(&path)?;
        let Some(name) = path.file_name() else {
            return if kind == Kind::Directory { Ok(None) } else { Err(self.refuse("is the root, but no directory")) };
        };
        let directory = path.parent().unwrap_or_default();
        if name == OPAQUE {
            return self.marker(directory, Item::Opaque);
        }
        if path.components().any(|component| component.starts_with(AUFS)) {
            return Ok(None);
        }
        if let Some(gone) = name.strip_prefix(WHITEOUT) {
            let gone = directory.child(gone).map_err(|_| self.refuse("is a whiteout of no name"))?;
            return self.marker(gone, Item::Delete);
        }
        if directory.components().any(|component| component.starts_with(WHITEOUT)) {
            return Err(self.refuse("lies below a whiteout"));
        }
        let old = self.header.as_old();
        let entry = Entry {
            kind,
            mode: self.number("mode", &old.mode)? as u32 & 0o7777,
            uid: self.id("uid", &old.uid)?,
            gid: self.id("gid", &old.gid)?,
            mtime: self.mtime()?,
            xattrs: self.xattrs(),
        };
        Ok(Some((path, Item::Put(entry))))
    }

    fn marker(&self, path: RelPath, item: Item) -> Result<Option<(RelPath, Item)>> {
        if path.components().any(|component| component.starts_with(WHITEOUT)) {
            return Err(self.refuse("lies below a whiteout"));
        }
        Ok(Some((path, item)))
    }

    fn kind(&self, path: &RelPath) -> Result<Kind> {
        if self.records.keys().any(|key| key.starts_with(b"GNU.sparse.")) {
            return Err(self.refuse("is a sparse file, which no layer may hold"));
        }
        Ok(match self.flag() {
            b'0' => Kind::File { size: self.size()?, content: None },
            b'1' => {
                let target = RelPath::new(self.link()).map_err(|_| self.refuse("links to a path that climbs out"))?;
                if target.is_root() || target == *path {
                    return Err(self.refuse("is a hard link to no file"));
                }
                Kind::Hardlink { target }
            }
            b'2' => {
                let target = self.link();
                if target.is_empty() || target.contains(&0) {
                    return Err(self.refuse("is a symbolic link to nothing"));
                }
                if target.len() > LONGEST_PATH {
                    return Err(self.refuse("is a symbolic link that is longer than any path"));
                }
                Kind::Symlink { target }
            }
            b'3' => {
                let (major, minor) = self.device()?;
                Kind::CharDevice { major, minor }
            }
            b'4' => {
                let (major, minor) = self.device()?;
                Kind::BlockDevice { major, minor }
            }
            b'5' => Kind::Directory,
            b'6' => Kind::Fifo,
            b'S' => return Err(self.refuse("is a sparse file, which no layer may hold")),
            _ => return Err(self.refuse("has a type that no layer may hold")),
        })
    }

    fn xattrs(&self) -> BTreeMap<crate::entry::XattrName, crate::entry::XattrValue> {
        let named = |(key, value): (&Vec<u8>, &Vec<u8>)| {
            let name = key.strip_prefix(pax::XATTR).filter(|name| !name.is_empty() && !name.contains(&0))?;
            Some((name.to_vec().into(), value.clone().into()))
        };
        self.records.iter().filter_map(named).collect()
    }
}

/// A number of a header: octal digits among spaces and NUL bytes (an empty field is 0), or, when the first bit is set,
/// big-endian two's complement, whose sign is the second bit.
pub(super) fn number(field: &[u8]) -> Option<i64> {
    let (&first, rest) = field.split_first()?;
    if first & 0x80 == 0 {
        let text = field.split(|&byte| byte == 0).find(|part| !part.is_empty()).unwrap_or_default().trim_ascii();
        return text.iter().try_fold(0_i64, |number, &byte| match byte {
            b'0'..=b'7' => number.checked_mul(8)?.checked_add(i64::from(byte - b'0')),
            _ => None,
        });
    }
    let start = if first & 0x40 == 0 { i64::from(first & 0x3f) } else { i64::from(first | 0x80) - 0x100 };
    rest.iter().try_fold(start, |number, &byte| number.checked_mul(256)?.checked_add(i64::from(byte)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_octal_or_binary() {
        assert_eq!(number(b"0000644\0"), Some(0o644));
        assert_eq!(number(b"   644 \0"), Some(0o644));
        assert_eq!(number(b"\0\0\0\0\0\0\0\0"), Some(0));
        assert_eq!(number(b"77777777777 "), Some(0o77777777777));
        assert_eq!(number(b"12x\0"), None);
        assert_eq!(number(b"-1\0"), None);
        assert_eq!(number(&[0x80, 0, 0, 0, 0, 0, 1, 0]), Some(256));
        assert_eq!(number(&[0xff; 12]), Some(-1));
        assert_eq!(number(&[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xfe]), Some(-2));
        assert_eq!(number(&[0xbf, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff]), None);
    }
}
