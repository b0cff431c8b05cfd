//! Kills builds at random moments, and builds again: `cargo run -p yadokari-tests --example crash [ROUNDS]`. Two hundred rounds for
//! three drivers take about twenty minutes.

use std::time::{Duration, Instant};

use yadokari_tests::{Chance, Crashes, Result};

/// How many builds are killed where it is not said.
const ROUNDS: usize = 200;
const DRIVERS: [&str; 3] = ["in-place", "overlay", "flat"];

fn main() -> Result<()> {
    let rounds = std::env::args().nth(1).and_then(|rounds| rounds.parse().ok()).unwrap_or(ROUNDS);
    let mut wrong = 0;
    for (driver, seed) in DRIVERS.into_iter().zip(1..) {
        let mut chance = Chance(seed);
        let mut crashes = Crashes::new(driver)?;
        let (mut killed, mut tagged, mut bad, start) = (0, 0, 0, Instant::now());
        let own = rounds / DRIVERS.len() + usize::from(seed as usize <= rounds % DRIVERS.len());
        for number in 0..own {
            let after = crashes.takes.mul_f64(chance.next().unwrap_or(0.0) * 1.1);
            // Every other build is followed by the next one at once.
            let pause = Duration::from_millis(if number % 2 == 0 { 0 } else { 300 });
            let round = crashes.round(&format!("round-{number}"), after, pause)?;
            killed += u32::from(round.was_killed);
            tagged += u32::from(round.had_tag);
            bad += u32::from(!round.wrong.is_empty());
            for what in &round.wrong {
                println!("{driver} {number}, after {} ms: {what}", after.as_millis());
            }
        }
        let leaks = crashes.leaks()?;
        leaks.iter().for_each(|leak| println!("{driver}: the password is in {leak}"));
        wrong += bad + leaks.len() as u32;
        println!(
            "{driver:9} {own:4} builds of {:.1} s, {killed} killed before their end, {tagged} with a tag, {bad} with faults, {} leaks; {:.0} s",
            crashes.takes.as_secs_f64(),
            leaks.len(),
            start.elapsed().as_secs_f64(),
        );
    }
    std::process::exit(i32::from(wrong > 0));
}
