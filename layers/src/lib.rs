//! OCI layers, from bytes in a tar to files in a directory and back.
//!
//! The reading order is the dependency order:
//!
//! - [`Digest`], [`Verifier`]: what a blob is called, and whether it is the one that was asked for.
//! - [`RelPath`]: a path inside a root, free of `..` by construction.
//! - [`Entry`]: one path's kind, mode, owner, times, link and attributes.
//! - [`Index`]: what a layer says, without the file contents. [`Tree`]: the merged view of a list of indexes.
//! - [`Changes`]: what one step did. It becomes a layer by [`pack`](pack::pack), and a directory by
//!   [`apply`](apply::apply); neither knows where it came from.
//! - [`squash`]: what several layers do together, as changes.
//! - [`Limits`]: how much a layer may hold.
//! - [`Layer`], [`Key`]: the name of a finished layer and of a step that would make it.
//! - [`Root`]: a directory that paths cannot leave. [`materialise`] fills one; [`scan`] and [`upper`] find where it may
//!   have changed since, and [`confirm`] what did; [`fold`](upper::fold) makes an upper directory part of its lower one.
//! - [`tar`], [`compress`], [`BlobWriter`]: the bytes of a layer.
//!
//! Deliberately absent: HTTP, image manifests, and any knowledge of Dockerfiles. Threads are rayon's, and a few that
//! decompress, hash and write while a layer is read, or compress while one is made. Every tar is assumed to be hostile.

pub mod apply;
mod arriving;
mod blob;
mod changes;
pub mod compress;
pub mod confirm;
mod contents;
mod digest;
mod entry;
mod error;
mod growing;
#[cfg(test)]
mod hostile;
mod index;
mod key;
mod layer;
mod limits;
mod links;
pub mod materialise;
pub mod pack;
mod path;
mod root;
pub mod scan;
mod spill;
mod spool;
mod squash;
pub mod tar;
#[cfg(test)]
mod testing;
mod tree;
pub mod upper;

pub use arriving::{Arrival, Arriving, Coming};
pub use blob::{Blob, BlobWriter, blob_path};
pub use changes::{Change, Changes, Content, Opened};
pub use digest::{Digest, Hasher, HashingReader, HashingWriter, InvalidDigest, Mismatch, VerifiedReader, Verifier};
pub use entry::{Entry, Kind, Timestamp, XattrName, XattrValue};
pub use error::{Error, Result};
pub use growing::{Growing, GrowingReader};
pub use index::{INLINE, Index, IndexBuilder, Record};
pub use key::{Key, KeyHasher};
pub use layer::{Compression, Layer};
pub use limits::{Limit, Limits};
pub use links::follow_links;
pub use path::{InvalidPath, RelPath};
pub use root::{Lost, Root, Skipped, remove_all};
pub use spool::{Spool, Spooled};
pub use squash::{Squashed, squash};
pub use tree::{Found, Part, Tree};
