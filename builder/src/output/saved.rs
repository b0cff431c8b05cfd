//! Images that are in files: a layout directory, or an archive as `docker save` writes it, or of a layout.

use std::collections::HashMap;
use std::fs::{self, File};
use std::io::{self, Read, Seek};
use std::path::{Component, Path, PathBuf};

use serde::Deserialize;
use serde_json::Value;
use yadokari_layers::{BlobWriter, Compression, Digest, HashingReader, compress};
use yadokari_registry::{Layout, Manifest, Store as _, Version, media};

use crate::Error;
use crate::image::{BlobRef, Form, Format, ImageConfig, manifest_bytes};

/// The largest file of JSON that is read into memory.
const LARGEST: u64 = 16 << 20;

/// How many links may lead to a file.
const LINKS: usize = 8;

/// An image in files.
#[derive(Debug)]
pub struct Saved {
    /// The layout that has its blobs.
    pub layout: Layout,
    /// What of the layout it is.
    pub version: Version,
}

/// What an archive of `docker save` says of an image.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Entry {
    config: String,
    #[serde(default)]
    layers: Vec<String>,
}

/// Opens what is at `path`. An archive is taken apart below the directory `scratch`.
pub async fn open(path: &Path, scratch: &Path) -> Result<Saved, Error> {
    let failed = |source| Error::Host { operation: "read", path: path.to_owned(), source };
    let bad = |reason: String| Error::BadImage { name: path.display().to_string(), reason };
    let directory = match fs::metadata(path).map_err(failed)?.is_dir() {
        true => path.to_owned(),
        false => {
            let files = tokio::task::block_in_place(|| Files::take(path, scratch))?;
            if files.names.contains_key("manifest.json") {
                let layout = Layout::create(scratch.join("layout")).map_err(|error| bad(error.to_string()))?;
                let manifest = tokio::task::block_in_place(|| files.image(&layout))?;
                let version = Version::Digest(manifest.digest);
                layout.write_manifest(&version, &manifest).await.map_err(|error| bad(error.to_string()))?;
                return Ok(Saved { layout, version });
            }
            files.layout(scratch.join("layout"))?
        }
    };
    let layout = Layout::open(directory).map_err(|error| bad(error.to_string()))?;
    let version = only(&layout).map_err(bad)?;
    Ok(Saved { layout, version })
}

/// The one manifest that a layout's index has, whether it has a tag or not.
fn only(layout: &Layout) -> Result<Version, String> {
    let text = fs::read(layout.directory().join("index.json")).map_err(|error| format!("index.json: {error}"))?;
    let index: Value = serde_json::from_slice(&text).map_err(|error| format!("index.json: {error}"))?;
    let manifests = index["manifests"].as_array().map(Vec::as_slice).unwrap_or_default();
    let mut digests: Vec<&str> = manifests.iter().filter_map(|manifest| manifest["digest"].as_str()).collect();
    digests.sort_unstable();
    digests.dedup();
    match digests[..] {
        [digest] => digest.parse().map(Version::Digest).map_err(|_| format!("index.json: '{digest}' is no digest")),
        _ => Err(format!("it has {} images; only one can be pushed at a time", digests.len())),
    }
}

/// The files of an archive, each under a name of its own in a directory.
struct Files {
    archive: PathBuf,
    names: HashMap<String, Item>,
}

enum Item {
    File(PathBuf),
    /// Another name of the archive.
    Link(String),
}

impl Files {
    /// Takes the archive apart. What is neither a file nor a link is left out.
    fn take(archive: &Path, scratch: &Path) -> Result<Self, Error> {
        let failed = |source| Error::Host { operation: "take apart", path: archive.to_owned(), source };
        let directory = scratch.join("files");
        fs::create_dir(&directory).map_err(failed)?;
        let mut reader = tar::Archive::new(compress::decoder(File::open(archive).map_err(failed)?)?);
        let mut names = HashMap::new();
        for (number, entry) in reader.entries().map_err(failed)?.enumerate() {
            let mut entry = entry.map_err(failed)?;
            let Some(name) = plain(&entry.path().map_err(failed)?) else { continue };
            let kind = entry.header().entry_type();
            if kind.is_file() {
                let path = directory.join(number.to_string());
                io::copy(&mut entry, &mut File::create_new(&path).map_err(failed)?).map_err(failed)?;
                names.insert(name, Item::File(path));
            } else if let Some(target) = entry.link_name().map_err(failed)? {
                let beside = Path::new(&name).parent().filter(|_| kind.is_symlink()).unwrap_or(Path::new(""));
                names.extend(plain(&beside.join(target)).map(|target| (name, Item::Link(target))));
            }
        }
        Ok(Self { archive: archive.to_owned(), names })
    }

    fn bad(&self, reason: String) -> Error {
        Error::BadImage { name: self.archive.display().to_string(), reason }
    }

    fn failed(&self, source: io::Error) -> Error {
        Error::Host { operation: "take apart", path: self.archive.clone(), source }
    }

    /// The file of a name.
    fn file(&self, name: &str) -> Result<&Path, Error> {
        let mut at = plain(Path::new(name)).unwrap_or_default();
        for _ in 0..LINKS {
            match self.names.get(&at) {
                Some(Item::File(path)) => return Ok(path),
                Some(Item::Link(target)) => at.clone_from(target),
                None => break,
            }
        }
        Err(self.bad(format!("it has no file '{name}'")))
    }

    /// A file of JSON.
    fn read(&self, name: &str) -> Result<Vec<u8>, Error> {
        let mut bytes = Vec::new();
        let file = File::open(self.file(name)?).map_err(|error| self.failed(error))?;
        file.take(LARGEST + 1).read_to_end(&mut bytes).map_err(|error| self.failed(error))?;
        if bytes.len() as u64 > LARGEST { Err(self.bad(format!("'{name}' is too large"))) } else { Ok(bytes) }
    }

    /// Makes a layout of the archive of one.
    fn layout(self, directory: PathBuf) -> Result<PathBuf, Error> {
        for (name, item) in &self.names {
            let Item::File(from) = item else { continue };
            let to = directory.join(name);
            let made = fs::create_dir_all(to.parent().unwrap_or(&directory)).and_then(|()| fs::rename(from, &to));
            made.map_err(|error| self.failed(error))?;
        }
        Ok(directory)
    }

    /// Puts the blobs of the image into a layout, and makes its manifest. Layers stay what they are unless they are not
    /// compressed.
    fn image(&self, layout: &Layout) -> Result<Manifest, Error> {
        let text = self.read("manifest.json")?;
        let wrong = |error: serde_json::Error| self.bad(format!("manifest.json: {error}"));
        let mut entries: Vec<Entry> = serde_json::from_slice(&text).map_err(wrong)?;
        let Some(entry) = entries.pop().filter(|_| entries.is_empty()) else {
            return Err(self.bad("it does not have one image; only one can be pushed at a time".into()));
        };
        let config = self.read(&entry.config)?;
        let parsed = ImageConfig::parse(&config).map_err(|error| self.bad(format!("'{}': {error}", entry.config)))?;
        let diff_ids = parsed.rootfs.diff_ids;
        if diff_ids.len() != entry.layers.len() {
            return Err(self.bad(format!("{} layers, but {} diff ids", entry.layers.len(), diff_ids.len())));
        }
        let mut blobs = Vec::new();
        let mut known: HashMap<PathBuf, BlobRef> = HashMap::new();
        for (name, diff_id) in entry.layers.iter().zip(&diff_ids) {
            let path = self.file(name)?.to_owned();
            let blob = match known.get(&path) {
                Some(blob) => blob.clone(),
                None => self.layer(name, &path, diff_id, layout)?,
            };
            known.insert(path, blob.clone());
            blobs.push(blob);
        }
        let (digest, size) = (Digest::of(&config), config.len() as u64);
        fs::write(layout.blob_path(&digest), &config).map_err(|error| self.failed(error))?;
        let config = BlobRef { media_type: media::OCI_CONFIG.into(), digest, size };
        Ok(Manifest::new(media::OCI_MANIFEST, manifest_bytes(&Form::default(), &config, &blobs)))
    }

    /// Puts a layer into a layout. What is in it must be what the config says.
    fn layer(&self, name: &str, path: &Path, diff_id: &Digest, layout: &Layout) -> Result<BlobRef, Error> {
        let failed = |error| self.failed(error);
        let mut file = File::open(path).map_err(failed)?;
        let mut magic = Vec::new();
        (&mut file).take(4).read_to_end(&mut magic).map_err(failed)?;
        file.rewind().map_err(failed)?;
        let compression = match &magic[..] {
            [0x1f, 0x8b, ..] => Compression::Gzip,
            [0x28, 0xb5, 0x2f, 0xfd] => Compression::Zstd,
            _ => Compression::None,
        };
        let (digest, size, found) = if compression == Compression::None {
            let blobs = layout.directory().join("blobs/sha256");
            let mut writer = BlobWriter::create(&blobs, Compression::Gzip, None)?;
            io::copy(&mut file, &mut writer).map_err(failed)?;
            let blob = writer.finish()?;
            (blob.digest, blob.size, blob.diff_id)
        } else {
            let found = HashingReader::new(compress::decoder(&mut file)?).finish().map_err(failed)?;
            file.rewind().map_err(failed)?;
            let size = file.metadata().map_err(failed)?.len();
            let digest = HashingReader::new(file).finish().map_err(failed)?;
            fs::rename(path, layout.blob_path(&digest)).map_err(failed)?;
            (digest, size, found)
        };
        if found != *diff_id {
            return Err(self.bad(format!("'{name}' has the diff id {found}, not {diff_id}")));
        }
        let compression = if compression == Compression::None { Compression::Gzip } else { compression };
        Ok(BlobRef { media_type: Format::Oci.layer(compression).into(), digest, size })
    }
}

/// A path as archives have it, without `.` and `..`; `None` where it leads out or nowhere.
fn plain(path: &Path) -> Option<String> {
    let mut parts: Vec<&str> = Vec::new();
    for component in path.components() {
        match component {
            Component::Normal(name) => parts.push(name.to_str()?),
            Component::ParentDir => _ = parts.pop()?,
            Component::CurDir => {}
            Component::RootDir | Component::Prefix(_) => return None,
        }
    }
    if parts.is_empty() { None } else { Some(parts.join("/")) }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// Names and contents.
    type Contents<'a> = &'a [(&'a str, &'a [u8])];

    /// An archive of these files; `name -> target` is a symbolic link.
    fn archive(files: Contents<'_>) -> tempfile::NamedTempFile {
        let mut builder = tar::Builder::new(tempfile::NamedTempFile::new().unwrap());
        for (name, content) in files {
            let mut header = tar::Header::new_gnu();
            header.set_mode(0o644);
            match name.split_once(" -> ") {
                Some((name, target)) => {
                    header.set_entry_type(tar::EntryType::Symlink);
                    header.set_size(0);
                    builder.append_link(&mut header, name, target).unwrap();
                }
                None => {
                    header.set_size(content.len() as u64);
                    builder.append_data(&mut header, name, *content).unwrap();
                }
            }
        }
        builder.into_inner().unwrap()
    }

    async fn opened(files: Contents<'_>) -> Result<(tempfile::TempDir, Saved), String> {
        let scratch = tempfile::tempdir().unwrap();
        let archive = archive(files);
        let saved = open(archive.path(), scratch.path()).await.map_err(|error| error.to_string())?;
        Ok((scratch, saved))
    }

    fn config(layers: &[&[u8]]) -> Vec<u8> {
        let diff_ids: Vec<Digest> = layers.iter().map(Digest::of).collect();
        json!({"architecture": "amd64", "os": "linux", "rootfs": {"type": "layers", "diff_ids": diff_ids}})
            .to_string()
            .into()
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn an_archive_of_docker_save_is_an_image_whose_layers_are_compressed() {
        let config = config(&[b"one", b"two", b"one"]);
        let zstd = zstd::encode_all(&b"two"[..], 1).unwrap();
        let manifest =
            br#"[{"Config":"c.json","RepoTags":["x:1"],"Layers":["a/layer.tar","./b/layer.tar","d/layer.tar"]}]"#;
        let files: [(&str, &[u8]); 5] = [
            ("a/layer.tar", b"one"),
            ("b/layer.tar", &zstd),
            ("d/layer.tar -> ../a/layer.tar", b""),
            ("c.json", &config),
            ("manifest.json", manifest),
        ];
        let (_scratch, saved) = opened(&files).await.unwrap();
        let image = saved.layout.read_manifest(&saved.version).await.unwrap().unwrap().image().unwrap();
        assert_eq!(image.config().digest().to_string(), Digest::of(&config).to_string());
        let layers: Vec<_> = image.layers().iter().map(|layer| layer.media_type().to_string()).collect();
        assert_eq!(layers, [media::OCI_LAYER_GZIP, media::OCI_LAYER_ZSTD, media::OCI_LAYER_GZIP]);
        assert_eq!(image.layers()[1].digest().to_string(), Digest::of(&zstd).to_string());
        assert_eq!(image.layers()[0], image.layers()[2]);
        for layer in image.layers().iter().chain([image.config()]) {
            let digest = layer.digest().to_string().parse().unwrap();
            let file = File::open(saved.layout.blob_path(&digest)).unwrap();
            assert_eq!(file.metadata().unwrap().len(), layer.size());
            assert_eq!(HashingReader::new(file).finish().unwrap(), digest);
        }
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_layout_is_taken_as_it_is_in_an_archive_or_not() {
        let directory = tempfile::tempdir().unwrap();
        let layout = Layout::create(directory.path()).unwrap();
        let manifest = Manifest::new(media::OCI_INDEX, r#"{"schemaVersion":2,"manifests":[]}"#);
        for tag in ["a", "b"] {
            layout.write_manifest(&Version::Tag(tag.into()), &manifest).await.unwrap();
        }
        let saved = open(directory.path(), directory.path()).await.unwrap();
        assert_eq!(saved.version, Version::Digest(manifest.digest));
        let read = |name: &str| fs::read(directory.path().join(name)).unwrap();
        let blob = format!("blobs/sha256/{}", manifest.digest.hex());
        let files: [(&str, &[u8]); 3] =
            [("./oci-layout", &read("oci-layout")), ("index.json", &read("index.json")), (&blob, &manifest.bytes)];
        let (_scratch, saved) = opened(&files).await.unwrap();
        assert_eq!(saved.layout.read_manifest(&saved.version).await.unwrap(), Some(manifest));
        let other = Manifest::new(media::OCI_INDEX, r#"{"schemaVersion":2,"manifests":[] }"#);
        layout.write_manifest(&Version::Tag("c".into()), &other).await.unwrap();
        let error = open(directory.path(), directory.path()).await.unwrap_err().to_string();
        assert!(error.contains("it has 2 images"), "{error}");
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn what_is_no_image_is_refused_with_the_reason() {
        let good = config(&[b"one"]);
        let one = br#"[{"Config":"c","Layers":["l"]}]"#;
        let cases: [(Contents<'_>, &str); 7] = [
            (&[("x", b"")], "oci-layout"),
            (&[("manifest.json", b"{")], "manifest.json: "),
            (&[("manifest.json", b"[]")], "it does not have one image"),
            (&[("manifest.json", one)], "it has no file 'c'"),
            (&[("manifest.json", one), ("c", &good)], "it has no file 'l'"),
            (&[("manifest.json", one), ("c", &good), ("l", b"two")], "has the diff id"),
            (&[("manifest.json", one), ("c", &good), ("l -> l", b"")], "it has no file 'l'"),
        ];
        for (files, says) in cases {
            let error = opened(files).await.unwrap_err();
            assert!(error.contains(says), "{files:?}: {error}");
        }
        let error = open(Path::new("/no/such"), Path::new("/no/such")).await.unwrap_err();
        assert_eq!(error.exit_code(), 74);
    }

    #[test]
    fn names_lead_nowhere_else() {
        for (name, expected) in
            [("a/./b", Some("a/b")), ("a/../b", Some("b")), ("../a", None), ("/a", None), (".", None)]
        {
            assert_eq!(plain(Path::new(name)).as_deref(), expected, "{name}");
        }
    }
}
