//! The scanner behind expansion: quotes, escapes and the forms of `$`.

use std::borrow::Cow;

use super::pattern::{Pattern, Reach};
use super::suggest::closest;
use super::{Diagnostic, Span, Variables};

/// Text as it is put together, with the places where it may be split.
#[derive(Default)]
pub(super) struct Value {
    pub(super) text: String,
    /// The byte ranges of the spaces at which the text splits.
    breaks: Vec<(usize, usize)>,
    /// Something quoted was here: an empty word is a word.
    quoted: bool,
}

impl Value {
    fn push(&mut self, c: char) {
        if c.is_whitespace() {
            self.breaks.push((self.text.len(), self.text.len() + c.len_utf8()));
        }
        self.text.push(c);
    }

    /// Adds what stays together.
    fn push_whole(&mut self, text: &str) {
        self.text.push_str(text);
    }

    /// Adds the value of a variable, or of a word inside `${…}`.
    fn push_split(&mut self, text: &str) {
        text.chars().for_each(|c| self.push(c));
    }

    /// The text split at its unquoted spaces.
    pub(super) fn words(self) -> Vec<String> {
        let end = (self.text.len(), self.text.len());
        let mut from = 0;
        let mut words = Vec::new();
        for &(start, stop) in self.breaks.iter().chain([&end]) {
            if start > from {
                words.push(self.text[from..start].to_owned());
            }
            from = stop;
        }
        if words.is_empty() && self.quoted {
            words.push(String::new());
        }
        words
    }
}

/// What becomes of an escape character.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Escapes {
    /// It is taken off.
    Taken,
    /// It stays, as a `\` whichever it was: patterns need it.
    Pattern,
    /// It stays as it is, as BuildKit leaves it in a replacement.
    Kept,
}

/// Reads a word from left to right and puts its value together.
pub(super) struct Expander<'a> {
    text: &'a str,
    at: usize,
    span: Span,
    escape: char,
    variables: &'a dyn Variables,
    quotes: bool,
    depth: usize,
}

/// How deep `${a:-${b:-…}}` may nest. A Dockerfile needs three; the bound keeps the stack.
const DEEPEST: usize = 100;

/// The longest value in bytes. Substitutions multiply each other's lengths, and nothing that takes a value from here can
/// hold as much.
pub(super) const LONGEST: usize = 1 << 20;

impl<'a> Expander<'a> {
    /// An expander of `text`, which stands at `span`.
    pub(super) fn new(text: &'a str, span: Span, escape: char, variables: &'a dyn Variables) -> Self {
        Self { text, at: 0, span, escape, variables, quotes: true, depth: 0 }
    }

    /// The same, where quotes are ordinary characters.
    pub(super) fn without_quotes(self) -> Self {
        Self { quotes: false, ..self }
    }

    /// The value of the whole text.
    pub(super) fn whole(mut self) -> Result<Value, Diagnostic> {
        self.until(None, Escapes::Taken)
    }

    fn peek(&self) -> Option<char> {
        self.text[self.at..].chars().next()
    }

    fn next(&mut self) -> Option<char> {
        let c = self.peek()?;
        self.at += c.len_utf8();
        Some(c)
    }

    /// The error `message` about the text from `start` to here. Where a word runs over a continuation its bytes are not
    /// the file's, and the whole word is the place.
    fn error(&self, start: usize, message: impl Into<String>) -> Diagnostic {
        Diagnostic::new(message).at(self.place(start))
    }

    /// The place of the text from `start` to here.
    fn place(&self, start: usize) -> Span {
        if self.span.len() == self.text.len() {
            Span::new(self.span.start + start, self.span.start + self.at)
        } else {
            self.span
        }
    }

    /// Expands up to `stop`, which is consumed, or up to the end.
    fn until(&mut self, stop: Option<char>, escapes: Escapes) -> Result<Value, Diagnostic> {
        let start = self.at;
        let mut value = Value::default();
        while let Some(c) = self.peek() {
            if stop == Some(c) {
                self.at += c.len_utf8();
                return Ok(value);
            }
            match c {
                '\'' if self.quotes => {
                    let text = self.single_quoted()?;
                    value.push_whole(&text);
                    value.quoted = true;
                }
                '"' if self.quotes => {
                    let text = self.double_quoted()?;
                    value.push_whole(&text);
                    value.quoted = true;
                }
                '$' => {
                    let text = self.dollar()?;
                    value.push_split(&text);
                }
                c if c == self.escape || (escapes == Escapes::Pattern && c == '\\') => {
                    self.next();
                    match escapes {
                        Escapes::Taken => {}
                        Escapes::Pattern => value.push('\\'),
                        Escapes::Kept => value.push(c),
                    }
                    if let Some(escaped) = self.next() {
                        value.push_whole(escaped.encode_utf8(&mut [0; 4]));
                    }
                }
                c => {
                    self.next();
                    value.push(c);
                }
            }
            self.check_length(start, value.text.len())?;
        }
        match stop {
            None => Ok(value),
            Some(stop) => Err(self.error(start, format!("the word ends before a closing '{stop}'"))),
        }
    }

    fn check_length(&self, start: usize, length: usize) -> Result<(), Diagnostic> {
        if length <= LONGEST { Ok(()) } else { Err(self.error(start, "the value is longer than 1 MiB")) }
    }

    fn single_quoted(&mut self) -> Result<String, Diagnostic> {
        let start = self.at;
        self.next();
        match self.text[self.at..].find('\'') {
            Some(length) => {
                let text = self.text[self.at..self.at + length].to_owned();
                self.at += length + 1;
                Ok(text)
            }
            None => {
                self.at = self.text.len();
                Err(self.error(start, "the word ends before a closing single quote"))
            }
        }
    }

    fn double_quoted(&mut self) -> Result<String, Diagnostic> {
        let start = self.at;
        self.next();
        let mut text = String::new();
        while let Some(c) = self.peek() {
            match c {
                '"' => {
                    self.next();
                    return Ok(text);
                }
                '$' => {
                    text.push_str(&self.dollar()?);
                    self.check_length(start, text.len())?;
                }
                c if c == self.escape => {
                    self.next();
                    let Some(escaped) = self.next() else { break };
                    if escaped != '"' && escaped != '$' && escaped != self.escape {
                        text.push(c);
                    }
                    text.push(escaped);
                }
                c => {
                    self.next();
                    text.push(c);
                }
            }
        }
        Err(self.error(start, "the word ends before a closing double quote"))
    }

    /// Expands what begins with `$`. A `$` that names nothing is itself.
    fn dollar(&mut self) -> Result<String, Diagnostic> {
        let start = self.at;
        self.next();
        if self.peek() != Some('{') {
            let name = self.name();
            return Ok(match name {
                "" => "$".to_owned(),
                name => self.variable(start, name).unwrap_or_default().into(),
            });
        }
        self.next();
        if self.depth >= DEEPEST {
            return Err(self.error(start, "the substitution nests too deep"));
        }
        self.depth += 1;
        let value = self.braced(start);
        self.depth -= 1;
        value
    }

    fn name(&mut self) -> &'a str {
        let rest = &self.text[self.at..];
        let digits = rest.len() - rest.trim_start_matches(char::is_numeric).len();
        let length = match rest.chars().next() {
            Some(c) if "@*#?-$!0".contains(c) => 1,
            _ if digits > 0 => digits,
            _ => rest.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(rest.len()),
        };
        self.at += length;
        &rest[..length]
    }

    /// The value of the variable `name`, whose `$` stands at `start`.
    fn variable(&self, start: usize, name: &str) -> Option<Cow<'a, str>> {
        let value = self.variables.get(name);
        if value.is_none() {
            let place = self.place(start);
            // A closing brace right behind the name belongs to it.
            let braced = self.text[start..].starts_with("${") && self.peek() == Some('}');
            let end = if braced && place != self.span { place.end + 1 } else { place.end };
            self.variables.unset(name, Span::new(place.start, end));
        }
        value
    }

    /// Expands what follows `${`.
    fn braced(&mut self, start: usize) -> Result<String, Diagnostic> {
        if matches!(self.peek(), Some('{' | '}' | ':')) {
            self.next();
            let error = self.error(start, "bad substitution: '${' needs a variable's name");
            return Err(error.help("write ${NAME}, or \\$ for a dollar sign"));
        }
        let name = self.name();
        let value = self.variable(start, name);
        let operator = match self.next() {
            Some('}') => return Ok(value.unwrap_or_default().into()),
            Some(':') => match self.next() {
                Some(operator @ ('-' | '+' | '?')) => {
                    let value = value.filter(|value| !value.is_empty());
                    return self.conditional(start, name, operator, value, true);
                }
                operator => operator.map_or_else(|| ":".to_owned(), |operator| format!(":{operator}")),
            },
            Some(operator @ ('-' | '+' | '?')) => return self.conditional(start, name, operator, value, false),
            Some(operator @ ('#' | '%')) => return self.strip(operator, &value.unwrap_or_default()),
            Some('/') => return self.replace(&value.unwrap_or_default()),
            Some(operator) => operator.to_string(),
            None => return Err(self.error(start, "the word ends before a closing '}'")),
        };
        let error = self.error(start, format!("unsupported modifier '{operator}' in a substitution"));
        Err(error.help("behind the name stand :- :+ :? - + ? # ## % %% / // or '}'"))
    }

    /// `-`, `+` and `?`. The caller has already taken an empty value for unset where there was a `:`.
    fn conditional(
        &mut self,
        start: usize,
        name: &str,
        operator: char,
        value: Option<Cow<'a, str>>,
        colon: bool,
    ) -> Result<String, Diagnostic> {
        let word = self.until(Some('}'), Escapes::Taken)?.text;
        Ok(match (operator, value) {
            ('+', None) => String::new(),
            ('+', Some(_)) | ('-', None) => word,
            (_, Some(value)) => value.into(),
            (_, None) => {
                let or_empty = if colon { " or empty" } else { "" };
                let word = if word.is_empty() { format!("the variable must not be unset{or_empty}") } else { word };
                let error = self.error(start, format!("{name}: {word}"));
                let names = self.variables.names();
                let meant = closest(name, names.iter().copied().filter(|other| *other != name));
                return Err(match meant.filter(|_| !names.contains(&name)) {
                    Some(meant) => error.help(format!("did you mean ${meant}?")),
                    None => error,
                });
            }
        })
    }

    /// `#`, `##`, `%` and `%%`.
    fn strip(&mut self, operator: char, value: &str) -> Result<String, Diagnostic> {
        let reach = if self.peek() == Some(operator) {
            self.next();
            Reach::Longest
        } else {
            Reach::Shortest
        };
        let pattern = self.pattern('}')?;
        Ok(match operator {
            '#' => pattern.strip_prefix(value, reach),
            _ => pattern.strip_suffix(value, reach),
        }
        .to_owned())
    }

    /// `/` and `//`.
    fn replace(&mut self, value: &str) -> Result<String, Diagnostic> {
        let all = self.peek() == Some('/');
        if all {
            self.next();
        }
        let start = self.at;
        let pattern = self.pattern('/')?;
        let replacement = self.until(Some('}'), Escapes::Kept)?.text;
        let replaced = pattern.replace(value, &replacement, all, LONGEST);
        replaced.ok_or_else(|| self.error(start, "the value is longer than 1 MiB"))
    }

    /// The pattern up to `stop`.
    fn pattern(&mut self, stop: char) -> Result<Pattern, Diagnostic> {
        let start = self.at;
        Pattern::new(&self.until(Some(stop), Escapes::Pattern)?.text).map_err(|escape| {
            let error = self.error(start, format!("'{escape}' means nothing in a pattern"));
            error.help("a pattern can escape *, ?, \\, } and /")
        })
    }
}
