//! Distance: a registry on loopback answers at once, and round trips cost nothing that could be measured.

use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use crate::error::{At, Result};

/// A way to a server on which every answer takes a while to begin.
///
/// It knows nothing of HTTP but that a server speaks when it was spoken to: what comes first after words of the client is
/// the beginning of an answer.
#[derive(Debug)]
pub struct SlowProxy {
    address: String,
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    server: String,
    milliseconds: AtomicU64,
    ended: AtomicBool,
    answers: AtomicU64,
    up: AtomicU64,
    down: AtomicU64,
    streams: Mutex<Vec<TcpStream>>,
}

/// What went through a proxy.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Passed {
    /// Answers.
    pub answers: u64,
    /// Bytes from the clients, heads included.
    pub up: u64,
    /// Bytes to them.
    pub down: u64,
}

impl SlowProxy {
    /// A proxy on a port of its own, in front of `server`, a host and a port.
    pub fn start(server: &str, delay: Duration) -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").at("bind", "127.0.0.1")?;
        let address = listener.local_addr().at("bind", "127.0.0.1")?.to_string();
        let shared = Arc::new(Shared {
            server: server.to_owned(),
            milliseconds: AtomicU64::new(0),
            ended: AtomicBool::new(false),
            answers: AtomicU64::new(0),
            up: AtomicU64::new(0),
            down: AtomicU64::new(0),
            streams: Mutex::default(),
        });
        let proxy = Self { address, shared: Arc::clone(&shared) };
        proxy.delay(delay);
        thread::spawn(move || shared.accept(&listener));
        Ok(proxy)
    }

    /// Its address, `127.0.0.1:PORT`.
    pub fn host(&self) -> &str {
        &self.address
    }

    /// Makes answers take this long from now on.
    pub fn delay(&self, delay: Duration) {
        self.shared.milliseconds.store(delay.as_millis() as u64, Ordering::SeqCst);
    }

    /// What went through so far.
    pub fn passed(&self) -> Passed {
        let of = |number: &AtomicU64| number.load(Ordering::SeqCst);
        Passed { answers: of(&self.shared.answers), up: of(&self.shared.up), down: of(&self.shared.down) }
    }
}

impl Drop for SlowProxy {
    fn drop(&mut self) {
        self.shared.ended.store(true, Ordering::SeqCst);
        // Whoever waits for a connection or for bytes wakes up; what is closed already needs no waking.
        let _ = TcpStream::connect(&self.address);
        for stream in self.shared.streams.lock().unwrap_or_else(PoisonError::into_inner).iter() {
            let _ = stream.shutdown(Shutdown::Both);
        }
    }
}

impl Shared {
    fn accept(self: Arc<Self>, listener: &TcpListener) {
        for client in listener.incoming().flatten() {
            if self.ended.load(Ordering::SeqCst) {
                return;
            }
            // A connection that fails is the client's to notice: it is closed.
            let _ = self.connect(client);
        }
    }

    /// Two threads copy, one in each direction, until either side is closed.
    fn connect(self: &Arc<Self>, client: TcpStream) -> io::Result<()> {
        let server = TcpStream::connect(&self.server)?;
        for stream in [&client, &server] {
            stream.set_nodelay(true)?;
            self.streams.lock().unwrap_or_else(PoisonError::into_inner).push(stream.try_clone()?);
        }
        let asked = Arc::new(AtomicBool::new(false));
        let (from, to) = (client.try_clone()?, server.try_clone()?);
        let (shared, flag) = (Arc::clone(self), Arc::clone(&asked));
        thread::spawn(move || {
            copy(from, to, |bytes| {
                flag.store(true, Ordering::SeqCst);
                shared.up.fetch_add(bytes.len() as u64, Ordering::SeqCst);
            });
        });
        let shared = Arc::clone(self);
        thread::spawn(move || {
            copy(server, client, |bytes| {
                if asked.swap(false, Ordering::SeqCst) {
                    shared.answers.fetch_add(1, Ordering::SeqCst);
                    thread::sleep(Duration::from_millis(shared.milliseconds.load(Ordering::SeqCst)));
                }
                shared.down.fetch_add(bytes.len() as u64, Ordering::SeqCst);
            });
        });
        Ok(())
    }
}

/// Copies until the end; `pass` is shown the bytes before they go on.
pub(crate) fn copy(mut from: TcpStream, mut to: TcpStream, mut pass: impl FnMut(&[u8])) {
    let mut buffer = [0; 64 << 10];
    while let Ok(count @ 1..) = from.read(&mut buffer) {
        pass(&buffer[..count]);
        if to.write_all(&buffer[..count]).is_err() {
            break;
        }
    }
    // The other side may be closed already.
    let _ = to.shutdown(Shutdown::Write);
    let _ = from.shutdown(Shutdown::Read);
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead, BufReader};
    use std::time::Instant;

    use super::*;

    #[test]
    fn each_answer_is_late_and_its_bytes_are_not() {
        // A server that answers a line by a megabyte, in pieces.
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let server = listener.local_addr().unwrap().to_string();
        thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut lines = BufReader::new(stream.try_clone().unwrap());
            while lines.read_line(&mut String::new()).unwrap() > 0 {
                (0..16).for_each(|_| stream.write_all(&[0; 1 << 16]).unwrap());
            }
        });
        let proxy = SlowProxy::start(&server, Duration::from_millis(50)).unwrap();
        let mut client = TcpStream::connect(proxy.host()).unwrap();
        let mut ask = || {
            let start = Instant::now();
            client.write_all(b"more\n").unwrap();
            client.read_exact(&mut [0]).unwrap();
            let first = start.elapsed();
            client.read_exact(&mut vec![0; (1 << 20) - 1]).unwrap();
            (first, start.elapsed() - first)
        };
        for _ in 0..3 {
            let (first, rest) = ask();
            assert!(first >= Duration::from_millis(50), "{first:?}");
            assert!(rest < Duration::from_millis(500), "{rest:?}");
        }
        assert_eq!(proxy.passed(), Passed { answers: 3, up: 15, down: 3 << 20 });
        proxy.delay(Duration::ZERO);
        assert!(ask().0 < Duration::from_millis(50));
    }
}
