//! The HTTP client under everything, and which certificate authorities it trusts.

use std::fs;
use std::time::Duration;

use reqwest::{Certificate, ClientBuilder, NoProxy, Proxy, redirect};

use super::options::{ClientOptions, Proxies};
use crate::{Error, Result};

/// Where distributions keep their bundle. A scratch image has none: the built-in authorities serve there.
const SYSTEM_BUNDLES: [&str; 4] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
];

/// The dead are told from the slow by probes of the kernel: a peer that acknowledges nothing for this long is gone.
const DEAD_AFTER: Duration = Duration::from_secs(60);

/// Builds the client. Everything that needs files happens here, before any build step can touch them.
pub(crate) fn http_client(options: &ClientOptions) -> Result<reqwest::Client> {
    let mut given = Vec::new();
    for (number, pem) in options.ca_certificates.iter().enumerate() {
        let what = || format!("certificate bundle {}", number + 1);
        let certificates = Certificate::from_pem_bundle(pem)
            .map_err(|error| Error::Configuration { what: what(), reason: error.to_string() })?;
        if certificates.is_empty() {
            return Err(Error::Configuration { what: what(), reason: "it holds no certificate".into() });
        }
        given.extend(certificates);
    }
    let built_in = webpki_root_certs::TLS_SERVER_ROOT_CERTS.iter().filter_map(|der| Certificate::from_der(der).ok());
    given.extend(built_in);
    let with_system: Vec<_> = given.iter().cloned().chain(system()).collect();
    // One certificate that rustls cannot read fails the whole client. The system's bundle is not the user's doing:
    // where it holds such a one, the others still count.
    match build(options, with_system) {
        Ok(client) => Ok(client),
        Err(_) => {
            let usable = |certificate: &Certificate| {
                reqwest::Client::builder().tls_certs_only([certificate.clone()]).build().is_ok()
            };
            build(options, given.into_iter().chain(system().into_iter().filter(usable)).collect())
        }
    }
}

/// Builds the client that takes any certificate.
pub(crate) fn unverified_client(options: &ClientOptions) -> Result<reqwest::Client> {
    finish(builder(options)?.tls_certs_only([]).tls_danger_accept_invalid_certs(true))
}

fn build(options: &ClientOptions, authorities: Vec<Certificate>) -> Result<reqwest::Client> {
    finish(builder(options)?.tls_certs_only(authorities))
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
    for proxy in proxies(&options.proxies)? {
        builder = builder.proxy(proxy);
    }
    Ok(builder)
}

fn finish(builder: ClientBuilder) -> Result<reqwest::Client> {
    builder.build().map_err(|error| {
        let cause = std::error::Error::source(&error).map(ToString::to_string);
        Error::Configuration { what: "HTTP client".into(), reason: cause.unwrap_or_else(|| error.to_string()) }
    })
}

fn proxies(options: &Proxies) -> Result<Vec<Proxy>> {
    let direct = NoProxy::from_string(&format!("localhost,127.0.0.0/8,::1,{}", options.no_proxy));
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

    #[test]
    fn a_client_can_be_built_from_the_built_in_authorities_alone() {
        let built_in = webpki_root_certs::TLS_SERVER_ROOT_CERTS.iter().map(|der| Certificate::from_der(der).unwrap());
        assert!(build(&ClientOptions::default(), built_in.collect()).is_ok());
    }

    #[test]
    fn unusable_certificates_and_proxies_are_named_without_their_secrets() {
        let options = ClientOptions { ca_certificates: vec![b"no pem".into()], ..ClientOptions::default() };
        assert_eq!(http_client(&options).unwrap_err().to_string(), "certificate bundle 1: it holds no certificate");
        let proxies = Proxies { http: Some("http://u:hunter2@[".into()), ..Proxies::default() };
        let options = ClientOptions { proxies, ..ClientOptions::default() };
        let error = http_client(&options).unwrap_err();
        assert!(error.to_string().starts_with("proxy for HTTP:"), "{error}");
        assert!(!format!("{error:?} {options:?}").contains("hunter2"));
    }
}
