//! Records: OCI image manifests that say what an earlier build made.
//!
//! Everything that has to be known is in the annotations, so that one GET answers; the layers of the manifest keep the
//! registry from collecting what the record speaks of. The config is the same empty one for all records, and of the
//! media type that every registry takes.

use std::collections::BTreeMap;

use hmac::{Hmac, KeyInit, Mac};
use serde::{Deserialize, Serialize};
use sha2::Sha256;
use yadokari_layers::Digest;
use yadokari_registry::{BytesBlob, Manifest, media};

use super::annotations::{CREATED, KIND, VERSION, VERSION_1};
use crate::image::{BlobRef, Format, rfc3339, since_epoch};
use crate::plan::LayerRef;
use crate::sources::compression;

/// What a layer says, as [`Index::encode`](yadokari_layers::Index::encode) writes it.
const LAYER_INDEX: &str = "application/vnd.yadokari.layer-index.v1";
/// The manifests and configs of an image, in JSON.
const IMAGE: &str = "application/vnd.yadokari.image.v1+json";
/// The inputs of the steps of an image, in JSON, compressed by zstd.
const INPUTS: &str = "application/vnd.yadokari.inputs.v1+zstd";
/// What a manifest that names nothing else names instead, since a list of layers must not be empty.
const EMPTY: &str = "application/vnd.oci.empty.v1+json";

/// The content of [`EMPTY`].
const EMPTY_CONTENT: &[u8] = b"{}";
/// The config of all records.
const RECORD_CONFIG: &[u8] =
    br#"{"architecture":"unknown","config":{},"os":"unknown","rootfs":{"type":"layers","diff_ids":[]}}"#;

const PREFIX: &str = "dev.yadokari.cache.";
const SIGNATURE: &str = "dev.yadokari.cache.signature";

/// What is stored under one or several names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Record {
    /// The names that it answers to.
    pub(super) names: Vec<String>,
    /// When it was written or last refreshed, in seconds since the Unix epoch.
    pub(super) created: i64,
    pub(super) body: Body,
}

/// What a record says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Body {
    /// What a step made.
    Step {
        /// Its layer, if it changed anything.
        layer: Option<StoredLayer>,
    },
    /// What a layer of a base image says.
    Index {
        /// The layer's digest and that of its uncompressed tar.
        layer: Digest,
        diff_id: Digest,
        index: BlobRef,
    },
    /// What an image is.
    Result(ResultBody),
}

/// A layer with its index.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct StoredLayer {
    pub(super) layer: LayerRef,
    /// What stands for its content where later steps depend on it.
    pub(super) content: Digest,
    pub(super) index: BlobRef,
}

/// A finished image, or an index of several.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct ResultBody {
    /// What the tags point to.
    pub(super) digest: Digest,
    /// The compressed size of all layers in bytes, and their number.
    pub(super) size: u64,
    pub(super) layers: usize,
    /// The manifests and configs.
    pub(super) image: BlobRef,
    /// What the steps depended on.
    pub(super) inputs: BlobRef,
}

/// The manifest, its fields in the order in which they are written.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Stored {
    schema_version: u32,
    media_type: String,
    config: BlobRef,
    layers: Vec<BlobRef>,
    annotations: BTreeMap<String, String>,
}

/// The blobs that records have in common.
pub(super) fn common_blobs() -> [BytesBlob; 2] {
    [BytesBlob::new(RECORD_CONFIG), BytesBlob::new(EMPTY_CONTENT)]
}

/// How a blob of an index is named.
pub(super) fn index_blob(bytes: &[u8]) -> BlobRef {
    blob(LAYER_INDEX, bytes)
}

/// How the blob of an image's manifests and configs is named.
pub(super) fn image_blob(bytes: &[u8]) -> BlobRef {
    blob(IMAGE, bytes)
}

/// How the blob of the inputs of an image's steps is named.
pub(super) fn inputs_blob(bytes: &[u8]) -> BlobRef {
    blob(INPUTS, bytes)
}

fn blob(media_type: &str, bytes: &[u8]) -> BlobRef {
    BlobRef { media_type: media_type.into(), digest: Digest::of(bytes), size: bytes.len() as u64 }
}

impl Record {
    /// The manifest, signed where there is a key.
    pub(super) fn encode(&self, key: Option<&[u8]>) -> Manifest {
        let mut facts = BTreeMap::new();
        facts.insert(VERSION.into(), VERSION_1.into());
        facts.insert(CREATED.into(), rfc3339(self.created));
        facts.insert(KIND.into(), self.body.kind().into());
        let mut fact = |name: &str, value: String| _ = facts.insert(format!("{PREFIX}{name}"), value);
        fact("names", self.names.join(","));
        let layers = match &self.body {
            Body::Step { layer } => {
                layer.iter().for_each(|stored| {
                    fact("diff-id", stored.layer.diff_id.to_string());
                    fact("content", stored.content.to_string());
                });
                let layer_of = |stored: &StoredLayer| [layer_blob(&stored.layer), stored.index.clone()];
                layer.iter().flat_map(layer_of).collect()
            }
            Body::Index { layer, diff_id, index } => {
                fact("layer", layer.to_string());
                fact("diff-id", diff_id.to_string());
                vec![index.clone()]
            }
            Body::Result(result) => {
                fact("digest", result.digest.to_string());
                fact("size", result.size.to_string());
                fact("layers", result.layers.to_string());
                vec![result.image.clone(), result.inputs.clone()]
            }
        };
        let layers = if layers.is_empty() { vec![blob(EMPTY, EMPTY_CONTENT)] } else { layers };
        let (media_type, config) = (media::OCI_MANIFEST.to_owned(), blob(media::OCI_CONFIG, RECORD_CONFIG));
        let mut stored = Stored { schema_version: 2, media_type, config, layers, annotations: facts };
        if let Some(key) = key {
            let signature = hex(&mac(key, &stored).finalize().into_bytes());
            stored.annotations.insert(SIGNATURE.into(), signature);
        }
        Manifest::new(media::OCI_MANIFEST, stored.bytes())
    }

    /// Reads the manifest that was found under `name`. The error says why it is not to be used.
    pub(super) fn decode(manifest: &Manifest, name: &str, key: Option<&[u8]>) -> Result<Self, String> {
        let stored: Result<Stored, _> = serde_json::from_slice(&manifest.bytes);
        let mut stored = stored.map_err(|error| format!("it is no record: {error}"))?;
        if let Some(key) = key {
            let signature = stored.annotations.remove(SIGNATURE).ok_or("it is not signed")?;
            let signature = unhex(&signature).ok_or("its signature is not one")?;
            mac(key, &stored).verify_slice(&signature).map_err(|_| "it was signed with another key, or changed")?;
        }
        let needed = |name: &str| {
            let fact = stored.annotations.get(&format!("{PREFIX}{name}")).map(String::as_str);
            fact.ok_or_else(|| format!("it says nothing of '{name}'"))
        };
        let version = stored.annotations.get(VERSION).ok_or("it has no version")?;
        if version != VERSION_1 {
            return Err(format!("it is of version {version}"));
        }
        let names: Vec<String> = needed("names")?.split(',').map(str::to_owned).collect();
        if !names.iter().any(|other| other == name) {
            return Err(format!("it is the record of {}", names.join(" and ")));
        }
        let digest = |name: &str| needed(name)?.parse::<Digest>().map_err(|error| format!("its {name}: {error}"));
        let number = |name: &str| needed(name)?.parse::<u64>().map_err(|error| format!("its {name}: {error}"));
        let created = stored.annotations.get(CREATED).and_then(|text| since_epoch(text)).ok_or("it has no time")?;
        let kind = stored.annotations.get(KIND).map_or("", String::as_str);
        let body = match (kind, &stored.layers[..]) {
            ("step", [only]) if only.media_type == EMPTY => Body::Step { layer: None },
            ("step", [layer, index]) if index.media_type == LAYER_INDEX => {
                let compression = compression(&layer.media_type).ok_or("its layer is of an unknown kind")?;
                let diff_id = digest("diff-id")?;
                let layer = LayerRef { digest: layer.digest, size: layer.size, compression, diff_id };
                Body::Step { layer: Some(StoredLayer { layer, content: digest("content")?, index: index.clone() }) }
            }
            ("index", [index]) if index.media_type == LAYER_INDEX => {
                Body::Index { layer: digest("layer")?, diff_id: digest("diff-id")?, index: index.clone() }
            }
            ("result", [image, inputs]) if image.media_type == IMAGE && inputs.media_type == INPUTS => {
                Body::Result(ResultBody {
                    digest: digest("digest")?,
                    size: number("size")?,
                    layers: usize::try_from(number("layers")?).map_err(|error| error.to_string())?,
                    image: image.clone(),
                    inputs: inputs.clone(),
                })
            }
            (kind, _) => return Err(format!("it is of the unknown kind '{kind}', or lacks what belongs to it")),
        };
        Ok(Self { names, created, body })
    }
}

impl Body {
    /// One of [`KINDS`](super::annotations::KINDS).
    fn kind(&self) -> &'static str {
        match self {
            Self::Step { .. } => "step",
            Self::Result(_) => "result",
            Self::Index { .. } => "index",
        }
    }
}

impl Stored {
    fn bytes(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("strings and numbers have a form in JSON")
    }
}

fn layer_blob(layer: &LayerRef) -> BlobRef {
    BlobRef { media_type: Format::Oci.layer(layer.compression).into(), digest: layer.digest, size: layer.size }
}

/// What signs a record that has no signature yet.
fn mac(key: &[u8], stored: &Stored) -> Hmac<Sha256> {
    let mut mac = Hmac::new_from_slice(key).expect("a key of any length will do");
    mac.update(&stored.bytes());
    mac
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn unhex(text: &str) -> Option<Vec<u8>> {
    let pairs = text.as_bytes().chunks(2).map(|pair| std::str::from_utf8(pair).ok());
    pairs.map(|pair| u8::from_str_radix(pair?, 16).ok()).collect()
}

#[cfg(test)]
mod tests {
    use yadokari_layers::Compression;

    use super::*;

    fn step(name: &str) -> Record {
        let (digest, diff_id) = (Digest::of("layer"), Digest::of("tar"));
        let layer = LayerRef { digest, size: 5, compression: Compression::Zstd, diff_id };
        let layer = StoredLayer { layer, content: Digest::of("content"), index: index_blob(b"index") };
        Record { names: vec![name.into(), "other".into()], created: 7, body: Body::Step { layer: Some(layer) } }
    }

    fn all() -> Vec<Record> {
        let (layer, diff_id) = (Digest::of("layer"), Digest::of("tar"));
        let index = Body::Index { layer, diff_id, index: index_blob(b"index") };
        let (image, inputs) = (image_blob(b"{}"), inputs_blob(b""));
        let result = Body::Result(ResultBody { digest: Digest::of("image"), size: 9, layers: 2, image, inputs });
        let others = [index, result, Body::Step { layer: None }];
        let record = |body| Record { names: vec!["name".into()], created: -1, body };
        others.into_iter().map(record).chain([step("name")]).collect()
    }

    #[test]
    fn records_survive_their_manifests() {
        for record in all() {
            for key in [None, Some(&b"key"[..])] {
                let manifest = record.encode(key);
                assert_eq!(Record::decode(&manifest, "name", key).unwrap(), record);
                assert!(manifest.image().is_ok(), "a registry must take it");
            }
        }
    }

    #[test]
    fn a_record_is_only_for_its_names() {
        let manifest = step("name").encode(None);
        assert!(Record::decode(&manifest, "other", None).is_ok());
        assert!(Record::decode(&manifest, "third", None).unwrap_err().contains("the record of name and other"));
    }

    #[test]
    fn with_a_key_only_its_signature_counts() {
        let (key, other) = (Some(&b"key"[..]), Some(&b"other"[..]));
        let signed = step("name").encode(key);
        assert!(Record::decode(&signed, "name", other).unwrap_err().contains("another key"));
        assert!(Record::decode(&step("name").encode(None), "name", key).unwrap_err().contains("not signed"));
        assert!(Record::decode(&signed, "name", None).is_ok(), "who has no key cannot check");
        let text = String::from_utf8(signed.bytes.to_vec()).unwrap();
        let changed = text.replace(&Digest::of("layer").hex(), &Digest::of("evil").hex());
        assert_ne!(text, changed);
        let changed = Manifest::new(media::OCI_MANIFEST, changed);
        assert!(Record::decode(&changed, "name", key).unwrap_err().contains("changed"));
    }

    #[test]
    fn what_is_no_record_is_refused() {
        let decode =
            |text: String| Record::decode(&Manifest::new(media::OCI_MANIFEST, text), "name", None).unwrap_err();
        let good = String::from_utf8(step("name").encode(None).bytes.to_vec()).unwrap();
        assert!(decode("{".into()).contains("no record"));
        assert!(decode(good.replace("cache.version\":\"1", "cache.version\":\"2")).contains("version 2"));
        assert!(decode(good.replace("\"step\"", "\"result\"")).contains("unknown kind"));
        assert!(decode(good.replace(LAYER_INDEX, "text/plain")).contains("lacks"));
        assert!(decode(good.replace("image.created", "image.x")).contains("no time"));
    }

    #[test]
    fn the_manifest_is_pinned() {
        let manifest = step("name").encode(Some(b"key"));
        let digests = format!("{}\n{}\n", step("name").encode(None).digest, manifest.digest);
        assert_eq!(digests, include_str!("../../tests/golden/record.txt"));
    }
}
