//! The operations that instructions become.

use super::*;

#[test]
fn a_run_sees_all_that_came_before_it() {
    let text = "FROM scratch\nARG A=1\nENV B=2\nUSER u:g\nWORKDIR /w/\nSHELL [\"/s\", \"-x\"]\nRUN echo $A\nRUN [\"p\", \"q\"]\n";
    let plan = planned(text);
    let [shell, exec] = plan.runs()[..] else { panic!("two steps") };
    assert_eq!(shell.argv, ["/s", "-x", "echo $A"]);
    assert_eq!(exec.argv, ["p", "q"]);
    assert_eq!((shell.user.as_str(), shell.workdir.as_str()), ("u:g", "/w"));
    assert_eq!((seen(shell, "A"), seen(shell, "B")), (Some("1"), Some("2")));
}

#[test]
fn a_workdir_makes_a_directory_that_belongs_to_the_user() {
    let mkdirs = |text| -> Vec<(String, String)> {
        let plan = planned(text);
        let mkdir = |step: &Step| match &step.op {
            Op::Mkdir(Mkdir { path, owner }) => (path.clone(), owner.clone()),
            op => panic!("{op:?}"),
        };
        plan.target().steps.iter().map(mkdir).collect()
    };
    let text = "FROM scratch\nWORKDIR /a/./b/\nUSER u\nWORKDIR ../c\nWORKDIR /\nWORKDIR //d//e/..\n";
    let expected = [("/a/b", ""), ("/a/c", "u"), ("/d", "u")];
    assert_eq!(mkdirs(text), expected.map(|(path, owner)| (path.to_owned(), owner.to_owned())));
}

#[test]
fn destinations_are_absolute_and_say_whether_they_are_directories() {
    let bench = Bench::new().file("f", "");
    let cases = [
        ("/x", "/x"),
        ("/x/", "/x/"),
        ("x", "/w/x"),
        (".", "/w/"),
        ("./", "/w/"),
        ("..", "/"),
        ("../y", "/y"),
        ("x/.", "/w/x/"),
        ("/", "/"),
        ("/a/../../b", "/b"),
        ("$D/x", "/d/x"),
        ("\"\"", "/w/"),
    ];
    for (written, expected) in cases {
        let plan = bench.plan(&format!("FROM scratch\nENV D=/d\nWORKDIR /w\nCOPY f {written}\n"));
        assert_eq!(plan.copies()[0].destination, expected, "{written}");
    }
}

#[test]
fn flags_of_copy_are_expanded() {
    let bench = Bench::new().file("f", "").file("g", "");
    let plan = bench.plan("FROM scratch\nARG O=1:2 M=750 S=f\nADD --chown=$O --chmod=$M $S g /x/\n");
    let copy = plan.copies()[0];
    assert_eq!(copy.chown.as_ref().map(|owner| owner.text.as_str()), Some("1:2"));
    assert_eq!((&copy.chmod, copy.unpack), (&Some(Mode::Exact(0o750)), true));
    assert_eq!(copy.sources.iter().map(|source| source.pattern.as_str()).collect::<Vec<_>>(), ["f", "g"]);
    assert!(bench.plan("FROM scratch\nCOPY --chown=$NONE f /\n").copies()[0].chown.is_none());
}

#[test]
fn here_documents_are_files_of_the_step() {
    let plan = planned("FROM scratch\nENV V=v\nCOPY <<a <<\"b\" /d/\n$V\na\n$V\nb\n");
    let inline: Vec<_> =
        plan.copies()[0].inline.iter().map(|inline| (inline.name.as_str(), inline.content.as_str())).collect();
    assert_eq!(inline, [("a", "v\n"), ("b", "$V\n")]);
}

#[test]
fn what_cannot_be_copied_is_an_error_with_its_place() {
    let cases = [
        ("COPY none /x", "'none' is not in the build context"),
        ("COPY f none /x/", "'none' is not in the build context"),
        ("COPY none/* /x/", "'none' is not in the build context"),
        ("COPY --parents d/none /x", "'d/none' is not in the build context"),
        ("COPY --parents d/./none /x", "'d/./none' is not in the build context"),
        ("COPY --parents none/./f /x", "'none' is not in the build context"),
        ("COPY --parents link/g /x", "'link' is a symbolic link, which --parents does not follow"),
        ("COPY --link --chown=me f /x", "--link cannot look up 'me' for --chown"),
        ("ADD --link --chown=1:me f /x", "--link cannot look up '1:me' for --chown"),
        ("COPY --exclude=[ d /x", "the pattern '[' is malformed"),
        ("COPY --exclude=a --exclude=! d /x", "the pattern '!' is malformed"),
        ("COPY [ /x/", "'[' is not a valid pattern"),
        ("COPY --from=scratch [a /x/", "'[a' is not a valid pattern"),
        ("COPY --parents d/[ /x/", "'d/[' is not a valid pattern"),
        ("COPY --chmod=u+l f /x", "'u+l' is not a mode"),
        ("COPY --chmod=10000 f /x", "'10000' is not a mode"),
        ("ADD https://example.org/ /x/", "the URL ends in no name for the file"),
        ("COPY git@example.org:x/y.git /x", "a git repository cannot be the source of a COPY"),
    ];
    for (line, message) in cases {
        let bench = Bench::new().file("f", "").file("d/g", "").image("scratch", "{}");
        std::os::unix::fs::symlink("d", bench.directory.path().join("link")).unwrap();
        let error = bench.error(&format!("FROM scratch\n{line}\n"));
        assert!(error.contains(message) && error.contains("Dockerfile:2:"), "{error}");
    }
}

#[test]
fn links_are_legal_where_they_need_no_names() {
    let bench = Bench::new().file("f", "");
    let linked = |line: &str| bench.plan(&format!("FROM scratch\nARG N=5\n{line}\n")).copies()[0].link;
    for line in ["COPY --link f /x", "COPY --link --chown=$N:6 f /x", "ADD --link --chown=root f /x"] {
        assert!(linked(line), "{line}");
    }
    for line in ["COPY f /x", "COPY --link=false --chown=me f /x", "COPY --link --chmod=600 --chown=me f /x"] {
        assert!(!linked(line), "{line}");
    }
    let copied = bench.plan("FROM scratch\nCOPY --link --chmod=$NONE --chown=$NONE f /x\n");
    assert!(copied.copies()[0].link && copied.copies()[0].chmod.is_none(), "an empty value is none");
}

#[test]
fn a_trigger_may_link_and_leave_out() {
    let trigger = r#"{"OnBuild":["COPY --link --parents --exclude=g --chown=5 d /x/","ADD --unpack=false d /y/"]}"#;
    let plan = Bench::new().file("d/g", "").file("d/h", "").image("base", trigger).plan("FROM base\n");
    let [copy, add] = plan.copies()[..] else { panic!("two triggers") };
    assert!(copy.link && copy.parents && copy.exclude.excludes("g") && !add.link && !add.unpack);
    let named = r#"{"OnBuild":["COPY --link --chown=me d /x/"]}"#;
    let error = Bench::new().file("d/g", "").image("base", named).error("FROM base\n");
    assert!(error.contains("--link cannot look up 'me' for --chown"), "{error}");
}

#[test]
fn flags_that_mean_nothing_are_warned_of() {
    let bench = Bench::new().file("f", "").file("d/g", "");
    let warnings = |line: &str| -> Vec<String> {
        let plan = bench.plan(&format!("FROM scratch\nARG P=g\n{line}\n"));
        plan.warnings.iter().map(|warning| warning.message.clone()).collect()
    };
    assert_eq!(warnings("COPY --link --chmod=600 f /x"), ["--link means nothing beside --chmod"]);
    assert_eq!(warnings("COPY --exclude=$P d /x"), ["variables are not expanded in --exclude"]);
    assert_eq!(warnings("COPY --exclude=/g d /x"), ["--exclude with a leading slash matches nothing"]);
    assert_eq!(warnings("COPY --link --exclude=g --parents d /x"), [""; 0]);
}

#[test]
fn what_the_ignore_file_leaves_out_is_named() {
    let error = Bench::new().file("f", "").file(".dockerignore", "f\n").error("FROM scratch\nCOPY f /\n");
    assert!(error.contains("/.dockerignore leaves it out"), "{error}");
}

#[test]
fn a_pattern_without_a_match_is_legal() {
    assert_eq!(planned("FROM scratch\nCOPY none* /x\n").target().steps.len(), 1);
}
