//! Builder.

pub mod context;
pub mod dockerfile;
