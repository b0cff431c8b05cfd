//! Flags of an instruction: `--name` or `--name=value` before its arguments.

use super::suggest::closest;
use super::text::Text;
use super::{Diagnostic, Span, Word};

/// A flag that an instruction has.
pub(super) struct Known {
    pub(super) name: &'static str,
    pub(super) kind: Kind,
}

/// How a flag is treated.
pub(super) enum Kind {
    /// It has a value and may be given once.
    Value,
    /// It has a value and may be given any number of times.
    Repeatable,
    /// `--name`, `--name=true` or `--name=false`, once.
    Boolean,
}

/// A flag with a value.
pub(super) const fn value(name: &'static str) -> Known {
    Known { name, kind: Kind::Value }
}

/// A flag with a value that may be given any number of times.
pub(super) const fn repeatable(name: &'static str) -> Known {
    Known { name, kind: Kind::Repeatable }
}

/// A flag that is on or off.
pub(super) const fn boolean(name: &'static str) -> Known {
    Known { name, kind: Kind::Boolean }
}

/// The flags that an instruction was given.
pub(super) struct Flags(Vec<(&'static str, Word)>);

impl Flags {
    /// The value of the flag `name`, where it was given.
    pub(super) fn take(&mut self, name: &str) -> Option<Word> {
        let at = self.0.iter().position(|(given, _)| *given == name)?;
        Some(self.0.remove(at).1)
    }

    /// The values of the flag `name`, in the order in which they were given.
    pub(super) fn take_all(&mut self, name: &str) -> Vec<Word> {
        std::iter::from_fn(|| self.take(name)).collect()
    }

    /// Whether the flag `name` is on; `None` where it was not given.
    pub(super) fn take_boolean(&mut self, name: &str) -> Option<bool> {
        self.take(name).map(|word| word.raw == "true")
    }
}

/// Reads the flags at the start of `arguments` and gives them with what follows.
pub(super) fn flags<'l>(
    instruction: &str,
    arguments: Text<'l>,
    known: &[Known],
) -> Result<(Flags, Text<'l>), Diagnostic> {
    let mut given: Vec<(&'static str, Word)> = Vec::new();
    let mut rest = arguments.trim();
    while rest.as_str().starts_with("--") {
        let (flag, tail) = split_flag(rest);
        rest = tail;
        if flag.text == "--" {
            break;
        }
        let (name, value) = match flag.text[2..].split_once('=') {
            Some((name, value)) => (name, Some(value)),
            None => (&flag.text[2..], None),
        };
        let Some(entry) = known.iter().find(|entry| entry.name == name) else {
            return Err(unknown(instruction, name, known, flag.span));
        };
        let Known { name, kind } = entry;
        if !matches!(kind, Kind::Repeatable) && given.iter().any(|(other, _)| other == name) {
            let error = Diagnostic::new(format!("{instruction} has --{name} twice")).at(flag.span);
            return Err(error.label("this is the second one"));
        }
        let value = match (kind, value) {
            (Kind::Boolean, None) => "true",
            (Kind::Boolean, Some(value)) if !["true", "false"].contains(&value) => {
                let error = Diagnostic::new(format!("{instruction} --{name} is true or false, not '{value}'"));
                return Err(error.at(flag.span).help(format!("write --{name} or --{name}=false")));
            }
            (_, Some(value)) => value,
            (_, None) => {
                return Err(Diagnostic::new(format!("{instruction} --{name} needs a value"))
                    .at(flag.span)
                    .help(format!("write --{name}=VALUE")));
            }
        };
        // Where quotes were taken off, and where there is no value, the flag as a whole is the place of its value.
        let span = match flag.span.len() == flag.text.len() && flag.text.ends_with(value) {
            true => Span::new(flag.span.end - value.len(), flag.span.end),
            false => flag.span,
        };
        given.push((name, Word { raw: value.to_owned(), span }));
    }
    Ok((Flags(given), rest))
}

fn unknown(instruction: &str, name: &str, known: &[Known], span: Span) -> Diagnostic {
    let error = Diagnostic::new(format!("{instruction} has no flag --{name}")).at(span);
    match closest(name, known.iter().map(|entry| entry.name)) {
        Some(name) => error.help(format!("did you mean --{name}?")),
        None if known.is_empty() => error.help("write -- before arguments that begin with two dashes"),
        None => {
            let names: Vec<String> = known.iter().map(|entry| format!("--{}", entry.name)).collect();
            error.help(format!("its flags are {}", names.join(", ")))
        }
    }
}

/// A flag as written, quotes and escapes taken off.
struct Flag {
    text: String,
    span: Span,
}

/// The flag at the start of `text`, and what follows. The escape character of flags is always `\`.
fn split_flag(text: Text<'_>) -> (Flag, Text<'_>) {
    let whole = text.as_str();
    let mut unquoted = String::new();
    let mut quote = None;
    let mut chars = whole.char_indices();
    let mut end = whole.len();
    while let Some((at, c)) = chars.next() {
        match c {
            '\\' => unquoted.extend(chars.next().map(|(_, escaped)| escaped)),
            c if quote == Some(c) => quote = None,
            '"' | '\'' if quote.is_none() => quote = Some(c),
            c if quote.is_none() && c.is_whitespace() => {
                end = at;
                break;
            }
            c => unquoted.push(c),
        }
    }
    (Flag { text: unquoted, span: text.slice(0..end).span() }, text.slice(end..whole.len()).trim())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dockerfile::Source;
    use crate::dockerfile::lines::Lines;

    const KNOWN: [Known; 4] = [value("from"), value("chown"), boolean("link"), repeatable("exclude")];

    /// The flags and, last, the rest.
    fn read(line: &str) -> Result<Vec<String>, Diagnostic> {
        let source = Source::new("Dockerfile", line);
        let line = Lines::new(&source, 0, '\\').logical().unwrap().unwrap();
        let (flags, rest) = flags("COPY", Text::of(&line), &KNOWN)?;
        let given = flags.0.into_iter().map(|(name, word)| format!("{name}|{}", word.raw));
        Ok(given.chain([rest.as_str().to_owned()]).collect())
    }

    #[test]
    fn flags_stand_before_the_arguments() {
        let cases: [(&str, &[&str]); 10] = [
            ("a b", &["a b"]),
            ("--from=x a --chown=y", &["from|x", "a --chown=y"]),
            ("--chown=a=b --from=x  a", &["chown|a=b", "from|x", "a"]),
            ("--from= a", &["from|", "a"]),
            ("-- --from=x a", &["--from=x a"]),
            ("--chown=\"a b\"'c'\\ d e", &["chown|a bc d", "e"]),
            ("-x a", &["-x a"]),
            ("--link --exclude=a b", &["link|true", "exclude|a", "b"]),
            ("--link=false a", &["link|false", "a"]),
            ("--exclude=a --link=true --exclude=b a", &["exclude|a", "link|true", "exclude|b", "a"]),
        ];
        for (line, expected) in cases {
            assert_eq!(read(line).unwrap(), expected, "{line}");
        }
    }

    #[test]
    fn wrong_flags_are_refused_by_name() {
        let cases = [
            ("--form=x a", "COPY has no flag --form", Some("did you mean --from?")),
            ("--zzz a", "COPY has no flag --zzz", Some("its flags are --from, --chown, --link, --exclude")),
            ("--from a", "COPY --from needs a value", Some("write --from=VALUE")),
            ("--from=a --from=b c", "COPY has --from twice", None),
            ("--link=1 a", "COPY --link is true or false, not '1'", Some("write --link or --link=false")),
            ("--link --link=false a", "COPY has --link twice", None),
        ];
        for (line, message, help) in cases {
            let error = read(line).unwrap_err();
            assert_eq!((error.message.as_str(), error.help.as_deref()), (message, help), "{line}");
            assert!(error.span.is_some(), "{line}");
        }
    }
}
