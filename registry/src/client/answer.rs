//! What a registry answered.

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use bytes::Bytes;
use reqwest::header::{HeaderMap, RETRY_AFTER};
use reqwest::{Response, Url};
use serde_json::Value;

use super::endpoint::{host_of, shown};
use super::retry::{Again, Failed, is_transient, retry_after};
use crate::error::Failure;
use crate::{Error, Result};

/// The most that is read of an error's body.
const MAX_WORDS: u64 = 64 << 10;

/// The fewest bytes in a second that are worth waiting for: a modem brings fifty times as many.
const SLOWEST: f64 = 100.0;

/// An answer, and what it answers.
#[derive(Debug)]
pub(crate) struct Answer {
    response: Response,
    operation: Arc<str>,
    silence: Duration,
    /// How long the body was waited for, and what came meanwhile, since it was last looked at.
    waited: Duration,
    came: u64,
}

impl Answer {
    pub(crate) fn new(response: Response, operation: Arc<str>, silence: Duration) -> Self {
        Self { response, operation, silence, waited: Duration::ZERO, came: 0 }
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

    /// The rest of the body, which must not be longer than `limit`.
    pub(crate) async fn bytes(&mut self, limit: u64) -> Result<Bytes> {
        let mut bytes = Vec::new();
        while let Some(piece) = self.piece().await? {
            if (bytes.len() + piece.len()) as u64 > limit {
                return Err(self.broken(format!("its answer is longer than {limit} bytes")));
            }
            bytes.extend_from_slice(&piece);
        }
        Ok(bytes.into())
    }

    /// The error of an answer that breaks the protocol.
    pub(crate) fn broken(&self, reason: String) -> Error {
        Error::Protocol { operation: self.operation.to_string(), url: shown(self.url()), reason }
    }

    /// The error of an answer that says no, in the registry's own words.
    pub(crate) async fn refused(mut self, registry: &str) -> Failed {
        let (status, url) = (self.status(), shown(self.url()));
        let after = self.header(RETRY_AFTER.as_str()).and_then(|value| retry_after(value, SystemTime::now()));
        let limits = rate_limits(self.response.headers());
        let mut body = Vec::new();
        // The words are a help: where they cannot be read the status alone has to do.
        while let Ok(Some(piece)) = self.piece().await {
            body.extend_from_slice(&piece);
            if body.len() as u64 > MAX_WORDS {
                break;
            }
        }
        let (code, mut message) = words(&body);
        if message.is_empty() {
            message = self.response.status().canonical_reason().unwrap_or("no reason given").into();
        }
        message.extend(limits);
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
    Some(format!(" (limit {}, remaining {})", value("ratelimit-limit")?, value("ratelimit-remaining")?))
}

/// Code and message of an error body: the distribution specification's, a token server's, or plain text.
fn words(body: &[u8]) -> (Option<String>, String) {
    let text = String::from_utf8_lossy(body);
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
        return (code, clean(&each.collect::<Vec<_>>().join("; ")));
    }
    let code = string(&json, "error").or_else(|| string(&json, "code"));
    let message = ["error_description", "details", "message", "detail"].iter().find_map(|name| string(&json, name));
    let message = message.or_else(|| code.clone()).unwrap_or_else(|| text.into_owned());
    (code, clean(&message))
}

/// One line of at most 500 characters: a registry's words go to terminals and logs.
pub(crate) fn clean(text: &str) -> String {
    let line = text.split(|c: char| c.is_control() || c.is_whitespace()).filter(|word| !word.is_empty());
    line.collect::<Vec<_>>().join(" ").chars().take(500).collect()
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
            assert_eq!(words(body.as_bytes()), (code.map(Into::into), message.into()), "{body}");
        }
    }
}
