//! A part of a logical line, which knows its place in the file.

use std::ops::Range;

use super::lines::Line;
use super::{Diagnostic, Span, Word};

/// A part of a [`Line`].
#[derive(Clone, Copy)]
pub(super) struct Text<'l> {
    line: &'l Line,
    start: usize,
    end: usize,
}

impl<'l> Text<'l> {
    /// The whole line, trimmed.
    pub(super) fn of(line: &'l Line) -> Self {
        Self { line, start: 0, end: line.text.len() }.trim()
    }

    pub(super) fn as_str(&self) -> &'l str {
        &self.line.text[self.start..self.end]
    }

    pub(super) fn is_empty(&self) -> bool {
        self.start >= self.end
    }

    /// The place in the file.
    pub(super) fn span(&self) -> Span {
        self.line.span_of(self.start..self.end)
    }

    /// Where the part stands in its line, to compare parts.
    pub(super) fn range(&self) -> Range<usize> {
        self.start..self.end
    }

    /// A part of this part.
    pub(super) fn slice(&self, range: Range<usize>) -> Self {
        Self { line: self.line, start: self.start + range.start, end: self.start + range.end }
    }

    pub(super) fn trim(&self) -> Self {
        let text = self.as_str();
        let start = text.len() - text.trim_start().len();
        self.slice(start..start + text.trim().len())
    }

    pub(super) fn word(&self) -> Word {
        Word { raw: self.as_str().to_owned(), span: self.span() }
    }

    /// The first word and what follows it, both without surrounding white space.
    pub(super) fn split_first(&self) -> (Self, Self) {
        let text = self.as_str();
        let end = text.find(is_blank).unwrap_or(text.len());
        (self.slice(0..end), self.slice(end..text.len()).trim())
    }

    /// The words between white space. Quotes do not hold a word together.
    pub(super) fn words(&self) -> Vec<Self> {
        let mut words = Vec::new();
        let mut rest = self.trim();
        while !rest.is_empty() {
            let (word, tail) = rest.split_first();
            words.push(word);
            rest = tail;
        }
        words
    }

    /// The words between white space that is neither quoted nor escaped. Quotes and escapes stay in them; a quote that
    /// is not closed reaches to the end.
    pub(super) fn quoted_words(&self, escape: char) -> Vec<Self> {
        let mut words = Vec::new();
        let mut start = None;
        let mut quote = None;
        let mut escaped = false;
        for (at, c) in self.as_str().char_indices() {
            if start.is_none() && !c.is_whitespace() {
                start = Some(at);
            }
            let Some(begin) = start else { continue };
            if escaped {
                escaped = false;
            } else if c == escape && quote != Some('\'') {
                escaped = true;
            } else if quote == Some(c) {
                quote = None;
            } else if quote.is_none() && (c == '"' || c == '\'') {
                quote = Some(c);
            } else if quote.is_none() && c.is_whitespace() {
                words.push(self.slice(begin..at));
                start = None;
            }
        }
        words.extend(start.map(|start| self.slice(start..self.as_str().len())));
        words
    }

    /// The part before and after the first `c`.
    pub(super) fn split_once(&self, c: char) -> Option<(Self, Self)> {
        let at = self.as_str().find(c)?;
        Some((self.slice(0..at), self.slice(at + c.len_utf8()..self.as_str().len())))
    }

    /// The strings of a JSON array, or `None` where this is not one: then it is ordinary text, as `RUN [ -f x ]` is.
    pub(super) fn json(&self) -> Result<Option<Vec<String>>, Diagnostic> {
        let text = self.trim();
        if !text.as_str().starts_with('[') {
            return Ok(None);
        }
        let Ok(values) = serde_json::from_str::<Vec<serde_json::Value>>(text.as_str()) else { return Ok(None) };
        let strings = values.into_iter().map(|value| match value {
            serde_json::Value::String(text) => Ok(text),
            other => Err(Diagnostic::new("a JSON array must hold strings only")
                .at(self.span())
                .label(format!("{other} is not a string"))),
        });
        strings.collect::<Result<_, _>>().map(Some)
    }
}

/// The white space between words.
fn is_blank(c: char) -> bool {
    matches!(c, ' ' | '\t' | '\x0b' | '\x0c' | '\r')
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dockerfile::Source;
    use crate::dockerfile::lines::Lines;

    fn with<T>(text: &str, check: impl FnOnce(Text<'_>) -> T) -> T {
        let source = Source::new("Dockerfile", text);
        let line = Lines::new(&source, 0, '\\').logical().unwrap().unwrap();
        check(Text::of(&line))
    }

    #[test]
    fn words_split_at_blanks() {
        with("a \t b\x0bc  'd e' ", |text| {
            let words: Vec<&str> = text.words().iter().map(Text::as_str).collect();
            assert_eq!(words, ["a", "b", "c", "'d", "e'"]);
        });
    }

    #[test]
    fn quotes_and_escapes_hold_words_together() {
        let cases: [(&str, &[&str]); 8] = [
            ("a=b c=d", &["a=b", "c=d"]),
            ("a='b c' d", &["a='b c'", "d"]),
            (r#"a="b \" c" d"#, &[r#"a="b \" c""#, "d"]),
            (r"a=b\ c d", &[r"a=b\ c", "d"]),
            (r"a='b\' c", &[r"a='b\'", "c"]),
            ("a=\"b c", &["a=\"b c"]),
            ("\"\" ''", &["\"\"", "''"]),
            ("a\"b c\"'d e'f g", &["a\"b c\"'d e'f", "g"]),
        ];
        for (line, expected) in cases {
            with(line, |text| {
                let words: Vec<&str> = text.quoted_words('\\').iter().map(Text::as_str).collect();
                assert_eq!(words, expected, "{line}");
            });
        }
    }

    #[test]
    fn only_a_json_array_is_one() {
        let cases: [(&str, Option<&[&str]>); 9] = [
            (r#"["a", "b c"]"#, Some(&["a", "b c"])),
            (r#" [ "a" ,"\u00e9\"\n" ] "#, Some(&["a", "é\"\n"])),
            ("[]", Some(&[])),
            ("['a']", None),
            (r#"["a""#, None),
            (r#"["a"] b"#, None),
            (r#"["a",]"#, None),
            ("[ -f x ]", None),
            (r#""a""#, None),
        ];
        for (line, expected) in cases {
            let expected = expected.map(|strings| strings.iter().map(|text| (*text).to_owned()).collect());
            with(line, |text| assert_eq!(text.json().unwrap(), expected, "{line}"));
        }
    }

    #[test]
    fn a_json_array_holds_strings_only() {
        let error = with(r#"["a", 1]"#, |text| text.json().unwrap_err());
        assert_eq!(error.message, "a JSON array must hold strings only");
    }
}
