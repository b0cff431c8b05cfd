//! A moment in the middle of something: a way to a server that stops where it is told, for whatever is to happen then.

use std::io;
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use crate::error::{At, Error, Result};
use crate::proxy::copy;

/// A way to a server on which nothing goes on after certain words of a client, and a number of bytes behind them, until it is
/// let go. That happens once.
#[derive(Debug)]
pub struct HeldProxy {
    address: String,
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    server: String,
    words: Vec<u8>,
    behind: usize,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Waiting,
    Held,
    Released,
}

impl HeldProxy {
    /// A proxy on a port of its own, in front of `server`, a host and a port.
    pub fn start(server: &str, words: &str, behind: usize) -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").at("bind", "127.0.0.1")?;
        let address = listener.local_addr().at("bind", "127.0.0.1")?.to_string();
        let (server, words) = (server.to_owned(), words.as_bytes().to_vec());
        let (state, changed) = (Mutex::new(State::Waiting), Condvar::new());
        let shared = Arc::new(Shared { server, words, behind, state, changed });
        let proxy = Self { address, shared: Arc::clone(&shared) };
        thread::spawn(move || {
            for client in listener.incoming().flatten() {
                // A connection that fails is the client's to notice: it is closed.
                let _ = shared.connect(client);
            }
        });
        Ok(proxy)
    }

    /// Its address, `127.0.0.1:PORT`.
    pub fn host(&self) -> &str {
        &self.address
    }

    /// Waits until the words have come.
    pub fn wait(&self, limit: Duration) -> Result<()> {
        let (start, mut state) = (Instant::now(), self.shared.lock());
        while *state == State::Waiting {
            let left = limit.saturating_sub(start.elapsed());
            if left.is_zero() {
                let what =
                    format!("'{}' on the way to {}", String::from_utf8_lossy(&self.shared.words), self.shared.server);
                return Err(Error::Timeout { what, after: limit });
            }
            state = self.shared.changed.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
        Ok(())
    }

    /// Lets everything go on.
    pub fn release(&self) {
        *self.shared.lock() = State::Released;
        self.shared.changed.notify_all();
    }
}

impl Drop for HeldProxy {
    fn drop(&mut self) {
        self.release();
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Two threads copy, one in each direction, until either side is closed.
    fn connect(self: &Arc<Self>, client: TcpStream) -> io::Result<()> {
        let server = TcpStream::connect(&self.server)?;
        for stream in [&client, &server] {
            stream.set_nodelay(true)?;
        }
        let (from, to) = (client.try_clone()?, server.try_clone()?);
        let (shared, mut said) = (Arc::clone(self), Said::default());
        thread::spawn(move || {
            copy(from, to, |bytes| {
                said.add(bytes);
                shared.pass(&mut said);
            });
        });
        thread::spawn(move || copy(server, client, |_| {}));
        Ok(())
    }

    /// Looks at what a client says next: holds it where these are the words, or so many bytes behind them.
    fn pass(&self, said: &mut Said) {
        let mut state = self.lock();
        if *state == State::Waiting && said.has(&self.words, self.behind) {
            *state = State::Held;
            self.changed.notify_all();
        }
        while *state == State::Held {
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

/// What was said on a connection: its last bytes, and how many came after the words.
#[derive(Default)]
struct Said {
    last: Vec<u8>,
    behind: Option<usize>,
}

impl Said {
    fn add(&mut self, bytes: &[u8]) {
        match &mut self.behind {
            Some(behind) => *behind += bytes.len(),
            None => self.last.extend_from_slice(bytes),
        }
    }

    fn has(&mut self, words: &[u8], behind: usize) -> bool {
        if self.behind.is_none() {
            let at = self.last.windows(words.len()).position(|window| window == words);
            self.behind = at.map(|at| self.last.len() - at - words.len());
            // The words may come in two pieces.
            self.last.drain(..self.last.len().saturating_sub(words.len()));
        }
        self.behind.is_some_and(|count| count >= behind)
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};

    use super::*;

    #[test]
    fn what_comes_after_the_words_is_held_once() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let proxy = HeldProxy::start(&listener.local_addr().unwrap().to_string(), "PUT /x", 3).unwrap();
        let mut client = TcpStream::connect(proxy.host()).unwrap();
        let (mut server, _) = listener.accept().unwrap();
        server.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
        let mut read = |count: usize| {
            let mut bytes = vec![0; count];
            server.read_exact(&mut bytes).map(|()| bytes)
        };
        for piece in ["GET /x", "PUT ", "/x12"] {
            client.write_all(piece.as_bytes()).unwrap();
            assert_eq!(read(piece.len()).unwrap(), piece.as_bytes());
        }
        assert!(proxy.wait(Duration::ZERO).is_err());
        client.write_all(b"3").unwrap();
        proxy.wait(Duration::from_secs(10)).unwrap();
        assert!(read(1).is_err());
        proxy.release();
        client.write_all(b"PUT /x123").unwrap();
        assert_eq!(read(10).unwrap(), b"3PUT /x123");
    }
}
