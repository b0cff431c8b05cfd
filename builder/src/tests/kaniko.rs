//! What Kaniko or its forks had to mend, or have not: whole builds that show how it is here.

use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::Path;
use std::process::Command;

use yadokari_layers::Kind;

use super::*;
use crate::image::Format;
use crate::progress::said::Said;

/// Puts an image without layers under the tag `odd:1`, with this config and an annotation.
async fn odd(bench: &Bench, config: Value) {
    let store = bench.registry.repository("odd");
    let config = json!({"architecture": "amd64", "os": "linux", "config": config,
        "rootfs": {"type": "layers", "diff_ids": []}});
    let config = BytesBlob::new(config.to_string());
    store.write_blob(&config, None).await.unwrap();
    let manifest = json!({"schemaVersion": 2, "mediaType": media::OCI_MANIFEST, "layers": [],
        "annotations": {"org.example.of-the-base": "yes"},
        "config": {"mediaType": media::OCI_CONFIG, "digest": Digest::of(config.bytes()), "size": config.bytes().len()}});
    let manifest = Manifest::new(media::OCI_MANIFEST, manifest.to_string());
    store.write_manifest(&Version::Tag("1".into()), &manifest).await.unwrap();
}

/// A request whose image goes to another repository than `app`.
fn request_to(bench: &Bench, repository: &str, text: &str) -> Request {
    Request { destinations: vec![bench.destination(&format!("{repository}:1"))], ..bench.request(text, &[]) }
}

async fn manifest_of(bench: &Bench, repository: &str) -> Manifest {
    let store = bench.registry.repository(repository);
    store.read_manifest(&Version::Tag("1".into())).await.unwrap().unwrap()
}

/// The log of a build with a cache.
async fn cached(bench: &Bench, mut request: Request) -> String {
    request.cache = Some(bench.settings());
    let log = Said::default();
    let progress = Progress::to(Level::Debug, Box::new(log.clone()));
    build(request, Arc::new(progress), Interrupt::default()).await.unwrap();
    log.text()
}

#[tokio::test(flavor = "multi_thread")]
async fn annotations_of_a_base_are_not_those_of_the_image() {
    let bench = Bench::new().await;
    odd(&bench, json!({})).await;
    bench.build(bench.request("FROM HOST/odd:1\nLABEL a=b\n", &[])).await.unwrap();
    let manifest = manifest_of(&bench, "app").await;
    assert!(!String::from_utf8_lossy(&manifest.bytes).contains("of-the-base"), "{manifest:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_image_is_ocis_whether_it_stands_on_nothing_or_on_dockers_format() {
    let bench = Bench::new().await.file("f", "content");
    let mut docker = request_to(&bench, "docker", "FROM scratch\nCOPY f /f\n");
    docker.form.format = Format::Docker;
    bench.build(docker).await.unwrap();
    assert_eq!(manifest_of(&bench, "docker").await.media_type, media::DOCKER_MANIFEST);
    let (_, below) = bench.pushed("docker").await;
    for (text, layers) in [("FROM scratch\nCOPY f /f\n", 1), ("FROM HOST/docker:1\nCOPY f /g\n", 2)] {
        bench.build(bench.request(text, &[])).await.unwrap();
        let manifest = manifest_of(&bench, "app").await;
        assert_eq!(manifest.media_type, media::OCI_MANIFEST, "{text}");
        let written = String::from_utf8_lossy(&manifest.bytes).into_owned();
        assert!(!written.contains("vnd.docker"), "one family of types: {written}");
        let (_, made) = bench.pushed("app").await;
        assert_eq!((made.len(), &made[..1]), (layers, &below[..]), "the layers keep their bytes");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_layer_of_the_cache_serves_images_of_either_format() {
    let bench = Bench::new().await.file("f", "content");
    let text = "FROM scratch\nCOPY f /f\n";
    cached(&bench, bench.request(text, &[])).await;
    let (_, before) = bench.pushed("app").await;
    let mut docker = bench.request(text, &[]);
    docker.form.format = Format::Docker;
    let log = cached(&bench, docker).await;
    assert_eq!(log.matches("] cached").count(), 1, "{log}");
    assert_eq!(bench.pushed("app").await.1, before);
    assert_eq!(manifest_of(&bench, "app").await.media_type, media::DOCKER_MANIFEST);
}

#[tokio::test(flavor = "multi_thread")]
async fn workdir_and_add_are_found_in_the_cache() {
    let bench = Bench::new().await.file("f", "content");
    let text = "FROM scratch\nWORKDIR /w\nADD f x/\n";
    cached(&bench, bench.request(text, &[])).await;
    let again = cached(&bench, bench.request(&format!("{text}LABEL a=b\n"), &[])).await;
    assert_eq!(again.matches("] cached").count(), 2, "{again}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_layer_that_an_image_has_twice_is_in_every_repository() {
    let bench = Bench::new().await.file("f", "content");
    let text = "FROM scratch\nCOPY --link f /a\nCOPY --link f /a\n";
    bench.build(bench.request(text, &[])).await.unwrap();
    let (config, layers) = bench.pushed("app").await;
    assert_eq!(config["rootfs"]["diff_ids"].as_array().unwrap().len(), 2);
    assert!(layers.len() == 2 && layers[0] == layers[1], "{layers:?}");
    // The registry takes no manifest that names a blob which it has not.
    for repository in ["one", "two"] {
        bench.build(request_to(&bench, repository, "FROM HOST/app:1\nCOPY --link f /a\n")).await.unwrap();
        let (_, again) = bench.pushed(repository).await;
        assert_eq!(again, vec![layers[0].clone(); 3], "{repository}");
        let digest = layers[0].parse().unwrap();
        assert!(bench.registry.repository(repository).has_blob(&digest).await.unwrap(), "{repository}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unsound_config_of_a_base_is_used_as_far_as_it_goes_or_an_error() {
    let bench = Bench::new().await.file("f", "content");
    odd(
        &bench,
        json!({"Env": ["A", "=b", "", "PATH=/x"], "WorkingDir": "relative/../w", "User": "nobody:none",
        "Entrypoint": null, "ExposedPorts": null, "Shell": []}),
    )
    .await;
    bench.build(bench.request("FROM HOST/odd:1\nENV B=[$A]\nCOPY f .\n", &[])).await.unwrap();
    let (config, layers) = bench.pushed("app").await;
    let env = config["config"]["Env"].as_array().unwrap();
    assert!(env.contains(&json!("B=[]")) && env.contains(&json!("PATH=/x")), "{env:?}");
    assert_eq!(layers.len(), 1);
    let error = bench.build(bench.request("FROM HOST/odd:1\nWORKDIR /d\n", &[])).await.unwrap_err();
    assert!(error.to_string().contains("user 'nobody' is not in the image's /etc/passwd"), "{error}");
}

/// Set in the processes that a test starts of itself, because a process has one umask and one set of mounts.
const INNER: &str = "YADOKARI_INNER_TEST";

/// What a test of this module says of `key` when `shell` has done what is said `before` and started it.
fn said_inside(shell: &[&str], before: &str, test: &str, key: &str) -> String {
    let mut command = Command::new(shell[0]);
    command.args(&shell[1..]).args(["-c", &format!("{before} && exec \"$@\""), "sh"]);
    command.arg(std::env::current_exe().unwrap()).args([&format!("tests::kaniko::{test}"), "--exact", "--nocapture"]);
    let output = command.env(INNER, "set").output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let said = text.split(key).nth(1).and_then(|rest| rest.split_whitespace().next());
    said.unwrap_or_else(|| panic!("{before}: {text}{}", String::from_utf8_lossy(&output.stderr))).to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_umask_of_whoever_starts_a_build_counts_for_nothing() {
    if std::env::var_os(INNER).is_some() {
        let bench = Bench::new().await.file("f", "content");
        fs::set_permissions(bench.directory.path().join("f"), fs::Permissions::from_mode(0o644)).unwrap();
        let text = "FROM scratch\nWORKDIR /w/x\nCOPY f new/dir/\nCOPY <<E /h/e\nx\nE\nADD --chown=1:2 f /y/\n";
        println!("built={}", bench.build(bench.request(text, &[])).await.unwrap().digest);
        return;
    }
    let name = "the_umask_of_whoever_starts_a_build_counts_for_nothing";
    let built = ["000", "022", "077"].map(|umask| said_inside(&["sh"], &format!("umask {umask}"), name, "built="));
    assert!(built[0].starts_with("sha256:") && built.iter().all(|digest| *digest == built[0]), "{built:?}");
}

#[test]
fn files_of_two_file_systems_are_never_one() {
    if std::env::var_os(INNER).is_some() {
        let directory = std::env::current_dir().unwrap();
        let mut inodes = Vec::new();
        for name in ["a", "b"] {
            fs::write(directory.join(name).join("f"), name).unwrap();
            fs::hard_link(directory.join(name).join("f"), directory.join(name).join("g")).unwrap();
            inodes.push(fs::metadata(directory.join(name).join("f")).unwrap().ino());
        }
        assert_eq!(inodes[0], inodes[1], "a new tmpfs counts from the beginning");
        let context = context::Context::open(&directory, Path::new("none")).unwrap();
        let entries = context.tree().unwrap().iter();
        let links = entries.filter(|(_, found)| matches!(found.entry.kind, Kind::Hardlink { .. }));
        let links: Vec<String> = links.map(|(path, _)| path.to_string()).collect();
        println!("links={}", links.join(","));
        return;
    }
    if !rustix::process::geteuid().is_root() {
        eprintln!("skipped: only root can mount");
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let place = directory.path().display();
    let mounts = format!("cd {place} && mkdir a b && mount -t tmpfs none a && mount -t tmpfs none b");
    let links =
        said_inside(&["unshare", "--mount", "sh"], &mounts, "files_of_two_file_systems_are_never_one", "links=");
    assert_eq!(links, "a/g,b/g");
}
