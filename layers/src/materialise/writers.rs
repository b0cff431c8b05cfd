//! Threads that write files while the next ones come.

use std::io::{self, BufRead, Read};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::ScopedJoinHandle;

use super::pipe::Slice;
use crate::root::Place;
use crate::{Digest, Entry, Error, RelPath, Result, Root, Skipped};

/// As many files wait to be written. Each holds its directory open.
const QUEUE: usize = 128;

/// As many pieces of a large file wait to be written.
const SLICES: usize = 8;

/// As many threads write. On two cores one does as well; where there are more, or the file system is slow, two keep up with
/// whatever decompresses.
const THREADS: usize = 2;

/// What stands in the error of a pass that ended because a writer has failed.
const STOPPED: &str = "hand a file to a writer";

/// Something to be made.
#[derive(Debug)]
pub(super) struct Job {
    /// The directory in which it is.
    pub(super) directory: Arc<OwnedFd>,
    /// The layer that says so, for errors.
    pub(super) layer: Digest,
    pub(super) path: RelPath,
    pub(super) entry: Entry,
    pub(super) content: Content,
}

/// A file's bytes.
#[derive(Debug, Default)]
pub(super) struct Content {
    /// What is there.
    pub(super) slices: Vec<Slice>,
    /// What comes while the file is written already.
    pub(super) more: Option<Receiver<Slice>>,
}

/// Where files are handed to those who write them.
#[derive(Debug)]
pub(super) struct Writers<'a> {
    jobs: SyncSender<Job>,
    has_failed: &'a AtomicBool,
}

impl Writers<'_> {
    /// Hands something over.
    pub(super) fn write(&self, job: Job) -> Result<()> {
        if self.has_failed.load(Ordering::Relaxed) || self.jobs.send(job).is_err() {
            return Err(stopped());
        }
        Ok(())
    }

    /// Hands a file over of which the bytes are still to come.
    pub(super) fn stream(&self, mut job: Job) -> Result<SyncSender<Slice>> {
        let (sender, more) = sync_channel(SLICES);
        job.content.more = Some(more);
        self.write(job)?;
        Ok(sender)
    }
}

/// The pass has to end, for a reason that the writer knows.
pub(super) fn stopped() -> Error {
    Error::Stream { operation: STOPPED, source: io::ErrorKind::BrokenPipe.into() }
}

fn is_stopped(error: &Error) -> bool {
    matches!(error.cause(), Error::Stream { operation: STOPPED, .. })
}

/// Does `pass` while other threads write what it hands over. Returns what it returns, once everything is written, and what
/// the kernel refused.
pub(super) fn writing<T>(root: &Root, pass: impl FnOnce(&Writers<'_>) -> Result<T>) -> Result<(T, Vec<Skipped>)> {
    let (jobs, receiver) = sync_channel(QUEUE);
    let (receiver, has_failed) = (Mutex::new(receiver), AtomicBool::new(false));
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..THREADS).map(|_| scope.spawn(|| write_all(root, &receiver, &has_failed))).collect();
        let writers = Writers { jobs, has_failed: &has_failed };
        let passed = pass(&writers);
        drop(writers);
        let written = threads.into_iter().map(joined).reduce(|all, more| {
            let mut all = all?;
            all.extend(more?);
            Ok(all)
        });
        match (passed, written.unwrap_or(Ok(Vec::new()))) {
            (Ok(passed), Ok(skipped)) => Ok((passed, skipped)),
            (Ok(_), Err(error)) => Err(error),
            (Err(stopped), Err(error)) if is_stopped(&stopped) => Err(error),
            (Err(error), _) => Err(error),
        }
    })
}

/// What a thread returned.
pub(super) fn joined<T>(thread: ScopedJoinHandle<'_, T>) -> T {
    thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

/// Writes until nothing more can come. After an error what comes is only taken, or who hands it over would wait for ever.
fn write_all(root: &Root, jobs: &Mutex<Receiver<Job>>, has_failed: &AtomicBool) -> Result<Vec<Skipped>> {
    let mut written = Ok(Vec::new());
    loop {
        let next = jobs.lock().unwrap_or_else(PoisonError::into_inner).recv();
        let Ok(job) = next else { return written };
        let Ok(skipped) = &mut written else { continue };
        match job.write(root) {
            Ok(more) => skipped.extend(more),
            Err(error) => {
                has_failed.store(true, Ordering::Relaxed);
                written = Err(error);
            }
        }
    }
}

impl Job {
    fn write(self, root: &Root) -> Result<Vec<Skipped>> {
        let name = self.path.file_name().unwrap_or(b".");
        let place = Place { dir: self.directory.as_fd(), name, path: &self.path };
        let Content { slices, more } = self.content;
        let mut content = Slices { ready: slices.into_iter(), more, current: None, at: 0 };
        root.put_at(place, &self.entry, &mut content).map_err(|error| error.in_layer(self.layer))
    }
}

struct Slices {
    ready: std::vec::IntoIter<Slice>,
    more: Option<Receiver<Slice>>,
    current: Option<Slice>,
    at: usize,
}

impl BufRead for Slices {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        if self.current.as_ref().is_none_or(|slice| slice.bytes().len() == self.at) {
            // It may go back before one that is waited for comes.
            self.current = None;
            let more = || self.more.as_ref()?.recv().ok();
            (self.current, self.at) = (self.ready.next().or_else(more), 0);
        }
        Ok(self.current.as_ref().map_or(&[], |slice| &slice.bytes()[self.at..]))
    }

    fn consume(&mut self, length: usize) {
        self.at += length;
    }
}

impl Read for Slices {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let length = self.fill_buf()?.read(buffer)?;
        self.consume(length);
        Ok(length)
    }
}
