use std::collections::BTreeMap;

use proptest::collection::vec;
use proptest::prelude::*;

use super::*;
use crate::apply::apply_tar;
use crate::testing::{Hostile, is_root, listing, path, temp};
use crate::{Record, tar};

/// Layers, and the contents of their files.
#[derive(Default)]
struct Stack {
    tars: Vec<Vec<u8>>,
    indexes: Vec<Arc<Index>>,
    contents: HashMap<(usize, RelPath), Vec<u8>>,
}

impl Stack {
    fn of(layers: Vec<Hostile>) -> Self {
        let mut stack = Self::default();
        layers.into_iter().for_each(|layer| stack.push(layer.end()));
        stack
    }

    fn push(&mut self, bytes: Vec<u8>) {
        let layer = self.tars.len();
        tar::read(&bytes[..], &crate::Limits::NONE, |path, _, content| {
            let mut all = Vec::new();
            std::io::copy(content, &mut all).unwrap();
            self.contents.insert((layer, path), all);
            Ok(())
        })
        .unwrap();
        self.indexes.push(Arc::new(tar::index(&bytes[..]).unwrap()));
        self.tars.push(bytes);
    }

    /// The layers above the lowest `base` ones as one tar.
    fn squash(&self, base: usize) -> Vec<u8> {
        let below = Tree::of(self.indexes[..base].iter().cloned());
        let squashed = squash(&below, &self.indexes[base..]).unwrap();
        let wanted = squashed.wanted();
        let changes = squashed.changes(&|layer, name| {
            assert!(wanted[&layer].contains(name), "{layer} {name}");
            Content::Bytes(self.contents[&(layer, name.clone())].clone().into())
        });
        tar::write(&changes, None, Vec::new()).unwrap().0
    }

    /// The same layers, with those above the lowest `base` ones as one.
    fn squashed(&self, base: usize) -> Self {
        let mut other = Self::default();
        self.tars[..base].iter().cloned().chain([self.squash(base)]).for_each(|tar| other.push(tar));
        other
    }

    /// Every path with what it is, and all names that it has. A directory that nothing states is what unpacking makes of it.
    fn flat(&self) -> BTreeMap<RelPath, (Entry, Vec<RelPath>)> {
        let tree = Tree::of(self.indexes.iter().cloned());
        let mut names: BTreeMap<(usize, &RelPath), Vec<RelPath>> = BTreeMap::new();
        for (path, _) in tree.iter() {
            let (name, found) = tree.content(path).unwrap();
            names.entry((found.layer, name)).or_default().push(path.clone());
        }
        let mut flat = BTreeMap::new();
        for (path, _) in tree.iter() {
            let (name, found) = tree.content(path).unwrap();
            flat.insert(path.clone(), (visible(found.entry), names[&(found.layer, name)].clone()));
        }
        for implied in tree.iter().flat_map(|(path, _)| path.ancestors()) {
            let entry = Entry::directory(IMPLIED_MODE, Timestamp::default());
            flat.entry(implied.clone()).or_insert((entry, vec![implied]));
        }
        flat
    }

    /// What the squashed layer says: `d/` is a directory, `-p` a whiteout, `h = f` a hard link.
    fn says(&self, base: usize) -> Vec<String> {
        let index = tar::index(&self.squash(base)[..]).unwrap();
        let line = |(path, record): &(RelPath, Record)| match record {
            Record::Put(entry) => match &entry.kind {
                Kind::Directory => format!("{path}/"),
                Kind::Hardlink { target } => format!("{path} = {target}"),
                Kind::Symlink { target } => format!("{path} -> {}", target.escape_ascii()),
                _ => path.to_string(),
            },
            Record::Delete => format!("-{path}"),
            Record::Opaque(_) => format!("{path}!"),
        };
        index.records().iter().map(line).collect()
    }
}

fn new() -> Hostile {
    Hostile::default()
}

/// What all cases begin with: `lib` and `implied` are directories, of which nothing states the second.
fn base() -> Hostile {
    new()
        .dir("d")
        .file("d/f", "content")
        .file("d/g", "other")
        .dir("d/sub")
        .file("d/sub/x", "x")
        .file("h1", "linked")
        .hardlink("h2", "h1")
        .file("implied/a", "a")
        .dir("lib")
        .symlink("l", "lib")
        .file("lib/so", "so")
        .file("top", "top")
}

/// Layers on the base, and what the one layer says that they become.
type Case = (&'static str, Vec<Hostile>, &'static [&'static str]);

fn cases() -> Vec<Case> {
    vec![
        ("added and deleted again", vec![new().file("n", "1"), new().file(".wh.n", "")], &[]),
        (
            "a tree added and deleted again",
            vec![new().dir("n").dir("n/m").file("n/m/x", "1"), new().file(".wh.n", "")],
            &[],
        ),
        ("added twice", vec![new().file("n", "1"), new().file("n", "2")], &["n"]),
        ("deleted", vec![new().dir("d").file("d/.wh.f", ""), new().file(".wh.top", "")], &["d/", "-d/f", "-top"]),
        (
            "deleted one by one and then the whole",
            vec![new().dir("d").file("d/.wh.f", ""), new().file(".wh.d", "")],
            &["-d"],
        ),
        ("deleted and there again", vec![new().file(".wh.top", ""), new().file("top", "top")], &[]),
        ("deleted and another", vec![new().file(".wh.top", ""), new().file("top", "new")], &["top"]),
        (
            "a file in a directory's place and back",
            vec![new().file("d", "file"), new().dir("d").file("d/f", "content")],
            &["d/", "-d/g", "-d/sub"],
        ),
        ("a file in a directory's place", vec![new().dir("d").file("d/n", "1"), new().file("d", "file")], &["d"]),
        (
            "a directory in a file's place",
            vec![new().file(".wh.top", ""), new().dir("top").file("top/x", "1")],
            &["top/", "top/x"],
        ),
        (
            "opaque",
            vec![new().dir("d").file("d/.wh..wh..opq", "").file("d/n", "1"), new().dir("d").file("d/g", "other")],
            &["d/", "-d/f", "d/n", "-d/sub"],
        ),
        (
            "deleted and recreated with less",
            vec![new().file(".wh.d", ""), new().dir("d").file("d/n", "1")],
            &["d/", "-d/f", "-d/g", "d/n", "-d/sub"],
        ),
        (
            "deleted and only something below it there again",
            vec![new().file(".wh.d", ""), new().file("d/sub/x", "x")],
            &["d/", "-d/f", "-d/g", "d/sub/"],
        ),
        ("an implied directory is gone", vec![new().file("n", "1"), new().file(".wh.implied", "")], &["-implied", "n"]),
        ("a mode alone", vec![new().file("n", "1"), new().executable("top", "top")], &["n", "top"]),
        ("a mode and back", vec![new().executable("top", "top"), new().file("top", "top")], &[]),
        (
            "the first name of a file is gone",
            vec![new().file("a", "1").hardlink("b", "a").hardlink("c", "a"), new().file(".wh.a", "")],
            &["b", "c = b"],
        ),
        (
            "the first name is another file",
            vec![new().file("a", "1").hardlink("b", "a").hardlink("c", "a"), new().file("a", "2")],
            &["a", "b", "c = b"],
        ),
        (
            "names across layers",
            vec![new().file("b", "1"), new().hardlink("a", "b"), new().hardlink("c", "b")],
            &["a", "b = a", "c = a"],
        ),
        (
            "a name of a base's file is a file of its own",
            vec![new().file("h2", "linked"), new().file("n", "1")],
            &["h2", "n"],
        ),
        (
            "both names of a base's file are put again",
            vec![new().file("h1", "linked").hardlink("h2", "h1"), new().file("n", "1")],
            &["h1", "h2 = h1", "n"],
        ),
        (
            "a name beside a base's file",
            vec![new().file("top", "top").hardlink("up", "top"), new().file("n", "1")],
            &["n", "top", "up = top"],
        ),
        ("through a link", vec![new().file("l/n", "1"), new().file("l/.wh.so", "")], &["-lib/so", "lib/n"]),
        (
            "a directory in a link's place",
            vec![new().file(".wh.l", ""), new().dir("l").file("l/so", "so")],
            &["l/", "l/so"],
        ),
        (
            "a link in a directory's place",
            vec![new().file(".wh.d", ""), new().symlink("d", "lib"), new().file("d/n", "1")],
            &["d -> lib", "lib/n"],
        ),
        ("directories on the way", vec![new().dir("d").dir("d/sub").file("d/sub/x", "x"), new().dir("lib")], &[]),
        (
            "directories on the way to something",
            vec![new().dir("d").dir("d/sub").file("d/sub/n", "1"), new().dir("lib")],
            &["d/", "d/sub/", "d/sub/n"],
        ),
        ("an empty file", vec![new().file("n", ""), new().file("m", "")], &["m", "n"]),
        ("what is no file", vec![new().entry(b'6', b"p", b"", b""), new().hardlink("q", "p")], &["p", "q = p"]),
    ]
}

#[test]
fn one_layer_says_what_several_say_together() {
    for (name, layers, expected) in cases() {
        let stack = Stack::of(std::iter::once(base()).chain(layers).collect());
        let mut expected = expected.to_vec();
        expected.sort_by_key(|line| line.trim_start_matches('-').trim_end_matches('/'));
        assert_eq!(stack.says(1), expected, "{name}");
        assert_eq!(stack.squashed(1).flat(), stack.flat(), "{name}");
        let nothing_below = stack.squashed(0);
        assert_eq!((nothing_below.flat(), nothing_below.tars.len()), (stack.flat(), 1), "{name}, on nothing");
        assert!(
            !nothing_below.says(0).iter().any(|line| line.starts_with('-')),
            "{name}: nothing is there to be deleted"
        );
    }
}

#[test]
fn one_layer_makes_the_directory_that_several_make() {
    if !is_root("squash") {
        return;
    }
    for (name, layers, _) in cases() {
        let stack = Stack::of(std::iter::once(base()).chain(layers).collect());
        let directory = |stack: &Stack| {
            let (_directory, root) = temp();
            stack.tars.iter().for_each(|tar| _ = apply_tar(&tar[..], &crate::Limits::NONE, &root).unwrap());
            // Nothing states the time of some directories.
            listing(&root, false)
        };
        assert_eq!(directory(&stack.squashed(1)), directory(&stack), "{name}");
    }
}

#[test]
fn a_link_to_nothing_is_an_error_that_names_it() {
    let stack = Stack::of(vec![new().hardlink("link", "nothing")]);
    let error = squash(&Tree::new(), &stack.indexes).unwrap_err().to_string();
    assert_eq!(error, "entry 'link': is a hard link to a file that no layer holds");
}

#[test]
fn attributes_are_those_of_the_last_layer() {
    let layer = |text: &str| new().pax(&[&format!("SCHILY.xattr.user.note={text}"), "mtime=-5", "uid=70000"]);
    let stack = Stack::of(vec![layer("old").file("f", "x"), layer("new").file("f", "x").hardlink("g", "f")]);
    let (entry, names) = &stack.squashed(0).flat()[&path("g")];
    let xattrs: Vec<_> = entry.xattrs.iter().map(|(name, value)| (&name[..], &value[..])).collect();
    assert_eq!(xattrs, [(&b"user.note"[..], &b"new"[..])]);
    assert_eq!((entry.mtime.secs, entry.uid, names.len()), (-5, 70_000, 2));
}

/// One thing that a layer says, of a path that is one of few.
#[derive(Debug, Clone)]
enum Saying {
    File(usize),
    Executable,
    Directory,
    Link(usize),
    Hard(usize),
    Gone,
    Opaque,
}

const PATHS: [&str; 12] = ["a", "a-b", "a/a", "a/a/a", "a/b", "b", "b/a", "b/a/c", "b/c", "c", "c/a", "c/b"];

fn any_layer() -> impl Strategy<Value = Vec<(usize, Saying)>> {
    let saying = prop_oneof![
        5 => (0..3_usize).prop_map(Saying::File),
        1 => Just(Saying::Executable),
        4 => Just(Saying::Directory),
        1 => (0..PATHS.len()).prop_map(Saying::Link),
        2 => (0..PATHS.len()).prop_map(Saying::Hard),
        3 => Just(Saying::Gone),
        1 => Just(Saying::Opaque),
    ];
    vec((0..PATHS.len(), saying), 0..7)
}

/// The tar of a layer, without what no layer may say; `None` where nothing is left.
fn layer(sayings: &[(usize, Saying)], below: &Tree) -> Option<Vec<u8>> {
    let mut said: BTreeMap<&str, &Saying> = BTreeMap::new();
    let mut tar = new();
    for (number, saying) in sayings {
        said.insert(PATHS[*number], saying);
    }
    let mut files: Vec<&str> = Vec::new();
    let mut put: BTreeMap<&str, bool> = BTreeMap::new();
    for (name, saying) in said {
        let parent = name.rsplit_once('/').map(|(parent, _)| parent);
        // What is below something lies in a directory, of this layer or of one below.
        let lies_in_file = path(name).ancestors().any(|above| put.get(&above.to_string()[..]) == Some(&false));
        let is_directory = |parent: &str| put.contains_key(parent) || below.is_directory(&path(parent));
        if lies_in_file || !parent.is_none_or(is_directory) {
            continue;
        }
        let (directory, last) =
            name.rsplit_once('/').map_or(("", name), |(parent, last)| (&name[..=parent.len()], last));
        tar = match saying {
            Saying::File(content) => tar.file(name, ["", "x", "y"][*content]),
            Saying::Executable => tar.executable(name, "x"),
            Saying::Directory => tar.dir(name),
            Saying::Link(target) => tar.symlink(name, PATHS[*target]),
            Saying::Hard(number) => match files.get(number % files.len().max(1)) {
                Some(first) => tar.hardlink(name, first),
                None => continue,
            },
            Saying::Gone => tar.file(&format!("{directory}.wh.{last}"), ""),
            Saying::Opaque => tar.dir(name).file(&format!("{name}/.wh..wh..opq"), ""),
        };
        put.insert(name, matches!(saying, Saying::Directory | Saying::Opaque));
        if let Saying::File(_) | Saying::Executable = saying {
            files.push(name);
        }
    }
    (!put.is_empty()).then(|| tar.end())
}

proptest! {
    #[test]
    fn whatever_layers_say_one_layer_says_it_as_well(layers in vec(any_layer(), 1..7), base in 0..5_usize) {
        let mut stack = Stack::default();
        for sayings in &layers {
            let below = Tree::of(stack.indexes.iter().cloned());
            if let Some(tar) = layer(sayings, &below) {
                stack.push(tar);
            }
        }
        let base = base.min(stack.tars.len());
        let squashed = stack.squashed(base);
        prop_assert_eq!(squashed.flat(), stack.flat());
        // Nothing is left to be merged, and nothing says what is so already.
        prop_assert_eq!(&squashed.squash(base), &squashed.tars[base]);
        let again = stack.says(base);
        prop_assert!(again.iter().all(|line| !line.ends_with('!')), "{:?}", again);
    }
}
