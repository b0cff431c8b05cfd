//! ADD of files from URLs.

use std::path::Path;

use crate::build::dockerfile;
use crate::server::{Page, Server};
use crate::{DATA, NO_INPUT, NO_PERMISSION, PROTOCOL, UNAVAILABLE};

/// The digest of `hello`.
const HELLO: &str = "sha256:2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824";

fn server() -> Server {
    let moved = |location: &str| Page { status: 302, ..Page::of("") }.header("location", location);
    let pages = [
        ("/files/hello.txt", Page::of("hello").header("last-modified", "Sun, 06 Nov 1994 08:49:37 GMT")),
        ("/a%20b", Page::of("spaces")),
        ("/", Page::of("root")),
        ("/moved", moved("/files/hello.txt")),
        ("/around", moved("/around")),
        ("/ftp", moved("ftp://127.0.0.1/x")),
        ("/cut", Page { cut: Some(3), ..Page::of("0123456789") }),
        ("/bearer", Page { login: Some("Bearer s3cret".into()), ..Page::of("for you") }),
        ("/archive.tgz", Page::of(archive())),
        ("/header", Page { login: Some("Basic s3cret".into()), ..Page::of("for you, too") }),
    ];
    Server::start(&pages, Path::new("/nonexistent"))
}

/// A gzip tar of one file.
fn archive() -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_ustar();
    header.set_size(6);
    header.set_mode(0o640);
    builder.append_data(&mut header, "packed", &b"inside"[..]).unwrap();
    crate::build::compressed(&builder.into_inner().unwrap(), yadokari_layers::Compression::Gzip)
}

#[test]
fn a_download_is_a_file_of_root_with_the_servers_time() {
    let server = server();
    let built = dockerfile(format!(
        "FROM scratch\nARG D=/dir\nADD {0}?x=/y $D/\nADD {0} /as\nADD {1} /dir\nADD {2} /root\n",
        server.url("/files/hello.txt"),
        server.url("/a%20b"),
        server.url("/"),
    ));
    let built = built.ok();
    assert_eq!(built.at("dir/hello.txt"), "600 0:0 hello");
    assert_eq!(built.at("as"), "600 0:0 hello");
    assert_eq!(built.at("dir/a b"), "600 0:0 spaces");
    assert_eq!(built.at("root"), "600 0:0 root");
    assert_eq!([built.time("as"), built.time("dir/a b")], [784_111_777, 0]);
    let line = format!("ADD {} /as # buildkit", server.url("/files/hello.txt"));
    assert!(built.history.contains(&line), "{:?}", built.history);
}

#[test]
fn flags_hold_for_downloads() {
    let server = server();
    let url = server.url("/files/hello.txt");
    let built = dockerfile(format!("FROM scratch\nADD --chown=1:2 --chmod=755 {url} /new/\n")).ok();
    assert_eq!((built.at("new/hello.txt"), built.at("new")), ("755 1:2 hello".into(), "755 1:2".into()));
}

#[test]
fn a_linked_download_depends_on_nothing_below_it() {
    let server = server();
    let url = server.url("/files/hello.txt");
    let built = dockerfile(format!("FROM scratch\nWORKDIR /x\nADD --link {url} /x/\n")).ok();
    assert_eq!((built.at("x/hello.txt"), built.at("x")), ("600 0:0 hello".into(), "755 0:0".into()));
}

#[test]
fn downloaded_archives_are_unpacked_only_where_that_is_asked_for() {
    let server = server();
    let url = server.url("/archive.tgz");
    let built = dockerfile(format!(
        "FROM scratch\nADD {url} /as/\nADD --unpack=false {url} /off/\nADD --unpack --chown=1:2 {url} {} /on/\n",
        server.url("/files/hello.txt")
    ));
    let built = built.ok();
    assert!(built.at("as/archive.tgz").starts_with("600 0:0") && built.at("off/archive.tgz").starts_with("600 0:0"));
    assert_eq!((built.at("on/packed"), built.at("on/archive.tgz")), ("640 1:2 inside".into(), String::new()));
    assert_eq!(built.at("on/hello.txt"), "600 1:2 hello");
}

#[test]
fn a_file_without_a_name_needs_one() {
    let server = server();
    let text = format!("FROM scratch\nADD {} /dir/\n", server.url("/"));
    dockerfile(text).fails(DATA, &["Dockerfile:2:5", "ends in no name", "^^^^"]);
    assert!(server.logins("/").is_empty(), "it is not even asked for");
    let text = format!("FROM scratch\nWORKDIR /dir\nADD {} /dir\n", server.url("/"));
    dockerfile(text).fails(DATA, &["Dockerfile:3:5", "'/dir' is a directory"]);
}

#[test]
fn several_sources_need_a_directory() {
    let server = server();
    let (one, two) = (server.url("/files/hello.txt"), server.url("/a%20b"));
    dockerfile(format!("FROM scratch\nADD {one} {two} /x\n")).fails(DATA, &["'/x' is not a directory", "'/x/'"]);
    let built = dockerfile(format!("FROM scratch\nADD {one} {two} Dockerfile /x/\n")).ok();
    assert_eq!((built.at("x/hello.txt"), built.at("x/a b")), ("600 0:0 hello".into(), "600 0:0 spaces".into()));
    assert!(built.at("x/Dockerfile").starts_with("644 0:0 FROM"));
}

#[test]
fn redirects_are_followed_to_files_and_not_in_circles() {
    let server = server();
    let add = |path: &str| dockerfile(format!("FROM scratch\nADD {} /x/\n", server.url(path)));
    assert_eq!(add("/moved").ok().at("x/moved"), "600 0:0 hello");
    add("/around").fails(PROTOCOL, &["redirects more than"]);
    add("/ftp").fails(PROTOCOL, &["scheme ftp"]);
}

#[test]
fn what_a_server_refuses_or_cuts_is_an_error() {
    let server = server();
    let add = |path: &str| dockerfile(format!("FROM scratch\n\nADD {} /x\n", server.url(path)));
    add("/none").fails(NO_INPUT, &["Dockerfile:3:5", "answered 404", "there is no such page", "^^^^"]);
    add("/cut").fails(UNAVAILABLE, &["Dockerfile:3:5", "/cut"]);
    dockerfile("FROM scratch\nADD http://127.0.0.1:1/x /x\n").fails(UNAVAILABLE, &["cannot reach 127.0.0.1:1"]);
}

#[test]
fn a_checksum_must_hold() {
    let server = server();
    let url = server.url("/files/hello.txt");
    let add = |words: &str| dockerfile(format!("FROM scratch\nARG SUM={HELLO}\nADD {words} /x\n"));
    assert_eq!(add(&format!("--checksum=$SUM {url}")).ok().at("x"), "600 0:0 hello");
    let other = HELLO.replace("9824", "9825");
    add(&format!("--checksum={other} {url}")).fails(DATA, &["Dockerfile:3:16", HELLO, &other, "^^^^"]);
    add(&format!("--checksum={HELLO} {url} {url}")).fails(DATA, &["Dockerfile:3:16", "a single source"]);
    add(&format!("--checksum={HELLO} Dockerfile")).fails(DATA, &["needs a URL or a git repository"]);
    add(&format!("--checksum=sha512:{} {url}", "0".repeat(128))).fails(DATA, &["only digests of SHA-256"]);
    add(&format!("--checksum=md5:1 {url}")).fails(DATA, &["is not the digest of a file"]);
}

#[test]
fn private_files_have_secrets_that_leave_no_trace() {
    let server = server();
    let add = |path: &str| dockerfile(format!("FROM scratch\nADD {} /x\n", server.url(path)));
    add("/bearer").fails(NO_PERMISSION, &["refused access", "HTTP_AUTH_TOKEN_127.0.0.1"]);
    let with_token = add("/bearer").secret("HTTP_AUTH_TOKEN_127.0.0.1", "s3cret\n").words(&["-v", "debug"]).ok();
    assert_eq!(with_token.at("x"), "600 0:0 for you");
    let with_header = add("/header").secret("HTTP_AUTH_HEADER_127.0.0.1", "Basic s3cret").ok();
    assert_eq!(with_header.at("x"), "600 0:0 for you, too");
    let refused = add("/bearer").secret("HTTP_AUTH_TOKEN_127.0.0.1", "wr0ng").run();
    for built in [with_token, with_header] {
        assert!(!built.text.contains("s3cret"), "{}", built.text);
        assert!(!String::from_utf8_lossy(&built.bytes()).contains("s3cret"));
    }
    assert!(refused.code == NO_PERMISSION && !refused.text.contains("wr0ng"), "{}", refused.text);
}

#[test]
fn the_logins_of_registries_are_not_sent() {
    let server = server();
    let logins = format!(r#"{{"auths":{{"{}":{{"username":"u","password":"p"}}}}}}"#, server.host);
    let text = format!("FROM scratch\nADD {} /x\n", server.url("/files/hello.txt"));
    dockerfile(text).variable("DOCKER_AUTH_CONFIG", &logins).ok();
    assert_eq!(server.logins("/files/hello.txt"), [""]);
}

#[test]
fn downloads_go_through_the_proxy() {
    let server = server();
    let proxy = format!("http://{}", server.host);
    let build =
        dockerfile("FROM scratch\nADD http://files.invalid/files/hello.txt /x\n").variable("HTTP_PROXY", &proxy);
    assert_eq!(build.ok().at("x"), "600 0:0 hello");
}

#[test]
fn copy_takes_no_url() {
    dockerfile("FROM scratch\nCOPY https://example.org/x /x\n").fails(DATA, &["Dockerfile:2:6", "ADD fetches it"]);
}
