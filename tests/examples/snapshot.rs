//! What a RUN costs that changes one file on a base of 100,000.

use yadokari_tests::{Registry, Result, RunTime, run_times};

/// How many RUNs.
const RUNS: usize = 10;
/// How many files the base holds.
const FILES: u32 = 100_000;

fn main() -> Result<()> {
    let registry = Registry::start()?;
    println!("{RUNS} RUNs on {FILES} files, seconds for each; the first one unpacks the base");
    for driver in ["in-place", "flat", "overlay"] {
        let times = run_times(&registry, driver, FILES, RUNS)?;
        let shown: Vec<_> = times.iter().map(|time| format!("{:5.2}", time.whole)).collect();
        let later = times.get(1..).unwrap_or_default();
        let mean = |of: fn(&RunTime) -> f64| later.iter().map(of).sum::<f64>() / later.len().max(1) as f64;
        let (whole, changes) = (mean(|time| time.whole), mean(|time| time.changes));
        println!("{driver:9} {}   mean of the later ones {whole:.2}, of their changes {changes:.2}", shown.join(" "));
    }
    Ok(())
}
