//! ADD of a local archive: its entries land below the destination.

use std::fs::File;

use yadokari_layers::{Content, Digest, Error as LayersError, HashingReader, Kind, Limits, RelPath, Spool, tar};

use super::copy::{Conflict, Placing};
use crate::archive::{XZ_MEMORY, decoder, head, is_archive};
use crate::context::Context;
use crate::dockerfile::{Diagnostic, Span};

/// Unpacks the file `path` of the context below `destination` if it is an archive, whatever its name. Returns false,
/// with nothing done, where it is not. Contents pass through the spool, so that an archive of any size needs
/// little memory.
pub(super) fn unpack(
    placing: &mut Placing<'_>,
    context: &Context,
    path: &RelPath,
    destination: &str,
    spool: &mut Spool,
    limits: &Limits,
    span: Option<Span>,
) -> Result<bool, crate::Error> {
    let tree = context.tree()?;
    let holder = tree.content(path).map_or(path, |(holder, _)| holder);
    let open = || Ok(context.open_file(holder)?);
    let archive = Archive { name: &path.to_string(), open: &open, digest: context.known_digest(holder), limits };
    unpack_file(placing, &archive, destination, spool, span)
}

/// A file that may be an archive.
pub(super) struct Archive<'a> {
    /// What messages call it.
    pub(super) name: &'a str,
    /// Opens it.
    pub(super) open: &'a dyn Fn() -> Result<File, crate::Error>,
    /// What its bytes were when the step's key was computed. It is an error that they are not what they were.
    pub(super) digest: Option<Digest>,
    /// How much it may hold.
    pub(super) limits: &'a Limits,
}

/// The same for any file.
pub(super) fn unpack_file(
    placing: &mut Placing<'_>,
    archive: &Archive<'_>,
    destination: &str,
    spool: &mut Spool,
    span: Option<Span>,
) -> Result<bool, crate::Error> {
    let (path, open) = (archive.name, archive.open);
    let refuse = |conflict: Conflict| match conflict {
        Conflict::Layers(error) => crate::Error::Layers(error),
        conflict => located(Diagnostic::new(conflict.to_string()), span),
    };
    let Some(head) = head(decoder(open()?)?) else {
        let error = Diagnostic::new(format!("archive '{path}' needs more than {} MiB of memory", XZ_MEMORY >> 10));
        return Err(located(error.help("compress it with a smaller dictionary: 'xz -9' needs 65 MiB"), span));
    };
    if !is_archive(&head) {
        return Ok(false);
    }
    let target = placing.resolve(destination).map_err(refuse)?;
    placing.directory_for_archive(&target).map_err(refuse)?;
    let mut failed = None;
    let mut bytes = HashingReader::new(open()?);
    let read = tar::read(decoder(&mut bytes)?, archive.limits, |name, item, content| {
        let tar::Item::Put(mut entry) = item else {
            failed = Some(located(Diagnostic::new(format!("archive '{path}' holds a whiteout, '{name}'")), span));
            return Ok(());
        };
        if failed.is_some() || name.is_root() {
            return Ok(());
        }
        let content = match &mut entry.kind {
            Kind::File { size, .. } if *size > 0 => spool.take(content)?,
            Kind::Hardlink { target: first } => {
                failed = placing.link(&target.join(&name), &target.join(first)).map_err(refuse).err();
                return Ok(());
            }
            _ => Content::Empty,
        };
        failed = placing.unpack(&target.join(&name), entry, content).map_err(refuse).err();
        Ok(())
    });
    read.map_err(|error| match &error {
        // What the archive is to blame for.
        LayersError::Entry { .. } | LayersError::Limit { .. } => {
            located(Diagnostic::new(format!("archive '{path}': {error}")), span)
        }
        LayersError::Stream { source, .. } if source.raw_os_error().is_none() => {
            located(Diagnostic::new(format!("archive '{path}': {error}")), span)
        }
        _ => error.into(),
    })?;
    failed.map_or(Ok(()), Err)?;
    let failed = |source| yadokari_layers::Error::Stream { operation: "read archive", source };
    let found = bytes.finish().map_err(failed)?;
    if archive.digest.is_some_and(|expected| expected != found) {
        return Err(located(Diagnostic::new(format!("archive '{path}' changed while it was read")), span));
    }
    Ok(true)
}

fn located(error: Diagnostic, span: Option<Span>) -> crate::Error {
    span.map_or(error.clone(), |span| error.at(span)).into()
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::io::Write;
    use std::path::Path;

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

    /// How much an archive of these tests may hold.
    const LIMITS: Limits = Limits { size: 1 << 20, entries: 100 };

    /// What ADD of these files of a context to `/x` puts there, each unpacked if it is an archive.
    fn added(files: &[(&str, &[u8])]) -> Result<Vec<String>, crate::Error> {
        let (directory, elsewhere) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let mut spool = Spool::create(elsewhere.path()).unwrap();
        for (name, bytes) in files {
            fs::write(directory.path().join(name), bytes).unwrap();
        }
        let context = Context::open(directory.path(), Path::new("none")).unwrap();
        let tree = Tree::new();
        let mut placing = Placing::new(&tree, Restyle::default(), Timestamp::default());
        let mut lines = Vec::new();
        for (name, _) in files {
            let path = RelPath::new(name).unwrap();
            if !unpack(&mut placing, &context, &path, "/x", &mut spool, &LIMITS, None)? {
                lines.push(format!("{name} as it is"));
            }
        }
        for (path, change) in placing.finish().iter() {
            let Change::Put(entry, content) = change else { panic!("nothing is deleted") };
            let mut text = String::new();
            std::io::Read::read_to_string(&mut content.open().unwrap(), &mut text).unwrap();
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
        let others: [(&str, &[u8]); 7] = [
            ("x.tar.gz", b""),
            ("y.tar", b"text"),
            ("z.gz", b"\x1f\x8b\x08broken"),
            ("zero.tar", &[0; 1024]),
            ("x.tar.bz2", b"BZh91AY"),
            ("x.tar.xz", b"\xfd7zXZ\0"),
            ("words", &[b'7'; 1024]),
        ];
        for (name, bytes) in others {
            assert_eq!(added(&[(name, bytes)]).unwrap(), [format!("{name} as it is")]);
        }
    }

    fn bzip2(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = ::bzip2::write::BzEncoder::new(Vec::new(), ::bzip2::Compression::fast());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    }

    fn xz(bytes: &[u8]) -> Vec<u8> {
        let options = lzma_rust2::XzOptions::with_preset(0);
        let mut writer = lzma_rust2::XzWriter::new(Vec::new(), options).unwrap();
        writer.write_all(bytes).unwrap();
        writer.finish().unwrap()
    }

    fn by_layers(compression: yadokari_layers::Compression, bytes: &[u8]) -> Vec<u8> {
        let mut encoder = yadokari_layers::compress::Encoder::new(compression, None, Vec::new()).unwrap();
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    }

    #[test]
    fn archives_of_every_compression_are_unpacked() {
        use yadokari_layers::Compression;
        let content = "1".repeat(100_000);
        let tar = archive(&[("a", &content)]);
        let all = [
            ("plain", tar.clone()),
            ("gzip", by_layers(Compression::Gzip, &tar)),
            ("zstd", by_layers(Compression::Zstd, &tar)),
            ("bzip2", bzip2(&tar)),
            ("xz", xz(&tar)),
        ];
        for (name, bytes) in &all {
            assert_eq!(added(&[(name, bytes)]).unwrap(), ["x/".to_owned(), format!("x/a {content}")], "{name}");
        }
        // All streams of a file belong to it.
        let (one, other) = tar.split_at(50_000);
        for (name, bytes) in [("bzip2", [bzip2(one), bzip2(other)].concat()), ("xz", [xz(one), xz(other)].concat())] {
            assert_eq!(added(&[(name, &bytes)]).unwrap(), ["x/".to_owned(), format!("x/a {content}")], "{name}");
        }
    }

    #[test]
    fn compressed_files_without_a_tar_are_copied_as_they_are() {
        for (name, bytes) in [("a.bz2", bzip2(b"text")), ("a.xz", xz(&[b'x'; 5000]))] {
            assert_eq!(added(&[(name, &bytes)]).unwrap(), [format!("{name} as it is")]);
        }
    }

    #[test]
    fn archives_of_old_writers_are_archives() {
        let mut header = ::tar::Header::new_old();
        header.set_path("old").unwrap();
        header.set_size(2);
        header.set_mode(0o600);
        header.set_cksum();
        let mut builder = ::tar::Builder::new(Vec::new());
        builder.append(&header, &b"v7"[..]).unwrap();
        let tar = builder.into_inner().unwrap();
        assert_eq!(added(&[("x", &tar)]).unwrap(), ["x/", "x/old v7"]);
        let mut wrong = tar;
        wrong[0] = b'O';
        assert_eq!(added(&[("x", &wrong)]).unwrap(), ["x as it is"], "the checksum is wrong");
    }

    /// The CRC-32 of xz files.
    fn crc(bytes: &[u8]) -> u32 {
        !bytes.iter().fold(!0, |crc, &byte| {
            (0..8).fold(crc ^ u32::from(byte), |crc, _| if crc & 1 == 1 { crc >> 1 ^ 0xedb8_8320 } else { crc >> 1 })
        })
    }

    #[test]
    fn an_archive_that_needs_too_much_memory_is_an_error() {
        let mut bytes = xz(&archive(&[("a", "1")]));
        // Behind the stream's header: the block header's size, its flags, the filter, its length, the dictionary's size.
        let size = (usize::from(bytes[12]) + 1) * 4;
        let dictionary = bytes[12..12 + size].windows(2).position(|window| window == [0x21, 1]).unwrap() + 12 + 2;
        bytes[dictionary] = 38;
        let checksum = crc(&bytes[12..12 + size - 4]).to_le_bytes();
        bytes[12 + size - 4..12 + size].copy_from_slice(&checksum);
        let error = added(&[("x", &bytes)]).unwrap_err().to_string();
        assert_eq!(error, "archive 'x' needs more than 256 MiB of memory");
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
        assert!(message(&[("x", &archive(&[(".wh.a", "")]))]).contains("holds a whiteout, 'a'"));
        let cut = archive(&[("a", &"1".repeat(2000))]);
        assert!(added(&[("x", &cut[..1500])]).is_err());
        let noise: String =
            (0_u32..200_000).map(|n| char::from(b' ' + (n.wrapping_mul(2_654_435_761) >> 25) as u8)).collect();
        let long = archive(&[("a", "1"), ("b", &noise)]);
        for bytes in [bzip2(&long), xz(&long)] {
            let half = &bytes[..bytes.len() - bytes.len() / 4];
            let whole = added(&[("x", &bytes)]).unwrap();
            assert_eq!(whole.len(), 3);
            let cut = added(&[("x", half)]);
            assert!(cut.is_err() || cut.unwrap() == ["x as it is"], "half an archive is never taken for a whole one");
        }
    }
}
