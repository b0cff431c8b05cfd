//! Here-documents: `<<NAME` in a line, and the lines that follow it up to one that is `NAME`.

use std::ops::Range;

use super::lines::{Lines, without_end};
use super::text::Text;
use super::{Diagnostic, Heredoc, Span};

/// A here-document as read: its introducer and its body.
pub(super) struct Document {
    /// Where the introducer stands in the logical line.
    pub(super) range: Range<usize>,
    /// The introducer's place in the file.
    span: Span,
    /// The word after `<<`, without quotes.
    name: String,
    /// No part of the word was quoted.
    expand: bool,
    /// The introducer was `<<-`: leading tabs do not count.
    chomp: bool,
    /// White space stands between `<<` and the word.
    apart: bool,
    /// The body as it stands in the file.
    body: String,
}

impl Document {
    /// The body without the tabs that `<<-` takes off.
    pub(super) fn content(&self) -> String {
        if !self.chomp {
            return self.body.clone();
        }
        self.body.split_inclusive('\n').map(|line| line.trim_start_matches('\t')).collect()
    }

    /// The word after `<<`, without quotes.
    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// True of a script that names its interpreter in its first line.
    pub(super) fn is_script(&self) -> bool {
        self.body.starts_with("#!")
    }

    /// What follows the introducer's line, for a shell to read: the body as written, and the terminator.
    pub(super) fn as_written(&self) -> String {
        format!("{}{}", self.body, self.name)
    }

    /// The inline file.
    pub(super) fn file(&self) -> Heredoc {
        Heredoc { name: self.name.clone(), expand: self.expand, content: self.content(), span: self.span }
    }
}

/// The here-documents that `arguments` introduces, their bodies read from `lines`, and the end of the last one.
pub(super) fn documents(
    arguments: Text<'_>,
    lines: &mut Lines<'_>,
) -> Result<(Vec<Document>, Option<usize>), Diagnostic> {
    let words = arguments.quoted_words('\\');
    let introduced = (0..words.len()).filter_map(|at| introducer(words[at], words.get(at + 1).copied(), arguments));
    let mut documents = Vec::new();
    let mut end = None;
    for mut document in introduced {
        let before = lines.clone();
        let found = loop {
            let Some((start, line)) = lines.physical()? else {
                if document.apart {
                    break false;
                }
                let error = Diagnostic::new(format!("the here-document has no end: no line is '{}'", document.name));
                let help = match document.chomp {
                    true => "the line that ends it may begin with tabs and holds the word alone",
                    false => "the line that ends it holds the word alone, without spaces",
                };
                return Err(error.at(document.span).help(help));
            };
            let text = if document.chomp { line.trim_start_matches('\t') } else { line };
            if without_end(text) == document.name {
                end = Some(start + without_end(line).len());
                break true;
            }
            document.body.push_str(line);
        };
        if found {
            documents.push(document);
        } else {
            // `$((1 << 3))`, which BuildKit takes for one without an end.
            *lines = before;
        }
    }
    Ok((documents, end))
}

/// Reads a word as `[DIGITS]<<[-]NAME`, or `[DIGITS]<<` with the name in the next one.
fn introducer(word: Text<'_>, next: Option<Text<'_>>, all: Text<'_>) -> Option<Document> {
    let text = word.as_str().trim_start_matches(|c: char| c.is_ascii_digit()).strip_prefix("<<")?;
    let (chomp, quoted) = match text.strip_prefix('-') {
        Some(quoted) => (true, quoted),
        None => (false, text),
    };
    let apart = text.is_empty();
    let last = if apart { next? } else { word };
    let quoted = if apart { last.as_str() } else { quoted };
    if quoted.is_empty() || quoted.contains('<') {
        return None;
    }
    let name = unquote(quoted);
    let expand = name == quoted;
    let offset = all.range().start;
    let whole = all.slice(word.range().start - offset..last.range().end - offset);
    Some(Document { range: whole.range(), span: whole.span(), name, expand, chomp, apart, body: String::new() })
}

/// `text` without its quotes and escapes.
fn unquote(text: &str) -> String {
    let mut out = String::new();
    let mut quote = None;
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        match c {
            '\\' if quote != Some('\'') => out.extend(chars.next()),
            c if quote == Some(c) => quote = None,
            '"' | '\'' if quote.is_none() => quote = Some(c),
            c => out.push(c),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dockerfile::Source;

    fn read(text: &str) -> Result<Vec<Heredoc>, String> {
        let source = Source::new("Dockerfile", text);
        let mut lines = Lines::new(&source, 0, '\\');
        let line = lines.logical().unwrap().unwrap();
        let (documents, _) = documents(Text::of(&line), &mut lines).map_err(|error| error.message)?;
        Ok(documents.iter().map(Document::file).collect())
    }

    #[test]
    fn introducers_are_words_of_their_own() {
        let cases: [(&str, &[(&str, bool)]); 18] = [
            ("<<EOF", &[("EOF", true)]),
            ("cat <<EOF > f", &[("EOF", true)]),
            ("cat 3<<-EOF", &[("EOF", true)]),
            ("a <<'EOF' <<\"B\"", &[("EOF", false), ("B", false)]),
            ("<<E\"O\"F", &[("EOF", false)]),
            ("<<\\EOF", &[("EOF", false)]),
            ("<<$x", &[("$x", true)]),
            ("a<<EOF", &[]),
            ("a << EOF", &[("EOF", true)]),
            ("a 3<<  \"EOF\" b", &[("EOF", false)]),
            ("a <<- EOF", &[]),
            ("a << <EOF", &[]),
            ("a <<<EOF", &[]),
            ("echo \"a <<EOF\"", &[]),
            ("echo 'a <<EOF'", &[]),
            ("echo \\ <<EOF", &[]),
            ("echo $((1<<3))", &[]),
            ("a <<-", &[]),
        ];
        for (line, expected) in cases {
            let ends: String = expected.iter().map(|(name, _)| format!("{name}\n")).collect();
            let documents = read(&format!("{line}\n{ends}")).unwrap();
            let found: Vec<(&str, bool)> =
                documents.iter().map(|document| (document.name.as_str(), document.expand)).collect();
            assert_eq!(found, expected, "{line}");
        }
    }

    #[test]
    fn two_signs_alone_introduce_nothing_where_no_line_ends_it() {
        let source = Source::new("Dockerfile", "echo $((1 << 3)) <<EOF\ntext\nEOF\nnext\n");
        let mut lines = Lines::new(&source, 0, '\\');
        let line = lines.logical().unwrap().unwrap();
        let (documents, _) = documents(Text::of(&line), &mut lines).unwrap_or_else(|error| panic!("{error}"));
        assert_eq!(documents.iter().map(Document::content).collect::<Vec<_>>(), ["text\n"]);
        assert_eq!(lines.physical().unwrap_or_else(|error| panic!("{error}")).unwrap().1, "next\n");
    }

    #[test]
    fn bodies_follow_in_order() {
        let documents = read("cmd <<A <<-B\n one\n\\\n# no comment\nA\n\ttwo\n\t\tB \n\tB\nrest\n").unwrap();
        let bodies: Vec<&str> = documents.iter().map(|document| document.content.as_str()).collect();
        assert_eq!(bodies, [" one\n\\\n# no comment\n", "two\nB \n"]);
    }

    #[test]
    fn a_terminator_may_have_a_windows_line_end() {
        assert_eq!(read("cmd <<A\r\nx\r\nA\r\n").unwrap()[0].content, "x\r\n");
    }

    #[test]
    fn a_body_without_end_is_refused() {
        assert_eq!(read("cmd <<A\nx\n A\n").unwrap_err(), "the here-document has no end: no line is 'A'");
    }
}
