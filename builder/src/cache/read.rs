//! Asking the cache.

use std::collections::HashMap;
use std::sync::Arc;

use futures_util::future::join_all;
use futures_util::stream::{self, StreamExt as _};
use serde::{Deserialize, Serialize};
use yadokari_layers::{Digest, Index, Key};
use yadokari_registry::read_small;

use super::place::Answer;
use super::record::{Body, Record, ResultBody, StoredLayer};
use super::{Cache, Hit, Stored};
use crate::image::BlobRef;
use crate::output::Made;
use crate::plan::{Input, LayerRef};

/// How many questions are under way at once.
const AT_ONCE: usize = 32;
/// The largest index, compressed, that is read.
const LARGEST_INDEX: u64 = 256 << 20;
/// The largest image description, and the largest list of inputs, that are read.
const LARGEST_BLOB: u64 = 64 << 20;

/// What a step depended on, as it is kept with the result.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StepInputs {
    /// The stage's name, after its platform where there are several.
    pub stage: String,
    /// The instruction.
    pub text: String,
    /// The step's key.
    pub key: Key,
    /// The key of what it stands on.
    pub below: Key,
    /// What it depended on besides that, and besides what it takes from stages and images.
    pub inputs: Vec<Input>,
}

impl StepInputs {
    /// The names of its stage and of itself.
    pub fn name(&self) -> (&str, &str) {
        (&self.stage, &self.text)
    }
}

/// An image that an earlier build made of the same inputs.
#[derive(Debug, Clone)]
pub struct FoundResult {
    place: usize,
    body: ResultBody,
    /// Whether it is going to be written anew, before it gets too old.
    pub is_aging: bool,
}

impl FoundResult {
    /// The digest of its manifest, or of the index of several images.
    pub fn digest(&self) -> Digest {
        self.body.digest
    }

    /// The compressed size of all layers in bytes, and their number.
    pub fn layers(&self) -> (u64, usize) {
        (self.body.size, self.body.layers)
    }
}

impl Cache {
    /// Asks for all of these steps at once.
    pub async fn look_up(&self, keys: impl IntoIterator<Item = Key>) {
        let new: Vec<Key> = {
            let state = self.lock();
            let mut keys: Vec<Key> = keys.into_iter().filter(|key| !state.steps.contains_key(key)).collect();
            keys.sort();
            keys.dedup();
            keys
        };
        let questions = new.into_iter().map(|key| self.look(key));
        stream::iter(questions).buffer_unordered(AT_ONCE).collect::<Vec<_>>().await;
    }

    /// Asks for one step.
    pub async fn look(&self, key: Key) -> Option<Hit> {
        let found = self.find(&key.hex()).await;
        let hit = match found {
            Some((place, Body::Step { layer })) => Some(self.remember(place, layer)),
            _ => None,
        };
        self.lock().steps.insert(key, hit);
        self.hit(&key)
    }

    fn remember(&self, place: usize, layer: Option<StoredLayer>) -> Hit {
        let Some(StoredLayer { layer, content, index }) = layer else { return Hit { layer: None, content: None } };
        self.lock().layers.entry(layer.digest).or_insert(Stored { place, index });
        Hit { layer: Some(layer), content: Some(content) }
    }

    /// What the layers hold of which the cache knows it. Those of base images are asked for.
    pub async fn indexes(&self, layers: &[LayerRef]) -> HashMap<Digest, Arc<Index>> {
        if self.lock().distrusted {
            return HashMap::new();
        }
        let found = join_all(layers.iter().map(|layer| async {
            let index = self.index(layer).await?;
            Some((layer.digest, Arc::new(index)))
        }));
        found.await.into_iter().flatten().collect()
    }

    async fn index(&self, layer: &LayerRef) -> Option<Index> {
        let stored = self.lock().layers.get(&layer.digest).cloned();
        let Stored { place, index } = match stored {
            Some(stored) => stored,
            None => match self.find(&index_name(&layer.digest)).await? {
                (place, Body::Index { layer: digest, diff_id, index })
                    if digest == layer.digest && diff_id == layer.diff_id =>
                {
                    Stored { place, index }
                }
                _ => return None,
            },
        };
        let bytes = self.blob(place, &index, LARGEST_INDEX, "index").await?;
        let decoded = Index::decode(&bytes, &self.limits);
        decoded.map_err(|error| self.ignored(&format!("index {}", index.digest), &error)).ok()
    }

    /// The image that was made of the inputs which `key` stands for.
    pub async fn result(&self, key: &Key) -> Option<FoundResult> {
        match self.find(&result_name(key)).await? {
            (place, Body::Result(body)) => {
                let is_aging = !self.lock().aging.is_empty();
                Some(FoundResult { place, body, is_aging })
            }
            _ => None,
        }
    }

    /// The manifests and configs of an image that was found.
    pub async fn image(&self, found: &FoundResult) -> Option<Made> {
        let bytes = self.blob(found.place, &found.body.image, LARGEST_BLOB, "image").await?;
        let made = Made::decode(&bytes);
        let made = made.map_err(|error| self.ignored(&format!("image {}", found.body.image.digest), &error)).ok()?;
        if made.root().digest != found.body.digest {
            self.ignored(&format!("image {}", found.body.image.digest), &"it is not the one that its record names");
            return None;
        }
        Some(made)
    }

    /// What the steps depended on when the target of this name was built last.
    pub async fn last(&self, name: &Digest) -> Option<Vec<StepInputs>> {
        let (place, Body::Result(body)) = self.find(&last_name(name)).await? else { return None };
        let bytes = self.blob(place, &body.inputs, LARGEST_BLOB, "inputs").await?;
        let plain = zstd::bulk::decompress(&bytes, LARGEST_BLOB as usize).ok()?;
        serde_json::from_slice(&plain).ok()
    }

    /// A small blob that a record names. One that is missing or wrong is said, and not there.
    async fn blob(&self, place: usize, blob: &BlobRef, limit: u64, what: &str) -> Option<Vec<u8>> {
        let read = read_small(&*self.places[place].store, &blob.digest, Some(blob.size), limit).await;
        let ignored = |error| {
            self.lock().spoiled.insert(blob.digest);
            self.ignored(&format!("{what} {}", blob.digest), &error);
        };
        read.map_err(ignored).ok().map(Into::into)
    }

    /// The record of a name, from the first place and scope that has one which may be used.
    async fn find(&self, name: &str) -> Option<(usize, Body)> {
        let scopes = &self.settings.scopes;
        let also = scopes.also.as_deref().map(Some);
        let scopes: Vec<Option<&str>> = std::iter::once(scopes.own.as_deref()).chain(also).collect();
        let questions = (0..self.places.len()).flat_map(|place| scopes.iter().map(move |scope| (place, *scope)));
        let questions: Vec<_> = questions.collect();
        let answers = questions.iter().map(|&(place, scope)| self.places[place].read(scope, name, self.key()));
        let answers = join_all(answers).await;
        let mut found = None;
        for (answer, &(place, scope)) in answers.into_iter().zip(&questions) {
            match answer {
                Answer::Nothing => {}
                Answer::Unusable(reason) => {
                    let tag = super::place::tag(scope, name);
                    self.ignored(&format!("{}:{tag}", self.places[place].store.describe()), &reason);
                }
                Answer::Failed(reason) => {
                    self.progress.warning(&format!("cache: {reason}; the build goes on without it"));
                }
                Answer::Found(record) if found.is_none() => found = self.fresh(record, place, scope),
                Answer::Found(_) => {}
            }
        }
        found
    }

    /// The record, unless it is older than it may be. One that gets old is kept by writing it anew, at the end.
    fn fresh(&self, record: Record, place: usize, scope: Option<&str>) -> Option<(usize, Body)> {
        let age = crate::clock().saturating_sub(record.created);
        let ttl = i64::try_from(self.settings.ttl.as_secs()).unwrap_or(i64::MAX);
        if age >= ttl {
            self.progress.debug(&format!("cache: {} is {age} s old", record.names.join(", ")));
            return None;
        }
        let is_own = self.writes && place == 0 && scope == self.settings.scopes.own.as_deref();
        if is_own && age > ttl / 2 {
            self.lock().aging.push(record.clone());
        }
        Some((place, record.body))
    }
}

/// The name of the record of what a layer holds.
pub(super) fn index_name(layer: &Digest) -> String {
    format!("index-{}", layer.hex())
}

/// The name of the record of an image.
pub(super) fn result_name(key: &Key) -> String {
    format!("result-{}", key.hex())
}

/// The name of the record of the image that was built last for a target.
pub(super) fn last_name(target: &Digest) -> String {
    format!("last-{}", target.hex())
}
