//! The builder's end of a worker.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;
use std::net::Shutdown;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::Child;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec};
use yadokari_layers::{Index, Limits};

use super::channel::Channel;
use super::error::{During, Error, Result, Syscall};
use super::hide::Hidden;
use super::mount::leases::{Caches, Leases};
use super::mount::proxy::{Agent, Proxy};
use super::probe::Footing;
use super::start::{self, Deadline, Stage};
use super::turn::Turn;
use super::wire::{Form, Kind, Reply, Request};
use super::{
    Commit, Exit, Give, LayerFile, Mount, MountKind, Priority, Probe, Run, Sandbox, Settings, Stream, Take, Unpacked,
    doctor_lines,
};

/// How long a worker may take to put everything back and exit.
const PATIENCE: Duration = Duration::from_secs(60);

/// How long the worker of a trial may take to exit.
const TRIAL_PATIENCE: Duration = Duration::from_secs(2);

/// How long output may still come after the last process that could write it is dead.
const AFTERMATH: Timespec = Timespec { tv_sec: 0, tv_nsec: 100_000_000 };

/// A stage's root in a process of its own. Dropping it ends that process, and removes the root.
#[derive(Debug)]
pub struct Worker {
    pub(super) channel: Channel,
    pub(super) child: Child,
    pub(super) footing: Footing,
    pub(super) interrupter: Interrupter,
    pub(super) deadline: Option<Deadline>,
    /// Kept from being removed until the process is gone.
    pub(super) caches: Option<Caches>,
    /// Removed last: the process must be gone by then.
    pub(super) directory: Stage,
}

/// Ends what a worker is doing, from any thread.
#[derive(Debug, Clone)]
pub struct Interrupter(Arc<Line>);

#[derive(Debug)]
struct Line {
    interrupted: AtomicBool,
    socket: UnixStream,
}

impl Interrupter {
    pub(super) fn of(channel: &Channel) -> Result<Self> {
        let socket = channel.stream().try_clone().on("fcntl", "the socket")?;
        Ok(Self(Arc::new(Line { interrupted: AtomicBool::new(false), socket })))
    }

    /// Ends the RUN under way and gives `/` back; what else the worker does just stops. Every call on it returns
    /// [`Error::Interrupted`] from then on. Returns at once; the call that is interrupted returns when all is put back.
    pub fn interrupt(&self) {
        self.0.interrupted.store(true, Ordering::SeqCst);
        // The worker sees the end of our side of the connection and can still answer. Without a worker this fails, and
        // then there is nothing to interrupt.
        let _ = self.0.socket.shutdown(Shutdown::Write);
    }

    fn check(&self) -> Result<()> {
        if self.0.interrupted.load(Ordering::SeqCst) { Err(Error::Interrupted) } else { Ok(()) }
    }
}

impl Worker {
    /// Starts a worker with a fresh, empty root for the stage called `stage`. `settings` are those that were probed.
    pub fn start(probe: &Probe, settings: &Settings, stage: &str) -> Result<Self> {
        let Some(footing) = &probe.footing else { return Err(Error::NoDriver(doctor_lines(probe))) };
        let mut footing = footing.clone();
        footing.hide.clone_from(&settings.hide);
        start::start(footing, stage, None).during(format!("starting the worker of stage '{stage}'"))
    }

    /// What ends this worker's work from another thread.
    pub fn interrupter(&self) -> Interrupter {
        self.interrupter.clone()
    }

    /// Sends a request.
    pub(super) fn tell(&mut self, request: &Request, descriptors: &[BorrowedFd<'_>]) -> Result<()> {
        self.interrupter.check()?;
        // A worker that died cannot be written to; why it died is what the user wants to know.
        self.channel.send(request, descriptors).map_err(|_| self.gone())
    }

    /// Waits for an answer.
    pub(super) fn answer(&mut self) -> Result<Reply> {
        self.receive().map(|(reply, _)| reply)
    }

    /// Waits for an answer and what comes with it.
    fn receive(&mut self) -> Result<(Reply, Vec<OwnedFd>)> {
        let reply = self.channel.receive::<Reply>();
        self.interrupter.check()?;
        match reply? {
            Some((Reply::Failed(failure), _)) => Err(failure.into()),
            Some(received) => Ok(received),
            None => Err(self.gone()),
        }
    }

    /// Why the worker does not listen any more.
    fn gone(&self) -> Error {
        match (&self.deadline, self.interrupter.check()) {
            (Some(deadline), _) if deadline.passed() => Error::Timeout(deadline.seconds()),
            (_, Err(interrupted)) => interrupted,
            _ => Error::Died("worker"),
        }
    }

    fn send_layer(&mut self, layer: &LayerFile) -> Result<()> {
        let index = layer.index.as_ref().map(|index| index.encode()).transpose()?;
        let size = layer.coming.as_ref().map(|coming| coming.size);
        let request = Request::Layer(layer.digest, layer.diff_id, layer.limits, size, index.map(Into::into));
        let mut descriptors = vec![layer.blob.as_fd()];
        descriptors.extend(layer.coming.as_ref().map(|coming| coming.told.as_fd()));
        self.tell(&request, &descriptors)
    }

    /// Has layers unpacked. Returns the answer, and what each of the layers says.
    fn unpack(&mut self, request: &Request, layers: &[LayerFile]) -> Result<(Reply, Vec<Arc<Index>>)> {
        self.tell(request, &[])?;
        layers.iter().try_for_each(|layer| self.send_layer(layer))?;
        let mut found = Vec::new();
        let answer = loop {
            match self.answer()? {
                Reply::Index(index) => found.push(Arc::new(Index::decode(&index, &Limits::NONE)?)),
                answer => break answer,
            }
        };
        let mut found = found.into_iter();
        let indexes = layers.iter().map(|layer| layer.index.clone().or_else(|| found.next()));
        Ok((answer, indexes.collect::<Option<_>>().ok_or(Error::Protocol("worker"))?))
    }

    /// Says what was pushed or committed.
    fn learn(&mut self, index: &Index) -> Result<()> {
        self.tell(&Request::Learn(index.encode()?), &[])?;
        self.done().map(drop)
    }

    fn done(&mut self) -> Result<Vec<String>> {
        match self.answer()? {
            Reply::Done(warnings) => Ok(warnings),
            _ => Err(Error::Protocol("worker")),
        }
    }

    /// Passes the output on until the command has ended and all of it was read. Serves its sockets meanwhile.
    fn stream(
        &mut self,
        pipes: [OwnedFd; 2],
        agents: &mut BTreeMap<u32, Agent>,
        output: &mut dyn FnMut(Stream, &[u8]),
    ) -> Result<(Reply, Vec<Proxy>)> {
        let [stdout, stderr] = pipes.map(File::from);
        let mut open = vec![(Stream::Stdout, stdout), (Stream::Stderr, stderr)];
        let (mut reply, mut proxies) = (None, Vec::new());
        let mut buffer = vec![0; 1 << 16];
        while reply.is_none() || !open.is_empty() {
            let mut fds: Vec<PollFd<'_>> = open.iter().map(|(_, pipe)| PollFd::new(pipe, PollFlags::IN)).collect();
            if reply.is_none() {
                fds.push(PollFd::new(&self.channel, PollFlags::IN));
            }
            let timeout = reply.as_ref().map(|_| &AFTERMATH);
            match rustix::event::poll(&mut fds, timeout) {
                // Someone outside of the RUN has the pipe; we need not wait for that.
                Ok(0) => break,
                Err(rustix::io::Errno::INTR) => continue,
                polled => polled.on("poll", "the output of a RUN")?,
            };
            let ready: Vec<bool> = fds.iter().map(|fd| !fd.revents().is_empty()).collect();
            let is_answered = reply.is_none() && ready.last() == Some(&true);
            let mut at = ready.into_iter();
            open.retain_mut(|(stream, pipe)| {
                if at.next() != Some(true) {
                    return true;
                }
                match pipe.read(&mut buffer) {
                    Ok(0) => false,
                    Ok(count) => {
                        output(*stream, &buffer[..count]);
                        true
                    }
                    Err(error) => error.kind() == std::io::ErrorKind::Interrupted,
                }
            });
            if is_answered {
                match self.receive()? {
                    (Reply::Socket(number), mut descriptors) => {
                        let agent = agents.remove(&number).ok_or(Error::Protocol("worker"))?;
                        let listener = descriptors.pop().ok_or(Error::Protocol("worker"))?;
                        proxies.push(Proxy::serve(listener, agent)?);
                    }
                    (answer, _) => reply = Some(answer),
                }
            }
        }
        Ok((reply.ok_or(Error::Protocol("worker"))?, proxies))
    }

    /// Takes the credential files away, which the worker puts back if this process is killed.
    fn hide(&mut self, output: &mut dyn FnMut(Stream, &[u8])) -> Result<Option<Hidden>> {
        if self.footing.hide.is_empty() {
            return Ok(None);
        }
        let (hidden, mut warnings) = Hidden::copy(&self.footing.hide)?;
        self.guard(Some(&hidden))?;
        warnings.extend(hidden.remove());
        warnings.iter().for_each(|warning| warn(output, warning));
        Ok(Some(hidden))
    }

    fn guard(&mut self, hidden: Option<&Hidden>) -> Result<()> {
        let parts = hidden.map(Hidden::parts);
        let files = parts.map(|(files, _)| files.to_vec()).unwrap_or_default();
        let contents: Vec<_> = parts.iter().map(|(_, contents)| contents.as_fd()).collect();
        self.tell(&Request::Guard(files), &contents)?;
        self.done().map(drop)
    }

    fn execute(
        &mut self,
        run: &Run,
        agents: &mut BTreeMap<u32, Agent>,
        output: &mut dyn FnMut(Stream, &[u8]),
    ) -> Result<Exit> {
        let pipe = || rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).on("pipe", "the output of a RUN");
        let (stdout, to_stdout) = pipe()?;
        let (stderr, to_stderr) = pipe()?;
        // A pipe belongs to who made it, and opening /dev/stdout opens it anew: it must be the user's.
        let (uid, gid) = (self.footing.outside(run.uid), self.footing.outside(run.gid));
        for pipe in [&to_stdout, &to_stderr] {
            std::os::unix::fs::fchown(pipe, Some(uid), Some(gid)).on("chown", "the output of a RUN")?;
        }
        let leases = match &self.caches {
            Some(caches) => caches.lease(&run.mounts, &self.interrupter.0.interrupted)?,
            None => Leases::default(),
        };
        let request = Request::Run(Box::new(run.clone()), leases.slots.clone());
        self.tell(&request, &[to_stdout.as_fd(), to_stderr.as_fd()])?;
        drop((to_stdout, to_stderr));
        let (Reply::Exited(exit, mut warnings), proxies) = self.stream([stdout, stderr], agents, output)? else {
            return Err(Error::Protocol("worker"));
        };
        let refused = proxies.into_iter().filter_map(|proxy| proxy.end().err());
        warnings.extend(refused.map(|error| error.to_string()));
        warnings.iter().for_each(|warning| warn(output, warning));
        Ok(exit)
    }
}

/// A pipe for the tar of a layer.
fn tar_pipe() -> Result<(OwnedFd, OwnedFd)> {
    let flags = rustix::pipe::PipeFlags::CLOEXEC;
    let (read, write) = rustix::pipe::pipe_with(flags).on("pipe", "a layer's tar")?;
    // The default of 64 KiB costs a switch of processes each; a refusal costs no more than that.
    let _ = rustix::pipe::fcntl_setpipe_size(&write, 1 << 20);
    Ok((read, write))
}

/// The real sockets that a RUN wants to talk to, by the numbers of their mounts.
fn agents(run: &Run) -> Result<BTreeMap<u32, Agent>> {
    let sockets = run.mounts.iter().zip(0..).filter_map(|(mount, number)| match &mount.kind {
        MountKind::Socket { agent, .. } => Some((number, mount, agent)),
        _ => None,
    });
    let open = |(number, mount, agent): (u32, &Mount, &std::path::PathBuf)| {
        Ok((number, Agent::open(agent).during(format!("the mount at '{}'", mount.target))?))
    };
    sockets.map(open).collect()
}

/// Warnings of a RUN stand in its output, where they happened.
fn warn(output: &mut dyn FnMut(Stream, &[u8]), warning: &str) {
    output(Stream::Stderr, format!("yadokari: warning: {warning}\n").as_bytes());
}

impl Sandbox for Worker {
    fn materialise(&mut self, layers: Vec<LayerFile>, priority: Priority) -> Result<Unpacked> {
        let count = u32::try_from(layers.len()).map_err(|_| Error::Protocol("builder"))?;
        match self.unpack(&Request::Materialise(count, priority), &layers)? {
            (Reply::Done(warnings), indexes) => Ok(Unpacked { indexes, warnings }),
            _ => Err(Error::Protocol("worker")),
        }
    }

    fn push(&mut self, layer: LayerFile) -> Result<Vec<String>> {
        let index = layer.index.as_ref().ok_or(Error::Protocol("builder"))?;
        self.tell(&Request::Push(Form::Blob(layer.digest, layer.limits)), &[layer.blob.as_fd()])?;
        let warnings = self.done()?;
        self.learn(index)?;
        Ok(warnings)
    }

    fn push_tar(&mut self, give: Give<'_>) -> Result<Vec<String>> {
        let (read, write) = tar_pipe()?;
        self.tell(&Request::Push(Form::Tar), &[read.as_fd()])?;
        drop(read);
        let given = give(&mut File::from(write));
        // Of a worker that does not read any more, its own words are the cause.
        let warnings = self.done()?;
        let index = given.on("write", "a layer's tar")?;
        self.learn(&index)?;
        Ok(warnings)
    }

    fn provide(&mut self, layers: Vec<LayerFile>) -> Result<(u32, Unpacked)> {
        let count = u32::try_from(layers.len()).map_err(|_| Error::Protocol("builder"))?;
        match self.unpack(&Request::Provide(count), &layers)? {
            (Reply::Provided(number, warnings), indexes) => Ok((number, Unpacked { indexes, warnings })),
            _ => Err(Error::Protocol("worker")),
        }
    }

    fn run(&mut self, run: &Run, output: &mut dyn FnMut(Stream, &[u8])) -> Result<Exit> {
        self.interrupter.check()?;
        let Some(turns) = self.footing.turns.clone() else { return self.execute(run, &mut agents(run)?, output) };
        let turn: Turn<'_> = turns.take(&self.interrupter.0.interrupted)?;
        // While a RUN runs in place, this one or another stage's, the paths of the sockets lead to something else.
        let mut agents = agents(run)?;
        let hidden = self.hide(output)?;
        let ran = self.execute(run, &mut agents, output);
        // A worker that was killed could not put `/` back; one that was interrupted did, and then this does nothing.
        let recovered = match &ran {
            Err(Error::Died(_)) => turn.recover(),
            _ => Ok(()),
        };
        let revealed = hidden.as_ref().map_or(Ok(()), Hidden::reveal);
        // Somebody else's RUN may be next in `/`, and these files are to be hidden from it, too.
        let released = hidden.map_or(Ok(()), |_| self.guard(None));
        let exit = ran?;
        recovered.and(revealed).and(released)?;
        Ok(exit)
    }

    fn commit(&mut self, commit: &Commit, take: Take<'_>) -> Result<()> {
        let (read, write) = tar_pipe()?;
        self.tell(&Request::Commit(commit.clone()), &[write.as_fd()])?;
        drop(write);
        let mut read = File::from(read);
        let taken = take(&mut read);
        // A worker that writes to a pipe which nobody reads gives up, and its answer is awaited all the same.
        drop(read);
        let changed = match self.answer()? {
            Reply::Committed(changed) => changed,
            _ => return Err(Error::Protocol("worker")),
        };
        match (changed, taken.on("read", "a layer's tar")?) {
            (false, None) => Ok(()),
            (true, Some(index)) => self.learn(&index),
            _ => Err(Error::Protocol("worker")),
        }
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        let _ = self.channel.stream().shutdown(Shutdown::Write);
        // The thread of a deadline kills by number, and must be gone before that number is given to somebody else.
        let patience = self.deadline.take().map_or(PATIENCE, |_| TRIAL_PATIENCE);
        let since = Instant::now();
        let mut pause = Duration::from_micros(200);
        while let Ok(None) = self.child.try_wait() {
            if since.elapsed() > patience {
                let _ = self.child.kill();
            }
            std::thread::sleep(pause);
            pause = (pause * 2).min(Duration::from_millis(20));
        }
    }
}

impl Worker {
    /// Where the stage is.
    pub fn directory(&self) -> &Path {
        self.directory.path()
    }

    /// Whether the worker runs commands in the container's own `/`.
    pub fn is_in_place(&self) -> bool {
        matches!(self.footing.kind, Kind::InPlace { .. })
    }
}
