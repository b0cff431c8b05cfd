//! The upper directory of an overlay mount.
//!
//! A deleted path is a character device 0:0 there, or an empty file with the attribute `user.overlay.whiteout` where no
//! device can be made; a directory that replaces another has the attribute `user.overlay.opaque`, or `trusted.overlay.opaque`
//! when the mount was made without `userxattr`. Nothing may be mounted while these functions read or write.

mod fold;

use std::os::fd::AsFd;

pub use fold::fold;

use crate::root::{at, names};
use crate::scan::Candidates;
use crate::{Entry, Kind, RelPath, Result, Root, Tree};

/// The paths at which the mount may differ from `tree`, which is what the lower directories hold.
pub fn upper(upper: &Root, tree: &Tree) -> Result<Candidates> {
    let mut candidates = Candidates::default();
    directory(upper, tree, &RelPath::root(), is_opaque(upper, &RelPath::root())?, &mut candidates)?;
    Ok(candidates)
}

/// Below an opaque directory everything is new: the kernel marks only the highest one, since a directory that is made
/// inside it has nothing to hide from itself.
fn directory(upper: &Root, tree: &Tree, path: &RelPath, is_new: bool, candidates: &mut Candidates) -> Result<()> {
    let mut hidden = if is_new { tree.names(path) } else { Default::default() };
    let dir = upper.open_dir(path)?;
    for name in names(dir.as_fd()).map_err(at("read directory", path))? {
        let path = path.child(&name)?;
        let Some(entry) = upper.entry(&path)? else {
            // A socket: what it replaces is gone, since no layer can hold it.
            candidates.changed.insert(path);
            continue;
        };
        if is_whiteout(upper, &path, &entry)? {
            candidates.deleted.insert(path);
            continue;
        }
        hidden.remove(&name);
        if entry.is_directory() {
            let is_new = is_new || is_opaque(upper, &path)?;
            directory(upper, tree, &path, is_new, candidates)?;
        }
        candidates.changed.insert(path);
    }
    for name in hidden {
        candidates.deleted.insert(path.child(&name)?);
    }
    Ok(())
}

fn is_whiteout(upper: &Root, path: &RelPath, entry: &Entry) -> Result<bool> {
    Ok(match entry.kind {
        Kind::CharDevice { major: 0, minor: 0 } => true,
        Kind::File { size: 0, .. } => {
            upper.attribute(path, "user.overlay.whiteout")?.is_some()
                || upper.attribute(path, "trusted.overlay.whiteout")?.is_some()
        }
        _ => false,
    })
}

fn is_opaque(upper: &Root, path: &RelPath) -> Result<bool> {
    for name in ["user.overlay.opaque", "trusted.overlay.opaque"] {
        if upper.attribute(path, name)?.as_deref() == Some(b"y") {
            return Ok(true);
        }
    }
    Ok(false)
}
