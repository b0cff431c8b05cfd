//! The distribution specification, strictly.

use std::collections::HashMap;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::sync::Mutex;

use bytes::Bytes;
use serde_json::json;
use yadokari_layers::Digest;

use super::http::{Head, Reply};
use super::serve::Locations;
use super::{Registry, lock};
use crate::{Manifest, Version};

/// The size that the specification asks registries to take.
const MAX_MANIFEST: usize = 4 << 20;

/// The most tags in one answer: few, so that who reads only the first page is found out.
const PAGE: usize = 3;

/// What a path addresses.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Route {
    Base,
    Token,
    Blob(String, String),
    Uploads(String),
    Upload(String, String),
    Manifest(String, String),
    Tags(String),
    Unknown,
}

impl Route {
    pub(crate) fn of(path: &str) -> Self {
        let Some(rest) = path.strip_prefix("/v2/") else {
            return if path == "/token" { Self::Token } else { Self::Unknown };
        };
        if rest.is_empty() {
            return Self::Base;
        }
        // A repository may have a component named like these: the last one in the path is the separator.
        let split = |middle: &str| rest.rsplit_once(middle).map(|(name, last)| (name.to_owned(), last.to_owned()));
        match (split("/blobs/uploads/"), split("/blobs/"), split("/manifests/"), rest.strip_suffix("/tags/list")) {
            (Some((name, id)), ..) if id.is_empty() => Self::Uploads(name),
            (Some((name, id)), ..) => Self::Upload(name, id),
            (_, Some((name, digest)), ..) => Self::Blob(name, digest),
            (_, _, Some((name, version)), _) => Self::Manifest(name, version),
            (.., Some(name)) => Self::Tags(name.into()),
            _ => Self::Unknown,
        }
    }

    /// The repository that a login is for.
    pub(crate) fn repository(&self) -> Option<&str> {
        match self {
            Self::Blob(name, _)
            | Self::Uploads(name)
            | Self::Upload(name, _)
            | Self::Manifest(name, _)
            | Self::Tags(name) => Some(name),
            Self::Base | Self::Token | Self::Unknown => None,
        }
    }
}

/// The upload sessions, by id.
pub(crate) type Sessions = HashMap<String, Session>;

/// An upload session.
#[derive(Debug)]
pub(crate) struct Session {
    repository: String,
    /// Only the last Location tells it.
    state: String,
    /// What was sent before.
    bytes: Bytes,
}

impl Session {
    /// Takes what came of a request that did not come whole.
    pub(crate) fn keep(&mut self, bytes: &Bytes) {
        self.bytes = [self.bytes.clone(), bytes.clone()].concat().into();
    }
}

/// One request to the API.
pub(crate) struct Exchange<'a> {
    pub(crate) registry: &'a Mutex<Registry>,
    pub(crate) sessions: &'a mut Sessions,
    pub(crate) locations: Locations,
    pub(crate) declare_digests: bool,
    pub(crate) may_mount: bool,
    pub(crate) host: &'a str,
    pub(crate) head: &'a Head,
    pub(crate) body: Bytes,
}

impl Exchange<'_> {
    pub(crate) fn answer(mut self, route: &Route) -> Reply {
        match (self.head.method.as_str(), route) {
            ("GET", Route::Base) => Reply::new(200).body("{}"),
            ("GET" | "HEAD", Route::Blob(name, digest)) => self.get_blob(name, digest),
            ("POST", Route::Uploads(name)) => self.start(name),
            ("PATCH", Route::Upload(name, id)) => self.append(name, id),
            ("PUT", Route::Upload(name, id)) => self.upload(name, id),
            ("GET", Route::Upload(name, id)) => self.status(name, id),
            ("DELETE", Route::Upload(_, id)) => {
                self.sessions.remove(id);
                Reply::new(204)
            }
            ("GET" | "HEAD", Route::Manifest(name, version)) => self.get_manifest(name, version),
            ("PUT", Route::Manifest(name, version)) => self.put_manifest(name, version),
            ("DELETE", Route::Manifest(name, version)) => self.delete_manifest(name, version),
            ("GET", Route::Tags(name)) => self.tags(name),
            (_, Route::Unknown | Route::Token) => refuse(404, "UNSUPPORTED", "no such path"),
            _ => refuse(405, "UNSUPPORTED", "the operation is unsupported"),
        }
    }

    fn get_blob(&self, name: &str, digest: &str) -> Reply {
        let Ok(digest) = digest.parse::<Digest>() else { return refuse(400, "DIGEST_INVALID", "not a digest") };
        let blob = lock(self.registry).existing(name).and_then(|found| found.blobs.get(&digest)).cloned();
        let Some(blob) = blob else { return refuse(404, "BLOB_UNKNOWN", "blob unknown to registry") };
        let reply = self.declare(Reply::new(200), digest).with("content-type", "application/octet-stream");
        let Some(range) = self.head.header("range") else { return reply.body(blob) };
        match range.strip_prefix("bytes=").and_then(|range| range.strip_suffix('-')).map(str::parse::<usize>) {
            Some(Ok(from)) if from < blob.len() => {
                let range = format!("bytes {from}-{}/{}", blob.len() - 1, blob.len());
                Reply { status: 206, ..reply.with("content-range", range).body(blob.slice(from..)) }
            }
            _ => refuse(416, "RANGE_INVALID", "invalid content range"),
        }
    }

    fn start(&mut self, name: &str) -> Reply {
        if let (Some(digest), Some(source)) = (self.head.query("mount"), self.head.query("from"))
            && self.may_mount
            && let Ok(digest) = digest.parse::<Digest>()
            && lock(self.registry).mount(&digest, &source, name)
        {
            let reply = Reply::new(201).with("location", self.location(&format!("/v2/{name}/blobs/{digest}")));
            return self.declare(reply, digest);
        }
        self.go_on(name, Bytes::new())
    }

    /// A session with these bytes, under a name that nobody knows yet.
    fn go_on(&mut self, name: &str, bytes: Bytes) -> Reply {
        let random = || format!("{:016x}", RandomState::new().build_hasher().finish());
        let (id, state) = (random(), format!("{}+/=", random()));
        let location = self.location(&format!("/v2/{name}/blobs/uploads/{id}?_state={}%2B%2F%3D", &state[..16]));
        let range = format!("0-{}", bytes.len().saturating_sub(1));
        self.sessions.insert(id, Session { repository: name.into(), state, bytes });
        Reply::new(202).with("location", location).with("range", range)
    }

    /// The session that a request is for, and all its bytes. It serves once under its name, whatever comes of it.
    fn session(&mut self, name: &str, id: &str) -> Result<Bytes, Reply> {
        let is_right = |session: &Session| {
            session.repository == name && self.head.query("_state").as_deref() == Some(&session.state)
        };
        let Some(session) = self.sessions.remove(id).filter(is_right) else {
            return Err(refuse(404, "BLOB_UPLOAD_UNKNOWN", "blob upload unknown to registry"));
        };
        if !self.body.is_empty() && self.head.header("content-type") != Some("application/octet-stream") {
            return Err(refuse(415, "BLOB_UPLOAD_INVALID", "the content type of a blob is application/octet-stream"));
        }
        Ok(if session.bytes.is_empty() {
            self.body.clone()
        } else {
            [session.bytes, self.body.clone()].concat().into()
        })
    }

    /// What a session has, under its next name.
    fn status(&mut self, name: &str, id: &str) -> Reply {
        let known = self.session(name, id);
        known.map_or_else(|refusal| refusal, |bytes| Reply { status: 204, ..self.go_on(name, bytes) })
    }

    fn append(&mut self, name: &str, id: &str) -> Reply {
        if let (Some(range), Some(session)) = (self.head.header("content-range"), self.sessions.get(id)) {
            let from = session.bytes.len();
            if range != format!("{from}-{}", (from + self.body.len()).saturating_sub(1)) {
                return refuse(416, "RANGE_INVALID", "the session does not go on there");
            }
        }
        self.session(name, id).map_or_else(|refusal| refusal, |bytes| self.go_on(name, bytes))
    }

    fn upload(&mut self, name: &str, id: &str) -> Reply {
        let bytes = match self.session(name, id) {
            Ok(bytes) => bytes,
            Err(refusal) => return refusal,
        };
        let digest = Digest::of(&bytes);
        if self.head.query("digest") != Some(digest.to_string()) {
            return refuse(400, "DIGEST_INVALID", "provided digest did not match uploaded content");
        }
        lock(self.registry).repository(name).blobs.insert(digest, bytes);
        let reply = Reply::new(201).with("location", self.location(&format!("/v2/{name}/blobs/{digest}")));
        self.declare(reply, digest)
    }

    fn get_manifest(&self, name: &str, version: &str) -> Reply {
        let Some(version) = version_of(version) else { return refuse(400, "TAG_INVALID", "not a tag or digest") };
        let registry = lock(self.registry);
        let found = registry.existing(name).and_then(|found| found.manifest(&version));
        let accepted = |manifest: &Manifest| {
            let accept = self.head.header("accept").unwrap_or_default();
            accept.split(',').any(|accepted| accepted.trim() == manifest.media_type)
        };
        match found.filter(|(_, manifest)| accepted(manifest)) {
            Some((digest, manifest)) => {
                let reply = self.declare(Reply::new(200), digest);
                reply.with("content-type", &manifest.media_type).body(manifest.bytes.clone())
            }
            None => refuse(404, "MANIFEST_UNKNOWN", "manifest unknown"),
        }
    }

    fn put_manifest(&self, name: &str, version: &str) -> Reply {
        let Some(version) = version_of(version) else { return refuse(400, "TAG_INVALID", "not a tag or digest") };
        if self.body.len() > MAX_MANIFEST {
            return refuse(413, "SIZE_INVALID", "the manifest is longer than 4 MiB");
        }
        let media_type = self.head.header("content-type").unwrap_or_default();
        let inside = serde_json::from_slice::<serde_json::Value>(&self.body).ok();
        let inside = inside.as_ref().and_then(|json| json.get("mediaType")).and_then(|value| value.as_str());
        if inside != Some(media_type) {
            return refuse(400, "MANIFEST_INVALID", "the content type is not the mediaType inside");
        }
        let manifest = Manifest::new(media_type, self.body.clone());
        let digest = manifest.digest;
        if matches!(version, Version::Digest(expected) if expected != digest) {
            return refuse(400, "DIGEST_INVALID", "provided digest did not match uploaded content");
        }
        match lock(self.registry).repository(name).put_manifest(&version, manifest) {
            Ok(()) => {
                let reply = Reply::new(201).with("location", self.location(&format!("/v2/{name}/manifests/{digest}")));
                self.declare(reply, digest)
            }
            Err(reason) => refuse(400, "MANIFEST_BLOB_UNKNOWN", &reason),
        }
    }

    fn delete_manifest(&self, name: &str, version: &str) -> Reply {
        // What deleting a tag does differs from registry to registry: its manifest stays, or goes with all other tags.
        let Some(Version::Digest(digest)) = version_of(version) else {
            return refuse(400, "UNSUPPORTED", "manifests are deleted by digest");
        };
        if lock(self.registry).delete_manifest(name, &digest) {
            return Reply::new(202);
        }
        refuse(404, "MANIFEST_UNKNOWN", "manifest unknown")
    }

    fn tags(&self, name: &str) -> Reply {
        let Ok(wanted) = self.head.query("n").map_or(Ok(PAGE), |n| n.parse::<usize>()) else {
            return refuse(400, "PAGINATION_NUMBER_INVALID", "invalid number of results requested");
        };
        let (n, after) = (wanted.min(PAGE), self.head.query("last").unwrap_or_default());
        let registry = lock(self.registry);
        let Some(found) = registry.existing(name) else {
            return refuse(404, "NAME_UNKNOWN", "repository name not known to registry");
        };
        let mut rest = found.tags.keys().filter(|&tag| *tag > after);
        let page: Vec<_> = rest.by_ref().take(n).collect();
        // Registries that are written in Go have no empty list.
        let tags = if page.is_empty() { json!(null) } else { json!(page) };
        let reply = Reply::new(200).with("content-type", "application/json");
        let reply = reply.body(json!({"name": name, "tags": tags}).to_string());
        match (page.last(), rest.next()) {
            (Some(last), Some(_)) => {
                let next = self.location(&format!("/v2/{name}/tags/list?last={last}&n={n}"));
                reply.with("link", format!("<{next}>; rel=\"next\""))
            }
            _ => reply,
        }
    }

    fn declare(&self, reply: Reply, digest: Digest) -> Reply {
        if self.declare_digests { reply.with("docker-content-digest", digest) } else { reply }
    }

    fn location(&self, path: &str) -> String {
        match self.locations {
            Locations::Relative => path.into(),
            Locations::Absolute => format!("http://{}{path}", self.host),
        }
    }
}

fn version_of(text: &str) -> Option<Version> {
    if text.contains(':') {
        return text.parse().ok().map(Version::Digest);
    }
    Some(Version::Tag(text.into()))
}

fn refuse(status: u16, code: &str, message: &str) -> Reply {
    let words = json!({"errors": [{"code": code, "message": message}]});
    Reply::new(status).with("content-type", "application/json").body(words.to_string())
}
