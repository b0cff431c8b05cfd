//! What the benches work on: the same bytes, names and times everywhere.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use tempfile::TempDir;
use yadokari_layers::apply::apply;
use yadokari_layers::{Changes, Content, Entry, Kind, RelPath, Root, Timestamp};

use crate::Result;

/// Files of the directory that is scanned, and of each directory in it.
const MANY: usize = 3_000;
const PER_DIRECTORY: usize = 50;

/// Files of what is packed and materialised.
const FILES: usize = 1_500;

/// The size of the one large text and of the one file that no compressor makes smaller.
const LARGE: usize = 1 << 20;

/// `statfs` says this of tmpfs, where a scan reads all contents: another operation, which is not what is measured.
const TMPFS_MAGIC: i64 = 0x0102_1994;

/// A fresh directory that is not on tmpfs.
pub(crate) fn place() -> Result<TempDir> {
    for parent in [env!("CARGO_TARGET_TMPDIR"), "/var/tmp"] {
        fs::create_dir_all(parent)?;
        if rustix::fs::statfs(parent)?.f_type != TMPFS_MAGIC {
            return Ok(tempfile::tempdir_in(parent)?);
        }
    }
    Err("neither the target directory nor /var/tmp is anything else than a tmpfs".into())
}

/// Makes the directory `path` of `changes`.
pub(crate) fn root(changes: &Changes, path: &Path) -> Result<Root> {
    fs::create_dir(path)?;
    let root = Root::open(path)?;
    apply(changes, &root)?;
    Ok(root)
}

/// The same changes, their contents in files below the new directory `path`.
pub(crate) fn of_root(changes: Changes, path: &Path) -> Result<Changes> {
    let root = Arc::new(root(&changes, path)?);
    let mut placed = Changes::new();
    for (path, change) in changes {
        if let yadokari_layers::Change::Put(entry, content) = change {
            let is_here = matches!(content, Content::Bytes(_));
            let content = if is_here { Content::In(Arc::clone(&root), path.clone()) } else { content };
            placed.put(path, entry, content);
        }
    }
    Ok(placed)
}

/// Many small files, and a link in each directory.
pub(crate) fn many_files() -> Changes {
    let mut input = Input::default();
    for directory in 0..MANY / PER_DIRECTORY {
        let name = format!("usr/share/part-{directory:03}");
        input.directory(&name);
        for file in 0..PER_DIRECTORY {
            input.file(&format!("{name}/file-{file:02}.txt"), b"content".to_vec());
        }
        input.link(&format!("{name}/latest"), "file-00.txt");
    }
    input.changes
}

/// Changes some of [`many_files`].
pub(crate) fn edit(root: &Path) -> Result<()> {
    for directory in (0..MANY / PER_DIRECTORY).step_by(4) {
        let directory = root.join(format!("usr/share/part-{directory:03}"));
        fs::write(directory.join("file-01.txt"), "other content")?;
        fs::write(directory.join("new.txt"), "new")?;
        fs::remove_file(directory.join("file-02.txt"))?;
    }
    fs::remove_dir_all(root.join("usr/share/part-001"))?;
    Ok(())
}

/// Texts of some KB, a large one, one that does not compress, and links of both kinds.
pub(crate) fn project() -> Changes {
    let mut input = Input::default();
    for number in 0..FILES {
        let directory = format!("srv/app/part-{:02}", number / PER_DIRECTORY);
        if number % PER_DIRECTORY == 0 {
            input.directory(&directory);
            input.link(&format!("{directory}/latest"), "../part-00");
        }
        input.file(&name(number), text(number as u64, 100 + number * 7 % 3900));
    }
    input.file("srv/app/large.txt", text(1 << 32, LARGE));
    input.file("srv/app/noise.bin", noise(1 << 32, LARGE));
    input.hard_link("srv/app/noise.copy", "srv/app/noise.bin");
    input.changes
}

/// The project, a layer that replaces and deletes a part of it, and one that adds to it.
pub(crate) fn layers() -> [Changes; 3] {
    let (mut second, mut third) = (Input::default(), Input::default());
    for number in (0..FILES).step_by(10) {
        second.file(&name(number), text(number as u64 + 1, 1500));
        second.changes.delete(path(&name(number + 1)));
        third.file(&format!("{}.more", name(number)), text(number as u64 + 2, 900));
    }
    [project(), second.changes, third.changes]
}

fn name(number: usize) -> String {
    format!("srv/app/part-{:02}/module-{number:04}.txt", number / PER_DIRECTORY)
}

/// Changes that belong to whoever runs the bench, who may make them so.
#[derive(Default)]
struct Input {
    changes: Changes,
}

impl Input {
    fn directory(&mut self, name: &str) {
        self.put(name, Entry::directory(0o755, TIME), Content::Empty);
    }

    fn file(&mut self, name: &str, content: Vec<u8>) {
        self.put(name, Entry::file(content.len() as u64, 0o644, TIME), Content::Bytes(content.into()));
    }

    fn link(&mut self, name: &str, target: &str) {
        let kind = Kind::Symlink { target: target.into() };
        self.put(name, Entry { kind, ..Entry::file(0, 0o777, TIME) }, Content::Empty);
    }

    fn hard_link(&mut self, name: &str, target: &str) {
        let kind = Kind::Hardlink { target: path(target) };
        self.put(name, Entry { kind, ..Entry::file(0, 0o644, TIME) }, Content::Empty);
    }

    fn put(&mut self, name: &str, entry: Entry, content: Content) {
        let (uid, gid) = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
        self.changes.put(path(name), Entry { uid, gid, ..entry }, content);
    }
}

const TIME: Timestamp = Timestamp { secs: 1_000_000_000, nanos: 0 };

fn path(name: &str) -> RelPath {
    RelPath::new(name).expect("the names of the benches are paths")
}

/// Words, which gzip makes a third of.
fn text(seed: u64, size: usize) -> Vec<u8> {
    let mut numbers = Numbers::new(seed);
    let mut text = Vec::with_capacity(size + 16);
    while text.len() < size {
        // The smaller ones are more frequent, as words are.
        let word = numbers.next() % (1 + numbers.next() % 2000);
        text.extend_from_slice(format!("{:x} ", word * 0x9e37_79b9).as_bytes());
    }
    text.truncate(size);
    text
}

fn noise(seed: u64, size: usize) -> Vec<u8> {
    let mut numbers = Numbers::new(seed);
    let words = std::iter::repeat_with(|| numbers.next().to_le_bytes());
    words.take(size.div_ceil(8)).flatten().take(size).collect()
}

/// Marsaglia's xorshift.
struct Numbers(u64);

impl Numbers {
    fn new(seed: u64) -> Self {
        Self(seed ^ 0x9e37_79b9_7f4a_7c15)
    }

    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }
}
