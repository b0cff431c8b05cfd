//! What was put into `/` for the mounts of a RUN, on disk, so that a killed build's successor can take it away.
//!
//! A record is written before what it says is done, and may find nothing to undo.

use std::fs;
use std::io::ErrorKind;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::io::Errno;
use serde::{Deserialize, Serialize};
use yadokari_layers::RelPath;

use crate::sandbox::error::{During, Error, Result, Syscall};
use crate::sandbox::files::{self, is_one_of};
use crate::sandbox::mount::caches::{self, DATA};
use crate::sandbox::stubs::Settling;

const JOURNAL: &str = "mounts";

/// One change.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Record {
    /// What was changed, without links.
    pub(super) path: RelPath,
    /// How.
    pub(super) change: Change,
}

/// How a path in `/` was changed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Change {
    /// A directory was made for what is below it. It stays if the RUN put something there.
    Made,
    /// Something was put there that nobody keeps.
    Put,
    /// The cache of a slot is there.
    Moved {
        /// The slot, an absolute path that stays.
        slot: PathBuf,
    },
    /// A copy of the cache of a slot is there.
    Copied {
        /// The slot, an absolute path that stays.
        slot: PathBuf,
    },
}

/// The records of the RUN under way.
#[derive(Debug)]
pub(super) struct Journal {
    path: PathBuf,
    records: Vec<Record>,
}

impl Journal {
    /// An empty journal in the driver's directory. Nothing is written yet.
    pub(super) fn new(place: &Path) -> Self {
        Self { path: place.join(JOURNAL), records: Vec::new() }
    }

    /// Writes down what will be done.
    pub(super) fn write(&mut self, record: Record) -> Result<()> {
        self.records.push(record);
        let bytes = postcard::to_stdvec(&self.records).map_err(|_| Error::Protocol("worker"))?;
        let (path, fresh) = (&self.path, self.path.with_extension("new"));
        fs::write(&fresh, bytes).on("write", fresh.display())?;
        fs::rename(&fresh, path).on("rename", path.display())
    }

    /// Forgets everything.
    pub(super) fn close(&self) -> Result<()> {
        match fs::remove_file(&self.path) {
            Err(error) if error.kind() != ErrorKind::NotFound => Err(error).on("unlink", self.path.display()),
            _ => Ok(()),
        }
    }
}

/// Takes away what a killed build put into `live`, which holds its image still. The image is thrown away afterwards, so
/// nothing of it has to be put back.
pub(super) fn recover(place: &Path, live: BorrowedFd<'_>) -> Result<()> {
    let journal = Journal::new(place);
    let bytes = match fs::read(&journal.path) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        read => read.on("read", journal.path.display())?,
    };
    // Never half of it is there: it is renamed into place.
    let records: Vec<Record> = postcard::from_bytes(&bytes).map_err(|_| Error::Protocol("journal of mounts"))?;
    let mut undone = Ok(());
    for record in records.iter().rev() {
        undone = undone.and(parent(live, &record.path).and_then(|parent| match parent {
            Some(parent) => record.undo(parent),
            // The RUN removed it.
            None => Ok(()),
        }));
    }
    undone.and(journal.close())
}

/// The directory that holds a path, if no link has come into it.
fn parent(live: BorrowedFd<'_>, path: &RelPath) -> Result<Option<OwnedFd>> {
    let mut at = files::open(live, ".")?;
    for name in path.parent().unwrap_or_default().components() {
        match files::open_if_directory(at.as_fd(), name)? {
            Some(below) => at = below,
            None => return Ok(None),
        }
    }
    Ok(Some(at))
}

impl Record {
    /// Undoes the change in the directory that holds the path, whose time stays as it is now.
    pub(super) fn undo(&self, parent: OwnedFd) -> Result<()> {
        let parent = Settling::open(parent)?;
        self.undo_in(parent.directory()).during(format!("taking away the mount at '/{}'", self.path))?;
        parent.settle()
    }

    fn undo_in(&self, parent: BorrowedFd<'_>) -> Result<()> {
        let name = self.path.file_name().unwrap_or_default();
        match &self.change {
            Change::Made => match files::remove_directory(parent, name) {
                Err(error) if is_one_of(&error, &[Errno::NOENT, Errno::NOTDIR, Errno::NOTEMPTY, Errno::EXIST]) => {
                    Ok(())
                }
                done => done,
            },
            Change::Put => files::discard(parent, name),
            Change::Moved { slot } => {
                let slot = caches::open(slot)?;
                if files::stat(slot.as_fd(), DATA)?.is_some() {
                    // It was not moved yet.
                    return Ok(());
                }
                match files::open_if_directory(parent, name)? {
                    Some(_) => files::rename_as(parent, name, slot.as_fd(), DATA),
                    // The RUN removed it, and with it what was in it. The next one gets a new one.
                    None => files::discard(parent, name),
                }
            }
            Change::Copied { slot } => {
                let slot = caches::open(slot)?;
                match files::open_if_directory(parent, name)? {
                    Some(copy) => caches::replace(slot.as_fd(), copy)?,
                    None => caches::remove(slot.as_fd())?,
                }
                files::discard(parent, name)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(text: &str) -> RelPath {
        RelPath::new(text).unwrap()
    }

    #[test]
    fn a_successor_takes_away_what_was_put_and_brings_caches_home() {
        let directory = tempfile::tempdir().unwrap();
        let [place, live, slot] = ["place", "live", "place/slot"].map(|name| directory.path().join(name));
        for path in [&live.join("made/deep"), &live.join("cache"), &slot, &live.join("dev")] {
            fs::create_dir_all(path).unwrap();
        }
        fs::write(live.join("cache/kept"), "").unwrap();
        fs::write(live.join("dev/secret"), "").unwrap();
        let mut journal = Journal::new(&place);
        let put = |path: &str, change| Record { path: RelPath::new(path).unwrap(), change };
        for record in [
            put("made", Change::Made),
            put("made/deep", Change::Made),
            put("cache", Change::Moved { slot: slot.clone() }),
            put("dev/secret", Change::Put),
            put("never/done", Change::Put),
        ] {
            journal.write(record).unwrap();
        }
        recover(&place, fs::File::open(&live).unwrap().as_fd()).unwrap();
        assert!(slot.join("data/kept").exists() && !live.join("cache").exists());
        assert!(!live.join("dev/secret").exists() && !live.join("made").exists());
        assert!(!place.join(JOURNAL).exists());
        // Nothing is there to undo any more.
        recover(&place, fs::File::open(&live).unwrap().as_fd()).unwrap();
        assert!(slot.join("data/kept").exists());
    }

    #[test]
    fn what_a_link_leads_to_is_not_taken() {
        let directory = tempfile::tempdir().unwrap();
        let [place, live, other] = ["place", "live", "other"].map(|name| directory.path().join(name));
        for path in [&place, &live, &other.join("cache")] {
            fs::create_dir_all(path).unwrap();
        }
        std::os::unix::fs::symlink(&other, live.join("a")).unwrap();
        let mut journal = Journal::new(&place);
        for change in [Change::Put, Change::Moved { slot: place.clone() }] {
            journal.write(Record { path: path("a/cache"), change }).unwrap();
        }
        recover(&place, fs::File::open(&live).unwrap().as_fd()).unwrap();
        assert!(other.join("cache").exists() && !place.join("data").exists());
    }

    #[test]
    fn a_directory_that_the_run_uses_stays() {
        let live = tempfile::tempdir().unwrap();
        fs::create_dir(live.path().join("made")).unwrap();
        fs::write(live.path().join("made/file"), "").unwrap();
        let record = Record { path: path("made"), change: Change::Made };
        record.undo(fs::File::open(live.path()).unwrap().into()).unwrap();
        assert!(live.path().join("made/file").exists());
    }
}
