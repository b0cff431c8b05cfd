//! What a registry answered.

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use reqwest::header::{AUTHORIZATION, CONTENT_TYPE, HeaderMap, RETRY_AFTER};
use reqwest::{Body, Request, Response, Url};
use serde_json::Value;
use yadokari_layers::{Digest, Mismatch};

use super::endpoint::{host_of, shown};
use super::retry::{Again, Failed, is_transient, retry_after};
use crate::error::Failure;
use crate::{Error, Result, Secret};

/// The most that is read of an error's body.
const MAX_WORDS: u64 = 64 << 10;

/// The fewest bytes in a second that are worth waiting for: a modem brings fifty times as many.
const SLOWEST: f64 = 100.0;

/// How many silences a document may take that is read as a whole. A blob may be as large as it is; a manifest in drops of the
/// least that is worth waiting for would take two days.
const DOCUMENT: u32 = 5;

/// The shortest secret that is looked for in what servers say: a shorter one is in every other word.
const LEAST_SECRET: usize = 4;

/// The fields of the forms of token servers, registries' and clouds', that hold a secret.
const FORM_SECRETS: [&str; 7] =
    ["password", "refresh_token", "access_token", "client_secret", "client_assertion", "assertion", "subject_token"];

/// An answer, and what it answers.
#[derive(Debug)]
pub(crate) struct Answer {
    response: Response,
    operation: Arc<str>,
    silence: Duration,
    /// How long the body was waited for, and what came meanwhile, since it was last looked at.
    waited: Duration,
    came: u64,
    secrets: Secrets,
}

/// What was sent with a request and must not be in a message: some servers quote what they do not like.
#[derive(Debug, Default)]
pub(crate) struct Secrets(Vec<Secret>);

impl Secrets {
    /// Those of a request, in all the forms in which they are sent.
    pub(crate) fn of(request: &Request) -> Self {
        let mut all = Self::default();
        let headers = request.headers();
        let values = headers.values().filter(|value| value.is_sensitive());
        values.filter_map(|value| value.to_str().ok()).for_each(|value| all.add(value));
        for value in headers.get_all(AUTHORIZATION).iter().filter_map(|value| value.to_str().ok()) {
            let (_, secret) = value.split_once(' ').unwrap_or_default();
            all.add(secret);
            // User and password, where it is no token.
            let pair = STANDARD.decode(secret).ok().and_then(|pair| String::from_utf8(pair).ok());
            all.add(pair.as_deref().and_then(|pair| pair.split_once(':')).map_or("", |(_, password)| password));
        }
        if headers.get(CONTENT_TYPE).is_some_and(|value| value == "application/x-www-form-urlencoded") {
            all.add_form(request.body().and_then(Body::as_bytes).unwrap_or_default());
        }
        all
    }

    /// Those of a form: as they are, as the form has them, and a password as it was sent with a user before.
    fn add_form(&mut self, form: &[u8]) {
        let text = String::from_utf8_lossy(form);
        let Ok(url) = Url::parse(&format!("http://form/?{text}")) else { return };
        let user = url.query_pairs().find(|(name, _)| name == "username").map(|(_, user)| user.into_owned());
        for ((name, value), sent) in url.query_pairs().zip(text.split('&')) {
            if !FORM_SECRETS.contains(&&*name) {
                continue;
            }
            self.add(&value);
            self.add(sent.split_once('=').map_or("", |(_, sent)| sent));
            if let Some(user) = &user {
                self.add(&STANDARD.encode(format!("{user}:{value}")));
            }
        }
    }

    fn add(&mut self, secret: &str) {
        if secret.len() >= LEAST_SECRET {
            self.0.push(Secret::new(secret));
        }
    }

    /// A text without them.
    fn hide(&self, text: &str) -> String {
        self.0.iter().fold(text.to_owned(), |text, secret| text.replace(secret.expose(), "***"))
    }
}

impl Answer {
    pub(crate) fn new(response: Response, operation: Arc<str>, silence: Duration, secrets: Secrets) -> Self {
        Self { response, operation, silence, waited: Duration::ZERO, came: 0, secrets }
    }

    /// What the server said, as it may be shown.
    pub(crate) fn said(&self, text: &str) -> String {
        clean(&self.secrets.hide(text))
    }

    pub(crate) fn status(&self) -> u16 {
        self.response.status().as_u16()
    }

    pub(crate) fn url(&self) -> &Url {
        self.response.url()
    }

    /// A header's value; `None` where it is absent or not text.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.response.headers().get(name)?.to_str().ok()
    }

    /// All values of a header.
    pub(crate) fn headers(&self, name: &str) -> impl Iterator<Item = &str> {
        self.response.headers().get_all(name).iter().filter_map(|value| value.to_str().ok())
    }

    /// The digest that the registry declares; one of another algorithm cannot be compared with ours.
    pub(crate) fn declared_digest(&self) -> Option<Digest> {
        self.header("docker-content-digest")?.trim().parse().ok()
    }

    /// Checks that the registry speaks of the blob that it was asked about, where it says what it speaks of.
    pub(crate) fn expect(&self, expected: &Digest, store: &str) -> Result<()> {
        match self.declared_digest() {
            Some(found) if found != *expected => {
                let mismatch = Mismatch::Digest { expected: *expected, found };
                Err(Error::Mismatch { store: store.into(), mismatch })
            }
            _ => Ok(()),
        }
    }

    /// The next piece of the body; `None` at its end. The end of a body that was cut is an error, and so is one that comes
    /// in drops: only the time spent here counts, since whoever reads may be slow himself.
    pub(crate) async fn piece(&mut self) -> Result<Option<Bytes>> {
        let started = Instant::now();
        let piece = tokio::time::timeout(self.silence, self.response.chunk()).await;
        let piece = match piece {
            Ok(Ok(Some(piece))) => piece,
            Ok(Ok(None)) => return Ok(None),
            Ok(Err(error)) => return Err(self.unreachable(Failure::Transport(error.without_url()))),
            Err(_) => return Err(self.unreachable(Failure::Silent(self.silence))),
        };
        self.waited += started.elapsed();
        self.came += piece.len() as u64;
        if self.waited >= self.silence {
            let (waited, came) = (std::mem::take(&mut self.waited), std::mem::take(&mut self.came));
            if (came as f64) < waited.as_secs_f64() * SLOWEST {
                return Err(self.unreachable(Failure::Slow { bytes: came, during: waited }));
            }
        }
        Ok(Some(piece))
    }

    fn unreachable(&self, source: Failure) -> Error {
        let (operation, host) = (self.operation.to_string(), host_of(self.response.url()));
        Error::Unreachable { operation, host, source }
    }

    /// The rest of the body, which must not be longer than `limit`, nor take as long as only a blob may.
    pub(crate) async fn bytes(&mut self, limit: u64) -> Result<Bytes> {
        let mut bytes = Vec::new();
        let started = Instant::now();
        while let Some(piece) = self.piece().await? {
            let during = started.elapsed();
            if during > self.silence * DOCUMENT {
                return Err(self.unreachable(Failure::Slow { bytes: bytes.len() as u64, during }));
            }
            if (bytes.len() + piece.len()) as u64 > limit {
                return Err(self.broken(format!("its answer is longer than {limit} bytes")));
            }
            bytes.extend_from_slice(&piece);
        }
        Ok(bytes.into())
    }

    /// The error of an answer that breaks the protocol.
    pub(crate) fn broken(&self, reason: String) -> Error {
        let (url, reason) = (self.said(&shown(self.url())), self.said(&reason));
        Error::Protocol { operation: self.operation.to_string(), url, reason }
    }

    /// The error of an answer that says no, in the registry's own words.
    pub(crate) async fn refused(mut self, registry: &str) -> Failed {
        let (status, url) = (self.status(), self.said(&shown(self.url())));
        let after = self.header(RETRY_AFTER.as_str()).and_then(|value| retry_after(value, SystemTime::now()));
        let limits = rate_limits(self.response.headers());
        let mut body = Vec::new();
        let started = Instant::now();
        // The words are a help: where they cannot be read, or not soon, the status alone has to do.
        while let Ok(Some(piece)) = self.piece().await {
            body.extend_from_slice(&piece);
            if body.len() as u64 > MAX_WORDS || started.elapsed() > self.silence {
                break;
            }
        }
        let (code, mut message) = words(&body, &self.secrets);
        if message.is_empty() {
            message = self.response.status().canonical_reason().unwrap_or("no reason given").into();
        }
        message.extend(limits.map(|limits| self.said(&limits)).map(|limits| format!(" {limits}")));
        let operation = self.operation.to_string();
        if matches!(status, 401 | 403) {
            let error = Error::Unauthorized { registry: registry.into(), operation, message };
            return Failed { error, again: Again::No };
        }
        let again = match after {
            _ if !is_transient(status) => Again::No,
            Some(after) => Again::After(after),
            None => Again::Later,
        };
        Failed { error: Error::Refused { operation, url, status, code, message }, again }
    }
}

/// Docker Hub says how many pulls are allowed and left; whoever is refused wants to know.
fn rate_limits(headers: &HeaderMap) -> Option<String> {
    let value = |name| headers.get(name)?.to_str().ok();
    Some(format!("(limit {}, remaining {})", value("ratelimit-limit")?, value("ratelimit-remaining")?))
}

/// Code and message of an error body: the distribution specification's, a token server's, or plain text.
fn words(body: &[u8], secrets: &Secrets) -> (Option<String>, String) {
    let text = String::from_utf8_lossy(body);
    // Before they are cut to a length, which might leave half of a secret.
    let clean = |text: &str| clean(&secrets.hide(text));
    let Ok(json) = serde_json::from_slice::<Value>(body) else {
        // A proxy's HTML page says nothing that its status does not.
        return (None, if text.trim_start().starts_with('<') { String::new() } else { clean(&text) });
    };
    let string = |value: &Value, name: &str| value.get(name).and_then(Value::as_str).map(str::to_owned);
    if let Some(errors) = json.get("errors").and_then(Value::as_array) {
        let code = errors.first().and_then(|error| string(error, "code"));
        let each = errors.iter().map(|error| {
            let message = string(error, "message").unwrap_or_default();
            let detail = string(error, "detail").filter(|detail| !detail.is_empty() && *detail != message);
            let said = [string(error, "code"), Some(message).filter(|m| !m.is_empty()), detail];
            said.into_iter().flatten().collect::<Vec<_>>().join(": ")
        });
        return (code.as_deref().map(clean), clean(&each.collect::<Vec<_>>().join("; ")));
    }
    let code = string(&json, "error").or_else(|| string(&json, "code"));
    let message = ["error_description", "details", "message", "detail"].iter().find_map(|name| string(&json, name));
    let message = message.or_else(|| code.clone()).unwrap_or_else(|| text.into_owned());
    (code.as_deref().map(clean), clean(&message))
}

/// One line of at most 500 characters, all of which can be seen: a registry's words go to terminals and logs.
pub(crate) fn clean(text: &str) -> String {
    let line = text.split(|c: char| is_hidden(c) || c.is_whitespace()).filter(|word| !word.is_empty());
    line.collect::<Vec<_>>().join(" ").chars().take(500).collect()
}

/// Whether a character moves the cursor, turns the direction of writing, or takes no room.
fn is_hidden(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2060}'..='\u{2069}' | '\u{feff}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn error_bodies_keep_the_registrys_own_words() {
        let table: [(&str, Option<&str>, &str); 7] = [
            (
                r#"{"errors":[{"code":"DENIED","message":"requested access to the resource is denied","detail":{"a":1}}]}"#,
                Some("DENIED"),
                "DENIED: requested access to the resource is denied",
            ),
            (
                r#"{"errors":[{"code":"A","message":"m","detail":"d"},{"code":"B","message":""}]}"#,
                Some("A"),
                "A: m: d; B",
            ),
            (r#"{"details":"incorrect username or password"}"#, None, "incorrect username or password"),
            (r#"{"error":"invalid_grant","error_description":"expired"}"#, Some("invalid_grant"), "expired"),
            ("plain\n\x1b[31m words", None, "plain [31m words"),
            ("<html>Bad Gateway</html>", None, ""),
            ("", None, ""),
        ];
        for (body, code, message) in table {
            let secrets = Secrets::default();
            assert_eq!(words(body.as_bytes(), &secrets), (code.map(Into::into), message.into()), "{body}");
        }
    }

    #[test]
    fn what_is_shown_is_one_line_that_can_be_seen() {
        assert_eq!(clean("a\u{1b}]0;title\u{7}b\r\nc\u{202e}d\u{feff}\u{85}e\t\u{200b}"), "a ]0;title b c d e");
        assert_eq!(clean(&"word ".repeat(1 << 20)).len(), 500);
    }

    #[test]
    fn secrets_of_a_request_are_hidden_in_every_form() {
        let request = |headers: &[(&'static str, &str, bool)], body: &'static str| {
            let mut request = Request::new(reqwest::Method::POST, "http://r.example/".parse().unwrap());
            for (name, value, is_sensitive) in headers {
                let mut value: reqwest::header::HeaderValue = value.parse().unwrap();
                value.set_sensitive(*is_sensitive);
                request.headers_mut().append(*name, value);
            }
            *request.body_mut() = Some(body.into());
            Secrets::of(&request)
        };
        let secrets = request(
            &[
                ("authorization", "Basic Y2k6cGxhbnRlZCBvbmU=", true),
                ("authorization", "Bearer planted-two", false),
                ("x-token", "planted-three", true),
                ("accept", "planted-no", false),
            ],
            "password=planted-no",
        );
        let text = "Y2k6cGxhbnRlZCBvbmU= planted one, Bearer planted-two; planted-three planted-no ci";
        assert_eq!(secrets.hide(text), "*** ***, Bearer ***; *** planted-no ci");
        let form = ("content-type", "application/x-www-form-urlencoded", false);
        let of_form = request(&[form], "username=ci&password=planted+one%21&service=planted-no");
        let text = "planted one! planted+one%21 Y2k6cGxhbnRlZCBvbmUh planted-no ci";
        assert_eq!(of_form.hide(text), "*** *** *** planted-no ci");
        assert!(!format!("{secrets:?}").contains("planted"));
        let cut = format!("{} planted one", "x".repeat(495));
        assert!(!words(cut.as_bytes(), &secrets).1.contains("pla"));
    }
}
