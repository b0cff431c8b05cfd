//! What archives make of trees.

use super::*;

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
