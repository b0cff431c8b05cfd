//! One line of comma-separated values, as Go's `encoding/csv` reads it: `--mount`, `--secret`.

use std::ops::Range;

/// A field: what it says, without quotes, and where it stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Field {
    pub(crate) text: String,
    pub(crate) range: Range<usize>,
}

/// What is wrong with a line, and where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Malformed {
    pub(crate) message: &'static str,
    pub(crate) range: Range<usize>,
}

/// The fields of `line`, of which there is at least one. A field that begins with a quote ends with one, and holds commas
/// and doubled quotes; a quote inside any other field is an error.
pub(crate) fn fields(line: &str) -> Result<Vec<Field>, Malformed> {
    let mut fields = Vec::new();
    let mut start = 0;
    loop {
        let rest = &line[start..];
        let (text, length) = match rest.strip_prefix('"') {
            Some(quoted) => {
                let (text, length) = unquote(quoted).ok_or(Malformed {
                    message: "a quoted field has no end, or goes on after it",
                    range: start..line.len(),
                })?;
                (text, length + 1)
            }
            None => {
                let length = rest.find(',').unwrap_or(rest.len());
                if let Some(at) = rest[..length].find('"') {
                    let at = start + at;
                    let message = "a quote stands in the middle of a field: quote the whole field";
                    return Err(Malformed { message, range: at..at + 1 });
                }
                (rest[..length].to_owned(), length)
            }
        };
        fields.push(Field { text, range: start..start + length });
        start += length + 1;
        if start > line.len() {
            return Ok(fields);
        }
    }
}

/// The text up to the closing quote, which a comma or the end must follow, and the number of bytes that it takes.
fn unquote(quoted: &str) -> Option<(String, usize)> {
    let mut text = String::new();
    let mut chars = quoted.char_indices().peekable();
    while let Some((at, c)) = chars.next() {
        match (c, chars.peek()) {
            ('"', Some((_, '"'))) => {
                chars.next();
                text.push('"');
            }
            ('"', None | Some((_, ','))) => return Some((text, at + 1)),
            ('"', Some(_)) => return None,
            _ => text.push(c),
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_between_commas() {
        let cases: [(&str, &[&str]); 9] = [
            ("", &[""]),
            ("a=b", &["a=b"]),
            ("a,b=c,", &["a", "b=c", ""]),
            (",", &["", ""]),
            (r#""a,b",c"#, &["a,b", "c"]),
            (r#"a,"b ""c""""#, &["a", "b \"c\""]),
            (r#""",a"#, &["", "a"]),
            (r#"a,"b"#, &[]),
            ("é, ü", &["é", " ü"]),
        ];
        for (line, expected) in cases {
            let texts = fields(line).map(|fields| fields.into_iter().map(|field| field.text).collect::<Vec<_>>());
            match expected {
                [] => assert!(texts.is_err(), "{line}"),
                _ => assert_eq!(texts.unwrap(), expected, "{line}"),
            }
        }
    }

    #[test]
    fn fields_know_their_place() {
        let line = r#"é=1,"a,""b""",c"#;
        let places: Vec<&str> = fields(line).unwrap().into_iter().map(|field| &line[field.range]).collect();
        assert_eq!(places, ["é=1", r#""a,""b""""#, "c"]);
    }

    #[test]
    fn misplaced_quotes_are_refused_where_they_are() {
        for (line, range) in [(r#"a,b"c"#, 3..4), (r#"a,"b"#, 2..4), (r#""a"b"#, 0..4)] {
            assert_eq!(fields(line).unwrap_err().range, range, "{line}");
        }
    }
}
