//! The files of the resolver that are mounted over the image's.

use yadokari_layers::{Entry, RelPath, Root, Timestamp};

use super::Run;
use super::error::{Result, Syscall};
use super::rootfs::NETWORK_FILES;

/// Writes them into the stage's directory, outside of the root.
pub(super) fn write(run: &Run) -> Result<()> {
    for ((name, _), content) in NETWORK_FILES.into_iter().zip([&run.resolv_conf, &run.hosts]) {
        std::fs::write(name, content).on("write", name)?;
    }
    Ok(())
}

/// Makes an empty file to mount over.
pub(super) fn stub(root: &Root, path: &RelPath) -> Result<()> {
    if root.entry(path)?.is_none() {
        root.create_dir_all(&path.parent().unwrap_or_default(), 0o755)?;
        root.put(path, &Entry::file(0, 0o644, Timestamp::default()), &mut std::io::empty())?;
    }
    Ok(())
}
