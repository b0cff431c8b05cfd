//! The overlay driver: one lower directory for the base, one upper directory for each step.
//!
//! ```text
//!  steps/2/upper   what the RUN under way changes
//!  steps/1/upper   ┐
//!  steps/0/upper   │ lower directories, the topmost first
//!  base            │
//!  stubs           ┘ mount points; being the lowest, they never get into an upper directory unless a RUN changes them
//! ```
//!
//! The mount points of one RUN's own mounts are in `points`, which lies right below its upper directory.

use std::collections::BTreeMap;
use std::io::Read;
use std::os::fd::AsFd;
use std::path::Path;
use std::sync::Arc;

use rustix::mount::UnmountFlags;
use yadokari_layers::tar::Pipe;
use yadokari_layers::{Entry, Index, Limits, RelPath, Root, Timestamp, Tree, upper};

use super::engine::{Engine, Prepared};
use super::error::{During, Error, Result, Syscall};
use super::launch::Place;
use super::mount::scratch::Scratch;
use super::mount::supplies::Supply;
use super::rootfs::{MERGED, MOUNT_POINTS, NETWORK_FILES, Rootfs};
use super::stubs::uncovered;
use super::{Commit, LayerFile, Run, Unpacked, files, network, walk};

/// A name that no directory has costs a lookup in each lower directory: 2.2 us each. So they are folded into the base
/// when there are this many.
const MOST_STEPS: usize = 16;

/// Where the upper directories are, in the stage's directory.
pub(super) const STEPS: &str = "steps";
const BASE: &str = "base";
const STUBS: &str = "stubs";
const POINTS: &str = "points";
/// In there, because overlays can have their upper directories there.
const SCRATCH: &str = "steps/scratch";

/// The root of a stage, as a stack of directories in the working directory.
#[derive(Debug)]
pub(super) struct Overlay {
    tree: Tree,
    /// Whether we are in a user namespace.
    user: bool,
    /// The numbers of the steps below the one under way, the lowest first.
    steps: Vec<u32>,
    /// The step that RUNs write to until the next commit.
    open: Option<u32>,
    /// The number of the next step.
    next: u32,
    /// How often an overlay was mounted: one that was mounted as volatile cannot use its scratch directory again.
    mounted: u32,
    scratch: Scratch,
}

impl Overlay {
    /// Makes the directories. [`STEPS`] may be a mount already.
    pub(super) fn new(user: bool) -> Result<Self> {
        for name in [BASE, STUBS, STEPS, MERGED] {
            files::make(files::HERE, name)?;
        }
        let scratch = Scratch::new(SCRATCH, true);
        Ok(Self { tree: Tree::new(), user, steps: Vec::new(), open: None, next: 0, mounted: 0, scratch })
    }

    fn root(name: &str) -> Result<Root> {
        Ok(Root::open(Path::new(name))?)
    }

    /// Makes the upper directory of a new step.
    fn begin(&mut self) -> Result<u32> {
        if self.steps.len() >= MOST_STEPS {
            self.fold().during("folding steps into the base")?;
        }
        let step = self.next;
        self.next += 1;
        let directory = files::make(files::HERE, format!("{STEPS}/{step}"))?;
        files::make(directory.as_fd(), "upper")?;
        Ok(step)
    }

    /// The overlay whose upper directory is that of `step`. `points` is the highest lower directory, if there is one.
    fn rootfs(&mut self, step: u32, points: Option<String>) -> Result<Rootfs> {
        self.mounted += 1;
        let work = format!("{STEPS}/{step}/work-{}", self.mounted);
        files::make(files::HERE, &work)?;
        let uppers = self.steps.iter().rev().map(|&step| upper_of(step));
        let lowers = points.into_iter().chain(uppers).chain([BASE.to_owned(), STUBS.to_owned()]).collect();
        Ok(Rootfs::Overlay { lowers, upper: upper_of(step), work })
    }

    /// Merges all steps into the base. Nothing is mounted between steps, as that demands.
    fn fold(&mut self) -> Result<()> {
        let base = Self::root(BASE)?;
        for step in std::mem::take(&mut self.steps) {
            upper::fold(&Self::root(&upper_of(step))?, &base)?;
            let path = format!("{STEPS}/{step}");
            std::fs::remove_dir_all(&path).on("remove", &path)?;
        }
        Ok(())
    }

    /// Makes the mount points in the lowest directory. The image's may be elsewhere after each step, where a link leads.
    fn make_stubs(&self) -> Result<()> {
        let stubs = Self::root(STUBS)?;
        for name in MOUNT_POINTS {
            files::make(stubs.dir(), name)?;
        }
        for (_, target) in NETWORK_FILES {
            let path = RelPath::new(target).map_err(yadokari_layers::Error::from)?;
            network::stub(&stubs, &self.tree.resolve(&path)?)?;
        }
        Ok(())
    }

    /// Makes the mount points of a RUN's mounts that the image does not have, in a directory that lies over the image: no
    /// whiteout hides them there. The directories above them look as they do in the image, and what a RUN makes of those
    /// gets into the upper directory like any other change.
    fn make_points(&self, supplies: &[Supply]) -> Result<Option<String>> {
        let resolve = |path: &RelPath| Ok(self.tree.resolve(path)?);
        let mut points = uncovered(supplies, resolve)?;
        points.retain(|(path, _)| self.tree.get(path).is_none() && !self.tree.is_directory(path));
        if points.is_empty() {
            return Ok(None);
        }
        // As old as if they were made by a RUN: one that a RUN uses gets into its layer.
        let now = Timestamp::from_secs(crate::clock());
        let mut above = BTreeMap::new();
        for (path, supply) in &points {
            for path in path.ancestors() {
                let entry = match self.tree.get(&path) {
                    Some(found) if found.entry.is_directory() => found.entry.clone(),
                    None => Entry::directory(0o755, now),
                    Some(_) => {
                        return Err(Error::Refused(format!("'/{path}' is no directory"))).during(supply.phrase());
                    }
                };
                above.insert(path, entry);
            }
        }
        files::make(files::HERE, POINTS)?;
        let root = Self::root(POINTS)?;
        for (path, entry) in &above {
            root.put(path, entry, &mut std::io::empty())?;
        }
        for (path, supply) in &points {
            let entry = if supply.is_directory() { Entry::directory(0o755, now) } else { Entry::file(0, 0o644, now) };
            // One that an earlier mount's point lies in has what it needs already.
            if root.entry(path)?.is_none() {
                root.put(path, &entry, &mut std::io::empty())?;
            }
        }
        // What was put into them changed their times.
        for (path, entry) in above.iter().rev() {
            root.set_metadata(path, entry)?;
        }
        Ok(Some(POINTS.to_owned()))
    }
}

impl Engine for Overlay {
    fn materialise(&mut self, layers: Vec<LayerFile>) -> Result<Unpacked> {
        let (tree, filled) = walk::fill(&Self::root(BASE)?, layers).during("unpacking the base image")?;
        self.tree = tree;
        Ok(filled)
    }

    fn push(&mut self, tar: &mut dyn Read, limits: &Limits) -> Result<Vec<String>> {
        self.steps.extend(self.open.take());
        if self.steps.is_empty() {
            return walk::put(&Self::root(BASE)?, tar, limits);
        }
        let step = self.begin()?;
        self.rootfs(step, None)?.mount().during("mounting the root")?;
        let root = Self::root(MERGED)?;
        let done = walk::put(&root, tar, limits);
        drop(root);
        let unmounted = rustix::mount::unmount(MERGED, UnmountFlags::empty()).on("umount", MERGED);
        self.steps.push(step);
        let warnings = done?;
        unmounted?;
        Ok(warnings)
    }

    fn prepare(&mut self, run: &Run, supplies: Vec<Supply>) -> Result<Prepared> {
        let step = match self.open {
            Some(step) => step,
            None => self.begin()?,
        };
        self.open = Some(step);
        self.make_stubs().during("making mount points")?;
        network::write(run)?;
        let points = self.make_points(&supplies)?;
        let (attachments, sockets) = self.scratch.fill(supplies)?;
        let rootfs = self.rootfs(step, points)?;
        Ok(Prepared { place: Place::Isolated { rootfs, attachments, user: self.user }, sockets })
    }

    fn finish(&mut self) -> Result<Vec<String>> {
        // The mounts went away with the last process in their namespace.
        self.scratch.clear().during("removing what was mounted")?;
        files::discard(files::HERE, POINTS.as_bytes()).during("removing mount points")?;
        Ok(Vec::new())
    }

    fn commit(&mut self, commit: &Commit, out: &mut Pipe) -> Result<bool> {
        let Some(step) = self.open.take() else { return Ok(false) };
        self.steps.push(step);
        let root = Arc::new(Self::root(&upper_of(step))?);
        let candidates = upper::upper(&root, &self.tree).during("reading the upper directory")?;
        walk::write(&root, &self.tree, candidates, commit, out)
    }

    fn learn(&mut self, index: Arc<Index>) {
        self.tree.push(index);
    }
}

fn upper_of(step: u32) -> String {
    format!("{STEPS}/{step}/upper")
}
