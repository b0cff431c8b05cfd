//! Ending a build from outside it.

use std::sync::{Arc, Mutex, PoisonError};

use crate::sandbox::Interrupter;

/// Ends a build: the running command is told to stop, the container's `/` is put back, and the build fails with
/// [`Error::Interrupted`](crate::Error::Interrupted). Clones are handles to the same build.
#[derive(Debug, Clone, Default)]
pub struct Interrupt(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    signal: Option<i32>,
    workers: Vec<Interrupter>,
}

impl Interrupt {
    /// Ends the build because `signal` came. The first call counts.
    pub fn trigger(&self, signal: i32) {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if state.signal.is_none() {
            state.signal = Some(signal);
            state.workers.iter().for_each(Interrupter::interrupt);
        }
    }

    /// Lets an interrupt reach a worker; it does at once when one came already.
    pub(super) fn watch(&self, worker: Interrupter) {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if state.signal.is_some() {
            worker.interrupt();
        }
        state.workers.push(worker);
    }

    /// Fails when an interrupt came.
    pub fn check(&self) -> Result<(), crate::Error> {
        match self.0.lock().unwrap_or_else(PoisonError::into_inner).signal {
            Some(signal) => Err(crate::Error::Interrupted(signal)),
            None => Ok(()),
        }
    }
}
