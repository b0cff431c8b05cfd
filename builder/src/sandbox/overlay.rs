//! The overlay driver: one lower directory for the base, one upper directory for each step.
//!
//! ```text
//!  steps/2/upper   what the RUN under way changes
//!  steps/1/upper   ┐
//!  steps/0/upper   │ lower directories, the topmost first
//!  base            │
//!  stubs           ┘ mount points; being the lowest, they never get into an upper directory unless a RUN changes them
//! ```

use std::io::Write;
use std::os::fd::AsFd;
use std::path::Path;
use std::sync::Arc;

use rustix::mount::UnmountFlags;
use yadokari_layers::{RelPath, Root, Tree, upper};

use super::engine::Engine;
use super::error::{During, Result, Syscall};
use super::launch::Place;
use super::rootfs::{MERGED, MOUNT_POINTS, NETWORK_FILES, Rootfs};
use super::{LayerFile, Run, files, network, walk};

/// A name that no directory has costs a lookup in each lower directory: 2.2 us each. So they are folded into the base
/// when there are this many.
const MOST_STEPS: usize = 16;

/// Where the upper directories are, in the stage's directory.
pub(super) const STEPS: &str = "steps";
const BASE: &str = "base";
const STUBS: &str = "stubs";

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
}

impl Overlay {
    /// Makes the directories. [`STEPS`] may be a mount already.
    pub(super) fn new(user: bool) -> Result<Self> {
        for name in [BASE, STUBS, STEPS, MERGED] {
            files::make(files::HERE, name)?;
        }
        Ok(Self { tree: Tree::new(), user, steps: Vec::new(), open: None, next: 0, mounted: 0 })
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

    /// The overlay whose upper directory is that of `step`.
    fn rootfs(&mut self, step: u32) -> Result<Rootfs> {
        self.mounted += 1;
        let work = format!("{STEPS}/{step}/work-{}", self.mounted);
        files::make(files::HERE, &work)?;
        let uppers = self.steps.iter().rev().map(|&step| upper_of(step));
        let lowers = uppers.chain([BASE.to_owned(), STUBS.to_owned()]).collect();
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
}

impl Engine for Overlay {
    fn materialise(&mut self, layers: Vec<LayerFile>) -> Result<Vec<String>> {
        walk::fill(&Self::root(BASE)?, &mut self.tree, layers)
    }

    fn push(&mut self, layer: LayerFile) -> Result<Vec<String>> {
        self.steps.extend(self.open.take());
        if self.steps.is_empty() {
            return walk::put(&Self::root(BASE)?, &mut self.tree, layer);
        }
        let step = self.begin()?;
        self.rootfs(step)?.mount().during("mounting the root")?;
        let root = Self::root(MERGED)?;
        let done = walk::put(&root, &mut self.tree, layer);
        drop(root);
        let unmounted = rustix::mount::unmount(MERGED, UnmountFlags::empty()).on("umount", MERGED);
        self.steps.push(step);
        let warnings = done?;
        unmounted?;
        Ok(warnings)
    }

    fn prepare(&mut self, run: &Run) -> Result<Place> {
        let step = match self.open {
            Some(step) => step,
            None => self.begin()?,
        };
        self.open = Some(step);
        self.make_stubs().during("making mount points")?;
        network::write(run)?;
        Ok(Place::Isolated { rootfs: self.rootfs(step)?, user: self.user })
    }

    fn finish(&mut self) -> Result<Vec<String>> {
        // The mount went away with the last process in its namespace.
        Ok(Vec::new())
    }

    fn commit(&mut self, clamp: Option<i64>, out: &mut dyn Write) -> Result<bool> {
        let Some(step) = self.open.take() else { return Ok(false) };
        self.steps.push(step);
        let root = Arc::new(Self::root(&upper_of(step))?);
        let candidates = upper::upper(&root, &self.tree).during("reading the upper directory")?;
        walk::write(&root, &mut self.tree, &candidates, clamp, out)
    }
}

fn upper_of(step: u32) -> String {
    format!("{STEPS}/{step}/upper")
}
