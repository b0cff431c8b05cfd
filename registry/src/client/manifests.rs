//! Finding, reading and writing manifests.

use reqwest::Method;
use yadokari_layers::Digest;

use super::auth::Scopes;
use super::repository::RegistryStore;
use super::transport::{Body, Call};
use crate::manifest::{MAX_MANIFEST, digest_of};
use crate::{Error, Manifest, Result, Store as _, Version, media};

/// How often a manifest is sent again that was refused for lack of blobs which are there.
const BLINKS: u32 = 8;

/// Whether a manifest was refused because the registry does not know a blob of it.
fn is_blob_unknown(error: &Error) -> bool {
    let Error::Refused { status: 400 | 404, code: Some(code), .. } = error else { return false };
    matches!(&code[..], "MANIFEST_BLOB_UNKNOWN" | "BLOB_UNKNOWN" | "DIGEST_INVALID")
}

/// Whether nobody knows what became of a request.
fn is_lost(error: &Error) -> bool {
    matches!(error, Error::Unreachable { .. } | Error::Refused { status: 500.., .. })
}

/// Whether a registry may have refused to overwrite a tag.
fn is_immutable(error: &Error, version: &Version) -> bool {
    matches!((error, version), (Error::Refused { status: 400..=499, .. }, Version::Tag(_)))
}

impl RegistryStore {
    /// Asks for the digest by HEAD, which registries do not count as a pull; by GET where HEAD does not tell
    /// the digest.
    pub(super) async fn find_manifest(&self, version: &Version) -> Result<Option<Digest>> {
        let mut call = self.manifest_call(Method::HEAD, version, "look for").await?;
        call.answers = &[200, 404];
        let answer = self.connection().send(&call).await?;
        if answer.status() == 404 {
            return Ok(None);
        }
        match (version, answer.declared_digest()) {
            (Version::Digest(digest), _) => {
                answer.expect(digest, &self.describe())?;
                return Ok(Some(*digest));
            }
            (Version::Tag(_), Some(digest)) => return Ok(Some(digest)),
            (Version::Tag(_), None) => {}
        }
        Ok(self.fetch_manifest(version).await?.map(|manifest| manifest.digest))
    }

    /// Reads a manifest. Its digest is computed here, whatever the registry declares, and must be what was asked for
    /// and what it declares.
    pub(super) async fn fetch_manifest(&self, version: &Version) -> Result<Option<Manifest>> {
        let mut call = self.manifest_call(Method::GET, version, "read").await?;
        call.answers = &[200, 404];
        let Some((answer, bytes)) = self.document(&call, MAX_MANIFEST).await? else { return Ok(None) };
        let store = self.describe();
        if let Version::Digest(expected) = version {
            Manifest::new("", bytes.clone()).expect(*expected, &store)?;
        }
        let manifest = Manifest::received(answer.header("content-type"), bytes, &store)?;
        answer.declared_digest().map_or(Ok(()), |declared| manifest.expect(declared, &store))?;
        Ok(Some(manifest))
    }

    /// Writes a manifest. Repeating it is harmless. Where it is there in the end a lost answer is no failure, nor is the
    /// refusal to overwrite a tag that names it already.
    pub(super) async fn push_manifest(&self, version: &Version, manifest: &Manifest) -> Result<()> {
        if let Version::Digest(digest) = version {
            manifest.expect(*digest, &self.describe())?;
        }
        let mut call = self.manifest_call(Method::PUT, version, "write").await?;
        call.scopes = Scopes::push(&self.endpoint.repository);
        call.answers = &[200, 201, 202, 204];
        // Registries compare this with the mediaType inside: no parameters.
        call.body = Body::Manifest(&manifest.media_type, manifest.bytes.clone());
        let mut tries = 0;
        loop {
            match self.connection().send(&call).await {
                Ok(answer) => {
                    return answer
                        .declared_digest()
                        .map_or(Ok(()), |declared| manifest.expect(declared, &self.describe()));
                }
                // While another client links a blob anew, a registry may for a moment not see it.
                Err(error) if tries < BLINKS && is_blob_unknown(&error) => {
                    tries += 1;
                    if !self.has_blobs_of(manifest).await {
                        return Err(error);
                    }
                }
                // The last answer may be all that was lost; and a tag that must not be overwritten may be the right one.
                Err(error) if is_lost(&error) || is_immutable(&error, version) => {
                    return match self.find_manifest(version).await {
                        Ok(Some(digest)) if digest == manifest.digest => Ok(()),
                        _ => Err(error),
                    };
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// Whether the repository says that it has every blob of an image. What it cannot tell it may have.
    async fn has_blobs_of(&self, manifest: &Manifest) -> bool {
        let Ok(image) = manifest.image() else { return false };
        for descriptor in image.layers().iter().chain([image.config()]) {
            let found = match digest_of(descriptor) {
                Ok(digest) => self.find_blob(&digest, Scopes::push(&self.endpoint.repository)).await,
                Err(_) => return false,
            };
            if matches!(found, Ok(None)) {
                return false;
            }
        }
        true
    }

    /// Deletes a manifest; whether the registry had it. Most registries can be told to refuse that, and many are.
    pub(super) async fn remove_manifest(&self, digest: &Digest) -> Result<bool> {
        let mut call = self.manifest_call(Method::DELETE, &Version::Digest(*digest), "delete").await?;
        call.scopes = Scopes::delete(&self.endpoint.repository);
        call.answers = &[200, 202, 204, 404];
        Ok(self.connection().send(&call).await?.status() != 404)
    }

    async fn manifest_call(&self, method: Method, version: &Version, verb: &str) -> Result<Call<'static>> {
        let url = self.url(&format!("manifests/{version}")).await?;
        let operation = format!("{verb} manifest {} of {}", version, self.endpoint.name());
        let mut call = Call::new(method, url, operation, Scopes::pull(&self.endpoint.repository), &[]);
        call.accept = Some(media::ACCEPT);
        Ok(call)
    }
}
