//! Ending a build from outside it.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

use crate::sandbox::Interrupter;

/// Ends a build: the running command is told to stop, the container's `/` is put back, and the build fails with
/// [`Error::Interrupted`](crate::Error::Interrupted). Clones are handles to the same build.
#[derive(Debug, Clone, Default)]
pub struct Interrupt {
    state: Arc<Mutex<State>>,
    triggered: Arc<Notify>,
}

#[derive(Debug, Default)]
struct State {
    signal: Option<i32>,
    /// Whether the build has failed, and what still runs is of no use.
    is_abandoned: bool,
    workers: Vec<Interrupter>,
}

impl Interrupt {
    /// Ends the build because `signal` came. The first call counts.
    pub fn trigger(&self, signal: i32) {
        let mut state = self.lock();
        if state.signal.is_none() {
            state.signal = Some(signal);
            state.workers.iter().for_each(Interrupter::interrupt);
            self.triggered.notify_waiters();
        }
    }

    /// Ends what the build is still doing, since it has failed. Why, somebody else knows.
    pub(super) fn abandon(&self) {
        let mut state = self.lock();
        state.is_abandoned = true;
        state.workers.iter().for_each(Interrupter::interrupt);
        self.triggered.notify_waiters();
    }

    /// Waits for an interrupt and gives its signal: transfers, unlike commands, can simply be dropped.
    pub async fn triggered(&self) -> i32 {
        loop {
            let notified = self.triggered.notified();
            if let Some(signal) = self.lock().signal {
                return signal;
            }
            notified.await;
        }
    }

    /// Waits for an interrupt, or for the build to fail, and gives the error of whoever is stopped by it.
    pub(crate) async fn stopped(&self) -> crate::Error {
        loop {
            let notified = self.triggered.notified();
            if let Err(error) = self.check() {
                return error;
            }
            notified.await;
        }
    }

    /// Lets an interrupt reach a worker; it does at once when one came already.
    pub(super) fn watch(&self, worker: Interrupter) {
        let mut state = self.lock();
        if state.signal.is_some() || state.is_abandoned {
            worker.interrupt();
        }
        state.workers.push(worker);
    }

    /// Fails when an interrupt came, or the build failed elsewhere.
    pub fn check(&self) -> Result<(), crate::Error> {
        match *self.lock() {
            State { signal: Some(signal), .. } => Err(crate::Error::Interrupted(signal)),
            State { is_abandoned: true, .. } => Err(crate::Error::Abandoned),
            _ => Ok(()),
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_first_signal_ends_the_build_whenever_it_came() {
        let interrupt = Interrupt::default();
        assert!(interrupt.check().is_ok());
        let waiting = tokio::spawn({
            let interrupt = interrupt.clone();
            async move { interrupt.triggered().await }
        });
        tokio::task::yield_now().await;
        interrupt.trigger(15);
        interrupt.trigger(2);
        assert_eq!(waiting.await.unwrap(), 15);
        assert_eq!(interrupt.triggered().await, 15);
        assert!(matches!(interrupt.check(), Err(crate::Error::Interrupted(15))));
    }

    #[tokio::test]
    async fn a_failure_stops_transfers_and_is_no_signal() {
        let interrupt = Interrupt::default();
        let stopped = tokio::spawn({
            let interrupt = interrupt.clone();
            async move { interrupt.stopped().await }
        });
        tokio::task::yield_now().await;
        interrupt.abandon();
        assert!(matches!(stopped.await.unwrap(), crate::Error::Abandoned));
        assert!(matches!(interrupt.check(), Err(crate::Error::Abandoned)));
        let signal = tokio::time::timeout(std::time::Duration::from_millis(20), interrupt.triggered()).await;
        assert!(signal.is_err());
        interrupt.trigger(2);
        assert_eq!(interrupt.triggered().await, 2);
    }
}
