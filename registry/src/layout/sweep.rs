//! Deleting manifests, and the blobs that nothing names any more.

use std::collections::HashSet;
use std::fs::{self, File};
use std::io::{self, Read};
use std::path::Path;
use std::time::{Duration, SystemTime};

use serde_json::Value;
use yadokari_layers::Digest;

use super::files::{Lock, TEMPORARY, failed, remove};
use super::index::{Entry, Index, digest_in, media_type_of};
use super::{BLOBS, Layout};
use crate::manifest::MAX_MANIFEST;
use crate::media::ManifestKind;
use crate::{Manifest, Result};

/// How old a blob is at least that is removed: a younger one may be about to be named by a manifest.
const GRACE: Duration = Duration::from_secs(3600);

impl Layout {
    /// Deletes manifests and then all garbage; how many manifests there were.
    pub(super) fn delete(&self, digests: &[Digest]) -> Result<usize> {
        let _lock = Lock::exclusive(&self.directory)?;
        let mut index = self.read_index()?;
        let wanted: HashSet<_> = digests.iter().copied().collect();
        let listed = index.remove(&wanted);
        let mut gone = listed.clone();
        for digest in wanted.difference(&listed) {
            if self.is_manifest(digest)? {
                gone.insert(*digest);
            }
        }
        if gone.is_empty() {
            return Ok(0);
        }
        // In the reverse order of writing: first the names, then what they name.
        if !listed.is_empty() {
            self.write_index(&index)?;
        }
        for digest in &gone {
            remove(&self.blob_path(digest))?;
        }
        self.sweep(&index)?;
        Ok(gone.len())
    }

    /// Removes the old ones among the blobs that nothing needs, and among the files that killed writers left.
    fn sweep(&self, index: &Index) -> Result<()> {
        let Some(needed) = self.needed(index)? else { return Ok(()) };
        for directory in [self.directory.to_path_buf(), self.directory.join(BLOBS)] {
            let reading = |error| failed("read directory", &directory, error);
            for entry in fs::read_dir(&directory).map_err(reading)? {
                let entry = entry.map_err(reading)?;
                let name = entry.file_name();
                // What has another name is not ours.
                let garbage = name.to_str().is_some_and(|name| {
                    let digest: Option<Digest> = format!("sha256:{name}").parse().ok();
                    digest.map_or(name.starts_with(TEMPORARY), |digest| !needed.contains(&digest))
                });
                let path = entry.path();
                if garbage && is_old(&path)? {
                    remove(&path)?;
                }
            }
        }
        Ok(())
    }

    /// What the index's manifests name, themselves included, and those that they name in turn. `None` where that cannot
    /// be known, because a manifest has a digest of another algorithm: then everything may be needed.
    fn needed(&self, index: &Index) -> Result<Option<HashSet<Digest>>> {
        let (mut needed, mut read) = (HashSet::new(), HashSet::new());
        let Some(mut unread) = index.manifests.iter().map(digest_in).collect::<Option<Vec<_>>>() else {
            return Ok(None);
        };
        while let Some(digest) = unread.pop() {
            needed.insert(digest);
            if !read.insert(digest) {
                continue;
            }
            let Some(bytes) = self.small_blob(&digest)? else { continue };
            // What is no JSON, being broken or something unheard of, leads nobody further.
            let Ok(document) = serde_json::from_slice::<Value>(&bytes) else { continue };
            let mut found = Vec::new();
            descriptors(&document, &mut found);
            for descriptor in found {
                match (digest_in(descriptor), may_be_manifest(descriptor)) {
                    (Some(digest), true) => unread.push(digest),
                    (Some(digest), false) => drop(needed.insert(digest)),
                    (None, true) => return Ok(None),
                    (None, false) => {}
                }
            }
        }
        Ok(Some(needed))
    }

    /// Whether a blob that the index does not name is a manifest, and not something that a manifest names.
    fn is_manifest(&self, digest: &Digest) -> Result<bool> {
        let Some(bytes) = self.small_blob(digest)? else { return Ok(false) };
        let received = Manifest::received(None, bytes.into(), "");
        Ok(received.is_ok_and(|manifest| manifest.kind().is_some()))
    }

    /// A blob that is not too large for a manifest; `None` where it is, or is not there.
    fn small_blob(&self, digest: &Digest) -> Result<Option<Vec<u8>>> {
        let path = self.blob_path(digest);
        let reading = |error| failed("read", &path, error);
        let file = match File::open(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            opened => opened.map_err(reading)?,
        };
        if file.metadata().map_err(reading)?.len() > MAX_MANIFEST {
            return Ok(None);
        }
        let mut bytes = Vec::new();
        file.take(MAX_MANIFEST).read_to_end(&mut bytes).map_err(reading)?;
        Ok(Some(bytes))
    }
}

/// All that has a digest in a document, wherever it stands: new kinds of manifests name things in new fields.
fn descriptors<'v>(value: &'v Value, found: &mut Vec<&'v Entry>) {
    match value {
        Value::Object(object) => {
            if object.get("digest").is_some_and(Value::is_string) {
                found.push(object);
            }
            object.values().for_each(|value| descriptors(value, found));
        }
        Value::Array(values) => values.iter().for_each(|value| descriptors(value, found)),
        _ => {}
    }
}

/// Whether a descriptor may be a manifest's: in an index the media type may be missing.
fn may_be_manifest(descriptor: &Entry) -> bool {
    media_type_of(descriptor).is_none_or(|media_type| ManifestKind::of(media_type).is_some())
}

/// Whether a file may be removed. One with a time in the future is young: clocks of a shared volume differ.
fn is_old(path: &Path) -> Result<bool> {
    match fs::symlink_metadata(path).and_then(|metadata| metadata.modified()) {
        Ok(modified) => Ok(SystemTime::now().duration_since(modified).is_ok_and(|age| age > GRACE)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(failed("look at", path, error)),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::{BlobSource as _, BytesBlob, Store as _, Version, Written, media};

    /// A layout that tests may age.
    struct Bench {
        directory: tempfile::TempDir,
        layout: Layout,
    }

    impl Bench {
        fn new() -> Self {
            let directory = tempfile::tempdir().unwrap();
            let layout = Layout::create(directory.path()).unwrap();
            Self { directory, layout }
        }

        async fn blob(&self, content: &str) -> Digest {
            let blob = BytesBlob::new(content.to_owned());
            self.layout.write_blob(&blob, None).await.unwrap();
            blob.digest()
        }

        /// Writes an image of a config and one layer.
        async fn image(&self, config: &str, layer: &str, version: Option<&str>) -> Manifest {
            let size = |content: &str| content.len();
            let text = json!({
                "schemaVersion": 2,
                "mediaType": media::OCI_MANIFEST,
                "config": { "mediaType": media::OCI_CONFIG, "digest": self.blob(config).await, "size": size(config) },
                "layers": [{ "mediaType": media::OCI_LAYER, "digest": self.blob(layer).await, "size": size(layer) }],
            });
            self.put(Manifest::new(media::OCI_MANIFEST, text.to_string()), version).await
        }

        /// Writes an index whose entries say no media type.
        async fn index(&self, entries: &[&Manifest], version: &str) -> Manifest {
            let entry = |manifest: &&Manifest| json!({ "digest": manifest.digest, "size": manifest.bytes.len() });
            let text = json!({ "schemaVersion": 2, "manifests": entries.iter().map(entry).collect::<Vec<_>>() });
            self.put(Manifest::new(media::OCI_INDEX, text.to_string()), Some(version)).await
        }

        async fn put(&self, manifest: Manifest, tag: Option<&str>) -> Manifest {
            let version = tag.map_or(Version::Digest(manifest.digest), |tag| Version::Tag(tag.into()));
            self.layout.write_manifest(&version, &manifest).await.unwrap();
            manifest
        }

        /// Makes all files look as if they had been written this long ago.
        fn age(&self, age: Duration) {
            for directory in [self.directory.path().to_owned(), self.directory.path().join(BLOBS)] {
                for entry in fs::read_dir(directory).unwrap() {
                    let file = File::open(entry.unwrap().path()).unwrap();
                    file.set_modified(SystemTime::now() - age).unwrap();
                }
            }
        }

        fn blobs(&self) -> usize {
            fs::read_dir(self.directory.path().join(BLOBS)).unwrap().count()
        }
    }

    const OLD: Duration = Duration::from_secs(GRACE.as_secs() + 60);
    const YOUNG: Duration = Duration::from_secs(GRACE.as_secs() - 60);

    #[tokio::test]
    async fn what_no_manifest_names_is_swept_and_what_one_names_stays() {
        let bench = Bench::new();
        let first = bench.image("{\"n\":1}", "only the first has this", Some("1")).await;
        bench.image("{\"n\":2}", "shared", Some("2")).await;
        let third = bench.image("{\"n\":3}", "shared", Some("3")).await;
        let stray = bench.blob("nobody names this").await;
        bench.age(OLD);
        assert_eq!(bench.blobs(), 9);
        assert!(bench.layout.delete_manifest(&first.digest).await.unwrap());
        assert_eq!(bench.blobs(), 5, "two images that share a layer");
        assert!(!bench.layout.has_blob(&stray).await.unwrap());
        assert!(bench.layout.delete_manifest(&third.digest).await.unwrap());
        assert_eq!(bench.blobs(), 3);
        assert_eq!(bench.layout.tags().await.unwrap(), ["2"]);
        assert!(bench.layout.has_blob(&Digest::of("shared")).await.unwrap());
    }

    #[tokio::test]
    async fn manifests_behind_an_index_keep_their_blobs() {
        let bench = Bench::new();
        let inner = bench.image("{\"n\":1}", "inner", None).await;
        let middle = bench.index(&[&inner], "middle").await;
        bench.index(&[&middle], "outer").await;
        let other = bench.image("{\"n\":2}", "other", Some("other")).await;
        let untagged = bench.image("{\"n\":3}", "untagged", None).await;
        // The tag that named the inner index names another manifest from now on.
        bench.put(other.clone(), Some("middle")).await;
        bench.age(OLD);
        assert_eq!(bench.layout.delete_manifests(&[other.digest, Digest::of("absent")]).await.unwrap(), 1);
        assert_eq!(bench.layout.tags().await.unwrap(), ["outer"]);
        assert_eq!(bench.blobs(), 5, "two indexes, and an image with its config and layer");
        assert!(bench.layout.has_blob(&Digest::of("inner")).await.unwrap());
        assert_eq!(bench.layout.read_manifest(&Version::Digest(untagged.digest)).await.unwrap(), None);
    }

    #[tokio::test]
    async fn young_blobs_stay_and_so_do_old_ones_that_were_just_asked_to_be_written() {
        let bench = Bench::new();
        let doomed = bench.image("{}", "layer", Some("1")).await;
        bench.age(YOUNG);
        assert!(bench.layout.delete_manifest(&doomed.digest).await.unwrap());
        assert_eq!(bench.blobs(), 2, "config and layer");

        let doomed = bench.image("{}", "layer", Some("1")).await;
        bench.blob("stray").await;
        bench.age(OLD);
        assert_eq!(bench.layout.write_blob(&BytesBlob::new("layer"), None).await.unwrap(), Written::Already);
        assert!(bench.layout.delete_manifest(&doomed.digest).await.unwrap());
        assert!(bench.layout.has_blob(&Digest::of("layer")).await.unwrap());
        assert_eq!(bench.blobs(), 1);
    }

    #[tokio::test]
    async fn what_killed_writers_left_is_swept_and_what_others_put_there_is_not() {
        let bench = Bench::new();
        let doomed = bench.image("{}", "layer", Some("1")).await;
        let names = ["blobs/sha256/.new-1", ".new-2", "blobs/sha256/README", "notes", "blobs/sha256/.new-3"];
        for name in names {
            fs::write(bench.directory.path().join(name), "x").unwrap();
        }
        bench.age(OLD);
        File::open(bench.directory.path().join(names[4])).unwrap().set_modified(SystemTime::now() + OLD).unwrap();
        assert!(bench.layout.delete_manifest(&doomed.digest).await.unwrap());
        let left = names.map(|name| bench.directory.path().join(name).exists());
        assert_eq!(left, [false, false, true, true, true]);
    }

    #[tokio::test]
    async fn nothing_is_swept_where_a_manifest_has_an_unknown_digest() {
        let bench = Bench::new();
        let doomed = bench.image("{}", "layer", Some("1")).await;
        let path = bench.directory.path().join("index.json");
        let mut index: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
        index["manifests"].as_array_mut().unwrap().push(json!({ "digest": "sha512:0", "size": 1 }));
        fs::write(&path, index.to_string()).unwrap();
        bench.age(OLD);
        assert!(bench.layout.delete_manifest(&doomed.digest).await.unwrap());
        assert_eq!(bench.blobs(), 2, "config and layer");
    }

    #[tokio::test]
    async fn layers_and_configs_are_no_manifests() {
        let bench = Bench::new();
        bench.image("{}", "layer", Some("1")).await;
        bench.age(OLD);
        let digests = [Digest::of("{}"), Digest::of("layer"), Digest::of("absent")];
        assert_eq!(bench.layout.delete_manifests(&digests).await.unwrap(), 0);
        assert_eq!(bench.blobs(), 3);
    }
}
