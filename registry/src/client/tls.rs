//! The HTTP client under everything, and which certificate authorities it trusts.

use std::collections::HashMap;
use std::fs;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use reqwest::{Certificate, ClientBuilder, Identity, NoProxy, Proxy, Url, redirect};
use zeroize::Zeroizing;

use super::endpoint::{HUB_HOST, host_of};
use super::options::{Bundle, ClientOptions, Notice, Proxies, RegistryTls};
use super::reach::{Reach, Resolver};
use crate::reference::is_hub;
use crate::{Error, Result};

/// Where distributions keep their bundle. A scratch image has none: the built-in authorities serve there.
const SYSTEM_BUNDLES: [&str; 4] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
];

/// What no proxy reaches: this machine, and the metadata servers of clouds, which are of this machine alone.
const ALWAYS_DIRECT: &str =
    "localhost,127.0.0.0/8,::1,169.254.169.254,169.254.170.2,169.254.170.23,fd00:ec2::/32,metadata.google.internal";

/// The dead are told from the slow by probes of the kernel: a peer that acknowledges nothing for this long is gone.
const DEAD_AFTER: Duration = Duration::from_secs(60);

/// The HTTP clients, which differ in whom they trust.
pub(crate) struct Clients {
    ordinary: reqwest::Client,
    /// The client that takes any certificate, where the options name registries for it.
    unverified: Option<reqwest::Client>,
    /// Those of registries with something special about them, by host.
    special: HashMap<String, reqwest::Client>,
    resolver: Resolver,
}

impl Clients {
    /// Builds them. Everything that needs files happens here, before any build step can touch them.
    pub(crate) fn new(options: &ClientOptions) -> Result<Self> {
        let resolver = Resolver(Arc::default(), options.names.clone());
        for proxy in [&options.proxies.http, &options.proxies.https].into_iter().flatten() {
            // One without a scheme is spoken to in plain HTTP, and one that is no URL is an error of its own.
            let url = Url::parse(proxy).ok().filter(Url::has_host);
            if let Some(url) = url.or_else(|| Url::parse(&format!("http://{proxy}")).ok()) {
                resolver.0.free(&url);
            }
        }
        let (trusted, ordinary) = Trusted::of(options, &resolver)?;
        let mut special = HashMap::new();
        for tls in merged(&options.tls) {
            let host = host(&tls.registry);
            let mut authorities = Vec::new();
            for bundle in &tls.authorities {
                authorities.extend(certificates(bundle)?);
            }
            let mut identity = None;
            if let Some((chain, key)) = &tls.identity {
                let pem = Zeroizing::new([&chain.pem, &b"\n"[..], key.expose().as_bytes()].concat());
                let bad = |error: reqwest::Error| unusable(&chain.name, &error);
                identity = Some(Identity::from_pem(&pem).map_err(bad)?);
            }
            let unverified = is_unverified(options, &host);
            special.insert(host, trusted.client(options, &Special { authorities, identity, unverified })?);
        }
        let careless = options.unverified || !options.unverified_registries.is_empty();
        let everything = Special { unverified: true, ..Special::default() };
        let unverified = if careless { Some(trusted.client(options, &everything)?) } else { None };
        Ok(Self { ordinary, unverified, special, resolver })
    }

    /// Which names may stand for what.
    pub(crate) fn reach(&self) -> &Reach {
        &self.resolver.0
    }

    /// The client that makes requests.
    pub(crate) fn ordinary(&self) -> &reqwest::Client {
        &self.ordinary
    }

    /// The client that sends a request to a URL's host, for a registry where it is one's: token servers and storage are
    /// trusted as the registry is that leads to them.
    pub(crate) fn of(&self, options: &ClientOptions, registry: Option<&str>, url: &Url) -> &reqwest::Client {
        let registry = registry.map(host);
        let special = self.special.get(&host_of(url));
        if let Some(special) = special.or_else(|| self.special.get(registry.as_ref()?)) {
            return special;
        }
        match (&self.unverified, registry) {
            (Some(unverified), Some(registry)) if is_unverified(options, &registry) => unverified,
            _ => &self.ordinary,
        }
    }
}

/// How a client differs from others.
#[derive(Default)]
struct Special {
    authorities: Vec<Certificate>,
    identity: Option<Identity>,
    unverified: bool,
}

/// The authorities that all clients trust. One certificate that rustls cannot read fails a whole client; those that
/// nobody named one by one must not do that.
struct Trusted {
    authorities: Vec<Certificate>,
    resolver: Resolver,
}

impl Trusted {
    /// All of them, and the client that trusts them and nothing else.
    fn of(options: &ClientOptions, resolver: &Resolver) -> Result<(Self, reqwest::Client)> {
        let of = |authorities| Self { authorities, resolver: resolver.clone() };
        let built_in =
            webpki_root_certs::TLS_SERVER_ROOT_CERTS.iter().filter_map(|der| Certificate::from_der(der).ok());
        let mut groups = vec![("the built-in authorities", built_in.collect()), ("the system's authorities", system())];
        for bundle in &options.authorities {
            match certificates(bundle) {
                Ok(found) => groups.push((&bundle.name, found)),
                Err(error) => warn(options, format!("{error}; nothing in it is trusted")),
            }
        }
        let all = of(groups.iter().flat_map(|(_, group)| group).cloned().collect());
        if let Ok(client) = all.client(options, &Special::default()) {
            return Ok((all, client));
        }
        let mut good = Vec::new();
        for (name, group) in groups {
            let count = group.len();
            let usable: Vec<_> = group.into_iter().filter(is_usable).collect();
            if usable.len() < count {
                warn(options, format!("{} certificates of {name} cannot be used", count - usable.len()));
            }
            good.extend(usable);
        }
        let good = of(good);
        let client = good.client(options, &Special::default())?;
        Ok((good, client))
    }

    fn client(&self, options: &ClientOptions, special: &Special) -> Result<reqwest::Client> {
        let mut builder = builder(options)?.dns_resolver(self.resolver.clone());
        if let Some(identity) = special.identity.clone() {
            builder = builder.identity(identity);
        }
        finish(match special.unverified {
            true => builder.tls_certs_only([]).tls_danger_accept_invalid_certs(true),
            false => builder.tls_certs_only(self.authorities.iter().chain(&special.authorities).cloned()),
        })
    }
}

/// Whether any certificate of a registry is taken; `host` as [`host`] has it.
fn is_unverified(options: &ClientOptions, registry: &str) -> bool {
    let named = |names: &[String]| names.iter().any(|name| host(name) == registry);
    named(&options.unverified_registries) || options.unverified && !named(&options.verified_registries)
}

/// A registry's name as the URLs of its requests have it.
fn host(registry: &str) -> String {
    let rest = registry.strip_prefix("https://").or_else(|| registry.strip_prefix("http://")).unwrap_or(registry);
    let host = rest.trim_end_matches('/').to_ascii_lowercase();
    let host = host.strip_suffix(":443").unwrap_or(&host);
    if is_hub(host) { HUB_HOST.into() } else { host.into() }
}

/// One entry for each registry, of all that is said of it.
fn merged(given: &[RegistryTls]) -> Vec<RegistryTls> {
    let mut all: Vec<RegistryTls> = Vec::new();
    for tls in given {
        match all.iter_mut().find(|known| host(&known.registry) == host(&tls.registry)) {
            Some(known) => {
                known.authorities.extend(tls.authorities.iter().cloned());
                known.identity = tls.identity.clone().or_else(|| known.identity.take());
            }
            None => all.push(tls.clone()),
        }
    }
    all
}

fn warn(options: &ClientOptions, text: String) {
    options.listener.tell(&Notice::Warning(text));
}

impl Bundle {
    /// These authorities behind the public ones that are built in: one PEM text, for programs that read one file. It is an error
    /// when there is none, or one that cannot be read.
    pub fn beside_public_ones(&self) -> Result<Vec<u8>> {
        if let Some(number) = certificates(self)?.iter().position(|certificate| !is_usable(certificate)) {
            let reason = format!("its certificate {} cannot be read", number + 1);
            return Err(Error::Configuration { what: self.name.clone(), reason });
        }
        let mut text = Vec::new();
        for der in webpki_root_certs::TLS_SERVER_ROOT_CERTS {
            text.extend_from_slice(b"-----BEGIN CERTIFICATE-----\n");
            for line in BASE64_STANDARD.encode(der).as_bytes().chunks(64) {
                text.extend_from_slice(line);
                text.push(b'\n');
            }
            text.extend_from_slice(b"-----END CERTIFICATE-----\n");
        }
        text.extend_from_slice(&self.pem);
        Ok(text)
    }
}

/// The certificates of a bundle, of which there is at least one.
fn certificates(bundle: &Bundle) -> Result<Vec<Certificate>> {
    let found = Certificate::from_pem_bundle(&bundle.pem).map_err(|error| unusable(&bundle.name, &error))?;
    if found.is_empty() {
        return Err(Error::Configuration { what: bundle.name.clone(), reason: "it holds no certificate".into() });
    }
    Ok(found)
}

/// Whether a client takes a certificate.
fn is_usable(certificate: &Certificate) -> bool {
    reqwest::Client::builder().no_proxy().tls_certs_only([certificate.clone()]).build().is_ok()
}

/// The error of certificates or a key that cannot be used. It names the cause, which quotes nothing.
fn unusable(name: &str, error: &reqwest::Error) -> Error {
    let cause = std::error::Error::source(error).map(ToString::to_string);
    Error::Configuration { what: name.into(), reason: cause.unwrap_or_else(|| error.to_string()) }
}

fn builder(options: &ClientOptions) -> Result<ClientBuilder> {
    let agent = if options.user_agent.is_empty() { "yadokari" } else { &options.user_agent };
    let mut builder = reqwest::Client::builder()
        .user_agent(agent)
        .redirect(redirect::Policy::none())
        .retry(reqwest::retry::never())
        .referer(false)
        .no_proxy()
        .connect_timeout(options.timeouts.connect)
        .tcp_keepalive(DEAD_AFTER / 4)
        .tcp_keepalive_interval(DEAD_AFTER / 4)
        .tcp_keepalive_retries(3)
        .tcp_user_timeout(DEAD_AFTER);
    if options.http1 {
        builder = builder.http1_only();
    }
    for proxy in proxies(&options.proxies)? {
        builder = builder.proxy(proxy);
    }
    Ok(builder)
}

fn finish(builder: ClientBuilder) -> Result<reqwest::Client> {
    builder.build().map_err(|error| unusable("TLS and HTTP", &error))
}

fn proxies(options: &Proxies) -> Result<Vec<Proxy>> {
    let direct = NoProxy::from_string(&format!("{ALWAYS_DIRECT},{}", options.no_proxy));
    let mut proxies = Vec::new();
    let kinds = [("HTTP", &options.http, Proxy::http as fn(String) -> _), ("HTTPS", &options.https, Proxy::https)];
    for (scheme, url, proxy) in kinds {
        let Some(url) = url else { continue };
        // The URL may hold a password, so the error must not quote it.
        let proxy = proxy(url.clone()).map_err(|_| Error::Configuration {
            what: format!("proxy for {scheme}"),
            reason: "not a URL of the form http://host:port".into(),
        })?;
        proxies.push(proxy.no_proxy(direct.clone()));
    }
    Ok(proxies)
}

/// The system's certificates from the first bundle there is.
fn system() -> Vec<Certificate> {
    let bundle = SYSTEM_BUNDLES.iter().find_map(|path| fs::read(path).ok());
    bundle.and_then(|pem| Certificate::from_pem_bundle(&pem).ok()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Listener;

    #[test]
    fn a_client_can_be_built_from_the_built_in_authorities_alone() {
        let built_in = webpki_root_certs::TLS_SERVER_ROOT_CERTS.iter().map(|der| Certificate::from_der(der).unwrap());
        let trusted = Trusted { authorities: built_in.collect(), resolver: Resolver::default() };
        assert!(trusted.client(&ClientOptions::default(), &Special::default()).is_ok());
    }

    #[test]
    fn what_was_named_for_a_registry_must_be_usable_and_what_lies_about_is_warned_of() {
        use std::sync::{Arc, Mutex};
        let bundle = |pem: &str| Bundle { name: "ca.crt".into(), pem: pem.into() };
        // Good PEM that holds no certificate.
        let rotten = "-----BEGIN CERTIFICATE-----\naHVudGVyMg==\n-----END CERTIFICATE-----\n";
        for (pem, reason) in [("no pem", "it holds no certificate"), (rotten, "")] {
            let tls = RegistryTls { registry: "r.example".into(), authorities: vec![bundle(pem)], identity: None };
            let error = Clients::new(&ClientOptions { tls: vec![tls], ..ClientOptions::default() }).err().unwrap();
            assert!(error.to_string().contains(reason), "{error}");
        }
        let told = Arc::new(Mutex::new(Vec::new()));
        let listener = {
            let told = Arc::clone(&told);
            Listener::new(move |notice| told.lock().unwrap().push(notice.clone()))
        };
        let authorities = vec![bundle("no pem"), bundle(rotten)];
        assert!(Clients::new(&ClientOptions { authorities, listener, ..ClientOptions::default() }).is_ok());
        let expected =
            ["ca.crt: it holds no certificate; nothing in it is trusted", "1 certificates of ca.crt cannot be used"];
        assert_eq!(*told.lock().unwrap(), expected.map(|text| Notice::Warning(text.into())));
    }

    #[test]
    fn a_key_that_cannot_be_used_is_named_and_not_shown() {
        let chain = Bundle { name: "client.crt".into(), pem: b"no pem".to_vec() };
        let identity = Some((chain, crate::Secret::new("hunter2")));
        let tls = vec![RegistryTls { registry: "r.example".into(), authorities: Vec::new(), identity }];
        let options = ClientOptions { tls, ..ClientOptions::default() };
        let error = Clients::new(&options).err().unwrap();
        assert!(error.to_string().starts_with("client.crt: "), "{error}");
        assert!(!format!("{error:?} {options:?}").contains("hunter2"));
    }

    #[test]
    fn unusable_proxies_are_named_without_their_secrets() {
        let proxies = Proxies { http: Some("http://u:hunter2@[".into()), ..Proxies::default() };
        let options = ClientOptions { proxies, ..ClientOptions::default() };
        let error = Clients::new(&options).err().unwrap();
        assert!(error.to_string().starts_with("proxy for HTTP:"), "{error}");
        assert!(!format!("{error:?} {options:?}").contains("hunter2"));
    }

    #[tokio::test]
    async fn a_proxy_may_be_anywhere() {
        use reqwest::dns::Resolve as _;
        for (proxy, is_found) in [
            (Some("http://user:pw@localhost:3128"), true),
            (Some("localhost:3128"), true),
            (Some("http://10.0.0.1:3128"), false),
            (None, false),
        ] {
            let proxies = Proxies { https: proxy.map(str::to_owned), ..Proxies::default() };
            let clients = Clients::new(&ClientOptions { proxies, ..ClientOptions::default() }).unwrap();
            assert_eq!(clients.resolver.resolve("localhost".parse().unwrap()).await.is_ok(), is_found, "{proxy:?}");
        }
    }

    #[tokio::test]
    async fn every_client_looks_at_what_a_name_stands_for() {
        let tls = RegistryTls { registry: "special.example".into(), authorities: Vec::new(), identity: None };
        let unverified_registries = vec!["careless.example".into()];
        let options = ClientOptions { tls: vec![tls], unverified_registries, ..ClientOptions::default() };
        let clients = Clients::new(&options).unwrap();
        for client in [&clients.ordinary, clients.unverified.as_ref().unwrap(), &clients.special["special.example"]] {
            let error = client.get("http://localhost:9/").send().await.unwrap_err();
            let failure = crate::Failure::Transport(error);
            assert!(failure.to_string().contains("where nobody is led by its name"), "{failure}");
            assert!(failure.is_permanent(), "{failure}");
        }
    }

    #[test]
    fn registries_are_named_in_any_form() {
        let table = [
            ("Registry.Example", "registry.example"),
            ("https://registry.example:443/", "registry.example"),
            ("registry.example:5000", "registry.example:5000"),
            ("index.docker.io", "registry-1.docker.io"),
            ("docker.io", "registry-1.docker.io"),
        ];
        for (name, expected) in table {
            assert_eq!(host(name), expected);
        }
        let options = ClientOptions {
            unverified: true,
            verified_registries: vec!["Push.Example".into(), "both.example".into()],
            unverified_registries: vec!["both.example".into()],
            ..ClientOptions::default()
        };
        let unverified = ["pull.example", "push.example", "both.example"].map(|host| is_unverified(&options, host));
        assert_eq!(unverified, [true, false, true]);
    }
}
