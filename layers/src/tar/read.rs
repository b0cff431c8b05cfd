//! Reading a tar entry by entry.
//!
//! The iterator of the `tar` crate is not used, only its header: it splits extended headers at newlines, which binary
//! attributes hold, and reads extensions of any size into memory.

use std::io::{self, BufRead, BufReader, Read};

use tar::Header;

use super::header::{Member, number};
use super::pax::{self, Records};
use super::{Item, PIECE};
use crate::limits::Counted;
use crate::{Error, Limits, RelPath, Result};

const BLOCK: u64 = 512;

/// The largest long name or extended header, in bytes: as much as Go's reader takes.
pub(super) const MAX_EXTENSION: u64 = 1 << 20;

/// Reads a tar to its end, and `visit`s what it says in its order.
///
/// Names become relative; `..` in a name or a hard link's target, a whiteout of no name, an unknown type and a sparse file
/// are refused by name, and so is what goes beyond `limits`; whatever `visit` refuses ends the reading. The reader given to `visit` holds the entry's
/// content: exactly as many bytes as the entry's size, or it fails; `visit` may leave any part of it. The root itself is
/// passed over. The stream is read to its end, beyond the end of the archive, so that a digest over it is complete.
pub fn read(
    tar: impl Read,
    limits: &Limits,
    mut visit: impl FnMut(RelPath, Item, &mut dyn Read) -> Result<()>,
) -> Result<()> {
    read_buffered(BufReader::with_capacity(PIECE, tar), limits, |path, item, body| visit(path, item, body))
}

/// Like [`read`], for what is in memory already: contents need not be copied out of it.
pub(crate) fn read_buffered<R: BufRead>(
    tar: R,
    limits: &Limits,
    mut visit: impl FnMut(RelPath, Item, &mut Body<'_, R>) -> Result<()>,
) -> Result<()> {
    let mut stream = Stream { inner: tar, counted: Counted::new(limits) };
    while let Some(member) = stream.next()? {
        let size = member.size()?;
        let padding = padding(size);
        stream.counted.bytes(size + padding, || format!("entry '{}'", member.printable()))?;
        let said = member.decode()?;
        stream.counted.said(said.as_ref())?;
        let mut body = Body { inner: &mut stream.inner, left: size };
        if let Some((path, item)) = said {
            visit(path, item, &mut body)?;
        }
        let rest = body.left + padding;
        stream.skip(rest)?;
    }
    let most = stream.counted.left();
    let rest = pass(&mut stream.inner, most.saturating_add(1)).map_err(failed)?;
    stream.counted.bytes(rest, || "what follows the end of the archive".to_owned())
}

/// Reads up to `size` bytes that nobody wants, and says how many there were.
fn pass(from: &mut impl BufRead, size: u64) -> io::Result<u64> {
    let mut passed = 0;
    while passed < size {
        let length = match from.fill_buf() {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            answer => answer?.len(),
        };
        if length == 0 {
            break;
        }
        let length = length.min(usize::try_from(size - passed).unwrap_or(usize::MAX));
        from.consume(length);
        passed += length as u64;
    }
    Ok(passed)
}

fn failed(source: io::Error) -> Error {
    Error::stream("read layer", source)
}

fn malformed(reason: &'static str) -> Error {
    failed(io::Error::new(io::ErrorKind::InvalidData, reason))
}

/// How many bytes fill the last block of `size` bytes.
pub(super) fn padding(size: u64) -> u64 {
    (BLOCK - size % BLOCK) % BLOCK
}

struct Stream<R> {
    inner: R,
    counted: Counted,
}

impl<R: BufRead> Stream<R> {
    /// The next entry's headers. `None` at the end of the archive: a block of zeros, or the end of the stream.
    fn next(&mut self) -> Result<Option<Member>> {
        let (mut records, mut long_name, mut long_link) = (None, None, None);
        loop {
            let Some(header) = self.header()? else {
                return match (records, long_name, long_link) {
                    (None, None, None) => Ok(None),
                    _ => Err(malformed("an extended header belongs to no entry")),
                };
            };
            match header.as_old().linkflag[0] {
                b'x' => {
                    let parsed = pax::parse(&self.extension(&header)?);
                    let parsed = parsed.ok_or_else(|| malformed("an extended header is malformed"))?;
                    once(records.replace(parsed))?;
                }
                // What holds for all following entries is a comment (git's commit) or nothing that engines heed.
                b'g' => _ = self.extension(&header)?,
                b'L' => once(long_name.replace(until_nul(self.extension(&header)?)))?,
                b'K' => once(long_link.replace(until_nul(self.extension(&header)?)))?,
                _ => {
                    let records: Records = records.unwrap_or_default();
                    return Ok(Some(Member { header, records, long_name, long_link }));
                }
            }
        }
    }

    fn header(&mut self) -> Result<Option<Header>> {
        let mut header = Header::new_old();
        let block = header.as_mut_bytes();
        let mut filled = 0;
        while filled < block.len() {
            match self.inner.read(&mut block[filled..]) {
                Ok(0) if filled == 0 => return Ok(None),
                Ok(0) => return Err(failed(io::ErrorKind::UnexpectedEof.into())),
                Ok(length) => filled += length,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(failed(error)),
            }
        }
        self.counted.bytes(BLOCK, || "the header of an entry".to_owned())?;
        if header.as_bytes().iter().all(|&byte| byte == 0) {
            return Ok(None);
        }
        let stated = number(&header.as_old().cksum);
        if [sum(header.as_bytes(), i64::from), sum(header.as_bytes(), |byte| i64::from(byte as i8))]
            .iter()
            .all(|&sum| stated != Some(sum))
        {
            return Err(malformed("the checksum of a header does not match"));
        }
        Ok(Some(header))
    }

    fn extension(&mut self, header: &Header) -> Result<Vec<u8>> {
        let size = number(&header.as_old().size).and_then(|size| u64::try_from(size).ok());
        let Some(size) = size.filter(|&size| size <= MAX_EXTENSION) else {
            return Err(malformed("an extended header is larger than 1 MiB"));
        };
        self.counted.bytes(size + padding(size), || "the extended header of an entry".to_owned())?;
        let mut body = vec![0; size as usize];
        self.inner.read_exact(&mut body).map_err(failed)?;
        self.skip(padding(size))?;
        Ok(body)
    }

    fn skip(&mut self, size: u64) -> Result<()> {
        let skipped = pass(&mut self.inner, size).map_err(failed)?;
        if skipped == size { Ok(()) } else { Err(failed(io::ErrorKind::UnexpectedEof.into())) }
    }
}

fn once<T>(before: Option<T>) -> Result<()> {
    if before.is_none() { Ok(()) } else { Err(malformed("two extended headers belong to one entry")) }
}

fn until_nul(mut name: Vec<u8>) -> Vec<u8> {
    name.truncate(name.iter().position(|&byte| byte == 0).unwrap_or(name.len()));
    name
}

/// The sum of the bytes of a header, its own field counted as spaces. Old writers took bytes for signed.
fn sum(block: &[u8; BLOCK as usize], value: impl Fn(u8) -> i64) -> i64 {
    let field = 148..156;
    block.iter().enumerate().map(|(at, &byte)| if field.contains(&at) { i64::from(b' ') } else { value(byte) }).sum()
}

/// The content of one entry: exactly as many bytes as its size, or an error.
pub(crate) struct Body<'a, R> {
    inner: &'a mut R,
    left: u64,
}

impl<R> Body<'_, R> {
    /// Lets `take` have the reader, and take up to as many bytes as it is told. `None` at the end of the content.
    pub(crate) fn take_from<T>(
        &mut self,
        take: impl FnOnce(&mut R, usize) -> io::Result<(T, usize)>,
    ) -> io::Result<Option<T>> {
        let limit = usize::try_from(self.left).unwrap_or(usize::MAX);
        if limit == 0 {
            return Ok(None);
        }
        let (taken, length) = take(self.inner, limit)?;
        if length == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.left = self.left.saturating_sub(length as u64);
        Ok(Some(taken))
    }
}

impl<R: BufRead> BufRead for Body<'_, R> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        let limit = usize::try_from(self.left).unwrap_or(usize::MAX);
        if limit == 0 {
            return Ok(&[]);
        }
        let buffer = self.inner.fill_buf()?;
        if buffer.is_empty() {
            Err(io::ErrorKind::UnexpectedEof.into())
        } else {
            Ok(&buffer[..buffer.len().min(limit)])
        }
    }

    fn consume(&mut self, length: usize) {
        self.inner.consume(length);
        self.left = self.left.saturating_sub(length as u64);
    }
}

impl<R: BufRead> Read for Body<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let limit = buffer.len().min(usize::try_from(self.left).unwrap_or(usize::MAX));
        if limit == 0 {
            return Ok(0);
        }
        let length = self.inner.read(&mut buffer[..limit])?;
        if length == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.left -= length as u64;
        Ok(length)
    }
}
