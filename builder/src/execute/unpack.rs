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
                let write =
                    |source| yadokari_layers::Error::Host { operation: "write", path: spool.to_owned(), source };
                // Under a name of its own: other archives of the instruction have files here too.
                let file = tempfile::NamedTempFile::new_in(spool).map_err(write)?;
                let (mut file, path) = file.keep().map_err(|error| write(error.error))?;
                io::copy(content, &mut file).map_err(write)?;
                Content::Host(path)
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

#[cfg(test)]
mod tests {
    use std::fs;

    use yadokari_layers::{Change, Timestamp, Tree};

    use super::super::copy::Restyle;
    use super::*;

    /// A tar of these files, `name = first` being a hard link and `name -> target` a symbolic one.
    fn archive(entries: &[(&str, &str)]) -> Vec<u8> {
        let mut builder = ::tar::Builder::new(Vec::new());
        for (name, content) in entries {
            let mut header = ::tar::Header::new_ustar();
            header.set_mode(0o640);
            match name.split_once(" = ") {
                Some((name, first)) => {
                    header.set_entry_type(::tar::EntryType::Link);
                    header.set_size(0);
                    builder.append_link(&mut header, name, first).unwrap();
                }
                None => {
                    header.set_size(content.len() as u64);
                    builder.append_data(&mut header, name, content.as_bytes()).unwrap();
                }
            }
        }
        builder.into_inner().unwrap()
    }

    /// What ADD of these files of a context to `/x` puts there, each unpacked if it is an archive.
    fn added(files: &[(&str, &[u8])]) -> Result<Vec<String>, crate::Error> {
        let (directory, spool) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        for (name, bytes) in files {
            fs::write(directory.path().join(name), bytes).unwrap();
        }
        let context = Context::open(directory.path(), Path::new("none")).unwrap();
        let tree = Tree::new();
        let mut placing = Placing::new(&tree, Restyle::default(), Timestamp::default());
        let mut lines = Vec::new();
        for (name, _) in files {
            let path = RelPath::new(name).unwrap();
            if !unpack(&mut placing, &context, &path, "/x", spool.path(), None)? {
                lines.push(format!("{name} as it is"));
            }
        }
        for (path, change) in placing.finish().iter() {
            let Change::Put(entry, content) = change else { panic!("nothing is deleted") };
            let mut text = String::new();
            content.open().unwrap().read_to_string(&mut text).unwrap();
            lines.push(match &entry.kind {
                Kind::Hardlink { target } => format!("{path} = {target}"),
                Kind::Directory => format!("{path}/"),
                _ => format!("{path} {text}"),
            });
        }
        Ok(lines)
    }

    #[test]
    fn an_archive_is_known_by_its_content() {
        let tar = archive(&[("a", "1")]);
        assert_eq!(added(&[("notes.txt", &tar)]).unwrap(), ["x/", "x/a 1"]);
        let others: [(&str, &[u8]); 4] =
            [("x.tar.gz", b""), ("y.tar", b"text"), ("z.gz", b"\x1f\x8b\x08broken"), ("zero.tar", &[0; 1024])];
        for (name, bytes) in others {
            assert_eq!(added(&[(name, bytes)]).unwrap(), [format!("{name} as it is")]);
        }
    }

    #[test]
    fn two_archives_keep_their_own_contents() {
        let (one, two) = (archive(&[("a", "one"), ("b", "two")]), archive(&[("c", "three"), ("d", "four")]));
        let lines = added(&[("1.tar", &one), ("2.tar", &two)]).unwrap();
        assert_eq!(lines, ["x/", "x/a one", "x/b two", "x/c three", "x/d four"]);
    }

    #[test]
    fn hard_links_are_below_the_destination_too() {
        let tar = archive(&[("b", "1"), ("a = b", "")]);
        assert_eq!(added(&[("1.tar", &tar)]).unwrap(), ["x/", "x/a 1", "x/b = x/a"]);
    }

    #[test]
    fn what_cannot_be_unpacked_is_an_error() {
        let message = |files: &[(&str, &[u8])]| added(files).unwrap_err().to_string();
        assert!(message(&[("x", b"BZh91AY")]).contains("ADD of a bzip2 archive ('x') is not carried out yet"));
        assert!(message(&[("x", b"\xfd7zXZ\0")]).contains("xz"));
        assert!(message(&[("x", &archive(&[(".wh.a", "")]))]).contains("holds a whiteout, 'a'"));
        let cut = archive(&[("a", &"1".repeat(2000))]);
        assert!(added(&[("x", &cut[..1500])]).is_err());
    }
}
