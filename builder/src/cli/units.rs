//! Numbers with units: durations as Go writes them (`336h`, `1.5h`, `2190h0m0s`), and days, which Go lacks; sizes in
//! decimal units (`500MB`, `1.5GB`).

use std::time::Duration;

/// Units of time and their nanoseconds.
const TIMES: [(&str, u128); 9] = [
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

/// Units of size and their bytes.
const SIZES: [(&str, u128); 6] =
    [("B", 1), ("kB", 1_000), ("KB", 1_000), ("MB", 1_000_000), ("GB", 1_000_000_000), ("TB", 1_000_000_000_000)];

/// The digits of a fraction that can matter; a day in nanoseconds has no more.
const FRACTION: usize = 15;

/// Reads numbers with units, such as `1h30m`. A bare `0` is the only number that needs none.
pub(super) fn duration(text: &str) -> Result<Duration, String> {
    let wrong = || format!("'{text}' is not a duration such as 336h, 1h30m or 14d");
    if text == "0" {
        return Ok(Duration::ZERO);
    }
    let mut rest = text;
    let mut nanoseconds: u128 = 0;
    while !rest.is_empty() {
        let (part, after) = part(rest, &TIMES).ok_or_else(wrong)?;
        nanoseconds = nanoseconds.checked_add(part).ok_or_else(wrong)?;
        rest = after;
    }
    let seconds = u64::try_from(nanoseconds / 1_000_000_000).map_err(|_| wrong())?;
    // What is left is below a billion.
    let left = (nanoseconds % 1_000_000_000) as u32;
    if text.is_empty() { Err(wrong()) } else { Ok(Duration::new(seconds, left)) }
}

/// Reads one number with a unit, in bytes.
pub(super) fn size(text: &str) -> Result<u64, String> {
    let bytes = match part(text, &SIZES) {
        Some((bytes, "")) => u64::try_from(bytes).ok(),
        _ => None,
    };
    bytes.ok_or_else(|| format!("'{text}' is not a size such as 500MB or 10GB"))
}

/// A number and its unit, and what follows them.
fn part<'t>(text: &'t str, units: &[(&str, u128)]) -> Option<(u128, &'t str)> {
    let (number, after) = split(text, |c| c.is_ascii_digit() || c == '.');
    let (unit, after) = split(after, |c| !c.is_ascii_digit() && c != '.');
    let (_, unit) = units.iter().find(|(name, _)| *name == unit)?;
    Some((times(number, *unit)?, after))
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
            assert_eq!(duration(text), Ok(Duration::from_secs_f64(seconds)), "{text}");
        }
    }

    #[test]
    fn what_is_no_duration_is_refused() {
        for text in
            ["", "5", "h", ".", ".h", "1.2.3h", "-1h", "+1h", "1 h", "1w", "1H", "1h5", "9999999999999999999999999d"]
        {
            assert!(duration(text).is_err_and(|error| error.contains("336h")), "{text}");
        }
        let long = "9".repeat(60) + "h";
        assert!(duration(&long).is_err());
    }
    #[test]
    fn sizes_are_decimal() {
        for (text, bytes) in
            [("0B", 0), ("5B", 5), ("1.5kB", 1_500), ("2KB", 2_000), ("500MB", 500_000_000), ("10GB", 10_000_000_000)]
        {
            assert_eq!(size(text), Ok(bytes), "{text}");
        }
        for text in ["", "5", "MB", "5 MB", "5MiB", "5mb", "-5MB", "1GB5MB", "99999999TB"] {
            assert!(size(text).is_err_and(|error| error.contains("10GB")), "{text}");
        }
    }
}
