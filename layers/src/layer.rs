//! A finished layer.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::{Digest, Index};

/// How a layer's tar is compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
pub enum Compression {
    /// Not at all.
    None,
    /// gzip, which everything reads.
    #[default]
    Gzip,
    /// zstd, which containerd reads since 1.5 and Docker since 23.0.
    Zstd,
}

/// A layer as a value: it names the bytes, which live in a blob directory or only in a registry.
#[derive(Debug, Clone)]
pub struct Layer {
    /// The digest of the compressed blob.
    pub digest: Digest,
    /// The digest of the uncompressed tar.
    pub diff_id: Digest,
    /// The size of the compressed blob in bytes.
    pub size: u64,
    /// How the blob is compressed.
    pub compression: Compression,
    /// What the layer says.
    pub index: Arc<Index>,
}
