//! What each operation brings into its key.

use yadokari_layers::{Entry, Key, KeyHasher, Kind, RelPath};

use super::content::{attributes, kind};
use super::{Input, Parts, input};
use crate::context::Hashed;
use crate::plan::op::{Access, Copy, Elsewhere, Mkdir, Mount, MountKind, Run};
use crate::plan::select::Selected;
use crate::plan::{ContextMode, Mode};
use crate::remote::{Fetched, Remote};

/// What a mount shows, or a cache holds at first.
#[derive(Debug)]
pub(in crate::plan) enum MountInput {
    /// Nothing that a key would know.
    Nothing,
    /// Files of the context.
    Context(ContextInput),
    /// A path of a stage or an image, whose own key stands for it.
    Key(Key, String),
}

/// The name of a cache: the same for all mounts that share it. What it holds at first is part of it.
pub(in crate::plan) fn cache(namespace: &str, id: &str, seed: Option<&MountInput>, mode: ContextMode) -> Key {
    let mut key = KeyHasher::new("cache");
    key.bytes(namespace).bytes(id);
    match seed {
        None => {}
        Some(MountInput::Nothing) => _ = key.bytes("nothing"),
        Some(MountInput::Key(from, path)) => _ = key.bytes("key").digest(&from.digest()).bytes(path),
        Some(MountInput::Context(selected)) => {
            key.bytes("context").list(files(selected, mode).iter().map(|file| *file.value.as_bytes()));
        }
    }
    key.finish()
}

/// What the result of a command depends on. `mounts` says what its mounts show, and which cache each is without what that
/// holds at first. The values of secrets, what caches hold and what an agent signs are no part of it; neither is who may
/// use a cache at the same time, or whether a secret must be there.
pub(in crate::plan) fn run(run: &Run, mounts: &[(MountInput, Option<Key>)], mode: ContextMode) -> Parts {
    let mut inputs = vec![input("command", "command", |value| _ = value.list(&run.argv))];
    for (name, content) in &run.env {
        inputs.push(input(format!("variable {name}"), "variable", |value| _ = value.bytes(name).bytes(content)));
    }
    inputs.push(input("user", "user", |value| _ = value.bytes(&run.user)));
    inputs.push(input("working directory", "working directory", |value| _ = value.bytes(&run.workdir)));
    if let Some(name) = &run.hostname {
        inputs.push(input("host name", "host name", |value| _ = value.bytes(name)));
    }
    if run.no_network.is_some() {
        inputs.push(input("network", "network", |value| _ = value.bytes("none")));
    }
    if !run.ignored.is_empty() {
        inputs.push(input("ignored paths", "ignored paths", |value| {
            _ = value.list(run.ignored.iter().map(RelPath::as_bytes))
        }));
    }
    let mut from = Vec::new();
    for (mount, (shown, cache)) in run.mounts.iter().zip(mounts) {
        inputs.push(input(format!("mount {}", mount.target), "mount", |value| {
            value.bytes(&mount.target);
            mount_kind(value, mount, cache.as_ref());
            match shown {
                MountInput::Nothing => _ = value.bytes("nothing"),
                MountInput::Context(_) => _ = value.bytes("context"),
                MountInput::Key(_, path) => _ = value.bytes("from").bytes(path),
            }
        }));
        match shown {
            MountInput::Nothing => {}
            MountInput::Context(selected) => inputs.extend(files(selected, mode)),
            MountInput::Key(key, _) => from.push(*key),
        }
    }
    for secret in &run.secrets {
        let name = format!("secret {}", secret.id);
        inputs.push(input(name, "secret", |value| _ = value.bytes(&secret.name).bytes(&secret.id)));
    }
    Parts { inputs, from }
}

fn mount_kind(value: &mut KeyHasher, mount: &Mount, cache: Option<&Key>) {
    let access = |value: &mut KeyHasher, Access { mode, uid, gid }: &Access| {
        value.number((*mode).into()).number((*uid).into()).number((*gid).into());
    };
    match &mount.kind {
        MountKind::Bind { source: _, read_only } => _ = value.bytes("bind").number(u64::from(*read_only)),
        // Its name would bring the key of the stage that it begins with.
        MountKind::Cache { name: _, sharing: _, seed: _, access: of, read_only } => {
            value.bytes("cache").option(cache.map(|cache| *cache.digest().as_bytes())).number(u64::from(*read_only));
            access(value, of);
        }
        MountKind::Tmpfs { size } => _ = value.bytes("tmpfs").number(size.unwrap_or(0)),
        MountKind::Secret { id, required: _, access: of } => {
            value.bytes("secret").bytes(id);
            access(value, of);
        }
        MountKind::Ssh { id, required: _, access: of } => {
            value.bytes("ssh").bytes(id);
            access(value, of);
        }
        MountKind::Script { content } => _ = value.bytes("script").bytes(content),
    }
}

/// What a directory made by WORKDIR depends on.
pub(in crate::plan) fn mkdir(mkdir: &Mkdir) -> Parts {
    let destination = input("destination", "destination", |value| _ = value.bytes(&mkdir.path));
    let owner = input("owner", "owner", |value| _ = value.bytes(&mkdir.owner));
    Parts { inputs: vec![destination, owner], from: Vec::new() }
}

/// What one path of a context stands for: what a word of COPY selected, and what is taken of it.
#[derive(Debug)]
pub(in crate::plan) struct ContextInput {
    /// The path, and the name under which it is copied.
    pub(in crate::plan) selected: Selected,
    /// It, and what is taken of all below it.
    pub(in crate::plan) files: Vec<Hashed>,
}

/// Where the sources of a COPY or ADD are found that are not elsewhere.
#[derive(Debug)]
pub(in crate::plan) enum Sources {
    /// In a context: what each of them selected there, and nothing for one that is elsewhere.
    Context(Vec<Vec<ContextInput>>),
    /// In a stage or an image, whose own key stands for them, or in nothing.
    Key(Option<Key>),
}

/// What copied files depend on.
pub(in crate::plan) fn copy(copy: &Copy, sources: &Sources, mode: ContextMode) -> Parts {
    let mut inputs = vec![input("destination", "destination", |value| _ = value.bytes(&copy.destination))];
    if let Some(owner) = &copy.chown {
        inputs.push(input("owner", "owner", |value| _ = value.bytes(&owner.text)));
    }
    if let Some(mode) = copy.chmod.as_ref().map(Mode::key) {
        inputs.push(input("mode", "mode", |value| _ = value.bytes(mode)));
    }
    if copy.unpack {
        inputs.push(input("unpack", "unpack", |_| ()));
    }
    if copy.parents {
        inputs.push(input("parents", "parents", |_| ()));
    }
    // Of two sources that put a file at one place the later one holds, so they come in the order of the instruction.
    for (number, source) in copy.sources.iter().enumerate() {
        match (&source.elsewhere, sources) {
            (Some(source), _) => inputs.push(elsewhere(source, copy)),
            (None, Sources::Context(found)) => {
                found[number].iter().for_each(|found| inputs.extend(files(found, mode)));
            }
            (None, Sources::Key(_)) => {
                let name = format!("source {}", source.pattern);
                inputs.push(input(name, "source", |value| _ = value.bytes(&source.pattern)));
            }
        }
    }
    for inline in &copy.inline {
        let name = format!("inline file {}", inline.name);
        inputs.push(input(name, "inline file", |value| _ = value.bytes(&inline.name).bytes(&inline.content)));
    }
    // Files of a context are given one by one, and those that are left out are not among them.
    let has_tree = copy.sources.iter().filter_map(|source| source.elsewhere.as_ref()).any(Elsewhere::is_tree);
    if (has_tree || matches!(sources, Sources::Key(_))) && !copy.exclude.is_empty() {
        inputs.push(input("exclude", "exclude", |value| _ = value.list(copy.exclude.texts())));
    }
    let from = if let Sources::Key(from) = sources { from.iter().copied().collect() } else { Vec::new() };
    Parts { inputs, from }
}

/// A source elsewhere: its content, whatever it was fetched from. Neither a URL, which may hold a password, nor the time
/// of the file is in it.
fn elsewhere(source: &Elsewhere, copy: &Copy) -> Input {
    let Elsewhere { remote, fetched } = source;
    match (remote, fetched) {
        (_, Fetched::File(file)) => input(format!("download {remote}"), "download", |value| {
            value.option(remote.file_name()).digest(&file.digest).number(u64::from(copy.unpack_downloads));
        }),
        (Remote::Git(reference, _), Fetched::Tree(tree)) => {
            input(format!("repository {remote}"), "repository", |value| {
                value.bytes(&tree.commit).option(reference.subdirectory.as_deref());
                value.number(u64::from(reference.submodules)).number(u64::from(reference.commit_time));
                // The directory says which branch or tag it came from.
                value.option(tree.has_git_dir.then(|| reference.reference.as_deref().unwrap_or_default()));
            })
        }
        (Remote::Url(_), Fetched::Tree(_)) => unreachable!("a URL is a file"),
    }
}

/// Files of the context, each an input. The first one of every selected path is that path itself: it tells where what
/// one word selected ends and the next begins.
fn files(found: &ContextInput, mode: ContextMode) -> Vec<Input> {
    let ContextInput { selected, files } = found;
    let root = selected.path.is_root().then(|| {
        // No tree says what its root is.
        input("file .", "root of the context", |value| _ = value.option(selected.name.as_deref()))
    });
    let file = |Hashed { below, entry, is_passage }: &Hashed| {
        input(format!("file {}", selected.path.join(below)), "file", |value| {
            value.option(selected.name.as_deref());
            file(value, below, entry, *is_passage, mode);
        })
    };
    root.into_iter().chain(files.iter().map(file)).collect()
}

/// A file of the context: its path below what was selected, its kind, what counts of its mode, its link or its content. A
/// clone made under another umask, or at another time, has the same value.
fn file(value: &mut KeyHasher, below: &RelPath, entry: &Entry, is_passage: bool, mode: ContextMode) {
    value.bytes(below.as_bytes()).number(u64::from(is_passage));
    kind(value, &entry.kind);
    // A link has no mode of its own.
    if !matches!(entry.kind, Kind::Symlink { .. } | Kind::Hardlink { .. }) {
        mode.add(value, entry);
    }
    attributes(value, entry);
}

impl ContextMode {
    /// Adds what counts of a mode.
    ///
    /// A checkout makes files with the modes 0666 and 0777 and directories with 0777, less what the umask takes, which is
    /// never anything of the owner's. Whatever can have come about like that counts as one of git's two modes; for a
    /// mode that cannot, somebody meant it, and all of its bits count.
    fn add(self, value: &mut KeyHasher, entry: &Entry) {
        let mode = entry.mode & 0o7777;
        let made = if entry.is_directory() || mode & 0o100 != 0 { 0o777 } else { 0o666 };
        let is_explained = mode & !made == 0 && mode & 0o700 == made & 0o700;
        match self {
            Self::Git if is_explained => value.bytes("made").number(made.into()),
            Self::Git | Self::Raw => value.bytes("mode").number(mode.into()),
        };
    }
}
