//! An image that an earlier build made of the same inputs.

use futures_util::future::join;
use yadokari_layers::Key;

use crate::cache::FoundResult;
use crate::output::{Made, Uploads, tags};
use crate::prepare::Prepared;
use crate::progress::{LayerContents, Progress};
use crate::{Built, Error, Request};

/// What the cache says of the whole build.
pub(crate) enum Found {
    /// The image is where it should go, and nothing is left to be done.
    There(Built),
    /// It was built before.
    Somewhere(FoundResult),
    /// It was not.
    Nowhere,
}

/// The image that the destinations' repositories have under the tag which is its key, when all of them have it. Their other tags
/// are pointed to it. Whoever may push there can put any image under the tag: where the cache is signed, it has to say the same.
pub(crate) async fn existing(
    request: &Request,
    prepared: &Prepared,
    key: &Key,
    progress: &Progress,
) -> Result<Option<Built>, Error> {
    let Some(tags) = tags::look(&request.destinations, &request.client).await else {
        let message = "only registries can be asked for an image that is there: leave other outputs out".into();
        return Err(Error::Usage { flag: "--skip-existing", message });
    };
    if tags.is_empty() {
        let message = "there is no registry to ask: give a --destination, and not --no-push".into();
        return Err(Error::Usage { flag: "--skip-existing", message });
    }
    let Some(digest) = tags::held(&tags, &key.hex()) else { return Ok(None) };
    if let Some(cache) = prepared.cache.as_ref().filter(|cache| cache.is_signed())
        && cache.result(key).await.is_none_or(|found| found.digest() != digest)
    {
        return Ok(None);
    }
    if !tags::point(&tags, &digest, request.pushing, progress).await? {
        return Ok(None);
    }
    let (size, layers, described) = tags::measure(&tags, &digest).await;
    Ok(Some(Built { digest, size, layers, key: *key, described }))
}

/// Asks for the image that was made of the inputs which `key` stands for. Where the destinations' repositories have it, their
/// tags are pointed to it.
pub(crate) async fn look(
    request: &Request,
    prepared: &Prepared,
    key: &Key,
    progress: &Progress,
) -> Result<Found, Error> {
    let Some(cache) = prepared.cache.as_ref().filter(|_| prepared.is_covered()) else { return Ok(Found::Nowhere) };
    let (found, tags) = join(cache.result(key), tags::look(&request.destinations, &request.client)).await;
    let Some(found) = found else { return Ok(Found::Nowhere) };
    let described = match request.describe {
        true => match cache.image(&found).await {
            Some(made) => Some(made.described()),
            None => return Ok(Found::Nowhere),
        },
        false => None,
    };
    match tags {
        Some(tags) if tags::point(&tags, &found.digest(), request.pushing, progress).await? => {
            if found.is_aging {
                // The records of its steps are as old, and will be wanted when something changes.
                prepared.look_up().await;
            }
            let (digest, (size, layers)) = (found.digest(), found.layers());
            Ok(Found::There(Built { digest, size, layers, key: *key, described }))
        }
        _ => Ok(Found::Somewhere(found)),
    }
}

/// Brings an image that was built before to the destinations. `None` where not all of it can be had any more.
pub(crate) async fn bring(
    prepared: &Prepared,
    found: &FoundResult,
    uploads: &Uploads<'_>,
) -> Result<Option<Made>, Error> {
    let Some(cache) = &prepared.cache else { return Ok(None) };
    let Some(made) = cache.image(found).await else { return Ok(None) };
    match uploads.complete(&made).await {
        Ok(()) => {
            let progress = prepared.sources.progress();
            for image in made.images.iter().filter(|_| progress.wants_contents()) {
                let known = cache.indexes(&image.layers).await;
                let known: Vec<_> = image.layers.iter().map(|layer| known.get(&layer.digest).cloned()).collect();
                progress.image(&image.manifest.digest, &LayerContents::of(&image.layers, &known));
            }
            Ok(Some(made))
        }
        Err(Error::Stale { .. }) => Ok(None),
        Err(error) => Err(error),
    }
}
