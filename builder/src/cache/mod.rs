//! The cache: what steps made in earlier builds, kept where images are kept.
//!
//! A [`Cache`] is a view of one repository that is read and written, and of others that are only read. What it holds are
//! records, small manifests under tags that say what they answer to:
//!
//! | tag | says |
//! |---|---|
//! | the key of a step | the layer that the step made, or that it made none; so for layers that were merged |
//! | `index-` and a layer's digest | what a layer of a base image holds |
//! | `result-` and the key of an image's inputs | the image |
//! | `last-` and what tells one target from another | the image that was built last, for [`Outlook`]'s reasons |
//!
//! Nothing that goes wrong here fails a build: what cannot be read is a miss, what turns out to be wrong is said and made
//! anew, and what cannot be written is said at the end.

pub mod annotations;
pub mod gc;
mod outlook;
mod place;
mod read;
mod record;
mod settings;
mod write;

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use yadokari_layers::{Digest, Key, Limits};
use yadokari_registry::{Client, Store};

use crate::dockerfile::printable;
use crate::image::BlobRef;
use crate::plan::{LayerRef, Op, Step};
use crate::progress::Progress;

use place::OpenPlace;
use record::Record;

pub use outlook::{Outlook, StepOutlook, StepState, explain, matching};
pub use read::{FoundResult, StepInputs};
pub use settings::{Place, Scopes, Settings};
pub use write::{NewIndex, NewStep};

/// What earlier builds made, as far as this build has asked, and what it made itself.
pub struct Cache {
    settings: Settings,
    /// The first is the one that is written to, where it could be opened.
    places: Vec<OpenPlace>,
    /// Whether the first place is the one that is written to.
    writes: bool,
    progress: Arc<Progress>,
    /// What layers may hold, and so their indexes.
    limits: Limits,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// What was asked for, by the key of the record.
    steps: HashMap<Key, Option<Hit>>,
    /// Where the layers are that records name, and what says what they hold.
    layers: HashMap<Digest, Stored>,
    /// Blobs that turned out to be missing or wrong.
    spoiled: HashSet<Digest>,
    /// What was said not to be used.
    ignored: HashSet<String>,
    /// Whether it is not said any more what layers hold.
    distrusted: bool,
    /// Records that were used and are to be kept.
    aging: Vec<Record>,
    /// Names that this build has written.
    written: HashSet<String>,
    /// Why nothing is written any more.
    failure: Option<String>,
}

/// The most characters of a reason that are shown.
const LONGEST_REASON: usize = 300;

/// What a step made in an earlier build.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Hit {
    /// Its layer, if it changed anything.
    pub layer: Option<LayerRef>,
    /// What stands for the layer's content where later steps depend on it.
    pub content: Option<Digest>,
}

#[derive(Clone)]
struct Stored {
    place: usize,
    index: BlobRef,
}

/// A store that has a layer, for reading and for mounting from.
#[derive(Clone)]
pub struct LayerOrigin {
    /// The store.
    pub store: Arc<dyn Store>,
    /// The registry and repository, when that is what the store is.
    pub repository: Option<(String, String)>,
}

impl Cache {
    /// Opens the places. One that cannot be opened is said, and not there.
    pub fn open(settings: Settings, client: &Client, progress: Arc<Progress>) -> Self {
        let mut places = Vec::new();
        let mut writes = settings.write;
        let all =
            std::iter::once((&settings.place, settings.write)).chain(settings.also.iter().map(|place| (place, false)));
        for (number, (place, write)) in all.enumerate() {
            match OpenPlace::open(place, write, client) {
                Ok(place) => places.push(place),
                Err(error) => {
                    progress.warning(&format!("cache: {error}; the build goes on without it"));
                    writes &= number > 0;
                }
            }
        }
        Self { settings, places, writes, progress, limits: Limits::default(), state: Mutex::default() }
    }

    /// The same, with what layers may hold.
    pub fn with_limits(self, limits: Limits) -> Self {
        Self { limits, ..self }
    }

    /// Whether the layers of such steps are looked for and kept.
    pub fn covers(&self, step: &Step) -> bool {
        match step.op {
            Op::Copy(_) => self.settings.copies,
            Op::Run(_) | Op::Mkdir(_) => self.settings.runs,
        }
    }

    /// What was found for a record's key when it was asked for; `None` also where its layer turned out to be wrong.
    pub fn hit(&self, key: &Key) -> Option<Hit> {
        let state = self.lock();
        let hit = (*state.steps.get(key)?)?;
        hit.layer.is_none_or(|layer| !state.spoiled.contains(&layer.digest)).then_some(hit)
    }

    /// Where a layer is that a record names.
    pub fn origin(&self, layer: &Digest) -> Option<LayerOrigin> {
        let place = &self.places[self.lock().layers.get(layer)?.place];
        Some(LayerOrigin { store: Arc::clone(&place.store), repository: place.repository.clone() })
    }

    /// Says that a layer cannot be had, or is not what its record says. Whatever it was found for is a miss from now on.
    pub fn spoil(&self, layer: Digest, reason: &dyn std::fmt::Display) {
        if self.lock().spoiled.insert(layer) {
            self.ignored(&format!("layer {layer}"), reason);
        }
    }

    /// Says that a layer cannot be unpacked, or is not what it should be. True where the cache may have had a part in that, which
    /// it has not from now on: it named the layer, or, `with_indexes`, it said what layers hold.
    pub fn distrust(&self, layer: &Digest, with_indexes: bool, reason: &dyn std::fmt::Display) -> bool {
        let is_named = {
            let state = self.lock();
            state.layers.contains_key(layer) && !state.spoiled.contains(layer)
        };
        if is_named {
            self.spoil(*layer, reason);
        } else if with_indexes {
            self.lock().distrusted = true;
            self.ignored("what it says of the contents of layers", reason);
        }
        is_named || with_indexes
    }

    /// Says, once, that something is not used.
    fn ignored(&self, what: &str, reason: &dyn std::fmt::Display) {
        if self.lock().ignored.insert(what.to_owned()) {
            // Whoever may write to the cache may have written what it says.
            let reason: String = printable(&reason.to_string()).chars().take(LONGEST_REASON).collect();
            self.progress.warning(&format!("cache: ignored {what}: {reason}"));
        }
    }

    /// Whether only what is signed is used.
    pub fn is_signed(&self) -> bool {
        self.key().is_some()
    }

    /// The key that records are signed with.
    fn key(&self) -> Option<&[u8]> {
        self.settings.key.as_ref().map(|key| &key[..])
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
