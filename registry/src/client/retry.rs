//! Trying again: which failures, when, and how often.

use std::hash::{BuildHasher, Hasher, RandomState};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::time::Instant;

use super::options::RetryPolicy;
use crate::Error;

/// A failure, and whether the same request may do better later.
#[derive(Debug)]
pub(crate) struct Failed {
    pub(crate) error: Error,
    pub(crate) again: Again,
}

/// Whether to try again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Again {
    /// The answer would be the same.
    No,
    /// After a delay of our choosing.
    Later,
    /// After the delay that the registry asked for.
    After(Duration),
}

impl From<Error> for Failed {
    fn from(error: Error) -> Self {
        let again = match &error {
            Error::Unreachable { source, .. } if !source.is_permanent() => Again::Later,
            _ => Again::No,
        };
        Self { error, again }
    }
}

/// Counts the tries of one operation and waits between them.
#[derive(Debug)]
pub(crate) struct Backoff {
    policy: RetryPolicy,
    tries: u32,
    first: Option<Instant>,
}

impl Backoff {
    pub(crate) fn new(policy: RetryPolicy) -> Self {
        Self { policy, tries: 0, first: None }
    }

    /// Waits before the next try, or returns the failure where there must be none.
    pub(crate) async fn wait(&mut self, failed: Failed) -> Result<(), Error> {
        self.tries += 1;
        let delay = match failed.again {
            Again::No => return Err(failed.error),
            Again::Later => self.delay(),
            Again::After(delay) => delay,
        };
        let first = *self.first.get_or_insert_with(Instant::now);
        // A registry that asks for an hour gets its error reported now: waiting less would only be refused again.
        if self.tries >= self.policy.tries || first.elapsed() + delay > self.policy.give_up_after {
            return Err(failed.error);
        }
        tokio::time::sleep(delay).await;
        Ok(())
    }

    fn delay(&self) -> Duration {
        let doubled = self.policy.delay.saturating_mul(1 << (self.tries - 1).min(16));
        let random = RandomState::new().build_hasher().finish() as f64 / u64::MAX as f64;
        doubled.min(self.policy.longest).mul_f64(0.5 + random / 2.0)
    }
}

/// Whether a status says that the registry, not the request, is at fault.
pub(crate) fn is_transient(status: u16) -> bool {
    matches!(status, 408 | 429 | 500 | 502..=504 | 506..=599)
}

/// Reads a `Retry-After` value: seconds, or an HTTP date.
pub(crate) fn retry_after(value: &str, now: SystemTime) -> Option<Duration> {
    if let Ok(seconds) = value.trim().parse() {
        return Some(Duration::from_secs(seconds));
    }
    let then = UNIX_EPOCH + Duration::from_secs(http_date(value)?);
    Some(then.duration_since(now).unwrap_or_default())
}

/// Seconds since 1970 of an RFC 9110 date in its preferred form, `Sun, 06 Nov 1994 08:49:37 GMT`.
pub(crate) fn http_date(text: &str) -> Option<u64> {
    const MONTHS: [&str; 12] = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
    let (_, date) = text.trim().split_once(", ")?;
    let [day, month, year, time, "GMT"] = date.split(' ').collect::<Vec<_>>()[..] else { return None };
    let month = MONTHS.iter().position(|&name| name == month)? as u64 + 1;
    let (day, year): (u64, u64) = (day.parse().ok()?, year.parse().ok()?);
    let [hours, minutes, seconds] =
        time.split(':').map(|part| part.parse::<u64>().ok()).collect::<Option<Vec<_>>>()?[..]
    else {
        return None;
    };
    if !(1970..10_000).contains(&year) || !(1..=31).contains(&day) {
        return None;
    }
    // Days of the civil calendar, with years that begin in March so that the leap day is the last one.
    let (y, m) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    let days = 365 * y + y / 4 - y / 100 + y / 400 + (153 * m + 2) / 5 + day - 1;
    Some((days - 719_468) * 86_400 + hours * 3600 + minutes * 60 + seconds)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn retry_after_reads_seconds_and_dates() {
        let now = UNIX_EPOCH + Duration::from_secs(784_111_777);
        let table = [
            ("7", Some(7)),
            (" 0 ", Some(0)),
            ("Sun, 06 Nov 1994 08:49:47 GMT", Some(10)),
            ("Sun, 06 Nov 1994 08:49:37 GMT", Some(0)),
            ("Thu, 01 Jan 1970 00:00:00 GMT", Some(0)),
            ("Tue, 29 Feb 2028 12:00:00 GMT", Some(1_835_438_400 - 784_111_777)),
            ("soon", None),
            ("-1", None),
            ("Sun, 06 Nov 1994 08:49 GMT", None),
        ];
        for (text, seconds) in table {
            assert_eq!(retry_after(text, now), seconds.map(Duration::from_secs), "{text}");
        }
    }

    #[tokio::test]
    async fn tries_are_counted_and_an_hour_is_not_waited() {
        let failed = |again| Failed { error: Error::Unsupported { what: "x".into() }, again };
        let mut backoff =
            Backoff::new(RetryPolicy { tries: 3, delay: Duration::from_millis(1), ..RetryPolicy::default() });
        assert!(backoff.wait(failed(Again::Later)).await.is_ok());
        assert!(backoff.wait(failed(Again::Later)).await.is_ok());
        assert!(backoff.wait(failed(Again::Later)).await.is_err());
        let mut backoff = Backoff::new(RetryPolicy::default());
        let started = Instant::now();
        assert!(backoff.wait(failed(Again::After(Duration::from_millis(70)))).await.is_ok());
        assert!(started.elapsed() >= Duration::from_millis(70));
        assert!(backoff.wait(failed(Again::After(Duration::from_secs(3600)))).await.is_err());
        assert!(backoff.wait(failed(Again::No)).await.is_err());
    }
}
