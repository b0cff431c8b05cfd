//! Credential files that are ours, out of sight while a RUN runs in place.
//!
//! This is the builder's business: the worker's memory must not hold them.

use std::io::Write;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use super::error::{During, Result, Syscall};

/// Files that are gone until this is given up.
#[derive(Debug, Default)]
pub(super) struct Hidden(Vec<HiddenFile>);

struct HiddenFile {
    path: PathBuf,
    content: Vec<u8>,
    mode: u32,
    owner: (u32, u32),
    modified: Option<SystemTime>,
}

impl Hidden {
    /// Removes the files, and warns of those that cannot be removed. Files that do not exist need no hiding.
    pub(super) fn hide(paths: &[PathBuf]) -> (Self, Vec<String>) {
        let mut hidden = Self::default();
        let mut warnings = Vec::new();
        for path in paths {
            match take(path) {
                Ok(file) => hidden.0.extend(file),
                // A file mounted into the container is EBUSY, one on a read-only file system EROFS.
                Err(error) => warnings.push(format!("a RUN of root can read '{}': {error}", path.display())),
            }
        }
        (hidden, warnings)
    }

    /// Writes the files back.
    pub(super) fn reveal(mut self) -> Result<()> {
        self.put_back()
    }

    fn put_back(&mut self) -> Result<()> {
        let files = std::mem::take(&mut self.0);
        let results: Vec<Result<()>> = files.iter().map(put).collect();
        results.into_iter().collect::<Result<()>>().during("writing back a credential file")
    }
}

impl Drop for Hidden {
    fn drop(&mut self) {
        // Only when something failed before: that is what the user hears of.
        let _ = self.put_back();
    }
}

impl std::fmt::Debug for HiddenFile {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("HiddenFile").field("path", &self.path).finish_non_exhaustive()
    }
}

fn take(path: &Path) -> Result<Option<HiddenFile>> {
    let name = path.display();
    let metadata = match std::fs::metadata(path) {
        Ok(metadata) => metadata,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error).on("stat", name),
    };
    // Through a symbolic link, it is the file that has to go.
    let path = path.canonicalize().on("realpath", &name)?;
    let content = std::fs::read(&path).on("read", &name)?;
    std::fs::remove_file(&path).on("unlink", &name)?;
    let owner = (metadata.uid(), metadata.gid());
    Ok(Some(HiddenFile { path, content, mode: metadata.mode() & 0o7777, owner, modified: metadata.modified().ok() }))
}

fn put(hidden: &HiddenFile) -> Result<()> {
    let HiddenFile { path, content, mode, owner, modified } = hidden;
    let name = path.display();
    // Whatever a RUN left in its place is not followed and not kept.
    let _ = std::fs::remove_file(path);
    let mut options = std::fs::OpenOptions::new();
    let mut file = options.write(true).create_new(true).mode(0o600).open(path).on("open", &name)?;
    file.write_all(content).on("write", &name)?;
    std::os::unix::fs::fchown(&file, Some(owner.0), Some(owner.1)).on("chown", &name)?;
    file.set_permissions(std::fs::Permissions::from_mode(*mode)).on("chmod", &name)?;
    modified.map_or(Ok(()), |modified| file.set_modified(modified)).on("utimens", &name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_come_back_as_they_were() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("config.json");
        std::fs::write(&path, "secret").unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o640)).unwrap();
        let before = std::fs::metadata(&path).unwrap();
        let (hidden, warnings) = Hidden::hide(&[path.clone(), directory.path().join("absent")]);
        assert!(warnings.is_empty() && !path.exists());
        assert!(!format!("{hidden:?}").contains("secret"));
        hidden.reveal().unwrap();
        let after = std::fs::metadata(&path).unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), b"secret");
        assert_eq!((after.mode(), after.modified().unwrap()), (before.mode(), before.modified().unwrap()));
    }

    #[test]
    fn files_come_back_even_when_nobody_asks() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("token");
        std::fs::write(&path, "secret").unwrap();
        drop(Hidden::hide(std::slice::from_ref(&path)));
        assert!(path.exists());
    }
}
