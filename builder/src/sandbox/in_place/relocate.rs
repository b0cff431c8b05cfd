//! Moving entries between directories of one file system.

use std::os::fd::{AsFd, BorrowedFd};

use rustix::io::Errno;

use crate::sandbox::error::Result;
use crate::sandbox::files;

/// Moves an entry under its name into another directory.
///
/// A directory that a layer of the container's own image holds is EXDEV on an overlay: it exists below, where nothing
/// can be renamed. Its files can be, because the overlay copies them up first. So such a directory is made anew and
/// filled; on the way back it belongs to the container alone and is renamed at once. When something fails half way,
/// both directories exist, and [`restore`] joins them.
pub(super) fn relocate(from: BorrowedFd<'_>, to: BorrowedFd<'_>, name: &[u8]) -> Result<()> {
    match files::rename(from, to, name) {
        Err(error) if files::is_one_of(&error, &[Errno::XDEV]) => {
            let Some(source) = files::open_if_directory(from, name)? else { return Err(error) };
            let stat = files::stat_of(source.as_fd())?;
            let target = files::make(to, name)?;
            for child in files::names(source.as_fd())? {
                relocate(source.as_fd(), target.as_fd(), &child)?;
            }
            files::remove_directory(from, name)?;
            files::copy_attributes(&stat, target.as_fd())
        }
        done => done,
    }
}

/// Moves everything in `hold` to `live`. A directory that is in both is joined and gets the attributes of the one that
/// was held. `hold` is empty afterwards, and `live` has its attributes.
pub(super) fn restore(hold: BorrowedFd<'_>, live: BorrowedFd<'_>) -> Result<()> {
    let original = files::stat_of(hold)?;
    for name in files::names(hold)? {
        match (files::open_if_directory(hold, &name)?, files::open_if_directory(live, &name)?) {
            (Some(held), Some(there)) => {
                restore(held.as_fd(), there.as_fd())?;
                files::remove_directory(hold, &name)?;
            }
            _ => relocate(hold, live, &name)?,
        }
    }
    files::copy_attributes(&original, live)
}

/// How many entries are below a directory, counted up to `limit`. `skip` says which paths are not looked at.
pub(super) fn count(
    dir: BorrowedFd<'_>,
    path: &yadokari_layers::RelPath,
    limit: usize,
    skip: &dyn Fn(&yadokari_layers::RelPath) -> bool,
) -> Result<usize> {
    let mut found = 0;
    for name in files::names(dir)? {
        let Ok(at) = path.child(&name) else { continue };
        if skip(&at) {
            continue;
        }
        found += 1;
        if let Some(below) = files::open_if_directory(dir, &name)? {
            found += count(below.as_fd(), &at, limit.saturating_sub(found), skip)?;
        }
        if found > limit {
            break;
        }
    }
    Ok(found)
}
