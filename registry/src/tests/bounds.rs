//! Registries that do not come to an end: however much they send, and however slowly, a request does.

use std::time::{Duration, Instant};

use super::stranger::{Stranger, Then};
use super::{answer, client, fixture, logged_in, quick};
use crate::memory::Fault;
use crate::{
    ClientOptions, Digest, Error, Failure, RegistryStore, Request, RetryPolicy, Store as _, Timeouts, Version,
    read_small,
};

/// What may have been sent besides what was read: as much as this kernel lets the two sockets of a connection grow, and
/// what the client holds of it (tcp(7), `tcp_rmem` and `tcp_wmem`).
fn buffers() -> u64 {
    let largest = |name: &str| -> u64 {
        let sizes = std::fs::read_to_string(format!("/proc/sys/net/ipv4/{name}")).unwrap();
        sizes.split_whitespace().last().unwrap().parse().unwrap()
    };
    largest("tcp_rmem") + largest("tcp_wmem") + (1 << 20)
}

const OK: &str = "HTTP/1.1 200 -\r\nconnection: close\r\n\r\n";

/// Options without a second try.
fn once() -> ClientOptions {
    ClientOptions { retry: RetryPolicy { tries: 1, ..quick().retry }, ..quick() }
}

/// The same with as much time as usual, where sizes are looked at.
fn patient() -> ClientOptions {
    ClientOptions { timeouts: Timeouts::default(), ..once() }
}

async fn store(stranger: &Stranger, options: ClientOptions) -> RegistryStore {
    client(options).repository(&format!("{}/app", stranger.host()).parse().unwrap())
}

fn tag() -> Version {
    Version::Tag("1".into())
}

#[tokio::test]
async fn what_has_no_end_is_read_up_to_its_limit() {
    for (piece, limit) in [(&b" "[..], 16 << 20), (b"[", 16 << 20)] {
        let stranger = Stranger::start(OK, Then::Again(piece)).await;
        let error = store(&stranger, patient()).await.read_manifest(&tag()).await.unwrap_err();
        assert!(error.to_string().ends_with("its answer is longer than 16777216 bytes"), "{error}");
        assert!(stranger.sent() < limit + buffers(), "{}", stranger.sent());
    }
    let start = format!("{OK}{{\"tags\":[");
    let stranger = Stranger::start(start, Then::Again(b"\"a\",")).await;
    let error = store(&stranger, patient()).await.tags().await.unwrap_err();
    assert!(error.to_string().ends_with("its answer is longer than 67108864 bytes"), "{error}");
    assert!(stranger.sent() < (64 << 20) + buffers(), "{}", stranger.sent());

    let stranger = Stranger::start(OK, Then::Again(b"x")).await;
    let error = read_small(&store(&stranger, patient()).await, &Digest::of("x"), None, 1 << 20).await.unwrap_err();
    assert!(error.to_string().contains("larger than 1048576 bytes"), "{error}");
    let error = read_small(&store(&stranger, patient()).await, &Digest::of("x"), Some(100), 1 << 20).await.unwrap_err();
    assert!(matches!(error, Error::Mismatch { .. }), "{error}");
    let stranger = Stranger::start(OK, Then::Again(b"x")).await;
    assert!(read_small(&store(&stranger, patient()).await, &Digest::of("x"), Some(u64::MAX), 1 << 20).await.is_err());
    assert_eq!(stranger.received(), "", "what says itself that it is too large is not asked for");
}

#[tokio::test]
async fn the_words_of_a_refusal_are_read_up_to_a_limit_and_shown_in_a_line() {
    let start = "HTTP/1.1 400 -\r\nconnection: close\r\n\r\n";
    let stranger = Stranger::start(start, Then::Again(b"no \x1b[31m\r\n")).await;
    // Whether it speaks plain HTTP is asked first, and would be a refusal of its own.
    let request = Request::get(&format!("http://{}/x", stranger.host())).unwrap();
    let error = client(once()).fetch(&request).await.unwrap_err();
    let text = error.to_string();
    assert!(text.contains("answered 400: no [31m no [31m") && text.len() < 700, "{text}");
    assert!(!text.chars().any(char::is_control));
    assert!(stranger.sent() < buffers(), "{}", stranger.sent());
}

#[tokio::test]
async fn a_token_without_end_is_not_waited_for() {
    let challenge = |stranger: &Stranger| format!(r#"Bearer realm="http://{}/token""#, stranger.host());
    for (then, limit) in [(Then::Again(b" "), buffers()), (Then::Drops, 10_000)] {
        let stranger = Stranger::start(OK, then).await;
        let (_memory, served, _) = fixture().await;
        let effect = answer(401, &[("WWW-Authenticate", &challenge(&stranger))], "");
        served.inject(Fault { method: "HEAD", path: "", times: 9, effect });
        let retry = once().retry;
        let store =
            super::repository(&client(ClientOptions { retry, ..logged_in(&served, "ci", "hunter2") }), &served, "app");
        let started = Instant::now();
        let error = store.has_blob(&Digest::of("x")).await.unwrap_err();
        assert!(error.to_string().starts_with("log in to "), "{error}");
        assert!(started.elapsed() < Duration::from_secs(10), "{:?}", started.elapsed());
        assert!(stranger.sent() < (1 << 20) + limit, "{}", stranger.sent());
    }
}

#[tokio::test]
async fn a_document_that_is_just_not_too_slow_comes_to_an_end_all_the_same() {
    // 250 bytes a second, where 100 are too few.
    let stranger = Stranger::start(OK, Then::Drops).await;
    let started = Instant::now();
    let error = store(&stranger, once()).await.read_manifest(&tag()).await.unwrap_err();
    assert!(matches!(error, Error::Unreachable { source: Failure::Slow { .. }, .. }), "{error}");
    assert!(started.elapsed() < Duration::from_secs(10), "{:?}", started.elapsed());

    let stranger = Stranger::start("HTTP/1.1 400 -\r\nconnection: close\r\n\r\n", Then::Drops).await;
    let request = Request::get(&format!("http://{}/x", stranger.host())).unwrap();
    let started = Instant::now();
    let error = client(once()).fetch(&request).await.unwrap_err();
    assert!(matches!(error, Error::Refused { status: 400, .. }), "{error}");
    assert!(started.elapsed() < Duration::from_secs(5), "{:?}", started.elapsed());
}

#[tokio::test]
async fn heads_have_limits_in_size_and_in_time() {
    let bombs: [(&str, Then); 5] = [
        ("HTTP/1.1 200 -\r\n", Then::Again(b"x-bomb: aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa\r\n")),
        ("HTTP/1.1 200 -\r\nx-bomb: ", Then::Again(b"a")),
        ("HTTP/1.1 ", Then::Again(b"2")),
        ("", Then::Again(b"HTTP/1.1 103 Early Hints\r\nlink: <x>\r\n\r\n")),
        ("HTTP/1.1 200 -\r\nx-drops: ", Then::Drops),
    ];
    for (start, then) in bombs {
        let stranger = Stranger::start(start, then).await;
        let request = Request::get(&format!("http://{}/x", stranger.host())).unwrap();
        let started = Instant::now();
        let error = client(once()).fetch(&request).await.err().unwrap_or_else(|| panic!("{start}"));
        assert!(matches!(error, Error::Unreachable { .. }), "{start} {error}");
        assert!(error.to_string().len() < 700, "{error}");
        assert!(started.elapsed() < Duration::from_secs(10), "{start}: {:?}", started.elapsed());
        if !start.is_empty() {
            assert!(stranger.sent() < buffers(), "{start}: {}", stranger.sent());
        }
    }
}

#[tokio::test]
async fn long_headers_are_cut_where_they_are_shown() {
    let long = "x".repeat(50_000);
    let realm = format!(r#"Bearer realm="{long}""#);
    let location = format!("gopher://{long}");
    let hostile: [(u16, &[(&str, &str)]); 4] = [
        (401, &[("WWW-Authenticate", &realm)]),
        (307, &[("Location", &location)]),
        (400, &[("RateLimit-Limit", &long), ("RateLimit-Remaining", &long)]),
        (206, &[("Content-Range", &long)]),
    ];
    for (status, headers) in hostile {
        let (_memory, served, store) = fixture().await;
        served.inject(Fault { method: "GET", path: "/blobs/", times: u32::MAX, effect: answer(status, headers, "") });
        let text = read_small(&store, &Digest::of("x"), None, 100).await.unwrap_err().to_string();
        assert!(text.starts_with("read blob ") || text.starts_with("log in to "), "{status}: {text}");
        assert!(text.len() < 2000, "{status}: {}", text.len());
    }
}
