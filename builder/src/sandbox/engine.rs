//! What a driver does in its worker.

use std::io::Write;
use std::sync::Arc;

use yadokari_layers::Index;

use super::error::Result;
use super::launch::Place;
use super::mount::scratch::Sockets;
use super::mount::supplies::Supply;
use super::{LayerFile, Run, Unpacked};

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
pub(super) trait Engine {
    /// See [`Sandbox::materialise`](super::Sandbox::materialise).
    fn materialise(&mut self, layers: Vec<LayerFile>) -> Result<Unpacked>;

    /// See [`Sandbox::push`](super::Sandbox::push).
    fn push(&mut self, layer: LayerFile) -> Result<Vec<String>>;

    /// Makes the root ready for a command with these mounts, and says where that runs. Whether or not it succeeds,
    /// [`Engine::finish`] is called afterwards.
    fn prepare(&mut self, run: &Run, supplies: Vec<Supply>) -> Result<Prepared>;

    /// Undoes what [`Engine::prepare`] did, wherever that stopped. No process of the command is left. Returns warnings.
    fn finish(&mut self) -> Result<Vec<String>>;

    /// Writes the tar of what changed since the last commit or push. Returns false when nothing did, and then nothing was
    /// written. If something did, [`Engine::committed`] comes next.
    fn commit(&mut self, clamp: Option<i64>, out: &mut dyn Write) -> Result<bool>;

    /// Takes note of what the tar of the last commit says.
    fn committed(&mut self, index: Arc<Index>);
}
