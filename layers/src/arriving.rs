//! A blob that is read, perhaps by another process, while it comes.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt;

use rustix::fs::OFlags;
use rustix::io::retry_on_intr;
use rustix::pipe::PipeFlags;

/// Where the bytes of a blob go as they come. Where it is dropped before all are there, the reader fails.
#[derive(Debug)]
pub struct Arrival {
    file: File,
    told: OwnedFd,
}

/// A blob on its way to a file, from its first byte on. What is not there yet is waited for.
#[derive(Debug)]
pub struct Arriving {
    file: File,
    at: u64,
    coming: Coming,
    is_over: bool,
}

/// What is still to come of a file.
#[derive(Debug)]
pub struct Coming {
    /// The number of bytes that the file is going to have.
    pub size: u64,
    /// The end of a pipe: something comes whenever the file has grown, and its end when nothing more does.
    pub told: OwnedFd,
}

impl Arrival {
    /// A blob of `size` bytes that is going to be written to this file, which is empty, and its reader.
    pub fn begin(file: File, size: u64) -> io::Result<(Self, Arriving)> {
        let (hears, told) = rustix::pipe::pipe_with(PipeFlags::CLOEXEC)?;
        rustix::fs::fcntl_setfl(&told, OFlags::NONBLOCK)?;
        let arriving = Arriving::new(file.try_clone()?, Coming { size, told: hears });
        Ok((Self { file, told }, arriving))
    }
}

impl Write for Arrival {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let length = self.file.write(bytes)?;
        // A pipe that is full wakes the reader as well, and one that nobody reads is no failure.
        _ = rustix::io::write(&self.told, &[0]);
        Ok(length)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Arriving {
    /// The reader of a file that grows.
    pub fn new(file: File, coming: Coming) -> Self {
        Self { file, at: 0, coming, is_over: false }
    }

    /// What [`Arriving::new`] takes: descriptors, which another process may be given.
    pub fn into_parts(self) -> (File, Coming) {
        (self.file, self.coming)
    }

    /// Waits until the file has grown, or will not any more.
    fn wait(&mut self) -> io::Result<()> {
        let mut tokens = [0; 4096];
        self.is_over = retry_on_intr(|| rustix::io::read(&self.coming.told, &mut tokens))? == 0;
        Ok(())
    }
}

impl Read for Arriving {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let rest = usize::try_from(self.coming.size.saturating_sub(self.at)).unwrap_or(usize::MAX);
        let limit = rest.min(buffer.len());
        if limit == 0 {
            return Ok(0);
        }
        loop {
            // What was written before the end was told is there once it was told.
            let was_over = self.is_over;
            match self.file.read_at(&mut buffer[..limit], self.at)? {
                0 if was_over => return Err(io::ErrorKind::UnexpectedEof.into()),
                0 => self.wait()?,
                length => {
                    self.at += length as u64;
                    return Ok(length);
                }
            }
        }
    }
}

impl Seek for Arriving {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        let at = match to {
            SeekFrom::Start(at) => Some(at),
            SeekFrom::Current(by) => self.at.checked_add_signed(by),
            SeekFrom::End(by) => self.coming.size.checked_add_signed(by),
        };
        self.at = at.ok_or(io::ErrorKind::InvalidInput)?;
        Ok(self.at)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn begin(size: u64) -> (Arrival, Arriving) {
        Arrival::begin(tempfile::tempfile().unwrap(), size).unwrap()
    }

    #[test]
    fn what_is_not_there_yet_is_waited_for_and_can_be_read_again() {
        let (mut arrival, mut arriving) = begin(13);
        let mut all = String::new();
        std::thread::scope(|scope| {
            scope.spawn(move || {
                for piece in ["one ", "two ", "three"] {
                    std::thread::sleep(Duration::from_millis(5));
                    arrival.write_all(piece.as_bytes()).unwrap();
                }
            });
            arriving.read_to_string(&mut all).unwrap();
        });
        arriving.rewind().unwrap();
        arriving.read_to_string(&mut all).unwrap();
        assert_eq!(all, "one two threeone two three");
        assert_eq!(arriving.seek(SeekFrom::End(-5)).unwrap(), 8);
        assert_eq!(arriving.seek(SeekFrom::Current(-4)).unwrap(), 4);
        assert!(arriving.seek(SeekFrom::Current(-5)).is_err());
    }

    #[test]
    fn what_is_given_up_is_an_error_behind_what_had_come() {
        let (mut arrival, mut arriving) = begin(13);
        arrival.write_all(b"one").unwrap();
        drop(arrival);
        let mut all = Vec::new();
        let error = arriving.read_to_end(&mut all).unwrap_err();
        assert_eq!((error.kind(), &all[..]), (io::ErrorKind::UnexpectedEof, &b"one"[..]));
    }

    #[test]
    fn it_has_the_size_that_it_was_said_to_have() {
        let (mut arrival, mut arriving) = begin(3);
        arrival.write_all(b"one two").unwrap();
        assert_eq!(io::read_to_string(&mut arriving).unwrap(), "one");
    }

    #[test]
    fn nobody_has_to_read_it() {
        let (mut arrival, arriving) = begin(1 << 20);
        (0..100_000).for_each(|_| arrival.write_all(b"x").unwrap());
        drop(arriving);
        arrival.write_all(b"x").unwrap();
    }
}
