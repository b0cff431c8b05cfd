//! Builds that ask no host but their own: the registry is `127.0.0.1`, and `localhost` is outside.

use yadokari_registry::Hosts;

use super::*;
use crate::remote::{ContextName, Fetcher, GitName, git};

/// A client that may ask the registry alone.
fn client(maps: Vec<(String, String)>, hosts: &[&str]) -> Client {
    let mut only = Hosts::default();
    hosts.iter().for_each(|host| only.add(host).unwrap());
    let retry = RetryPolicy { delay: Duration::from_millis(5), ..RetryPolicy::default() };
    Client::new(ClientOptions { maps, only: Some(only), retry, ..ClientOptions::default() }).unwrap()
}

fn offline(bench: &Bench, text: &str) -> Request {
    let text = text.replace("OUTSIDE", &bench.served.host().replace("127.0.0.1", "localhost"));
    let mut request = bench.request(&text, &[]);
    request.client = client(Vec::new(), &["127.0.0.1"]);
    request
}

#[tokio::test(flavor = "multi_thread")]
async fn a_base_elsewhere_is_an_error_at_its_place_before_anything_is_asked_for() {
    let bench = Bench::new().await;
    let table = [
        ("FROM OUTSIDE/base:1\n", "1:6", "localhost:"),
        ("FROM alpine\n", "1:6", "docker.io"),
        ("FROM HOST/base:1\nCOPY --from=OUTSIDE/base:1 / /\n", "2:13", "localhost:"),
        ("FROM HOST/base:1\nRUN --mount=from=OUTSIDE/base:1,target=/m true\n", "2:18", "localhost:"),
    ];
    let progress = Arc::new(Progress::to(Level::Error, Box::new(std::io::sink())));
    for (text, place, host) in table {
        let request = offline(&bench, text);
        let error = content_key(&request, &progress).await.unwrap_err();
        let shown = error.diagnostic().unwrap_or_else(|| panic!("{error}")).render(&request.dockerfile, false);
        assert!(shown.contains(&format!("--> Dockerfile:{place}\n")) && shown.contains("^^^"), "{shown}");
        assert!(shown.contains(&format!("is at {host}")) && shown.contains("--offline-allow"), "{shown}");
        assert_eq!(error.exit_code(), ExitCode::Data as u8);
        assert!(bench.served.seen().is_empty(), "{text}");
    }
    for (text, place, _) in table {
        let request = offline(&bench, text);
        let report = check::check(&request, &progress).await.text(&request.dockerfile);
        assert!(report.contains(&format!("--> Dockerfile:{place}\n")) && report.contains("--offline: "), "{report}");
    }
    // A look goes on behind errors, and asks its own registry for what it needs of the others.
    assert!(bench.served.seen().iter().all(|seen| seen.path.contains("/base/") || seen.path == "/v2/"));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_add_takes_from_elsewhere_is_an_error_at_its_place() {
    let bench = Bench::new().await;
    let progress = Arc::new(Progress::to(Level::Error, Box::new(std::io::sink())));
    for (source, host) in [
        ("http://OUTSIDE/v2/", "localhost"),
        ("https://user:secret@files.example/x", "files.example"),
        ("https://git.example/a.git", "git.example"),
        ("git@git.example:a/b", "git.example"),
    ] {
        let request = offline(&bench, &format!("FROM scratch\nADD {source} /x/y\n"));
        let error = bench.build(offline(&bench, &format!("FROM scratch\nADD {source} /x/y\n"))).await.unwrap_err();
        let shown = error.diagnostic().unwrap_or_else(|| panic!("{error}")).render(&request.dockerfile, false);
        assert!(shown.contains("--> Dockerfile:2:5\n") && shown.contains("^^^"), "{shown}");
        assert!(shown.contains(&format!("is at {host}, which is no host of this build")), "{shown}");
        assert!(shown.contains(&format!("--offline-allow {host}")), "{shown}");
        let report = check::check(&request, &progress).await.text(&request.dockerfile);
        assert!(report.contains(&shown), "{report}");
    }
    assert!(bench.served.seen().is_empty());
    let mut request = offline(&bench, "FROM scratch\nADD http://OUTSIDE/v2/ /x/y\n");
    request.client = client(Vec::new(), &["127.0.0.1", "localhost"]);
    assert_eq!(bench.build(request).await.unwrap().layers, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_base_comes_from_the_mirror_and_never_from_where_it_is_mirrored_from() {
    let bench = Bench::new().await;
    let outside = bench.served.host().replace("127.0.0.1", "localhost");
    let request = |text: &str| {
        let mut request = offline(&bench, text);
        request.client = client(vec![(outside.clone(), format!("{}/mirror", bench.served.host()))], &["127.0.0.1"]);
        request
    };
    // The registry outside has it, and the mirror has not.
    let error = bench.build(request("FROM OUTSIDE/base:1\n")).await.unwrap_err();
    assert!(error.to_string().contains(&format!("not found in {}/mirror/base", bench.served.host())), "{error}");
    let seen = bench.served.seen();
    assert!(seen.iter().all(|seen| !seen.path.starts_with("/v2/base")), "{seen:?}");
    let base = bench.registry.repository("base");
    let mirror = bench.registry.repository("mirror/base");
    let index = base.read_manifest(&Version::Tag("1".into())).await.unwrap().unwrap();
    for descriptor in index.index().unwrap().manifests() {
        let digest = descriptor.digest().to_string().parse().unwrap();
        let manifest = base.read_manifest(&Version::Digest(digest)).await.unwrap().unwrap();
        let config = manifest.image().unwrap().config().digest().to_string().parse().unwrap();
        let config = yadokari_registry::read_small(&base, &config, None, 1 << 20).await.unwrap();
        mirror.write_blob(&BytesBlob::new(config), None).await.unwrap();
        mirror.write_manifest(&Version::Digest(digest), &manifest).await.unwrap();
    }
    mirror.write_manifest(&Version::Tag("1".into()), &index).await.unwrap();
    bench.build(request("FROM OUTSIDE/base:1\n")).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn contexts_elsewhere_are_not_asked_for() {
    let bench = Bench::new().await;
    let outside = bench.served.host().replace("127.0.0.1", "localhost");
    let fetcher = Fetcher::new(client(Vec::new(), &["127.0.0.1"]), bench.directory.path(), Arc::new(|_| None));
    let repository = |text: String| match git::parse(&text).unwrap() {
        GitName::Repository(reference) => ContextName::Git(reference),
        other => panic!("{other:?}"),
    };
    let names = [
        ContextName::Url(format!("http://{outside}/context.tar")),
        repository(format!("http://{outside}/a.git")),
        repository(format!("git://{outside}/a.git")),
        repository(format!("ssh://git@{outside}/a.git")),
        repository("git@localhost:a/b.git".into()),
    ];
    for name in names {
        let error = fetcher.context(&name, false, &Progress::silent()).await.unwrap_err();
        assert!(error.to_string().contains("nothing is asked of localhost"), "{name:?}: {error}");
        assert!(error.to_string().contains("--offline-allow localhost"), "{name:?}: {error}");
        assert_eq!(error.exit_code(), ExitCode::Unavailable as u8);
    }
    assert!(bench.served.seen().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_layout_is_no_host_and_needs_no_pin() {
    let bench = Bench::new().await;
    let [first, second] = ["first", "second"].map(|name| bench.directory.path().join(name));
    let to = |directory: &std::path::Path| Destination::Layout { directory: directory.to_owned(), tag: "t".into() };
    let mut request = bench.request("FROM HOST/base:1\n", &[]);
    request.destinations = vec![to(&first)];
    bench.build(request).await.unwrap();
    let asked = bench.served.seen().len();
    let text = format!("FROM named\nCOPY --from=oci:{}:t / /copied/\n", first.display());
    let mut request = offline(&bench, &text);
    request.client = client(Vec::new(), &[]);
    request.lock = Some(Arc::new(lock::Lock::new(std::path::Path::new("base.lock"), None, true).unwrap()));
    let layout = context::Source::parse(&format!("oci-layout://{}:t", first.display())).unwrap();
    request.named_contexts.push(("named".into(), layout));
    request.destinations = vec![to(&second)];
    bench.build(request).await.unwrap();
    assert_eq!(bench.served.seen().len(), asked);
}
