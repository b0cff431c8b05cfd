//! The build context: the directory that COPY and ADD take their sources from.

pub mod glob;
pub mod ignore;
