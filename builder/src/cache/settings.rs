//! What a user says of the cache.

use std::path::PathBuf;
use std::time::Duration;

use yadokari_registry::Reference;
use zeroize::Zeroizing;

/// Where records are, which are used, and which are written.
#[derive(Debug, Clone)]
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

/// A repository of records.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    /// A registry's. The tag of the reference has no meaning.
    Registry(Reference),
    /// An OCI layout directory.
    Layout(PathBuf),
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
