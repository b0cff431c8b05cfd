//! Mounting what a RUN finds beside its image: the launcher's side of mounts.
//!
//! Everything is opened first and mounted by descriptor, and where a mount goes is found inside the root, so that no link of
//! an image leads to anything else.

use std::fs::File;
use std::io::Write;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use rustix::fs::{Mode, OFlags, StatVfsMountFlags};
use rustix::mount::MountFlags;
use serde::{Deserialize, Serialize};
use yadokari_layers::{Entry, RelPath, Root, Timestamp};

use super::super::error::{During, Error, Result, Syscall};
use super::super::files::{self, by_fd};
use super::super::rootfs::{self, MOUNT_POINTS};
use super::Secret;
use super::supplies::{mismatch, over_root, phrase};

/// Where the tmpfs for files is mounted, in the stage's directory.
pub(in crate::sandbox) const MEMORY: &str = "memory";

/// What the scratch directory of an overlay holds.
pub(in crate::sandbox) const UPPER: &str = "upper";
pub(in crate::sandbox) const WORK: &str = "work";

/// Something to mount.
#[derive(Debug, Serialize, Deserialize)]
pub(in crate::sandbox) struct Attachment {
    /// Where, in the root.
    pub(in crate::sandbox) target: RelPath,
    /// Whether it is a directory.
    pub(in crate::sandbox) is_directory: bool,
    /// What.
    pub(in crate::sandbox) from: From,
}

/// What is mounted.
#[derive(Debug, Serialize, Deserialize)]
pub(in crate::sandbox) enum From {
    /// What a path leads to in a directory, which is relative to the stage's directory.
    Tree {
        /// The directory, which the path does not leave.
        tree: String,
        /// The path.
        path: RelPath,
        /// Whether it is read-only.
        read_only: bool,
    },
    /// An overlay whose changes nobody keeps.
    Overlay {
        /// The directory that the lower one is in.
        tree: String,
        /// The path of the lower one.
        path: RelPath,
        /// The directory for what is written.
        scratch: String,
        /// Whether it is read-only after all.
        read_only: bool,
    },
    /// A tmpfs.
    Tmpfs {
        /// The most bytes that it takes.
        size: Option<u64>,
    },
    /// A file in memory.
    File {
        /// What it says.
        content: Secret,
        /// Its mode.
        mode: u32,
        /// Its owner.
        uid: u32,
        /// Its group.
        gid: u32,
    },
}

/// An attachment whose source is open.
#[derive(Debug)]
pub(in crate::sandbox) struct Opened {
    attachment: Attachment,
    sources: Vec<OwnedFd>,
}

/// Opens the sources, relative to the stage's directory.
pub(in crate::sandbox) fn open(attachments: Vec<Attachment>) -> Result<Vec<Opened>> {
    let mut opened = Vec::new();
    let mut memory = None;
    for (number, attachment) in attachments.into_iter().enumerate() {
        let sources = match &attachment.from {
            From::Tree { tree, path, .. } => find(tree, path).map(|source| vec![source]),
            From::Overlay { tree, path, scratch, .. } => overlay(tree, path, scratch),
            From::File { content, mode, uid, gid } => {
                file(&mut memory, number, content, *mode, (*uid, *gid)).map(|source| vec![source])
            }
            From::Tmpfs { .. } => Ok(Vec::new()),
        };
        let sources = sources.during(phrase(&attachment.target))?;
        opened.push(Opened { attachment, sources });
    }
    Ok(opened)
}

fn find(tree: &str, path: &RelPath) -> Result<OwnedFd> {
    Ok(Root::open(Path::new(tree))?.find(path)?)
}

/// The lower, the upper and the work directory of an overlay.
fn overlay(tree: &str, path: &RelPath, scratch: &str) -> Result<Vec<OwnedFd>> {
    let scratch = files::open(files::HERE, scratch)?;
    let below = [UPPER, WORK].map(|name| files::open(scratch.as_fd(), name));
    let [upper, work] = below;
    Ok(vec![find(tree, path)?, upper?, work?])
}

/// Writes a file into memory, where it is a name only in this mount namespace.
fn file(
    memory: &mut Option<OwnedFd>,
    number: usize,
    content: &Secret,
    mode: u32,
    (uid, gid): (u32, u32),
) -> Result<OwnedFd> {
    let directory = match memory {
        Some(directory) => directory,
        None => {
            // That what is in it is never swapped out is more than a user namespace may ask for.
            let flags = MountFlags::NOSUID | MountFlags::NODEV;
            let options = [c"mode=755,noswap", c"mode=755"];
            let mount = |options| rustix::mount::mount("tmpfs", MEMORY, "tmpfs", flags, options);
            mount(options[0]).or_else(|_| mount(options[1])).on("mount", "tmpfs for files")?;
            memory.insert(files::open(files::HERE, MEMORY)?)
        }
    };
    let name = number.to_string();
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
    let file = rustix::fs::openat(&*directory, &name, flags, Mode::from_raw_mode(0o600)).on("open", "a file")?;
    File::from(file).write_all(content.expose()).on("write", "a file")?;
    files::give(directory.as_fd(), name.as_bytes(), mode, uid, gid)?;
    rustix::fs::openat(&*directory, &name, OFlags::PATH | OFlags::CLOEXEC, Mode::empty()).on("open", "a file")
}

/// Mounts everything into the root that is the working directory, in the order of the list.
pub(in crate::sandbox) fn attach(opened: Vec<Opened>) -> Result<()> {
    let root = Root::open(Path::new("."))?;
    // What can be written to without getting into a layer.
    let mut mounted: Vec<RelPath> = Vec::new();
    for name in MOUNT_POINTS {
        mounted.push(RelPath::new(name).map_err(yadokari_layers::Error::from)?);
    }
    let mut read_only = Vec::new();
    for Opened { attachment, sources } in &opened {
        let at = place(&root, attachment, &mounted).during(phrase(&attachment.target))?;
        mount(&root, attachment, sources, &at).during(phrase(&attachment.target))?;
        if attachment.is_read_only() {
            read_only.push((&attachment.target, root.find(&at)?));
        }
        mounted.push(at);
    }
    // Only now, because what is mounted later may lie in what is mounted earlier, and need a mount point there.
    read_only.iter().try_for_each(|(target, mount)| make_read_only(mount).during(phrase(target)))
}

impl Attachment {
    fn is_read_only(&self) -> bool {
        match &self.from {
            From::Tree { read_only, .. } | From::Overlay { read_only, .. } => *read_only,
            From::Tmpfs { .. } => false,
            From::File { .. } => true,
        }
    }
}

/// Where an attachment goes. The worker made what was missing in the root itself; what is missing in an earlier mount is
/// made here.
fn place(root: &Root, attachment: &Attachment, mounted: &[RelPath]) -> Result<RelPath> {
    let at = files::real(root, &attachment.target)?;
    let Some(name) = at.file_name() else { return Err(over_root()) };
    if let Some(there) = super::supplies::find(root, &at)? {
        if files::is_directory(there.as_fd())? != attachment.is_directory {
            return Err(mismatch(attachment.is_directory, &at));
        }
        return Ok(at);
    }
    if !mounted.iter().any(|mount| at.starts_with(mount)) {
        return Err(Error::Refused(format!("an earlier RUN, which failed, changed what '/{at}' is")));
    }
    root.create_dir_all(&at.parent().unwrap_or_default(), 0o755)?;
    if attachment.is_directory {
        files::make(root.parent(&at)?.as_fd(), name)?;
    } else {
        root.put(&at, &Entry::file(0, 0o644, Timestamp::default()), &mut std::io::empty())?;
    }
    Ok(at)
}

fn mount(root: &Root, attachment: &Attachment, sources: &[OwnedFd], at: &RelPath) -> Result<()> {
    let target = root.find(at)?;
    let target = (by_fd(&target), target);
    match (&attachment.from, sources) {
        (From::Tmpfs { size }, _) => {
            let size = size.map(|size| format!(",size={size}")).unwrap_or_default();
            let options = format!("mode=1777{size}");
            tmpfs(&target.0, &options).on("mount", format!("tmpfs with {options}"))
        }
        (From::Overlay { .. }, [lower, upper, work]) => {
            let [lower, upper, work] = [lower, upper, work].map(by_fd);
            rootfs::overlay(&target.0, &format!("lowerdir={lower},upperdir={upper},workdir={work}"))
        }
        (_, [source]) => rustix::mount::mount_bind(&*by_fd(source), &*target.0).on("mount", "MS_BIND"),
        _ => Err(Error::Protocol("launcher")),
    }
}

fn tmpfs(target: &str, options: &str) -> std::io::Result<()> {
    let options = std::ffi::CString::new(options)?;
    Ok(rustix::mount::mount("tmpfs", target, "tmpfs", MountFlags::NOSUID, &*options)?)
}

/// Makes a mount read-only. In a user namespace, flags that the mount has from outside have to be said again.
fn make_read_only(mount: &OwnedFd) -> Result<()> {
    let has = rustix::fs::fstatvfs(mount).on("statvfs", "a mount")?.f_flag;
    let mut flags = MountFlags::BIND | MountFlags::RDONLY;
    for (flag, again) in [
        (StatVfsMountFlags::NOSUID, MountFlags::NOSUID),
        (StatVfsMountFlags::NODEV, MountFlags::NODEV),
        (StatVfsMountFlags::NOEXEC, MountFlags::NOEXEC),
    ] {
        if has.contains(flag) {
            flags |= again;
        }
    }
    rustix::mount::mount_remount(&*by_fd(mount), flags, c"").on("mount", "MS_REMOUNT|MS_RDONLY")
}
