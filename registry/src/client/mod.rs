//! The client: registries over HTTP, as the OCI distribution specification describes them and as they are.

mod answer;
mod auth;
mod blobs;
mod body;
mod challenge;
mod endpoint;
mod fetch;
mod hosts;
mod link;
mod login;
mod manifests;
mod names;
mod options;
mod patience;
mod reach;
mod repository;
mod retry;
mod sending;
mod tags;
mod tls;
mod transport;
mod upload;

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use reqwest::Url;

pub(crate) use self::answer::clean;
pub use self::fetch::{Download, Reply, Request};
pub use self::hosts::Hosts;
pub use self::names::{Names, Surroundings};
pub use self::options::{Bundle, ClientOptions, Listener, Notice, Proxies, RegistryTls, RetryPolicy, Timeouts};
pub use self::repository::RegistryStore;
use crate::reference::{DOCKER_HUB, Reference};
use crate::{Error, Result};

/// The way to all registries: connections, logins and tokens, shared by every repository opened through it.
///
/// There is one per process; clones are the same client.
#[derive(Clone)]
pub struct Client(Arc<ClientInner>);

pub(crate) struct ClientInner {
    pub(crate) clients: tls::Clients,
    pub(crate) options: ClientOptions,
    pub(crate) keyring: auth::Keyring,
    /// Which scheme each host with a choice answered.
    origins: Mutex<HashMap<String, Url>>,
    /// Held while a host is asked which scheme it answers.
    pub(crate) probing: tokio::sync::Mutex<()>,
    pub(crate) patience: patience::Patience,
    /// Registry, and the host and path that precede it.
    sources: Vec<(String, (String, String))>,
}

impl Client {
    /// Makes a client. All certificates are read here, before any build step can touch the file system.
    pub fn new(options: ClientOptions) -> Result<Self> {
        let mut sources = Vec::new();
        for mirror in &options.mirrors {
            sources.push((DOCKER_HUB.to_owned(), endpoint::source("mirror", mirror)?));
        }
        for (registry, replacement) in &options.maps {
            let (registry, path) = endpoint::source("registry", registry)?;
            if !path.is_empty() {
                let reason = "only whole registries can be mapped, not paths in them".into();
                return Err(Error::Configuration { what: format!("registry map for '{registry}/{path}'"), reason });
            }
            sources.push((registry, endpoint::source("registry map to", replacement)?));
        }
        let clients = tls::Clients::new(&options)?;
        let (keyring, origins, probing, patience) = Default::default();
        Ok(Self(Arc::new(ClientInner { clients, options, keyring, origins, probing, patience, sources })))
    }

    /// The repository of a reference, at its own registry: where pushes go.
    pub fn repository(&self, reference: &Reference) -> RegistryStore {
        self.at(reference.registry(), reference.repository().to_owned())
    }

    /// Where to pull a reference from, best first: mirrors and maps, then the registry itself unless
    /// [`ClientOptions::no_fallback`] or [`ClientOptions::only`] forbids that.
    pub fn pull_sources(&self, reference: &Reference) -> Vec<RegistryStore> {
        let ours = self.0.sources.iter().filter(|(registry, _)| registry == reference.registry());
        let mut sources: Vec<_> = ours
            .map(|(_, (host, path))| match path.as_str() {
                "" => self.at(host, reference.repository().to_owned()),
                path => self.at(host, format!("{path}/{}", reference.repository())),
            })
            .collect();
        let options = &self.0.options;
        if sources.is_empty() || !options.no_fallback && options.only.is_none() {
            sources.push(self.repository(reference));
        }
        sources.retain(|source| self.may_ask(source.registry()));
        sources
    }

    /// Whether a host, `host[:port]`, may be asked for anything.
    pub fn may_ask(&self, host: &str) -> bool {
        self.0.options.only.as_ref().is_none_or(|only| only.has(host))
    }

    fn at(&self, registry: &str, repository: String) -> RegistryStore {
        let endpoint = endpoint::Endpoint { registry: registry.into(), repository };
        // What is no URL is an error when it is asked.
        _ = Url::parse(&format!("https://{}/", endpoint.host())).map(|url| self.0.clients.reach().name(&url));
        RegistryStore::new(Arc::clone(&self.0), endpoint)
    }
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Client").field(&self.0.options).finish()
    }
}

impl ClientInner {
    /// Refuses a URL at a host that must not be asked.
    fn admit(&self, url: &Url, operation: &str) -> Result<()> {
        let host = url.host_str().unwrap_or_default();
        match &self.options.only {
            Some(only) if !only.has(host) => {
                Err(Error::Offline { operation: operation.into(), host: hosts::name(host).into() })
            }
            _ => Ok(()),
        }
    }

    fn known_origin(&self, host: &str) -> Option<Url> {
        self.origins.lock().unwrap_or_else(PoisonError::into_inner).get(host).cloned()
    }

    fn remember_origin(&self, host: &str, origin: &Url) {
        self.origins.lock().unwrap_or_else(PoisonError::into_inner).insert(host.into(), origin.clone());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pulls_go_to_mirrors_and_maps_before_the_registry() {
        use crate::Store as _;
        let options = ClientOptions {
            mirrors: vec!["mirror.example".into(), "harbor.example/proxy/hub".into()],
            maps: vec![("quay.io".into(), "harbor.example/quay".into())],
            ..ClientOptions::default()
        };
        let names = |options: &ClientOptions, reference: &str| -> Vec<String> {
            let client = Client::new(options.clone()).unwrap();
            client.pull_sources(&reference.parse().unwrap()).iter().map(RegistryStore::describe).collect()
        };
        assert_eq!(
            names(&options, "alpine"),
            ["mirror.example/library/alpine", "harbor.example/proxy/hub/library/alpine", "docker.io/library/alpine",]
        );
        assert_eq!(names(&options, "quay.io/a/b"), ["harbor.example/quay/a/b", "quay.io/a/b"]);
        let options = ClientOptions { no_fallback: true, ..options };
        assert_eq!(names(&options, "quay.io/a/b"), ["harbor.example/quay/a/b"]);
        assert_eq!(names(&options, "other.example/a"), ["other.example/a"]);
    }

    #[test]
    fn a_client_for_some_hosts_pulls_from_mirrors_without_a_fallback_and_from_no_other_registry() {
        use crate::Store as _;
        let mut only = Hosts::default();
        for host in ["mirror.example", "own.example:5000"] {
            only.add(host).unwrap();
        }
        let options = ClientOptions {
            mirrors: vec!["mirror.example/hub".into(), "elsewhere.example".into()],
            only: Some(only),
            ..ClientOptions::default()
        };
        let client = Client::new(options).unwrap();
        let names = |reference: &str| -> Vec<String> {
            client.pull_sources(&reference.parse().unwrap()).iter().map(RegistryStore::describe).collect()
        };
        assert_eq!(names("alpine"), ["mirror.example/hub/library/alpine"]);
        assert_eq!(names("own.example:5000/a"), ["own.example:5000/a"]);
        assert!(names("quay.io/a").is_empty());
        assert!(client.may_ask("own.example") && !client.may_ask("docker.io"));
    }
}
