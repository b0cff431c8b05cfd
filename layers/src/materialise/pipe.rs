//! Decompressing layers on another thread, and hashing what becomes of them on one more.

use std::io::{self, BufRead, Read};
use std::ops::Range;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::Scope;

use super::Seekable;
use crate::digest::Hasher;
use crate::{Digest, Error, compress};

/// The size of a piece, and how many there are at most: all that is on its way through a pipe is in them.
const PIECE: usize = 128 * 1024;
const PIECES: usize = 64;

/// As many of them wait for each thread at most.
const QUEUE: usize = PIECES / 4;

/// A buffer that goes back to be filled again when nobody holds it any more.
#[derive(Debug)]
struct Piece {
    bytes: Vec<u8>,
    length: usize,
    back: SyncSender<Vec<u8>>,
}

impl Drop for Piece {
    fn drop(&mut self) {
        // When the pipe has ended, nobody needs it.
        let _ = self.back.try_send(std::mem::take(&mut self.bytes));
    }
}

/// A part of a piece.
#[derive(Debug)]
pub(super) struct Slice {
    piece: Arc<Piece>,
    range: Range<usize>,
}

impl Slice {
    pub(super) fn bytes(&self) -> &[u8] {
        &self.piece.bytes[self.range.clone()]
    }
}

enum Message {
    Data(Piece),
    /// The end of a layer, and the digest of its tar where it was asked for.
    End(Option<Digest>),
    Failed(io::Error),
}

/// A layer's blob, and whether its tar is to be hashed.
pub(super) type Passing<'a> = (&'a mut dyn Seekable, bool);

/// The tars of `blobs`, one after the other. The threads end when everything is read, when something fails, or when the
/// pipe is dropped.
pub(super) fn pipe<'scope>(scope: &'scope Scope<'scope, '_>, blobs: Vec<Passing<'scope>>) -> Pipe {
    let hashed: Vec<bool> = blobs.iter().map(|(_, is_hashed)| *is_hashed).collect();
    let (sender, mut receiver) = sync_channel(QUEUE);
    scope.spawn(move || decompress_all(blobs, &sender));
    if hashed.contains(&true) {
        let (hashing, next) = sync_channel(QUEUE);
        let plain = std::mem::replace(&mut receiver, next);
        scope.spawn(move || hash(&hashed, &plain, &hashing));
    }
    Pipe { receiver, state: State::Between, at: 0, piece: None }
}

fn decompress_all(blobs: Vec<Passing<'_>>, to: &SyncSender<Message>) {
    let mut pool = Pool::new();
    for (blob, _) in blobs {
        let message = match decompress(blob, &mut pool, to) {
            Ok(()) => Message::End(None),
            Err(error) => Message::Failed(error),
        };
        let is_last = matches!(message, Message::Failed(_));
        if to.send(message).is_err() || is_last {
            return;
        }
    }
}

fn decompress(blob: &mut dyn Seekable, pool: &mut Pool, to: &SyncSender<Message>) -> io::Result<()> {
    blob.rewind()?;
    let mut tar = compress::decoder(blob).map_err(|error| match error {
        Error::Stream { source, .. } => source,
        other => io::Error::other(other),
    })?;
    loop {
        let mut piece = pool.take();
        while piece.length < PIECE {
            match tar.read(&mut piece.bytes[piece.length..]) {
                Ok(0) => break,
                Ok(length) => piece.length += length,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        if piece.length == 0 {
            return Ok(());
        }
        to.send(Message::Data(piece)).map_err(|_| io::Error::from(io::ErrorKind::BrokenPipe))?;
    }
}

/// Passes everything on, with the digests of the tars that are to have one.
fn hash(hashed: &[bool], from: &Receiver<Message>, to: &SyncSender<Message>) {
    for &is_hashed in hashed {
        let mut hasher = Hasher::default();
        loop {
            let (message, is_end) = match from.recv() {
                Ok(Message::Data(piece)) => {
                    if is_hashed {
                        hasher.update(&piece.bytes[..piece.length]);
                    }
                    (Message::Data(piece), false)
                }
                Ok(Message::End(_)) => (Message::End(is_hashed.then(|| std::mem::take(&mut hasher).finish())), true),
                Ok(failed @ Message::Failed(_)) => (failed, false),
                Err(_) => return,
            };
            if to.send(message).is_err() {
                return;
            }
            if is_end {
                break;
            }
        }
    }
}

/// The buffers of a pipe.
struct Pool {
    free: Receiver<Vec<u8>>,
    back: SyncSender<Vec<u8>>,
    made: usize,
}

impl Pool {
    fn new() -> Self {
        let (back, free) = sync_channel(PIECES);
        Self { free, back, made: 0 }
    }

    /// An empty piece. Waits for one when there are as many as there may be.
    fn take(&mut self) -> Piece {
        let bytes = match self.free.try_recv() {
            Err(_) if self.made < PIECES => None,
            Err(_) => self.free.recv().ok(),
            Ok(bytes) => Some(bytes),
        };
        let bytes = bytes.unwrap_or_else(|| {
            self.made += 1;
            vec![0; PIECE]
        });
        Piece { bytes, length: 0, back: self.back.clone() }
    }
}

/// What is inflated, as it comes.
#[derive(Debug)]
pub(super) struct Pipe {
    receiver: Receiver<Message>,
    state: State,
    piece: Option<Arc<Piece>>,
    at: usize,
}

#[derive(Debug)]
enum State {
    Between,
    Within,
    Ended(Option<Digest>),
}

impl Pipe {
    /// Begins with the next tar; the one before must have been read to its end.
    pub(super) fn next_layer(&mut self) {
        self.state = State::Within;
    }

    /// The digest of the tar that was read to its end, where it was asked for.
    pub(super) fn digest(&self) -> Option<Digest> {
        if let State::Ended(digest) = self.state { digest } else { None }
    }

    /// Up to `limit` of the next bytes, without a copy; none at the end.
    pub(super) fn slice(&mut self, limit: usize) -> io::Result<(Option<Slice>, usize)> {
        let length = self.fill_buf()?.len().min(limit);
        let range = self.at..self.at + length;
        let slice = self.piece.as_ref().filter(|_| length > 0).map(|piece| Slice { piece: Arc::clone(piece), range });
        self.at += length;
        Ok((slice, length))
    }
}

impl BufRead for Pipe {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        while self.piece.as_ref().is_none_or(|piece| piece.length == self.at) {
            if !matches!(self.state, State::Within) {
                return Ok(&[]);
            }
            // It may go back before one that is waited for comes.
            self.piece = None;
            match self.receiver.recv() {
                Ok(Message::Data(piece)) => (self.piece, self.at) = (Some(Arc::new(piece)), 0),
                Ok(Message::End(digest)) => self.state = State::Ended(digest),
                Ok(Message::Failed(error)) => return Err(error),
                Err(_) => return Err(io::ErrorKind::UnexpectedEof.into()),
            }
        }
        Ok(self.piece.as_ref().map_or(&[], |piece| &piece.bytes[self.at..piece.length]))
    }

    fn consume(&mut self, length: usize) {
        self.at += length;
    }
}

impl Read for Pipe {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let length = self.fill_buf()?.read(buffer)?;
        self.consume(length);
        Ok(length)
    }
}
