//! Who is trusted, who shows which certificate, and which way requests go.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::pki_types::pem::PemObject as _;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::server::WebPkiClientVerifier;
use tokio_rustls::rustls::{RootCertStore, ServerConfig};

use super::{client, count, quick};
use crate::memory::{Memory, Served};
use crate::{Bundle, ClientOptions, Error, Proxies, RegistryTls, Request, Secret, Timeouts};

const AUTHORITY: &str = include_str!("tls/ca.crt");

/// A registry behind TLS on loopback, until it is dropped.
struct Secure {
    served: Served,
    host: String,
    task: JoinHandle<()>,
}

impl Secure {
    /// With a certificate of the tests' authority; where it is `mutual`, it wants one of its clients, too.
    async fn start(mutual: bool) -> Self {
        let served = Memory::new().serve().await.unwrap();
        let acceptor = TlsAcceptor::from(Arc::new(config(mutual)));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let host = format!("localhost:{}", listener.local_addr().unwrap().port());
        let inner = served.host();
        let task = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (acceptor, inner) = (acceptor.clone(), inner.clone());
                tokio::spawn(async move {
                    // Who does not speak TLS, or does not trust us, is gone again.
                    let Ok(mut stream) = acceptor.accept(stream).await else { return };
                    let mut inner = TcpStream::connect(inner).await.unwrap();
                    _ = tokio::io::copy_bidirectional(&mut stream, &mut inner).await;
                });
            }
        });
        Self { served, host, task }
    }

    /// Whether a client can push to it.
    async fn push(&self, options: ClientOptions) -> crate::Result<()> {
        let client = client(ClientOptions { retry: crate::RetryPolicy { tries: 1, ..options.retry }, ..options });
        client.repository(&format!("{}/app", self.host).parse().unwrap()).check_push().await
    }

    fn with_authority(&self) -> RegistryTls {
        RegistryTls { registry: self.host.clone(), authorities: vec![bundle()], identity: None }
    }
}

impl Drop for Secure {
    fn drop(&mut self) {
        self.task.abort();
    }
}

fn config(mutual: bool) -> ServerConfig {
    let chain = vec![CertificateDer::from_pem_slice(include_bytes!("tls/server.crt")).unwrap()];
    let key = PrivateKeyDer::from_pem_slice(include_bytes!("tls/server.key")).unwrap();
    let builder = ServerConfig::builder();
    let builder = if mutual {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(AUTHORITY.as_bytes()).unwrap()).unwrap();
        builder.with_client_cert_verifier(WebPkiClientVerifier::builder(Arc::new(roots)).build().unwrap())
    } else {
        builder.with_no_client_auth()
    };
    builder.with_single_cert(chain, key).unwrap()
}

fn bundle() -> Bundle {
    Bundle { name: "ca.crt".into(), pem: AUTHORITY.into() }
}

#[tokio::test]
async fn an_authority_is_trusted_for_all_or_for_its_registry() {
    let secure = Secure::start(false).await;
    let error = secure.push(quick()).await.unwrap_err();
    assert!(error.to_string().contains("certificate"), "{error}");
    secure.push(ClientOptions { authorities: vec![bundle()], ..quick() }).await.unwrap();
    secure.push(ClientOptions { tls: vec![secure.with_authority()], ..quick() }).await.unwrap();
    let other = RegistryTls { registry: "other.example".into(), ..secure.with_authority() };
    assert!(secure.push(ClientOptions { tls: vec![other], ..quick() }).await.is_err(), "it is trusted elsewhere only");
}

#[tokio::test]
async fn certificates_are_taken_unseen_only_where_that_is_said() {
    let secure = Secure::start(false).await;
    let host = || vec![secure.host.clone()];
    secure.push(ClientOptions { unverified_registries: host(), ..quick() }).await.unwrap();
    secure.push(ClientOptions { unverified: true, ..quick() }).await.unwrap();
    let table = [
        ClientOptions { unverified_registries: vec!["localhost".into(), "other.example".into()], ..quick() },
        ClientOptions { unverified: true, verified_registries: host(), ..quick() },
    ];
    for options in table {
        assert!(secure.push(options.clone()).await.is_err(), "{options:?}");
    }
    // A server that is no registry is verified whatever holds for registries.
    let request = Request::get(&format!("https://{}/v2/", secure.host)).unwrap();
    let options = ClientOptions { unverified: true, ..quick() };
    let once = crate::RetryPolicy { tries: 1, ..options.retry };
    let error = client(ClientOptions { retry: once, ..options }).fetch(&request).await.unwrap_err();
    assert!(matches!(error, Error::Unreachable { .. }), "{error}");
}

#[tokio::test]
async fn a_client_shows_its_certificate_to_the_registry_that_it_is_for() {
    let secure = Secure::start(true).await;
    let without = ClientOptions { tls: vec![secure.with_authority()], ..quick() };
    assert!(secure.push(without).await.is_err());
    let chain = Bundle { name: "client.crt".into(), pem: include_bytes!("tls/client.crt").to_vec() };
    let identity = Some((chain, Secret::new(include_str!("tls/client.key"))));
    // The authority and the certificate may be said apart from each other.
    let own = RegistryTls { registry: secure.host.clone(), authorities: Vec::new(), identity };
    secure.push(ClientOptions { tls: vec![secure.with_authority(), own.clone()], ..quick() }).await.unwrap();
    let careless = ClientOptions { tls: vec![own], unverified_registries: vec![secure.host.clone()], ..quick() };
    secure.push(careless).await.unwrap();
    assert!(count(&secure.served, "POST", "/uploads/") >= 2);
}

/// A proxy that notes the heads of requests and answers each as a registry would.
async fn proxy() -> (String, Arc<Mutex<Vec<String>>>, JoinHandle<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let host = listener.local_addr().unwrap().to_string();
    let heads = Arc::new(Mutex::new(Vec::new()));
    let noted = Arc::clone(&heads);
    let task = tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let mut stream = BufReader::new(stream);
            let mut head = String::new();
            while !head.ends_with("\r\n\r\n") {
                if stream.read_line(&mut head).await.unwrap() == 0 {
                    break;
                }
            }
            noted.lock().unwrap().push(head);
            _ = stream.write_all(b"HTTP/1.1 200 -\r\nconnection: close\r\ncontent-length: 0\r\n\r\n").await;
        }
    });
    (host, heads, task)
}

#[tokio::test]
async fn requests_go_through_proxies_but_for_exceptions() {
    let (host, heads, _task) = proxy().await;
    let proxies = |no_proxy: &str| {
        let url = format!("http://user:pw@{host}");
        Proxies { http: Some(url.clone()), https: Some(url), no_proxy: no_proxy.into() }
    };
    let port = host.rsplit(':').next().unwrap().to_owned();
    // What 0.0.0.0 means is this machine, but no loopback address, which would need no exception.
    let here = format!("http://0.0.0.0:{port}/x");
    let table = [
        ("http://registry.test/x", "", Some("GET http://registry.test/x HTTP/1.1")),
        ("https://registry.test/x", "", Some("CONNECT registry.test:443 HTTP/1.1")),
        ("http://sub.registry.test/x", ".other.test,10.0.0.0/8", Some("GET http://sub.registry.test/x HTTP/1.1")),
        ("http://sub.registry.test/x", ".registry.test", None),
        ("http://registry.test/x", "other.test, registry.test", None),
        ("http://192.0.2.1/x", "10.0.0.0/8", Some("GET http://192.0.2.1/x HTTP/1.1")),
        (&here, "10.0.0.0/8,0.0.0.0/32", Some("GET /x HTTP/1.1")),
        (&format!("http://127.0.0.1:{port}/x"), "", Some("GET /x HTTP/1.1")),
    ];
    for (url, no_proxy, expected) in table {
        heads.lock().unwrap().clear();
        let retry = crate::RetryPolicy { tries: 1, ..quick().retry };
        let connect = Duration::from_millis(500);
        let timeouts = Timeouts { connect, ..quick().timeouts };
        let options = ClientOptions { proxies: proxies(no_proxy), retry, timeouts, ..quick() };
        let fetched = client(options).fetch(&Request::get(url).unwrap()).await;
        let seen = heads.lock().unwrap().first().cloned();
        assert_eq!(seen.as_deref().and_then(|head| head.lines().next()), expected, "{url} without {no_proxy}");
        let is_direct = expected.is_none_or(|line| line == "GET /x HTTP/1.1");
        let login = "Basic dXNlcjpwdw==";
        assert_eq!(seen.is_some_and(|head| head.contains(login)), !is_direct, "{url}: who gets the proxy's login");
        assert_eq!(fetched.is_ok(), expected.is_some_and(|line| line.starts_with("GET")), "{url}");
    }
}

#[tokio::test]
async fn http_2_is_spoken_with_those_who_offer_it_unless_it_is_not_wanted() {
    for (http1, expected) in [(false, "h2"), (true, "http/1.1")] {
        let mut config = config(false);
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let host = format!("localhost:{}", listener.local_addr().unwrap().port());
        let task = tokio::spawn(async move {
            let acceptor = TlsAcceptor::from(Arc::new(config));
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                // A registry on loopback is asked in plain HTTP, too.
                if let Ok(stream) = acceptor.accept(stream).await {
                    let agreed = stream.get_ref().1.alpn_protocol().unwrap_or_default();
                    return String::from_utf8_lossy(agreed).into_owned();
                }
            }
        });
        let tls = vec![RegistryTls { registry: host.clone(), authorities: vec![bundle()], identity: None }];
        let retry = crate::RetryPolicy { tries: 1, ..quick().retry };
        let client = client(ClientOptions { http1, tls, retry, ..quick() });
        // Nothing is answered: what was agreed on is all that is looked at.
        _ = client.repository(&format!("{host}/app").parse().unwrap()).check_push().await;
        let agreed = tokio::time::timeout(Duration::from_secs(30), task).await;
        assert_eq!(agreed.expect("somebody speaks TLS").unwrap(), expected);
    }
}
