//! Builds real images in real containers against a real registry.
//!
//! - [`packages`] sees to the Debian tools, [`cache`] keeps what takes long to make;
//! - [`Base`] images are made here, from Debian and busybox, and pushed to a [`Registry`] that lives as long as a test;
//! - a [`GuardedRegistry`] is one as companies have it: with TLS of an own authority, and tokens;
//! - [`Traffic`] is what a registry was asked for, a [`SlowProxy`] makes it far away, and a [`HeldProxy`] stops in the
//!   middle of something;
//! - a [`Container`] is shaped like the one a CI job gets, in the [`Variant`]s that CI systems use;
//! - an [`attacker`] tries in there what no RUN should be able to do;
//! - the [`Executor`] is the static executable in the root filesystem that is shipped, and a [`Release`] builds it;
//! - a [`Context`] is a directory of files to build from;
//! - the [`dialect`] of Dockerfiles is written down in cases, and the [`oracle`] builds them with other builders;
//! - [`Crashes`] are builds that are killed, and what is there afterwards;
//! - a [`Soak`] is many builds in one container;
//! - a [`Fleet`] is many executors at once;
//! - [`compare`] measures how long and with how much they build the same;
//! - an [`Image`] is looked at with programs that are not ours: skopeo and umoci read it, runc runs it.
//!
//! Everything that is started ends with the value that started it. Nothing here calls the code under test.

pub mod cache;
pub mod compare;
pub mod dialect;
pub mod oracle;
pub mod packages;

mod attacker;
mod authority;
mod bases;
mod command;
mod container;
mod context;
mod crash;
mod error;
mod executor;
mod guarded;
mod held;
mod http;
mod image;
mod layout;
mod limits;
mod listing;
mod load;
mod numbers;
mod proxy;
mod registry;
mod release;
mod scratch;
mod settings;
mod snapshot;
mod soak;
mod traffic;

use std::path::{Path, PathBuf};

pub use attacker::attacker;
pub use authority::Authority;
pub use bases::{Base, architecture};
pub use command::{Output, PATIENCE, Running, capture, command, find, line, run};
pub use container::{Container, Job, Live, Process, Variant};
pub use context::{Context, Packing};
pub use crash::{Chance, Crashes, Killed};
pub use error::{Error, Result};
pub use executor::{Executor, Tag};
pub use guarded::{Asked, GuardedRegistry, LOGIN, PROJECT};
pub use held::HeldProxy;
pub use http::{Request, Response, free_address};
pub use image::Image;
pub use layout::{LayerBlob, LayoutWriter, TAG, TarWriter};
pub use limits::build_within;
pub use listing::{Entry, Kind, Listing};
pub use load::{Fleet, Round};
pub use proxy::{Passed, SlowProxy};
pub use registry::{CREDENTIALS, Form, Registry, Served};
pub use release::{Commit, Inventory, Libc, Package, Release, Shipped, is_static};
pub use rustix::process::Signal;
pub use settings::{Settings, proxies};
pub use snapshot::{RunTime, run_times};
pub use soak::{Held, Soak};
pub use traffic::Traffic;

pub(crate) use image::unpack;

/// A directory of fixtures by its name.
pub fn fixture(name: &str) -> PathBuf {
    workspace().join("fixtures").join(name)
}

/// The workspace's directory.
pub fn workspace() -> PathBuf {
    let manifest = Path::new(env!("CARGO_MANIFEST_DIR"));
    manifest.parent().unwrap_or(manifest).to_owned()
}

/// Whether `text` is anywhere in `bytes`.
pub fn holds(bytes: &[u8], text: &str) -> bool {
    bytes.windows(text.len()).any(|window| window == text.as_bytes())
}
