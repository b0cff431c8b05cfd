//! What the mounts of one RUN need on disk, for the drivers that really mount: the worker's side of `attach`.
//!
//! ```text
//!  SCRATCH/3            a copy of the third mount's source, which the RUN may change
//!  SCRATCH/4/file       or of a file
//!  SCRATCH/5/socket     a listening socket
//!  SCRATCH/6/upper, ..  what is written to an overlay
//! ```

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixListener;

use yadokari_layers::{RelPath, Root};

use super::super::copy::{copy, copy_one};
use super::super::error::{During, Result, Syscall};
use super::super::files;
use super::attach::{Attachment, From, MEMORY, UPPER, WORK};
use super::caches;
use super::supplies::{Supply, What, find};

const FILE: &str = "file";
const SOCKET: &str = "socket";

/// A directory that is empty between RUNs.
#[derive(Debug)]
pub(in crate::sandbox) struct Scratch {
    directory: &'static str,
    /// Whether overlays can have their upper directories in it.
    overlays: bool,
}

/// The listening end of each socket, with the number of its mount.
pub(in crate::sandbox) type Sockets = Vec<(u32, OwnedFd)>;

impl Scratch {
    /// A directory of this name, which is made when it is needed.
    pub(in crate::sandbox) fn new(directory: &'static str, overlays: bool) -> Self {
        Self { directory, overlays }
    }

    /// Makes what the mounts need.
    pub(in crate::sandbox) fn fill(&self, supplies: Vec<Supply>) -> Result<(Vec<Attachment>, Sockets)> {
        if supplies.is_empty() {
            return Ok(Default::default());
        }
        let directory = files::make(files::HERE, self.directory)?;
        files::make(files::HERE, MEMORY)?;
        let changed = changed(&supplies)?;
        let mut sockets = Vec::new();
        let mut attachments = Vec::new();
        for (number, (supply, changed)) in supplies.into_iter().zip(changed).enumerate() {
            let (phrase, is_directory) = (supply.phrase(), supply.is_directory());
            let target = supply.target.clone();
            let from = self.attachment(directory.as_fd(), number, supply, changed, &mut sockets).during(phrase)?;
            attachments.push(Attachment { target, is_directory, from });
        }
        Ok((attachments, sockets))
    }

    fn attachment(
        &self,
        directory: BorrowedFd<'_>,
        number: usize,
        supply: Supply,
        changed: bool,
        sockets: &mut Sockets,
    ) -> Result<From> {
        let own = || files::make(directory, number.to_string());
        let scratch = format!("{}/{number}", self.directory);
        match supply.what {
            What::Source { tree, path, read_only, .. } if !changed => Ok(From::Tree { tree, path, read_only }),
            What::Source { tree, path, is_directory, read_only } => {
                let (root, own) = (Root::open(tree.as_ref())?, own()?);
                if !is_directory {
                    let file = named(FILE)?;
                    copy_one(&root, &files::real(&root, &path)?, &Root::from_dir(own), &file)?;
                    return Ok(From::Tree { tree: scratch, path: file, read_only });
                }
                let source = Root::from_dir(root.find(&path)?);
                if self.overlays {
                    let upper = Root::from_dir(files::make(own.as_fd(), UPPER)?);
                    files::make(own.as_fd(), WORK)?;
                    let root = RelPath::root();
                    let attributes = source.entry(&root)?.map(|entry| upper.set_metadata(&root, &entry));
                    attributes.transpose()?;
                    return Ok(From::Overlay { tree, path, scratch, read_only });
                }
                copy(&source, &Root::from_dir(own))?;
                Ok(From::Tree { tree: scratch, path: RelPath::root(), read_only })
            }
            What::Cache { slot, read_only } => {
                let tree = slot.to_string_lossy().into_owned();
                Ok(From::Tree { tree, path: named(caches::DATA)?, read_only })
            }
            What::Tmpfs { size } => Ok(From::Tmpfs { size }),
            What::File { content, mode, uid, gid, .. } => Ok(From::File { content, mode, uid, gid }),
            What::Socket { number, mode, uid, gid } => {
                let own = own()?;
                let path = format!("{scratch}/{SOCKET}");
                let listener = UnixListener::bind(&path).on("bind", &path)?;
                files::give(own.as_fd(), SOCKET.as_bytes(), mode, uid, gid)?;
                sockets.push((number, listener.into()));
                Ok(From::Tree { tree: scratch, path: named(SOCKET)?, read_only: false })
            }
        }
    }

    /// Removes everything.
    pub(in crate::sandbox) fn clear(&self) -> Result<()> {
        files::discard(files::HERE, self.directory.as_bytes())
    }
}

/// For each mount, whether its source will be written to: by the RUN, or by us, because a later mount lies in it and needs
/// a mount point.
fn changed(supplies: &[Supply]) -> Result<Vec<bool>> {
    let is_changed = |(number, supply): (usize, &Supply)| {
        let What::Source { tree, path, read_only, .. } = &supply.what else { return Ok(false) };
        let later = supplies.get(number + 1..).unwrap_or_default();
        let inside = later.iter().filter_map(|later| later.target.strip_prefix(&supply.target));
        let root = Root::open(tree.as_ref())?;
        for below in inside {
            if find(&root, &path.join(&below))?.is_none() {
                return Ok(true);
            }
        }
        Ok(!read_only)
    };
    supplies.iter().enumerate().map(is_changed).collect()
}

fn named(name: impl AsRef<[u8]>) -> Result<RelPath> {
    Ok(RelPath::new(name).map_err(yadokari_layers::Error::from)?)
}
