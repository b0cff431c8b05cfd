//! A blob on its way into an upload session, and what to do when that breaks.
//!
//! A blob goes in one request. Where that breaks the session is asked how much it has, and goes on from there, as
//! downloads do; where a token does not live as long as the request takes, it goes in several. Whatever a session was given,
//! the registry compares the whole with the digest before it is a blob.

use reqwest::{Method, Url};

use super::answer::Answer;
use super::blobs::PROGRESS;
use super::endpoint::next_location;
use super::repository::RegistryStore;
use super::retry::{Again, Backoff, Failed};
use super::transport::{Body, Call};
use super::upload::Mount;
use crate::{BlobSource, Error, Result, Written};

/// A blob that is smaller is sent again from its start: to ask how much of it is there would take as long.
const WORTH_ASKING: u64 = 1 << 20;

/// The least that is sent in one request where a token does not live long. One that ends sooner is of no use.
const LEAST_PART: u64 = 64 << 10;

/// An upload session.
#[derive(Debug, Clone)]
pub(super) struct Session {
    pub(super) url: Url,
    /// The least that it takes in one request, but for the last one.
    least: u64,
}

impl Session {
    /// The session that an answer names, taken as it is.
    pub(super) fn of(answer: &Answer) -> Result<Self, Error> {
        let location =
            answer.header("location").ok_or_else(|| answer.broken("it started an upload without a Location".into()))?;
        let url = next_location(answer.url(), location).map_err(|reason| answer.broken(reason))?;
        let least = answer.header("oci-chunk-min-length").and_then(|least| least.trim().parse().ok());
        Ok(Self { url, least: least.unwrap_or_default() })
    }
}

/// A blob on its way.
pub(super) struct Sending<'a> {
    store: &'a RegistryStore,
    blob: &'a dyn BlobSource,
    backoff: Backoff<'a>,
    /// The session, until it broke for good.
    session: Option<Session>,
    /// How many bytes the session has.
    taken: u64,
    /// How many it had when that was last an achievement.
    marked: u64,
    /// The most bytes in one request, where there is such a limit.
    part: Option<u64>,
    /// Whether a session that breaks is asked what it has.
    resumes: bool,
}

impl<'a> Sending<'a> {
    pub(super) fn new(store: &'a RegistryStore, blob: &'a dyn BlobSource) -> Self {
        let resumes = blob.size() >= WORTH_ASKING;
        let part = store.connection().keyring().part(store.registry());
        Self { store, blob, backoff: store.backoff(), session: None, taken: 0, marked: 0, part, resumes }
    }

    /// Tries once, from where the last try ended.
    pub(super) async fn attempt(&mut self, mount_from: Option<&str>) -> Result<Written, Failed> {
        let digest = self.blob.digest();
        let mut session = match (self.session.take(), mount_from) {
            (Some(session), _) => session,
            (None, Some(source)) => match self.store.mount(&digest, source).await {
                Mount::Done => return Ok(Written::Mounted),
                Mount::Session(session) => session,
                Mount::Refused => self.store.start(&digest).await?,
            },
            (None, None) => self.store.start(&digest).await?,
        };
        self.session = Some(session.clone());
        if self.taken == 0 && self.part.is_none_or(|part| part >= self.blob.size()) {
            self.store.close(session.url, &digest, Body::Blob(self.blob)).await?;
            return Ok(Written::Uploaded);
        }
        while self.taken < self.blob.size() {
            session = self.append(session).await?;
            self.session = Some(session.clone());
        }
        self.store.close(session.url, &digest, Body::Sent).await?;
        Ok(Written::Uploaded)
    }

    /// Sends the next part.
    async fn append(&mut self, session: Session) -> Result<Session, Failed> {
        let to = self.part.map_or(self.blob.size(), |part| self.taken.saturating_add(part.max(session.least)));
        let to = to.min(self.blob.size());
        let operation = format!("upload blob {} to {}", self.blob.digest(), self.store.endpoint.name());
        let mut call = Call::new(Method::PATCH, session.url, operation, self.store.pushing(), &[201, 202, 204]);
        call.body = Body::Part(self.blob, self.taken, to);
        let answer = self.store.connection().once(&call).await?;
        self.taken = to;
        Ok(Session { least: session.least, ..Session::of(&answer)? })
    }

    /// After a failure: waits for the next try, or returns what makes it pointless.
    pub(super) async fn recover(&mut self, failed: Failed) -> Result<()> {
        self.mark();
        match failed.again {
            Again::InParts(part) => {
                let least = self.session.as_ref().map_or(0, |session| session.least);
                let part = part.max(least).max(LEAST_PART);
                // What it was that was refused for taking too long must have been more.
                if part >= self.part.unwrap_or(u64::MAX).min(self.blob.size()) {
                    return Err(failed.error);
                }
                self.part = Some(part);
                self.store.connection().keyring().limit(self.store.registry(), part);
                Ok(())
            }
            // The session does not go on where we believe, and says where; or it is forgotten, and another one is begun.
            Again::No if self.session.is_some() && matches!(failed.error, Error::Refused { status: 404 | 416, .. }) => {
                self.wait(failed.error).await
            }
            // What was put together of several requests is not taken. From its start it may be.
            Again::No if self.taken > 0 && self.resumes => {
                self.resumes = false;
                self.wait(failed.error).await
            }
            _ => self.backoff.wait(failed).await,
        }
    }

    async fn wait(&mut self, error: Error) -> Result<()> {
        self.backoff.wait(Failed { error, again: Again::Later }).await
    }

    /// A failure after enough progress is the first one again.
    fn mark(&mut self) {
        if self.taken.saturating_sub(self.marked) >= PROGRESS {
            self.marked = self.taken;
            self.backoff.reset();
        }
    }

    /// Asks the session what it has. One that cannot tell, or has nothing, is given up.
    pub(super) async fn locate(&mut self) {
        self.taken = 0;
        let Some(session) = self.session.take().filter(|_| self.resumes) else { return };
        let operation = format!("look for what came of blob {} at {}", self.blob.digest(), self.store.endpoint.name());
        let ask = Call::new(Method::GET, session.url, operation, self.store.pushing(), &[200, 204]);
        let Ok(answer) = self.store.connection().once(&ask).await else { return };
        let (next, taken) = (Session::of(&answer), answer.header("range").and_then(taken));
        match (next, taken) {
            (Ok(next), Some(taken)) if taken <= self.blob.size() => {
                (self.session, self.taken) = (Some(Session { least: session.least, ..next }), taken);
                self.mark();
            }
            (Ok(next), _) => self.store.cancel(next.url).await,
            (Err(_), _) => {}
        }
    }
}

/// How many bytes a session has by its `Range`: the number of the last one counts from 0, and none are 0, too.
fn taken(range: &str) -> Option<u64> {
    let range = range.trim();
    let last = range.strip_prefix("bytes=").unwrap_or(range).strip_prefix("0-")?.parse::<u64>().ok()?;
    last.checked_add(1).filter(|&taken| taken > 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_session_has_is_read_from_its_range() {
        let table = [
            ("0-1048575", Some(1 << 20)),
            (" bytes=0-9 ", Some(10)),
            ("0-0", None),
            ("1-9", None),
            ("0-", None),
            ("0-x", None),
            ("0-18446744073709551615", None),
            ("", None),
        ];
        for (range, expected) in table {
            assert_eq!(taken(range), expected, "{range}");
        }
    }
}
