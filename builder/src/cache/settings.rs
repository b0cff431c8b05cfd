//! What a user says of the cache.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use yadokari_registry::Reference;
use zeroize::Zeroizing;

/// Where records are, which are used, and which are written.
#[derive(Clone)]
pub struct Settings {
    /// Where records are read first, and written.
    pub place: Place,
    /// Where they are read, too, in this order.
    pub also: Vec<Place>,
    /// An older record is none.
    pub ttl: Duration,
    /// Whether records are written at all.
    pub write: bool,
    /// Whether the layers of COPY and ADD are cached.
    pub copies: bool,
    /// Whether those of RUN and WORKDIR are.
    pub runs: bool,
    /// Whose records these are.
    pub scopes: Scopes,
    /// What records are signed with. Where there is a key, a record without its signature is none.
    pub key: Option<Zeroizing<Vec<u8>>>,
}

impl fmt::Debug for Settings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { place, also, ttl, write, copies, runs, scopes, key } = self;
        let mut shown = f.debug_struct("Settings");
        shown.field("place", place).field("also", also).field("ttl", ttl).field("write", write);
        shown.field("copies", copies).field("runs", runs).field("scopes", scopes);
        shown.field("key", &key.as_ref().map(|_| "***")).finish()
    }
}

/// A repository of records.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    /// A registry's. The tag of the reference has no meaning.
    Registry(Reference),
    /// An OCI layout directory.
    Layout(PathBuf),
}

impl Place {
    /// The repository, where it is a registry's.
    pub fn reference(&self) -> Option<&Reference> {
        match self {
            Self::Registry(reference) => Some(reference),
            Self::Layout(_) => None,
        }
    }
}

/// Parts of a repository that do not see one another: what one branch writes is read by it, and by no other branch that
/// does not name it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Scopes {
    /// Where records are read first, and written; `None` for the part without a name.
    pub own: Option<String>,
    /// Another part that is read, such as the default branch's.
    pub also: Option<String>,
}
