//! Patterns for the names of files: those of COPY and ADD, and those of `.dockerignore`.
//!
//! The language is that of Go's `filepath.Match`, which is what Dockerfiles are written for: `*` is any text without a
//! slash, `?` any character but a slash, `[a-z]` and `[^a-z]` one character of a class, and `\` takes the special
//! meaning off the next character. `.dockerignore` adds `**`, which reaches over slashes.

/// A pattern that cannot be read: a class without end, or a `\` before nothing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the pattern '{0}' is malformed")]
pub struct BadPattern(pub String);

/// A pattern, ready to be compared with many names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Glob(Vec<Token>);

#[derive(Debug, Clone, PartialEq, Eq)]
enum Token {
    Literal(char),
    /// `?`
    Character,
    /// `*`
    Text,
    /// `[…]`
    Class {
        negated: bool,
        ranges: Vec<(char, char)>,
    },
    /// `**` at the end: anything.
    Path,
    /// `**/`: this token and the next may be skipped together.
    Optional,
    /// The rest of `**/`: anything up to a slash.
    UpToSlash,
}

/// True where `name` as a whole is like `pattern`.
pub fn go_match(pattern: &str, name: &str) -> Result<bool, BadPattern> {
    Ok(Glob::new(pattern)?.matches(name))
}

/// True of a pattern that is more than a name. A name must exist to be copied, a pattern may match nothing.
pub fn has_wildcard(pattern: &str) -> bool {
    let mut escaped = false;
    pattern.chars().any(|c| {
        let special = !escaped && matches!(c, '*' | '?' | '[');
        escaped = c == '\\' && !escaped;
        special
    })
}

impl Glob {
    /// Reads a pattern in which `*` stays within a name, however many stars there are.
    pub fn new(pattern: &str) -> Result<Self, BadPattern> {
        Self::read(pattern, false)
    }

    /// Reads a pattern in which `**` reaches over slashes.
    pub fn with_double_stars(pattern: &str) -> Result<Self, BadPattern> {
        Self::read(pattern, true)
    }

    /// True where `name` as a whole is like the pattern.
    pub fn matches(&self, name: &str) -> bool {
        let mut states = self.start();
        name.chars().all(|c| self.step(&mut states, c)) && states[self.0.len()]
    }

    /// True where `path` or a directory above it is like the pattern.
    pub fn matches_or_above(&self, path: &str) -> bool {
        let mut states = self.start();
        for c in path.chars() {
            if c == '/' && states[self.0.len()] {
                return true;
            }
            if !self.step(&mut states, c) {
                return false;
            }
        }
        states[self.0.len()]
    }

    /// True where a path below `directory` may be like the pattern; the empty directory is the root.
    pub fn may_match_below(&self, directory: &str) -> bool {
        let mut states = self.start();
        let slash = if directory.is_empty() { "" } else { "/" };
        let mut alive = directory.chars().chain(slash.chars()).map(|c| self.step(&mut states, c));
        alive.all(|alive| alive) && states[..self.0.len()].contains(&true)
    }

    fn read(pattern: &str, double_stars: bool) -> Result<Self, BadPattern> {
        let bad = || BadPattern(pattern.to_owned());
        let mut tokens = Vec::new();
        let mut rest = pattern;
        while let Some(c) = rest.chars().next() {
            let at_start = rest.len() == pattern.len();
            rest = &rest[c.len_utf8()..];
            match c {
                '*' if double_stars && rest.starts_with('*') => {
                    let tail = &rest[1..];
                    rest = tail.strip_prefix('/').unwrap_or(tail);
                    // `**name` at the start means every path that ends so; elsewhere and before another wildcard it
                    // means the same as `**/name`.
                    if rest.is_empty() || at_start && rest == tail && !has_wildcard(tail) && !tail.contains('\\') {
                        tokens.push(Token::Path);
                    } else {
                        tokens.extend([Token::Optional, Token::UpToSlash]);
                    }
                }
                '*' => tokens.push(Token::Text),
                '?' => tokens.push(Token::Character),
                '[' => {
                    let (class, tail) = class(rest).ok_or_else(bad)?;
                    tokens.push(class);
                    rest = tail;
                }
                '\\' => {
                    let escaped = rest.chars().next().ok_or_else(bad)?;
                    tokens.push(Token::Literal(escaped));
                    rest = &rest[escaped.len_utf8()..];
                }
                c => tokens.push(Token::Literal(c)),
            }
        }
        Ok(Self(tokens))
    }

    /// The places in the pattern that a name can be at before its first character. The place behind the last token is
    /// a match. All are followed at once, so that no pattern takes more than its length times that of the name.
    fn start(&self) -> Vec<bool> {
        let mut states = vec![false; self.0.len() + 1];
        states[0] = true;
        self.skip(&mut states);
        states
    }

    /// Follows one more character; false where no place is left.
    fn step(&self, states: &mut [bool], c: char) -> bool {
        // From the end, so that a place is read before it is written.
        states[self.0.len()] = false;
        for (at, token) in self.0.iter().enumerate().rev() {
            if !std::mem::take(&mut states[at]) {
                continue;
            }
            let (stay, advance) = match token {
                Token::Literal(expected) => (false, *expected == c),
                Token::Character => (false, c != '/'),
                Token::Text => (c != '/', false),
                Token::Class { negated, ranges } => {
                    (false, ranges.iter().any(|(low, high)| (*low..=*high).contains(&c)) != *negated)
                }
                Token::Path => (true, false),
                Token::Optional => (false, false),
                Token::UpToSlash => (true, c == '/'),
            };
            states[at] = stay;
            states[at + 1] |= advance;
        }
        self.skip(states);
        states.contains(&true)
    }

    /// Adds the places that are reached without a character.
    fn skip(&self, states: &mut [bool]) {
        for (at, token) in self.0.iter().enumerate().filter(|(_, token)| !matches!(token, Token::Literal(_))) {
            if states[at] {
                match token {
                    Token::Text | Token::Path => states[at + 1] = true,
                    Token::Optional => {
                        states[at + 1] = true;
                        states[at + 2] = true;
                    }
                    _ => {}
                }
            }
        }
    }
}

/// Reads a class from behind its `[`, and gives what follows it.
fn class(text: &str) -> Option<(Token, &str)> {
    let (negated, mut rest) = match text.strip_prefix('^') {
        Some(rest) => (true, rest),
        None => (false, text),
    };
    let mut ranges = Vec::new();
    loop {
        if let Some(tail) = rest.strip_prefix(']').filter(|_| !ranges.is_empty()) {
            return Some((Token::Class { negated, ranges }, tail));
        }
        let (low, tail) = class_character(rest)?;
        let (high, tail) = match tail.strip_prefix('-') {
            Some(tail) => class_character(tail)?,
            None => (low, tail),
        };
        ranges.push((low, high));
        rest = tail;
    }
}

fn class_character(text: &str) -> Option<(char, &str)> {
    let text = match text.chars().next()? {
        '-' | ']' => return None,
        '\\' => &text[1..],
        _ => text,
    };
    let c = text.chars().next()?;
    Some((c, &text[c.len_utf8()..]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_match_as_gos_do() {
        let cases = [
            ("abc", "abc", true),
            ("*", "abc", true),
            ("*c", "abc", true),
            ("a*", "a", true),
            ("a*", "abc", true),
            ("a*", "ab/c", false),
            ("a*/b", "abc/b", true),
            ("a*/b", "a/c/b", false),
            ("a*b*c*d*e*/f", "axbxcxdxe/f", true),
            ("a*b*c*d*e*/f", "axbxcxdxexxx/f", true),
            ("a*b*c*d*e*/f", "axbxcxdxe/xxx/f", false),
            ("a*b?c*x", "abxbbxdbxebxczzx", true),
            ("a*b?c*x", "abxbbxdbxebxczzy", false),
            ("ab[c]", "abc", true),
            ("ab[b-d]", "abc", true),
            ("ab[e-g]", "abc", false),
            ("ab[^c]", "abc", false),
            ("ab[^e-g]", "abc", true),
            ("a\\*b", "a*b", true),
            ("a\\*b", "ab", false),
            ("a?b", "a☺b", true),
            ("a[^a]b", "a☺b", true),
            ("a???b", "a☺b", false),
            ("[a-ζ]*", "α", true),
            ("*[a-ζ]", "A", false),
            ("a?b", "a/b", false),
            ("a*b", "a/b", false),
            ("[\\]a]", "]", true),
            ("[\\-]", "-", true),
            ("[x\\-]", "-", true),
            ("[x\\-]", "z", false),
            ("*x", "xxx", true),
            ("**/x", "a/b/x", false),
            ("", "", true),
            ("", "a", false),
        ];
        for (pattern, name, expected) in cases {
            assert_eq!(go_match(pattern, name), Ok(expected), "{pattern} {name}");
        }
    }

    #[test]
    fn malformed_patterns_are_refused() {
        for pattern in ["[]a]", "[-]", "[x-]", "[-x]", "[a-b-c]", "[", "[^", "[^bc", "a[", "\\", "a\\", "[a\\"] {
            assert_eq!(go_match(pattern, "a"), Err(BadPattern(pattern.to_owned())), "{pattern}");
        }
    }

    #[test]
    fn double_stars_reach_over_slashes() {
        let cases = [
            ("**", "a/b", true),
            ("a/**", "a/b/c", true),
            ("a/**", "a", false),
            ("a**", "ab/c", true),
            ("**/b", "b", true),
            ("**/b", "a/x/b", true),
            ("**/b", "ab", false),
            ("**b", "ab", true),
            ("**b*", "ab", false),
            ("**b*", "a/bc", true),
            ("a/**/b", "a/b", true),
            ("a/**/b", "a/x/y/b", true),
            ("a/**/b", "ab", false),
            ("**/*.py[co]", "x/y.pyc", true),
            ("**/a/**", "x/a/b", true),
        ];
        for (pattern, name, expected) in cases {
            assert_eq!(Glob::with_double_stars(pattern).unwrap().matches(name), expected, "{pattern} {name}");
        }
    }

    #[test]
    fn a_directory_is_worth_entering_where_the_pattern_reaches_below_it() {
        let cases = [
            ("a/b", "a", true),
            ("a/b", "", true),
            ("a/b", "b", false),
            ("a/b", "a/b", false),
            ("*/c", "a", true),
            ("*/c", "a/b", false),
            ("**/c", "a/b", true),
            ("a/**/c", "b", false),
            ("a*", "ab", false),
        ];
        for (pattern, directory, expected) in cases {
            let glob = Glob::with_double_stars(pattern).unwrap();
            assert_eq!(glob.may_match_below(directory), expected, "{pattern} {directory}");
        }
    }

    #[test]
    fn wildcards_are_known_from_names() {
        let cases = [("a/b", false), ("a*", true), ("a?", true), ("[a]", true), ("a\\*", false), ("a\\\\*", true)];
        for (pattern, expected) in cases {
            assert_eq!(has_wildcard(pattern), expected, "{pattern}");
        }
    }
}
