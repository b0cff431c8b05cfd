//! `index.json`: what a layout says that it holds.

use std::collections::{BTreeMap, BTreeSet, HashSet};

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use yadokari_layers::Digest;

use crate::{Error, Manifest, Result, Version};

const REF_NAME: &str = "org.opencontainers.image.ref.name";

/// A JSON object that describes content.
pub(super) type Entry = Map<String, Value>;

/// The index. Entries stay as they are found, since others may have written fields unknown here.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Index {
    schema_version: u32,
    #[serde(default)]
    pub(super) manifests: Vec<Entry>,
    #[serde(flatten)]
    others: BTreeMap<String, Value>,
}

impl Default for Index {
    fn default() -> Self {
        Self { schema_version: 2, manifests: Vec::new(), others: BTreeMap::new() }
    }
}

impl Index {
    /// The tags, sorted.
    pub(super) fn tags(&self) -> Vec<String> {
        let tags: BTreeSet<_> = self.manifests.iter().filter_map(tag_of).collect();
        tags.into_iter().map(str::to_owned).collect()
    }

    /// Digest and media type of a manifest. One asked for by digest need not be in the index.
    pub(super) fn find(&self, version: &Version, store: &str) -> Result<Option<(Digest, Option<String>)>> {
        let wanted = |entry: &&Entry| match version {
            Version::Tag(tag) => tag_of(entry) == Some(tag),
            Version::Digest(digest) => digest_in(entry) == Some(*digest),
        };
        match (self.manifests.iter().find(wanted), version) {
            (Some(entry), _) => match digest_in(entry) {
                Some(digest) => Ok(Some((digest, media_type_of(entry).map(str::to_owned)))),
                None => Err(Error::Unsupported { what: format!("the digest of {version} in {store}") }),
            },
            (None, Version::Digest(digest)) => Ok(Some((*digest, None))),
            (None, Version::Tag(_)) => Ok(None),
        }
    }

    /// Points a tag at a manifest.
    pub(super) fn point(&mut self, tag: &str, manifest: &Manifest) {
        let mut entry = Map::new();
        entry.insert("mediaType".into(), json!(manifest.media_type));
        entry.insert("digest".into(), json!(manifest.digest));
        entry.insert("size".into(), json!(manifest.bytes.len()));
        entry.insert("annotations".into(), json!({ REF_NAME: tag }));
        self.manifests.retain(|other| tag_of(other) != Some(tag));
        self.manifests.push(entry);
    }

    /// Takes out all entries of these manifests, and says which had any.
    pub(super) fn remove(&mut self, manifests: &HashSet<Digest>) -> HashSet<Digest> {
        let wanted = |entry: &Entry| digest_in(entry).filter(|digest| manifests.contains(digest));
        let removed = self.manifests.iter().filter_map(wanted).collect();
        self.manifests.retain(|entry| wanted(entry).is_none());
        removed
    }
}

fn tag_of(entry: &Entry) -> Option<&str> {
    entry.get("annotations")?.get(REF_NAME)?.as_str()
}

/// The digest in a descriptor; `None` for one of another algorithm, too.
pub(super) fn digest_in(entry: &Entry) -> Option<Digest> {
    entry.get("digest")?.as_str()?.parse().ok()
}

pub(super) fn media_type_of(entry: &Entry) -> Option<&str> {
    entry.get("mediaType")?.as_str()
}
