//! The same image, with the cache and without.

use std::cell::Cell;
use std::time::Duration;

use proptest::collection::vec;
use proptest::test_runner::{Config, RngSeed, TestRunner};
use yadokari::cache::{Place, Scopes, Settings};
use yadokari_layers::Digest;
use yadokari_registry::{Store, Version};

use crate::bench::{Bench, Ended, client};
use crate::edits::{Edit, any_edit};
use crate::world::{World, any_world};

/// How many projects are put together, each with some edits.
const CASES: u32 = 240;

/// What came of the builds, to see that they are worth something.
#[derive(Debug, Default)]
struct Tally {
    built: Cell<u32>,
    failed: Cell<u32>,
}

/// A cache of the many that a user may ask for. All share their repositories, so that each finds what others wrote.
pub(crate) fn settings(bench: &Bench, number: usize) -> Settings {
    let registry = |name: &str| Place::Registry(bench.reference(name));
    let own = |name: &str, also: Option<&str>| Scopes { own: Some(name.into()), also: also.map(Into::into) };
    let plain = Settings {
        place: registry("app/cache"),
        also: Vec::new(),
        ttl: Duration::from_secs(3600),
        write: true,
        copies: true,
        runs: true,
        scopes: Scopes::default(),
        key: None,
    };
    match number % 12 {
        0 => Settings { copies: false, ..plain },
        1 => Settings { runs: false, ..plain },
        2 => Settings { write: false, ..plain },
        3 => Settings {
            place: Place::Layout(bench.directory().join("cache")),
            also: vec![registry("app/cache")],
            ..plain
        },
        4 => Settings { also: vec![Place::Layout(bench.directory().join("cache"))], ..plain },
        5 => Settings { scopes: own("branch", None), ..plain },
        6 => Settings { scopes: own("branch", Some("main")), ..plain },
        7 => Settings { scopes: own("main", None), ..plain },
        8 => Settings { key: Some(b"key".to_vec().into()), ..plain },
        _ => plain,
    }
}

/// One without a limit.
pub(crate) const PLAIN: usize = 11;

/// Builds a project, and again after each edit, every time with all that the cache has by then and without it.
async fn follow(bench: &Bench, first: &World, edits: &[(Edit, usize)], tally: &Tally) {
    let mut worlds = vec![first.clone()];
    let mut last = compare(bench, first, PLAIN, tally).await;
    for (edit, cache) in edits {
        let world = edit.of(&worlds);
        last = compare(bench, &world, *cache, tally).await;
        worlds.push(world);
    }
    if let (Some(digest), Some(world)) = (last, worlds.last()) {
        repeat(bench, world, digest).await;
    }
}

/// Builds a project in both ways; the digest, where it can be built at all.
async fn compare(bench: &Bench, world: &World, cache: usize, tally: &Tally) -> Option<Digest> {
    let plain = bench.build(world, None, "plain:1").await;
    let cached = bench.build(world, Some(settings(bench, cache)), "app:1").await;
    let count = if plain.result.is_ok() { &tally.built } else { &tally.failed };
    count.set(count.get() + 1);
    let same = match (&plain.result, &cached.result) {
        (Ok(plain), Ok(cached)) => plain == cached,
        (plain, cached) => plain.is_err() && cached.is_err(),
    };
    let (text, [without, with]) =
        (world.dockerfile(), [&plain, &cached].map(|end| format!("{:?}\n{}", end.result, end.log)));
    assert!(same, "{text}\nwithout the cache: {without}\nwith cache {cache}: {with}");
    assert!(!cached.log.contains("warning: cache: ignored") || cache % 12 == 8, "{text}\nwith cache {cache}: {with}");
    plain.result.ok()
}

/// Builds a project with a new cache, and again when nothing changed: neither for the same tag nor for another repository is
/// a layer moved. (In the caches that the builds before it had, a layer may have been somewhere where it was only read.)
async fn repeat(bench: &Bench, world: &World, digest: Digest) {
    let layers = layers(bench, "app").await;
    let settings = || Settings { place: Place::Registry(bench.reference("fresh/cache")), ..settings(bench, PLAIN) };
    bench.build(world, Some(settings()), "app:1").await;
    for name in ["app:1", "elsewhere:1"] {
        let again = bench.build(world, Some(settings()), name).await;
        let said = || format!("{name}: {:?}\n{}\n{}", again.result, world.dockerfile(), again.log);
        assert_eq!(again.result.as_ref().ok(), Some(&digest), "{}", said());
        assert_eq!(moved(&again, &layers), [""; 0], "{}", said());
    }
}

/// The layers of an image.
async fn layers(bench: &Bench, repository: &str) -> Vec<Digest> {
    let store = bench.registry.repository(repository);
    let manifest = store.read_manifest(&Version::Tag("1".into())).await.unwrap().unwrap();
    let layers = manifest.image().unwrap().layers().clone();
    layers.iter().map(|layer| layer.digest().to_string().parse().unwrap()).collect()
}

/// The requests in which the bytes of one of these layers went up or down.
fn moved(build: &Ended, layers: &[Digest]) -> Vec<String> {
    let is_a_layers = |text: &str| layers.iter().any(|layer| text.contains(&layer.to_string().replace("sha256:", "")));
    let moves = build.seen.iter().filter(|seen| match seen.method.as_str() {
        "GET" => seen.path.contains("/blobs/") && is_a_layers(&seen.path),
        "PUT" => seen.path.contains("/blobs/") && is_a_layers(&seen.query),
        _ => false,
    });
    moves.map(|seen| format!("{} {}?{}", seen.method, seen.path, seen.query)).collect()
}

#[test]
fn a_cached_build_makes_the_image_of_an_uncached_one() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let (client, tally) = (client(), Tally::default());
    // The same cases every time, unless PROPTEST_RNG_SEED or PROPTEST_CASES say otherwise.
    let standard = Config::default();
    let rng_seed = if standard.rng_seed == RngSeed::Random { RngSeed::Fixed(1) } else { standard.rng_seed };
    let cases = if standard.cases == 256 { CASES } else { standard.cases };
    let config = Config { cases, rng_seed, failure_persistence: None, max_shrink_iters: 400, ..standard };
    let result = TestRunner::new(config).run(&(any_world(), vec((any_edit(), 0..12_usize), 2..7)), |(world, edits)| {
        runtime.block_on(async {
            let bench = Bench::new(client.clone()).await;
            follow(&bench, &world, &edits, &tally).await;
        });
        Ok(())
    });
    if let Err(failure) = result {
        panic!("{failure}");
    }
    println!("{tally:?}");
    assert!(tally.built.get() > 2 * tally.failed.get(), "most projects can be built: {tally:?}");
}
