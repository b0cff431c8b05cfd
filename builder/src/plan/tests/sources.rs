//! Contexts with unusual files.

use std::os::unix::fs::symlink;
use std::os::unix::net::UnixListener;

use super::*;

#[test]
fn a_socket_is_an_empty_file() {
    let bench = Bench::new().file("d/f", "");
    let _socket = UnixListener::bind(bench.directory.path().join("d/sock")).unwrap();
    let context = Context::open(bench.directory.path(), std::path::Path::new("none")).unwrap();
    let hashed = context.hashed(&RelPath::new("d").unwrap(), &|_| true).unwrap();
    let [_, _, socket] = &hashed[..] else { panic!("the directory and two files") };
    assert!(
        matches!(&socket.entry.kind, yadokari_layers::Kind::File { size: 0, content: Some(digest) } if *digest == Digest::of(""))
    );
    assert_eq!(bench.plan("FROM scratch\nCOPY d /d\n").target().steps.len(), 1);
}

#[test]
fn links_of_the_context_are_followed_and_stay_inside() {
    let bench = Bench::new().file("d/f", "x");
    symlink("../../../d", bench.directory.path().join("out")).unwrap();
    symlink("/d/f", bench.directory.path().join("abs")).unwrap();
    symlink("/etc/passwd", bench.directory.path().join("gone")).unwrap();
    let text = |source| format!("FROM scratch\nCOPY {source} /x\n");
    let sources = ["out/f", "abs", "out/../d/f"].map(|source| bench.keys(&text(source)));
    assert_ne!(sources[0], sources[1], "the name under which it is copied belongs to the key");
    assert!(bench.error(&text("gone")).contains("'gone' is not in the build context"));
}
