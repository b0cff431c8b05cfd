//! `--parents`, `--exclude` and `--link`.

use super::*;
use crate::plan::select_with_parents;

/// What is copied of `source`, line by line as in `copied`.
fn filtered(
    source: &[&str],
    words: &[&str],
    parents: bool,
    exclude: &[&str],
    into: &[&str],
    restyle: Restyle,
) -> Result<Vec<String>, Conflict> {
    let (source, into) = (tree(source), tree(into));
    let mut rules = Ignore::default();
    exclude.iter().for_each(|pattern| rules.exclude(pattern).unwrap());
    let mut placing = Placing::new(&into, restyle, Timestamp::from_secs(9));
    for word in words {
        let found = if parents { select_with_parents(&source, word) } else { select(&source, word) };
        let Selection::Found(found) = found.unwrap() else { panic!("{word} is missing") };
        for selected in found {
            placing.copy(&source, &selected, selected.filter(&rules), "/d/", &|_, _| Content::Empty)?;
        }
    }
    let line = |(path, change): (&RelPath, &Change)| match change {
        Change::Put(Entry { kind: Kind::Hardlink { target }, .. }, _) => format!("{path} = {target}"),
        Change::Put(Entry { mode, uid, .. }, _) => format!("{path} {mode:o} {uid}"),
        Change::Delete => format!("-{path}"),
    };
    let changes = placing.finish();
    Ok(changes.iter().map(line).filter(|line| !line.starts_with("d ")).collect())
}

const SOURCE: [&str; 9] = ["a/", "a/b/", "a/b/x.c", "a/b/y.h", "a/c/", "a/c/x.c", "e/", "l -> a", "top.c"];

fn parents(words: &[&str]) -> Vec<String> {
    filtered(&SOURCE, words, true, &[], &[], Restyle::default()).unwrap()
}

#[test]
fn parents_are_made_as_they_are_in_the_source() {
    assert_eq!(parents(&["a/b/x.c"]), ["d/a 700 5", "d/a/b 700 5", "d/a/b/x.c 640 0"]);
    assert_eq!(parents(&["a/./b/x.c"]), ["d/b 700 5", "d/b/x.c 640 0"]);
    assert_eq!(parents(&["top.c"]), ["d/top.c 640 0"]);
    assert_eq!(parents(&["a/c"]), ["d/a 700 5", "d/a/c 700 5", "d/a/c/x.c 640 0"]);
    assert_eq!(parents(&["e", "l"]), ["d/e 700 5", "d/l 777 0"]);
    let all = parents(&["."]);
    assert_eq!((all.len(), &all[..2]), (9, &["d/a 700 5".to_owned(), "d/a/b 700 5".to_owned()][..]));
}

#[test]
fn double_stars_find_files_and_only_the_directories_above_them_are_made() {
    assert_eq!(parents(&["**/y.h"]), ["d/a 700 5", "d/a/b 700 5", "d/a/b/y.h 640 0"]);
    assert_eq!(parents(&["a/./**/x.c"]), ["d/b 700 5", "d/b/x.c 640 0", "d/c 700 5", "d/c/x.c 640 0"]);
    assert_eq!(parents(&["*/./x.c"]), [""; 0]);
    assert_eq!(parents(&["a/*/./x.c"]), ["d/x.c 640 0"]);
}

#[test]
fn a_pattern_of_parents_that_matches_nothing_makes_the_destination_and_no_more() {
    assert_eq!(parents(&["none*"]), [""; 0]);
    let (source, into) = (tree(&SOURCE), Tree::new());
    let mut placing = Placing::new(&into, Restyle::default(), Timestamp::from_secs(9));
    let Selection::Found(found) = select_with_parents(&source, "none*").unwrap() else { panic!("it is a pattern") };
    let everything = Ignore::default();
    let filter = found[0].filter(&everything);
    placing.copy(&source, &found[0], filter, "/d", &|_, _| Content::Empty).unwrap();
    assert_eq!(placing.finish().iter().map(|(path, _)| path.to_string()).collect::<Vec<_>>(), ["d"]);
}

#[test]
fn parents_that_exist_take_the_mode_and_keep_their_owner() {
    let into = ["d/", "d/a/", "d/a/b/", "d/a/old"];
    let restyle = |mode| Restyle { owner: Some((9, 9)), mode };
    let made = filtered(&SOURCE, &["a/b/x.c"], true, &[], &into, restyle(None)).unwrap();
    assert_eq!(made, ["d/a 700 5", "d/a/b 700 5", "d/a/b/x.c 640 9"]);
    let made = filtered(&SOURCE, &["a/b/x.c"], true, &[], &into, restyle(Some(Mode::Exact(0o711)))).unwrap();
    assert_eq!(made, ["d/a 711 5", "d/a/b 711 5", "d/a/b/x.c 711 9"]);
    let made = filtered(&SOURCE, &["a/b"], true, &[], &into, restyle(None)).unwrap();
    assert_eq!(made[..2], ["d/a 700 5", "d/a/b 700 9"], "what is a source itself is copied as a whole");
    let other = filtered(&SOURCE, &["a/b/x.c"], true, &[], &["d/", "d/a -> b"], restyle(None));
    assert!(matches!(other, Err(Conflict::NotDirectory(_))), "{other:?}");
}

#[test]
fn parents_follow_chown_and_chmod() {
    let restyle = Restyle { owner: Some((3, 4)), mode: Mode::parse("go+x") };
    let made = filtered(&SOURCE, &["a/b/x.c", "a/c/x.c"], true, &[], &[], restyle).unwrap();
    assert_eq!(made, ["d/a 711 3", "d/a/b 711 3", "d/a/b/x.c 651 3", "d/a/c 711 3", "d/a/c/x.c 651 3"]);
}

#[test]
fn directories_that_no_layer_states_are_made_like_missing_ones() {
    let made = filtered(&["i/j/f"], &["i/j/f"], true, &[], &[], Restyle::default()).unwrap();
    assert_eq!(made, ["d/i 755 0", "d/i/j 755 0", "d/i/j/f 640 0"]);
}

fn without(words: &[&str], exclude: &[&str]) -> Vec<String> {
    let lines = filtered(&SOURCE, words, false, exclude, &[], Restyle::default()).unwrap();
    lines.into_iter().map(|line| line.split(' ').next().unwrap().to_owned()).collect()
}

/// What a BuildKit of Docker 28.5 left out.
#[test]
fn excludes_hold_below_the_copied_directory() {
    let cases: [(&[&str], &[&str], &[&str]); 12] = [
        (&["a"], &["b"], &["d/c", "d/c/x.c"]),
        (&["a"], &["a/b"], &["d/b", "d/b/x.c", "d/b/y.h", "d/c", "d/c/x.c"]),
        (&["a"], &["/b"], &["d/b", "d/b/x.c", "d/b/y.h", "d/c", "d/c/x.c"]),
        (&["a"], &["*.c"], &["d/b", "d/b/x.c", "d/b/y.h", "d/c", "d/c/x.c"]),
        (&["a"], &["**/*.c"], &["d/b", "d/b/y.h", "d/c"]),
        (&["a"], &["b/x.c", "./c/"], &["d/b", "d/b/y.h"]),
        (&["a"], &["*"], &[]),
        (&["a"], &["*", "!b/y.h"], &["d/b", "d/b/y.h"]),
        (&["a"], &["!b/y.h", "*"], &[]),
        (&["*/c"], &["*.c"], &[]),
        (&["top.c"], &["top.c"], &["d/top.c"]),
        (&["a/b/*"], &["*.c"], &["d/x.c", "d/y.h"]),
    ];
    for (words, exclude, expected) in cases {
        assert_eq!(without(words, exclude), expected, "{words:?} without {exclude:?}");
    }
}

#[test]
fn a_directory_that_is_left_out_but_for_something_below_is_made_as_it_is() {
    let restyle = Restyle { owner: Some((9, 9)), mode: None };
    let made = filtered(&SOURCE, &["a"], false, &["*", "!b/y.h"], &[], restyle).unwrap();
    assert_eq!(made, ["d/b 700 9", "d/b/y.h 640 9"]);
}

#[test]
fn excludes_and_parents_go_together() {
    let made =
        |words: &[&str], exclude: &[&str]| filtered(&SOURCE, words, true, exclude, &[], Restyle::default()).unwrap();
    assert_eq!(made(&["a"], &["a/b"]), ["d/a 700 5", "d/a/c 700 5", "d/a/c/x.c 640 0"]);
    assert_eq!(made(&["a"], &["b"]).len(), 6, "the pattern begins where the path does");
    assert_eq!(made(&["a/./"], &["b"]), ["d/c 700 5", "d/c/x.c 640 0"]);
    assert_eq!(made(&["**/x.c"], &["a/c"]), ["d/a 700 5", "d/a/b 700 5", "d/a/b/x.c 640 0"]);
}

#[test]
fn a_hard_link_whose_first_name_is_left_out_is_a_file() {
    let source = ["s/", "s/a", "s/b = s/a", "s/c = s/a"];
    let made = filtered(&source, &["s"], false, &["a"], &[], Restyle::default()).unwrap();
    assert_eq!(made, ["d/b 640 0", "d/c = d/b"]);
}

#[test]
fn a_linked_copy_knows_nothing_of_what_is_below() {
    let lines = |into: &[&str], destination| {
        let words = (["s", "f"], ["s/", "s/x", "f"]);
        copied(&words.1, &words.0[..], into, destination, Restyle::default())
    };
    // On the base the links are followed and directories keep their modes; on nothing, which is what a linked copy is
    // placed on, there are no links, and what is missing is root's with mode 0755.
    assert_eq!(lines(&["usr/", "bin -> usr"], "/bin/").unwrap(), ["usr 700 5", "usr/f 640 0", "usr/x 640 0"]);
    assert_eq!(lines(&[], "/bin/").unwrap(), ["bin 755 0", "bin/f 640 0", "bin/x 640 0"]);
    assert!(matches!(lines(&["bin"], "/bin/"), Err(Conflict::NotDirectory(_))));
}
