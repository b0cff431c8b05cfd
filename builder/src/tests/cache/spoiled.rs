//! Caches and destinations whose blobs are not what they were.

use super::*;

/// Another content of the same length.
fn flipped(digest: &Digest, size: u64) -> Vec<u8> {
    let filler = if digest.hex().starts_with('0') { b'1' } else { b'0' };
    vec![filler; usize::try_from(size).unwrap()]
}

impl Bench {
    /// Makes all blobs of the cache wrong without changing their sizes.
    async fn rot(&self) {
        let cache = self.cache();
        for digest in cache.blobs() {
            let Some(yadokari_registry::Size::Told(size)) = cache.blob_size(&digest).await.unwrap() else { continue };
            cache.corrupt_blob(&digest, flipped(&digest, size));
        }
    }

    fn to(&self, name: &str) -> impl FnOnce(&mut Request) {
        let destination = self.destination(name);
        |request| request.destinations = vec![destination]
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_spoiled_is_whole_after_the_build_that_found_it() {
    for spoil in ["gone", "cut off", "rotten"] {
        let bench = Bench::cached().await;
        bench.run(TEXT, |_| {}).await;
        let cache = bench.cache();
        match spoil {
            "gone" => cache.blobs().iter().for_each(|digest| cache.forget_blob(digest)),
            "cut off" => cache.blobs().iter().for_each(|digest| cache.corrupt_blob(digest, "spoiled")),
            _ => bench.rot().await,
        }
        // Nothing can be had from elsewhere.
        bench.served.inject(no_mounts());
        let other = bench.run(TEXT, bench.to("other:1")).await;
        assert!(!other.ignored().is_empty(), "{spoil}: {}", other.log);
        let third = bench.run(&TEXT.replace("X=1", "X=2"), bench.to("third:1")).await;
        assert_eq!(third.ignored(), Vec::<&str>::new(), "{spoil}");
        assert_eq!(third.log.matches("] cached").count(), 2, "{spoil}: {}", third.log);
    }
}

fn no_mounts() -> yadokari_registry::memory::Fault {
    let (effect, times) = (yadokari_registry::memory::Effect::NoMount, u32::MAX);
    yadokari_registry::memory::Fault { method: "POST", path: "/blobs/uploads/", times, effect }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_destination_whose_layer_was_cut_off_gets_it_whole() {
    let bench = Bench::cached().await;
    bench.run(TEXT, |_| {}).await;
    let app = bench.registry.repository("app");
    let sizes = |store: &Memory| -> Vec<(Digest, u64)> {
        let read = |digest: Digest| {
            let size = futures_util::FutureExt::now_or_never(store.blob_size(&digest)).unwrap().unwrap();
            let Some(yadokari_registry::Size::Told(size)) = size else { panic!("{digest}") };
            (digest, size)
        };
        store.blobs().into_iter().map(read).collect()
    };
    let before = sizes(&app);
    before.iter().for_each(|(digest, _)| app.corrupt_blob(digest, "x"));
    let changed = bench.run(&TEXT.replace("X=1", "X=2"), |_| {}).await;
    assert_eq!(changed.log.matches("] cached").count(), 2, "{}", changed.log);
    let manifest = app.read_manifest(&Version::Digest(changed.built.digest)).await.unwrap().unwrap();
    for layer in manifest.image().unwrap().layers() {
        let digest = yadokari_registry::digest_of(layer).unwrap();
        let read = yadokari_registry::read_small(&app, &digest, Some(layer.size()), 1 << 20).await;
        assert!(read.is_ok(), "{:?}", read.err());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_record_that_cannot_be_kept_does_not_keep_others_from_it() {
    let bench = Bench::cached().await;
    let first = bench.run(TEXT, |_| {}).await;
    tokio::time::sleep(Duration::from_millis(3200)).await;
    // The destination has all layers, so that nobody finds out that the cache lacks one.
    let app = bench.registry.repository("app");
    let manifest = app.read_manifest(&Version::Digest(first.built.digest)).await.unwrap().unwrap();
    let last = yadokari_registry::digest_of(manifest.image().unwrap().layers().last().unwrap()).unwrap();
    bench.cache().forget_blob(&last);
    let short = |request: &mut Request| request.cache.as_mut().unwrap().ttl = Duration::from_secs(5);
    let changed = bench.run(&TEXT.replace("X=1", "X=2"), short).await;
    assert_eq!(changed.log.matches("] cached").count(), 2, "{}", changed.log);
    assert_eq!(changed.ignored().len(), 1, "{}", changed.log);
    assert!(!changed.log.contains("not written"), "{}", changed.log);
    tokio::time::sleep(Duration::from_millis(2000)).await;
    let later = bench.run(&TEXT.replace("X=1", "X=3"), short).await;
    assert!(later.log.contains("[stage-1 1/2] cached") && later.log.contains("[stage-1 2/2] done"), "{}", later.log);
}
