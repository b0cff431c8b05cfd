//! How images are written down and pushed, beside what is in them.

use yadokari_registry::memory::{Effect, Fault};

use super::*;
use crate::image::Format;
use crate::output::Pushing;

async fn root(bench: &Bench) -> Manifest {
    let app = bench.registry.repository("app");
    app.read_manifest(&Version::Tag("1".into())).await.unwrap().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_image_in_dockers_format_has_no_type_of_ocis() {
    let bench = Bench::new().await.file("f", "content");
    for platforms in [&[][..], &["linux/arm64", "linux/amd64"]] {
        let mut request = bench.request("FROM HOST/base:1\nCOPY f /\n", platforms);
        request.form.format = Format::Docker;
        let built = bench.build(request).await.unwrap();
        let mut manifest = root(&bench).await;
        assert_eq!(built.digest, manifest.digest);
        let described = built.described.unwrap();
        assert_eq!((&described.media_type, described.size), (&manifest.media_type, manifest.bytes.len() as u64));
        assert_eq!(described.config.is_some(), platforms.is_empty());
        if !platforms.is_empty() {
            assert_eq!(manifest.media_type, media::DOCKER_LIST);
            let first = manifest.index().unwrap().manifests()[0].digest().to_string().parse().unwrap();
            let app = bench.registry.repository("app");
            manifest = app.read_manifest(&Version::Digest(first)).await.unwrap().unwrap();
        }
        assert_eq!(manifest.media_type, media::DOCKER_MANIFEST);
        let text = String::from_utf8(manifest.bytes.to_vec()).unwrap();
        assert!(!text.contains("vnd.oci") && text.contains(media::DOCKER_LAYER_GZIP), "{text}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn annotations_are_on_the_manifest_and_make_another_image() {
    let bench = Bench::new().await;
    let text = "FROM HOST/base:1\nLABEL a=b\n";
    let plain = bench.build(bench.request(text, &[])).await.unwrap();
    let mut request = bench.request(text, &[]);
    request.form.annotations.insert("org.example.a".into(), "b=c".into());
    let built = bench.build(request).await.unwrap();
    assert_ne!((plain.digest, plain.key), (built.digest, built.key));
    let image = root(&bench).await.image().unwrap();
    assert_eq!(image.annotations().as_ref().unwrap()["org.example.a"], "b=c");
}

/// A registry that says of every tag that it must not change.
fn refuse_tags(bench: &Bench) {
    let body = json!({"errors": [{"code": "TAG_INVALID", "message": "the tag cannot be overwritten because the repository is immutable."}]});
    let effect = Effect::Answer { status: 400, headers: Vec::new(), body: body.to_string() };
    bench.served.inject(Fault { method: "PUT", path: "/app/manifests/1", times: 1, effect });
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tag_that_never_changes_stays_where_that_is_no_error() {
    let bench = Bench::new().await;
    let first = bench.build(bench.request("FROM HOST/base:1\nLABEL a=1\n", &[])).await.unwrap();
    refuse_tags(&bench);
    let error = bench.build(bench.request("FROM HOST/base:1\nLABEL a=2\n", &[])).await.unwrap_err();
    assert!(error.to_string().contains("immutable"), "{error}");
    refuse_tags(&bench);
    let mut request = bench.request("FROM HOST/base:1\nLABEL a=2\n", &[]);
    request.pushing = Pushing { keeps_immutable_tags: true, ..Pushing::default() };
    bench.build(request).await.unwrap();
    assert_eq!(root(&bench).await.digest, first.digest);
    // Where the tag is what it should be, nobody has to allow anything.
    refuse_tags(&bench);
    bench.build(bench.request("FROM HOST/base:1\nLABEL a=1\n", &[])).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn the_permission_to_push_is_asked_for_unless_it_is_not_wanted() {
    for unchecked in [false, true] {
        let bench = Bench::new().await;
        let mut request = bench.request("FROM scratch\nLABEL a=b\n", &[]);
        request.pushing.unchecked = unchecked;
        bench.build(request).await.unwrap();
        // The one blob of this image is its config.
        let uploads = bench.served.seen().iter().filter(|seen| seen.method == "POST").count();
        assert_eq!(uploads, if unchecked { 1 } else { 2 });
    }
}
