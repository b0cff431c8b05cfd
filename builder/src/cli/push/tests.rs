//! Images on their way, between registries in memory.

use std::fs;
use std::path::Path;

use clap::Parser;
use yadokari_registry::memory::Served;
use yadokari_registry::{BytesBlob, Layout, Memory, Store, Version};

use super::*;
use crate::progress::Level;

#[derive(Parser)]
enum Line {
    Push(Push),
    Create(Create),
}

async fn run(line: &str, work: &Path) -> Result<u8, Error> {
    let work = format!("--work-dir={}", work.display());
    let invocation = match Line::try_parse_from(["x"].into_iter().chain(line.split(' ')).chain([&work[..]])).unwrap() {
        Line::Push(push) => push.invocation()?,
        Line::Create(create) => create.invocation()?,
    };
    let progress = Arc::new(Progress::to(Level::Error, Box::new(std::io::sink())));
    PushInvocation { progress, ..invocation }.execute().await
}

/// Writes an image for an architecture under a tag.
async fn image(store: &dyn Store, architecture: &str, tag: &str) -> Digest {
    let config = json!({"architecture": architecture, "os": "linux", "rootfs": {"type": "layers", "diff_ids": []}});
    let config = BytesBlob::new(config.to_string());
    store.write_blob(&config, None).await.unwrap();
    let text = json!({"schemaVersion": 2, "mediaType": media::OCI_MANIFEST, "layers": [],
        "config": {"mediaType": media::OCI_CONFIG, "digest": Digest::of(config.bytes()), "size": config.bytes().len()}});
    let manifest = Manifest::new(media::OCI_MANIFEST, text.to_string());
    store.write_manifest(&Version::Tag(tag.into()), &manifest).await.unwrap();
    manifest.digest
}

async fn served() -> (Memory, Served, tempfile::TempDir) {
    let registry = Memory::new();
    let served = registry.serve().await.unwrap();
    (registry, served, tempfile::tempdir().unwrap())
}

async fn tag(registry: &Memory, repository: &str, tag: &str) -> Manifest {
    registry.repository(repository).read_manifest(&Version::Tag(tag.into())).await.unwrap().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_layout_is_pushed_under_several_names_and_its_digest_written() {
    let (registry, served, directory) = served().await;
    let layout = directory.path().join("layout");
    let digest = image(&Layout::create(&layout).unwrap(), "amd64", "any").await;
    let (host, file, work) = (served.host(), directory.path().join("digest"), directory.path().join("work"));
    let line = format!(
        "push {} -d {host}/app:1 --destination={host}/app:2 -t {host}/other:1 --digest-file={}",
        layout.display(),
        file.display()
    );
    assert_eq!(run(&line, &work).await.unwrap(), 0);
    for (repository, name) in [("app", "1"), ("app", "2"), ("other", "1")] {
        assert_eq!(tag(&registry, repository, name).await.digest, digest);
    }
    assert_eq!(fs::read_to_string(file).unwrap(), digest.to_string());
    // Each blob went to each repository once, and nothing waits any more.
    let uploads = served.seen().iter().filter(|seen| seen.method == "PUT" && seen.path.contains("/blobs/")).count();
    assert_eq!(uploads, 2);
    assert_eq!(fs::read_dir(work).unwrap().count(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn images_of_several_repositories_become_one_index() {
    let (registry, served, directory) = served().await;
    let amd64 = image(&registry.repository("app"), "amd64", "amd64").await;
    let arm64 = image(&registry.repository("arm"), "arm64", "1").await;
    let host = served.host();
    let line = format!("create -d {host}/app:all {host}/app:amd64 {host}/arm:1");
    run(&line, directory.path()).await.unwrap();
    let index = tag(&registry, "app", "all").await;
    let parts: Value = serde_json::from_slice(&index.bytes).unwrap();
    let part = |number: usize| {
        let part = &parts["manifests"][number];
        (part["digest"].clone(), part["platform"]["architecture"].clone())
    };
    assert_eq!((part(0), part(1)), ((json!(amd64), json!("amd64")), (json!(arm64), json!("arm64"))));
    let app = registry.repository("app");
    assert!(app.read_manifest(&Version::Digest(arm64)).await.unwrap().is_some());
    // An index of an index and an image is as flat.
    image(&registry.repository("app"), "s390x", "s390x").await;
    run(&format!("create -d {host}/new:1 {host}/app:all {host}/app:s390x"), directory.path()).await.unwrap();
    let parts: Value = serde_json::from_slice(&tag(&registry, "new", "1").await.bytes).unwrap();
    assert_eq!(parts["manifests"].as_array().unwrap().len(), 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_index_has_one_image_for_a_platform() {
    let (registry, served, directory) = served().await;
    image(&registry.repository("app"), "amd64", "1").await;
    let host = served.host();
    let error = run(&format!("create -d {host}/app:2 {host}/app:1 {host}/app:1"), directory.path()).await.unwrap_err();
    assert_eq!(error.to_string(), "IMAGE: there are two images for linux/amd64");
    assert!(registry.repository("app").read_manifest(&Version::Tag("2".into())).await.unwrap().is_none());
    let unknown = json!({"platform": {"os": "unknown", "architecture": "unknown"}});
    refuse_twins(&[unknown.clone(), unknown]).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_there_is_named() {
    let (_, served, directory) = served().await;
    let host = served.host();
    let error = run(&format!("create -d {host}/app:2 {host}/none:1"), directory.path()).await.unwrap_err();
    assert!(error.to_string().contains("/none") && error.exit_code() == 66, "{error}");
    let error = run(&format!("push /no/such -d {host}/app:2"), directory.path()).await.unwrap_err();
    assert!(error.to_string().contains("'/no/such'"), "{error}");
    for line in ["push", "push x", "create -d r/x", "create r/x"] {
        assert!(Line::try_parse_from(["x"].into_iter().chain(line.split(' '))).is_err(), "{line}");
    }
    let error = run("push x -d r.example/i:{key}", directory.path()).await.unwrap_err();
    assert_eq!(error.exit_code(), 2);
}
