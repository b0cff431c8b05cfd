//! Contents on their way from one layer to another.

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::blob::unnamed;
use crate::{Content, Error, Result};

/// Contents pass in pieces of this size.
const PIECE: usize = 64 * 1024;

/// The contents of many files, one after the other in a file that has no name: nothing is left of it whatever happens, and small
/// ones cost no more than their bytes.
#[derive(Debug)]
pub struct Spool {
    directory: PathBuf,
    file: Arc<File>,
    end: u64,
    piece: Vec<u8>,
}

/// The content of one file.
#[derive(Debug, Clone)]
pub struct Spooled {
    file: Arc<File>,
    from: u64,
    to: u64,
}

impl Spool {
    /// An empty one, on the disk of a directory.
    pub fn create(directory: &Path) -> Result<Self> {
        let file = Arc::new(unnamed(directory)?);
        Ok(Self { directory: directory.to_owned(), file, end: 0, piece: vec![0; PIECE] })
    }

    /// Takes all that `content` gives.
    pub fn take(&mut self, content: &mut dyn Read) -> Result<Content> {
        let from = self.end;
        loop {
            let length = match content.read(&mut self.piece) {
                Ok(0) => break,
                Ok(length) => length,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(source) => return Err(Error::Stream { operation: "read content", source }),
            };
            let written = self.file.write_all_at(&self.piece[..length], self.end);
            written.map_err(|source| Error::Host { operation: "write", path: self.directory.clone(), source })?;
            self.end += length as u64;
        }
        Ok(Content::Spooled(Spooled { file: Arc::clone(&self.file), from, to: self.end }))
    }
}

impl Read for Spooled {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let left = usize::try_from(self.to - self.from).unwrap_or(usize::MAX).min(buffer.len());
        let length = self.file.read_at(&mut buffer[..left], self.from)?;
        self.from += length as u64;
        Ok(length)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn contents_come_back_whole_in_any_order_and_more_than_once() {
        let directory = tempfile::tempdir().unwrap();
        let mut spool = Spool::create(directory.path()).unwrap();
        let large: Vec<u8> = (0..3 * PIECE as u32 + 7).map(|n| n as u8).collect();
        let given = [b"first".to_vec(), Vec::new(), large, b"last".to_vec()];
        let contents: Vec<Content> = given.iter().map(|bytes| spool.take(&mut &bytes[..]).unwrap()).collect();
        drop(spool);
        assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 0);
        for number in [3, 0, 2, 1, 0] {
            let mut read = Vec::new();
            contents[number].open().unwrap().read_to_end(&mut read).unwrap();
            assert!(read == given[number], "{number}");
        }
    }
}
