//! An image as a list of fields, so that two can be compared and the differences named.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use serde_json::Value;

use super::tree::Tree;
use crate::error::{At, Error, Result};

/// What came of a build, by field: `outcome`, `config.Env`, `history[2].created_by`, `layers`, `etc/passwd mode`.
/// Of the file system there is what differs from the base image's.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Snapshot(pub BTreeMap<String, String>);

/// A field in which two snapshots differ.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Difference {
    /// The field's name.
    pub field: String,
    /// The one side.
    pub ours: Option<String>,
    /// The other.
    pub theirs: Option<String>,
}

/// The layers of base images, by diff id: what an image has of them is compared by what changed.
#[derive(Debug, Default)]
pub struct BaseLayers {
    diff_ids: BTreeSet<String>,
    trees: Mutex<BTreeMap<usize, Vec<Merged>>>,
}

/// Layers, and what they make together.
type Merged = (Vec<String>, Tree);

impl BaseLayers {
    /// Those of the images that OCI layout directories hold.
    pub fn of(layouts: &[PathBuf]) -> Result<Self> {
        let mut diff_ids = BTreeSet::new();
        for layout in layouts {
            let image = Blobs(layout.clone());
            for manifest in image.manifests(&json(&layout.join("index.json"))?)? {
                diff_ids.extend(strings(&image.json(&manifest["config"])?["rootfs"]["diff_ids"]));
            }
        }
        Ok(Self { diff_ids, trees: Mutex::default() })
    }
}

impl Snapshot {
    /// Of a build that failed.
    pub fn refused() -> Self {
        Self(BTreeMap::from([("outcome".to_owned(), "refused".to_owned())]))
    }

    /// Whether the build failed.
    pub fn is_refused(&self) -> bool {
        self.0.get("outcome").is_some_and(|outcome| outcome == "refused")
    }

    /// Of the only image in a directory: an OCI layout, or a directory of blobs with a `manifest.json`.
    pub fn of(directory: &Path, bases: &BaseLayers) -> Result<Self> {
        let blobs = Blobs(directory.to_owned());
        let manifest = directory.join("manifest.json");
        let manifests = match manifest.is_file() {
            true => vec![json(&manifest)?],
            false => blobs.manifests(&json(&directory.join("index.json"))?)?,
        };
        let [manifest] = &manifests[..] else {
            let detail = format!("{} images instead of one", manifests.len());
            return Err(Error::Json { path: directory.to_owned(), detail });
        };
        let config = blobs.json(&manifest["config"])?;
        let mut fields = BTreeMap::from([("outcome".to_owned(), "built".to_owned())]);
        describe(&config, &mut fields);
        let diff_ids = strings(&config["rootfs"]["diff_ids"]);
        fields.insert("layers".to_owned(), diff_ids.len().to_string());
        let layers: Vec<_> = manifest["layers"].as_array().cloned().unwrap_or_default();
        if layers.len() != diff_ids.len() {
            let detail = format!("{} layers and {} diff ids", layers.len(), diff_ids.len());
            return Err(Error::Json { path: directory.to_owned(), detail });
        }
        let below = diff_ids.iter().take_while(|diff_id| bases.diff_ids.contains(*diff_id)).count();
        let base = blobs.base(&layers[..below], &diff_ids[..below], bases)?;
        let mut tree = base.clone();
        for layer in &layers[below..] {
            blobs.apply(layer, &mut tree)?;
        }
        let (before, after) = (base.fields(), tree.fields());
        for (path, attributes) in &after {
            if !before.get(path).is_some_and(|base| is_same(base, attributes)) {
                fields.extend(attributes.iter().map(|(name, value)| (format!("/{path} {name}"), value.clone())));
            }
        }
        for path in before.keys().filter(|path| !after.contains_key(*path)) {
            fields.insert(format!("/{path} kind"), "gone".to_owned());
        }
        Ok(Self(fields))
    }

    /// The fields in which `other` is different. Of a path that only one has, the kind alone.
    pub fn differences(&self, other: &Self) -> Vec<Difference> {
        let fields: BTreeSet<_> = self.0.keys().chain(other.0.keys()).collect();
        let kind = |field: &str| field.rsplit_once(' ').map(|(path, _)| format!("{path} kind"));
        let known = |field: &String| {
            let Some(kind) = kind(field).filter(|kind| kind != field) else { return true };
            self.0.contains_key(&kind) && other.0.contains_key(&kind)
        };
        let fields = fields.into_iter().filter(|field| !field.starts_with('/') || known(field));
        let differences = fields.map(|field| Difference {
            field: field.clone(),
            ours: self.0.get(field).cloned(),
            theirs: other.0.get(field).cloned(),
        });
        let mut differences: Vec<_> = differences.filter(|found| found.ours != found.theirs).collect();
        if differences.iter().any(|found| found.field == "outcome") {
            differences.retain(|found| found.field == "outcome");
        }
        differences
    }
}

/// Whether a path is as it is in the base. That something in a directory was changed is told by what was changed.
fn is_same(base: &BTreeMap<String, String>, attributes: &BTreeMap<String, String>) -> bool {
    let touched = attributes.get("time").is_some_and(|time| time == "now");
    base.iter().all(|(name, value)| attributes.get(name) == Some(value) || (touched && name == "time"))
        && attributes.keys().all(|name| base.contains_key(name))
}

/// The config's fields but for times and digests. An empty value is an absent one.
fn describe(config: &Value, fields: &mut BTreeMap<String, String>) {
    let is_empty = |value: &Value| match value {
        Value::Null | Value::Bool(false) => true,
        Value::String(text) => text.is_empty(),
        Value::Array(items) => items.is_empty(),
        Value::Object(items) => items.is_empty(),
        Value::Number(number) => number.as_f64() == Some(0.0),
        Value::Bool(true) => false,
    };
    let mut put = |prefix: &str, object: &Value| {
        for (name, value) in object.as_object().into_iter().flatten().filter(|(_, value)| !is_empty(value)) {
            fields.insert(format!("{prefix}{name}"), value.to_string());
        }
    };
    put("config.", &config["config"]);
    for (number, line) in config["history"].as_array().into_iter().flatten().enumerate() {
        put(&format!("history[{number}]."), line);
    }
    put("", config);
    for name in ["config", "history", "rootfs", "created"] {
        fields.remove(name);
    }
    fields.retain(|name, _| !(name.starts_with("history[") && name.ends_with("].created")));
}

/// A directory of blobs.
struct Blobs(PathBuf);

impl Blobs {
    fn path(&self, descriptor: &Value) -> PathBuf {
        let digest = descriptor["digest"].as_str().unwrap_or_default();
        let hex = digest.trim_start_matches("sha256:");
        let layout = self.0.join("blobs/sha256").join(hex);
        if layout.exists() { layout } else { self.0.join(hex) }
    }

    fn json(&self, descriptor: &Value) -> Result<Value> {
        json(&self.path(descriptor))
    }

    /// The manifests of an index, and of the indexes in it, without attestations.
    fn manifests(&self, index: &Value) -> Result<Vec<Value>> {
        let mut found = Vec::new();
        for descriptor in index["manifests"].as_array().into_iter().flatten() {
            let value = self.json(descriptor)?;
            if value["manifests"].is_array() {
                found.extend(self.manifests(&value)?);
            } else if descriptor["annotations"]["vnd.docker.reference.type"].is_null() {
                found.push(value);
            }
        }
        Ok(found)
    }

    fn apply(&self, layer: &Value, tree: &mut Tree) -> Result<()> {
        let path = self.path(layer);
        tree.apply(File::open(&path).at("open", &path)?).at("read the layer", &path)
    }

    fn base(&self, layers: &[Value], diff_ids: &[String], bases: &BaseLayers) -> Result<Tree> {
        let mut trees = bases.trees.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let known = trees.entry(layers.len()).or_default();
        if let Some((_, tree)) = known.iter().find(|(ids, _)| ids == diff_ids) {
            return Ok(tree.clone());
        }
        let mut tree = Tree::default();
        layers.iter().try_for_each(|layer| self.apply(layer, &mut tree))?;
        known.push((diff_ids.to_owned(), tree.clone()));
        Ok(tree)
    }
}

fn strings(value: &Value) -> Vec<String> {
    value.as_array().into_iter().flatten().filter_map(Value::as_str).map(str::to_owned).collect()
}

fn json(path: &Path) -> Result<Value> {
    let bytes = fs::read(path).at("read", path)?;
    serde_json::from_slice(&bytes).map_err(|error| Error::Json { path: path.to_owned(), detail: error.to_string() })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn snapshot(fields: &[(&str, &str)]) -> Snapshot {
        Snapshot(fields.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect())
    }

    #[test]
    fn a_path_that_one_lacks_is_one_difference() {
        let one = snapshot(&[("outcome", "built"), ("/a kind", "fifo"), ("/a mode", "0644"), ("/b mode", "1")]);
        let two = snapshot(&[("outcome", "built"), ("/b mode", "2"), ("/b kind", "fifo"), ("config.Env", "x")]);
        let fields = |a: &Snapshot, b: &Snapshot| a.differences(b).into_iter().map(|d| d.field).collect::<Vec<_>>();
        assert_eq!(fields(&one, &two), ["/a kind", "/b kind", "config.Env"]);
        assert_eq!(fields(&one, &Snapshot::refused()), ["outcome"]);
        assert!(Snapshot::refused().is_refused() && one.differences(&one).is_empty());
    }
}
