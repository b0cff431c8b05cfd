//! Writing to the cache.

use std::path::Path;
use std::sync::Arc;

use futures_util::future::try_join_all;
use yadokari_layers::{Digest, Index, Key};
use yadokari_registry::{BlobSource, BytesBlob, Error, FileBlob, Version};

use super::place::{OpenPlace, tag};
use super::read::{StepInputs, index_name, last_name, result_name};
use super::record::{Body, Record, ResultBody, StoredLayer, common_blobs, image_blob, index_blob, inputs_blob};
use super::{Cache, Stored};
use crate::image::BlobRef;
use crate::output::{Made, file_blob, mountable};
use crate::plan::LayerRef;
use crate::progress::write_blob;

/// What a step made, on its way to the cache.
#[derive(Debug, Clone)]
pub struct NewStep {
    /// The keys that it answers to.
    pub keys: Vec<Key>,
    /// The layer with what it says and what stands for its content, if the step changed anything.
    pub layer: Option<(LayerRef, NewIndex, Digest)>,
}

/// What the layer of a step says.
#[derive(Debug, Clone)]
pub enum NewIndex {
    /// This; the layer was made in this build.
    Made(Arc<Index>),
    /// What the cache has, as it has the layer.
    Kept(BlobRef),
}

impl Cache {
    /// Keeps what a step made. Its layer is in `blobs`, and in some repositories, each the second of a pair with its
    /// registry.
    pub async fn write_step(&self, new: &NewStep, blobs: &Path, repositories: &[(String, String)]) {
        let names: Vec<String> = new.keys.iter().map(Key::hex).collect();
        self.write(names, async |place| {
            let Some((layer, index, content)) = &new.layer else { return Ok(Body::Step { layer: None }) };
            let index = match index {
                NewIndex::Kept(index) => index.clone(),
                NewIndex::Made(index) => {
                    let from = mountable(place.repository.as_ref(), repositories);
                    self.put_layer(place, &file_blob(blobs, layer), from).await?;
                    let index = BytesBlob::new(encoded(index)?);
                    self.put(place, &index, None).await?;
                    let index = index_blob(index.bytes());
                    self.has(layer, &index);
                    index
                }
            };
            Ok(Body::Step { layer: Some(StoredLayer { layer: *layer, content: *content, index }) })
        })
        .await;
    }

    /// Takes note that the first place has a layer that was made here.
    fn has(&self, layer: &LayerRef, index: &BlobRef) {
        let stored = Stored { place: 0, index: index.clone() };
        self.lock().layers.insert(layer.digest, stored);
    }

    /// Keeps what a layer of a base image says, so that nobody has to read it for that again.
    pub async fn write_index(&self, layer: &LayerRef, index: &Index) {
        self.write(vec![index_name(&layer.digest)], async |place| {
            let index = BytesBlob::new(encoded(index)?);
            self.put(place, &index, None).await?;
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
            try_join_all([&image, &inputs].map(|blob| self.put(place, blob, None))).await?;
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

    /// How the index of a layer is named that is, with it, where records are written.
    pub fn kept_index(&self, layer: &Digest) -> Option<BlobRef> {
        let state = self.lock();
        let stored = state.layers.get(layer).filter(|stored| self.writes && stored.place == 0)?;
        let is_spoiled = state.spoiled.contains(layer) || state.spoiled.contains(&stored.index.digest);
        (!is_spoiled).then(|| stored.index.clone())
    }

    /// Writes records anew that were used and would soon be too old, and says what could not be written.
    pub async fn finish(&self) {
        let aging = std::mem::take(&mut self.lock().aging);
        for Record { names, body, .. } in aging {
            let names: Vec<String> = {
                let state = self.lock();
                let is_spoiled =
                    matches!(&body, Body::Step { layer: Some(stored) } if state.spoiled.contains(&stored.layer.digest));
                // What this build has made itself is newer.
                names.into_iter().filter(|name| !is_spoiled && !state.written.contains(name)).collect()
            };
            let Some(name) = names.first().cloned() else { continue };
            match self.try_write(names, async |_| Ok(body.clone())).await {
                // A destination had what it names, and nobody found out that the cache has not.
                Err(error @ Error::Refused { .. }) => self.ignored(&format!("record {name}"), &error),
                result => self.note(result),
            }
        }
        if let Some(failure) = self.lock().failure.take() {
            self.progress.warning(&format!("cache: not written: {failure}"));
        }
    }

    /// Writes a record, once `body` has put what it names into the place. After a first failure nothing is tried any more.
    async fn write(&self, names: Vec<String>, body: impl AsyncFnOnce(&OpenPlace) -> Result<Body, Error>) {
        self.note(self.try_write(names, body).await);
    }

    fn note(&self, written: Result<(), Error>) {
        if let Err(error) = written {
            self.lock().failure.get_or_insert(error.to_string());
        }
    }

    async fn try_write(
        &self,
        names: Vec<String>,
        body: impl AsyncFnOnce(&OpenPlace) -> Result<Body, Error>,
    ) -> Result<(), Error> {
        // One that does not answer was waited for, and said.
        let Some(place) = self.places.first().filter(|place| self.writes && !place.is_silent()) else { return Ok(()) };
        {
            let mut state = self.lock();
            if state.failure.is_some() || names.iter().all(|name| state.written.contains(name)) {
                return Ok(());
            }
            state.written.extend(names.iter().cloned());
        }
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
        Ok(())
    }

    /// Puts a blob into a place, and in the place of one that turned out to be wrong.
    async fn put(&self, place: &OpenPlace, blob: &dyn BlobSource, from: Option<&str>) -> Result<(), Error> {
        let is_spoiled = self.lock().spoiled.contains(&blob.digest());
        if is_spoiled {
            place.store.replace_blob(blob).await
        } else {
            place.store.write_blob(blob, from).await.map(|_| ())
        }
    }

    /// The same for the blob of a layer, which may be large: it is said how far that is.
    async fn put_layer(&self, place: &OpenPlace, blob: &FileBlob, from: Option<&str>) -> Result<(), Error> {
        let is_spoiled = self.lock().spoiled.contains(&blob.digest);
        match is_spoiled {
            true => self.put(place, blob, from).await,
            false => write_blob(&self.progress, &*place.store, blob, from).await.map(drop),
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
