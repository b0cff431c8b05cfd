//! Builder.

pub mod sandbox;
