//! Finding and reading blobs.

use std::io;

use reqwest::Method;
use yadokari_layers::{Digest, Verifier};

use super::auth::Scopes;
use super::repository::RegistryStore;
use super::retry::Failed;
use super::transport::Call;
use crate::store::Sink;
use crate::{Error, Result, Size, Store as _};

/// What a try must have brought, or taken, for its failure to be the first again. Less, and no number of tries is enough.
pub(super) const PROGRESS: u64 = 64 << 10;

impl RegistryStore {
    /// Asks for a blob by HEAD.
    pub(super) async fn find_blob(&self, digest: &Digest, scopes: Scopes) -> Result<Option<Size>> {
        let url = self.url(&format!("blobs/{digest}")).await?;
        let call = Call::new(Method::HEAD, url, format!("look for blob {digest}"), scopes, &[200, 404]);
        let answer = self.connection().send(&call).await?;
        if answer.status() == 200 {
            answer.expect(digest, &self.describe())?;
        }
        let length = answer.header("content-length").and_then(|length| length.parse().ok());
        Ok((answer.status() == 200).then(|| length.map_or(Size::Untold, Size::Told)))
    }

    /// Streams a blob, resuming where a connection breaks: the registry is asked for the rest, and where it sends the
    /// whole again the beginning is skipped. Progress resets the count of tries, so that a flaky line still gets a
    /// large blob across.
    pub(super) async fn fetch_blob(&self, digest: &Digest, size: Option<u64>, sink: &mut Sink<'_>) -> Result<()> {
        let url = self.url(&format!("blobs/{digest}")).await?;
        let operation = format!("read blob {digest}");
        let scopes = Scopes::pull(&self.endpoint.repository);
        let mut call = Call::new(Method::GET, url, operation, scopes, &[200, 206, 404]);
        let mut reading = Reading { store: self, digest, verifier: Verifier::new(*digest, size), received: 0, sink };
        let mut backoff = self.backoff();
        loop {
            let before = reading.received;
            match reading.attempt(&mut call).await {
                Ok(()) => return reading.finish(),
                Err(failed) => {
                    if reading.received - before >= PROGRESS {
                        backoff.reset();
                    }
                    backoff.wait(failed).await?;
                }
            }
        }
    }
}

/// A blob on its way to its sink.
struct Reading<'a, 'b> {
    store: &'a RegistryStore,
    digest: &'a Digest,
    verifier: Verifier,
    received: u64,
    sink: &'a mut Sink<'b>,
}

impl Reading<'_, '_> {
    async fn attempt(&mut self, call: &mut Call<'_>) -> Result<(), Failed> {
        call.from = self.received;
        let mut answer = self.store.connection().once(call).await?;
        // What of this answer was received before.
        let mut skip = match answer.status() {
            404 => {
                return Err(
                    Error::NotFound { what: format!("blob {}", self.digest), store: self.store.describe() }.into()
                );
            }
            206 => {
                let range = answer.header("content-range").unwrap_or_default();
                if !range.starts_with(&format!("bytes {}-", self.received)) {
                    let reason = format!("asked for the bytes from {}, it sent '{range}'", self.received);
                    return Err(answer.broken(reason).into());
                }
                0
            }
            _ => self.received,
        };
        while let Some(piece) = answer.piece().await? {
            let known = skip.min(piece.len() as u64);
            skip -= known;
            let fresh = &piece[known as usize..];
            if !fresh.is_empty() {
                self.take(fresh)?;
            }
        }
        Ok(())
    }

    fn take(&mut self, piece: &[u8]) -> Result<()> {
        let mismatch = |mismatch| Error::Mismatch { store: self.store.describe(), mismatch };
        self.verifier.update(piece).map_err(mismatch)?;
        self.received += piece.len() as u64;
        let sink =
            |source: io::Error| Error::Io { operation: "take blob", path: self.digest.to_string().into(), source };
        (self.sink)(piece).map_err(sink)
    }

    fn finish(self) -> Result<()> {
        self.verifier.finish().map_err(|mismatch| Error::Mismatch { store: self.store.describe(), mismatch })
    }
}
