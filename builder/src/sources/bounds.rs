//! What a build may ask for, and as what: the digests of the lock of base images, and the hosts of a build that must not
//! ask others.
//!
//! Both are looked at as soon as it is known what is needed, and so before a layer is pulled or a command executed.

use std::collections::BTreeMap;
use std::sync::Arc;

use yadokari_registry::{Client, Platform, Pulled, Reference, pull_manifest};

use super::LAYOUT;
use crate::Error;
use crate::dockerfile::{Diagnostic, Dockerfile, Span};
use crate::lock::Lock;
use crate::plan::{ImageName, meant};
use crate::remote::Remote;

/// The way to registries, and what it is kept to.
#[derive(Clone)]
pub(super) struct Bounds {
    pub(super) client: Client,
    pub(super) lock: Option<Arc<Lock>>,
}

impl Bounds {
    /// Looks at all that a round of planning needs. Of several errors it is the first in the file.
    pub(super) fn check(
        &self,
        file: &Dockerfile,
        images: &BTreeMap<ImageName, Option<Span>>,
        remotes: &BTreeMap<Remote, Option<Span>>,
    ) -> Result<(), Error> {
        let images = images.iter().filter_map(|(image, place)| Some((*place, self.image(file, image, *place).err()?)));
        let remotes = remotes.iter().filter_map(|(remote, place)| Some((*place, self.remote(remote, *place).err()?)));
        let first = images.chain(remotes).min_by_key(|(place, _)| place.map(|span| span.start));
        first.map_or(Ok(()), |(_, error)| Err(error))
    }

    /// Whether an image may be taken. An OCI layout is no registry.
    pub(super) fn image(&self, file: &Dockerfile, image: &ImageName, place: Option<Span>) -> Result<(), Error> {
        let Ok(reference) = image.name.parse::<Reference>() else { return Ok(()) };
        if image.name.starts_with(LAYOUT) {
            return Ok(());
        }
        if let Some(lock) = self.lock.as_ref().filter(|lock| !lock.admits(&reference)) {
            let message = format!("--locked: '{}' does not pin the image {reference}", lock.path().display());
            let help = match meant(file, &image.name) {
                Some(meant) => format!("did you mean {meant}?"),
                None => "a build without --locked asks the registry for it, and adds it".to_owned(),
            };
            return Err(Error::Barred(Box::new(refusal(message, place).help(help))));
        }
        if self.client.pull_sources(&reference).is_empty() {
            let host = reference.registry();
            let message = format!("--offline: the image {reference} is at {host}, which is no registry of this build");
            let help =
                format!("name a mirror, --registry-map {host}=HOST/PATH, or let it be asked, --offline-allow {host}");
            return Err(Error::Barred(Box::new(refusal(message, place).help(help))));
        }
        Ok(())
    }

    /// Whether something else may be fetched.
    pub(super) fn remote(&self, remote: &Remote, place: Option<Span>) -> Result<(), Error> {
        let host = remote.host();
        if self.client.may_ask(host) {
            return Ok(());
        }
        let message = format!("--offline: {remote} is at {host}, which is no host of this build");
        Err(refusal(message, place).help(format!("let it be asked: --offline-allow {host}")).into())
    }

    /// Finds an image where it can be had, by the digest that the lock gives it.
    pub(super) async fn pull(
        &self,
        reference: &Reference,
        platform: &Platform,
    ) -> Result<Pulled, yadokari_registry::Error> {
        let pull = async |reference: &Reference| pull_manifest(&self.client, reference, platform).await;
        let Some(lock) = self.lock.as_ref().filter(|_| reference.digest().is_none()) else {
            return pull(reference).await;
        };
        if let Some(digest) = lock.pinned(reference) {
            return pull(&reference.with_digest(digest)).await;
        }
        let pulled = pull(reference).await?;
        let first = lock.settle(reference, pulled.resolved.root);
        if first == pulled.resolved.root { Ok(pulled) } else { pull(&reference.with_digest(first)).await }
    }

    /// Why an image cannot be had. Where the lock says what it is, that may be what is wrong.
    pub(super) fn failed(
        &self,
        file: &Dockerfile,
        name: &str,
        place: Option<Span>,
        source: yadokari_registry::Error,
    ) -> Error {
        let source = Box::new(source);
        let pinned = |lock: &Arc<Lock>| Some((lock.path().to_owned(), lock.pinned(&name.parse().ok()?)?));
        match self.lock.as_ref().and_then(pinned) {
            Some((lock, digest)) if matches!(*source, yadokari_registry::Error::NotFound { .. }) => {
                Error::Pinned { name: name.to_owned(), lock, digest, source, at: place }
            }
            _ => Error::Image { name: name.to_owned(), meant: meant(file, name), source },
        }
    }
}

fn refusal(message: String, place: Option<Span>) -> Diagnostic {
    let error = Diagnostic::new(message);
    match place {
        Some(span) => error.at(span),
        None => error,
    }
}
