//! The text of a Dockerfile, and places in it.

use std::ops::Range;

use super::Diagnostic;

/// A Dockerfile's text and the name that messages show for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Source {
    /// The path shown in messages.
    pub name: String,
    /// The text. Line ends may be `\n` or `\r\n`.
    pub text: String,
}

impl Source {
    /// A source of `text`, shown as `name`.
    pub fn new(name: impl Into<String>, text: impl Into<String>) -> Self {
        Self { name: name.into(), text: text.into() }
    }

    /// A source of `bytes`, which must be UTF-8. A byte order mark at the start is taken off.
    ///
    /// The failure has no span, for there is no text to point into: its message names the line.
    pub fn from_bytes(name: impl Into<String>, bytes: Vec<u8>) -> Result<Self, Diagnostic> {
        let mut text = String::from_utf8(bytes).map_err(|error| {
            let valid = &error.as_bytes()[..error.utf8_error().valid_up_to()];
            let line = valid.iter().filter(|&&byte| byte == b'\n').count() + 1;
            let column = valid.iter().rev().take_while(|&&byte| byte != b'\n').count() + 1;
            Diagnostic::new(format!("the file is not UTF-8: line {line}, byte {column} cannot be read"))
                .help("save the file in the UTF-8 encoding")
        })?;
        if text.starts_with(BYTE_ORDER_MARK) {
            text.drain(..BYTE_ORDER_MARK.len_utf8());
        }
        Ok(Self { name: name.into(), text })
    }

    /// The line that holds the byte at `offset`, counted from 1.
    pub fn line(&self, offset: usize) -> usize {
        let before = &self.text.as_bytes()[..offset.min(self.text.len())];
        before.iter().filter(|&&byte| byte == b'\n').count() + 1
    }

    /// The line and the column, in characters, of the byte at `offset`, both counted from 1.
    pub fn position(&self, offset: usize) -> (usize, usize) {
        let before = String::from_utf8_lossy(&self.text.as_bytes()[..offset.min(self.text.len())]);
        let column = before.chars().rev().take_while(|&c| c != '\n').count() + 1;
        (self.line(offset), column)
    }
}

/// The byte order mark, which editors on Windows put first.
pub(super) const BYTE_ORDER_MARK: char = '\u{feff}';

/// A range of bytes in the text of a [`Source`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Span {
    /// The first byte.
    pub start: usize,
    /// The byte after the last.
    pub end: usize,
}

impl Span {
    /// The span from `start` up to `end`.
    pub fn new(start: usize, end: usize) -> Self {
        Self { start, end }
    }

    /// The number of bytes.
    pub fn len(&self) -> usize {
        self.end.saturating_sub(self.start)
    }

    /// True where the span holds nothing and only marks a place.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl From<Range<usize>> for Span {
    fn from(range: Range<usize>) -> Self {
        Self { start: range.start, end: range.end }
    }
}

/// A piece of an instruction as written: quotes, escapes and variables are still in it.
///
/// Where the word runs over a continuation its span covers the line break too, so that the span is longer than `raw`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Word {
    /// The text, unexpanded.
    pub raw: String,
    /// Its place in the file.
    pub span: Span,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_byte_order_mark_is_taken_off() {
        let source = Source::from_bytes("Dockerfile", b"\xef\xbb\xbfFROM a".to_vec()).unwrap();
        assert_eq!(source.text, "FROM a");
    }

    #[test]
    fn bytes_that_are_not_utf8_are_refused_with_their_line() {
        let error = Source::from_bytes("Dockerfile", b"FROM a\nRUN \xff".to_vec()).unwrap_err();
        assert_eq!(error.message, "the file is not UTF-8: line 2, byte 5 cannot be read");
    }

    #[test]
    fn lines_count_from_one() {
        let source = Source::new("Dockerfile", "a\nb\n");
        assert_eq!([0, 1, 2, 4, 99].map(|offset| source.line(offset)), [1, 1, 2, 3, 3]);
        let source = Source::new("Dockerfile", "a\né$b\n");
        assert_eq!([0, 2, 4, 5, 99].map(|offset| source.position(offset)), [(1, 1), (2, 1), (2, 2), (2, 3), (3, 1)]);
    }
}
