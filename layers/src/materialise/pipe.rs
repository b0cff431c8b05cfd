//! Decompressing layers on another thread.

use std::io::{self, Read};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use crate::compress;

/// The size of a piece, and how many wait at most: what is ahead of the writer is bounded by their product.
const PIECE: usize = 128 * 1024;
const PIECES: usize = 16;

enum Message {
    Data(Vec<u8>),
    End,
    Failed(io::Error),
}

/// The layers' tars, one after the other.
pub(super) struct Pipe {
    receiver: Receiver<Message>,
}

/// A pipe, and the work that fills it. The work ends when everything is read, when something fails, or when the pipe is
/// dropped.
pub(super) fn pipe(blobs: Vec<Box<dyn Read + Send>>) -> (Pipe, impl FnOnce() + Send) {
    let (sender, receiver) = sync_channel(PIECES);
    let work = move || {
        for blob in blobs {
            let message = match decompress(blob, &sender) {
                Ok(()) => Message::End,
                Err(error) => Message::Failed(error),
            };
            let is_last = matches!(message, Message::Failed(_));
            if sender.send(message).is_err() || is_last {
                return;
            }
        }
    };
    (Pipe { receiver }, work)
}

fn decompress(blob: Box<dyn Read + Send>, sender: &SyncSender<Message>) -> io::Result<()> {
    let mut tar = compress::decoder(blob).map_err(|error| match error {
        crate::Error::Stream { source, .. } => source,
        other => io::Error::other(other),
    })?;
    loop {
        let mut piece = Vec::with_capacity(PIECE);
        (&mut tar).take(PIECE as u64).read_to_end(&mut piece)?;
        if piece.is_empty() {
            return Ok(());
        }
        sender.send(Message::Data(piece)).map_err(|_| io::Error::from(io::ErrorKind::BrokenPipe))?;
    }
}

impl Pipe {
    /// The next layer, which must be read to its end before the one after it.
    pub(super) fn next_layer(&mut self) -> impl Read {
        Tar { pipe: self, piece: Vec::new(), at: 0, is_over: false }
    }
}

struct Tar<'a> {
    pipe: &'a mut Pipe,
    piece: Vec<u8>,
    at: usize,
    is_over: bool,
}

impl Read for Tar<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.at == self.piece.len() && !self.is_over {
            match self.pipe.receiver.recv() {
                Ok(Message::Data(piece)) => (self.piece, self.at) = (piece, 0),
                Ok(Message::End) => self.is_over = true,
                Ok(Message::Failed(error)) => return Err(error),
                Err(_) => return Err(io::ErrorKind::UnexpectedEof.into()),
            }
        }
        let length = (&self.piece[self.at..]).read(buffer)?;
        self.at += length;
        Ok(length)
    }
}
