//! A Dockerfile, or an ONBUILD trigger, of arbitrary bytes.

#![no_main]

use libfuzzer_sys::fuzz_target;
use yadokari::dockerfile::{
    Diagnostic, Instruction, InstructionKind, Pair, Source, Span, Transfer, Word, parse, parse_instruction,
};

fuzz_target!(|bytes: &[u8]| {
    let source = match Source::from_bytes("Dockerfile", bytes.to_vec()) {
        Ok(source) => source,
        Err(error) => return check_error(&error, &Source::new("Dockerfile", "")),
    };
    match parse(&source) {
        Ok(file) => {
            file.warnings.iter().for_each(|warning| check_error(warning, &source));
            for arg in &file.global_args {
                check_span(arg.span, &source);
                for declaration in &arg.declarations {
                    check_word(&declaration.name, &source);
                    declaration.default.iter().for_each(|word| check_word(word, &source));
                }
            }
            assert!(!file.stages.is_empty());
            for stage in &file.stages {
                check_span(stage.from.span, &source);
                check_word(&stage.from.image, &source);
                stage.from.platform.iter().for_each(|word| check_word(word, &source));
                for instruction in &stage.instructions {
                    check_instruction(instruction, &source);
                    if let InstructionKind::Onbuild(trigger) = &instruction.kind
                        && file.escape == '\\'
                    {
                        check_trigger(&trigger.text, &trigger.instruction);
                    }
                }
            }
        }
        Err(error) => check_error(&error, &source),
    }
    match parse_instruction(&source) {
        Ok(instruction) => check_instruction(&instruction, &source),
        Err(error) => check_error(&error, &source),
    }
});

/// What an image's config stores is read again, as the same instruction, where the image is the base of another.
fn check_trigger(text: &str, expected: &Instruction) {
    let source = Source::new("ONBUILD", text);
    match parse_instruction(&source) {
        Ok(read) => assert_eq!(spoken(&read), spoken(expected), "{text:?}"),
        Err(error) => panic!("{}\n{text:?}", error.render(&source, false)),
    }
}

/// An instruction without the places of its parts.
fn spoken(instruction: &Instruction) -> String {
    let shown = format!("{:?}", instruction.kind);
    let mut out = String::new();
    let mut rest = &shown[..];
    while let Some((before, after)) = rest.split_once("span: Span {") {
        out.push_str(before);
        rest = after.split_once('}').map_or("", |(_, after)| after);
    }
    out + rest
}

fn check_error(error: &Diagnostic, source: &Source) {
    error.span.into_iter().for_each(|span| check_span(span, source));
    let color = source.text.len().is_multiple_of(2);
    let shown = error.render(source, color);
    assert!(!shown.is_empty() && shown.len() < 20 * source.text.len() + 4096, "{} bytes", shown.len());
    let control = |c: char| c.is_control() && c != '\n' && (!color || c != '\u{1b}');
    assert!(!shown.contains(control), "{shown:?}");
}

fn check_span(span: Span, source: &Source) {
    assert!(span.start <= span.end, "{span:?}");
    assert!(source.text.get(span.start..span.end).is_some(), "{span:?} of {:?}", source.text);
}

/// A word is what stands at its place, unless it runs over a continuation or was in a JSON array.
fn check_word(word: &Word, source: &Source) {
    check_span(word.span, source);
    if word.span.len() == word.raw.len() && !word.raw.contains('\\') {
        let there = &source.text[word.span.start..word.span.end];
        assert!(there == word.raw || there.contains(['\\', '`', '[', '"', '\'']), "{word:?} and not {there:?}");
    }
}

fn check_instruction(instruction: &Instruction, source: &Source) {
    check_span(instruction.span, source);
    let pair = |pair: &Pair| [&pair.key, &pair.value].into_iter().for_each(|word| check_word(word, source));
    match &instruction.kind {
        InstructionKind::Copy(copy) => {
            copy.from.iter().for_each(|word| check_word(word, source));
            check_transfer(&copy.transfer, source);
        }
        InstructionKind::Add(add) => check_transfer(&add.transfer, source),
        InstructionKind::Env(pairs) | InstructionKind::Label(pairs) => pairs.iter().for_each(pair),
        InstructionKind::Arg(declarations) => {
            for declaration in declarations {
                check_word(&declaration.name, source);
                declaration.default.iter().for_each(|word| check_word(word, source));
            }
        }
        InstructionKind::Workdir(word) | InstructionKind::User(word) | InstructionKind::Stopsignal(word) => {
            check_word(word, source);
        }
        InstructionKind::Expose(words) | InstructionKind::Volume(words) => {
            words.iter().for_each(|word| check_word(word, source));
        }
        InstructionKind::Onbuild(trigger) => check_instruction(&trigger.instruction, source),
        _ => {}
    }
}

fn check_transfer(transfer: &Transfer, source: &Source) {
    let Transfer { chown, chmod, sources, heredocs, destination, .. } = transfer;
    let words = chown.iter().chain(chmod).chain(sources).chain([destination]);
    words.for_each(|word| check_word(word, source));
    heredocs.iter().for_each(|heredoc| check_span(heredoc.span, source));
    assert!(sources.len() + heredocs.len() > 0);
}
