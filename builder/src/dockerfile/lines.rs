//! From physical lines to logical ones: comments and blank lines dropped, continuations joined.

use std::ops::Range;

use super::{Diagnostic, Source, Span};

/// The longest physical line, in bytes without its end.
const LONGEST_LINE: usize = 65_535;

/// A logical line: an instruction's text with its continuations joined.
pub(super) struct Line {
    /// The text. Leading white space of the first line is gone, that of continuation lines is kept.
    pub(super) text: String,
    /// Its place, from the first character to the end of the last line.
    pub(super) span: Span,
    /// The comments above it, up to an empty comment or another instruction.
    pub(super) comments: Vec<Comment>,
    /// The first empty line inside it.
    pub(super) blank: Option<usize>,
    /// Which part of the text comes from where in the file: the offset in the text and in the file, in order.
    pieces: Vec<(usize, usize)>,
}

/// A comment between instructions.
pub(super) struct Comment {
    /// What follows the `#`, trimmed.
    pub(super) text: String,
    /// Where the `#` is.
    start: usize,
    /// Where the text ends.
    end: usize,
}

impl Comment {
    pub(super) fn span(&self) -> Span {
        Span::new(self.start, self.end)
    }
}

impl Line {
    fn new(start: usize) -> Self {
        Self {
            text: String::new(),
            span: Span::new(start, start),
            comments: Vec::new(),
            blank: None,
            pieces: Vec::new(),
        }
    }

    fn push(&mut self, text: &str, source: usize) {
        self.pieces.push((self.text.len(), source));
        self.text.push_str(text);
    }

    /// The place in the file of a range of the text.
    pub(super) fn span_of(&self, range: Range<usize>) -> Span {
        let source = |offset: usize| {
            let piece = self.pieces.iter().rev().find(|(at, _)| *at <= offset);
            piece.map_or(self.span.start, |(at, source)| source + offset - at)
        };
        let start = source(range.start);
        if range.is_empty() { Span::new(start, start) } else { Span::new(start, source(range.end - 1) + 1) }
    }
}

/// Reads the lines of a file in order.
#[derive(Clone)]
pub(super) struct Lines<'s> {
    text: &'s str,
    at: usize,
    escape: char,
}

impl<'s> Lines<'s> {
    /// The lines of `source` from the byte at `start` on.
    pub(super) fn new(source: &'s Source, start: usize, escape: char) -> Self {
        Self { text: &source.text, at: start, escape }
    }

    /// The next physical line, its end included, and where it begins.
    pub(super) fn physical(&mut self) -> Result<Option<(usize, &'s str)>, Diagnostic> {
        let start = self.at;
        let rest = &self.text[start..];
        if rest.is_empty() {
            return Ok(None);
        }
        let line = rest.split_inclusive('\n').next().unwrap_or(rest);
        self.at += line.len();
        if without_end(line).len() > LONGEST_LINE {
            let message = format!("the line is longer than {LONGEST_LINE} bytes");
            let help = format!("split it with '{}' at the ends of lines, or copy a file instead", self.escape);
            return Err(Diagnostic::new(message).at(Span::new(start, start + 1)).help(help));
        }
        Ok(Some((start, line)))
    }

    /// The next instruction's line, or `None` at the end of the file.
    pub(super) fn logical(&mut self) -> Result<Option<Line>, Diagnostic> {
        let mut comments = Vec::new();
        let (mut continued, mut line) = loop {
            let Some((start, physical)) = self.physical()? else { return Ok(None) };
            let text = without_end(physical).trim_start();
            let start = start + without_end(physical).len() - text.len();
            if let Some(comment) = text.strip_prefix('#') {
                match comment.trim() {
                    "" => comments.clear(),
                    comment => {
                        let end = start + text.trim_end().len();
                        comments.push(Comment { text: comment.to_owned(), start, end });
                    }
                }
                continue;
            }
            if text.is_empty() {
                continue;
            }
            let mut line = Line { comments, ..Line::new(start) };
            break (self.append(&mut line, text, start), line);
        };
        while continued {
            let Some((start, physical)) = self.physical()? else { break };
            let text = without_end(physical);
            if text.trim_start().starts_with('#') {
                continue;
            }
            if text.trim_start().is_empty() {
                line.blank.get_or_insert(start);
                continue;
            }
            continued = self.append(&mut line, text, start);
        }
        Ok(Some(line))
    }

    /// Adds a physical line to `line`. True where another one follows.
    fn append(&self, line: &mut Line, text: &str, start: usize) -> bool {
        line.span.end = start + text.trim_end().len();
        // Two escape characters at the end are an escaped escape character, and so are three: only one continues.
        let head = text.trim_end_matches([' ', '\t']).strip_suffix(self.escape);
        match head.filter(|head| !head.ends_with(self.escape)) {
            Some(head) => {
                line.push(head, start);
                true
            }
            None => {
                line.push(text, start);
                false
            }
        }
    }
}

/// `line` without its end, `\n` or `\r\n`.
pub(super) fn without_end(line: &str) -> &str {
    line.trim_end_matches(['\r', '\n'])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn logical(text: &str, escape: char) -> Vec<String> {
        let source = Source::new("Dockerfile", text);
        let mut lines = Lines::new(&source, 0, escape);
        std::iter::from_fn(|| lines.logical().unwrap()).map(|line| line.text).collect()
    }

    #[test]
    fn lines_are_joined_as_the_shell_must_see_them() {
        let cases: [(&str, &[&str]); 16] = [
            ("", &[]),
            ("\n  \n# c\n  # c\n", &[]),
            ("A\nB", &["A", "B"]),
            ("  A x  \n", &["A x  "]),
            ("A \\\n  b\n", &["A   b"]),
            ("A\\\nb\n", &["Ab"]),
            ("A \\  \t\nb\n", &["A b"]),
            ("A \\\r\n  b\r\nC\r\n", &["A   b", "C"]),
            ("A \\\n# c\n  # c \\\n  b\n", &["A   b"]),
            ("A \\\n\n   \n  b\n", &["A   b"]),
            ("A \\", &["A "]),
            ("A \\\n", &["A "]),
            ("A \\\\\nB", &["A \\\\", "B"]),
            ("A \\\\\\\nB", &["A \\\\\\", "B"]),
            ("\\\nA", &["A"]),
            ("A b#c # d\n", &["A b#c # d"]),
        ];
        for (text, expected) in cases {
            assert_eq!(logical(text, '\\'), expected, "{text:?}");
        }
        assert_eq!(logical("A c:\\\nB `\n  c", '`'), ["A c:\\", "B   c"]);
    }

    #[test]
    fn comments_belong_to_the_instruction_below_them() {
        let text = "# a\n\n  #  b \r\nA \\\n# c\n\n\n x\n# d\n#\nB\n";
        let source = Source::new("Dockerfile", text);
        let mut lines = Lines::new(&source, 0, '\\');
        let line = lines.logical().unwrap().unwrap();
        let comments: Vec<_> = line.comments.iter().map(|comment| (comment.text.as_str(), comment.span())).collect();
        assert_eq!(comments, [("a", Span::new(0, 3)), ("b", Span::new(7, 11))]);
        assert_eq!(line.blank, Some(22));
        let line = lines.logical().unwrap().unwrap();
        assert!(line.comments.is_empty() && line.blank.is_none());
    }

    #[test]
    fn a_range_of_the_text_has_its_place_in_the_file() {
        let text = "\n  RUN a \\\n# c\n  bc\n";
        let source = Source::new("Dockerfile", text);
        let line = Lines::new(&source, 0, '\\').logical().unwrap().unwrap();
        assert_eq!(line.text, "RUN a   bc");
        let place = |range| {
            let span = line.span_of(range);
            &text[span.start..span.end]
        };
        assert_eq!(place(0..3), "RUN");
        assert_eq!(place(4..5), "a");
        assert_eq!(place(8..10), "bc");
        assert_eq!(place(4..10), "a \\\n# c\n  bc");
        assert_eq!(place(10..10), "");
        assert_eq!(&text[line.span.start..line.span.end], "RUN a \\\n# c\n  bc");
    }

    #[test]
    fn a_line_may_have_65535_bytes() {
        let source = |length: usize| Source::new("Dockerfile", format!("{}\r\n", "a".repeat(length)));
        assert!(Lines::new(&source(65_535), 0, '\\').logical().is_ok());
        let error = Lines::new(&source(65_536), 0, '\\').logical().err().unwrap();
        assert_eq!(error.message, "the line is longer than 65535 bytes");
    }
}
