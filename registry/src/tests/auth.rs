//! Logins on the wire.

use std::time::Duration;

use super::{client, image, logged_in, quick, repository};
use crate::memory::{Auth, Effect, Fault, Memory, Served, Serving};
use crate::{
    BlobSource as _, BytesBlob, ClientOptions, Credentials, Error, Login, Secret, Store as _, Version, Written,
};

pub(super) fn bearer() -> Auth {
    Auth::Bearer { user: "ci".into(), password: "hunter2".into(), life: Duration::from_secs(3600) }
}

pub(super) async fn serve(memory: &Memory, auth: Auth) -> Served {
    memory.serve_with(Serving { auth, ..Serving::default() }).await.unwrap()
}

pub(super) fn tokens_asked(served: &Served) -> usize {
    served.seen().iter().filter(|seen| seen.path == "/token").count()
}

pub(super) async fn push(options: ClientOptions, served: &Served) -> crate::Result<Written> {
    let store = repository(&client(options), served, "app");
    let (config, layer) = (BytesBlob::new("{}"), BytesBlob::new("layer"));
    store.write_blob(&layer, None).await?;
    let written = store.write_blob(&config, None).await?;
    store.write_manifest(&Version::Tag("1".into()), &image(&config, &[&layer])).await?;
    Ok(written)
}

#[tokio::test]
async fn basic_login_is_sent_once_asked_for_and_then_unasked() {
    let served = serve(&Memory::new(), Auth::Basic { user: "ci".into(), password: "hunter2".into() }).await;
    assert_eq!(push(logged_in(&served, "ci", "hunter2"), &served).await.unwrap(), Written::Uploaded);
    assert_eq!(served.seen().iter().filter(|seen| seen.status == 401).count(), 1);
}

#[tokio::test]
async fn bearer_login_fetches_one_token_for_all_of_a_push() {
    let served = serve(&Memory::new(), bearer()).await;
    push(logged_in(&served, "ci", "hunter2"), &served).await.unwrap();
    assert_eq!(tokens_asked(&served), 1);
    let token = served.seen().into_iter().find(|seen| seen.path == "/token").unwrap();
    assert_eq!(token.query, "service=test%2C+registry&scope=repository%3Aapp%3Apull%2Cpush");
}

#[tokio::test]
async fn many_uploads_at_once_share_one_token() {
    let served = serve(&Memory::new(), bearer()).await;
    let store = repository(&client(logged_in(&served, "ci", "hunter2")), &served, "app");
    let uploads = (0..8).map(|n| {
        let store = store.clone();
        async move { store.write_blob(&BytesBlob::new(format!("{n}")), None).await.unwrap() }
    });
    futures_util::future::join_all(uploads).await;
    assert_eq!(tokens_asked(&served), 1);
}

#[tokio::test]
async fn an_identity_token_is_exchanged_by_oauth2() {
    let served = serve(&Memory::new(), bearer()).await;
    let mut credentials = Credentials::default();
    credentials.add(&served.host(), Login::Identity(Secret::new("hunter2")));
    push(ClientOptions { credentials, ..quick() }, &served).await.unwrap();
    assert!(served.seen().iter().any(|seen| seen.path == "/token" && seen.method == "POST" && seen.query.is_empty()));
}

#[tokio::test]
async fn a_token_server_that_does_not_know_get_is_asked_by_oauth2() {
    for status in [404, 405] {
        let served = serve(&Memory::new(), bearer()).await;
        let effect = super::answer(status, &[], "");
        served.inject(Fault { method: "GET", path: "/token", times: 9, effect });
        push(logged_in(&served, "ci", "hunter2"), &served).await.unwrap();
        let asked: Vec<_> = served.seen().into_iter().filter(|seen| seen.path == "/token").collect();
        let methods: Vec<_> = asked.iter().map(|seen| seen.method.as_str()).collect();
        assert_eq!(methods, ["GET", "POST"]);
        assert!(asked[1].query.is_empty() && asked[1].authorization.is_none(), "the password is in the body only");
    }
}

#[tokio::test]
async fn a_mirror_gets_no_login_of_the_registry_that_it_stands_for() {
    let memory = Memory::new();
    let served = serve(&memory, bearer()).await;
    push(logged_in(&served, "ci", "hunter2"), &served).await.unwrap();
    let mirror = serve(&memory, Auth::Basic { user: "ci".into(), password: "hunter2".into() }).await;
    let maps = vec![(served.host(), format!("{}/proxy", mirror.host()))];
    let client = client(ClientOptions { maps, ..logged_in(&served, "ci", "hunter2") });
    let reference = format!("{}/app:1", served.host()).parse().unwrap();
    let pulled = crate::pull_manifest(&client, &reference, &crate::Platform::host()).await.unwrap();
    assert_eq!(pulled.store.registry(), served.host(), "the mirror wants a login of its own");
    assert!(mirror.seen().iter().any(|seen| seen.status == 401 && seen.path.starts_with("/v2/proxy/app/")));
    assert!(mirror.seen().iter().all(|seen| seen.authorization.is_none()), "{:?}", mirror.seen());
}

#[tokio::test]
async fn an_expired_token_is_renewed_in_mid_push() {
    let memory = Memory::new();
    let served = serve(&memory, bearer()).await;
    let store = repository(&client(logged_in(&served, "ci", "hunter2")), &served, "app");
    store.write_blob(&BytesBlob::new("first"), None).await.unwrap();
    // The session is started with the old token, and the content sent with the new one.
    served.expire_tokens();
    store.write_blob(&BytesBlob::new("second"), None).await.unwrap();
    let refused = Effect::Answer {
        status: 401,
        headers: vec![(
            "WWW-Authenticate".into(),
            format!(
                r#"Bearer realm="http://{}/token",service="test, registry",scope="repository:app:push""#,
                served.host()
            ),
        )],
        body: String::new(),
    };
    served.inject(Fault { method: "PUT", path: "/uploads/", times: 1, effect: refused });
    store.write_blob(&BytesBlob::new("third"), None).await.unwrap();
    assert_eq!(tokens_asked(&served), 3);
    assert_eq!(memory.repository("app").blobs().len(), 3);
}

#[tokio::test]
async fn anonymous_pulls_get_a_token_and_anonymous_pushes_are_refused() {
    let memory = Memory::new();
    let app = memory.repository("app");
    app.write_blob(&BytesBlob::new("layer"), None).await.unwrap();
    let served = serve(&memory, bearer()).await;
    let store = repository(&client(quick()), &served, "app");
    assert!(store.has_blob(&BytesBlob::new("layer").digest()).await.unwrap());
    let error = store.check_push().await.unwrap_err();
    assert!(matches!(error, Error::Unauthorized { .. }), "{error}");
}

#[tokio::test]
async fn a_refused_login_is_told_in_the_registrys_words_and_without_the_password() {
    let served = serve(&Memory::new(), bearer()).await;
    let error = push(logged_in(&served, "ci", "wrong-hunter"), &served).await.unwrap_err();
    let text = error.to_string();
    assert!(matches!(error, Error::Unauthorized { .. }), "{text}");
    assert!(text.contains("incorrect username or password") && text.contains(&served.host()), "{text}");
    assert!(!format!("{error:?}").contains("wrong-hunter"));
    assert_eq!(tokens_asked(&served), 1, "a wrong password is not tried again: accounts get locked");

    let served = serve(&Memory::new(), Auth::Basic { user: "ci".into(), password: "hunter2".into() }).await;
    let error = push(logged_in(&served, "ci", "wrong"), &served).await.unwrap_err();
    assert!(error.to_string().contains("UNAUTHORIZED: authentication required"), "{error}");
    assert_eq!(
        served.seen().iter().filter(|seen| seen.authorization.is_some()).count(),
        2,
        "HEAD, and GET for the words"
    );
}

#[tokio::test]
async fn check_push_succeeds_and_cancels_its_session() {
    let served = serve(&Memory::new(), bearer()).await;
    let store = repository(&client(logged_in(&served, "ci", "hunter2")), &served, "app");
    store.check_push().await.unwrap();
    assert_eq!(served.seen().last().map(|seen| (seen.method.clone(), seen.status)), Some(("DELETE".into(), 204)));
}

#[tokio::test]
async fn a_deletion_asks_for_a_token_of_its_own_and_lists_pull() {
    let memory = Memory::new();
    let served = serve(&memory, bearer()).await;
    push(logged_in(&served, "ci", "hunter2"), &served).await.unwrap();
    let reader = repository(&client(quick()), &served, "app");
    assert_eq!(reader.tags().await.unwrap(), ["1"]);
    let manifest = reader.manifest_digest(&Version::Tag("1".into())).await.unwrap().unwrap();
    let error = reader.delete_manifest(&manifest).await.unwrap_err();
    assert!(matches!(error, Error::Unauthorized { .. }), "{error}");
    let owner = repository(&client(logged_in(&served, "ci", "hunter2")), &served, "app");
    assert!(owner.delete_manifest(&manifest).await.unwrap());
    assert_eq!(reader.tags().await.unwrap(), [""; 0]);
    let seen = served.seen().into_iter().filter(|seen| seen.path == "/token");
    let scopes: Vec<_> = seen.filter_map(|seen| Some(seen.query.split_once("scope=")?.1.to_owned())).collect();
    let (push, pull, delete) =
        ("repository%3Aapp%3Apull%2Cpush", "repository%3Aapp%3Apull", "repository%3Aapp%3Apull%2Cdelete");
    // The reader is given a token that is good for less than it asked for, and asks once more.
    assert_eq!(scopes, [push, pull, delete, delete, delete]);
}

#[tokio::test]
async fn a_mount_asks_for_both_repositories_in_one_token() {
    let memory = Memory::new();
    memory.repository("base").write_blob(&BytesBlob::new("layer"), None).await.unwrap();
    let served = serve(&memory, bearer()).await;
    let store = repository(&client(logged_in(&served, "ci", "hunter2")), &served, "app");
    assert_eq!(store.write_blob(&BytesBlob::new("layer"), Some("base")).await.unwrap(), Written::Mounted);
    assert!(
        served
            .seen()
            .iter()
            .any(|seen| seen.query.contains("scope=repository%3Aapp%3Apull%2Cpush&scope=repository%3Abase%3Apull"))
    );
}

#[tokio::test]
async fn a_login_stays_with_its_registry_when_storage_is_elsewhere() {
    let (memory, content) = (Memory::new(), BytesBlob::new("layer"));
    memory.repository("app").write_blob(&content, None).await.unwrap();
    let storage = memory.serve().await.unwrap();
    let served = serve(&memory, Auth::Basic { user: "ci".into(), password: "hunter2".into() }).await;
    let store = repository(&client(logged_in(&served, "ci", "hunter2")), &served, "app");
    assert!(store.has_blob(&content.digest()).await.unwrap());
    let location = format!("http://{}/v2/app/blobs/{}?signature=x", storage.host(), content.digest());
    let effect = Effect::Answer { status: 307, headers: vec![("Location".into(), location)], body: String::new() };
    served.inject(Fault { method: "GET", path: "/blobs/", times: 1, effect });
    assert_eq!(crate::read_small(&store, &content.digest(), None, 100).await.unwrap(), "layer");
    let seen = storage.seen();
    assert_eq!(seen.len(), 1);
    assert_eq!((seen[0].authorization.as_deref(), seen[0].query.as_str()), (None, "signature=x"));
}
