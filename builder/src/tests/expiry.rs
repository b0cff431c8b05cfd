//! A push that takes longer than any token of its registry lives, in the time that it takes.

use std::time::Instant;

use yadokari_registry::memory::{Auth, Checks, Serving};
use yadokari_registry::{Credentials, Login, Secret};

use super::*;

/// Bytes that no compression makes fewer.
fn noise(size: usize) -> Vec<u8> {
    let mut state = 88_172_645_463_325_252_u64;
    let mut word = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()
    };
    (0..size.div_ceil(8)).flat_map(|_| word()).collect()
}

pub(super) fn logged_in(served: &Served) -> ClientOptions {
    let mut credentials = Credentials::default();
    credentials.add(&served.host(), Login::Password { user: "ci".into(), password: Secret::new("hunter2") });
    ClientOptions { credentials, ..ClientOptions::default() }
}

pub(super) fn bearer(life: Duration) -> Auth {
    Auth::Bearer { user: "ci".into(), password: "hunter2".into(), life }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_minute_of_uploading_with_tokens_of_ten_seconds_succeeds() {
    let mut bench = Bench::new().await.file("small", "content");
    fs::write(bench.directory.path().join("large"), noise(10_000_000)).unwrap();
    let (auth, rate) = (bearer(Duration::from_secs(10)), Some(160_000));
    let serving = Serving { auth, checks: Checks::AtHead, expires_in: Some(10), rate, ..Serving::default() };
    bench.served = bench.registry.serve_with(serving).await.unwrap();
    let mut request = bench.request("FROM HOST/base:1\nCOPY large /\nCOPY small /\n", &[]);
    request.client = Client::new(logged_in(&bench.served)).unwrap();
    let started = Instant::now();
    bench.build(request).await.unwrap();
    assert!(started.elapsed() >= Duration::from_secs(60), "{:?}", started.elapsed());
    // The registry has every blob that the tag names, or it would not have taken the manifest.
    let (_, layers) = bench.pushed("app").await;
    assert_eq!(layers.len(), 2);
    let seen = bench.served.seen();
    let tokens = seen.iter().filter(|seen| seen.path == "/token").count();
    assert!(tokens >= 2, "{tokens}");
    let largest = seen.iter().map(|seen| seen.received).max();
    assert!(largest.is_some_and(|largest| largest >= 10_000_000), "the layer went in one request: {largest:?}");
}
