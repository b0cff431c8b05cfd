//! A blob on its way to a registry: read on a blocking thread, a few pieces ahead of the socket.

use std::io::{self, Read};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use tokio::sync::mpsc;

/// The size of a piece, and how many of them wait: half a megabyte for each upload.
const PIECE: usize = 128 << 10;
const AHEAD: usize = 4;

/// How far a request's body has gone.
#[derive(Debug, Default)]
pub(crate) struct Progress {
    sent: AtomicU64,
    complete: AtomicBool,
    failure: Mutex<Option<io::Error>>,
}

impl Progress {
    /// The bytes given to the socket so far.
    pub(crate) fn sent(&self) -> u64 {
        self.sent.load(Ordering::Relaxed)
    }

    /// Whether there are no more.
    pub(crate) fn is_complete(&self) -> bool {
        self.complete.load(Ordering::Relaxed)
    }

    /// The source's own failure, which the transport would report as its own.
    pub(crate) fn take_failure(&self) -> Option<io::Error> {
        self.failure.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// Says that there are no more.
    pub(crate) fn end(&self) {
        self.complete.store(true, Ordering::Relaxed);
    }

    fn fail(&self, error: io::Error) -> io::Error {
        let copy = io::Error::new(error.kind(), error.to_string());
        *self.failure.lock().unwrap_or_else(PoisonError::into_inner) = Some(error);
        copy
    }
}

/// A body that streams what `reader` gives, which has this size where that is known.
pub(crate) fn stream(reader: Box<dyn Read + Send>, size: Option<u64>, progress: &Arc<Progress>) -> reqwest::Body {
    let (sender, receiver) = mpsc::channel(AHEAD);
    let reading = Arc::clone(progress);
    tokio::task::spawn_blocking(move || read(reader, size, &sender, &reading));
    let state = (receiver, Arc::clone(progress));
    let pieces = futures_util::stream::unfold(state, move |(mut receiver, progress)| async move {
        let piece: io::Result<Bytes> = match receiver.recv().await {
            Some(piece) => piece,
            None => {
                progress.end();
                return None;
            }
        };
        if let Ok(piece) = &piece {
            let sent = progress.sent.fetch_add(piece.len() as u64, Ordering::Relaxed) + piece.len() as u64;
            // With a known length the transport does not ask for the end.
            progress.complete.store(size.is_some_and(|size| sent >= size), Ordering::Relaxed);
        }
        Some((piece, (receiver, progress)))
    });
    reqwest::Body::wrap_stream(pieces)
}

/// Feeds the channel. A receiver that is gone means that the request is over, which is nobody's failure.
fn read(
    mut reader: Box<dyn Read + Send>,
    size: Option<u64>,
    sender: &mpsc::Sender<io::Result<Bytes>>,
    progress: &Progress,
) {
    let mut total = 0;
    loop {
        let mut piece = vec![0; PIECE];
        let failure = match reader.read(&mut piece) {
            Ok(0) if size.is_none_or(|size| total == size) => return,
            Ok(n) if n > 0 && size.is_none_or(|size| total + n as u64 <= size) => {
                total += n as u64;
                piece.truncate(n);
                if sender.blocking_send(Ok(piece.into())).is_err() {
                    return;
                }
                continue;
            }
            Ok(n) => io::Error::new(
                io::ErrorKind::InvalidData,
                format!("the blob has {} bytes, expected {}", total + n as u64, size.unwrap_or_default()),
            ),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => error,
        };
        let _ = sender.blocking_send(Err(progress.fail(failure)));
        return;
    }
}
