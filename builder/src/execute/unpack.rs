//! ADD of a local archive: its entries land below the destination.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use yadokari_layers::{Content, Kind, RelPath, compress, tar};

use super::copy::{Conflict, Placing};
use crate::context::Context;
use crate::dockerfile::{Diagnostic, Span};

/// The most bytes that a probe for an archive reads: one tar header, decompressed.
const HEADER: usize = 512;

/// Unpacks the file `path` of the context below `destination` if it is an archive, whatever its name. Returns false,
/// with nothing done, where it is not. Contents pass through files in `spool`, so that an archive of any size needs
/// little memory.
pub(super) fn unpack(
    placing: &mut Placing<'_>,
    context: &Context,
    path: &RelPath,
    destination: &str,
    spool: &Path,
    span: Option<Span>,
) -> Result<bool, crate::Error> {
    let refuse = |conflict: Conflict| match conflict {
        Conflict::Layers(error) => crate::Error::Layers(error),
        conflict => located(Diagnostic::new(conflict.to_string()), span),
    };
    match kind(context, path)? {
        Archive::None => return Ok(false),
        Archive::Unsupported(name) => {
            let error = Diagnostic::new(format!("ADD of a {name} archive ('{path}') is not carried out yet"));
            return Err(located(error.help("unpack it in a RUN, or compress it with gzip or zstd"), span));
        }
        Archive::Tar => {}
    }
    let target = placing.resolve(destination).map_err(refuse)?;
    placing.directory_for_archive(&target).map_err(refuse)?;
    let mut failed = None;
    let mut count = 0_u64;
    let read = tar::read(compress::decoder(open(context, path)?)?, |name, item, content| {
        let tar::Item::Put(mut entry) = item else {
            failed = Some(located(Diagnostic::new(format!("archive '{path}' holds a whiteout, '{name}'")), span));
            return Ok(());
        };
        if failed.is_some() || name.is_root() {
            return Ok(());
        }
        let bytes = match &mut entry.kind {
            Kind::File { size, .. } if *size > 0 => {
                count += 1;
                let file = spool.join(format!("unpacked-{count}"));
                let write = |source| yadokari_layers::Error::Host { operation: "write", path: file.clone(), source };
                io::copy(content, &mut File::create(&file).map_err(write)?).map_err(write)?;
                Content::Host(file)
            }
            Kind::Hardlink { target: first } => {
                failed = placing.link(&target.join(&name), &target.join(first)).map_err(refuse).err();
                return Ok(());
            }
            _ => Content::Empty,
        };
        failed = placing.unpack(&target.join(&name), entry, bytes).map_err(refuse).err();
        Ok(())
    });
    read?;
    failed.map_or(Ok(true), Err)
}

enum Archive {
    None,
    Tar,
    Unsupported(&'static str),
}

/// What a file is, by its content: an archive begins with a tar header, compressed or not. An empty file, or a
/// compressed file that holds no tar, is copied as it is.
fn kind(context: &Context, path: &RelPath) -> Result<Archive, crate::Error> {
    let start = head(open(context, path)?);
    if start.starts_with(b"BZh") {
        return Ok(Archive::Unsupported("bzip2"));
    }
    if start.starts_with(b"\xfd7zXZ\0") {
        return Ok(Archive::Unsupported("xz"));
    }
    let plain = head(compress::decoder(open(context, path)?)?);
    let is_tar = plain.len() == HEADER && plain[257..262] == *b"ustar";
    Ok(if is_tar { Archive::Tar } else { Archive::None })
}

/// The first bytes; fewer where the file ends or breaks before.
fn head(reader: impl Read) -> Vec<u8> {
    let mut bytes = Vec::new();
    _ = reader.take(HEADER as u64).read_to_end(&mut bytes);
    bytes
}

fn open(context: &Context, path: &RelPath) -> Result<File, crate::Error> {
    let tree = context.tree()?;
    let holder = tree.content(path).map_or(path, |(holder, _)| holder);
    Ok(context.open_file(holder)?)
}

fn located(error: Diagnostic, span: Option<Span>) -> crate::Error {
    span.map_or(error.clone(), |span| error.at(span)).into()
}
