//! Tests that need more than one module: one table of cases over all stores, and the client's behaviour on the wire.

mod auth;
mod bounds;
mod expiry;
mod fetch;
mod growing;
mod hostile;
mod lies;
mod lists;
mod offline;
mod patience;
mod renewal;
mod sending;
mod stores;
mod stranger;
mod tls;
mod wire;

use std::time::Duration;

use crate::memory::{Effect, Memory, Served};
use crate::{
    BytesBlob, Client, ClientOptions, Credentials, Login, Manifest, RegistryStore, RetryPolicy, Secret, Timeouts,
};

/// Options whose retries do not slow the tests down.
fn quick() -> ClientOptions {
    let retry = RetryPolicy { delay: Duration::from_millis(5), ..RetryPolicy::default() };
    let silence = Duration::from_millis(500);
    let timeouts = Timeouts { silence, commit: silence, ..Timeouts::default() };
    ClientOptions { retry, timeouts, ..ClientOptions::default() }
}

fn client(options: ClientOptions) -> Client {
    Client::new(options).unwrap()
}

/// The repository `name` of a served registry.
fn repository(client: &Client, served: &Served, name: &str) -> RegistryStore {
    client.repository(&format!("{}/{name}", served.host()).parse().unwrap())
}

/// A served repository `app`, as the registry and its client see it.
async fn fixture() -> (Memory, Served, RegistryStore) {
    let memory = Memory::new().repository("app");
    let served = memory.serve().await.unwrap();
    let store = repository(&client(quick()), &served, "app");
    (memory, served, store)
}

/// An answer that a fault gives.
fn answer(status: u16, headers: &[(&str, &str)], body: &str) -> Effect {
    let headers = headers.iter().map(|&(name, value)| (name.into(), value.into())).collect();
    Effect::Answer { status, headers, body: body.into() }
}

/// How often a method was asked of paths with `part` in them.
fn count(served: &Served, method: &str, part: &str) -> usize {
    served.seen().iter().filter(|seen| seen.method == method && seen.path.contains(part)).count()
}

/// Options with a login for a served registry.
fn logged_in(served: &Served, user: &str, password: &str) -> ClientOptions {
    let mut credentials = Credentials::default();
    credentials.add(&served.host(), Login::Password { user: user.into(), password: Secret::new(password) });
    ClientOptions { credentials, ..quick() }
}

/// A manifest of these blobs.
fn image(config: &BytesBlob, layers: &[&BytesBlob]) -> Manifest {
    use crate::{BlobSource as _, media};
    let layer = |layer: &&BytesBlob| serde_json::json!({ "mediaType": media::OCI_LAYER_GZIP, "digest": layer.digest(), "size": layer.size() });
    let text = serde_json::json!({
        "schemaVersion": 2,
        "mediaType": media::OCI_MANIFEST,
        "config": { "mediaType": media::OCI_CONFIG, "digest": config.digest(), "size": config.size() },
        "layers": layers.iter().map(layer).collect::<Vec<_>>(),
    });
    Manifest::new(media::OCI_MANIFEST, text.to_string())
}
