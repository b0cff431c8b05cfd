//! The build context: a directory whose files COPY and ADD take, less what `.dockerignore` leaves out.
//!
//! It is walked once, when the first COPY from it is planned, and looks like any other source from then on: a
//! [`Tree`] of one layer. Nothing leads out of it: files are opened through a [`Root`].

pub mod glob;
pub mod ignore;

use std::collections::HashMap;
use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use walkdir::WalkDir;
use yadokari_layers::{Content, Digest, Entry, Hasher, IndexBuilder, Kind, RelPath, Root, Tree};

use ignore::Ignore;

/// A build context.
#[derive(Debug)]
pub struct Context {
    path: PathBuf,
    root: Arc<Root>,
    ignore: Ignore,
    ignore_file: PathBuf,
    tree: OnceLock<Tree>,
    digests: Mutex<HashMap<RelPath, Digest>>,
}

impl Context {
    /// Opens the directory `path`. `<dockerfile>.dockerignore` says what to leave out, else the context's own
    /// `.dockerignore`, else nothing does.
    pub fn open(path: &Path, dockerfile: &Path) -> Result<Self, crate::Error> {
        let missing = |source| crate::Error::Context { path: path.to_owned(), source };
        if !fs::metadata(path).map_err(missing)?.is_dir() {
            return Err(missing(io::Error::from(io::ErrorKind::NotADirectory)));
        }
        let root = Arc::new(Root::open(path)?);
        let mut own = dockerfile.as_os_str().to_owned();
        own.push(".dockerignore");
        let mut ignore = (Ignore::default(), path.join(".dockerignore"));
        for file in [PathBuf::from(own), path.join(".dockerignore")] {
            match fs::read_to_string(&file) {
                Ok(text) => {
                    let bad = |ignore::InvalidRule { line, message }| {
                        let path = file.clone();
                        crate::Error::Ignore { path, line, message }
                    };
                    ignore = (Ignore::parse(&text).map_err(bad)?, file);
                    break;
                }
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(source) => return Err(crate::Error::Host { operation: "read", path: file, source }),
            }
        }
        let (ignore, ignore_file) = ignore;
        let (tree, digests) = Default::default();
        Ok(Self { path: path.to_owned(), root, ignore, ignore_file, tree, digests })
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

    fn is_socket(&self, path: &RelPath) -> bool {
        fs::symlink_metadata(self.path.join(path.as_path())).is_ok_and(|metadata| metadata.file_type().is_socket())
    }

    /// Opens a file.
    pub fn open_file(&self, path: &RelPath) -> yadokari_layers::Result<fs::File> {
        self.root.open_file(path)
    }

    /// `path` and all below it, by their paths below `path`, with the digests of all files.
    pub fn hashed(&self, path: &RelPath) -> Result<Vec<(RelPath, Entry)>, crate::Error> {
        let tree = self.tree()?;
        let itself = tree.get(path).into_iter().map(|found| (path, found));
        let mut entries = Vec::new();
        for (at, found) in itself.chain(tree.below(path)) {
            let mut entry = found.entry.clone();
            if let Kind::File { content, .. } = &mut entry.kind {
                *content = Some(self.digest(at)?);
            }
            entries.push((at.strip_prefix(path).unwrap_or_default(), entry));
        }
        Ok(entries)
    }

    fn digest(&self, path: &RelPath) -> Result<Digest, crate::Error> {
        if let Some(digest) = self.digests.lock().unwrap_or_else(PoisonError::into_inner).get(path) {
            return Ok(*digest);
        }
        if self.is_socket(path) {
            return Ok(Digest::of(""));
        }
        let mut file = self.root.open_file(path)?;
        let mut hasher = Hasher::default();
        let mut buffer = vec![0; 128 << 10];
        loop {
            let n = io::Read::read(&mut file, &mut buffer).map_err(|source| {
                crate::Error::Layers(yadokari_layers::Error::Path { operation: "read", path: path.clone(), source })
            })?;
            if n == 0 {
                break;
            }
            hasher.update(&buffer[..n]);
        }
        let digest = hasher.finish();
        self.digests.lock().unwrap_or_else(PoisonError::into_inner).insert(path.clone(), digest);
        Ok(digest)
    }

    fn scan(&self) -> Result<Tree, crate::Error> {
        let mut index = IndexBuilder::new();
        let mut first_names = HashMap::new();
        let mut walk = WalkDir::new(&self.path).min_depth(1).sort_by_file_name().into_iter();
        while let Some(found) = walk.next() {
            let found = found.map_err(|error| self.walk_error(error))?;
            let below = found.path().strip_prefix(&self.path).expect("the walk stays below where it starts");
            let path = RelPath::new(below.as_os_str().as_bytes()).map_err(yadokari_layers::Error::from)?;
            let text = path.to_string();
            if self.ignore.excludes(&text) {
                if found.file_type().is_dir() && !self.ignore.may_contain_exception_below(&text) {
                    walk.skip_current_dir();
                }
                continue;
            }
            let metadata = found.metadata().map_err(|error| self.walk_error(error))?;
            let Some(mut entry) = self.entry(&path, &metadata)? else { continue };
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
            let mtime = yadokari_layers::Timestamp::from_secs(metadata.mtime());
            return Ok(Some(Entry::file(0, metadata.mode() & 0o7777, mtime)));
        }
        let Some(mut entry) = self.root.entry(path)? else { return Ok(None) };
        (entry.uid, entry.gid) = (0, 0);
        entry.xattrs.retain(|name, _| name.starts_with(b"user.") || &name[..] == b"security.capability");
        Ok(Some(entry))
    }

    fn walk_error(&self, error: walkdir::Error) -> crate::Error {
        let path = error.path().unwrap_or(&self.path).to_owned();
        let source = error.into_io_error().unwrap_or_else(|| io::Error::other("a loop of directories"));
        crate::Error::Host { operation: "read", path, source }
    }
}

#[cfg(test)]
mod tests {
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

    #[test]
    fn ignored_files_are_not_there_and_exceptions_are() {
        let (_directory, context) = context(&[
            (".dockerignore", "target\n!target/keep\n.dockerignore\n"),
            ("target/x", ""),
            ("target/keep", ""),
            ("a", ""),
        ]);
        assert_eq!(paths(&context), ["a", "target/keep"]);
        assert!(context.is_ignored("target/x"));
        assert!(!context.is_ignored("nowhere"));
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
        let entries = context.hashed(&RelPath::root()).unwrap();
        assert!(matches!(&entries[0].1.kind, Kind::File { content: Some(digest), .. } if *digest == Digest::of("abc")));
        assert!(matches!(&entries[1].1.kind, Kind::Hardlink { target } if target.as_bytes() == b"a"));
    }
}
