//! Contexts and Dockerfiles that are elsewhere.

use std::path::Path;

use crate::build::{compressed, context, dockerfile};
use crate::server::{Daemon, Page, Repositories, Server};
use crate::{DATA, NO_INPUT};

const DOCKERFILE: &str = "FROM scratch\nCOPY . /c/\n";

/// A tar of files.
fn archive(files: &[(&str, &str)]) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    for (name, content) in files {
        let mut header = tar::Header::new_ustar();
        header.set_size(content.len() as u64);
        header.set_mode(0o640);
        builder.append_data(&mut header, name, content.as_bytes()).unwrap();
    }
    builder.into_inner().unwrap()
}

fn sample() -> Vec<u8> {
    archive(&[
        ("Dockerfile", DOCKERFILE),
        (".dockerignore", "left-out\n"),
        ("file", "content"),
        ("left-out", ""),
        ("sub/Dockerfile", DOCKERFILE),
        ("sub/own", "1"),
    ])
}

#[test]
fn archives_come_from_urls_files_and_the_input() {
    use yadokari_layers::Compression;
    let forms = [Compression::None, Compression::Gzip, Compression::Zstd].map(|by| compressed(&sample(), by));
    let pages = [("/0", Page::of(&forms[0][..])), ("/1", Page::of(&forms[1][..])), ("/2", Page::of(&forms[2][..]))];
    let server = Server::start(&pages, Path::new("/nonexistent"));
    let file = tempfile::NamedTempFile::new().unwrap();
    for (number, form) in forms.iter().enumerate() {
        std::fs::write(file.path(), form).unwrap();
        let builds = [
            context(&server.url(&format!("/{number}"))),
            context(&format!("tar://{}", file.path().display())),
            context("tar://stdin").input(&form[..]),
            context("-").input(&form[..]),
        ];
        for build in builds {
            let built = build.ok();
            assert_eq!((built.at("c/file"), built.at("c/left-out")), ("640 0:0 content".into(), String::new()));
        }
    }
}

#[test]
fn repositories_are_contexts() {
    let repositories = Repositories::new();
    let server = Server::start(&[], repositories.path());
    let built = context(&server.url("/one.git#topic/x")).ok();
    let expected =
        [("c/extra", "644 0:0 of topic"), ("c/file", ""), ("c/module/inner", "644 0:0 of two"), ("c/.git", "")];
    expected.iter().for_each(|(path, expected)| assert_eq!(built.at(path), *expected, "{path}"));
    let kept = context(&server.url("/one.git")).words(&["--build-arg", "BUILDKIT_CONTEXT_KEEP_GIT_DIR=1"]).ok();
    assert!(!kept.at("c/.git/HEAD").is_empty());
    let commit = &repositories.commits["light"];
    context(&server.url("/one.git?checksum=abc#light")).fails(DATA, &[commit, "abc"]);
    context(&server.url("/one.git?colour=blue")).fails(2, &["--context", "no option 'colour'"]);
    let private = server.url("/private/one.git?submodules=0");
    context(&private).fails(77, &["refused access"]);
    context(&private).secret("GIT_AUTH_TOKEN", "s3cret").ok();
}

#[test]
fn kanikos_git_contexts_are_taken() {
    let repositories = Repositories::new();
    let server = Server::start(&[], repositories.path());
    let name = |tail: &str| format!("git://{}/one.git{tail}", server.host);
    let built = context(&name("#refs/heads/topic/x")).variable("GIT_PULL_METHOD", "http").ok();
    assert_eq!((built.at("c/extra"), built.at("c/module/inner")), ("644 0:0 of topic".into(), String::new()));
    let at = context(&name(&format!("#refs/heads/topic/x#{}", repositories.commits["light"])));
    assert_eq!(at.variable("GIT_PULL_METHOD", "http").ok().at("c/extra"), "");
    let private = |name: &'static str, value: &str| {
        let private = format!("git://{}/private/one.git", server.host);
        context(&private).variable("GIT_PULL_METHOD", "http").variable(name, value)
    };
    private("GIT_USERNAME", "x-access-token").variable("GIT_PASSWORD", "s3cret").ok();
    private("GIT_USERNAME", "x-access-token").variable("GIT_PASSWORD", "wrong").fails(77, &["refused access"]);
    let daemon = Daemon::start(repositories.path());
    context(&format!("git://{}/one.git", daemon.1)).variable("GIT_PULL_METHOD", "git").ok();
}

#[test]
fn a_part_of_a_context_can_be_taken() {
    let built = context("-").input(sample()).words(&["--context-sub-path", "sub"]).ok();
    assert_eq!((built.at("c/own"), built.at("c/file")), ("640 0:0 1".into(), String::new()));
    context("-").input(sample()).words(&["--context-sub-path", "none"]).fails(2, &["--context-sub-path", "'none'"]);
}

#[test]
fn a_dockerfile_comes_alone_from_a_url_or_the_input() {
    let server = Server::start(&[("/D", Page::of("FROM scratch\nCOPY <<one /x\n1\none\n"))], Path::new("/nonexistent"));
    assert_eq!(context(&server.url("/D")).ok().at("x"), "644 0:0 1");
    assert_eq!(context("-").input("FROM scratch\nCOPY <<one /x\n2\none\n").ok().at("x"), "644 0:0 2");
    let with_context = dockerfile("FROM scratch\n").words(&["-f", &server.url("/D")]).ok();
    assert_eq!(with_context.at("x"), "644 0:0 1");
    let from_input = dockerfile("FROM scratch\n").words(&["-f", "-"]).input("FROM scratch\nCOPY Dockerfile /x\n").ok();
    assert_eq!(from_input.at("x"), "644 0:0 FROM scratch");
    context("-").input("FORM x\n").fails(DATA, &["Dockerfile:1:1", "FORM"]);
    dockerfile("").words(&["-f", &server.url("/none")]).fails(NO_INPUT, &["answered 404"]);
}

#[test]
fn what_is_no_context_is_an_error() {
    let server = Server::start(&[("/binary", Page::of([1, 0, 2]))], Path::new("/nonexistent"));
    context(&server.url("/binary")).fails(DATA, &["neither a tar archive nor a Dockerfile"]);
    context(&server.url("/none")).fails(NO_INPUT, &["answered 404"]);
    context("tar://stdin").input(DOCKERFILE).fails(DATA, &["not a tar archive"]);
    context("tar:///nonexistent.tar").fails(NO_INPUT, &["/nonexistent.tar"]);
    context("-").input(archive(&[("file", "")])).fails(NO_INPUT, &["Dockerfile"]);
    context("s3://bucket/key").fails(2, &["s3://", "not carried out yet"]);
    let cut = sample();
    context("-").input(&cut[..1000]).fails(DATA, &["build context the standard input"]);
}

#[test]
fn an_archive_cannot_leave_its_directory() {
    let mut builder = tar::Builder::new(Vec::new());
    let outside = tempfile::tempdir().unwrap();
    let mut link = tar::Header::new_ustar();
    link.set_entry_type(tar::EntryType::Symlink);
    link.set_size(0);
    builder.append_link(&mut link, "link", outside.path()).unwrap();
    for (name, content) in [("link/escaped", "x"), ("Dockerfile", DOCKERFILE)] {
        let mut header = tar::Header::new_ustar();
        header.set_size(content.len() as u64);
        header.set_mode(0o644);
        builder.append_data(&mut header, name, content.as_bytes()).unwrap();
    }
    context("-").input(builder.into_inner().unwrap()).fails(DATA, &["link"]);
    assert_eq!(std::fs::read_dir(outside.path()).unwrap().count(), 0);
}

#[test]
fn repositories_and_archives_are_named_contexts() {
    let repositories = Repositories::new();
    let server = Server::start(&[("/a.tar", Page::of(sample())), ("/text", Page::of("text"))], repositories.path());
    let given = |name: &str, path: &str| {
        let word = format!("{name}={}", server.url(path));
        dockerfile("FROM scratch\nCOPY --from=there . /c/\n").words(&["--build-context", &word])
    };
    let built = given("there", "/a.tar").ok();
    assert_eq!((built.at("c/file"), built.at("c/left-out")), ("640 0:0 content".into(), String::new()));
    let built = given("there", "/one.git#topic/x").ok();
    assert_eq!((built.at("c/extra"), built.at("c/.git")), ("644 0:0 of topic".into(), String::new()));
    given("there", "/text").fails(2, &["--build-context", "there", "neither a repository nor an archive"]);
}
