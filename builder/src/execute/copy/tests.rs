//! What COPY, ADD and WORKDIR make of trees.

use std::sync::Arc;

use yadokari_layers::{Change, IndexBuilder};

use super::*;
use crate::plan::{Selection, select};

fn path(text: &str) -> RelPath {
    RelPath::new(text).unwrap()
}

/// `d/` with mode 0700 and owner 5, `f` a file with mode 0640, `l -> t` a symbolic link, `h = t` a hard link.
fn tree(lines: &[&str]) -> Tree {
    let mut builder = IndexBuilder::new();
    let at = Timestamp::from_secs(7);
    for line in lines {
        let (name, entry) = if let Some(name) = line.strip_suffix('/') {
            (name, Entry { uid: 5, gid: 5, ..Entry::directory(0o700, at) })
        } else if let Some((name, target)) = line.split_once(" -> ") {
            (name, Entry { kind: Kind::Symlink { target: target.into() }, ..Entry::file(0, 0o777, at) })
        } else if let Some((name, target)) = line.split_once(" = ") {
            (name, Entry { kind: Kind::Hardlink { target: path(target) }, ..Entry::file(0, 0o640, at) })
        } else {
            (*line, Entry::file(3, 0o640, at))
        };
        builder.put(path(name), entry, None);
    }
    Tree::of([Arc::new(builder.finish())])
}

fn copied(
    source: &[&str],
    words: &[&str],
    into: &[&str],
    destination: &str,
    restyle: Restyle,
) -> Result<Vec<String>, Conflict> {
    let (source, into) = (tree(source), tree(into));
    let mut placing = Placing::new(&into, restyle, Timestamp::from_secs(9));
    for word in words {
        let Selection::Found(found) = select(&source, word).unwrap() else { panic!("{word} is missing") };
        for selected in found {
            placing.copy(&source, &selected, destination, &|_, _| Content::Empty)?;
        }
    }
    let line = |(path, change): (&RelPath, &Change)| match change {
        Change::Put(Entry { kind: Kind::Hardlink { target }, .. }, _) => format!("{path} = {target}"),
        Change::Put(Entry { mode, uid, .. }, _) => format!("{path} {mode:o} {uid}"),
        Change::Delete => format!("-{path}"),
    };
    Ok(placing.finish().iter().map(line).collect())
}

fn plain(source: &[&str], words: &[&str], into: &[&str], destination: &str) -> Vec<String> {
    copied(source, words, into, destination, Restyle::default()).unwrap()
}

#[test]
fn a_file_goes_to_the_destination_or_into_it() {
    assert_eq!(plain(&["f"], &["f"], &[], "/x/y"), ["x 755 0", "x/y 640 0"]);
    assert_eq!(plain(&["f"], &["f"], &[], "/x/y/"), ["x 755 0", "x/y 755 0", "x/y/f 640 0"]);
    assert_eq!(plain(&["f"], &["f"], &["d/"], "/d"), ["d 700 5", "d/f 640 0"]);
}

#[test]
fn a_directorys_contents_are_copied_and_only_the_destination_keeps_its_mode() {
    let source = ["s/", "s/sub/", "s/sub/f", "s/top"];
    assert_eq!(plain(&source, &["s"], &[], "/n"), ["n 755 0", "n/sub 700 5", "n/sub/f 640 0", "n/top 640 0"]);
    let restyle = Restyle { owner: Some((9, 9)), mode: Some(Mode::Exact(0o750)) };
    let existing = copied(&source, &["s"], &["n/", "n/sub/", "n/other/"], "/n", restyle).unwrap();
    assert_eq!(existing, ["n 700 5", "n/sub 750 9", "n/sub/f 750 9", "n/top 750 9"]);
}

#[test]
fn links_of_the_destination_are_followed_inside_the_root() {
    assert_eq!(plain(&["f"], &["f"], &["usr/", "bin -> ../../usr"], "/bin/"), ["usr 700 5", "usr/f 640 0"]);
    assert_eq!(plain(&["f"], &["f"], &["usr/", "g -> usr/h"], "/g"), ["usr 700 5", "usr/h 640 0"]);
}

#[test]
fn hard_links_are_kept_within_one_copy() {
    let source = ["s/", "s/a", "s/b = s/a", "s/c = s/a"];
    assert_eq!(plain(&source, &["s"], &[], "/n"), ["n 755 0", "n/a 640 0", "n/b = n/a", "n/c = n/a"]);
    assert_eq!(plain(&source, &["s/b"], &[], "/n"), ["n 640 0"]);
    let only_links = ["a", "s/", "s/b = a", "s/c = a"];
    assert_eq!(plain(&only_links, &["s"], &[], "/n"), ["n 755 0", "n/b 640 0", "n/c = n/b"]);
}

#[test]
fn owner_and_mode_hold_for_what_is_made_on_the_way_too() {
    let restyle = Restyle { owner: Some((1, 2)), mode: Some(Mode::Exact(0o705)) };
    let lines = copied(&["f"], &["f"], &["e/"], "/e/x/f", restyle).unwrap();
    assert_eq!(lines, ["e 700 5", "e/x 705 1", "e/x/f 705 1"]);
}

#[test]
fn files_and_directories_do_not_replace_each_other() {
    let conflict = |source: &[&str], word, into: &[&str], to| copied(source, &[word], into, to, Restyle::default());
    assert!(matches!(conflict(&["s/", "s/x"], "s", &["d/", "d/x/"], "/d"), Err(Conflict::IsDirectory(_))));
    assert!(matches!(conflict(&["s/", "s/x/"], "s", &["d/", "d/x"], "/d"), Err(Conflict::NotDirectory(_))));
    assert!(matches!(conflict(&["f"], "f", &["d"], "/d/f"), Err(Conflict::NotDirectory(_))));
}

/// What an archive of these entries, in their order, makes of a tree.
fn unpacked(entries: &[&str], into: &[&str]) -> Result<Vec<String>, Conflict> {
    let into = tree(into);
    let restyle = Restyle { owner: None, mode: Some(Mode::Exact(0o711)) };
    let mut placing = Placing::new(&into, restyle, Timestamp::from_secs(9));
    for (number, line) in entries.iter().enumerate() {
        if let Some((name, first)) = line.split_once(" = ") {
            placing.link(&path(name), &path(first))?;
            continue;
        }
        let one = tree(&[line]);
        let (name, found) = one.iter().next().unwrap();
        placing.unpack(name, found.entry.clone(), Content::Bytes(number.to_string().as_bytes().into()))?;
    }
    let line = |(path, change): (&RelPath, &Change)| match change {
        Change::Put(Entry { kind: Kind::Hardlink { target }, .. }, _) => format!("{path} = {target}"),
        Change::Put(Entry { kind: Kind::Symlink { .. }, .. }, _) => format!("{path} ->"),
        Change::Put(Entry { mode, .. }, Content::Bytes(bytes)) => {
            format!("{path} {mode:o} {}", String::from_utf8_lossy(bytes))
        }
        Change::Put(Entry { mode, uid, .. }, _) => format!("{path} {mode:o} by {uid}"),
        Change::Delete => format!("-{path}"),
    };
    Ok(placing.finish().iter().map(line).collect())
}

#[test]
fn the_first_name_of_an_unpacked_file_holds_it_whatever_the_archives_order() {
    assert_eq!(unpacked(&["b", "a = b", "c = a"], &[]).unwrap(), ["a 640 0", "b = a", "c = a"]);
    assert_eq!(unpacked(&["s -> x", "h = s"], &[]).unwrap(), ["h ->", "s ->"]);
}

#[test]
fn a_link_keeps_its_content_when_its_first_name_is_unpacked_again() {
    assert_eq!(unpacked(&["a", "h = a", "a"], &[]).unwrap(), ["a 640 2", "h 640 0"]);
}

#[test]
fn a_hard_link_to_a_file_of_the_base_or_to_nothing() {
    assert_eq!(unpacked(&["h = etc/f"], &["etc/", "etc/f"]).unwrap(), ["h = etc/f"]);
    assert!(matches!(unpacked(&["h = etc"], &["etc/"]), Err(Conflict::NoFirstName { .. })));
    assert!(matches!(unpacked(&["h = none"], &[]), Err(Conflict::NoFirstName { .. })));
}

#[test]
fn unpacking_follows_the_links_of_the_tree_and_of_the_archive() {
    assert_eq!(unpacked(&["bin/x"], &["usr/", "bin -> usr"]).unwrap(), ["usr 700 by 5", "usr/x 640 0"]);
    let own = unpacked(&["s -> r", "r/", "s/x", "up -> ../../..", "up/y"], &[]).unwrap();
    assert_eq!(own, ["r 700 1", "r/x 640 2", "s ->", "up ->", "y 640 4"]);
}

#[test]
fn unpacking_replaces_what_is_in_the_way_and_restyles_directories() {
    assert_eq!(unpacked(&["bin/", "bin/x"], &["bin -> usr"]).unwrap(), ["bin 700 0", "bin/x 640 1"]);
    assert_eq!(unpacked(&["d"], &["d/", "d/x"]).unwrap(), ["d 640 0"]);
    assert_eq!(unpacked(&["d/", "d/x", "d"], &[]).unwrap(), ["d 640 2"]);
    assert!(matches!(unpacked(&["d", "d/e/f"], &["d/", "d/e/"]), Err(Conflict::NotDirectory(_))));
    assert!(matches!(unpacked(&["d", "d/"], &["d/", "d/e"]), Err(Conflict::NotDirectory(_))));
}

#[test]
fn directories_that_an_archive_does_not_state_are_roots() {
    assert_eq!(unpacked(&["i/j/f"], &[]).unwrap(), ["i 755 by 0", "i/j 755 by 0", "i/j/f 640 0"]);
}
