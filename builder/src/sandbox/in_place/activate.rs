//! Renaming a stage's entries into `/`, and what is there out of the way.
//!
//! Two steps, so that whoever finds a build killed in between knows what to do: while `hold.partial` exists, everything
//! in `/` is the container's; once it is called `hold`, whatever is in `/` and does not stay is the image's.

use std::os::fd::{AsFd, BorrowedFd};

use rustix::io::Errno;
use yadokari_layers::RelPath;

use super::keep::{Class, Keep, RESERVED};
use super::relocate::relocate;
use crate::sandbox::error::Result;
use crate::sandbox::files;

/// Moves everything that does not stay out of `live`. A directory that has to stay because of what is below it appears
/// in `hold` too, with its attributes, and holds what was moved out of it.
pub(super) fn clear(live: BorrowedFd<'_>, hold: BorrowedFd<'_>, path: &RelPath, keep: &Keep) -> Result<()> {
    let original = files::stat_of(live)?;
    files::copy_attributes(&original, hold)?;
    for name in files::names(live)? {
        let at = path.child(&name).map_err(yadokari_layers::Error::from)?;
        let merge = match keep.class(&at) {
            Class::Stays => false,
            Class::HoldsOurs => true,
            Class::HoldsMounts => match files::rename(live, hold, &name) {
                Err(error) if files::is_one_of(&error, &[Errno::XDEV, Errno::BUSY]) => true,
                done => {
                    done?;
                    false
                }
            },
            Class::Free => {
                relocate(live, hold, &name)?;
                false
            }
        };
        if merge && let Some(below) = files::open_if_directory(live, &name)? {
            let held = files::make(hold, &name)?;
            clear(below.as_fd(), held.as_fd(), &at, keep)?;
        }
    }
    files::copy_attributes(&original, hold)
}

/// What became of a stage's entries.
#[derive(Debug, Default)]
pub(super) struct Filled {
    /// Those that are in `/` now.
    pub(super) moved: Vec<RelPath>,
    /// Those that something which stays has the place of.
    pub(super) hidden: Vec<RelPath>,
}

/// Moves a stage's entries into `live`. A directory that stayed there gets the attributes of the image's and, one level
/// down, its entries.
pub(super) fn fill(
    stage: BorrowedFd<'_>,
    live: BorrowedFd<'_>,
    path: &RelPath,
    keep: &Keep,
    filled: &mut Filled,
) -> Result<()> {
    let image = files::stat_of(stage)?;
    for name in files::names(stage)? {
        let at = path.child(&name).map_err(yadokari_layers::Error::from)?;
        if RESERVED.iter().any(|reserved| at.as_bytes() == reserved.as_bytes()) {
            continue;
        }
        if files::stat(live, &name)?.is_none() {
            relocate(stage, live, &name)?;
            filled.moved.push(at);
            continue;
        }
        let both = (files::open_if_directory(stage, &name)?, files::open_if_directory(live, &name)?);
        match both {
            (Some(from), Some(to)) if keep.class(&at) != Class::Stays => {
                fill(from.as_fd(), to.as_fd(), &at, keep, filled)?;
                filled.moved.push(at);
            }
            _ => filled.hidden.push(at),
        }
    }
    files::copy_attributes(&image, live)
}
