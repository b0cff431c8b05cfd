//! A registry's repository as a [`Store`].

use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use reqwest::Url;
use yadokari_layers::Growing;

use super::ClientInner;
use super::answer::Answer;
use super::auth::Scopes;
use super::endpoint::Endpoint;
use super::retry::{Backoff, Failed};
use super::transport::{Call, Connection};
use crate::store::Sink;
use crate::{BlobSource, Digest, Error, Manifest, Result, Size, Store, Upload, Version, Written};

/// One repository of one registry, reached through a [`Client`](crate::Client). Clones are the same repository.
#[derive(Clone)]
pub struct RegistryStore {
    client: Arc<ClientInner>,
    pub(super) endpoint: Endpoint,
}

impl RegistryStore {
    pub(super) fn new(client: Arc<ClientInner>, endpoint: Endpoint) -> Self {
        Self { client, endpoint }
    }

    /// The registry's name: `docker.io` for Docker Hub.
    pub fn registry(&self) -> &str {
        &self.endpoint.registry
    }

    /// The repository's path, which [`Store::write_blob`] of another repository of the registry takes for a mount.
    pub fn repository(&self) -> &str {
        &self.endpoint.repository
    }

    pub(crate) fn connection(&self) -> Connection<'_> {
        Connection { client: &self.client, endpoint: &self.endpoint }
    }

    pub(super) fn backoff(&self) -> Backoff<'_> {
        Backoff::new(&self.client, &self.endpoint.registry)
    }

    /// The URL of something in the repository. Finding the registry's scheme may itself take several tries.
    pub(super) async fn url(&self, path: &str) -> Result<Url> {
        let mut backoff = self.backoff();
        loop {
            match self.try_url(path).await {
                Ok(url) => return Ok(url),
                Err(failed) => backoff.wait(failed).await?,
            }
        }
    }

    /// As [`RegistryStore::url`], in one try.
    pub(super) async fn try_url(&self, path: &str) -> Result<Url, Failed> {
        let origin = self.connection().origin().await?;
        let path = format!("v2/{}/{path}", self.endpoint.repository);
        origin.join(&path).map_err(|error| {
            let what = format!("repository '{}'", self.endpoint.repository);
            Error::Configuration { what, reason: error.to_string() }.into()
        })
    }

    /// Reads a whole answer of at most `limit` bytes, from its start again where the connection breaks; `None` where the
    /// answer is that there is none.
    pub(super) async fn document(&self, call: &Call<'_>, limit: u64) -> Result<Option<(Answer, Bytes)>> {
        let mut backoff = self.backoff();
        loop {
            let mut answer = self.connection().send(call).await?;
            if answer.status() == 404 {
                return Ok(None);
            }
            match answer.bytes(limit).await {
                Ok(bytes) => return Ok(Some((answer, bytes))),
                Err(error) => backoff.wait(error.into()).await?,
            }
        }
    }
}

#[async_trait]
impl Store for RegistryStore {
    async fn blob_size(&self, digest: &Digest) -> Result<Option<Size>> {
        self.find_blob(digest, Scopes::pull(&self.endpoint.repository)).await
    }

    async fn read_blob(&self, digest: &Digest, size: Option<u64>, sink: &mut Sink<'_>) -> Result<()> {
        self.fetch_blob(digest, size, sink).await
    }

    async fn write_blob(&self, blob: &dyn BlobSource, mount_from: Option<&str>) -> Result<Written> {
        self.push_blob(blob, mount_from).await
    }

    async fn replace_blob(&self, blob: &dyn BlobSource) -> Result<()> {
        self.push_blob_again(blob).await
    }

    async fn begin_blob(&self, blob: &Growing) -> Result<Option<Upload>> {
        self.push_growing(blob).await.map(Some)
    }

    async fn complete_blob(&self, upload: Upload, digest: &Digest) -> Result<()> {
        self.complete_upload(upload, digest).await
    }

    async fn cancel_blob(&self, upload: Upload) {
        self.cancel(upload.0).await;
    }

    async fn read_manifest(&self, version: &Version) -> Result<Option<Manifest>> {
        self.fetch_manifest(version).await
    }

    async fn manifest_digest(&self, version: &Version) -> Result<Option<Digest>> {
        self.find_manifest(version).await
    }

    async fn write_manifest(&self, version: &Version, manifest: &Manifest) -> Result<()> {
        self.push_manifest(version, manifest).await
    }

    async fn tags(&self) -> Result<Vec<String>> {
        self.list_tags().await
    }

    async fn delete_manifest(&self, digest: &Digest) -> Result<bool> {
        self.remove_manifest(digest).await
    }

    fn describe(&self) -> String {
        self.endpoint.name()
    }
}

impl fmt::Debug for RegistryStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("RegistryStore").field(&self.endpoint.name()).finish()
    }
}
