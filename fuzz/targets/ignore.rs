//! A `.dockerignore` and the paths of a context; and the patterns of COPY.
//!
//! The input is text: rules, a line `--`, and a path a line. Each rule is also compared with each path as a pattern of
//! COPY.

#![no_main]

use libfuzzer_sys::fuzz_target;
use yadokari::context::glob::go_match;
use yadokari::context::ignore::Ignore;

fuzz_target!(|bytes: &[u8]| {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let (rules, paths) = text.split_once("\n--\n").unwrap_or((text, "a/b"));
    let paths: Vec<String> = paths.lines().take(16).map(clean).filter(|path| !path.is_empty()).collect();
    for (rule, path) in rules.lines().take(8).flat_map(|rule| paths.iter().map(move |path| (rule, path))) {
        check_glob(rule, path);
    }
    let Ok(ignore) = Ignore::parse(rules) else { return };
    let all = Ignore::parse(&format!("{rules}\n**")).expect("one good rule more");
    let none = Ignore::parse(&format!("{rules}\n!**")).expect("one good rule more");
    for path in &paths {
        let excluded = ignore.excludes(path);
        assert!(all.excludes(path), "{path}");
        assert!(!none.excludes(path), "{path}");
        let above = path.match_indices('/').map(|(at, _)| &path[..at]);
        for directory in above {
            // A walk that leaves out what may not hold an exception sees all that is not excluded.
            if ignore.excludes(directory) && !ignore.may_contain_exception_below(directory) {
                assert!(excluded, "{path} below {directory}");
            }
        }
        // A rule that names a path alone decides about it and what is below it, and about nothing else.
        let named = format!("{rules}\n!{}", escaped(path));
        if let Ok(named) = Ignore::parse(&named) {
            assert!(!named.excludes(path), "{path}");
            assert!(!named.excludes(&format!("{path}/x")), "{path}");
            let other = format!("{path}x");
            assert_eq!(named.excludes(&other), ignore.excludes(&other), "{other}");
        }
    }
});

/// A path as a walk of a context gives it, of at most 200 bytes.
fn clean(line: &str) -> String {
    let components = line.split('/').filter(|part| !["", ".", ".."].contains(part) && !part.contains('\0'));
    let mut path = components.collect::<Vec<_>>().join("/");
    while path.len() > 200 {
        path.pop();
    }
    path.trim_end_matches('/').to_owned()
}

/// A pattern that means exactly `path`.
fn escaped(path: &str) -> String {
    let special = |c: char| "*?[\\ \t#!".contains(c) || c.is_whitespace();
    path.chars().flat_map(|c| [special(c).then_some('\\'), Some(c)]).flatten().collect()
}

fn check_glob(pattern: &str, name: &str) {
    let found = go_match(pattern, name);
    // What is malformed does not depend on the name.
    assert_eq!(found.is_err(), go_match(pattern, "").is_err(), "{pattern}");
    assert_eq!(go_match(&escaped(name), name), Ok(true), "{name}");
    if pattern.len() <= 24 && name.len() <= 24 {
        let (tokens, name): (Vec<char>, Vec<char>) = (pattern.chars().collect(), name.chars().collect());
        if let Some(expected) = simple(&tokens, &name) {
            assert_eq!(found, Ok(expected), "{pattern} {name:?}");
        }
    }
}

/// Whether `pattern` matches, said in the simplest way, which takes exponential time. `None` for patterns with classes.
fn simple(pattern: &[char], name: &[char]) -> Option<bool> {
    if pattern.contains(&'[') || pattern.ends_with(&['\\']) || pattern.iter().filter(|&&c| c == '*').count() > 4 {
        return None;
    }
    Some(match (pattern, name) {
        ([], _) => name.is_empty(),
        (['*', rest @ ..], _) => {
            let reach = name.iter().take_while(|&&c| c != '/').count();
            (0..=reach).any(|length| simple(rest, &name[length..]) == Some(true))
        }
        (_, []) => false,
        (['?', rest @ ..], [c, tail @ ..]) => *c != '/' && simple(rest, tail)?,
        (['\\', expected, rest @ ..], [c, tail @ ..]) | ([expected, rest @ ..], [c, tail @ ..]) => {
            expected == c && simple(rest, tail)?
        }
    })
}
