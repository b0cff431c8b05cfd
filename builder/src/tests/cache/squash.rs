//! All that a build makes as one layer.

use super::*;

fn squash(request: &mut Request) {
    request.squash = true;
}

/// The lines of the history that have a layer, and the number of diff ids.
fn counts(config: &Value) -> (usize, usize) {
    let lines = config["history"].as_array().unwrap();
    let with_layer = lines.iter().filter(|line| line["empty_layer"] != true).count();
    (with_layer, config["rootfs"]["diff_ids"].as_array().unwrap().len())
}

#[tokio::test(flavor = "multi_thread")]
async fn all_that_a_build_makes_becomes_one_layer_on_its_base() {
    let bench = Bench::cached().await;
    let text = "FROM HOST/first:1 AS below\nCOPY a /a\nWORKDIR /w\nFROM below\nCOPY b /b\nENV X=1\n";
    let plain = bench.run(text, |request| request.cache = None).await.built;
    let (before, _) = bench.pushed("app").await;
    let (base_config, base) = bench.pushed("first").await;
    let others = bench.registry.repository("app").blobs().len();
    let squashed = bench.run(text, |request| {
        squash(request);
        request.cache = None;
    });
    let squashed = squashed.await;
    let (config, layers) = bench.pushed("app").await;
    assert_eq!((plain.layers, squashed.built.layers, layers.len()), (4, 2, 2));
    assert_eq!(layers[..1], base);
    assert_eq!(bench.registry.repository("app").blobs().len() - others, 2, "one layer and a config are new");
    assert!(squashed.log.contains("[squash] 3 layers"), "{}", squashed.log);

    let (lines, old) = (config["history"].as_array().unwrap(), base_config["history"].as_array().unwrap());
    assert_eq!(lines[..old.len()], old[..]);
    assert!(lines[old.len()..lines.len() - 1].iter().all(|line| line["empty_layer"] == true), "{lines:?}");
    assert_eq!(counts(&config), (2, 2));
    let ids: Vec<_> = before["rootfs"]["diff_ids"].as_array().unwrap().iter().map(|id| id.as_str().unwrap()).collect();
    let chain = ids[1..].iter().fold(ids[0].to_owned(), |below, id| Digest::of(format!("{below} {id}")).to_string());
    assert_eq!(
        lines.last(),
        Some(&json!({"created": "1970-01-01T00:00:00Z", "comment": format!("merge {chain} to {}", ids[0])}))
    );
    assert_eq!(config["config"], before["config"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn on_nothing_it_is_the_only_layer() {
    let bench = Bench::cached().await;
    let text = "FROM scratch\nCOPY a /x\nCOPY b /x\n";
    bench.run(text, squash).await;
    let (config, layers) = bench.pushed("app").await;
    assert_eq!((counts(&config), layers.len()), ((1, 1), 1));
    let comment = config["history"][2]["comment"].as_str().unwrap();
    assert!(comment.starts_with("create new from sha256:"), "{comment}");
    // The lower file is not in it.
    let only = bench.run("FROM scratch\nCOPY b /x\n", |_| {}).await;
    assert_eq!((only.built.layers, bench.pushed("app").await.1), (1, layers));
}

#[tokio::test(flavor = "multi_thread")]
async fn one_layer_or_none_stays_what_it_is() {
    let bench = Bench::cached().await;
    for text in ["FROM HOST/first:1\nENV X=1\n", "FROM HOST/first:1\nCOPY a /a\nWORKDIR /\n", "FROM scratch\nENV X=1\n"]
    {
        let plain = bench.uncached(text).await;
        for _ in 0..2 {
            let squashed = bench.run(text, squash).await;
            assert_eq!(squashed.built.digest, plain, "{text}");
            assert!(!squashed.log.contains("[squash]"), "{}", squashed.log);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn layers_that_change_nothing_together_are_none() {
    let bench = Bench::cached().await;
    let text = "FROM HOST/first:1\nCOPY a /base0\nCOPY base /base0\n";
    let squashed = bench.run(text, squash).await;
    let (config, layers) = bench.pushed("app").await;
    let (_, base) = bench.pushed("first").await;
    assert_eq!((squashed.built.layers, layers), (1, base));
    assert_eq!(counts(&config), (1, 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_squashed_build_finds_its_steps_in_the_cache_and_its_layer_as_well() {
    let bench = Bench::cached().await;
    let plain = bench.run(TEXT, |_| {}).await;
    let first = bench.run(TEXT, squash).await;
    assert_ne!(first.built.digest, plain.built.digest);
    assert_eq!(first.log.matches("] cached").count(), 2, "the steps of another build: {}", first.log);
    assert_eq!(first.log.matches("[squash] done in ").count(), 1, "{}", first.log);
    let uncached = bench.run(TEXT, |request| {
        squash(request);
        request.cache = None;
    });
    assert_eq!(uncached.await.built, first.built);

    let again = bench.run(TEXT, squash).await;
    assert_eq!(again.built, first.built);
    assert!(again.log.contains("unchanged"), "{}", again.log);
    let elsewhere = |request: &mut Request| {
        squash(request);
        request.destinations = vec![bench.destination("other:1")];
    };
    let other = bench.run(TEXT, elsewhere).await;
    assert_eq!(other.built, first.built);
    assert!(other.log.contains("0 layers uploaded"), "{}", other.log);
    let relabelled = bench.run(&TEXT.replace("X=1", "X=2"), squash).await;
    assert_eq!(relabelled.log.matches("] cached").count(), 3, "{}", relabelled.log);
    let mut read = relabelled.read();
    read.sort();
    assert_eq!(read, ["first", "second"], "two configs, and no layer");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_squashed_layer_that_is_gone_or_spoiled_is_made_anew() {
    for spoil in [Memory::forget_blob as fn(&Memory, &Digest), |cache, digest| cache.corrupt_blob(digest, "spoiled")] {
        let bench = Bench::cached().await;
        let first = bench.run(TEXT, squash).await;
        let layer = bench.pushed("app").await.1.pop().unwrap().parse().unwrap();
        spoil(&bench.cache(), &layer);
        let text = TEXT.replace("ENV X=1", "ENV X=2");
        let elsewhere = |request: &mut Request| {
            squash(request);
            request.destinations = vec![bench.destination("other:1")];
        };
        let other = bench.run(&text, elsewhere).await;
        assert_eq!(other.built.layers, first.built.layers);
        assert_eq!(other.ignored().len(), 1, "{}", other.log);
        assert_eq!(other.log.matches("[squash] done in ").count(), 1, "{}", other.log);
        assert_eq!(bench.pushed("other").await.1.pop().unwrap().parse(), Ok(layer));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_cache_keeps_no_more_of_it_than_of_its_steps() {
    let bench = Bench::cached().await;
    let without_copies = |request: &mut Request| {
        squash(request);
        request.cache.as_mut().unwrap().copies = false;
    };
    let first = bench.run(TEXT, without_copies).await;
    let again = bench.run(TEXT, without_copies).await;
    assert_eq!((&again.built, again.log.matches("[squash] done in ").count()), (&first.built, 1), "{}", again.log);
    let layer = bench.pushed("app").await.1.pop().unwrap().parse().unwrap();
    assert!(!bench.cache().blobs().contains(&layer));
}

#[tokio::test(flavor = "multi_thread")]
async fn each_image_of_an_index_is_squashed() {
    let bench = Bench::cached().await;
    let text = "FROM HOST/base:1\nARG TARGETARCH\nCOPY a /$TARGETARCH\nCOPY b /b\n";
    let mut digests = Vec::new();
    for squash in [true, true, false] {
        let mut request = bench.request(text, &["linux/amd64", "linux/arm64"]);
        request.squash = squash;
        digests.push(bench.build(request).await.unwrap().digest);
        let listed = listed(&bench.registry.repository("app"), &Version::Tag("1".into())).await;
        let layers: Vec<usize> = listed.into_iter().map(|(_, _, layers)| layers).collect();
        assert_eq!(layers, if squash { [1, 1] } else { [2, 2] });
    }
    assert_eq!(digests[0], digests[1]);
}
