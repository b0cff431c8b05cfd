//! Image references: `registry.example:5000/team/app:1.2@sha256:…`, and Docker's shorthand for its own Hub.

use std::fmt;
use std::str::FromStr;

use yadokari_layers::Digest;

use crate::{Error, Result};

/// The name under which Docker Hub is known in references, whatever host serves it.
pub const DOCKER_HUB: &str = "docker.io";

/// A parsed image reference: registry, repository, and a tag, a digest or both.
///
/// Parsing applies Docker's shorthand: `alpine` is `docker.io/library/alpine:latest`. The first component is a
/// registry only if it holds a dot or a colon, is `localhost`, or is an IPv6 literal in brackets.
/// Displaying gives the full form, which parses back to the same reference.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Reference {
    registry: String,
    repository: String,
    tag: Option<String>,
    digest: Option<Digest>,
}

/// Which manifest of a repository.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Version {
    /// Whatever the tag names now.
    Tag(String),
    /// The one manifest with this digest.
    Digest(Digest),
}

impl Reference {
    /// The registry's host and port; `docker.io` for Docker Hub.
    pub fn registry(&self) -> &str {
        &self.registry
    }

    /// The repository's path in the registry, `library/` included where the shorthand left it out.
    pub fn repository(&self) -> &str {
        &self.repository
    }

    /// The tag, if one was given or implied. A reference with a digest and no tag has none.
    pub fn tag(&self) -> Option<&str> {
        self.tag.as_deref()
    }

    /// The digest, if one was given.
    pub fn digest(&self) -> Option<Digest> {
        self.digest
    }

    /// What to ask the registry for: the digest where there is one, else the tag.
    pub fn version(&self) -> Version {
        match (self.digest, &self.tag) {
            (Some(digest), _) => Version::Digest(digest),
            (None, Some(tag)) => Version::Tag(tag.clone()),
            (None, None) => Version::Tag("latest".into()),
        }
    }

    /// The same tag, pinned to `digest`.
    #[must_use]
    pub fn with_digest(&self, digest: Digest) -> Self {
        Self { digest: Some(digest), ..self.clone() }
    }

    /// The same repository under another tag, with no digest.
    pub fn with_tag(&self, tag: &str) -> Result<Self> {
        if !is_tag(tag) {
            return Err(Error::Reference { text: tag.into(), reason: BAD_TAG });
        }
        Ok(Self { tag: Some(tag.into()), digest: None, ..self.clone() })
    }

    /// The repository below this one, such as `<repository>/cache`, with the same tag.
    pub fn child(&self, path: &str) -> Result<Self> {
        let repository = format!("{}/{path}", self.repository);
        match check_repository(&repository) {
            Ok(()) => Ok(Self { repository, ..self.clone() }),
            Err(reason) => Err(Error::Reference { text: repository, reason }),
        }
    }

    /// Registry and repository, without tag and digest.
    pub fn name(&self) -> String {
        format!("{}/{}", self.registry, self.repository)
    }
}

const BAD_TAG: &str = "a tag is 1 to 128 letters, digits, '_', '.' or '-', and starts with none of the last two";

impl FromStr for Reference {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let fail = |reason| Error::Reference { text: text.chars().take(300).collect(), reason };
        let (rest, digest) = match text.split_once('@') {
            Some((rest, digest)) => {
                let digest = digest.parse().map_err(|_| fail("the digest is not sha256 and 64 hexadecimal digits"))?;
                (rest, Some(digest))
            }
            None => (text, None),
        };
        // A colon after the last slash starts the tag; one before it belongs to the registry's port.
        let (name, tag) = match rest.rsplit_once(':') {
            Some((name, tag)) if !tag.contains('/') && !tag.contains(']') => (name, Some(tag)),
            _ => (rest, None),
        };
        if let Some(tag) = tag
            && !is_tag(tag)
        {
            return Err(fail(BAD_TAG));
        }
        let (registry, path) = match name.split_once('/') {
            Some((host, path)) if names_a_registry(host) => (host.to_ascii_lowercase(), path),
            _ => (DOCKER_HUB.into(), name),
        };
        check_host(&registry).map_err(fail)?;
        let registry = if is_hub(&registry) { DOCKER_HUB.into() } else { registry };
        check_repository(path).map_err(fail)?;
        let repository =
            if registry == DOCKER_HUB && !path.contains('/') { format!("library/{path}") } else { path.into() };
        if registry.len() + 1 + repository.len() > 255 {
            return Err(fail("registry and repository are longer than 255 characters"));
        }
        let tag = match (tag, digest) {
            (None, None) => Some("latest".into()),
            (tag, _) => tag.map(str::to_owned),
        };
        Ok(Self { registry, repository, tag, digest })
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.registry, self.repository)?;
        if let Some(tag) = &self.tag {
            write!(f, ":{tag}")?;
        }
        self.digest.iter().try_for_each(|digest| write!(f, "@{digest}"))
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tag(tag) => f.write_str(tag),
            Self::Digest(digest) => digest.fmt(f),
        }
    }
}

/// Whether a host is one of Docker Hub's names.
pub(crate) fn is_hub(host: &str) -> bool {
    matches!(host, "docker.io" | "index.docker.io" | "registry-1.docker.io" | "registry.hub.docker.com")
}

fn names_a_registry(component: &str) -> bool {
    component.contains(['.', ':', '[']) || component == "localhost"
}

/// Checks a lower-case `host[:port]`, where the host may be an IPv6 literal in brackets.
pub(crate) fn check_host(host: &str) -> Result<(), &'static str> {
    let (name, port) = match host.strip_prefix('[') {
        Some(rest) => {
            let (address, port) = rest.split_once(']').ok_or("the registry's IPv6 address lacks its ']'")?;
            address.parse::<std::net::Ipv6Addr>().map_err(|_| "the registry is not an IPv6 address")?;
            (None, port.strip_prefix(':').or(if port.is_empty() { None } else { Some("") }))
        }
        None => match host.split_once(':') {
            Some((name, port)) => (Some(name), Some(port)),
            None => (Some(host), None),
        },
    };
    if port.is_some_and(|port| !port.bytes().all(|b| b.is_ascii_digit()) || port.parse::<u16>().is_err()) {
        return Err("the registry's port is not a number below 65536");
    }
    // Underscores are no host name's, but Docker networks and Compose use them, and so do CI services.
    let label = |label: &str| {
        let inner = |b: u8| b.is_ascii_alphanumeric() || b == b'-' || b == b'_';
        !label.is_empty() && label.bytes().all(inner) && !label.starts_with('-') && !label.ends_with('-')
    };
    if name.is_some_and(|name| !name.split('.').all(label)) {
        return Err("the registry is not a host name");
    }
    Ok(())
}

/// The distribution specification's path components: lower-case alphanumerics, separated by one `.`, one or two `_`,
/// or any number of `-`.
fn check_repository(path: &str) -> Result<(), &'static str> {
    if path.is_empty() {
        return Err("the repository is empty");
    }
    if path.bytes().any(|b| b.is_ascii_uppercase()) {
        return Err("a repository is in lower case");
    }
    let alphanumeric = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    let component = |component: &str| {
        let mut separators = component.split(|c: char| alphanumeric(c as u8) && c.is_ascii());
        let edge = |b: Option<&u8>| b.is_some_and(|&b| alphanumeric(b));
        let bytes = component.as_bytes();
        edge(bytes.first())
            && edge(bytes.last())
            && separators.all(|s| matches!(s, "" | "." | "_" | "__") || s.bytes().all(|b| b == b'-'))
    };
    if path.split('/').all(component) {
        Ok(())
    } else {
        Err("a repository's components are letters and digits, separated by '.', '_', '__' or '-'")
    }
}

pub(crate) fn is_tag(tag: &str) -> bool {
    let word = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
    let (first, rest) = match tag.as_bytes() {
        [first, rest @ ..] => (*first, rest),
        [] => return false,
    };
    tag.len() <= 128 && word(first) && rest.iter().all(|&b| word(b) || b == b'.' || b == b'-')
}

#[cfg(test)]
mod tests {
    use super::*;

    const D: &str = "sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";

    #[test]
    fn references_parse_to_their_full_form_and_back() {
        let table = [
            ("alpine", "docker.io/library/alpine:latest"),
            ("alpine:3.20", "docker.io/library/alpine:3.20"),
            ("team/app", "docker.io/team/app:latest"),
            ("docker.io/alpine", "docker.io/library/alpine:latest"),
            ("index.docker.io/team/app:1", "docker.io/team/app:1"),
            ("registry-1.docker.io/library/alpine", "docker.io/library/alpine:latest"),
            ("localhost/app", "localhost/app:latest"),
            ("localhost:5000/x", "localhost:5000/x:latest"),
            ("localhost:5000/x:y", "localhost:5000/x:y"),
            ("[::1]:5000/x", "[::1]:5000/x:latest"),
            ("[::1]/x:t", "[::1]/x:t"),
            ("127.0.0.1:5000/a/b/c:V_1.2-x", "127.0.0.1:5000/a/b/c:V_1.2-x"),
            ("Registry.Example/app", "registry.example/app:latest"),
            ("registry.example/a__b/c--d/e.f_g:1", "registry.example/a__b/c--d/e.f_g:1"),
            ("my_registry:5000/app", "my_registry:5000/app:latest"),
        ];
        for (text, full) in table {
            let reference: Reference = text.parse().unwrap();
            assert_eq!(reference.to_string(), full, "{text}");
            assert_eq!(full.parse::<Reference>().unwrap(), reference, "{text}");
        }
        for (text, tag) in [(format!("alpine@{D}"), None), (format!("localhost:5000/a:1@{D}"), Some("1"))] {
            let reference: Reference = text.parse().unwrap();
            assert_eq!(reference.tag(), tag);
            assert_eq!(reference.version(), Version::Digest(D.parse().unwrap()));
            assert_eq!(reference.to_string().parse::<Reference>().unwrap(), reference);
        }
    }

    #[test]
    fn malformed_references_are_refused_with_their_reason() {
        let table = [
            ("", "the repository is empty"),
            ("registry.example/", "the repository is empty"),
            ("Alpine", "a repository is in lower case"),
            ("UPPER/foo", "a repository is in lower case"),
            ("registry.example/App", "a repository is in lower case"),
            ("a//b", "a repository's components"),
            ("a/../b", "a repository's components"),
            ("-a", "a repository's components"),
            ("a.-b", "a repository's components"),
            ("a___b", "a repository's components"),
            ("b\u{e9}b\u{e9}", "a repository's components"),
            ("a:", "a tag is"),
            ("a:-x", "a tag is"),
            ("a:b c", "a tag is"),
            ("a@sha256:12", "the digest"),
            ("localhost:99999/x", "the registry's port"),
            ("localhost:+1/x", "the registry's port"),
            ("[::1/x", "the registry's IPv6 address"),
            ("[zz]/x", "the registry is not an IPv6"),
            ("[::1]5/x", "the registry's port"),
            ("a..b/x", "the registry is not a host name"),
            ("https://registry.example/x", "the registry's port"),
        ];
        for (text, reason) in table {
            let error = text.parse::<Reference>().expect_err(text).to_string();
            assert!(error.contains(&format!(": {reason}")), "{text}: {error}");
        }
    }

    #[test]
    fn tags_and_digests_replace_each_other() {
        let reference: Reference = "registry.example/app:1".parse().unwrap();
        assert_eq!(reference.with_digest(D.parse().unwrap()).to_string(), format!("registry.example/app:1@{D}"));
        assert_eq!(
            reference.with_digest(D.parse().unwrap()).with_tag("2").unwrap().to_string(),
            "registry.example/app:2"
        );
        assert_eq!(reference.child("cache").unwrap().name(), "registry.example/app/cache");
        assert!(reference.with_tag("a b").is_err() && reference.child("../x").is_err());
    }
}
