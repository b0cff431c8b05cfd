//! Which registry, or which part of one, something is for.

use std::fmt;

use crate::reference::{DOCKER_HUB, is_hub};

/// A registry's host, and a path in it that a repository must be below; empty for all.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Scope {
    pub(super) host: String,
    pub(super) path: String,
}

impl Scope {
    /// Reads `host[:port][/path]`, or a URL of these.
    pub(super) fn of(key: &str) -> Self {
        let key = key.strip_prefix("https://").or_else(|| key.strip_prefix("http://")).unwrap_or(key);
        let (host, path) = key.split_once('/').unwrap_or((key, ""));
        let host = host.to_ascii_lowercase();
        let host = host.strip_suffix(":443").unwrap_or(&host);
        let path = path.trim_matches('/');
        // The version in `https://index.docker.io/v1/` is the API's, not a repository's.
        let path = if matches!(path, "v1" | "v2") { "" } else { path };
        Self { host: if is_hub(host) { DOCKER_HUB.into() } else { host.into() }, path: path.into() }
    }

    pub(super) fn holds(&self, host: &str, repository: &str) -> bool {
        let below = |rest: &str| rest.is_empty() || rest.starts_with('/');
        self.host == host && (self.path.is_empty() || repository.strip_prefix(&self.path).is_some_and(below))
    }
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let separator = if self.path.is_empty() { "" } else { "/" };
        write!(f, "{}{separator}{}", self.host, self.path)
    }
}
