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
    pub(super) fn new(pattern: &str) -> Self {
        let mut tokens = Vec::new();
        let mut chars = pattern.chars();
        while let Some(c) = chars.next() {
            tokens.push(match c {
                '*' => Token::AnyText,
                '?' => Token::AnyCharacter,
                '\\' => Token::Literal(chars.next().unwrap_or('\\')),
                c => Token::Literal(c),
            });
        }
        Self(tokens)
    }

    /// `text` without the part at its start that matches.
    pub(super) fn strip_prefix<'t>(&self, text: &'t str, reach: Reach) -> &'t str {
        match matching(&self.0, text.chars(), reach) {
            Some(length) => &text[length..],
            None => text,
        }
    }

    /// `text` without the part at its end that matches.
    pub(super) fn strip_suffix<'t>(&self, text: &'t str, reach: Reach) -> &'t str {
        let reversed: Vec<Token> = self.0.iter().rev().copied().collect();
        match matching(&reversed, text.chars().rev(), reach) {
            Some(length) => &text[..text.len() - length],
            None => text,
        }
    }

    /// `text` with the first match replaced, or with every match replaced. A match is as long as it can be.
    pub(super) fn replace(&self, text: &str, replacement: &str, all: bool) -> String {
        let mut out = String::new();
        let mut at = 0;
        // An empty match directly behind another match is none.
        let mut last_end = None;
        while at <= text.len() {
            let rest = &text[at..];
            let found = matching(&self.0, rest.chars(), Reach::Longest);
            if let Some(length) = found.filter(|&length| length > 0 || last_end != Some(at)) {
                out.push_str(replacement);
                at += length;
                last_end = Some(at);
                if !all {
                    break;
                }
                if length > 0 {
                    continue;
                }
            }
            let Some(next) = text[at..].chars().next() else { break };
            out.push(next);
            at += next.len_utf8();
        }
        out.push_str(&text[at..]);
        out
    }
}

/// The length in bytes of the start of `text` that matches `tokens` whole.
///
/// All positions the pattern can stand at are followed at once, so that the time is bounded by the product of the two
/// lengths whatever the pattern.
fn matching(tokens: &[Token], text: impl Iterator<Item = char>, reach: Reach) -> Option<usize> {
    let mut states = vec![false; tokens.len() + 1];
    states[0] = true;
    let mut found = None;
    let mut length = 0;
    skip_empty(tokens, &mut states);
    let mut text = text;
    loop {
        if states[tokens.len()] {
            found = Some(length);
            if reach == Reach::Shortest {
                return found;
            }
        }
        let Some(c) = text.next() else { return found };
        length += c.len_utf8();
        let mut next = vec![false; tokens.len() + 1];
        for (at, token) in tokens.iter().enumerate().filter(|&(at, _)| states[at]) {
            match token {
                Token::Literal(expected) if *expected == c => next[at + 1] = true,
                Token::AnyCharacter => next[at + 1] = true,
                Token::AnyText => next[at] = true,
                Token::Literal(_) => {}
            }
        }
        if next.iter().all(|state| !state) {
            return found;
        }
        skip_empty(tokens, &mut next);
        states = next;
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
        ];
        for (text, pattern, reach, expected) in cases {
            assert_eq!(Pattern::new(pattern).strip_prefix(text, reach), expected, "{text} {pattern}");
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
            assert_eq!(Pattern::new(pattern).strip_suffix(text, reach), expected, "{text} {pattern}");
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
        ];
        for (text, pattern, replacement, all, expected) in cases {
            assert_eq!(Pattern::new(pattern).replace(text, replacement, all), expected, "{text} {pattern}");
        }
    }

    #[test]
    fn many_stars_take_no_exponential_time() {
        let text = "a".repeat(2_000);
        assert_eq!(Pattern::new(&"*a".repeat(50)).strip_prefix(&text, Reach::Longest), "");
        assert_eq!(Pattern::new(&format!("{}b", "*a".repeat(50))).strip_prefix(&text, Reach::Longest), text);
    }
}
