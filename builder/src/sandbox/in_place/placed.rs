//! The mounts of a RUN where nothing can be mounted: what they are is put into `/` itself, and taken away again.
//!
//! Sources are copied, caches are renamed (or copied from and to another file system), secrets are links to a tmpfs. What
//! the image has in their place waits in a directory of the stage. Each parent directory is held open, so that everything
//! is found again wherever a RUN moves it; a build that is killed leaves it to [`journal`](super::journal).

use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixListener;
use std::path::Path;

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use yadokari_layers::{RelPath, Root};

use super::journal::{Change, Journal, Record};
use super::keep::{Class, Keep};
use crate::sandbox::copy::{copy, copy_one};
use crate::sandbox::error::{During, Error, Result, Syscall};
use crate::sandbox::files::{self, by_fd, is_one_of};
use crate::sandbox::mount::caches::{self, DATA};
use crate::sandbox::mount::scratch::Sockets;
use crate::sandbox::mount::supplies::{Supply, What, mismatch, over_root};
use crate::sandbox::stubs::Settling;

/// What a tmpfs says it is.
const TMPFS: u64 = 0x0102_1994;

/// Where containers have a tmpfs.
const MEMORIES: [&str; 3] = ["dev/shm", "run", "dev"];

/// What a name of ours begins with.
const OURS: &str = ".yadokari-";

/// What is in `/` for the RUN under way.
#[derive(Debug)]
pub(super) struct Placed {
    live: Root,
    journal: Journal,
    changes: Vec<Done>,
    /// The directory of secrets, once there is one, and the link that leads there.
    memory: Option<(OwnedFd, String)>,
    /// The directories of the image that were changed.
    parents: Vec<RelPath>,
    /// What the user should know of it.
    pub(super) warnings: Vec<String>,
}

/// A change that was made.
#[derive(Debug)]
struct Done {
    record: Record,
    parent: OwnedFd,
    /// The name under which what the image has there waits.
    aside: Option<String>,
}

impl Placed {
    /// Nothing, yet, in the `/` that holds the image now. `place` is the driver's directory.
    pub(super) fn new(place: &Path) -> Result<Self> {
        let live = Root::open(Path::new("/"))?;
        let (changes, parents, warnings) = Default::default();
        Ok(Self { live, journal: Journal::new(place), changes, memory: None, parents, warnings })
    }

    /// Puts everything there. What is there already goes to `aside`.
    pub(super) fn put(&mut self, supplies: Vec<Supply>, keep: &Keep, aside: &OwnedFd) -> Result<Sockets> {
        let mut sockets = Vec::new();
        for supply in supplies {
            let phrase = supply.phrase();
            self.place(supply, keep, aside, &mut sockets).during(phrase)?;
        }
        Ok(sockets)
    }

    fn place(&mut self, supply: Supply, keep: &Keep, aside: &OwnedFd, sockets: &mut Sockets) -> Result<()> {
        let path = files::real(&self.live, &supply.target)?;
        let Some(name) = path.file_name() else { return Err(over_root()) };
        let foreign = match keep.around(&path) {
            Some((kept, true)) if *kept == path || keep.class(&path) != Class::Free => {
                return Err(kept_by(&path, kept));
            }
            Some((kept, false)) => return Err(kept_by(&path, kept)),
            None if keep.class(&path) != Class::Free => return Err(holds_kept(&path)),
            foreign => foreign.map(|(kept, _)| kept.clone()),
        };
        self.parents_of(&path, foreign.is_none())?;
        let parent = files::open(self.live.parent(&path)?.as_fd(), ".")?;
        let there = files::stat(parent.as_fd(), name)?;
        if let Some(there) = &there {
            let is_directory = rustix::fs::FileType::from_raw_mode(there.st_mode) == rustix::fs::FileType::Directory;
            if is_directory != supply.is_directory() {
                return Err(mismatch(supply.is_directory(), &path));
            }
            if let Some(kept) = &foreign {
                return Err(kept_by(&path, kept));
            }
        }
        let aside_name = there.map(|_| format!("mount-{}", self.changes.len()));
        // The image's own waits under this record, so that it is back whatever the next one cannot do.
        let record = Record { path: path.clone(), change: Change::Put };
        let settling = Settling::open(parent.try_clone().on("fcntl", "a directory")?)?;
        self.journal.write(record.clone())?;
        if let Some(aside_name) = &aside_name {
            files::rename_as(parent.as_fd(), name, aside.as_fd(), aside_name.as_bytes())?;
        }
        self.changes.push(Done { record, parent: parent.try_clone().on("fcntl", "a directory")?, aside: aside_name });
        self.make(supply.what, &path, &parent, sockets)?;
        settling.settle()
    }

    /// Makes the directories above a path that are missing, and remembers those of the image that change.
    fn parents_of(&mut self, path: &RelPath, of_image: bool) -> Result<()> {
        let mut missing = Vec::new();
        for above in path.ancestors() {
            if crate::sandbox::mount::supplies::find(&self.live, &above)?.is_some() {
                break;
            }
            missing.push(above);
        }
        let first = missing.last().unwrap_or(path);
        let changed = first.parent().unwrap_or_default();
        if of_image && !changed.is_root() && !self.parents.contains(&changed) {
            self.parents.push(changed);
        }
        for path in missing.into_iter().rev() {
            let parent = files::open(self.live.parent(&path)?.as_fd(), ".")?;
            let settling = Settling::open(parent.try_clone().on("fcntl", "a directory")?)?;
            let record = Record { path: path.clone(), change: Change::Made };
            self.journal.write(record.clone())?;
            self.live.create_dir_all(&path, 0o755)?;
            self.changes.push(Done { record, parent, aside: None });
            settling.settle()?;
        }
        Ok(())
    }

    fn make(&mut self, what: What, path: &RelPath, parent: &OwnedFd, sockets: &mut Sockets) -> Result<()> {
        let name = path.file_name().unwrap_or_default();
        let directory = || files::make(parent.as_fd(), name).map(Root::from_dir);
        match what {
            What::Source { tree, path: from, is_directory: true, .. } => {
                let source = Root::from_dir(Root::open(tree.as_ref())?.find(&from)?);
                copy(&source, &directory()?).map(|_| ())
            }
            What::Source { tree, path: from, is_directory: false, .. } => {
                let tree = Root::open(tree.as_ref())?;
                copy_one(&tree, &files::real(&tree, &from)?, &self.live, path)
            }
            What::Cache { slot, .. } => self.cache(&slot, path, parent),
            What::Tmpfs { size } => {
                if size.is_some() {
                    let text =
                        format!("the tmpfs at '/{path}' is on disk and has no size: nothing can be mounted here");
                    self.warnings.push(text);
                }
                let directory = directory()?;
                rustix::fs::fchmod(directory.dir(), Mode::from_raw_mode(0o1777)).on("chmod", "the directory")
            }
            What::File { content, secret: true, mode, uid, gid } if !is_tmpfs(parent)? => {
                let number = self.changes.len().to_string();
                let (memory, link) = self.memory()?;
                write_new(memory, number.as_bytes(), content.expose(), mode, (uid, gid))?;
                let target = format!("{link}/{number}");
                rustix::fs::symlinkat(target, parent, name).on("symlink", format!("'/{path}'"))
            }
            What::File { content, mode, uid, gid, .. } => write_new(parent, name, content.expose(), mode, (uid, gid)),
            What::Socket { number, mode, uid, gid } => {
                // The address of a socket holds a hundred bytes, its name is renamed.
                let short = format!("{OURS}{number}");
                let address = format!("{}/{short}", by_fd(parent));
                let listener = UnixListener::bind(address).on("bind", format!("'/{path}'"))?;
                files::rename_as(parent.as_fd(), short.as_bytes(), parent.as_fd(), name)?;
                files::give(parent.as_fd(), name, mode, uid, gid)?;
                sockets.push((number, listener.into()));
                Ok(())
            }
        }
    }

    /// Moves a cache to a path, or copies it where it is on another file system. A cache that is there already, since it is
    /// mounted twice, is linked to.
    fn cache(&mut self, slot: &Path, path: &RelPath, parent: &OwnedFd) -> Result<()> {
        let name = path.file_name().unwrap_or_default();
        let opened = caches::open(slot)?;
        let is_at = |done: &&Done| match &done.record.change {
            Change::Moved { slot: used } | Change::Copied { slot: used } => used == slot,
            Change::Made | Change::Put => false,
        };
        if let Some(first) = self.changes.iter().find(is_at) {
            let first = format!("/{}", first.record.path);
            return rustix::fs::symlinkat(first, parent, name).on("symlink", format!("'/{path}'"));
        }
        let change = |change| Record { path: path.clone(), change };
        let moved = change(Change::Moved { slot: slot.to_owned() });
        self.journal.write(moved.clone())?;
        let record = match files::rename_as(opened.as_fd(), DATA, parent.as_fd(), name) {
            Err(error) if is_one_of(&error, &[Errno::XDEV]) => {
                let data = files::open(opened.as_fd(), DATA)?;
                copy(&Root::from_dir(data), &Root::from_dir(files::make(parent.as_fd(), name)?))?;
                let copied = change(Change::Copied { slot: slot.to_owned() });
                self.journal.write(copied.clone())?;
                copied
            }
            done => done.map(|()| moved)?,
        };
        let parent = parent.try_clone().on("fcntl", "a directory")?;
        self.changes.push(Done { record, parent, aside: None });
        Ok(())
    }

    /// The directory of secrets, which is in memory.
    fn memory(&mut self) -> Result<(&OwnedFd, &str)> {
        if self.memory.is_none() {
            self.memory = Some(self.make_memory()?);
        }
        let (memory, link) = self.memory.as_ref().expect("it was just made");
        Ok((memory, link))
    }

    fn make_memory(&mut self) -> Result<(OwnedFd, String)> {
        let name = format!("{OURS}{}", std::process::id());
        for place in MEMORIES {
            let place = RelPath::new(place).map_err(yadokari_layers::Error::from)?;
            let Ok(parent) = self.live.open_dir(&place) else { continue };
            let path = place.child(name.as_bytes()).map_err(yadokari_layers::Error::from)?;
            if !is_tmpfs(&parent)? {
                continue;
            }
            let record = Record { path: path.clone(), change: Change::Put };
            self.journal.write(record.clone())?;
            // A tmpfs may be read-only.
            let Ok(memory) = files::make(parent.as_fd(), &name) else { continue };
            self.changes.push(Done { record, parent, aside: None });
            rustix::fs::fchmod(&memory, Mode::from_raw_mode(0o711)).on("chmod", "the directory of secrets")?;
            return Ok((memory, format!("/{path}")));
        }
        let text = "a secret is kept in memory, and this container has no tmpfs that can be written to: \
                    mount one at /dev/shm, or use the driver overlay or flat";
        Err(Error::Refused(text.to_owned()))
    }

    /// The directories of the image that were changed, and that look unchanged now.
    pub(super) fn parents(&self) -> impl Iterator<Item = RelPath> {
        self.parents.iter().cloned()
    }

    /// The entries of the image that no RUN saw, because they were aside.
    pub(super) fn unseen(&self) -> impl Iterator<Item = RelPath> {
        self.changes.iter().filter(|done| done.aside.is_some()).map(|done| done.record.path.clone())
    }

    /// Takes everything away again, the last first, and puts back what was aside. One failure does not stop the others.
    pub(super) fn undo(self, aside: &OwnedFd) -> Result<()> {
        let mut undone = Ok(());
        for Done { record, parent, aside: name } in self.changes.into_iter().rev() {
            let restored = parent.try_clone().on("fcntl", "a directory").and_then(|parent| record.undo(parent));
            let restored = restored.and_then(|()| match name {
                Some(name) => put_back(&self.live, &record.path, parent, aside, &name),
                None => Ok(()),
            });
            undone = undone.and(restored);
        }
        undone.and(self.journal.close())
    }
}

/// Puts what the image has at a path back there. With a real mount no RUN could have removed the directory that holds it.
fn put_back(live: &Root, path: &RelPath, parent: OwnedFd, aside: &OwnedFd, name: &str) -> Result<()> {
    let own = path.file_name().unwrap_or_default();
    let settling = Settling::open(parent)?;
    match files::rename_as(aside.as_fd(), name.as_bytes(), settling.directory(), own) {
        Err(error) if is_one_of(&error, &[Errno::NOENT]) => {
            let above = path.parent().unwrap_or_default();
            live.create_dir_all(&above, 0o755)?;
            files::rename_as(aside.as_fd(), name.as_bytes(), live.open_dir(&above)?.as_fd(), own)
        }
        done => done.and_then(|()| settling.settle()),
    }
}

fn is_tmpfs(directory: &OwnedFd) -> Result<bool> {
    let found = rustix::fs::fstatfs(directory).on("statfs", "a directory")?;
    Ok(found.f_type as u64 == TMPFS)
}

/// Writes a file that must not be there yet. Nobody else can read it meanwhile.
fn write_new(parent: &OwnedFd, name: &[u8], content: &[u8], mode: u32, (uid, gid): (u32, u32)) -> Result<()> {
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let quoted = format!("'{}'", String::from_utf8_lossy(name));
    let file = rustix::fs::openat(parent, name, flags, Mode::from_raw_mode(0o600)).on("open", &quoted)?;
    std::io::Write::write_all(&mut File::from(file), content).on("write", quoted)?;
    files::give(parent.as_fd(), name, mode, uid, gid)
}

fn kept_by(path: &RelPath, kept: &RelPath) -> Error {
    let what = if path == kept { "is".to_owned() } else { format!("lies in '/{kept}', which is") };
    Error::Refused(format!(
        "'/{path}' {what} the container's own, and nothing can be mounted in this container: \
         choose another target, or use the driver overlay or flat"
    ))
}

fn holds_kept(path: &RelPath) -> Error {
    Error::Refused(format!(
        "something of the container is below '/{path}' and has to stay there, and nothing can be mounted in this \
         container: choose another target, or use the driver overlay or flat"
    ))
}
