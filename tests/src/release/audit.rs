//! The list of packages inside of the executable, in the form of [cargo-auditable]: what scanners of images look for.
//!
//! [cargo-auditable]: https://docs.rs/auditable-serde

use std::fs::{self, Permissions};
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use flate2::Compression;
use flate2::write::ZlibEncoder;
use serde_json::{Value, json};
use tempfile::NamedTempFile;

use super::{Inventory, Package};
use crate::error::{At, Result};
use crate::{run, scratch};

/// The section that holds it.
const SECTION: &str = ".dep-v0";

/// Copies the executable `from` to `to`, with the list.
pub(super) fn embed(inventory: &Inventory, from: &Path, to: &Path) -> Result<()> {
    let scratch = scratch::directory()?;
    let file = scratch.path().join("packages");
    let mut encoder = ZlibEncoder::new(Vec::new(), Compression::best());
    encoder.write_all(list(inventory).to_string().as_bytes()).at("compress", &file)?;
    fs::write(&file, encoder.finish().at("compress", &file)?).at("write", &file)?;
    // Whoever reads the executable meanwhile reads one that is whole.
    let directory = to.parent().unwrap_or(to);
    let partial = NamedTempFile::new_in(directory).at("make a file in", directory)?;
    let section = format!("{SECTION}={}", file.display());
    let flags = format!("{SECTION}=noload,readonly");
    let options = ["--add-section", &section, "--set-section-flags", &flags];
    let names = [&*from.to_string_lossy(), &*partial.path().to_string_lossy()];
    run("objcopy", options.into_iter().chain(names))?;
    fs::set_permissions(partial.path(), Permissions::from_mode(0o755)).at("chmod", partial.path())?;
    partial.persist(to).map_err(|e| e.error).at("rename", to).map(drop)
}

fn list(inventory: &Inventory) -> Value {
    let entry = |(at, package): (usize, &Package)| {
        let source = if package.checksum.is_some() { "crates.io" } else { "local" };
        json!({
            "name": package.name,
            "version": package.version,
            "source": source,
            "dependencies": package.dependencies,
            "root": at == inventory.root,
        })
    };
    json!({ "packages": inventory.packages.iter().enumerate().map(entry).collect::<Vec<_>>() })
}
