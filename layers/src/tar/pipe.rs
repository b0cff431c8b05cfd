//! The way of a tar from one process to another.

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::os::fd::{AsFd, OwnedFd};

use rustix::io::Errno;

/// Smaller files are copied: that is a system call less.
const LARGE: u64 = 256 << 10;

/// Pieces that are written together.
const PIECE: usize = 256 << 10;

/// A pipe, or anything else that has a descriptor, that a tar is written to.
///
/// Contents of large files go into it without passing through this process. Whoever writes to such a file before they were read at
/// the other end changes them there, too.
#[derive(Debug)]
pub struct Pipe(BufWriter<File>);

impl Pipe {
    /// The end that is written to.
    pub fn new(end: OwnedFd) -> Self {
        Self(BufWriter::with_capacity(PIECE, File::from(end)))
    }
}

impl Write for Pipe {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

/// What a tar is written to.
pub(super) trait Out: Write {
    /// Takes the next `size` bytes of a file, or all that there are, and says how many it took. `None` where the file has to be
    /// read, and none were taken.
    fn send(&mut self, _file: &File, _size: u64) -> io::Result<Option<u64>> {
        Ok(None)
    }
}

/// Anything that takes bytes and nothing else.
pub(super) struct Plain<W>(pub(super) W);

impl<W: Write> Write for Plain<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

impl<W: Write> Out for Plain<W> {}

impl Out for &mut Pipe {
    fn send(&mut self, file: &File, size: u64) -> io::Result<Option<u64>> {
        if size < LARGE {
            return Ok(None);
        }
        self.flush()?;
        let mut sent = 0;
        while sent < size {
            let most = usize::try_from(size - sent).unwrap_or(usize::MAX);
            match rustix::fs::sendfile(self.0.get_ref().as_fd(), file, None, most) {
                Ok(0) => break,
                Ok(count) => sent += count as u64,
                Err(Errno::INTR) => {}
                // Not every file system can, and some ask for another way.
                Err(Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP | Errno::PERM) if sent == 0 => return Ok(None),
                Err(error) => return Err(error.into()),
            }
        }
        Ok(Some(sent))
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Seek, SeekFrom};
    use std::thread;

    use super::*;

    #[test]
    fn what_is_sent_comes_between_what_is_written() {
        let mut file = tempfile::tempfile().unwrap();
        let content: Vec<u8> = (0..3 << 20).map(|n: u32| (n % 251) as u8).collect();
        file.write_all(&content).unwrap();
        let (read, write) = rustix::pipe::pipe().unwrap();
        let reader = thread::spawn(move || {
            let mut all = Vec::new();
            File::from(read).read_to_end(&mut all).map(|_| all)
        });
        let mut pipe = Pipe::new(write);
        let mut out = &mut pipe;
        out.write_all(b"before").unwrap();
        file.seek(SeekFrom::Start(0)).unwrap();
        assert_eq!(out.send(&file, LARGE - 1).unwrap(), None);
        assert_eq!(out.send(&file, 1 << 20).unwrap(), Some(1 << 20));
        out.write_all(b"between").unwrap();
        // It has less than is asked for.
        assert_eq!(out.send(&file, 5 << 20).unwrap(), Some(2 << 20));
        out.write_all(b"after").unwrap();
        out.flush().unwrap();
        drop(pipe);
        let expected = [b"before", &content[..1 << 20], b"between", &content[1 << 20..], b"after"].concat();
        assert!(reader.join().unwrap().unwrap() == expected);
    }
}
