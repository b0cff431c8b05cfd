//! Several stages at once, with registries and a cache.

use std::collections::BTreeSet;

use super::*;

/// Stages of one base, of which the last takes from all.
const STAGES: &str = "FROM HOST/first:1 AS a\nWORKDIR /a\nFROM HOST/first:1 AS b\nWORKDIR /b\nCOPY a /b/\nFROM HOST/first:1 AS c\n\
                      WORKDIR /a\nCOPY b /a/\nFROM c AS d\nCOPY --from=b /b /b\nFROM HOST/second:1\nWORKDIR /w\n\
                      COPY --from=a /a /from/a\nCOPY --from=d / /from/d\nCOPY --from=HOST/first:1 /base0 /from/base\n";

fn with_jobs(jobs: usize) -> impl FnOnce(&mut Request) {
    move |request| {
        request.cache = None;
        request.jobs = NonZeroUsize::new(jobs).unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_layer_that_several_stages_need_is_pulled_once() {
    let bench = Bench::cached().await;
    let manifest = bench.registry.repository("first").read_manifest(&Version::Tag("1".into())).await.unwrap().unwrap();
    let layer = yadokari_registry::digest_of(&manifest.image().unwrap().layers()[0]).unwrap();
    let outcome = bench.run(STAGES, with_jobs(8)).await;
    assert_eq!(outcome.count("GET", &format!("/first/blobs/{layer}")), 1, "{}", outcome.log);
    let pulled: Vec<&str> = outcome.log.lines().filter(|line| line.starts_with("pulled ")).collect();
    let of = |name: &str| format!("pulled 1 layers of {}/{name}:1, ", bench.served.host());
    assert_eq!(pulled.iter().filter(|line| line.starts_with(&of("first"))).count(), 1, "{pulled:?}");
    assert_eq!(pulled.len(), 2, "{pulled:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_image_and_what_the_cache_keeps_do_not_depend_on_the_number_of_jobs() {
    let bench = Bench::cached().await;
    let mut expected: Option<(Digest, BTreeSet<String>)> = None;
    for jobs in [1, 2, 8] {
        let name = format!("cache{jobs}");
        let mut settings = bench.settings();
        settings.place = Place::Registry(format!("{}/{name}", bench.served.host()).parse().unwrap());
        for of in ["first", "second"] {
            let outcome = bench
                .run(STAGES, |request| {
                    with_jobs(jobs)(request);
                    request.cache = Some(settings.clone());
                })
                .await;
            let kept = bench.registry.repository(&name).tags().await.unwrap().into_iter().collect();
            let found = (outcome.built.digest, kept);
            assert_eq!(
                expected.get_or_insert_with(|| found.clone()),
                &found,
                "{jobs} jobs, {of} build: {}",
                outcome.log
            );
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn platforms_share_steps_that_they_come_to_at_the_same_time() {
    let bench = Bench::cached().await;
    let text = "FROM --platform=$BUILDPLATFORM HOST/base:1 AS build\nWORKDIR /w\nCOPY a /w/\nFROM HOST/base:1\n\
                COPY --from=build /w /w\n";
    let mut digests = BTreeSet::new();
    for jobs in [1, 2, 8] {
        let outcome = bench
            .run(text, |request| {
                with_jobs(jobs)(request);
                request.index = Some(vec!["linux/arm64".parse().unwrap(), "linux/amd64".parse().unwrap()]);
            })
            .await;
        assert_eq!(outcome.log.matches(" build 2/2] done in ").count(), 2, "{}", outcome.log);
        digests.insert(outcome.built.digest);
    }
    assert_eq!(digests.len(), 1);
}
