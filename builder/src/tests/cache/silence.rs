//! Registries that do not answer.

use yadokari_registry::Timeouts;
use yadokari_registry::memory::{Effect, Fault};

use super::*;

fn silence(method: &'static str, path: &'static str) -> Fault {
    Fault { method, path, times: u32::MAX, effect: Effect::Silence }
}

fn impatient(request: &mut Request) {
    let silence = Duration::from_millis(100);
    let retry = RetryPolicy { tries: 2, delay: Duration::from_millis(5), ..RetryPolicy::default() };
    let timeouts = Timeouts { silence, commit: silence, ..Timeouts::default() };
    request.client = Client::new(ClientOptions { retry, timeouts, ..ClientOptions::default() }).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cache_that_does_not_answer_is_waited_for_once() {
    let bench = Bench::cached().await;
    ["GET", "HEAD", "POST", "PUT"].into_iter().for_each(|method| bench.served.inject(silence(method, "/cache/")));
    let outcome = bench.run(TEXT, impatient).await;
    let warnings: Vec<&str> = outcome.log.lines().filter(|line| line.starts_with("warning")).collect();
    assert_eq!(warnings.len(), 1, "{warnings:?}");
    assert!(warnings[0].contains("the build goes on without it"), "{warnings:?}");
    let asked = outcome.seen.iter().filter(|seen| seen.path.contains("/cache/"));
    assert!(asked.clone().all(|seen| seen.method == "GET"), "nothing is written: {:#?}", asked.collect::<Vec<_>>());
    assert_eq!(outcome.built.digest, bench.uncached(TEXT).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_signal_ends_the_wait_for_a_layer() {
    let bench = Bench::cached().await;
    let first = bench.registry.repository("first");
    let manifest = first.read_manifest(&Version::Tag("1".into())).await.unwrap().unwrap();
    let layer = yadokari_registry::digest_of(&manifest.image().unwrap().layers()[0]).unwrap();
    bench.served.inject(silence("GET", Box::leak(format!("/first/blobs/{layer}").into_boxed_str())));
    let mut request = bench.request("FROM HOST/second:1\nCOPY --from=HOST/first:1 /base0 /x\n", &[]);
    request.destinations.clear();
    let interrupt = Interrupt::default();
    let trigger = tokio::spawn({
        let interrupt = interrupt.clone();
        async move {
            tokio::time::sleep(Duration::from_millis(500)).await;
            interrupt.trigger(15);
        }
    });
    let start = std::time::Instant::now();
    let progress = Arc::new(Progress::to(Level::Error, Box::new(std::io::sink())));
    let ended = build(request, progress, interrupt).await;
    assert!(matches!(ended, Err(Error::Interrupted(15))), "{ended:?}");
    assert!(start.elapsed() < Duration::from_secs(20), "{:?}", start.elapsed());
    trigger.await.unwrap();
}
