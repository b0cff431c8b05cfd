//! Layers as tar streams.
//!
//! [`read`] turns the bytes of a tar into paths and items, [`index`] into what the layer says, and [`write()`] turns changes
//! into the one tar that says them. Blocks, numbers and the names of whiteouts are known here and nowhere else.
//!
//! Reading is strict, since every tar is assumed to be hostile: what another reader could take for something else is
//! refused, with the entry's name. Where readers differ, we take what Go's `archive/tar` takes, because the engines that
//! run images are built on it.

mod header;
mod indexer;
mod pax;
mod pipe;
mod read;
mod write;

pub(crate) use indexer::Indexer;
pub use pipe::Pipe;
pub use read::read;
pub(crate) use read::{Body, read_buffered};
pub use write::{pipe, stream, write};

use crate::{Entry, Index, Limits, Result};

/// The prefix of the name of a file that says that the rest of its name is gone.
const WHITEOUT: &[u8] = b".wh.";

/// What is read is read in pieces of this size.
const PIECE: usize = 128 * 1024;

/// The name of a file that says that its directory hides what lower layers put into it.
const OPAQUE: &[u8] = b".wh..wh..opq";

/// The prefix of AUFS's own names. Of these only [`OPAQUE`] means something to others; tars of old Docker versions hold
/// the rest by accident.
const AUFS: &[u8] = b".wh..wh.";

/// What a tar says of one path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Item {
    /// It is this.
    Put(Entry),
    /// Lower layers' path is gone.
    Delete,
    /// The directory hides what lower layers put into it.
    Opaque,
}

/// What a layer says that was made here. The digests of all contents are computed; a hard link leads to the first name that
/// the layer has for the file.
pub fn index(tar: impl std::io::Read) -> Result<Index> {
    index_buffered(std::io::BufReader::with_capacity(PIECE, tar), &Limits::NONE)
}

/// Like [`index`], for whatever layer, which is in memory already.
pub(crate) fn index_buffered(tar: impl std::io::BufRead, limits: &Limits) -> Result<Index> {
    let mut indexer = Indexer::default();
    read_buffered(tar, limits, |path, item, content| indexer.take(path, item, content))?;
    Ok(indexer.finish())
}

#[cfg(test)]
mod tests;
