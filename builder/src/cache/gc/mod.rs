//! What is old goes: `yadokari gc`.
//!
//! Looking and deleting are two steps. [`records`] and [`images`] look and say what would go, as a [`Sweep`]; [`delete`]
//! carries that out. A manifest goes with all its tags or not at all, since registries delete manifests and not tags.

mod images;
mod records;

use std::collections::HashMap;
use std::sync::Arc;

use futures_util::stream::{self, StreamExt};
use yadokari_registry::{Client, Digest, Error, Manifest, Result, Store, Version, digest_of};

use super::Place;
use super::place::OpenPlace;
use crate::progress::{age, bytes};

pub use images::{ImagePolicy, images};
pub use records::{RecordPolicy, records};

/// How many manifests are asked for at a time.
const AT_ONCE: usize = 16;

/// What would go from a repository, and what stays although it may look as if it should go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sweep {
    /// The repository.
    pub store: String,
    /// What its manifests are: `record`, `image`.
    pub noun: &'static str,
    /// What goes, the oldest first.
    pub goes: Vec<Item>,
    /// How many stay.
    pub stay: usize,
    /// The size in bytes of all blobs of what stays, where it was asked for.
    pub size: Option<u64>,
    /// What stays, and why: a line each.
    pub remarks: Vec<String>,
}

/// A manifest that goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Item {
    /// The manifest.
    pub digest: Digest,
    /// What it is: `step`, `image`.
    pub kind: String,
    /// Its tags, in order.
    pub tags: Vec<String>,
    /// Its age in seconds.
    pub age: u64,
    /// The size of its blobs in bytes, as far as it says so itself.
    pub size: Option<u64>,
    /// Why it goes.
    pub why: String,
}

impl Sweep {
    /// For people: a line for everything that goes, and a summary.
    pub fn text(&self) -> String {
        let Self { store, noun, goes, stay, size, remarks } = self;
        let mut lines = vec![format!("{store}: {} of {} {noun}s to delete", goes.len(), goes.len() + stay)];
        lines.extend(goes.iter().map(|item| {
            let size = item.size.map_or(String::new(), |size| format!(", {}", bytes(size)));
            format!("  {} {}: {} old{size}, {}", item.kind, item.tags.join(" "), age(item.age), item.why)
        }));
        lines.extend(remarks.iter().map(|remark| format!("  {remark}")));
        lines.extend(size.map(|size| format!("  {stay} {noun}s of {} stay", bytes(size))));
        lines.join("\n")
    }
}

/// Opens a repository. A directory that is no layout is an error.
pub fn open(place: &Place, client: &Client) -> Result<Arc<dyn Store>> {
    Ok(OpenPlace::open(place, false, client)?.store)
}

/// Deletes what goes, and counts what was still there.
pub async fn delete(store: &dyn Store, sweep: &Sweep) -> Result<usize> {
    let digests: Vec<Digest> = sweep.goes.iter().map(|item| item.digest).collect();
    store.delete_manifests(&digests).await
}

/// A manifest with its tags, in order.
struct Tagged {
    manifest: Manifest,
    tags: Vec<String>,
}

/// All manifests that have tags, in the order of their first ones; and the tags whose manifest cannot be read, with the
/// reason.
async fn tagged(store: &dyn Store) -> Result<(Vec<Tagged>, Vec<String>)> {
    let read = |tag: String| async move {
        let manifest = store.read_manifest(&Version::Tag(tag.clone())).await;
        (tag, manifest)
    };
    let mut reading = stream::iter(store.tags().await?).map(read).buffered(AT_ONCE);
    let (mut found, mut unreadable): (Vec<Tagged>, _) = (Vec::new(), Vec::new());
    let mut places: HashMap<Digest, usize> = HashMap::new();
    while let Some((tag, manifest)) = reading.next().await {
        match manifest {
            // Somebody else was faster.
            Ok(None) => {}
            Ok(Some(manifest)) => {
                let place = *places.entry(manifest.digest).or_insert(found.len());
                match found.get_mut(place) {
                    Some(tagged) => tagged.tags.push(tag),
                    None => found.push(Tagged { manifest, tags: vec![tag] }),
                }
            }
            Err(error) if is_broken(&error) => unreadable.push(format!("{tag} stays: {error}")),
            Err(error) => return Err(error),
        }
    }
    Ok((found, unreadable))
}

/// Whether an error says something of the content, and not of the way to it.
fn is_broken(error: &Error) -> bool {
    matches!(
        error,
        Error::Manifest { .. } | Error::Mismatch { .. } | Error::Unsupported { .. } | Error::NotFound { .. }
    )
}

/// The layers of an image, each with its size.
fn layers(manifest: &Manifest) -> Result<Vec<(Digest, u64)>> {
    let image = manifest.image()?;
    image.layers().iter().map(|layer| Ok((digest_of(layer)?, layer.size()))).collect()
}

/// How many seconds ago something was.
fn since(created: i64, now: i64) -> u64 {
    u64::try_from(now.saturating_sub(created)).unwrap_or(0)
}

#[cfg(test)]
mod tests;
