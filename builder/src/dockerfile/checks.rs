//! The build checks that the text alone decides. They look at every stage, needed or not.

use super::arguments::Statement;
use super::lines::Line;
use super::lint::Rule;
use super::text::Text;
use super::{ArgDecl, Diagnostic, Span};

/// Collects findings while a file is read.
#[derive(Default)]
pub(super) struct Lexical {
    /// In the order in which they were made.
    pub(super) findings: Vec<Diagnostic>,
    /// The names of stages so far, with the lines that give them.
    stages: Vec<(String, String)>,
    /// The names of all instructions but the arguments before the first FROM, as they are written.
    written: Vec<Written>,
}

struct Written {
    name: String,
    span: Span,
    instruction: Span,
}

impl Lexical {
    /// Looks at any instruction of a stage. `span` is the place of all its lines.
    pub(super) fn instruction(&mut self, statement: &Statement<'_>, span: Span) {
        let name = statement.written();
        self.written.push(Written { name: name.to_owned(), span: statement.name_span(), instruction: span });
        if statement.is("MAINTAINER") {
            let finding = Diagnostic::finding(Rule::MaintainerDeprecated, span, "MAINTAINER is deprecated");
            let help = "write LABEL org.opencontainers.image.authors=\"NAME\"";
            self.findings.push(finding.at(statement.name_span()).help(help));
        }
    }

    /// Looks at the words of `FROM IMAGE AS NAME`.
    pub(super) fn stage(&mut self, statement: &Statement<'_>, keyword: &Text<'_>, name: &Text<'_>, line: &Line) {
        let (written, span) = (name.as_str(), line.span);
        let lower = written.to_lowercase();
        let found = |rule, word: &Text<'_>, message: String| Diagnostic::finding(rule, span, message).at(word.span());
        if written != lower {
            let message = format!("the stage name '{written}' has capital letters");
            let finding = found(Rule::StageNameCasing, name, message);
            self.findings.push(finding.help(format!("write '{lower}', which is its name anyway")));
        }
        // A FROM in mixed letters is a finding of its own.
        let from = statement.written();
        let right = if is_lower(from) { keyword.as_str().to_lowercase() } else { keyword.as_str().to_uppercase() };
        if (is_lower(from) || is_upper(from)) && keyword.as_str() != right {
            let message = format!("'{}' is not written as '{from}' is", keyword.as_str());
            self.findings.push(found(Rule::FromAsCasing, keyword, message).help(format!("write {right}")));
        }
        if lower == "scratch" || lower == "context" {
            let message = format!("the stage name '{lower}' has a meaning of its own");
            self.findings.push(found(Rule::ReservedStageName, name, message).help("give the stage another name"));
        }
        if let Some((_, earlier)) = self.stages.iter().find(|(other, _)| *other == lower) {
            let message = format!("a stage '{lower}' exists already: {}", earlier.trim());
            self.findings.push(found(Rule::DuplicateStageName, name, message).label("this one counts from here on"));
        }
        self.stages.push((lower.clone(), statement.text()));
        self.description("FROM", &[&lower], line);
    }

    /// Looks at the comments above an ARG.
    pub(super) fn arg(&mut self, declarations: &[ArgDecl], line: &Line) {
        let names: Vec<&str> = declarations.iter().map(|declaration| declaration.name.raw.as_str()).collect();
        self.description("ARG", &names, line);
    }

    /// The last comment above an instruction must begin with what it defines.
    fn description(&mut self, instruction: &str, names: &[&str], line: &Line) {
        let (Some(comment), [first, ..]) = (line.comments.last(), names) else { return };
        if names.contains(&comment.text.split(' ').next().unwrap_or_default()) {
            return;
        }
        let example = if names.len() > 1 { "NAME" } else { first };
        let message = format!("the comment above this {instruction} does not describe it");
        let finding = Diagnostic::finding(Rule::InvalidDefinitionDescription, line.span, message);
        let help = format!("write # {example} DESCRIPTION, or a line with a # alone between the two");
        self.findings.push(finding.at(comment.span()).help(help));
    }

    /// Looks at an empty line inside the instruction at `span`.
    pub(super) fn empty_line(&mut self, line: &Line) {
        if let Some(blank) = line.blank {
            let message = "an empty line inside an instruction: it does not end it";
            let finding = Diagnostic::finding(Rule::NoEmptyContinuation, line.span, message);
            let help = "take the empty line out, or make it a comment";
            self.findings.push(finding.at(Span::new(blank, blank)).help(help));
        }
    }

    /// All findings, once the whole file is read: only then it is known how most instructions are written.
    pub(super) fn finish(mut self) -> Vec<Diagnostic> {
        let lower = self.written.iter().filter(|written| is_lower(&written.name)).count();
        let upper = self.written.iter().filter(|written| is_upper(&written.name)).count();
        for Written { name, span, instruction } in &self.written {
            let (right, letters) = match lower > upper {
                true => (name.to_lowercase(), "in small letters"),
                false => (name.to_uppercase(), "in capitals"),
            };
            if *name != right {
                let message = format!("'{name}' is not written as the other instructions are, {letters}");
                let finding = Diagnostic::finding(Rule::ConsistentInstructionCasing, *instruction, message);
                self.findings.push(finding.at(*span).help(format!("write {right}")));
            }
        }
        self.findings
    }
}

fn is_lower(name: &str) -> bool {
    name == name.to_lowercase()
}

fn is_upper(name: &str) -> bool {
    name == name.to_uppercase()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dockerfile::{Source, parse};

    /// The findings with `rule` of a file: the line and the text at each place, and its message.
    fn findings(rule: Rule, text: &str) -> Vec<(usize, String, String)> {
        let source = Source::new("Dockerfile", text);
        let warnings = parse(&source).unwrap_or_else(|error| panic!("{text}: {error}")).warnings;
        let warnings = warnings.into_iter().filter(|warning| warning.check.is_some_and(|check| check.rule == rule));
        let shown = warnings.map(|warning| {
            let span = warning.span.unwrap();
            (source.line(span.start), text[span.start..span.end].to_owned(), warning.message)
        });
        shown.collect()
    }

    /// The lines and the texts at which a rule finds something.
    fn places(rule: Rule, text: &str) -> Vec<(usize, String)> {
        findings(rule, text).into_iter().map(|(line, text, _)| (line, text)).collect()
    }

    fn at(places: &[(usize, &str)]) -> Vec<(usize, String)> {
        places.iter().map(|(line, text)| (*line, (*text).to_owned())).collect()
    }

    #[test]
    fn stage_names_are_in_small_letters() {
        let text = "FROM a AS Base\nFROM a AS base2\nFROM base AS oTher\n";
        assert_eq!(places(Rule::StageNameCasing, text), at(&[(1, "Base"), (3, "oTher")]));
    }

    #[test]
    fn as_is_written_as_from_is() {
        let text = "FROM a as one\nfrom a AS two\nFrom a As three\nfrOM a as four\nFROM a aS five\nFROM a AS six\nfrom a as seven\n";
        assert_eq!(places(Rule::FromAsCasing, text), at(&[(1, "as"), (2, "AS"), (5, "aS")]));
    }

    #[test]
    fn no_empty_line_stands_inside_an_instruction() {
        let text = "FROM a\nRUN b \\\n\n  c \\\n# d\n\n  e\nRUN f \\\n  g\n\nRUN h\n";
        assert_eq!(places(Rule::NoEmptyContinuation, text), at(&[(3, "")]));
    }

    #[test]
    fn instructions_are_written_alike() {
        let cases: [(&str, &[(usize, &str)]); 6] = [
            ("FROM a\ncopy b c\nCOPY b c\nCopy b c\n", &[(2, "copy"), (4, "Copy")]),
            ("from a\ncopy b c\nCOPY b c\n", &[(3, "COPY")]),
            // Of as many of both, capitals win; arguments before the first FROM do not count.
            ("FROM a\ncopy b c\n", &[(2, "copy")]),
            ("arg a=1\narg b\nFROM a\nRUN b\n", &[]),
            ("FROM a\nONBUILD run b\nonbuild RUN b\n", &[(3, "onbuild")]),
            ("from a\ncopy b c\n", &[]),
        ];
        for (text, expected) in cases {
            assert_eq!(places(Rule::ConsistentInstructionCasing, text), at(expected), "{text}");
        }
    }

    #[test]
    fn stage_names_are_unique() {
        let text = "FROM a AS b\nFROM a AS B\nFROM a AS c\nFROM c AS b\n";
        assert_eq!(places(Rule::DuplicateStageName, text), at(&[(2, "B"), (4, "b")]));
        assert_eq!(findings(Rule::DuplicateStageName, text)[1].2, "a stage 'b' exists already: FROM a AS b");
    }

    #[test]
    fn reserved_stage_names_are_found() {
        let text = "FROM a AS scratch\nFROM a AS Context\nFROM a AS contexts\n";
        assert_eq!(places(Rule::ReservedStageName, text), at(&[(1, "scratch"), (2, "Context")]));
    }

    #[test]
    fn maintainer_is_deprecated() {
        let text = "FROM a\nMAINTAINER me\nLABEL maintainer=me\nmaintainer you\n";
        assert_eq!(places(Rule::MaintainerDeprecated, text), at(&[(2, "MAINTAINER"), (4, "maintainer")]));
    }

    #[test]
    fn comments_above_arg_and_from_describe_them() {
        let cases: [(&str, &[(usize, &str)]); 12] = [
            ("# what\nFROM a AS b\n", &[(1, "# what")]),
            ("# b is built\nFROM a AS b\n", &[]),
            ("# b: is built\nFROM a AS b\n", &[(1, "# b: is built")]),
            ("# B is built\nFROM a AS B\n", &[(1, "# B is built")]),
            ("# what\nFROM a\n", &[]),
            ("# what\nARG x=1\nFROM a\n# what\nARG y\n", &[(1, "# what"), (4, "# what")]),
            ("FROM a\n# y is it\n# x is not\nARG y\n", &[(3, "# x is not")]),
            ("FROM a\n# x is not\n# y is it\nARG x y\n", &[]),
            // An empty line does not part the two, an empty comment does.
            ("FROM a\n# what\n\nARG y\n", &[(2, "# what")]),
            ("FROM a\n# what\n#\nARG y\n", &[]),
            ("# syntax=x\n# check=experimental=all\nFROM a AS b\n", &[]),
            ("FROM a\n# what\nRUN b \\\n# c\n d\nARG y\n", &[]),
        ];
        for (text, expected) in cases {
            assert_eq!(places(Rule::InvalidDefinitionDescription, text), at(expected), "{text}");
        }
    }

    #[test]
    fn a_file_that_is_well_written_has_no_findings() {
        let text = "# syntax=docker/dockerfile:1\nARG tag=1\nFROM a:$tag AS build\nRUN b \\\n  c\n\nFROM scratch\nCOPY --from=build /a /\n";
        assert_eq!(parse(&Source::new("Dockerfile", text)).unwrap().warnings, []);
    }
}
