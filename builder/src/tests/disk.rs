//! Layers leave the disk while a build goes on, and come back where somebody still needs them.

use std::collections::BTreeSet;

use yadokari_layers::{Compression, blob_path};

use super::*;
use crate::cache::{Cache, LayerOrigin};
use crate::plan::LayerRef;
use crate::sources::Sources;
use crate::space::tests::SmallDisk;

impl Bench {
    /// The paths of the blobs that are read in a build, of which `base:1` and what it consists of are none.
    async fn reads(&self, request: Request) -> (Built, Vec<String>) {
        let before = self.served.seen().len();
        let built = self.build(request).await.unwrap();
        let seen = self.served.seen().split_off(before);
        let read = seen.into_iter().filter(|seen| seen.method == "GET" && seen.path.contains("/blobs/sha256:"));
        (built, read.map(|seen| seen.path).filter(|path| !path.contains("/base/")).collect())
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_that_a_build_made_is_downloaded_again() {
    let bench = Bench::new().await.file("f", "1").file("g", "2");
    let text = "FROM HOST/base:1 AS a\nCOPY f /f\nFROM HOST/base:1 AS b\nCOPY g /g\nFROM a\nCOPY --from=b /g /g\n\
                COPY --from=a /f /again\n";
    let (plain, read) = bench.reads(bench.request(text, &[])).await;
    assert_eq!(read, Vec::<String>::new());
    let mut request = bench.request(text, &[]);
    request.cache = Some(bench.settings());
    request.destinations = vec![Destination::Registry(format!("{}/other:1", bench.served.host()).parse().unwrap())];
    let (cached, read) = bench.reads(request).await;
    assert_eq!((cached, read), (plain, Vec::new()), "the layers of b are in the cache alone");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_next_platform_reads_waits_for_it() {
    let bench = Bench::new().await.file("f", "1");
    let text = "FROM --platform=$BUILDPLATFORM HOST/base:1 AS tools\nCOPY f /f\nFROM HOST/base:1\nARG TARGETARCH\n\
                ENV A=$TARGETARCH\nWORKDIR /$TARGETARCH\nCOPY --from=tools /f .\n";
    let mut request = bench.request(text, &["linux/amd64", "linux/arm64"]);
    request.cache = Some(bench.settings());
    let (_, read) = bench.reads(request).await;
    assert_eq!(read, Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_archive_of_the_image_gets_all_layers_though_a_registry_has_them() {
    let bench = Bench::new().await.file("f", "1").file("g", "2");
    let mut request = bench.request("FROM HOST/base:1\nCOPY f /f\nCOPY g /g\n", &[]);
    let path = bench.directory.path().join("image.tar");
    request.destinations.push(Destination::Tarball { path: path.clone(), names: Vec::new() });
    let (built, read) = bench.reads(request).await;
    assert_eq!((built.layers, read), (2, Vec::new()));
    let mut archive = tar::Archive::new(fs::File::open(path).unwrap());
    let names = archive.entries().unwrap().map(|entry| entry.unwrap().path().unwrap().display().to_string());
    assert_eq!(names.filter(|name| name.ends_with(".tar.gz")).collect::<BTreeSet<_>>().len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_base_layer_that_is_read_and_sent_elsewhere_is_downloaded_once() {
    let (from, to) = (Bench::new().await.file("f", "1"), Bench::new().await.file("g", "2"));
    from.build(from.request("FROM HOST/base:1\nCOPY f /f\n", &[])).await.unwrap();
    let layer = from.registry.repository("app").blobs().len();
    assert_eq!(layer, 2, "a layer and a config");
    let text = format!("FROM {}/app:1\nCOPY g /g\n", from.served.host());
    let before = from.served.seen().len();
    let built = to.build(to.request(&text, &[])).await.unwrap();
    let seen = from.served.seen().split_off(before);
    let read = seen.iter().filter(|seen| seen.method == "GET" && seen.path.contains("/blobs/"));
    assert_eq!((built.layers, read.count()), (2, 2), "the config and the layer: {seen:#?}");
}

#[tokio::test]
async fn a_layer_comes_back_from_where_it_was_sent_and_else_it_is_made_again() {
    let bench = Bench::new().await;
    let app = bench.registry.repository("app");
    let progress = Arc::new(Progress::to(Level::Error, Box::new(std::io::sink())));
    let client = Client::new(ClientOptions::default()).unwrap();
    let cache = Cache::open(bench.settings(), &client, progress);
    let sources = Sources::new(client).with_cache(Some(Arc::new(cache)));
    let blob = BytesBlob::new("layer");
    let digest = Digest::of(blob.bytes());
    let layer = LayerRef { digest, size: 5, compression: Compression::None, diff_id: digest };
    let directory = tempfile::tempdir().unwrap();
    let is_stale = async || {
        let error = sources.download(&layer, directory.path(), None).await.unwrap_err();
        matches!(error, Error::Stale { layer } if layer == digest)
    };
    assert!(is_stale().await, "it is nowhere");
    app.write_blob(&blob, None).await.unwrap();
    let origin = LayerOrigin { store: Arc::new(app.clone()), repository: Some(("r".into(), "app".into())) };
    sources.sent().add(digest, origin.clone());
    assert_eq!(sources.repository_of(&digest), origin.repository);
    sources.download(&layer, directory.path(), None).await.unwrap();
    assert_eq!(fs::read(blob_path(directory.path(), &digest)).unwrap(), b"layer");

    fs::remove_file(blob_path(directory.path(), &digest)).unwrap();
    app.corrupt_blob(&digest, "wrong");
    assert!(is_stale().await);
    assert_eq!(sources.repository_of(&digest), None, "it is not asked there a second time");
    assert!(fs::read_dir(directory.path()).unwrap().next().is_none());
}

/// Bytes that nothing makes smaller.
fn noise(length: usize) -> String {
    let mut state = 1_u64;
    let mut next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        char::from(b' ' + (state >> 58) as u8)
    };
    std::iter::repeat_with(&mut next).take(length).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_disk_that_fills_up_is_said_with_what_is_needed() {
    let bench = Bench::new().await.file("large", &noise(6 << 20)).file("small", &noise(3 << 19));
    bench.build(bench.request("FROM HOST/base:1\nCOPY large /\n", &[])).await.unwrap();
    let work = bench.directory.path().join(".work");
    let Some(_disk) = SmallDisk::on(&work, 2 << 20) else { return };
    let cases = [
        // What a step packs, what one copies from a layer, and what one has to know of its base.
        ("FROM HOST/base:1\nCOPY large /\n", " layer: ", ""),
        ("FROM scratch AS a\nCOPY small /\nFROM scratch\nCOPY --from=a small /\n", "write '", ""),
        ("FROM HOST/app:1\nCOPY small /\n", "write '", "; the layers that are downloaded have 4."),
    ];
    for (text, cause, needed) in cases {
        let mut request = bench.request(text, &[]);
        request.destinations.clear();
        let error = bench.build(request).await.unwrap_err();
        let message = error.to_string();
        assert!(message.contains(cause) && message.contains("No space left on device"), "{message}");
        let place = format!("'{}/.yadokari-build-", work.display());
        assert!(message.contains(&place) && message.contains("is on a full disk, "), "{message}");
        assert!(message.contains(" are free there") && message.contains(needed), "{message}");
        assert_eq!(error.exit_code(), ExitCode::Io as u8);
        assert_eq!(fs::read_dir(&work).unwrap().count(), 0, "nothing is left of the build");
    }
}
