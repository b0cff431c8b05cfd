//! Mounting a RUN's root: the file system itself, what containers expect in it, and turning it into `/`.

use std::ffi::CString;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{CWD, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;
use rustix::mount::{MountFlags, UnmountFlags};
use serde::{Deserialize, Serialize};

use super::error::{During, Error, Result, Syscall};
use super::files::{by_fd, is_one_of};

/// Where the root is mounted, in the stage's directory.
pub(super) const MERGED: &str = "merged";

/// The files that the worker writes into the stage's directory and that are mounted over the image's, and where.
pub(super) const NETWORK_FILES: [(&str, &str); 2] = [("resolv.conf", "etc/resolv.conf"), ("hosts", "etc/hosts")];

/// The directories that are mounted over.
pub(super) const MOUNT_POINTS: [&str; 3] = ["proc", "sys", "dev"];

/// What the root is made of. All names are relative to the stage's directory: with many lower directories, absolute
/// ones would not fit into the page that the kernel reads options from.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) enum Rootfs {
    /// An overlay.
    Overlay {
        /// The lower directories, the topmost first.
        lowers: Vec<String>,
        /// The upper directory.
        upper: String,
        /// The overlay's own scratch directory, next to the upper one.
        work: String,
    },
    /// A directory.
    Directory(String),
}

impl Rootfs {
    /// Mounts the root at [`MERGED`].
    pub(super) fn mount(&self) -> Result<()> {
        match self {
            Self::Directory(name) => {
                rustix::mount::mount_bind(name.as_str(), MERGED).on("mount", format!("MS_BIND of '{name}'"))
            }
            Self::Overlay { lowers, upper, work } => {
                let options = format!("lowerdir={},upperdir={upper},workdir={work}", lowers.join(":"));
                overlay(MERGED, &options)
            }
        }
    }
}

/// What is asked of an overlay; what the kernel does not know is EINVAL.
///
/// `userxattr` keeps the overlay's own attributes under `user.`: in a user namespace a mount without it succeeds, and
/// removing a directory of a lower one fails with EIO. `volatile` saves every fsync of a RUN, since a step that a crash
/// interrupts is thrown away anyway.
const OVERLAY_OPTIONS: [&str; 4] = [",userxattr,volatile", ",userxattr", ",volatile", ""];

/// Mounts an overlay with the best options that the kernel knows.
pub(super) fn overlay(target: &str, options: &str) -> Result<()> {
    let mut refused = None;
    for more in OVERLAY_OPTIONS {
        match overlay_with(target, &format!("{options}{more}")) {
            Err(error) if is_one_of(&error, &[Errno::INVAL]) => _ = refused.get_or_insert(error),
            done => return done,
        }
    }
    refused.map_or(Ok(()), Err)
}

fn overlay_with(target: &str, options: &str) -> Result<()> {
    let data = CString::new(options).map_err(|_| Error::Protocol("worker"))?;
    // The mount of the step before is gone when its last process is, but the kernel lets go of its upper directory, now
    // one of our lower ones, only a little later; where `index=on` is the default that is EBUSY.
    let mut patience = 50;
    loop {
        match rustix::mount::mount("overlay", target, "overlay", MountFlags::empty(), &*data) {
            Err(Errno::BUSY) if patience > 0 => {
                patience -= 1;
                std::thread::sleep(std::time::Duration::from_millis(20));
            }
            done => return done.on("mount", format!("overlay with {options}")),
        }
    }
}

/// Opens what is to be mounted over the image's resolver configuration, before the working directory changes.
pub(super) fn open_network_files() -> Result<Vec<(OwnedFd, &'static str)>> {
    let files = NETWORK_FILES.iter().map(|&(name, target)| Ok((open(CWD, name)?, target)));
    files.collect()
}

/// Mounts what containers expect into the root that is the working directory.
pub(super) fn furnish(files: &[(OwnedFd, &'static str)], user: bool) -> Result<()> {
    for (name, source) in [("proc", "/proc"), ("sys", "/sys")] {
        let target = resolve(name)?;
        // A plain bind of a tree whose submounts hide something is EINVAL in a user namespace: all of it or nothing.
        rustix::mount::mount_bind_recursive(source, &*by_fd(&target))
            .on("mount", format!("MS_BIND|MS_REC of '{source}'"))?;
    }
    if !user {
        mask();
    }
    devices().during("populating /dev")?;
    for (file, path) in files {
        // A layer's whiteout can hide even the mount point that we made. An image that has no /etc at all gets none.
        let target = match resolve(path) {
            Err(error) if is_one_of(&error, &[Errno::NOENT, Errno::NOTDIR, Errno::LOOP]) => continue,
            done => done?,
        };
        rustix::mount::mount_bind(&*by_fd(file), &*by_fd(&target)).on("mount", format!("MS_BIND on '/{path}'"))?;
    }
    Ok(())
}

/// Hides what root of the initial user namespace must not reach in `/proc` and `/sys`. In a user namespace, ids and the
/// container's own masks, which cannot be lifted there, do that.
fn mask() {
    for name in ["bus", "fs", "irq", "sys", "sysrq-trigger"] {
        let path = format!("proc/{name}");
        read_only(&path);
    }
    for name in ["kcore", "keys", "timer_list", "sched_debug", "latency_stats"] {
        // Not every kernel has them all.
        let _ = rustix::mount::mount_bind("/dev/null", &*format!("proc/{name}"));
    }
    read_only("sys");
}

fn read_only(path: &str) {
    // What the kernel does not have needs no mask.
    if rustix::mount::mount_bind_recursive(path, path).is_ok() {
        let flags = MountFlags::BIND | MountFlags::RDONLY | MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
        let _ = rustix::mount::mount_remount(path, flags, c"");
    }
}

/// A `/dev` of our own. Device nodes cannot be made in a user namespace; the container's can be bound.
fn devices() -> Result<()> {
    let target = resolve("dev")?;
    let flags = MountFlags::NOSUID | MountFlags::STRICTATIME;
    rustix::mount::mount("tmpfs", &*by_fd(&target), "tmpfs", flags, c"mode=755,size=65536k").on("mount", "tmpfs")?;
    let dev = resolve("dev")?;
    for name in ["null", "zero", "full", "random", "urandom", "tty"] {
        let mode = Mode::from_raw_mode(0o666);
        let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::CLOEXEC;
        let file = rustix::fs::openat(&dev, name, flags, mode).on("open", name)?;
        let source = format!("/dev/{name}");
        rustix::mount::mount_bind(&*source, &*by_fd(&file)).on("mount", format!("MS_BIND of '{source}'"))?;
    }
    let links = [
        ("fd", "/proc/self/fd"),
        ("stdin", "/proc/self/fd/0"),
        ("stdout", "/proc/self/fd/1"),
        ("stderr", "/proc/self/fd/2"),
        ("ptmx", "pts/ptmx"),
    ];
    for (name, to) in links {
        rustix::fs::symlinkat(to, &dev, name).on("symlink", name)?;
    }
    let pts = directory(&dev, "pts")?;
    terminals(&by_fd(&pts))?;
    let shm = directory(&dev, "shm")?;
    let flags = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
    rustix::mount::mount("shm", &*by_fd(&shm), "tmpfs", flags, c"mode=1777,size=65536k").on("mount", "tmpfs on shm")?;
    let mqueue = directory(&dev, "mqueue")?;
    // Message queues belong to the IPC namespace; without one of our own they cannot be mounted, and few miss them.
    let _ = rustix::mount::mount("mqueue", &*by_fd(&mqueue), "mqueue", flags, c"");
    Ok(())
}

/// Pseudo terminals of our own: with the group `tty` where it is mapped, else without, else the container's.
fn terminals(target: &str) -> Result<()> {
    let flags = MountFlags::NOSUID | MountFlags::NOEXEC;
    let options = [c"newinstance,ptmxmode=0666,mode=0620,gid=5", c"newinstance,ptmxmode=0666,mode=0620"];
    let mounted = options.iter().any(|&data| rustix::mount::mount("devpts", target, "devpts", flags, data).is_ok());
    if mounted { Ok(()) } else { rustix::mount::mount_bind_recursive("/dev/pts", target).on("mount", "/dev/pts") }
}

fn directory(parent: &OwnedFd, name: &str) -> Result<OwnedFd> {
    rustix::fs::mkdirat(parent, name, Mode::from_raw_mode(0o755)).on("mkdir", name)?;
    open(parent.as_fd(), name)
}

/// Makes the working directory, which is a mount, the root of this mount namespace.
pub(super) fn enter() -> Result<()> {
    match rustix::process::pivot_root(".", ".") {
        // The old root now lies over the new one.
        Ok(()) => rustix::mount::unmount(".", UnmountFlags::DETACH).on("umount", "the old root")?,
        // Docker's seccomp profile forbids pivot_root even where it allows mounts, and an initramfs cannot be pivoted.
        Err(_) => {
            rustix::mount::mount_move(".", "/").on("mount", "MS_MOVE to '/'")?;
            rustix::process::chroot(".").on("chroot", "the new root")?;
        }
    }
    rustix::process::chdir("/").on("chdir", "/")
}

/// Opens a path below the working directory as if that were the root already: a symbolic link of the image must not
/// lead a mount to somewhere else.
fn resolve(path: &str) -> Result<OwnedFd> {
    let flags = OFlags::PATH | OFlags::CLOEXEC;
    let inside = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
    let mut tries = 0;
    // A link with `..` is EAGAIN when anything anywhere is renamed or mounted meanwhile.
    let opened = loop {
        match rustix::fs::openat2(CWD, path, flags, Mode::empty(), inside) {
            Err(Errno::AGAIN | Errno::INTR) if tries < 1000 => tries += 1,
            done => break done,
        }
    };
    match opened {
        // Old kernels, and old seccomp profiles, which answer EPERM: then no link is followed at all.
        Err(Errno::NOSYS | Errno::PERM) => {
            let mut at = open(CWD, ".")?;
            for name in path.split('/') {
                at = open(at.as_fd(), name)?;
            }
            Ok(at)
        }
        done => done.on("openat2", format!("'/{path}'")),
    }
}

fn open(dir: BorrowedFd<'_>, name: &str) -> Result<OwnedFd> {
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    rustix::fs::openat(dir, name, flags, Mode::empty()).on("open", format!("'{name}'"))
}
