//! From text to a Dockerfile: statements in order, gathered into stages.

use super::arguments::{self, Statement};
use super::checks::Lexical;
use super::directive::{Directives, check_comment, directives};
use super::heredoc::documents;
use super::lines::{Line, Lines};
use super::text::Text;
use super::{
    ArgInstruction, Checks, Diagnostic, Dockerfile, From, Instruction, InstructionKind, Source, Span, Stage, flags,
};

/// Reads a whole Dockerfile.
///
/// Where it succeeds, every instruction is known, has the arguments and flags that the language asks for, and is carried
/// out by the builder; values that hold variables are checked after expansion only.
pub fn parse(source: &Source) -> Result<Dockerfile, Diagnostic> {
    match parse_partly(source) {
        (dockerfile, None) => Ok(dockerfile),
        (_, Some(error)) => Err(error),
    }
}

/// Reads a Dockerfile up to the first error. What stands before it has its findings, too.
pub fn parse_partly(source: &Source) -> (Dockerfile, Option<Diagnostic>) {
    let mut file = Dockerfile {
        escape: '\\',
        global_args: Vec::new(),
        stages: Vec::new(),
        checks: Checks::default(),
        warnings: Vec::new(),
    };
    let mut lexical = Lexical::default();
    match read(source, &mut file, &mut lexical) {
        Ok(()) => {
            file.warnings.append(&mut lexical.finish());
            (file, None)
        }
        Err(error) => {
            file.warnings.append(&mut lexical.findings);
            (file, Some(error))
        }
    }
}

fn read(source: &Source, file: &mut Dockerfile, lexical: &mut Lexical) -> Result<(), Diagnostic> {
    let Directives { escape, check, end, warnings } = directives(source)?;
    (file.escape, file.checks.directive, file.warnings) = (escape, check, warnings);
    let mut lines = Lines::new(source, end, escape);
    while let Some(line) = lines.logical()? {
        let statement = Statement::new(&line);
        for comment in &line.comments {
            if let Some(settings) = check_comment(comment, &mut file.warnings) {
                file.checks.comments.entry(line.span.start).or_insert(settings);
            }
        }
        lexical.empty_line(&line);
        if statement.is("FROM") {
            let from = from(&statement, &line, lexical)?;
            lexical.instruction(&statement, line.span);
            file.stages.push(Stage { from, instructions: Vec::new() });
            continue;
        }
        if let Some(stage) = file.stages.last_mut() {
            let instruction = instruction(&statement, line.span, &mut lines, escape)?;
            lexical.instruction(&statement, instruction.span);
            if let InstructionKind::Arg(declarations) = &instruction.kind {
                lexical.arg(declarations, &line);
            }
            stage.instructions.push(instruction);
        } else if statement.is("ARG") {
            let declarations = arguments::arg(&statement, escape)?;
            lexical.arg(&declarations, &line);
            file.global_args.push(ArgInstruction { span: line.span, text: statement.text(), declarations });
        } else {
            statement.known()?;
            let error = Diagnostic::new(format!("{} stands before the first FROM", statement.name()));
            return Err(error.at(statement.name_span()).help("only ARG may stand before FROM"));
        }
    }
    if file.stages.is_empty() {
        let message = if file.global_args.is_empty() { "the file has no instructions" } else { "the file has no FROM" };
        return Err(Diagnostic::new(message).help("a Dockerfile begins with FROM"));
    }
    Ok(())
}

/// Reads one instruction: the ONBUILD trigger that a base image carries. FROM, ONBUILD and MAINTAINER are no triggers.
///
/// The text was joined when the image was built, and the escape character is `\` whatever it was then.
pub fn parse_instruction(source: &Source) -> Result<Instruction, Diagnostic> {
    let mut lines = Lines::new(source, 0, '\\');
    let Some(line) = lines.logical()? else {
        return Err(Diagnostic::new("the ONBUILD trigger is empty"));
    };
    let statement = Statement::new(&line);
    statement.is_trigger()?;
    let instruction = instruction(&statement, line.span, &mut lines, '\\')?;
    match lines.logical()? {
        Some(more) => Err(Diagnostic::new("an ONBUILD trigger must be a single instruction").at(more.span)),
        None => Ok(instruction),
    }
}

/// Reads an instruction of a stage, and the here-documents that belong to it.
fn instruction(
    statement: &Statement<'_>,
    span: Span,
    lines: &mut Lines<'_>,
    escape: char,
) -> Result<Instruction, Diagnostic> {
    statement.known()?;
    let (documents, end) = match statement.holder_of_documents() {
        Some(arguments) => documents(arguments, lines)?,
        None => (Vec::new(), None),
    };
    let span = Span::new(span.start, end.unwrap_or(span.end));
    let kind = arguments::kind(statement, &documents, span, escape)?;
    Ok(Instruction { span, text: statement.text(), kind })
}

/// `FROM [--platform=PLATFORM] IMAGE [AS NAME]`
fn from(statement: &Statement<'_>, line: &Line, lexical: &mut Lexical) -> Result<From, Diagnostic> {
    let (mut flags, rest) = flags::flags("FROM", statement.arguments, &[flags::value("platform")])?;
    let words = rest.words();
    let (image, name) = match words.as_slice() {
        [image] => (image, None),
        [image, keyword, name] if keyword.as_str().eq_ignore_ascii_case("as") => {
            let lower = stage_name(name)?;
            lexical.stage(statement, keyword, name, line);
            (image, Some(lower))
        }
        _ => {
            return Err(Diagnostic::new("FROM needs an image, or an image, AS and a name")
                .at(statement.span())
                .help("write FROM IMAGE or FROM IMAGE AS NAME"));
        }
    };
    Ok(From { image: image.word(), name, platform: flags.take("platform"), span: line.span, text: statement.text() })
}

fn stage_name(name: &Text<'_>) -> Result<String, Diagnostic> {
    let lower = name.as_str().to_lowercase();
    let first = lower.starts_with(|c: char| c.is_ascii_lowercase());
    if first && lower.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || "-_.".contains(c)) {
        return Ok(lower);
    }
    Err(Diagnostic::new(format!("'{}' cannot be the name of a stage", name.as_str()))
        .at(name.span())
        .help("a name begins with a letter and goes on with letters, digits, '-', '_' and '.'"))
}

/// What the only instruction of a stage says, or the message of the error: for the tests of the instructions.
#[cfg(test)]
pub(super) fn only(line: &str) -> Result<InstructionKind, String> {
    let source = Source::new("Dockerfile", format!("FROM a\n{line}\n"));
    let mut dockerfile = parse(&source).map_err(|error| error.message)?;
    let mut instructions = dockerfile.stages.remove(0).instructions;
    assert_eq!(instructions.len(), 1, "{line}");
    Ok(instructions.remove(0).kind)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dockerfile::Rule;

    fn source(text: &str) -> Source {
        Source::new("Dockerfile", text)
    }

    const WHOLE: &str = "\
# syntax=docker/dockerfile:1
ARG BASE=debian tag

FROM --platform=$BUILDPLATFORM $BASE:${tag:-12} AS Build
ARG tag
RUN apt-get update && \\
    # the compiler
    apt-get install -y \\
      gcc
RUN <<EOF
make
EOF

from scratch
copy --from=build /a /b
";

    #[test]
    fn a_file_is_global_arguments_and_stages() {
        let dockerfile = parse(&source(WHOLE)).unwrap();
        assert_eq!(dockerfile.escape, '\\');
        let rules: Vec<_> = dockerfile.warnings.iter().map(|warning| warning.check.unwrap().rule).collect();
        let casing = Rule::ConsistentInstructionCasing;
        assert_eq!(rules, [Rule::StageNameCasing, casing, casing]);
        assert_eq!(dockerfile.global_args[0].text, "ARG BASE=debian tag");
        assert_eq!(dockerfile.global_args[0].declarations.len(), 2);
        let [build, last] = dockerfile.stages.as_slice() else { panic!() };
        assert_eq!(build.from.image.raw, "$BASE:${tag:-12}");
        assert_eq!(build.from.name.as_deref(), Some("build"));
        assert_eq!(build.from.platform.as_ref().unwrap().raw, "$BUILDPLATFORM");
        let names: Vec<&str> = build.instructions.iter().map(|instruction| instruction.kind.name()).collect();
        assert_eq!(names, ["ARG", "RUN", "RUN"]);
        assert_eq!(build.instructions[1].text, "RUN apt-get update &&     apt-get install -y       gcc");
        assert_eq!(last.from.image.raw, "scratch");
        assert_eq!((&last.from.name, &last.from.platform), (&None, &None));
        assert!(
            matches!(&last.instructions[0].kind, InstructionKind::Copy(copy) if copy.transfer.sources[0].raw == "/a")
        );
    }

    #[test]
    fn spans_are_places_in_the_file() {
        let dockerfile = parse(&source(WHOLE)).unwrap();
        let at = |span: Span| &WHOLE[span.start..span.end];
        let build = &dockerfile.stages[0];
        assert_eq!(at(build.from.image.span), "$BASE:${tag:-12}");
        assert_eq!(at(build.from.platform.as_ref().unwrap().span), "$BUILDPLATFORM");
        assert_eq!(at(build.from.span), "FROM --platform=$BUILDPLATFORM $BASE:${tag:-12} AS Build");
        assert!(at(build.instructions[1].span).ends_with("gcc"));
        assert_eq!(at(build.instructions[2].span), "RUN <<EOF\nmake\nEOF");
        let InstructionKind::Copy(copy) = &dockerfile.stages[1].instructions[0].kind else { panic!() };
        assert_eq!(at(copy.from.as_ref().unwrap().span), "build");
        assert_eq!(at(copy.transfer.destination.span), "/b");
    }

    #[test]
    fn the_escape_directive_holds_for_the_whole_file() {
        let dockerfile = parse(&source("# escape=`\nFROM a\nRUN dir c:\\ `\n  d\nENV a=b` c\n")).unwrap();
        assert_eq!(dockerfile.escape, '`');
        assert_eq!(dockerfile.stages[0].instructions[0].text, "RUN dir c:\\   d");
        assert_eq!(dockerfile.stages[0].instructions.len(), 2);
    }

    #[test]
    fn wrong_files_are_refused() {
        let cases = [
            ("", "the file has no instructions"),
            ("# only\n\n# comments", "the file has no instructions"),
            ("ARG a", "the file has no FROM"),
            ("RUN a", "RUN stands before the first FROM"),
            ("ARG a\nENV b=c\nFROM a", "ENV stands before the first FROM"),
            ("FORM a", "unknown instruction: FORM"),
            ("FROM a\nRNU b", "unknown instruction: RNU"),
            ("FROM a\n\\", "unknown instruction: "),
            ("FROM", "FROM needs an image, or an image, AS and a name"),
            ("FROM a b", "FROM needs an image, or an image, AS and a name"),
            ("FROM a is b", "FROM needs an image, or an image, AS and a name"),
            ("FROM a AS b c", "FROM needs an image, or an image, AS and a name"),
            ("FROM a AS 1b", "'1b' cannot be the name of a stage"),
            ("FROM a AS b/c", "'b/c' cannot be the name of a stage"),
            ("FROM --platfrom=x a", "FROM has no flag --platfrom"),
            ("FROM --platform a", "FROM --platform needs a value"),
        ];
        for (text, message) in cases {
            assert_eq!(parse(&source(text)).unwrap_err().message, message, "{text:?}");
        }
    }

    #[test]
    fn an_unknown_instruction_is_shown_with_the_one_that_was_meant() {
        let source = source("FROM a\nRUN a \\\n b\n  COPPY a b\n");
        let expected = "\
error: unknown instruction: COPPY
 --> Dockerfile:4:3
  |
4 |   COPPY a b
  |   ^^^^^
  |
  = help: did you mean COPY?";
        assert_eq!(parse(&source).unwrap_err().render(&source, false), expected);
    }

    #[test]
    fn a_wrong_flag_is_shown_where_it_stands() {
        let source = source("FROM a\nRUN \\\n  --mount=target=/c \\\n  --network=nonne \\\n  make\n");
        let expected = "\
error: RUN --network cannot be 'nonne'
 --> Dockerfile:4:13
  |
4 |   --network=nonne \\
  |             ^^^^^
  |
  = help: did you mean --network=none?";
        assert_eq!(parse(&source).unwrap_err().render(&source, false), expected);
    }

    #[test]
    fn what_stands_before_an_error_has_its_findings() {
        let (file, error) = parse_partly(&source("FROM a AS B\nMAINTAINER c\nrun d\nCOPPY e f\nFROM a AS G\n"));
        assert_eq!(error.unwrap().message, "unknown instruction: COPPY");
        let rules: Vec<_> = file.warnings.iter().map(|warning| warning.check.unwrap().rule.name()).collect();
        assert_eq!(rules, ["StageNameCasing", "MaintainerDeprecated"]);
    }

    #[test]
    fn a_comment_above_an_instruction_sets_its_checks() {
        let text = "# check=skip=StageNameCasing\nFROM a AS B\n# why\n# check=skip=JSONArgsRecommended\n\nCMD c\n# check=x\nCMD d\n";
        let file = parse(&source(text)).unwrap();
        // The first line is the file's directive.
        assert_eq!(file.checks.comments.keys().copied().collect::<Vec<_>>(), [text.find("CMD c").unwrap()]);
        assert!(file.checks.directive.is_ok());
        assert_eq!(file.warnings[0].message, "'x' is not an option of the checks");
        let policy = file.checks.policy(None).unwrap();
        let finding = |line| {
            let at = text.find(line).unwrap();
            Diagnostic::finding(Rule::JsonArgsRecommended, Span::new(at, at + 3), "x")
        };
        assert!(!policy.admits(&finding("CMD c")) && policy.admits(&finding("CMD d")));
    }

    #[test]
    fn a_trigger_is_one_instruction() {
        let trigger = |text: &str| parse_instruction(&source(text));
        assert_eq!(trigger("COPY <<A /b\nx\nA").unwrap().kind.name(), "COPY");
        let cases = [
            ("", "the ONBUILD trigger is empty"),
            ("RUN a\nRUN b", "an ONBUILD trigger must be a single instruction"),
            ("FROM a", "FROM cannot be an ONBUILD trigger"),
            ("ONBUILD RUN a", "ONBUILD cannot be an ONBUILD trigger"),
        ];
        for (text, message) in cases {
            assert_eq!(trigger(text).unwrap_err().message, message, "{text:?}");
        }
    }
}
