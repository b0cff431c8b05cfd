//! Who gives out the tokens that a registry asks for: a small HTTPS server with GitLab's rules.

use std::io::{self, BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use base64::Engine;
use base64::prelude::{BASE64_STANDARD, BASE64_URL_SAFE_NO_PAD};
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::SigningKey;
use rustls::{ServerConfig, ServerConnection, SignatureScheme, Stream};
use serde_json::{Value, json};

use super::{ISSUER, LOGIN, PROJECT, SERVICE};
use crate::Authority;
use crate::error::{At, Result};

/// How long nobody may keep a connection that says nothing.
const SILENCE: Duration = Duration::from_secs(30);

/// The server, until it is dropped.
#[derive(Debug)]
pub(super) struct Tokens {
    address: String,
    shared: Arc<Shared>,
}

/// A token that was asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Asked {
    /// The user, if there was a login.
    pub user: Option<String>,
    /// What it was for, such as `repository:group/app:pull,push`.
    pub scopes: Vec<String>,
    /// What was answered.
    pub status: u16,
}

struct Shared {
    tls: Arc<ServerConfig>,
    key: Arc<dyn SigningKey>,
    chain: Vec<CertificateDer<'static>>,
    given: AtomicU64,
    ended: AtomicBool,
    asked: Mutex<Vec<Asked>>,
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shared").field("asked", &self.asked).finish_non_exhaustive()
    }
}

impl Tokens {
    pub(super) fn start(authority: &Authority) -> Result<Self> {
        let certificate = |name| {
            let chain = CertificateDer::from_pem_slice(&authority.read(name)?).map(|certificate| vec![certificate]);
            chain.map_err(io::Error::other).at("read a certificate in", authority.file(name))
        };
        let key = |name| {
            let key = PrivateKeyDer::from_pem_slice(&authority.read(name)?);
            key.map_err(io::Error::other).at("read a key in", authority.file(name))
        };
        let provider = Arc::new(aws_lc_rs::default_provider());
        let signing = provider.key_provider.load_private_key(key("tokens.key")?);
        let (chain, secret) = (certificate("server.crt")?, key("server.key")?);
        let tls = ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()
            .and_then(|builder| builder.with_no_client_auth().with_single_cert(chain, secret));
        let listener = TcpListener::bind("127.0.0.1:0").at("bind", "127.0.0.1")?;
        let address = listener.local_addr().at("bind", "127.0.0.1")?.to_string();
        let shared = Arc::new(Shared {
            tls: Arc::new(tls.map_err(io::Error::other).at("serve with", authority.file("server.crt"))?),
            key: signing.map_err(io::Error::other).at("sign with", authority.file("tokens.key"))?,
            chain: certificate("tokens.crt")?,
            given: AtomicU64::new(0),
            ended: AtomicBool::new(false),
            asked: Mutex::default(),
        });
        let server = Self { address, shared: Arc::clone(&shared) };
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                if shared.ended.load(Ordering::SeqCst) {
                    return;
                }
                let shared = Arc::clone(&shared);
                // Who does not trust us is gone again, and that is his to notice.
                thread::spawn(move || drop(shared.serve(stream)));
            }
        });
        Ok(server)
    }

    pub(super) fn port(&self) -> &str {
        self.address.rsplit(':').next().unwrap_or_default()
    }

    /// What was asked for so far.
    pub(super) fn asked(&self) -> Vec<Asked> {
        self.shared.asked.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Drop for Tokens {
    fn drop(&mut self) {
        self.shared.ended.store(true, Ordering::SeqCst);
        // It wakes up by a connection; where that fails it is gone already.
        let _ = TcpStream::connect(&self.address);
    }
}

impl Shared {
    /// One request of a connection.
    fn serve(&self, mut tcp: TcpStream) -> io::Result<()> {
        tcp.set_read_timeout(Some(SILENCE))?;
        let mut tls = ServerConnection::new(Arc::clone(&self.tls)).map_err(io::Error::other)?;
        let mut stream = Stream::new(&mut tls, &mut tcp);
        let (mut target, mut login) = (String::new(), None);
        for line in BufReader::new(&mut stream).lines() {
            let line = line?;
            if line.is_empty() {
                break;
            } else if target.is_empty() {
                target = line.split(' ').nth(1).unwrap_or_default().to_owned();
            } else if let Some((_, value)) =
                line.split_once(": ").filter(|(name, _)| name.eq_ignore_ascii_case("authorization"))
            {
                login = value.strip_prefix("Basic ").and_then(|encoded| BASE64_STANDARD.decode(encoded).ok());
            }
        }
        let (status, body) = self.answer(&target, login.map(|bytes| String::from_utf8_lossy(&bytes).into_owned()));
        let body = body.to_string();
        let head = format!(
            "HTTP/1.1 {status} .\r\nContent-Type: application/json\r\nContent-Length: {}\r\nConnection: close\r\n",
            body.len()
        );
        stream.write_all(format!("{head}\r\n{body}").as_bytes())?;
        tls.send_close_notify();
        tls.complete_io(&mut tcp).map(drop)
    }

    /// A token for the project's own repositories, for the job that knows its password.
    fn answer(&self, target: &str, login: Option<String>) -> (u16, Value) {
        let query = target.split_once('?').map_or("", |(_, query)| query);
        let pairs: Vec<_> = form_urlencoded::parse(query.as_bytes()).collect();
        let all = |wanted: &'static str| {
            pairs.iter().filter(move |(name, _)| name == wanted).map(|(_, value)| value.as_ref())
        };
        let scopes: Vec<String> = all("scope").flat_map(|scope| scope.split(' ')).map(str::to_owned).collect();
        let user = login.as_deref().and_then(|login| login.split_once(':')).map(|(user, _)| user.to_owned());
        let is_known = login.as_deref() == Some(&*format!("{}:{}", LOGIN.0, LOGIN.1));
        let (status, body) = if !target.starts_with("/jwt/auth?") || !all("service").any(|service| service == SERVICE) {
            (404, json!({"errors": [{"code": "UNSUPPORTED", "message": target}]}))
        } else if is_known {
            (200, json!({"token": self.token(&scopes), "expires_in": 300}))
        } else {
            (403, json!({"errors": [{"code": "DENIED", "message": "HTTP Basic: Access denied"}]}))
        };
        self.asked.lock().unwrap_or_else(PoisonError::into_inner).push(Asked { user, scopes, status });
        (status, body)
    }

    /// A JSON web token that grants what is asked for of the project's repositories, and nothing else.
    fn token(&self, scopes: &[String]) -> String {
        let access = scopes.iter().filter_map(|scope| {
            let (name, actions) = scope.strip_prefix("repository:")?.rsplit_once(':')?;
            let is_ours = name == PROJECT || name.starts_with(&format!("{PROJECT}/"));
            let actions: Vec<_> = actions.split(',').filter(|_| is_ours).collect();
            Some(json!({"type": "repository", "name": name, "actions": actions}))
        });
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        let claims = json!({
            "iss": ISSUER, "sub": LOGIN.0, "aud": SERVICE, "exp": now + 300, "nbf": now - 5, "iat": now,
            "jti": self.given.fetch_add(1, Ordering::SeqCst).to_string(), "access": access.collect::<Vec<_>>(),
        });
        let chain: Vec<_> = self.chain.iter().map(|certificate| BASE64_STANDARD.encode(certificate)).collect();
        let header = json!({"typ": "JWT", "alg": "RS256", "x5c": chain});
        let signed = [header, claims].map(|part| BASE64_URL_SAFE_NO_PAD.encode(part.to_string())).join(".");
        let signer = self.key.choose_scheme(&[SignatureScheme::RSA_PKCS1_SHA256]);
        let signature = signer.and_then(|signer| signer.sign(signed.as_bytes()).ok()).unwrap_or_default();
        format!("{signed}.{}", BASE64_URL_SAFE_NO_PAD.encode(signature))
    }
}
