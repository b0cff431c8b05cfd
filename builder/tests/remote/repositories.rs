//! ADD of git repositories.

use crate::build::{Build, dockerfile};
use crate::server::{Daemon, Repositories, Server, run_git};
use crate::{DATA, NO_INPUT, NO_PERMISSION};

/// Repositories, and a server of them.
fn served() -> (Repositories, Server) {
    let repositories = Repositories::new();
    let server = Server::start(&[], repositories.path());
    (repositories, server)
}

fn add(server: &Server, flags: &str, tail: &str) -> Build {
    dockerfile(format!("FROM scratch\nADD {flags} {}{tail} /x\n", server.url("/one.git")))
}

#[test]
fn a_repository_is_its_files_without_its_history() {
    let (_repositories, server) = served();
    let built = add(&server, "", "").ok();
    for (path, expected) in [
        ("x", "755 0:0"),
        ("x/file", "644 0:0 content"),
        ("x/dir", "755 0:0"),
        ("x/dir/below", "644 0:0 deep"),
        ("x/tool", "755 0:0 #!/bin/sh"),
        ("x/link", "777 0:0 -> file"),
        ("x/dos.bat", "644 0:0 a\r\nb"),
        ("x/.dockerignore", "644 0:0 file"),
        ("x/module/inner", "644 0:0 of two"),
        ("x/.git", ""),
        ("x/module/.git", ""),
        ("x/extra", ""),
    ] {
        assert_eq!(built.at(path), expected, "{path}");
    }
    assert_eq!(built.history, [format!("ADD {} /x # buildkit", server.url("/one.git"))]);
}

#[test]
fn references_are_branches_tags_and_commits() {
    let (repositories, server) = served();
    let commit = repositories.commits["light"].as_str();
    for (tail, expected) in [
        ("#topic/x", "topic/x"),
        ("?branch=topic/x", "topic/x"),
        ("?ref=refs/heads/topic/x", "topic/x"),
        ("#light", "light"),
        ("#annotated", "light"),
        ("?tag=annotated", "light"),
        (&format!("#{commit}"), "light"),
        (&format!("?commit={commit}"), "light"),
    ] {
        let built = add(&server, "", tail).ok();
        assert_eq!(built.at("x/extra").is_empty(), expected == "light", "{tail}");
        assert!(built.text.contains(&repositories.commits[expected]), "{tail}: {}", built.text);
        assert_eq!(built.at("x/file"), "644 0:0 content", "{tail}");
    }
}

#[test]
fn what_a_repository_lacks_is_an_error() {
    let (repositories, server) = served();
    let short = &repositories.commits["light"][..9];
    add(&server, "", "#none").fails(NO_INPUT, &["Dockerfile:2:6", "no branch or tag 'none'", "^^^^"]);
    add(&server, "", &format!("#{short}")).fails(NO_INPUT, &["all of its 40 digits"]);
    add(&server, "", &format!("#{}", "0123456789".repeat(4))).fails(NO_INPUT, &["no such commit"]);
    add(&server, "", "#main:none").fails(NO_INPUT, &["no directory 'none'"]);
    add(&server, "", "#main:out").fails(NO_INPUT, &["no directory 'out'"]);
    add(&server, "", "?colour=blue").fails(DATA, &["Dockerfile:2:6", "no option 'colour'"]);
    let text = format!("FROM scratch\nADD {} /x\n", server.url("/none.git"));
    dockerfile(text).fails(NO_INPUT, &["git repository", "answered 404"]);
}

#[test]
fn a_subdirectory_is_all_there_is() {
    let (_repositories, server) = served();
    for tail in ["#:dir", "#main:/dir/", "?subdir=dir", "?subdir=../../dir#main"] {
        let built = add(&server, "--keep-git-dir", tail).ok();
        assert_eq!(built.at("x/below"), "644 0:0 deep", "{tail}");
        assert_eq!((built.at("x/file"), built.at("x/.git")), (String::new(), String::new()), "{tail}");
    }
}

#[test]
fn the_git_directory_can_be_kept() {
    let (repositories, server) = served();
    for (flag, tail) in [
        ("--keep-git-dir", "#topic/x"),
        ("--keep-git-dir=true", "?keep-git-dir=1#topic/x"),
        ("", "?keep-git-dir#topic/x"),
    ] {
        let built = add(&server, flag, tail).ok();
        let root = built.unpacked().join("x");
        assert_eq!(run_git(&root, &["-c", "safe.directory=*", "status", "--porcelain"]), "", "{flag} {tail}");
        assert_eq!(run_git(&root, &["-c", "safe.directory=*", "rev-parse", "HEAD"]), repositories.commits["topic/x"]);
        assert_eq!(run_git(&root, &["-c", "safe.directory=*", "log", "--format=%s"]), "fourth");
        let branch = run_git(&root, &["-c", "safe.directory=*", "rev-parse", "refs/heads/topic/x"]);
        assert_eq!(branch, repositories.commits["topic/x"]);
        assert_eq!(run_git(&root, &["config", "remote.origin.url"]), server.url("/one.git"));
    }
    assert_eq!(add(&server, "--keep-git-dir=false", "").ok().at("x/.git"), "");
    add(&server, "--keep-git-dir=false", "?keep-git-dir=true").fails(DATA, &["contradict"]);
}

#[test]
fn keep_git_dir_without_a_repository_is_a_warning() {
    let built = dockerfile("FROM scratch\nADD --keep-git-dir Dockerfile /x\n").ok();
    assert!(built.text.contains("warning: --keep-git-dir means nothing"), "{}", built.text);
}

#[test]
fn submodules_can_be_left_out() {
    let (_repositories, server) = served();
    let built = add(&server, "", "?submodules=false").ok();
    assert_eq!((built.at("x/module"), built.at("x/module/inner")), ("755 0:0".into(), String::new()));
    assert!(server.logins("/two.git/info/refs").is_empty());
}

#[test]
fn a_checksum_is_the_start_of_a_commit() {
    let (repositories, server) = served();
    let (commit, tag) = (&repositories.commits["light"], &repositories.commits["annotated"]);
    let add = |flags: &str, tail: &str| add(&server, flags, tail);
    for sum in [&commit[..7], commit, &tag[..7]] {
        add(&format!("--checksum={sum}"), "#annotated").ok();
        add("", &format!("?checksum={sum}#annotated")).ok();
    }
    add("--checksum=abcdef0", "#light").fails(DATA, &["Dockerfile:2:16", commit, "abcdef0", "^^^^"]);
    add("", "?checksum=abcdef0#light").fails(DATA, &["Dockerfile:2:6", commit, "abcdef0"]);
    add("--checksum=main", "#light").fails(DATA, &["a commit, or the start of one"]);
    add(&format!("--checksum={commit}"), "?checksum=abc#light").fails(DATA, &["the repository's option abc"]);
}

#[test]
fn times_are_the_checkouts_or_the_commits() {
    let (_repositories, server) = served();
    let commits = add(&server, "", "?mtime=commit").ok();
    assert_eq!([commits.time("x/file"), commits.time("x/dir"), commits.time("x/link")], [1_000_000_000; 3]);
    assert!(add(&server, "", "").ok().time("x/file") > 1_700_000_000);
}

#[test]
fn flags_hold_for_repositories() {
    let (_repositories, server) = served();
    let built = add(&server, "--exclude=d* --link", "#light").ok();
    assert_eq!((built.at("x/file"), built.at("x/dir/below")), ("644 0:0 content".into(), String::new()));
    let built = add(&server, "--chown=1:2 --chmod=go=", "#light").ok();
    assert_eq!((built.at("x/file"), built.at("x/tool")), ("600 1:2 content".into(), "700 1:2 #!/bin/sh".into()));
}

#[test]
fn private_repositories_have_tokens_that_leave_no_trace() {
    let (_repositories, server) = served();
    let text = |tail: &str| format!("FROM scratch\nADD --keep-git-dir {}{tail} /x\n", server.url("/private/one.git"));
    dockerfile(text("")).fails(NO_PERMISSION, &["refused access", "GIT_AUTH_TOKEN"]);
    let host = format!("GIT_AUTH_TOKEN.{}", server.host);
    for id in ["GIT_AUTH_TOKEN", &host] {
        let built = dockerfile(text("?submodules=false")).secret(id, "s3cret").words(&["-v", "debug"]).ok();
        assert_eq!(built.at("x/file"), "644 0:0 content");
        assert!(!built.text.contains("s3cret") && !String::from_utf8_lossy(&built.bytes()).contains("s3cret"));
    }
    // The token is for this repository, and not for its submodules.
    let other = dockerfile(text("")).secret("GIT_AUTH_TOKEN", "s3cret").run();
    assert!(other.code == NO_PERMISSION && other.text.contains("submodule 'module'"), "{}", other.text);
    assert!(server.logins("/private/two.git/info/refs").iter().all(String::is_empty));
}

#[test]
fn gits_own_protocol_and_redirects_and_proxies_lead_to_repositories() {
    let (repositories, server) = served();
    let daemon = Daemon::start(repositories.path());
    let built = dockerfile(format!("FROM scratch\nADD git://{}/one.git#topic/x /x\n", daemon.1)).ok();
    assert_eq!((built.at("x/extra"), built.at("x/module/inner")), ("644 0:0 of topic".into(), "644 0:0 of two".into()));
    let proxy = format!("http://{}", server.host);
    let text = "FROM scratch\nADD http://git.invalid/one.git#light /x\n";
    assert_eq!(dockerfile(text).variable("HTTP_PROXY", &proxy).ok().at("x/file"), "644 0:0 content");
}

#[test]
fn ssh_without_its_program_says_what_to_do() {
    let text = "FROM scratch\nADD git@host.invalid:owner/name.git /x\n";
    dockerfile(text).variable("PATH", "/nonexistent").fails(69, &["the program 'ssh'", "GIT_AUTH_TOKEN"]);
    dockerfile("FROM scratch\nCOPY git@host.invalid:a /x\n").fails(DATA, &["a git repository", "ADD fetches it"]);
}
