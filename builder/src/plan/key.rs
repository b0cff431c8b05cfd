//! The keys of steps: the only place that computes them.
//!
//! A key says what a step's result depends on: the result below it, the operation and its inputs. It leaves out what
//! does not change the result: modification times, inode numbers, labels, proxy settings. A change of this encoding
//! changes [`KeyHasher::VERSION`], and the test below fails until its golden values are written anew.

use yadokari_layers::{Digest, Entry, Key, KeyHasher, Kind, RelPath};
use yadokari_registry::Platform;

use super::Mode;
use super::op::{Copy, Elsewhere, Mkdir, Run};
use super::select::Selected;
use crate::remote::{Fetched, Remote};

/// The key of nothing, for a platform.
pub(super) fn scratch(platform: &Platform) -> Key {
    let mut key = KeyHasher::new("scratch");
    key.bytes(platform.to_string());
    key.finish()
}

/// The key of an image: its manifest for the platform.
pub(super) fn image(manifest: &Digest) -> Key {
    let mut key = KeyHasher::new("image");
    key.digest(manifest);
    key.finish()
}

/// The key of a command's result.
pub(super) fn run(below: &Key, run: &Run) -> Key {
    let mut key = KeyHasher::new("run");
    key.digest(&below.digest()).list(&run.argv).number(run.env.len() as u64);
    for (name, value) in &run.env {
        key.bytes(name).bytes(value);
    }
    key.bytes(&run.user).bytes(&run.workdir);
    key.finish()
}

/// The key of a directory made by WORKDIR.
pub(super) fn mkdir(below: &Key, mkdir: &Mkdir) -> Key {
    let mut key = KeyHasher::new("mkdir");
    key.digest(&below.digest()).bytes(&mkdir.path).bytes(&mkdir.owner);
    key.finish()
}

/// What a word of a COPY selected, and all that is below it, by its path there.
pub(super) type ContextInput = (Selected, Vec<(RelPath, Entry)>);

/// What a COPY or ADD takes.
pub(super) enum Inputs {
    /// Files of the context: for each word what it selected.
    Context(Vec<ContextInput>),
    /// Paths of a stage or an image, whose own key stands for them.
    Key(Key),
}

/// The key of copied files.
pub(super) fn copy(below: &Key, copy: &Copy, inputs: &Inputs) -> Key {
    let mut key = KeyHasher::new("copy");
    key.digest(&below.digest()).bytes(&copy.destination).number(u64::from(copy.unpack));
    key.option(copy.chown.as_ref().map(|owner| &owner.text)).option(copy.chmod.as_ref().map(Mode::key));
    key.number(copy.inline.len() as u64);
    for inline in &copy.inline {
        key.bytes(&inline.name).bytes(&inline.content);
    }
    match inputs {
        Inputs::Key(from) => {
            key.bytes("key").digest(&from.digest());
            key.list(copy.sources.iter().map(|source| &source.pattern));
        }
        Inputs::Context(selected) => {
            key.bytes("context").number(selected.len() as u64);
            for (selected, below) in selected {
                key.option(selected.name.as_deref()).number(below.len() as u64);
                for (path, content) in below {
                    entry(&mut key, path, content);
                }
            }
        }
    }
    // What is rare comes last, and leaves no trace in the keys of all others.
    for source in copy.sources.iter().filter_map(|source| source.elsewhere.as_ref()) {
        elsewhere(&mut key, source, copy.unpack_downloads);
    }
    key.finish()
}

/// A source elsewhere: its content, whatever it was fetched from. Neither a URL, which may hold a password, nor the time
/// of the file is in it.
fn elsewhere(key: &mut KeyHasher, source: &Elsewhere, unpack: bool) {
    match (&source.remote, &source.fetched) {
        (_, Fetched::File(file)) => {
            key.bytes("file").option(source.remote.file_name()).digest(&file.digest).number(u64::from(unpack));
        }
        (Remote::Git(reference, _), Fetched::Tree(tree)) => {
            key.bytes("git").bytes(&tree.commit).option(reference.subdirectory.as_deref());
            key.number(u64::from(reference.submodules)).number(u64::from(reference.commit_time));
            // The directory says which branch or tag it came from.
            key.option(tree.has_git_dir.then(|| reference.reference.as_deref().unwrap_or_default()));
        }
        (Remote::Url(_), Fetched::Tree(_)) => unreachable!("a URL is a file"),
    }
}

/// A file of the context: its name, its kind, git's two modes (executable or not), its link or its content. A clone
/// made under another umask, or at another time, has the same key.
fn entry(key: &mut KeyHasher, path: &RelPath, entry: &Entry) {
    key.bytes(path.as_bytes());
    match &entry.kind {
        Kind::File { size, content } => {
            key.bytes("file").number(u64::from(entry.mode & 0o100 != 0)).number(*size);
            key.option(content.as_ref().map(Digest::as_bytes));
        }
        Kind::Directory => _ = key.bytes("directory"),
        Kind::Symlink { target } => _ = key.bytes("symlink").bytes(target),
        Kind::Hardlink { target } => _ = key.bytes("hardlink").bytes(target.as_bytes()),
        Kind::CharDevice { major, minor } => _ = key.bytes("char").number((*major).into()).number((*minor).into()),
        Kind::BlockDevice { major, minor } => _ = key.bytes("block").number((*major).into()).number((*minor).into()),
        Kind::Fifo => _ = key.bytes("fifo"),
    }
}

#[cfg(test)]
mod tests {
    use yadokari_layers::Timestamp;

    use super::*;
    use crate::plan::Origin;

    fn sample_run() -> Run {
        Run {
            argv: vec!["/bin/sh".into(), "-c".into(), "make".into()],
            env: vec![("PATH".into(), "/bin".into())],
            proxies: Vec::new(),
            user: String::new(),
            workdir: "/".into(),
        }
    }

    fn sample_copy() -> Copy {
        Copy {
            from: Origin::Context,
            sources: Vec::new(),
            inline: Vec::new(),
            destination: "/app/".into(),
            destination_span: crate::dockerfile::Span::new(0, 0),
            chown: None,
            chmod: None,
            unpack: false,
            unpack_downloads: false,
        }
    }

    fn inputs(mode: u32, secs: i64) -> Inputs {
        let mut entry = Entry::file(3, mode, Timestamp::from_secs(secs));
        entry.kind = Kind::File { size: 3, content: Some(Digest::of("abc")) };
        let selected = Selected { name: Some(b"a".to_vec()), path: RelPath::new("a").unwrap() };
        Inputs::Context(vec![(selected, vec![(RelPath::root(), entry)])])
    }

    #[test]
    fn keys_are_pinned() {
        let below = image(&Digest::of("base"));
        let mkdir_op = Mkdir { path: "/app".into(), owner: "app".into() };
        let keys = [
            scratch(&Platform { os: "linux".into(), architecture: "amd64".into(), variant: None }),
            below,
            run(&below, &sample_run()),
            mkdir(&below, &mkdir_op),
            copy(&below, &sample_copy(), &inputs(0o644, 0)),
        ];
        let text: String = keys.iter().map(|key| format!("{key}\n")).collect();
        assert_eq!(text, include_str!("../../tests/golden/keys.txt"));
    }

    #[test]
    fn times_and_umask_change_no_key_and_the_executable_bit_does() {
        let below = image(&Digest::of("base"));
        let key = |mode, secs| copy(&below, &sample_copy(), &inputs(mode, secs));
        assert_eq!(key(0o644, 1), key(0o600, 2));
        assert_ne!(key(0o644, 1), key(0o755, 1));
    }

    #[test]
    fn proxies_change_no_key() {
        let below = image(&Digest::of("base"));
        let mut other = sample_run();
        other.proxies.push(("HTTP_PROXY".into(), "http://proxy".into()));
        assert_eq!(run(&below, &sample_run()), run(&below, &other));
    }
}
