//! A queue of bytes between a thread that must not wait and one that is slower: what does not fit into memory goes to a
//! file.
//!
//! The file has no name, so that nothing is left of it whatever happens, and is emptied whenever the reader has caught up.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, BufRead, Read, Write};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use crate::Result;
use crate::blob::unnamed;

/// The bytes that wait in memory at most.
const MEMORY: usize = 8 << 20;

/// Bytes pass in pieces of this size.
const PIECE: usize = 128 * 1024;

/// Where bytes go in.
#[derive(Debug)]
pub(crate) struct Writer {
    shared: Arc<Shared>,
    piece: Vec<u8>,
    is_complete: bool,
}

/// Where they come out.
#[derive(Debug)]
pub(crate) struct Reader {
    shared: Arc<Shared>,
    piece: Vec<u8>,
    at: usize,
}

#[derive(Debug)]
struct Shared {
    state: Mutex<State>,
    moved: Condvar,
    /// Without it the writer waits when the memory is full.
    file: Option<File>,
}

#[derive(Debug, Default)]
struct State {
    pieces: VecDeque<Vec<u8>>,
    /// Pieces to be used again.
    spare: Vec<Vec<u8>>,
    /// How far the file was read and written. What is in it comes after the pieces.
    read: u64,
    written: u64,
    end: End,
    /// Nobody reads any more.
    is_abandoned: bool,
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum End {
    #[default]
    Open,
    Complete,
    /// The writer is gone before its end.
    Broken,
}

/// A queue. With a directory, the writer never waits for the reader: what there is no memory for waits in a file there.
pub(crate) fn spill(directory: Option<&Path>) -> Result<(Writer, Reader)> {
    let file = directory.map(unnamed).transpose()?;
    let shared = Arc::new(Shared { state: Mutex::default(), moved: Condvar::new(), file });
    let writer = Writer { shared: Arc::clone(&shared), piece: Vec::with_capacity(PIECE), is_complete: false };
    Ok((writer, Reader { shared, piece: Vec::new(), at: 0 }))
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wait<'a>(&self, state: MutexGuard<'a, State>) -> MutexGuard<'a, State> {
        self.moved.wait(state).unwrap_or_else(PoisonError::into_inner)
    }
}

impl Writer {
    /// Says that there is no more.
    pub(crate) fn finish(mut self) -> io::Result<()> {
        self.pass_on()?;
        self.is_complete = true;
        Ok(())
    }

    fn pass_on(&mut self) -> io::Result<()> {
        if self.piece.is_empty() {
            return Ok(());
        }
        let mut state = self.shared.lock();
        loop {
            if state.is_abandoned {
                return Err(io::ErrorKind::BrokenPipe.into());
            }
            let is_full = state.pieces.len() >= MEMORY / PIECE;
            if !is_full && state.written == 0 {
                let next = state.spare.pop().unwrap_or_else(|| Vec::with_capacity(PIECE));
                state.pieces.push_back(std::mem::replace(&mut self.piece, next));
                break;
            }
            if let Some(file) = &self.shared.file {
                // Written under the lock: the kernel takes the bytes as fast as a copy of them would be made.
                file.write_all_at(&self.piece, state.written)?;
                state.written += self.piece.len() as u64;
                self.piece.clear();
                break;
            }
            state = self.shared.wait(state);
        }
        drop(state);
        self.shared.moved.notify_one();
        Ok(())
    }
}

impl Write for Writer {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let length = bytes.len().min(PIECE - self.piece.len());
        self.piece.extend_from_slice(&bytes[..length]);
        if self.piece.len() == PIECE {
            self.pass_on()?;
        }
        Ok(length)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.pass_on()
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.shared.lock().end = if self.is_complete { End::Complete } else { End::Broken };
        self.shared.moved.notify_one();
    }
}

impl Reader {
    /// Takes the next piece. At the end there is none.
    fn next(&mut self) -> io::Result<()> {
        let mut state = self.shared.lock();
        loop {
            // What was begun is given up as soon as that is known.
            if state.end == End::Broken {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            if let Some(piece) = state.pieces.pop_front() {
                let mut old = std::mem::replace(&mut self.piece, piece);
                old.clear();
                state.spare.push(old);
                break;
            }
            if let Some(file) = self.shared.file.as_ref().filter(|_| state.read < state.written) {
                let length = (state.written - state.read).min(PIECE as u64) as usize;
                self.piece.resize(length, 0);
                file.read_exact_at(&mut self.piece, state.read)?;
                state.read += length as u64;
                if state.read == state.written {
                    file.set_len(0)?;
                    (state.read, state.written) = (0, 0);
                }
                break;
            }
            if state.end == End::Complete {
                return Ok(());
            }
            state = self.shared.wait(state);
        }
        drop(state);
        self.at = 0;
        self.shared.moved.notify_one();
        Ok(())
    }
}

impl BufRead for Reader {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        if self.at == self.piece.len() {
            self.next()?;
        }
        Ok(&self.piece[self.at..])
    }

    fn consume(&mut self, length: usize) {
        self.at += length;
    }
}

impl Read for Reader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let length = self.fill_buf()?.read(buffer)?;
        self.consume(length);
        Ok(length)
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        self.shared.lock().is_abandoned = true;
        self.shared.moved.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use std::thread;
    use std::time::Duration;

    use super::*;

    fn bytes(length: usize) -> Vec<u8> {
        (0..length as u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 13) as u8).collect()
    }

    fn read_all(mut reader: Reader) -> io::Result<Vec<u8>> {
        let mut all = Vec::new();
        reader.read_to_end(&mut all)?;
        Ok(all)
    }

    #[test]
    fn a_writer_with_a_file_does_not_wait_and_nothing_is_lost() {
        let directory = tempfile::tempdir().unwrap();
        for length in [0, 1, PIECE, PIECE + 1, MEMORY - 1, MEMORY, MEMORY + PIECE, 3 * MEMORY + 7] {
            let expected = bytes(length);
            let (mut writer, reader) = spill(Some(directory.path())).unwrap();
            writer.write_all(&expected).unwrap();
            writer.finish().unwrap();
            assert!(read_all(reader).unwrap() == expected, "{length}");
        }
        assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 0);
    }

    #[test]
    fn the_order_holds_when_the_reader_catches_up_now_and_then() {
        let directory = tempfile::tempdir().unwrap();
        let expected = bytes(4 * MEMORY);
        let (mut writer, mut reader) = spill(Some(directory.path())).unwrap();
        let reading = thread::spawn(move || {
            let (mut all, mut piece) = (Vec::new(), vec![0; 3 * PIECE / 2]);
            loop {
                let length = reader.read(&mut piece).unwrap();
                if length == 0 {
                    return all;
                }
                all.extend_from_slice(&piece[..length]);
                if all.len() % (5 * PIECE) < PIECE {
                    thread::sleep(Duration::from_millis(1));
                }
            }
        });
        for part in expected.chunks(MEMORY + 1234) {
            writer.write_all(part).unwrap();
            thread::sleep(Duration::from_millis(20));
        }
        writer.finish().unwrap();
        assert!(reading.join().unwrap() == expected);
    }

    #[test]
    fn without_a_file_the_writer_waits_and_memory_is_bounded() {
        let (mut writer, reader) = spill(None).unwrap();
        let expected = bytes(2 * MEMORY);
        let sent = expected.clone();
        let shared = Arc::clone(&writer.shared);
        let writing = thread::spawn(move || writer.write_all(&sent).and_then(|()| writer.finish()));
        thread::sleep(Duration::from_millis(50));
        assert_eq!(shared.lock().pieces.len(), MEMORY / PIECE);
        assert!(!writing.is_finished());
        assert!(read_all(reader).unwrap() == expected);
        writing.join().unwrap().unwrap();
    }

    #[test]
    fn what_ends_early_is_an_error_on_the_other_side() {
        let directory = tempfile::tempdir().unwrap();
        let (mut writer, reader) = spill(Some(directory.path())).unwrap();
        writer.write_all(&bytes(MEMORY)).unwrap();
        drop(writer);
        assert_eq!(read_all(reader).unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
        let (mut writer, reader) = spill(None).unwrap();
        drop(reader);
        assert_eq!(writer.write_all(&bytes(2 * PIECE)).unwrap_err().kind(), io::ErrorKind::BrokenPipe);
    }
}
