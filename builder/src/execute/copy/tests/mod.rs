//! What COPY, ADD and WORKDIR make of trees.

mod archives;
mod filters;

use std::sync::Arc;

use yadokari_layers::{Change, IndexBuilder};

use super::*;
use crate::context::ignore::Ignore;
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
            let filter = Filter { include: None, exclude: &Ignore::default() };
            placing.copy(&source, &selected, filter, destination, &|_, _| Content::Empty)?;
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
fn a_destination_takes_the_time_of_the_directory_and_an_existing_one_nothing_else() {
    let source = tree(&["s/", "s/f"]);
    let mut base = IndexBuilder::new();
    base.put(path("old"), Entry::directory(0o711, Timestamp::from_secs(5)), None);
    let into = Tree::of([Arc::new(base.finish())]);
    let mut placing = Placing::new(&into, Restyle::default(), Timestamp::from_secs(9));
    let Selection::Found(found) = select(&source, "s").unwrap() else { panic!("it is there") };
    let filter = Filter { include: None, exclude: &Ignore::default() };
    for destination in ["/new/place", "/old"] {
        placing.copy(&source, &found[0], filter, destination, &|_, _| Content::Empty).unwrap();
    }
    let changes = placing.finish();
    let time = |name: &str| match changes.get(&path(name)) {
        Some(Change::Put(entry, _)) => (entry.mtime.secs, entry.mode),
        other => panic!("{other:?}"),
    };
    let expected = [("new", (9, 0o755)), ("new/place", (7, 0o755)), ("old", (7, 0o711)), ("new/place/f", (7, 0o640))];
    expected.iter().for_each(|(name, expected)| assert_eq!(time(name), *expected, "{name}"));
}

#[test]
fn special_files_and_attributes_are_copied_as_they_are() {
    let at = Timestamp { secs: 7, nanos: 5 };
    let entry = |kind| Entry { kind, uid: 3, gid: 4, mode: 0o4751, ..Entry::file(0, 0, at) };
    let mut capable = entry(Kind::File { size: 3, content: None });
    capable.xattrs.insert(b"security.capability".to_vec().into(), b"cap".to_vec().into());
    let kinds = [
        ("cap", capable.clone()),
        ("fifo", entry(Kind::Fifo)),
        ("null", entry(Kind::CharDevice { major: 1, minor: 3 })),
        ("loop", entry(Kind::BlockDevice { major: 7, minor: 0 })),
        ("link", entry(Kind::Symlink { target: b"../../gone".to_vec() })),
        ("sticky", Entry { mode: 0o1777, ..entry(Kind::Directory) }),
    ];
    let mut builder = IndexBuilder::new();
    kinds.iter().for_each(|(name, entry)| builder.put(path(&format!("s/{name}")), entry.clone(), None));
    let (source, into) = (Tree::of([Arc::new(builder.finish())]), Tree::new());
    let mut placing = Placing::new(&into, Restyle::default(), Timestamp::from_secs(9));
    let Selection::Found(found) = select(&source, "s").unwrap() else { panic!("it is there") };
    let filter = Filter { include: None, exclude: &Ignore::default() };
    placing.copy(&source, &found[0], filter, "/d", &|_, _| Content::Empty).unwrap();
    let changes = placing.finish();
    for (name, entry) in kinds {
        let Some(Change::Put(copied, _)) = changes.get(&path(&format!("d/{name}"))) else { panic!("{name}") };
        assert_eq!(*copied, Entry { mtime: Timestamp::from_secs(7), ..entry }, "{name}");
    }
}

#[test]
fn files_and_directories_do_not_replace_each_other() {
    let conflict = |source: &[&str], word, into: &[&str], to| copied(source, &[word], into, to, Restyle::default());
    assert!(matches!(conflict(&["s/", "s/x"], "s", &["d/", "d/x/"], "/d"), Err(Conflict::IsDirectory(_))));
    assert!(matches!(conflict(&["s/", "s/x/"], "s", &["d/", "d/x"], "/d"), Err(Conflict::NotDirectory(_))));
    assert!(matches!(conflict(&["f"], "f", &["d"], "/d/f"), Err(Conflict::NotDirectory(_))));
}
