//! What a build is made from, in parts that can be put together at will.
//!
//! Every number is taken modulo the number of choices, so that all values make sense, those of a shrinking failure too.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;

use proptest::collection::{btree_map, vec};
use proptest::prelude::*;

/// Everything that a build depends on.
#[derive(Debug, Clone)]
pub(crate) struct World {
    pub(crate) context: BTreeMap<usize, Node>,
    /// The lines of the ignore file; without any there is no such file.
    pub(crate) ignored: Vec<usize>,
    /// Whether all bits of the context's modes enter keys.
    pub(crate) raw: bool,
    /// Whether the context was cloned under a umask of 002.
    pub(crate) group_writes: bool,
    /// Whether the context was cloned by a tool that knows no second names of a file.
    pub(crate) links_are_copies: bool,
    /// The value of the build argument A; the first choice is none.
    pub(crate) argument: usize,
    /// Which of the images is `base:1`.
    pub(crate) base: usize,
    pub(crate) stages: Vec<Stage>,
}

/// What is at a path of the context.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Node {
    File {
        content: usize,
        executable: bool,
    },
    Link(usize),
    /// Another name of a file.
    Hard(usize),
    /// A tar that ADD unpacks.
    Archive(usize),
    Directory,
}

/// A stage of the Dockerfile.
#[derive(Debug, Clone)]
pub(crate) struct Stage {
    pub(crate) from: usize,
    pub(crate) steps: Vec<Step>,
}

/// An instruction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Step {
    Copy { add: bool, link: bool, flag: usize, sources: usize, target: usize },
    CopyFrom { stage: usize, link: bool, flag: usize, sources: usize, target: usize },
    Document { target: usize, body: usize, quoted: bool },
    Workdir(usize),
    Argument(usize),
    Environment(usize),
    Label(usize),
    User(usize),
    Other(usize),
}

const PATHS: [&str; 18] = [
    "a.txt",
    "arch.tar",
    "b.txt",
    "c.md",
    "dir/.hidden",
    "dir/one",
    "dir/sub/three",
    "dir/sub/two",
    "dirptr",
    "empty",
    "hard",
    "ptr",
    "tool",
    "x y",
    "c.txt",
    "dir/four",
    "dir/sub/four",
    "toolbox",
];
/// So many of these are there at first. The others are what a file may be called later.
const PRESENT: usize = 14;
/// Renames that the same pattern, or the same directory, has both names of.
const RENAMES: [(&str, &str); 6] = [
    ("a.txt", "c.txt"),
    ("b.txt", "c.txt"),
    ("tool", "toolbox"),
    ("dir/one", "dir/four"),
    ("dir/sub/two", "dir/sub/four"),
    ("dir/sub/three", "dir/four"),
];
const CONTENTS: [&str; 6] = ["", "a", "b", "other", "#!/bin/sh\n", "a\n"];
const TARGETS: [&str; 5] = ["a.txt", "dir", "dir/sub", "../outside", "none"];
const IGNORED: [&str; 7] = ["*.txt", "!b.txt", "dir/sub", "**/t*", "# a comment", "!dir/sub/two", ".dockerignore"];
const VALUES: [&str; 5] = ["", "p", "two words", "q/r", "$B"];
const SOURCES: [&str; 14] = [
    "*.txt",
    ".",
    "dir",
    "*",
    "dir/*",
    "d*/*",
    "tool* *.txt",
    "ptr* dirptr*",
    "a.txt",
    "arch.ta*",
    "dir/* hard*",
    "${A}* ",
    "dir/sub*/*",
    "[\"x y\", \"dir/one\", ",
];
/// Where the base has a directory, a link to one, nothing, or what an earlier step made.
const DESTINATIONS: [&str; 11] =
    ["/p/", "/p/q/", "./", "/new/x/", "/ptr/", "rel/$A/", "/etc/", "/p/sub/", "/up/", "/w/x/", "/tmp/"];
const IN_STAGES: [&str; 9] = ["/p*", "/", "/etc/pass*", "/w*", "/new*", "/ptr*", "/p/* /etc*", "/p*/q*", "rel*"];
const FLAGS: [&str; 9] = [
    "",
    "--chown=7:8 ",
    "--chmod=0751 ",
    "--exclude=*.txt ",
    "--parents ",
    "--chown=nobody ",
    "--chmod=go= --chown=$U ",
    "--exclude=sub ",
    "",
];
const BODIES: [&str; 5] = ["one\n", "hello $A\n", "one\ntwo\n", "", "$B and ${A:-none}\n"];
const DIRECTORIES: [&str; 6] = ["/w", "rel", "/w/$A", "/p/q", "/up", "/"];
const ARGUMENTS: [&str; 6] = ["A", "A=default", "B=b", "B=$A", "A=", "U=9"];
const VARIABLES: [&str; 6] = ["A=env", "B=$A-$B", "C=\"two words\"", "U=5:6", "B=b C=$B", "PATH=/bin"];
const LABELS: [&str; 4] = ["l=1", "l=$A", "l=2 m=\"x y\"", "base=ours"];
const USERS: [&str; 4] = ["7:8", "0", "nobody", "9"];
const OTHERS: [&str; 9] = [
    "CMD [\"a\", \"b\"]",
    "CMD a $A",
    "ENTRYPOINT [\"/x\"]",
    "EXPOSE 80 81/udp",
    "VOLUME /v",
    "STOPSIGNAL SIGINT",
    "SHELL [\"/bin/ash\", \"-c\"]",
    "HEALTHCHECK --interval=5s CMD true",
    "# a comment",
];

fn one<'a>(of: &[&'a str], number: usize) -> &'a str {
    of[number % of.len()]
}

impl World {
    /// The Dockerfile. HOST is the registry.
    pub(crate) fn dockerfile(&self) -> String {
        let mut text = String::new();
        for (number, stage) in self.stages.iter().enumerate() {
            text += &match stage.from % (4 + number) {
                0 | 1 => format!("FROM HOST/base:1 AS s{number}\n"),
                2 => format!("FROM HOST/other:1 AS s{number}\n"),
                3 => format!("FROM scratch AS s{number}\n"),
                earlier => format!("FROM s{} AS s{number}\n", earlier - 4),
            };
            for step in &stage.steps {
                text += &format!("{}\n", step.text(number));
            }
        }
        text
    }

    /// `--build-arg`.
    pub(crate) fn arguments(&self) -> Vec<(String, String)> {
        let value = VALUES[self.argument % VALUES.len()];
        if value.is_empty() { Vec::new() } else { vec![("A".into(), value.into())] }
    }

    /// Writes the context into a directory that does not exist.
    pub(crate) fn write(&self, directory: &Path) {
        fs::create_dir(directory).unwrap();
        let place = |path: &str| {
            let place = directory.join(path);
            fs::create_dir_all(place.parent().unwrap()).unwrap();
            place
        };
        let mode = |executable| if executable { 0o755 } else { 0o644 } | if self.group_writes { 0o020 } else { 0 };
        let plain = |path: &str, content: &[u8], executable| {
            let file = place(path);
            fs::write(&file, content).unwrap();
            fs::set_permissions(&file, fs::Permissions::from_mode(mode(executable))).unwrap();
        };
        if !self.ignored.is_empty() {
            let lines: Vec<_> = self.ignored.iter().map(|&line| one(&IGNORED, line)).collect();
            plain(".dockerignore", lines.join("\n").as_bytes(), false);
        }
        // What links need comes before them.
        let (links, others): (Vec<_>, Vec<_>) =
            self.context.iter().partition(|(_, node)| matches!(node, Node::Hard(_)));
        for (&path, node) in others.into_iter().chain(links) {
            let path = one(&PATHS, path);
            match node {
                Node::File { content, executable } => plain(path, one(&CONTENTS, *content).as_bytes(), *executable),
                Node::Link(target) => symlink(one(&TARGETS, *target), place(path)).unwrap(),
                Node::Archive(content) => plain(path, &archive(*content), false),
                Node::Directory => fs::create_dir_all(place(path)).unwrap(),
                Node::Hard(first) => match directory.join(one(&PATHS, *first)) {
                    first if !first.is_file() || first.is_symlink() => plain(path, b"", false),
                    first if self.links_are_copies => _ = fs::copy(first, place(path)).unwrap(),
                    first => fs::hard_link(first, place(path)).unwrap(),
                },
            }
        }
        for entry in walkdir::WalkDir::new(directory) {
            let entry = entry.unwrap();
            if entry.file_type().is_dir() {
                fs::set_permissions(entry.path(), fs::Permissions::from_mode(mode(true))).unwrap();
            }
        }
    }
}

impl Step {
    fn text(&self, stage: usize) -> String {
        let link = |link: bool| if link { "--link " } else { "" };
        match *self {
            Self::Copy { add, link: linked, flag, sources, target } => {
                let (name, flag) = (if add { "ADD" } else { "COPY" }, one(&FLAGS, flag));
                // ADD has no such flag.
                let flag = if add { flag.replace("--parents ", "") } else { flag.to_owned() };
                format!("{name} {}{flag}{}", link(linked), places(one(&SOURCES, sources), one(&DESTINATIONS, target)))
            }
            Self::CopyFrom { stage: from, link: linked, flag, sources, target } => {
                let from = match from % (stage + 1) {
                    0 => "HOST/base:1".to_owned(),
                    earlier => format!("s{}", earlier - 1),
                };
                let places = places(one(&IN_STAGES, sources), one(&DESTINATIONS, target));
                format!("COPY --from={from} {}{}{places}", link(linked), one(&FLAGS, flag))
            }
            Self::Document { target, body, quoted } => {
                let (end, body) = (if quoted { "'end'" } else { "end" }, one(&BODIES, body));
                format!("COPY <<{end} {}\n{body}end", one(&DESTINATIONS, target))
            }
            Self::Workdir(number) => format!("WORKDIR {}", one(&DIRECTORIES, number)),
            Self::Argument(number) => format!("ARG {}", one(&ARGUMENTS, number)),
            Self::Environment(number) => format!("ENV {}", one(&VARIABLES, number)),
            Self::Label(number) => format!("LABEL {}", one(&LABELS, number)),
            Self::User(number) => format!("USER {}", one(&USERS, number)),
            Self::Other(number) => one(&OTHERS, number).to_owned(),
        }
    }
}

/// Sources and target, in the form that the sources begin.
fn places(sources: &str, target: &str) -> String {
    if sources.starts_with('[') { format!("{sources}\"{target}\"]") } else { format!("{sources} {target}") }
}

/// A directory and a file in it, with times that have been for long.
fn archive(content: usize) -> Vec<u8> {
    let mut tar = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_gnu();
    header.set_mode(0o640);
    header.set_mtime(5);
    let content = one(&CONTENTS, content).as_bytes();
    header.set_size(content.len() as u64);
    tar.append_data(&mut header, "in/packed", content).unwrap();
    tar.into_inner().unwrap()
}

/// What is at a path at first, if nothing else is.
fn usual(path: usize) -> Node {
    let number = |name: &str| PATHS.iter().position(|known| *known == name).unwrap();
    match PATHS[path] {
        "ptr" => Node::Link(0),
        "dirptr" => Node::Link(1),
        "hard" => Node::Hard(number("dir/one")),
        "arch.tar" => Node::Archive(path),
        "empty" => Node::Directory,
        name => Node::File { content: path, executable: name == "tool" },
    }
}

pub(crate) fn any_path() -> impl Strategy<Value = usize> {
    0..PATHS.len()
}

/// Two paths, the second of which is a likely name for what was at the first.
pub(crate) fn any_rename() -> impl Strategy<Value = (usize, usize)> {
    let number = |path: &str| PATHS.iter().position(|known| *known == path).unwrap();
    let likely = (0..RENAMES.len()).prop_map(move |pair| (number(RENAMES[pair].0), number(RENAMES[pair].1)));
    prop_oneof![3 => likely, 1 => (any_path(), any_path())]
}

pub(crate) fn any_node() -> impl Strategy<Value = Node> {
    prop_oneof![
        6 => (0..CONTENTS.len(), any::<bool>()).prop_map(|(content, executable)| Node::File { content, executable }),
        2 => (0..TARGETS.len()).prop_map(Node::Link),
        2 => any_path().prop_map(Node::Hard),
        1 => (0..CONTENTS.len()).prop_map(Node::Archive),
        1 => Just(Node::Directory),
    ]
}

pub(crate) fn any_step() -> impl Strategy<Value = Step> {
    let flag = || 0..FLAGS.len();
    let target = || 0..DESTINATIONS.len();
    prop_oneof![
        12 => (any::<bool>(), any::<bool>(), flag(), 0..SOURCES.len(), target())
            .prop_map(|(add, link, flag, sources, target)| Step::Copy { add, link, flag, sources, target }),
        5 => (0..12_usize, any::<bool>(), flag(), 0..IN_STAGES.len(), target())
            .prop_map(|(stage, link, flag, sources, target)| Step::CopyFrom { stage, link, flag, sources, target }),
        2 => (target(), 0..BODIES.len(), any::<bool>())
            .prop_map(|(target, body, quoted)| Step::Document { target, body, quoted }),
        2 => (0..DIRECTORIES.len()).prop_map(Step::Workdir),
        2 => (0..ARGUMENTS.len()).prop_map(Step::Argument),
        2 => (0..VARIABLES.len()).prop_map(Step::Environment),
        1 => (0..LABELS.len()).prop_map(Step::Label),
        1 => (0..USERS.len()).prop_map(Step::User),
        1 => (0..OTHERS.len()).prop_map(Step::Other),
    ]
}

pub(crate) fn any_world() -> impl Strategy<Value = World> {
    let stage = || (0..12_usize, vec(any_step(), 1..6)).prop_map(|(from, steps)| Stage { from, steps });
    // Few paths are missing, since what a COPY names and does not find ends the build.
    let context = btree_map(any_path(), any_node(), 0..6).prop_map(|nodes| {
        let mut context: BTreeMap<_, _> = (0..PRESENT).map(|path| (path, usual(path))).collect();
        context.extend(nodes);
        context
    });
    let modes = (any::<bool>(), any::<bool>());
    let rest = (vec(0..IGNORED.len(), 0..3), modes, 0..VALUES.len(), 0..4_usize);
    (context, rest, vec(stage(), 1..3)).prop_map(|(context, (ignored, (raw, group_writes), argument, base), stages)| {
        World { context, ignored, raw, group_writes, links_are_copies: false, argument, base, stages }
    })
}
