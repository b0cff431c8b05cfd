//! Uploads that break on the way, and uploads in parts.

use super::{answer, count, fixture};
use crate::memory::{Effect, Fault, Memory, Served};
use crate::{BlobSource as _, BytesBlob, Error, RegistryStore, Store as _, Written};

const MIB: u64 = 1 << 20;

fn blob(size: u64) -> BytesBlob {
    BytesBlob::new((0..size).map(|n| (n % 251) as u8).collect::<Vec<_>>())
}

fn inject(served: &Served, method: &'static str, path: &'static str, effect: Effect) {
    served.inject(Fault { method, path, times: 1, effect });
}

/// Status and size of each request that brought a part of a blob or ended a session.
fn brought(served: &Served) -> Vec<(String, u16, u64)> {
    let uploads = served.seen().into_iter().filter(|seen| matches!(&*seen.method, "PUT" | "PATCH"));
    uploads.map(|seen| (seen.method, seen.status, seen.received)).collect()
}

fn row(method: &str, status: u16, received: u64) -> (String, u16, u64) {
    (method.into(), status, received)
}

/// A registry to which blobs go in parts.
async fn in_parts(part: u64) -> (Memory, Served, RegistryStore) {
    let (memory, served, store) = fixture().await;
    store.connection().keyring().limit(store.registry(), part);
    (memory, served, store)
}

#[tokio::test]
async fn an_upload_that_was_cut_goes_on_where_the_session_is() {
    let (memory, served, store) = fixture().await;
    let blob = blob(3 * MIB);
    inject(&served, "PUT", "/uploads/", Effect::KeepRequest(MIB));
    inject(&served, "PATCH", "/uploads/", Effect::KeepRequest(MIB / 2));
    assert_eq!(store.write_blob(&blob, None).await.unwrap(), Written::Uploaded);
    let (half, rest) = (MIB / 2, 3 * MIB / 2);
    let expected = [row("PUT", 0, MIB), row("PATCH", 0, half), row("PATCH", 202, rest), row("PUT", 201, 0)];
    assert_eq!(brought(&served), expected, "no byte is sent twice");
    assert_eq!(count(&served, "GET", "/uploads/"), 2);
    assert_eq!(memory.blobs(), [blob.digest()]);
}

#[tokio::test]
async fn an_upload_of_which_all_came_is_only_completed() {
    let (memory, served, store) = fixture().await;
    let blob = blob(2 * MIB);
    inject(&served, "PUT", "/uploads/", Effect::KeepRequest(2 * MIB));
    store.write_blob(&blob, None).await.unwrap();
    assert_eq!(brought(&served), [row("PUT", 0, 2 * MIB), row("PUT", 201, 0)]);
    assert_eq!(memory.blobs(), [blob.digest()]);
}

#[tokio::test]
async fn a_session_that_cannot_tell_what_it_has_is_begun_anew() {
    let range = |value: Option<&str>| Effect::Header("range", value.map(str::to_owned));
    for effect in [
        answer(404, &[], ""),
        answer(405, &[], ""),
        answer(500, &[], ""),
        range(None),
        range(Some("0-99999999999")),
        range(Some("1-3")),
        Effect::CutAnswer(0),
        Effect::Silence,
    ] {
        let (memory, served, store) = fixture().await;
        let blob = blob(2 * MIB);
        inject(&served, "PUT", "/uploads/", Effect::KeepRequest(MIB));
        inject(&served, "GET", "/uploads/", effect.clone());
        store.write_blob(&blob, None).await.unwrap();
        let (last, whole) = (brought(&served).pop(), row("PUT", 201, 2 * MIB));
        // Without a body the cut is none.
        if !matches!(effect, Effect::CutAnswer(_)) {
            assert_eq!(last, Some(whole), "{effect:?}");
        }
        assert_eq!(memory.blobs(), [blob.digest()], "{effect:?}");
    }
}

#[tokio::test]
async fn what_was_put_together_and_is_refused_is_sent_in_one_once() {
    let (memory, served, store) = fixture().await;
    let blob = blob(2 * MIB);
    inject(&served, "PUT", "/uploads/", Effect::KeepRequest(MIB));
    let refusal = || answer(400, &[], r#"{"errors":[{"code":"DIGEST_INVALID","message":"other content"}]}"#);
    inject(&served, "PUT", "/uploads/", refusal());
    store.write_blob(&blob, None).await.unwrap();
    let expected = [row("PUT", 0, MIB), row("PATCH", 202, MIB), row("PUT", 400, 0), row("PUT", 201, 2 * MIB)];
    assert_eq!(brought(&served), expected);
    assert_eq!(memory.blobs(), [blob.digest()]);

    let (memory, served, store) = fixture().await;
    inject(&served, "PUT", "/uploads/", Effect::KeepRequest(MIB));
    served.inject(Fault { method: "PUT", path: "/uploads/", times: 99, effect: refusal() });
    let error = store.write_blob(&blob, None).await.unwrap_err();
    assert!(matches!(error, Error::Refused { status: 400, .. }), "{error}");
    assert_eq!(count(&served, "PUT", "/uploads/"), 3, "and not again and again");
    assert_eq!(memory.blobs(), []);
}

#[tokio::test]
async fn a_forgotten_session_is_begun_anew_and_an_unknown_repository_is_an_error() {
    let (memory, served, store) = fixture().await;
    let blob = blob(1000);
    let unknown = |code: &str| answer(404, &[], &format!(r#"{{"errors":[{{"code":"{code}","message":"gone"}}]}}"#));
    inject(&served, "PUT", "/uploads/", unknown("BLOB_UPLOAD_UNKNOWN"));
    store.write_blob(&blob, None).await.unwrap();
    assert_eq!(brought(&served), [row("PUT", 404, 1000), row("PUT", 201, 1000)]);
    assert_eq!(memory.blobs(), [blob.digest()]);
    served.inject(Fault { method: "POST", path: "/uploads/", times: 99, effect: unknown("NAME_UNKNOWN") });
    let asked = count(&served, "POST", "");
    let error = store.write_blob(&BytesBlob::new("x"), None).await.unwrap_err();
    assert!(error.to_string().contains("NAME_UNKNOWN: gone"), "{error}");
    assert_eq!(count(&served, "POST", "") - asked, 1, "no registry makes a repository while it is waited for");
}

#[tokio::test]
async fn a_small_blob_is_sent_again_without_a_question() {
    let (memory, served, store) = fixture().await;
    inject(&served, "PUT", "/uploads/", Effect::KeepRequest(500));
    store.write_blob(&blob(1000), None).await.unwrap();
    assert_eq!(brought(&served), [row("PUT", 0, 500), row("PUT", 201, 1000)]);
    assert_eq!(count(&served, "GET", "/uploads/"), 0);
    assert_eq!(memory.blobs().len(), 1);
}

#[tokio::test]
async fn parts_follow_each_other_and_are_as_large_as_the_registry_wants() {
    for (least, size) in [(None, 400_000), (Some("1000"), 400_000), (Some("900000"), 900_000)] {
        let (memory, served, store) = in_parts(400_000).await;
        let blob = blob(2_000_000);
        inject(&served, "POST", "/uploads/", Effect::Header("oci-chunk-min-length", least.map(str::to_owned)));
        store.write_blob(&blob, None).await.unwrap();
        let mut expected = vec![row("PATCH", 202, size); (2_000_000 / size) as usize];
        expected.extend((2_000_000 % size > 0).then(|| row("PATCH", 202, 2_000_000 % size)));
        expected.push(row("PUT", 201, 0));
        assert_eq!(brought(&served), expected, "{least:?}");
        assert_eq!(memory.blobs(), [blob.digest()]);
    }
}

#[tokio::test]
async fn a_part_that_does_not_fit_goes_where_the_session_is() {
    let (memory, served, store) = in_parts(800_000).await;
    let blob = blob(2_000_000);
    // The session has the part, and its answer is lost: it would not fit a second time.
    inject(&served, "PATCH", "/uploads/", Effect::KeepRequest(800_000));
    inject(&served, "PATCH", "/uploads/", answer(416, &[], ""));
    store.write_blob(&blob, None).await.unwrap();
    let part = |status| row("PATCH", status, 800_000);
    let expected = [part(0), part(416), part(202), row("PATCH", 202, 400_000), row("PUT", 201, 0)];
    assert_eq!(brought(&served), expected);
    assert_eq!(memory.blobs(), [blob.digest()]);
}

#[tokio::test]
async fn a_registry_that_knows_no_parts_refuses_them_in_its_words() {
    let (memory, served, store) = in_parts(400_000).await;
    let effect = answer(405, &[], r#"{"errors":[{"code":"UNSUPPORTED","message":"no parts here"}]}"#);
    served.inject(Fault { method: "PATCH", path: "/uploads/", times: 99, effect });
    let error = store.write_blob(&blob(2_000_000), None).await.unwrap_err();
    assert!(error.to_string().contains("no parts here"), "{error}");
    assert_eq!(count(&served, "PATCH", ""), 1);
    assert_eq!(memory.blobs(), []);
}
