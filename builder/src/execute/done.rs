//! What steps made, by their keys.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use yadokari_layers::{Key, Layer};

/// The layers of the steps that were executed, or `None` for a step that changed nothing.
///
/// A key says all that a result depends on, so a step that several platforms have in common, such as one of a stage for
/// `$BUILDPLATFORM`, is executed once.
#[derive(Debug, Default)]
pub struct Done(Mutex<HashMap<Key, Option<Layer>>>);

impl Done {
    /// What the step of that key made; `None` where it was not executed yet.
    pub(super) fn find(&self, key: &Key) -> Option<Option<Layer>> {
        self.lock().get(key).cloned()
    }

    /// Remembers what a step made.
    pub(super) fn remember(&self, key: Key, layer: Option<&Layer>) {
        self.lock().insert(key, layer.cloned());
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<Key, Option<Layer>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
