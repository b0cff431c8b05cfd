//! Blobs that are sent while they are still being written.

use std::io::Write as _;
use std::time::Duration;

use yadokari_layers::{Blob, BlobWriter, Compression, Growing};

use super::{answer, client, count, fixture, logged_in, repository};
use crate::memory::{Auth, Effect, Fault, Memory, Served, Serving};
use crate::{RegistryStore, Result, Store as _, Upload};

/// More than a request holds in memory.
const SIZE: usize = 3 << 20;

/// Sends a blob of which half is written when it begins. `between` is done before the rest is.
async fn send(store: &RegistryStore, between: impl AsyncFnOnce()) -> (Result<Option<Upload>>, Blob) {
    let directory = tempfile::tempdir().unwrap();
    let mut writer = BlobWriter::create(directory.path(), Compression::None, None).unwrap();
    let growing: Growing = writer.growing().clone();
    writer.write_all(&vec![7; SIZE / 2]).unwrap();
    tokio::join!(store.begin_blob(&growing), async {
        between().await;
        writer.write_all(&vec![9; SIZE - SIZE / 2]).unwrap();
        writer.finish().unwrap()
    })
}

#[tokio::test]
async fn a_blob_is_sent_while_it_grows() {
    let (memory, served, store) = fixture().await;
    let begun = async || {
        // The registry is asked before the blob is complete.
        while count(&served, "POST", "/uploads/") == 0 {
            tokio::task::yield_now().await;
        }
    };
    let (upload, blob) = send(&store, begun).await;
    assert_eq!(memory.blobs(), []);
    store.complete_blob(upload.unwrap().unwrap(), &blob.digest).await.unwrap();
    assert_eq!((memory.blobs(), blob.size), (vec![blob.digest], SIZE as u64));
    let sent: Vec<_> = served.seen().into_iter().filter(|seen| seen.received > 0).collect();
    assert!(matches!(&sent[..], [only] if only.method == "PATCH" && only.received == blob.size), "{sent:?}");
    assert_eq!(count(&served, "HEAD", ""), 0, "nobody can have it");
}

#[tokio::test]
async fn a_registry_that_takes_no_growing_blob_is_asked_once_and_its_session_ended() {
    for effect in [answer(405, &[], ""), answer(500, &[], ""), Effect::CutRequest(1 << 20), Effect::Silence] {
        let (memory, served, store) = fixture().await;
        served.inject(Fault { method: "PATCH", path: "", times: 1, effect: effect.clone() });
        let (upload, _) = send(&store, async || ()).await;
        assert!(upload.is_err(), "{effect:?}");
        assert_eq!((count(&served, "PATCH", ""), count(&served, "DELETE", "/uploads/")), (1, 1), "{effect:?}");
        assert_eq!(memory.blobs(), []);
    }
}

#[tokio::test]
async fn a_blob_that_is_given_up_is_no_blob() {
    let (memory, served, store) = fixture().await;
    let directory = tempfile::tempdir().unwrap();
    let mut writer = BlobWriter::create(directory.path(), Compression::None, None).unwrap();
    writer.write_all(&vec![7; SIZE]).unwrap();
    let growing = writer.growing().clone();
    let (upload, ()) = tokio::join!(store.begin_blob(&growing), async { drop(writer) });
    assert!(upload.is_err());
    assert_eq!(memory.blobs(), []);
    assert_eq!(count(&served, "PUT", ""), 0);
}

#[tokio::test]
async fn a_login_that_ends_on_the_way_is_renewed() {
    let memory = Memory::new().repository("app");
    let auth = Auth::Bearer { user: "ci".into(), password: "hunter2".into(), life: Duration::from_secs(3600) };
    let served: Served = memory.serve_with(Serving { auth, ..Serving::default() }).await.unwrap();
    let store = repository(&client(logged_in(&served, "ci", "hunter2")), &served, "app");
    store.check_push().await.unwrap();
    served.expire_tokens();
    let (upload, blob) = send(&store, async || ()).await;
    served.expire_tokens();
    store.complete_blob(upload.unwrap().unwrap(), &blob.digest).await.unwrap();
    assert_eq!(memory.blobs(), [blob.digest]);
}
