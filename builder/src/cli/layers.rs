//! Flags about how layers are written.

use std::ops::RangeInclusive;

use clap::{ArgAction, Args, ValueEnum};
use yadokari_layers::{Compression, pack};

use super::args::truth;
use crate::Error;

/// How the layers of this build are written. Those of the base image stay what they are.
#[derive(Debug, Clone, Args)]
pub(super) struct LayerFlags {
    /// How new layers are compressed. Everything reads gzip; zstd is smaller and twice as fast, and needs
    /// containerd 1.5, Docker 23 or a later one.
    #[arg(long, default_value = "gzip")]
    compression: Format,
    /// How hard: 0 to 9 for gzip, 1 to 22 for zstd. -1 is the default: 2 for gzip, 3 for zstd.
    #[arg(long, value_name = "LEVEL", default_value_t = DEFAULT, allow_negative_numbers = true)]
    compression_level: i32,
    /// Make the same image of the same inputs, whenever it is built: no time in it is later than 1970, or than
    /// SOURCE_DATE_EPOCH where that is given.
    #[arg(long, action = ArgAction::Set, num_args = 0..=1, default_missing_value = "true", default_value = "false", value_parser = truth)]
    pub(super) reproducible: bool,
    /// Make one layer of all that the build puts on top of the base image, as `docker build --squash` does.
    #[arg(long, action = ArgAction::Set, num_args = 0..=1, default_missing_value = "true", default_value = "false", value_parser = truth)]
    pub(super) squash: bool,
}

/// Kaniko's word for no level.
const DEFAULT: i32 = -1;

/// Kaniko's names of formats.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Format {
    Gzip,
    Zstd,
}

impl LayerFlags {
    /// How layers are written. A level that the format has not is an error.
    pub(super) fn options(&self) -> Result<pack::Options, Error> {
        let (compression, name, levels): (_, _, RangeInclusive<i32>) = match self.compression {
            Format::Gzip => (Compression::Gzip, "gzip", 0..=9),
            Format::Zstd => (Compression::Zstd, "zstd", 1..=22),
        };
        let level = Some(self.compression_level).filter(|&level| level != DEFAULT);
        if level.is_some_and(|level| !levels.contains(&level)) {
            let (first, last) = levels.into_inner();
            let message = format!("{name} has the levels {first} to {last}, and {DEFAULT} for the default");
            return Err(Error::Usage { flag: "--compression-level", message });
        }
        Ok(pack::Options { compression, level, clamp: None })
    }
}
