//! A directory is filled from a registry in memory, and read by a build.

use clap::Parser;
use serde_json::json;
use yadokari_layers::Digest;
use yadokari_registry::memory::Served;
use yadokari_registry::{BlobSource as _, BytesBlob, ClientOptions, Manifest, Memory, RetryPolicy, Store as _, media};

use super::*;
use crate::progress::Level;

#[derive(Parser)]
struct Line {
    #[command(flatten)]
    warm: Warm,
}

struct Bench {
    registry: Memory,
    served: Served,
    directory: tempfile::TempDir,
}

impl Bench {
    /// A registry with images of one layer, which holds their name.
    async fn new(names: &[&str]) -> Self {
        let registry = Memory::new();
        for name in names {
            image(&registry.repository(name), name).await;
        }
        let served = registry.serve().await.unwrap();
        Self { registry, served, directory: tempfile::tempdir().unwrap() }
    }

    fn cache(&self) -> PathBuf {
        self.directory.path().join("cache")
    }

    /// Runs a command line in which HOST is the registry and DIR a directory.
    async fn run(&self, words: &str) -> Result<u8, Error> {
        self.run_with(words, ClientOptions::default()).await
    }

    async fn run_with(&self, words: &str, options: ClientOptions) -> Result<u8, Error> {
        let words =
            words.replace("HOST", &self.served.host()).replace("DIR", &self.directory.path().display().to_string());
        let words = ["x".to_owned(), format!("-c={}", self.cache().display())]
            .into_iter()
            .chain(words.split(' ').map(str::to_owned));
        let line = Line::try_parse_from(words).unwrap_or_else(|error| panic!("{error}"));
        let progress = Arc::new(Progress::to(Level::Error, Box::new(std::io::sink())));
        let retry = RetryPolicy { tries: 1, ..RetryPolicy::default() };
        let client = Client::new(ClientOptions { retry, ..options }).unwrap();
        let host = self.served.host();
        let env = |name: &str| (name == "REGISTRY").then(|| host.clone());
        line.warm.with(client, progress, &env)?.execute().await
    }

    fn has(&self, name: &str) -> bool {
        let layout = Layout::open(self.cache()).unwrap();
        std::fs::read(layout.blob_path(&Digest::of(name))).is_ok_and(|bytes| bytes == name.as_bytes())
    }
}

async fn image(store: &Memory, text: &str) {
    let config =
        json!({"architecture": "amd64", "os": "linux", "rootfs": {"type": "layers", "diff_ids": [Digest::of(text)]}});
    let [config, layer] = [config.to_string(), text.to_owned()].map(BytesBlob::new);
    for blob in [&config, &layer] {
        store.write_blob(blob, None).await.unwrap();
    }
    let blob = |media_type: &str, blob: &BytesBlob| json!({"mediaType": media_type, "digest": blob.digest(), "size": blob.size()});
    let text = json!({"schemaVersion": 2, "mediaType": media::OCI_MANIFEST, "config": blob(media::OCI_CONFIG, &config),
        "layers": [blob(media::OCI_LAYER, &layer)]});
    let manifest = Manifest::new(media::OCI_MANIFEST, text.to_string());
    store.write_manifest(&Version::Tag("1".into()), &manifest).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn images_are_put_there_once_and_again_where_that_is_asked_for() {
    let bench = Bench::new(&["a", "b"]).await;
    assert_eq!(bench.run("--image HOST/a:1 -i HOST/b:1 --cache-ttl=6h").await.unwrap(), 0);
    assert!(bench.has("a") && bench.has("b"));
    let layout = Layout::open(bench.cache()).unwrap();
    let tags = yadokari_registry::Store::tags(&layout).await.unwrap();
    let name = |name: &str| format!("{}/{name}:1+{}", bench.served.host(), Platform::host());
    assert_eq!(tags, [name("a"), name("b")]);
    let reads = || bench.served.seen().iter().filter(|seen| seen.path.contains(&Digest::of("a").hex())).count();
    assert_eq!(reads(), 1);
    bench.run("--image HOST/a:1").await.unwrap();
    assert_eq!(reads(), 1);
    std::fs::write(layout.blob_path(&Digest::of("a")), "spoiled").unwrap();
    bench.run("--image HOST/a:1 --force").await.unwrap();
    assert!(bench.has("a"));
    // Nothing is left of the way there.
    let left = std::fs::read_dir(bench.cache()).unwrap().flatten().filter(|entry| entry.path().is_dir()).count();
    assert_eq!(left, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_dockerfile_names_in_any_stage_is_put_there() {
    let bench = Bench::new(&["a", "b", "c", "d"]).await;
    let text = "ARG REGISTRY\nARG LAST=b\nFROM $REGISTRY/a:1 AS unused\nFROM $REGISTRY/$LAST:1\nCOPY none /\nCOPY --from=HOST/d:1 x /\n";
    std::fs::write(bench.directory.path().join("Dockerfile"), text.replace("HOST", &bench.served.host())).unwrap();
    bench.run("--dockerfile DIR/Dockerfile --build-arg REGISTRY --build-arg LAST=c").await.unwrap();
    assert_eq!(["a", "b", "c", "d"].map(|name| bench.has(name)), [true, false, true, true]);
}

#[tokio::test(flavor = "multi_thread")]
async fn images_elsewhere_are_not_asked_for_and_not_passed_over() {
    let bench = Bench::new(&["a"]).await;
    let mut only = yadokari_registry::Hosts::default();
    only.add("own.example").unwrap();
    let offline = || ClientOptions { only: Some(only.clone()), ..ClientOptions::default() };
    let text = format!("FROM {}/a:1\n", bench.served.host());
    std::fs::write(bench.directory.path().join("Dockerfile"), text).unwrap();
    for words in ["--image HOST/a:1", "--dockerfile DIR/Dockerfile"] {
        let error = bench.run_with(words, offline()).await.unwrap_err();
        assert!(error.to_string().contains("127.0.0.1"), "{words}: {error}");
    }
    assert!(bench.served.seen().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn it_fails_where_no_image_can_be_had_and_not_before() {
    let bench = Bench::new(&["a"]).await;
    assert_eq!(bench.run("-i HOST/none:1 -i HOST/a:1").await.unwrap(), 0);
    assert!(bench.has("a"));
    let error = bench.run("-i HOST/none:1 -i HOST/neither:1").await.unwrap_err();
    assert!(error.to_string().contains("image '") && error.exit_code() == 66, "{error}");
    for words in ["--image=", "-d="] {
        let error = bench.run(words).await.unwrap_err();
        assert!(error.to_string().starts_with("--image: give at least one"), "{error}");
    }
    assert!(bench.run("-i UPPER/case").await.unwrap_err().to_string().starts_with("--image: "));
    std::fs::write(bench.directory.path().join("Dockerfile"), "FROM scratch\n").unwrap();
    assert_eq!(bench.run("-d DIR/Dockerfile").await.unwrap(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn layers_come_from_the_directory_unless_they_are_wrong_there() {
    use crate::plan::LayerRef;
    let bench = Bench::new(&["a"]).await;
    bench.run("-i HOST/a:1").await.unwrap();
    let (layout, digest) = (Layout::open(bench.cache()).unwrap(), Digest::of("a"));
    let client = Client::new(ClientOptions::default()).unwrap();
    for (here, reads) in [("a", 0), ("x", 1)] {
        std::fs::write(layout.blob_path(&digest), here).unwrap();
        let sources = Sources::new(client.clone()).with_warm(Some(&bench.cache()));
        let source = dockerfile::Source::new("Dockerfile", format!("FROM {}/a:1\n", bench.served.host()));
        let file = dockerfile::parse(&source).unwrap();
        let contexts = Contexts::open(Context::open(bench.directory.path(), Path::new("none")).unwrap(), &[]).unwrap();
        let platform: Platform = "linux/amd64".parse().unwrap();
        let options = Options {
            target: None,
            build_args: Vec::new(),
            labels: Vec::new(),
            platform: platform.clone(),
            platform_is_given: false,
            host: platform,
            epoch: None,
            reproducible: false,
            context_mode: ContextMode::default(),
            ignored: Vec::new(),
        };
        let progress = Progress::to(Level::Error, Box::new(std::io::sink()));
        sources.check(&file, &options, &contexts, &progress).await;
        let layer: LayerRef = sources.layers(&sources.images()[0])[0];
        let before = bench.served.seen().len();
        let blobs = tempfile::tempdir().unwrap();
        assert!(sources.download(&layer, blobs.path(), None).await.unwrap());
        assert_eq!(std::fs::read(yadokari_layers::blob_path(blobs.path(), &digest)).unwrap(), b"a");
        let seen = bench.served.seen().split_off(before);
        assert_eq!(seen.iter().filter(|seen| seen.path.contains("/blobs/")).count(), reads, "{here}");
    }
    assert!(!bench.registry.repository("a").blobs().is_empty());
}
