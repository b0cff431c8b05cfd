//! Plain HTTP: what is fetched from a server that is no registry, through the same proxies and authorities.

use std::fs::File;
use std::io::{self, Seek, Write};

use bytes::Bytes;
use reqwest::header::{AUTHORIZATION, HeaderName, HeaderValue, LAST_MODIFIED};
use reqwest::{Method, Url};
use yadokari_layers::{Digest, Hasher};

use super::answer::Answer;
use super::endpoint::{host_of, next_location, next_page, shown};
use super::reach::Zone;
use super::retry::{Backoff, Failed, http_date};
use super::{Client, ClientInner};
use crate::{Error, Result, Secret};

/// As many redirects as Go's client follows, which is what BuildKit fetches with.
const MAX_REDIRECTS: usize = 10;

/// A request to any server. A registry's login is never sent with it.
#[derive(Debug, Clone)]
pub struct Request {
    method: Method,
    url: Url,
    headers: Vec<(HeaderName, HeaderValue)>,
    authorization: Option<Secret>,
    body: Option<Bytes>,
    /// Redirects may lead from HTTPS to plain HTTP.
    lenient: bool,
    /// Redirects are failures.
    direct: bool,
    /// Failures are final.
    once: bool,
}

/// What became of a download.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Download {
    /// The digest of all bytes.
    pub digest: Digest,
    /// Their number.
    pub size: u64,
    /// `Last-Modified`, in seconds since 1970.
    pub last_modified: Option<i64>,
}

/// An answer whose body is still to be read.
#[derive(Debug)]
pub struct Reply(Answer);

impl Request {
    /// A GET of `url`, whose scheme must be HTTP or HTTPS. A user and password in it are sent to its host.
    pub fn get(url: &str) -> Result<Self> {
        let failed = |reason: String| Error::Configuration { what: "URL".into(), reason };
        // The text may hold a password, so the error does not quote it.
        let url = Url::parse(url).map_err(|error| failed(error.to_string()))?;
        if !matches!(url.scheme(), "http" | "https") {
            return Err(failed(format!("the scheme {} is not HTTP or HTTPS", url.scheme())));
        }
        Ok(Self {
            method: Method::GET,
            url,
            headers: Vec::new(),
            authorization: None,
            body: None,
            lenient: true,
            direct: false,
            once: false,
        })
    }

    /// Makes it a POST of `body`.
    pub fn post(mut self, body: impl Into<Bytes>) -> Self {
        (self.method, self.body) = (Method::POST, Some(body.into()));
        self
    }

    /// Makes it a PUT of `body`.
    pub fn put(mut self, body: impl Into<Bytes>) -> Self {
        (self.method, self.body) = (Method::PUT, Some(body.into()));
        self
    }

    /// Adds a header. Its value is not shown; where redirects lead it goes along, but for [`Request::direct`].
    pub fn header(mut self, name: &str, value: &str) -> Result<Self> {
        let bad = || Error::Configuration { what: format!("header '{name}'"), reason: "it is not valid".into() };
        let name = HeaderName::from_bytes(name.as_bytes()).map_err(|_| bad())?;
        let mut value = HeaderValue::from_str(value).map_err(|_| bad())?;
        value.set_sensitive(true);
        self.headers.push((name, value));
        Ok(self)
    }

    /// Sends this `Authorization` to the URL's own origin; a redirect elsewhere does not get it.
    pub fn authorization(mut self, value: Secret) -> Self {
        self.authorization = Some(value);
        self
    }

    /// Refuses redirects from HTTPS to plain HTTP.
    pub fn strict(mut self) -> Self {
        self.lenient = false;
        self
    }

    /// Follows no redirect: what carries secrets in its body or its headers goes to its URL alone. That may be a metadata server,
    /// which no other request asks.
    pub fn direct(mut self) -> Self {
        self.direct = true;
        self
    }

    /// Makes a single try.
    pub fn once(mut self) -> Self {
        self.once = true;
        self
    }

    /// The URL for messages: without a user, a password and a query, which may be secret.
    pub fn shown(&self) -> String {
        shown(&self.url)
    }
}

impl Reply {
    /// Where the answer came from in the end, after all redirects.
    pub fn url(&self) -> &str {
        self.0.url().as_str()
    }

    /// A header's value; `None` where it is absent or not text.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.0.header(name)
    }

    /// The next piece of the body; `None` at its end. The end of a body that was cut is an error.
    pub async fn piece(&mut self) -> Result<Option<Bytes>> {
        self.0.piece().await
    }
}

impl Client {
    /// Makes a request until it is answered with success, or until trying again is pointless. Every other status is an
    /// error with the server's own words.
    pub async fn fetch(&self, request: &Request) -> Result<Reply> {
        let host = host_of(&request.url);
        let mut backoff = Backoff::new(&self.0, &host);
        loop {
            match self.0.plain(request).await {
                Ok(answer) => return Ok(Reply(answer)),
                Err(failed) if request.once => return Err(failed.error),
                Err(failed) => backoff.wait(failed).await?,
            }
        }
    }

    /// Downloads into `file`, which is emptied first. Where the connection breaks it starts again.
    pub async fn download(&self, request: &Request, file: &mut File) -> Result<Download> {
        let host = host_of(&request.url);
        let mut backoff = Backoff::new(&self.0, &host);
        loop {
            match self.0.download_once(request, file).await {
                Ok(download) => return Ok(download),
                Err(failed) => backoff.wait(failed).await?,
            }
        }
    }
}

impl ClientInner {
    async fn download_once(&self, request: &Request, file: &mut File) -> Result<Download, Failed> {
        let mut answer = self.plain(request).await?;
        let last_modified = answer.header(LAST_MODIFIED.as_str()).and_then(http_date);
        let last_modified = last_modified.and_then(|seconds| i64::try_from(seconds).ok());
        let failed =
            |source: io::Error| Error::Io { operation: "write what comes from", path: request.shown().into(), source };
        file.set_len(0).and_then(|()| file.rewind()).map_err(failed)?;
        let (mut hasher, mut size) = (Hasher::default(), 0);
        while let Some(piece) = answer.piece().await? {
            hasher.update(&piece);
            size += piece.len() as u64;
            file.write_all(&piece).map_err(failed)?;
        }
        Ok(Download { digest: hasher.finish(), size, last_modified })
    }

    /// Makes the request once, redirects included.
    async fn plain(&self, call: &Request) -> Result<Answer, Failed> {
        let verb = match call.method {
            Method::PUT => "write to",
            Method::POST => "ask",
            _ => "fetch",
        };
        let operation = format!("{verb} {}", call.shown());
        self.patience.wait(&host_of(&call.url)).await;
        let mut url = call.url.clone();
        match (Zone::of(&url), call.direct) {
            (_, true) => self.clients.reach().free(&url),
            // What a metadata server tells is this machine's login. Only who looks for one asks it.
            (Zone::Metadata, false) => {
                let reason = "it is an address of a metadata server, which nothing is fetched from";
                return Err(Error::Configuration { what: call.shown(), reason: reason.into() }.into());
            }
            _ => self.clients.reach().name(&url),
        }
        let mut redirects = 0;
        let mut ours = true;
        loop {
            // Who was led elsewhere does not come back with the login.
            ours &= url.origin() == call.url.origin();
            let mut request = self.clients.ordinary().request(call.method.clone(), url.clone());
            for (name, value) in &call.headers {
                request = request.header(name, value);
            }
            if let Some(value) = call.authorization.as_ref().filter(|_| ours) {
                let bad = |_| Error::Configuration {
                    what: format!("the login for {}", host_of(&url)),
                    reason: "it holds characters that no header can".into(),
                };
                let mut value = HeaderValue::from_str(value.expose()).map_err(bad)?;
                value.set_sensitive(true);
                request = request.header(AUTHORIZATION, value);
            }
            if let Some(body) = &call.body {
                request = request.body(body.clone());
            }
            let answer = self.execute(None, request, &operation, None).await?;
            let status = answer.status();
            let redirected = matches!(status, 307 | 308) || call.body.is_none() && matches!(status, 301..=303);
            if redirected
                && !call.direct
                && let Some(location) = answer.header("location")
            {
                redirects += 1;
                if redirects > MAX_REDIRECTS {
                    return Err(answer.broken(format!("it redirects more than {MAX_REDIRECTS} times")).into());
                }
                let next = if call.lenient { next_page(&url, location) } else { next_location(&url, location) };
                let mut next = next.map_err(|reason| answer.broken(reason))?;
                if ours && next.origin() == url.origin() && next.username().is_empty() {
                    // Neither can fail on a URL with a host; where it does there is no login.
                    _ = next.set_username(url.username());
                    _ = next.set_password(url.password());
                }
                url = next;
                continue;
            }
            if (200..300).contains(&status) {
                return Ok(answer);
            }
            let host = host_of(&url);
            return Err(answer.refused(&host).await);
        }
    }
}
