//! The cache: what steps made in earlier builds, kept where images are kept.

mod settings;

pub use settings::{Place, Scopes, Settings};
