//! What somebody can do who may write to the registry, and has not the key.

use yadokari_registry::{BlobSource as _, media};
use zeroize::Zeroizing;

use super::*;

fn signed(request: &mut Request) {
    request.cache.as_mut().unwrap().key = Some(Zeroizing::new(b"key".to_vec()));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_image_that_somebody_put_under_the_content_hash_is_not_taken_where_there_is_a_key() {
    let bench = Bench::cached().await;
    let skip = |request: &mut Request| {
        signed(request);
        request.skip_existing = true;
    };
    let good = bench.run(TEXT, skip).await;
    let app = bench.registry.repository("app");
    let hash = app.tags().await.unwrap().into_iter().find(|tag| tag.len() == 64).unwrap();
    let evil = bench.run("FROM HOST/first:1\nCOPY b /evil\n", |request| request.cache = None).await;
    let manifest = app.read_manifest(&Version::Digest(evil.built.digest)).await.unwrap().unwrap();
    app.write_manifest(&Version::Tag(hash.clone()), &manifest).await.unwrap();
    let again = bench.run(TEXT, skip).await;
    assert_eq!(again.built.digest, good.built.digest);
    for tag in ["1", &hash] {
        let now = app.manifest_digest(&Version::Tag(tag.to_owned())).await.unwrap();
        assert_eq!(now, Some(good.built.digest), "{tag}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_build_with_a_key_uses_nothing_that_was_written_without_it() {
    let bench = Bench::cached().await;
    bench.run(TEXT, |_| {}).await;
    let with_key = bench.run(TEXT, signed).await;
    assert_eq!(with_key.log.matches("] cached").count(), 0, "{}", with_key.log);
    assert!(with_key.ignored().iter().all(|line| line.ends_with("it is not signed")), "{}", with_key.log);
    let again = bench.run(&TEXT.replace("X=1", "X=2"), signed).await;
    assert_eq!((again.log.matches("] cached").count(), again.ignored().len()), (2, 0), "{}", again.log);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_record_says_does_not_write_the_log() {
    let bench = Bench::cached().await;
    bench.run(TEXT, |_| {}).await;
    let cache = bench.cache();
    for tag in cache.tags().await.unwrap() {
        let manifest = cache.read_manifest(&Version::Tag(tag.clone())).await.unwrap().unwrap();
        let mut json: Value = serde_json::from_slice(&manifest.bytes).unwrap();
        let long = "x".repeat(10_000);
        json["annotations"]["dev.yadokari.cache.names"] = format!("a\nerror: \u{1b}[2Jfake {long}").into();
        let manifest = Manifest::new(media::OCI_MANIFEST, json.to_string());
        cache.write_manifest(&Version::Tag(tag), &manifest).await.unwrap();
    }
    let outcome = bench.run(TEXT, |_| {}).await;
    assert!(!outcome.ignored().is_empty());
    assert!(!outcome.log.contains('\u{1b}') && !outcome.log.contains("\nerror: "), "{}", outcome.log);
    assert!(outcome.log.lines().all(|line| line.len() < 1000));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_image_whose_parts_do_not_belong_together_is_ignored() {
    let bench = Bench::cached().await;
    let first = bench.run(TEXT, |_| {}).await;
    let cache = bench.cache();
    let tags = cache.tags().await.unwrap();
    let tag = Version::Tag(tags.into_iter().find(|tag| tag.starts_with("result-")).unwrap());
    let record = cache.read_manifest(&tag).await.unwrap().unwrap();
    let mut json: Value = serde_json::from_slice(&record.bytes).unwrap();
    let image = json["layers"][0]["digest"].as_str().unwrap().parse().unwrap();
    let image = yadokari_registry::read_small(&cache, &image, None, 1 << 20).await.unwrap();
    let image = String::from_utf8(image.to_vec()).unwrap().replace("X=1", "X=9");
    let image = BytesBlob::new(image);
    cache.write_blob(&image, None).await.unwrap();
    json["layers"][0]["digest"] = image.digest().to_string().into();
    json["layers"][0]["size"] = image.bytes().len().into();
    cache.write_manifest(&tag, &Manifest::new(media::OCI_MANIFEST, json.to_string())).await.unwrap();
    let other = bench.run(TEXT, |request| request.destinations = vec![bench.destination("other:1")]).await;
    assert_eq!(other.built, first.built);
    assert_eq!(other.ignored().len(), 1, "{}", other.log);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_image_of_the_same_content_that_is_there_ends_the_build() {
    let bench = Bench::cached().await;
    let skip = |request: &mut Request| (request.cache, request.skip_existing) = (None, true);
    let first = bench.run(TEXT, skip).await;
    let tags = bench.registry.repository("app").tags().await.unwrap();
    assert!(tags.len() == 2 && tags.iter().any(|tag| tag.len() == 64), "{tags:?}");
    let other = |request: &mut Request| {
        skip(request);
        request.destinations = vec![bench.destination("app:2")];
    };
    let again = bench.run(TEXT, other).await;
    assert_eq!(again.built, first.built);
    assert!(!again.log.contains(" 1/2]"), "{}", again.log);
    assert_eq!(again.count("PUT", "/app/manifests/2"), 1);
    let mut nowhere = bench.request(TEXT, &[]);
    (nowhere.skip_existing, nowhere.destinations) = (true, Vec::new());
    let error = bench.build(nowhere).await.unwrap_err().to_string();
    assert!(error.contains("--skip-existing: there is no registry to ask"), "{error}");
}
