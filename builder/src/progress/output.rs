//! What the command of a step prints, on its way to the views.

use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use super::{Event, Progress};
use crate::sandbox::Stream;

/// Cuts what a command prints into lines, each with the time since it began.
pub struct Output<'a> {
    progress: &'a Progress,
    name: String,
    start: Instant,
    /// What came of the line under way, of each stream.
    partial: Mutex<[Vec<u8>; 2]>,
}

/// A line longer than this is cut, so that a command without line ends does not fill the memory.
const LONGEST_LINE: usize = 16 << 10;

impl<'a> Output<'a> {
    pub(super) fn new(progress: &'a Progress, name: String) -> Self {
        Self { progress, name, start: Instant::now(), partial: Mutex::default() }
    }

    /// Takes what came from one of the streams.
    pub fn write(&self, stream: Stream, bytes: &[u8]) {
        let mut partial = self.partial.lock().unwrap_or_else(PoisonError::into_inner);
        let partial = &mut partial[usize::from(stream == Stream::Stderr)];
        for piece in bytes.split_inclusive(|&byte| byte == b'\n') {
            partial.extend_from_slice(piece);
            if piece.ends_with(b"\n") || partial.len() > LONGEST_LINE {
                self.line(stream, &std::mem::take(partial));
            }
        }
    }

    /// Writes what is left of lines that never ended.
    pub fn finish(&self) {
        let partial = std::mem::take(&mut *self.partial.lock().unwrap_or_else(PoisonError::into_inner));
        for (partial, stream) in partial.iter().zip([Stream::Stdout, Stream::Stderr]) {
            if !partial.is_empty() {
                self.line(stream, partial);
            }
        }
    }

    fn line(&self, stream: Stream, bytes: &[u8]) {
        let text = String::from_utf8_lossy(bytes);
        let text = text.trim_end_matches(['\n', '\r']);
        self.progress.say(&Event::Output { step: &self.name, stream, since: self.start.elapsed(), text });
    }
}
