//! Renaming the image's entries out of `/`, back into their stage.

use std::os::fd::{AsFd, BorrowedFd};

use rustix::io::Errno;
use yadokari_layers::RelPath;

use super::keep::{Class, Keep};
use super::relocate::relocate;
use crate::sandbox::error::Result;
use crate::sandbox::files;

/// Moves everything that does not stay out of `live` into `stage`, what a RUN made included, and gives `stage` the
/// attributes that `live` has now. Where something stays whose place in the image is not a directory, what a RUN put
/// below it can go nowhere: it is removed, and its path is added to `lost`.
pub(super) fn drain(
    live: BorrowedFd<'_>,
    stage: Option<BorrowedFd<'_>>,
    path: &RelPath,
    keep: &Keep,
    lost: &mut Vec<RelPath>,
) -> Result<()> {
    let image = files::stat_of(live)?;
    for name in files::names(live)? {
        let at = path.child(&name).map_err(yadokari_layers::Error::from)?;
        match (keep.class(&at), stage) {
            (Class::Stays, _) => {}
            (Class::Free, Some(stage)) => relocate(live, stage, &name)?,
            (Class::Free, None) => {
                files::discard(live, &name)?;
                lost.push(at);
            }
            // Nothing of the image's can hold a mount: a RUN has no capability to make one.
            (Class::HoldsOurs | Class::HoldsMounts, _) => {
                if let Some(below) = files::open_if_directory(live, &name)? {
                    drain_joined(below.as_fd(), stage, &name, &at, keep, lost)?;
                }
            }
        }
    }
    stage.map_or(Ok(()), |stage| files::copy_attributes(&image, stage))
}

/// Drains a directory that stays. The image may have none of its name; it gets one when a RUN put something there.
fn drain_joined(
    live: BorrowedFd<'_>,
    parent: Option<BorrowedFd<'_>>,
    name: &[u8],
    path: &RelPath,
    keep: &Keep,
    lost: &mut Vec<RelPath>,
) -> Result<()> {
    let Some(parent) = parent else { return drain(live, None, path, keep, lost) };
    if files::stat(parent, name)?.is_some() {
        let stage = files::open_if_directory(parent, name)?;
        return drain(live, stage.as_ref().map(AsFd::as_fd), path, keep, lost);
    }
    let made = files::make(parent, name)?;
    drain(live, Some(made.as_fd()), path, keep, lost)?;
    match files::remove_directory(parent, name) {
        Err(error) if !files::is_one_of(&error, &[Errno::NOTEMPTY, Errno::EXIST]) => Err(error),
        _ => Ok(()),
    }
}
