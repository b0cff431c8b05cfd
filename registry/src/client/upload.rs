//! Writing blobs: look, link, or send.

use reqwest::{Method, Url};
use yadokari_layers::{Digest, Growing};

use super::auth::Scopes;
use super::repository::RegistryStore;
use super::retry::Failed;
use super::sending::{Sending, Session};
use super::transport::{Body, Call};
use crate::{BlobSource, Result, Store as _, Upload, Written};

impl RegistryStore {
    /// Asks the registry for the right to push, before a build spends its time: starts an upload session, and
    /// cancels it again.
    pub async fn check_push(&self) -> Result<()> {
        let url = self.url("blobs/uploads/").await?;
        let operation = format!("check the right to push to {}", self.endpoint.name());
        let call = Call::new(Method::POST, url, operation, self.pushing(), &[202]);
        let answer = self.connection().send(&call).await?;
        if let Ok(session) = Session::of(&answer) {
            self.cancel(session.url).await;
        }
        Ok(())
    }

    /// Looks for the blob, then asks for a mount, then uploads. After a failure the blob is looked for again: the
    /// answer that was lost may have been the good one.
    pub(super) async fn push_blob(&self, blob: &dyn BlobSource, mount_from: Option<&str>) -> Result<Written> {
        if self.has_whole(blob).await? {
            return Ok(Written::Already);
        }
        let mount_from = mount_from.filter(|&source| source != self.endpoint.repository);
        self.send_blob(blob, mount_from, true).await
    }

    /// Sends a blob that the registry may say it has.
    pub(super) async fn push_blob_again(&self, blob: &dyn BlobSource) -> Result<()> {
        self.send_blob(blob, None, false).await.map(|_| ())
    }

    async fn send_blob(&self, blob: &dyn BlobSource, mut mount_from: Option<&str>, looks: bool) -> Result<Written> {
        let mut sending = Sending::new(self, blob);
        loop {
            match sending.attempt(mount_from.take()).await {
                Ok(written) => return Ok(written),
                Err(failed) => sending.recover(failed).await?,
            }
            if looks && self.has_whole(blob).await? {
                return Ok(Written::Uploaded);
            }
            sending.locate().await;
        }
    }

    /// Whether the registry has a blob, and not one that was cut off.
    async fn has_whole(&self, blob: &dyn BlobSource) -> Result<bool> {
        let size = self.find_blob(&blob.digest(), self.pushing()).await?;
        Ok(size.is_some_and(|size| size.may_be(blob.size())))
    }

    /// Sends a blob as it grows, to its end. It is tried once: when the blob is complete, a plain upload can still do it.
    pub(super) async fn push_growing(&self, blob: &Growing) -> Result<Upload> {
        let begun = async {
            let url = self.try_url("blobs/uploads/").await?;
            let operation = format!("start the upload of a layer to {}", self.endpoint.name());
            let opened = self.session(url, operation).await?;
            let operation = format!("upload a layer to {}", self.endpoint.name());
            let mut call = Call::new(Method::PATCH, opened.url.clone(), operation, self.pushing(), &[201, 202, 204]);
            call.body = Body::Growing(blob);
            match self.connection().once(&call).await {
                Ok(answer) => Ok(Session::of(&answer)?.url),
                Err(failed) => {
                    self.cancel(opened.url).await;
                    Err(failed)
                }
            }
        };
        begun.await.map(Upload).map_err(|failed: Failed| failed.error)
    }

    /// Gives a blob that was sent as it grew its name. The registry checks that it is this one.
    pub(super) async fn complete_upload(&self, upload: Upload, digest: &Digest) -> Result<()> {
        self.close(upload.0, digest, Body::Sent).await.map_err(|failed| failed.error)
    }

    /// Ends a session that nobody needs. That not every registry can do that is no failure; sessions expire.
    pub(super) async fn cancel(&self, session: Url) {
        let operation = format!("cancel an upload to {}", self.endpoint.name());
        let cancel = Call::new(Method::DELETE, session, operation, self.pushing(), &[200, 202, 204]);
        _ = self.connection().once(&cancel).await;
    }

    /// The request that ends a session, with what is left of the blob.
    pub(super) async fn close(&self, session: Url, digest: &Digest, body: Body<'_>) -> Result<(), Failed> {
        let mut url = session;
        // The session's own query is the registry's business, and stays as it is.
        url.query_pairs_mut().append_pair("digest", &digest.to_string());
        let operation = format!("upload blob {digest} to {}", self.endpoint.name());
        let mut call = Call::new(Method::PUT, url, operation, self.pushing(), &[200, 201, 204]);
        call.body = body;
        let answer = self.connection().once(&call).await?;
        Ok(answer.expect(digest, &self.describe())?)
    }

    /// Asks for a link. It is a favour: whatever goes wrong, a plain upload still can go right, and says what is
    /// wrong if it does not.
    pub(super) async fn mount(&self, digest: &Digest, source: &str) -> Mount {
        let Ok(mut url) = self.try_url("blobs/uploads/").await else { return Mount::Refused };
        url.query_pairs_mut().append_pair("mount", &digest.to_string()).append_pair("from", source);
        let operation = format!("mount blob {digest} from {source}");
        let scopes = Scopes::mount(&self.endpoint.repository, source);
        let call = Call::new(Method::POST, url, operation, scopes, &[201, 202]);
        match self.connection().once(&call).await {
            Ok(answer) if answer.status() == 201 && answer.expect(digest, source).is_ok() => Mount::Done,
            Ok(answer) if answer.status() == 201 => Mount::Refused,
            Ok(answer) => Session::of(&answer).map_or(Mount::Refused, Mount::Session),
            Err(_) => Mount::Refused,
        }
    }

    /// Starts an upload session.
    pub(super) async fn start(&self, digest: &Digest) -> Result<Session, Failed> {
        let url = self.try_url("blobs/uploads/").await?;
        self.session(url, format!("start the upload of blob {digest} to {}", self.endpoint.name())).await
    }

    async fn session(&self, url: Url, operation: String) -> Result<Session, Failed> {
        let call = Call::new(Method::POST, url, operation, self.pushing(), &[202]);
        Ok(Session::of(&self.connection().once(&call).await?)?)
    }

    pub(super) fn pushing(&self) -> Scopes {
        Scopes::push(&self.endpoint.repository)
    }
}

/// The answers to a mount.
pub(super) enum Mount {
    /// The blob is linked.
    Done,
    /// It is not, but an upload may go here.
    Session(Session),
    /// Neither.
    Refused,
}
