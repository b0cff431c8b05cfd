//! Starting a worker: its directory, its process and its maps.

use std::fs::File;
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::thread::JoinHandle;
use std::time::Duration;

use rustix::process::{Pid, Signal};

use super::client::{Interrupter, Worker};
use super::error::{Error, Result, Syscall};
use super::mount::leases::Caches;
use super::probe::Footing;
use super::wire::{Reply, Request, Start};
use super::{WORKER, channel};
use crate::claim::Claim;

/// How often the directory for stages may be removed while a stage is about to use it.
const ATTEMPTS: u32 = 100;

/// Starts a worker. With a limit it is a trial, and killed when the limit has passed.
pub(super) fn start(footing: Footing, stage: &str, limit: Option<Duration>) -> Result<Worker> {
    let (directory, opened) = Stage::make(&footing.place, stage)?;
    let root = footing.outside(0);
    std::os::unix::fs::fchown(&opened, Some(root), Some(root)).on("chown", directory.path.display())?;
    // A trial asks for none.
    let caches = limit.is_none().then(|| Caches::open(&footing.caches, root)).transpose()?;

    let (mut channel, stdin) = channel::pair()?;
    let program = format!("/proc/self/fd/{}", footing.executable.as_raw_fd());
    let mut command = Command::new(&program);
    command.arg0("yadokari").arg(WORKER).env_clear().current_dir("/").stdin(stdin).stdout(Stdio::null());
    let child = command.spawn().on("exec", "our own executable")?;
    drop(command);
    let pid = Pid::from_child(&child);
    let at = caches.as_ref().map(|caches| caches.path().to_owned());
    let start = Start { kind: footing.kind.clone(), trial: limit.is_some(), caches: at };
    // What is held by a descriptor is held until this process and the worker are gone.
    let turns = footing.turns.as_ref().map(|turns| turns.lock());
    let descriptors: Vec<_> = [Some(opened.as_fd()), turns].into_iter().flatten().collect();
    channel.send(&start, &descriptors)?;
    let interrupter = Interrupter::of(&channel)?;
    let deadline = limit.map(|limit| Deadline::new(pid, limit)).transpose()?;
    let ids = footing.ids;
    let mut worker = Worker { channel, child, footing, interrupter, deadline, caches, directory };
    if let Some(ids) = ids {
        match worker.answer()? {
            Reply::Unshared => ids.write(pid)?,
            _ => return Err(Error::Protocol("worker")),
        }
        worker.tell(&Request::Mapped, &[])?;
    }
    match worker.answer()? {
        Reply::Done(_) => Ok(worker),
        _ => Err(Error::Protocol("worker")),
    }
}

/// The directory of one stage, which is removed with all that is in it when this is dropped.
#[derive(Debug)]
pub(super) struct Stage {
    claim: Option<Claim>,
    path: PathBuf,
    /// The directory for stages, if it was made for this one.
    made: Option<PathBuf>,
}

impl Stage {
    /// The directory.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Makes a directory that nobody else has, whatever other builds do in the same place.
    fn make(place: &Path, stage: &str) -> Result<(Self, File)> {
        let made = (!place.is_dir()).then(|| place.to_owned());
        let is_plain = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
        let name: String = stage.chars().map(|c| if is_plain(c) { c } else { '_' }).take(64).collect();
        let mut attempt = 0;
        let claim = loop {
            std::fs::create_dir_all(place).on("mkdir", place.display())?;
            match Claim::make(place, &format!("stage-{name}"), 0o755) {
                // A stage that ends removes the directory for stages where it was the last one in it.
                Err(error) if error.kind() == std::io::ErrorKind::NotFound && attempt < ATTEMPTS => attempt += 1,
                made => break made.on("mkdir", place.display())?,
            }
        };
        let held = claim.held().try_clone().on("fcntl", claim.path().display())?;
        Ok((Self { path: claim.path().to_owned(), claim: Some(claim), made }, held))
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        drop(self.claim.take());
        self.made.iter().for_each(|place| drop(std::fs::remove_dir(place)));
    }
}

/// Kills a trial that takes too long: a system call that hangs must not hang the build.
#[derive(Debug)]
pub(super) struct Deadline {
    limit: Duration,
    passed: Arc<AtomicBool>,
    stop: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Deadline {
    fn new(pid: Pid, limit: Duration) -> Result<Self> {
        let (stop, stopped) = mpsc::channel();
        let passed = Arc::new(AtomicBool::new(false));
        let flag = Arc::clone(&passed);
        let watch = move || {
            if stopped.recv_timeout(limit) == Err(RecvTimeoutError::Timeout) {
                flag.store(true, Ordering::SeqCst);
                // It is not waited for before this thread has ended, so the number is still its own.
                let _ = rustix::process::kill_process(pid, Signal::KILL);
            }
        };
        let thread = std::thread::Builder::new().name("deadline".into()).spawn(watch).on("clone", "a thread")?;
        Ok(Self { limit, passed, stop: Some(stop), thread: Some(thread) })
    }

    pub(super) fn passed(&self) -> bool {
        self.passed.load(Ordering::SeqCst)
    }

    pub(super) fn seconds(&self) -> u64 {
        self.limit.as_secs()
    }
}

impl Drop for Deadline {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            // It has nothing to say.
            let _ = thread.join();
        }
    }
}
