//! Measuring one operation, and nothing of what prepares it.

use std::ops::Range;
use std::thread;
use std::time::{Duration, Instant};

use crate::Result;

/// Takes the time of an operation, in some rounds.
pub(crate) struct Meter {
    rounds: usize,
    times: Vec<Duration>,
}

/// What goes through an operation.
#[derive(Clone, Copy)]
pub(crate) enum Amount {
    Entries(usize),
    Bytes(u64),
}

impl Meter {
    pub(crate) fn new(rounds: usize) -> Self {
        Self { rounds, times: Vec::new() }
    }

    pub(crate) fn rounds(&self) -> Range<usize> {
        0..self.rounds
    }

    /// The operation has a thread of its own, by which callgrind tells it and the threads it uses from what prepares it.
    pub(crate) fn measure<T: Send>(&mut self, operation: impl FnOnce() -> T + Send) -> Result<T> {
        let timed = || {
            let begin = Instant::now();
            (operation(), begin.elapsed())
        };
        let ended = thread::scope(|scope| scope.spawn(timed).join());
        let (answer, time) = ended.map_err(|_| "the operation panicked")?;
        self.times.push(time);
        Ok(answer)
    }

    /// Median, range and throughput.
    pub(crate) fn summary(mut self, amount: Amount) -> String {
        self.times.sort_unstable();
        let seconds = |at: usize| self.times[at].as_secs_f64();
        let (median, last) = (seconds(self.times.len() / 2), self.times.len() - 1);
        let rate = match amount {
            Amount::Entries(count) => format!("{:.2} million entries/s", count as f64 / median / 1e6),
            Amount::Bytes(count) => format!("{:.0} MB/s", count as f64 / median / 1e6),
        };
        let [median, least, most] = [median, seconds(0), seconds(last)].map(|time| time * 1e3);
        format!("{median:8.2} ms ({least:.2} to {most:.2}), {rate}")
    }
}
