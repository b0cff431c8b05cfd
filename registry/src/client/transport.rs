//! One request: its login, its redirects, its silence, and its repetition.

use std::io::Read as _;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use reqwest::header::{ACCEPT, AUTHORIZATION, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, RANGE, WARNING};
use reqwest::{Method, RequestBuilder, Url};
use yadokari_layers::Growing;

use super::answer::{Answer, Secrets};
use super::auth::Scopes;
use super::body::{Progress, stream};
use super::endpoint::{Endpoint, host_of, next_location};
use super::patience::warning;
use super::reach::is_loopback;
use super::retry::{Again, Backoff, Failed};
use super::{ClientInner, challenge};
use crate::error::Failure;
use crate::{BlobSource, Error};

/// Storage redirects once; more than a few is a loop.
const MAX_REDIRECTS: usize = 5;

/// A login that is refused sooner is not refused because it was over when the body had come: none lives so short.
const AT_ONCE: Duration = Duration::from_millis(250);

/// What blobs are sent as.
const BLOB: &str = "application/octet-stream";

/// A request, repeatable.
pub(crate) struct Call<'a> {
    pub(crate) method: Method,
    pub(crate) url: Url,
    /// For messages: what is being done, with its operand.
    pub(crate) operation: String,
    pub(crate) scopes: Scopes,
    pub(crate) accept: Option<&'static str>,
    /// The first byte of the body that is wanted.
    pub(crate) from: u64,
    pub(crate) body: Body<'a>,
    /// The statuses that are an answer; all others are failures.
    pub(crate) answers: &'static [u16],
}

/// What a request carries.
pub(crate) enum Body<'a> {
    None,
    Manifest(&'a str, Bytes),
    Blob(&'a dyn BlobSource),
    /// The bytes of a blob from the first number to before the second.
    Part(&'a dyn BlobSource, u64, u64),
    /// A blob that is still being written.
    Growing(&'a Growing),
    /// Nothing any more: the blob was sent before, and what is asked for now may take as long as after the last byte of one.
    Sent,
}

impl Call<'_> {
    pub(crate) fn new(method: Method, url: Url, operation: String, scopes: Scopes, answers: &'static [u16]) -> Self {
        Call { method, url, operation, scopes, accept: None, from: 0, body: Body::None, answers }
    }
}

/// A repository as its client reaches it.
#[derive(Clone, Copy)]
pub(crate) struct Connection<'a> {
    pub(crate) client: &'a Arc<ClientInner>,
    pub(crate) endpoint: &'a Endpoint,
}

impl Connection<'_> {
    /// Makes the request until it is answered, or until trying again is pointless.
    pub(crate) async fn send(&self, call: &Call<'_>) -> Result<Answer, Error> {
        let mut backoff = Backoff::new(self.client, &self.endpoint.registry);
        loop {
            match self.once(call).await {
                Ok(answer) => return Ok(answer),
                Err(failed) => backoff.wait(failed).await?,
            }
        }
    }

    /// Makes the request once, which may take several: one refused for its login, and redirects.
    pub(crate) async fn once(&self, call: &Call<'_>) -> Result<Answer, Failed> {
        let origin = self.origin().await?;
        self.client.patience.wait(&self.endpoint.registry).await;
        let mut url = call.url.clone();
        let mut method = call.method.clone();
        let mut authorization = self.known(&origin, &call.scopes).await?;
        let mut renewed = false;
        let mut redirects = 0;
        let mut ours = true;
        loop {
            // The login is the registry's: storage behind a redirect, or an upload session elsewhere, never sees it. Nor does the
            // registry when others lead back to it: what to ask it with our login is not theirs to say.
            ours &= url.origin() == origin.origin();
            let (progress, started) = (Arc::new(Progress::default()), Instant::now());
            let mut request = self.request(call, &method, &url, &progress)?;
            if let Some(value) = authorization.as_ref().filter(|_| ours).and_then(|given| given.value()) {
                request = request.header(AUTHORIZATION, value);
            }
            let watched = (!matches!(call.body, Body::None | Body::Manifest(..))).then_some(&progress);
            let answer = match self.execute(request, &call.operation, watched.map(|progress| &**progress)).await {
                Ok(answer) => answer,
                Err(failed) => return Err(self.blame(call, &progress, failed)),
            };
            let status = answer.status();
            if status == 401 && ours {
                let part = self.lasting(call, &origin, &progress, started.elapsed(), renewed).await;
                if let Some(part) = part {
                    let refused = answer.refused(&self.endpoint.registry).await;
                    return Err(Failed { again: Again::InParts(part), ..refused });
                }
            }
            if status == 401 && ours && !renewed {
                renewed = true;
                let challenges = challenge::parse(answer.headers("www-authenticate"));
                let stale = (authorization.as_ref(), started);
                let renewal = self.authorize(&origin, &challenges, &call.scopes, stale).await?;
                if renewal.is_some() {
                    authorization = renewal;
                    continue;
                }
            }
            let reading = matches!(call.method, Method::GET | Method::HEAD);
            let redirected = matches!(status, 307 | 308) || reading && matches!(status, 301..=303);
            if redirected && let Some(location) = answer.header("location") {
                redirects += 1;
                if redirects > MAX_REDIRECTS {
                    return Err(answer.broken(format!("it redirects more than {MAX_REDIRECTS} times")).into());
                }
                url = next_location(&url, location).map_err(|reason| answer.broken(reason))?;
                continue;
            }
            if call.answers.contains(&status) {
                return Ok(answer);
            }
            // Some registries refuse HEAD as a method, and the signatures of some storage cover only GET. If GET is
            // refused too, its answer at least has a body with the registry's words.
            if method == Method::HEAD && matches!(status, 401 | 403 | 405) {
                (method, url, ours) = (Method::GET, call.url.clone(), true);
                continue;
            }
            return Err(answer.refused(&self.endpoint.registry).await);
        }
    }

    /// After a refusal that came when a body had `took` this long: how many bytes a request may have so that its token is
    /// still good when they have come. `None` where that is not the matter, or a new token may do.
    ///
    /// Registries look at the token first; a proxy before one that keeps requests until they are whole makes it last.
    async fn lasting(
        &self,
        call: &Call<'_>,
        origin: &Url,
        progress: &Progress,
        took: Duration,
        renewed: bool,
    ) -> Option<u64> {
        if !matches!(call.body, Body::Blob(_) | Body::Part(..) | Body::Growing(_)) || took < AT_ONCE {
            return None;
        }
        let life = self.token_life(origin, &call.scopes).await?;
        // What a token server says may be wrong, but a token that was new and is refused did not live longer than this.
        let may_last = !renewed && took < life;
        (!may_last).then(|| (progress.sent() as f64 * life.min(took).as_secs_f64() / took.as_secs_f64() / 2.0) as u64)
    }

    /// Makes a request for the registry, and passes on what it warns of.
    pub(crate) async fn execute(
        &self,
        request: RequestBuilder,
        operation: &str,
        progress: Option<&Progress>,
    ) -> Result<Answer, Failed> {
        let registry = &self.endpoint.registry;
        let answer = self.client.execute(Some(registry), request, operation, progress).await?;
        for text in answer.headers(WARNING.as_str()).filter_map(warning) {
            let text = format!("{registry} warns: {}", answer.said(&text));
            self.client.warn_once(&text, || text.clone());
        }
        Ok(answer)
    }

    fn request(
        &self,
        call: &Call<'_>,
        method: &Method,
        url: &Url,
        progress: &Arc<Progress>,
    ) -> Result<RequestBuilder, Error> {
        let mut request = self.client.clients.ordinary().request(method.clone(), url.clone());
        if let Some(accept) = call.accept {
            request = request.header(ACCEPT, accept);
        }
        if call.from > 0 {
            request = request.header(RANGE, format!("bytes={}-", call.from));
        }
        Ok(match &call.body {
            // Some registries refuse a POST without a length.
            Body::None if call.method == Method::POST => request.header(CONTENT_LENGTH, 0),
            Body::None => request,
            Body::Sent => {
                progress.end();
                request.header(CONTENT_LENGTH, 0)
            }
            Body::Manifest(media_type, bytes) => request.header(CONTENT_TYPE, *media_type).body(bytes.clone()),
            Body::Blob(source) => {
                let reader = source.open().map_err(|error| read_error(*source, error))?;
                request.header(CONTENT_TYPE, BLOB).header(CONTENT_LENGTH, source.size()).body(stream(
                    reader,
                    Some(source.size()),
                    progress,
                ))
            }
            Body::Part(source, from, to) => {
                let reader = source.open_from(*from).map_err(|error| read_error(*source, error))?;
                let (reader, size) = (Box::new(reader.take(to - from)), to - from);
                // The distribution specification's form: HTTP's own would begin with a unit.
                let range = format!("{from}-{}", to - 1);
                let request = request.header(CONTENT_TYPE, BLOB).header(CONTENT_LENGTH, size);
                request.header(CONTENT_RANGE, range).body(stream(reader, Some(size), progress))
            }
            Body::Growing(blob) => {
                request.header(CONTENT_TYPE, BLOB).body(stream(Box::new(blob.open()), None, progress))
            }
        })
    }

    /// A body that its source could not give looks like a broken connection; it is not the registry's fault.
    fn blame(&self, call: &Call<'_>, progress: &Progress, failed: Failed) -> Failed {
        match (&call.body, progress.take_failure()) {
            (Body::Blob(source) | Body::Part(source, ..), Some(error)) => read_error(*source, error).into(),
            _ => failed,
        }
    }

    /// The registry's address. Where both schemes are allowed the first that gets any answer is taken, and
    /// remembered: for loopback hosts plain HTTP first, for insecure registries HTTPS first.
    pub(crate) async fn origin(&self) -> Result<Url, Failed> {
        let host = self.endpoint.host();
        let url = |scheme: &str| {
            Url::parse(&format!("{scheme}://{host}/"))
                .map_err(|error| Error::Configuration { what: format!("registry '{host}'"), reason: error.to_string() })
        };
        let https = url("https")?;
        self.client.admit(&https, &format!("connect to {}", self.endpoint.registry))?;
        let options = &self.client.options;
        let insecure = options.insecure
            || options.insecure_registries.iter().any(|name| name == host || *name == self.endpoint.registry);
        let order = match (is_loopback(&https), insecure) {
            (true, _) => [url("http")?, https],
            (false, true) => [https, url("http")?],
            (false, false) => return Ok(https),
        };
        if let Some(known) = self.client.known_origin(host) {
            return Ok(known);
        }
        // Many requests may begin at once; one of them finds out for all.
        let _alone = self.client.probing.lock().await;
        if let Some(known) = self.client.known_origin(host) {
            return Ok(known);
        }
        let mut failures = Vec::new();
        for origin in order {
            match self.probe(&origin).await {
                Ok(true) => {
                    self.client.remember_origin(host, &origin);
                    return Ok(origin);
                }
                Ok(false) => {}
                Err(failure) => failures.push(failure),
            }
        }
        let source = match (failures.pop(), failures.pop()) {
            (Some(second), Some(first)) if first.to_string() != second.to_string() => {
                Failure::Both { first: Box::new(first), second: Box::new(second) }
            }
            (Some(only), _) => only,
            (None, _) => Failure::Silent(Duration::ZERO),
        };
        let operation = format!("connect to {}", self.endpoint.registry);
        Err(Error::Unreachable { operation, host: host.into(), source }.into())
    }

    /// Whether a registry answers at `origin`. A TLS server that was spoken to in plain HTTP answers 400, in Go with
    /// these words.
    async fn probe(&self, origin: &Url) -> Result<bool, Failure> {
        let url = origin.join("v2/").unwrap_or_else(|_| origin.clone());
        let request = self.client.clients.ordinary().request(Method::GET, url);
        let mut answer = match self.execute(request, "connect", None).await {
            Ok(answer) => answer,
            Err(Failed { error: Error::Unreachable { source, .. }, .. }) => return Err(source),
            Err(_) => return Ok(false),
        };
        if origin.scheme() == "http" && answer.status() == 400 {
            let words = answer.bytes(64 << 10).await.unwrap_or_default();
            return Ok(!String::from_utf8_lossy(&words).contains("HTTPS"));
        }
        Ok(true)
    }
}

impl ClientInner {
    /// Sends a prepared request, on behalf of a registry or of none, and waits for the head of its answer.
    ///
    /// Silence is measured, not duration: while a body moves, an upload may take as long as it takes. After its last
    /// byte the registry has `commit` to answer, since some move the whole blob first.
    pub(crate) async fn execute(
        &self,
        registry: Option<&str>,
        request: RequestBuilder,
        operation: &str,
        progress: Option<&Progress>,
    ) -> Result<Answer, Failed> {
        let timeouts = self.options.timeouts;
        let request = request.build().map_err(|error| Error::Configuration {
            what: operation.into(),
            reason: format!("the request cannot be built: {}", error.without_url()),
        })?;
        self.admit(request.url(), operation)?;
        let (host, secrets) = (host_of(request.url()), Secrets::of(&request));
        let unreachable = |source| Error::Unreachable { operation: operation.into(), host, source };
        if self.options.proxies.are_none() {
            self.options.names.know(request.url()).await;
        }
        let http = self.clients.of(&self.options, registry, request.url());
        let mut response = std::pin::pin!(http.execute(request));
        loop {
            let before = progress.map(Progress::sent);
            let complete = progress.is_some_and(Progress::is_complete);
            let limit = if complete { timeouts.commit } else { timeouts.silence };
            match tokio::time::timeout(limit, &mut response).await {
                Ok(Ok(response)) => return Ok(Answer::new(response, operation.into(), timeouts.silence, secrets)),
                Ok(Err(error)) => return Err(unreachable(Failure::Transport(error.without_url())).into()),
                Err(_) if progress.map(Progress::sent) != before => {}
                Err(_) if progress.is_some_and(Progress::is_complete) && !complete => {}
                Err(_) => return Err(unreachable(Failure::Silent(limit)).into()),
            }
        }
    }
}

fn read_error(source: &dyn BlobSource, error: std::io::Error) -> Error {
    Error::Io { operation: "read blob", path: source.digest().to_string().into(), source: error }
}
