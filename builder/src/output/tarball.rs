//! The archive that `docker save` writes and `docker load` reads.

use std::fs::File;
use std::io::{self, BufWriter, Cursor, Read, Write};
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
    let config = format!("{}.json", image.config_digest().hex());
    let tags: Vec<String> = names.iter().map(ToString::to_string).collect();
    let layers: Vec<String> = image.layers.iter().map(tar_name).collect();
    let manifest = json!([{ "Config": config, "RepoTags": tags, "Layers": layers }]).to_string();
    member(archive, &config, image.config.len() as u64, &mut Cursor::new(&image.config))?;
    let mut written: Vec<String> = Vec::new();
    for (layer, name) in image.layers.iter().zip(layers) {
        if !written.contains(&name) {
            member(archive, &name, layer.size, &mut File::open(blob_path(blobs, &layer.digest))?)?;
            written.push(name);
        }
    }
    member(archive, "manifest.json", manifest.len() as u64, &mut Cursor::new(manifest))?;
    archive.write_all(&[0; 1024])
}

/// One file of the archive: names are short and sizes fit, so a plain header does.
fn member(archive: &mut impl Write, name: &str, size: u64, content: &mut dyn Read) -> io::Result<()> {
    let header = yadokari_layers::tar::plain_header(name, size)?;
    archive.write_all(&header)?;
    let copied = io::copy(&mut content.take(size), archive)?;
    if copied != size {
        return Err(io::Error::new(io::ErrorKind::UnexpectedEof, format!("{name} ends early")));
    }
    let padding = size.next_multiple_of(512) - size;
    archive.write_all(&vec![0; padding as usize])
}
