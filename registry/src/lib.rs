//! Where images live.
//!
//! A text such as `registry.example/app:1` becomes a [`Reference`]. A [`Client`], made once from [`ClientOptions`],
//! opens the reference's repository as a [`RegistryStore`], one of three implementations of [`Store`]: registries over
//! HTTP, OCI layout directories ([`Layout`]) and memory ([`Memory`]). A store reads and writes blobs and manifests,
//! verifies all of them, lists tags, deletes manifests, and knows nothing of what they mean.
//!
//! [`resolve`] and [`pull_manifest`] are the one step beyond: from a reference, through an index, to the
//! [`Platform`]'s manifest and configuration. The bytes of layers are the caller's to read.
//!
//! What goes in besides: [`Credentials`], whose sources are configurations that the caller found and [`Provider`]s that he
//! made, certificates and proxies that the caller looked up. Nothing here reads the environment or searches for files, but for the system's
//! certificate bundle.
//!
//! The same client fetches from servers that are no registries, for ADD and for contexts: a [`Request`] takes its proxies
//! and certificate authorities, and none of its logins.
//!
//! [`Memory::serve`] puts the in-memory store on a loopback port as a registry stricter than the real ones, with
//! logins and faults to order: what tests talk to.
//!
//! Deliberately absent: building or editing images (the builder's), compression (the layers'), running credential
//! helpers, listing repositories, referrers, concurrency (callers decide how many transfers run). A blob is sent in one
//! request, and in several only where one broke or a token does not live long enough for it.

mod blob;
mod client;
mod credentials;
mod error;
mod layout;
mod manifest;
pub mod media;
pub mod memory;
mod platform;
mod pull;
mod reference;
mod secret;
mod store;

#[cfg(test)]
mod tests;

pub use oci_spec::image::{Descriptor, ImageIndex, ImageManifest};
pub use yadokari_layers::{Digest, Mismatch};

pub use self::blob::{BlobSource, BytesBlob, FileBlob, Upload};
pub use self::client::{
    Bundle, Client, ClientOptions, Download, Hosts, Listener, Names, Notice, Proxies, RegistryStore, RegistryTls,
    Reply, Request, RetryPolicy, Surroundings, Timeouts,
};
pub use self::credentials::{Config, Credentials, Lease, Login, Provider, Source, Warning};
pub use self::error::{Error, Failure, Result};
pub use self::layout::Layout;
pub use self::manifest::{Manifest, digest_of};
pub use self::memory::Memory;
pub use self::platform::Platform;
pub use self::pull::{Pulled, Resolved, pull_manifest, resolve};
pub use self::reference::{DOCKER_HUB, Reference, Version};
pub use self::secret::Secret;
pub use self::store::{Sink, Size, Store, Written, read_small};
