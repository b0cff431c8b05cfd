//! An OCI image layout directory.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::hash::{BuildHasher, Hasher, RandomState};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use yadokari_layers::{Digest, Verifier};

use crate::manifest::MAX_MANIFEST;
use crate::store::Sink;
use crate::{BlobSource, Error, Manifest, Result, Store, Version, Written};

const REF_NAME: &str = "org.opencontainers.image.ref.name";
const MARKER: &str = "oci-layout";
const INDEX: &str = "index.json";
const PIECE: usize = 256 << 10;

/// An OCI image layout: `oci-layout`, `index.json` and `blobs/sha256/` in a directory.
///
/// A tag is the `org.opencontainers.image.ref.name` of an entry of the index; a manifest written by digest is a blob
/// and in no index. Files appear by rename, so readers never see half of one. Two processes may write blobs side by
/// side, but only one may write tags.
#[derive(Debug, Clone)]
pub struct Layout {
    directory: Arc<Path>,
    /// Held while the index is read and replaced.
    index: Arc<tokio::sync::Mutex<()>>,
}

/// `index.json`. Entries stay as they are found, since others may have written fields unknown here.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Index {
    schema_version: u32,
    #[serde(default)]
    manifests: Vec<Map<String, Value>>,
    #[serde(flatten)]
    others: BTreeMap<String, Value>,
}

impl Layout {
    /// Opens the layout in a directory.
    pub fn open(directory: impl Into<PathBuf>) -> Result<Self> {
        let directory = directory.into();
        let path = directory.join(MARKER);
        let marker: Value = parse(&path, &fs::read(&path).map_err(|error| failed("read", &path, error))?)?;
        let version = marker.get("imageLayoutVersion").and_then(Value::as_str).unwrap_or_default();
        if !version.starts_with("1.") {
            return Err(Error::Unsupported {
                what: format!("OCI layout version '{version}' of {}", directory.display()),
            });
        }
        Ok(Self { directory: directory.into(), index: Arc::default() })
    }

    /// Opens the layout in a directory, making the directory and the layout where they are missing.
    pub fn create(directory: impl Into<PathBuf>) -> Result<Self> {
        let directory = directory.into();
        if directory.join(MARKER).exists() {
            return Self::open(directory);
        }
        let blobs = directory.join("blobs/sha256");
        fs::create_dir_all(&blobs).map_err(|error| failed("create directory", &blobs, error))?;
        let layout = Self { directory: directory.into(), index: Arc::default() };
        layout.write_index(&Index { schema_version: 2, manifests: Vec::new(), others: BTreeMap::new() })?;
        layout.replace(&layout.directory.join(MARKER), br#"{"imageLayoutVersion":"1.0.0"}"#)?;
        Ok(layout)
    }

    /// The directory.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// The tags, in the index's order.
    pub fn tags(&self) -> Result<Vec<String>> {
        Ok(self.read_index()?.manifests.iter().filter_map(|entry| tag_of(entry).map(str::to_owned)).collect())
    }

    /// Where a blob's file is, or would be. Tools that read the layout in place need it; it says nothing about the
    /// blob's existence or integrity.
    pub fn blob_path(&self, digest: &Digest) -> PathBuf {
        self.directory.join("blobs/sha256").join(digest.hex())
    }

    fn read_index(&self) -> Result<Index> {
        let path = self.directory.join(INDEX);
        parse(&path, &fs::read(&path).map_err(|error| failed("read", &path, error))?)
    }

    fn write_index(&self, index: &Index) -> Result<()> {
        let path = self.directory.join(INDEX);
        let bytes = serde_json::to_vec(index).map_err(|error| failed("encode", &path, error.into()))?;
        self.replace(&path, &bytes)
    }

    fn replace(&self, path: &Path, bytes: &[u8]) -> Result<()> {
        let mut temporary = Temporary::create(path)?;
        temporary.write(bytes)?;
        temporary.publish(path)
    }

    fn store_blob(&self, digest: Digest, size: u64, mut reader: impl Read) -> Result<()> {
        let path = self.blob_path(&digest);
        let mut temporary = Temporary::create(&path)?;
        let mut verifier = Verifier::new(digest, Some(size));
        let mismatch = |mismatch| Error::Mismatch { store: self.describe(), mismatch };
        let mut piece = vec![0; PIECE];
        loop {
            let n = match reader.read(&mut piece) {
                Ok(0) => break,
                Ok(n) => n,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(source) => {
                    return Err(Error::Io { operation: "read blob", path: digest.to_string().into(), source });
                }
            };
            verifier.update(&piece[..n]).map_err(mismatch)?;
            temporary.write(&piece[..n])?;
        }
        verifier.finish().map_err(mismatch)?;
        temporary.publish(&path)
    }

    /// The size of a blob's file; `None` where there is none.
    fn blob_size(&self, digest: &Digest) -> Result<Option<u64>> {
        let path = self.blob_path(digest);
        match fs::metadata(&path) {
            Ok(metadata) => Ok(Some(metadata.len())),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(failed("look for", &path, error)),
        }
    }

    fn find(&self, version: &Version) -> Result<Option<(Digest, Option<String>)>> {
        let entries = self.read_index()?.manifests;
        let media_type = |entry: &Map<String, Value>| entry.get("mediaType").and_then(Value::as_str).map(str::to_owned);
        let wanted = |entry: &&Map<String, Value>| match version {
            Version::Tag(tag) => tag_of(entry) == Some(tag),
            Version::Digest(digest) => digest_in(entry) == Some(*digest),
        };
        match (entries.iter().find(wanted), version) {
            (Some(entry), _) => match digest_in(entry) {
                Some(digest) => Ok(Some((digest, media_type(entry)))),
                None => Err(Error::Unsupported { what: format!("the digest of {version} in {}", self.describe()) }),
            },
            (None, Version::Digest(digest)) => Ok(Some((*digest, None))),
            (None, Version::Tag(_)) => Ok(None),
        }
    }

    fn add_tag(&self, tag: &str, manifest: &Manifest) -> Result<()> {
        let mut index = self.read_index()?;
        let mut entry = Map::new();
        entry.insert("mediaType".into(), json!(manifest.media_type));
        entry.insert("digest".into(), json!(manifest.digest));
        entry.insert("size".into(), json!(manifest.bytes.len()));
        entry.insert("annotations".into(), json!({ REF_NAME: tag }));
        index.manifests.retain(|other| tag_of(other) != Some(tag));
        index.manifests.push(entry);
        self.write_index(&index)
    }
}

#[async_trait]
impl Store for Layout {
    async fn has_blob(&self, digest: &Digest) -> Result<bool> {
        Ok(self.blob_size(digest)?.is_some())
    }

    async fn read_blob(&self, digest: &Digest, size: Option<u64>, sink: &mut Sink<'_>) -> Result<()> {
        use tokio::io::AsyncReadExt as _;
        let path = self.blob_path(digest);
        let mut file = match tokio::fs::File::open(&path).await {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Err(Error::NotFound { what: format!("blob {digest}"), store: self.describe() });
            }
            Err(error) => return Err(failed("open", &path, error)),
        };
        file.set_max_buf_size(PIECE);
        let mismatch = |mismatch| Error::Mismatch { store: self.describe(), mismatch };
        let mut verifier = Verifier::new(*digest, size);
        let mut piece = vec![0; PIECE];
        loop {
            let n = file.read(&mut piece).await.map_err(|error| failed("read", &path, error))?;
            if n == 0 {
                return verifier.finish().map_err(mismatch);
            }
            verifier.update(&piece[..n]).map_err(mismatch)?;
            let taken = sink(&piece[..n]);
            taken.map_err(|source| Error::Io { operation: "take blob", path: digest.to_string().into(), source })?;
        }
    }

    /// A blob that is there with its right size is not read again to check its digest: every reader does.
    async fn write_blob(&self, blob: &dyn BlobSource, _mount_from: Option<&str>) -> Result<Written> {
        let (digest, size) = (blob.digest(), blob.size());
        if self.blob_size(&digest)? == Some(size) {
            return Ok(Written::Already);
        }
        let reader = blob.open();
        let reader =
            reader.map_err(|source| Error::Io { operation: "read blob", path: digest.to_string().into(), source })?;
        let layout = self.clone();
        blocking(move || layout.store_blob(digest, size, reader)).await?;
        Ok(Written::Uploaded)
    }

    async fn read_manifest(&self, version: &Version) -> Result<Option<Manifest>> {
        let Some((digest, media_type)) = self.find(version)? else { return Ok(None) };
        if self.blob_size(&digest)?.is_none() {
            return Ok(None);
        }
        let bytes = crate::read_small(self, &digest, None, MAX_MANIFEST).await?;
        Manifest::received(media_type.as_deref(), bytes, &self.describe()).map(Some)
    }

    async fn write_manifest(&self, version: &Version, manifest: &Manifest) -> Result<()> {
        if let Version::Digest(digest) = version {
            manifest.expect(*digest, &self.describe())?;
        }
        if self.blob_size(&manifest.digest)? != Some(manifest.bytes.len() as u64) {
            let (layout, manifest) = (self.clone(), manifest.clone());
            let store = move || layout.store_blob(manifest.digest, manifest.bytes.len() as u64, &manifest.bytes[..]);
            blocking(store).await?;
        }
        let Version::Tag(tag) = version else { return Ok(()) };
        let _alone = self.index.lock().await;
        self.add_tag(tag, manifest)
    }

    fn describe(&self) -> String {
        format!("oci:{}", self.directory.display())
    }
}

/// A file that is not yet where it belongs; dropped, it is gone.
struct Temporary {
    path: PathBuf,
    file: File,
}

impl Temporary {
    /// Creates it beside `target`, so that the rename stays on one file system.
    fn create(target: &Path) -> Result<Self> {
        let unique = format!(".new-{:016x}", RandomState::new().build_hasher().finish());
        let path = target.with_file_name(unique);
        let file = File::create_new(&path).map_err(|error| failed("create", &path, error))?;
        Ok(Self { path, file })
    }

    fn write(&mut self, bytes: &[u8]) -> Result<()> {
        self.file.write_all(bytes).map_err(|error| failed("write", &self.path, error))
    }

    fn publish(self, target: &Path) -> Result<()> {
        fs::rename(&self.path, target).map_err(|error| failed("rename", target, error))
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        // After a rename there is nothing left to remove.
        let _ = fs::remove_file(&self.path);
    }
}

/// Runs file work off the runtime's threads.
async fn blocking(work: impl FnOnce() -> Result<()> + Send + 'static) -> Result<()> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(error) => std::panic::resume_unwind(error.into_panic()),
    }
}

fn parse<T: serde::de::DeserializeOwned>(path: &Path, bytes: &[u8]) -> Result<T> {
    serde_json::from_slice(bytes).map_err(|error| failed("parse", path, error.into()))
}

fn failed(operation: &'static str, path: &Path, source: io::Error) -> Error {
    Error::Io { operation, path: path.into(), source }
}

fn tag_of(entry: &Map<String, Value>) -> Option<&str> {
    entry.get("annotations")?.get(REF_NAME)?.as_str()
}

fn digest_in(entry: &Map<String, Value>) -> Option<Digest> {
    entry.get("digest")?.as_str()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{BytesBlob, media};

    #[tokio::test]
    async fn rot_on_disk_is_seen_by_every_reader() {
        let directory = tempfile::tempdir().unwrap();
        let layout = Layout::create(directory.path()).unwrap();
        let blob = BytesBlob::new("{}");
        layout.write_blob(&blob, None).await.unwrap();
        let text = json!({
            "schemaVersion": 2, "config": { "mediaType": media::OCI_CONFIG, "digest": blob.digest(), "size": 2 }, "layers": [],
        });
        let manifest = Manifest::new(media::OCI_MANIFEST, text.to_string());
        layout.write_manifest(&Version::Tag("1".into()), &manifest).await.unwrap();
        for digest in [blob.digest(), manifest.digest] {
            let path = layout.blob_path(&digest);
            let mut content = fs::read(&path).unwrap();
            content[0] ^= 1;
            fs::write(&path, content).unwrap();
        }
        let read = crate::read_small(&layout, &blob.digest(), None, 100).await;
        assert!(matches!(read, Err(Error::Mismatch { .. })));
        let read = layout.read_manifest(&Version::Tag("1".into())).await;
        assert!(matches!(read, Err(Error::Mismatch { .. })));
    }

    #[tokio::test]
    async fn the_index_keeps_what_others_wrote_and_leaves_no_temporary_files() {
        let directory = tempfile::tempdir().unwrap();
        Layout::create(directory.path()).unwrap();
        let theirs = r#"{"schemaVersion":2,"x-theirs":1,"manifests":[{"digest":"sha512:0","size":1,"x":2}]}"#;
        fs::write(directory.path().join(INDEX), theirs).unwrap();
        let layout = Layout::create(directory.path()).unwrap();
        let manifest = Manifest::new(media::OCI_INDEX, r#"{"manifests":[]}"#);
        layout.write_manifest(&Version::Tag("a".into()), &manifest).await.unwrap();
        layout.write_manifest(&Version::Tag("a".into()), &manifest).await.unwrap();
        let text = fs::read_to_string(directory.path().join(INDEX)).unwrap();
        assert!(text.contains(r#""x-theirs":1"#) && text.contains(r#""x":2"#), "{text}");
        assert_eq!(layout.tags().unwrap(), ["a"]);
        for place in ["", "blobs/sha256"] {
            let names = fs::read_dir(directory.path().join(place)).unwrap().map(|entry| entry.unwrap().file_name());
            assert!(names.into_iter().all(|name| !name.to_string_lossy().starts_with(".new")));
        }
    }

    #[test]
    fn what_is_no_layout_is_named() {
        let directory = tempfile::tempdir().unwrap();
        let error = Layout::open(directory.path()).unwrap_err().to_string();
        assert!(error.contains("oci-layout"), "{error}");
        fs::write(directory.path().join(MARKER), r#"{"imageLayoutVersion":"2.0.0"}"#).unwrap();
        assert!(matches!(Layout::open(directory.path()), Err(Error::Unsupported { .. })));
    }
}
