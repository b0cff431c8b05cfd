//! From a word as written to its value: variables are replaced, quotes and escapes are taken off.
//!
//! | form | value |
//! |---|---|
//! | `$v` `${v}` | the variable, or nothing |
//! | `${v-w}` `${v:-w}` | the variable, or `w` where it is unset (`:` or empty) |
//! | `${v+w}` `${v:+w}` | `w` where the variable is set (`:` and not empty), or nothing |
//! | `${v?m}` `${v:?m}` | the variable, or a failure that says `m` |
//! | `${v#p}` `${v##p}` `${v%p}` `${v%%p}` | the variable without its shortest or longest start or end like `p` |
//! | `${v/p/r}` `${v//p/r}` | the variable with the first `p`, or every one, replaced by `r` |
//!
//! `w`, `m`, `p` and `r` may hold variables in turn. `'…'` is literal; in `"…"` the escape character is taken off before
//! `"`, `$` and itself, elsewhere before any character.

use std::borrow::Cow;
use std::collections::BTreeMap;

use super::pattern::{Pattern, Reach};
use super::{Diagnostic, Heredoc, Span, Word};

/// Where expansion finds the values of variables.
pub trait Variables {
    /// The value of the variable `name`, or `None` where it is unset. An empty value is not unset.
    fn get(&self, name: &str) -> Option<Cow<'_, str>>;
}

impl Variables for BTreeMap<String, String> {
    fn get(&self, name: &str) -> Option<Cow<'_, str>> {
        self.get(name).map(|value| Cow::Borrowed(value.as_str()))
    }
}

impl<F: Fn(&str) -> Option<String>> Variables for F {
    fn get(&self, name: &str) -> Option<Cow<'_, str>> {
        self(name).map(Cow::Owned)
    }
}

/// The value of `word` as one text, whatever spaces the variables hold.
pub fn expand(word: &Word, escape: char, variables: &dyn Variables) -> Result<String, Diagnostic> {
    let mut expander = Expander::new(&word.raw, word.span, escape, variables);
    Ok(expander.until(None, Literal::No)?.text)
}

/// The value of `word` split at the spaces that its unquoted variables hold: EXPOSE takes several ports from one.
pub fn expand_words(word: &Word, escape: char, variables: &dyn Variables) -> Result<Vec<String>, Diagnostic> {
    let mut expander = Expander::new(&word.raw, word.span, escape, variables);
    Ok(expander.until(None, Literal::No)?.words())
}

/// The content of an inline file. Quotes are ordinary characters there, and the escape character is always `\`.
pub fn expand_heredoc(heredoc: &Heredoc, variables: &dyn Variables) -> Result<String, Diagnostic> {
    if !heredoc.expand {
        return Ok(heredoc.content.clone());
    }
    let mut expander = Expander::new(&heredoc.content, heredoc.span, '\\', variables);
    expander.quotes = false;
    let value = expander.until(None, Literal::No).map_err(|error| error.at(heredoc.span))?;
    Ok(value.text)
}

/// Text as it is put together, with the places where it may be split.
#[derive(Default)]
struct Value {
    text: String,
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

    fn words(self) -> Vec<String> {
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

/// Whether the escape character stays in the text: patterns need it.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Literal {
    No,
    Escapes,
}

struct Expander<'a> {
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

impl<'a> Expander<'a> {
    fn new(text: &'a str, span: Span, escape: char, variables: &'a dyn Variables) -> Self {
        Self { text, at: 0, span, escape, variables, quotes: true, depth: 0 }
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
        let span = if self.span.len() == self.text.len() {
            Span::new(self.span.start + start, self.span.start + self.at)
        } else {
            self.span
        };
        Diagnostic::new(message).at(span)
    }

    /// Expands up to `stop`, which is consumed, or up to the end.
    fn until(&mut self, stop: Option<char>, literal: Literal) -> Result<Value, Diagnostic> {
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
                c if c == self.escape || (literal == Literal::Escapes && c == '\\') => {
                    self.next();
                    if literal == Literal::Escapes {
                        value.push('\\');
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
        }
        match stop {
            None => Ok(value),
            Some(stop) => Err(self.error(start, format!("the word ends before a closing '{stop}'"))),
        }
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
                '$' => text.push_str(&self.dollar()?),
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
            return Ok(if name.is_empty() { "$".to_owned() } else { self.variable(name).unwrap_or_default().into() });
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

    fn variable(&self, name: &str) -> Option<Cow<'a, str>> {
        self.variables.get(name)
    }

    /// Expands what follows `${`.
    fn braced(&mut self, start: usize) -> Result<String, Diagnostic> {
        if matches!(self.peek(), Some('{' | '}' | ':')) {
            self.next();
            return Err(self.error(start, "bad substitution: '${' needs a variable's name"));
        }
        let name = self.name();
        let value = self.variable(name);
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
        Err(self.error(start, format!("unsupported modifier '{operator}' in a substitution")))
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
        let word = self.until(Some('}'), Literal::No)?.text;
        Ok(match (operator, value) {
            ('+', None) => String::new(),
            ('+', Some(_)) | ('-', None) => word,
            (_, Some(value)) => value.into(),
            (_, None) => {
                let or_empty = if colon { " or empty" } else { "" };
                let word = if word.is_empty() { format!("the variable must not be unset{or_empty}") } else { word };
                return Err(self.error(start, format!("{name}: {word}")));
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
        let pattern = Pattern::new(&self.until(Some('}'), Literal::Escapes)?.text);
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
        let pattern = Pattern::new(&self.until(Some('/'), Literal::Escapes)?.text);
        let replacement = self.until(Some('}'), Literal::No)?.text;
        Ok(pattern.replace(value, &replacement, all))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn variables(name: &str) -> Option<String> {
        let value = match name {
            "x" => "value",
            "empty" => "",
            "y" => "x y",
            "file" => "a/b.tar.gz",
            "_é1" => "unicode",
            "ports" => "80 443",
            _ => return None,
        };
        Some(value.to_owned())
    }

    fn word(raw: &str) -> Word {
        Word { raw: raw.to_owned(), span: Span::new(100, 100 + raw.len()) }
    }

    fn with_backslash(raw: &str) -> Result<String, Diagnostic> {
        expand(&word(raw), '\\', &variables)
    }

    #[test]
    fn words_expand() {
        let cases = [
            ("plain", "plain"),
            ("", ""),
            ("$x", "value"),
            ("${x}", "value"),
            ("$x-$x", "value-value"),
            ("a${x}b", "avalueb"),
            ("$unset", ""),
            ("$xx", ""),
            ("${_é1}$_é1", "unicodeunicode"),
            ("$1$10$@$*$#$?$-$$$!$0", ""),
            ("$10x", "x"),
            ("${1}${@}", ""),
            ("$", "$"),
            ("a$", "a$"),
            ("$.$/", "$.$/"),
            ("$y", "x y"),
            // `-` and `+`
            ("${unset-w}|${empty-w}|${x-w}", "w||value"),
            ("${unset:-w}|${empty:-w}|${x:-w}", "w|w|value"),
            ("${unset+w}|${empty+w}|${x+w}", "|w|w"),
            ("${unset:+w}|${empty:+w}|${x:+w}", "||w"),
            ("${x?m}${x:?m}${empty?m}", "valuevalue"),
            ("${unset:-}", ""),
            ("${unset:-a b}", "a b"),
            ("${unset:-$x}", "value"),
            ("${unset:-${empty:-${x}}}", "value"),
            ("${unset:-'}'}", "}"),
            ("${unset:-\\}}", "}"),
            ("${unset:-\"a}b\"}", "a}b"),
            // patterns
            ("${file#*/}", "b.tar.gz"),
            ("${file%.*}|${file%%.*}", "a/b.tar|a/b"),
            ("${file##*[a]}", "a/b.tar.gz"),
            ("${file%${unset:-.gz}}", "a/b.tar"),
            ("${file/a/$x}", "value/b.tar.gz"),
            ("${file//a/_}", "_/b.t_r.gz"),
            ("${file//\\//_}", "a_b.tar.gz"),
            ("${file//./}", "a/btargz"),
            ("${unset/a/b}${unset#a}", ""),
            // quotes
            ("'$x'", "$x"),
            ("'a\\'", "a\\"),
            ("\"$x ${x}\"", "value value"),
            ("\"\\$x \\\" \\\\ \\n\"", "$x \" \\ \\n"),
            ("\"'$x'\"", "'value'"),
            ("'\"'", "\""),
            ("a'b'\"c\"d", "abcd"),
            ("\\$x", "$x"),
            ("\\a\\'\\\"\\\\", "a'\"\\"),
            ("a\\ b", "a b"),
            ("a\\", "a"),
            ("C:\\\\dir", "C:\\dir"),
        ];
        for (raw, expected) in cases {
            assert_eq!(with_backslash(raw).as_deref(), Ok(expected), "{raw}");
        }
    }

    #[test]
    fn malformed_words_fail_at_their_place() {
        let cases = [
            ("${}", "bad substitution: '${' needs a variable's name", 0..3),
            ("${:x}", "bad substitution: '${' needs a variable's name", 0..3),
            ("a${{x}", "bad substitution: '${' needs a variable's name", 1..4),
            ("${x", "the word ends before a closing '}'", 0..3),
            ("${", "the word ends before a closing '}'", 0..2),
            ("${x:-a", "the word ends before a closing '}'", 5..6),
            ("${x:=y}", "unsupported modifier ':=' in a substitution", 0..5),
            ("${x:#y}", "unsupported modifier ':#' in a substitution", 0..5),
            ("${x:}", "unsupported modifier ':}' in a substitution", 0..5),
            ("${x!}", "unsupported modifier '!' in a substitution", 0..4),
            ("${x/a}", "the word ends before a closing '/'", 4..6),
            ("ab'c", "the word ends before a closing single quote", 2..4),
            ("\"c", "the word ends before a closing double quote", 0..2),
            ("\"c\\", "the word ends before a closing double quote", 0..3),
        ];
        for (raw, message, range) in cases {
            let error = with_backslash(raw).unwrap_err();
            assert_eq!(error.message, message, "{raw}");
            assert_eq!(error.span, Some(Span::new(100 + range.start, 100 + range.end)), "{raw}");
        }
    }

    #[test]
    fn a_question_mark_fails_with_its_message() {
        let cases = [
            ("${unset?give it}", "unset: give it"),
            ("${empty:?give $x}", "empty: give value"),
            ("${unset?}", "unset: the variable must not be unset"),
            ("${empty:?}", "empty: the variable must not be unset or empty"),
        ];
        for (raw, message) in cases {
            assert_eq!(with_backslash(raw).unwrap_err().message, message, "{raw}");
        }
    }

    #[test]
    fn a_backtick_can_be_the_escape_character() {
        let cases = [("`$x", "$x"), ("C:\\$x", "C:\\value"), ("\"`$x\\\"", "$x\\"), ("${file//`//_}", "a_b.tar.gz")];
        for (raw, expected) in cases {
            assert_eq!(expand(&word(raw), '`', &variables).as_deref(), Ok(expected), "{raw}");
        }
    }

    #[test]
    fn words_split_at_the_spaces_of_unquoted_variables() {
        let cases: [(&str, &[&str]); 7] = [
            ("$ports", &["80", "443"]),
            ("${unset:-1 2}", &["1", "2"]),
            ("\"$ports\"", &["80 443"]),
            ("a${ports}b", &["a80", "443b"]),
            ("$unset", &[]),
            ("\"\"", &[""]),
            ("8\\ 0", &["8 0"]),
        ];
        for (raw, expected) in cases {
            assert_eq!(expand_words(&word(raw), '\\', &variables).unwrap(), expected, "{raw}");
        }
    }

    #[test]
    fn inline_files_keep_quotes_and_lose_escapes() {
        let heredoc = |expand| Heredoc {
            name: "EOF".to_owned(),
            expand,
            content: "'$x' \"${x}\"\n\\$x \\\\ \\\n".to_owned(),
            span: Span::new(0, 5),
        };
        assert_eq!(expand_heredoc(&heredoc(true), &variables).unwrap(), "'value' \"value\"\n$x \\ \n");
        assert_eq!(expand_heredoc(&heredoc(false), &variables).unwrap(), heredoc(false).content);
    }

    #[test]
    fn deep_nesting_is_an_error() {
        let raw = "${x+".repeat(50_000);
        assert_eq!(with_backslash(&raw).unwrap_err().message, "the substitution nests too deep");
    }

    #[test]
    fn a_map_gives_variables() {
        let map = BTreeMap::from([("a".to_owned(), "b".to_owned())]);
        assert_eq!(expand(&word("$a"), '\\', &map).unwrap(), "b");
    }
}
