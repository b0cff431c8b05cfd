//! The launcher: a process that turns itself into the command of a RUN.
//!
//! It has no threads and is not forked from one that has, so nothing in it can wait for a lock that no thread holds any
//! more. Its standard input is a channel to the worker until the set-up is done; its standard output and error are the
//! RUN's already.

use std::io::Write;
use std::os::unix::process::CommandExt;
use std::process::{Command, ExitCode, Stdio};

use rustix::fs::{Mode, OFlags};
use serde::{Deserialize, Serialize};

use super::error::{During, Error, Failure, Result, Syscall};
use super::mount::attach::{self, Attachment};
use super::rootfs::{self, Rootfs};
use super::{Network, Run, channel, namespace, privileges, sys};

/// What to launch, and where.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Spec {
    /// The command.
    pub(super) run: Run,
    /// Its root.
    pub(super) place: Place,
}

/// Where a command runs.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Place {
    /// In a mount namespace of its own.
    Isolated {
        /// Its root.
        rootfs: Rootfs,
        /// What is mounted into it.
        attachments: Vec<Attachment>,
        /// Whether the worker is in a user namespace of its own.
        user: bool,
    },
    /// In the container's own `/`.
    InPlace {
        /// What the user should know of it.
        warnings: Vec<String>,
    },
}

/// What the launcher says before it becomes the command.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Launched {
    /// The set-up is done; whatever happens from now on is the command's.
    Ready,
    /// The set-up failed.
    Failed(Failure),
}

/// Where commands are looked up when the image has no PATH.
const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// The launcher's whole life; it ends by exec.
pub(super) fn main() -> ExitCode {
    let Ok(mut channel) = channel::inherited() else { return ExitCode::FAILURE };
    let Ok(Some((mut spec, _))) = channel.receive::<Spec>() else { return ExitCode::FAILURE };
    let answer = match set_up(&mut spec) {
        Ok(()) => Launched::Ready,
        Err(error) => Launched::Failed(error.failure()),
    };
    let ready = matches!(answer, Launched::Ready);
    if channel.send(&answer, &[]).is_err() || !ready {
        return ExitCode::FAILURE;
    }
    drop(channel);
    let error = execute(&spec.run);
    let (code, reason) = match error.raw_os_error() {
        Some(libc::ENOENT | libc::ENOTDIR) => (127, "not found".to_owned()),
        _ => (126, error.to_string()),
    };
    let command = spec.run.argv.first().map_or("", String::as_str);
    // Nobody may be reading any more; the exit code says it all the same.
    let _ = writeln!(std::io::stderr(), "yadokari: {command}: {reason}");
    ExitCode::from(code)
}

fn set_up(spec: &mut Spec) -> Result<()> {
    sys::restore_ending_signals();
    rustix::process::setsid().on("setsid", "the RUN")?;
    // If the worker is killed, so is at least the main process of a RUN of root.
    let _ = rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::KILL));
    privileges::limit();
    match &mut spec.place {
        Place::Isolated { rootfs, attachments, user } => {
            namespace::unshare_mounts()?;
            namespace::unshare_rest(&spec.run.hostname);
            if spec.run.network == Network::None {
                namespace::unshare_network().during("isolating the network")?;
            }
            let files = rootfs::open_network_files()?;
            let opened = attach::open(std::mem::take(attachments))?;
            rootfs.mount().during("mounting the root")?;
            rustix::process::chdir(rootfs::MERGED).on("chdir", rootfs::MERGED)?;
            rootfs::furnish(&files, *user).during("mounting into the root")?;
            attach::attach(opened)?;
            rootfs::enter().during("entering the root")?;
            privileges::scope_signals(&spec.run, true);
        }
        Place::InPlace { .. } => privileges::scope_signals(&spec.run, false),
    }
    // A base image may name a working directory that it does not have; as with runc, root makes it, and the layer has it.
    std::fs::create_dir_all(&spec.run.cwd).on("mkdir", format!("'{}'", spec.run.cwd))?;
    privileges::become_user(&spec.run).during("becoming the user of the RUN")?;
    rustix::process::chdir(spec.run.cwd.as_str()).on("chdir", format!("'{}'", spec.run.cwd))?;
    sys::close_on_exec_from(3);
    Ok(())
}

/// Becomes the command; returns only when that fails.
fn execute(run: &Run) -> std::io::Error {
    let null = rustix::fs::open("/dev/null", OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty());
    if let Err(error) = null.and_then(to_stdin) {
        return error.into();
    }
    let Some(command) = run.argv.first() else { return std::io::ErrorKind::InvalidInput.into() };
    if command.contains('/') {
        return exec(command, run);
    }
    let path = run.env.iter().rev().find(|(name, _)| name == "PATH").map_or(DEFAULT_PATH, |(_, value)| value);
    // As in a shell: a file that may not be executed is remembered, and the search goes on.
    let mut found = std::io::Error::from_raw_os_error(libc::ENOENT);
    for directory in path.split(':') {
        let directory = if directory.is_empty() { "." } else { directory };
        let error = exec(&format!("{directory}/{command}"), run);
        match error.raw_os_error() {
            Some(libc::ENOENT | libc::ENOTDIR) => {}
            Some(libc::EACCES) => found = error,
            _ => return error,
        }
    }
    found
}

fn to_stdin(fd: std::os::fd::OwnedFd) -> rustix::io::Result<()> {
    nix::unistd::dup2_stdin(fd).map_err(|errno| rustix::io::Errno::from_raw_os_error(errno as i32))
}

/// The standard library's exec also clears the signal mask and gives SIGPIPE its default meaning back.
fn exec(program: &str, run: &Run) -> std::io::Error {
    let mut command = Command::new(program);
    command.args(run.argv.iter().skip(1)).env_clear().envs(run.env.iter().map(|(name, value)| (name, value)));
    if let Some(name) = run.argv.first() {
        command.arg0(name);
    }
    command.exec()
}

/// Starts a launcher and waits until its command is about to run. Our own executable is `/proc/self/exe`, which for a
/// worker is the sealed copy.
pub(super) fn launch(spec: &Spec, stdout: Stdio, stderr: Stdio) -> Result<rustix::process::Pid> {
    let (mut channel, stdin) = channel::pair()?;
    let child = Command::new("/proc/self/exe")
        .arg(super::LAUNCHER)
        .env_clear()
        .stdin(stdin)
        .stdout(stdout)
        .stderr(stderr)
        .spawn()
        .on("exec", "/proc/self/exe")?;
    let pid = rustix::process::Pid::from_child(&child);
    // If it died before it could read the message, the answer below is missing, and that says it better.
    let _ = channel.send(spec, &[]);
    match channel.receive()? {
        Some((Launched::Ready, _)) => Ok(pid),
        Some((Launched::Failed(failure), _)) => Err(failure.into()),
        None => Err(Error::Died("launcher")),
    }
}
