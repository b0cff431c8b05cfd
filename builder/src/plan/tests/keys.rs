//! Which edits change which keys.

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;

use super::*;

/// For each step, whether its key is another one after the edit: `=` or `x`.
pub(super) fn changed(before: &str, after: &str) -> String {
    let bench = Bench::new().file("f", "1").file("d/g", "2").image("base", "{}").image("base2", "{}");
    marks(&bench.keys(before), &bench.keys(after))
}

pub(super) fn marks(before: &[Key], after: &[Key]) -> String {
    assert_eq!(before.len(), after.len());
    before.iter().zip(after).map(|(one, other)| if one == other { '=' } else { 'x' }).collect()
}

/// The same for an edit of the context.
pub(super) fn changed_by(text: &str, edit: impl FnOnce(&std::path::Path)) -> String {
    let bench = Bench::new().file("f", "1").file("d/g", "2").file("d/h", "3").file("other", "4");
    let before = bench.keys(text);
    edit(bench.directory.path());
    marks(&before, &bench.keys(text))
}

#[test]
fn edits_of_the_dockerfile() {
    let cases = [
        ("RUN a\nRUN b", "RUN a\nRUN c", "=x"),
        ("RUN a\nRUN b", "RUN c\nRUN b", "xx"),
        ("RUN a", "RUN  a", "="),
        ("RUN a", "# comment\nRUN a", "="),
        ("RUN a", "LABEL l=1\nRUN a", "="),
        ("RUN a", "EXPOSE 1\nCMD x\nVOLUME /v\nSTOPSIGNAL 9\nHEALTHCHECK NONE\nONBUILD RUN y\nRUN a", "="),
        ("RUN a", "ENV A=1\nRUN a", "x"),
        ("ENV A=1\nRUN a", "ENV A=2\nRUN a", "x"),
        ("RUN a", "ARG A\nRUN a", "="),
        ("ARG A=1\nRUN a", "ARG A=2\nRUN a", "x"),
        ("RUN a", "USER u\nRUN a", "x"),
        ("RUN a", "SHELL [\"s\"]\nRUN a", "x"),
        ("RUN [\"a\"]", "SHELL [\"s\"]\nRUN [\"a\"]", "="),
        ("WORKDIR /a\nRUN a", "WORKDIR /b\nRUN a", "xx"),
        ("WORKDIR /a", "USER u\nWORKDIR /a", "x"),
        ("WORKDIR /a", "WORKDIR /a/", "="),
        ("RUN <<E\na\nE", "RUN <<E\nb\nE", "x"),
        ("COPY <<E /x\na\nE", "COPY <<E /x\nb\nE", "x"),
        ("ENV V=1\nCOPY <<E /x\n$V\nE", "ENV V=2\nCOPY <<E /x\n$V\nE", "x"),
        ("ENV V=1\nCOPY <<'E' /x\n$V\nE", "ENV V=2\nCOPY <<'E' /x\n$V\nE", "="),
        ("COPY f /x", "COPY f /y", "x"),
        ("COPY f /x", "COPY f /x/", "x"),
        ("COPY f /x", "COPY ./f /x", "="),
        ("COPY f /x", "COPY --chown=1 f /x", "x"),
        ("COPY f /x", "COPY --chmod=600 f /x", "x"),
        ("COPY f /x", "ADD f /x", "x"),
        ("COPY --chmod=u+x f /x", "COPY --chmod=u+w f /x", "x"),
        ("COPY f /x", "ENV A=1\nCOPY f /x", "="),
        ("COPY f /x", "USER u\nCOPY f /x", "="),
        ("RUN a #\nENV X=1\nRUN b", "RUN a\nENV X=1\nRUN b", "xx"),
    ];
    for (before, after, expected) in cases {
        let marks = changed(&format!("FROM base\n{before}\n"), &format!("FROM base\n{after}\n"));
        assert_eq!(marks, expected, "{before:?} to {after:?}");
    }
    assert_eq!(changed("FROM base\nRUN a\n", "FROM base2\nRUN a\n"), "x");
    assert_eq!(changed("FROM base\nRUN a\n", "FROM base AS n\nRUN a\n"), "=");
}

#[test]
fn edits_of_what_is_copied() {
    let copy = "FROM scratch\nCOPY f d /x/\nRUN a\n";
    let write = |name: &'static str, text: &'static str| {
        move |context: &std::path::Path| fs::write(context.join(name), text).unwrap()
    };
    assert_eq!(changed_by(copy, write("f", "new")), "xx");
    assert_eq!(changed_by(copy, write("d/new", "")), "xx");
    assert_eq!(changed_by(copy, write("other", "new")), "==");
    assert_eq!(changed_by(copy, |context| fs::rename(context.join("d/g"), context.join("d/i")).unwrap()), "xx");
    assert_eq!(changed_by(copy, |context| fs::remove_file(context.join("d/g")).unwrap()), "xx");
    let swap = |context: &std::path::Path| {
        fs::write(context.join("d/g"), "3").unwrap();
        fs::write(context.join("d/h"), "2").unwrap();
    };
    assert_eq!(changed_by(copy, swap), "xx");
}

#[test]
fn a_renamed_file_that_a_pattern_matches() {
    let rename = |context: &std::path::Path| fs::rename(context.join("d/g"), context.join("d/i")).unwrap();
    assert_eq!(changed_by("FROM scratch\nCOPY d/* /x/\n", rename), "x");
    assert_eq!(changed_by("FROM scratch\nCOPY d/h* /x/\n", rename), "=");
}

#[test]
fn times_and_the_bits_of_a_umask_change_nothing_and_the_executable_bit_does() {
    let copy = "FROM scratch\nCOPY f d /x/\n";
    let mode = |mode| {
        move |context: &std::path::Path| fs::set_permissions(context.join("f"), Permissions::from_mode(mode)).unwrap()
    };
    assert_eq!(changed_by(copy, mode(0o666)), "=");
    assert_eq!(changed_by(copy, mode(0o600)), "=");
    assert_eq!(changed_by(copy, mode(0o755)), "x");
    let touch = |context: &std::path::Path| {
        let time = std::time::SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(5);
        fs::File::options().write(true).open(context.join("f")).unwrap().set_modified(time).unwrap();
    };
    assert_eq!(changed_by(copy, touch), "=");
}

#[test]
fn the_ignore_file_matters_where_it_takes_something_away() {
    let ignore =
        |text: &'static str| move |context: &std::path::Path| fs::write(context.join(".dockerignore"), text).unwrap();
    let copy = "FROM scratch\nCOPY d /x/\n";
    assert_eq!(changed_by(copy, ignore("other\nf\n")), "=");
    assert_eq!(changed_by(copy, ignore("d/g\n")), "x");
    assert_eq!(changed_by(copy, ignore("d/g\n!d/g\n")), "=");
}

#[test]
fn a_copy_from_a_stage_follows_the_stage() {
    let text = |run, source| {
        format!("FROM base AS a\nRUN {run}\nFROM scratch\nRUN first\nCOPY --from=a {source} /x\nRUN last\n")
    };
    assert_eq!(changed(&text("one", "/y"), &text("two", "/y")), "=xx");
    assert_eq!(changed(&text("one", "/y"), &text("one", "/z")), "=xx");
    assert_eq!(changed(&text("one", "/y"), &text("one", "/y").replace("AS a", "AS b").replace("=a", "=b")), "===");
}

#[test]
fn a_stage_goes_on_with_the_keys_of_the_one_below() {
    let bench = Bench::new();
    let split = bench.plan("FROM scratch AS a\nRUN one\nFROM a\nRUN two\n");
    assert_eq!(bench.keys("FROM scratch\nRUN one\nRUN two\n")[1], split.target().steps[0].key);
}

#[test]
fn another_platform_has_other_keys() {
    let mut other = Bench::new();
    other.options.platform.architecture = "arm64".into();
    other.options.host = other.options.platform.clone();
    assert_ne!(Bench::new().keys("FROM scratch\nRUN a\n"), other.keys("FROM scratch\nRUN a\n"));
}

#[test]
fn labels_of_the_command_line_change_no_key() {
    let mut labelled = Bench::new();
    labelled.options.labels = vec![("a".into(), "b".into())];
    assert_eq!(Bench::new().keys("FROM scratch\nRUN a\n"), labelled.keys("FROM scratch\nRUN a\n"));
}

#[test]
fn flags_of_copies() {
    let cases = [
        ("COPY d /x/", "COPY --parents d /x/", "x"),
        ("COPY . /x/", "COPY --parents . /x/", "x"),
        ("COPY d /x/", "COPY --parents=false --link=false d /x/", "="),
        ("COPY --parents d /x/", "COPY --parents d/g /x/", "x"),
        ("COPY --parents d/g /x/", "COPY --parents d/./g /x/", "x"),
        ("COPY --parents d/g /x/", "COPY --parents ./d//g /x/", "="),
        ("COPY --parents d/g /x/", "COPY --parents **/g /x/", "="),
        ("COPY d /x/", "COPY --exclude=g d /x/", "x"),
        ("COPY d /x/", "COPY --exclude=none d /x/", "="),
        ("COPY --exclude=g d /x/", "COPY --exclude=* d /x/", "="),
        ("COPY --from=base /d /x/", "COPY --from=base --exclude=none /d /x/", "x"),
        ("COPY --from=base --exclude=a --exclude=b /d /x/", "COPY --from=base --exclude=ab /d /x/", "x"),
        ("COPY --from=base --exclude=a --exclude=!b /d /x/", "COPY --from=base --exclude=!b --exclude=a /d /x/", "x"),
        ("COPY --from=base --exclude=a /d /x/", "COPY --from=base --exclude=./a/ /d /x/", "="),
        ("COPY --from=base /d /x/", "COPY --from=base --parents /d /x/", "x"),
        ("COPY f /x", "COPY --link f /x", "x"),
        ("COPY --link f /x", "COPY --link --chown=1 f /x", "x"),
        ("COPY --chmod=600 f /x", "COPY --link --chmod=600 f /x", "="),
        ("ADD f /x", "ADD --unpack f /x", "="),
        ("ADD f /x", "ADD --unpack=false f /x", "x"),
        ("COPY f /x", "ADD --unpack=false f /x", "="),
    ];
    for (before, after, expected) in cases {
        let marks = changed(&format!("FROM base\n{before}\n"), &format!("FROM base\n{after}\n"));
        assert_eq!(marks, expected, "{before:?} to {after:?}");
    }
}

#[test]
fn edits_of_what_is_left_out() {
    let write = |name: &'static str| move |context: &std::path::Path| fs::write(context.join(name), "new").unwrap();
    let without = "FROM scratch\nCOPY --exclude=g d /x/\n";
    assert_eq!(changed_by(without, write("d/g")), "=");
    assert_eq!(changed_by(without, write("d/h")), "x");
    assert_eq!(changed_by("FROM scratch\nCOPY --exclude=* --exclude=!g d /x/\n", write("d/g")), "x");
    let parents = "FROM scratch\nCOPY --parents d/./g* /x/\n";
    assert_eq!(changed_by(parents, write("d/h")), "=");
    assert_eq!(changed_by(parents, write("d/g2")), "x");
    let linked = |context: &std::path::Path| {
        fs::remove_file(context.join("d/h")).unwrap();
        fs::hard_link(context.join("d/g"), context.join("d/h")).unwrap();
        fs::write(context.join("d/g"), "3").unwrap();
    };
    assert_eq!(changed_by(without, linked), "=", "what is left out matters not even as the first name of a file");
}

#[test]
fn the_layer_of_a_linked_copy_does_not_depend_on_what_is_below() {
    let bench = Bench::new().file("f", "1").image("base", "{}").image("base2", "{}");
    let layer_keys = |text: &str| -> Vec<Option<Key>> {
        bench.plan(text).target().steps.iter().map(|step| step.layer_key).collect()
    };
    let text = |base, run| format!("FROM {base}\nRUN {run}\nCOPY --link f /x\nCOPY f /y\n");
    let (one, other) = (text("base", "a"), text("base2", "b"));
    assert_eq!(marks(&bench.keys(&one), &bench.keys(&other)), "xxx");
    assert_eq!(layer_keys(&one), layer_keys(&other));
    assert!(matches!(layer_keys(&one)[..], [None, Some(_), None]));
    let key = |line: &str| layer_keys(&format!("FROM base\n{line}\n"))[0];
    assert_eq!(key("COPY --link f /x"), layer_keys(&one)[1]);
    assert_ne!(key("COPY --link f /z"), key("COPY --link f /x"));
    assert_ne!(key("COPY --link --chown=5 f /x"), key("COPY --link f /x"));
    assert_eq!(key("ADD --link --unpack=false f /x"), key("COPY --link f /x"));
}
