//! Manifests: exact bytes and their meaning.

use std::fmt;

use bytes::Bytes;
use oci_spec::image::{Descriptor, ImageIndex, ImageManifest};
use serde::Deserialize;
use serde::de::{Deserializer, IgnoredAny, SeqAccess, Visitor};
use yadokari_layers::{Digest, Mismatch};

use crate::client::clean;
use crate::media::{self, ManifestKind};
use crate::{Error, Result};

/// The largest manifest that is read; the distribution specification asks registries to take 4 MiB.
pub(crate) const MAX_MANIFEST: u64 = 16 << 20;

/// The most layers of an image, and the most manifests of an index. No kernel mounts half as many layers.
const MAX_LAYERS: usize = 1000;
const MAX_MANIFESTS: usize = 10_000;

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
    manifests: Option<Count>,
    layers: Option<Count>,
    config: Option<IgnoredAny>,
    fs_layers: Option<IgnoredAny>,
}

/// How long a list is. What is in it takes memory only when it is known to be no more than fits.
struct Count(usize);

impl<'de> Deserialize<'de> for Count {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct List;

        impl<'de> Visitor<'de> for List {
            type Value = Count;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a list")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Count, A::Error> {
                let mut count = 0;
                while list.next_element::<IgnoredAny>()?.is_some() {
                    count += 1;
                }
                Ok(Count(count))
            }
        }

        deserializer.deserialize_seq(List)
    }
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
        let fail = |reason: String| Error::Manifest { digest, store: store.into(), reason: clean(&reason) };
        let declared = declared.and_then(|text| text.split(';').next()).map(str::trim);
        let declared = declared.filter(|media_type| ManifestKind::of(media_type).is_some());
        // Parsers take a list for the fields of a structure in their order.
        if !bytes.trim_ascii_start().starts_with(b"{") {
            return Err(fail("it is no JSON object".into()));
        }
        let inside: Sniffed =
            serde_json::from_slice(&bytes).map_err(|error| fail(format!("it is not a manifest in JSON: {error}")))?;
        if let (Some(outside), Some(inside)) = (declared, inside.media_type.as_deref())
            && outside != inside
        {
            return Err(fail(format!("it was served as {outside} but says that it is {inside}")));
        }
        let is_index = inside.manifests.is_some();
        if is_index && (inside.layers.is_some() || inside.config.is_some() || inside.fs_layers.is_some()) {
            return Err(fail("it is an index to one reader and an image to another".into()));
        }
        for (list, most, what) in
            [(&inside.layers, MAX_LAYERS, "layers"), (&inside.manifests, MAX_MANIFESTS, "manifests")]
        {
            if let Some(count) = list.as_ref().map(|list| list.0).filter(|count| *count > most) {
                return Err(fail(format!("it names {count} {what}, which are more than {most}")));
            }
        }
        let kind_by_shape = match &inside {
            Sniffed { schema_version: Some(1), .. } | Sniffed { fs_layers: Some(_), .. } => Some(ManifestKind::Schema1),
            Sniffed { manifests: Some(_), .. } => Some(ManifestKind::Index),
            Sniffed { config: Some(_), .. } | Sniffed { layers: Some(_), .. } => Some(ManifestKind::Image),
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
        Error::Manifest { digest: self.digest, store: "the image".into(), reason: clean(&reason) }
    }
}

/// The digest in a descriptor, as ours: other algorithms than SHA-256 are refused by name.
pub fn digest_of(descriptor: &Descriptor) -> Result<Digest> {
    let text = descriptor.digest().to_string();
    text.parse().map_err(|_| Error::Unsupported { what: format!("the digest {}", clean(&text)) })
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

    #[test]
    fn a_document_is_an_image_or_an_index_to_every_reader() {
        let two = [
            r#"{"schemaVersion":2,"manifests":[],"config":{},"layers":[]}"#,
            r#"{"schemaVersion":2,"manifests":[],"layers":[]}"#,
            r#"{"schemaVersion":2,"manifests":[],"config":{}}"#,
            r#"{"schemaVersion":2,"manifests":[],"fsLayers":[]}"#,
        ];
        for text in two {
            for declared in [None, Some(media::OCI_MANIFEST), Some(media::OCI_INDEX), Some(media::DOCKER_LIST)] {
                let error = receive(declared, text).unwrap_err();
                assert!(error.to_string().contains("an index to one reader and an image to another"), "{error}");
            }
        }
        let (image, index) = (r#"{"config":{},"layers":[]}"#, r#"{"manifests":[]}"#);
        for (declared, text) in [
            (media::OCI_INDEX, image),
            (media::OCI_INDEX, r#"{"layers":[]}"#),
            (media::OCI_MANIFEST, index),
            (media::DOCKER_MANIFEST, r#"{"config":{},"fsLayers":[]}"#),
            (media::OCI_MANIFEST, r#"{"schemaVersion":1,"config":{},"layers":[]}"#),
        ] {
            assert!(receive(Some(declared), text).is_err(), "{declared}: {text}");
        }
    }

    #[test]
    fn keys_that_come_twice_and_lists_that_are_none_are_refused() {
        for text in [
            r#"{"config":{},"layers":[],"layers":[{}]}"#,
            r#"{"config":{},"config":{"digest":"x"},"layers":[]}"#,
            r#"{"mediaType":"a","mediaType":"application/vnd.oci.image.index.v1+json","manifests":[]}"#,
            r#"{"config":{},"layers":"none"}"#,
            r#"{"manifests":{"a":1}}"#,
            r#"{"config":{},"layers":[]} trailing"#,
        ] {
            assert!(receive(None, text).is_err(), "{text}");
        }
        let blob = r#"{"mediaType":"a/b","digest":"sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855","size":0}"#;
        let image = |config: &str, layer: &str| {
            let text = format!(r#"{{"schemaVersion":2,"config":{config},"layers":[{layer}]}}"#);
            Manifest::received(Some(media::OCI_MANIFEST), text.into(), "r.example/app").and_then(|read| read.image())
        };
        assert!(image(blob, blob).is_ok());
        for wrong in [
            blob.replace("}", r#","size":7}"#),
            blob.replace(":0}", ":-1}"),
            blob.replace(":0}", ":18446744073709551616}"),
            blob.replace(":0}", ":1e9}"),
            blob.replace(":0}", r#":"0"}"#),
            blob.replace("sha256:", "../"),
            "[]".into(),
        ] {
            assert!(image(&wrong, blob).is_err() && image(blob, &wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_manifest_names_no_more_than_an_image_can_have() {
        let many = |list: &str, count: usize| {
            let text = format!(r#"{{"{list}":[{}]}}"#, vec!["{}"; count].join(","));
            Manifest::received(None, text.into(), "r.example/app").map(drop).map_err(|error| error.to_string())
        };
        for (list, most) in [("layers", 1000), ("manifests", 10_000)] {
            assert_eq!(many(list, most), Ok(()));
            let error = many(list, most + 1).unwrap_err();
            assert!(error.ends_with(&format!("it names {} {list}, which are more than {most}", most + 1)), "{error}");
        }
    }

    #[test]
    fn a_document_may_nest_no_deeper_than_a_stack_can_hold() {
        let deep = format!(r#"{{"config":{{}},"layers":[],"x":{}{}}}"#, "[".repeat(1 << 20), "]".repeat(1 << 20));
        // What nobody looks at is passed over without a stack, and what is looked at has a limit.
        assert!(Manifest::received(None, deep.into(), "r.example/app").is_ok_and(|read| read.image().is_err()));
    }

    #[test]
    fn what_a_manifest_says_moves_no_cursor() {
        let texts = [
            r#"{"mediaType":"\u001b[2J\u001b]0;x\u0007","config":{},"layers":[]}"#,
            r#"{"schemaVersion":"\u001b[31m"}"#,
        ];
        for text in texts {
            let read = Manifest::received(Some(media::OCI_MANIFEST), text.into(), "r.example/app");
            let error = read.unwrap_err().to_string();
            assert!(!error.chars().any(char::is_control), "{error:?}");
        }
        let config = r#"{"mediaType":"a/b","digest":"\u001b[31m:x","size":0}"#;
        let text = format!(r#"{{"schemaVersion":2,"config":{config},"layers":[]}}"#);
        let read = Manifest::received(None, text.into(), "r.example/app").unwrap();
        let error = read.image().map(drop).unwrap_err().to_string();
        assert!(!error.chars().any(char::is_control), "{error:?}");
    }
}
