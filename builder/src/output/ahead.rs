//! Layers that are sent while they are still being compressed.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::runtime::Handle;
use tokio::task::JoinHandle;
use yadokari_layers::{Digest, Growing};
use yadokari_registry::{Store, Upload};

/// How much of a layer there is before it is sent. One that never has so much is sent when it is complete: the store is then
/// asked first whether it has it.
const ENOUGH: u64 = 8 << 20;

/// The layers that are on their way to a store, and those that it took and does not know the names of yet.
///
/// All of this is a try. What comes of it is found out when the layer is complete, and then there is another way.
#[derive(Default)]
pub(super) struct Ahead(Mutex<Vec<Early>>);

struct Early {
    layer: Growing,
    store: Arc<dyn Store>,
    taken: JoinHandle<Option<Upload>>,
}

impl Ahead {
    /// Sends a layer to a store as it grows.
    pub(super) fn begin(&self, layer: &Growing, store: &Arc<dyn Store>, runtime: &Handle) {
        let taken = {
            let (layer, store) = (layer.clone(), Arc::clone(store));
            async move {
                let waiting = layer.clone();
                match tokio::task::spawn_blocking(move || waiting.wait_for(ENOUGH)).await {
                    Ok(true) => store.begin_blob(&layer).await.ok().flatten(),
                    _ => None,
                }
            }
        };
        let early = Early { layer: layer.clone(), store: Arc::clone(store), taken: runtime.spawn(taken) };
        let mut layers = self.lock();
        layers.retain(|early| !early.layer.is_broken());
        layers.push(early);
    }

    /// Makes a layer that was sent a blob of the store. False where it was not sent, or has to be sent again.
    pub(super) async fn complete(&self, layer: &Digest) -> bool {
        let Some(early) = self.take(layer) else { return false };
        match early.taken.await {
            Ok(Some(upload)) => early.store.complete_blob(upload, layer).await.is_ok(),
            _ => false,
        }
    }

    /// Forgets a layer that need not be sent.
    pub(super) async fn cancel(&self, layer: &Digest) {
        if let Some(early) = self.take(layer) {
            early.cancel().await;
        }
    }

    /// Forgets all layers.
    pub(super) async fn cancel_all(&self) {
        let left = std::mem::take(&mut *self.lock());
        for early in left {
            early.cancel().await;
        }
    }

    fn take(&self, layer: &Digest) -> Option<Early> {
        let mut layers = self.lock();
        let at = layers.iter().position(|early| early.layer.digest() == Some(*layer))?;
        Some(layers.swap_remove(at))
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Early>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Early {
    async fn cancel(self) {
        // A connection that is closed ends an upload as well.
        self.taken.abort();
        if let Ok(Some(upload)) = self.taken.await {
            self.store.cancel_blob(upload).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use yadokari_layers::{Blob, BlobWriter, Compression};
    use yadokari_registry::memory::{Effect, Fault, Memory, Served};
    use yadokari_registry::{Client, ClientOptions};

    use super::*;

    async fn served() -> (Memory, Served, Arc<dyn Store>) {
        let memory = Memory::new().repository("app");
        let served = memory.serve().await.unwrap();
        let client = Client::new(ClientOptions::default()).unwrap();
        let store = client.repository(&format!("{}/app", served.host()).parse().unwrap());
        (memory, served, Arc::new(store))
    }

    /// Sends a layer of this size, and writes the rest of it when the first byte has come there, or could have.
    async fn send(ahead: &Ahead, served: &Served, store: &Arc<dyn Store>, size: u64) -> Blob {
        let directory = tempfile::tempdir().unwrap();
        let mut writer = BlobWriter::create(directory.path(), Compression::None, None).unwrap();
        ahead.begin(writer.growing(), store, &Handle::current());
        writer.write_all(&vec![7; size as usize]).unwrap();
        while size > ENOUGH && served.seen().is_empty() {
            tokio::task::yield_now().await;
        }
        writer.finish().unwrap()
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_large_layer_is_sent_before_it_is_complete() {
        let (memory, served, store) = served().await;
        let ahead = Ahead::default();
        let layer = send(&ahead, &served, &store, ENOUGH + 1000).await;
        assert!(ahead.complete(&layer.digest).await);
        assert_eq!(memory.blobs(), [layer.digest]);
        assert!(!ahead.complete(&layer.digest).await, "it is known no more");
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_small_layer_and_one_that_is_refused_are_left_to_a_plain_upload() {
        let (memory, served, store) = served().await;
        let ahead = Ahead::default();
        let small = send(&ahead, &served, &store, ENOUGH - 1).await;
        assert!(!ahead.complete(&small.digest).await);
        assert!(served.seen().is_empty());
        for method in ["PATCH", "PUT"] {
            let effect = Effect::Answer { status: 400, headers: Vec::new(), body: String::new() };
            served.inject(Fault { method, path: "", times: 1, effect });
            let refused = send(&ahead, &served, &store, ENOUGH + 1).await;
            assert!(!ahead.complete(&refused.digest).await, "{method}");
        }
        assert_eq!(memory.blobs(), []);
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn what_need_not_be_sent_is_no_blob() {
        let (memory, served, store) = served().await;
        let ahead = Ahead::default();
        let layer = send(&ahead, &served, &store, ENOUGH + 1).await;
        ahead.cancel(&layer.digest).await;
        send(&ahead, &served, &store, ENOUGH + 1).await;
        ahead.cancel_all().await;
        assert_eq!(memory.blobs(), []);
        assert!(ahead.lock().is_empty() && !served.seen().iter().any(|seen| seen.method == "PUT"));
    }
}
