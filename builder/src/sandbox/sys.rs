//! The system calls that no crate offers safely, and the few whose use needs more words than a line. All unsafe code of
//! this crate is here.
#![expect(unsafe_code, reason = "every other module of the crate is safe because this one is not")]

use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::time::Duration;

use rustix::fs::{MemfdFlags, SealFlags};
use rustix::io::Errno;
use rustix::process::{DumpableBehavior, Gid};

use super::error::{Result, Syscall};

/// Makes the builder's memory, environment and descriptors unreadable for every process without CAP_SYS_PTRACE, even of
/// the same user: what a RUN in place must not see; and its limits unchangeable. `main` calls this.
pub fn harden() {
    // The call fails on no kernel; if it did, dropping CAP_SETPCAP would still keep a RUN of root out.
    let _ = rustix::process::set_dumpable_behavior(DumpableBehavior::NotDumpable);
    // Limits may be set by whoever has all the ids of a process, the saved ones too. Where groups may not be chosen, root is
    // none that a RUN could be.
    let (own, effective) = (rustix::process::getgid(), rustix::process::getegid());
    let saved = Gid::from_raw(if effective.as_raw() == SAVED_GROUP { SAVED_GROUP + 1 } else { SAVED_GROUP });
    let _ = rustix::thread::set_thread_res_gid(own, effective, saved);
}

/// A group that the builder and its workers have saved, and no RUN has. It gives access to nothing.
const SAVED_GROUP: u32 = 1;

/// How often sealing is tried, and the pause between two tries.
const SEALING: u32 = 50;
const PAUSE: Duration = Duration::from_millis(20);

/// A sealed copy of our own executable in memory. An in-place RUN may replace the file on disk, and a RUN in a user
/// namespace may be unable to reach it; nothing can change this copy.
pub(super) fn sealed_executable() -> Result<OwnedFd> {
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    // Since Linux 6.3 a sysctl can make memory files unexecutable unless they ask; before, asking is EINVAL.
    let memory = rustix::fs::memfd_create("yadokari", flags | MemfdFlags::EXEC)
        .or_else(|_| rustix::fs::memfd_create("yadokari", flags))
        .on("memfd_create", "yadokari")?;
    let mut memory = File::from(memory);
    let mut own = File::open("/proc/self/exe").on("open", "/proc/self/exe")?;
    io::copy(&mut own, &mut memory).on("write", "the memory file")?;
    let seals = SealFlags::SEAL | SealFlags::SHRINK | SealFlags::GROW | SealFlags::WRITE;
    // As long as the kernel itself is at work on a page of it, the answer is EBUSY: that passes.
    let mut tries = 0;
    while let Err(error) = rustix::fs::fcntl_add_seals(&memory, seals) {
        tries += 1;
        if error != Errno::BUSY || tries == SEALING {
            return Err(error).on("fcntl", "F_ADD_SEALS");
        }
        std::thread::sleep(PAUSE);
    }
    // A descriptor that is open for writing makes exec fail with ETXTBSY on some kernels: hand out a reader.
    let path = format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&memory));
    let reader = File::open(&path).on("open", "the memory file")?;
    Ok(reader.into())
}

/// Marks every descriptor but the standard ones to be closed by exec. Ours already are; the ones inherited from whoever
/// started us may not be.
pub(super) fn close_on_exec_from(first: u32) {
    // SAFETY: no pointer is passed, and closing happens only at exec, when nothing of this program is left.
    unsafe {
        // Before Linux 5.11 the flag is EINVAL; what Rust opened is close-on-exec by itself.
        libc::syscall(libc::SYS_close_range, first, u32::MAX, libc::CLOSE_RANGE_CLOEXEC);
    }
}

/// Brings up the loopback interface of the network namespace, with its usual addresses.
pub(super) fn bring_up_loopback() -> Result<()> {
    let family = rustix::net::AddressFamily::INET;
    let socket = rustix::net::socket(family, rustix::net::SocketType::DGRAM, None).on("socket", "AF_INET")?;
    // SAFETY: the structure holds numbers and an array of bytes, for which zero is a value.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    request.ifr_name[..2].copy_from_slice(&[b'l' as libc::c_char, b'o' as libc::c_char]);
    request.ifr_ifru.ifru_flags = libc::IFF_UP as libc::c_short;
    let descriptor = std::os::fd::AsRawFd::as_raw_fd(&socket);
    // SAFETY: this request reads a structure of this type, which lives until the call returns.
    let answer = unsafe { libc::ioctl(descriptor, libc::SIOCSIFFLAGS as _, &raw const request) };
    if answer == 0 { Ok(()) } else { Err(io::Error::last_os_error()).on("ioctl", "SIOCSIFFLAGS of 'lo'") }
}

/// The signals that end a process by default and that somebody may send to a whole session or container.
const ENDING: [libc::c_int; 4] = [libc::SIGTERM, libc::SIGINT, libc::SIGHUP, libc::SIGQUIT];

/// Makes the worker survive what ends the builder: it must put `/` back first, and it learns of the builder's end from
/// the socket.
pub(super) fn ignore_ending_signals() {
    ENDING.iter().for_each(|&signal| set_disposition(signal, libc::SIG_IGN));
}

/// Undoes [`ignore_ending_signals`] in the launcher: ignored signals stay ignored across exec.
pub(super) fn restore_ending_signals() {
    ENDING.iter().for_each(|&signal| set_disposition(signal, libc::SIG_DFL));
}

fn set_disposition(signal: libc::c_int, disposition: libc::sighandler_t) {
    // SAFETY: both dispositions are the kernel's own; no handler of ours is installed.
    unsafe {
        libc::signal(signal, disposition);
    }
}
