//! Registries that want what is not theirs: the logins of others, and what only this machine can reach.

use std::sync::{Arc, Mutex};
use std::time::Instant;

use super::stranger::{Stranger, Then};
use super::{answer, client, image, logged_in, quick, repository};
use crate::memory::{Auth, Effect, Fault, Memory, Served, Serving};
use crate::{
    BlobSource as _, BytesBlob, ClientOptions, Credentials, Digest, Error, Listener, Login, Platform, RegistryStore,
    Request, Secret, Store as _, Version, media, pull_manifest, read_small,
};

/// The password of all logins here, and what `Basic` makes of it.
const PLANTED: [&str; 2] = ["planted-password", "Y2k6cGxhbnRlZC1wYXNzd29yZA=="];

/// Where machines in clouds find their own logins.
const METADATA: [&str; 5] = [
    "http://169.254.169.254/latest/meta-data/iam/security-credentials/",
    "http://[fd00:ec2::254]/latest/meta-data/",
    "http://100.100.100.200/latest/meta-data/",
    "http://metadata.google.internal/computeMetadata/v1/",
    "http://[::ffff:a9fe:a9fe]/",
];

/// A registry that wants user and password.
async fn basic(memory: &Memory) -> (Served, RegistryStore) {
    let auth = Auth::Basic { user: "ci".into(), password: PLANTED[0].into() };
    let served = memory.serve_with(Serving { auth, ..Serving::default() }).await.unwrap();
    let store = repository(&client(logged_in(&served, "ci", PLANTED[0])), &served, "app");
    (served, store)
}

fn inject(served: &Served, method: &'static str, path: &'static str, effect: Effect) {
    served.inject(Fault { method, path, times: 1, effect });
}

fn holds_nothing(text: &str) {
    for secret in PLANTED {
        assert!(!text.contains(secret), "{text}");
    }
}

fn moved(to: &str) -> Effect {
    answer(307, &[("Location", to)], "")
}

#[tokio::test]
async fn no_redirect_and_no_upload_session_leads_to_a_metadata_server() {
    let memory = Memory::new();
    let (served, store) = basic(&memory).await;
    let (config, absent) = (BytesBlob::new("{}"), Digest::of("absent"));
    store.write_blob(&config, None).await.unwrap();
    let manifest = image(&config, &[]);
    let tag = Version::Tag("1".into());
    for place in METADATA {
        let started = Instant::now();
        let mut refused = Vec::new();
        inject(&served, "GET", "/blobs/", moved(place));
        refused.extend(read_small(&store, &absent, None, 100).await.err());
        inject(&served, "HEAD", "/blobs/", moved(place));
        refused.extend(store.has_blob(&absent).await.err());
        inject(&served, "GET", "/manifests/", moved(place));
        refused.extend(store.read_manifest(&tag).await.err());
        inject(&served, "PUT", "/manifests/", moved(place));
        refused.extend(store.write_manifest(&tag, &manifest).await.err());
        inject(&served, "GET", "/tags/", moved(place));
        refused.extend(store.tags().await.err());
        inject(&served, "POST", "/uploads/", answer(202, &[("Location", place)], ""));
        refused.extend(store.write_blob(&BytesBlob::new("layer"), None).await.err());
        inject(&served, "PUT", "/uploads/", moved(place));
        refused.extend(store.write_blob(&BytesBlob::new("layer"), None).await.err());
        assert_eq!(refused.len(), 7, "{refused:?}");
        for error in refused {
            assert!(error.to_string().contains("an address of this link or of a metadata server"), "{error}");
        }
        assert!(started.elapsed().as_secs() < 5, "nobody was asked");
    }
    assert_eq!(memory.repository("app").blobs(), [config.digest()]);
}

#[tokio::test]
async fn no_token_is_asked_of_a_metadata_server() {
    let memory = Memory::new();
    for place in METADATA {
        let served = memory.serve().await.unwrap();
        // Without a login as well: what it answers would go to the registry as a token.
        for options in [quick(), logged_in(&served, "ci", PLANTED[0])] {
            let challenge = format!(r#"Bearer realm="{place}",service="x""#);
            inject(&served, "HEAD", "", answer(401, &[("WWW-Authenticate", &challenge)], ""));
            let store = repository(&client(options), &served, "app");
            let error = store.has_blob(&Digest::of("x")).await.unwrap_err();
            assert!(error.to_string().contains("names a token server at"), "{error}");
        }
    }
}

#[tokio::test]
async fn nothing_is_fetched_from_a_metadata_server_but_by_who_asks_for_a_login() {
    let served = Memory::new().serve().await.unwrap();
    let client = client(quick());
    let mut file = tempfile::tempfile().unwrap();
    for place in METADATA {
        let direct = Request::get(place).unwrap();
        inject(&served, "", "/file", answer(302, &[("Location", place)], ""));
        let led = Request::get(&format!("http://{}/file", served.host())).unwrap();
        for request in [direct, led] {
            let error = client.download(&request, &mut file).await.unwrap_err();
            assert!(error.to_string().contains("of a metadata server"), "{error}");
        }
    }
    // Where tests run there may be no such address, and there must be no answer that is taken for one.
    let request = Request::get("http://169.254.169.253:9/").unwrap().direct().once();
    let asked = tokio::time::timeout(std::time::Duration::from_millis(500), client.fetch(&request)).await;
    assert!(!matches!(asked, Ok(Err(Error::Configuration { .. }))), "whoever asks for a login may ask it");
}

#[tokio::test]
async fn a_challenge_of_another_host_gets_no_login() {
    let memory = Memory::new();
    memory.repository("app").write_blob(&BytesBlob::new("layer"), None).await.unwrap();
    let digest = BytesBlob::new("layer").digest();
    for challenge in [r#"Basic realm="us""#, r#"Bearer realm="http://HOST/token",service="s""#] {
        let refusal = format!("HTTP/1.1 401 -\r\nwww-authenticate: {challenge}\r\ncontent-length: 0\r\n\r\n");
        let stranger = Stranger::start(refusal, Then::End).await;
        let (served, store) = basic(&memory).await;
        // The login is known by now, and is sent unasked to whom it belongs to.
        assert!(store.has_blob(&digest).await.unwrap());
        inject(&served, "GET", "/blobs/", moved(&format!("http://{}/storage?signature=1", stranger.host())));
        let error = read_small(&store, &digest, None, 100).await.unwrap_err();
        assert!(matches!(error, Error::Unauthorized { .. }), "{error}");
        let received = stranger.received();
        assert!(received.starts_with("GET /storage?signature=1 ") && !received.contains("/token"), "{received}");
        assert!(!received.to_lowercase().contains("authorization"), "{received}");
        holds_nothing(&format!("{received} {error} {error:?}"));
    }
}

#[tokio::test]
async fn who_was_led_away_does_not_come_back_with_the_login() {
    let memory = Memory::new();
    memory.repository("app").write_blob(&BytesBlob::new("layer"), None).await.unwrap();
    let digest = BytesBlob::new("layer").digest();
    let (served, store) = basic(&memory).await;
    assert!(store.has_blob(&digest).await.unwrap());
    let back =
        format!("HTTP/1.1 307 -\r\nlocation: http://{}/v2/private/x\r\ncontent-length: 0\r\n\r\n", served.host());
    let stranger = Stranger::start(back, Then::End).await;
    inject(&served, "GET", "/blobs/", moved(&format!("http://{}/", stranger.host())));
    assert!(read_small(&store, &digest, None, 100).await.is_err());
    let seen = served.seen();
    let back: Vec<_> = seen.iter().filter(|seen| seen.path == "/v2/private/x").collect();
    assert!(!back.is_empty() && back.iter().all(|seen| seen.authorization.is_none()), "{back:?}");
    holds_nothing(&stranger.received());

    // The same for what is fetched from a server that is no registry.
    inject(&served, "GET", "/file", moved(&format!("http://{}/", stranger.host())));
    let request = Request::get(&format!("http://{}/file", served.host())).unwrap();
    let request = request.authorization(Secret::new(format!("Bearer {}", PLANTED[0])));
    assert!(client(quick()).fetch(&request).await.is_err());
    let seen = served.seen();
    assert!(seen.iter().any(|seen| seen.path == "/file" && seen.authorization.is_some()));
    assert!(seen.iter().rfind(|seen| seen.path == "/v2/private/x").unwrap().authorization.is_none());
    holds_nothing(&stranger.received());
}

#[tokio::test]
async fn an_upload_that_goes_elsewhere_takes_no_login_along() {
    let memory = Memory::new();
    let stranger = Stranger::start("HTTP/1.1 201 -\r\ncontent-length: 0\r\n\r\n", Then::End).await;
    let (served, store) = basic(&memory).await;
    let location = format!("http://{}/upload?session=1", stranger.host());
    inject(&served, "POST", "/uploads/", answer(202, &[("Location", &location)], ""));
    let layer = BytesBlob::new("the layer's bytes");
    // The registry says that the first try failed, so that what it has is looked at.
    assert!(!store.has_blob(&layer.digest()).await.unwrap());
    store.write_blob(&layer, None).await.unwrap();
    let received = stranger.received();
    let line = format!("PUT /upload?session=1&digest={} ", layer.digest().to_string().replace(':', "%3A"));
    assert!(received.starts_with(&line) && received.ends_with("the layer's bytes"), "{received}");
    assert!(!received.to_lowercase().contains("authorization"), "{received}");
    holds_nothing(&received);
}

#[tokio::test]
async fn a_token_server_leads_nobody_on() {
    let memory = Memory::new();
    let auth =
        Auth::Bearer { user: "ci".into(), password: PLANTED[0].into(), life: std::time::Duration::from_secs(60) };
    let served = memory.serve_with(Serving { auth, ..Serving::default() }).await.unwrap();
    let stranger = Stranger::start("HTTP/1.1 200 -\r\ncontent-length: 13\r\n\r\n{\"token\":\"x\"}", Then::End).await;
    let mut identity = Credentials::default();
    identity.add(&served.host(), Login::Identity(Secret::new(PLANTED[0])));
    for options in [logged_in(&served, "ci", PLANTED[0]), ClientOptions { credentials: identity, ..quick() }] {
        inject(&served, "", "/token", moved(&format!("http://{}/token", stranger.host())));
        let store = repository(&client(options), &served, "app");
        let error = store.check_push().await.unwrap_err();
        assert!(matches!(error, Error::Refused { status: 307, .. }), "{error}");
        holds_nothing(&format!("{error} {error:?}"));
    }
    assert_eq!(stranger.received(), "");
}

#[tokio::test]
async fn what_a_server_quotes_of_a_login_is_not_shown() {
    let memory = Memory::new();
    let auth =
        || Auth::Bearer { user: "ci".into(), password: PLANTED[0].into(), life: std::time::Duration::from_secs(60) };
    let told = Arc::new(Mutex::new(String::new()));
    let listener = {
        let told = Arc::clone(&told);
        Listener::new(move |notice| *told.lock().unwrap() += &format!("{notice:?}\n"))
    };
    let quote =
        format!(r#"{{"errors":[{{"code":"X","message":"got '{}' and {}, that is"}}]}}"#, PLANTED[0], PLANTED[1]);
    let words = [("Warning", "299 - \"you sent Y2k6cGxhbnRlZC1wYXNzd29yZA== to us\""), ("RateLimit-Limit", PLANTED[0])];
    let headers = [&words[..], &[("RateLimit-Remaining", PLANTED[1])]].concat();
    let mut shown = Vec::new();

    for status in [400, 403, 404, 429, 500] {
        let (served, _) = basic(&memory).await;
        let options = ClientOptions { listener: listener.clone(), ..logged_in(&served, "ci", PLANTED[0]) };
        let store = repository(&client(options), &served, "app");
        served.inject(Fault { method: "PUT", path: "", times: u32::MAX, effect: answer(status, &headers, &quote) });
        shown.push(store.write_blob(&BytesBlob::new("layer"), None).await.unwrap_err());
        // In what becomes a path, too.
        inject(&served, "GET", "/blobs/", moved(&format!("http://{}/{}", served.host(), PLANTED[1])));
        inject(&served, "", PLANTED[1], answer(400, &[], &quote));
        shown.push(read_small(&store, &Digest::of("x"), None, 100).await.unwrap_err());
    }

    // A token server: by GET, and by POST with a form.
    for (faults, method) in [(0, "GET"), (1, "POST")] {
        let served = memory.serve_with(Serving { auth: auth(), ..Serving::default() }).await.unwrap();
        served.inject(Fault { method: "GET", path: "/token", times: faults, effect: answer(404, &[], "") });
        inject(&served, method, "/token", answer(400, &headers, &quote));
        let options = ClientOptions { listener: listener.clone(), ..logged_in(&served, "ci", PLANTED[0]) };
        shown.push(repository(&client(options), &served, "app").check_push().await.unwrap_err());
        assert!(served.seen().iter().any(|seen| seen.path == "/token" && seen.method == method));
    }
    let shown: Vec<_> = shown.iter().map(|error| format!("{error} {error:?}")).collect();
    assert!(shown[0].contains("X: got '***' and ***, that is"), "{}", shown[0]);
    shown.iter().for_each(|text| holds_nothing(text));
    let told = told.lock().unwrap();
    assert!(told.contains("warns: you sent *** to us"), "{told}");
    // The token server's GET carries the password in its other form only, and both are hidden.
    holds_nothing(&told);
}

#[tokio::test]
async fn a_descriptors_urls_are_not_asked_and_its_data_is_not_believed() {
    let stranger = Stranger::start("HTTP/1.1 200 -\r\ncontent-length: 5\r\n\r\nlayer", Then::End).await;
    let memory = Memory::new();
    let app = memory.repository("app");
    let (config, layer) = (BytesBlob::new("{}"), BytesBlob::new("layer"));
    for blob in [&config, &layer] {
        app.write_blob(blob, None).await.unwrap();
    }
    let urls = [format!("http://{}/layer", stranger.host()), METADATA[0].into()];
    let descriptor = |blob: &BytesBlob, media_type: &str| {
        serde_json::json!({"mediaType": media_type, "digest": blob.digest(), "size": blob.size(), "urls": urls,
            "data": "eyJldmlsIjp0cnVlfQ=="})
    };
    let foreign = descriptor(&layer, "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip");
    let text = serde_json::json!({"schemaVersion": 2, "mediaType": media::OCI_MANIFEST,
        "config": descriptor(&config, media::OCI_CONFIG), "layers": [foreign]});
    let manifest = crate::Manifest::new(media::OCI_MANIFEST, text.to_string());
    app.write_manifest(&Version::Tag("1".into()), &manifest).await.unwrap();
    let served = memory.serve().await.unwrap();
    let reference = format!("{}/app:1", served.host()).parse().unwrap();
    let pulled = pull_manifest(&client(quick()), &reference, &Platform::host()).await.unwrap();
    assert_eq!(pulled.resolved.config, "{}");
    assert_eq!(read_small(&pulled.store, &layer.digest(), Some(5), 100).await.unwrap(), "layer");
    app.forget_blob(&layer.digest());
    let error = read_small(&pulled.store, &layer.digest(), Some(5), 100).await.unwrap_err();
    assert!(matches!(error, Error::NotFound { .. }), "{error}");
    assert_eq!(stranger.received(), "");
}
