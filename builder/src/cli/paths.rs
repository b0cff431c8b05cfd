//! Where things are on the machine.

use std::env;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// The one directory that holds everything of the executor's image: `/kaniko` when the program is `/kaniko/executor`.
/// Elsewhere, a directory that no image has.
pub(super) fn home() -> PathBuf {
    let program = env::current_exe().unwrap_or_default();
    match program.parent() {
        Some(directory) if directory.parent() == Some(Path::new("/")) && !is_system(directory) => directory.to_owned(),
        _ => PathBuf::from("/kaniko"),
    }
}

/// Directories of the root that belong to systems, not to us.
fn is_system(directory: &Path) -> bool {
    ["/bin", "/sbin", "/usr", "/lib", "/opt", "/tmp", "/root", "/home", "/srv", "/mnt"]
        .iter()
        .any(|system| directory == Path::new(system))
}

/// Where layers and roots are kept during a build: below our own directory when it is there and can be written to,
/// else where temporary files go.
pub(super) fn work_dir(home: &Path) -> PathBuf {
    if let Some(directory) = env::var_os("KANIKO_DIR") {
        return PathBuf::from(directory).join("work");
    }
    let own = home.join("work");
    if home.is_dir() && fs::create_dir_all(&own).is_ok() && tempfile::tempfile_in(&own).is_ok() {
        return own;
    }
    let uid = fs::metadata("/proc/self").map_or(0, |metadata| metadata.uid());
    let temporary = env::var_os("TMPDIR").map_or_else(|| PathBuf::from("/var/tmp"), PathBuf::from);
    let temporary = if temporary.is_dir() { temporary } else { env::temp_dir() };
    temporary.join(format!("yadokari-{uid}"))
}

/// The Dockerfile: as named, else below the context, as Kaniko looks for it.
pub(super) fn dockerfile(named: &Path, context: &Path) -> PathBuf {
    let named = if named.as_os_str().is_empty() { Path::new("Dockerfile") } else { named };
    if named.is_absolute() || named.exists() { named.to_owned() } else { context.join(named) }
}
