//! One table of cases, run over every store.

use std::future::Future;
use std::io::{self, Write as _};
use std::pin::Pin;

use yadokari_layers::{BlobWriter, Compression};

use super::{client, image, quick, repository};
use crate::memory::{Memory, Served};
use crate::{
    BlobSource, BytesBlob, Digest, Error, Layout, Manifest, Platform, Size, Store, Version, Written, media, resolve,
};

type Case = for<'a> fn(&'a dyn Store) -> Pin<Box<dyn Future<Output = ()> + 'a>>;

/// Each case gets a fresh store.
const CASES: [(&str, Case); 11] = [
    ("absence is an answer", |store| Box::pin(absence(store))),
    ("blobs come back as written", |store| Box::pin(blobs(store))),
    ("a blob is replaced where that is asked for", |store| Box::pin(replacements(store))),
    ("a blob source that lies leaves nothing behind", |store| Box::pin(liars(store))),
    ("a growing blob is none before it is complete", |store| Box::pin(growing(store))),
    ("a failing sink ends the read", |store| Box::pin(sinks(store))),
    ("manifests come back by tag and digest", |store| Box::pin(manifests(store))),
    ("a tag moves", |store| Box::pin(tags(store))),
    ("tags are listed in order", |store| Box::pin(lists(store))),
    ("a deleted manifest takes its tags along", |store| Box::pin(deletions(store))),
    ("an index resolves to the platform's image", |store| Box::pin(indexes(store))),
];

/// A store, and what must outlive it.
struct Fixture {
    store: Box<dyn Store>,
    _directory: Option<tempfile::TempDir>,
    _served: Option<Served>,
}

async fn run(fixture: impl AsyncFn() -> Fixture) {
    for (name, case) in CASES {
        let fixture = fixture().await;
        eprintln!("{}: {name}", fixture.store.describe());
        case(&*fixture.store).await;
    }
}

#[tokio::test]
async fn memory_keeps_the_contract() {
    run(async || Fixture { store: Box::new(Memory::new()), _directory: None, _served: None }).await;
}

#[tokio::test]
async fn layout_keeps_the_contract() {
    run(async || {
        let directory = tempfile::tempdir().unwrap();
        let layout = Layout::create(directory.path().join("layout")).unwrap();
        Fixture { store: Box::new(layout), _directory: Some(directory), _served: None }
    })
    .await;
}

#[tokio::test]
async fn registry_keeps_the_contract() {
    run(async || {
        let served = Memory::new().serve().await.unwrap();
        let store = repository(&client(quick()), &served, "team/app");
        Fixture { store: Box::new(store), _directory: None, _served: Some(served) }
    })
    .await;
}

/// Some stores take only what is complete, and say so.
async fn growing(store: &dyn Store) {
    let blob = Digest::of("content");
    for (name, is_right) in [(Digest::of("other"), false), (blob, true)] {
        let directory = tempfile::tempdir().unwrap();
        let mut writer = BlobWriter::create(directory.path(), Compression::None, None).unwrap();
        writer.write_all(b"content").unwrap();
        let growing = writer.growing().clone();
        let (upload, _) = tokio::join!(store.begin_blob(&growing), async { writer.finish().unwrap() });
        if let Some(upload) = upload.unwrap() {
            assert_eq!(store.blob_size(&blob).await.unwrap(), None);
            assert_eq!(store.complete_blob(upload, &name).await.is_ok(), is_right);
            assert_eq!(store.has_blob(&blob).await.unwrap(), is_right);
            assert!(!store.has_blob(&Digest::of("other")).await.unwrap());
        }
    }
}

async fn read(store: &dyn Store, digest: &Digest, size: Option<u64>) -> crate::Result<Vec<u8>> {
    crate::read_small(store, digest, size, 1 << 30).await.map(Vec::from)
}

async fn absence(store: &dyn Store) {
    let digest = Digest::of("absent");
    assert!(!store.has_blob(&digest).await.unwrap());
    assert_eq!(store.blob_size(&digest).await.unwrap(), None);
    assert_eq!(store.tags().await.unwrap(), [""; 0]);
    assert!(!store.delete_manifest(&digest).await.unwrap());
    assert!(matches!(read(store, &digest, None).await, Err(Error::NotFound { .. })));
    for version in [Version::Tag("absent".into()), Version::Digest(digest)] {
        assert_eq!(store.read_manifest(&version).await.unwrap(), None);
        assert_eq!(store.manifest_digest(&version).await.unwrap(), None);
    }
    let platform = Platform::host();
    let error = resolve(store, &Version::Tag("absent".into()), &platform).await.unwrap_err();
    assert!(error.to_string().contains(&store.describe()), "{error}");
}

async fn blobs(store: &dyn Store) {
    for size in [0, 1, 1000, (1 << 20) + 7] {
        let content: Vec<u8> = (0..size).map(|i: u32| (i % 251) as u8).collect();
        let blob = BytesBlob::new(content.clone());
        let digest = blob.digest();
        assert_eq!(store.write_blob(&blob, None).await.unwrap(), Written::Uploaded);
        assert_eq!(store.write_blob(&blob, None).await.unwrap(), Written::Already);
        assert!(store.has_blob(&digest).await.unwrap());
        assert_eq!(store.blob_size(&digest).await.unwrap(), Some(Size::Told(blob.size())));
        assert_eq!(read(store, &digest, None).await.unwrap(), content);
        assert_eq!(read(store, &digest, Some(blob.size())).await.unwrap(), content);
        let wrong = read(store, &digest, Some(blob.size() + 1)).await;
        assert!(matches!(wrong, Err(Error::Mismatch { .. })), "{wrong:?}");
    }
    let blob = BytesBlob::new("long");
    store.write_blob(&blob, None).await.unwrap();
    assert!(matches!(read(store, &blob.digest(), Some(3)).await, Err(Error::Mismatch { .. })));
    assert!(crate::read_small(store, &blob.digest(), None, 3).await.is_err());
}

/// Promises one blob and gives another.
struct Liar {
    size: u64,
    content: &'static [u8],
}

impl BlobSource for Liar {
    fn size(&self) -> u64 {
        self.size
    }

    fn digest(&self) -> Digest {
        Digest::of("promised")
    }

    fn open(&self) -> io::Result<Box<dyn io::Read + Send>> {
        Ok(Box::new(self.content))
    }
}

async fn replacements(store: &dyn Store) {
    let blob = BytesBlob::new("content");
    for _ in 0..2 {
        store.replace_blob(&blob).await.unwrap();
        assert_eq!(store.write_blob(&blob, None).await.unwrap(), Written::Already);
    }
    store.replace_blob(&Liar { size: 8, content: b"promises" }).await.unwrap_err();
    assert!(!store.has_blob(&Digest::of("promised")).await.unwrap());
}

async fn liars(store: &dyn Store) {
    let lies = [
        Liar { size: 8, content: b"PROMISED" },
        Liar { size: 8, content: b"promise" },
        Liar { size: 7, content: b"promised" },
    ];
    for liar in lies {
        store.write_blob(&liar, None).await.unwrap_err();
        assert!(!store.has_blob(&liar.digest()).await.unwrap());
    }
    store.write_blob(&Liar { size: 8, content: b"promised" }, None).await.unwrap();
}

async fn sinks(store: &dyn Store) {
    let blob = BytesBlob::new("content");
    store.write_blob(&blob, None).await.unwrap();
    let mut full = |_: &[u8]| Err(io::Error::from(io::ErrorKind::StorageFull));
    let error = store.read_blob(&blob.digest(), None, &mut full).await.unwrap_err();
    assert!(matches!(&error, Error::Io { source, .. } if source.kind() == io::ErrorKind::StorageFull), "{error}");
}

async fn put(store: &dyn Store, config: &'static str, version: &Version) -> Manifest {
    let (config, layer) = (BytesBlob::new(config), BytesBlob::new("layer"));
    store.write_blob(&config, None).await.unwrap();
    store.write_blob(&layer, None).await.unwrap();
    let manifest = image(&config, &[&layer]);
    store.write_manifest(version, &manifest).await.unwrap();
    manifest
}

async fn manifests(store: &dyn Store) {
    let tag = Version::Tag("1.0".into());
    let manifest = put(store, "{}", &tag).await;
    for version in [tag, Version::Digest(manifest.digest)] {
        assert_eq!(store.read_manifest(&version).await.unwrap().as_ref(), Some(&manifest));
        assert_eq!(store.manifest_digest(&version).await.unwrap(), Some(manifest.digest));
    }
    let other = Version::Digest(Digest::of("other"));
    assert!(matches!(store.write_manifest(&other, &manifest).await, Err(Error::Mismatch { .. })));
}

async fn tags(store: &dyn Store) {
    let tag = Version::Tag("latest".into());
    let first = put(store, r#"{"n":1}"#, &tag).await;
    let second = put(store, r#"{"n":2}"#, &tag).await;
    let _third = put(store, r#"{"n":3}"#, &Version::Tag("other".into())).await;
    assert_eq!(store.manifest_digest(&tag).await.unwrap(), Some(second.digest));
    assert_eq!(store.read_manifest(&Version::Digest(first.digest)).await.unwrap(), Some(first));
}

async fn lists(store: &dyn Store) {
    store.write_blob(&BytesBlob::new("no tag yet"), None).await.unwrap();
    assert_eq!(store.tags().await.unwrap(), [""; 0]);
    let expected = ["0", "A", "_", "a", "a.b", "b", "latest"];
    for tag in ["b", "latest", "_", "a.b", "0", "A", "a", "b"] {
        put(store, "{}", &Version::Tag(tag.into())).await;
    }
    assert_eq!(store.tags().await.unwrap(), expected);
}

async fn deletions(store: &dyn Store) {
    let tag = |name: &str| Version::Tag(name.into());
    let doomed = put(store, r#"{"n":1}"#, &tag("a")).await;
    let kept = put(store, r#"{"n":2}"#, &tag("b")).await;
    store.write_manifest(&tag("c"), &doomed).await.unwrap();
    let untagged = image(&BytesBlob::new(r#"{"n":3}"#), &[&BytesBlob::new("layer")]);
    put(store, r#"{"n":3}"#, &Version::Digest(untagged.digest)).await;
    assert!(store.delete_manifest(&doomed.digest).await.unwrap());
    assert!(!store.delete_manifest(&doomed.digest).await.unwrap());
    assert_eq!(store.tags().await.unwrap(), ["b"]);
    for gone in [tag("a"), tag("c"), Version::Digest(doomed.digest)] {
        assert_eq!(store.read_manifest(&gone).await.unwrap(), None);
        assert_eq!(store.manifest_digest(&gone).await.unwrap(), None);
    }
    assert!(store.read_manifest(&Version::Digest(untagged.digest)).await.unwrap().is_some());
    // What another manifest needs is there, and the same manifest can come back.
    assert_eq!(read(store, &Digest::of("layer"), None).await.unwrap(), b"layer");
    let again = put(store, r#"{"n":1}"#, &tag("a")).await;
    assert_eq!(store.read_manifest(&tag("a")).await.unwrap(), Some(again));
    let digests = [kept.digest, Digest::of("absent"), doomed.digest, untagged.digest];
    assert_eq!(store.delete_manifests(&digests).await.unwrap(), 3);
    assert_eq!(store.tags().await.unwrap(), [""; 0]);
}

async fn indexes(store: &dyn Store) {
    let mut entries = Vec::new();
    let platforms = [
        ("linux", "amd64", None),
        ("linux", "arm", Some("v6")),
        ("linux", "arm", Some("v7")),
        ("unknown", "unknown", None),
    ];
    for (n, (os, architecture, variant)) in platforms.into_iter().enumerate() {
        let config = BytesBlob::new(format!(r#"{{"architecture":"{architecture}","n":{n}}}"#));
        store.write_blob(&config, None).await.unwrap();
        let manifest = image(&config, &[]);
        store.write_manifest(&Version::Digest(manifest.digest), &manifest).await.unwrap();
        entries.push(serde_json::json!({
            "mediaType": media::OCI_MANIFEST, "digest": manifest.digest, "size": manifest.bytes.len(),
            "platform": { "os": os, "architecture": architecture, "variant": variant },
        }));
    }
    let text = serde_json::json!({ "schemaVersion": 2, "mediaType": media::DOCKER_LIST, "manifests": entries });
    let index = Manifest::new(media::DOCKER_LIST, text.to_string());
    let tag = Version::Tag("multi".into());
    store.write_manifest(&tag, &index).await.unwrap();
    for (platform, n) in [("linux/amd64", 0), ("linux/arm/v6", 1), ("linux/arm", 2)] {
        let resolved = resolve(store, &tag, &platform.parse().unwrap()).await.unwrap();
        assert_eq!(resolved.root, index.digest);
        assert!(resolved.config.ends_with(format!("\"n\":{n}}}").as_bytes()), "{platform}: {:?}", resolved.config);
    }
    let error = resolve(store, &tag, &"linux/s390x".parse().unwrap()).await.unwrap_err().to_string();
    assert!(
        error.ends_with(
            "platform linux/s390x (the image is for linux/amd64, linux/arm/v6, linux/arm/v7) is not supported"
        ),
        "{error}"
    );
}
