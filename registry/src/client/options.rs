//! What a caller may set about how registries are reached.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use super::hosts::Hosts;
use super::names::Names;
use crate::{Credentials, Secret};

/// How registries are reached. The default is anonymous HTTPS.
#[derive(Debug, Clone, Default)]
pub struct ClientOptions {
    /// Registries, as `host` or `host:port`, that may be spoken to in plain HTTP where they do not answer HTTPS.
    pub insecure_registries: Vec<String>,
    /// Plain HTTP is allowed as above for every registry.
    pub insecure: bool,
    /// Registries, as `host` or `host:port`, whose certificates are taken as they come, and with them those of their token
    /// servers and storage: anybody in between can read and change what is transferred, and take the login.
    pub unverified_registries: Vec<String>,
    /// The same for every registry but those of `verified_registries`. Servers that are no registries are verified always.
    pub unverified: bool,
    /// What `unverified` does not mean.
    pub verified_registries: Vec<String>,
    /// Sources to ask before Docker Hub, in order, each `host[:port][/path]`.
    pub mirrors: Vec<String>,
    /// Sources to ask before another registry, in order: `(registry, host[:port][/path])`.
    pub maps: Vec<(String, String)>,
    /// Mirrors and maps replace the registry instead of preceding it: for builds without a way to the internet.
    pub no_fallback: bool,
    /// Hosts besides which none is asked for anything, whoever names it: a registry's redirects and token servers, too.
    /// Mirrors and maps then replace the registry. `None` for all.
    pub only: Option<Hosts>,
    /// Certificate authorities to trust, in addition to the built-in and the system's. One that cannot be used is warned of.
    pub authorities: Vec<Bundle>,
    /// What is special about TLS with some registries.
    pub tls: Vec<RegistryTls>,
    /// The logins.
    pub credentials: Credentials,
    /// The `User-Agent` header; empty for `yadokari`.
    pub user_agent: String,
    /// Speak HTTP/1.1 to those, too, who offer HTTP/2.
    pub http1: bool,
    /// The proxies to go through.
    pub proxies: Proxies,
    /// How names are looked up.
    pub names: Names,
    /// When to stop waiting.
    pub timeouts: Timeouts,
    /// When to try again.
    pub retry: RetryPolicy,
    /// Who is told what is no error.
    pub listener: Listener,
}

/// A PEM bundle of certificates.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bundle {
    /// Its name for messages: usually a path.
    pub name: String,
    /// The text.
    pub pem: Vec<u8>,
}

/// TLS with one registry, its token server and its storage.
#[derive(Debug, Clone)]
pub struct RegistryTls {
    /// `host` or `host:port`
    pub registry: String,
    /// Authorities to trust besides all others. One that cannot be used is an error.
    pub authorities: Vec<Bundle>,
    /// The client's own certificate chain and key, in PEM.
    pub identity: Option<(Bundle, Secret)>,
}

/// What whoever listens is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Notice {
    /// Something that was meant and is not done.
    Warning(String),
    /// Where the login for a repository comes from, and why not from elsewhere: several lines, without any secret. Once for
    /// each repository.
    Login(String),
}

/// Who is told; nobody by default.
#[derive(Clone, Default)]
pub struct Listener(Option<Arc<Listen>>);

type Listen = dyn Fn(&Notice) + Send + Sync;

impl Listener {
    /// Tells `listen`, which may be called from several threads.
    pub fn new(listen: impl Fn(&Notice) + Send + Sync + 'static) -> Self {
        Self(Some(Arc::new(listen)))
    }

    pub(crate) fn is_there(&self) -> bool {
        self.0.is_some()
    }

    pub(crate) fn tell(&self, notice: &Notice) {
        if let Some(listen) = &self.0 {
            listen(notice);
        }
    }
}

impl fmt::Debug for Listener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Listener({})", self.is_there())
    }
}

/// The proxies to go through, as the usual variables give them. Loopback hosts are always reached directly.
#[derive(Clone, Default)]
pub struct Proxies {
    /// The proxy for plain HTTP; its URL may hold a user and a password.
    pub http: Option<String>,
    /// The proxy for HTTPS.
    pub https: Option<String>,
    /// Hosts, `.suffixes` and CIDR blocks to reach directly, separated by commas.
    pub no_proxy: String,
}

impl Proxies {
    /// Looks up `HTTP_PROXY`, `HTTPS_PROXY`, `ALL_PROXY` and `NO_PROXY`, lower case first as curl does.
    pub fn from_variables(variable: impl Fn(&str) -> Option<String>) -> Self {
        let either = |name: &str| {
            let given = |name: &str| variable(name).filter(|value| !value.is_empty());
            given(&name.to_ascii_lowercase()).or_else(|| given(name))
        };
        Self {
            http: either("HTTP_PROXY").or_else(|| either("ALL_PROXY")),
            https: either("HTTPS_PROXY").or_else(|| either("ALL_PROXY")),
            no_proxy: either("NO_PROXY").unwrap_or_default(),
        }
    }

    /// Whether all hosts are reached directly.
    pub(crate) fn are_none(&self) -> bool {
        self.http.is_none() && self.https.is_none()
    }
}

impl fmt::Debug for Proxies {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The URLs may hold passwords.
        let given = |proxy: &Option<String>| proxy.as_ref().map(|_| "***");
        write!(
            f,
            "Proxies {{ http: {:?}, https: {:?}, no_proxy: {:?} }}",
            given(&self.http),
            given(&self.https),
            self.no_proxy
        )
    }
}

/// When to stop waiting. There is no limit on a whole transfer: only on silence.
#[derive(Debug, Clone, Copy)]
pub struct Timeouts {
    /// For a connection, TLS included.
    pub connect: Duration,
    /// Without a byte in either direction.
    pub silence: Duration,
    /// For the answer after the last byte of a blob was sent: registries move a large blob into place first.
    pub commit: Duration,
}

impl Default for Timeouts {
    fn default() -> Self {
        Self { connect: Duration::from_secs(10), silence: Duration::from_secs(60), commit: Duration::from_secs(300) }
    }
}

/// When to try again.
#[derive(Debug, Clone, Copy)]
pub struct RetryPolicy {
    /// How often a request is made at most.
    pub tries: u32,
    /// The wait after the first failure; each further one doubles it. Between half and all of it is waited.
    pub delay: Duration,
    /// The longest wait, unless the registry asks for more in `Retry-After`.
    pub longest: Duration,
    /// No try begins later than this after the first failure.
    pub give_up_after: Duration,
}

impl Default for RetryPolicy {
    fn default() -> Self {
        Self {
            tries: 5,
            delay: Duration::from_millis(500),
            longest: Duration::from_secs(15),
            give_up_after: Duration::from_secs(120),
        }
    }
}
