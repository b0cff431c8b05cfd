//! Finding what a RUN changed must not cost more than a RUN.

use yadokari_tests::{Registry, Result, run_times};

/// The most that a RUN of `echo` may take on a base of 100,000 files, in seconds. On processors that nothing else uses it
/// takes 0.2, of which the example `snapshot` makes a table; beside other tests it takes longer.
const LIMIT: f64 = 1.5;

#[test]
fn a_run_on_a_large_base_is_quick_in_place() -> Result<()> {
    let times = run_times(&Registry::start()?, "in-place", 100_000, 10)?;
    println!("{times:.2?}");
    assert_eq!(times.len(), 10);
    // The first one unpacks the base.
    let quickest = times[1..].iter().map(|time| time.whole).fold(f64::INFINITY, f64::min);
    assert!(quickest < LIMIT, "{times:?}");
    assert!(times.iter().all(|time| time.changes <= time.whole), "{times:?}");
    Ok(())
}
