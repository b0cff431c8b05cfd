//! Where a repository is served: host, path, and which of HTTPS and plain HTTP.

use reqwest::Url;

use super::reach::may_lead;
use crate::reference::{DOCKER_HUB, check_host, is_hub};
use crate::{Error, Result};

/// The host that serves Docker Hub's API.
pub(crate) const HUB_HOST: &str = "registry-1.docker.io";

/// A repository at the host that serves it, which may be a mirror of the one in the reference.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Endpoint {
    /// The registry's name, for logins and messages.
    pub(crate) registry: String,
    /// The repository's path at that registry.
    pub(crate) repository: String,
}

impl Endpoint {
    /// The host and port to connect to.
    pub(crate) fn host(&self) -> &str {
        if self.registry == DOCKER_HUB { HUB_HOST } else { &self.registry }
    }

    /// Registry and repository.
    pub(crate) fn name(&self) -> String {
        format!("{}/{}", self.registry, self.repository)
    }
}

/// `host[:port][/path]` of a mirror or map, split and checked.
pub(crate) fn source(what: &str, text: &str) -> Result<(String, String)> {
    let fail = |reason: &str| Error::Configuration { what: format!("{what} '{text}'"), reason: reason.into() };
    let rest = text.strip_prefix("https://").or_else(|| text.strip_prefix("http://")).unwrap_or(text);
    let (host, path) = rest.split_once('/').unwrap_or((rest, ""));
    let host = host.to_ascii_lowercase();
    check_host(&host).map_err(fail)?;
    Ok((if is_hub(&host) { DOCKER_HUB.into() } else { host }, path.trim_matches('/').into()))
}

/// A URL for messages: without its query, where upload sessions and storage signatures keep their secrets, and
/// without a user.
pub(crate) fn shown(url: &Url) -> String {
    format!("{}{}", url.origin().ascii_serialization(), url.path())
}

/// The host and port of a URL, for messages.
pub(crate) fn host_of(url: &Url) -> String {
    let host = url.host_str().unwrap_or_default();
    url.port().map_or_else(|| host.to_owned(), |port| format!("{host}:{port}"))
}

/// Resolves a `Location` header against the URL that answered with it, query and all.
///
/// A step down from HTTPS to plain HTTP is refused, and so is one from a public host into this machine or link.
pub(crate) fn next_location(base: &Url, location: &str) -> Result<Url, String> {
    let next = target(base, location)?;
    match (base.scheme(), next.scheme()) {
        (_, "https") | ("http", "http") => {}
        ("https", "http") => {
            let hint = "is the registry told its public address, behind its proxy?";
            return Err(format!("its Location leads from HTTPS to plain {} ({hint})", shown(&next)));
        }
        (_, scheme) => return Err(format!("its Location has the scheme {scheme}")),
    }
    stay_outside(base, next)
}

/// The same for what anybody may read: a step down to plain HTTP is taken there, as browsers and Go's client do.
pub(crate) fn next_page(base: &Url, location: &str) -> Result<Url, String> {
    let next = target(base, location)?;
    match next.scheme() {
        "http" | "https" => stay_outside(base, next),
        scheme => Err(format!("its Location has the scheme {scheme}")),
    }
}

/// A `Location` as a URL. The text may hold a signature, so the error does not quote it.
fn target(base: &Url, location: &str) -> Result<Url, String> {
    base.join(location).map_err(|error| format!("its Location is no URL: {error}"))
}

fn stay_outside(base: &Url, next: Url) -> Result<Url, String> {
    may_lead(base, &next).map_err(|place| format!("its Location leads to {place}"))?;
    Ok(next)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn locations_resolve_and_never_lead_down_or_inside() {
        let next =
            |base: &str, location: &str| next_location(&base.parse().unwrap(), location).map(|url| url.to_string());
        let base = "https://registry.example/v2/app/blobs/uploads/";
        let table = [
            ("/v2/app/blobs/uploads/1?_state=a%2Bb", "https://registry.example/v2/app/blobs/uploads/1?_state=a%2Bb"),
            ("2", "https://registry.example/v2/app/blobs/uploads/2"),
            ("https://storage.example/x?sig=1", "https://storage.example/x?sig=1"),
            ("//storage.example/x", "https://storage.example/x"),
        ];
        for (location, expected) in table {
            assert_eq!(next(base, location).as_deref(), Ok(expected));
        }
        for location in [
            "http://registry.example/x",
            "ftp://x/",
            "https://169.254.169.254/latest",
            "https://localhost/x",
            "https://[::ffff:127.0.0.1]/",
            "https://0.0.0.0/",
            "https://metadata.google.internal/",
            "file:///etc/passwd",
            "unix:/run/x",
            "data:,x",
        ] {
            assert!(next(base, location).is_err(), "{location}");
        }
        assert!(next("http://localhost:5000/v2/", "http://127.0.0.1:9000/x").is_ok());
        assert!(next("http://localhost:5000/v2/", "http://169.254.169.254/latest").is_err());
        assert!(next("http://registry.lan/v2/", "https://registry.lan/v2/").is_ok());
        assert!(!next(base, "https://[storage/x?sig=secret").unwrap_err().contains("secret"));
        let page = |location: &str| next_page(&base.parse().unwrap(), location);
        assert!(page("http://mirror.example/x").is_ok());
        assert!(page("ftp://x/").is_err() && page("http://169.254.169.254/latest").is_err());
    }

    #[test]
    fn sources_split_into_host_and_path() {
        let table = [
            ("mirror.example", ("mirror.example", "")),
            ("https://Mirror.Example:5000/proxy/hub/", ("mirror.example:5000", "proxy/hub")),
            ("index.docker.io", ("docker.io", "")),
        ];
        for (text, (host, path)) in table {
            assert_eq!(source("mirror", text).unwrap(), (host.into(), path.into()));
        }
        assert_eq!(source("mirror", "a b").unwrap_err().to_string(), "mirror 'a b': the registry is not a host name");
    }

    #[test]
    fn messages_hold_no_query() {
        let url = "https://user:pw@storage.example:8443/x?sig=secret".parse().unwrap();
        assert_eq!(shown(&url), "https://storage.example:8443/x");
        assert_eq!(host_of(&url), "storage.example:8443");
    }
}
