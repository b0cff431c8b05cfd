//! What goes and what stays, in a repository in memory.

use std::time::Duration;

use serde_json::json;
use yadokari_registry::{BlobSource, BytesBlob, Memory, media};

use super::*;
use crate::cache::annotations::{CREATED, KIND, VERSION as RECORD};
use crate::cache::record::{Body, Record, common_blobs};
use crate::context::glob::Glob;
use crate::image::rfc3339;

const NOW: i64 = 1_700_000_000;
const HOUR: i64 = 3600;

/// Puts blobs in the store, and gives their descriptors.
async fn blobs(store: &Memory, texts: &[&str]) -> Vec<serde_json::Value> {
    let mut descriptors = Vec::new();
    for text in texts {
        let blob = BytesBlob::new((*text).to_owned());
        store.write_blob(&blob, None).await.unwrap();
        descriptors.push(json!({"mediaType": media::OCI_CONFIG, "digest": blob.digest(), "size": blob.size()}));
    }
    descriptors
}

async fn put(store: &Memory, tags: &[&str], media_type: &str, manifest: serde_json::Value) -> Digest {
    let manifest = Manifest::new(media_type, manifest.to_string());
    for tag in tags {
        store.write_manifest(&Version::Tag((*tag).into()), &manifest).await.unwrap();
    }
    manifest.digest
}

/// A record that is so many hours old.
async fn record(store: &Memory, tags: &[&str], kind: &str, hours: i64, layers: &[&str]) -> Digest {
    let config = blobs(store, &["{}"]).await.remove(0);
    let created = rfc3339(NOW - hours * HOUR);
    let manifest = json!({
        "schemaVersion": 2, "config": config, "layers": blobs(store, layers).await,
        "annotations": {RECORD: "1", KIND: kind, CREATED: created},
    });
    put(store, tags, media::OCI_MANIFEST, manifest).await
}

/// An image that is so many hours old, or does not say.
async fn image(store: &Memory, tags: &[&str], hours: Option<i64>) -> Digest {
    let created = hours.map(|hours| rfc3339(NOW - hours * HOUR));
    let config = json!({"created": created, "tags": tags}).to_string();
    let config = blobs(store, &[config.as_str()]).await.remove(0);
    let manifest = json!({"schemaVersion": 2, "config": config, "layers": blobs(store, &["layer"]).await});
    put(store, tags, media::OCI_MANIFEST, manifest).await
}

async fn index(store: &Memory, tags: &[&str], images: &[Digest]) -> Digest {
    let mut manifests = Vec::new();
    for digest in images {
        let part = store.read_manifest(&Version::Digest(*digest)).await.unwrap().unwrap();
        manifests.push(serde_json::to_value(part.descriptor().unwrap()).unwrap());
    }
    put(store, tags, media::OCI_INDEX, json!({"schemaVersion": 2, "manifests": manifests})).await
}

fn gone(sweep: &Sweep) -> Vec<String> {
    sweep.goes.iter().map(|item| item.tags.join(" ")).collect()
}

fn hours(hours: u64) -> Duration {
    Duration::from_secs(hours * 3600)
}

async fn look_at_records(store: &Memory, ttl: u64, max_size: Option<u64>) -> Sweep {
    records(store, &RecordPolicy { ttl: hours(ttl), max_size }, NOW).await.unwrap()
}

async fn look_at_images(store: &Memory, patterns: &[&str], older_than: u64, keep: usize) -> Sweep {
    let tags = patterns.iter().map(|pattern| Glob::new(pattern).unwrap()).collect();
    images(store, &ImagePolicy { tags, older_than: hours(older_than), keep }, NOW).await.unwrap()
}

#[tokio::test]
async fn records_that_are_too_old_go_with_all_their_tags() {
    let store = Memory::new();
    record(&store, &["a"], "step", 10, &["1234"]).await;
    record(&store, &["b", "last-main"], "result", 30, &[]).await;
    record(&store, &["c"], "index", 400, &["12", "345"]).await;
    record(&store, &["d"], "step", -5, &[]).await;
    let sweep = look_at_records(&store, 24, None).await;
    assert_eq!(gone(&sweep), ["c", "b last-main"]);
    assert_eq!((sweep.stay, sweep.size, sweep.remarks.len()), (2, Some(4), 0));
    let text = sweep.text();
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(
        lines,
        [
            "memory:test: 2 of 4 records to delete",
            "  index c: 16 days old, 5 B, older than 24 h",
            "  result b last-main: 30 h old, 0 B, older than 24 h",
            "  2 records of 4 B stay",
        ]
    );
    assert_eq!(delete(&store, &sweep).await.unwrap(), 2);
    assert_eq!(store.tags().await.unwrap(), ["a", "d"]);
    assert_eq!(delete(&store, &sweep).await.unwrap(), 0);
    assert_eq!(gone(&look_at_records(&store, 0, None).await), ["a"]);
}

#[tokio::test]
async fn the_oldest_of_too_many_go_and_a_layer_counts_once() {
    let store = Memory::new();
    for (tag, hours, layers) in
        [("a", 4, &["shared", "aaaa"][..]), ("b", 3, &["shared"]), ("c", 2, &["cc"]), ("d", 1, &["cc", "shared", "d"])]
    {
        record(&store, &[tag], "step", hours, layers).await;
    }
    // Together they have 6 + 4 + 2 + 1 bytes.
    for (most, expected, left) in [
        (13, &[][..], 13),
        (12, &["a"], 9),
        (9, &["a"], 9),
        (8, &["a", "b", "c", "d"], 0),
        (0, &["a", "b", "c", "d"], 0),
    ] {
        let sweep = look_at_records(&store, 100, Some(most)).await;
        assert_eq!(
            (gone(&sweep), sweep.size),
            (expected.iter().map(ToString::to_string).collect(), Some(left)),
            "{most}"
        );
    }
    let sweep = look_at_records(&store, 3, Some(9)).await;
    assert_eq!(gone(&sweep), ["a"]);
    assert_eq!(sweep.goes[0].why, "older than 3 h");
    assert_eq!(look_at_records(&store, 100, Some(9)).await.goes[0].why, "the oldest of more than 9 B");
}

#[tokio::test]
async fn what_a_build_writes_is_a_record() {
    let store = Memory::new();
    for blob in common_blobs() {
        store.write_blob(&blob, None).await.unwrap();
    }
    let names = vec!["name".to_owned()];
    let record = Record { names, created: NOW - 2 * HOUR, body: Body::Step { layer: None } };
    for (tag, key) in [("plain", None), ("signed", Some(&b"key"[..]))] {
        store.write_manifest(&Version::Tag(tag.into()), &record.encode(key)).await.unwrap();
    }
    let mut tags = gone(&look_at_records(&store, 1, None).await);
    tags.sort();
    assert_eq!(tags, ["plain", "signed"]);
    assert_eq!(gone(&look_at_records(&store, 3, None).await), [""; 0]);
}

#[tokio::test]
async fn what_is_no_record_is_left_alone_and_counted() {
    let store = Memory::new();
    record(&store, &["old"], "step", 400, &[]).await;
    image(&store, &["kaniko"], Some(9000)).await;
    let part = record(&store, &["other-kind"], "something", 400, &[]).await;
    index(&store, &["several"], &[part]).await;
    let manifest = json!({
        "schemaVersion": 2, "config": blobs(&store, &["{}"]).await.remove(0), "layers": [],
        "annotations": {RECORD: "2", KIND: "step", CREATED: "2001-01-01T00:00:00Z"},
    });
    put(&store, &["later-version"], media::OCI_MANIFEST, manifest).await;
    let sweep = look_at_records(&store, 1, Some(0)).await;
    assert_eq!(gone(&sweep), ["old"]);
    assert_eq!(sweep.remarks, ["4 manifests are no records and are left alone"]);
    assert_eq!(sweep.text().lines().next(), Some("memory:test: 1 of 1 records to delete"));
}

#[tokio::test]
async fn a_manifest_that_cannot_be_read_stays_and_is_named() {
    let store = Memory::new();
    let digest = record(&store, &["broken"], "step", 400, &[]).await;
    record(&store, &["old"], "step", 400, &["x"]).await;
    store.corrupt_manifest(&digest, Manifest::new(media::OCI_MANIFEST, "{}"));
    let sweep = look_at_records(&store, 1, None).await;
    assert_eq!(gone(&sweep), ["old"]);
    assert!(sweep.remarks[0].starts_with("broken stays: "), "{:?}", sweep.remarks);
}

#[tokio::test]
async fn an_empty_repository_has_nothing_to_delete() {
    let sweep = look_at_records(&Memory::new(), 1, None).await;
    assert_eq!(sweep.text(), "memory:test: 0 of 0 records to delete\n  0 records of 0 B stay");
}

#[tokio::test]
async fn images_of_a_pattern_go_when_they_are_old() {
    let store = Memory::new();
    image(&store, &["ci-1", "ci-1-again"], Some(100)).await;
    image(&store, &["ci-2"], Some(50)).await;
    image(&store, &["ci-3"], Some(1)).await;
    image(&store, &["v1"], Some(900)).await;
    image(&store, &["pr-1"], Some(70)).await;
    assert_eq!(gone(&look_at_images(&store, &["ci-*"], 24, 0).await), ["ci-1 ci-1-again", "ci-2"]);
    let sweep = look_at_images(&store, &["ci-*", "pr-?"], 24, 0).await;
    assert_eq!(gone(&sweep), ["ci-1 ci-1-again", "pr-1", "ci-2"]);
    assert_eq!((sweep.stay, sweep.remarks.len()), (2, 0));
    assert!(sweep.text().contains("\n  image pr-1: 2 days old, 5 B, older than 24 h"), "{}", sweep.text());
    assert_eq!(gone(&look_at_images(&store, &["CI-*"], 0, 0).await), [""; 0]);
    delete(&store, &sweep).await.unwrap();
    assert_eq!(store.tags().await.unwrap(), ["ci-3", "v1"]);
}

#[tokio::test]
async fn the_newest_images_of_a_pattern_stay() {
    let store = Memory::new();
    for (tag, hours) in [("ci-1", 400), ("ci-2", 300), ("ci-3", 200), ("v1", 100)] {
        image(&store, &[tag], Some(hours)).await;
    }
    for (keep, expected) in [(0, &["ci-1", "ci-2", "ci-3"][..]), (2, &["ci-1"]), (3, &[]), (9, &[])] {
        assert_eq!(gone(&look_at_images(&store, &["ci-*"], 24, keep).await), expected, "{keep}");
    }
}

#[tokio::test]
async fn an_image_that_another_tag_or_an_index_needs_stays() {
    let store = Memory::new();
    image(&store, &["ci-1", "stable"], Some(100)).await;
    let part = image(&store, &["ci-2"], Some(100)).await;
    index(&store, &["v1"], &[part]).await;
    let other = image(&store, &["ci-3"], Some(90)).await;
    // An index that goes needs nothing any more.
    index(&store, &["ci-4"], &[other]).await;
    // A part of an index that itself is a part of what stays.
    let inner = image(&store, &["ci-5"], Some(80)).await;
    let outer = index(&store, &["ci-6"], &[inner]).await;
    index(&store, &["v2"], &[outer]).await;
    let sweep = look_at_images(&store, &["ci-*"], 24, 0).await;
    assert_eq!(gone(&sweep), ["ci-3", "ci-4"]);
    assert_eq!(
        sweep.remarks,
        [
            "ci-1 stable stays: stable is the same image",
            "ci-2 stays: it is a part of v1",
            "ci-6 stays: it is a part of v2",
            "ci-5 stays: it is a part of ci-6",
        ]
    );
    let kinds: Vec<_> = sweep.goes.iter().map(|item| (item.kind.as_str(), item.size)).collect();
    assert_eq!(kinds, [("image", Some(5)), ("index", None)]);
}

#[tokio::test]
async fn an_image_without_a_time_stays() {
    let store = Memory::new();
    image(&store, &["none"], None).await;
    image(&store, &["epoch"], Some(NOW / HOUR)).await;
    let broken = image(&store, &["broken"], Some(100)).await;
    let config = store.read_manifest(&Version::Digest(broken)).await.unwrap().unwrap().image().unwrap();
    store.forget_blob(&digest_of(config.config()).unwrap());
    let sweep = look_at_images(&store, &["*"], 1, 0).await;
    assert_eq!(gone(&sweep), [""; 0]);
    let reasons = ["none", "epoch", "broken"].map(|tag| format!("{tag} stays: it does not say when it was made"));
    assert!(reasons.iter().all(|reason| sweep.remarks.contains(reason)), "{:?}", sweep.remarks);
}
