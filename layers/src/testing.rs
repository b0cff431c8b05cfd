//! What the tests of several modules use.

use std::io::Read;
use std::path::Path;
use std::sync::Arc;

use crate::materialise::Source;
use crate::{Digest, Entry, Kind, Limits, RelPath, Root};

pub(crate) fn path(text: &str) -> RelPath {
    RelPath::new(text).unwrap()
}

/// A directory that is removed at the end of the test, as a root.
pub(crate) fn temp() -> (tempfile::TempDir, Root) {
    let dir = tempfile::tempdir().unwrap();
    let root = Root::open(dir.path()).unwrap();
    (dir, root)
}

/// A tar that nobody should write: headers go out as they are asked for.
#[derive(Default)]
pub(crate) struct Hostile {
    bytes: Vec<u8>,
}

impl Hostile {
    pub(crate) fn entry(mut self, kind: u8, name: &[u8], link: &[u8], content: &[u8]) -> Self {
        let mode = if kind == b'5' { 0o755 } else { 0o644 };
        self.raw(kind, mode, name, link, content.len() as u64, content);
        self
    }

    pub(crate) fn file(self, name: &str, content: &str) -> Self {
        self.entry(b'0', name.as_bytes(), b"", content.as_bytes())
    }

    pub(crate) fn executable(mut self, name: &str, content: &str) -> Self {
        self.raw(b'0', 0o755, name.as_bytes(), b"", content.len() as u64, content.as_bytes());
        self
    }

    pub(crate) fn dir(self, name: &str) -> Self {
        self.entry(b'5', name.as_bytes(), b"", b"")
    }

    pub(crate) fn symlink(self, name: &str, target: &str) -> Self {
        self.entry(b'2', name.as_bytes(), target.as_bytes(), b"")
    }

    pub(crate) fn hardlink(self, name: &str, target: &str) -> Self {
        self.entry(b'1', name.as_bytes(), target.as_bytes(), b"")
    }

    /// The next entry has these records; each is given as `key=value`.
    pub(crate) fn pax(self, records: &[&str]) -> Self {
        let mut body = Vec::new();
        for record in records {
            let length = (record.len() + 3..).find(|n| n.to_string().len() + record.len() + 2 == *n).unwrap();
            body.extend(format!("{length} {record}\n").into_bytes());
        }
        self.entry(b'x', b"pax", b"", &body)
    }

    pub(crate) fn sized(mut self, name: &str, size: u64, content: &[u8]) -> Self {
        self.raw(b'0', 0o644, name.as_bytes(), b"", size, content);
        self
    }

    /// Whatever mode it has.
    pub(crate) fn moded(mut self, name: &str, mode: u32) -> Self {
        self.raw(b'0', mode, name.as_bytes(), b"", 0, b"");
        self
    }

    fn raw(&mut self, kind: u8, mode: u32, name: &[u8], link: &[u8], size: u64, content: &[u8]) {
        let mut header = tar::Header::new_ustar();
        header.as_old_mut().name[..name.len()].copy_from_slice(name);
        header.as_old_mut().linkname[..link.len()].copy_from_slice(link);
        header.as_old_mut().linkflag[0] = kind;
        header.set_mode(mode);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(1_000_000);
        header.set_size(size);
        header.set_device_major(1).unwrap();
        header.set_device_minor(3).unwrap();
        header.set_cksum();
        self.bytes.extend_from_slice(header.as_bytes());
        self.bytes.extend_from_slice(content);
        self.bytes.resize(self.bytes.len().next_multiple_of(512), 0);
    }

    pub(crate) fn end(mut self) -> Vec<u8> {
        self.bytes.extend([0; 1024]);
        self.bytes
    }

    /// Without the blocks of zeros.
    pub(crate) fn cut(self) -> Vec<u8> {
        self.bytes
    }
}

/// A layer of this tar, of which the index is known or not.
pub(crate) fn source(tar: &[u8], is_known: bool) -> Source<'static> {
    let index = is_known.then(|| Arc::new(crate::tar::index(tar).unwrap()));
    let diff_id = Digest::of(tar);
    Source {
        blob: Box::new(std::io::Cursor::new(tar.to_vec())),
        digest: diff_id,
        diff_id,
        index,
        limits: Limits::default(),
    }
}

/// Everything below a directory, one line for each path, for comparing and for reading in a failed test. Times of
/// directories that no layer states are the test's business: `times` says whether to show any.
pub(crate) fn listing(root: &Root, times: bool) -> Vec<String> {
    let mut lines = Vec::new();
    list(root, &RelPath::root(), times, &mut lines);
    lines.sort();
    lines
}

fn list(root: &Root, dir: &RelPath, times: bool, lines: &mut Vec<String>) {
    let fd = root.open_dir(dir).unwrap();
    for name in crate::root::names(std::os::fd::AsFd::as_fd(&fd)).unwrap() {
        let path = dir.child(&name).unwrap();
        let look = root.look(&path).unwrap();
        let Some(look) = look else {
            lines.push(format!("{path} socket"));
            continue;
        };
        let Entry { kind, mode, uid, gid, mtime, xattrs } = &look.entry;
        let mut what = match kind {
            Kind::File { .. } => {
                let mut content = String::new();
                root.open_file(&path).unwrap().read_to_string(&mut content).unwrap();
                format!("{content:?} x{}", look.links)
            }
            Kind::Symlink { target } => format!("-> {}", String::from_utf8_lossy(target)),
            other => format!("{other:?}"),
        };
        if times {
            what += &format!(" @{}.{}", mtime.secs, mtime.nanos);
        }
        lines.push(format!("{path} {mode:o} {uid}:{gid} {what} {xattrs:?}"));
        if look.entry.is_directory() {
            list(root, &path, times, lines);
        }
    }
}

/// Whether this process may mount and chown: tests that need it say so and stop where it may not.
pub(crate) fn is_root(test: &str) -> bool {
    let root = rustix::process::geteuid().is_root();
    if !root {
        println!("{test}: skipped, since it needs root");
    }
    root
}

pub(crate) fn write(dir: &Path, name: &str, content: &str) {
    let path = dir.join(name);
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(path, content).unwrap();
}
