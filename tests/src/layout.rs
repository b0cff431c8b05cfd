//! Writing OCI image layouts, by hand and the same bytes every time.

use std::fs::{self, File};
use std::io::{self, BufWriter, Read, Write};
use std::path::{Path, PathBuf};

use flate2::Compression;
use flate2::write::GzEncoder;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::error::{At, Result};

/// The tag of the one image in a layout.
pub const TAG: &str = "latest";

/// An OCI image layout that is being written.
#[derive(Debug)]
pub struct LayoutWriter {
    directory: PathBuf,
}

/// A layer that a layout holds.
#[derive(Clone, Debug)]
pub struct LayerBlob {
    descriptor: Value,
    diff_id: String,
}

impl LayoutWriter {
    /// An empty layout in `directory`, which exists.
    pub fn create(directory: &Path) -> Result<Self> {
        let blobs = directory.join("blobs/sha256");
        fs::create_dir_all(&blobs).at("create", &blobs)?;
        write(&directory.join("oci-layout"), json!({"imageLayoutVersion": "1.0.0"}).to_string().as_bytes())?;
        Ok(Self { directory: directory.to_owned() })
    }

    /// A gzip layer of the tar that `write` produces.
    pub fn layer(&self, write: impl FnOnce(&mut dyn Write) -> io::Result<()>) -> Result<LayerBlob> {
        let path = self.directory.join("blobs/partial");
        let file = Hashing::new(BufWriter::new(File::create(&path).at("create", &path)?));
        let mut tar = Hashing::new(GzEncoder::new(file, Compression::new(3)));
        write(&mut tar).at("write", &path)?;
        let diff_id = tar.digest();
        let mut file = tar.inner.finish().at("compress", &path)?;
        file.flush().at("write", &path)?;
        let (digest, size) = (file.digest(), file.size);
        let blob = self.blob_path(&digest);
        fs::rename(&path, &blob).at("rename", &blob)?;
        let media_type = "application/vnd.oci.image.layer.v1.tar+gzip";
        Ok(LayerBlob { descriptor: json!({"mediaType": media_type, "digest": digest, "size": size}), diff_id })
    }

    /// An image of `layers`; `config` is the `config` member of its configuration. Returns the manifest's descriptor.
    pub fn image(&self, architecture: &str, layers: &[LayerBlob], config: &Value) -> Result<Value> {
        let diff_ids: Vec<_> = layers.iter().map(|layer| &layer.diff_id).collect();
        let history: Vec<_> = layers.iter().map(|_| json!({"created_by": "yadokari-tests"})).collect();
        let config = self.json(
            "application/vnd.oci.image.config.v1+json",
            &json!({
                "architecture": architecture, "os": "linux", "created": "1970-01-01T00:00:00Z", "config": config,
                "rootfs": {"type": "layers", "diff_ids": diff_ids}, "history": history,
            }),
        )?;
        let media_type = "application/vnd.oci.image.manifest.v1+json";
        let layers: Vec<_> = layers.iter().map(|layer| &layer.descriptor).collect();
        let manifest = json!({"schemaVersion": 2, "mediaType": media_type, "config": config, "layers": layers});
        let mut descriptor = self.json(media_type, &manifest)?;
        descriptor["platform"] = json!({"os": "linux", "architecture": architecture});
        Ok(descriptor)
    }

    /// An index of several platforms' images. Returns its descriptor.
    pub fn index(&self, images: &[Value]) -> Result<Value> {
        let media_type = "application/vnd.oci.image.index.v1+json";
        self.json(media_type, &json!({"schemaVersion": 2, "mediaType": media_type, "manifests": images}))
    }

    /// Makes the image or index of `descriptor` the layout's only one, tagged [`TAG`].
    pub fn finish(self, mut descriptor: Value) -> Result<()> {
        descriptor["annotations"] = json!({"org.opencontainers.image.ref.name": TAG});
        let index = json!({"schemaVersion": 2, "manifests": [descriptor]});
        write(&self.directory.join("index.json"), index.to_string().as_bytes())
    }

    fn json(&self, media_type: &str, value: &Value) -> Result<Value> {
        let bytes = value.to_string();
        let digest = text(Sha256::digest(&bytes).as_slice());
        write(&self.blob_path(&digest), bytes.as_bytes())?;
        Ok(json!({"mediaType": media_type, "digest": digest, "size": bytes.len()}))
    }

    fn blob_path(&self, digest: &str) -> PathBuf {
        self.directory.join("blobs").join(digest.replace(':', "/"))
    }
}

/// Writes the entries of a layer made here: owned by root, from the epoch.
pub struct TarWriter<W: Write>(tar::Builder<W>);

impl<W: Write> TarWriter<W> {
    /// A tar into `inner`.
    pub fn new(inner: W) -> Self {
        Self(tar::Builder::new(inner))
    }

    /// A directory.
    pub fn directory(&mut self, path: &str, mode: u32) -> io::Result<()> {
        self.0.append_data(&mut header(tar::EntryType::Directory, mode, 0), format!("{path}/"), io::empty())
    }

    /// A regular file.
    pub fn file(&mut self, path: &str, mode: u32, content: &[u8]) -> io::Result<()> {
        self.0.append_data(&mut header(tar::EntryType::Regular, mode, content.len() as u64), path, content)
    }

    /// A symbolic link.
    pub fn symlink(&mut self, path: &str, target: &str) -> io::Result<()> {
        self.0.append_link(&mut header(tar::EntryType::Symlink, 0o777, 0), path, target)
    }

    /// The end of the archive.
    pub fn finish(mut self) -> io::Result<()> {
        self.0.finish()
    }
}

fn header(kind: tar::EntryType, mode: u32, size: u64) -> tar::Header {
    let mut header = tar::Header::new_gnu();
    header.set_entry_type(kind);
    header.set_mode(mode);
    header.set_size(size);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    header
}

fn write(path: &Path, bytes: &[u8]) -> Result<()> {
    fs::write(path, bytes).at("write", path)
}

/// `sha256:` and the hexadecimal digits.
pub(crate) fn text(hash: &[u8]) -> String {
    std::iter::once("sha256:".to_owned()).chain(hash.iter().map(|byte| format!("{byte:02x}"))).collect()
}

/// The digest of all that `reader` has.
pub(crate) fn digest(reader: &mut impl Read) -> io::Result<String> {
    let mut hashing = Hashing::new(io::sink());
    io::copy(reader, &mut hashing)?;
    Ok(hashing.digest())
}

/// Hashes and counts what passes.
struct Hashing<W> {
    inner: W,
    hash: Sha256,
    size: u64,
}

impl<W> Hashing<W> {
    fn new(inner: W) -> Self {
        Self { inner, hash: Sha256::new(), size: 0 }
    }

    fn digest(&self) -> String {
        text(self.hash.clone().finalize().as_slice())
    }
}

impl<W: Write> Write for Hashing<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let n = self.inner.write(bytes)?;
        self.hash.update(&bytes[..n]);
        self.size += n as u64;
        Ok(n)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}
