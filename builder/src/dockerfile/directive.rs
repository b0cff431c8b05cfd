//! Parser directives: comments at the very top that say how to read the rest.

use super::lines::{Comment, Lines, without_end};
use super::lint::Settings;
use super::suggest::closest;
use super::{Diagnostic, Level, Source, Span};

/// What the directives say.
pub(super) struct Directives {
    /// `# escape=`
    pub(super) escape: char,
    /// `# check=`, which may be wrong: a build argument may stand in for it.
    pub(super) check: Result<Settings, Diagnostic>,
    /// Where what follows them begins.
    pub(super) end: usize,
    /// What is legal and probably not meant.
    pub(super) warnings: Vec<Diagnostic>,
}

/// The keys that mean something. Any other line is a comment.
const KEYS: [&str; 3] = ["syntax", "escape", "check"];

/// Reads the directives of `source`.
///
/// The first line that is none ends the block: a plain comment, a blank line, an unknown key, an instruction. A `#!`
/// line may stand before it, but then the escape character is not the block's to say, as in BuildKit.
pub(super) fn directives(source: &Source) -> Result<Directives, Diagnostic> {
    let mut lines = Lines::new(source, 0, '\\');
    let mut found = Directives { escape: '\\', check: Ok(Settings::default()), end: 0, warnings: Vec::new() };
    let mut seen = Vec::new();
    let mut shebang = None;
    while let Some((start, physical)) = lines.physical()? {
        let line = without_end(physical);
        let is_first = shebang.is_none();
        if *shebang.get_or_insert(line.starts_with("#!")) && is_first {
            found.end = start + physical.len();
            continue;
        }
        let Some((key, value)) = directive(line) else { break };
        let place = |part: &str| {
            let start = start + (part.as_ptr() as usize - line.as_ptr() as usize);
            Span::new(start, start + part.len())
        };
        let name = key.to_ascii_lowercase();
        if !KEYS.contains(&name.as_str()) {
            found.warnings.extend(mistyped(&name).map(|warning| warning.at(place(key))));
            break;
        }
        if seen.contains(&name) {
            let error = Diagnostic::new(format!("only one '# {name}=' directive can be used"));
            return Err(error.at(place(line.trim_end())).help("take one of them out"));
        }
        match name.as_str() {
            // The line before it ended the block, as far as BuildKit's parser is concerned.
            "escape" if shebang == Some(true) => {}
            "escape" => found.escape = escape_character(value, place(value))?,
            "check" => found.check = check(value, place(value).start, &mut found.warnings),
            _ => {}
        }
        found.end = start + physical.len();
        seen.push(name);
    }
    Ok(found)
}

/// The settings in a comment above an instruction, `# check=…`, where it is one.
///
/// One that cannot be read has no effect, as with BuildKit, and is a warning here.
pub(super) fn check_comment(comment: &Comment, warnings: &mut Vec<Diagnostic>) -> Option<Settings> {
    let (key, value) = key_and_value(&comment.text)?;
    if !key.eq_ignore_ascii_case("check") {
        return None;
    }
    let settings = check(value, comment.span().end - value.len(), warnings);
    settings.map_err(|error| warnings.push(Diagnostic { level: Level::Warning, ..error })).ok()
}

/// Reads the value of `check`. It ends at the first space; what follows is a remark.
fn check(value: &str, at: usize, warnings: &mut Vec<Diagnostic>) -> Result<Settings, Diagnostic> {
    let options = value.split(' ').next().unwrap_or(value);
    Settings::parse(options, Some(at), warnings)
}

/// The warning for a comment that looks like a directive but for its name.
fn mistyped(key: &str) -> Option<Diagnostic> {
    let meant = closest(key, KEYS)?;
    let warning = Diagnostic::warning(format!("there is no directive '{key}': the line is a comment"));
    Some(warning.help(format!("did you mean # {meant}=?")))
}

/// The key and value of a line `# key = value`.
fn directive(line: &str) -> Option<(&str, &str)> {
    key_and_value(line.strip_prefix('#')?)
}

fn key_and_value(text: &str) -> Option<(&str, &str)> {
    let (key, value) = text.split_once('=')?;
    let (key, value) = (key.trim(), value.trim());
    let name = key.starts_with(|c: char| c.is_ascii_alphabetic()) && key.chars().all(|c| c.is_ascii_alphanumeric());
    (name && !value.is_empty()).then_some((key, value))
}

fn escape_character(value: &str, span: Span) -> Result<char, Diagnostic> {
    match value {
        "\\" => Ok('\\'),
        "`" => Ok('`'),
        _ => Err(Diagnostic::new(format!("'{value}' cannot be the escape character"))
            .at(span)
            .help("the escape character is \\ or `")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn escape(text: &str) -> Result<char, String> {
        directives(&Source::new("Dockerfile", text)).map(|directives| directives.escape).map_err(|error| error.message)
    }

    #[test]
    fn the_escape_directive_counts_only_at_the_top() {
        let cases = [
            ("FROM a", '\\'),
            ("# escape=`\nFROM a", '`'),
            ("#ESCAPE = ` \r\nFROM a", '`'),
            ("# escape=\\\nFROM a", '\\'),
            ("# syntax=docker/dockerfile:1\n# escape=`\n", '`'),
            ("#!/usr/bin/env thing\n# escape=`\n", '\\'),
            ("# check=skip=all\n# escape=`\n", '`'),
            ("# comment\n# escape=`\n", '\\'),
            ("\n# escape=`\n", '\\'),
            ("# unknown=x\n# escape=`\n", '\\'),
            ("FROM a\n# escape=`\n", '\\'),
            (" # escape=`\n", '\\'),
            ("# the escape=`\n", '\\'),
        ];
        for (text, expected) in cases {
            assert_eq!(escape(text), Ok(expected), "{text:?}");
        }
    }

    #[test]
    fn wrong_directives_are_refused() {
        let cases = [
            ("# escape=x\n", "'x' cannot be the escape character"),
            ("# escape=`\n# Escape=`\n", "only one '# escape=' directive can be used"),
            ("# syntax=a\n# syntax=a\n", "only one '# syntax=' directive can be used"),
            ("# check=skip=all\n# check=error=true\n", "only one '# check=' directive can be used"),
        ];
        for (text, message) in cases {
            assert_eq!(escape(text), Err(message.to_owned()), "{text:?}");
        }
    }

    #[test]
    fn a_wrong_check_directive_is_shown_where_it_stands() {
        let source = Source::new("Dockerfile", "#!x\n# check=error=true;skipp=all\n");
        let error = directives(&source).unwrap().check.unwrap_err();
        let expected = "\
error: the checks have no option 'skipp'
 --> Dockerfile:2:20
  |
2 | # check=error=true;skipp=all
  |                    ^^^^^
  |
  = help: did you mean skip?";
        assert_eq!(error.render(&source, false), expected);
    }

    #[test]
    fn the_check_directive_ends_at_a_space() {
        let settings = |text: &str| directives(&Source::new("Dockerfile", text)).unwrap();
        let plain = settings("# check=skip=all\n").check;
        for text in
            ["#CHECK =  skip=all  \r\n", "# check=skip=all // it is generated\n", "# check=skip=all;error=F x\n"]
        {
            assert_eq!(settings(text).check, plain, "{text}");
        }
        assert_eq!(settings("# check=skip=all, x\n").warnings.len(), 2);
        assert_eq!(settings("# check=\n").check, settings("").check);
    }

    #[test]
    fn a_comment_that_is_almost_a_directive_is_a_warning() {
        let source = Source::new("Dockerfile", "# escpae = `\n# escape=`\nFROM a\n");
        let directives = directives(&source).unwrap();
        assert_eq!((directives.escape, directives.warnings.len()), ('\\', 1));
        let expected = "\
warning: there is no directive 'escpae': the line is a comment
 --> Dockerfile:1:3
  |
1 | # escpae = `
  |   ^^^^^^
  |
  = help: did you mean # escape=?";
        assert_eq!(directives.warnings[0].render(&source, false), expected);
    }

    #[test]
    fn a_check_comment_that_cannot_be_read_is_a_warning() {
        let read = |text: &str| {
            let source = Source::new("Dockerfile", format!(" #  {text}\nRUN a"));
            let line = Lines::new(&source, 0, '\\').logical().unwrap().unwrap();
            let mut warnings = Vec::new();
            (check_comment(&line.comments[0], &mut warnings), warnings)
        };
        assert!(read("Check=skip=UndefinedVar").0.is_some_and(|settings| settings != Settings::default()));
        assert_eq!(read("checked=skip=all"), (None, Vec::new()));
        let (settings, warnings) = read("check=everything");
        assert_eq!(settings, None);
        assert_eq!((warnings[0].level, warnings[0].span), (Level::Warning, Some(Span::new(10, 20))));
    }
}
