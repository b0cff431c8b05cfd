//! Work that takes no processor from the commands of other stages.

use serde::{Deserialize, Serialize};

/// What a low priority adds to the nice value: where processors are scarce, it gets a tenth of what others get. With the most
/// there is, 19, it would hardly get on beside commands that use all of them.
const NICE: i32 = 10;

/// How urgent work is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Priority {
    /// As any other.
    Normal,
    /// Nobody waits for it yet: it takes what others leave of the processors, and little else.
    Low,
}

impl Priority {
    /// Does `work`. What it starts is as urgent; the caller's thread, which RUNs are started from, stays what it is, because
    /// without a capability there is no way back.
    pub(super) fn run<T: Send>(self, work: impl FnOnce() -> T + Send) -> T {
        if self == Self::Normal {
            return work();
        }
        let behind_others = || {
            // Where that is refused, it takes its share.
            _ = rustix::process::nice(NICE);
            work()
        };
        let ended = std::thread::scope(|scope| scope.spawn(behind_others).join());
        ended.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nice() -> i32 {
        rustix::process::getpriority_process(None).unwrap()
    }

    #[test]
    fn only_the_work_steps_back() {
        let before = nice();
        assert_eq!(Priority::Normal.run(nice), before);
        let started = Priority::Low.run(|| (nice(), std::thread::spawn(nice).join().unwrap()));
        let low = (before + NICE).min(19);
        assert_eq!(started, (low, low));
        assert_eq!(nice(), before);
    }
}
