//! Trying again: which failures, when, and how often.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::time::Instant;

use super::ClientInner;
use super::patience::{random, spread};
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
    /// In requests of no more than so many bytes each: a token is over before more of them have come.
    InParts(u64),
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
pub(crate) struct Backoff<'c> {
    client: &'c ClientInner,
    host: &'c str,
    tries: u32,
    first: Option<Instant>,
}

impl<'c> Backoff<'c> {
    pub(crate) fn new(client: &'c ClientInner, host: &'c str) -> Self {
        Self { client, host, tries: 0, first: None }
    }

    /// Counts anew: something was achieved.
    pub(crate) fn reset(&mut self) {
        (self.tries, self.first) = (0, None);
    }

    /// Waits before the next try, or returns the failure where there must be none.
    pub(crate) async fn wait(&mut self, failed: Failed) -> Result<(), Error> {
        self.tries += 1;
        let delay = match failed.again {
            Again::No | Again::InParts(_) => return Err(failed.error),
            Again::Later => self.delay(),
            Again::After(delay) => delay,
        };
        let first = *self.first.get_or_insert_with(Instant::now);
        // A registry that asks for an hour gets its error reported now: waiting less would only be refused again.
        let policy = self.client.options.retry;
        let left = policy.give_up_after.checked_sub(first.elapsed());
        if self.tries >= policy.tries || left.is_none_or(|left| delay > left) {
            return Err(failed.error);
        }
        self.spare(&failed.error, delay);
        let asked_for = matches!(failed.again, Again::After(_));
        tokio::time::sleep(if asked_for { delay + spread(delay) } else { delay }).await;
        Ok(())
    }

    fn delay(&self) -> Duration {
        let policy = self.client.options.retry;
        let doubled = policy.delay.saturating_mul(1 << (self.tries - 1).min(16));
        doubled.min(policy.longest).mul_f64(0.5 + random() / 2.0)
    }

    /// A host that cannot take more is left alone by all other requests, too: with many uploads at once each would be
    /// refused by itself. That a limit is reached is told.
    fn spare(&self, error: &Error, delay: Duration) {
        let Error::Refused { status: status @ (429 | 503), .. } = error else { return };
        self.client.patience.pause(self.host, delay);
        if *status == 429 {
            let text = || {
                let seconds = delay.as_secs_f64().ceil();
                format!("{} limits how often it is asked, and is asked again in {seconds} s: {error}", self.host)
            };
            self.client.warn_once(&format!("429 {}", self.host), text);
        }
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
    if !(1970..10_000).contains(&year) || !(1..=31).contains(&day) || hours > 23 || minutes > 59 || seconds > 60 {
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
    use crate::{Client, ClientOptions, RetryPolicy};

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
            // What would be no number any more.
            ("18446744073709551615", Some(u64::MAX)),
            ("18446744073709551616", None),
            ("Sun, 06 Nov 1994 18446744073709551615:49:37 GMT", None),
            ("Sun, 06 Nov 1994 08:18446744073709551615:37 GMT", None),
            ("Sun, 06 Nov 1994 08:49:18446744073709551615 GMT", None),
            ("Fri, 31 Dec 9999 23:59:59 GMT", Some(253_402_300_799 - 784_111_777)),
        ];
        for (text, seconds) in table {
            assert_eq!(retry_after(text, now), seconds.map(Duration::from_secs), "{text}");
        }
    }

    fn failed(again: Again) -> Failed {
        Failed { error: Error::Unsupported { what: "x".into() }, again }
    }

    #[tokio::test]
    async fn tries_are_counted_and_an_hour_is_not_waited() {
        let retry = RetryPolicy { tries: 3, delay: Duration::from_millis(1), ..RetryPolicy::default() };
        let client = Client::new(ClientOptions { retry, ..ClientOptions::default() }).unwrap();
        let mut backoff = Backoff::new(&client.0, "host");
        assert!(backoff.wait(failed(Again::Later)).await.is_ok());
        assert!(backoff.wait(failed(Again::Later)).await.is_ok());
        assert!(backoff.wait(failed(Again::Later)).await.is_err());
        backoff.reset();
        let started = Instant::now();
        assert!(backoff.wait(failed(Again::After(Duration::from_millis(70)))).await.is_ok());
        assert!(started.elapsed() >= Duration::from_millis(70));
        assert!(backoff.wait(failed(Again::After(Duration::from_secs(3600)))).await.is_err());
        assert!(backoff.wait(failed(Again::No)).await.is_err());
    }

    #[tokio::test]
    async fn a_wait_beyond_all_numbers_is_a_refusal_as_any_that_is_too_long() {
        let delay = Duration::from_millis(1);
        let retry = RetryPolicy { delay, ..RetryPolicy::default() };
        let client = Client::new(ClientOptions { retry, ..ClientOptions::default() }).unwrap();
        let mut backoff = Backoff::new(&client.0, "host");
        assert!(backoff.wait(failed(Again::Later)).await.is_ok());
        // Only with what has passed since then is it too much for a duration.
        tokio::time::sleep(Duration::from_millis(1100)).await;
        let longest = retry_after("18446744073709551615", SystemTime::now()).unwrap();
        assert!(backoff.wait(failed(Again::After(longest))).await.is_err());
    }

    #[tokio::test]
    async fn no_try_begins_when_the_time_is_over() {
        let (delay, give_up_after) = (Duration::from_millis(20), Duration::from_millis(150));
        let retry = RetryPolicy { tries: u32::MAX, delay, longest: delay, give_up_after };
        let client = Client::new(ClientOptions { retry, ..ClientOptions::default() }).unwrap();
        let mut backoff = Backoff::new(&client.0, "host");
        let started = Instant::now();
        let mut tries = 0;
        while backoff.wait(failed(Again::Later)).await.is_ok() {
            tries += 1;
        }
        assert!(tries > 1 && started.elapsed() < 2 * give_up_after, "{tries} in {:?}", started.elapsed());
    }

    #[test]
    fn waits_grow_and_are_no_two_alike() {
        let client = Client::new(ClientOptions::default()).unwrap();
        let mut backoff = Backoff::new(&client.0, "host");
        for (tries, longest) in [(1, 500), (2, 1000), (3, 2000), (9, 15_000), (40, 15_000)] {
            backoff.tries = tries;
            let waits: Vec<_> = (0..20).map(|_| backoff.delay()).collect();
            let (least, most) = (Duration::from_millis(longest / 2), Duration::from_millis(longest));
            assert!(waits.iter().all(|wait| (least..=most).contains(wait)), "{waits:?}");
            assert!(waits.iter().any(|wait| *wait != waits[0]), "{waits:?}");
        }
        // Nobody comes back earlier than a registry asks for, nor all at once.
        for (delay, longest) in [(0, 0), (1000, 1000), (60_000, 2000)] {
            let more: Vec<_> = (0..20).map(|_| spread(Duration::from_millis(delay))).collect();
            assert!(more.iter().all(|more| *more <= Duration::from_millis(longest)), "{more:?}");
            assert_eq!(more.iter().any(|other| *other != more[0]), delay > 0, "{more:?}");
        }
    }
}
