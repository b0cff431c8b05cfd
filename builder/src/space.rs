//! Disks that are full.

use std::io;
use std::path::Path;

use crate::Error;
use crate::progress::bytes;

/// A command that fails on a disk with less than this left has probably failed for that.
const LITTLE: u64 = 16 << 20;

/// What the kernel says ENOSPC for besides full disks: too many namespaces, mounts or watches.
const NO_DISK: [&str; 4] = ["unshare", "clone", "mount", "inotify_add_watch"];

/// Whether a file system, or what a user may have of it, is full. The kind says so where a path was added to the kernel's
/// answer, too.
pub(crate) fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

/// The same error, or where it is that `directory`, in which the build works, is on a full disk: one that says so, with
/// what is free there and what is needed, as far as that is known.
pub(crate) fn explained(error: Error, directory: &Path, needed: impl FnOnce() -> Option<String>) -> Error {
    use yadokari_layers::Error as Layers;
    let is_full = match &error {
        Error::Host { source, .. } => is_full(source),
        Error::Layers(error) => match error.cause() {
            Layers::Host { source, .. } | Layers::Path { source, .. } | Layers::Stream { source, .. } => {
                is_full(source)
            }
            _ => false,
        },
        Error::Sandbox(source) if !source.operation().is_some_and(|call| NO_DISK.contains(&call)) => {
            source.raw_os_error().is_some_and(|number| is_full(&io::Error::from_raw_os_error(number)))
        }
        _ => false,
    };
    if is_full { full(error.to_string(), directory, needed()) } else { error }
}

/// The error that `directory` is on a full disk, as something found out.
pub(crate) fn full(cause: String, directory: &Path, needed: Option<String>) -> Error {
    let free = free(directory).map_or(String::new(), |free| format!(", {} are free there", bytes(free)));
    let needed = needed.map_or(String::new(), |needed| format!("; {needed}"));
    Error::DiskFull { directory: directory.to_owned(), state: format!("{free}{needed}"), cause }
}

/// What to say where a command failed and the disk of `directory` has hardly any room left.
pub(crate) fn suspicion(directory: &Path) -> Option<String> {
    let free = free(directory).filter(|&free| free < LITTLE)?;
    let directory = directory.display();
    Some(format!(
        "'{directory}' is on a disk with {} left, which may be why: --work-dir names another place",
        bytes(free)
    ))
}

/// The bytes that may still be written to the file system of a directory.
fn free(directory: &Path) -> Option<u64> {
    let file_system = rustix::fs::statvfs(directory).ok()?;
    Some(file_system.f_bavail.saturating_mul(file_system.f_frsize))
}

#[cfg(test)]
pub(crate) mod tests {
    use rustix::io::Errno;
    use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};

    use super::*;

    /// A file system of its own on a directory, until this is dropped.
    pub(crate) struct SmallDisk<'a>(&'a Path);

    impl<'a> SmallDisk<'a> {
        /// One of so many bytes; `None`, and the reason is said, where nothing can be mounted.
        pub(crate) fn on(directory: &'a Path, size: u64) -> Option<Self> {
            let options = std::ffi::CString::new(format!("size={size}")).unwrap();
            match mount("tmpfs", directory, "tmpfs", MountFlags::empty(), &*options) {
                Ok(()) => Some(Self(directory)),
                Err(errno) => {
                    println!("full disks: skipped, since mounting is refused: {errno}");
                    None
                }
            }
        }
    }

    impl Drop for SmallDisk<'_> {
        fn drop(&mut self) {
            unmount(self.0, UnmountFlags::DETACH).unwrap();
        }
    }

    fn host(errno: Errno) -> Error {
        Error::Host { operation: "write", path: "/wd/x".into(), source: errno.into() }
    }

    #[test]
    fn a_full_disk_is_said_with_its_directory_what_is_free_and_what_is_needed() {
        for errno in [Errno::NOSPC, Errno::DQUOT] {
            let error = explained(host(errno), Path::new("/"), || Some("the layers are 5 GB".into()));
            let text = error.to_string();
            assert!(text.starts_with("write '/wd/x': ") && text.contains("'/' is on a full disk, "), "{text}");
            assert!(text.contains(" are free there; the layers are 5 GB") && text.contains("--work-dir"), "{text}");
            assert_eq!(error.exit_code(), crate::ExitCode::Io as u8);
            let again = explained(error, Path::new("/tmp"), || panic!("it was explained already"));
            assert_eq!(again.to_string(), text);
        }
    }

    #[test]
    fn other_errors_stay_what_they_are() {
        let text = |error: Error| explained(error, Path::new("/"), || None).to_string();
        assert_eq!(text(host(Errno::ACCESS)), host(Errno::ACCESS).to_string());
        let source = || Errno::NOSPC.into();
        let call = |operation| crate::sandbox::Error::Syscall { operation, operand: "it".into(), source: source() };
        assert!(!text(Error::Sandbox(call("unshare"))).contains("full disk"), "a limit of namespaces is no disk");
        assert!(text(Error::Sandbox(call("mkdir"))).contains("full disk"));
    }

    #[test]
    fn a_disk_with_room_is_not_suspected() {
        assert_eq!(suspicion(Path::new("/proc/none")), None);
        // It has no blocks at all.
        assert!(suspicion(Path::new("/proc")).unwrap().contains("'/proc' is on a disk with 0 B left"));
    }
}
