//! Compressed layers: reading any, writing gzip and zstd.
//!
//! A layer is cut into blocks of a fixed size, which the threads of rayon's pool compress side by side, each as if nothing
//! were before it; so what comes out depends on the bytes and on the level, and on nothing else. No more blocks are there
//! at once than [`queue`] says.
//!
//! gzip is one member, whose blocks end where a byte does ([`gzip`]); zstd is a frame for each block ([`frames`]). Both say
//! what was measured. What `decoder` reads need not have been made here.

mod frames;
mod gzip;
mod queue;

use std::fmt;
use std::io::{self, BufReader, Cursor, Read, Write};

use flate2::bufread::MultiGzDecoder;

use self::queue::Queue;
use crate::{Compression, Error, Result};

/// Compressed bytes are read in pieces of this size.
const PIECE: usize = 128 * 1024;

/// Reads a layer's tar out of `reader`, whatever compresses it: the first bytes say, the media type is not asked. All
/// members of a gzip file and all frames of a zstd file belong to it. What is neither is taken as it is, and so is nothing.
pub fn decoder<'a>(mut reader: impl Read + Send + 'a) -> Result<Box<dyn Read + Send + 'a>> {
    let failed = |source| Error::Stream { operation: "read layer", source };
    let mut magic = Vec::with_capacity(4);
    (&mut reader).take(4).read_to_end(&mut magic).map_err(failed)?;
    let kind = match magic[..] {
        [0x1f, 0x8b, ..] => Compression::Gzip,
        // A frame, or a skippable frame before it.
        [0x28, 0xb5, 0x2f, 0xfd] | [0x50..=0x5f, 0x2a, 0x4d, 0x18] => Compression::Zstd,
        _ => Compression::None,
    };
    let reader = BufReader::with_capacity(PIECE, Cursor::new(magic).chain(reader));
    Ok(match kind {
        Compression::None => Box::new(reader),
        Compression::Gzip => Box::new(MultiGzDecoder::new(reader)),
        Compression::Zstd => Box::new(zstd::stream::Decoder::with_buffer(reader).map_err(failed)?),
    })
}

/// Compresses what is written to it. The same bytes and level give the same output everywhere and every time, in whatever
/// pieces they come and however many threads there are: a gzip header holds no time, no name and no operating system.
///
/// The threads are those of rayon's current pool. After an error there is nothing more to be had: all that follows fails.
pub struct Encoder<W: Write> {
    inner: Inner<W>,
}

enum Inner<W: Write> {
    None(W),
    Gzip(Queue<gzip::Deflater, W>),
    Zstd(Queue<frames::Framer, W>),
}

fn failed(source: io::Error) -> Error {
    Error::Stream { operation: "compress layer", source }
}

impl<W: Write> Encoder<W> {
    /// Compresses into `out`. A level beyond what the format knows is taken for the nearest one.
    pub fn new(compression: Compression, level: Option<i32>, out: W) -> Result<Self> {
        let inner = match compression {
            Compression::None => Inner::None(out),
            Compression::Gzip => Inner::Gzip(Queue::new(gzip::Settings::new(level), out).map_err(failed)?),
            Compression::Zstd => Inner::Zstd(Queue::new(frames::Settings::new(level), out).map_err(failed)?),
        };
        Ok(Self { inner })
    }

    /// Writes what is left and gives the writer back. Without this call the output is not complete.
    pub fn finish(self) -> Result<W> {
        match self.inner {
            Inner::None(out) => Ok(out),
            Inner::Gzip(queue) => queue.finish(),
            Inner::Zstd(queue) => queue.finish(),
        }
        .map_err(failed)
    }
}

impl<W: Write> Write for Encoder<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match &mut self.inner {
            Inner::None(out) => out.write(bytes),
            Inner::Gzip(queue) => queue.write(bytes),
            Inner::Zstd(queue) => queue.write(bytes),
        }
    }

    /// Writes the blocks that are full. What is in the one that is not stays there, or the output would depend on this.
    fn flush(&mut self) -> io::Result<()> {
        match &mut self.inner {
            Inner::None(out) => out.flush(),
            Inner::Gzip(queue) => queue.flush(),
            Inner::Zstd(queue) => queue.flush(),
        }
    }
}

impl<W: Write> fmt::Debug for Encoder<W> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.inner {
            Inner::None(_) => "Encoder(none)",
            Inner::Gzip(_) => "Encoder(gzip)",
            Inner::Zstd(_) => "Encoder(zstd)",
        })
    }
}

#[cfg(test)]
mod tests;
