//! A repository of records that has been opened.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use yadokari_layers::Digest;
use yadokari_registry::{Client, Error, Layout, Store, Version};

use super::record::Record;
use super::settings::Place;

/// The longest part of a scope's own name that its tags begin with. With the name of an index behind it a tag stays below
/// the 128 characters that a registry takes.
const LONGEST_SCOPE: usize = 40;

/// A repository that answers, or one that failed to and is not asked again.
pub(super) struct OpenPlace {
    pub(super) store: Arc<dyn Store>,
    /// The registry and repository, when that is what the store is.
    pub(super) repository: Option<(String, String)>,
    failed: AtomicBool,
    silent: AtomicBool,
}

/// How long a question may take with all its tries. A cache that is slower saves nothing.
const PATIENCE: Duration = Duration::from_secs(30);

/// What came of a question.
pub(super) enum Answer {
    Found(Record),
    /// There is no such record.
    Nothing,
    /// There is one, which must not be used.
    Unusable(String),
    /// The place does not answer. Said once for each place.
    Failed(String),
}

impl OpenPlace {
    /// Opens a place; a directory that is missing is made where it is to be written to.
    pub(super) fn open(place: &Place, write: bool, client: &Client) -> Result<Self, Error> {
        let (store, repository): (Arc<dyn Store>, _) = match place {
            Place::Registry(reference) => {
                let store = client.repository(reference);
                let repository = (store.registry().to_owned(), store.repository().to_owned());
                (Arc::new(store), Some(repository))
            }
            Place::Layout(directory) if write => (Arc::new(Layout::create(directory)?), None),
            Place::Layout(directory) => (Arc::new(Layout::open(directory)?), None),
        };
        let (failed, silent) = Default::default();
        Ok(Self { store, repository, failed, silent })
    }

    /// Whether it gave no answer at all.
    pub(super) fn is_silent(&self) -> bool {
        self.silent.load(Ordering::Relaxed)
    }

    /// Asks for the record of `name` in a scope.
    pub(super) async fn read(&self, scope: Option<&str>, name: &str, key: Option<&[u8]>) -> Answer {
        if self.failed.load(Ordering::Relaxed) {
            return Answer::Nothing;
        }
        let tag = tag(scope, name);
        let version = Version::Tag(tag);
        let Ok(read) = tokio::time::timeout(PATIENCE, self.store.read_manifest(&version)).await else {
            self.silent.store(true, Ordering::Relaxed);
            let reason = format!("{} did not answer within {} s", self.store.describe(), PATIENCE.as_secs());
            return self.fail(reason);
        };
        match read {
            Ok(None) => Answer::Nothing,
            Ok(Some(manifest)) => match Record::decode(&manifest, name, key) {
                Ok(record) => Answer::Found(record),
                Err(reason) => Answer::Unusable(reason),
            },
            Err(error @ (Error::Mismatch { .. } | Error::Manifest { .. })) => Answer::Unusable(error.to_string()),
            Err(error) => {
                if matches!(error, Error::Unreachable { .. }) {
                    self.silent.store(true, Ordering::Relaxed);
                }
                self.fail(error.to_string())
            }
        }
    }

    fn fail(&self, reason: String) -> Answer {
        if self.failed.swap(true, Ordering::Relaxed) { Answer::Nothing } else { Answer::Failed(reason) }
    }
}

/// The tag of a record. A scope's records begin with what is legal of its name, and a hash that tells it from others of
/// which as much is.
pub(super) fn tag(scope: Option<&str>, name: &str) -> String {
    let Some(scope) = scope else { return name.to_owned() };
    let legal = |c: char| if c.is_ascii_alphanumeric() || matches!(c, '_' | '-') { c } else { '_' };
    let readable: String = scope.chars().map(legal).take(LONGEST_SCOPE).collect();
    let readable = readable.strip_prefix('-').map_or(readable.clone(), |rest| format!("_{rest}"));
    format!("{readable}-{}.{name}", &Digest::of(scope).hex()[..8])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tags_of_scopes_are_legal_and_tell_them_apart() {
        let scopes = ["main", "feature/x", "feature_x", "-x", "größe", &"long".repeat(40), &"long".repeat(41), ""];
        let name = format!("index-{}", Digest::of("x").hex());
        let tags: Vec<String> = scopes.iter().map(|scope| tag(Some(scope), &name)).collect();
        for (number, tag) in tags.iter().enumerate() {
            let legal = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.');
            assert!(tag.len() <= 128 && tag.chars().all(legal), "{tag}");
            assert!(tag.starts_with(|c: char| c.is_ascii_alphanumeric() || c == '_') || scopes[number].is_empty());
            assert!(!tags[..number].contains(tag), "{tag}");
        }
        assert_eq!(tag(None, "abc"), "abc");
        assert!(tag(Some("main"), "abc").starts_with("main-"));
    }
}
