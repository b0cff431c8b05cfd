//! How a repository is reached: HTTP through our own client, with its proxies and authorities; git's own protocol over a
//! socket; SSH through the program of that name.

use std::any::Any;
use std::io::{self, BufRead, Cursor, Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use gix::error::{ErrorExt, message};
use gix::protocol::transport::Protocol;
use gix::protocol::transport::client::blocking_io::http::{self, GetResponse, PostBodyDataKind, PostResponse};
use gix::protocol::transport::client::blocking_io::{Transport, ssh};
use gix::protocol::transport::client::git::{ConnectMode, blocking_io::Connection};
use tokio::runtime::Handle;
use yadokari_registry::{Client, Reply, Request, Secret};

use super::GitError;
use crate::remote::auth::Login;
use crate::remote::url;

/// The port of git's own protocol.
const PORT: u16 = 9418;

/// When to give a silent server up.
const CONNECT: Duration = Duration::from_secs(10);
const SILENCE: Duration = Duration::from_secs(60);

/// What every connection of a checkout shares.
#[derive(Clone)]
pub(super) struct Network {
    pub(super) client: Client,
    /// Where requests run; the calling thread is one that may block.
    pub(super) runtime: Handle,
    /// The login, and the URLs that it is sent to: the repository's own, or all of github.com.
    pub(super) login: Option<(String, Secret)>,
    /// The failure of a request in full: git's own layers pass on a text.
    pub(super) failure: Arc<Mutex<Option<yadokari_registry::Error>>>,
}

impl Network {
    /// Connects to the repository `remote`.
    pub(super) fn connect(&self, remote: &str) -> Result<Box<dyn Transport>, GitError> {
        let host = url::host_name(remote);
        if !self.client.may_ask(host) {
            let (operation, host) = (format!("fetch from {}", url::shown(remote)), host.to_owned());
            return Err(GitError::Http(Box::new(yadokari_registry::Error::Offline { operation, host })));
        }
        match url::scheme(remote) {
            Some("http" | "https") => {
                let (plain, login) = without_login(remote);
                let login = login.or_else(|| self.login_for(&plain));
                let http = Http { network: self.clone(), login, base: None };
                Ok(Box::new(http::connect_http(http, parsed(&plain)?, Protocol::V2, false)))
            }
            Some("git") => daemon(remote),
            _ => over_ssh(remote),
        }
    }

    fn login_for(&self, remote: &str) -> Option<Secret> {
        let (scope, secret) = self.login.as_ref()?;
        let rest = remote.strip_prefix(scope.as_str())?;
        (rest.is_empty() || rest.starts_with('/') || scope.ends_with('/')).then(|| secret.clone())
    }

    /// The failure of the last request, if it failed.
    pub(super) fn take_failure(&self) -> Option<yadokari_registry::Error> {
        self.failure.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    fn failed(&self, error: yadokari_registry::Error) -> io::Error {
        let text = error.to_string();
        *self.failure.lock().unwrap_or_else(PoisonError::into_inner) = Some(error);
        io::Error::other(text)
    }
}

/// The URL without a user and a password, and the header that says them.
fn without_login(remote: &str) -> (String, Option<Secret>) {
    let Some((scheme, rest)) = remote.split_once("://") else { return (remote.to_owned(), None) };
    let end = rest.find('/').unwrap_or(rest.len());
    let Some((login, host)) = rest[..end].rsplit_once('@') else { return (remote.to_owned(), None) };
    let (user, password) = login.split_once(':').unwrap_or((login, ""));
    let login = Login::basic(&url::decoded(user), &url::decoded(password));
    (format!("{scheme}://{host}{}", &rest[end..]), Some(login.header()))
}

fn parsed(remote: &str) -> Result<gix::Url, GitError> {
    gix::url::parse(remote).map_err(|error| GitError::Address(error.to_string()))
}

/// A server of git's own protocol, without encryption and login.
fn daemon(remote: &str) -> Result<Box<dyn Transport>, GitError> {
    let parsed = parsed(remote)?;
    let host = url::host_name(remote).to_owned();
    let port = parsed.port.unwrap_or(PORT);
    let failed = |source: io::Error| GitError::Unreachable(format!("cannot reach {host}:{port}: {source}"));
    let mut last = io::Error::from(io::ErrorKind::NotFound);
    for address in (host.as_str(), port).to_socket_addrs().map_err(failed)? {
        match TcpStream::connect_timeout(&address, CONNECT) {
            Ok(stream) => {
                stream.set_read_timeout(Some(SILENCE)).map_err(failed)?;
                stream.set_write_timeout(Some(SILENCE)).map_err(failed)?;
                let reader = stream.try_clone().map_err(failed)?;
                let there = Some((host, parsed.port));
                let path = url::path(remote);
                let connection = Connection::new(reader, stream, Protocol::V2, path, there, ConnectMode::Daemon, false);
                return Ok(Box::new(connection));
            }
            Err(error) => last = error,
        }
    }
    Err(failed(last))
}

/// SSH needs its program, which finds keys and known hosts, and an agent if there is one, as it always does.
fn over_ssh(remote: &str) -> Result<Box<dyn Transport>, GitError> {
    let quiet = || Stdio::null();
    let there = Command::new("ssh").arg("-V").stdin(quiet()).stdout(quiet()).stderr(quiet()).status();
    if let Err(error) = there {
        return Err(GitError::NoSsh(error.to_string()));
    }
    let options =
        ssh::connect::Options { command: Some("ssh".into()), disallow_shell: true, kind: Some(ssh::ProgramKind::Ssh) };
    let connection = ssh::connect(parsed(remote)?, Protocol::V2, options, false);
    Ok(Box::new(connection.map_err(|error| GitError::Address(error.to_string()))?))
}

/// One repository's HTTP.
struct Http {
    network: Network,
    login: Option<Secret>,
    /// Where a redirect of the first request led.
    base: Option<String>,
}

impl Http {
    fn request(
        &self,
        url: &str,
        headers: impl IntoIterator<Item = impl AsRef<str>>,
    ) -> yadokari_registry::Result<Request> {
        let mut request = Request::get(url)?.strict();
        for header in headers {
            // Our own client says who it is.
            match header.as_ref().split_once(':') {
                Some((name, value)) if !name.eq_ignore_ascii_case("user-agent") => {
                    request = request.header(name.trim(), value.trim())?;
                }
                _ => {}
            }
        }
        Ok(match &self.login {
            Some(login) => request.authorization(login.clone()),
            None => request,
        })
    }
}

/// A request and what came of it, shared by the handles on its parts. A POST is sent when its answer is first asked for:
/// all of its body is there by then, and it is small, since nothing is negotiated.
struct Exchange {
    network: Network,
    request: Option<(Request, Vec<u8>)>,
    reply: Option<Reply>,
}

#[derive(Clone)]
struct Shared(Arc<Mutex<Exchange>>);

impl Shared {
    fn new(network: Network, request: Option<(Request, Vec<u8>)>, reply: Option<Reply>) -> Self {
        Self(Arc::new(Mutex::new(Exchange { network, request, reply })))
    }

    fn lock(&self) -> MutexGuard<'_, Exchange> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Exchange {
    /// Sends the request, unless that was done.
    fn send(&mut self) -> io::Result<()> {
        let Some((request, body)) = self.request.take() else { return Ok(()) };
        match self.network.runtime.block_on(self.network.client.fetch(&request.post(body))) {
            Ok(reply) => self.reply = Some(reply),
            Err(error) => return Err(self.network.failed(error)),
        }
        Ok(())
    }

    /// The next piece of the answer's body.
    fn piece(&mut self) -> io::Result<Option<Bytes>> {
        self.send()?;
        let Some(reply) = &mut self.reply else { return Ok(None) };
        let piece = self.network.runtime.block_on(reply.piece()).map_err(|error| self.network.failed(error))?;
        if piece.is_none() {
            self.reply = None;
        }
        Ok(piece)
    }
}

/// The body of a request.
struct Sending(Shared);

impl Write for Sending {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match &mut self.0.lock().request {
            Some((_, body)) => body.extend_from_slice(bytes),
            None => return Err(io::Error::from(io::ErrorKind::BrokenPipe)),
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The one header of an answer that matters, as a line.
struct Headers {
    of: Shared,
    line: Option<Cursor<String>>,
}

impl Read for Headers {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let n = self.fill_buf()?.read(buffer)?;
        self.consume(n);
        Ok(n)
    }
}

impl BufRead for Headers {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        if self.line.is_none() {
            let mut exchange = self.of.lock();
            exchange.send()?;
            let kind = exchange.reply.as_ref().and_then(|reply| reply.header("content-type")).unwrap_or_default();
            self.line = Some(Cursor::new(format!("content-type: {kind}\n")));
        }
        self.line.get_or_insert_default().fill_buf()
    }

    fn consume(&mut self, n: usize) {
        self.line.get_or_insert_default().consume(n);
    }
}

/// The body of an answer.
struct Receiving {
    from: Shared,
    piece: Cursor<Bytes>,
}

impl Receiving {
    fn new(from: Shared) -> Self {
        Self { from, piece: Cursor::default() }
    }
}

impl Read for Receiving {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let n = self.fill_buf()?.read(buffer)?;
        self.consume(n);
        Ok(n)
    }
}

impl BufRead for Receiving {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        while self.piece.position() == self.piece.get_ref().len() as u64 {
            match self.from.lock().piece()? {
                Some(piece) => self.piece = Cursor::new(piece),
                None => break,
            }
        }
        self.piece.fill_buf()
    }

    fn consume(&mut self, n: usize) {
        self.piece.consume(n);
    }
}

impl http::Http for Http {
    type Headers = Headers;
    type ResponseBody = Receiving;
    type PostBody = Sending;

    fn get(
        &mut self,
        url: &str,
        base_url: &str,
        headers: impl IntoIterator<Item = impl AsRef<str>>,
    ) -> gix::Result<GetResponse<Headers, Receiving>> {
        let Network { client, runtime, .. } = &self.network;
        let request = self.request(url, headers);
        let reply = request.and_then(|request| runtime.block_on(client.fetch(&request)));
        let reply = reply.map_err(|error| self.network.failed(error).and_raise(message("the request failed")))?;
        // Later requests go where the first one was led.
        let tail = url.strip_prefix(base_url).unwrap_or_default();
        self.base =
            reply.url().strip_suffix(tail).filter(|base| *base != base_url && !tail.is_empty()).map(str::to_owned);
        let shared = Shared::new(self.network.clone(), None, Some(reply));
        Ok(GetResponse { headers: Headers { of: shared.clone(), line: None }, body: Receiving::new(shared) })
    }

    fn post(
        &mut self,
        url: &str,
        _base_url: &str,
        headers: impl IntoIterator<Item = impl AsRef<str>>,
        _body: PostBodyDataKind,
    ) -> gix::Result<PostResponse<Headers, Receiving, Sending>> {
        let request = self.request(url, headers);
        let request = request.map_err(|error| self.network.failed(error).and_raise(message("the request failed")))?;
        let shared = Shared::new(self.network.clone(), Some((request, Vec::new())), None);
        Ok(PostResponse {
            post_body: Sending(shared.clone()),
            headers: Headers { of: shared.clone(), line: None },
            body: Receiving::new(shared),
        })
    }

    fn configure(&mut self, _config: &dyn Any) -> gix::Result {
        Ok(())
    }

    fn redirected_base_url(&self) -> Option<String> {
        self.base.clone()
    }
}
