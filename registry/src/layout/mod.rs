//! An OCI image layout directory.

mod files;
mod index;
mod sweep;

use std::fs;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use async_trait::async_trait;
use rustix::fs::{AtFlags, CWD, Timestamps, UTIME_NOW};
use serde_json::Value;
use yadokari_layers::{Digest, Verifier};

use self::files::{Lock, Temporary, blocking, failed, parse};
use self::index::Index;
use crate::manifest::MAX_MANIFEST;
use crate::store::Sink;
use crate::{BlobSource, Error, Manifest, Result, Size, Store, Version, Written};

const MARKER: &str = "oci-layout";
const INDEX: &str = "index.json";
const BLOBS: &str = "blobs/sha256";
const PIECE: usize = 256 << 10;

/// An OCI image layout: `oci-layout`, `index.json` and `blobs/sha256/` in a directory.
///
/// A tag is the `org.opencontainers.image.ref.name` of an entry of the index; a manifest written by digest is a blob
/// and in no index. Files appear by rename, so readers never see half of one.
///
/// Any number of processes may read, write and delete side by side, on a shared volume too: whoever changes the index
/// holds a lock on the file `.lock` beside it, which is no part of the layout. Reading takes no lock. Deleting removes
/// every blob that no manifest of the index names, directly or through other indexes, unless it was written or asked
/// to be written within the last hour: then somebody may be about to name it.
#[derive(Debug, Clone)]
pub struct Layout {
    directory: Arc<Path>,
}

impl Layout {
    /// Opens the layout in a directory.
    pub fn open(directory: impl Into<PathBuf>) -> Result<Self> {
        let directory = directory.into();
        let path = directory.join(MARKER);
        let marker: Value = parse(&path, &files::read(&path)?)?;
        let version = marker.get("imageLayoutVersion").and_then(Value::as_str).unwrap_or_default();
        if !version.starts_with("1.") {
            return Err(Error::Unsupported {
                what: format!("OCI layout version '{version}' of {}", directory.display()),
            });
        }
        Ok(Self { directory: directory.into() })
    }

    /// Opens the layout in a directory, making the directory and the layout where they are missing. It waits only for
    /// others that make the same layout.
    pub fn create(directory: impl Into<PathBuf>) -> Result<Self> {
        let directory = directory.into();
        if directory.join(MARKER).exists() {
            return Self::open(directory);
        }
        let blobs = directory.join(BLOBS);
        fs::create_dir_all(&blobs).map_err(|error| failed("create directory", &blobs, error))?;
        let layout = Self { directory: directory.into() };
        let _lock = Lock::exclusive(&layout.directory)?;
        // The marker comes last: where it is, there is an index that may be in use.
        if layout.directory.join(MARKER).exists() {
            return Self::open(layout.directory());
        }
        layout.write_index(&Index::default())?;
        layout.replace(&layout.directory.join(MARKER), br#"{"imageLayoutVersion":"1.0.0"}"#)?;
        Ok(layout)
    }

    /// The directory.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// Where a blob's file is, or would be. Tools that read the layout in place need it; it says nothing about the
    /// blob's existence or integrity.
    pub fn blob_path(&self, digest: &Digest) -> PathBuf {
        self.directory.join(BLOBS).join(digest.hex())
    }

    fn read_index(&self) -> Result<Index> {
        let path = self.directory.join(INDEX);
        parse(&path, &files::read(&path)?)
    }

    /// Replaces the index. Whoever does holds the lock since before it was read.
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

    /// Writes a blob's file, whatever is there.
    async fn write_file(&self, blob: &dyn BlobSource) -> Result<()> {
        let (digest, size) = (blob.digest(), blob.size());
        let reader = blob.open();
        let reader =
            reader.map_err(|source| Error::Io { operation: "read blob", path: digest.to_string().into(), source })?;
        let layout = self.clone();
        blocking(move || layout.store_blob(digest, size, reader)).await
    }

    /// The size of a blob's file; `None` where there is none.
    fn file_size(&self, digest: &Digest) -> Result<Option<u64>> {
        let path = self.blob_path(digest);
        match fs::metadata(&path) {
            Ok(metadata) => Ok(Some(metadata.len())),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(failed("look for", &path, error)),
        }
    }

    /// Makes a blob as young as if it had just been written, so that it outlives every deletion until it is named;
    /// `false` where it has to be written, because it is not there with its right size or belongs to another user.
    /// The caller holds the lock.
    fn renew(&self, digest: &Digest, size: u64) -> Result<bool> {
        if self.file_size(digest)? != Some(size) {
            return Ok(false);
        }
        let path = self.blob_path(digest);
        let now = rustix::fs::Timespec { tv_sec: 0, tv_nsec: UTIME_NOW };
        let times = Timestamps { last_access: now, last_modification: now };
        match rustix::fs::utimensat(CWD, &path, &times, AtFlags::empty()).map_err(io::Error::from) {
            Ok(()) => Ok(true),
            Err(error) if matches!(error.kind(), io::ErrorKind::PermissionDenied | io::ErrorKind::NotFound) => {
                Ok(false)
            }
            Err(error) => Err(failed("set times of", &path, error)),
        }
    }

    /// Writes a manifest and its tag, with no deletion in between.
    fn put_manifest(&self, version: &Version, manifest: &Manifest) -> Result<()> {
        let _lock = Lock::exclusive(&self.directory)?;
        let size = manifest.bytes.len() as u64;
        if !self.renew(&manifest.digest, size)? {
            self.store_blob(manifest.digest, size, &manifest.bytes[..])?;
        }
        let Version::Tag(tag) = version else { return Ok(()) };
        let mut index = self.read_index()?;
        index.point(tag, manifest);
        self.write_index(&index)
    }
}

#[async_trait]
impl Store for Layout {
    async fn blob_size(&self, digest: &Digest) -> Result<Option<Size>> {
        Ok(self.file_size(digest)?.map(Size::Told))
    }

    async fn read_blob(&self, digest: &Digest, size: Option<u64>, sink: &mut Sink<'_>) -> Result<()> {
        use tokio::io::AsyncReadExt as _;
        let path = self.blob_path(digest);
        let mut file = match files::open(&path) {
            Ok(file) => tokio::fs::File::from_std(file),
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
        if self.file_size(&digest)? == Some(size) {
            let layout = self.clone();
            // Deletions wait, but neither other writers of blobs nor readers do.
            let renew = move || Lock::shared(&layout.directory).and_then(|_lock| layout.renew(&digest, size));
            if blocking(renew).await? {
                return Ok(Written::Already);
            }
        }
        self.write_file(blob).await?;
        Ok(Written::Uploaded)
    }

    async fn replace_blob(&self, blob: &dyn BlobSource) -> Result<()> {
        self.write_file(blob).await
    }

    async fn read_manifest(&self, version: &Version) -> Result<Option<Manifest>> {
        let Some((digest, media_type)) = self.read_index()?.find(version, &self.describe())? else { return Ok(None) };
        if self.file_size(&digest)?.is_none() {
            return Ok(None);
        }
        let bytes = crate::read_small(self, &digest, None, MAX_MANIFEST).await?;
        Manifest::received(media_type.as_deref(), bytes, &self.describe()).map(Some)
    }

    async fn write_manifest(&self, version: &Version, manifest: &Manifest) -> Result<()> {
        if let Version::Digest(digest) = version {
            manifest.expect(*digest, &self.describe())?;
        }
        let (layout, version, manifest) = (self.clone(), version.clone(), manifest.clone());
        blocking(move || layout.put_manifest(&version, &manifest)).await
    }

    async fn tags(&self) -> Result<Vec<String>> {
        Ok(self.read_index()?.tags())
    }

    async fn delete_manifest(&self, digest: &Digest) -> Result<bool> {
        Ok(self.delete_manifests(&[*digest]).await? > 0)
    }

    async fn delete_manifests(&self, digests: &[Digest]) -> Result<usize> {
        let (layout, digests) = (self.clone(), digests.to_vec());
        blocking(move || layout.delete(&digests)).await
    }

    fn describe(&self) -> String {
        format!("oci:{}", self.directory.display())
    }
}

#[cfg(test)]
mod tests {
    use std::thread;

    use serde_json::json;

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
        layout.replace_blob(&blob).await.unwrap();
        assert!(crate::read_small(&layout, &blob.digest(), None, 100).await.is_ok());
    }

    #[tokio::test]
    async fn what_is_no_file_is_not_waited_for_and_has_an_end() {
        let directory = tempfile::tempdir().unwrap();
        let layout = Layout::create(directory.path()).unwrap();
        let digest = Digest::of("x");
        let pipe = |path: &Path| {
            rustix::fs::mknodat(CWD, path, rustix::fs::FileType::Fifo, rustix::fs::Mode::from_raw_mode(0o600), 0)
                .unwrap();
        };
        pipe(&layout.blob_path(&digest));
        let error = crate::read_small(&layout, &digest, None, 100).await.unwrap_err();
        assert!(error.to_string().contains("it is no file"), "{error}");
        fs::remove_file(layout.blob_path(&digest)).unwrap();
        std::os::unix::fs::symlink("/dev/zero", layout.blob_path(&digest)).unwrap();
        assert!(crate::read_small(&layout, &digest, None, 100).await.is_err());
        let index = directory.path().join(INDEX);
        fs::remove_file(&index).unwrap();
        pipe(&index);
        assert!(layout.tags().await.unwrap_err().to_string().contains("it is no file"));
        fs::remove_file(&index).unwrap();
        fs::File::create(&index).unwrap().set_len((64 << 20) + 1).unwrap();
        assert!(layout.tags().await.unwrap_err().to_string().contains("larger than 64 MiB"));
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
        assert_eq!(layout.tags().await.unwrap(), ["a"]);
        for place in ["", "blobs/sha256"] {
            let names = fs::read_dir(directory.path().join(place)).unwrap().map(|entry| entry.unwrap().file_name());
            assert!(names.into_iter().all(|name| !name.to_string_lossy().starts_with(".new")));
        }
    }

    #[test]
    fn many_writers_lose_no_tag() {
        const WRITERS: usize = 6;
        let directory = tempfile::tempdir().unwrap();
        let start = std::sync::Barrier::new(WRITERS);
        thread::scope(|scope| {
            for writer in 0..WRITERS {
                let (start, directory) = (&start, directory.path().join("layout"));
                scope.spawn(move || {
                    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
                    start.wait();
                    Layout::create(&directory).unwrap();
                    let layout = Layout::open(&directory).unwrap();
                    for n in 0..20 {
                        let text = json!({ "schemaVersion": 2, "manifests": [], "annotations": { "n": n } });
                        let manifest = Manifest::new(media::OCI_INDEX, text.to_string());
                        let tag = Version::Tag(format!("{writer}-{n}"));
                        runtime.block_on(layout.write_manifest(&tag, &manifest)).unwrap();
                    }
                });
            }
        });
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let tags = runtime.block_on(Layout::open(directory.path().join("layout")).unwrap().tags()).unwrap();
        assert_eq!(tags.len(), WRITERS * 20);
    }

    #[tokio::test]
    async fn a_change_waits_for_the_lock_and_reading_does_not() {
        let directory = tempfile::tempdir().unwrap();
        let layout = Layout::create(directory.path()).unwrap();
        let manifest = Manifest::new(media::OCI_INDEX, r#"{"manifests":[]}"#);
        let tag = Version::Tag("a".into());
        let lock = Lock::exclusive(directory.path()).unwrap();
        let (writer, version) = (layout.clone(), tag.clone());
        let writing = tokio::spawn(async move { writer.write_manifest(&version, &manifest).await });
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        assert!(!writing.is_finished());
        assert_eq!(layout.read_manifest(&tag).await.unwrap(), None);
        drop(lock);
        writing.await.unwrap().unwrap();
        assert!(layout.read_manifest(&tag).await.unwrap().is_some());
    }

    #[tokio::test]
    async fn a_lock_that_another_user_made_need_only_be_readable() {
        use std::os::unix::fs::PermissionsExt as _;
        let directory = tempfile::tempdir().unwrap();
        let layout = Layout::create(directory.path()).unwrap();
        fs::set_permissions(directory.path().join(".lock"), fs::Permissions::from_mode(0o444)).unwrap();
        let manifest = Manifest::new(media::OCI_INDEX, r#"{"manifests":[]}"#);
        layout.write_manifest(&Version::Tag("a".into()), &manifest).await.unwrap();
        assert_eq!(layout.tags().await.unwrap(), ["a"]);
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
