//! Serving the sockets of a RUN: whoever connects to one of them talks to the real socket, through the builder.
//!
//! A RUN so needs no permission on the real socket, and does not learn where it is.

use std::io::{Read, Write};
use std::net::Shutdown;
use std::os::fd::OwnedFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use rustix::event::{PollFd, PollFlags};
use rustix::fs::{FileType, Mode, OFlags};

use super::super::error::{During, Error, Result, Syscall};
use super::super::files::by_fd;

/// A socket of the host that was found before the RUN, and stays within reach while its path may be gone.
#[derive(Debug)]
pub(in crate::sandbox) struct Agent(Arc<OwnedFd>);

impl Agent {
    /// Finds the socket.
    pub(in crate::sandbox) fn open(path: &Path) -> Result<Self> {
        let name = path.display();
        let found = rustix::fs::open(path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty()).on("open", &name)?;
        let stat = rustix::fs::fstat(&found).on("stat", &name)?;
        if FileType::from_raw_mode(stat.st_mode) != FileType::Socket {
            return Err(Error::Refused(format!("'{name}' is no socket")));
        }
        let agent = Self(Arc::new(found));
        // Whether anybody listens is better said now than by whatever fails in the RUN.
        agent.connect().on("connect", name)?;
        Ok(agent)
    }

    fn connect(&self) -> std::io::Result<UnixStream> {
        UnixStream::connect(by_fd(&*self.0))
    }
}

/// Serves a socket until this is dropped.
#[derive(Debug)]
pub(in crate::sandbox) struct Proxy {
    /// Closed to end it.
    stop: Option<OwnedFd>,
    thread: Option<JoinHandle<()>>,
    refused: Arc<Mutex<Option<std::io::Error>>>,
}

impl Proxy {
    /// Connects whoever connects to `listener` with the agent.
    pub(in crate::sandbox) fn serve(listener: OwnedFd, agent: Agent) -> Result<Self> {
        let listener = UnixListener::from(listener);
        // A connection may be gone between the poll and the call.
        listener.set_nonblocking(true).on("fcntl", "a socket of the RUN")?;
        let (stopped, stop) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).on("pipe", "a proxy")?;
        let refused = Arc::new(Mutex::new(None));
        let errors = Arc::clone(&refused);
        let serve = move || serve(&listener, &agent, &stopped, &errors);
        let thread = std::thread::Builder::new().name("proxy".into()).spawn(serve).on("clone", "a thread")?;
        Ok(Self { stop: Some(stop), thread: Some(thread), refused })
    }

    /// Ends it, and says why it could not connect the last time that it could not.
    pub(in crate::sandbox) fn end(mut self) -> Result<()> {
        self.join();
        let refused = self.refused.lock().unwrap_or_else(PoisonError::into_inner).take();
        refused
            .map_or(Ok(()), |error| Err(error).on("connect", "the real socket").during("serving a socket of the RUN"))
    }

    fn join(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            // It has nothing to say.
            let _ = thread.join();
        }
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.join();
    }
}

fn serve(listener: &UnixListener, agent: &Agent, stopped: &OwnedFd, errors: &Mutex<Option<std::io::Error>>) {
    let mut connections = Vec::new();
    loop {
        let mut fds = [PollFd::new(listener, PollFlags::IN), PollFd::new(stopped, PollFlags::IN)];
        if rustix::event::poll(&mut fds, None).is_err() {
            continue;
        }
        let [wanted, stopped] = fds.map(|fd| !fd.revents().is_empty());
        if stopped {
            break;
        }
        if wanted && let Ok((client, _)) = listener.accept() {
            match agent.connect().and_then(|real| Connection::new(client, real)) {
                Ok(connection) => connections.push(connection),
                Err(error) => *errors.lock().unwrap_or_else(PoisonError::into_inner) = Some(error),
            }
        }
        connections.retain(|connection: &Connection| connection.is_open());
    }
}

/// One that connected, and its two directions. Dropping it ends both.
struct Connection {
    ends: [UnixStream; 2],
    threads: Vec<JoinHandle<()>>,
}

impl Connection {
    fn new(client: UnixStream, real: UnixStream) -> std::io::Result<Self> {
        client.set_nonblocking(false)?;
        let mut connection = Self { ends: [client, real], threads: Vec::new() };
        for (from, to) in [(0, 1), (1, 0)] {
            let (from, to) = (connection.ends[from].try_clone()?, connection.ends[to].try_clone()?);
            let thread = std::thread::Builder::new().name("proxy".into()).spawn(move || pass(from, to))?;
            connection.threads.push(thread);
        }
        Ok(connection)
    }

    fn is_open(&self) -> bool {
        !self.threads.iter().all(JoinHandle::is_finished)
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        for end in &self.ends {
            // One that is closed already needs no closing.
            let _ = end.shutdown(Shutdown::Both);
        }
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

/// Passes bytes on until no more come, and says so to whoever got them.
fn pass(mut from: UnixStream, mut to: UnixStream) {
    let mut buffer = vec![0; 1 << 14];
    loop {
        match from.read(&mut buffer) {
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Ok(count) if count > 0 && to.write_all(&buffer[..count]).is_ok() => {}
            _ => break,
        }
    }
    let _ = to.shutdown(Shutdown::Write);
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An agent that answers in upper case what comes until the end of the request.
    fn agent(path: &Path) {
        let listener = UnixListener::bind(path).unwrap();
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                std::thread::spawn(move || {
                    let (mut stream, mut text) = (stream.unwrap(), String::new());
                    stream.read_to_string(&mut text).unwrap();
                    // The one who only tries whether somebody listens does not.
                    let _ = stream.write_all(text.to_uppercase().as_bytes());
                });
            }
        });
    }

    #[test]
    fn each_connection_has_one_of_its_own_wherever_the_real_socket_went() {
        let directory = tempfile::tempdir().unwrap();
        let [real, served, moved] = ["real", "served", "moved"].map(|name| directory.path().join(name));
        agent(&real);
        let found = Agent::open(&real).unwrap();
        std::fs::rename(&real, &moved).unwrap();
        let proxy = Proxy::serve(UnixListener::bind(&served).unwrap().into(), found).unwrap();
        let idle = UnixStream::connect(&served).unwrap();
        for text in ["one", "two"] {
            let mut stream = UnixStream::connect(&served).unwrap();
            stream.write_all(text.as_bytes()).unwrap();
            stream.shutdown(Shutdown::Write).unwrap();
            let mut answer = String::new();
            stream.read_to_string(&mut answer).unwrap();
            assert_eq!(answer, text.to_uppercase());
        }
        proxy.end().unwrap();
        drop(idle);
    }

    #[test]
    fn an_end_waits_for_nobody_and_a_missing_agent_is_named() {
        let directory = tempfile::tempdir().unwrap();
        let [real, served, file] = ["real", "served", "file"].map(|name| directory.path().join(name));
        assert!(Agent::open(&real).unwrap_err().to_string().contains("real"));
        std::fs::write(&file, "").unwrap();
        assert!(Agent::open(&file).unwrap_err().to_string().contains("is no socket"));
        let listener = UnixListener::bind(&real).unwrap();
        let proxy = Proxy::serve(UnixListener::bind(&served).unwrap().into(), Agent::open(&real).unwrap()).unwrap();
        let mut hanging = UnixStream::connect(&served).unwrap();
        listener.accept().unwrap();
        listener.accept().unwrap();
        drop(listener);
        let mut refused = UnixStream::connect(&served).unwrap();
        assert_eq!(refused.read(&mut [0]).unwrap(), 0);
        assert!(proxy.end().unwrap_err().to_string().contains("the real socket"));
        assert_eq!(hanging.read(&mut [0]).unwrap(), 0);
    }
}
