//! Tokens that are over before a push is.

use std::io::Write as _;
use std::time::Duration;

use yadokari_layers::{BlobWriter, Compression};

use super::auth::tokens_asked;
use super::{client, count, image, logged_in};
use crate::memory::{Auth, Checks, Memory, Served, Serving};
use crate::{BlobSource as _, BytesBlob, Client, ClientOptions, RegistryStore, Store as _, Timeouts, Version};

const MIB: usize = 1 << 20;

/// A registry whose tokens live for `life`, as `expires_in` may say, and which takes a MiB in a second.
async fn serve(memory: &Memory, checks: Checks, life: Duration, expires_in: Option<u64>) -> Served {
    let auth = Auth::Bearer { user: "ci".into(), password: "hunter2".into(), life };
    let rate = Some(MIB as u64);
    memory.serve_with(Serving { auth, checks, expires_in, rate, ..Serving::default() }).await.unwrap()
}

/// A client that waits as long as it usually does: what is measured here is the registry's time.
fn patient(served: &Served) -> Client {
    client(ClientOptions { timeouts: Timeouts::default(), ..logged_in(served, "ci", "hunter2") })
}

fn store(client: &Client, served: &Served) -> RegistryStore {
    super::repository(client, served, "app")
}

/// What two blobs of one length have not in common.
fn blob(n: u8, size: usize) -> BytesBlob {
    BytesBlob::new(vec![n; size])
}

fn refused(served: &Served, method: &str) -> usize {
    served.seen().iter().filter(|seen| seen.method == method && seen.status == 401).count()
}

#[tokio::test]
async fn a_push_takes_longer_than_its_tokens_live() {
    let life = Duration::from_millis(500);
    // What the registry says of its tokens is true for none of them, so that each is found out by a refusal.
    for expires_in in [Some(3600), None] {
        let memory = Memory::new();
        let served = serve(&memory, Checks::AtHead, life, expires_in).await;
        let client = patient(&served);
        let store = store(&client, &served);
        let layers: Vec<_> = (0..4).map(|n| blob(n, MIB)).collect();
        let directory = tempfile::tempdir().unwrap();
        let mut writer = BlobWriter::create(directory.path(), Compression::None, None).unwrap();
        let growing = writer.growing().clone();
        let (upload, grown, sent) = tokio::join!(
            store.begin_blob(&growing),
            async {
                for piece in 0..4 {
                    writer.write_all(&vec![100 + piece; MIB / 4]).unwrap();
                    tokio::time::sleep(Duration::from_millis(200)).await;
                }
                writer.finish().unwrap()
            },
            futures_util::future::try_join_all(layers.iter().map(|layer| store.write_blob(layer, None))),
        );
        sent.unwrap();
        store.complete_blob(upload.unwrap().unwrap(), &grown.digest).await.unwrap();
        let config = BytesBlob::new("{}");
        store.write_blob(&config, None).await.unwrap();
        let manifest = image(&config, &layers.iter().collect::<Vec<_>>());
        store.write_manifest(&Version::Tag("1".into()), &manifest).await.unwrap();
        let app = memory.repository("app");
        assert_eq!(app.blobs().len(), 6, "the registry refuses a manifest without its blobs, and has the grown one");
        assert_eq!(app.tags().await.unwrap(), ["1"]);
        assert!(tokens_asked(&served) >= 2, "{expires_in:?}");
        assert_eq!(
            count(&served, "PATCH", ""),
            1,
            "a token is looked at first, and then it is good: no blob goes in parts"
        );
    }
}

#[tokio::test]
async fn a_blob_goes_in_parts_where_its_token_is_looked_at_last() {
    let cases = [
        // It lives as long as it says: what took longer is not tried again with a new one.
        (Duration::from_secs(1), Some(1), 1),
        // It does not, which only the second refusal tells.
        (Duration::from_millis(600), Some(3600), 2),
    ];
    for (life, expires_in, wholes) in cases {
        let memory = Memory::new();
        let served = serve(&memory, Checks::Behind, life, expires_in).await;
        let client = patient(&served);
        let store = store(&client, &served);
        let (first, second) = (blob(1, 2 * MIB), blob(2, MIB));
        store.write_blob(&first, None).await.unwrap();
        assert_eq!(refused(&served, "PUT"), wholes, "{expires_in:?}");
        assert_eq!(memory.repository("app").blobs(), [first.digest()]);
        // The next blob does not find it out again.
        store.write_blob(&second, None).await.unwrap();
        assert_eq!(refused(&served, "PUT"), wholes, "{expires_in:?}");
        let parts: Vec<_> =
            served.seen().into_iter().filter(|seen| seen.method == "PATCH" && seen.status == 202).collect();
        assert_eq!(parts.iter().map(|part| part.received).sum::<u64>(), 3 * MIB as u64);
        assert!(parts.len() >= 6, "{}", parts.len());
        assert_eq!(memory.repository("app").blobs().len(), 2);
    }
}

#[tokio::test]
async fn a_refusal_that_has_nothing_to_do_with_time_is_not_tried_in_parts() {
    let memory = Memory::new();
    let served = serve(&memory, Checks::Behind, Duration::from_secs(3600), None).await;
    let client = patient(&served);
    let store = store(&client, &served);
    let effect = super::answer(401, &[("WWW-Authenticate", "Bearer realm=\"/nowhere\"")], "");
    served.inject(crate::memory::Fault { method: "PUT", path: "/uploads/", times: 9, effect });
    assert!(store.write_blob(&blob(1, 100), None).await.is_err());
    assert_eq!((count(&served, "PUT", "/uploads/"), count(&served, "PATCH", "")), (1, 0));
}

#[tokio::test]
async fn a_token_is_renewed_before_it_is_over() {
    let memory = Memory::new();
    let served = serve(&memory, Checks::AtHead, Duration::from_secs(1), Some(1)).await;
    let client = patient(&served);
    let store = store(&client, &served);
    let absent = blob(1, 1).digest();
    assert!(!store.has_blob(&absent).await.unwrap());
    assert!(!store.has_blob(&absent).await.unwrap());
    assert_eq!(tokens_asked(&served), 1);
    // After nine tenths of its life, when it is still good.
    tokio::time::sleep(Duration::from_millis(920)).await;
    assert!(!store.has_blob(&absent).await.unwrap());
    assert_eq!(tokens_asked(&served), 2);
    assert_eq!(refused(&served, "HEAD"), 1, "the first request only, which asked what login is wanted");
}
