//! What is wrong in a Dockerfile, where, and what to do about it.

use std::fmt;
use std::ops::Range;

use annotate_snippets::{AnnotationKind, Group, Level as SnippetLevel, Renderer, Snippet};

use super::{Check, Rule, Source, Span};

/// How much a [`Diagnostic`] weighs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Level {
    /// The build cannot go on.
    Error,
    /// The build goes on.
    Warning,
}

/// A message about a place in a Dockerfile.
///
/// `Display` gives the message alone, for logs; [`render`](Self::render) shows the place as well.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Diagnostic {
    /// Error or warning.
    pub level: Level,
    /// What is wrong, in one line.
    pub message: String,
    /// Where. A message about the whole file has no place.
    pub span: Option<Span>,
    /// A few words beside the caret.
    pub label: Option<String>,
    /// What to write instead.
    pub help: Option<String>,
    /// The check whose finding this is.
    pub check: Option<Check>,
}

impl Diagnostic {
    /// An error that says `message`.
    pub fn new(message: impl Into<String>) -> Self {
        Self { level: Level::Error, message: message.into(), span: None, label: None, help: None, check: None }
    }

    /// A warning that says `message`.
    pub fn warning(message: impl Into<String>) -> Self {
        Self { level: Level::Warning, ..Self::new(message) }
    }

    /// The warning of a check about `instruction`, which is its place unless [`at`](Self::at) gives a closer one.
    pub fn finding(rule: Rule, instruction: Span, message: impl Into<String>) -> Self {
        let check = Check { rule, instruction: instruction.start };
        Self { check: Some(check), ..Self::warning(message) }.at(instruction)
    }

    /// The error for something that the language has and the builder does not carry out yet: `RUN --mount`, say.
    pub fn not_carried_out(what: impl fmt::Display, span: Span) -> Self {
        Self::new(format!("{what} is not carried out yet")).at(span).label("the image would differ without it")
    }

    /// The same message, at `span`.
    #[must_use]
    pub fn at(self, span: Span) -> Self {
        Self { span: Some(span), ..self }
    }

    /// The same message, at `span` unless it already has a place.
    #[must_use]
    pub fn or_at(self, span: Span) -> Self {
        Self { span: self.span.or(Some(span)), ..self }
    }

    /// The same message, with `label` beside the caret.
    #[must_use]
    pub fn label(self, label: impl Into<String>) -> Self {
        Self { label: Some(label.into()), ..self }
    }

    /// The same message, with advice.
    #[must_use]
    pub fn help(self, help: impl Into<String>) -> Self {
        Self { help: Some(help.into()), ..self }
    }

    /// The message with file, line, column, the source line and a caret under the place. Long lines are cut around the
    /// caret; control characters of the file do not reach the terminal.
    pub fn render(&self, source: &Source, color: bool) -> String {
        let level = match self.level {
            Level::Error => SnippetLevel::ERROR,
            Level::Warning => SnippetLevel::WARNING,
        };
        let title = level.primary_title(printable(&self.message));
        let mut group = Group::with_title(match self.check {
            Some(check) => title.id(check.rule.name()),
            None => title,
        });
        group = match self.span {
            Some(span) => {
                let (line, range) = first_line(&source.text, span);
                let (line, range) = without_controls(line, range);
                let annotation = AnnotationKind::Primary.span(range).label(self.label.as_deref().map(printable));
                let snippet = Snippet::source(line).path(printable(&source.name)).line_start(source.line(span.start));
                group.element(snippet.annotation(annotation))
            }
            None => group.element(annotate_snippets::Origin::path(printable(&source.name))),
        };
        if let Some(help) = &self.help {
            group = group.element(SnippetLevel::HELP.message(printable(help)));
        }
        let renderer = if color { Renderer::styled() } else { Renderer::plain() };
        renderer.render(&[group])
    }
}

impl fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Diagnostic {}

/// The line that holds the start of `span`, and the part of the span on that line, in whole characters.
///
/// A span over several lines is shown by its first: an instruction may have thousands.
fn first_line(text: &str, span: Span) -> (&str, Range<usize>) {
    let at = floor(text, span.start);
    let start = text[..at].rfind('\n').map_or(0, |newline| newline + 1);
    let end = text[at..].find('\n').map_or(text.len(), |newline| at + newline);
    let line = text[start..end].trim_end_matches('\r');
    let from = floor(line, at - start);
    let to = floor(line, span.end.saturating_sub(start)).max(from);
    (line, from..to)
}

/// `line` with those control characters shown as escapes that the renderer lets pass: all beyond ASCII.
fn without_controls(line: &str, range: Range<usize>) -> (String, Range<usize>) {
    let shown = |text: &str| -> String {
        let is_control = |c: &char| c.is_control() && !c.is_ascii();
        text.chars().map(|c| if is_control(&c) { c.escape_default().to_string() } else { c.to_string() }).collect()
    };
    let (before, inside, after) = (shown(&line[..range.start]), shown(&line[range.clone()]), shown(&line[range.end..]));
    let range = before.len()..before.len() + inside.len();
    (before + &inside + &after, range)
}

/// The greatest character boundary of `text` that is not after `offset`.
fn floor(text: &str, offset: usize) -> usize {
    let mut offset = offset.min(text.len());
    while !text.is_char_boundary(offset) {
        offset -= 1;
    }
    offset
}

/// `text` with control characters shown as escapes, so that a file cannot command the terminal.
pub(crate) fn printable(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { c.escape_default().to_string() } else { c.to_string() }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn source(text: &str) -> Source {
        Source::new("app/Dockerfile", text)
    }

    #[test]
    fn the_place_is_shown_with_file_line_and_caret() {
        let error = Diagnostic::new("unknown instruction: RNU").at(Span::new(7, 10)).help("did you mean RUN?");
        let rendered = error.render(&source("FROM a\nRNU true\nRUN b\n"), false);
        let expected = "\
error: unknown instruction: RNU
 --> app/Dockerfile:2:1
  |
2 | RNU true
  | ^^^
  |
  = help: did you mean RUN?";
        assert_eq!(rendered, expected);
    }

    #[test]
    fn a_finding_names_its_check() {
        let finding =
            Diagnostic::finding(Rule::UndefinedVar, Span::new(0, 7), "nothing defines $x").at(Span::new(4, 6));
        let expected = "\
warning[UndefinedVar]: nothing defines $x
 --> app/Dockerfile:1:5
  |
1 | ENV $x=1
  |     ^^";
        assert_eq!(finding.render(&source("ENV $x=1"), false), expected);
    }

    #[test]
    fn a_message_without_a_place_names_the_file() {
        let rendered = Diagnostic::warning("empty").render(&source(""), false);
        assert_eq!(rendered, "warning: empty\n--> app/Dockerfile");
    }

    #[test]
    fn a_long_line_is_cut_around_the_caret() {
        let text = format!("RUN {}HERE{}", "x".repeat(30_000), "y".repeat(30_000));
        let at = text.find("HERE").unwrap();
        let rendered = Diagnostic::new("no").at(Span::new(at, at + 4)).label("this").render(&source(&text), false);
        assert!(rendered.lines().all(|line| line.chars().count() < 200), "{rendered}");
        assert!(rendered.contains("HERE") && rendered.contains("^^^^ this"), "{rendered}");
    }

    #[test]
    fn a_span_of_several_lines_is_shown_by_its_first() {
        let rendered = Diagnostic::new("no").at(Span::new(0, 12)).render(&source("RUN a \\\r\n  b\r\n"), false);
        assert!(rendered.ends_with("1 | RUN a \\\n  | ^^^^^^^"), "{rendered}");
    }

    #[test]
    fn spans_outside_the_text_or_inside_a_character_do_no_harm() {
        for span in [Span::new(50, 90), Span::new(1, 2), Span::new(3, 1), Span::new(0, 1)] {
            Diagnostic::new("no").at(span).render(&source("é\u{1b}[31m\né"), true);
        }
    }

    #[test]
    fn control_characters_do_not_reach_the_terminal() {
        let error = Diagnostic::new("bad \u{1b}[2J").at(Span::new(0, 1));
        let rendered = error.render(&source("RUN \u{1b}[2J\u{7}"), false);
        assert!(!rendered.contains('\u{1b}') && !rendered.contains('\u{7}'), "{rendered}");
        // To some terminals U+009D begins a command, too.
        let error = Diagnostic::new("no").at(Span::new(6, 9));
        let rendered = error.render(&source("RUN \u{9d}bad \u{9b}"), false);
        assert!(rendered.ends_with("1 | RUN \\u{9d}bad \\u{9b}\n  |           ^^^"), "{rendered}");
    }
}
