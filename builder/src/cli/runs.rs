//! Where RUN steps may run, and what becomes of one that fails.

use std::path::PathBuf;

use clap::{ArgAction, Args, ValueEnum};

use super::args::truth;
use crate::Error;
use crate::cache::{Place, Settings};
use crate::output::Destination;

/// What is allowed to RUN steps, and what is done when one fails.
#[derive(Debug, Args)]
pub(super) struct RunFlags {
    /// Refuse to execute a RUN where only the driver in-place works, which does not keep it from the files of the builder. A
    /// build that finds all of them in the cache, or has none, is as without it.
    #[arg(long, action = ArgAction::Set, num_args = 0..=1, default_missing_value = "true", default_value = "false", value_parser = truth)]
    pub(super) require_isolation: bool,
    /// When a RUN fails, just fail; or save its root as an image first, to look at: in the repository of the first destination,
    /// or beside --oci-layout-path and --tar-path, under a tag of its own.
    #[arg(long, value_name = "fail|save", default_value = "fail")]
    on_failure: OnFailure,
}

/// What is done when a RUN fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum OnFailure {
    Fail,
    Save,
}

impl RunFlags {
    /// Whether the root in which a RUN fails is kept. Then there must be a place for it.
    pub(super) fn save_failed(&self, destinations: &[Destination]) -> Result<bool, Error> {
        let has_place = destinations.iter().any(|destination| !matches!(destination, Destination::Root(_)));
        if self.on_failure == OnFailure::Save && !has_place {
            let message = "there is nowhere to save to: give a --destination without --no-push, --oci-layout-path or \
                           --tar-path";
            return Err(Error::Usage { flag: "--on-failure", message: message.into() });
        }
        Ok(self.on_failure == OnFailure::Save)
    }
}

/// The directories that are read and written while commands run: they have to be there when a command has `/`.
pub(super) fn kept(destinations: &[Destination], cache: Option<&Settings>, warm: Option<PathBuf>) -> Vec<PathBuf> {
    let layouts = destinations.iter().filter_map(|destination| match destination {
        Destination::Layout { directory, .. } => Some(directory.clone()),
        Destination::Registry(_) | Destination::Tarball { .. } | Destination::Root(_) => None,
    });
    let places = cache.into_iter().flat_map(|cache| cache.also.iter().chain([&cache.place]));
    let places = places.filter_map(|place| match place {
        Place::Layout(directory) => Some(directory.clone()),
        Place::Registry(_) => None,
    });
    layouts.chain(places).chain(warm).collect()
}
