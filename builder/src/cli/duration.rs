//! Durations as Go writes them: `336h`, `1.5h`, `2190h0m0s`; and days, which Go lacks.

use std::time::Duration;

/// Units and their nanoseconds.
const UNITS: [(&str, u128); 9] = [
    ("ns", 1),
    ("us", 1_000),
    ("µs", 1_000),
    ("μs", 1_000),
    ("ms", 1_000_000),
    ("s", 1_000_000_000),
    ("m", 60_000_000_000),
    ("h", 3_600_000_000_000),
    ("d", 86_400_000_000_000),
];

/// The digits of a fraction that can matter; a day in nanoseconds has no more.
const FRACTION: usize = 15;

/// Reads numbers with units, such as `1h30m`. A bare `0` is the only number that needs none.
pub(super) fn parse(text: &str) -> Result<Duration, String> {
    let wrong = || format!("'{text}' is not a duration such as 336h, 1h30m or 14d");
    if text == "0" {
        return Ok(Duration::ZERO);
    }
    let mut rest = text;
    let mut nanoseconds: u128 = 0;
    while !rest.is_empty() {
        let (number, after) = split(rest, |c| c.is_ascii_digit() || c == '.');
        let (unit, after) = split(after, |c| !c.is_ascii_digit() && c != '.');
        let (_, unit) = UNITS.iter().find(|(name, _)| *name == unit).ok_or_else(wrong)?;
        let part = times(number, *unit).ok_or_else(wrong)?;
        nanoseconds = nanoseconds.checked_add(part).ok_or_else(wrong)?;
        rest = after;
    }
    let seconds = u64::try_from(nanoseconds / 1_000_000_000).map_err(|_| wrong())?;
    // What is left is below a billion.
    let left = (nanoseconds % 1_000_000_000) as u32;
    if text.is_empty() { Err(wrong()) } else { Ok(Duration::new(seconds, left)) }
}

fn split(text: &str, belongs: impl Fn(char) -> bool) -> (&str, &str) {
    text.split_at(text.find(|c| !belongs(c)).unwrap_or(text.len()))
}

/// A decimal number of units; `None` where it is no number, or too large.
fn times(number: &str, unit: u128) -> Option<u128> {
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if (whole.is_empty() && fraction.is_empty()) || fraction.contains('.') {
        return None;
    }
    let digits = |text: &str| if text.is_empty() { Some(0) } else { text.parse::<u128>().ok() };
    let fraction = &fraction[..fraction.len().min(FRACTION)];
    let below = digits(fraction)? * unit / 10_u128.pow(fraction.len() as u32);
    digits(whole)?.checked_mul(unit)?.checked_add(below)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_those_of_go_and_days() {
        let hour = 3600.0;
        for (text, seconds) in [
            ("0", 0.0),
            ("0s", 0.0),
            ("336h", 336.0 * hour),
            ("2190h0m0s", 2190.0 * hour),
            ("1.5h", 1.5 * hour),
            (".5h", 0.5 * hour),
            ("1.h", hour),
            ("90m", 1.5 * hour),
            ("1h1m1s1ms1us1µs1ns", 3_661.001_002_001),
            ("14d", 336.0 * hour),
            ("0.33333333333333333333333s", 0.333_333_333),
        ] {
            assert_eq!(parse(text), Ok(Duration::from_secs_f64(seconds)), "{text}");
        }
    }

    #[test]
    fn what_is_no_duration_is_refused() {
        for text in
            ["", "5", "h", ".", ".h", "1.2.3h", "-1h", "+1h", "1 h", "1w", "1H", "1h5", "9999999999999999999999999d"]
        {
            assert!(parse(text).is_err_and(|error| error.contains("336h")), "{text}");
        }
        let long = "9".repeat(60) + "h";
        assert!(parse(&long).is_err());
    }
}
