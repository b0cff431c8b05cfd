//! The finished image, and its way to where it should go.
//!
//! Blobs first, then the manifests, then their index, then tags: an interrupted build leaves no tag on a half image. Layers travel while
//! later steps are executed.

mod tarball;
mod uploads;

use std::path::PathBuf;

use yadokari_layers::{Compression, Digest};
use yadokari_registry::{Manifest, Platform, Reference};

use crate::execute::StageResult;
use crate::image::{BlobRef, CONFIG, History, INDEX, MANIFEST, index_bytes, layer_media_type, manifest_bytes, rfc3339};
use crate::plan::{LayerRef, Plan};

pub use uploads::Uploads;

/// Where an image goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Destination {
    /// A registry, under a tag.
    Registry(Reference),
    /// An OCI layout directory. The tag is the first destination's, or `latest`.
    Layout {
        /// The directory, made where it is missing.
        directory: PathBuf,
        /// The name in its index.
        tag: String,
    },
    /// A tar archive as `docker save` writes it.
    Tarball {
        /// The file, which is replaced.
        path: PathBuf,
        /// What `docker load` calls the image.
        names: Vec<Reference>,
    },
}

/// An image as bytes and the layers it names.
#[derive(Debug, Clone)]
pub struct Image {
    /// The config blob.
    pub config: Vec<u8>,
    /// The manifest.
    pub manifest: Manifest,
    /// The layers, the lowest first.
    pub layers: Vec<LayerRef>,
}

impl Image {
    /// The digest of the config blob.
    pub fn config_digest(&self) -> Digest {
        Digest::of(&self.config)
    }
}

/// What a build has made: one image, or an index of images for several platforms.
#[derive(Debug, Clone)]
pub struct Made {
    /// The images.
    pub images: Vec<Image>,
    /// Their index, where there is one.
    pub index: Option<Manifest>,
}

impl Made {
    /// One image.
    pub fn image(image: Image) -> Self {
        Self { images: vec![image], index: None }
    }

    /// The images under an index, in its order.
    pub fn index(images: Vec<(Image, Platform)>) -> Self {
        let described = |(image, platform): &(Image, Platform)| {
            let Manifest { media_type, digest, bytes } = &image.manifest;
            (BlobRef { media_type: media_type.clone(), digest: *digest, size: bytes.len() as u64 }, platform.clone())
        };
        let index = index_bytes(&images.iter().map(described).collect::<Vec<_>>());
        let images = images.into_iter().map(|(image, _)| image).collect();
        Self { images, index: Some(Manifest::new(INDEX, index)) }
    }

    /// All layers of all images.
    pub fn layers(&self) -> impl Iterator<Item = &LayerRef> {
        self.images.iter().flat_map(|image| &image.layers)
    }

    /// What the tags will point to: the index, or else the only image's manifest.
    pub fn root(&self) -> &Manifest {
        self.index.as_ref().unwrap_or_else(|| &self.images[0].manifest)
    }
}

/// Writes config and manifest of the target. With `epoch` no byte depends on the clock.
pub fn assemble(plan: &Plan, stages: &[StageResult], epoch: Option<i64>) -> Image {
    let created = rfc3339(epoch.unwrap_or_else(crate::clock));
    let target = plan.target();
    let layers = stages.last().map(|result| result.layers.clone()).unwrap_or_default();
    let mut config = target.config.clone();
    for line in &target.history {
        let has_layer = line.step.is_some_and(|(stage, step)| stages[stage].made[step].is_some());
        config.history.push(History::of(&created, &line.created_by, has_layer));
    }
    config.created = Some(created);
    config.rootfs.kind = "layers".into();
    config.rootfs.diff_ids = layers.iter().map(|layer| layer.diff_id).collect();
    let config = config.to_bytes();
    let config_blob = BlobRef { media_type: CONFIG.into(), digest: Digest::of(&config), size: config.len() as u64 };
    let blobs: Vec<BlobRef> = layers.iter().map(blob_ref).collect();
    let manifest = Manifest::new(MANIFEST, manifest_bytes(&config_blob, &blobs));
    Image { config, manifest, layers }
}

fn blob_ref(layer: &LayerRef) -> BlobRef {
    BlobRef { media_type: layer_media_type(layer.compression).into(), digest: layer.digest, size: layer.size }
}

/// The name of a layer's file inside a tarball.
fn tar_name(layer: &LayerRef) -> String {
    let ending = match layer.compression {
        Compression::None => "tar",
        Compression::Gzip => "tar.gz",
        Compression::Zstd => "tar.zst",
    };
    format!("{}.{ending}", layer.digest.hex())
}
