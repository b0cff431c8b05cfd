//! The client against a registry that misbehaves.

use std::time::{Duration, Instant};

use super::{answer, client, count, fixture, image, quick, repository};
use crate::memory::{Effect, Fault, Locations, Memory, Serving};
use crate::{
    BlobSource as _, BytesBlob, ClientOptions, Digest, Error, Failure, Manifest, Platform, Size, Store as _, Timeouts,
    Version, Written, media, pull_manifest,
};

fn refusal(status: u16, headers: &[(&str, &str)]) -> Effect {
    answer(status, headers, r#"{"errors":[{"code":"WORDS","message":"the registry's own"}]}"#)
}

#[tokio::test]
async fn transient_answers_are_tried_again_and_others_are_not() {
    for (status, tries) in [(408, 3), (429, 3), (500, 3), (502, 3), (503, 3), (504, 3), (400, 1), (403, 1), (501, 1)] {
        let (_memory, served, store) = fixture().await;
        served.inject(Fault { method: "", path: "/blobs/", times: 2, effect: refusal(status, &[]) });
        let result = store.has_blob(&Digest::of("x")).await;
        assert_eq!(count(&served, "HEAD", "/blobs/"), tries, "{status}");
        assert_eq!(result.is_ok(), tries > 1, "{status}");
    }
}

#[tokio::test]
async fn retry_after_is_obeyed() {
    let (_memory, served, store) = fixture().await;
    served.inject(Fault { method: "POST", path: "", times: 1, effect: refusal(429, &[("Retry-After", "1")]) });
    let started = Instant::now();
    store.write_blob(&BytesBlob::new("x"), None).await.unwrap();
    assert!(started.elapsed() >= Duration::from_secs(1));
}

#[tokio::test]
async fn the_registrys_own_words_end_a_hopeless_push() {
    let (_memory, served, store) = fixture().await;
    let limits = [("RateLimit-Limit", "100;w=21600"), ("RateLimit-Remaining", "0")];
    served.inject(Fault { method: "PUT", path: "", times: 99, effect: refusal(429, &limits) });
    let error = store.write_blob(&BytesBlob::new("x"), None).await.unwrap_err();
    assert!(matches!(&error, Error::Refused { status: 429, code: Some(code), .. } if code == "WORDS"), "{error:?}");
    assert!(error.to_string().ends_with("WORDS: the registry's own (limit 100;w=21600, remaining 0)"), "{error}");
    assert!(!error.to_string().contains("_state"), "an upload session is a secret: {error}");
    assert_eq!(count(&served, "PUT", ""), 5);
}

#[tokio::test]
async fn mounts_are_tried_and_any_refusal_ends_in_an_upload() {
    let cases = [
        (None, Written::Mounted),
        (Some(Effect::NoMount), Written::Uploaded),
        (Some(refusal(405, &[])), Written::Uploaded),
        (Some(refusal(500, &[])), Written::Uploaded),
        (Some(refusal(202, &[])), Written::Uploaded),
    ];
    for (fault, expected) in cases {
        let (memory, served, store) = fixture().await;
        let blob = BytesBlob::new("layer");
        memory.repository("base").write_blob(&blob, None).await.unwrap();
        if let Some(effect) = fault.clone() {
            served.inject(Fault { method: "POST", path: "", times: 1, effect });
        }
        assert_eq!(store.write_blob(&blob, Some("base")).await.unwrap(), expected, "{fault:?}");
        assert_eq!(memory.blobs(), [blob.digest()]);
        assert_eq!(store.write_blob(&BytesBlob::new("no base has it"), Some("base")).await.unwrap(), Written::Uploaded);
    }
}

#[tokio::test]
async fn uploads_survive_cut_connections_and_lost_answers() {
    let content = vec![7; 3 << 20];
    for effect in [Effect::CutRequest(1 << 20), Effect::LoseAnswer, Effect::Silence] {
        for locations in [Locations::Relative, Locations::Absolute] {
            let memory = Memory::new().repository("app");
            let served = memory.serve_with(Serving { locations, ..Serving::default() }).await.unwrap();
            let store = repository(&client(quick()), &served, "app");
            served.inject(Fault { method: "PUT", path: "", times: 1, effect: effect.clone() });
            let blob = BytesBlob::new(content.clone());
            store.write_blob(&blob, None).await.unwrap();
            let sent_again = if matches!(effect, Effect::LoseAnswer) { 1 } else { 2 };
            assert_eq!(count(&served, "PUT", ""), sent_again, "{effect:?}");
            assert_eq!(memory.blobs(), [blob.digest()]);
        }
    }
}

#[tokio::test]
async fn a_manifest_is_sent_again_when_the_registry_did_not_see_blobs_that_are_there() {
    let (memory, served, store) = fixture().await;
    let refuse = |times| Fault {
        method: "PUT",
        path: "/manifests/",
        times,
        effect: Effect::Answer {
            status: 400,
            headers: Vec::new(),
            body: r#"{"errors":[{"code":"MANIFEST_BLOB_UNKNOWN","message":"blob unknown to registry"}]}"#.into(),
        },
    };
    let config = BytesBlob::new("{}");
    let image = serde_json::json!({"schemaVersion": 2, "mediaType": media::OCI_MANIFEST, "layers": [],
        "config": {"mediaType": media::OCI_CONFIG, "digest": config.digest(), "size": 2}});
    let manifest = Manifest::new(media::OCI_MANIFEST, image.to_string());
    let tag = Version::Tag("1".into());
    served.inject(refuse(2));
    assert!(store.write_manifest(&tag, &manifest).await.is_err(), "a blob that is not there is none");
    assert_eq!(count(&served, "PUT", "/manifests/"), 1);
    memory.write_blob(&config, None).await.unwrap();
    store.write_manifest(&tag, &manifest).await.unwrap();
    assert_eq!(count(&served, "PUT", "/manifests/"), 3);
    served.inject(refuse(u32::MAX));
    let other = Manifest::new(media::OCI_MANIFEST, format!("{image} "));
    assert!(store.write_manifest(&tag, &other).await.is_err(), "nobody waits for ever");
}

#[tokio::test]
async fn downloads_resume_where_they_were_cut() {
    let (memory, served, store) = fixture().await;
    let content: Vec<u8> = (0..3_000_000_u32).map(|n| (n % 249) as u8).collect();
    let blob = BytesBlob::new(content.clone());
    memory.write_blob(&blob, None).await.unwrap();
    for _ in 0..8 {
        served.inject(Fault { method: "GET", path: "/blobs/", times: 1, effect: Effect::CutAnswer(300_000) });
    }
    let read = crate::read_small(&store, &blob.digest(), Some(blob.size()), 1 << 30).await.unwrap();
    assert!(read == content);
    assert_eq!(count(&served, "GET", "/blobs/"), 9);
}

#[tokio::test]
async fn a_registry_that_vanishes_in_mid_push_is_named_within_seconds() {
    let (_memory, served, store) = fixture().await;
    let host = served.host();
    store.check_push().await.unwrap();
    drop(served);
    let started = Instant::now();
    let error = store.write_blob(&BytesBlob::new("x"), None).await.unwrap_err();
    assert!(matches!(error, Error::Unreachable { .. }), "{error}");
    assert!(error.to_string().contains(&host) && error.to_string().contains("refused"), "{error}");
    assert!(started.elapsed() < Duration::from_secs(5));
}

#[tokio::test]
async fn silence_is_an_error() {
    let (_memory, served, store) = fixture().await;
    served.inject(Fault { method: "HEAD", path: "", times: 99, effect: Effect::Silence });
    let error = store.has_blob(&Digest::of("x")).await.unwrap_err();
    assert!(error.to_string().ends_with("nothing came for 0.5 s"), "{error}");
}

#[tokio::test]
async fn wrong_content_from_a_registry_is_detected() {
    let (memory, _served, store) = fixture().await;
    let (config, layer) = (BytesBlob::new("{}"), BytesBlob::new("layer"));
    memory.write_blob(&config, None).await.unwrap();
    memory.write_blob(&layer, None).await.unwrap();
    let manifest = image(&config, &[&layer]);
    let tag = Version::Tag("1".into());
    memory.write_manifest(&tag, &manifest).await.unwrap();
    for rot in ["LAYER", "laye", "layers"] {
        memory.corrupt_blob(&layer.digest(), rot);
        let error = crate::read_small(&store, &layer.digest(), Some(5), 100).await.unwrap_err();
        assert!(matches!(error, Error::Mismatch { .. }), "{error}");
    }
    memory.corrupt_manifest(&manifest.digest, image(&layer, &[&config]));
    for version in [tag, Version::Digest(manifest.digest)] {
        let error = store.read_manifest(&version).await.unwrap_err();
        assert!(matches!(error, Error::Mismatch { .. }), "{error}");
    }
}

#[tokio::test]
async fn registries_that_declare_no_digest_or_refuse_head_are_served_by_get() {
    let memory = Memory::new().repository("app");
    let served = memory.serve_with(Serving { declare_digests: false, ..Serving::default() }).await.unwrap();
    let store = repository(&client(quick()), &served, "app");
    let config = BytesBlob::new("{}");
    store.write_blob(&config, None).await.unwrap();
    let (tag, manifest) = (Version::Tag("1".into()), image(&config, &[]));
    store.write_manifest(&tag, &manifest).await.unwrap();
    assert_eq!(store.manifest_digest(&tag).await.unwrap(), Some(manifest.digest));
    served.inject(Fault { method: "HEAD", path: "", times: 2, effect: refusal(405, &[]) });
    assert!(store.has_blob(&config.digest()).await.unwrap());
    assert_eq!(store.manifest_digest(&tag).await.unwrap(), Some(manifest.digest));
    memory.corrupt_manifest(&manifest.digest, Manifest::new(media::OCI_MANIFEST, "{}"));
    assert!(store.read_manifest(&Version::Digest(manifest.digest)).await.is_err());
}

#[tokio::test]
async fn a_blob_without_a_declared_length_is_there_all_the_same() {
    // The test registry always declares one.
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let host = listener.local_addr().unwrap().to_string();
    let serving = tokio::spawn(async move {
        use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
        while let Ok((stream, _)) = listener.accept().await {
            let mut stream = BufReader::new(stream);
            let mut line = String::new();
            while stream.read_line(&mut line).await.unwrap() > 2 {
                line.clear();
            }
            stream.write_all(b"HTTP/1.1 200 -\r\nconnection: close\r\n\r\n").await.unwrap();
        }
    });
    let store = client(quick()).repository(&format!("{host}/app").parse().unwrap());
    let digest = Digest::of("x");
    assert_eq!(store.blob_size(&digest).await.unwrap(), Some(Size::Untold));
    assert!(store.has_blob(&digest).await.unwrap());
    serving.abort();
}

#[tokio::test]
async fn requests_are_delayed_side_by_side() {
    let (memory, delay) = (Memory::new().repository("app"), Duration::from_millis(200));
    let served = memory.serve_with(Serving { delay, ..Serving::default() }).await.unwrap();
    let store = repository(&client(quick()), &served, "app");
    let digest = Digest::of("x");
    let started = Instant::now();
    assert!(!store.has_blob(&digest).await.unwrap());
    assert!(started.elapsed() >= 2 * delay, "one for the scheme, one for the blob");
    let started = Instant::now();
    let found = futures_util::future::join_all((0..8).map(|_| store.has_blob(&digest))).await;
    assert!(found.into_iter().all(|found| !found.unwrap()));
    let elapsed = started.elapsed();
    assert!(delay <= elapsed && elapsed < 5 * delay, "{elapsed:?}");
}

#[tokio::test]
async fn the_diary_counts_bytes_up_and_down() {
    let (_memory, served, store) = fixture().await;
    let blob = BytesBlob::new(vec![7; 1000]);
    served.inject(Fault { method: "PUT", path: "", times: 1, effect: Effect::CutRequest(100) });
    store.write_blob(&blob, None).await.unwrap();
    served.inject(Fault { method: "GET", path: "", times: 1, effect: Effect::CutAnswer(300) });
    crate::read_small(&store, &blob.digest(), None, 1000).await.unwrap();
    let bytes = |method: &str| -> Vec<_> {
        let is_blob = |path: &str| path.contains("/blobs/") && (method != "GET" || !path.contains("/uploads/"));
        let blobs = served.seen().into_iter().filter(|seen| seen.method == method && is_blob(&seen.path));
        blobs.map(|seen| (seen.status, seen.received, seen.sent)).collect()
    };
    assert_eq!(bytes("PUT"), [(0, 100, 0), (201, 1000, 0)]);
    assert_eq!(bytes("GET"), [(200, 0, 300), (206, 0, 700)]);
    store.has_blob(&blob.digest()).await.unwrap();
    assert_eq!(bytes("HEAD").last(), Some(&(200, 0, 0)));
}

#[tokio::test]
async fn an_immutable_tag_that_names_the_manifest_already_is_no_failure() {
    let (_memory, served, store) = fixture().await;
    let config = BytesBlob::new("{}");
    store.write_blob(&config, None).await.unwrap();
    let (tag, manifest) = (Version::Tag("1".into()), image(&config, &[]));
    store.write_manifest(&tag, &manifest).await.unwrap();
    served.inject(Fault { method: "PUT", path: "", times: 2, effect: refusal(409, &[]) });
    store.write_manifest(&tag, &manifest).await.unwrap();
    let other = image(&config, &[&config]);
    assert!(matches!(store.write_manifest(&tag, &other).await, Err(Error::Refused { status: 409, .. })));
}

#[tokio::test]
async fn redirects_into_a_loop_or_without_end_are_refused() {
    let (_memory, served, store) = fixture().await;
    served.inject(Fault { method: "GET", path: "", times: 99, effect: refusal(307, &[("Location", "?again")]) });
    let error = crate::read_small(&store, &Digest::of("x"), None, 100).await.unwrap_err();
    assert!(error.to_string().contains("redirects more than 5 times"), "{error}");
}

#[tokio::test]
async fn a_pull_falls_back_from_mirrors_and_keeps_the_registrys_error() {
    let (memory, served, _store) = fixture().await;
    let config = BytesBlob::new("{}");
    memory.write_blob(&config, None).await.unwrap();
    memory.write_manifest(&Version::Tag("1".into()), &image(&config, &[])).await.unwrap();
    let empty = Memory::new().serve().await.unwrap();
    let maps = vec![(served.host(), "127.0.0.1:1/gone".into()), (served.host(), format!("{}/proxy", empty.host()))];
    let client = client(ClientOptions { maps, ..quick() });
    let reference = |tag: &str| format!("{}/app:{tag}", served.host()).parse().unwrap();
    // On a task of its own: the client's futures must be free to move between threads.
    let (mover, first) = (client.clone(), reference("1"));
    let pulling = tokio::spawn(async move { pull_manifest(&mover, &first, &Platform::host()).await });
    let pulled = pulling.await.unwrap().unwrap();
    assert_eq!((pulled.store.registry(), pulled.resolved.config.as_ref()), (served.host().as_str(), &b"{}"[..]));
    assert_eq!(count(&empty, "GET", "/v2/proxy/app/manifests/1"), 1);
    let error = pull_manifest(&client, &reference("2"), &Platform::host()).await.unwrap_err();
    assert_eq!(error.to_string(), format!("manifest 2 not found in {}/app", served.host()));
}

#[tokio::test]
async fn a_manifest_is_not_read_beyond_its_limit() {
    let (_memory, served, _) = fixture().await;
    // As much time as usual: what is looked at here is the size.
    let usual = ClientOptions { timeouts: Timeouts::default(), ..quick() };
    let store = repository(&client(usual), &served, "app");
    let long = " ".repeat((16 << 20) + 1);
    served.inject(Fault { method: "GET", path: "/manifests/", times: 1, effect: answer(200, &[], &long) });
    let error = store.read_manifest(&Version::Tag("1".into())).await.unwrap_err();
    assert!(error.to_string().ends_with("its answer is longer than 16777216 bytes"), "{error}");
    assert_eq!(count(&served, "GET", "/manifests/"), 1);
}

#[tokio::test]
async fn plain_http_is_spoken_beyond_this_machine_only_where_that_is_said() {
    let (_memory, served, _store) = fixture().await;
    // This machine, by an address that is no loopback address.
    let host = served.host().replace("127.0.0.1", "0.0.0.0");
    let once = crate::RetryPolicy { tries: 1, ..quick().retry };
    let has_blob = async |options: ClientOptions| {
        let client = client(ClientOptions { retry: once, ..options });
        client.repository(&format!("{host}/app").parse().unwrap()).has_blob(&Digest::of("x")).await
    };
    assert!(has_blob(quick()).await.is_err());
    let other = ClientOptions { insecure_registries: vec!["other.example".into()], ..quick() };
    assert!(has_blob(other).await.is_err());
    assert!(served.seen().is_empty(), "nothing was said in plain HTTP");
    assert!(!has_blob(ClientOptions { insecure_registries: vec![host.clone()], ..quick() }).await.unwrap());
    assert!(!has_blob(ClientOptions { insecure: true, ..quick() }).await.unwrap());
}

#[tokio::test]
async fn schema_1_is_refused_in_plain_words() {
    let (_memory, served, _store) = fixture().await;
    let effect = Effect::Answer {
        status: 200,
        headers: vec![("Content-Type".into(), "application/vnd.docker.distribution.manifest.v1+prettyjws".into())],
        body: r#"{"schemaVersion":1,"fsLayers":[]}"#.into(),
    };
    served.inject(Fault { method: "GET", path: "/manifests/", times: 1, effect });
    let reference = format!("{}/app", served.host()).parse().unwrap();
    let error = pull_manifest(&client(quick()), &reference, &Platform::host()).await.unwrap_err();
    assert!(error.to_string().contains("schema 1, obsolete since 2017"), "{error}");
}

#[tokio::test]
async fn a_failed_handshake_is_permanent_and_a_refused_connection_is_not() {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("https://{}/", listener.local_addr().unwrap());
    let http = reqwest::Client::builder().no_proxy().tls_certs_only([]).build().unwrap();
    let plain = async {
        let (mut stream, _) = listener.accept().await.unwrap();
        stream.read_u8().await.unwrap();
        stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").await.unwrap();
        stream
    };
    let (failed, _stream) = tokio::join!(http.get(&url).send(), plain);
    let failure = Failure::Transport(failed.unwrap_err());
    assert!(failure.is_permanent(), "{failure}");
    drop(listener);
    let failure = Failure::Transport(http.get(&url).send().await.unwrap_err());
    assert!(!failure.is_permanent(), "{failure}");
}

#[tokio::test]
async fn a_blob_that_was_cut_off_or_rotted_is_sent_again() {
    let (memory, _served, store) = fixture().await;
    let blob = BytesBlob::new("content");
    memory.corrupt_blob(&blob.digest(), "cont");
    assert_eq!(store.write_blob(&blob, None).await.unwrap(), Written::Uploaded);
    memory.corrupt_blob(&blob.digest(), "CONTENT");
    assert_eq!(store.write_blob(&blob, None).await.unwrap(), Written::Already, "its size is right");
    store.replace_blob(&blob).await.unwrap();
    assert_eq!(crate::read_small(&store, &blob.digest(), Some(7), 7).await.unwrap(), "content");
}
