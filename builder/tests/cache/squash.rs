//! The same files in one layer.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::sync::Arc;

use proptest::test_runner::{Config, RngSeed, TestRunner};
use serde_json::Value;
use yadokari::Request;
use yadokari_layers::{Digest, Entry, RelPath, Tree, compress, tar};
use yadokari_registry::{Store, Version, read_small};

use crate::bench::{Bench, client};
use crate::same::{PLAIN, settings};
use crate::world::{World, any_world};

/// How many projects are put together.
const CASES: u32 = 60;

/// An image as a container sees it.
#[derive(Debug, PartialEq)]
struct Seen {
    /// Every path with what it is, and all names that it has.
    files: BTreeMap<RelPath, (Entry, Vec<RelPath>)>,
    config: Value,
    /// How many of its layers are its base's, which has no history here.
    below: usize,
}

/// The image `:1` of a repository, and the diff ids of its layers.
async fn seen(bench: &Bench, repository: &str) -> (Seen, Vec<String>) {
    let store = bench.registry.repository(repository);
    let image = store.read_manifest(&Version::Tag("1".into())).await.unwrap().unwrap().image().unwrap();
    let blob = async |digest: String| read_small(&store, &digest.parse().unwrap(), None, 1 << 24).await.unwrap();
    let config: Value = serde_json::from_slice(&blob(image.config().digest().to_string()).await).unwrap();
    let (mut tree, mut diff_ids) = (Tree::new(), Vec::new());
    for layer in image.layers() {
        let mut tar = Vec::new();
        let blob = blob(layer.digest().to_string()).await;
        std::io::copy(&mut compress::decoder(&blob[..]).unwrap(), &mut tar).unwrap();
        diff_ids.push(Digest::of(&tar).to_string());
        tree.push(Arc::new(tar::index(&tar[..]).unwrap()));
    }
    assert_eq!(config["rootfs"]["diff_ids"], Value::from(diff_ids.clone()));
    let with_layer = config["history"].as_array().unwrap().iter().filter(|line| line["empty_layer"] != true).count();
    let below = diff_ids.len().checked_sub(with_layer).unwrap();
    let mut names: BTreeMap<(usize, RelPath), Vec<RelPath>> = BTreeMap::new();
    let mut held = BTreeMap::new();
    for (path, _) in tree.iter() {
        let (name, found) = tree.content(path).unwrap();
        names.entry((found.layer, name.clone())).or_default().push(path.clone());
        held.insert(path.clone(), (found.entry.clone(), (found.layer, name.clone())));
    }
    let files = held.into_iter().map(|(path, (entry, held))| (path, (entry, names[&held].clone()))).collect();
    (Seen { files, config: config["config"].clone(), below }, diff_ids)
}

/// Builds a project as it is, squashed, and squashed with a cache that knows its steps, and then its result.
async fn compare(bench: &Bench, world: &World) -> Option<(usize, usize)> {
    let squash = |request: &mut Request| request.squash = true;
    let text = world.dockerfile();
    let plain = bench.build(world, Some(settings(bench, PLAIN)), "plain:1").await;
    let squashed = bench.build_as(world, None, "squashed:1", squash).await;
    assert_eq!(plain.result.is_ok(), squashed.result.is_ok(), "{text}\n{}\n{}", plain.log, squashed.log);
    let digest = squashed.result.ok()?;
    for name in ["squashed:1", "elsewhere:1"] {
        let cached = bench.build_as(world, Some(settings(bench, PLAIN)), name, squash).await;
        assert_eq!(cached.result.as_ref(), Ok(&digest), "{name}: {text}\n{}", cached.log);
    }
    let (plain, all) = seen(bench, "plain").await;
    let (squashed, merged) = seen(bench, "squashed").await;
    assert_eq!(squashed, plain, "{text}");
    let below = plain.below;
    assert_eq!(merged[..below], all[..below], "{text}");
    assert!(merged.len() <= below + 1, "{text}: {merged:?}");
    if all.len() <= below + 1 {
        assert_eq!(merged, all, "{text}");
    }
    Some((all.len() - below, merged.len() - below))
}

#[test]
fn a_squashed_image_shows_the_files_of_one_that_is_not() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let (client, several) = (client(), Cell::new(0));
    // The same cases every time, unless PROPTEST_RNG_SEED or PROPTEST_CASES say otherwise.
    let standard = Config::default();
    let rng_seed = if standard.rng_seed == RngSeed::Random { RngSeed::Fixed(1) } else { standard.rng_seed };
    let cases = if standard.cases == 256 { CASES } else { standard.cases };
    let config = Config { cases, rng_seed, failure_persistence: None, max_shrink_iters: 400, ..standard };
    let result = TestRunner::new(config).run(&any_world(), |world| {
        let layers = runtime.block_on(async { compare(&Bench::new(client.clone()).await, &world).await });
        if layers.is_some_and(|(all, _)| all > 1) {
            several.set(several.get() + 1);
        }
        Ok(())
    });
    if let Err(failure) = result {
        panic!("{failure}");
    }
    assert!(several.get() > cases / 3, "only {} of {cases} projects make several layers", several.get());
}
