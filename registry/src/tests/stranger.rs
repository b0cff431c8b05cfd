//! A server that keeps to no rules: it notes all that it is sent, and answers with whatever bytes it was given.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

/// What follows the beginning of its answer.
#[derive(Debug, Clone, Copy)]
pub(super) enum Then {
    /// The end of the connection.
    End,
    /// These bytes again and again, as fast as they are taken.
    Again(&'static [u8]),
    /// A byte every few milliseconds.
    Drops,
}

/// One of them, until it is dropped.
pub(super) struct Stranger {
    host: String,
    received: Arc<Mutex<Vec<u8>>>,
    sent: Arc<AtomicU64>,
    task: JoinHandle<()>,
}

impl Stranger {
    /// Begins each of its answers with `start`, in which `HOST` stands for its own.
    pub(super) async fn start(start: impl Into<String>, then: Then) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let host = listener.local_addr().unwrap().to_string();
        let start = start.into().replace("HOST", &host);
        let (received, sent) = (Arc::<Mutex<Vec<u8>>>::default(), Arc::<AtomicU64>::default());
        let (noted, counted) = (Arc::clone(&received), Arc::clone(&sent));
        let task = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(converse(stream, start.clone(), then, (Arc::clone(&noted), Arc::clone(&counted))));
            }
        });
        Self { host, received, sent, task }
    }

    pub(super) fn host(&self) -> &str {
        &self.host
    }

    /// All that it was sent.
    pub(super) fn received(&self) -> String {
        String::from_utf8_lossy(&self.received.lock().unwrap()).into_owned()
    }

    /// How many bytes it got rid of.
    pub(super) fn sent(&self) -> u64 {
        self.sent.load(Ordering::SeqCst)
    }
}

impl Drop for Stranger {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Reads a request, with the body that it says that it has, and answers it. Each connection has one.
async fn converse(
    mut stream: TcpStream,
    start: String,
    then: Then,
    (received, sent): (Arc<Mutex<Vec<u8>>>, Arc<AtomicU64>),
) {
    let (mut all, mut piece) = (Vec::new(), [0; 4096]);
    while let Ok(n @ 1..) = stream.read(&mut piece).await {
        all.extend_from_slice(&piece[..n]);
        received.lock().unwrap().extend_from_slice(&piece[..n]);
        let text = String::from_utf8_lossy(&all).to_ascii_lowercase();
        let Some((head, body)) = text.split_once("\r\n\r\n") else { continue };
        let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")?.parse().ok());
        if body.len() >= length.unwrap_or(0) {
            break;
        }
    }
    let mut next = start.into_bytes();
    // Who is not listened to any more stops.
    while stream.write_all(&next).await.is_ok() {
        sent.fetch_add(next.len() as u64, Ordering::SeqCst);
        next = match then {
            Then::End => {
                // What is still on its way is not to be lost to a reset.
                _ = stream.shutdown().await;
                _ = stream.read(&mut piece).await;
                return;
            }
            Then::Again(bytes) => bytes.repeat(1 + (8 << 10) / bytes.len()),
            Then::Drops => {
                tokio::time::sleep(Duration::from_millis(4)).await;
                b" ".to_vec()
            }
        };
    }
}
