//! A blob that is read while it is being written.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::unix::fs::FileExt;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use crate::Digest;

/// A blob of which there is only the beginning so far. Readers get what there is, and wait for the rest.
#[derive(Debug, Clone)]
pub struct Growing(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    file: File,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Clone, Copy, Default)]
struct State {
    size: u64,
    end: End,
}

#[derive(Debug, Clone, Copy, Default)]
enum End {
    #[default]
    Open,
    /// There is no more, and this is the digest of it all.
    Complete(Digest),
    /// The writer is gone before its end.
    Broken,
}

/// Where the bytes go in. When it is dropped before its end, the readers fail.
#[derive(Debug)]
pub(crate) struct Growth(Growing);

/// Where they come out, from the first one on.
#[derive(Debug)]
pub struct GrowingReader {
    shared: Arc<Shared>,
    at: u64,
}

impl Growing {
    /// Waits until there are `size` bytes. False where it has ended with fewer.
    pub fn wait_for(&self, size: u64) -> bool {
        let mut state = self.0.lock();
        while state.size < size && matches!(state.end, End::Open) {
            state = self.0.wait(state);
        }
        state.size >= size
    }

    /// The digest, once the blob is complete.
    pub fn digest(&self) -> Option<Digest> {
        match self.0.lock().end {
            End::Complete(digest) => Some(digest),
            End::Open | End::Broken => None,
        }
    }

    /// Whether the blob is never going to be complete.
    pub fn is_broken(&self) -> bool {
        matches!(self.0.lock().end, End::Broken)
    }

    /// A reader from the first byte. It ends where the blob does, and fails where that is given up.
    pub fn open(&self) -> GrowingReader {
        GrowingReader { shared: Arc::clone(&self.0), at: 0 }
    }
}

impl Growth {
    /// A blob that is written to this file, which is empty, and can be read, too.
    pub(crate) fn new(file: File) -> Self {
        Self(Growing(Arc::new(Shared { file, state: Mutex::default(), changed: Condvar::new() })))
    }

    pub(crate) fn blob(&self) -> &Growing {
        &self.0
    }

    /// Says that there is no more.
    pub(crate) fn complete(self, digest: Digest) {
        self.0.0.change(|state| state.end = End::Complete(digest));
    }
}

impl Drop for Growth {
    fn drop(&mut self) {
        self.0.0.change(|state| {
            if matches!(state.end, End::Open) {
                state.end = End::Broken;
            }
        });
    }
}

impl Write for Growth {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let length = (&self.0.0.file).write(bytes)?;
        self.0.0.change(|state| state.size += length as u64);
        Ok(length)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wait<'a>(&self, state: MutexGuard<'a, State>) -> MutexGuard<'a, State> {
        self.changed.wait(state).unwrap_or_else(PoisonError::into_inner)
    }

    fn change(&self, change: impl FnOnce(&mut State)) {
        change(&mut self.lock());
        self.changed.notify_all();
    }
}

impl Read for GrowingReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let mut state = self.shared.lock();
        while state.size == self.at {
            match state.end {
                End::Open => state = self.shared.wait(state),
                End::Complete(_) => return Ok(0),
                End::Broken => return Err(io::ErrorKind::UnexpectedEof.into()),
            }
        }
        // The file may have more already. Who read that would wait for less than it has, and take what follows for the end.
        let told = usize::try_from(state.size - self.at).unwrap_or(usize::MAX).min(buffer.len());
        drop(state);
        let length = self.shared.file.read_at(&mut buffer[..told], self.at)?;
        self.at += length as u64;
        Ok(length)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn growth() -> Growth {
        Growth::new(tempfile::tempfile().unwrap())
    }

    #[test]
    fn readers_wait_for_what_is_not_there_yet() {
        let mut growth = growth();
        let blob = growth.blob().clone();
        std::thread::scope(|scope| {
            let readers: Vec<_> = (0..2)
                .map(|_| {
                    let mut reader = blob.open();
                    scope.spawn(move || {
                        let mut all = Vec::new();
                        reader.read_to_end(&mut all).map(|_| all)
                    })
                })
                .collect();
            for piece in [&b"one "[..], b"two ", b"three"] {
                growth.write_all(piece).unwrap();
                std::thread::sleep(std::time::Duration::from_millis(5));
            }
            assert_eq!(blob.digest(), None);
            growth.complete(Digest::of("one two three"));
            for reader in readers {
                assert_eq!(reader.join().unwrap().unwrap(), b"one two three");
            }
        });
        assert_eq!(blob.digest(), Some(Digest::of("one two three")));
        assert!(!blob.is_broken() && blob.wait_for(13) && !blob.wait_for(14));
    }

    #[test]
    fn what_was_not_told_yet_is_not_read() {
        let mut growth = growth();
        growth.write_all(b"told").unwrap();
        let blob = growth.blob().clone();
        blob.0.file.write_all_at(b" and more", 4).unwrap();
        let (mut reader, mut buffer) = (blob.open(), [0; 9]);
        assert_eq!((reader.read(&mut buffer).unwrap(), &buffer[..4]), (4, &b"told"[..]));
        growth.write_all(b" and more").unwrap();
        growth.complete(Digest::of("told and more"));
        assert_eq!((reader.read(&mut buffer).unwrap(), &buffer), (9, b" and more"));
        assert_eq!(reader.read(&mut buffer).unwrap(), 0);
    }

    #[test]
    fn what_is_given_up_is_an_error_to_its_readers() {
        let mut growth = growth();
        let blob = growth.blob().clone();
        growth.write_all(b"begun").unwrap();
        drop(growth);
        let mut read = Vec::new();
        let error = blob.open().read_to_end(&mut read).unwrap_err();
        assert_eq!((error.kind(), &read[..]), (io::ErrorKind::UnexpectedEof, &b"begun"[..]));
        assert!(blob.is_broken() && blob.wait_for(5) && !blob.wait_for(6) && blob.digest().is_none());
    }
}
