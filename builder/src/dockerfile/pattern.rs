//! The patterns of `${name#pattern}` and its kin.
//!
//! `*` is any text and `?` any character; `\` takes the special meaning off the next character. There are no bracket
//! expressions, as in BuildKit.

/// A compiled pattern.
pub(super) struct Pattern(Vec<Token>);

#[derive(Clone, Copy)]
enum Token {
    Literal(char),
    AnyCharacter,
    AnyText,
}

/// Which of several matches is taken.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Reach {
    Shortest,
    Longest,
}

impl Pattern {
    /// Reads a pattern, or gives the escape that is none.
    pub(super) fn new(pattern: &str) -> Result<Self, String> {
        let mut tokens = Vec::new();
        let mut chars = pattern.chars();
        while let Some(c) = chars.next() {
            tokens.push(match c {
                '*' => Token::AnyText,
                '?' => Token::AnyCharacter,
                '\\' => match chars.next() {
                    // Behind the last two the word around the pattern would end.
                    Some(c @ ('*' | '?' | '\\' | '}' | '/')) => Token::Literal(c),
                    other => return Err(format!("\\{}", other.map(String::from).unwrap_or_default())),
                },
                c => Token::Literal(c),
            });
        }
        Ok(Self(tokens))
    }

    /// `text` without the part at its start that matches.
    pub(super) fn strip_prefix<'t>(&self, text: &'t str, reach: Reach) -> &'t str {
        match matching(&self.0, text.chars(), reach) {
            Match::Of(length) => &text[length..],
            Match::Never | Match::NotBefore(_) => text,
        }
    }

    /// `text` without the part at its end that matches.
    pub(super) fn strip_suffix<'t>(&self, text: &'t str, reach: Reach) -> &'t str {
        let reversed: Vec<Token> = self.0.iter().rev().copied().collect();
        match matching(&reversed, text.chars().rev(), reach) {
            Match::Of(length) => &text[..text.len() - length],
            Match::Never | Match::NotBefore(_) => text,
        }
    }

    /// `text` with the first match replaced, or with every match replaced. A match is as long as it can be. `None` where
    /// the result has more than `limit` bytes.
    pub(super) fn replace(&self, text: &str, replacement: &str, all: bool, limit: usize) -> Option<String> {
        let mut out = String::new();
        let mut at = 0;
        // An empty match directly behind another match is none.
        let mut last_end = None;
        while at <= text.len() && out.len() <= limit {
            let next = text[at..].chars().next();
            let skipped = match matching(&self.0, text[at..].chars(), Reach::Longest) {
                Match::Of(length) if length > 0 || last_end != Some(at) => {
                    out.push_str(replacement);
                    at += length;
                    last_end = Some(at);
                    if !all {
                        break;
                    }
                    if length > 0 {
                        continue;
                    }
                    next.map_or(0, char::len_utf8)
                }
                Match::NotBefore(length) => length,
                _ => next.map_or(0, char::len_utf8),
            };
            if skipped == 0 {
                break;
            }
            out.push_str(&text[at..at + skipped]);
            at += skipped;
        }
        out.push_str(&text[at..]);
        (out.len() <= limit).then_some(out)
    }
}

/// What a pattern finds at the start of a text.
enum Match {
    /// A match of so many bytes.
    Of(usize),
    /// None here.
    Never,
    /// None here, nor at any place in so many bytes: the line or the text ended while a match was still possible, and
    /// whatever stands later could follow here, too.
    NotBefore(usize),
}

/// The start of `text` that matches `tokens` whole. Wildcards stay within a line, as in BuildKit.
///
/// All positions the pattern can stand at are followed at once, so that the time is bounded by the product of the two
/// lengths whatever the pattern.
fn matching(tokens: &[Token], text: impl Iterator<Item = char>, reach: Reach) -> Match {
    let mut states = vec![false; tokens.len() + 1];
    let mut next = states.clone();
    states[0] = true;
    let mut found = None;
    let mut length = 0;
    skip_empty(tokens, &mut states);
    // Where the pattern itself holds a line's end, a later start may still reach over it.
    let within_line = !tokens.iter().any(|token| matches!(token, Token::Literal('\n')));
    let mut text = text;
    loop {
        if states[tokens.len()] {
            found = Some(length);
            if reach == Reach::Shortest {
                return Match::Of(length);
            }
        }
        let Some(c) = text.next() else { return found.map_or(Match::NotBefore(length), Match::Of) };
        next.fill(false);
        let mut wild = false;
        for (at, token) in tokens.iter().enumerate().filter(|&(at, _)| states[at]) {
            match token {
                Token::Literal(expected) if *expected == c => next[at + 1] = true,
                Token::AnyCharacter if c != '\n' => next[at + 1] = true,
                Token::AnyText if c != '\n' => next[at] = true,
                Token::AnyText => wild = within_line,
                Token::AnyCharacter | Token::Literal(_) => {}
            }
        }
        length += c.len_utf8();
        if next.iter().all(|state| !state) {
            return found.map_or(if wild { Match::NotBefore(length) } else { Match::Never }, Match::Of);
        }
        skip_empty(tokens, &mut next);
        std::mem::swap(&mut states, &mut next);
    }
}

/// `*` matches nothing too: where the pattern can stand before one it can stand behind it.
fn skip_empty(tokens: &[Token], states: &mut [bool]) {
    for (at, token) in tokens.iter().enumerate() {
        if states[at] && matches!(token, Token::AnyText) {
            states[at + 1] = true;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prefixes_are_stripped() {
        let cases = [
            ("a/b/c", "*/", Reach::Shortest, "b/c"),
            ("a/b/c", "*/", Reach::Longest, "c"),
            ("a/b/c", "x", Reach::Longest, "a/b/c"),
            ("abc", "", Reach::Longest, "abc"),
            ("abc", "*", Reach::Shortest, "abc"),
            ("abc", "*", Reach::Longest, ""),
            ("éa", "?", Reach::Shortest, "a"),
            ("*a", "\\*", Reach::Shortest, "a"),
            ("xa", "\\*", Reach::Shortest, "xa"),
            ("[a]", "[a]", Reach::Shortest, ""),
            ("a\nb", "*", Reach::Longest, "\nb"),
            ("\nb", "?", Reach::Longest, "\nb"),
            ("/}\\a", "\\/\\}\\\\", Reach::Longest, "a"),
        ];
        for (text, pattern, reach, expected) in cases {
            assert_eq!(Pattern::new(pattern).unwrap().strip_prefix(text, reach), expected, "{text} {pattern}");
        }
    }

    #[test]
    fn suffixes_are_stripped() {
        let cases = [
            ("a.tar.gz", ".*", Reach::Shortest, "a.tar"),
            ("a.tar.gz", ".*", Reach::Longest, "a"),
            ("a.tar.gz", "z", Reach::Longest, "a.tar.g"),
            ("a.tar.gz", "t?r*", Reach::Longest, "a."),
            ("aé", "?", Reach::Longest, "a"),
        ];
        for (text, pattern, reach, expected) in cases {
            assert_eq!(Pattern::new(pattern).unwrap().strip_suffix(text, reach), expected, "{text} {pattern}");
        }
    }

    #[test]
    fn matches_are_replaced() {
        let cases = [
            ("aXbXc", "X", "-", false, "a-bXc"),
            ("aXbXc", "X", "-", true, "a-b-c"),
            ("aXbXc", "X*", "-", true, "a-"),
            ("abc", "*", "-", true, "-"),
            ("abc", "", "-", true, "-a-b-c-"),
            ("abc", "z", "-", true, "abc"),
            ("a.b", "?", "é", true, "ééé"),
            ("a\nb", "*", "-", true, "-\n-"),
            ("ax\nay", "a*y", "-", true, "ax\n-"),
            ("aab", "ab", "-", true, "a-"),
            ("aXa", "a*b", "-", true, "aXa"),
            ("a\n1\n2x", "\n*x", "-", true, "a\n1-"),
            ("aaab", "?ab", "-", true, "a-"),
        ];
        for (text, pattern, replacement, all, expected) in cases {
            let replaced = Pattern::new(pattern).unwrap().replace(text, replacement, all, 100);
            assert_eq!(replaced.as_deref(), Some(expected), "{text} {pattern}");
        }
    }

    #[test]
    fn an_escape_that_is_none_is_refused() {
        for (pattern, escape) in [("a\\b", "\\b"), ("\\", "\\"), ("\\\\\\", "\\")] {
            assert_eq!(Pattern::new(pattern).err().as_deref(), Some(escape), "{pattern}");
        }
    }

    #[test]
    fn what_grows_beyond_the_limit_is_not_made() {
        let pattern = Pattern::new("a").unwrap();
        assert_eq!(pattern.replace("aaaa", "123456", true, 24).map(|text| text.len()), Some(24));
        assert_eq!(pattern.replace("aaaa", "123456", true, 23), None);
        assert_eq!(pattern.replace("a", &"b".repeat(24), false, 23), None);
    }

    #[test]
    fn no_pattern_takes_more_than_a_pass_or_two() {
        let text = "a".repeat(2_000);
        let strip = |pattern: &str| Pattern::new(pattern).unwrap().strip_prefix(&text, Reach::Longest).len();
        assert_eq!(strip(&"*a".repeat(50)), 0);
        assert_eq!(strip(&format!("{}b", "*a".repeat(50))), text.len());
        // From each of the places where it could begin this would be compared with the whole rest.
        let text = "a".repeat(1 << 20);
        assert_eq!(
            Pattern::new("a*b").unwrap().replace(&text, "", true, 1 << 20).map(|text| text.len()),
            Some(1 << 20)
        );
    }
}
