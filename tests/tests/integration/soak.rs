//! Builds leave nothing behind that grows. The example `soak` runs hundreds.

use yadokari_tests::{Result, Soak};

#[test]
fn build_after_build_a_container_holds_the_same() -> Result<()> {
    for driver in ["in-place", "overlay"] {
        let mut soak = Soak::new(driver)?;
        let first = soak.cycle()?;
        let held = soak.held()?;
        assert_eq!(held.processes, "", "{driver}");
        let more = [soak.cycle()?, soak.cycle()?];
        assert_eq!(soak.held()?, held, "{driver}");
        // Which pages a process has at its largest depends on the threads' timing.
        assert!(more.iter().all(|&peak| peak < first * 3 / 2), "{driver}: {first} KiB, then {more:?}");
    }
    Ok(())
}
