//! Files of the context.

use std::fs::Permissions;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;

use super::*;

/// The keys of a Dockerfile with these files as its context.
fn keys_with(files: &[(&str, &str)], text: &str) -> Vec<Key> {
    files.iter().fold(Bench::new(), |bench, (path, content)| bench.file(path, content)).keys(text)
}

fn set_mode(path: &Path, mode: u32) {
    fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
}

fn renamed<'a>(from: &'a str, to: &'a str) -> impl FnOnce(&Path) + 'a {
    move |context| fs::rename(context.join(from), context.join(to)).unwrap()
}

#[test]
fn a_file_that_a_wildcard_finds_under_a_new_name_is_another_copy() {
    for copy in ["COPY *.txt /d/", "ADD *.txt /d/", "COPY --link *.txt /d/", "COPY --parents *.txt /d/"] {
        let text = format!("FROM scratch\n{copy}\n");
        let keys = |name| keys_with(&[(name, "same")], &text);
        assert_eq!(marks(&keys("a.txt"), &keys("b.txt")), "x", "{copy}");
        assert_eq!(marks(&keys("a.txt"), &keys("a.txt")), "=", "{copy}");
    }
}

#[test]
fn a_new_name_inside_of_a_copied_directory_is_another_copy() {
    for text in ["FROM scratch\nCOPY d /x/\n", "FROM scratch\nCOPY . /x/\n", "FROM scratch\nRUN --mount=target=/t a\n"]
    {
        assert_eq!(changed_by(text, renamed("d/g", "d/i")), "x", "{text}");
        let moved = |context: &Path| {
            fs::create_dir(context.join("d/e")).unwrap();
            fs::rename(context.join("d/g"), context.join("d/e/g")).unwrap();
        };
        assert_eq!(changed_by(text, moved), "x", "{text}");
    }
    let directory = "FROM scratch\nCOPY . /x/\n";
    assert_eq!(changed_by(directory, renamed("d", "e")), "x");
    let empty = |context: &Path| fs::create_dir(context.join("d/empty")).unwrap();
    assert_eq!(changed_by(directory, empty), "x", "a directory without files is something");
}

#[test]
fn contents_that_change_places_are_another_copy() {
    for copy in ["COPY a b /x/", "COPY [ab] /x/", "COPY . /x/", "ADD a b /x/"] {
        let text = format!("FROM scratch\n{copy}\n");
        let keys = |a, b| keys_with(&[("a", a), ("b", b)], &text);
        assert_eq!(marks(&keys("1", "2"), &keys("2", "1")), "x", "{copy}");
    }
}

#[test]
fn trees_of_files_cannot_be_read_as_one_another() {
    let copy = "FROM scratch\nCOPY . /x/\n";
    let trees: [&[(&str, &str)]; 10] = [
        &[("a", "bc")],
        &[("ab", "c")],
        &[("abc", "")],
        &[("a", ""), ("bc", "")],
        &[("a", ""), ("b", "c")],
        &[("a", "b"), ("c", "")],
        &[("a/b", "c")],
        &[("a/bc", "")],
        &[("a", "file"), ("b", "")],
        &[("a", ""), ("file", "b")],
    ];
    let keys: BTreeSet<Key> = trees.iter().map(|tree| keys_with(tree, copy)[0]).collect();
    assert_eq!(keys.len(), trees.len());
    // What one word selects ends where the next begins.
    let files = [("a/x", "1"), ("b/x", "1"), ("a/y/x", "1"), ("y/x", "1")];
    let words = ["a b", "a/x b", "a b/x", "a a/y", "a/x a/y/x", "a/y b a/x", "y a/x", "none*", "[n]one"];
    let keys: BTreeSet<Key> =
        words.iter().map(|words| keys_with(&files, &format!("FROM scratch\nCOPY {words} /d/\n"))[0]).collect();
    assert_eq!(keys.len(), words.len() - 1, "only the last two select the same: nothing");
    let empty = |word| keys_with(&[], &format!("FROM scratch\nCOPY {word} /d/\n"))[0];
    assert_ne!(empty("."), empty("none*"), "an empty directory is copied, and nothing is not");
}

#[test]
fn an_ignore_file_counts_where_it_adds_or_takes_a_copied_file() {
    let copy = "FROM scratch\nCOPY d /x/\nRUN --mount=target=/t,source=d a\n";
    let ignore = |text: &'static str| move |context: &Path| fs::write(context.join(".dockerignore"), text).unwrap();
    assert_eq!(changed_by(copy, ignore("d/g\n")), "xx");
    assert_eq!(changed_by(copy, ignore("**/g\n")), "xx");
    let bench = |rules: &str| Bench::new().file("d/g", "").file("d/h", "").file(".dockerignore", rules);
    assert_eq!(marks(&bench("d/g\n").keys(copy), &bench("d/g\n!d/g\n").keys(copy)), "xx");
}

#[test]
fn an_ignore_file_that_concerns_no_copied_file_counts_for_nothing() {
    let copy = "FROM scratch\nCOPY d /x/\nRUN --mount=target=/t,source=d a\n";
    let ignore = |text: &'static str| move |context: &Path| fs::write(context.join(".dockerignore"), text).unwrap();
    for rules in ["f\nother\n", "# d\n", "*\n!d\n", "none\n", "/d/none\n"] {
        assert_eq!(changed_by(copy, ignore(rules)), "==", "{rules}");
    }
}

#[test]
fn an_ignore_file_says_nothing_of_what_stages_and_images_hold() {
    let text = "FROM base AS a\nRUN a\nFROM base\nCOPY --from=a /d /x\nCOPY --from=base /d /x\n\
                RUN --mount=from=a,target=/t b\nCOPY keep /\n";
    let bench = || Bench::new().file("keep", "").file("d/g", "").image("base", "{}");
    let ignored = bench().file(".dockerignore", "*\n!keep\n").keys(text);
    assert_eq!(marks(&bench().keys(text), &ignored), "====");
}

/// The same files in another directory, made in another order under another umask.
fn checkout(umask: u32, backwards: bool) -> Bench {
    let bench = Bench::new();
    let root = bench.directory.path().to_owned();
    let mut files = vec![("a/b/f", 0o666), ("a/x.sh", 0o777), ("g", 0o666)];
    if backwards {
        files.reverse();
        // Inodes and times are other ones.
        fs::write(root.join("a-first"), "").unwrap();
        fs::remove_file(root.join("a-first")).unwrap();
    }
    for (path, mode) in files {
        let path = root.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, "same").unwrap();
        set_mode(&path, mode & !umask);
        let secs = if backwards { 1_000_000_000 } else { 1_500_000_000 };
        let time = std::time::UNIX_EPOCH + std::time::Duration::from_secs(secs);
        fs::File::open(&path).unwrap().set_modified(time).unwrap();
    }
    for path in ["a/b", "a"] {
        set_mode(&root.join(path), 0o777 & !umask);
    }
    bench
}

const ALL_WAYS: &str =
    "FROM scratch\nCOPY . /x/\nCOPY a g /y/\nCOPY --parents a/b/f /z/\nADD g /\nRUN --mount=target=/t a\n";

#[test]
fn the_umask_of_a_checkout_counts_for_nothing() {
    let plain = checkout(0o022, false).keys(ALL_WAYS);
    for umask in [0o002, 0o027, 0o077, 0] {
        assert_eq!(marks(&plain, &checkout(umask, false).keys(ALL_WAYS)), "=====", "{umask:o}");
    }
}

#[test]
fn the_times_and_inodes_of_a_checkout_count_for_nothing() {
    assert_eq!(marks(&checkout(0o022, false).keys(ALL_WAYS), &checkout(0o022, true).keys(ALL_WAYS)), "=====");
}

#[test]
fn the_executable_bit_counts() {
    for (from, to, expected) in [(0o644, 0o755, "x"), (0o600, 0o700, "x"), (0o755, 0o711, "="), (0o640, 0o604, "=")] {
        let bench = Bench::new().file("d/f", "");
        let path = bench.directory.path().join("d/f");
        let keys = |mode| {
            set_mode(&path, mode);
            bench.keys("FROM scratch\nCOPY d /x/\n")
        };
        assert_eq!(marks(&keys(from), &keys(to)), expected, "{from:o} to {to:o}");
    }
}

#[test]
fn a_mode_that_no_umask_explains_counts_with_all_of_its_bits() {
    let bench = Bench::new().file("d/f", "");
    let key = |path: &str, mode| {
        set_mode(&bench.directory.path().join(path), mode);
        bench.keys("FROM scratch\nCOPY --parents d/f /x/\nCOPY d /y/\n")
    };
    let plain = key("d/f", 0o755);
    for mode in [0o4755, 0o2755, 0o1755, 0o555, 0o400, 0o055, 0o200, 0o654, 0o645, 0o500] {
        assert_eq!(marks(&plain, &key("d/f", mode)), "xx", "{mode:o}");
    }
    assert_eq!(marks(&key("d/f", 0o4755), &key("d/f", 0o4711)), "xx");
    assert_eq!(marks(&key("d/f", 0o400), &key("d/f", 0o444)), "xx");
    key("d/f", 0o644);
    let plain = key("d", 0o755);
    assert_eq!(marks(&plain, &key("d", 0o700)), "==");
    for mode in [0o1777, 0o2755, 0o555] {
        assert_eq!(marks(&plain, &key("d", mode)), "xx", "a directory, copied or on the way, of mode {mode:o}");
    }
    key("d", 0o755);
}

#[test]
fn raw_modes_count_with_all_of_their_bits() {
    let mut bench = Bench::new().file("d/f", "");
    bench.options.context_mode = ContextMode::Raw;
    let text = "FROM scratch\nCOPY --parents d/f /x/\nCOPY d /y/\nRUN --mount=target=/t,source=d a\n";
    let key = |path: &str, mode| {
        set_mode(&bench.directory.path().join(path), mode);
        bench.keys(text)
    };
    key("d", 0o755);
    let plain = key("d/f", 0o644);
    assert_eq!(marks(&plain, &key("d/f", 0o640)), "xxx");
    assert_eq!(marks(&plain, &key("d/f", 0o644)), "===");
    assert_eq!(marks(&plain, &key("d", 0o700)), "xxx");
    // No raw mode is taken for one that stands for all those that a umask explains.
    for mode in [0o666, 0o644] {
        set_mode(&bench.directory.path().join("d/f"), mode);
        let raw = bench.keys(text);
        let git = Bench::new().file("d/f", "");
        set_mode(&git.directory.path().join("d/f"), mode);
        assert_eq!(marks(&raw, &git.keys(text)), "xxx");
    }
}

#[test]
fn a_link_and_a_file_of_the_same_text_are_two_things() {
    let copy = "FROM scratch\nCOPY d /x/\n";
    let link = |target: &'static str| {
        move |context: &Path| {
            fs::remove_file(context.join("d/g")).unwrap();
            symlink(target, context.join("d/g")).unwrap();
        }
    };
    assert_eq!(changed_by(copy, link("2")), "x", "the file holds the same text");
    let bench = Bench::new().file("d/h", "");
    let keys = |target| {
        let path = bench.directory.path().join("d/l");
        _ = fs::remove_file(&path);
        symlink(target, &path).unwrap();
        bench.keys(copy)
    };
    assert_eq!(marks(&keys("h"), &keys("h")), "=");
    assert_eq!(marks(&keys("h"), &keys("./h")), "x");
}

#[test]
fn what_is_on_the_way_and_what_is_taken_are_two_things() {
    let bench = Bench::new().file("d/e/f", "");
    let key = |copy: &str| bench.keys(&format!("FROM scratch\n{copy} /x/\n"))[0];
    // A directory that is copied takes its owner along, and one on the way does not.
    assert_ne!(key("COPY --parents d/e/f"), key("COPY --parents d"));
    assert_ne!(key("COPY --parents d/e/f"), key("COPY --parents d/e"));
    assert_eq!(key("COPY --parents d/e/f"), key("COPY --parents d/*/f"));
    assert_ne!(key("COPY --exclude=e --exclude=!e/f d"), key("COPY d"));
}

#[test]
fn paths_that_are_left_out_of_layers_count_for_commands() {
    let mut bench = Bench::new().file("f", "");
    let text = "FROM scratch\nCOPY f /f\nRUN a\n";
    let plain = bench.keys(text);
    for ignored in [vec!["left"], vec!["left", "out"], vec!["left/out"]] {
        bench.options.ignored = ignored.iter().map(|path| RelPath::new(path).unwrap()).collect();
        let found = bench.keys(text);
        assert_eq!(marks(&plain, &found), "=x", "{ignored:?}");
        assert_ne!(plain[1], found[1], "{ignored:?}");
    }
}
