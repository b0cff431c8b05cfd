//! Extended headers: records of the form `<length> <key>=<value>\n`.
//!
//! The length counts, not the newline: the value of an attribute is binary and may hold one.

use std::collections::BTreeMap;

use crate::Timestamp;

/// The records of one extended header, by key. Of two records for one key the later one holds; an empty value takes back
/// what was said before.
pub(super) type Records = BTreeMap<Vec<u8>, Vec<u8>>;

/// The prefix of the keys that carry extended attributes.
pub(super) const XATTR: &[u8] = b"SCHILY.xattr.";

/// Reads the body of an extended header. `None` when it is malformed.
pub(super) fn parse(mut body: &[u8]) -> Option<Records> {
    let mut records = Records::new();
    while !body.is_empty() {
        let space = body.iter().position(|&byte| byte == b' ')?;
        let length: usize = decimal(&body[..space])?.try_into().ok()?;
        let record = body.get(space + 1..length)?.strip_suffix(b"\n")?;
        let equals = record.iter().position(|&byte| byte == b'=')?;
        let (key, value) = (&record[..equals], &record[equals + 1..]);
        if key.is_empty() {
            return None;
        }
        // An attribute may be present and empty; everything else that is empty is unsaid.
        if value.is_empty() && !key.starts_with(XATTR) {
            records.remove(key);
        } else {
            records.insert(key.to_vec(), value.to_vec());
        }
        body = &body[length..];
    }
    Some(records)
}

/// The body of an extended header that holds `records`.
pub(super) fn format(records: &Records) -> Vec<u8> {
    let mut body = Vec::new();
    for (key, value) in records {
        // The length includes its own digits.
        let rest = key.len() + value.len() + 3;
        let mut length = rest + 1;
        while rest + length.to_string().len() != length {
            length = rest + length.to_string().len();
        }
        body.extend_from_slice(format!("{length} ").as_bytes());
        body.extend_from_slice(key);
        body.push(b'=');
        body.extend_from_slice(value);
        body.push(b'\n');
    }
    body
}

/// A number of digits alone: no sign, no space.
pub(super) fn decimal(text: &[u8]) -> Option<u64> {
    let digits = std::str::from_utf8(text).ok()?;
    if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    digits.parse().ok()
}

/// A time in decimal seconds, perhaps negative, perhaps with a fraction of any length.
pub(super) fn time(text: &[u8]) -> Option<Timestamp> {
    let (negative, text) = match text.strip_prefix(b"-") {
        Some(rest) => (true, rest),
        None => (false, text),
    };
    let (whole, fraction) = match text.iter().position(|&byte| byte == b'.') {
        Some(point) => (&text[..point], &text[point + 1..]),
        None => (text, &b""[..]),
    };
    let secs = i64::try_from(decimal(whole)?).ok()?;
    if !fraction.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let digits = fraction.iter().copied().chain(std::iter::repeat(b'0')).take(9);
    let nanos = digits.fold(0, |nanos, digit| nanos * 10 + u32::from(digit - b'0'));
    Some(match (negative, nanos) {
        (false, _) => Timestamp { secs, nanos },
        (true, 0) => Timestamp::from_secs(-secs),
        (true, _) => Timestamp { secs: -secs - 1, nanos: 1_000_000_000 - nanos },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_survive_whatever_their_length() {
        for size in [0, 1, 80, 81, 82, 83, 84, 900, 980, 990, 1000, 70_000] {
            let records = Records::from([(b"SCHILY.xattr.user.a".to_vec(), vec![b'\n'; size])]);
            assert_eq!(parse(&format(&records)), Some(records), "{size}");
        }
    }

    #[test]
    fn later_records_hold_and_empty_ones_take_back() {
        let body = b"9 path=a\n9 path=b\n10 gid=12\n7 gid=\n".to_vec();
        assert_eq!(parse(&body), Some(Records::from([(b"path".to_vec(), b"b".to_vec())])));
    }

    #[test]
    fn malformed_bodies_are_refused() {
        for body in ["9 path=a", "99 path=a\n", "8 path=a\n", "path=a\n", "5 =a\n", "+9 path=\n", "0 a=b\n", "3 =\n"] {
            assert_eq!(parse(body.as_bytes()), None, "{body:?}");
        }
    }

    #[test]
    fn times_before_the_epoch_count_down() {
        let at = |text: &str| time(text.as_bytes()).map(|time| (time.secs, time.nanos));
        assert_eq!(at("12.5"), Some((12, 500_000_000)));
        assert_eq!(at("12.1234567899"), Some((12, 123_456_789)));
        assert_eq!(at("-1.25"), Some((-2, 750_000_000)));
        assert_eq!(at("-3"), Some((-3, 0)));
        for bad in ["", "-", ".5", "1.x", "1e3", "99999999999999999999"] {
            assert_eq!(at(bad), None, "{bad}");
        }
    }
}
