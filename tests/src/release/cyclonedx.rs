//! The bill of materials, as [CycloneDX] 1.5 in JSON.
//!
//! It has no serial number and no time, which would make each one another.
//!
//! [CycloneDX]: https://cyclonedx.org/docs/1.5/json/

use std::path::Path;

use serde_json::{Value, json};

use super::{Inventory, Libc, Package};
use crate::bases::file_digest;
use crate::error::Result;

/// The bill of `executable`.
pub(super) fn write(
    inventory: &Inventory,
    executable: &Path,
    libc: Libc,
    toolchain: &[(&str, String)],
) -> Result<String> {
    let (root, digest) = (&inventory.packages[inventory.root], file_digest(executable)?);
    let mut main = component(root);
    main["type"] = "application".into();
    // The algorithm has a field of its own.
    let digest = digest.trim_start_matches("sha256:");
    main["hashes"] = json!([{ "alg": "SHA-256", "content": digest }]);
    let linked = inventory.packages.iter().enumerate().filter(|(at, _)| *at != inventory.root);
    let components: Vec<_> = linked.map(|(_, package)| component(package)).chain(beside(libc, toolchain)).collect();
    let tool = |(name, version): &(&str, String)| json!({ "type": "application", "name": name, "version": version });
    let tools: Vec<_> = toolchain.iter().map(tool).collect();
    let dependencies = |package: &Package| {
        let on = package.dependencies.iter().map(|at| identity(&inventory.packages[*at]));
        json!({ "ref": identity(package), "dependsOn": on.collect::<Vec<_>>() })
    };
    let bill = json!({
        "bomFormat": "CycloneDX",
        "specVersion": "1.5",
        "version": 1,
        "metadata": { "component": main, "tools": { "components": tools } },
        "components": components,
        "dependencies": inventory.packages.iter().map(dependencies).collect::<Vec<_>>(),
    });
    Ok(format!("{bill:#}\n"))
}

fn component(package: &Package) -> Value {
    let mut component = json!({
        "type": "library",
        "bom-ref": identity(package),
        "name": package.name,
        "version": package.version,
    });
    if let Some(licence) = &package.licence {
        component["licenses"] = json!([{ "expression": licence }]);
    }
    if let Some(checksum) = &package.checksum {
        component["purl"] = identity(package).into();
        component["hashes"] = json!([{ "alg": "SHA-256", "content": checksum }]);
    }
    component
}

/// What is linked and is no package: the standard library, and the C library.
fn beside(libc: Libc, toolchain: &[(&str, String)]) -> [Value; 2] {
    let rustc = toolchain.iter().find(|(name, _)| *name == "rustc").map_or("", |(_, version)| version);
    let version = rustc.split(' ').nth(1).unwrap_or_default();
    let licence = if libc == Libc::Musl { "MIT" } else { "LGPL-2.1-or-later" };
    let library = |name: &str, version: &str, licence: &str| {
        json!({
            "type": "library",
            "bom-ref": name,
            "name": name,
            "version": version,
            "licenses": [{ "expression": licence }],
        })
    };
    // rustc's own copy of musl has no version that could be asked for.
    let of_libc = if libc == Libc::Musl { format!("of rustc {version}") } else { "of this machine".to_owned() };
    [library("std", version, "MIT OR Apache-2.0"), library(libc.name(), &of_libc, licence)]
}

/// A package URL for what is of crates.io, which may have another package of the name of one of ours.
fn identity(package: &Package) -> String {
    match package.checksum {
        Some(_) => format!("pkg:cargo/{}@{}", package.name, package.version.replace('+', "%2B")),
        None => package.reference(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_packages_of_the_registry_have_its_names() {
        let mut package = Package {
            name: "zstd-sys".into(),
            version: "2.0.0+zstd.1.5".into(),
            licence: None,
            authors: Vec::new(),
            checksum: Some("ab".into()),
            directory: "/".into(),
            dependencies: Vec::new(),
        };
        assert_eq!(component(&package)["purl"], "pkg:cargo/zstd-sys@2.0.0%2Bzstd.1.5");
        package.checksum = None;
        assert_eq!(component(&package)["purl"], Value::Null);
        assert_eq!(identity(&package), "zstd-sys@2.0.0+zstd.1.5");
    }
}
