//! The worker: one stage's root, in a process of its own.
//!
//! It lives as long as the builder's end of the socket is open. When that closes, for whatever reason, it ends the RUN
//! under way, puts everything back, and exits.

use std::collections::VecDeque;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::fs::{Mode, OFlags};
use rustix::mount::MountFlags;
use rustix::process::{Pid, PidfdFlags, Signal};
use yadokari_layers::tar::Pipe;
use yadokari_layers::{Coming, Digest, Index, Limits, compress};

use super::channel::{self, Channel};
use super::engine::{Engine, Prepared};
use super::error::{During, Error, Result, Syscall};
use super::flat::Flat;
use super::hide::Hidden;
use super::in_place::{self, InPlace};
use super::launch::{Place, Spec};
use super::mount::supplies::{CACHES, Supplies};
use super::overlay::{Overlay, STEPS};
use super::wire::{Form, Kind, Reply, Request, Start};
use super::{Commit, Exit, LayerFile, Priority, Run, Unpacked, files, launch, namespace, reap, sys};

/// How long a RUN may take to end by itself once it was told to.
const GRACE: Duration = Duration::from_secs(10);

/// How often the dead among the orphans of a RUN are collected while it runs.
const TICK: Duration = Duration::from_secs(1);

/// How often a RUN is looked at where the kernel has no descriptors of processes.
const SHORT_TICK: Duration = Duration::from_millis(10);

/// The worker's whole life.
pub(super) fn main() -> ExitCode {
    let Ok(mut channel) = channel::inherited() else { return ExitCode::FAILURE };
    // Kept to the end: as long as this process has them, no other build takes what is locked by them.
    let mut locks = Vec::new();
    let ended = match begin(&mut channel, &mut locks) {
        Ok((engine, supplies)) => serve(&mut channel, engine, supplies),
        Err(error) => channel.send(&Reply::Failed(error.failure()), &[]),
    };
    drop(locks);
    // Where nobody listens any more, there is nobody to tell.
    if ended.is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Enters the namespaces and makes the stage's directories.
fn begin(channel: &mut Channel, locks: &mut Vec<OwnedFd>) -> Result<(Box<dyn Engine>, Supplies)> {
    sys::ignore_ending_signals();
    rustix::process::setsid().on("setsid", "the worker")?;
    rustix::process::umask(Mode::from_raw_mode(0o022));
    rustix::process::set_child_subreaper(Some(rustix::process::getpid())).on("prctl", "PR_SET_CHILD_SUBREAPER")?;
    let Some((Start { kind, trial, caches }, descriptors)) = channel.receive()? else {
        return Err(Error::Interrupted);
    };
    *locks = descriptors;
    let stage = locks.first().ok_or(Error::Protocol("builder"))?;
    rustix::process::fchdir(stage).on("chdir", "the stage's directory")?;
    if kind.user() {
        namespace::unshare_user()?;
        channel.send(&Reply::Unshared, &[])?;
        match channel.receive()? {
            Some((Request::Mapped, _)) => {}
            _ => return Err(Error::Interrupted),
        }
    }
    let is_isolated = kind.is_isolated();
    if is_isolated {
        namespace::unshare_mounts()?;
    }
    // The directories above the caches may be searched by the user that we still are and not by the one that we become.
    let opened = caches.as_ref().filter(|_| is_isolated).map(|path| open_caches(path));
    if kind.user() {
        namespace::become_root()?;
    }
    let caches = match opened {
        Some(opened) => opened.and_then(|caches| mount_caches(&caches)).map_err(|error| error.failure()),
        None => caches.ok_or_else(|| Error::Protocol("builder").failure()),
    };
    // The RUN is to be kept out of this process, and it shares the user with it.
    sys::harden();
    let engine: Box<dyn Engine> = match kind {
        Kind::Overlay { user, tmpfs } => {
            if let Some(size) = tmpfs {
                mount_tmpfs(size)?;
            }
            Box::new(Overlay::new(user)?)
        }
        Kind::Flat { user } => Box::new(Flat::new(user)?),
        Kind::InPlace { place, pinned, force } => {
            if trial {
                in_place::check(&pinned, force)?;
            }
            Box::new(InPlace::new(&place, pinned)?)
        }
    };
    if trial {
        prepare_trial()?;
    }
    channel.send(&Reply::Done(Vec::new()), &[])?;
    Ok((engine, Supplies::new(caches)))
}

fn open_caches(path: &Path) -> Result<OwnedFd> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    rustix::fs::open(path, flags, Mode::empty()).on("open", path.display())
}

/// Mounts the caches into the stage's directory, from where a launcher reaches them as well.
fn mount_caches(caches: &OwnedFd) -> Result<PathBuf> {
    files::make(files::HERE, CACHES)?;
    rustix::mount::mount_bind(&*files::by_fd(caches), CACHES).on("mount", "MS_BIND of the caches")?;
    Ok(CACHES.into())
}

fn mount_tmpfs(size: u64) -> Result<()> {
    files::make(files::HERE, STEPS)?;
    let options = std::ffi::CString::new(format!("mode=755,size={size}")).map_err(|_| Error::Protocol("worker"))?;
    rustix::mount::mount("tmpfs", STEPS, "tmpfs", MountFlags::empty(), &*options)
        .on("mount", "tmpfs for upper directories")
}

/// The base of a trial: a directory with a file, to be removed and made again.
fn prepare_trial() -> Result<()> {
    for path in ["base/lower", "base/lower/below"] {
        files::make(files::HERE, path)?;
    }
    Ok(())
}

/// Answers requests until the builder hangs up.
fn serve(channel: &mut Channel, engine: Box<dyn Engine>, supplies: Supplies) -> Result<()> {
    let guarded = watch(channel)?;
    let served = answer(channel, engine, supplies, &guarded);
    put_back(&mut guarded.lock().unwrap_or_else(PoisonError::into_inner));
    served
}

fn answer(channel: &mut Channel, mut engine: Box<dyn Engine>, mut supplies: Supplies, guarded: &Guarded) -> Result<()> {
    let mut layers = Vec::new();
    let mut awaited = Awaited::Base(0, Priority::Normal);
    while let Some((request, descriptors)) = channel.receive()? {
        let descriptors = VecDeque::from(descriptors);
        let answer = match request {
            Request::Materialise(0, _) => engine.materialise(Vec::new()).map(|filled| Reply::Done(filled.warnings)),
            Request::Provide(0) => provide(&mut supplies, Vec::new(), channel),
            Request::Materialise(count, priority) => {
                awaited = Awaited::Base(count, priority);
                continue;
            }
            Request::Provide(count) => {
                awaited = Awaited::Source(count);
                continue;
            }
            Request::Push(form) => push(&mut *engine, form, descriptors).map(Reply::Done),
            Request::Layer(digest, diff_id, limits, size, index) => {
                match layer((digest, diff_id), limits, size, index, descriptors) {
                    Err(error) => Err(error),
                    Ok(layer) => {
                        layers.push(layer);
                        if layers.len() < awaited.count() {
                            continue;
                        }
                        let layers = std::mem::take(&mut layers);
                        match awaited {
                            Awaited::Base(_, priority) => materialise(&mut *engine, layers, priority, channel),
                            Awaited::Source(_) => provide(&mut supplies, layers, channel),
                        }
                    }
                }
            }
            Request::Guard(files) => {
                let hidden = descriptors.into_iter().next().map(|contents| Hidden::received(files, contents));
                *guarded.lock().unwrap_or_else(PoisonError::into_inner) = hidden;
                Ok(Reply::Done(Vec::new()))
            }
            Request::Run(run, slots) => {
                let running = guarded.lock().unwrap_or_else(PoisonError::into_inner);
                let ran = execute(&mut *engine, &supplies, (*run, slots), descriptors, channel);
                drop(running);
                ran.map(|(exit, warnings)| Reply::Exited(exit, warnings))
            }
            Request::Commit(how) => commit(&mut *engine, &how, descriptors).map(Reply::Committed),
            Request::Learn(index) => decode(&index).map(|index| {
                engine.learn(index);
                Reply::Done(Vec::new())
            }),
            Request::Mapped => Err(Error::Protocol("builder")),
        };
        channel.send(&answer.unwrap_or_else(|error| Reply::Failed(error.failure())), &[])?;
    }
    Ok(())
}

/// What the layers that come are for.
#[derive(Debug, Clone, Copy)]
enum Awaited {
    Base(u32, Priority),
    Source(u32),
}

impl Awaited {
    fn count(self) -> usize {
        match self {
            Self::Base(count, _) | Self::Source(count) => count as usize,
        }
    }
}

fn materialise(
    engine: &mut dyn Engine,
    layers: Vec<LayerFile>,
    priority: Priority,
    channel: &mut Channel,
) -> Result<Reply> {
    let known: Vec<bool> = layers.iter().map(|layer| layer.index.is_some()).collect();
    let filled = priority.run(|| engine.materialise(layers))?;
    tell_found(&known, &filled, channel)?;
    Ok(Reply::Done(filled.warnings))
}

fn provide(supplies: &mut Supplies, layers: Vec<LayerFile>, channel: &mut Channel) -> Result<Reply> {
    let known: Vec<bool> = layers.iter().map(|layer| layer.index.is_some()).collect();
    let (number, filled) = supplies.provide(layers)?;
    tell_found(&known, &filled, channel)?;
    Ok(Reply::Provided(number, filled.warnings))
}

/// Sends what the layers say whose index was not known.
fn tell_found(known: &[bool], filled: &Unpacked, channel: &mut Channel) -> Result<()> {
    let mut found = filled.indexes.iter().zip(known).filter(|(_, is_known)| !**is_known);
    found.try_for_each(|(index, _)| channel.send(&Reply::Index(index.encode()?), &[]))
}

/// Puts the builder's files back, now that it has hung up: once, for this process may end as soon as the first thread that
/// noticed is done.
fn put_back(hidden: &mut Option<Hidden>) {
    // A builder that still lives does the same, and says what goes wrong with it.
    _ = hidden.take().as_ref().map(Hidden::reveal);
}

/// What is to be put back when the builder is killed. It is locked while a RUN is under way.
type Guarded = Arc<Mutex<Option<Hidden>>>;

/// Ends this process when the builder hangs up, unless a RUN is under way, which ends in order. Unpacking and committing
/// can stop anywhere: the stage is thrown away.
fn watch(channel: &Channel) -> Result<Guarded> {
    let guarded = Guarded::default();
    let socket = channel.as_fd().try_clone_to_owned().on("fcntl", "the socket")?;
    let seen = Arc::clone(&guarded);
    let watcher = move || {
        loop {
            let mut fds = [PollFd::new(&socket, PollFlags::RDHUP)];
            if rustix::event::poll(&mut fds, None).is_ok() && !fds[0].revents().is_empty() {
                break;
            }
        }
        // Held until the end, so that no RUN begins.
        let mut hidden = seen.lock().unwrap_or_else(PoisonError::into_inner);
        put_back(&mut hidden);
        let _ = rustix::process::kill_process(rustix::process::getpid(), Signal::KILL);
    };
    std::thread::Builder::new().name("watcher".into()).spawn(watcher).on("clone", "the watcher")?;
    Ok(guarded)
}

fn layer(
    (digest, diff_id): (Digest, Digest),
    limits: Limits,
    size: Option<u64>,
    index: Option<serde_bytes::ByteBuf>,
    mut descriptors: VecDeque<OwnedFd>,
) -> Result<LayerFile> {
    let index = index.map(|index| decode(&index)).transpose()?;
    let mut next = || descriptors.pop_front().ok_or(Error::Protocol("builder"));
    let blob = next()?.into();
    let coming = size.map(|size| Ok::<_, Error>(Coming { size, told: next()? })).transpose()?;
    Ok(LayerFile { digest, diff_id, index, blob, coming, limits })
}

fn push(engine: &mut dyn Engine, form: Form, mut descriptors: VecDeque<OwnedFd>) -> Result<Vec<String>> {
    let file = std::fs::File::from(descriptors.pop_front().ok_or(Error::Protocol("builder"))?);
    match form {
        Form::Blob(digest, limits) => {
            let tar = compress::decoder(file).map_err(Error::from);
            tar.and_then(|mut tar| engine.push(&mut tar, &limits)).map_err(|error| error.in_layer(digest))
        }
        Form::Tar => engine.push(&mut std::io::BufReader::with_capacity(1 << 18, file), &Limits::NONE),
    }
}

fn decode(index: &[u8]) -> Result<Arc<Index>> {
    Ok(Arc::new(Index::decode(index, &Limits::NONE)?))
}

fn commit(engine: &mut dyn Engine, how: &Commit, mut descriptors: VecDeque<OwnedFd>) -> Result<bool> {
    let pipe = descriptors.pop_front().ok_or(Error::Protocol("builder"))?;
    let mut out = Pipe::new(pipe);
    let changed = engine.commit(how, &mut out)?;
    std::io::Write::flush(&mut out).on("write", "the layer's tar")?;
    Ok(changed)
}

/// Executes a command from beginning to end, and undoes in any case what was done to the root for it.
fn execute(
    engine: &mut dyn Engine,
    supplies: &Supplies,
    (mut run, slots): (Run, Vec<Option<u32>>),
    mut descriptors: VecDeque<OwnedFd>,
    channel: &mut Channel,
) -> Result<(Exit, Vec<String>)> {
    let (Some(stdout), Some(stderr)) = (descriptors.pop_front(), descriptors.pop_front()) else {
        return Err(Error::Protocol("builder"));
    };
    let gathered = supplies.gather(std::mem::take(&mut run.mounts), &slots);
    let ran = gathered.and_then(|supplies| engine.prepare(&run, supplies)).and_then(|Prepared { place, sockets }| {
        for (number, socket) in sockets {
            channel.send(&Reply::Socket(number), &[socket.as_fd()])?;
        }
        let warnings = match &place {
            Place::InPlace { warnings } => warnings.clone(),
            Place::Isolated { .. } => Vec::new(),
        };
        let main = launch::launch(&Spec { run, place }, stdout.into(), stderr.into());
        Ok((supervise(main, channel)?, warnings))
    });
    let finished = engine.finish().during("cleaning up after a RUN");
    // A root, or even a `/`, that could not be put back is worse than whatever went wrong before.
    let more = finished?;
    let (exit, mut warnings) = ran?;
    warnings.extend(more);
    Ok((exit, warnings))
}

/// Waits for the end of a command, and of everything that it left behind. When the builder hangs up, the command is told
/// to end, and made to.
fn supervise(launched: Result<Pid>, channel: &Channel) -> Result<Exit> {
    let mut exit = None;
    let main = match launched {
        Ok(pid) => pid,
        Err(error) => {
            // The launcher may still be there, as a zombie at least.
            reap::kill_all(None, &mut exit)?;
            return Err(error);
        }
    };
    let descriptor = rustix::process::pidfd_open(main, PidfdFlags::empty()).ok();
    let mut told: Option<Instant> = None;
    while reap::collect(Some(main), &mut exit)? && exit.is_none() {
        let mut fds = Vec::new();
        if told.is_none() {
            fds.push(PollFd::new(channel, PollFlags::RDHUP));
        }
        if let Some(descriptor) = &descriptor {
            fds.push(PollFd::new(descriptor, PollFlags::IN));
        }
        let tick = if descriptor.is_some() { TICK } else { SHORT_TICK };
        let timeout = Timespec { tv_sec: tick.as_secs() as i64, tv_nsec: i64::from(tick.subsec_nanos()) };
        let polled = rustix::event::poll(&mut fds, Some(&timeout));
        let hung_up = told.is_none() && polled.is_ok() && !fds[0].revents().is_empty();
        if hung_up {
            told = Some(Instant::now());
            // Its group may be gone already, or be another one of its choice: what is left is killed below.
            let _ = rustix::process::kill_process_group(main, Signal::TERM);
        }
        if told.is_some_and(|told| told.elapsed() >= GRACE) {
            break;
        }
    }
    reap::kill_all(Some(main), &mut exit)?;
    exit.ok_or(Error::Died("command"))
}
