//! The build context: a directory whose files COPY and ADD take, less what `.dockerignore` leaves out.
//!
//! It is walked once, when the first COPY from it is planned, and looks like any other source from then on: a
//! [`Tree`] of one layer. Nothing leads out of it: files are opened through a [`Root`].

pub mod glob;
pub mod ignore;
mod named;

use std::collections::{BTreeSet, HashMap};
use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use walkdir::WalkDir;
use yadokari_layers::{Content, Digest, Entry, IndexBuilder, Kind, Part, RelPath, Root, Timestamp, Tree};

use crate::dockerfile::closest;

use ignore::Ignore;
pub use named::{Contexts, Named, Source};

/// A build context.
#[derive(Debug)]
pub struct Context {
    path: PathBuf,
    root: Arc<Root>,
    ignore: Ignore,
    ignore_file: PathBuf,
    tree: OnceLock<Tree>,
    digests: Mutex<HashMap<RelPath, Digest>>,
    /// Directories that we may not read. They matter where something is copied from them.
    unreadable: Mutex<BTreeSet<RelPath>>,
    /// They stand for empty files.
    sockets: Mutex<BTreeSet<RelPath>>,
}

/// A file of a context, or something else that is copied like one.
#[derive(Debug, Clone)]
pub struct Hashed {
    /// Its path below what was asked for.
    pub below: RelPath,
    /// What it is. A file has its digest.
    pub entry: Entry,
    /// Whether it is a directory on the way to what is taken, and is not taken itself.
    pub is_passage: bool,
}

impl Context {
    /// Opens the directory `path`. `<dockerfile>.dockerignore` says what to leave out, else the context's own
    /// `.dockerignore`, else nothing does.
    pub fn open(path: &Path, dockerfile: &Path) -> Result<Self, crate::Error> {
        let mut own = dockerfile.as_os_str().to_owned();
        own.push(".dockerignore");
        Self::with_ignore_files(path, &[PathBuf::from(own), path.join(".dockerignore")])
    }

    /// Opens the directory `path`. The first of `files` that exists says what to leave out.
    fn with_ignore_files(path: &Path, files: &[PathBuf]) -> Result<Self, crate::Error> {
        let missing = |source| crate::Error::Context { path: path.to_owned(), source };
        if !fs::metadata(path).map_err(missing)?.is_dir() {
            return Err(missing(io::Error::from(io::ErrorKind::NotADirectory)));
        }
        let root = Arc::new(Root::open(path)?);
        let mut ignore = (Ignore::default(), path.join(".dockerignore"));
        for file in files {
            match fs::read_to_string(file) {
                Ok(text) => {
                    let bad = |ignore::InvalidRule { line, message }| {
                        let path = file.clone();
                        crate::Error::Ignore { path, line, message }
                    };
                    ignore = (Ignore::parse(&text).map_err(bad)?, file.clone());
                    break;
                }
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(source) => return Err(crate::Error::Host { operation: "read", path: file.clone(), source }),
            }
        }
        let (ignore, ignore_file) = ignore;
        let (tree, digests, unreadable, sockets) = Default::default();
        Ok(Self { path: path.to_owned(), root, ignore, ignore_file, tree, digests, unreadable, sockets })
    }

    /// Opens a directory of which nothing is left out: the tree of a repository, whose ignore file is a file like any
    /// other.
    pub fn whole(path: &Path) -> Result<Self, crate::Error> {
        let root = Arc::new(Root::open(path)?);
        let ((ignore, ignore_file), (tree, digests), (unreadable, sockets)) = Default::default();
        Ok(Self { path: path.to_owned(), root, ignore, ignore_file, tree, digests, unreadable, sockets })
    }

    /// The directory.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The file that says what is left out.
    pub fn ignore_file(&self) -> std::path::Display<'_> {
        self.ignore_file.display()
    }

    /// Whether a path that is not there was left out by the ignore file.
    pub fn is_ignored(&self, path: &str) -> bool {
        let Ok(path) = RelPath::clamped(path) else { return false };
        self.ignore.excludes(&path.to_string()) && fs::symlink_metadata(self.path.join(path.as_path())).is_ok()
    }

    /// Whether the ignore file leaves out whatever there is at `source`, a path or a pattern.
    pub fn leaves_out(&self, source: &str) -> bool {
        let Ok(path) = RelPath::clamped(source) else { return false };
        self.ignore.leaves_out(&path.to_string())
    }

    /// The path that was meant where `path` is not there: one in the same directory, with almost the same name.
    pub fn similar(&self, path: &RelPath) -> Option<String> {
        let path = path.to_string();
        let (directory, name) = path.rsplit_once('/').unwrap_or(("", &path));
        let names = self.tree().ok()?.names(&RelPath::clamped(directory).ok()?);
        let names: Vec<&str> = names.iter().filter_map(|name| std::str::from_utf8(name).ok()).collect();
        let meant = closest(name, names)?;
        Some(if directory.is_empty() { meant.to_owned() } else { format!("{directory}/{meant}") })
    }

    /// All that the context holds. Owners are root, as COPY makes them; contents are not hashed yet.
    pub fn tree(&self) -> Result<&Tree, crate::Error> {
        if let Some(tree) = self.tree.get() {
            return Ok(tree);
        }
        let tree = self.scan()?;
        Ok(self.tree.get_or_init(|| tree))
    }

    /// Where the bytes of a file are. A socket, which stands for an empty file, has none.
    pub fn content(&self, path: &RelPath) -> Content {
        if self.is_socket(path) { Content::Empty } else { Content::In(Arc::clone(&self.root), path.clone()) }
    }

    /// The digest that a file had when it was hashed, if it was.
    pub fn known_digest(&self, path: &RelPath) -> Option<Digest> {
        self.digests.lock().unwrap_or_else(PoisonError::into_inner).get(path).copied()
    }

    fn is_socket(&self, path: &RelPath) -> bool {
        self.sockets.lock().unwrap_or_else(PoisonError::into_inner).contains(path)
    }

    /// Opens a file.
    pub fn open_file(&self, path: &RelPath) -> yadokari_layers::Result<fs::File> {
        self.root.open_file(path)
    }

    /// Fails where `path` is in a directory that we may not read, or holds one that `takes` does not leave out.
    pub fn check_readable(&self, path: &RelPath, takes: &dyn Fn(&RelPath) -> bool) -> Result<(), crate::Error> {
        let unreadable = self.unreadable.lock().unwrap_or_else(PoisonError::into_inner);
        let matters = |directory: &&RelPath| match directory.strip_prefix(path) {
            Some(below) => takes(&below),
            None => path.starts_with(directory),
        };
        match unreadable.iter().find(matters) {
            Some(directory) => Err(crate::Error::Host {
                operation: "read",
                path: self.path.join(directory.as_path()),
                source: io::ErrorKind::PermissionDenied.into(),
            }),
            None => Ok(()),
        }
    }

    /// `path` and what `takes` takes of all below it, with the digests of all files, and the directories on the way there.
    /// A hard link to something that is not among them is a file here: nothing else stands for its content.
    pub fn hashed(&self, path: &RelPath, takes: &dyn Fn(&RelPath) -> bool) -> Result<Vec<Hashed>, crate::Error> {
        let tree = self.tree()?;
        self.check_readable(path, takes)?;
        let parts = tree.part(path, takes).into_iter().map(|Part { below, path: at, found, is_passage }| {
            let (name, entry) = match tree.content(at) {
                Some((name, first)) if !name.strip_prefix(path).is_some_and(|name| takes(&name)) => {
                    (name, first.entry.clone())
                }
                _ => (at, found.entry.clone()),
            };
            (name, Hashed { below, entry, is_passage })
        });
        let mut parts: Vec<(&RelPath, Hashed)> = parts.collect();
        let files = parts.iter().filter(|(_, part)| part.entry.is_file()).map(|(name, _)| *name);
        self.hash(files)?;
        for (name, part) in &mut parts {
            if let Kind::File { content, .. } = &mut part.entry.kind {
                *content = self.known_digest(name);
            }
        }
        Ok(parts.into_iter().map(|(_, part)| part).collect())
    }

    /// Sees to it that the digests of files are known.
    fn hash<'p>(&self, files: impl Iterator<Item = &'p RelPath>) -> Result<(), crate::Error> {
        let (mut unknown, mut sockets) = (Vec::new(), Vec::new());
        for file in files.filter(|file| self.known_digest(file).is_none()) {
            if self.is_socket(file) { sockets.push(file) } else { unknown.push(file) }
        }
        let found = self.root.digests(&unknown)?;
        let nothing = sockets.into_iter().map(|socket| (socket, Digest::of("")));
        let known = unknown.into_iter().zip(found).chain(nothing).map(|(file, digest)| (file.clone(), digest));
        self.digests.lock().unwrap_or_else(PoisonError::into_inner).extend(known);
        Ok(())
    }

    fn scan(&self) -> Result<Tree, crate::Error> {
        let mut index = IndexBuilder::new();
        let mut first_names = HashMap::new();
        // Directories that are left out, but hold an exception: they are in the context as the way to it.
        let mut ways: Vec<(RelPath, Entry)> = Vec::new();
        let mut walk = WalkDir::new(&self.path).min_depth(1).sort_by_file_name().into_iter();
        let metadata = |found: &walkdir::DirEntry| found.metadata().map_err(|error| self.walk_error(error));
        while let Some(found) = walk.next() {
            let found = match found {
                Ok(found) => found,
                Err(error) => {
                    self.leave_out(error)?;
                    continue;
                }
            };
            let below = found.path().strip_prefix(&self.path).expect("the walk stays below where it starts");
            let path = RelPath::new(below.as_os_str().as_bytes()).map_err(yadokari_layers::Error::from)?;
            let text = path.to_string();
            if self.ignore.excludes(&text) {
                if found.file_type().is_dir() {
                    if !self.ignore.may_contain_exception_below(&text) {
                        walk.skip_current_dir();
                    } else if let Some(entry) = self.entry(&path, &metadata(&found)?)? {
                        ways.push((path, entry));
                    }
                }
                continue;
            }
            let metadata = metadata(&found)?;
            let Some(mut entry) = self.entry(&path, &metadata)? else { continue };
            ways.retain(|(way, _)| path.starts_with(way));
            ways.drain(..).for_each(|(way, entry)| index.put(way, entry, None));
            if entry.is_file() && metadata.nlink() > 1 {
                let first = first_names.entry((metadata.dev(), metadata.ino())).or_insert_with(|| path.clone());
                if *first != path {
                    entry.kind = Kind::Hardlink { target: first.clone() };
                }
            }
            index.put(path, entry, None);
        }
        Ok(Tree::of([Arc::new(index.finish())]))
    }

    /// What COPY makes of a file: it belongs to root, and of its attributes only those that a layer means to carry
    /// stay. A socket becomes an empty file, as with BuildKit.
    fn entry(&self, path: &RelPath, metadata: &fs::Metadata) -> Result<Option<Entry>, crate::Error> {
        if metadata.file_type().is_socket() {
            self.sockets.lock().unwrap_or_else(PoisonError::into_inner).insert(path.clone());
            let mtime = Timestamp::from_secs(metadata.mtime());
            return Ok(Some(Entry::file(0, metadata.mode() & 0o7777, mtime)));
        }
        let mut entry = match self.root.entry(path) {
            Ok(Some(entry)) => entry,
            Ok(None) => return Ok(None),
            // Its content cannot be read either, which is an error where it is copied, and only there.
            Err(error) if is_denied(&error) && metadata.is_file() => {
                Entry::file(metadata.len(), metadata.mode() & 0o7777, Timestamp::from_secs(metadata.mtime()))
            }
            Err(error) if is_denied(&error) && metadata.is_dir() => {
                Entry::directory(metadata.mode() & 0o7777, Timestamp::from_secs(metadata.mtime()))
            }
            Err(error) => return Err(error.into()),
        };
        (entry.uid, entry.gid) = (0, 0);
        entry.xattrs.retain(|name, _| name.starts_with(b"user.") || &name[..] == b"security.capability");
        Ok(Some(entry))
    }

    /// Passes over a directory that we may not read, if that is what the walk met.
    fn leave_out(&self, error: walkdir::Error) -> Result<(), crate::Error> {
        let denied = error.io_error().is_some_and(|error| error.kind() == io::ErrorKind::PermissionDenied);
        let below = error.path().and_then(|path| path.strip_prefix(&self.path).ok());
        match below.filter(|below| denied && !below.as_os_str().is_empty()) {
            Some(below) => {
                let path = RelPath::new(below.as_os_str().as_bytes()).map_err(yadokari_layers::Error::from)?;
                self.unreadable.lock().unwrap_or_else(PoisonError::into_inner).insert(path);
                Ok(())
            }
            None => Err(self.walk_error(error)),
        }
    }

    fn walk_error(&self, error: walkdir::Error) -> crate::Error {
        let path = error.path().unwrap_or(&self.path).to_owned();
        let source = error.into_io_error().unwrap_or_else(|| io::Error::other("a loop of directories"));
        crate::Error::Host { operation: "read", path, source }
    }
}

fn is_denied(error: &yadokari_layers::Error) -> bool {
    error
        .raw_os_error()
        .is_some_and(|code| io::Error::from_raw_os_error(code).kind() == io::ErrorKind::PermissionDenied)
}

#[cfg(test)]
mod tests {
    use std::fs::Permissions;
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn context(files: &[(&str, &str)]) -> (tempfile::TempDir, Context) {
        let directory = tempfile::tempdir().unwrap();
        for (path, content) in files {
            let path = directory.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, content).unwrap();
        }
        let context = Context::open(directory.path(), &directory.path().join("Dockerfile")).unwrap();
        (directory, context)
    }

    fn paths(context: &Context) -> Vec<String> {
        context.tree().unwrap().iter().map(|(path, _)| path.to_string()).collect()
    }

    fn all(_: &RelPath) -> bool {
        true
    }

    #[test]
    fn ignored_files_are_not_there_and_exceptions_are() {
        let (_directory, context) = context(&[
            (".dockerignore", "target\n!target/keep\n.dockerignore\n"),
            ("target/x", ""),
            ("target/keep", ""),
            ("a", ""),
        ]);
        assert_eq!(paths(&context), ["a", "target", "target/keep"]);
        assert!(context.is_ignored("target/x"));
        assert!(!context.is_ignored("nowhere"));
    }

    #[test]
    fn a_mistyped_path_is_found_in_its_directory() {
        let (_directory, context) = context(&[("requirements.txt", ""), ("app/main.py", "")]);
        let similar = |path: &str| context.similar(&RelPath::new(path).unwrap());
        assert_eq!(similar("requirments.txt").as_deref(), Some("requirements.txt"));
        assert_eq!(similar("app/mian.py").as_deref(), Some("app/main.py"));
        assert_eq!([similar("other"), similar("no/main.py")], [None, None]);
    }

    #[test]
    fn an_ignored_dockerfile_and_an_ignored_ignore_file_are_used_and_not_copied() {
        let files =
            [(".dockerignore", "Dockerfile\n.dockerignore\nb\n"), ("Dockerfile", "FROM a"), ("a", ""), ("b", "")];
        let (directory, context) = context(&files);
        assert_eq!(paths(&context), ["a"]);
        assert!(context.ignore_file().to_string().ends_with("/.dockerignore"));
        // Who reads the Dockerfile does not ask the context for it.
        assert_eq!(fs::read_to_string(directory.path().join("Dockerfile")).unwrap(), "FROM a");
    }

    #[test]
    fn the_dockerfiles_own_ignore_file_wins() {
        let (_directory, context) =
            context(&[(".dockerignore", "a\n"), ("Dockerfile.dockerignore", "*\n!b\n"), ("a", ""), ("b", "")]);
        assert_eq!(paths(&context), ["b"]);
    }

    #[test]
    fn hard_links_are_seen_and_contents_hashed() {
        let (directory, _) = context(&[("a", "abc")]);
        fs::hard_link(directory.path().join("a"), directory.path().join("b")).unwrap();
        let context = Context::open(directory.path(), Path::new("/none")).unwrap();
        let entries = context.hashed(&RelPath::root(), &all).unwrap();
        assert!(
            matches!(&entries[0].entry.kind, Kind::File { content: Some(digest), .. } if *digest == Digest::of("abc"))
        );
        assert!(matches!(&entries[1].entry.kind, Kind::Hardlink { target } if target.as_bytes() == b"a"));
    }

    #[test]
    fn a_hard_link_to_something_that_is_not_copied_counts_by_its_content() {
        let (directory, _) = context(&[("a", "abc"), ("d/x", "")]);
        fs::hard_link(directory.path().join("a"), directory.path().join("d/link")).unwrap();
        let context = Context::open(directory.path(), Path::new("/none")).unwrap();
        for (path, number) in [("d", 1), ("d/link", 0)] {
            let entries = context.hashed(&RelPath::new(path).unwrap(), &all).unwrap();
            let Kind::File { content, .. } = &entries[number].entry.kind else { panic!("{entries:?}") };
            assert_eq!(*content, Some(Digest::of("abc")));
        }
        let but_a = |below: &RelPath| below.as_bytes() != b"a";
        let entries = context.hashed(&RelPath::root(), &but_a).unwrap();
        let link = entries.iter().find(|file| file.below.as_bytes() == b"d/link").unwrap();
        assert!(matches!(&link.entry.kind, Kind::File { content: Some(digest), .. } if *digest == Digest::of("abc")));
    }

    #[test]
    fn what_may_not_be_read_matters_only_where_it_is_copied() {
        let (directory, _) = context(&[("open/f", ""), ("closed/f", ""), ("secret", "s")]);
        let close = |path: &str| fs::set_permissions(directory.path().join(path), Permissions::from_mode(0o0)).unwrap();
        fs::set_permissions(directory.path(), Permissions::from_mode(0o755)).unwrap();
        close("closed");
        close("secret");
        let path = directory.path().to_owned();
        // Another user for this thread's file accesses: root may read everything.
        let scan = move || {
            nix::unistd::setfsuid(nix::unistd::Uid::from_raw(65_534));
            let context = Context::open(&path, Path::new("/none")).unwrap();
            let hashed = |path: &str| context.hashed(&RelPath::new(path).unwrap(), &all);
            assert_eq!(hashed("open").unwrap().len(), 2);
            let others = |below: &RelPath| below.starts_with(&RelPath::new("open").unwrap());
            assert_eq!(
                context.hashed(&RelPath::root(), &others).unwrap().len(),
                2,
                "what is left out may be unreadable"
            );
            for path in ["closed", "", "secret"] {
                let error = hashed(path).unwrap_err().to_string();
                assert!(error.contains("Permission denied") || error.contains("permission denied"), "{error}");
            }
            assert!(context.check_readable(&RelPath::new("closed/f").unwrap(), &all).is_err());
        };
        std::thread::spawn(scan).join().unwrap();
    }

    #[test]
    fn unusual_files_are_seen_for_what_they_are() {
        let (directory, _) = context(&[("f", "")]);
        let name = std::ffi::OsStr::from_bytes(b"bytes-\xff");
        fs::write(directory.path().join(name), "x").unwrap();
        nix::unistd::mkfifo(&directory.path().join("pipe"), nix::sys::stat::Mode::from_bits_truncate(0o640)).unwrap();
        let context = Context::open(directory.path(), Path::new("/none")).unwrap();
        let entries = context.hashed(&RelPath::root(), &all).unwrap();
        let names: Vec<&[u8]> = entries.iter().map(|file| file.below.as_bytes()).collect();
        assert_eq!(names, [&b"bytes-\xff"[..], b"f", b"pipe"]);
        assert_eq!(entries[2].entry.kind, Kind::Fifo);
    }
}
