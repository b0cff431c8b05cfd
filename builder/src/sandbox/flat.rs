//! The flat driver: the root is a plain directory, mounted as the root of a mount namespace.

use std::io::Read;
use std::os::fd::AsFd;
use std::sync::Arc;

use yadokari_layers::tar::Pipe;
use yadokari_layers::{Index, Limits, Root};

use super::engine::{Engine, Prepared};
use super::error::{During, Result};
use super::files::{self, Watched};
use super::launch::Place;
use super::mount::scratch::Scratch;
use super::mount::supplies::Supply;
use super::rootfs::{MERGED, Rootfs};
use super::stubs::Stubs;
use super::walk::Walked;
use super::{Commit, LayerFile, Run, Unpacked, network};

const BASE: &str = "base";
const SCRATCH: &str = "scratch";

/// The root of a stage, as a directory in the working directory.
#[derive(Debug)]
pub(super) struct Flat {
    walked: Walked,
    user: bool,
    /// What is in the root for the RUN under way.
    busy: Option<(Stubs, Watched)>,
    scratch: Scratch,
}

impl Flat {
    /// Makes the directories.
    pub(super) fn new(user: bool) -> Result<Self> {
        files::make(files::HERE, MERGED)?;
        let base = files::make(files::HERE, BASE)?;
        Ok(Self { walked: Walked::new(Root::from_dir(base)), user, busy: None, scratch: Scratch::new(SCRATCH, false) })
    }
}

impl Engine for Flat {
    fn materialise(&mut self, layers: Vec<LayerFile>) -> Result<Unpacked> {
        self.walked.materialise(layers)
    }

    fn push(&mut self, tar: &mut dyn Read, limits: &Limits) -> Result<Vec<String>> {
        self.walked.push(tar, limits)
    }

    fn prepare(&mut self, run: &Run, supplies: Vec<Supply>) -> Result<Prepared> {
        network::write(run)?;
        self.walked.look().during("walking the root")?;
        let Walked { root, tree, .. } = &self.walked;
        let (stubs, _) = self.busy.insert(Default::default());
        stubs.mount_points(root, tree).during("making mount points")?;
        stubs.targets(root, &supplies)?;
        let watched = Watched::look(root.dir().as_fd(), stubs.parents())?;
        self.walked.settle(&watched);
        if let Some(busy) = &mut self.busy {
            busy.1 = watched;
        }
        let (attachments, sockets) = self.scratch.fill(supplies)?;
        let rootfs = Rootfs::Directory(BASE.to_owned());
        Ok(Prepared { place: Place::Isolated { rootfs, attachments, user: self.user }, sockets })
    }

    fn finish(&mut self) -> Result<Vec<String>> {
        let Some((stubs, watched)) = self.busy.take() else { return Ok(Vec::new()) };
        let seen = watched.again(self.walked.root.dir())?;
        stubs.undo(&self.walked.root, None).during("removing mount points")?;
        self.walked.note(seen);
        self.scratch.clear().during("removing what was mounted")?;
        Ok(Vec::new())
    }

    fn commit(&mut self, commit: &Commit, out: &mut Pipe) -> Result<bool> {
        self.walked.commit(commit, out)
    }

    fn learn(&mut self, index: Arc<Index>) {
        self.walked.tree.push(index);
    }
}
