//! What the executable is linked from: the packages that cargo compiled for it, as it reports them.
//!
//! `cargo metadata` alone would not do: it enables features for the whole workspace, tests included, and so names packages
//! that no executable has in it.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use serde_json::Value;

/// The packages of one executable, by name and version.
#[derive(Clone, Debug)]
pub struct Inventory {
    /// All of them.
    pub packages: Vec<Package>,
    /// Where the one with the executable's `main` is among them.
    pub root: usize,
}

/// A package that is linked.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Package {
    /// Its name.
    pub name: String,
    /// Its version.
    pub version: String,
    /// Its licence, an SPDX expression.
    pub licence: Option<String>,
    /// Whom it names as its authors.
    pub authors: Vec<String>,
    /// The SHA-256 digest of the archive that crates.io has; none for what is of this workspace.
    pub checksum: Option<String>,
    /// Its sources.
    pub directory: PathBuf,
    /// Where those that it depends on are among the packages.
    pub dependencies: Vec<usize>,
}

impl Inventory {
    /// From the `messages` of a build whose target's directory is `built`, from what `cargo metadata` said, and from the text
    /// of the `lock` file.
    pub(super) fn read(messages: &str, built: &Path, metadata: &Value, lock: &str) -> Result<Self, String> {
        let compiled = compiled(messages, built)?;
        let checksums = checksums(lock);
        let described: BTreeMap<&str, &Value> =
            elements(&metadata["packages"]).map(|package| (text(&package["id"]), package)).collect();
        let mut packages = Vec::new();
        for id in &compiled {
            let described = described.get(id.as_str()).ok_or_else(|| format!("{id} is in no metadata"))?;
            packages.push((package(described, &checksums), id.as_str()));
        }
        packages.sort();
        let places: BTreeMap<&str, usize> = packages.iter().enumerate().map(|(at, (_, id))| (*id, at)).collect();
        for node in elements(&metadata["resolve"]["nodes"]) {
            if let Some(at) = places.get(text(&node["id"])) {
                let mut dependencies: Vec<_> = dependencies(node).filter_map(|id| places.get(id).copied()).collect();
                dependencies.sort_unstable();
                packages[*at].0.dependencies = dependencies;
            }
        }
        let packages: Vec<_> = packages.into_iter().map(|(package, _)| package).collect();
        let root = packages.iter().position(|package| package.name == "yadokari").ok_or("yadokari is not compiled")?;
        Ok(Self { packages, root })
    }
}

impl Package {
    /// Name and version as one word.
    pub fn reference(&self) -> String {
        format!("{}@{}", self.name, self.version)
    }
}

/// The directories that hold the directories of packages from elsewhere.
pub(super) fn directories(metadata: &Value) -> impl Iterator<Item = PathBuf> {
    let foreign = elements(&metadata["packages"]).filter(|package| !package["source"].is_null());
    foreign.filter_map(|package| directory(package).parent().map(Path::to_owned))
}

/// The ids of what was compiled for the target. Build scripts, procedural macros and what these are made of are compiled for
/// the machine that builds, in another directory.
fn compiled(messages: &str, built: &Path) -> Result<BTreeSet<String>, String> {
    let mut ids = BTreeSet::new();
    for line in messages.lines().filter(|line| line.starts_with('{')) {
        let message: Value = serde_json::from_str(line).map_err(|e| format!("{e}: {line}"))?;
        let for_target = elements(&message["filenames"]).any(|file| Path::new(text(file)).starts_with(built));
        if message["reason"] == "compiler-artifact" && for_target {
            ids.insert(text(&message["package_id"]).to_owned());
        }
    }
    Ok(ids)
}

fn package(described: &Value, checksums: &BTreeMap<(&str, &str), &str>) -> Package {
    let (name, version) = (text(&described["name"]), text(&described["version"]));
    Package {
        name: name.to_owned(),
        version: version.to_owned(),
        // An older way to write alternatives.
        licence: described["license"].as_str().map(|licence| {
            let alternatives: Vec<_> = licence.split('/').map(str::trim).collect();
            alternatives.join(" OR ")
        }),
        authors: elements(&described["authors"]).map(|author| text(author).to_owned()).collect(),
        checksum: checksums.get(&(name, version)).map(|checksum| (*checksum).to_owned()),
        directory: directory(described).to_owned(),
        dependencies: Vec::new(),
    }
}

/// What a node of the graph needs where it runs, rather than where it is built or tested.
fn dependencies(node: &Value) -> impl Iterator<Item = &str> {
    let normal = |dependency: &&Value| elements(&dependency["dep_kinds"]).any(|kind| kind["kind"].is_null());
    elements(&node["deps"]).filter(normal).map(|dependency| text(&dependency["pkg"]))
}

/// The checksums of a lock file, by name and version.
fn checksums(lock: &str) -> BTreeMap<(&str, &str), &str> {
    let value = |package: &'_ str, key: &str| -> Option<std::ops::Range<usize>> {
        let start = package.find(&format!("\n{key} = \""))? + key.len() + 5;
        Some(start..start + package[start..].find('"')?)
    };
    let packages = lock.split("[[package]]").filter_map(|package| {
        let of = |key| value(package, key).map(|range| &package[range]);
        Some(((of("name")?, of("version")?), of("checksum")?))
    });
    packages.collect()
}

fn directory(package: &Value) -> &Path {
    let manifest = Path::new(text(&package["manifest_path"]));
    manifest.parent().unwrap_or(manifest)
}

fn elements(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// A package of `cargo metadata`, from a registry where it has a checksum.
    fn described(name: &str, source: Option<&str>) -> Value {
        json!({
            "id": name, "name": name, "version": "1.0.0", "license": "MIT/Apache-2.0", "source": source,
            "authors": ["A"], "manifest_path": format!("/registry/{name}-1.0.0/Cargo.toml"),
        })
    }

    #[test]
    fn what_is_compiled_for_the_target_is_linked_and_nothing_else() {
        let message = |name: &str, file: &str| {
            json!({ "reason": "compiler-artifact", "package_id": name, "filenames": [file] }).to_string()
        };
        let messages = [
            message("yadokari", "/t/musl/release/yadokari"),
            message("linked", "/t/musl/release/deps/liblinked.rlib"),
            message("macros", "/t/release/deps/libmacros.so"),
            "a warning that is no JSON".to_owned(),
            json!({ "reason": "build-finished", "success": true }).to_string(),
        ];
        let names = ["yadokari", "linked", "macros", "tests-only"];
        let packages: Vec<_> = names.map(|name| described(name, (name != "yadokari").then_some("registry"))).into();
        let on = |name: &str, kind: Value| json!({ "pkg": name, "dep_kinds": [{ "kind": kind }] });
        let of_root = [on("linked", Value::Null), on("macros", Value::Null), on("yadokari", json!("dev"))];
        let metadata = json!({
            "packages": packages,
            "resolve": { "nodes": [{ "id": "yadokari", "deps": of_root }, { "id": "tests-only", "deps": [] }] },
        });
        let lock = "[[package]]\nname = \"linked\"\nversion = \"1.0.0\"\nchecksum = \"ab\"\n\n[[package]]\nname = \
                    \"yadokari\"\nversion = \"1.0.0\"\n";
        let inventory = Inventory::read(&messages.join("\n"), Path::new("/t/musl"), &metadata, lock).unwrap();
        let references: Vec<_> = inventory.packages.iter().map(Package::reference).collect();
        assert_eq!((references, inventory.root), (vec!["linked@1.0.0".to_owned(), "yadokari@1.0.0".into()], 1));
        let linked = &inventory.packages[0];
        assert_eq!(linked.checksum.as_deref(), Some("ab"));
        assert_eq!(linked.licence.as_deref(), Some("MIT OR Apache-2.0"));
        assert_eq!(inventory.packages[1].dependencies, [0]);
        assert_eq!(inventory.packages[1].checksum, None);
        let mut directories: Vec<_> = directories(&metadata).collect();
        directories.dedup();
        assert_eq!(directories, [Path::new("/registry")]);
    }
}
