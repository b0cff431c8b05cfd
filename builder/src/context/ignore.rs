//! `.dockerignore` and `--exclude`: which files of a context, or of a copied directory, are left out.

use super::glob::{BadPattern, Glob};

/// The rules of a `.dockerignore` file, or of `--exclude`.
///
/// The last rule that matches a path, or a directory above it, decides. Rules begin at the root of the context: `a`
/// excludes `a` and not `b/a`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Ignore {
    rules: Vec<Rule>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Rule {
    /// The pattern, cleaned.
    text: String,
    glob: Glob,
    /// The rule began with `!`: what matches belongs to the context after all.
    exception: bool,
}

/// A line that is no rule.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {message}")]
pub struct InvalidRule {
    /// The line, counted from 1.
    pub line: usize,
    /// What is wrong with it.
    pub message: String,
}

impl Ignore {
    /// Reads the file's text.
    pub fn parse(text: &str) -> Result<Self, InvalidRule> {
        let text = text.strip_prefix('\u{feff}').unwrap_or(text);
        let mut rules = Vec::new();
        for (index, line) in text.lines().enumerate() {
            let rule = line.trim();
            // A comment begins in the first column; elsewhere `#` is part of a name.
            if line.starts_with('#') || rule.is_empty() {
                continue;
            }
            let invalid = |message: String| InvalidRule { line: index + 1, message };
            let (exception, pattern) = match rule.strip_prefix('!') {
                Some(pattern) => (true, pattern.trim()),
                None => (false, rule),
            };
            if pattern.is_empty() {
                return Err(invalid("'!' needs a pattern".to_owned()));
            }
            let pattern = clean(pattern);
            let pattern = if pattern.len() > 1 { pattern.strip_prefix('/').unwrap_or(&pattern) } else { &pattern };
            let glob = Glob::with_double_stars(pattern).map_err(|error| invalid(error.to_string()))?;
            rules.push(Rule { text: pattern.to_owned(), glob, exception });
        }
        Ok(Self { rules })
    }

    /// Adds the value of one `--exclude`. There are no comments here, and a leading slash is not taken off: such a
    /// pattern matches nothing, as with BuildKit.
    pub fn exclude(&mut self, pattern: &str) -> Result<(), BadPattern> {
        let trimmed = pattern.trim();
        if trimmed.is_empty() {
            return Ok(());
        }
        let (exception, text) = match trimmed.strip_prefix('!') {
            Some("") => return Err(BadPattern(trimmed.to_owned())),
            Some(pattern) => (true, clean(pattern)),
            None => (false, clean(trimmed)),
        };
        let glob = Glob::with_double_stars(&text)?;
        self.rules.push(Rule { text, glob, exception });
        Ok(())
    }

    /// The rules as text: equal texts leave out equal files.
    pub fn texts(&self) -> Vec<String> {
        let text = |rule: &Rule| format!("{}{}", if rule.exception { "!" } else { "" }, rule.text);
        self.rules.iter().map(text).collect()
    }

    /// True where `path` does not belong to the context. It is relative to the context, with slashes, and without `.`,
    /// `..` and double slashes.
    pub fn excludes(&self, path: &str) -> bool {
        let mut excluded = false;
        for rule in &self.rules {
            // A rule that would change nothing need not be compared.
            if rule.exception == excluded && rule.glob.matches_or_above(path) {
                excluded = !rule.exception;
            }
        }
        excluded
    }

    /// True where something below `directory` may belong to the context although the directory does not, so that a walk
    /// must enter it.
    pub fn may_contain_exception_below(&self, directory: &str) -> bool {
        self.rules.iter().any(|rule| rule.exception && rule.glob.may_match_below(directory))
    }

    /// True where nothing at `path`, which may be a pattern, or below it can belong to the context: no exception reaches
    /// there. The root, which is the empty path, is left out only where everything in it is.
    pub fn leaves_out(&self, path: &str) -> bool {
        let reaches = |rule: &Rule| {
            let parts: Vec<&str> = rule.text.split('/').collect();
            let literal = parts.iter().take_while(|part| !part.contains(['*', '?', '['])).count();
            let prefix = parts[..literal].join("/");
            is_at_or_below(&prefix, path) || literal < parts.len() && is_at_or_below(path, &prefix)
        };
        if self.rules.iter().any(|rule| rule.exception && reaches(rule)) {
            return false;
        }
        match path {
            "" => self.rules.iter().any(|rule| matches!(&rule.text[..], "*" | "**" | "**/*")),
            path => self.excludes(path),
        }
    }

    /// True where there are no rules.
    pub fn is_empty(&self) -> bool {
        self.rules.is_empty()
    }
}

/// Whether `path` is `base` or in it. Everything is in the root, the empty path.
fn is_at_or_below(path: &str, base: &str) -> bool {
    base.is_empty() || path.strip_prefix(base).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// The shortest pattern for the same paths: without `.`, inner `..` and double or trailing slashes.
fn clean(pattern: &str) -> String {
    let rooted = pattern.starts_with('/');
    let mut parts: Vec<&str> = Vec::new();
    for part in pattern.split('/') {
        match part {
            "" | "." => {}
            ".." if parts.last().is_some_and(|last| *last != "..") => {
                parts.pop();
            }
            ".." if rooted => {}
            part => parts.push(part),
        }
    }
    match (rooted, parts.join("/")) {
        (true, path) => format!("/{path}"),
        (false, path) if path.is_empty() => ".".to_owned(),
        (false, path) => path,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn excluded<'p>(rules: &str, paths: &[&'p str]) -> Vec<&'p str> {
        let ignore = Ignore::parse(rules).unwrap();
        paths.iter().copied().filter(|path| ignore.excludes(path)).collect()
    }

    #[test]
    fn what_an_exception_may_bring_back_is_not_left_out() {
        let cases: [(&str, &[&str], &[&str]); 6] = [
            ("a\nd\n", &["a", "a/b", "d"], &["", "b"]),
            ("*\n!b\n", &["a"], &["", "b"]),
            ("*\n", &["", "a"], &[]),
            ("**\n!d/keep\n", &["a", "d/x", "dx"], &["", "d", "d/keep"]),
            ("d\n!*/keep\n", &[], &["d", "d/x"]),
            ("d\ne\n!d/*.md\n", &["e"], &["d", "d/x"]),
        ];
        for (rules, left_out, kept) in cases {
            let ignore = Ignore::parse(rules).unwrap();
            assert!(left_out.iter().all(|path| ignore.leaves_out(path)), "{rules}");
            assert!(!kept.iter().any(|path| ignore.leaves_out(path)), "{rules}");
        }
    }

    #[test]
    fn rules_exclude_paths() {
        let cases: [(&str, &[&str], &[&str]); 22] = [
            ("", &[], &["a"]),
            ("a", &["a", "a/b"], &["b/a", "ab"]),
            ("/a/", &["a", "a/b"], &["b/a"]),
            ("./a//b/../c", &["a/c"], &["a", "a/b"]),
            ("  a  ", &["a"], &[]),
            ("*.md", &["a.md"], &["b/a.md"]),
            ("*/*.md", &["b/a.md"], &["a.md", "b/c/a.md"]),
            ("**/*.md", &["a.md", "b/c/a.md"], &["a.mdx"]),
            ("**/node_modules", &["node_modules", "a/node_modules/b/c"], &["a/node_modules2"]),
            ("a/**", &["a/b", "a/b/c"], &["a"]),
            ("a?", &["ab"], &["a", "a/b"]),
            ("[a-c]x", &["bx"], &["dx"]),
            ("\\#a", &["#a"], &[]),
            ("#a\n # b", &["# b"], &["#a", "# a"]),
            ("\u{feff}a", &["a"], &[]),
            ("a\r\nb\r\n", &["a", "b"], &[]),
            ("Readme", &["Readme"], &["README", "readme"]),
            ("*\n!a", &["b", "b/a"], &["a", "a/b"]),
            ("a\n!a/b", &["a", "a/c"], &["a/b", "a/b/c"]),
            ("!a\na", &["a"], &[]),
            ("*.md\n!README*.md\nREADME-x.md", &["a.md", "README-x.md"], &["README.md"]),
            (".\n/\n..", &[], &["a", "a/b"]),
        ];
        for (rules, inside, outside) in cases {
            let all = [inside, outside].concat();
            assert_eq!(excluded(rules, &all), inside, "{rules:?}");
        }
    }

    #[test]
    fn excludes_are_patterns_without_comments_and_roots() {
        let cases: [(&[&str], &[&str], &[&str]); 11] = [
            (&["*.txt"], &["a.txt"], &["d/a.txt", "a.md"]),
            (&["**/*.txt"], &["a.txt", "d/a.txt"], &["a.md"]),
            (&["d"], &["d", "d/a"], &["a/d"]),
            (&[" ./d//e/ "], &["d/e", "d/e/f"], &["d"]),
            (&["d", "!d/keep"], &["d", "d/a"], &["d/keep"]),
            (&["!a", "a"], &["a"], &["b"]),
            (&["*", "!**/*.md"], &["d", "d/a"], &["a.md", "d/e/a.md"]),
            (&["/d"], &[], &["d", "d/a"]),
            (&["#a"], &["#a"], &["a"]),
            (&["", " "], &[], &["a"]),
            (&["! a"], &[], &["a"]),
        ];
        for (patterns, inside, outside) in cases {
            let mut ignore = Ignore::default();
            patterns.iter().for_each(|pattern| ignore.exclude(pattern).unwrap());
            for path in [inside, outside].concat() {
                assert_eq!(ignore.excludes(path), inside.contains(&path), "{patterns:?} {path}");
            }
        }
        let mut ignore = Ignore::default();
        for pattern in ["!", " ! ", "[", "a\\"] {
            assert_eq!(ignore.exclude(pattern), Err(BadPattern(pattern.trim().to_owned())));
        }
        assert!(ignore.is_empty());
        ["./a/", "! b/../c"].iter().for_each(|pattern| ignore.exclude(pattern).unwrap());
        assert_eq!(ignore.texts(), ["a", "!c"]);
    }

    #[test]
    fn a_walk_enters_an_excluded_directory_only_for_an_exception() {
        let ignore = Ignore::parse("*\n!src/lib\n!**/*.h\n").unwrap();
        assert!(ignore.excludes("src"));
        assert!(ignore.may_contain_exception_below("src"));
        assert!(ignore.may_contain_exception_below("other"), "**/*.h reaches everywhere");
        let ignore = Ignore::parse("*\n! src/lib\n").unwrap();
        assert!(ignore.may_contain_exception_below("src"));
        assert!(!ignore.may_contain_exception_below("other"));
        assert!(!ignore.may_contain_exception_below("src/other"));
    }

    #[test]
    fn lines_that_are_no_rules_are_refused() {
        let error = |text| Ignore::parse(text).unwrap_err().to_string();
        assert_eq!(error("a\n! \n"), "line 2: '!' needs a pattern");
        assert_eq!(error("[a"), "line 1: the pattern '[a' is malformed");
    }

    #[test]
    fn patterns_are_cleaned() {
        let cases = [
            ("a/", "a"),
            ("./a", "a"),
            ("a/./b//c", "a/b/c"),
            ("a/../b", "b"),
            ("../a", "../a"),
            ("../../a", "../../a"),
            ("/../a", "/a"),
            ("a/..", "."),
            ("/", "/"),
        ];
        for (pattern, expected) in cases {
            assert_eq!(clean(pattern), expected, "{pattern}");
        }
    }
}
