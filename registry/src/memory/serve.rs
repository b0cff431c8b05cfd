//! The test registry's port, its diary and its faults.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use tokio::io::{AsyncWriteExt as _, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{JoinHandle, JoinSet};

use super::Registry;
use super::api::{Exchange, Route, Sessions};
use super::http::{Head, Pace, Reply};
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
    /// How many bytes of each body move in a second at most, in either direction; `None` for as many as there are.
    pub rate: Option<u64>,
    /// When it looks at a request's login.
    pub checks: Checks,
    /// How many seconds its token server says that a token lives; `None` for one that does not say.
    pub expires_in: Option<u64>,
}

impl Default for Serving {
    fn default() -> Self {
        let (auth, locations, delay) = (Auth::Anonymous, Locations::Relative, Duration::ZERO);
        let (rate, checks, expires_in) = (None, Checks::Behind, Some(3600));
        Self { auth, locations, declare_digests: true, delay, rate, checks, expires_in }
    }
}

/// When the login of a request is looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Checks {
    /// When all of its body has come: so it is behind a proxy that keeps requests until they are whole.
    Behind,
    /// Before its body. A refusal does not wait for it, and the connection ends.
    AtHead,
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
    /// The same, and an upload's session has what came.
    KeepRequest(u64),
    /// The connection is cut after this many bytes of the answer's body.
    CutAnswer(usize),
    /// The request is carried out, and the connection cut instead of an answer.
    LoseAnswer,
    /// Nothing comes, ever.
    Silence,
    /// A mount is answered as if it were the start of an upload.
    NoMount,
    /// The bodies of the request and its answer move no faster than so many bytes a second.
    Slow(u64),
    /// The request is carried out, and its answer has this header instead of the right one; `None` for none.
    Header(&'static str, Option<String>),
    /// All tokens are over when the request comes.
    ExpireTokens,
    /// The request is sent to the same path on this host, by 307, and has no effect here.
    Elsewhere(String),
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
            // A connection that breaks is the client's to notice. Without the option, the body of each answer would wait for
            // the client to acknowledge the head, which clients put off for 40 ms.
            let _ = stream.set_nodelay(true);
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
            if matches!(effect, Some(Effect::ExpireTokens)) {
                self.state().tokens.clear();
            }
            let at_head = self.serving.checks == Checks::AtHead;
            let refusal = at_head.then(|| self.refusal(&head, &Route::of(head.url.path()), &self.state().tokens));
            if let Some(refusal) = refusal.flatten() {
                return self.refuse(&head, refusal, stream.get_mut()).await;
            }
            let (mut limit, mut pace) = (None, Pace(self.serving.rate));
            match effect {
                Some(Effect::CutRequest(bytes) | Effect::KeepRequest(bytes)) => limit = Some(bytes),
                Some(Effect::Slow(rate)) => pace = Pace(Some(rate)),
                _ => {}
            }
            let body = head.body(&mut stream, limit, pace).await?;
            let mut seen = Seen::of(&head, &body);
            let (mut reply, cut) = match &effect {
                Some(Effect::CutRequest(_)) => {
                    self.note(seen);
                    return Ok(());
                }
                Some(Effect::KeepRequest(_)) => {
                    self.keep(&head, &body);
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
                Some(Effect::Answer { status, headers, body }) => {
                    (Reply { status: *status, headers: headers.clone(), body: body.clone().into() }, None)
                }
                Some(Effect::Elsewhere(host)) => (elsewhere(&head, host), None),
                Some(Effect::CutAnswer(cut)) => (self.answer(&head, body, true), Some(*cut)),
                Some(Effect::NoMount) => (self.answer(&head, body, false), None),
                Some(Effect::Slow(_) | Effect::Header(..) | Effect::ExpireTokens) | None => {
                    (self.answer(&head, body, true), None)
                }
            };
            if let Some(Effect::Header(name, value)) = effect {
                reply.headers.retain(|(key, _)| key != name);
                reply.headers.extend(value.map(|value| (name.to_owned(), value)));
            }
            let sent = reply.sent(head.method == "HEAD", cut);
            (seen.status, seen.sent) = (reply.status, sent.len() as u64);
            self.note(seen);
            if !self.serving.delay.is_zero() {
                tokio::time::sleep(self.serving.delay).await;
            }
            reply.write(stream.get_mut(), &sent, pace).await?;
            if cut.is_some() {
                return Ok(());
            }
        }
        Ok(())
    }

    fn answer(&self, head: &Head, body: Bytes, mounts: bool) -> Reply {
        let route = Route::of(head.url.path());
        let mut state = self.state();
        let state = &mut *state;
        if route == Route::Token {
            return self.serving.auth.token(head, &body, self.serving.expires_in, &mut state.tokens);
        }
        if self.serving.checks == Checks::Behind
            && let Some(refusal) = self.refusal(head, &route, &state.tokens)
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

    /// What is answered to a request whose login is not good for it.
    fn refusal(&self, head: &Head, route: &Route, tokens: &Tokens) -> Option<Reply> {
        let actions = match (head.method.as_str(), route) {
            (_, Route::Upload(..)) => "pull,push",
            ("GET" | "HEAD", _) => "pull",
            ("DELETE", Route::Manifest(..)) => "pull,delete",
            _ => "pull,push",
        };
        self.serving.auth.check(head, &self.host, route.repository()?, actions, tokens)
    }

    /// Refuses a request before its body has come, and lets its sender have time to hear of it.
    async fn refuse(&self, head: &Head, refusal: Reply, stream: &mut TcpStream) -> io::Result<()> {
        self.note(Seen { status: refusal.status, sent: refusal.body.len() as u64, ..Seen::of(head, &[]) });
        let body = refusal.body.clone();
        refusal.with("connection", "close").write(stream, &body, Pace(None)).await?;
        stream.shutdown().await?;
        tokio::time::sleep(Duration::from_millis(200)).await;
        Ok(())
    }

    /// Gives an upload's session what came of a request that did not come whole.
    fn keep(&self, head: &Head, body: &Bytes) {
        if let Route::Upload(_, id) = Route::of(head.url.path())
            && let Some(session) = self.state().sessions.get_mut(&id)
        {
            session.keep(body);
        }
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

fn elsewhere(head: &Head, host: &str) -> Reply {
    let mut url = head.url.clone();
    // Neither can fail with the host of a server.
    _ = url.set_host(host.split(':').next());
    _ = url.set_port(host.rsplit(':').next().and_then(|port| port.parse().ok()));
    Reply::new(307).with("location", url)
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
