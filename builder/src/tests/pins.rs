//! Base images by the digests of a lock.

use std::path::Path;

use super::*;
use crate::lock::Lock;

impl Bench {
    /// The digest of the index `base:1`.
    async fn base(&self) -> Digest {
        let tag = Version::Tag("1".into());
        self.registry.repository("base").manifest_digest(&tag).await.unwrap().unwrap()
    }

    /// A lock in which `base:1`, or another tag, has this digest.
    fn lock_of(&self, tag: &str, digest: &Digest, complete: bool) -> Lock {
        let image = format!("docker-image://{}/base:{tag}", self.served.host());
        let rule = json!({"action": "CONVERT", "selector": {"identifier": image},
            "updates": {"identifier": format!("{image}@{digest}")}});
        let text = json!({"rules": [rule]}).to_string();
        Lock::new(Path::new("base.lock"), Some(&text), complete).unwrap()
    }

    /// Lets `base:1` name another index.
    async fn move_base(&self) {
        let base = self.registry.repository("base");
        let manifest = image(&base, "s390x").await;
        let index = json!({"schemaVersion": 2, "mediaType": media::OCI_INDEX, "manifests": [manifest]});
        let index = Manifest::new(media::OCI_INDEX, index.to_string());
        base.write_manifest(&Version::Tag("1".into()), &index).await.unwrap();
    }

    fn asked_for_the_tag(&self) -> bool {
        self.served.seen().iter().any(|seen| seen.path.contains("/base/manifests/1"))
    }
}

fn empty(complete: bool) -> Lock {
    Lock::new(Path::new("base.lock"), Some("{}"), complete).unwrap()
}

fn shown(error: &Error, request: &Request) -> String {
    error.diagnostic().unwrap_or_else(|| panic!("{error}")).render(&request.dockerfile, false)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pinned_image_is_taken_by_its_digest_and_its_tag_is_never_asked_for() {
    let bench = Bench::new().await;
    let pinned = bench.base().await;
    bench.move_base().await;
    let lines = [
        "FROM HOST/base:1\n",
        "FROM named\n",
        "FROM scratch\nCOPY --from=HOST/base:1 / /\n",
        "FROM scratch\nRUN --mount=from=HOST/base:1,target=/m true\n",
    ];
    for complete in [false, true] {
        for text in lines {
            let mut request = bench.request(text, &[]);
            let named = context::Source::parse(&format!("docker-image://{}/base:1", bench.served.host())).unwrap();
            request.named_contexts.push(("named".into(), named));
            request.lock = Some(Arc::new(bench.lock_of("1", &pinned, complete)));
            // The plan, and with it all keys, is made without executing a RUN.
            let progress = Arc::new(Progress::to(Level::Error, Box::new(std::io::sink())));
            content_key(&request, &progress).await.unwrap_or_else(|error| panic!("{text}: {error}"));
            look_ahead(&request, &progress).await.unwrap_or_else(|error| panic!("{text}: {error}"));
            let report = check::check(&request, &progress).await;
            assert!(report.errors.is_empty(), "{text}: {:?}", report.errors);
            if !text.contains("RUN") {
                bench.build(request).await.unwrap_or_else(|error| panic!("{text}: {error}"));
            }
        }
    }
    assert!(!bench.asked_for_the_tag());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pin_changes_no_key_and_no_image() {
    let bench = Bench::new().await.file("f", "content");
    let text = "FROM HOST/base:1\nCOPY f /\n";
    for platforms in [&[][..], &["linux/arm64", "linux/amd64"]] {
        let free = bench.build(bench.request(text, platforms)).await.unwrap();
        let mut request = bench.request(text, platforms);
        request.lock = Some(Arc::new(bench.lock_of("1", &bench.base().await, true)));
        let pinned = bench.build(request).await.unwrap();
        assert_eq!((free.digest, free.key), (pinned.digest, pinned.key));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_lock_lacks_is_found_out_once_for_all_platforms() {
    let bench = Bench::new().await;
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("base.lock");
    let lock = Arc::new(Lock::new(&path, None, false).unwrap());
    let mut request = bench.request("FROM HOST/base:1\n", &["linux/arm64", "linux/amd64"]);
    request.lock = Some(Arc::clone(&lock));
    let first = bench.build(request).await.unwrap();
    assert!(bench.asked_for_the_tag() && lock.write().unwrap());
    let text = fs::read_to_string(&path).unwrap();
    assert_eq!(text, {
        let image = format!("docker-image://{}/base:1", bench.served.host());
        let rule = json!({"action": "CONVERT", "selector": {"identifier": image},
            "updates": {"identifier": format!("{image}@{}", bench.base().await)}});
        serde_json::to_string_pretty(&json!({"rules": [rule]})).unwrap() + "\n"
    });

    // One platform found the tag's old index; the other must not take the new one.
    let lock = Arc::new(empty(false));
    let reference = format!("{}/base:1", bench.served.host()).parse().unwrap();
    lock.settle(&reference, bench.base().await);
    bench.move_base().await;
    let mut request = bench.request("FROM HOST/base:1\n", &["linux/arm64", "linux/amd64"]);
    request.lock = Some(Arc::clone(&lock));
    assert!(bench.build(request).await.is_err(), "what the tag is now has neither platform, and nothing is mixed");

    let mut request = bench.request("FROM HOST/base:1\n", &["linux/arm64", "linux/amd64"]);
    request.lock = Some(Arc::new(Lock::new(&path, Some(&text), true).unwrap()));
    assert_eq!(bench.build(request).await.unwrap().digest, first.digest);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_image_that_a_complete_lock_lacks_is_an_error_at_its_place_before_anything_is_asked_for() {
    let bench = Bench::new().await.file("f", "");
    let table = [
        ("FROM HOST/base:1\n", "1:6"),
        ("FROM scratch\nCOPY --from=HOST/base:1 / /\n", "2:13"),
        ("FROM scratch\nCOPY f /\nRUN --mount=from=HOST/base:1,target=/m true\n", "3:18"),
        ("FROM scratch AS a\nCOPY f /\nFROM HOST/base:1\nCOPY --from=a f /\n", "3:6"),
    ];
    for (text, place) in table {
        let mut request = bench.request(text, &[]);
        request.lock = Some(Arc::new(empty(true)));
        let progress = Arc::new(Progress::to(Level::Error, Box::new(std::io::sink())));
        let error = content_key(&request, &progress).await.unwrap_err();
        let text = shown(&error, &request);
        assert!(text.contains(&format!("--> Dockerfile:{place}\n")) && text.contains("^^^"), "{text}");
        assert!(text.contains("--locked: 'base.lock' does not pin the image 127.0.0.1"), "{text}");
        assert!(text.contains("a build without --locked"), "{text}");
        assert_eq!(error.exit_code(), ExitCode::Data as u8);
        let report = check::check(&request, &progress).await;
        assert!(report.text(&request.dockerfile).contains(&text), "{}", report.text(&request.dockerfile));
    }
    assert!(bench.served.seen().is_empty(), "{:?}", bench.served.seen());
    // What has a digest is pinned by itself.
    let mut request = bench.request(&format!("FROM HOST/base@{}\n", bench.base().await), &[]);
    request.lock = Some(Arc::new(empty(true)));
    bench.build(request).await.unwrap();
    let mut request = bench.request("FROM scratch AS builder\nFROM biulder\n", &[]);
    request.lock = Some(Arc::new(empty(true)));
    let error = bench.build(request).await;
    // A name that is mistyped is no reason to change the lock.
    let request = bench.request("FROM scratch AS builder\nFROM biulder\n", &[]);
    assert!(shown(&error.unwrap_err(), &request).contains("did you mean builder?"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_digest_that_the_registry_lacks_is_an_error_that_names_the_lock() {
    let bench = Bench::new().await;
    let gone = Digest::of("gone");
    let mut request = bench.request("FROM HOST/base:1\n", &[]);
    request.lock = Some(Arc::new(bench.lock_of("1", &gone, false)));
    let lock = request.lock.clone();
    let error = bench.build(request).await.unwrap_err();
    let mut request = bench.request("FROM HOST/base:1\n", &[]);
    let text = shown(&error, &request);
    assert!(text.contains(&format!("manifest {gone} not found in {}/base", bench.served.host())), "{text}");
    assert!(text.contains("'base.lock' pins it") && text.contains("--> Dockerfile:1:6\n"), "{text}");
    assert_eq!(error.exit_code(), ExitCode::NoInput as u8);
    request.lock = lock;
    let progress = Progress::to(Level::Error, Box::new(std::io::sink()));
    let report = check::check(&request, &progress).await.text(&request.dockerfile);
    assert!(report.contains("'base.lock' pins it"), "{report}");
}
