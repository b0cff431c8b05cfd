//! The whole line, without a RUN, against a registry in memory.

mod cache;
mod disk;
mod expiry;
mod exports;
mod faults;
mod forms;
mod kaniko;
mod layers;
mod offline;
mod pins;
mod times;

use std::fs;
use std::time::Duration;

use serde_json::{Value, json};
use yadokari_registry::memory::Served;
use yadokari_registry::{
    BytesBlob, Client, ClientOptions, Layout, Manifest, Memory, RetryPolicy, Store, Version, media,
};

use super::*;
use crate::progress::Level;

/// A served registry with an image `base:1` for amd64 and arm64 in it, and a directory to build in.
struct Bench {
    registry: Memory,
    served: Served,
    directory: tempfile::TempDir,
}

impl Bench {
    async fn new() -> Self {
        let registry = Memory::new();
        let base = registry.repository("base");
        let mut manifests = Vec::new();
        for architecture in ["amd64", "arm64"] {
            manifests.push(image(&base, architecture).await);
        }
        let index = json!({"schemaVersion": 2, "mediaType": media::OCI_INDEX, "manifests": manifests});
        let index = Manifest::new(media::OCI_INDEX, index.to_string());
        base.write_manifest(&Version::Tag("1".into()), &index).await.unwrap();
        let served = registry.serve().await.unwrap();
        Self { registry, served, directory: tempfile::tempdir().unwrap() }
    }

    fn file(self, name: &str, content: &str) -> Self {
        fs::write(self.directory.path().join(name), content).unwrap();
        self
    }

    /// A build of this Dockerfile, in which HOST is the registry, to `app:1`.
    fn request(&self, text: &str, platforms: &[&str]) -> Request {
        let platforms: Vec<Platform> = platforms.iter().map(|platform| platform.parse().unwrap()).collect();
        let host: Platform = "linux/amd64".parse().unwrap();
        let path = self.directory.path();
        let work_dir = path.join(".work");
        let reference = format!("{}/app:1", self.served.host()).parse().unwrap();
        let retry = RetryPolicy { delay: Duration::from_millis(5), ..RetryPolicy::default() };
        Request {
            dockerfile: Source::new("Dockerfile", text.replace("HOST", &self.served.host())),
            dockerfile_path: path.join("Dockerfile"),
            context: path.to_owned(),
            named_contexts: Vec::new(),
            options: Options {
                target: None,
                build_args: Vec::new(),
                labels: Vec::new(),
                platform: platforms.first().unwrap_or(&host).clone(),
                platform_is_given: !platforms.is_empty(),
                host,
                epoch: Some(0),
                reproducible: false,
                context_mode: plan::ContextMode::default(),
                ignored: Vec::new(),
            },
            index: (platforms.len() > 1).then_some(platforms),
            destinations: vec![Destination::Registry(reference)],
            pack: pack::Options { clamp: Some(0), ..pack::Options::default() },
            jobs: NonZeroUsize::new(4).unwrap(),
            squash: false,
            limits: Limits::default(),
            sandbox: sandbox::Settings {
                driver: None,
                work_dir,
                home: path.join("home"),
                contexts: vec![path.to_owned()],
                kept: Vec::new(),
                force: false,
                isolated: false,
                hide: Vec::new(),
                gate: sandbox::Gate::default(),
            },
            secrets: Secrets::default(),
            agents: Agents::default(),
            network_files: execute::NetworkFiles::default(),
            trust: None,
            cache: None,
            skip_existing: false,
            save_failed: false,
            pushing: Default::default(),
            form: Default::default(),
            describe: false,
            warm: None,
            lock: None,
            client: Client::new(ClientOptions { retry, ..ClientOptions::default() }).unwrap(),
        }
    }

    /// The config of the image `:1` in a repository, and the digests of its layers.
    async fn pushed(&self, repository: &str) -> (Value, Vec<String>) {
        let store = self.registry.repository(repository);
        let image = store.read_manifest(&Version::Tag("1".into())).await.unwrap().unwrap().image().unwrap();
        let config = image.config().digest().to_string().parse().unwrap();
        let config = yadokari_registry::read_small(&store, &config, None, 1 << 20).await.unwrap();
        let layers = image.layers().iter().map(|layer| layer.digest().to_string()).collect();
        (serde_json::from_slice(&config).unwrap(), layers)
    }

    async fn build(&self, request: Request) -> Result<Built, Error> {
        let progress = Progress::to(Level::Error, Box::new(std::io::sink()));
        build(request, Arc::new(progress), Interrupt::default()).await
    }
}

/// Puts an image without layers into a store, and gives its line of an index.
async fn image(store: &Memory, architecture: &str) -> Value {
    let config = json!({"architecture": architecture, "os": "linux", "config": {"Labels": {"of": architecture}},
        "rootfs": {"type": "layers", "diff_ids": []}});
    let config = BytesBlob::new(config.to_string());
    store.write_blob(&config, None).await.unwrap();
    let manifest = json!({"schemaVersion": 2, "mediaType": media::OCI_MANIFEST, "layers": [],
        "config": {"mediaType": media::OCI_CONFIG, "digest": Digest::of(config.bytes()), "size": config.bytes().len()}});
    let manifest = Manifest::new(media::OCI_MANIFEST, manifest.to_string());
    store.write_manifest(&Version::Digest(manifest.digest), &manifest).await.unwrap();
    json!({"mediaType": manifest.media_type, "digest": manifest.digest, "size": manifest.bytes.len(),
        "platform": {"os": "linux", "architecture": architecture}})
}

/// The manifests of an index in order: their platform, the label that their base had, and the number of layers.
async fn listed(store: &dyn Store, version: &Version) -> Vec<(Value, String, usize)> {
    let index = store.read_manifest(version).await.unwrap().unwrap();
    assert_eq!(index.media_type, media::OCI_INDEX);
    let index: Value = serde_json::from_slice(&index.bytes).unwrap();
    let mut listed = Vec::new();
    for manifest in index["manifests"].as_array().unwrap() {
        let digest = manifest["digest"].as_str().unwrap().parse().unwrap();
        let image = store.read_manifest(&Version::Digest(digest)).await.unwrap().unwrap().image().unwrap();
        let config = image.config().digest().to_string().parse().unwrap();
        let config = yadokari_registry::read_small(store, &config, None, 1 << 20).await.unwrap();
        let config: Value = serde_json::from_slice(&config).unwrap();
        assert_eq!(config["architecture"], manifest["platform"]["architecture"]);
        let label = config["config"]["Labels"]["of"].as_str().unwrap_or_default().to_owned();
        listed.push((manifest["platform"].clone(), label, image.layers().len()));
    }
    listed
}

#[tokio::test(flavor = "multi_thread")]
async fn several_platforms_make_one_index_and_share_layers() {
    let bench = Bench::new().await.file("f", "content");
    let text = "FROM --platform=$BUILDPLATFORM HOST/base:1 AS build\nCOPY f /f\n\
                FROM HOST/base:1\nARG TARGETARCH\nCOPY --from=build /f /shared\nLABEL for=$TARGETARCH\n";
    let mut request = bench.request(text, &["linux/arm64", "linux/amd64", "linux/arm64/v8"]);
    request.index = Some(vec!["linux/arm64".parse().unwrap(), "linux/amd64".parse().unwrap()]);
    let layout = bench.directory.path().join("layout");
    request.destinations.push(Destination::Layout { directory: layout.clone(), tag: "t".into() });
    let built = bench.build(request).await.unwrap();

    let (app, tag) = (bench.registry.repository("app"), Version::Tag("1".into()));
    let platform = |architecture: &str| json!({"os": "linux", "architecture": architecture});
    let expected = [(platform("arm64"), "arm64".to_owned(), 1), (platform("amd64"), "amd64".to_owned(), 1)];
    assert_eq!(listed(&app, &tag).await, expected);
    assert_eq!(app.manifest_digest(&tag).await.unwrap(), Some(built.digest));
    let layout = Layout::open(layout).unwrap();
    assert_eq!(listed(&layout, &Version::Tag("t".into())).await, expected);
    assert_eq!(layout.tags().await.unwrap(), ["t"]);

    let seen = bench.served.seen();
    let put: Vec<&str> = seen
        .iter()
        .filter(|seen| seen.method == "PUT" && seen.path.contains("/app/manifests/"))
        .map(|seen| seen.path.rsplit('/').next().unwrap())
        .collect();
    assert_eq!(put.len(), 3, "{put:?}");
    assert!(put[..2].iter().all(|version| version.starts_with("sha256:")) && put[2] == "1", "{put:?}");
    // One layer, which both images name, and two configs.
    assert_eq!(app.blobs().len(), 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_image_for_another_machine_is_built_from_its_base() {
    let bench = Bench::new().await.file("f", "content");
    let built = bench.build(bench.request("FROM HOST/base:1\nCOPY f /\n", &["linux/arm64"])).await.unwrap();
    let app = bench.registry.repository("app");
    let manifest = app.read_manifest(&Version::Tag("1".into())).await.unwrap().unwrap();
    assert_eq!((manifest.digest, &manifest.media_type[..]), (built.digest, media::OCI_MANIFEST));
    let config = manifest.image().unwrap().config().digest().to_string().parse().unwrap();
    let config = yadokari_registry::read_small(&app, &config, None, 1 << 20).await.unwrap();
    let config: Value = serde_json::from_slice(&config).unwrap();
    assert_eq!((&config["architecture"], &config["config"]["Labels"]["of"]), (&json!("arm64"), &json!("arm64")));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_platform_that_the_base_lacks_is_an_error_that_names_those_it_has() {
    let bench = Bench::new().await;
    for text in ["FROM HOST/base:1\n", "FROM scratch\nCOPY --from=HOST/base:1 /x /\n"] {
        let error = bench.build(bench.request(text, &["linux/s390x"])).await.unwrap_err();
        let message = error.to_string();
        assert!(message.contains("linux/s390x (the image is for linux/amd64, linux/arm64)"), "{message}");
        assert_eq!(error.exit_code(), ExitCode::Data as u8);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_that_cannot_be_executed_is_refused_before_anything_is_asked_for() {
    let bench = Bench::new().await;
    // No kernel here has a handler for it, whatever else it emulates.
    let request = bench.request("FROM HOST/base:1\nRUN x\n", &["linux/sparc64"]);
    let error = bench.build(request).await.unwrap_err();
    assert!(error.to_string().contains("a RUN for linux/sparc64 cannot be executed"), "{error}");
    assert!(bench.served.seen().is_empty(), "{:?}", bench.served.seen());
}

#[tokio::test(flavor = "multi_thread")]
async fn named_contexts_are_used_like_stages() {
    let bench = Bench::new().await;
    let other = tempfile::tempdir().unwrap();
    fs::create_dir(other.path().join("d")).unwrap();
    fs::write(other.path().join("d/f"), "other").unwrap();
    let text = "FROM files AS a\nCOPY --from=files d/f /copied\nFROM scratch\nCOPY --from=a / /all/\n";
    let mut request = bench.request(text, &[]);
    request.named_contexts.push(("files".into(), context::Source::Directory(other.path().to_owned())));
    let layout = bench.directory.path().join("layout");
    request.options.target = Some("a".into());
    request.destinations = vec![Destination::Layout { directory: layout.clone(), tag: "t".into() }];
    assert_eq!(bench.build(request).await.unwrap().layers, 2);
    let mut request = bench.request("FROM stage AS x\nFROM x\n", &[]);
    let source = format!("oci-layout://{}:t", layout.display());
    request.named_contexts.push(("stage".into(), context::Source::parse(&source).unwrap()));
    let first = bench.build(request).await.unwrap();
    assert_eq!(first.layers, 2);
    let mut request = bench.request("FROM busybox\n", &[]);
    let source = format!("docker-image://{}/app:1", bench.served.host());
    request.named_contexts.push(("busybox:latest".into(), context::Source::parse(&source).unwrap()));
    assert_eq!(bench.build(request).await.unwrap().layers, 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_image_that_was_mistyped_is_answered_with_what_was_meant() {
    let bench = Bench::new().await;
    for text in
        ["FROM scratch AS builder\nFROM biulder\n", "FROM scratch AS builder\nFROM scratch\nCOPY --from=biulder / /\n"]
    {
        let mut request = bench.request(text, &[]);
        let maps = vec![("docker.io".to_owned(), bench.served.host())];
        request.client = Client::new(ClientOptions { maps, no_fallback: true, ..ClientOptions::default() }).unwrap();
        let error = bench.build(request).await.unwrap_err();
        assert!(error.to_string().ends_with(" (did you mean builder?)"), "{error}");
        assert_eq!(error.exit_code(), ExitCode::NoInput as u8);
    }
}
