//! Whole builds against a registry that misbehaves: each fault at each kind of request, once and for ever. The build ends
//! right, or says clearly why not; a tag never names half an image.

use futures_util::stream::{self, StreamExt as _};
use yadokari_registry::memory::{Effect, Fault, Locations, Serving};
use yadokari_registry::{Timeouts, digest_of};

use super::expiry::{bearer, logged_in};
use super::*;

/// The base is linked, a layer of another image is read, and two blobs are uploaded.
const TEXT: &str = "FROM HOST/first:1\nCOPY --from=HOST/second:1 /base1 /copied\nCOPY a /a\n";

/// The kinds of requests that a build makes.
const KINDS: [(char, &str, &str); 8] = [
    ('T', "GET", "/token"),
    ('M', "GET", "/first/manifests/"),
    ('B', "GET", "/second/blobs/"),
    ('L', "HEAD", "/app/blobs/"),
    ('S', "POST", "/app/blobs/uploads/"),
    ('U', "PUT", "/app/blobs/uploads/"),
    ('C', "DELETE", "/app/blobs/uploads/"),
    ('P', "PUT", "/app/manifests/"),
];

/// A fault, the kinds of requests that it befalls, and those with which it ends a build when it happens once, and when it
/// happens always.
struct Row {
    name: &'static str,
    effect: Effect,
    at: &'static str,
    once: &'static str,
    always: &'static str,
}

const ALL: &str = "TMBLSUCP";

fn row(name: &'static str, effect: Effect, at: &'static str, once: &'static str, always: &'static str) -> Row {
    Row { name, effect, at, once, always }
}

fn refusal(status: u16, headers: &[(&str, &str)]) -> Effect {
    let headers = headers.iter().map(|&(name, value)| (name.into(), value.into())).collect();
    Effect::Answer { status, headers, body: r#"{"errors":[{"code":"WORDS","message":"the registry's own"}]}"#.into() }
}

/// The faults. `host` is the registry, and `other` another one with the same content, which wants no login.
fn rows(host: &str, other: &str) -> Vec<Row> {
    let challenge = format!(r#"Bearer realm="http://{host}/token",service="test, registry""#);
    let declares = |digest: Option<String>| Effect::Header("docker-content-digest", digest);
    let nonsense = Effect::Answer { status: 200, headers: Vec::new(), body: "nonsense".into() };
    vec![
        // A password that is refused is not tried again; HEAD that is refused is tried as GET.
        row("401", refusal(401, &[("WWW-Authenticate", &challenge)]), ALL, "T", "TMBSUP"),
        row("403", refusal(403, &[]), ALL, "TMBSUP", "TMBSUP"),
        row("a token that is over", Effect::ExpireTokens, "MBLSUCP", "", "MBLSUP"),
        row("429", refusal(429, &[]), ALL, "", "TMBLSUP"),
        row("429 with Retry-After", refusal(429, &[("Retry-After", "1")]), ALL, "", "TMBLSUP"),
        row("500", refusal(500, &[]), ALL, "", "TMBLSUP"),
        row("502", refusal(502, &[]), ALL, "", "TMBLSUP"),
        row("503 with Retry-After", refusal(503, &[("Retry-After", "0")]), ALL, "", "TMBLSUP"),
        row("504", refusal(504, &[]), ALL, "", "TMBLSUP"),
        row("a cut request", Effect::CutRequest(1), ALL, "", "TMBLSUP"),
        row("a cut request that is kept", Effect::KeepRequest(1), ALL, "", "TMBLSUP"),
        row("a cut answer", Effect::CutAnswer(1), ALL, "", "TMB"),
        // What the registry did counts, not what it could say of it.
        row("a lost answer", Effect::LoseAnswer, ALL, "", "TMBLS"),
        row("a slow body", Effect::Slow(2000), ALL, "", ""),
        row("silence", Effect::Silence, ALL, "", "TMBLSUP"),
        // What a token server is sent goes nowhere else; the session is not there.
        row("307 to another host", Effect::Elsewhere(other.into()), ALL, "T", "TU"),
        row("202 in answer to a mount", Effect::NoMount, "S", "", ""),
        // Only a session that does not go on there says where it does.
        row("416", refusal(416, &[]), ALL, "TMBLSP", "TMBLSUP"),
        row("HEAD refused with 405", refusal(405, &[]), "L", "", ""),
        row("no Docker-Content-Digest", declares(None), "MBLSUP", "", ""),
        row("a wrong digest", declares(Some(Digest::of("x").to_string())), "MBLSU", "MU", "MU"),
        row("wrong content", nonsense, "MB", "MB", "MB"),
    ]
}

/// What all cases begin with: the images to build from, and the digest of what is to be built.
struct Template {
    images: Vec<(String, Manifest, Vec<BytesBlob>)>,
    digest: Digest,
}

impl Template {
    async fn new() -> Self {
        let bench = Bench::new().await.file("a", "a").file("base", "base");
        let mut images = Vec::new();
        for (number, name) in ["first", "second"].into_iter().enumerate() {
            let mut request = bench.request(&format!("FROM HOST/base:1\nCOPY base /base{number}\n"), &[]);
            let reference = format!("{}/{name}:1", bench.served.host()).parse().unwrap();
            request.destinations = vec![Destination::Registry(reference)];
            bench.build(request).await.unwrap();
            let store = bench.registry.repository(name);
            let manifest = store.read_manifest(&tag()).await.unwrap().unwrap();
            images.push((name.to_owned(), manifest.clone(), blobs(&store, &manifest).await));
        }
        let digest = bench.build(bench.request(TEXT, &[])).await.unwrap().digest;
        Self { images, digest }
    }

    async fn registry(&self) -> Memory {
        let registry = Memory::new();
        for (name, manifest, blobs) in &self.images {
            let store = registry.repository(name);
            for blob in blobs {
                store.write_blob(blob, None).await.unwrap();
            }
            store.write_manifest(&tag(), manifest).await.unwrap();
        }
        registry
    }

    /// Makes one build and looks at what came of it. What is wrong is returned.
    async fn wrong(&self, case: Case) -> Option<String> {
        let registry = self.registry().await;
        let locations = if case.times == 1 { Locations::Relative } else { Locations::Absolute };
        let serving = Serving { auth: bearer(Duration::from_secs(3600)), locations, ..Serving::default() };
        let served = registry.serve_with(serving).await.unwrap();
        let other = registry.serve().await.unwrap();
        let bench = Bench { registry, served, directory: tempfile::tempdir().unwrap() }.file("a", "a");
        let rows = rows(&bench.served.host(), &other.host());
        let row = &rows[case.row];
        let (kind, method, path) = KINDS[case.kind];
        let fails = if case.times == 1 { row.once } else { row.always }.contains(kind);
        let name = format!("{} at {method} {path}, {} times", row.name, case.times);
        let mut request = bench.request(TEXT, &[]);
        let silence = Duration::from_millis(800);
        let timeouts = Timeouts { silence, commit: silence, ..Timeouts::default() };
        let retry = RetryPolicy { delay: Duration::from_millis(5), ..RetryPolicy::default() };
        request.client = Client::new(ClientOptions { retry, timeouts, ..logged_in(&bench.served) }).unwrap();
        if kind != 'T' {
            // The requests that only ask which login is wanted are none of those that the fault is meant for.
            log_in(&request.client, &bench.served).await;
        }
        bench.served.inject(Fault { method, path, times: case.times, effect: row.effect.clone() });
        let before = bench.served.seen().len();
        let built = bench.build(request).await;

        let app = bench.registry.repository("app");
        let tags = app.tags().await.unwrap();
        let (seen, seen_there) = (bench.served.seen().split_off(before), other.seen());
        let befell = seen.iter().any(|seen| seen.method == method && seen.path.contains(path));
        if !befell {
            return Some(format!("{name}: no such request was made"));
        }
        if let Some(told) = seen_there.iter().find(|seen| seen.authorization.is_some()) {
            return Some(format!("{name}: the login went elsewhere: {told:?}"));
        }
        if seen.iter().any(|seen| seen.path.contains("/referrers/")) {
            return Some(format!("{name}: not every registry knows referrers"));
        }
        match built {
            Ok(_) if fails => Some(format!("{name}: the build succeeded")),
            Ok(built) if built.digest != self.digest || tags != ["1"] => Some(format!("{name}: {built:?}, {tags:?}")),
            Ok(built) => {
                let manifest = app.read_manifest(&tag()).await.unwrap().unwrap();
                // Reading checks what is read.
                let whole = blobs(&app, &manifest).await.len() == 4;
                (manifest.digest != built.digest || !whole).then(|| format!("{name}: half an image"))
            }
            Err(error) if !fails => Some(format!("{name}: {error}")),
            Err(error) if !error.to_string().contains(&bench.served.host()) => {
                Some(format!("{name}: unclear: {error}"))
            }
            Err(_) => (!tags.is_empty()).then(|| format!("{name}: it failed, and there is {tags:?}")),
        }
    }
}

#[derive(Clone, Copy)]
struct Case {
    row: usize,
    kind: usize,
    times: u32,
}

fn tag() -> Version {
    Version::Tag("1".into())
}

/// Gets the tokens that a build needs.
async fn log_in(client: &Client, served: &Served) {
    let store = |name: &str| client.repository(&format!("{}/{name}", served.host()).parse().unwrap());
    for name in ["first", "second"] {
        store(name).manifest_digest(&tag()).await.unwrap();
    }
    store("app").check_push().await.unwrap();
}

/// All blobs of an image.
async fn blobs(store: &Memory, manifest: &Manifest) -> Vec<BytesBlob> {
    let image = manifest.image().unwrap();
    let mut blobs = Vec::new();
    for descriptor in image.layers().iter().chain([image.config()]) {
        let digest = digest_of(descriptor).unwrap();
        let bytes = yadokari_registry::read_small(store, &digest, Some(descriptor.size()), 1 << 20).await.unwrap();
        blobs.push(BytesBlob::new(bytes));
    }
    blobs
}

#[tokio::test(flavor = "multi_thread")]
async fn every_fault_at_every_request_ends_in_a_whole_image_or_in_a_clear_error() {
    let template = Template::new().await;
    let mut cases = Vec::new();
    for (number, row) in rows("here", "there").iter().enumerate() {
        for (kind, (letter, ..)) in KINDS.into_iter().enumerate() {
            assert!(row.once.chars().chain(row.always.chars()).all(|failing| row.at.contains(failing)), "{}", row.name);
            if row.at.contains(letter) {
                cases.extend([1, u32::MAX].map(|times| Case { row: number, kind, times }));
            }
        }
    }
    let count = cases.len();
    let wrong = stream::iter(cases).map(|case| template.wrong(case)).buffer_unordered(16);
    let wrong: Vec<String> = wrong.filter_map(async |wrong| wrong).collect().await;
    assert!(wrong.is_empty(), "{} of {count}:\n{}", wrong.len(), wrong.join("\n"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_registry_that_knows_no_indexes_says_so_and_gets_no_tag() {
    let bench = Bench::new().await;
    let mut request = bench.request("FROM HOST/base:1\nLABEL a=b\n", &["linux/arm64", "linux/amd64"]);
    request.index = Some(vec!["linux/arm64".parse().unwrap(), "linux/amd64".parse().unwrap()]);
    bench.served.inject(Fault { method: "PUT", path: "/app/manifests/1", times: 9, effect: refusal(404, &[]) });
    let error = bench.build(request).await.unwrap_err();
    assert!(error.to_string().contains("answered 404: WORDS: the registry's own"), "{error}");
    assert_eq!(bench.registry.repository("app").tags().await.unwrap(), [""; 0]);
    bench.served.inject(Fault { method: "GET", path: "/base/manifests/1", times: 9, effect: refusal(404, &[]) });
    let error = bench.build(bench.request("FROM HOST/base:1\n", &[])).await.unwrap_err();
    assert!(error.to_string().contains(&format!("manifest 1 not found in {}/base", bench.served.host())), "{error}");
}
