//! Parser directives: comments at the very top that say how to read the rest.

use super::lines::{Lines, without_end};
use super::{Diagnostic, Source, Span};

/// What the directives say.
pub(super) struct Directives {
    /// `# escape=`
    pub(super) escape: char,
}

/// Reads the directives of `source`.
///
/// The first line that is none ends the block: a plain comment, a blank line, an unknown key, an instruction. A `#!`
/// line may stand before it.
pub(super) fn directives(source: &Source) -> Result<Directives, Diagnostic> {
    let mut lines = Lines::new(source, 0, '\\');
    let mut escape = None;
    let mut seen = Vec::new();
    let mut first = true;
    while let Some((start, physical)) = lines.physical()? {
        let line = without_end(physical);
        if std::mem::take(&mut first) && line.starts_with("#!") {
            continue;
        }
        let Some((key, value)) = directive(line) else { break };
        let span = Span::new(start, start + line.trim_end().len());
        let key = key.to_ascii_lowercase();
        if !["syntax", "escape", "check"].contains(&key.as_str()) {
            break;
        }
        if seen.contains(&key) {
            return Err(Diagnostic::new(format!("only one '# {key}=' directive can be used")).at(span));
        }
        match key.as_str() {
            "escape" => escape = Some(escape_character(value, span)?),
            "check" => check(value, span)?,
            _ => {}
        }
        seen.push(key);
    }
    Ok(Directives { escape: escape.unwrap_or('\\') })
}

/// The key and value of a line `# key = value`.
fn directive(line: &str) -> Option<(&str, &str)> {
    let (key, value) = line.strip_prefix('#')?.split_once('=')?;
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

/// `skip=RULE,…|all;error=BOOL;experimental=RULE,…|all`
///
/// There are no checks to skip or to add. To turn their findings into errors is a promise that cannot be kept.
fn check(value: &str, span: Span) -> Result<(), Diagnostic> {
    for option in value.split(';') {
        let (key, setting) = option.split_once('=').unwrap_or((option, ""));
        match (key.trim().to_ascii_lowercase().as_str(), setting.trim().to_ascii_lowercase().as_str()) {
            ("skip" | "experimental", _) | ("error", "false" | "0" | "f") => {}
            ("error", "true" | "1" | "t") => return Err(Diagnostic::not_carried_out("# check=error=true", span)),
            ("error", other) => {
                return Err(Diagnostic::new(format!("'{other}' is neither true nor false")).at(span));
            }
            (other, _) => {
                return Err(Diagnostic::new(format!("unknown option '{other}' of the check directive"))
                    .at(span)
                    .help("the options are skip, error and experimental"));
            }
        }
    }
    Ok(())
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
            ("#!/usr/bin/env thing\n# escape=`\n", '`'),
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
            ("# check=error=true\n", "# check=error=true is not carried out yet"),
            ("# check=skip=A,B;error=TRUE\n", "# check=error=true is not carried out yet"),
            ("# check=error=yes\n", "'yes' is neither true nor false"),
            ("# check=skipp=all\n", "unknown option 'skipp' of the check directive"),
        ];
        for (text, message) in cases {
            assert_eq!(escape(text), Err(message.to_owned()), "{text:?}");
        }
        assert_eq!(escape("# check=skip=all;error=false;experimental=all\n"), Ok('\\'));
    }
}
