//! The Dockerfile language in cases: a Dockerfile, the files around it, and what an image is compared by.
//!
//! - a [`Case`] is read from a text file of `fixtures/dialect`, and written into a directory as a context;
//! - a [`Snapshot`] is an image as a list of fields: its config, its history and its flattened file system;
//! - a [`Difference`] is a field in which two snapshots differ.
//!
//! Nothing here knows who built the image.

mod case;
mod files;
mod snapshot;
mod tree;

pub use case::{Case, File, cases, common, parse};
pub use snapshot::{BaseLayers, Difference, Snapshot};
pub use tree::Tree;
