//! The in-place driver: for containers that may neither mount nor make namespaces.
//!
//! A stage is unpacked into a directory of the file system of `/`. While a RUN runs, its top-level entries are renamed
//! into `/`, and what was there waits in `hold`:
//!
//! ```text
//!  between RUNs     /kaniko/NAME/base/{bin,etc,usr,..}   /{etc,..}
//!  during a RUN     /{bin,etc,usr,..}                    /kaniko/hold/{etc,..}
//! ```
//!
//! Mount points stay where they are, and so does what is ours. The job's shell must find its `/` again, so everything is
//! undone after each RUN, whatever happened, and [`recover`] undoes what a killed build left. All state that this takes
//! is on disk.

mod activate;
mod journal;
mod keep;
mod park;
mod placed;
mod relocate;
#[cfg(test)]
mod tests;

use std::collections::BTreeSet;
use std::io::Read;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::{Mode, OFlags, RenameFlags};
use yadokari_layers::tar::Pipe;
use yadokari_layers::{Index, Limits, RelPath, Root};

use self::activate::Filled;
use self::keep::{Class, Keep};
use self::placed::Placed;
use super::engine::{Engine, Prepared};
use super::error::{During, Error, Result, Syscall};
use super::files::{self, Watched};
use super::launch::Place;
use super::mount::supplies::Supply;
use super::stubs::Stubs;
use super::walk::Walked;
use super::{Commit, LayerFile, Network, Run, Unpacked};

const BASE: &str = "base";
const ASIDE: &str = "aside";
/// What was in `/`, complete; whatever is there now is the image's.
const HOLD: &str = "hold";
/// What was in `/`, as far as it has been moved; the rest is there still.
const PARTIAL: &str = "hold.partial";
/// Where the entries of a killed build's image go.
const ABANDONED: &str = "abandoned";

/// More entries than this in `/`, and it is not an executor's image but a distribution's.
const FOREIGN: usize = 2000;

/// Files that runtimes mount into every container.
const CONTAINER_FILES: [&str; 3] = ["etc/resolv.conf", "etc/hosts", "etc/hostname"];

/// The root of a stage, as a directory in the working directory that visits `/`.
#[derive(Debug)]
pub(super) struct InPlace {
    walked: Walked,
    /// The directory that `hold` is in.
    place: OwnedFd,
    place_path: PathBuf,
    pinned: Vec<PathBuf>,
    aside: OwnedFd,
    /// What is in the root for the RUN under way.
    stubs: Option<Stubs>,
    /// What is in `/` for its mounts.
    placed: Option<Placed>,
    /// What we touched by renaming it, as it was when the command started.
    watched: Option<Watched>,
    /// What the container's own resolver files say, where they could not be moved.
    own_files: Vec<(PathBuf, Vec<u8>)>,
    /// The hidden paths that the user knows of.
    told: BTreeSet<RelPath>,
}

impl InPlace {
    /// Makes the directories.
    pub(super) fn new(place: &Path, pinned: Vec<PathBuf>) -> Result<Self> {
        let base = files::make(files::HERE, BASE)?;
        Ok(Self {
            walked: Walked::new(Root::from_dir(base)),
            place: open(place)?,
            place_path: place.to_owned(),
            pinned,
            aside: files::make(files::HERE, ASIDE)?,
            stubs: None,
            placed: None,
            watched: None,
            own_files: Vec::new(),
            told: BTreeSet::new(),
        })
    }

    /// Puts the image into `/`. Paths that the user does not see there, and was not told of, are returned.
    fn activate(&mut self) -> Result<Filled> {
        let live = open(Path::new("/"))?;
        let hold = files::make(self.place.as_fd(), PARTIAL)?;
        let root = RelPath::root();
        activate::clear(live.as_fd(), hold.as_fd(), &root, &Keep::now(&self.pinned)?)
            .during("moving the container's files out of '/'")?;
        rename(self.place.as_fd(), PARTIAL, HOLD)?;
        let mut filled = Filled::default();
        let keep = Keep::now(&self.pinned)?;
        activate::fill(self.walked.root.dir(), live.as_fd(), &root, &keep, &mut filled)
            .during("moving the image's files into '/'")?;
        Ok(filled)
    }

    /// Remembers the resolver files that stay in `/`, for a RUN of root can write to them.
    fn keep_own_files(&mut self, filled: &Filled) {
        let hidden = |name: &str| filled.hidden.iter().any(|path| path.as_bytes() == name.as_bytes());
        let staying = CONTAINER_FILES.iter().filter(|name| hidden(name)).map(|name| Path::new("/").join(name));
        // One that cannot be read by root cannot be written either.
        self.own_files = staying.filter_map(|path| Some((path.clone(), std::fs::read(path).ok()?))).collect();
    }

    fn restore_own_files(&mut self) -> Result<()> {
        for (path, content) in std::mem::take(&mut self.own_files) {
            if std::fs::read(&path).is_ok_and(|now| now != content) {
                std::fs::write(&path, content).on("write", path.display())?;
            }
        }
        Ok(())
    }

    fn warn(&mut self, filled: &Filled) -> Option<String> {
        let expected = ["etc/resolv.conf", "etc/hosts", "etc/hostname"];
        let hidden =
            filled.hidden.iter().filter(|path| !expected.iter().any(|name| path.as_bytes() == name.as_bytes()));
        let news: Vec<RelPath> = hidden.filter(|&path| !self.told.contains(path)).cloned().collect();
        let list = news.iter().map(|path| format!("/{path}")).collect::<Vec<_>>().join(", ");
        self.told.extend(news);
        (!list.is_empty())
            .then(|| format!("hidden from RUN, because something of the container is in their place: {list}"))
    }
}

impl Engine for InPlace {
    fn materialise(&mut self, layers: Vec<LayerFile>) -> Result<Unpacked> {
        self.walked.materialise(layers)
    }

    fn push(&mut self, tar: &mut dyn Read, limits: &Limits) -> Result<Vec<String>> {
        self.walked.push(tar, limits)
    }

    fn prepare(&mut self, run: &Run, supplies: Vec<Supply>) -> Result<Prepared> {
        if run.network == Network::None {
            return Err(no_network());
        }
        self.walked.look().during("walking the root")?;
        let mut warnings = Vec::new();
        let stubs = self.stubs.insert(Stubs::default());
        stubs
            .network_files(&self.walked.root, &self.walked.tree, run, &self.aside)
            .during("putting the resolver's files into the root")?;
        let mut parents: Vec<RelPath> = stubs.parents().collect();
        let filled = self.activate()?;
        warnings.extend(self.warn(&filled));
        self.keep_own_files(&filled);
        let placed = self.placed.insert(Placed::new(&self.place_path)?);
        let sockets = placed.put(supplies, &Keep::now(&self.pinned)?, &self.aside)?;
        warnings.append(&mut placed.warnings);
        parents.extend(placed.parents());
        let live = open(Path::new("/"))?;
        let watched = Watched::look(live.as_fd(), filled.moved.into_iter().chain(parents))?;
        self.walked.settle(&watched);
        self.watched = Some(watched);
        Ok(Prepared { place: Place::InPlace { warnings }, sockets })
    }

    fn finish(&mut self) -> Result<Vec<String>> {
        let live = open(Path::new("/"))?;
        let seen = self.watched.take().map(|watched| watched.again(live.as_fd())).transpose();
        let mut unseen = Vec::new();
        let taken_away = self.placed.take().map_or(Ok(()), |placed| {
            unseen.extend(placed.unseen());
            placed.undo(&self.aside)
        });
        let own_files = self.restore_own_files();
        // `/` comes first: nothing that fails here may keep it from being put back.
        let lost = give_back(self.place.as_fd(), self.walked.root.dir(), &self.pinned);
        if let Some(stubs) = self.stubs.take() {
            unseen.extend(stubs.unseen());
            stubs.undo(&self.walked.root, Some(&self.aside)).during("taking the resolver's files out of the root")?;
        }
        self.walked.note(unseen.into_iter().map(|path| (path, true)).collect());
        self.walked.note(seen?.unwrap_or_default());
        taken_away?;
        own_files?;
        let lost: Vec<String> = lost?.iter().map(|path| format!("/{path}")).collect();
        Ok(match lost.len() {
            0 => Vec::new(),
            _ => vec![format!("not in the image, which has no directory in their place: {}", lost.join(", "))],
        })
    }

    fn commit(&mut self, commit: &Commit, out: &mut Pipe) -> Result<bool> {
        self.walked.commit(commit, out)
    }

    fn learn(&mut self, index: Arc<Index>) {
        self.walked.tree.push(index);
    }
}

/// Puts `/` back, as far as it was changed; the image's entries go into `stage`.
fn give_back(place: BorrowedFd<'_>, stage: BorrowedFd<'_>, pinned: &[PathBuf]) -> Result<Vec<RelPath>> {
    let live = open(Path::new("/"))?;
    let mut lost = Vec::new();
    if files::open_if_directory(place, HOLD)?.is_some() {
        let keep = Keep::now(pinned)?;
        park::drain(live.as_fd(), Some(stage), &RelPath::root(), &keep, &mut lost)
            .during("moving the image's files out of '/'")?;
        rename(place, HOLD, PARTIAL)?;
    }
    if let Some(hold) = files::open_if_directory(place, PARTIAL)? {
        relocate::restore(hold.as_fd(), live.as_fd()).during("moving the container's files back into '/'")?;
        files::remove_directory(place, PARTIAL.as_bytes())?;
    }
    Ok(lost)
}

/// Puts `/` back after a build that was killed during a RUN. Nothing else may use `place` meanwhile.
pub(super) fn recover(place: &Path, pinned: &[PathBuf]) -> Result<()> {
    let directory = open(place)?;
    // Only while the image is in `/` is there anything of a RUN's mounts.
    if files::open_if_directory(directory.as_fd(), HOLD)?.is_some() {
        journal::recover(place, open(Path::new("/"))?.as_fd()).during("taking away what a killed RUN had mounted")?;
    }
    let left =
        [HOLD, PARTIAL].iter().any(|name| matches!(files::open_if_directory(directory.as_fd(), name), Ok(Some(_))));
    if left {
        let stage = files::make(directory.as_fd(), ABANDONED)?;
        give_back(directory.as_fd(), stage.as_fd(), pinned).during("putting '/' back after a build that was killed")?;
    }
    if files::open_if_directory(directory.as_fd(), ABANDONED)?.is_some() {
        files::discard(directory.as_fd(), ABANDONED.as_bytes())?;
    }
    Ok(())
}

/// Finds out whether the driver works here, without moving anything but a directory of its own.
pub(super) fn check(pinned: &[PathBuf], force: bool) -> Result<()> {
    if !rustix::process::geteuid().is_root() {
        return Err(Error::Foreign("the user is not root, who alone can give files to other users".to_owned()));
    }
    let live = open(Path::new("/"))?;
    let here = files::open(files::HERE, ".")?;
    let probe = format!(".yadokari-{}", std::process::id()).into_bytes();
    let root = files::stat_of(live.as_fd())?;
    files::make(here.as_fd(), &probe)?;
    let moved = files::rename(here.as_fd(), live.as_fd(), &probe).and_then(|()| {
        files::rename(live.as_fd(), here.as_fd(), &probe)?;
        files::set_times(&root, live.as_fd())
    });
    files::remove_directory(here.as_fd(), &probe)?;
    moved.during("renaming a directory into '/' and back")?;
    let keep = Keep::now(pinned)?;
    let stays = |path: &RelPath| keep.class(path) == Class::Stays;
    let found = relocate::count(live.as_fd(), &RelPath::root(), FOREIGN, &stays)?;
    if found > FOREIGN && !force {
        let text = format!("'/' holds over {FOREIGN} files of another image or of a host, which would be moved about");
        return Err(Error::Foreign(text));
    }
    Ok(())
}

/// Why there is no RUN without a network.
pub(super) fn no_network() -> Error {
    let text = "a RUN without a network needs a network namespace, which the driver in-place has not: \
                use the driver overlay or flat, where one of them works";
    Error::Refused(text.to_owned())
}

fn open(path: &Path) -> Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    rustix::fs::open(path, flags, Mode::empty()).on("open", format!("'{}'", path.display()))
}

fn rename(dir: BorrowedFd<'_>, from: &str, to: &str) -> Result<()> {
    rustix::fs::renameat_with(dir, from, dir, to, RenameFlags::NOREPLACE).on("rename", format!("'{from}' to '{to}'"))
}
