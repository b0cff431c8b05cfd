//! What other builders make of a case: BuildKit and Buildah of today, from Debian sid's packages.
//!
//! A small sid root is made once and kept in the cache. A session is a mount and a process namespace of its own with that
//! root, where a dockerd without network bridge runs; it ends with everything in it. What the builders said about a
//! case is kept in the cache, too, so that only new and changed cases take a session.

mod room;
mod root;
mod session;

pub(crate) use room::Room;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::cache;
use crate::dialect::{BaseLayers, Case, File, Snapshot};
use crate::error::{At, Error, Result};
use crate::layout::digest;

/// Counts up when the same case is to be built again: what is asked of the builders has changed, or the snapshots.
const VERSION: u32 = 3;

/// The other builders.
#[derive(Clone, Debug)]
pub struct Oracle {
    root: PathBuf,
}

/// One of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Builder {
    /// The authority.
    BuildKit,
    /// The second opinion.
    Buildah,
}

/// What a builder made of a case.
#[derive(Clone, Debug, Default)]
pub struct Verdict {
    /// The image, or that there is none.
    pub snapshot: Snapshot,
    /// What it printed, where it refused.
    pub log: String,
}

/// What those made of a case that were asked.
pub type Verdicts = BTreeMap<Builder, Verdict>;

impl Builder {
    /// All of them.
    pub const ALL: [Self; 2] = [Self::BuildKit, Self::Buildah];

    /// Those that are asked about a case: where BuildKit refuses, no second opinion counts.
    pub fn of(case: &Case) -> &'static [Self] {
        if case.refused.is_some() { &[Self::BuildKit] } else { &Self::ALL }
    }

    fn word(self) -> &'static str {
        match self {
            Self::BuildKit => "buildkit",
            Self::Buildah => "buildah",
        }
    }
}

impl Oracle {
    /// Makes it, once; or says why that is not possible here.
    pub fn obtain() -> Result<Self, String> {
        root::obtain().map(|root| Self { root })
    }

    /// A place to build something in, below `directory`. `host` is the registry that stands for Docker Hub.
    pub(crate) fn room(&self, host: &str, directory: TempDir) -> Result<Room> {
        Room::create(&self.root, host, directory)
    }

    /// Has `cases` built, but for those whose result is known. `registry` gives its address where one must be asked: it
    /// stands for Docker Hub. Every case has the files of `common`.
    pub fn build(
        &self,
        cases: &[Case],
        common: &[File],
        bases: &BaseLayers,
        registry: impl FnOnce() -> Result<String>,
    ) -> Result<BTreeMap<String, Verdicts>> {
        let directory = cache::directory()?.join("oracle-results");
        fs::create_dir_all(&directory).at("create", &directory)?;
        let _lock = cache::lock("oracle-results")?;
        let keys: BTreeMap<&str, String> = cases.iter().map(|case| (&*case.name, self.key(case, common))).collect();
        let mut found = BTreeMap::new();
        let mut unknown = Vec::new();
        for case in cases {
            match recall(&directory, case, &keys[&*case.name])? {
                Some(verdicts) => _ = found.insert(case.name.clone(), verdicts),
                None => unknown.push(case),
            }
        }
        if unknown.is_empty() {
            return Ok(found);
        }
        let host = registry()?;
        for (name, verdicts) in session::run(&self.root, &unknown, common, bases, &host)? {
            remember(&directory, &name, &keys[&*name], &verdicts)?;
            found.insert(name, verdicts);
        }
        Ok(found)
    }

    fn key(&self, case: &Case, common: &[File]) -> String {
        let root = self.root.file_name().unwrap_or_default();
        let recipe = format!("{VERSION} {root:?} {} {common:?}", case.recipe());
        digest(&mut recipe.as_bytes()).unwrap_or_default()
    }
}

/// What was made of a case before, by all who are asked about it now.
fn recall(directory: &Path, case: &Case, key: &str) -> Result<Option<Verdicts>> {
    let path = directory.join(format!("{}.json", case.name));
    let Ok(bytes) = fs::read(&path) else { return Ok(None) };
    let wrong = |detail: String| Error::Json { path: path.clone(), detail };
    let value: Value = serde_json::from_slice(&bytes).map_err(|error| wrong(error.to_string()))?;
    let asked = Builder::of(case);
    if value["key"] != key || asked.iter().any(|builder| !value[builder.word()].is_object()) {
        return Ok(None);
    }
    let verdict = |&builder: &Builder| {
        let value = &value[builder.word()];
        let fields = value["fields"].as_object().into_iter().flatten();
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let snapshot = Snapshot(fields.map(|(name, value)| (name.clone(), text(value))).collect());
        (builder, Verdict { snapshot, log: text(&value["log"]) })
    };
    Ok(Some(asked.iter().map(verdict).collect()))
}

fn remember(directory: &Path, name: &str, key: &str, verdicts: &Verdicts) -> Result<()> {
    let path = directory.join(format!("{name}.json"));
    let mut value = json!({ "key": key });
    for (builder, verdict) in verdicts {
        value[builder.word()] = json!({"fields": verdict.snapshot.0, "log": verdict.log});
    }
    fs::write(&path, value.to_string()).at("write", &path)
}
