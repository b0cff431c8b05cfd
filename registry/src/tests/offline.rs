//! A client that may ask some hosts and no other. The registries here answer as `127.0.0.1` and as `localhost`.

use super::auth::{bearer, push, serve, tokens_asked};
use super::{answer, client, logged_in, quick, repository};
use crate::memory::{Fault, Memory, Served};
use crate::{
    BlobSource as _, BytesBlob, ClientOptions, Error, Hosts, Platform, Request, Store as _, pull_manifest, read_small,
};

fn only(hosts: &[&str]) -> Option<Hosts> {
    let mut only = Hosts::default();
    hosts.iter().for_each(|host| only.add(host).unwrap());
    Some(only)
}

/// The address under which a registry is not allowed.
fn elsewhere(served: &Served) -> String {
    served.host().replace("127.0.0.1", "localhost")
}

fn is_offline(error: &Error, named: &str) -> bool {
    matches!(error, Error::Offline { host, .. } if host == named)
        && error.to_string().contains(&format!("--offline-allow {named}"))
}

#[tokio::test]
async fn a_registry_that_is_not_allowed_is_not_connected_to() {
    let served = Memory::new().serve().await.unwrap();
    let options = ClientOptions { only: only(&["other.example"]), insecure: true, ..quick() };
    let error = push(options.clone(), &served).await.unwrap_err();
    assert!(is_offline(&error, "127.0.0.1"), "{error}");
    let reference = format!("{}/app:1", served.host()).parse().unwrap();
    let error = pull_manifest(&client(options), &reference, &Platform::host()).await.unwrap_err();
    assert!(matches!(error, Error::Offline { .. }), "{error}");
    assert!(served.seen().is_empty());
    let allowed = ClientOptions { only: only(&["127.0.0.1"]), ..quick() };
    push(allowed, &served).await.unwrap();
}

#[tokio::test]
async fn a_token_server_on_another_host_has_to_be_allowed() {
    let served = serve(&Memory::new(), bearer()).await;
    let challenge = format!(r#"Bearer realm="http://{}/token",service="test, registry""#, elsewhere(&served));
    let refuse = || {
        let effect = answer(401, &[("WWW-Authenticate", &challenge)], "");
        served.inject(Fault { method: "HEAD", path: "/blobs/", times: 1, effect });
    };
    refuse();
    let options = ClientOptions { only: only(&["127.0.0.1"]), ..logged_in(&served, "ci", "hunter2") };
    let error = push(options, &served).await.unwrap_err();
    assert!(is_offline(&error, "localhost"), "{error}");
    assert_eq!(tokens_asked(&served), 0);
    refuse();
    let options = ClientOptions { only: only(&["127.0.0.1", "localhost"]), ..logged_in(&served, "ci", "hunter2") };
    push(options, &served).await.unwrap();
    assert_eq!(tokens_asked(&served), 1);
}

#[tokio::test]
async fn storage_on_another_host_has_to_be_allowed() {
    let (memory, content) = (Memory::new(), BytesBlob::new("layer"));
    memory.repository("app").write_blob(&content, None).await.unwrap();
    let (storage, served) = (memory.serve().await.unwrap(), memory.serve().await.unwrap());
    let location = format!("http://{}/v2/app/blobs/{}", elsewhere(&storage), content.digest());
    let read = async |hosts: &[&str]| {
        let effect = answer(307, &[("Location", &location)], "");
        served.inject(Fault { method: "GET", path: "/blobs/", times: 1, effect });
        let store = repository(&client(ClientOptions { only: only(hosts), ..quick() }), &served, "app");
        read_small(&store, &content.digest(), None, 100).await
    };
    let error = read(&["127.0.0.1"]).await.unwrap_err();
    assert!(is_offline(&error, "localhost"), "{error}");
    assert!(storage.seen().is_empty());
    assert_eq!(read(&["127.0.0.1", "localhost"]).await.unwrap(), "layer");
}

#[tokio::test]
async fn what_is_no_registry_is_fetched_from_allowed_hosts_only() {
    let served = Memory::new().serve().await.unwrap();
    let client = client(ClientOptions { only: only(&["127.0.0.1"]), ..quick() });
    let fetch = async |host: String| client.fetch(&Request::get(&format!("http://{host}/file")).unwrap()).await;
    let error = fetch(elsewhere(&served)).await.unwrap_err();
    assert!(is_offline(&error, "localhost"), "{error}");
    assert!(served.seen().is_empty());
    let location = format!("http://{}/there", elsewhere(&served));
    let effect = answer(302, &[("Location", &location)], "");
    served.inject(Fault { method: "GET", path: "/file", times: 1, effect });
    let error = fetch(served.host()).await.unwrap_err();
    assert!(is_offline(&error, "localhost"), "{error}");
    assert_eq!(served.seen().len(), 1);
}
