//! What the cache saves, and what happens when it lies.

mod content;
mod equal;
mod jobs;
mod report;
mod silence;
mod spoiled;
mod squash;
mod trust;

use yadokari_registry::memory::Seen;

use super::*;
use crate::cache::{Place, Scopes, Settings};
use crate::progress::said::Said;

/// A dockerfile of two stages, each with a base of its own that has a layer.
const TEXT: &str = "FROM HOST/first:1 AS build\nWORKDIR /src\nCOPY a .\nFROM HOST/second:1\nCOPY --from=build /src /app\n\
                    COPY b /b\nENV X=1\n";

/// What a build did.
struct Outcome {
    built: Built,
    log: String,
    seen: Vec<Seen>,
}

impl Outcome {
    /// The requests of a method to paths that hold `part`.
    fn count(&self, method: &str, part: &str) -> usize {
        self.seen.iter().filter(|seen| seen.method == method && seen.path.contains(part)).count()
    }

    /// The repositories of which blobs were read, as often as they were.
    fn read(&self) -> Vec<&str> {
        let read = self.seen.iter().filter(|seen| seen.method == "GET" && seen.path.contains("/blobs/sha256:"));
        read.map(|seen| seen.path.split('/').nth(2).unwrap()).collect()
    }

    fn ignored(&self) -> Vec<&str> {
        self.log.lines().filter(|line| line.starts_with("warning: cache: ignored ")).collect()
    }
}

impl Bench {
    async fn cached() -> Self {
        let bench = Self::new().await.file("a", "a").file("b", "b").file("base", "base");
        for (number, name) in ["first", "second"].into_iter().enumerate() {
            let mut request = bench.request(&format!("FROM HOST/base:1\nCOPY base /base{number}\n"), &[]);
            request.destinations = vec![bench.destination(&format!("{name}:1"))];
            bench.build(request).await.unwrap();
        }
        bench
    }

    pub(super) fn destination(&self, name: &str) -> Destination {
        Destination::Registry(format!("{}/{name}", self.served.host()).parse().unwrap())
    }

    pub(super) fn settings(&self) -> Settings {
        Settings {
            place: Place::Registry(format!("{}/cache", self.served.host()).parse().unwrap()),
            also: Vec::new(),
            ttl: Duration::from_secs(3600),
            write: true,
            copies: true,
            runs: true,
            scopes: Scopes::default(),
            key: None,
        }
    }

    async fn run(&self, text: &str, edit: impl FnOnce(&mut Request)) -> Outcome {
        let mut request = self.request(text, &[]);
        request.cache = Some(self.settings());
        edit(&mut request);
        let (log, before) = (Said::default(), self.served.seen().len());
        let progress = Progress::to(Level::Debug, Box::new(log.clone()));
        let describe = request.describe;
        let mut built = build(request, Arc::new(progress), Interrupt::default()).await.unwrap();
        // What is known of an image that was built before is less, unless more is asked for.
        built.described = built.described.filter(|_| describe);
        Outcome { built, log: log.text(), seen: self.served.seen()[before..].to_vec() }
    }

    /// The digest without a cache.
    async fn uncached(&self, text: &str) -> Digest {
        self.run(text, |request| request.cache = None).await.built.digest
    }

    fn cache(&self) -> Memory {
        self.registry.repository("cache")
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_image_that_was_built_before_is_described_where_that_is_asked_for() {
    let bench = Bench::cached().await;
    for existing in [false, true] {
        let describe = |request: &mut Request| {
            (request.describe, request.skip_existing) = (true, existing);
            request.cache = request.cache.take().filter(|_| !existing);
        };
        let first = bench.run(TEXT, describe).await;
        let again = bench.run(TEXT, describe).await;
        assert!(again.log.contains("unchanged") && first.built.described.is_some(), "{}", again.log);
        assert_eq!(again.built, first.built);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_build_of_which_nothing_changed_asks_and_does_nothing() {
    let bench = Bench::cached().await;
    let first = bench.run(TEXT, |_| {}).await;
    let again = bench.run(TEXT, |_| {}).await;
    assert_eq!(again.built, first.built);
    assert!(again.log.contains("unchanged"), "{}", again.log);
    // Which scheme the registry speaks, a manifest and a config of two bases, the result, and the tag.
    assert_eq!(again.seen.len(), 7, "{:#?}", again.seen);
    assert!(again.seen.iter().all(|seen| matches!(&seen.method[..], "GET" | "HEAD")));

    let other_tag = bench.run(TEXT, |request| request.destinations = vec![bench.destination("app:2")]).await;
    assert_eq!(other_tag.built, first.built);
    assert_eq!((other_tag.seen.len(), other_tag.count("PUT", "/app/manifests/2")), (9, 1), "{:#?}", other_tag.seen);
}

#[tokio::test(flavor = "multi_thread")]
async fn another_repository_gets_the_image_without_a_byte_of_a_layer() {
    let bench = Bench::cached().await;
    let first = bench.run(TEXT, |_| {}).await;
    let other = bench.run(TEXT, |request| request.destinations = vec![bench.destination("other:1")]).await;
    assert_eq!(other.built, first.built);
    assert_eq!(other.log.matches("] cached").count(), 0, "nothing is done step by step");
    // The config alone is uploaded.
    assert_eq!((other.count("PUT", "/blobs/uploads/"), other.count("PUT", "/other/manifests/1")), (1, 1));
    let mut read = other.read();
    read.sort();
    assert_eq!(read, ["cache", "first", "second"], "two configs, and the image");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_changed_file_in_the_last_stage_costs_its_own_layer() {
    let bench = Bench::cached().await;
    bench.run(TEXT, |_| {}).await;
    let bench = bench.file("b", "changed");
    let changed = bench.run(TEXT, |_| {}).await;
    let blobs: Vec<_> = changed.read().into_iter().filter(|name| *name != "first" && *name != "second").collect();
    // What the layers hold, of which the tree consists that the file is put into.
    assert_eq!(blobs, ["cache", "cache"], "{:#?}", changed.seen);
    assert_eq!(changed.log.matches("] cached").count(), 1, "{}", changed.log);
    let uploads = changed.seen.iter().filter(|seen| seen.method == "PUT" && seen.path.contains("/app/blobs/uploads/"));
    assert_eq!(uploads.count(), 2, "the layer and the config");
    assert_eq!(changed.built.digest, bench.uncached(TEXT).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_made_anew_and_is_what_it_was_lets_the_rest_hit() {
    let bench = Bench::cached().await;
    bench.run(TEXT, |_| {}).await;
    // The stage has another key and the same file at the place that is copied.
    let text = TEXT.replace("COPY a .", "COPY a b /other/\nCOPY a .");
    let changed = bench.run(&text, |_| {}).await;
    assert!(
        changed.log.contains("[stage-1 1/2] cached") && changed.log.contains("[stage-1 2/2] cached"),
        "{}",
        changed.log
    );
    assert_eq!(changed.built.digest, bench.uncached(&text).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_missing_record_does_not_hide_those_behind_it() {
    let bench = Bench::cached().await;
    bench.run(TEXT, |_| {}).await;
    let relabelled = TEXT.replace("ENV X=1", "LABEL x=1");
    let changed = bench.run(&relabelled, |_| {}).await;
    assert_eq!(changed.log.matches("] cached").count(), 2, "{}", changed.log);
    assert!(!changed.log.contains("[build"), "the stage is neither built nor looked at: {}", changed.log);
    assert_eq!(changed.built.digest, bench.uncached(&relabelled).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn layers_that_are_gone_or_spoiled_are_made_anew() {
    for spoil in [Memory::forget_blob as fn(&Memory, &Digest), |cache, digest| cache.corrupt_blob(digest, "spoiled")] {
        let bench = Bench::cached().await;
        let first = bench.run(TEXT, |_| {}).await;
        bench.cache().blobs().iter().for_each(|digest| spoil(&bench.cache(), digest));
        let other = bench.run(TEXT, |request| request.destinations = vec![bench.destination("other:1")]).await;
        assert_eq!(other.built, first.built);
        assert!(!other.ignored().is_empty(), "{}", other.log);
        let made = ["build 1/2", "build 2/2", "stage-1 1/2", "stage-1 2/2"];
        assert!(made.iter().all(|step| other.log.contains(&format!("[{step}] done in "))), "{}", other.log);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_record_under_the_tag_of_another_is_ignored() {
    let bench = Bench::cached().await;
    bench.run(TEXT, |_| {}).await;
    let cache = bench.cache();
    let tags: Vec<String> = cache.tags().await.unwrap().into_iter().filter(|tag| tag.len() == 64).collect();
    let mut manifests = Vec::new();
    for tag in &tags {
        manifests.push(cache.read_manifest(&Version::Tag(tag.clone())).await.unwrap().unwrap());
    }
    manifests.rotate_left(3);
    for (tag, manifest) in tags.iter().zip(&manifests) {
        cache.write_manifest(&Version::Tag(tag.clone()), manifest).await.unwrap();
    }
    let changed = bench.run(&TEXT.replace("X=1", "X=2"), |_| {}).await;
    assert!(changed.ignored().iter().all(|line| line.contains("it is the record of")), "{}", changed.log);
    assert!(!changed.ignored().is_empty());
    assert_eq!(changed.built.digest, bench.uncached(&TEXT.replace("X=1", "X=2")).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cache_that_cannot_be_read_or_written_costs_nothing_but_time() {
    let bench = Bench::cached().await;
    let answer = |method| yadokari_registry::memory::Fault {
        method,
        path: "/cache/",
        times: u32::MAX,
        effect: yadokari_registry::memory::Effect::Answer { status: 403, headers: Vec::new(), body: String::new() },
    };
    ["GET", "HEAD", "POST", "PUT"].into_iter().for_each(|method| bench.served.inject(answer(method)));
    let outcome = bench.run(TEXT, |_| {}).await;
    let warnings: Vec<&str> = outcome.log.lines().filter(|line| line.starts_with("warning")).collect();
    assert_eq!(warnings.len(), 2, "{warnings:?}");
    assert!(warnings[0].contains("the build goes on without it") && warnings[1].contains("cache: not written"));
    assert_eq!(outcome.built.digest, bench.uncached(TEXT).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn kinds_of_steps_can_be_left_out() {
    let bench = Bench::cached().await;
    let without_copies = |request: &mut Request| request.cache.as_mut().unwrap().copies = false;
    bench.run(TEXT, without_copies).await;
    let again = bench.run(TEXT, without_copies).await;
    assert_eq!(again.log.matches("] cached").count(), 1, "{}", again.log);
    assert!(again.log.contains("[build 1/2] cached"));
    let unwritten = Bench::cached().await;
    unwritten.run(TEXT, |request| request.cache.as_mut().unwrap().write = false).await;
    assert!(unwritten.cache().tags().await.unwrap().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_too_old_is_not_used() {
    let bench = Bench::cached().await;
    bench.run(TEXT, |_| {}).await;
    let old = bench.run(TEXT, |request| request.cache.as_mut().unwrap().ttl = Duration::ZERO).await;
    assert_eq!(old.log.matches("] cached").count(), 0, "{}", old.log);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_used_does_not_get_too_old() {
    let bench = Bench::cached().await;
    bench.run(TEXT, |_| {}).await;
    // Every record is past the half of its time.
    tokio::time::sleep(Duration::from_millis(4200)).await;
    let short = |request: &mut Request| request.cache.as_mut().unwrap().ttl = Duration::from_secs(6);
    let again = bench.run(TEXT, short).await;
    assert!(again.log.contains("unchanged"), "{}", again.log);
    // The result under two names, and four steps under two each.
    assert_eq!(again.count("PUT", "/cache/manifests/"), 10, "{:#?}", again.seen);
    tokio::time::sleep(Duration::from_millis(2200)).await;
    let later = bench.run(&TEXT.replace("X=1", "X=2"), short).await;
    assert_eq!(later.log.matches("] cached").count(), 2, "{}", later.log);
}

#[tokio::test(flavor = "multi_thread")]
async fn other_places_are_read_and_not_written() {
    let bench = Bench::cached().await;
    bench.run(TEXT, |_| {}).await;
    let places = |request: &mut Request| {
        let settings = request.cache.as_mut().unwrap();
        let other = Place::Layout(bench.directory.path().join(".layout"));
        settings.also.push(std::mem::replace(&mut settings.place, other));
    };
    let tags = bench.cache().tags().await.unwrap();
    let other = bench.run(TEXT, places).await;
    assert!(other.log.contains("unchanged"), "{}", other.log);
    let changed = bench.run(&TEXT.replace("X=1", "X=2"), places).await;
    assert_eq!(changed.log.matches("] cached").count(), 2, "{}", changed.log);
    assert_eq!(bench.cache().tags().await.unwrap(), tags);
    assert!(bench.directory.path().join(".layout/index.json").exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn scopes_see_what_they_name() {
    let bench = Bench::cached().await;
    let scoped = |own: &'static str, also: Option<&'static str>| {
        move |request: &mut Request| {
            let also = also.map(str::to_owned);
            request.cache.as_mut().unwrap().scopes = Scopes { own: Some(own.to_owned()), also };
        }
    };
    bench.run(TEXT, scoped("main", None)).await;
    let branch = bench.run(TEXT, scoped("branch", Some("main"))).await;
    assert!(branch.log.contains("unchanged"), "{}", branch.log);
    let text = TEXT.replace("COPY b /b", "COPY b /c");
    bench.run(&text, scoped("branch", Some("main"))).await;
    let main = bench.run(&text, scoped("main", None)).await;
    assert!(main.log.contains("[stage-1 2/2] done"), "what a branch wrote is not for main: {}", main.log);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_epoch_of_its_own_has_layers_of_its_own() {
    let bench = Bench::cached().await;
    bench.run(TEXT, |_| {}).await;
    let other = bench.run(TEXT, |request| (request.options.epoch, request.pack.clamp) = (Some(7), Some(7))).await;
    assert_eq!(other.log.matches("] cached").count(), 0, "{}", other.log);
}
