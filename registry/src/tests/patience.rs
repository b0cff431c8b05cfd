//! Registries that are slow, silent, or ask for patience.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use super::{answer, client, count, fixture, image, quick, repository};
use crate::memory::{Effect, Fault, Memory};
use crate::{BlobSource as _, BytesBlob, ClientOptions, Digest, Error, Failure, Listener, Notice, Store as _, Version};

fn fault(method: &'static str, times: u32, effect: Effect) -> Fault {
    // Which scheme it speaks is asked with GET, too.
    Fault { method, path: "/app/", times, effect }
}

/// Options whose warnings are kept.
fn listening() -> (ClientOptions, Arc<Mutex<Vec<String>>>) {
    let told = Arc::new(Mutex::new(Vec::new()));
    let keeping = Arc::clone(&told);
    let listener = Listener::new(move |notice| {
        if let Notice::Warning(text) = notice {
            keeping.lock().unwrap().push(text.clone());
        }
    });
    (ClientOptions { listener, ..quick() }, told)
}

#[tokio::test]
async fn a_limit_that_is_reached_is_told_once_and_waited_for_by_all() {
    let memory = Memory::new().repository("app");
    let (served, other) = (memory.serve().await.unwrap(), memory.serve().await.unwrap());
    let (options, told) = listening();
    let client = client(options);
    let (store, elsewhere) = (repository(&client, &served, "app"), repository(&client, &other, "app"));
    // Which scheme they speak is known before.
    for store in [&store, &elsewhere] {
        assert!(!store.has_blob(&Digest::of("x")).await.unwrap());
    }
    let headers = [("Retry-After", "1"), ("RateLimit-Limit", "100;w=21600"), ("RateLimit-Remaining", "0")];
    served.inject(fault("POST", 2, answer(429, &headers, "")));
    let started = Instant::now();
    let first = tokio::spawn({
        let store = store.clone();
        async move { store.write_blob(&BytesBlob::new("first"), None).await }
    });
    while count(&served, "POST", "") == 0 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert!(!elsewhere.has_blob(&Digest::of("x")).await.unwrap());
    assert!(started.elapsed() < Duration::from_millis(800), "another registry is not spared");
    let asked = served.seen().len();
    let absent = Digest::of("x");
    futures_util::future::join_all((0..8).map(|_| store.has_blob(&absent))).await;
    assert!(started.elapsed() >= Duration::from_secs(1), "who asks meanwhile waits with the one that was refused");
    first.await.unwrap().unwrap();
    assert!(served.seen().len() > asked + 8);
    let told = told.lock().unwrap();
    assert_eq!(told.len(), 1, "{told:?}");
    let expected = format!("{} limits how often it is asked, and is asked again in 1 s: ", served.host());
    assert!(told[0].starts_with(&expected), "{told:?}");
    assert!(told[0].ends_with("(limit 100;w=21600, remaining 0)"), "{told:?}");
}

#[tokio::test]
async fn what_a_registry_warns_of_is_told_once() {
    let memory = Memory::new().repository("app");
    let served = memory.serve().await.unwrap();
    let (options, told) = listening();
    let store = repository(&client(options), &served, "app");
    let warning = |text: &str| Effect::Header("warning", Some(text.into()));
    served.inject(fault("HEAD", 2, warning("299 - \"This registry\tends in May.\"")));
    served.inject(fault("HEAD", 1, warning("199 - \"Nobody cares.\"")));
    for _ in 0..3 {
        store.has_blob(&Digest::of("x")).await.unwrap();
    }
    assert_eq!(*told.lock().unwrap(), [format!("{} warns: This registry ends in May.", served.host())]);
}

#[tokio::test]
async fn a_body_that_comes_in_drops_is_given_up_and_gone_on_with() {
    let (memory, served, store) = fixture().await;
    let blob = BytesBlob::new(vec![7; 100_000]);
    memory.write_blob(&blob, None).await.unwrap();
    served.inject(fault("GET", 1, Effect::Slow(20)));
    let read = crate::read_small(&store, &blob.digest(), None, 1 << 20).await.unwrap();
    assert_eq!(read, blob.bytes());
    let seen: Vec<_> =
        served.seen().into_iter().filter(|seen| seen.method == "GET" && seen.path.contains("blobs")).collect();
    assert_eq!(seen.last().map(|seen| seen.status), Some(206), "what came in drops is not asked for again");
    // Drops are no progress: their number of tries is limited like that of any other failure.
    served.inject(fault("GET", u32::MAX, Effect::Slow(20)));
    let error = crate::read_small(&store, &blob.digest(), None, 1 << 20).await.unwrap_err();
    assert!(matches!(error, Error::Unreachable { source: Failure::Slow { .. }, .. }), "{error}");
    let words = error.to_string();
    assert!(words.contains("only ") && words.contains(" bytes came in 0."), "{words}");
}

#[tokio::test]
async fn a_manifest_in_drops_is_given_up_too() {
    let (memory, served, store) = fixture().await;
    let config = BytesBlob::new("{}");
    memory.write_blob(&config, None).await.unwrap();
    let tag = Version::Tag("1".into());
    memory.write_manifest(&tag, &image(&config, &[])).await.unwrap();
    served.inject(fault("GET", u32::MAX, Effect::Slow(20)));
    let error = store.read_manifest(&tag).await.unwrap_err();
    assert!(matches!(error, Error::Unreachable { source: Failure::Slow { .. }, .. }), "{error}");
    assert_eq!(count(&served, "GET", "/manifests/"), 5);
}

#[tokio::test]
async fn a_registry_that_takes_no_more_of_a_body_is_given_up() {
    let (memory, served, store) = fixture().await;
    // More than any socket holds.
    let blob = BytesBlob::new(vec![7; 32 << 20]);
    served.inject(fault("PUT", 1, Effect::Slow(1)));
    store.write_blob(&blob, None).await.unwrap();
    assert_eq!(memory.blobs(), [blob.digest()]);
    served.inject(fault("PUT", u32::MAX, Effect::Slow(1)));
    let started = Instant::now();
    let other = BytesBlob::new(vec![8; 32 << 20]);
    let error = store.write_blob(&other, None).await.unwrap_err();
    assert!(matches!(error, Error::Unreachable { source: Failure::Silent(_), .. }), "{error}");
    assert!(started.elapsed() < Duration::from_secs(30), "{:?}", started.elapsed());
    assert_eq!(memory.blobs(), [blob.digest()]);
}
