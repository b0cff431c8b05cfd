//! Registries that ask for patience, and what they warn of: everybody who asks one waits, and everything is told once.

use std::collections::{HashMap, HashSet};
use std::hash::{BuildHasher, Hasher, RandomState};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use super::{ClientInner, Notice};

/// The most texts that are told, and remembered: no registry fills the log, or the memory.
const MAX_TOLD: usize = 100;

/// The longest time over which those who waited go on.
const SPREAD: Duration = Duration::from_secs(2);

/// Which hosts are left alone for now, and what was told.
#[derive(Debug, Default)]
pub(crate) struct Patience {
    pauses: Mutex<HashMap<String, Pause>>,
    told: Mutex<HashSet<String>>,
}

#[derive(Debug, Clone, Copy)]
struct Pause {
    until: Instant,
    delay: Duration,
}

impl Patience {
    /// Leaves a host alone for `delay`, unless it is left alone for longer already.
    pub(crate) fn pause(&self, host: &str, delay: Duration) {
        let pause = Pause { until: Instant::now() + delay, delay };
        let mut pauses = lock(&self.pauses);
        if pauses.get(host).is_none_or(|known| known.until < pause.until) {
            pauses.insert(host.into(), pause);
        }
    }

    /// Waits until a host may be asked. Those who wait for the same do not go on at the same moment.
    pub(crate) async fn wait(&self, host: &str) {
        loop {
            let pause = lock(&self.pauses).get(host).copied().filter(|pause| pause.until > Instant::now());
            let Some(pause) = pause else { return };
            tokio::time::sleep_until(pause.until + spread(pause.delay)).await;
        }
    }

    /// Whether something is to be told: once, and not without end.
    fn is_new(&self, key: &str) -> bool {
        let mut told = lock(&self.told);
        told.len() < MAX_TOLD && told.insert(key.into())
    }
}

impl ClientInner {
    /// Warns of something, once for each `key`.
    pub(crate) fn warn_once(&self, key: &str, text: impl FnOnce() -> String) {
        if self.options.listener.is_there() && self.patience.is_new(key) {
            self.options.listener.tell(&Notice::Warning(text()));
        }
    }
}

/// The text of a `Warning` header that the distribution specification gives a meaning: code 299, an agent, and a quoted
/// text.
pub(crate) fn warning(header: &str) -> Option<String> {
    let (agent, text) = header.trim().strip_prefix("299 ")?.trim_start().split_once(' ')?;
    let text = text.trim_start().strip_prefix('"').filter(|_| !agent.is_empty())?;
    let mut escaped = false;
    let mut chars = Vec::new();
    for c in text.chars() {
        match c {
            '"' if !escaped => return Some(chars.into_iter().collect()),
            '\\' if !escaped => escaped = true,
            c => {
                chars.push(c);
                escaped = false;
            }
        }
    }
    None
}

/// How much longer than `delay` somebody waits, so that not all who wait for the same go on together.
pub(crate) fn spread(delay: Duration) -> Duration {
    delay.min(SPREAD).mul_f64(random())
}

/// A number between 0 and 1.
pub(crate) fn random() -> f64 {
    RandomState::new().build_hasher().finish() as f64 / u64::MAX as f64
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn warnings_of_code_299_are_read() {
        let table = [
            (r#"299 - "Your token ends in 30 seconds.""#, Some("Your token ends in 30 seconds.")),
            (r#" 299 registry.example  "a \"b\" \\ c" "date""#, Some(r#"a "b" \ c"#)),
            (r#"199 - "other""#, None),
            (r#"299 - unquoted"#, None),
            (r#"299 - "unclosed"#, None),
            ("299", None),
            ("", None),
        ];
        for (header, text) in table {
            assert_eq!(warning(header).as_deref(), text, "{header}");
        }
    }

    #[test]
    fn what_is_told_is_told_once_and_not_without_end() {
        let patience = Patience::default();
        assert!(patience.is_new("a") && !patience.is_new("a"));
        let told = (0..2 * MAX_TOLD).filter(|n| patience.is_new(&n.to_string())).count();
        assert_eq!(told, MAX_TOLD - 1);
    }

    #[tokio::test]
    async fn a_host_is_left_alone_as_long_as_the_longest_pause() {
        let patience = Patience::default();
        let started = Instant::now();
        patience.pause("a", Duration::from_millis(100));
        patience.pause("a", Duration::from_millis(10));
        patience.wait("b").await;
        assert!(started.elapsed() < Duration::from_millis(80), "another host is not waited for");
        patience.wait("a").await;
        assert!(started.elapsed() >= Duration::from_millis(100));
    }
}
