//! Readers for values that are complete only once variables are expanded: durations, ports, signals.

use super::Diagnostic;
use super::suggest::closest;

/// The nanoseconds of a duration in Go's syntax: `90s`, `1h30m`, `1.5s`, `300ms`.
pub fn parse_duration(text: &str) -> Result<i64, Diagnostic> {
    let invalid = || {
        Diagnostic::new(format!("'{text}' is not a duration"))
            .help("write a number and a unit: ns, us, ms, s, m or h, as in 1m30s")
    };
    let (negative, unsigned) = match text.strip_prefix(['-', '+']) {
        Some(rest) => (text.starts_with('-'), rest),
        None => (false, text),
    };
    if unsigned == "0" {
        return Ok(0);
    }
    let mut rest = unsigned;
    let mut total: i128 = 0;
    while !rest.is_empty() {
        let number_end = rest.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(rest.len());
        let (number, tail) = rest.split_at(number_end);
        let unit_end = tail.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(tail.len());
        let (unit, tail) = tail.split_at(unit_end);
        let scale = nanoseconds(unit).ok_or_else(invalid)?;
        total += scaled(number, scale).ok_or_else(invalid)?;
        // Checked in every turn, so that the sum stays far from its own limits.
        if total > i128::from(i64::MAX) {
            return Err(invalid());
        }
        rest = tail;
    }
    if unsigned.is_empty() {
        return Err(invalid());
    }
    i64::try_from(if negative { -total } else { total }).map_err(|_| invalid())
}

fn nanoseconds(unit: &str) -> Option<i128> {
    Some(match unit {
        "ns" => 1,
        "us" | "µs" | "μs" => 1_000,
        "ms" => 1_000_000,
        "s" => 1_000_000_000,
        "m" => 60_000_000_000,
        "h" => 3_600_000_000_000,
        _ => return None,
    })
}

/// `number`, which may have a fraction, times `scale`, rounded down.
fn scaled(number: &str, scale: i128) -> Option<i128> {
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if whole.is_empty() && fraction.is_empty() || fraction.contains('.') {
        return None;
    }
    // Digits beyond the eighteenth are less than a nanosecond of any unit.
    let fraction = &fraction[..fraction.len().min(18)];
    let digits = |text: &str| if text.is_empty() { Some(0) } else { text.parse::<u64>().ok().map(i128::from) };
    let power = 10_i128.pow(fraction.len() as u32);
    Some(digits(whole)? * scale + digits(fraction)? * scale / power)
}

/// The ports of one EXPOSE value, each as `port/protocol`: `80`, `53/UDP`, `8000-8010`, `127.0.0.1:8080:80/tcp`.
///
/// A host address and host port are checked and dropped: the image config has no place for them.
pub fn parse_expose(value: &str) -> Result<Vec<String>, Diagnostic> {
    let invalid = |why: &str| Diagnostic::new(format!("EXPOSE: '{value}' {why}"));
    let (ports, protocol) = match value.split_once('/') {
        Some((ports, protocol)) => (ports, protocol),
        None => (value, ""),
    };
    let protocol = if protocol.is_empty() { "tcp".to_owned() } else { protocol.to_ascii_lowercase() };
    if !PROTOCOLS.contains(&protocol.as_str()) {
        return Err(invalid("has an unknown protocol").help(match closest(&protocol, PROTOCOLS) {
            Some(meant) => format!("did you mean {ports}/{meant}?"),
            None => "the protocols are tcp, udp and sctp".to_owned(),
        }));
    }
    let (host, container) = match ports.rsplit_once(':') {
        Some((host, container)) => (Some(host.rsplit_once(':').map_or(host, |(_, port)| port)), container),
        None => (None, ports),
    };
    if container.is_empty() {
        return Err(invalid("names no port"));
    }
    let (first, last) = port_range(container).map_err(invalid)?;
    if let Some(host) = host.filter(|host| !host.is_empty()) {
        let (host_first, host_last) = port_range(host).map_err(invalid)?;
        if first != last && host_last - host_first != last - first {
            return Err(invalid("has host and container ranges of different lengths"));
        }
    }
    Ok((first..=last).map(|port| format!("{port}/{protocol}")).collect())
}

fn port_range(text: &str) -> Result<(u16, u16), &'static str> {
    let port = |text: &str| {
        let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        let number = if digits { text.parse().ok() } else { None };
        number.ok_or("is not a port: a port is a number from 0 to 65535, a range is first-last")
    };
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    let (first, last) = (port(first)?, port(last)?);
    if first > last { Err("is a range that ends before it begins") } else { Ok((first, last)) }
}

/// Checks that `value` names a signal or is the number of one: `SIGTERM`, `term`, `15`, `RTMIN+3`.
pub fn validate_stop_signal(value: &str) -> Result<(), Diagnostic> {
    let known = match value.parse::<i64>() {
        Ok(number) => (1..=64).contains(&number),
        Err(_) => {
            let name = value.to_ascii_uppercase();
            let name = name.strip_prefix("SIG").unwrap_or(&name);
            SIGNALS.contains(&name) || real_time_signal(name)
        }
    };
    if known {
        return Ok(());
    }
    let name = value.to_ascii_uppercase();
    let name = name.strip_prefix("SIG").unwrap_or(&name);
    Err(Diagnostic::new(format!("'{value}' is not a signal")).help(match closest(name, SIGNALS) {
        Some(meant) => format!("did you mean SIG{meant}?"),
        None => "write a name as SIGTERM or a number from 1 to 64".to_owned(),
    }))
}

/// True of `RTMIN`, `RTMIN+1` to `RTMIN+15`, `RTMAX-14` to `RTMAX-1` and `RTMAX`.
fn real_time_signal(name: &str) -> bool {
    let offset = |text: &str| match text.as_bytes() {
        [b'1'..=b'9'] | [b'1', b'0'..=b'5'] => text.parse::<u8>().ok(),
        _ => None,
    };
    if let Some(rest) = name.strip_prefix("RTMIN") {
        return rest.is_empty() || rest.strip_prefix('+').and_then(offset).is_some();
    }
    let Some(rest) = name.strip_prefix("RTMAX") else { return false };
    rest.is_empty() || rest.strip_prefix('-').and_then(offset).is_some_and(|offset| offset <= 14)
}

const PROTOCOLS: [&str; 3] = ["tcp", "udp", "sctp"];

/// Linux's signals without their prefix.
const SIGNALS: [&str; 34] = [
    "ABRT", "ALRM", "BUS", "CHLD", "CLD", "CONT", "FPE", "HUP", "ILL", "INT", "IO", "IOT", "KILL", "PIPE", "POLL",
    "PROF", "PWR", "QUIT", "SEGV", "STKFLT", "STOP", "SYS", "TERM", "TRAP", "TSTP", "TTIN", "TTOU", "URG", "USR1",
    "USR2", "VTALRM", "WINCH", "XCPU", "XFSZ",
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_gos() {
        let cases = [
            ("0", Some(0)),
            ("0s", Some(0)),
            ("5s", Some(5_000_000_000)),
            ("1h30m", Some(5_400_000_000_000)),
            ("1.5s", Some(1_500_000_000)),
            (".5s", Some(500_000_000)),
            ("1.s", Some(1_000_000_000)),
            ("300ms", Some(300_000_000)),
            ("1us1µs1ns", Some(2_001)),
            ("-2s", Some(-2_000_000_000)),
            ("+2s", Some(2_000_000_000)),
            ("0.3333333333333333333333h", Some(1_199_999_999_999)),
            ("", None),
            ("-", None),
            ("5", None),
            ("s", None),
            (".s", None),
            ("1.2.3s", None),
            ("5 s", None),
            ("5d", None),
            ("9999999999h", None),
            ("99999999999999999999s", None),
        ];
        for (text, expected) in cases {
            assert_eq!(parse_duration(text).ok(), expected, "{text}");
        }
    }

    #[test]
    fn ports_have_a_protocol_and_ranges_are_spelled_out() {
        let cases: [(&str, &[&str]); 8] = [
            ("80", &["80/tcp"]),
            ("53/UDP", &["53/udp"]),
            ("80/", &["80/tcp"]),
            ("9000/sctp", &["9000/sctp"]),
            ("8000-8002/udp", &["8000/udp", "8001/udp", "8002/udp"]),
            ("127.0.0.1:8080:80", &["80/tcp"]),
            ("[::1]::80", &["80/tcp"]),
            ("8080-8090:80", &["80/tcp"]),
        ];
        for (value, expected) in cases {
            assert_eq!(parse_expose(value).unwrap(), expected, "{value}");
        }
    }

    #[test]
    fn what_is_no_port_is_refused() {
        for value in ["", "/tcp", "x", "80/http", "65536", "-1", "+80", "90-80", "80-", "a:80", "1-2:80-90", "8 0"] {
            assert!(parse_expose(value).unwrap_err().message.starts_with("EXPOSE: "), "{value}");
        }
    }

    #[test]
    fn mistyped_names_are_suggested() {
        let help = |error: Result<_, Diagnostic>| error.map(|_: ()| ()).unwrap_err().help.unwrap();
        assert_eq!(help(validate_stop_signal("SIGTREM")), "did you mean SIGTERM?");
        assert_eq!(help(validate_stop_signal("kil")), "did you mean SIGKILL?");
        assert_eq!(help(validate_stop_signal("99")), "write a name as SIGTERM or a number from 1 to 64");
        assert_eq!(help(parse_expose("80/tpc").map(drop)), "did you mean 80/tcp?");
        assert_eq!(help(parse_expose("80/gopher").map(drop)), "the protocols are tcp, udp and sctp");
    }

    #[test]
    fn signals_are_names_or_numbers() {
        for value in ["SIGTERM", "term", "9", "SIGRTMIN", "RTMIN+15", "rtmax-14", "SIGRTMAX", "64"] {
            assert_eq!(validate_stop_signal(value), Ok(()), "{value}");
        }
        for value in ["", "SIG", "SIGFOO", "0", "-1", "65", "RTMIN+16", "RTMAX-15", "RTMIN+0", "RTMIN+01", "RTMAX+1"] {
            assert!(validate_stop_signal(value).is_err(), "{value}");
        }
    }
}
