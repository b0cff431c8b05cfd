//! Manifests: exact bytes and their meaning.

use bytes::Bytes;
use oci_spec::image::{Descriptor, ImageIndex, ImageManifest};
use serde::Deserialize;
use yadokari_layers::{Digest, Mismatch};

use crate::media::{self, ManifestKind};
use crate::{Error, Result};

/// The largest manifest that is read; the distribution specification asks registries to take 4 MiB.
pub(crate) const MAX_MANIFEST: u64 = 16 << 20;

/// A manifest's exact bytes, which its digest covers.
///
/// Reading one through [`Manifest::image`] or [`Manifest::index`] may drop fields nobody here knows; writing it back
/// means writing `bytes`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Manifest {
    /// The media type, without parameters.
    pub media_type: String,
    /// The bytes.
    pub bytes: Bytes,
    /// Their digest.
    pub digest: Digest,
}

/// What every manifest may say about itself.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Sniffed {
    schema_version: Option<u32>,
    media_type: Option<String>,
    manifests: Option<serde::de::IgnoredAny>,
    layers: Option<serde::de::IgnoredAny>,
    config: Option<serde::de::IgnoredAny>,
    fs_layers: Option<serde::de::IgnoredAny>,
}

impl Manifest {
    /// The manifest of these bytes.
    pub fn new(media_type: impl Into<String>, bytes: impl Into<Bytes>) -> Self {
        let bytes = bytes.into();
        Self { media_type: media_type.into(), digest: Digest::of(&bytes), bytes }
    }

    /// The manifest of bytes that came from `store` with the media type `declared`, if any.
    ///
    /// The type outside and the one inside must not contradict each other: a document that is an image to one reader
    /// and an index to another can be swapped behind a signature (CVE-2021-41190). Where no usable type came, the one
    /// inside counts, then the shape.
    pub(crate) fn received(declared: Option<&str>, bytes: Bytes, store: &str) -> Result<Self> {
        let digest = Digest::of(&bytes);
        let fail = |reason: String| Error::Manifest { digest, store: store.into(), reason };
        let declared = declared.and_then(|text| text.split(';').next()).map(str::trim);
        let declared = declared.filter(|media_type| ManifestKind::of(media_type).is_some());
        let inside: Sniffed =
            serde_json::from_slice(&bytes).map_err(|error| fail(format!("it is not a JSON document: {error}")))?;
        if let (Some(outside), Some(inside)) = (declared, inside.media_type.as_deref())
            && outside != inside
        {
            return Err(fail(format!("it was served as {outside} but says that it is {inside}")));
        }
        let kind_by_shape = match &inside {
            Sniffed { schema_version: Some(1), .. } | Sniffed { fs_layers: Some(_), .. } => Some(ManifestKind::Schema1),
            Sniffed { manifests: Some(_), layers: None, config: None, .. } => Some(ManifestKind::Index),
            Sniffed { config: Some(_), manifests: None, .. } => Some(ManifestKind::Image),
            _ => None,
        };
        let media_type = match (declared, inside.media_type, kind_by_shape) {
            (Some(declared), _, _) => declared.to_owned(),
            (None, Some(inside), _) => inside,
            (None, None, Some(ManifestKind::Image)) => media::OCI_MANIFEST.into(),
            (None, None, Some(ManifestKind::Index)) => media::OCI_INDEX.into(),
            (None, None, Some(ManifestKind::Schema1)) => "application/vnd.docker.distribution.manifest.v1+json".into(),
            (None, None, None) => return Err(fail("it is neither an image manifest nor an index".into())),
        };
        let kind = ManifestKind::of(&media_type);
        if kind_by_shape.is_some() && kind.is_some() && kind != kind_by_shape {
            return Err(fail(format!("its content is not that of {media_type}")));
        }
        Ok(Self { media_type, bytes, digest })
    }

    /// What the manifest is; `None` for an artifact's or an unknown type.
    pub fn kind(&self) -> Option<ManifestKind> {
        ManifestKind::of(&self.media_type)
    }

    /// Reads an image manifest.
    pub fn image(&self) -> Result<ImageManifest> {
        self.read("an image manifest")
    }

    /// Reads an index or a manifest list.
    pub fn index(&self) -> Result<ImageIndex> {
        self.read("an image index")
    }

    /// The descriptor that names this manifest in an index.
    pub fn descriptor(&self) -> Result<Descriptor> {
        let text = serde_json::json!({
            "mediaType": self.media_type, "digest": self.digest, "size": self.bytes.len(),
        });
        serde_json::from_value(text).map_err(|error| self.unusable(error.to_string()))
    }

    /// Checks that this is the manifest that was asked for.
    pub(crate) fn expect(&self, expected: Digest, store: &str) -> Result<()> {
        if self.digest == expected {
            return Ok(());
        }
        Err(Error::Mismatch { store: store.into(), mismatch: Mismatch::Digest { expected, found: self.digest } })
    }

    fn read<T: serde::de::DeserializeOwned>(&self, what: &str) -> Result<T> {
        serde_json::from_slice(&self.bytes).map_err(|error| self.unusable(format!("it is not {what}: {error}")))
    }

    fn unusable(&self, reason: String) -> Error {
        Error::Manifest { digest: self.digest, store: "the image".into(), reason }
    }
}

/// The digest in a descriptor, as ours: other algorithms than SHA-256 are refused by name.
pub fn digest_of(descriptor: &Descriptor) -> Result<Digest> {
    let text = descriptor.digest().to_string();
    text.parse().map_err(|_| Error::Unsupported { what: format!("the digest {text}") })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn receive(declared: Option<&str>, text: &'static str) -> Result<String> {
        Manifest::received(declared, text.into(), "registry.example/app").map(|manifest| manifest.media_type)
    }

    #[test]
    fn media_type_comes_from_the_header_then_the_body_then_the_shape() {
        let image = r#"{"schemaVersion":2,"config":{},"layers":[]}"#;
        assert_eq!(
            receive(Some("application/vnd.oci.image.manifest.v1+json; charset=utf-8"), image).unwrap(),
            media::OCI_MANIFEST
        );
        assert_eq!(receive(Some("text/plain"), image).unwrap(), media::OCI_MANIFEST);
        assert_eq!(receive(None, r#"{"schemaVersion":2,"manifests":[]}"#).unwrap(), media::OCI_INDEX);
        let docker = r#"{"mediaType":"application/vnd.docker.distribution.manifest.v2+json","config":{},"layers":[]}"#;
        assert_eq!(receive(None, docker).unwrap(), media::DOCKER_MANIFEST);
        let schema1 = receive(None, r#"{"schemaVersion":1,"fsLayers":[]}"#).unwrap();
        assert_eq!(ManifestKind::of(&schema1), Some(ManifestKind::Schema1));
    }

    #[test]
    fn contradicting_manifests_are_refused() {
        let docker = r#"{"mediaType":"application/vnd.docker.distribution.manifest.v2+json","config":{},"layers":[]}"#;
        assert!(receive(Some(media::OCI_MANIFEST), docker).is_err());
        assert!(receive(Some(media::OCI_INDEX), r#"{"config":{},"layers":[]}"#).is_err());
        assert!(receive(None, r#"{"manifests":[],"layers":[]}"#).is_err());
        assert!(receive(None, "<html>").is_err());
    }
}
