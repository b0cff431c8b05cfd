//! Registries that say what is not so: digests, sizes, encodings, and what an index says of its manifests.

use serde_json::json;

use super::{answer, client, count, fixture, image, quick};
use crate::memory::{Effect, Fault};
use crate::{
    BlobSource as _, BytesBlob, Digest, Error, Manifest, Platform, Store, Version, Written, media, pull_manifest,
    read_small, resolve,
};

fn tag() -> Version {
    Version::Tag("1".into())
}

/// The header of another digest than the right one.
fn other_digest() -> Effect {
    Effect::Header("docker-content-digest", Some(Digest::of("another").to_string()))
}

#[tokio::test]
async fn a_digest_that_is_another_is_believed_of_nobody() {
    let (memory, served, store) = fixture().await;
    let (config, layer) = (BytesBlob::new("{}"), BytesBlob::new("layer"));
    for blob in [&config, &layer] {
        memory.write_blob(blob, None).await.unwrap();
    }
    let manifest = image(&config, &[&layer]);
    memory.write_manifest(&tag(), &manifest).await.unwrap();
    let by_digest = Version::Digest(manifest.digest);
    let lie = |method, path| served.inject(Fault { method, path, times: 1, effect: other_digest() });
    let mut refused = Vec::new();
    for version in [&tag(), &by_digest] {
        lie("GET", "/manifests/");
        refused.extend(store.read_manifest(version).await.err());
        lie("PUT", "/manifests/");
        refused.extend(store.write_manifest(version, &manifest).await.err());
    }
    lie("HEAD", "/manifests/");
    refused.extend(store.manifest_digest(&by_digest).await.err());
    lie("HEAD", "/blobs/");
    refused.extend(store.has_blob(&layer.digest()).await.err());
    lie("PUT", "/uploads/");
    refused.extend(store.write_blob(&BytesBlob::new("new"), None).await.err());
    assert_eq!(refused.len(), 7, "{refused:?}");
    for error in &refused {
        assert!(matches!(error, Error::Mismatch { .. }), "{error}");
        assert!(error.to_string().contains(&Digest::of("another").to_string()), "{error}");
    }
    // What HEAD says of a tag is not believed either by who then asks for the manifest by that digest.
    lie("HEAD", "/manifests/");
    let told = store.manifest_digest(&tag()).await.unwrap().unwrap();
    assert_eq!(store.read_manifest(&Version::Digest(told)).await.unwrap(), None);
}

#[tokio::test]
async fn a_mount_of_another_blob_is_none() {
    let (memory, served, store) = fixture().await;
    let layer = BytesBlob::new("layer");
    memory.repository("base").write_blob(&layer, None).await.unwrap();
    served.inject(Fault { method: "POST", path: "/uploads/", times: 1, effect: other_digest() });
    assert_eq!(store.write_blob(&layer, Some("base")).await.unwrap(), Written::Uploaded);
    assert_eq!(count(&served, "PUT", "/uploads/"), 1);
}

#[tokio::test]
async fn an_encoding_that_was_not_asked_for_is_not_undone() {
    let (memory, served, store) = fixture().await;
    let (config, layer) = (BytesBlob::new("{}"), BytesBlob::new("layer"));
    for blob in [&config, &layer] {
        memory.write_blob(blob, None).await.unwrap();
    }
    memory.write_manifest(&tag(), &image(&config, &[])).await.unwrap();
    // The header alone changes nothing: a layer's bytes are what its digest says.
    for encoding in ["gzip", "zstd", "x"] {
        let effect = Effect::Header("content-encoding", Some(encoding.into()));
        served.inject(Fault { method: "GET", path: "/app/", times: 2, effect });
        assert_eq!(read_small(&store, &layer.digest(), Some(5), 100).await.unwrap(), "layer");
        assert!(store.read_manifest(&tag()).await.unwrap().is_some());
    }
    // "layer" as gzip has it.
    let gzip = b"\x1f\x8b\x08\0\0\0\0\0\0\x03\xcbI\xacL-\x02\0\xd3\xd3\xa5\xd9\x05\0\0\0";
    memory.corrupt_blob(&layer.digest(), &gzip[..]);
    let effect = Effect::Header("content-encoding", Some("gzip".into()));
    served.inject(Fault { method: "GET", path: "/blobs/", times: 1, effect });
    let error = read_small(&store, &layer.digest(), None, 100).await.unwrap_err();
    assert!(matches!(error, Error::Mismatch { .. }), "{error}");
}

/// An index of one manifest, of which it says this.
async fn index(store: &dyn Store, said: serde_json::Value) -> Manifest {
    let text = json!({"schemaVersion": 2, "mediaType": media::OCI_INDEX, "manifests": [said]});
    let index = Manifest::new(media::OCI_INDEX, text.to_string());
    store.write_manifest(&Version::Digest(index.digest), &index).await.unwrap();
    index
}

#[tokio::test]
async fn a_manifest_is_what_its_index_says() {
    let (memory, served, store) = fixture().await;
    let config = BytesBlob::new("{}");
    memory.write_blob(&config, None).await.unwrap();
    let manifest = image(&config, &[]);
    memory.write_manifest(&Version::Digest(manifest.digest), &manifest).await.unwrap();
    let right = serde_json::to_value(manifest.descriptor().unwrap()).unwrap();
    let told = |name: &str, value: serde_json::Value| {
        let mut said = right.clone();
        said[name] = value;
        said
    };
    let cases = [
        (right.clone(), None),
        (told("mediaType", json!(media::OCI_INDEX)), Some("which is application/vnd.oci.image.manifest.v1+json")),
        (told("size", json!(1)), Some("has 1 bytes, which has ")),
        (told("size", json!(u64::MAX)), Some("has 18446744073709551615 bytes, which has ")),
        (told("size", json!(-1)), Some("not an image index")),
        (told("digest", json!("sha512:00")), Some("")),
        (told("digest", json!("../../secret")), Some("not an image index")),
    ];
    for (said, refused) in cases {
        let text = json!({"schemaVersion": 2, "mediaType": media::OCI_INDEX, "manifests": [said]}).to_string();
        let effect = answer(200, &[("content-type", media::OCI_INDEX)], &text);
        served.inject(Fault { method: "GET", path: "/manifests/1", times: 1, effect });
        let resolved = resolve(&store, &tag(), &Platform::host()).await;
        match (resolved, refused) {
            (Ok(resolved), None) => assert_eq!(resolved.manifest, manifest),
            (Err(error), Some(words)) => {
                assert!(error.to_string().contains(words), "{said}: {error}");
                assert!(matches!(error, Error::Manifest { .. }), "{error}");
            }
            (resolved, _) => panic!("{said}: {resolved:?}"),
        }
    }
}

#[tokio::test]
async fn indexes_of_indexes_come_to_an_end() {
    let (memory, _served, store) = fixture().await;
    let config = BytesBlob::new("{}");
    memory.write_blob(&config, None).await.unwrap();
    let mut top = image(&config, &[]);
    memory.write_manifest(&Version::Digest(top.digest), &top).await.unwrap();
    for depth in 1..6 {
        let said = serde_json::to_value(top.descriptor().unwrap()).unwrap();
        top = index(&memory, said).await;
        let resolved = resolve(&store, &Version::Digest(top.digest), &Platform::host()).await;
        match resolved {
            Ok(_) => assert!(depth < 4, "{depth}"),
            Err(error) => assert!(depth >= 4 && error.to_string().ends_with("nest too deeply"), "{depth}: {error}"),
        }
    }
}

#[tokio::test]
async fn thousands_of_platforms_make_one_short_line() {
    let (_memory, served, store) = fixture().await;
    let entry = |n: usize| {
        json!({"mediaType": media::OCI_MANIFEST, "digest": Digest::of("x"), "size": 1,
            "platform": {"os": format!("\u{1b}[31mplan9-{n}"), "architecture": "pdp\u{202e}11"}})
    };
    let entries: Vec<_> = (0..9000).map(entry).collect();
    let text = json!({"schemaVersion": 2, "mediaType": media::OCI_INDEX, "manifests": entries}).to_string();
    let effect = answer(200, &[("content-type", media::OCI_INDEX)], &text);
    served.inject(Fault { method: "GET", path: "/manifests/", times: 1, effect });
    let error = resolve(&store, &tag(), &Platform::host()).await.unwrap_err().to_string();
    assert!(error.contains("the image is for [31mplan9-0/pdp 11,") && error.len() < 800, "{error}");
    assert!(!error.chars().any(char::is_control));
}

#[tokio::test]
async fn a_type_that_the_header_and_the_document_disagree_on_is_none() {
    let (_memory, served, _) = fixture().await;
    let (image, index) = (r#"{"config":{},"layers":[]}"#, r#"{"manifests":[]}"#);
    let inside = |media_type: &str, rest: &str| format!(r#"{{"mediaType":"{media_type}",{}"#, &rest[1..]);
    let reference = format!("{}/app:1", served.host()).parse().unwrap();
    for (header, body) in [
        (media::OCI_MANIFEST, inside(media::OCI_INDEX, index)),
        (media::OCI_INDEX, inside(media::OCI_MANIFEST, image)),
        (media::OCI_MANIFEST, inside(media::DOCKER_MANIFEST, image)),
        (media::OCI_INDEX, image.to_owned()),
        ("text/html", "<html>".to_owned()),
        ("application/json", "[1]".to_owned()),
        // What a parser might take for the fields in their order.
        (media::OCI_INDEX, "[2,null,[],null,null,null]".to_owned()),
    ] {
        served.inject(Fault {
            method: "GET",
            path: "/manifests/",
            times: 1,
            effect: answer(200, &[("content-type", header)], &body),
        });
        let error = pull_manifest(&client(quick()), &reference, &Platform::host()).await.unwrap_err();
        assert!(matches!(error, Error::Manifest { .. }), "{header} {body}: {error}");
    }
}
