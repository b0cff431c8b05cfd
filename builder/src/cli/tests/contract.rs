//! Kaniko's command line, a row for each of its flags, and the page that says what becomes of each.

use std::collections::BTreeSet;

use clap::{Arg, Command as Clap, CommandFactory};

use super::*;
use Outcome::{Noted, Refused, Used};

/// What becomes of a flag.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Outcome {
    /// It does what it says.
    Used,
    /// It is taken, and a line says why it is not needed.
    Noted,
    /// It is an error that names it.
    Refused,
}

/// Every flag of the executor, in the spellings that pipelines have.
const EXECUTOR: &[(&str, Outcome)] = &[
    ("--context /c", Used),
    ("--context=dir:///c", Used),
    ("-c tar:///c.tar.gz", Used),
    ("--context-sub-path=sub", Used),
    ("--bucket=name", Refused),
    ("-b name", Refused),
    ("--bucket=", Used),
    ("--dockerfile=D", Used),
    ("-f D", Used),
    ("--destination=r.example/i:t", Used),
    ("-d r.example/i:t -d r.example/i:u", Used),
    ("--build-arg A=1 --build-arg HOME", Used),
    ("--target=a", Used),
    ("--target=a,a", Used),
    ("--target=a,b", Refused),
    ("--cache", Used),
    ("--cache true", Used),
    ("--cache=false", Used),
    ("--cache-repo=r.example/c", Used),
    ("--cache-repo=oci:/dir", Used),
    ("--cache-dir=/c", Used),
    ("--cache-ttl=2190h0m0s", Used),
    ("--cache-copy-layers", Used),
    ("--cache-copy-layers=true", Used),
    ("--cache-run-layers=false", Used),
    ("--compressed-caching=false", Noted),
    ("--compressed-caching false", Noted),
    ("--no-push-cache", Used),
    ("--no-push", Used),
    ("--no-push true", Used),
    ("--tar-path=/t", Used),
    ("--tarPath /t", Used),
    ("--oci-layout-path=/o", Used),
    ("--digest-file=/d", Used),
    ("--digest-file /dev/termination-log", Used),
    ("--digest-file=https://h.example/digest", Used),
    ("--digest-file=http://h.example/digest", Refused),
    ("--image-name-with-digest-file=/d -d r.example/i", Used),
    ("--image-name-with-digest-file=/d", Refused),
    ("--image-name-tag-with-digest-file=/d -d r.example/i:t", Used),
    ("--image-name-tag-with-digest-file=/d", Refused),
    ("--dryrun", Used),
    ("--annotation a=b --annotation c=d,e", Used),
    ("--annotation a", Refused),
    ("--image-format=docker", Used),
    ("--image-format oci", Used),
    ("--image-format=", Used),
    ("--push-retry=3", Used),
    ("--image-fs-extract-retry 3", Used),
    ("--image-download-retry=3", Used),
    ("--push-ignore-immutable-tag-errors", Used),
    ("--push-ignore-immutable-tag-errors=true", Used),
    ("--skip-push-permission-check", Used),
    ("--skip-default-registry-fallback true", Used),
    ("--snapshot-mode=redo", Noted),
    ("--snapshotMode redo", Noted),
    ("--snapshotMode=time", Noted),
    ("--snapshot-mode=", Used),
    ("--use-new-run", Noted),
    ("--use-new-run=true", Noted),
    ("--single-snapshot", Used),
    ("--single-snapshot true", Used),
    ("--reproducible", Used),
    ("--cleanup", Used),
    ("--cleanup=true", Used),
    ("--pre-cleanup", Noted),
    ("--preserve-context=false", Noted),
    ("--materialize", Refused),
    ("--materialize=false", Used),
    ("--secret id=a,env=HOME", Used),
    ("--label a=b --label c=d,e", Used),
    ("--compression=zstd --compression-level=3", Used),
    ("--custom-platform=linux/arm64", Used),
    ("--customPlatform linux/arm64", Used),
    ("--ignore-path=/product_uuid", Used),
    ("--ignore-path /a --ignore-path=/b/c", Used),
    ("--ignore-path=", Used),
    ("--ignore-path=/", Refused),
    ("--ignore-path=../x", Refused),
    ("--ignore-var-run=false", Noted),
    ("--whitelist-var-run", Noted),
    ("--force", Used),
    ("--verbosity=debug", Used),
    ("-v trace", Used),
    ("--insecure", Used),
    ("--insecure-pull=true", Used),
    ("--insecure-registry=h:1 --insecure-registry i:2", Used),
    ("--registry-mirror=m.example/path --registry-mirror=n.example", Used),
    ("--registry-map=a=b;c=d/e --registry-map=f=g", Used),
    ("--git=branch=main --git single-branch=true", Used),
    ("--kaniko-dir=/k", Used),
    ("--skip-unused-stages", Noted),
    ("--skip-unused-stages=false", Noted),
    ("--force-build-metadata", Noted),
    ("--skip-tls-verify", Used),
    ("--skip-tls-verify=true", Used),
    ("--skip-tls-verify-pull", Used),
    ("--skip-tls-verify-registry=h:1", Used),
    ("--registry-certificate=h=/ca.crt", Used),
    ("--registry-client-cert=h=/crt,/key", Used),
    ("--credential-helpers=env", Used),
    ("--log-format=json", Used),
    ("--log-format text", Used),
    ("--log-timestamp", Used),
    ("--credential-helpers=", Used),
];

/// Every flag of the warmer.
const WARMER: &[&str] = &[
    "--image=r.example/i -i r.example/j",
    "--cache-dir=/c",
    "-c /c",
    "--force",
    "-f",
    "--cache-ttl=6h",
    "--dockerfile=D",
    "-d D",
    "--build-arg A=1",
    "--customPlatform=linux/arm64",
    "--custom-platform linux/arm64",
    "--insecure-pull true",
    "--insecure-registry=h:1",
    "--registry-map=a=b",
    "--registry-mirror=m.example",
    "--registry-certificate h=/ca.crt",
    "--registry-client-cert=h=/crt,/key",
    "--skip-tls-verify-pull",
    "--skip-tls-verify-registry=h:1",
    "--skip-default-registry-fallback",
    "--verbosity debug",
    "-v=debug",
];

const PAGE: &str = include_str!("../../../../docs/kaniko.md");

/// The first cells of the table below a heading.
fn cells(heading: &str) -> Vec<&'static str> {
    let (_, section) = PAGE.split_once(&format!("\n## {heading}\n")).unwrap_or_else(|| panic!("no section {heading}"));
    let section = section.split("\n## ").next().unwrap();
    let rows = section.lines().filter_map(|line| line.strip_prefix("| ")?.split(" | ").next());
    rows.filter(|cell| cell.starts_with('`')).collect()
}

/// The long flags in the first cells of a table.
fn flags_of_page(heading: &str) -> BTreeSet<&'static str> {
    let words = cells(heading).into_iter().flat_map(|cell| cell.split('`'));
    words.filter(|word| word.starts_with("--")).collect()
}

/// The long names of a subcommand's flags, other names included.
pub(super) fn flags_of(path: &[&str]) -> BTreeSet<String> {
    let command = Cli::command();
    let found = path.iter().fold(&command, |command: &Clap, name| command.find_subcommand(name).unwrap());
    let names = |arg: &Arg| {
        let aliases = arg.get_all_aliases().unwrap_or_default();
        arg.get_long().into_iter().chain(aliases).map(|name| format!("--{name}")).collect::<Vec<_>>()
    };
    found.get_arguments().flat_map(names).collect()
}

#[test]
fn each_flag_of_the_executor_is_used_or_not_needed_or_refused_by_name() {
    for (flags, expected) in EXECUTOR {
        let args = build(&format!("/kaniko/executor {flags}"));
        let refused = args.refuse_what_is_not_carried_out().and_then(|()| args.target().map(drop));
        let refused = refused.and_then(|()| args.kaniko.ignored().map(drop));
        let refused = refused.and_then(|()| args.reports.reports(!args.destination.is_empty(), &|_| None).map(drop));
        let refused = refused.and_then(|()| args.form.form(false, &args.layers.options()?).map(drop));
        let notes = args.kaniko.notes(std::iter::empty());
        let flag = flags.split(['=', ' ']).next().unwrap();
        let outcome = match (&refused, &notes[..]) {
            (Err(error), _) => {
                let error = error.to_string();
                assert!(error.starts_with(flag) || flag == "-b" && error.starts_with("--bucket"), "{flags}: {error}");
                Refused
            }
            (Ok(()), []) => Used,
            (Ok(()), [note]) => {
                let name = flag.replace("snapshotMode", "snapshot-mode").replace("whitelist", "ignore");
                assert!(note.starts_with(&format!("{name} is not needed: ")), "{flags}: {note}");
                Noted
            }
            more => panic!("{flags}: {more:?}"),
        };
        assert_eq!(outcome, *expected, "{flags}");
    }
}

#[test]
fn the_page_has_every_flag_of_a_build_and_no_other() {
    let page: BTreeSet<&str> = flags_of_page("The executor's flags");
    let more = flags_of_page("What Kaniko has not");
    let known = flags_of(&["build"]);
    for flag in page.union(&more) {
        assert!(known.contains(*flag), "docs/kaniko.md: there is no {flag}");
    }
    for flag in &known {
        let flag = &flag[..];
        assert!(page.contains(flag) != more.contains(flag), "docs/kaniko.md needs {flag} in one of its tables");
    }
}

#[test]
fn each_flag_of_the_warmer_is_taken_and_on_the_page() {
    for flags in WARMER {
        assert!(matches!(command(&format!("/kaniko/warmer {flags}")), Command::Warm(_)), "{flags}");
    }
    let known = flags_of(&["warm"]);
    let page = flags_of_page("The warmer's flags");
    for flag in &page {
        let is_tried = WARMER.iter().any(|flags| flags.split(['=', ' ']).any(|word| word == *flag));
        assert!(known.contains(*flag) && is_tried, "docs/kaniko.md: {flag} is not known, or has no row");
    }
}

#[test]
fn the_other_subcommands_of_the_page_have_the_flags_that_it_says() {
    for (heading, path) in [("Login", &["login"][..]), ("Push", &["push"]), ("Index", &["index", "create"])] {
        let known = flags_of(path);
        let page = flags_of_page(heading);
        assert!(!page.is_empty() && page.iter().all(|flag| known.contains(*flag)), "{heading}: {page:?} of {known:?}");
    }
}

#[test]
fn the_program_is_what_it_is_called() {
    let version = |program: &str| match interpret(parse(words(&format!("{program} version"))).unwrap()) {
        Ok(Invocation::Version(text)) => text,
        _ => panic!("{program}"),
    };
    let own = format!("yadokari {}", env!("CARGO_PKG_VERSION"));
    assert_eq!(version("./yadokari"), own);
    // Kaniko prints two spaces there, and scripts look for what follows them.
    assert_eq!(version("/kaniko/executor"), format!("Kaniko version :  v1.24.0 ({own})"));
    assert_eq!(version("executor"), version("/kaniko/warmer"));
    assert!(matches!(command("/kaniko/warmer -i r.example/i"), Command::Warm(_)));
    assert!(matches!(command("/kaniko/warmer"), Command::Warm(_)));
    assert!(matches!(command("/kaniko/executor login r.example -u a -p b"), Command::Login(_)));
    assert!(matches!(command("/kaniko/executor push t.tar -d r.example/i"), Command::Push(_)));
    assert!(matches!(command("yadokari warm --image r.example/i"), Command::Warm(_)));
    assert!(matches!(command("yadokari index create -d r.example/i:1 r.example/i:2"), Command::Index(_)));
}

#[test]
fn every_flag_that_the_page_has_of_the_executor_has_a_row_here() {
    let tried: BTreeSet<&str> = EXECUTOR.iter().flat_map(|(flags, _)| flags.split(['=', ' '])).collect();
    for flag in flags_of_page("The executor's flags") {
        assert!(tried.contains(flag), "{flag} has no row");
    }
}

#[test]
fn a_flag_that_is_not_needed_has_the_values_that_kaniko_takes() {
    assert!(error("executor --snapshot-mode=fast").contains("write full, redo or time"));
    assert!(error("executor --use-new-run=maybe").contains("write true or false"));
    assert_eq!(build("executor --kaniko-dir /k").kaniko.work_dir(), Some("/k/work".into()));
    assert_eq!(build("executor --kaniko-dir=").kaniko.work_dir(), None);
    assert!(build("executor --single-snapshot").kaniko.single_snapshot);
}

#[test]
fn an_argument_that_is_empty_is_nothing() {
    // Tekton's first tasks give one where they have no others.
    assert!(build("/kaniko/executor  --dockerfile D  --no-push").no_push);
    assert!(error("/kaniko/executor  stray").contains("unexpected argument 'stray' found"));
}

#[test]
fn several_targets_are_one_or_refused() {
    let target = |flags: &str| build(&format!("executor{flags}")).target().map_err(|error| error.to_string());
    for (flags, expected) in
        [("", None), (" --target=", None), (" --target a", Some("a")), (" --target a,a", Some("a"))]
    {
        assert_eq!(target(flags), Ok(expected.map(str::to_owned)), "{flags}");
    }
    assert!(target(" --target=app,test").unwrap_err().contains("build test by a call of its own"));
}

#[test]
fn variables_that_change_nothing_are_said_once_a_kind() {
    let given = ["PATH", "FF_KANIKO_COPY_AS_ROOT", "FF_KANIKO_RUN_VIA_TINI", "SNAPSHOT_TIMEOUT_DURATION", "KANIKO_DIR"];
    let notes = build("executor --use-new-run").kaniko.notes(given.into_iter().map(str::to_owned));
    let names: Vec<&str> = notes.iter().map(|note| note.split(' ').next().unwrap()).collect();
    assert_eq!(names, ["--use-new-run", "FF_KANIKO_COPY_AS_ROOT", "SNAPSHOT_TIMEOUT_DURATION"]);
    for name in cells("Variables").iter().map(|cell| cell.trim_matches('`')) {
        let is_noted = !build("executor").kaniko.notes(std::iter::once(name.replace('*', "X"))).is_empty();
        let row = PAGE.lines().find(|line| line.starts_with(&format!("| `{name}` |"))).unwrap();
        assert_eq!(row.contains("Not needed"), is_noted, "{name}");
    }
}

#[test]
fn who_started_the_build_is_in_the_user_agent() {
    use crate::cli::kaniko::user_agent;
    let own = format!("yadokari/{}", env!("CARGO_PKG_VERSION"));
    assert_eq!(user_agent(None), own);
    assert_eq!(user_agent(Some(String::new())), own);
    assert_eq!(user_agent(Some("skaffold".into())), format!("{own},skaffold"));
}

#[test]
fn http_2_is_turned_off_as_kanikos_callers_do_it() {
    use crate::cli::kaniko::http1;
    let given = |name: &'static str, value: &'static str| http1(&|asked| (asked == name).then(|| value.to_owned()));
    for (name, value, expected) in [
        ("FF_KANIKO_DISABLE_HTTP2", "true", true),
        ("FF_KANIKO_DISABLE_HTTP2", "0", false),
        ("FF_KANIKO_DISABLE_HTTP2", "", false),
        ("GODEBUG", "http2client=0", true),
        ("GODEBUG", "netdns=go, http2client=0", true),
        ("GODEBUG", "http2client=1,http2debug=0", false),
        ("HOME", "http2client=0", false),
    ] {
        assert_eq!(given(name, value), expected, "{name}={value}");
    }
    let notes = build("executor").kaniko.notes(["FF_KANIKO_DISABLE_HTTP2".to_owned()].into_iter());
    assert!(notes.is_empty(), "{notes:?}");
}

/// The variables that Kaniko and its forks read.
const VARIABLES: &str = "KANIKO_DIR KANIKO_NO_PUSH KANIKO_REGISTRY_MIRROR KANIKO_REGISTRY_MAP KANIKO_CLEANUP KANIKO_PRE_CLEANUP \
    KANIKO_PRESERVE_CONTEXT KANIKO_PRINT_PLAN KANIKO_IGNORE_ASSERTIONS KANIKO_<HOST>_USER KANIKO_TELEMETRY_* OTEL_* FF_KANIKO_* \
    SNAPSHOT_TIMEOUT_DURATION UPSTREAM_CLIENT_TYPE BUILDER_OUTPUT DOCKER_CONFIG DOCKER_AUTH_CONFIG REGISTRY_AUTH_FILE \
    XDG_RUNTIME_DIR GIT_USERNAME GIT_PASSWORD GIT_TOKEN GIT_PULL_METHOD AZURE_STORAGE_ACCESS_KEY S3_ENDPOINT \
    S3_FORCE_PATH_STYLE GOOGLE_APPLICATION_CREDENTIALS AWS_ACCESS_KEY_ID AZURE_CLIENT_ID CI_REGISTRY HTTP_PROXY NO_PROXY SSL_CERT_DIR \
    container GODEBUG";

#[test]
fn every_variable_that_kaniko_reads_is_on_a_page() {
    let pages = [PAGE, include_str!("../../../../docs/credentials.md")].concat();
    for name in VARIABLES.split_whitespace() {
        let names = [format!("`{name}"), format!(" {name}"), format!("({name}")];
        assert!(names.iter().any(|name| pages.contains(&**name)), "no page has {name}");
    }
}
