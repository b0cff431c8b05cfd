//! The cache: what steps made in earlier builds, kept where images are kept.

pub mod annotations;
pub mod gc;
mod outlook;
mod settings;

pub use outlook::{Outlook, State, StepOutlook, explain, matching};
pub use settings::{Place, Scopes, Settings};
