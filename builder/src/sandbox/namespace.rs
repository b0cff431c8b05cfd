//! Entering namespaces of our own.

use nix::sched::CloneFlags;
use rustix::mount::MountPropagationFlags;
use rustix::process::{Gid, Uid};

use super::error::{Result, Syscall};
use super::sys;

/// Leaves the user namespace. The kernel refuses this to a process with threads. Until the parent has written the maps,
/// no id means anything.
pub(super) fn unshare_user() -> Result<()> {
    nix::sched::unshare(CloneFlags::CLONE_NEWUSER).on("unshare", "CLONE_NEWUSER")
}

/// Becomes root of the user namespace, once it has maps.
pub(super) fn become_root() -> Result<()> {
    rustix::thread::set_thread_groups(&[]).on("setgroups", "[]")?;
    rustix::thread::set_thread_res_gid(Gid::ROOT, Gid::ROOT, Gid::ROOT).on("setresgid", 0)?;
    rustix::thread::set_thread_res_uid(Uid::ROOT, Uid::ROOT, Uid::ROOT).on("setresuid", 0)
}

/// Leaves the mount namespace and keeps mounts from spreading out of the new one. The working directory comes along,
/// which is how a directory whose parents cannot be searched any more stays within reach.
pub(super) fn unshare_mounts() -> Result<()> {
    nix::sched::unshare(CloneFlags::CLONE_NEWNS).on("unshare", "CLONE_NEWNS")?;
    let flags = MountPropagationFlags::PRIVATE | MountPropagationFlags::REC;
    rustix::mount::mount_change("/", flags).on("mount", "MS_PRIVATE of '/'")
}

/// Leaves the namespaces of System V objects and of the host name, where that is allowed: podman's seccomp profile
/// forbids naming the host, and a RUN can do without.
pub(super) fn unshare_rest(hostname: &str) {
    let _ = nix::sched::unshare(CloneFlags::CLONE_NEWIPC);
    if nix::sched::unshare(CloneFlags::CLONE_NEWUTS).is_ok() {
        let _ = nix::unistd::sethostname(hostname);
    }
}

/// Leaves the network for one that has the loopback interface and nothing else.
pub(super) fn unshare_network() -> Result<()> {
    nix::sched::unshare(CloneFlags::CLONE_NEWNET).on("unshare", "CLONE_NEWNET")?;
    sys::bring_up_loopback()
}
