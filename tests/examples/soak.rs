//! Many builds in one container: `cargo run -p yadokari-tests --example soak [BUILDS]`. Two hundred in place and two hundred with an
//! overlay take about ten minutes.

use std::time::Instant;

use yadokari_tests::{Result, Soak};

/// How many builds where it is not said. Three are a cycle.
const BUILDS: u32 = 200;

fn main() -> Result<()> {
    let builds = std::env::args().nth(1).and_then(|builds| builds.parse().ok()).unwrap_or(BUILDS);
    let mut grown = false;
    for driver in ["in-place", "overlay"] {
        let (start, mut soak) = (Instant::now(), Soak::new(driver)?);
        let first = soak.cycle()?;
        let (held, mut last) = (soak.held()?, first);
        for _ in 1..builds.div_ceil(3) {
            last = soak.cycle()?;
            let now = soak.held()?;
            if now != held {
                println!("{driver}: {held:?} became {now:?}");
                grown = true;
            }
        }
        println!(
            "{driver:9} {} builds, {:.0} s: {} files of {} bytes, no process, as after the first; most memory of a process {first} KiB at first and {last} KiB at last",
            3 * builds.div_ceil(3),
            start.elapsed().as_secs_f64(),
            held.files,
            held.bytes,
        );
    }
    std::process::exit(i32::from(grown));
}
