//! The keys of steps: the only place that computes them.
//!
//! A key says what a step's result depends on: the result below it, the operation and its inputs. It leaves out what
//! does not change the result: modification times, inode numbers, labels, proxy settings. A change of this encoding
//! changes [`KeyHasher::VERSION`], and the test below fails until its golden values are written anew.

use serde::{Deserialize, Serialize};
use yadokari_layers::{Digest, Entry, Key, KeyHasher, Kind, RelPath};
use yadokari_registry::Platform;

use super::Mode;
use super::op::{Access, Copy, Elsewhere, Mkdir, MountKind, Run};
use super::select::Selected;
use crate::remote::{Fetched, Remote};

/// One of the things that a key is made of, by a name that means something to whoever wrote the Dockerfile.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Input {
    /// `command`, `variable PATH`, `file src/main.c`
    pub name: String,
    /// What stands for its value.
    pub value: Digest,
}

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

/// What a mount shows.
#[derive(Debug)]
pub(super) enum MountInput {
    /// Nothing that a key would know.
    Nothing,
    /// Files of the context, by their paths below what is mounted.
    Context(Vec<(RelPath, Entry)>),
    /// A path of a stage or an image, whose own key stands for it.
    Key(Key, String),
}

/// The name of a cache: the same for all mounts that share it. What it holds at first is part of it.
pub(super) fn cache(namespace: &str, id: &str, seed: Option<&MountInput>) -> Key {
    let mut key = KeyHasher::new("cache");
    key.bytes(namespace).bytes(id);
    if let Some(seed) = seed {
        mount_input(&mut key, seed);
    }
    key.finish()
}

/// The key of a command's result. `inputs` are those of its mounts. The values of secrets, what caches hold and what an
/// agent signs are no part of it; neither is who may use a cache at the same time, or whether a secret must be there.
pub(super) fn run(below: &Key, run: &Run, inputs: &[MountInput]) -> Key {
    let mut key = KeyHasher::new("run");
    key.digest(&below.digest()).list(&run.argv).number(run.env.len() as u64);
    for (name, value) in &run.env {
        key.bytes(name).bytes(value);
    }
    key.bytes(&run.user).bytes(&run.workdir);
    // Each of the following begins with its name, and a RUN without flags has none of them.
    if !run.mounts.is_empty() {
        key.bytes("mounts").number(run.mounts.len() as u64);
        for (mount, input) in run.mounts.iter().zip(inputs) {
            key.bytes(&mount.target);
            mount_kind(&mut key, &mount.kind);
            mount_input(&mut key, input);
        }
    }
    if !run.secrets.is_empty() {
        key.bytes("secrets").number(run.secrets.len() as u64);
        for secret in &run.secrets {
            key.bytes(&secret.name).bytes(&secret.id);
        }
    }
    if run.no_network.is_some() {
        key.bytes("no network");
    }
    if let Some(hostname) = &run.hostname {
        key.bytes("hostname").bytes(hostname);
    }
    key.finish()
}

fn mount_kind(key: &mut KeyHasher, kind: &MountKind) {
    let access = |key: &mut KeyHasher, Access { mode, uid, gid }: &Access| {
        key.number((*mode).into()).number((*uid).into()).number((*gid).into());
    };
    match kind {
        MountKind::Bind { source: _, read_only } => _ = key.bytes("bind").number(u64::from(*read_only)),
        MountKind::Cache { name, sharing: _, seed: _, access: of, read_only } => {
            key.bytes("cache").digest(&name.digest()).number(u64::from(*read_only));
            access(key, of);
        }
        MountKind::Tmpfs { size } => _ = key.bytes("tmpfs").number(size.unwrap_or(0)),
        MountKind::Secret { id, required: _, access: of } => {
            key.bytes("secret").bytes(id);
            access(key, of);
        }
        MountKind::Ssh { id, required: _, access: of } => {
            key.bytes("ssh").bytes(id);
            access(key, of);
        }
        MountKind::Script { content } => _ = key.bytes("script").bytes(content),
    }
}

fn mount_input(key: &mut KeyHasher, input: &MountInput) {
    match input {
        MountInput::Nothing => _ = key.bytes("nothing"),
        MountInput::Key(from, path) => _ = key.bytes("key").digest(&from.digest()).bytes(path),
        MountInput::Context(below) => {
            key.bytes("context").number(below.len() as u64);
            for (path, content) in below {
                entry(key, path, content);
            }
        }
    }
}

/// The key of a directory made by WORKDIR.
pub(super) fn mkdir(below: &Key, mkdir: &Mkdir) -> Key {
    let mut key = KeyHasher::new("mkdir");
    key.digest(&below.digest()).bytes(&mkdir.path).bytes(&mkdir.owner);
    key.finish()
}

/// What a word of a COPY selected, and what is taken of it, by its path there.
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
    key.digest(&below.digest());
    copied(key, copy, inputs)
}

/// The key of the layer of a linked copy, which does not depend on what is below it.
pub(super) fn linked(copy: &Copy, inputs: &Inputs) -> Key {
    copied(KeyHasher::new("linked copy"), copy, inputs)
}

/// The key of a layer that was made by itself, on what is below it.
pub(super) fn on(below: &Key, layer: &Key) -> Key {
    let mut key = KeyHasher::new("layer on");
    key.digest(&below.digest()).digest(&layer.digest());
    key.finish()
}

fn copied(mut key: KeyHasher, copy: &Copy, inputs: &Inputs) -> Key {
    key.bytes(&copy.destination).number(u64::from(copy.unpack));
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
        elsewhere(&mut key, source, copy);
    }
    if copy.parents {
        key.bytes("parents");
    }
    if matches!(inputs, Inputs::Key(_)) && !copy.exclude.is_empty() {
        key.bytes("exclude").list(copy.exclude.texts());
    }
    key.finish()
}

/// A source elsewhere: its content, whatever it was fetched from. Neither a URL, which may hold a password, nor the time
/// of the file is in it.
fn elsewhere(key: &mut KeyHasher, source: &Elsewhere, copy: &Copy) {
    match (&source.remote, &source.fetched) {
        (_, Fetched::File(file)) => {
            key.bytes("file").option(source.remote.file_name()).digest(&file.digest);
            key.number(u64::from(copy.unpack_downloads));
        }
        (Remote::Git(reference, _), Fetched::Tree(tree)) => {
            key.bytes("git").bytes(&tree.commit).option(reference.subdirectory.as_deref());
            key.number(u64::from(reference.submodules)).number(u64::from(reference.commit_time));
            // The directory says which branch or tag it came from.
            key.option(tree.has_git_dir.then(|| reference.reference.as_deref().unwrap_or_default()));
            key.list(copy.exclude.texts());
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
    use crate::context::ignore::Ignore;
    use crate::dockerfile::{MountSharing, Span};
    use crate::plan::{Mount, MountSource, Origin, SecretVariable};

    fn sample_run() -> Run {
        Run {
            argv: vec!["/bin/sh".into(), "-c".into(), "make".into()],
            env: vec![("PATH".into(), "/bin".into())],
            proxies: Vec::new(),
            user: String::new(),
            workdir: "/".into(),
            mounts: Vec::new(),
            secrets: Vec::new(),
            no_network: None,
            hostname: None,
        }
    }

    fn mounting_run() -> (Run, Vec<MountInput>) {
        let span = Span::new(0, 0);
        let access = Access { mode: 0o755, uid: 1, gid: 2 };
        let source = |from| MountSource { from, path: "/a".into(), span };
        let input = || MountInput::Key(image(&Digest::of("other")), "/a".into());
        let name = cache("ns", "id", Some(&input()));
        let (sharing, seed) = (MountSharing::Locked, Some(source(Some(Origin::Stage(0)))));
        let (id, required) = (String::from("id"), true);
        let kinds = [
            (MountKind::Bind { source: source(Some(Origin::Context)), read_only: true }, context_input(0o644, 0)),
            (MountKind::Cache { name, sharing, seed, access, read_only: false }, input()),
            (MountKind::Tmpfs { size: Some(5) }, MountInput::Nothing),
            (MountKind::Secret { id: id.clone(), required, access }, MountInput::Nothing),
            (MountKind::Ssh { id: id.clone(), required, access }, MountInput::Nothing),
            (MountKind::Script { content: "#!/bin/sh\n".into() }, MountInput::Nothing),
        ];
        let mut run = sample_run();
        let mut inputs = Vec::new();
        for (number, (kind, input)) in kinds.into_iter().enumerate() {
            run.mounts.push(Mount { target: format!("/m{number}"), kind, span });
            inputs.push(input);
        }
        run.secrets = vec![SecretVariable { name: "TOKEN".into(), id, required, span }];
        (run.no_network, run.hostname) = (Some(span), Some("host".into()));
        (run, inputs)
    }

    fn context_input(mode: u32, secs: i64) -> MountInput {
        let Inputs::Context(selected) = inputs(mode, secs) else { panic!("these are files of the context") };
        MountInput::Context(selected.into_iter().next().unwrap().1)
    }

    fn sample_copy() -> Copy {
        Copy {
            from: Origin::Context,
            sources: Vec::new(),
            inline: Vec::new(),
            destination: "/app/".into(),
            destination_span: Span::new(0, 0),
            chown: None,
            chmod: None,
            unpack: false,
            unpack_downloads: false,
            parents: false,
            exclude: Ignore::default(),
            link: false,
        }
    }

    fn excluding(pattern: &str) -> Copy {
        let mut copy = sample_copy();
        copy.exclude.exclude(pattern).unwrap();
        copy
    }

    fn inputs(mode: u32, secs: i64) -> Inputs {
        let mut entry = Entry::file(3, mode, Timestamp::from_secs(secs));
        entry.kind = Kind::File { size: 3, content: Some(Digest::of("abc")) };
        let selected = Selected { name: Some(b"a".to_vec()), path: RelPath::new("a").unwrap(), include: None };
        Inputs::Context(vec![(selected, vec![(RelPath::root(), entry)])])
    }

    #[test]
    fn keys_are_pinned() {
        let below = image(&Digest::of("base"));
        let (mounts, mount_inputs) = mounting_run();
        let mounting = run(&below, &mounts, &mount_inputs);
        let mkdir_op = Mkdir { path: "/app".into(), owner: "app".into() };
        let keys = [
            scratch(&Platform { os: "linux".into(), architecture: "amd64".into(), variant: None }),
            below,
            run(&below, &sample_run(), &[]),
            mkdir(&below, &mkdir_op),
            copy(&below, &sample_copy(), &inputs(0o644, 0)),
            mounting,
            linked(&sample_copy(), &inputs(0o644, 0)),
            on(&below, &linked(&sample_copy(), &inputs(0o644, 0))),
            copy(&below, &Copy { parents: true, ..sample_copy() }, &inputs(0o644, 0)),
            copy(&below, &excluding("*.md"), &Inputs::Key(below)),
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
        assert_eq!(run(&below, &sample_run(), &[]), run(&below, &other, &[]));
    }

    #[test]
    fn what_changes_no_result_of_a_mount_changes_no_key() {
        let below = image(&Digest::of("base"));
        let key = |(run, inputs): &(Run, Vec<MountInput>)| super::run(&below, run, inputs);
        let all = mounting_run();
        let mut other = mounting_run();
        for mount in &mut other.0.mounts {
            match &mut mount.kind {
                MountKind::Cache { sharing, .. } => *sharing = MountSharing::Private,
                MountKind::Secret { required, .. } | MountKind::Ssh { required, .. } => *required = false,
                _ => {}
            }
            mount.span = Span::new(7, 9);
        }
        other.0.secrets[0].required = false;
        other.1[0] = context_input(0o600, 5);
        assert_eq!(key(&all), key(&other));
        other.1[0] = context_input(0o755, 5);
        assert_ne!(key(&all), key(&other));
    }
}
