//! Words with variables.
//!
//! The input is text: lines `NAME=VALUE` give variables, the first other line (a blank one is passed over) ends them, and
//! what follows is the word.

#![no_main]

use std::collections::BTreeMap;

use libfuzzer_sys::fuzz_target;
use yadokari::dockerfile::{Diagnostic, Heredoc, Span, Variables, Word, expand, expand_heredoc, expand_words};

/// The longest value: the Dockerfile language has no loop, and substitutions multiply.
const LONGEST: usize = 1 << 20;

fuzz_target!(|bytes: &[u8]| {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let (variables, word) = read(text);
    let span = Span::new(7, 7 + word.len());
    let word = Word { raw: word.to_owned(), span };
    for escape in ['\\', '`'] {
        let value = expand(&word, escape, &variables);
        check(&value, span);
        let words = expand_words(&word, escape, &variables);
        assert_eq!(words.is_ok(), value.is_ok());
        let (Ok(value), Ok(words)) = (value, words) else { continue };
        // Splitting takes white space away and nothing else.
        let dense = |text: &str| text.split_whitespace().collect::<String>();
        assert_eq!(dense(&words.concat()), dense(&value));
        // What holds nothing special is its own value.
        if !value.contains(['$', '\'', '"', escape]) {
            let again = Word { span: Span::new(0, value.len()), raw: value.clone() };
            assert_eq!(expand(&again, escape, &variables).as_deref(), Ok(&value[..]));
        }
    }
    for expand in [true, false] {
        let heredoc = Heredoc { name: "EOF".to_owned(), expand, content: word.raw.clone(), span };
        let content = expand_heredoc(&heredoc, &variables);
        check(&content, span);
        if !expand || !word.raw.contains(['$', '\\']) {
            assert_eq!(content.as_deref(), Ok(&word.raw[..]));
        }
    }
});

fn read(text: &str) -> (impl Variables + use<>, &str) {
    let mut variables = BTreeMap::new();
    let mut rest = text;
    loop {
        let (line, tail) = rest.split_once('\n').unwrap_or((rest, ""));
        match line.split_once('=') {
            Some((name, value)) if !tail.is_empty() => {
                variables.insert(name.to_owned(), value.to_owned());
                rest = tail;
            }
            _ => return (variables, if line.is_empty() { tail } else { rest }),
        }
    }
}

fn check(value: &Result<String, Diagnostic>, whole: Span) {
    match value {
        Ok(value) => assert!(value.len() <= LONGEST, "{} bytes", value.len()),
        Err(error) => {
            let span = error.span.expect("an error of expansion has a place");
            assert!(whole.start <= span.start && span.start <= span.end && span.end <= whole.end, "{error:?}");
        }
    }
}
