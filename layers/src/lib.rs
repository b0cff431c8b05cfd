//! Layers.
mod digest;

pub use digest::{Digest, Hasher, HashingWriter, InvalidDigest, Mismatch, VerifiedReader, Verifier};
