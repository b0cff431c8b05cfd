//! Kills builds at random moments, and builds again: `cargo run -p yadokari-tests --example crash [KILLED]`. Two hundred take about
//! fifteen minutes.

use std::time::{Duration, Instant};

use yadokari_tests::{Chance, Crashes, Result};

/// How many builds are killed where it is not said, with all drivers together.
const KILLED: usize = 200;
const DRIVERS: [&str; 3] = ["in-place", "overlay", "flat"];

fn main() -> Result<()> {
    let wanted = std::env::args().nth(1).and_then(|killed| killed.parse().ok()).unwrap_or(KILLED);
    let mut wrong = 0;
    for (driver, seed) in DRIVERS.into_iter().zip(1..) {
        let mut chance = Chance(seed);
        let mut crashes = Crashes::new(driver)?;
        let (mut rounds, mut killed, mut tagged, mut bad, start) = (0, 0, 0, 0, Instant::now());
        let own = wanted / DRIVERS.len() + usize::from(seed as usize <= wanted % DRIVERS.len());
        while killed < own {
            let after = crashes.takes.mul_f64(chance.next().unwrap_or_default());
            // Every other build is followed by the next one at once.
            let pause = Duration::from_millis(if rounds % 2 == 0 { 0 } else { 300 });
            let round = crashes.round(&format!("round-{rounds}"), after, pause)?;
            rounds += 1;
            if round.was_killed {
                killed += 1;
            } else {
                // The machine was slower when the time was taken.
                crashes.takes = crashes.takes.mul_f64(0.95);
            }
            tagged += u32::from(round.had_tag);
            bad += u32::from(!round.wrong.is_empty());
            for what in &round.wrong {
                println!("{driver} {rounds}, after {} ms: {what}", after.as_millis());
            }
        }
        let leaks = crashes.leaks()?;
        leaks.iter().for_each(|leak| println!("{driver}: the password is in {leak}"));
        wrong += bad + leaks.len() as u32;
        println!(
            "{driver:9} {killed} killed of {rounds} builds of {:.1} s, {tagged} had a tag, {bad} with faults, {} leaks; {:.0} s",
            crashes.takes.as_secs_f64(),
            leaks.len(),
            start.elapsed().as_secs_f64(),
        );
    }
    std::process::exit(i32::from(wrong > 0));
}
