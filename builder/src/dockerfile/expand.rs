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

use super::substitute::Expander;
use super::{Diagnostic, Heredoc, Span, Word};

/// Where expansion finds the values of variables.
pub trait Variables {
    /// The value of the variable `name`, or `None` where it is unset. An empty value is not unset.
    fn get(&self, name: &str) -> Option<Cow<'_, str>>;

    /// Expansion met the unset variable `name` at a place, and goes on.
    fn unset(&self, name: &str, at: Span) {
        _ = (name, at);
    }

    /// The variables there are, to find the one that was meant.
    fn names(&self) -> Vec<&str> {
        Vec::new()
    }
}

impl Variables for BTreeMap<String, String> {
    fn get(&self, name: &str) -> Option<Cow<'_, str>> {
        self.get(name).map(|value| Cow::Borrowed(value.as_str()))
    }

    fn names(&self) -> Vec<&str> {
        self.keys().map(String::as_str).collect()
    }
}

impl<F: Fn(&str) -> Option<String>> Variables for F {
    fn get(&self, name: &str) -> Option<Cow<'_, str>> {
        self(name).map(Cow::Owned)
    }
}

/// The value of `word` as one text, whatever spaces the variables hold.
pub fn expand(word: &Word, escape: char, variables: &dyn Variables) -> Result<String, Diagnostic> {
    Ok(Expander::new(&word.raw, word.span, escape, variables).whole()?.text)
}

/// The value of `word` split at the spaces that its unquoted variables hold: EXPOSE takes several ports from one.
pub fn expand_words(word: &Word, escape: char, variables: &dyn Variables) -> Result<Vec<String>, Diagnostic> {
    Ok(Expander::new(&word.raw, word.span, escape, variables).whole()?.words())
}

/// The content of an inline file. Quotes are ordinary characters there, and the escape character is always `\`.
pub fn expand_heredoc(heredoc: &Heredoc, variables: &dyn Variables) -> Result<String, Diagnostic> {
    if !heredoc.expand {
        return Ok(heredoc.content.clone());
    }
    let expander = Expander::new(&heredoc.content, heredoc.span, '\\', variables).without_quotes();
    // The text is not that of the span, which is the introducer's.
    Ok(expander.whole().map_err(|error| error.at(heredoc.span))?.text)
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

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
            ("${file//\\//\\/}", "a\\/b.tar.gz"),
            ("${file/$x/w}${file/b*/}", "a/b.tar.gza/"),
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
            ("${x//a}", "the word ends before a closing '/'", 5..7),
            ("${x/a/b", "the word ends before a closing '}'", 6..7),
            ("${x#\\a}", "'\\a' means nothing in a pattern", 4..7),
            ("${x=y}", "unsupported modifier '=' in a substitution", 0..4),
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
    fn a_variable_that_must_be_set_is_suggested() {
        let map = BTreeMap::from([("version".to_owned(), String::new())]);
        for (raw, help) in [("${verison:?}", Some("did you mean $version?")), ("${x?}", None), ("${version:?}", None)] {
            let error = expand(&word(raw), '\\', &map).unwrap_err();
            assert_eq!((error.help.as_deref(), error.span), (help, Some(word(raw).span)), "{raw}");
        }
    }

    /// Keeps what is unset.
    struct Watched(RefCell<Vec<(String, Span)>>);

    impl Variables for Watched {
        fn get(&self, name: &str) -> Option<Cow<'_, str>> {
            (name == "x").then_some(Cow::Borrowed("value"))
        }

        fn unset(&self, name: &str, at: Span) {
            self.0.borrow_mut().push((name.to_owned(), at));
        }
    }

    #[test]
    fn unset_variables_are_reported_at_their_place() {
        type Place = (&'static str, usize, usize);
        let cases: [(&str, &[Place]); 7] = [
            ("$x${x}", &[]),
            ("a$b/${c}", &[("b", 101, 103), ("c", 104, 108)]),
            ("${a:-$b}", &[("a", 100, 103), ("b", 105, 107)]),
            ("${a+b}${c%d}${e/f/g}", &[("a", 100, 103), ("c", 106, 109), ("e", 112, 115)]),
            ("'$a'\"$b\"", &[("b", 105, 107)]),
            ("\\$a", &[]),
            ("${a:?no}", &[("a", 100, 103)]),
        ];
        for (raw, expected) in cases {
            let watched = Watched(RefCell::default());
            _ = expand(&word(raw), '\\', &watched);
            let expected: Vec<_> =
                expected.iter().map(|(name, start, end)| ((*name).to_owned(), Span::new(*start, *end))).collect();
            assert_eq!(watched.0.into_inner(), expected, "{raw}");
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
    fn a_value_has_an_end() {
        let long = |name: &str| (name == "a").then(|| "a".repeat(1 << 12));
        let cases = [
            "$a".repeat(257),
            format!("\"{}\"", "$a".repeat(257)),
            "${a//a/$a}".to_owned(),
            format!("${{u:-{}}}", "$a".repeat(257)),
        ];
        for raw in cases {
            assert_eq!(expand(&word(&raw), '\\', &long).unwrap_err().message, "the value is longer than 1 MiB");
        }
        assert_eq!(expand(&word(&"$a".repeat(256)), '\\', &long).unwrap().len(), 1 << 20);
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
