//! The archive that `docker save` writes and `docker load` reads.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{self, BufWriter, Read, Write};
use std::path::Path;

use serde_json::json;
use yadokari_layers::blob_path;
use yadokari_registry::Reference;

use super::{Image, tar_name};

/// Writes `image`, whose layers are all in `blobs`, to the file `path`, which appears when it is complete.
pub(super) fn write(path: &Path, image: &Image, names: &[Reference], blobs: &Path) -> Result<(), crate::Error> {
    let failed = |source| crate::Error::Host { operation: "write", path: path.to_owned(), source };
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let file = tempfile::NamedTempFile::new_in(parent).map_err(failed)?;
    let mut archive = BufWriter::new(file);
    pack(&mut archive, image, names, blobs).map_err(failed)?;
    let file = archive.into_inner().map_err(|error| failed(error.into_error()))?;
    file.persist(path).map_err(|error| failed(error.error))?;
    Ok(())
}

fn pack(archive: &mut impl Write, image: &Image, names: &[Reference], blobs: &Path) -> io::Result<()> {
    let mut archive = tar::Builder::new(archive);
    let config = format!("{}.json", image.config_digest().hex());
    let tags: Vec<String> = names.iter().map(ToString::to_string).collect();
    let layers: Vec<String> = image.layers.iter().map(tar_name).collect();
    let manifest = json!([{ "Config": config, "RepoTags": tags, "Layers": layers }]).to_string();
    member(&mut archive, &config, image.config.len() as u64, &image.config[..])?;
    let mut written = BTreeSet::new();
    for (layer, name) in image.layers.iter().zip(&layers) {
        if written.insert(name) {
            member(&mut archive, name, layer.size, File::open(blob_path(blobs, &layer.digest))?)?;
        }
    }
    member(&mut archive, "manifest.json", manifest.len() as u64, manifest.as_bytes())?;
    archive.finish()
}

/// One file of the archive, without a time or an owner of its own.
fn member<W: Write>(archive: &mut tar::Builder<W>, name: &str, size: u64, content: impl Read) -> io::Result<()> {
    let mut header = tar::Header::new_ustar();
    header.set_size(size);
    header.set_mode(0o644);
    archive.append_data(&mut header, name, content)
}
