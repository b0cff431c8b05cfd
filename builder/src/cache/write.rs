//! Writing to the cache.

use std::path::Path;
use std::sync::Arc;

use futures_util::future::try_join_all;
use yadokari_layers::{Digest, Index, Key, blob_path};
use yadokari_registry::{BlobSource, BytesBlob, Error, FileBlob, Version};

use super::Cache;
use super::place::{OpenPlace, tag};
use super::read::{StepInputs, index_name, last_name, result_name};
use super::record::{Body, Record, ResultBody, StoredLayer, common_blobs, image_blob, index_blob, inputs_blob};
use crate::output::Made;
use crate::plan::LayerRef;

/// What a step made, on its way to the cache.
#[derive(Debug, Clone)]
pub struct NewStep {
    /// The keys that it answers to.
    pub keys: Vec<Key>,
    /// The layer with what it says and what stands for its content, if the step changed anything.
    pub layer: Option<(LayerRef, Arc<Index>, Digest)>,
}

impl Cache {
    /// Keeps what a step made. Its layer is in `blobs`, and in some repositories, each the second of a pair with its
    /// registry.
    pub async fn write_step(&self, new: &NewStep, blobs: &Path, repositories: &[(String, String)]) {
        let names: Vec<String> = new.keys.iter().map(Key::hex).collect();
        self.write(names, async |place| {
            let Some((layer, index, content)) = &new.layer else { return Ok(Body::Step { layer: None }) };
            let file = FileBlob { path: blob_path(blobs, &layer.digest), digest: layer.digest, size: layer.size };
            let own = place.repository.as_ref().map(|(registry, _)| registry);
            let from = repositories.iter().find(|(registry, _)| Some(registry) == own);
            place.store.write_blob(&file, from.map(|from| &from.1[..])).await?;
            let index = BytesBlob::new(encoded(index)?);
            place.store.write_blob(&index, None).await?;
            let index = index_blob(index.bytes());
            Ok(Body::Step { layer: Some(StoredLayer { layer: *layer, content: *content, index }) })
        })
        .await;
    }

    /// Keeps what a layer of a base image says, so that nobody has to read it for that again.
    pub async fn write_index(&self, layer: &LayerRef, index: &Index) {
        self.write(vec![index_name(&layer.digest)], async |place| {
            let index = BytesBlob::new(encoded(index)?);
            place.store.write_blob(&index, None).await?;
            Ok(Body::Index { layer: layer.digest, diff_id: layer.diff_id, index: index_blob(index.bytes()) })
        })
        .await;
    }

    /// Keeps an image under the key of its inputs, and as the last one of its target.
    pub async fn write_result(&self, key: &Key, target: &Digest, made: &Made, inputs: &[StepInputs]) {
        self.write(vec![result_name(key), last_name(target)], async |place| {
            let unwritable = |source| Error::Io { operation: "write", path: "inputs".into(), source };
            let text = serde_json::to_vec(inputs).map_err(|error| unwritable(error.into()))?;
            let inputs = BytesBlob::new(zstd::bulk::compress(&text, 3).map_err(unwritable)?);
            let image = BytesBlob::new(made.encode());
            try_join_all([&image, &inputs].map(|blob| place.store.write_blob(blob, None))).await?;
            Ok(Body::Result(ResultBody {
                digest: made.root().digest,
                size: made.layers().map(|layer| layer.size).sum(),
                layers: made.layers().count(),
                image: image_blob(image.bytes()),
                inputs: inputs_blob(inputs.bytes()),
            }))
        })
        .await;
    }

    /// Writes records anew that were used and would soon be too old, and says what could not be written.
    pub async fn finish(&self) {
        let aging = std::mem::take(&mut self.lock().aging);
        for record in aging {
            // What it names is there, or it would not have been used.
            self.write(record.names, async |_| Ok(record.body.clone())).await;
        }
        if let Some(failure) = self.lock().failure.take() {
            self.progress.warning(&format!("cache: not written: {failure}"));
        }
    }

    /// Writes a record, once `body` has put what it names into the place. After a first failure nothing is tried any more.
    async fn write(&self, names: Vec<String>, body: impl AsyncFnOnce(&OpenPlace) -> Result<Body, Error>) {
        let Some(place) = self.places.first().filter(|_| self.writes) else { return };
        {
            let mut state = self.lock();
            if state.failure.is_some() || names.iter().all(|name| state.written.contains(name)) {
                return;
            }
            state.written.extend(names.iter().cloned());
        }
        let written = async {
            let body = body(place).await?;
            for blob in common_blobs() {
                self.common(place, &blob).await?;
            }
            let record = Record { names, created: crate::clock(), body };
            let manifest = record.encode(self.key());
            let scope = self.settings.scopes.own.as_deref();
            let tags = record.names.iter().map(|name| Version::Tag(tag(scope, name)));
            for tag in tags {
                place.store.write_manifest(&tag, &manifest).await?;
            }
            Ok::<_, Error>(())
        };
        if let Err(error) = written.await {
            self.lock().failure.get_or_insert(error.to_string());
        }
    }

    /// Writes a blob that all records name, once.
    async fn common(&self, place: &OpenPlace, blob: &BytesBlob) -> Result<(), Error> {
        let name = blob.digest().to_string();
        if !self.lock().written.contains(&name) {
            place.store.write_blob(blob, None).await?;
            self.lock().written.insert(name);
        }
        Ok(())
    }
}

fn encoded(index: &Index) -> Result<Vec<u8>, Error> {
    let failed = |error: yadokari_layers::Error| Error::Io {
        operation: "write",
        path: "index".into(),
        source: std::io::Error::other(error),
    };
    index.encode().map_err(failed)
}
