//! Images under tags of a pattern: those that are too old.

use std::cmp::Reverse;
use std::collections::HashSet;
use std::time::Duration;

use futures_util::stream::{self, StreamExt, TryStreamExt};
use serde::Deserialize;
use yadokari_registry::media::ManifestKind;
use yadokari_registry::{Digest, Manifest, Result, Store, Version, digest_of, read_small};

use super::{AT_ONCE, Item, Sweep, Tagged, is_broken, layers, since, tagged};
use crate::context::glob::Glob;
use crate::image::since_epoch;
use crate::progress::age;

/// Which images go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImagePolicy {
    /// Those whose tags are all like one of these.
    pub tags: Vec<Glob>,
    /// And which are older.
    pub older_than: Duration,
    /// But not the newest ones, as many as this.
    pub keep: usize,
}

/// The largest config that is read.
const MAX_CONFIG: u64 = 8 << 20;

/// What tools write that keep no time: 1970, and 1980 where zip files were meant to hold it, too. Nothing that is as old
/// was ever an image.
const NO_TIME: i64 = 315_532_801;

/// An image that a pattern names.
struct Candidate {
    place: usize,
    created: Option<i64>,
}

/// Looks at a repository of images. The digest that a tag of another pattern has, too, stays, and so does what an index
/// that stays is made of.
pub async fn images(store: &dyn Store, policy: &ImagePolicy, now: i64) -> Result<Sweep> {
    let (found, mut remarks) = tagged(store).await?;
    let is_meant = |tag: &String| policy.tags.iter().any(|pattern| pattern.matches(tag));
    let named = (0..found.len()).filter(|place| found[*place].tags.iter().any(is_meant));
    let look = |place: usize| {
        let manifest = &found[place].manifest;
        async move { Result::Ok(Candidate { place, created: created(store, manifest).await? }) }
    };
    let mut candidates: Vec<Candidate> = stream::iter(named).map(look).buffered(AT_ONCE).try_collect().await?;
    candidates.sort_by_key(|candidate| (Reverse(candidate.created), candidate.place));
    let mut goes = Vec::new();
    let mut newer = 0;
    for Candidate { place, created } in candidates {
        let tags = &found[place].tags;
        let stays = |why: &str| format!("{} stays: {why}", tags.join(" "));
        let Some(created) = created else {
            remarks.push(stays("it does not say when it was made"));
            continue;
        };
        newer += 1;
        let age = since(created, now);
        if newer <= policy.keep || age <= policy.older_than.as_secs() {
            continue;
        }
        match tags.iter().find(|tag| !is_meant(tag)) {
            Some(tag) => remarks.push(stays(&format!("{tag} is the same image"))),
            None => goes.push((place, age)),
        }
    }
    // The oldest first.
    goes.sort_by_key(|&(place, age)| (Reverse(age), place));
    spare_parts(&found, &mut goes, &mut remarks);
    let why = format!("older than {}", age(policy.older_than.as_secs()));
    let item = |(place, age): (usize, u64)| {
        let Tagged { manifest, tags } = &found[place];
        let kind = if manifest.kind() == Some(ManifestKind::Index) { "index" } else { "image" };
        let size = layers(manifest).ok().map(|layers| layers.iter().map(|(_, size)| size).sum());
        Item { digest: manifest.digest, kind: kind.into(), tags: tags.clone(), age, size, why: why.clone() }
    };
    let stay = found.len() - goes.len();
    let goes = goes.into_iter().map(item).collect();
    Ok(Sweep { store: store.describe(), noun: "image", goes, stay, size: None, remarks })
}

/// Takes out of what goes what an index that stays names.
fn spare_parts(found: &[Tagged], goes: &mut Vec<(usize, u64)>, remarks: &mut Vec<String>) {
    loop {
        let going: HashSet<usize> = goes.iter().map(|(place, _)| *place).collect();
        let stay = found.iter().enumerate().filter(|(place, _)| !going.contains(place));
        let parts: Vec<(Digest, &str)> = stay
            .flat_map(|(_, tagged)| parts(&tagged.manifest).into_iter().map(|digest| (digest, tagged.tags[0].as_str())))
            .collect();
        let whole = |place: usize| parts.iter().find(|(part, _)| *part == found[place].manifest.digest);
        let before = goes.len();
        goes.retain(|&(place, _)| match whole(place) {
            None => true,
            Some((_, index)) => {
                remarks.push(format!("{} stays: it is a part of {index}", found[place].tags.join(" ")));
                false
            }
        });
        // A part may be an index itself.
        if goes.len() == before {
            return;
        }
    }
}

/// The manifests that an index names.
fn parts(manifest: &Manifest) -> Vec<Digest> {
    if manifest.kind() != Some(ManifestKind::Index) {
        return Vec::new();
    }
    let index = manifest.index();
    index.iter().flat_map(|index| index.manifests()).filter_map(|part| digest_of(part).ok()).collect()
}

/// When an image was made, or the first one of an index; `None` where it does not say so, or cannot be read.
async fn created(store: &dyn Store, manifest: &Manifest) -> Result<Option<i64>> {
    match look_for_time(store, manifest).await {
        Err(error) if is_broken(&error) => Ok(None),
        other => other,
    }
}

async fn look_for_time(store: &dyn Store, manifest: &Manifest) -> Result<Option<i64>> {
    #[derive(Deserialize)]
    struct Config {
        created: Option<String>,
    }
    let first;
    let manifest = match (manifest.kind(), parts(manifest).first()) {
        (Some(ManifestKind::Index), Some(part)) => match store.read_manifest(&Version::Digest(*part)).await? {
            Some(part) => {
                first = part;
                &first
            }
            None => return Ok(None),
        },
        _ => manifest,
    };
    if manifest.kind() != Some(ManifestKind::Image) {
        return Ok(None);
    }
    let image = manifest.image()?;
    let config = image.config();
    if config.size() > MAX_CONFIG {
        return Ok(None);
    }
    let bytes = read_small(store, &digest_of(config)?, Some(config.size()), MAX_CONFIG).await?;
    let config: Option<Config> = serde_json::from_slice(&bytes).ok();
    let created = config.and_then(|config| config.created).and_then(|text| since_epoch(&text));
    Ok(created.filter(|created| *created > NO_TIME))
}
