//! Flags about registries, and the client that they make.

use std::path::PathBuf;
use std::sync::Arc;

use clap::{ArgAction, Args};
use yadokari_registry::{Client, ClientOptions};

use super::args::{Pairs, pair, truth};
use super::credentials::{CredentialFlags, Logins};
use super::kaniko::{http1, user_agent};
use super::offline::OfflineFlags;
use super::retry::RetryFlags;
use super::tls::{self, TlsFlags};
use crate::Error;
use crate::progress::Progress;
use crate::sandbox::Gate;

/// How registries are spoken to.
#[derive(Debug, Args)]
pub(super) struct RegistryFlags {
    /// Pull docker.io's images from this registry first. Repeatable.
    #[arg(long, value_name = "HOST[/PATH]", env = "KANIKO_REGISTRY_MIRROR")]
    pub(super) registry_mirror: Vec<String>,
    /// Pull a registry's images from another first. Repeatable, or separated by `;`.
    #[arg(long, value_name = "REGISTRY=HOST[/PATH]", env = "KANIKO_REGISTRY_MAP")]
    pub(super) registry_map: Vec<String>,
    /// Speak plain HTTP to this registry. Repeatable. Registries on loopback need no flag.
    #[arg(long, value_name = "HOST[:PORT]")]
    pub(super) insecure_registry: Vec<String>,
    /// Speak plain HTTP to every registry.
    #[arg(long, action = ArgAction::Set, num_args = 0..=1, default_missing_value = "true", default_value = "false", value_parser = truth)]
    pub(super) insecure: bool,
    /// The same as --insecure: pulls and pushes share one client.
    #[arg(long, action = ArgAction::Set, num_args = 0..=1, default_missing_value = "true", default_value = "false", value_parser = truth)]
    pub(super) insecure_pull: bool,
    /// Pull from the mirrors of a registry only, where it has any.
    #[arg(long, action = ArgAction::Set, num_args = 0..=1, default_missing_value = "true", default_value = "false", value_parser = truth)]
    pub(super) skip_default_registry_fallback: bool,
    #[command(flatten)]
    pub(super) offline: OfflineFlags,
    #[command(flatten)]
    pub(super) retry: RetryFlags,
    #[command(flatten)]
    pub(super) tls: TlsFlags,
    #[command(flatten)]
    pub(super) credentials: CredentialFlags,
}

/// The client of all registries, and what it must keep for itself.
pub(super) struct Session {
    pub(super) client: Client,
    /// The files to hide while an in-place RUN runs.
    pub(super) hide: Vec<PathBuf>,
}

impl RegistryFlags {
    /// Looks for logins, and makes the client. `pushed` are the registries that are pushed to, `named` others that the
    /// command line names.
    pub(super) fn session(
        &self,
        pushed: &[String],
        named: &[&str],
        progress: &Arc<Progress>,
        gate: &Gate,
    ) -> Result<Session, Error> {
        let maps = self.maps()?;
        let mirrors = self.registry_mirror.iter().chain(maps.iter().map(|(_, to)| to));
        let ours = mirrors.chain(pushed).map(|text| &text[..]).chain(named.iter().copied());
        let only = self.offline.hosts(ours)?;
        let Logins { credentials, mut hide } = self.credentials.load(progress, gate)?;
        let mut options = ClientOptions {
            insecure: self.insecure || self.insecure_pull,
            insecure_registries: self.insecure_registry.clone(),
            mirrors: self.registry_mirror.iter().filter(|mirror| !mirror.is_empty()).cloned().collect(),
            maps,
            no_fallback: self.skip_default_registry_fallback,
            only,
            retry: self.retry.policy(),
            timeouts: self.retry.timeouts(),
            authorities: tls::authorities(progress),
            // What the flags say is said later, and wins.
            tls: tls::registries(&mut hide)?,
            credentials,
            listener: self.credentials.listener(progress),
            user_agent: user_agent(std::env::var("UPSTREAM_CLIENT_TYPE").ok()),
            http1: http1(&|name| std::env::var(name).ok()),
            proxies: yadokari_registry::Proxies::from_variables(|name| std::env::var(name).ok()),
            names: yadokari_registry::Names::within(gate.clone()),
            ..ClientOptions::default()
        };
        hide.extend(self.tls.apply(&mut options, pushed)?);
        let client = Client::new(options);
        let client = client.map_err(|error| Error::Usage { flag: "registry settings", message: error.to_string() })?;
        Ok(Session { client, hide })
    }

    /// `--registry-map`
    pub(super) fn maps(&self) -> Result<Pairs, Error> {
        let maps = self.registry_map.iter().flat_map(|text| text.split(';')).filter(|text| !text.is_empty());
        maps.map(|text| pair("--registry-map", text)).collect()
    }
}
