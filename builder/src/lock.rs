//! The lock of base images: the digest that each name stands for, until somebody wants another.
//!
//! Its file is a source policy of BuildKit's with rules that convert a tag to the same tag with a digest, so that
//! `docker buildx build` takes the same images when `EXPERIMENTAL_BUILDKIT_SOURCE_POLICY` names it. What else such a policy
//! may say is refused: a rule that were passed over would hold there and not here.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use yadokari_layers::Digest;
use yadokari_registry::Reference;

/// The only source that is pinned, with BuildKit's name for it.
const IMAGE: &str = "docker-image://";

/// What the digests of images are, by their names with a tag.
type Pins = BTreeMap<Reference, Digest>;

/// Which digests images have, and which were found out besides.
#[derive(Debug)]
pub struct Lock {
    path: PathBuf,
    version: Option<i64>,
    pins: Pins,
    complete: bool,
    found: Mutex<Pins>,
}

/// A source policy. What is read is any JSON at first, so that a rule which is refused can be named.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Policy<R> {
    #[serde(skip_serializing_if = "Option::is_none", default)]
    version: Option<i64>,
    #[serde(default = "Vec::new")]
    rules: Vec<R>,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Rule {
    action: String,
    selector: Selector,
    updates: Updates,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Selector {
    identifier: String,
    #[serde(alias = "matchType", skip_serializing, default)]
    match_type: Option<String>,
    #[serde(skip_serializing, default)]
    constraints: Vec<Value>,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Updates {
    identifier: String,
    #[serde(skip_serializing, default)]
    attrs: Map<String, Value>,
}

impl Lock {
    /// The lock that `path` is to hold, which holds `text` now, if anything. `complete` says that every image has to be in
    /// it. The error names the rule.
    pub fn new(path: &Path, text: Option<&str>, complete: bool) -> Result<Self, String> {
        let none = |error: serde_json::Error| format!("it is no source policy: {error}");
        // A list is no object, though it could be read as one.
        let policy: Map<String, Value> = text.map_or(Ok(Map::new()), serde_json::from_str).map_err(none)?;
        let policy: Policy<Value> = serde_json::from_value(Value::Object(policy)).map_err(none)?;
        if let Some(version) = policy.version.filter(|version| !matches!(version, 0 | 1)) {
            return Err(format!("version {version} of source policies is not known"));
        }
        let mut pins = Pins::new();
        for (number, rule) in policy.rules.into_iter().enumerate() {
            let name = match rule.pointer("/selector/identifier").and_then(Value::as_str) {
                Some(identifier) => format!("rule {} ('{identifier}')", number + 1),
                None => format!("rule {}", number + 1),
            };
            let (image, digest) = pin(rule).map_err(|reason| format!("{name}: {reason}"))?;
            if pins.insert(image, digest).is_some_and(|other| other != digest) {
                return Err(format!("{name}: a rule before gives it another digest"));
            }
        }
        let (path, found) = (path.to_owned(), Mutex::default());
        Ok(Self { path, version: policy.version, pins, complete, found })
    }

    /// Its file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Whether an image may be taken: where the lock has to be complete, only one whose digest is known.
    pub fn admits(&self, image: &Reference) -> bool {
        !self.complete || image.digest().is_some() || self.pins.contains_key(image)
    }

    /// The digest that the file gives an image.
    pub fn pinned(&self, image: &Reference) -> Option<Digest> {
        self.pins.get(image).copied()
    }

    /// Takes note of the digest that a registry gives an image, and says which counts: of several answers, as for two
    /// platforms while a tag is moved, the first.
    pub fn settle(&self, image: &Reference, digest: Digest) -> Digest {
        *self.found().entry(image.clone()).or_insert(digest)
    }

    /// Writes what was found out into the file, which is replaced as a whole; whether there was anything.
    pub fn write(&self) -> io::Result<bool> {
        let Some(text) = self.addition() else { return Ok(false) };
        // A link stays one, and its target is replaced.
        let path = fs::canonicalize(&self.path).unwrap_or_else(|_| self.path.clone());
        let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let readable = std::os::unix::fs::PermissionsExt::from_mode(0o666);
        let mut file = tempfile::Builder::new().prefix(".lock-").permissions(readable).tempfile_in(directory)?;
        if let Ok(old) = fs::metadata(&path) {
            file.as_file().set_permissions(old.permissions())?;
        }
        file.write_all(text.as_bytes())?;
        file.as_file().sync_all()?;
        file.persist(path).map_err(|error| error.error)?;
        Ok(true)
    }

    /// The file with what was found out; `None` where that is nothing.
    fn addition(&self) -> Option<String> {
        let mut all = self.found().clone();
        if all.is_empty() {
            return None;
        }
        all.extend(self.pins.iter().map(|(image, digest)| (image.clone(), *digest)));
        let rule = |(image, digest): (Reference, Digest)| Rule {
            action: "CONVERT".into(),
            selector: Selector { identifier: format!("{IMAGE}{image}"), match_type: None, constraints: Vec::new() },
            updates: Updates { identifier: format!("{IMAGE}{}", image.with_digest(digest)), attrs: Map::new() },
        };
        let policy = Policy { version: self.version, rules: all.into_iter().map(rule).collect() };
        Some(serde_json::to_string_pretty(&policy).expect("strings and numbers have a form in JSON") + "\n")
    }

    fn found(&self) -> MutexGuard<'_, Pins> {
        self.found.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The image that a rule pins, and its digest. The error says what of the rule is not carried out.
fn pin(rule: Value) -> Result<(Reference, Digest), String> {
    match rule.get("action").and_then(Value::as_str) {
        Some("CONVERT") => {}
        Some(action) => return Err(format!("the action {action} is not carried out; a lock holds CONVERT alone")),
        None => return Err("it has no action; a lock holds CONVERT alone".into()),
    }
    let Rule { selector, updates, .. } = serde_json::from_value(rule).map_err(|error| error.to_string())?;
    match selector.match_type.as_deref() {
        None | Some("EXACT") => {}
        Some("WILDCARD") if !selector.identifier.contains(['*', '?']) => {}
        Some(other) => return Err(format!("selectors of the type {other} are not carried out")),
    }
    if selector.identifier.contains(['*', '?']) {
        return Err("wildcards are not carried out; a lock names each image".into());
    }
    if !selector.constraints.is_empty() || !updates.attrs.is_empty() {
        return Err("constraints and attributes are not carried out".into());
    }
    let image = image(&selector.identifier)?;
    let pinned = self::image(&updates.identifier)?;
    let Some(digest) = pinned.digest() else { return Err(format!("'{}' has no digest", updates.identifier)) };
    if image.digest().is_some() {
        return Err("it selects an image that has a digest already".into());
    }
    // BuildKit compares texts.
    if format!("{IMAGE}{image}") != selector.identifier {
        return Err(format!("it selects nothing in BuildKit; write {IMAGE}{image}"));
    }
    if pinned.name() != image.name() || pinned.tag().is_some_and(|tag| Some(tag) != image.tag()) {
        return Err(format!(
            "it takes another image, {}: only digests are carried out; --registry-map takes images from elsewhere",
            updates.identifier
        ));
    }
    Ok((image, digest))
}

fn image(identifier: &str) -> Result<Reference, String> {
    let Some(name) = identifier.strip_prefix(IMAGE) else {
        return Err(format!("'{identifier}': only {IMAGE} is carried out"));
    };
    name.parse().map_err(|error: yadokari_registry::Error| error.to_string())
}

#[cfg(test)]
mod tests;
