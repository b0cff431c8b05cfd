//! What each instruction leaves in an image's history, in BuildKit's words, which in turn are Go's formats.
//!
//! RUN, COPY and ADD end in `# buildkit`, whether or not they make a layer; nothing else does.

use crate::image::HealthcheckConfig;

/// Who made what may be a layer.
const BUILDKIT: &str = " # buildkit";

/// `RUN |2 A=1 B=2 /bin/sh -c text`: the stage's arguments come first, with their count.
pub(super) fn run(argv: &[String], args: &[(String, String)]) -> String {
    let mut words = vec!["RUN".to_owned()];
    if !args.is_empty() {
        words.push(format!("|{}", args.len()));
        words.extend(args.iter().map(|(name, value)| format!("{name}={value}")));
    }
    words.extend_from_slice(argv);
    words.join(" ") + BUILDKIT
}

/// `COPY --parents --chown=a --chmod=755 source destination`. BuildKit leaves the other flags out.
pub(super) fn copy(
    name: &str,
    parents: bool,
    chown: Option<&str>,
    chmod: Option<&str>,
    sources: &[String],
    destination: &str,
) -> String {
    let mut text = name.to_owned();
    if parents {
        text.push_str(" --parents");
    }
    for (flag, value) in [("chown", chown), ("chmod", chmod)] {
        text.extend(value.map(|value| format!(" --{flag}={value}")));
    }
    for word in sources.iter().map(String::as_str).chain([destination]) {
        text.push(' ');
        text.push_str(word);
    }
    text + BUILDKIT
}

/// `ENV a=b c=d`
pub(super) fn pairs(name: &str, pairs: &[(String, String)]) -> String {
    pairs.iter().fold(name.to_owned(), |text, (key, value)| format!("{text} {key}={value}"))
}

/// `ARG a=b c`
pub(super) fn args(args: &[(String, Option<String>)]) -> String {
    args.iter().fold("ARG".to_owned(), |text, (name, value)| match value {
        Some(value) => format!("{text} {name}={value}"),
        None => format!("{text} {name}"),
    })
}

/// `CMD ["a" "b"]`: Go's `%q` of a list.
pub(super) fn quoted_list(name: &str, words: &[String]) -> String {
    let words: Vec<String> = words.iter().map(|word| quoted(word)).collect();
    format!("{name} [{}]", words.join(" "))
}

/// `VOLUME [a b]`: Go's `%v` of a list.
pub(super) fn plain_list(name: &str, words: &[String]) -> String {
    format!("{name} [{}]", words.join(" "))
}

/// `HEALTHCHECK &{["CMD" "x"] "30s" "0s" "0s" "0s" '\x03'}`: Go's `%q` of the struct.
pub(super) fn healthcheck(check: &HealthcheckConfig) -> String {
    let test: Vec<String> = check.test.iter().map(|word| quoted(word)).collect();
    let times = [check.interval, check.timeout, check.start_period, check.start_interval];
    let times: Vec<String> = times.iter().map(|time| format!("\"{}\"", duration(*time))).collect();
    let retries = u32::try_from(check.retries).ok().and_then(char::from_u32).unwrap_or(char::REPLACEMENT_CHARACTER);
    let retries = escaped(retries, '\'');
    format!("HEALTHCHECK &{{[{}] {} '{retries}'}}", test.join(" "), times.join(" "))
}

/// Go's quoted form of a text.
fn quoted(text: &str) -> String {
    let escaped: String = text.chars().map(|c| escaped(c, '"')).collect();
    format!("\"{escaped}\"")
}

/// Go's form of a character between two `quote`s.
fn escaped(c: char, quote: char) -> String {
    let code = c as u32;
    match c {
        '\\' => "\\\\".into(),
        '\x07' => "\\a".into(),
        '\x08' => "\\b".into(),
        '\x0b' => "\\v".into(),
        '\x0c' => "\\f".into(),
        '\n' => "\\n".into(),
        '\r' => "\\r".into(),
        '\t' => "\\t".into(),
        c if c == quote => format!("\\{c}"),
        c if c.is_ascii_control() => format!("\\x{code:02x}"),
        // Of spaces, only the ASCII one is printed; a mark of direction or of bytes would not be seen.
        c if !c.is_ascii() && (c.is_control() || c.is_whitespace()) => format!("\\u{code:04x}"),
        '\u{ad}' | '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{feff}' => format!("\\u{code:04x}"),
        c => c.into(),
    }
}

/// Go's form of a duration in nanoseconds: `1h0m30s`, `1.5s`, `20ms`, `0s`.
fn duration(nanos: i64) -> String {
    let fraction = |nanos: i64, unit: i64, name: &str| {
        let text = format!("{}.{:0width$}", nanos / unit, nanos % unit, width = unit.ilog10() as usize);
        let text = if unit == 1 { nanos.to_string() } else { text.trim_end_matches('0').trim_end_matches('.').into() };
        format!("{text}{name}")
    };
    match nanos {
        0 => "0s".into(),
        1..1_000 => fraction(nanos, 1, "ns"),
        1_000..1_000_000 => fraction(nanos, 1_000, "µs"),
        1_000_000..1_000_000_000 => fraction(nanos, 1_000_000, "ms"),
        _ => {
            let (minutes, rest) = (nanos / 60_000_000_000, nanos % 60_000_000_000);
            let seconds = fraction(rest, 1_000_000_000, "s");
            match (minutes / 60, minutes % 60) {
                (0, 0) => seconds,
                (0, minutes) => format!("{minutes}m{seconds}"),
                (hours, minutes) => format!("{hours}h{minutes}m{seconds}"),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(text: &str) -> Vec<String> {
        text.split(' ').map(str::to_owned).collect()
    }

    #[test]
    fn run_names_the_arguments_before_the_command() {
        assert_eq!(run(&words("/bin/sh -c true"), &[]), "RUN /bin/sh -c true # buildkit");
        let args = [("A".to_owned(), "1".to_owned()), ("B".to_owned(), String::new())];
        assert_eq!(run(&words("/bin/sh -c true"), &args), "RUN |2 A=1 B= /bin/sh -c true # buildkit");
    }

    #[test]
    fn copy_names_its_flags() {
        assert_eq!(
            copy("COPY", false, Some("a:b"), Some("755"), &words("x y"), "/d/"),
            "COPY --chown=a:b --chmod=755 x y /d/ # buildkit"
        );
        assert_eq!(
            copy("COPY", true, Some("a"), None, &words("x"), "/d/"),
            "COPY --parents --chown=a x /d/ # buildkit"
        );
    }

    #[test]
    fn lists_are_quoted_as_go_does() {
        assert_eq!(quoted_list("CMD", &words("a b\"c")), "CMD [\"a\" \"b\\\"c\"]");
        assert_eq!(quoted("\u{7}\u{1}\u{7f}'\\\u{a0}é\u{85}"), "\"\\a\\x01\\x7f'\\\\\\u00a0é\\u0085\"");
        assert_eq!(plain_list("VOLUME", &words("/a /b")), "VOLUME [/a /b]");
    }

    #[test]
    fn a_healthcheck_is_written_as_go_writes_the_struct() {
        let check = HealthcheckConfig {
            test: words("CMD x"),
            interval: 90_000_000_000,
            timeout: 1_500_000_000,
            retries: 3,
            ..Default::default()
        };
        assert_eq!(healthcheck(&check), "HEALTHCHECK &{[\"CMD\" \"x\"] \"1m30s\" \"1.5s\" \"0s\" \"0s\" '\\x03'}");
    }

    #[test]
    fn retries_are_written_as_a_character() {
        for (retries, text) in [(0, "\\x00"), (7, "\\a"), (9, "\\t"), (39, "\\'"), (34, "\""), (65, "A"), (92, "\\\\")]
        {
            let created_by = healthcheck(&HealthcheckConfig { retries, ..Default::default() });
            assert!(created_by.ends_with(&format!(" '{text}'}}")), "{retries}: {created_by}");
        }
    }

    #[test]
    fn durations_are_written_as_go_does() {
        for (nanos, text) in
            [(0, "0s"), (5, "5ns"), (1_500, "1.5µs"), (20_000_000, "20ms"), (3_600_000_000_000, "1h0m0s")]
        {
            assert_eq!(duration(nanos), text);
        }
    }
}
