//! The merged view of a list of layers.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::ops::Bound;
use std::sync::Arc;

use crate::links::{MAX_LINKS, follow_links};
use crate::{Entry, Index, Kind, Record, RelPath, Result};

/// What a container made of the layers would see, computed from their indexes alone: whiteouts are applied, nothing is
/// downloaded and nothing is unpacked.
#[derive(Debug, Clone, Default)]
pub struct Tree {
    layers: Vec<Arc<Index>>,
    /// Each visible path, with the layer that says what it is and the position of its record there.
    nodes: BTreeMap<RelPath, Node>,
}

#[derive(Debug, Clone, Copy)]
struct Node {
    layer: u32,
    record: u32,
}

/// An entry of a tree, and the layer that holds it.
#[derive(Debug, Clone, Copy)]
pub struct Found<'a> {
    /// The position of the layer, the lowest being 0. Its blob holds the file's bytes.
    pub layer: usize,
    /// What the layer says.
    pub entry: &'a Entry,
}

/// An entry of a part of a tree.
#[derive(Debug, Clone)]
pub struct Part<'a> {
    /// Where it is in the part: the root for what the part begins with.
    pub below: RelPath,
    /// Where it is in the tree.
    pub path: &'a RelPath,
    /// What is there.
    pub found: Found<'a>,
    /// Whether it is a directory on the way to what was taken, and was not taken itself.
    pub is_passage: bool,
}

impl Tree {
    /// The empty tree, of an image made `FROM scratch`.
    pub fn new() -> Self {
        Self::default()
    }

    /// The tree of `layers`, the lowest first.
    pub fn of(layers: impl IntoIterator<Item = Arc<Index>>) -> Self {
        let mut tree = Self::new();
        layers.into_iter().for_each(|layer| tree.push(layer));
        tree
    }

    /// Puts a layer on top.
    pub fn push(&mut self, index: Arc<Index>) {
        let layer = self.layers.len() as u32;
        self.layers.push(Arc::clone(&index));
        // A layer's whiteouts say what lower layers lose, so all of them come before what the layer itself puts.
        for (path, record) in index.records() {
            match record {
                Record::Delete => self.remove(&self.place(path)),
                Record::Opaque(_) => self.remove_below(&self.place(path)),
                Record::Put(_) => {}
            }
        }
        // What lies below a symbolic link of its own layer comes after all that the link may lead to or through.
        let (mut links, mut links_behind, mut behind) = (Vec::new(), Vec::new(), Vec::new());
        // On nothing, all else of the layer is where it says, and what lies below a path comes after it.
        let mut first = self.nodes.is_empty().then(Vec::new);
        let mut plain = None;
        for (position, (path, record)) in index.records().iter().enumerate() {
            let Some(entry) = record.entry() else { continue };
            let (node, bytes) = (Node { layer, record: position as u32 }, path.as_bytes());
            let is_link = matches!(entry.kind, Kind::Symlink { .. });
            while links.pop_if(|link: &mut &[u8]| !bytes.starts_with(link)).is_some() {}
            if links.iter().any(|link| bytes.get(link.len()) == Some(&b'/')) {
                if is_link { &mut links_behind } else { &mut behind }.push((path, entry, node));
                continue;
            }
            if is_link {
                links.push(bytes);
            }
            if let Some(first) = &mut first {
                first.push((path.clone(), node));
                continue;
            }
            // What is side by side has the same above it, which only links change.
            let parent = bytes.iter().rposition(|&byte| byte == b'/').map(|end| &bytes[..end]);
            let is_plain = plain == Some(parent) || !self.has_link_above(path);
            plain = (is_plain && !is_link).then_some(parent);
            let at = if is_plain { path.clone() } else { self.behind_links(path) };
            self.put(at, entry, node);
        }
        if let Some(first) = first {
            self.nodes = first.into_iter().collect();
        }
        for (path, entry, node) in links_behind.into_iter().chain(behind) {
            self.put(self.place(path), entry, node);
        }
    }

    fn put(&mut self, path: RelPath, entry: &Entry, node: Node) {
        if !entry.is_directory() {
            self.remove_below(&path);
        }
        self.nodes.insert(path, node);
    }

    /// Where a layer's entry lands: a symbolic link among its directories is followed, as it is when tars are unpacked
    /// one over the other. Links that lead to each other are left as they are; nothing can be put below those.
    fn place(&self, path: &RelPath) -> RelPath {
        if self.has_link_above(path) { self.behind_links(path) } else { path.clone() }
    }

    fn behind_links(&self, path: &RelPath) -> RelPath {
        self.resolve_parent(path).unwrap_or_else(|_| path.clone())
    }

    fn has_link_above(&self, path: &RelPath) -> bool {
        let bytes = path.as_bytes();
        let is_link = |&node: &Node| matches!(self.found(node).entry.kind, Kind::Symlink { .. });
        let mut above = (0..bytes.len()).filter(|&end| bytes[end] == b'/').map(|end| &bytes[..end]);
        above.any(|above| self.nodes.get(above).is_some_and(is_link))
    }

    /// For each record of layer `layer`, the path under which it is visible, if it is. A path whose last statement is in
    /// this layer is written from this layer and from no other.
    pub fn visible(&self, layer: usize) -> Vec<Option<&RelPath>> {
        let mut visible = vec![None; self.layers.get(layer).map_or(0, |index| index.len())];
        for (path, node) in &self.nodes {
            if node.layer as usize == layer {
                visible[node.record as usize] = Some(path);
            }
        }
        visible
    }

    fn remove(&mut self, path: &RelPath) {
        self.nodes.remove(path);
        self.remove_below(path);
    }

    fn remove_below(&mut self, path: &RelPath) {
        let below: Vec<RelPath> = self.range_below(path).map(|(path, _)| path.clone()).collect();
        for path in below {
            self.nodes.remove(&path);
        }
    }

    /// All nodes below `path`: the byte after the slash ends them, since no name can hold a slash.
    fn range_below<'a>(&'a self, path: &RelPath) -> impl Iterator<Item = (&'a RelPath, &'a Node)> + use<'a> {
        let (start, end) = if path.is_root() {
            (Vec::new(), None)
        } else {
            ([path.as_bytes(), b"/"].concat(), Some([path.as_bytes(), b"0"].concat()))
        };
        let end = end.as_deref().map_or(Bound::Unbounded, Bound::Excluded);
        self.nodes.range::<[u8], _>((Bound::Included(&start[..]), end))
    }

    fn found(&self, node: Node) -> Found<'_> {
        let record = &self.layers[node.layer as usize].records()[node.record as usize].1;
        let entry = record.entry().expect("nodes are made of records that have an entry");
        Found { layer: node.layer as usize, entry }
    }

    /// What `path` is. No link is followed, not even in its directories. The root itself is never in a tree.
    pub fn get(&self, path: &RelPath) -> Option<Found<'_>> {
        self.nodes.get(path).map(|&node| self.found(node))
    }

    /// Whether `path` is a directory, without following links. The root is one.
    pub fn is_directory(&self, path: &RelPath) -> bool {
        path.is_root() || self.get(path).is_some_and(|found| found.entry.is_directory()) || self.is_implied(path)
    }

    /// A directory that no layer states, but in which a layer puts something.
    fn is_implied(&self, path: &RelPath) -> bool {
        !self.nodes.contains_key(path) && self.range_below(path).next().is_some()
    }

    /// The entry, resolved through hard links, that holds the bytes and the attributes of `path`: its name in the tar of
    /// its layer, which is the layer of the answer. A link's own layer, and those below it, say what it leads to; a target
    /// in a lower layer may be a link itself.
    pub fn content(&self, path: &RelPath) -> Option<(&RelPath, Found<'_>)> {
        let node = *self.nodes.get(path)?;
        let mut name = &self.layers[node.layer as usize].records()[node.record as usize].0;
        let mut found = self.found(node);
        for _ in 0..MAX_LINKS {
            let Kind::Hardlink { target } = &found.entry.kind else {
                return Some((name, found));
            };
            let (layer, entry) = (0..=found.layer).rev().find_map(|layer| {
                let entry = self.layers[layer].get(target)?.entry()?;
                Some((layer, entry))
            })?;
            (name, found) = (target, Found { layer, entry });
        }
        None
    }

    /// The path that `path` leads to when every symbolic link in it is followed, the last component's included, as a
    /// process whose root is this tree would. What does not exist yet is kept as it is written.
    pub fn resolve(&self, path: &RelPath) -> Result<RelPath> {
        self.follow(path, true)
    }

    /// Like [`Tree::resolve`], but a symbolic link in the last component stays itself.
    pub fn resolve_parent(&self, path: &RelPath) -> Result<RelPath> {
        self.follow(path, false)
    }

    fn follow(&self, path: &RelPath, last: bool) -> Result<RelPath> {
        follow_links(path, last, |here| match &self.get(here)?.entry.kind {
            Kind::Symlink { target } => Some(&target[..]),
            _ => None,
        })
    }

    /// Everything below `directory`, sorted by path. Links are not followed.
    pub fn below<'a>(&'a self, directory: &RelPath) -> impl Iterator<Item = (&'a RelPath, Found<'a>)> + use<'a> {
        self.range_below(directory).map(|(path, &node)| (path, self.found(node)))
    }

    /// `path` and what `takes` takes of all below it, after the directories on the way there that it does not take. What
    /// `takes` is asked about are paths below `path`; the root is `path` itself. The root of the tree is not in it, and
    /// neither are directories that no layer states.
    pub fn part<'a>(&'a self, path: &RelPath, takes: &dyn Fn(&RelPath) -> bool) -> Vec<Part<'a>> {
        let mut parts = Vec::new();
        let mut seen = HashSet::new();
        let itself = self.nodes.get_key_value(path).map(|(path, &node)| (path, self.found(node)));
        for (at, found) in itself.into_iter().chain(self.below(path)) {
            let below = at.strip_prefix(path).unwrap_or_default();
            if !takes(&below) {
                continue;
            }
            let above: Vec<RelPath> = below.ancestors().take_while(|above| seen.insert(above.clone())).collect();
            for below in above.into_iter().rev().filter(|above| !takes(above)) {
                if let Some((path, &node)) = self.nodes.get_key_value(&path.join(&below)) {
                    parts.push(Part { below, path, found: self.found(node), is_passage: true });
                }
            }
            parts.push(Part { below, path: at, found, is_passage: false });
        }
        parts
    }

    /// The names in `directory`, sorted.
    pub fn names(&self, directory: &RelPath) -> BTreeSet<Vec<u8>> {
        self.range_below(directory)
            .filter_map(|(path, _)| Some(path.strip_prefix(directory)?.components().next()?.to_vec()))
            .collect()
    }

    /// Everything in the tree, sorted by path.
    pub fn iter(&self) -> impl Iterator<Item = (&RelPath, Found<'_>)> {
        self.nodes.iter().map(|(path, &node)| (path, self.found(node)))
    }

    /// The content of `/etc/passwd` or `/etc/group`, through symbolic links, where it is known.
    pub fn inline(&self, path: &RelPath) -> Option<&[u8]> {
        let path = self.resolve(path).ok()?;
        let (path, found) = self.content(&path)?;
        self.layers[found.layer].inline(path)
    }

    /// The layers, the lowest first.
    pub fn layers(&self) -> &[Arc<Index>] {
        &self.layers
    }

    /// The number of visible paths.
    pub fn len(&self) -> usize {
        self.nodes.len()
    }

    /// Whether nothing is visible.
    pub fn is_empty(&self) -> bool {
        self.nodes.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{IndexBuilder, Timestamp};

    fn path(text: &str) -> RelPath {
        RelPath::new(text).unwrap()
    }

    /// `d/` is a directory, `f` a file, `l -> t` a symbolic link, `h = t` a hard link, `-p` a whiteout, `o!` opaque.
    fn layer(lines: &[&str]) -> Arc<Index> {
        let mut builder = IndexBuilder::new();
        let at = Timestamp::default();
        for line in lines {
            if let Some(gone) = line.strip_prefix('-') {
                builder.delete(path(gone));
            } else if let Some(opaque) = line.strip_suffix('!') {
                builder.opaque(path(opaque));
            } else if let Some(directory) = line.strip_suffix('/') {
                builder.put(path(directory), Entry::directory(0o755, at), None);
            } else if let Some((link, target)) = line.split_once(" -> ") {
                let kind = Kind::Symlink { target: target.into() };
                builder.put(path(link), Entry { kind, ..Entry::file(0, 0o777, at) }, None);
            } else if let Some((link, target)) = line.split_once(" = ") {
                let kind = Kind::Hardlink { target: path(target) };
                builder.put(path(link), Entry { kind, ..Entry::file(0, 0o644, at) }, None);
            } else {
                builder.put(path(line), Entry::file(0, 0o644, at), Some(line.as_bytes().to_vec()));
            }
        }
        Arc::new(builder.finish())
    }

    fn tree(layers: &[&[&str]]) -> Tree {
        Tree::of(layers.iter().map(|lines| layer(lines)))
    }

    fn paths(tree: &Tree) -> Vec<String> {
        tree.iter().map(|(path, _)| path.to_string()).collect()
    }

    #[test]
    fn whiteouts_remove_what_lower_layers_put_and_nothing_else() {
        let tree = tree(&[&["a/", "a/x", "a/y", "a.txt", "b"], &["-a/x", "-b", "b"]]);
        assert_eq!(paths(&tree), ["a", "a.txt", "a/y", "b"]);
        assert_eq!(tree.get(&path("b")).unwrap().layer, 1);
    }

    #[test]
    fn opaque_directories_hide_lower_layers_but_not_their_own() {
        let tree = tree(&[&["a/", "a/x", "ab"], &["a/", "a/new", "a!"]]);
        assert_eq!(paths(&tree), ["a", "a/new", "ab"]);
    }

    #[test]
    fn a_file_replaces_a_directory_and_all_below_it() {
        let tree = tree(&[&["d/", "d/x", "d/y/", "d/y/z"], &["d"]]);
        assert_eq!(paths(&tree), ["d"]);
    }

    #[test]
    fn links_are_followed_inside_the_root_only() {
        let tree =
            tree(&[&["usr/", "usr/bin/", "bin -> usr/bin", "up -> ../../../etc", "abs -> /usr", "loop -> loop"]]);
        let resolve = |text| tree.resolve(&path(text)).map(|path| path.to_string());
        assert_eq!(resolve("bin/sh").unwrap(), "usr/bin/sh");
        assert_eq!(resolve("up/passwd").unwrap(), "etc/passwd");
        assert_eq!(resolve("abs/bin").unwrap(), "usr/bin");
        assert_eq!(resolve("new/file").unwrap(), "new/file");
        assert!(matches!(resolve("loop/x"), Err(crate::Error::SymlinkLoop(_))));
        assert_eq!(tree.resolve_parent(&path("bin")).unwrap(), path("bin"));
    }

    #[test]
    fn entries_below_a_link_of_a_lower_layer_land_behind_it() {
        let tree = tree(&[&["usr/", "usr/lib/", "lib -> usr/lib", "usr/lib/a"], &["lib/b", "-lib/a"]]);
        assert_eq!(paths(&tree), ["lib", "usr", "usr/lib", "usr/lib/b"]);
        assert_eq!(tree.visible(1), [None, Some(&path("usr/lib/b"))]);
    }

    #[test]
    fn entries_below_a_link_of_their_own_layer_land_behind_all_of_its_links() {
        let chain = ["a -> b", "a/x", "b -> c", "c -> d", "d/", "d/e -> ../f", "d/e/y", "f/"];
        let tree = tree(&[&chain]);
        assert_eq!(paths(&tree), ["a", "b", "c", "d", "d/e", "d/x", "f", "f/y"]);
        let tree = self::tree(&[&["m -> n/q", "m/x", "n -> o", "n/q -> ../r", "o/", "r/"]]);
        assert_eq!(paths(&tree), ["m", "n", "o", "o/q", "r", "r/x"]);
    }

    #[test]
    fn hard_links_lead_to_the_layer_that_holds_the_bytes() {
        let tree = tree(&[&["a", "b = a"], &["a"]]);
        let (target, found) = tree.content(&path("b")).unwrap();
        assert_eq!((target.to_string().as_str(), found.layer), ("a", 0));
        assert_eq!(tree.content(&path("a")).unwrap().1.layer, 1);
        let tree = self::tree(&[&["a", "b = a"], &["c = b"]]);
        assert_eq!(tree.content(&path("c")).unwrap().0, &path("a"));
    }

    #[test]
    fn passwd_is_known_through_links() {
        let tree = tree(&[&["etc/", "etc/passwd -> ../real", "real"], &["etc/group"]]);
        assert_eq!(tree.inline(&path("etc/group")), Some(&b"etc/group"[..]));
        assert_eq!(tree.inline(&path("etc/passwd")), Some(&b"real"[..]));
    }

    #[test]
    fn a_part_is_what_is_taken_and_the_way_to_it() {
        let tree = tree(&[&["a/", "a/b/", "a/b/c", "a/b/d", "a/b-", "a/e/", "a/e/f", "g/h"]]);
        let part = |at: &str, takes: &dyn Fn(&RelPath) -> bool| -> Vec<String> {
            let parts = tree.part(&RelPath::new(at).unwrap(), takes).into_iter();
            parts.map(|part| format!("{}{}", part.below, if part.is_passage { " passed" } else { "" })).collect()
        };
        assert_eq!(part("a/b", &|_| true), ["", "c", "d"]);
        assert_eq!(part("a/b/c", &|_| true), [""]);
        assert_eq!(part("", &|below| below.as_bytes().ends_with(b"c")), ["a passed", "a/b passed", "a/b/c"]);
        assert_eq!(part("", &|below| below.as_bytes().ends_with(b"h")), ["g/h"], "no layer states g");
        let but_b = |below: &RelPath| below.as_bytes() != b"b";
        assert_eq!(part("a", &but_b), ["", "b-", "b passed", "b/c", "b/d", "e", "e/f"]);
        assert_eq!(part("none", &|_| true), Vec::<String>::new());
    }

    #[test]
    fn names_list_one_directory() {
        let tree = tree(&[&["a/", "a/b/", "a/b/c", "a-b", "a/d"]]);
        assert_eq!(tree.names(&path("a")), BTreeSet::from([b"b".to_vec(), b"d".to_vec()]));
        assert_eq!(tree.names(&RelPath::root()), BTreeSet::from([b"a".to_vec(), b"a-b".to_vec()]));
    }
}
