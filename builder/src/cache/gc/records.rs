//! Records of the cache: those that are too old, and the oldest of too many.

use std::cmp::Reverse;
use std::collections::HashMap;
use std::time::Duration;

use yadokari_registry::media::ManifestKind;
use yadokari_registry::{Digest, Manifest, Result, Store};

use super::{Item, Sweep, Tagged, layers, since, tagged};
use crate::cache::annotations::{CREATED, KIND, KINDS, VERSION, VERSION_1};
use crate::image::since_epoch;
use crate::progress::{age, bytes};

/// Which records stay.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RecordPolicy {
    /// An older one goes.
    pub ttl: Duration,
    /// Of the others the oldest go, until the layers of what stays have no more bytes than this together.
    pub max_size: Option<u64>,
}

struct Record {
    digest: Digest,
    kind: &'static str,
    tags: Vec<String>,
    age: u64,
    layers: Vec<(Digest, u64)>,
}

impl Record {
    /// `None` for what is no record, or one of another version.
    fn of(manifest: &Manifest, tags: &[String], now: i64) -> Option<Self> {
        if manifest.kind() != Some(ManifestKind::Image) {
            return None;
        }
        let image = manifest.image().ok()?;
        let annotations = image.annotations().as_ref()?;
        if annotations.get(VERSION)? != VERSION_1 {
            return None;
        }
        let kind = annotations.get(KIND)?;
        let kind = KINDS.into_iter().find(|known| known == kind)?;
        let created = since_epoch(annotations.get(CREATED)?)?;
        let layers = layers(manifest).ok()?;
        Some(Self { digest: manifest.digest, kind, tags: tags.to_vec(), age: since(created, now), layers })
    }

    fn goes(self, why: String) -> Item {
        let Self { digest, kind, tags, age, layers } = self;
        Item { digest, kind: kind.into(), tags, age, size: Some(layers.iter().map(|(_, size)| size).sum()), why }
    }
}

/// Looks at a cache repository. What is there and is no record is left alone, and counted.
pub async fn records(store: &dyn Store, policy: &RecordPolicy, now: i64) -> Result<Sweep> {
    let (found, mut remarks) = tagged(store).await?;
    let (mut records, mut others) = (Vec::new(), 0);
    for Tagged { manifest, tags } in &found {
        match Record::of(manifest, tags, now) {
            Some(record) => records.push(record),
            None => others += 1,
        }
    }
    records.sort_by_key(|record| (Reverse(record.age), record.digest));
    let ttl = policy.ttl.as_secs();
    let (old, mut stay): (Vec<Record>, Vec<Record>) = records.into_iter().partition(|record| record.age > ttl);
    let mut goes: Vec<Item> = old.into_iter().map(|record| record.goes(format!("older than {}", age(ttl)))).collect();
    let mut kept = Kept::of(&stay);
    if let Some(most) = policy.max_size {
        let too_many = stay.iter().take_while(|record| kept.shrink(record, most)).count();
        let why = format!("the oldest of more than {}", bytes(most));
        goes.extend(stay.drain(..too_many).map(|record| record.goes(why.clone())));
    }
    match others {
        0 => {}
        1 => remarks.push("1 manifest is no record and is left alone".into()),
        _ => remarks.push(format!("{others} manifests are no records and are left alone")),
    }
    Ok(Sweep { store: store.describe(), noun: "record", goes, stay: stay.len(), size: Some(kept.size), remarks })
}

/// The layers of several records, each counted once however many of them name it.
struct Kept {
    /// The size, and how many records have it.
    layers: HashMap<Digest, (u64, usize)>,
    size: u64,
}

impl Kept {
    fn of(records: &[Record]) -> Self {
        let mut kept = Self { layers: HashMap::new(), size: 0 };
        for (digest, size) in records.iter().flat_map(|record| &record.layers) {
            let (_, uses) = kept.layers.entry(*digest).or_insert_with(|| {
                kept.size = kept.size.saturating_add(*size);
                (*size, 0)
            });
            *uses += 1;
        }
        kept
    }

    /// Takes a record out if there are more than `most` bytes; whether it did.
    fn shrink(&mut self, record: &Record, most: u64) -> bool {
        if self.size <= most {
            return false;
        }
        for (digest, _) in &record.layers {
            if let Some((size, uses)) = self.layers.get_mut(digest) {
                *uses -= 1;
                if *uses == 0 {
                    self.size = self.size.saturating_sub(*size);
                }
            }
        }
        true
    }
}
