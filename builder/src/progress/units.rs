//! Times and sizes for people.

use std::time::Duration;

/// A time in seconds: `0.04 s`, `12.3 s`.
pub(crate) fn seconds(time: Duration) -> String {
    let seconds = time.as_secs_f64();
    if seconds < 10.0 { format!("{seconds:.2} s") } else { format!("{seconds:.1} s") }
}

/// A long time in the unit that says enough: `40 s`, `90 min`, `36 h`, `14 days`.
pub(crate) fn age(seconds: u64) -> String {
    match seconds {
        0..120 => format!("{seconds} s"),
        120..7_200 => format!("{} min", seconds / 60),
        7_200..172_800 => format!("{} h", seconds / 3_600),
        _ => format!("{} days", seconds / 86_400),
    }
}

/// A size in decimal units: `12.3 MB`.
pub(crate) fn bytes(size: u64) -> String {
    match size {
        0..1_000 => format!("{size} B"),
        1_000..1_000_000 => format!("{:.1} kB", size as f64 / 1e3),
        1_000_000..1_000_000_000 => format!("{:.1} MB", size as f64 / 1e6),
        _ => format!("{:.2} GB", size as f64 / 1e9),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_and_times_have_units() {
        assert_eq!(
            [bytes(5), bytes(1_500), bytes(12_340_000), bytes(2_500_000_000)],
            ["5 B", "1.5 kB", "12.3 MB", "2.50 GB"]
        );
        assert_eq!(seconds(Duration::from_millis(40)), "0.04 s");
        assert_eq!([age(119), age(7_199), age(172_799), age(172_800)], ["119 s", "119 min", "47 h", "2 days"]);
    }
}
