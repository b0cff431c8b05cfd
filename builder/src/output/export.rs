//! The root file system of an image, as files or as a tar, made of its layers without a root.

use std::fs;
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

use rustix::process::{getegid, geteuid};
use yadokari_layers::{Change, Changes, Root, apply, tar};
use yadokari_registry::Platform;

use crate::Error;
use crate::execute::{Blobs, Interrupt};
use crate::image::ImageConfig;
use crate::output::Made;
use crate::progress::Progress;

/// Where a root file system goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Export {
    /// Its files, beside what a directory has already. Those of several platforms get a directory each.
    Directory(PathBuf),
    /// A tar, which replaces a file.
    Archive(PathBuf),
    /// A tar, on the standard output.
    StandardOutput,
}

/// Writes the root file systems of all images, whose layers are all among `blobs`.
pub(super) fn write(export: &Export, made: &Made, blobs: &Blobs<'_>, progress: &Progress) -> Result<(), Error> {
    for image in &made.images {
        let changes = blobs.together(&[], &image.layers, &Interrupt::default())?;
        match export {
            Export::Directory(directory) => {
                let directory = match made.index {
                    Some(_) => directory.join(name(&image.config)?),
                    None => directory.clone(),
                };
                let changes = if geteuid().is_root() { changes } else { owned(&changes) };
                for skipped in unpack(&changes, &directory)? {
                    progress.warning(&format!("{}: {skipped}", directory.display()));
                }
                progress.info(&format!("wrote the files to {}", directory.display()));
            }
            // The command line lets no more than one image into a tar.
            Export::Archive(path) => {
                archive(&changes, path)?;
                progress.info(&format!("wrote the files to {}", path.display()));
            }
            Export::StandardOutput => {
                let mut out = tar::stream(&changes, None, BufWriter::new(io::stdout()))?;
                let failed = |source| Error::Host { operation: "write", path: "/dev/stdout".into(), source };
                out.flush().map_err(failed)?;
            }
        }
    }
    Ok(())
}

/// What the directory of a platform is called, in BuildKit's way.
fn name(config: &[u8]) -> Result<String, Error> {
    let bad = |error: serde_json::Error| Error::BadImage { name: "the result".into(), reason: error.to_string() };
    let ImageConfig { os, architecture, variant, .. } = ImageConfig::parse(config).map_err(bad)?;
    let platform = Platform { os, architecture, variant };
    Ok(platform.to_string().replace('/', "_"))
}

/// The same changes, with this process as the owner of everything: it may give files to nobody else.
fn owned(changes: &Changes) -> Changes {
    let mut owned = Changes::new();
    for (path, change) in changes.iter() {
        if let Change::Put(entry, content) = change {
            let mut entry = entry.clone();
            (entry.uid, entry.gid) = (geteuid().as_raw(), getegid().as_raw());
            owned.put(path.clone(), entry, content.clone());
        }
    }
    owned
}

fn unpack(changes: &Changes, directory: &Path) -> Result<Vec<yadokari_layers::Skipped>, Error> {
    let failed = |source| Error::Host { operation: "make", path: directory.to_owned(), source };
    fs::create_dir_all(directory).map_err(failed)?;
    Ok(apply::apply(changes, &Root::open(directory)?)?)
}

/// Writes a tar to a file, which appears when it is complete.
fn archive(changes: &Changes, path: &Path) -> Result<(), Error> {
    let failed = |source| Error::Host { operation: "write", path: path.to_owned(), source };
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let file = tempfile::NamedTempFile::new_in(parent).map_err(failed)?;
    let out = tar::stream(changes, None, BufWriter::new(file))?;
    let file = out.into_inner().map_err(|error| failed(error.into_error()))?;
    file.persist(path).map_err(|error| failed(error.error))?;
    Ok(())
}
