//! Writing changes as the one tar that says them.

use std::io::{self, Read, Write};

use tar::{EntryType, Header};

use super::header::number;
use super::pax::{self, Records};
use super::pipe::{Out, Pipe, Plain};
use super::read::{MAX_EXTENSION, padding};
use super::{Indexer, WHITEOUT};
use crate::changes::Opened;
use crate::digest::Hasher;
use crate::{Change, Changes, Content, Entry, Error, Index, IndexBuilder, Kind, RelPath, Result, Timestamp};

/// The highest number that fits into a header field of twelve bytes, and of eight.
const MAX_LONG: u64 = 0o777_7777_7777;
const MAX_SHORT: u64 = 0o777_7777;

/// Content passes in pieces of this size.
const PIECE: usize = 128 * 1024;

/// Writes `changes` as a layer to `out`, and says what the layer says.
///
/// The bytes depend on the changes and on nothing else: paths are sorted, owners have no names, times are whole seconds,
/// none of them later than `clamp`. Extended headers appear only where the plain header has no room: long names, large
/// numbers, times before 1970, attributes. A deleted path is an empty file `.wh.<name>` of mode 0 and time 0, as
/// containerd writes it. Two blocks of zeros end the archive.
///
/// The returned index equals [`index`](super::index) of the bytes. A file whose content is shorter or longer than its
/// entry's size, or not what its entry's digest says where it says one, is an error that names the path.
pub fn write<W: Write>(changes: &Changes, clamp: Option<i64>, out: W) -> Result<(W, Index)> {
    let (Plain(out), indexer) = write_all(changes, clamp, Plain(out), Some(Indexer::default()))?;
    Ok((out, indexer.unwrap_or_default().finish()))
}

/// Like [`write`], for whoever indexes the bytes where they arrive: contents are not hashed here.
pub fn stream<W: Write>(changes: &Changes, clamp: Option<i64>, out: W) -> Result<W> {
    write_all(changes, clamp, Plain(out), None).map(|(Plain(out), _)| out)
}

/// The same, to another process.
pub fn pipe(changes: &Changes, clamp: Option<i64>, out: &mut Pipe) -> Result<()> {
    write_all(changes, clamp, out, None).map(drop)
}

fn write_all<W: Out>(
    changes: &Changes,
    clamp: Option<i64>,
    out: W,
    indexer: Option<Indexer>,
) -> Result<(W, Option<Indexer>)> {
    let mut writer = Writer { out, indexer, buffer: vec![0; PIECE] };
    for (path, change) in changes.iter() {
        match change {
            Change::Put(entry, content) => writer.put(path, normal(entry, clamp), content)?,
            Change::Delete => writer.delete(path)?,
        }
    }
    writer.out.write_all(&[0; 1024]).map_err(failed)?;
    Ok((writer.out, writer.indexer))
}

/// The entry as the tar can say it.
fn normal(entry: &Entry, clamp: Option<i64>) -> Entry {
    let secs = entry.mtime.secs.min(clamp.unwrap_or(i64::MAX));
    let mut entry = Entry { mtime: Timestamp::from_secs(secs), mode: entry.mode & 0o7777, ..entry.clone() };
    if matches!(entry.kind, Kind::Symlink { .. }) {
        // Linux shows this mode for every link; file systems that store another one must not show.
        entry.mode = 0o777;
    }
    entry
}

fn failed(source: io::Error) -> Error {
    Error::Stream { operation: "write layer", source }
}

struct Writer<W> {
    out: W,
    /// Where it is wanted.
    indexer: Option<Indexer>,
    buffer: Vec<u8>,
}

impl<W: Out> Writer<W> {
    fn delete(&mut self, path: &RelPath) -> Result<()> {
        refuse_whiteout(path)?;
        let directory = path.parent().unwrap_or_default();
        let marker = directory.child(&[WHITEOUT, path.file_name().unwrap_or_default()].concat())?;
        self.header(&marker, &Entry::file(0, 0, Timestamp::default()))?;
        if let Some(indexer) = &mut self.indexer {
            indexer.mark(path.clone(), false);
        }
        Ok(())
    }

    fn put(&mut self, path: &RelPath, mut entry: Entry, content: &Content) -> Result<()> {
        let refuse = |reason| Err(Error::Entry { name: path.to_string(), reason });
        refuse_whiteout(path)?;
        if entry.uid == u32::MAX || entry.gid == u32::MAX {
            return refuse("has an owner beyond 32 bits");
        }
        self.header(path, &entry)?;
        let mut inline = None;
        if let Kind::File { size, content: digest } = &mut entry.kind {
            let mut kept = (self.indexer.is_some() && IndexBuilder::wants(path, *size)).then(Vec::new);
            let mut hasher = (self.indexer.is_some() || digest.is_some()).then(Hasher::default);
            if *size > 0 || !matches!(content, Content::Empty) {
                let mut open = content.open()?;
                let whole = kept.is_none() && hasher.is_none();
                let left = if whole { *size - self.send(*size, &open)? } else { *size };
                self.copy(path, left, &mut open, |piece| {
                    if let Some(hasher) = &mut hasher {
                        hasher.update(piece);
                    }
                    if let Some(kept) = &mut kept {
                        kept.extend_from_slice(piece);
                    }
                })?;
            }
            self.out.write_all(&[0; 512][..padding(*size) as usize]).map_err(failed)?;
            let found = hasher.map(Hasher::finish);
            if digest.is_some() && *digest != found {
                return Err(changed(path, "it changed while it was read"));
            }
            *digest = found;
            inline = kept;
        }
        match &mut self.indexer {
            Some(indexer) => indexer.put(path.clone(), entry, inline),
            None => Ok(()),
        }
    }

    /// Sends what nobody here has to see of a content, and says how much that was.
    fn send(&mut self, size: u64, content: &Opened) -> Result<u64> {
        match content {
            Opened::File(file) => Ok(self.out.send(file, size).map_err(failed)?.unwrap_or(0)),
            Opened::Other(_) => Ok(0),
        }
    }

    fn copy(&mut self, path: &RelPath, size: u64, content: &mut dyn Read, mut on: impl FnMut(&[u8])) -> Result<()> {
        let read = |source| Error::Path { operation: "read content of", path: path.clone(), source };
        let mut left = size;
        loop {
            let length = match content.read(&mut self.buffer) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                answer => answer.map_err(read)?,
            };
            if length == 0 {
                return if left == 0 { Ok(()) } else { Err(changed(path, "it became shorter while it was read")) };
            }
            left =
                left.checked_sub(length as u64).ok_or_else(|| changed(path, "it became longer while it was read"))?;
            let piece = &self.buffer[..length];
            on(piece);
            self.out.write_all(piece).map_err(failed)?;
        }
    }

    /// Writes the header of an entry, after an extended header where one is needed.
    fn header(&mut self, path: &RelPath, entry: &Entry) -> Result<()> {
        let refuse = |reason| Error::Entry { name: path.to_string(), reason };
        let mut header = Header::new_ustar();
        let mut records = Records::new();

        let mut name = path.as_bytes().to_vec();
        if entry.is_directory() {
            name.push(b'/');
        }
        if !set_name(&mut header, &name) {
            set_field(&mut header.as_old_mut().name, &name[..100.min(name.len())]);
            records.insert(b"path".to_vec(), name);
        }
        let link = match &entry.kind {
            Kind::Hardlink { target } => target.as_bytes(),
            Kind::Symlink { target } => target,
            _ => b"",
        };
        if link.contains(&0) {
            return Err(refuse("is a link whose target holds a NUL byte"));
        }
        if link.len() > 100 {
            records.insert(b"linkpath".to_vec(), link.to_vec());
        }
        set_field(&mut header.as_old_mut().linkname, &link[..100.min(link.len())]);

        let mut fit = |key: &str, value: u64, max: u64| {
            if value > max {
                records.insert(key.into(), value.to_string().into());
            }
            if value > max { 0 } else { value }
        };
        let size = if let Kind::File { size, .. } = entry.kind { fit("size", size, MAX_LONG) } else { 0 };
        header.set_size(size);
        header.set_uid(fit("uid", entry.uid.into(), MAX_SHORT));
        header.set_gid(fit("gid", entry.gid.into(), MAX_SHORT));
        header.set_mode(entry.mode);
        let secs = u64::try_from(entry.mtime.secs).ok().filter(|&secs| secs <= MAX_LONG);
        if secs.is_none() {
            records.insert(b"mtime".to_vec(), entry.mtime.secs.to_string().into());
        }
        header.set_mtime(secs.unwrap_or(0));
        header.set_entry_type(match &entry.kind {
            Kind::File { .. } => EntryType::Regular,
            Kind::Directory => EntryType::Directory,
            Kind::Symlink { .. } => EntryType::Symlink,
            Kind::Hardlink { .. } => EntryType::Link,
            Kind::CharDevice { .. } => EntryType::Char,
            Kind::BlockDevice { .. } => EntryType::Block,
            Kind::Fifo => EntryType::Fifo,
        });
        if let Kind::CharDevice { major, minor } | Kind::BlockDevice { major, minor } = entry.kind {
            if u64::from(major.max(minor)) > MAX_SHORT {
                return Err(refuse("has a device number that a tar cannot hold"));
            }
            let ustar = header.as_ustar_mut().expect("the header was made as ustar");
            ustar.set_device_major(major);
            ustar.set_device_minor(minor);
        }
        for (name, value) in &entry.xattrs {
            if name.contains(&b'=') || name.is_empty() {
                return Err(refuse("has an extended attribute whose name a tar cannot hold"));
            }
            records.insert([pax::XATTR, name].concat(), value.to_vec());
        }
        self.extend(path, &records)?;
        header.set_cksum();
        debug_assert_eq!(number(&header.as_old().size), Some(size as i64));
        self.out.write_all(header.as_bytes()).map_err(failed)
    }

    fn extend(&mut self, path: &RelPath, records: &Records) -> Result<()> {
        if records.is_empty() {
            return Ok(());
        }
        let body = pax::format(records);
        if body.len() as u64 > MAX_EXTENSION {
            let reason = "has more extended attributes than a tar can hold";
            return Err(Error::Entry { name: path.to_string(), reason });
        }
        let mut header = Header::new_ustar();
        let name = [b"PaxHeaders.0/", path.file_name().unwrap_or_default()].concat();
        set_field(&mut header.as_old_mut().name, &name[..100.min(name.len())]);
        header.set_entry_type(EntryType::XHeader);
        header.set_mode(0o644);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(0);
        header.set_size(body.len() as u64);
        header.set_cksum();
        self.out.write_all(header.as_bytes()).map_err(failed)?;
        self.out.write_all(&body).map_err(failed)?;
        self.out.write_all(&[0; 512][..padding(body.len() as u64) as usize]).map_err(failed)
    }
}

/// The error of a file that is not what its entry says.
fn changed(path: &RelPath, reason: &'static str) -> Error {
    let source = io::Error::new(io::ErrorKind::InvalidData, reason);
    Error::Path { operation: "read content of", path: path.clone(), source }
}

fn refuse_whiteout(path: &RelPath) -> Result<()> {
    if path.components().any(|component| component.starts_with(WHITEOUT)) {
        return Err(Error::Entry { name: path.to_string(), reason: "has a name that means a deletion in a layer" });
    }
    Ok(())
}

fn set_field(field: &mut [u8], bytes: &[u8]) {
    field[..bytes.len()].copy_from_slice(bytes);
}

/// Sets the name, split at a slash into prefix and name when it has more than 100 bytes. `false` when it has no room.
fn set_name(header: &mut Header, name: &[u8]) -> bool {
    let ustar = header.as_ustar_mut().expect("the header was made as ustar");
    if name.len() <= 100 {
        set_field(&mut ustar.name, name);
        return true;
    }
    // The slash between the parts is not stored; a directory's own last slash is no place to split.
    let split = (0..name.len() - 1).rev().find(|&at| name[at] == b'/' && at <= 155);
    match split {
        Some(at) if at > 0 && name.len() - at - 1 <= 100 => {
            set_field(&mut ustar.prefix, &name[..at]);
            set_field(&mut ustar.name, &name[at + 1..]);
            true
        }
        _ => false,
    }
}
