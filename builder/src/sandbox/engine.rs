//! What a driver does in its worker.

use std::io::Read;
use std::sync::Arc;

use yadokari_layers::tar::Pipe;
use yadokari_layers::{Index, Limits};

use super::error::Result;
use super::launch::Place;
use super::mount::scratch::Sockets;
use super::mount::supplies::Supply;
use super::{Commit, LayerFile, Run, Unpacked};

/// A root that a command can run in.
#[derive(Debug)]
pub(super) struct Prepared {
    /// Where it runs.
    pub(super) place: Place,
    /// The listening ends of the sockets that are mounted.
    pub(super) sockets: Sockets,
}

/// A driver, as the worker sees it: [`Sandbox`](super::Sandbox) with the processes taken out, which are the worker's
/// business whatever the driver.
pub(super) trait Engine: Send {
    /// See [`Sandbox::materialise`](super::Sandbox::materialise).
    fn materialise(&mut self, layers: Vec<LayerFile>) -> Result<Unpacked>;

    /// Puts the tar of a layer on the root, which may hold so much. [`Engine::learn`] comes next.
    fn push(&mut self, tar: &mut dyn Read, limits: &Limits) -> Result<Vec<String>>;

    /// Makes the root ready for a command with these mounts, and says where that runs. Whether or not it succeeds,
    /// [`Engine::finish`] is called afterwards.
    fn prepare(&mut self, run: &Run, supplies: Vec<Supply>) -> Result<Prepared>;

    /// Undoes what [`Engine::prepare`] did, wherever that stopped. No process of the command is left. Returns warnings.
    fn finish(&mut self) -> Result<Vec<String>>;

    /// Writes the tar of what changed since the last commit or push. Returns false when nothing did, and then nothing was
    /// written. If something did, [`Engine::learn`] comes next.
    fn commit(&mut self, commit: &Commit, out: &mut Pipe) -> Result<bool>;

    /// Takes note of what the tar says that was pushed or committed.
    fn learn(&mut self, index: Arc<Index>);
}
