//! Plain requests to servers that are no registries.

use std::io::{Read, Seek};

use super::{answer, client, logged_in, quick};
use crate::memory::{Effect, Fault, Memory, Served};
use crate::{Digest, Error, Request, Secret};

async fn served(faults: &[(&'static str, u32, Effect)]) -> Served {
    let served = Memory::new().repository("app").serve().await.unwrap();
    for (path, times, effect) in faults {
        served.inject(Fault { method: "", path, times: *times, effect: effect.clone() });
    }
    served
}

fn url(served: &Served, path: &str) -> String {
    format!("http://{}{path}", served.host())
}

#[tokio::test]
async fn a_download_is_hashed_and_dated_and_begins_again_where_it_broke() {
    let date = [("Last-Modified", "Sun, 06 Nov 1994 08:49:37 GMT")];
    let served = served(&[
        ("/v2/", 1, Effect::CutAnswer(1)),
        ("/v2/", 1, answer(503, &[], "")),
        ("/v2/", 1, answer(200, &date, "whole")),
    ])
    .await;
    let mut file = tempfile::tempfile().unwrap();
    let request = Request::get(&url(&served, "/v2/")).unwrap();
    let download = client(quick()).download(&request, &mut file).await.unwrap();
    assert_eq!((download.digest, download.size, download.last_modified), (Digest::of("whole"), 5, Some(784_111_777)));
    let mut text = String::new();
    file.rewind().unwrap();
    file.read_to_string(&mut text).unwrap();
    assert_eq!(text, "whole");
}

#[tokio::test]
async fn a_refusal_is_said_in_the_servers_words_and_not_repeated() {
    let served = served(&[("/file", 9, answer(404, &[], "gone"))]).await;
    let request = Request::get(&url(&served, "/file?token=secret")).unwrap();
    let error = client(quick()).fetch(&request).await.unwrap_err();
    assert!(matches!(&error, Error::Refused { status: 404, message, .. } if message == "gone"), "{error:?}");
    assert!(!error.to_string().contains("secret"), "{error}");
    assert_eq!(served.seen().len(), 1);
}

#[tokio::test]
async fn a_login_goes_to_its_own_origin_and_no_further() {
    let there = served(&[("/there", 1, answer(200, &[], "x"))]).await;
    let moved = answer(302, &[("Location", &url(&there, "/there"))], "");
    let here = served(&[("/here", 1, moved)]).await;
    let request = Request::get(&url(&here, "/here")).unwrap().authorization(Secret::new("Bearer token"));
    let reply = client(quick()).fetch(&request).await.unwrap();
    assert_eq!(reply.url(), url(&there, "/there"));
    assert_eq!(here.seen()[0].authorization.as_deref(), Some("Bearer token"));
    assert_eq!(there.seen()[0].authorization, None);
}

#[tokio::test]
async fn what_holds_secrets_follows_no_redirect_and_may_be_tried_once() {
    let there = served(&[]).await;
    let moved = answer(307, &[("Location", &url(&there, "/there"))], "");
    let here = served(&[("/here", 1, moved), ("/down", 9, answer(503, &[], "down"))]).await;
    let client = client(quick());
    let request = Request::get(&url(&here, "/here")).unwrap().put("secret").direct();
    let error = client.fetch(&request).await.unwrap_err();
    assert!(matches!(error, Error::Refused { status: 307, .. }), "{error}");
    assert_eq!((here.seen()[0].method.as_str(), here.seen()[0].received), ("PUT", 6));
    assert!(there.seen().is_empty());
    let request = Request::get(&url(&here, "/down")).unwrap().once();
    assert!(client.fetch(&request).await.is_err());
    assert_eq!(here.seen().len(), 2);
}

#[tokio::test]
async fn a_registrys_login_is_not_sent() {
    let served = served(&[("/file", 1, answer(200, &[], "x"))]).await;
    let client = client(logged_in(&served, "user", "password"));
    client.fetch(&Request::get(&url(&served, "/file")).unwrap()).await.unwrap();
    assert_eq!(served.seen()[0].authorization, None);
}

#[tokio::test]
async fn a_login_in_a_url_is_sent() {
    let served = served(&[("/file", 1, answer(200, &[], "x"))]).await;
    let url = format!("http://user:pass%40word@{}/file", served.host());
    client(quick()).fetch(&Request::get(&url).unwrap()).await.unwrap();
    assert_eq!(served.seen()[0].authorization.as_deref(), Some("Basic dXNlcjpwYXNzQHdvcmQ="));
}

#[test]
fn only_http_is_fetched() {
    for url in ["ftp://h/x", "file:///etc/passwd", "x", "http://"] {
        assert!(matches!(Request::get(url), Err(Error::Configuration { .. })), "{url}");
    }
}
