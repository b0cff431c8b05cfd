//! Finding what changed in a directory by comparing what the kernel says of every path before and after.
//!
//! A path is taken for changed when its inode, mode, owner, number of names, size or times differ, whatever the clock did
//! in between: ctime moves with every write, chmod, chown, link and rename on ext4, xfs, btrfs and overlayfs. Two things
//! make that sound. Kernels before 6.13 move it in steps of some milliseconds, so [`wait_for_clock`] comes before the next
//! process. And on tmpfs a store through a shared mapping can leave it alone, so there the contents are hashed.

mod snapshot;
mod walk;

use std::time::Duration;

pub use snapshot::{Candidates, Snapshot};
pub use walk::scan;

use crate::Timestamp;

/// The longest step of the coarse clock, at 100 ticks a second.
const TICK: Duration = Duration::from_millis(10);

/// The coarse clock passes any time within one tick, unless it was set back.
const MAX_TICKS: u32 = 10;

/// Sleeps until the kernel would give a new ctime that is later than `newest`, the newest one of a snapshot. Returns after
/// a tenth of a second at the latest: a clock that was set back gives times that differ anyway.
pub fn wait_for_clock(newest: Timestamp) {
    for _ in 0..MAX_TICKS {
        let now = rustix::time::clock_gettime(rustix::time::ClockId::RealtimeCoarse);
        if (now.tv_sec, now.tv_nsec) > (newest.secs, newest.nanos.into()) {
            return;
        }
        std::thread::sleep(TICK);
    }
}

#[cfg(test)]
mod tests;
