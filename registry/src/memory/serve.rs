//! The test registry's port, its diary and its faults.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::io::BufReader;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{JoinHandle, JoinSet};

use super::Registry;
use super::api::{Exchange, Route, Sessions};
use super::http::{Head, Reply};
use super::login::{Auth, Tokens};

/// How the test registry behaves.
#[derive(Debug, Clone)]
pub struct Serving {
    /// The login it wants.
    pub auth: Auth,
    /// How it writes `Location` headers.
    pub locations: Locations,
    /// Whether it sends `Docker-Content-Digest`.
    pub declare_digests: bool,
    /// How long every answer waits before its first byte, requests on other connections side by side: what a network's
    /// round trip costs, so that tests can measure how many there are in a row.
    pub delay: Duration,
}

impl Default for Serving {
    fn default() -> Self {
        let (auth, locations, delay) = (Auth::Anonymous, Locations::Relative, Duration::ZERO);
        Self { auth, locations, declare_digests: true, delay }
    }
}

/// How `Location` headers are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Locations {
    /// As a path.
    Relative,
    /// As a URL.
    Absolute,
}

/// Something that goes wrong, a number of times.
#[derive(Debug, Clone)]
pub struct Fault {
    /// The method it befalls; empty for all.
    pub method: &'static str,
    /// A part of the path it befalls; empty for all.
    pub path: &'static str,
    /// How often.
    pub times: u32,
    /// What happens.
    pub effect: Effect,
}

/// What goes wrong.
#[derive(Debug, Clone)]
pub enum Effect {
    /// This answer instead of the right one. The request has no effect.
    Answer {
        /// The status.
        status: u16,
        /// Headers.
        headers: Vec<(String, String)>,
        /// The body.
        body: String,
    },
    /// The connection is cut after this many bytes of the request's body, without an answer.
    CutRequest(u64),
    /// The connection is cut after this many bytes of the answer's body.
    CutAnswer(usize),
    /// The request is carried out, and the connection cut instead of an answer.
    LoseAnswer,
    /// Nothing comes, ever.
    Silence,
    /// A mount is answered as if it were the start of an upload.
    NoMount,
}

/// A request that came.
#[derive(Debug, Clone)]
pub struct Seen {
    /// The method.
    pub method: String,
    /// The path.
    pub path: String,
    /// The query, as it came.
    pub query: String,
    /// The `Authorization` header.
    pub authorization: Option<String>,
    /// The status of the answer; 0 where there was none.
    pub status: u16,
    /// The bytes of the request's body, as far as it was read.
    pub received: u64,
    /// The bytes of the answer's body, as far as it was sent.
    pub sent: u64,
}

/// A registry that is being served; dropped, it is gone.
#[derive(Debug)]
pub struct Served {
    address: SocketAddr,
    shared: Arc<Shared>,
    task: JoinHandle<()>,
}

struct Shared {
    registry: Arc<Mutex<Registry>>,
    serving: Serving,
    host: String,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    sessions: Sessions,
    tokens: Tokens,
    faults: Vec<Fault>,
    seen: Vec<Seen>,
}

impl Served {
    pub(crate) async fn start(registry: Arc<Mutex<Registry>>, serving: Serving) -> io::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let address = listener.local_addr()?;
        let shared = Arc::new(Shared { registry, serving, host: address.to_string(), state: Mutex::default() });
        let task = tokio::spawn(accept(listener, Arc::clone(&shared)));
        Ok(Self { address, shared, task })
    }

    /// Host and port, as references have them.
    pub fn host(&self) -> String {
        self.address.to_string()
    }

    /// Orders a fault. Faults that befall the same request happen in the order in which they were ordered.
    pub fn inject(&self, fault: Fault) {
        self.shared.state().faults.push(fault);
    }

    /// Makes all tokens invalid, as their expiry does.
    pub fn expire_tokens(&self) {
        self.shared.state().tokens.clear();
    }

    /// The requests so far, in order.
    pub fn seen(&self) -> Vec<Seen> {
        self.shared.state().seen.clone()
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shared").field("host", &self.host).finish_non_exhaustive()
    }
}

/// Takes connections until it is aborted, which closes them all.
async fn accept(listener: TcpListener, shared: Arc<Shared>) {
    let mut connections = JoinSet::new();
    while let Ok((stream, _)) = listener.accept().await {
        let shared = Arc::clone(&shared);
        connections.spawn(async move {
            // A connection that breaks is the client's to notice.
            let _ = shared.converse(stream).await;
        });
        while connections.try_join_next().is_some() {}
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn converse(&self, stream: TcpStream) -> io::Result<()> {
        let mut stream = BufReader::new(stream);
        while let Some(head) = Head::read(&mut stream).await? {
            let effect = self.fault(&head);
            let limit = if let Some(Effect::CutRequest(limit)) = effect { Some(limit) } else { None };
            let body = head.body(&mut stream, limit).await?;
            let mut seen = Seen::of(&head, &body);
            let (reply, cut) = match effect {
                Some(Effect::CutRequest(_)) => {
                    self.note(seen);
                    return Ok(());
                }
                Some(Effect::Silence) => {
                    self.note(seen);
                    return std::future::pending().await;
                }
                Some(Effect::LoseAnswer) => {
                    self.answer(&head, body, true);
                    self.note(seen);
                    return Ok(());
                }
                Some(Effect::Answer { status, headers, body }) => (Reply { status, headers, body: body.into() }, None),
                Some(Effect::CutAnswer(cut)) => (self.answer(&head, body, true), Some(cut)),
                Some(Effect::NoMount) => (self.answer(&head, body, false), None),
                None => (self.answer(&head, body, true), None),
            };
            let sent = reply.sent(head.method == "HEAD", cut);
            (seen.status, seen.sent) = (reply.status, sent.len() as u64);
            self.note(seen);
            if !self.serving.delay.is_zero() {
                tokio::time::sleep(self.serving.delay).await;
            }
            reply.write(stream.get_mut(), &sent).await?;
            if cut.is_some() {
                return Ok(());
            }
        }
        Ok(())
    }

    fn answer(&self, head: &Head, body: bytes::Bytes, mounts: bool) -> Reply {
        let route = Route::of(head.url.path());
        let mut state = self.state();
        let state = &mut *state;
        if route == Route::Token {
            return self.serving.auth.token(head, &body, &mut state.tokens);
        }
        let actions = match (head.method.as_str(), &route) {
            ("GET" | "HEAD", _) => "pull",
            ("DELETE", Route::Manifest(..)) => "pull,delete",
            _ => "pull,push",
        };
        if let Some(repository) = route.repository()
            && let Some(refusal) = self.serving.auth.check(head, &self.host, repository, actions, &state.tokens)
        {
            return refusal;
        }
        let source = head.query("from").unwrap_or_default();
        let exchange = Exchange {
            registry: &self.registry,
            sessions: &mut state.sessions,
            locations: self.serving.locations,
            declare_digests: self.serving.declare_digests,
            may_mount: mounts && self.serving.auth.may_mount(head, &source, &state.tokens),
            host: &self.host,
            head,
            body,
        };
        exchange.answer(&route)
    }

    /// The fault that befalls a request, if any, used up by one.
    fn fault(&self, head: &Head) -> Option<Effect> {
        let mut state = self.state();
        let befalls = |fault: &Fault| {
            fault.times > 0
                && (fault.method.is_empty() || fault.method == head.method)
                && head.url.path().contains(fault.path)
        };
        let fault = state.faults.iter_mut().find(|fault| befalls(fault))?;
        fault.times -= 1;
        Some(fault.effect.clone())
    }

    fn note(&self, seen: Seen) {
        self.state().seen.push(seen);
    }
}

impl Seen {
    /// A request that has no answer yet.
    fn of(head: &Head, body: &[u8]) -> Self {
        Self {
            method: head.method.clone(),
            path: head.url.path().into(),
            query: head.url.query().unwrap_or_default().into(),
            authorization: head.header("authorization").map(str::to_owned),
            status: 0,
            received: body.len() as u64,
            sent: 0,
        }
    }
}
