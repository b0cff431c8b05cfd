//! Archives that users bring, known by their content: tars of any age, compressed in any usual way.

use std::io::{self, BufReader, Read};

use yadokari_layers::compress;

/// The most bytes that a probe for an archive reads: one tar header, decompressed.
const HEADER: usize = 512;

/// Where the header's checksum is.
const CHECKSUM: std::ops::Range<usize> = 148..156;

/// How bzip2 files begin.
const BZIP2: &[u8] = b"BZh";

/// How xz files begin.
const XZ: &[u8] = b"\xfd7zXZ\0";

/// The most memory that an xz file may need, in KiB. What `xz -9` makes needs 64 MiB.
pub(crate) const XZ_MEMORY: u32 = 256 << 10;

/// Whether these are the first bytes of a tar: a header whose checksum is right, of whatever age. An empty file, a
/// compressed file that holds no tar, and one that holds nothing but its end are copied as they are.
pub(crate) fn is_archive(header: &[u8]) -> bool {
    if header.len() < HEADER || header.iter().all(|&byte| byte == 0) {
        return false;
    }
    let field = &header[CHECKSUM];
    let digits = field.iter().copied().skip_while(|byte| *byte == b' ').take_while(|byte| (b'0'..=b'7').contains(byte));
    let stated = digits.fold(0_i64, |sum, digit| sum << 3 | i64::from(digit - b'0'));
    // Old writers took bytes for signed.
    let sum = |value: fn(u8) -> i64| {
        let byte = |(at, &byte): (usize, &u8)| if CHECKSUM.contains(&at) { i64::from(b' ') } else { value(byte) };
        header.iter().enumerate().map(byte).sum::<i64>()
    };
    stated == sum(i64::from) || stated == sum(|byte| i64::from(byte as i8))
}

/// What is in `file`, decompressed: beside what layers may be compressed with, bzip2 and xz are known.
pub(crate) fn decoder<'a>(mut file: impl Read + Send + 'a) -> Result<Box<dyn Read + Send + 'a>, crate::Error> {
    let failed = |source| yadokari_layers::Error::Stream { operation: "read archive", source };
    let mut magic = Vec::with_capacity(XZ.len());
    (&mut file).take(XZ.len() as u64).read_to_end(&mut magic).map_err(failed)?;
    let whole = io::Cursor::new(magic.clone()).chain(file);
    Ok(if magic == XZ {
        Box::new(lzma_rust2::XzReader::new_mem_limit(BufReader::new(whole), true, XZ_MEMORY))
    } else if magic.starts_with(BZIP2) {
        Box::new(bzip2::read::MultiBzDecoder::new(BufReader::new(whole)))
    } else {
        compress::decoder(whole)?
    })
}

/// The first bytes; fewer where the file ends or breaks before, and `None` where memory does not suffice to see them.
pub(crate) fn head(reader: impl Read) -> Option<Vec<u8>> {
    let mut bytes = Vec::new();
    match reader.take(HEADER as u64).read_to_end(&mut bytes) {
        Err(error) if error.kind() == io::ErrorKind::OutOfMemory => None,
        _ => Some(bytes),
    }
}
