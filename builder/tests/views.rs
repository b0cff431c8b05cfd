//! What the program shows, and where: on a terminal, in a log, to a program, as a page.

#![expect(clippy::unwrap_used, reason = "a test's helper may fail it as the test itself may")]

use std::path::Path;
use std::process::{Command, Output, Stdio};

use serde_json::Value;

const PROGRAM: &str = env!("CARGO_BIN_EXE_yadokari");
const TEXT: &str = "FROM scratch AS first\nCOPY a /a\nFROM scratch\nCOPY --from=first /a /b\n";

/// A directory with a Dockerfile and a file.
fn context(text: &str) -> tempfile::TempDir {
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(directory.path().join("Dockerfile"), text).unwrap();
    std::fs::write(directory.path().join("a"), "content").unwrap();
    directory
}

/// The words of a build that needs no network and no root file system.
fn words(directory: &Path) -> Vec<String> {
    let at = |name: &str| directory.join(name).display().to_string();
    let flags = ["--no-push", "--jobs=1", "--force", "--context"].map(str::to_owned);
    let rest = [at(""), "--oci-layout-path".into(), at(".layout"), "--work-dir".into(), at(".work")];
    ["build".to_owned()].into_iter().chain(flags).chain(rest).collect()
}

/// A command without what the place where the tests run says of itself.
fn clean(program: &str) -> Command {
    let mut command = Command::new(program);
    for name in ["CI", "GITLAB_CI", "NO_COLOR", "KANIKO_NO_PUSH", "SOURCE_DATE_EPOCH"] {
        command.env_remove(name);
    }
    command.env("TERM", "xterm").stdin(Stdio::null());
    command
}

/// What a build says on a pipe.
fn piped(directory: &Path, more: &[&str], variables: &[(&str, &str)]) -> Output {
    let mut command = clean(PROGRAM);
    command.args(words(directory)).args(more).envs(variables.iter().copied());
    command.output().unwrap()
}

fn said(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

/// What a build writes to a terminal, which `script` makes.
fn on_terminal(directory: &Path, variables: &[(&str, &str)]) -> String {
    let line = std::iter::once(PROGRAM.to_owned()).chain(words(directory)).collect::<Vec<_>>().join(" ");
    let mut command = clean("script");
    command.args(["-qefc", &line, "/dev/null"]).envs(variables.iter().copied());
    let output = command.output().unwrap();
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).unwrap().replace("\r\n", "\n")
}

#[test]
fn a_terminal_has_a_live_view_and_a_log_has_lines() {
    let directory = context(TEXT);
    let text = on_terminal(directory.path(), &[("NO_COLOR", "1")]);
    assert!(text.contains("✓ [first 1/1] COPY a /a: "), "{text:?}");
    assert!(text.contains("\u{1b}["), "the bottom is drawn: {text:?}");
    assert!(text.trim_end().lines().last().unwrap().contains("built sha256:"), "{text:?}");
    for mode in ["\u{1b}[?25l", "\u{1b}[?1049h"] {
        assert!(!text.contains(mode), "nothing is to be restored: {text:?}");
    }
    let plain = ["[first 1/1] COPY a /a", "[first 1/1] done in ", "[stage-1 1/1] COPY --from=first /a /b"];
    for variables in [&[("TERM", "dumb")][..], &[("CI", "true"), ("NO_COLOR", "1")]] {
        let text = on_terminal(directory.path(), variables);
        assert!(!text.contains('\u{1b}'), "{text:?}");
        assert!(text.lines().zip(plain).all(|(line, start)| line.starts_with(start)), "{text:?}");
    }
    let text = said(&piped(directory.path(), &[], &[]));
    assert!(text.lines().zip(plain).all(|(line, start)| line.starts_with(start)), "{text:?}");
}

#[test]
fn a_program_reads_an_object_a_line_from_the_first_to_the_last() {
    let directory = context(TEXT);
    let output = piped(directory.path(), &["--log-format=json", "-v", "debug"], &[("GITLAB_CI", "true")]);
    let text = said(&output);
    let events: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let of = |kind: &str| events.iter().filter(|event| event["event"] == kind).count();
    assert_eq!((of("step-begun"), of("step-done"), of("built")), (2, 2, 1), "{text}");
    assert_eq!(of("transfer-begun"), of("transfer-done"));
    assert_eq!(events.last().unwrap()["event"], "built");
    assert!(events.iter().all(|event| event["time"].is_string() && event["level"].is_string()));
}

#[test]
fn gitlab_has_sections() {
    let directory = context(TEXT);
    let text = said(&piped(directory.path(), &[], &[("GITLAB_CI", "true")]));
    assert_eq!(text.matches("section_start:").count(), 2, "{text:?}");
    assert_eq!(text.matches("section_end:").count(), 2, "{text:?}");
    assert!(text.contains("[collapsed=true]\r\u{1b}[0K[first 1/1] COPY a /a\n"), "{text:?}");
}

#[test]
fn the_report_is_written_however_the_build_ends() {
    let directory = context(TEXT);
    let page = directory.path().join("build.html");
    let flag = format!("--report={}", page.display());
    assert!(piped(directory.path(), &[&flag], &[]).status.success());
    let text = std::fs::read_to_string(&page).unwrap();
    for part in ["Built oci:", "<code>COPY --from=first /a /b</code>", "<p>1 files, 7 B unpacked</p>", "<dt>Peak"] {
        assert!(text.contains(part), "{part}: {text}");
    }
    std::fs::write(directory.path().join("Dockerfile"), "FROM scratch\nCOPY missing /\n").unwrap();
    let failed = piped(directory.path(), &[&flag], &[]);
    assert!(!failed.status.success());
    let text = std::fs::read_to_string(&page).unwrap();
    assert!(text.contains("The build failed") && text.contains("missing"), "{text}");
    std::fs::write(directory.path().join("Dockerfile"), TEXT).unwrap();
    let unwritable =
        piped(directory.path(), &["--report", &directory.path().join("no/x.html").display().to_string()], &[]);
    assert!(!unwritable.status.success());
    assert!(said(&unwritable).contains("no/x.html"), "{}", said(&unwritable));
}
