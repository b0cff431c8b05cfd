//! The client: registries over HTTP, as the OCI distribution specification describes them and as they are.

mod answer;
mod auth;
mod blobs;
mod body;
mod challenge;
mod endpoint;
mod fetch;
mod link;
mod login;
mod manifests;
mod options;
mod patience;
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

pub use self::fetch::{Download, Reply, Request};
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
    /// [`ClientOptions::no_fallback`] forbids that.
    pub fn pull_sources(&self, reference: &Reference) -> Vec<RegistryStore> {
        let ours = self.0.sources.iter().filter(|(registry, _)| registry == reference.registry());
        let mut sources: Vec<_> = ours
            .map(|(_, (host, path))| match path.as_str() {
                "" => self.at(host, reference.repository().to_owned()),
                path => self.at(host, format!("{path}/{}", reference.repository())),
            })
            .collect();
        if sources.is_empty() || !self.0.options.no_fallback {
            sources.push(self.repository(reference));
        }
        sources
    }

    fn at(&self, registry: &str, repository: String) -> RegistryStore {
        RegistryStore::new(Arc::clone(&self.0), endpoint::Endpoint { registry: registry.into(), repository })
    }
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Client").field(&self.0.options).finish()
    }
}

impl ClientInner {
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
}
