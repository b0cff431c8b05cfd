//! The root file system as files and as a tar.

use std::os::unix::fs::PermissionsExt as _;

use super::*;
use crate::output::Export;

const TEXT: &str = "FROM HOST/base:1\nCOPY f /d/g\nCOPY --chmod=600 f /d/f\nCOPY --chown=7:8 f /h\n";

/// A build that goes nowhere but to files.
async fn build(bench: &Bench, exports: &[Export], platforms: &[&str]) -> Built {
    let mut request = bench.request(TEXT, platforms);
    request.destinations = exports.iter().cloned().map(Destination::Root).collect();
    bench.build(request).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_files_of_an_image_are_written_with_their_modes() {
    let bench = Bench::new().await.file("f", "content");
    let place = tempfile::tempdir().unwrap();
    let [directory, file] = ["new/dir", "out.tar"].map(|name| place.path().join(name));
    let built = build(&bench, &[Export::Directory(directory.clone()), Export::Archive(file.clone())], &[]).await;
    assert_eq!(built.layers, 3);
    for (name, mode) in [("d/f", 0o600), ("d/g", 0o644), ("h", 0o644)] {
        let path = directory.join(name);
        assert_eq!(fs::read_to_string(&path).unwrap(), "content");
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o7777, mode, "{name}");
    }
    let mut archive = tar::Archive::new(fs::File::open(file).unwrap());
    let mut found = Vec::new();
    for entry in archive.entries().unwrap() {
        let entry = entry.unwrap();
        let name = entry.path().unwrap().to_string_lossy().trim_end_matches('/').to_owned();
        found.push((name, entry.header().uid().unwrap(), entry.header().mode().unwrap()));
    }
    let expected = [("d", 0, 0o755), ("d/f", 0, 0o600), ("d/g", 0, 0o644), ("h", 7, 0o644)];
    assert_eq!(found, expected.map(|(name, uid, mode)| (name.to_owned(), uid, mode)));
    // Nothing else is left, and nothing went to the registry.
    assert_eq!(fs::read_dir(place.path()).unwrap().count(), 2);
    assert!(bench.served.seen().iter().all(|seen| matches!(&seen.method[..], "GET" | "HEAD")));
}

#[tokio::test(flavor = "multi_thread")]
async fn each_platform_has_a_directory_of_its_own() {
    let bench = Bench::new().await.file("f", "content");
    let place = tempfile::tempdir().unwrap();
    build(&bench, &[Export::Directory(place.path().to_owned())], &["linux/amd64", "linux/arm64"]).await;
    for name in ["linux_amd64", "linux_arm64"] {
        assert_eq!(fs::read_to_string(place.path().join(name).join("d/f")).unwrap(), "content");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_place_that_cannot_be_written_is_named() {
    let bench = Bench::new().await.file("f", "content");
    for export in [Export::Directory("/proc/no/such".into()), Export::Archive("/proc/no/such.tar".into())] {
        let mut request = bench.request(TEXT, &[]);
        request.destinations = vec![Destination::Root(export)];
        let error = bench.build(request).await.unwrap_err();
        assert!(error.to_string().contains("'/proc/no/such"), "{error}");
        assert_eq!(error.exit_code(), ExitCode::Io as u8);
    }
}
