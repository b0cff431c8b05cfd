//! The finished image, and its way to where it should go.
//!
//! Blobs first, then the manifests, then their index, then tags: an interrupted build leaves no tag on a half image. Layers travel while
//! later steps are executed, and those that RUN steps make while they are still being compressed (`ahead.rs`).

mod ahead;
mod destination;
mod export;
pub mod relay;
pub mod saved;
pub mod tags;
mod tarball;
mod uploads;

use serde::{Deserialize, Serialize};
use yadokari_layers::{Compression, Digest};
use yadokari_registry::media::ManifestKind;
use yadokari_registry::{Descriptor, Manifest, Platform, digest_of};

use crate::execute::{Merged, StageResult};
use crate::image::{BlobRef, Form, History, ImageConfig, index_bytes, manifest_bytes, rfc3339};
use crate::plan::{LayerRef, Plan};
use crate::sources::layers_of;

pub use destination::{Destination, name, name_by_key, with_key};
pub use export::Export;
pub use tags::Pushing;
pub use uploads::{Finished, Uploads};
pub(crate) use uploads::{file_blob, mountable};

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
    pub fn index(images: Vec<(Image, Platform)>, form: &Form) -> Self {
        let described = |(image, platform): &(Image, Platform)| {
            let Manifest { media_type, digest, bytes } = &image.manifest;
            (BlobRef { media_type: media_type.clone(), digest: *digest, size: bytes.len() as u64 }, platform.clone())
        };
        let index = index_bytes(form, &images.iter().map(described).collect::<Vec<_>>());
        let images = images.into_iter().map(|(image, _)| image).collect();
        Self { images, index: Some(Manifest::new(form.format.index(), index)) }
    }

    /// All layers of all images.
    pub fn layers(&self) -> impl Iterator<Item = &LayerRef> {
        self.images.iter().flat_map(|image| &image.layers)
    }

    /// Everything but the layers, in one text.
    pub(crate) fn encode(&self) -> Vec<u8> {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let image = |image: &Image| StoredImage { config: text(&image.config), manifest: text(&image.manifest.bytes) };
        let images = self.images.iter().map(image).collect();
        let stored = StoredMade { images, index: self.index.as_ref().map(|index| text(&index.bytes)) };
        serde_json::to_vec(&stored).expect("texts have a form in JSON")
    }

    /// Reads what [`Made::encode`] wrote. The error says what is wrong with it.
    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, String> {
        let kept: StoredMade = serde_json::from_slice(bytes).map_err(|error| error.to_string())?;
        let image = |StoredImage { config, manifest }: StoredImage| {
            let manifest = stored(manifest)?;
            let image = manifest.image().map_err(|error| error.to_string())?;
            let (_, layers) = layers_of(&image, config.as_bytes())?;
            if names(image.config(), "config")? != Digest::of(&config) {
                return Err("its manifest names another config".into());
            }
            Ok(Image { config: config.into(), manifest, layers })
        };
        let images: Vec<Image> = kept.images.into_iter().map(image).collect::<Result<_, String>>()?;
        let index = kept.index.map(stored).transpose()?;
        if let Some(index) = &index {
            let index = index.index().map_err(|error| error.to_string())?;
            let named: Result<Vec<Digest>, String> =
                index.manifests().iter().map(|part| names(part, "image")).collect();
            if named? != images.iter().map(|image| image.manifest.digest).collect::<Vec<_>>() {
                return Err("its index names other images".into());
            }
        }
        if images.is_empty() { Err("it has no image".into()) } else { Ok(Self { images, index }) }
    }

    /// What it is to whoever asks a registry for it.
    pub fn described(&self) -> Described {
        let root = self.root();
        let config = self.index.is_none().then(|| self.images[0].config_digest());
        Described { media_type: root.media_type.clone(), size: root.bytes.len() as u64, config }
    }

    /// What the tags will point to: the index, or else the only image's manifest.
    pub fn root(&self) -> &Manifest {
        self.index.as_ref().unwrap_or_else(|| &self.images[0].manifest)
    }
}

/// What tags point to, beside its digest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Described {
    /// The media type of the manifest, or of the index of several images.
    pub media_type: String,
    /// Its size in bytes.
    pub size: u64,
    /// The digest of the config, where it is one image.
    pub config: Option<Digest>,
}

impl Described {
    /// The same of a manifest that was read.
    pub fn of(manifest: &Manifest) -> yadokari_registry::Result<Self> {
        let config = match manifest.kind() {
            Some(ManifestKind::Image) => Some(digest_of(manifest.image()?.config())?),
            _ => None,
        };
        Ok(Self { media_type: manifest.media_type.clone(), size: manifest.bytes.len() as u64, config })
    }
}

/// A manifest from its text, in which we always wrote its media type.
fn stored(text: String) -> Result<Manifest, String> {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Typed {
        media_type: String,
    }
    let Typed { media_type } = serde_json::from_str(&text).map_err(|error| error.to_string())?;
    Ok(Manifest::new(media_type, text))
}

/// The digest that a descriptor names.
fn names(descriptor: &Descriptor, what: &str) -> Result<Digest, String> {
    digest_of(descriptor).map_err(|error| format!("its {what}: {error}"))
}

/// The form in which an image is kept apart from its layers.
#[derive(Serialize, Deserialize)]
struct StoredMade {
    images: Vec<StoredImage>,
    index: Option<String>,
}

#[derive(Serialize, Deserialize)]
struct StoredImage {
    config: String,
    manifest: String,
}

/// Writes config and manifest of the target. With `epoch` no byte depends on the clock.
pub fn assemble(plan: &Plan, stages: &[StageResult], epoch: Option<i64>, form: &Form) -> Image {
    let created = rfc3339(epoch.unwrap_or_else(crate::clock));
    let target = plan.target();
    let result = stages.last().map(|result| (result.layers.clone(), result.merged.as_ref()));
    let (layers, merged) = result.unwrap_or_default();
    let mut config = target.config.clone();
    for line in &target.history {
        let has_layer = line.step.is_some_and(|(stage, step)| stages[stage].made[step].is_some());
        config.history.push(History::of(&created, &line.created_by, has_layer && merged.is_none()));
    }
    if let Some(Merged { layer, comment }) = merged {
        config.history.push(History::of_merged(&created, comment, layer.is_some()));
    }
    config.created = Some(created);
    written(config, layers, form)
}

/// Writes the config of an image with these layers, and its manifest.
pub(crate) fn written(mut config: ImageConfig, layers: Vec<LayerRef>, form: &Form) -> Image {
    config.rootfs.kind = "layers".into();
    config.rootfs.diff_ids = layers.iter().map(|layer| layer.diff_id).collect();
    let config = config.to_bytes();
    let media_type = form.format.config().to_owned();
    let config_blob = BlobRef { media_type, digest: Digest::of(&config), size: config.len() as u64 };
    let blob_ref = |layer: &LayerRef| {
        let media_type = form.format.layer(layer.compression).to_owned();
        BlobRef { media_type, digest: layer.digest, size: layer.size }
    };
    let blobs: Vec<BlobRef> = layers.iter().map(blob_ref).collect();
    let manifest = Manifest::new(form.format.manifest(), manifest_bytes(form, &config_blob, &blobs));
    Image { config, manifest, layers }
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::{Base, HistoryLine, Stage};
    use yadokari_layers::KeyHasher;

    fn layer(text: &str) -> LayerRef {
        let (digest, diff_id) = (Digest::of(text), Digest::of(format!("tar of {text}")));
        LayerRef { digest, size: 9, compression: Compression::Gzip, diff_id }
    }

    /// The config of an image with a layer of its base, and of three steps of which the second changed nothing.
    fn config(epoch: Option<i64>) -> ImageConfig {
        let line = |created_by: &str, step| HistoryLine { created_by: created_by.into(), step };
        let old = History::of("2001-01-01T00:00:00Z", "base", true);
        let stage = Stage {
            name: "stage-0".into(),
            base: Base::Scratch,
            base_key: KeyHasher::new("test").finish(),
            steps: Vec::new(),
            config: ImageConfig {
                history: vec![old],
                created: Some("2001-01-01T00:00:00Z".into()),
                ..Default::default()
            },
            history: vec![
                line("RUN a", Some((0, 0))),
                line("ENV A=1", None),
                line("RUN true", Some((0, 1))),
                line("WORKDIR /", None),
                line("COPY a /", Some((0, 2))),
            ],
        };
        let plan = Plan { stages: vec![stage], warnings: Vec::new(), findings_are_errors: false, epoch };
        let [base, run, copy] = ["base", "run", "copy"].map(layer);
        let made = vec![Some(run), None, Some(copy)];
        let image = assemble(
            &plan,
            &[StageResult { layers: vec![base, run, copy], made, ..StageResult::default() }],
            epoch,
            &Form::default(),
        );
        assert_eq!(image.layers, [base, run, copy]);
        ImageConfig::parse(&image.config).unwrap()
    }

    #[test]
    fn each_line_of_history_that_is_not_empty_has_its_diff_id() {
        let config = config(None);
        let empty: Vec<bool> = config.history.iter().map(|line| line.empty_layer).collect();
        assert_eq!(empty, [false, false, true, true, true, false]);
        assert_eq!(config.rootfs.diff_ids, ["base", "run", "copy"].map(|text| layer(text).diff_id));
        assert_eq!(config.rootfs.kind, "layers");
        let comments: Vec<_> = config.history[1..].iter().map(|line| line.comment.as_deref()).collect();
        assert_eq!(comments, [Some("buildkit.dockerfile.v0"); 5]);
    }

    #[test]
    fn what_is_made_here_is_never_older_than_the_base() {
        let config = config(None);
        let times: Vec<_> = config.history.iter().map(|line| line.created.clone()).collect();
        assert!(times.is_sorted() && times.last() == Some(&config.created), "{times:?}");
    }

    #[test]
    fn with_an_epoch_no_time_is_the_clocks() {
        let config = config(Some(1_700_000_000));
        let expected = Some("2023-11-14T22:13:20Z".to_owned());
        assert_eq!(config.created, expected);
        assert!(config.history[1..].iter().all(|line| line.created == expected));
    }
}
