//! What a build leaves besides the image: its digest, its names and its metadata, in files and elsewhere; and what is said of
//! the image in its manifests.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use clap::{ArgAction, Args};
use serde_json::{Value, json};
use yadokari_layers::{Compression, Digest, pack};
use yadokari_registry::{Client, Reference, Request};

use super::args::{Environment, path, truth};
use crate::Error;
use crate::error::registry_code;
use crate::image::{Form, Format};
use crate::output::{Described, Pushing};
use crate::remote::host_name;

/// What is written when an image is where it should be.
#[derive(Debug, Args)]
pub(super) struct ReportFlags {
    /// Write the manifest's digest to a file, to /dev/stdout, or by PUT to an https:// URL.
    #[arg(long, value_name = "FILE|URL", value_parser = path())]
    digest_file: Option<PathBuf>,
    /// The same with a line REPOSITORY@DIGEST for each --destination.
    #[arg(long, value_name = "FILE|URL", value_parser = path())]
    image_name_with_digest_file: Option<PathBuf>,
    /// The same with a line REPOSITORY:TAG@DIGEST for each --destination.
    #[arg(long, value_name = "FILE|URL", value_parser = path())]
    image_name_tag_with_digest_file: Option<PathBuf>,
    /// The same with a JSON object of what docker buildx says of a result: containerimage.digest,
    /// containerimage.config.digest, containerimage.descriptor and image.name.
    #[arg(long, value_name = "FILE|URL", value_parser = path())]
    metadata_file: Option<PathBuf>,
}

/// How an image is pushed.
#[derive(Debug, Args)]
pub(super) struct PushFlags {
    /// Let a tag stay what it is that the registry never changes. One that points to this very image is no error anyway.
    #[arg(long, action = ArgAction::Set, num_args = 0..=1, default_missing_value = "true", default_value = "false", value_parser = truth)]
    push_ignore_immutable_tag_errors: bool,
    /// Do not ask the registry before anything else whether it lets us push.
    #[arg(long, action = ArgAction::Set, num_args = 0..=1, default_missing_value = "true", default_value = "false", value_parser = truth)]
    skip_push_permission_check: bool,
}

/// How an image is written down.
#[derive(Debug, Args)]
pub(super) struct FormFlags {
    /// Add an annotation to the manifest; with index: before the name, to the index of several platforms. Repeatable.
    #[arg(long, value_name = "[manifest:|index:|manifest,index:]NAME=VALUE")]
    annotation: Vec<String>,
    /// Whose media types the manifest has.
    #[arg(long, value_name = "oci|docker", default_value = "oci", value_parser = format)]
    image_format: Format,
}

/// A format; nothing is OCI's, since callers write `--image-format=$VARIABLE`.
fn format(text: &str) -> Result<Format, String> {
    match text {
        "oci" | "" => Ok(Format::Oci),
        "docker" => Ok(Format::Docker),
        _ => Err("write oci or docker".into()),
    }
}

/// What is written when the image is where it should be.
#[derive(Debug)]
pub(super) struct Reports {
    digest: Option<Place>,
    names: Option<Place>,
    tags: Option<Place>,
    metadata: Option<Place>,
    /// The file that BUILDER_OUTPUT asks for.
    images: Option<Place>,
}

/// Where something is written.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Place {
    File(PathBuf),
    StandardOutput,
    Url(String),
}

/// The flags, for messages.
const DIGEST: &str = "--digest-file";
const NAMES: &str = "--image-name-with-digest-file";
const TAGS: &str = "--image-name-tag-with-digest-file";
const METADATA: &str = "--metadata-file";

impl FormFlags {
    /// How manifests are written. `is_index` says that there is an index of several, `layers` how new layers are written.
    pub(super) fn form(&self, is_index: bool, layers: &pack::Options) -> Result<Form, Error> {
        let refuse = |flag, message: &str| Err(Error::Usage { flag, message: message.into() });
        let (mut annotations, mut index_annotations) = (BTreeMap::new(), BTreeMap::new());
        for text in &self.annotation {
            let (kinds, name, value) = annotation(text)?;
            for kind in kinds {
                let kind = if kind == "index" { &mut index_annotations } else { &mut annotations };
                kind.insert(name.to_owned(), value.to_owned());
            }
        }
        if !index_annotations.is_empty() && !is_index {
            return refuse("--annotation", "index: there is no index of one image; give several --platform");
        }
        if self.image_format == Format::Docker {
            if !self.annotation.is_empty() {
                return refuse("--annotation", "Docker's format has no annotations; leave --image-format=docker out");
            }
            if layers.compression == Compression::Zstd {
                return refuse("--image-format", "Docker's format has no layers in zstd; leave --compression=zstd out");
            }
        }
        Ok(Form { format: self.image_format, annotations, index_annotations })
    }
}

impl PushFlags {
    /// What is left out when the image is pushed.
    pub(super) fn pushing(&self) -> Pushing {
        Pushing {
            unchecked: self.skip_push_permission_check,
            keeps_immutable_tags: self.push_ignore_immutable_tag_errors,
        }
    }
}

impl ReportFlags {
    /// Whether something is written that only the manifest says.
    pub(super) fn describes(&self) -> bool {
        super::given(&self.metadata_file).is_some()
    }

    /// What is written in the end. `has_names` says that there are destinations.
    pub(super) fn reports(&self, has_names: bool, env: Environment<'_>) -> Result<Reports, Error> {
        let names = place(NAMES, &self.image_name_with_digest_file)?;
        let tags = place(TAGS, &self.image_name_tag_with_digest_file)?;
        for (place, flag) in [(&names, NAMES), (&tags, TAGS)] {
            if place.is_some() && !has_names {
                return Err(Error::Usage { flag, message: "it needs the names of --destination".into() });
            }
        }
        let images = env("BUILDER_OUTPUT").filter(|directory| !directory.is_empty());
        Ok(Reports {
            digest: place(DIGEST, &self.digest_file)?,
            names,
            tags,
            metadata: place(METADATA, &self.metadata_file)?,
            images: images.map(|directory| Place::File(Path::new(&directory).join("images"))),
        })
    }
}

impl Reports {
    /// Whether the client may ask all hosts that something is written to: in the end would be late to say so.
    pub(super) fn admitted(&self, client: &Client) -> Result<(), Error> {
        let places = [(DIGEST, &self.digest), (NAMES, &self.names), (TAGS, &self.tags), (METADATA, &self.metadata)];
        for (flag, place) in places {
            let Some(Place::Url(url)) = place else { continue };
            let host = host_name(url);
            if !client.may_ask(host) {
                let message =
                    format!("--offline: {host} is no host of this build; --offline-allow {host} lets it be asked");
                return Err(Error::Usage { flag, message });
            }
        }
        Ok(())
    }
}

/// What an annotation is for, its name and its value.
fn annotation(text: &str) -> Result<(Vec<&str>, &str, &str), Error> {
    let refuse = |message: String| Error::Usage { flag: "--annotation", message };
    let (before, value) = match text.split_once('=') {
        Some((name, value)) if !name.is_empty() => (name, value),
        _ => return Err(refuse(format!("'{text}' is not of the form NAME=VALUE"))),
    };
    let Some((kinds, name)) = before.split_once(':') else { return Ok((vec!["manifest"], before, value)) };
    let kinds: Vec<&str> = kinds.split(',').collect();
    match kinds.iter().find(|kind| !matches!(**kind, "manifest" | "index")) {
        Some(kind) => Err(refuse(format!("'{text}': annotations are for manifest or index, not for '{kind}'"))),
        None if name.is_empty() => Err(refuse(format!("'{text}' has no name"))),
        None => Ok((kinds, name, value)),
    }
}

/// Where a flag's value says that something is written.
fn place(flag: &'static str, given: &Option<PathBuf>) -> Result<Option<Place>, Error> {
    let Some(path) = super::given(given) else { return Ok(None) };
    match path.to_str() {
        Some("/dev/stdout") => Ok(Some(Place::StandardOutput)),
        Some(url) if url.starts_with("https://") => Ok(Some(Place::Url(url.to_owned()))),
        Some(url) if url.contains("://") => {
            Err(Error::Usage { flag, message: "of URLs only those with https:// can be written to".into() })
        }
        _ => Ok(Some(Place::File(path))),
    }
}

impl Reports {
    /// Writes all that is asked for, of the image with this digest and these names.
    pub(super) async fn write(
        &self,
        digest: &Digest,
        described: Option<&Described>,
        names: &[Reference],
        client: &Client,
    ) -> Result<(), Error> {
        if let Some(place) = &self.digest {
            place.write(&digest.to_string(), client).await?;
        }
        if let Some(place) = &self.names {
            let lines: String = names.iter().map(|name| format!("{}@{digest}\n", name.name())).collect();
            place.write(&lines, client).await?;
        }
        if let Some(place) = &self.tags {
            let lines: String = names.iter().map(|name| format!("{}@{digest}\n", tagged(name))).collect();
            place.write(&lines, client).await?;
        }
        if let Some(place) = &self.images {
            let line = |name: &Reference| format!("{}\n", json!({ "name": tagged(name), "digest": digest }));
            place.write(&names.iter().map(line).collect::<String>(), client).await?;
        }
        if let Some(place) = &self.metadata {
            let unread = || Error::BadImage { name: digest.to_string(), reason: "its manifest was not read".into() };
            let described = described.ok_or_else(unread)?;
            let text = serde_json::to_string_pretty(&metadata(digest, described, names));
            place.write(&(text.expect("strings and numbers have a form in JSON") + "\n"), client).await?;
        }
        Ok(())
    }
}

/// Repository and tag of a name, without a digest.
fn tagged(name: &Reference) -> String {
    name.tag().map_or_else(|| name.name(), |tag| format!("{}:{tag}", name.name()))
}

/// What docker buildx writes into its metadata file, as far as it is about the image.
fn metadata(digest: &Digest, described: &Described, names: &[Reference]) -> Value {
    let Described { media_type, size, config } = described;
    let mut metadata = json!({
        "containerimage.descriptor": { "mediaType": media_type, "digest": digest, "size": size },
        "containerimage.digest": digest,
    });
    if let Some(config) = config {
        metadata["containerimage.config.digest"] = json!(config);
    }
    if !names.is_empty() {
        metadata["image.name"] = json!(names.iter().map(tagged).collect::<Vec<_>>().join(","));
    }
    metadata
}

impl Place {
    async fn write(&self, text: &str, client: &Client) -> Result<(), Error> {
        match self {
            Self::File(path) => {
                let failed = |source| Error::Host { operation: "write", path: path.clone(), source };
                if let Some(parent) = path.parent().filter(|parent| !parent.as_os_str().is_empty()) {
                    fs::create_dir_all(parent).map_err(failed)?;
                }
                fs::write(path, text).map_err(failed)
            }
            Self::StandardOutput => {
                let mut out = io::stdout();
                let failed = |source| Error::Host { operation: "write", path: "/dev/stdout".into(), source };
                out.write_all(text.as_bytes()).and_then(|()| out.flush()).map_err(failed)
            }
            Self::Url(url) => put(url, text, client).await,
        }
    }
}

async fn put(url: &str, text: &str, client: &Client) -> Result<(), Error> {
    let request = Request::get(url)
        .and_then(|request| request.put(text.to_owned()).strict().header("content-type", "text/plain; charset=utf-8"));
    // The text may hold a password, which an error does not quote.
    let name = request.as_ref().map_or_else(|_| "the URL of a result".into(), Request::shown);
    let sent = match &request {
        Ok(request) => {
            client.fetch(request).await.map(drop).map_err(|error| (error.to_string(), registry_code(&error)))
        }
        Err(error) => Err((error.to_string(), registry_code(error))),
    };
    sent.map_err(|(reason, code)| Error::Remote { name, reason, code, at: None })
}

#[cfg(test)]
mod tests;
