//! Base images and archives that mean no good: what the build says, its exit code, and that nothing comes of it.

use std::io::Write as _;

use yadokari_layers::{Compression, Limits, compress};
use yadokari_registry::digest_of;

use super::*;
use crate::progress::said::Said;

/// Few enough to be gone beyond by a test.
const LIMITS: Limits = Limits { size: 1 << 20, entries: 100 };

/// A tar of these entries: their kind, name, link and content.
fn tar(entries: &[(u8, &str, &str, &[u8])]) -> Vec<u8> {
    let mut out = Vec::new();
    for (kind, name, link, content) in entries {
        let mut header = ::tar::Header::new_ustar();
        header.as_old_mut().name[..name.len()].copy_from_slice(name.as_bytes());
        header.as_old_mut().linkname[..link.len()].copy_from_slice(link.as_bytes());
        header.as_old_mut().linkflag[0] = *kind;
        header.set_mode(0o755);
        header.set_size(content.len() as u64);
        header.set_cksum();
        out.extend_from_slice(header.as_bytes());
        out.extend_from_slice(content);
        out.resize(out.len().next_multiple_of(512), 0);
    }
    out.extend([0; 1024]);
    out
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = compress::Encoder::new(Compression::Gzip, None, Vec::new()).unwrap();
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

/// A layer of an image: its blob, and what the config says of it.
struct Hostile {
    blob: Vec<u8>,
    diff_id: Digest,
}

impl Hostile {
    fn of(tar: &[u8]) -> Self {
        Self { blob: gzip(tar), diff_id: Digest::of(tar) }
    }
}

impl Bench {
    /// Pushes an image of this layer as `evil:1`.
    async fn evil(&self, layer: &Hostile) {
        let store = self.registry.repository("evil");
        let config = json!({"architecture": "amd64", "os": "linux", "config": {},
            "rootfs": {"type": "layers", "diff_ids": [layer.diff_id]}});
        let (config, blob) = (BytesBlob::new(config.to_string()), BytesBlob::new(layer.blob.clone()));
        for blob in [&config, &blob] {
            store.write_blob(blob, None).await.unwrap();
        }
        let described = |blob: &BytesBlob, media_type: &str| {
            let (digest, size) = (Digest::of(blob.bytes()), blob.bytes().len());
            json!({"mediaType": media_type, "digest": digest, "size": size})
        };
        let layer = described(&blob, "application/vnd.oci.image.layer.v1.tar+gzip");
        let manifest = json!({"schemaVersion": 2, "mediaType": media::OCI_MANIFEST, "layers": [layer],
            "config": described(&config, media::OCI_CONFIG)});
        let manifest = Manifest::new(media::OCI_MANIFEST, manifest.to_string());
        store.write_manifest(&Version::Tag("1".into()), &manifest).await.unwrap();
    }

    /// Builds what must fail, and looks at what is left. Returns the error and the exit code.
    async fn refused(&self, name: &str, text: &str) -> (String, u8) {
        let mut request = self.request(text, &[]);
        request.limits = LIMITS;
        let error = self.build(request).await.expect_err(name);
        let app = self.registry.repository("app");
        assert_eq!(app.tags().await.unwrap(), Vec::<String>::new(), "{name}");
        let left: Vec<_> = fs::read_dir(self.directory.path().join(".work")).unwrap().collect();
        assert!(left.is_empty(), "{name}: {left:?}");
        (error.diagnostic().map_or_else(|| error.to_string(), |diagnostic| diagnostic.message), error.exit_code())
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hostile_base_image_ends_the_build_with_its_layer_and_entry_and_nothing_else() {
    let bomb = tar(&[(b'0', "small", "", b"x"), (b'0', "bomb", "", &vec![0; 2 << 20])]);
    let names: Vec<String> = (0..200).map(|number| format!("f{number}")).collect();
    let many: Vec<(u8, &str, &str, &[u8])> = names.iter().map(|name| (b'0', &name[..], "", &b""[..])).collect();
    let good = || Hostile::of(&tar(&[(b'0', "a", "", b"content")]));
    let (data, io, protocol) = (ExitCode::Data as u8, ExitCode::Io as u8, ExitCode::Protocol as u8);
    let cut = {
        let mut layer = Hostile::of(&tar(&[(b'0', "a", "", &b"some content".repeat(1000))]));
        layer.blob.truncate(layer.blob.len() / 2);
        layer
    };
    let cases = [
        ("climbs", Hostile::of(&tar(&[(b'0', "../canary", "", b"x")])), data, "entry '../canary': climbs with '..'"),
        ("links out", Hostile::of(&tar(&[(b'1', "h", "../canary", b"")])), data, "entry 'h': links to a path that"),
        ("a bomb", Hostile::of(&bomb), data, "entry 'bomb' is beyond the 1048576 bytes unpacked"),
        ("many entries", Hostile::of(&tar(&many)), data, "entry 'f100' is beyond the 100 entries that are allowed"),
        ("no tar", Hostile::of(&[b'x'; 4096]), io, "the checksum of a header does not match"),
        ("cut off", cut, io, "read layer: incomplete deflate stream"),
        (
            "another tar",
            Hostile { diff_id: Digest::of("other"), ..good() },
            protocol,
            "the image's config says sha256:",
        ),
    ];
    for (name, layer, code, words) in cases {
        let bench = Bench::new().await.file("f", "content");
        bench.evil(&layer).await;
        for text in ["FROM HOST/evil:1\nCOPY f /f\n", "FROM scratch\nCOPY --from=HOST/evil:1 / /all/\n"] {
            let (error, found) = bench.refused(name, text).await;
            assert!(error.contains(words), "{name}: {error}");
            assert!(error.contains(&Digest::of(&layer.blob).to_string()), "{name}: {error}");
            assert_eq!(found, code, "{name}: {error}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn limits_are_what_the_build_says() {
    let bench = Bench::new().await.file("f", "content");
    bench.evil(&Hostile::of(&tar(&[(b'0', "large", "", &vec![0; 2 << 20])]))).await;
    // What is passed on is not read, and so not limited.
    for (text, limits) in
        [("FROM HOST/evil:1\nENV A=1\n", LIMITS), ("FROM HOST/evil:1\nCOPY f /f\n", Limits { size: 4 << 20, ..LIMITS })]
    {
        let mut request = bench.request(text, &[]);
        request.limits = limits;
        bench.build(request).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_archive_beyond_the_limits_is_refused_by_its_name() {
    let bench = Bench::new().await;
    let path = bench.directory.path().to_owned();
    let large = gzip(&tar(&[(b'0', "large", "", &vec![0; 2 << 20])]));
    for (name, bytes) in [
        ("large.tgz", large.clone()),
        ("climbs.tar", tar(&[(b'0', "a/../../../x", "", b"x")])),
        ("device", tar(&[(b's', "socket", "", b"")])),
        ("cut.tgz", large[..large.len() - 30].to_vec()),
    ] {
        fs::write(path.join(name), bytes).unwrap();
    }
    for (name, words, code) in [
        ("large.tgz", "archive 'large.tgz': entry 'large' is beyond the 1048576 bytes unpacked", ExitCode::Data),
        ("climbs.tar", "archive 'climbs.tar': entry 'a/../../../x': climbs with '..'", ExitCode::Data),
        ("device", "archive 'device': entry 'socket': has a type", ExitCode::Data),
        ("cut.tgz", "", ExitCode::Data),
    ] {
        let (error, found) = bench.refused(name, &format!("FROM scratch\nADD {name} /x/\n")).await;
        assert!(error.contains(words), "{name}: {error}");
        assert_eq!(found, code as u8, "{name}: {error}");
    }
}

/// A build with a cache, which may say anything.
async fn with_cache(bench: &Bench, text: &str, limits: Limits) -> (Digest, String) {
    let mut request = bench.request(text, &[]);
    (request.cache, request.limits) = (Some(bench.settings()), limits);
    let log = Said::default();
    let progress = Progress::to(Level::Debug, Box::new(log.clone()));
    let built = build(request, Arc::new(progress), Interrupt::default()).await;
    (built.unwrap_or_else(|error| panic!("{error}: {}", log.text())).digest, log.text())
}

/// The layer of an image with one.
async fn layer_of(bench: &Bench, repository: &str) -> plan::LayerRef {
    let store = bench.registry.repository(repository);
    let image = store.read_manifest(&Version::Tag("1".into())).await.unwrap().unwrap().image().unwrap();
    let (config, _) = bench.pushed(repository).await;
    let layer = &image.layers()[0];
    let diff_id = config["rootfs"]["diff_ids"][0].as_str().unwrap().parse().unwrap();
    plan::LayerRef { digest: digest_of(layer).unwrap(), size: layer.size(), compression: Compression::Gzip, diff_id }
}

/// Writes to the bench's cache what somebody else wants it to say.
fn neighbour(bench: &Bench) -> crate::cache::Cache {
    let client = Client::new(ClientOptions::default()).unwrap();
    crate::cache::Cache::open(bench.settings(), &client, Arc::new(Progress::silent()))
}

#[tokio::test(flavor = "multi_thread")]
async fn an_index_that_lies_is_found_out_and_made_anew() {
    let honest: &[(u8, &str, &str, &[u8])] = &[(b'5', "d", "", b""), (b'0', "d/f", "", b"content")];
    let text = "FROM scratch\nCOPY --from=HOST/evil:1 / /all/\n";
    let ghost: Vec<_> = honest.iter().copied().chain([(b'0', "ghost", "", &b"none"[..])]).collect();
    let names: Vec<String> = (0..200).map(|number| format!("f{number}")).collect();
    let many: Vec<(u8, &str, &str, &[u8])> = names.iter().map(|name| (b'0', &name[..], "", &b""[..])).collect();
    for (name, lie, ignored) in [
        ("a file that is not there", tar(&ghost), "ignored what it says of the contents of layers"),
        ("more entries than a layer may have", tar(&many), "is beyond the 100 entries"),
    ] {
        let bench = Bench::new().await;
        bench.evil(&Hostile::of(&tar(honest))).await;
        let mut request = bench.request(text, &[]);
        request.limits = LIMITS;
        let expected = bench.build(request).await.unwrap().digest;
        let layer = layer_of(&bench, "evil").await;
        neighbour(&bench).write_index(&layer, &yadokari_layers::tar::index(&lie[..]).unwrap()).await;
        let (built, log) = with_cache(&bench, text, LIMITS).await;
        assert_eq!(built, expected, "{name}: {log}");
        assert!(log.contains(ignored), "{name}: {log}");
        // The next build finds the truth.
        let (_, log) = with_cache(&bench, &format!("{text}ENV A=1\n"), LIMITS).await;
        assert!(!log.contains("ignored"), "{name}: {log}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_layer_of_the_cache_that_cannot_be_unpacked_is_made_anew() {
    let bench = Bench::new().await.file("f", "content");
    let text = "FROM scratch AS one\nCOPY f /f\nFROM scratch\nCOPY --from=one /f /g\n";
    let (expected, _) = with_cache(&bench, text, LIMITS).await;
    // Each record of a step gets a layer whose digest is right, and which is no tar.
    let cache = bench.registry.repository("cache");
    let rubbish = BytesBlob::new(vec![b'x'; 4096]);
    cache.write_blob(&rubbish, None).await.unwrap();
    for tag in cache.tags().await.unwrap() {
        // One that was deleted had two tags.
        let Some(manifest) = cache.read_manifest(&Version::Tag(tag.clone())).await.unwrap() else { continue };
        let mut json: Value = serde_json::from_slice(&manifest.bytes).unwrap();
        let is_step = json["annotations"]["dev.yadokari.cache.kind"] == "step";
        if !is_step {
            cache.delete_manifest(&manifest.digest).await.unwrap();
            continue;
        }
        for layer in json["layers"].as_array_mut().unwrap() {
            if layer["mediaType"].as_str().unwrap().contains("image.layer") {
                layer["digest"] = Digest::of(rubbish.bytes()).to_string().into();
                layer["size"] = rubbish.bytes().len().into();
            }
        }
        let manifest = Manifest::new(media::OCI_MANIFEST, json.to_string());
        cache.write_manifest(&Version::Tag(tag), &manifest).await.unwrap();
    }
    let changed = text.replace("/g", "/h");
    let mut request = bench.request(&changed, &[]);
    request.limits = LIMITS;
    let plain = bench.build(request).await.unwrap().digest;
    let (built, log) = with_cache(&bench, &changed, LIMITS).await;
    assert_eq!(built, plain, "{log}");
    assert!(log.contains(&format!("cache: ignored layer {}", Digest::of(rubbish.bytes()))), "{log}");
    assert_ne!(built, expected);
}
