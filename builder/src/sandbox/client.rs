//! The builder's end of a worker.

use std::io::Write;

use super::{Error, Exit, LayerFile, Probe, Result, Run, Sandbox, Settings, Stream};

/// A stage's root in a process of its own.
#[derive(Debug)]
pub struct Worker;

/// Ends what a worker is doing, from any thread.
#[derive(Debug, Clone)]
pub struct Interrupter;

impl Interrupter {
    /// Ends the RUN under way and gives `/` back. Every call on the worker returns [`Error::Interrupted`] from then on.
    pub fn interrupt(&self) {}
}

impl Worker {
    /// Starts a worker with a fresh, empty root for the stage called `stage`.
    pub fn start(_probe: &Probe, _settings: &Settings, _stage: &str) -> Result<Self> {
        Err(Error::NoDriver(Vec::new()))
    }

    /// What ends this worker's work from another thread.
    pub fn interrupter(&self) -> Interrupter {
        Interrupter
    }
}

impl Sandbox for Worker {
    fn materialise(&mut self, _layers: Vec<LayerFile>) -> Result<Vec<String>> {
        Err(Error::Interrupted)
    }

    fn push(&mut self, _layer: LayerFile) -> Result<Vec<String>> {
        Err(Error::Interrupted)
    }

    fn run(&mut self, _run: &Run, _output: &mut dyn FnMut(Stream, &[u8])) -> Result<Exit> {
        Err(Error::Interrupted)
    }

    fn commit(&mut self, _clamp: Option<i64>, _tar: &mut dyn Write) -> Result<bool> {
        Err(Error::Interrupted)
    }
}
