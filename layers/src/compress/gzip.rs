//! gzip: one member, in which every block ends where a byte does.
//!
//! One member and not one for each block, which the format allows, because there are readers that take the first for all:
//! Python's `tarfile` when it reads a stream, and snapshotters that fetch what is looked at. A block ends as zlib's sync flush ends
//! it, with an empty stored block, and needs nothing of what was before it.
//!
//! Measured on a tar of programs, libraries, headers and documents, in MB of tar for each second of one thread, and the
//! tar's size in sizes of what it became:
//!
//! | | speed | ratio |
//! |---|---|---|
//! | level 1 | 225 | 2.24 |
//! | level 2 | 128 | 2.71 |
//! | level 3 | 111 | 2.81 |
//! | level 6 | 69 | 2.91 |
//! | level 2, blocks of 128 KiB | as above | 2.68 |
//! | level 2, blocks of 1 MiB | as above | 2.71 |
//! | level 2, each block with the last 32 KiB of the one before it as dictionary | as above | 2.71 |
//! | libdeflate, level 1, a member for each block | 209 | 2.74 |
//! | libdeflate, level 1, its streams joined into one member | 149 | 2.74 |
//!
//! What does not compress would take 17 ms for each MB, more than twice as long as what does; it is recognised and stored.
//!
//! libdeflate marks the end of each of its streams in a place that is found only by decoding all of it, which costs what
//! makes it faster.

use std::io;

use flate2::{Compress, Compression, Crc, FlushCompress};

use super::queue::Blocks;

/// What is written when no level is asked for. Level 3 takes a seventh more time for 4 % fewer bytes, level 6 nearly twice as much
/// for 7 % fewer, and level 1 little more than half of it for 21 % more.
const LEVEL: i32 = 2;

/// A piece of this size is deflated or stored, by what its beginning is like.
const PIECE: usize = 32 * 1024;

/// The size of that beginning.
const SAMPLE: usize = 4 * 1024;

/// A sample that shrinks by no more than one in this many bytes does not compress.
const WORTH: usize = 16;

/// The most that a stored block holds, and what it has before that.
const STORED: usize = 0xffff;
const STORED_HEADER: usize = 5;

/// A block without bytes, the last one.
const LAST: [u8; 2] = [0x03, 0x00];

/// Compresses blocks to pieces of a deflate stream.
pub(super) struct Deflater(Compress);

/// The level.
pub(super) struct Settings(u32);

impl Settings {
    pub(super) fn new(level: Option<i32>) -> Self {
        Self(level.unwrap_or(LEVEL).clamp(0, 9) as u32)
    }
}

impl Blocks for Deflater {
    const SIZE: usize = 512 * 1024;
    /// No flags, no time, no word about the effort, and an operating system that is unknown (RFC 1952).
    const HEADER: &'static [u8] = &[0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 255];
    const NEVER_EMPTY: bool = false;

    type Settings = Settings;
    type Sum = Crc;
    type Total = Crc;

    fn new(settings: &Settings) -> io::Result<Self> {
        Ok(Self(Compress::new(Compression::new(settings.0), false)))
    }

    fn compress(&mut self, input: &[u8], output: &mut Vec<u8>) -> io::Result<Crc> {
        output.clear();
        let pieces: io::Result<Vec<bool>> = input.chunks(PIECE).map(|piece| self.is_worth_it(piece, output)).collect();
        let mut rest = input;
        for alike in pieces?.chunk_by(bool::eq) {
            let (run, behind) = rest.split_at(rest.len().min(alike.len() * PIECE));
            let before = output.len();
            if !(alike[0] && self.deflate(run, output, stored_size(run.len()))?) {
                output.truncate(before);
                store(run, output);
            }
            rest = behind;
        }
        let mut sum = Crc::new();
        sum.update(input);
        Ok(sum)
    }

    fn add(total: &mut Crc, sum: Crc) {
        total.combine(&sum);
    }

    fn trailer(total: &Crc) -> Vec<u8> {
        [&LAST[..], &total.sum().to_le_bytes(), &total.amount().to_le_bytes()].concat()
    }
}

impl Deflater {
    /// Whether `piece` looks as if it compressed. Leaves `output` as it is.
    fn is_worth_it(&mut self, piece: &[u8], output: &mut Vec<u8>) -> io::Result<bool> {
        let sample = &piece[..piece.len().min(SAMPLE)];
        if !is_even(sample) {
            return Ok(true);
        }
        let before = output.len();
        let shrinks = self.deflate(sample, output, sample.len() - sample.len() / WORTH);
        output.truncate(before);
        shrinks
    }

    /// Appends what `input` is deflated to `output`. Tells whether that is less than `limit`.
    fn deflate(&mut self, input: &[u8], output: &mut Vec<u8>, limit: usize) -> io::Result<bool> {
        // There is room for all of it, however much it grows: what had to stay in the compressor would outlive the reset.
        let (before, room) = (output.len(), input.len() + input.len() / 7 + 1024);
        self.0.reset();
        output.reserve(room);
        self.0.compress_vec(input, output, FlushCompress::Sync).map_err(io::Error::other)?;
        let size = output.len() - before;
        if size >= room {
            return Err(io::Error::other("deflated data has grown beyond its bounds"));
        }
        Ok(size < limit)
    }
}

/// Whether all values are about as frequent as each other, as they are in what was compressed or encrypted. To deflate it
/// takes more than twice as long as anything else, and a look at the values takes next to nothing.
fn is_even(sample: &[u8]) -> bool {
    let mut counts = [0_u64; 256];
    sample.iter().for_each(|&value| counts[usize::from(value)] += 1);
    let (size, squares) = (sample.len() as u64, counts.iter().map(|count| count * count).sum::<u64>());
    // Chance makes it the size and its square's 256th. A text has several times as much.
    squares < size + size * size / 256 * 3 / 2
}

/// What `size` bytes take in stored blocks.
fn stored_size(size: usize) -> usize {
    size + size.div_ceil(STORED) * STORED_HEADER
}

/// Appends stored blocks of `input` to `output`.
fn store(input: &[u8], output: &mut Vec<u8>) {
    for piece in input.chunks(STORED) {
        let size = piece.len() as u16;
        output.push(0);
        output.extend_from_slice(&size.to_le_bytes());
        output.extend_from_slice(&(!size).to_le_bytes());
        output.extend_from_slice(piece);
    }
}
