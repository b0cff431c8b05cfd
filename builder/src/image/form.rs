//! In whose words an image is written down, and what is noted on it.

use std::collections::BTreeMap;

use yadokari_layers::Compression;
use yadokari_registry::media;

/// How the manifests of an image are written. The default is OCI's, with nothing noted.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Form {
    /// Whose media types they have.
    pub format: Format,
    /// The annotations of each image's manifest.
    pub annotations: BTreeMap<String, String>,
    /// Those of the index of several images.
    pub index_annotations: BTreeMap<String, String>,
}

/// Whose media types a manifest has.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Format {
    /// OCI's.
    #[default]
    Oci,
    /// Docker's of schema 2, which know no annotations.
    Docker,
}

impl Format {
    /// Its name, as a user writes it.
    pub fn name(self) -> &'static str {
        self.choose("oci", "docker")
    }

    /// The media type of an image's manifest.
    pub fn manifest(self) -> &'static str {
        self.choose(media::OCI_MANIFEST, media::DOCKER_MANIFEST)
    }

    /// That of an index of images.
    pub fn index(self) -> &'static str {
        self.choose(media::OCI_INDEX, media::DOCKER_LIST)
    }

    /// That of a config.
    pub fn config(self) -> &'static str {
        self.choose(media::OCI_CONFIG, media::DOCKER_CONFIG)
    }

    /// That of a layer. For zstd Docker's format has a name that containerd and others know, and no specification.
    pub fn layer(self, compression: Compression) -> &'static str {
        match compression {
            Compression::None => self.choose(media::OCI_LAYER, media::DOCKER_LAYER),
            Compression::Gzip => self.choose(media::OCI_LAYER_GZIP, media::DOCKER_LAYER_GZIP),
            Compression::Zstd => self.choose(media::OCI_LAYER_ZSTD, media::DOCKER_LAYER_ZSTD),
        }
    }

    fn choose(self, oci: &'static str, docker: &'static str) -> &'static str {
        match self {
            Self::Oci => oci,
            Self::Docker => docker,
        }
    }
}
