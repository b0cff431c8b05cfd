//! Blobs on their way, counted.

use std::io::{self, Read, Write as _};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use yadokari_layers::{Arrival, Arriving, Digest};
use yadokari_registry::{BlobSource, FileBlob, Store, Written};

use super::{Direction, Event, Outcome, Progress};

/// How many milliseconds pass at least between two reports of a transfer.
const PERIOD: u64 = 100;

/// A transfer under way. Where it is dropped without an end, it was stopped.
pub(crate) struct Transfer {
    counter: Arc<Counter>,
    outcome: Option<Outcome>,
}

/// Counts the bytes of a transfer.
struct Counter {
    progress: Arc<Progress>,
    id: u64,
    start: Instant,
    done: AtomicU64,
    /// When this was said last, in milliseconds since the start.
    said: AtomicU64,
}

impl Transfer {
    pub(super) fn new(progress: Arc<Progress>, id: u64) -> Self {
        let (done, said) = Default::default();
        Self { counter: Arc::new(Counter { progress, id, start: Instant::now(), done, said }), outcome: None }
    }

    /// More bytes have gone.
    pub(crate) fn add(&self, bytes: u64) {
        self.counter.add(bytes);
    }

    /// It is over.
    pub(crate) fn end(mut self, outcome: Outcome) {
        self.outcome = Some(outcome);
    }
}

impl Drop for Transfer {
    fn drop(&mut self) {
        let Counter { progress, id, start, done, .. } = &*self.counter;
        let (outcome, done) = (self.outcome.unwrap_or(Outcome::Stopped), done.load(Ordering::Relaxed));
        progress.say(&Event::TransferDone { id: *id, outcome, done, time: start.elapsed() });
    }
}

impl Counter {
    fn add(&self, bytes: u64) {
        let done = self.done.fetch_add(bytes, Ordering::Relaxed) + bytes;
        let now = u64::try_from(self.start.elapsed().as_millis()).unwrap_or(u64::MAX);
        let said = self.said.load(Ordering::Relaxed);
        let is_time = now >= said.saturating_add(PERIOD);
        if is_time && self.said.compare_exchange(said, now, Ordering::Relaxed, Ordering::Relaxed).is_ok() {
            self.progress.say(&Event::TransferProgress { id: self.id, done });
        }
    }
}

/// Puts a blob into a store, as [`Store::write_blob`] does, and says how far that is.
pub(crate) async fn write_blob(
    progress: &Arc<Progress>,
    store: &dyn Store,
    blob: &FileBlob,
    mount_from: Option<&str>,
) -> yadokari_registry::Result<Written> {
    let transfer = progress.transfer(Direction::Upload, &store.describe(), &blob.digest, blob.size);
    let watched = Watched { blob, counter: Arc::clone(&transfer.counter) };
    let written = store.write_blob(&watched, mount_from).await?;
    transfer.end(match written {
        Written::Uploaded => Outcome::Transferred,
        Written::Mounted => Outcome::Linked,
        Written::Already => Outcome::AlreadyThere,
    });
    Ok(written)
}

/// Takes a blob that can be read while it comes.
pub(crate) type WhileItComes<'a> = &'a (dyn Fn(Arriving) + Sync);

/// Writes a blob, with its size, to the file `to`, which appears when all of it is verified, and says how far that is.
pub(crate) async fn read_to(
    progress: &Arc<Progress>,
    store: &dyn Store,
    (digest, size): (&Digest, u64),
    to: &Path,
    begun: Option<WhileItComes<'_>>,
    failed: impl FnOnce(yadokari_registry::Error) -> crate::Error,
) -> Result<(), crate::Error> {
    let host = |operation| move |source| crate::Error::Host { operation, path: to.to_owned(), source };
    let directory = to.parent().unwrap_or(to);
    let mut file = tempfile::NamedTempFile::new_in(directory).map_err(host("create a file for"))?;
    let mut arrival = match begun {
        Some(begun) => {
            let opened = file.as_file().try_clone().and_then(|file| Arrival::begin(file, size));
            let (arrival, arriving) = opened.map_err(host("open a second time"))?;
            begun(arriving);
            Some(arrival)
        }
        None => None,
    };
    let transfer = progress.transfer(Direction::Download, &store.describe(), digest, size);
    let mut full = None;
    let mut sink = |piece: &[u8]| {
        transfer.add(piece.len() as u64);
        let written = match &mut arrival {
            Some(arrival) => arrival.write_all(piece),
            None => file.write_all(piece),
        };
        written.map_err(|error| {
            let kind = error.kind();
            full = Some(error);
            io::Error::from(kind)
        })
    };
    let read = store.read_blob(digest, Some(size), &mut sink).await;
    if let Some(error) = full {
        return Err(host("write")(error));
    }
    read.map_err(failed)?;
    file.persist(to).map_err(|error| host("rename to")(error.error))?;
    transfer.end(Outcome::Transferred);
    Ok(())
}

/// A blob that says how much of it was read.
struct Watched<'a> {
    blob: &'a FileBlob,
    counter: Arc<Counter>,
}

impl BlobSource for Watched<'_> {
    fn size(&self) -> u64 {
        self.blob.size()
    }

    fn digest(&self) -> Digest {
        self.blob.digest()
    }

    fn open(&self) -> io::Result<Box<dyn Read + Send>> {
        self.open_from(0)
    }

    fn open_from(&self, offset: u64) -> io::Result<Box<dyn Read + Send>> {
        // What was sent before and is not there is sent again.
        self.counter.done.store(offset, Ordering::Relaxed);
        Ok(Box::new(Reader { inner: self.blob.open_from(offset)?, counter: Arc::clone(&self.counter) }))
    }
}

struct Reader {
    inner: Box<dyn Read + Send>,
    counter: Arc<Counter>,
}

impl Read for Reader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.inner.read(buffer)?;
        self.counter.add(read as u64);
        Ok(read)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Mutex, PoisonError};

    use yadokari_registry::Memory;

    use super::*;
    use crate::progress::{Moment, View};

    #[derive(Clone, Default)]
    struct Seen(Arc<Mutex<Vec<String>>>);

    impl View for Seen {
        fn show(&mut self, event: &Event<'_>, _at: &Moment) {
            let text = match event {
                Event::TransferBegun { place, size, .. } => format!("begun {place} {size}"),
                Event::TransferDone { outcome, done, .. } => format!("{outcome:?} {done}"),
                _ => return,
            };
            self.0.lock().unwrap_or_else(PoisonError::into_inner).push(text);
        }
    }

    #[tokio::test]
    async fn an_upload_says_how_it_ended() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("blob");
        std::fs::write(&path, "content").unwrap();
        let blob = FileBlob { path, digest: Digest::of("content"), size: 7 };
        let seen = Seen::default();
        let progress = Arc::new(Progress::with(vec![Box::new(seen.clone())]));
        let registry = Memory::new();
        let (app, other) = (registry.repository("app"), registry.repository("other"));
        write_blob(&progress, &app, &blob, None).await.unwrap();
        write_blob(&progress, &app, &blob, None).await.unwrap();
        write_blob(&progress, &other, &blob, Some("app")).await.unwrap();
        let missing = FileBlob { digest: Digest::of("other"), path: directory.path().join("missing"), size: 7 };
        write_blob(&progress, &app, &missing, None).await.unwrap_err();
        let begun = |store: &dyn Store| format!("begun {} 7", store.describe());
        let expected = [
            &begun(&app),
            "Transferred 7",
            &begun(&app),
            "AlreadyThere 0",
            &begun(&other),
            "Linked 0",
            &begun(&app),
            "Stopped 0",
        ];
        assert_eq!(*seen.0.lock().unwrap(), expected);
    }
}
