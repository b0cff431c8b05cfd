//! What a probe found, in words.

use super::{Probe, Verdict};

/// One line for each driver: how it works, or which system call failed and what to change.
pub fn doctor_lines(probe: &Probe) -> Vec<String> {
    let lines = probe.reports.iter().map(|report| {
        let driver = report.driver;
        match &report.verdict {
            Verdict::Usable { detail } => format!("{driver}: usable, {detail}"),
            Verdict::Rejected { text, advice, .. } => format!("{driver}: {text}; {advice}"),
        }
    });
    lines.collect()
}
