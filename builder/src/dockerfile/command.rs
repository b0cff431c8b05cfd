//! Commands: RUN, CMD, ENTRYPOINT, SHELL and HEALTHCHECK.

use super::arguments::{Statement, needed};
use super::flags::{Known, flags, repeatable, value};
use super::heredoc::Document;
use super::suggest::closest;
use super::text::Text;
use super::{CommandLine, Diagnostic, Healthcheck, MountFlag, NetworkMode, Run, Script, Span, Word, parse_duration};

const RUN_FLAGS: [Known; 4] = [repeatable("mount"), value("network"), value("security"), repeatable("device")];

/// The directory in which a RUN finds the script that is its here-document.
const SCRIPTS: &str = "/dev/pipes/";

const HEALTHCHECK_FLAGS: [Known; 5] =
    [value("interval"), value("timeout"), value("start-period"), value("start-interval"), value("retries")];

/// The shortest time of a health check that Docker accepts.
const SHORTEST: i64 = 1_000_000;

/// A command in JSON form or as text.
pub(super) fn command_line(text: Text<'_>) -> Result<CommandLine, Diagnostic> {
    Ok(match text.json()? {
        Some(arguments) => CommandLine::Exec(arguments),
        None => CommandLine::Shell(text.as_str().to_owned()),
    })
}

/// `RUN [FLAG…] COMMAND`
pub(super) fn run(statement: &Statement<'_>, documents: &[Document]) -> Result<Run, Diagnostic> {
    let (mut flags, rest) = flags("RUN", statement.arguments, &RUN_FLAGS)?;
    let mounts = flags.take_all("mount").iter().map(MountFlag::parse).collect::<Result<_, _>>()?;
    let network = flags.take("network").map(|word| network(&word)).transpose()?;
    let insecure = flags.take("security").map_or(Ok(None), |word| insecure(&word))?;
    let devices = flags.take_all("device");
    let command = needed(statement, rest)?;
    let mut script = None;
    let command = match documents {
        [] => command_line(command)?,
        // The body alone is the command, so that it works in shells which know no here-documents.
        [document] if document.range == command.range() => {
            if document.is_script() {
                let path = script_path(document, command.span())?;
                script = Some(Script { path: path.clone(), content: document.content() });
                CommandLine::Shell(path)
            } else {
                CommandLine::Shell(document.content())
            }
        }
        documents => {
            let mut text = command.as_str().to_owned();
            for document in documents {
                text.push('\n');
                text.push_str(&document.as_written());
            }
            CommandLine::Shell(text)
        }
    };
    Ok(Run { command, script, mounts, network, insecure, devices })
}

/// Where a script is. The shell reads its path as a word, so that its name must be one.
fn script_path(document: &Document, span: Span) -> Result<String, Diagnostic> {
    let name = document.name();
    let special = |c: char| c.is_whitespace() || c.is_control() || "/$`\"'\\*?[]{}()<>|&;~#!".contains(c);
    if name.contains(special) || name == "." || name == ".." {
        let error =
            Diagnostic::new(format!("'{name}' cannot be the name of a script: a shell would not take it as it is"));
        return Err(error.at(span).help("write letters and digits, as in RUN <<EOF"));
    }
    Ok(format!("{SCRIPTS}{name}"))
}

/// The value of `--network`, which holds no variables.
fn network(word: &Word) -> Result<(NetworkMode, Span), Diagnostic> {
    let mode = match word.raw.as_str() {
        "default" => NetworkMode::Default,
        "none" => NetworkMode::None,
        "host" => NetworkMode::Host,
        _ => return Err(not_one_of("network", word, &["default", "none", "host"])),
    };
    Ok((mode, word.span))
}

/// The place of `--security` where it asks for privileges. It holds no variables.
fn insecure(word: &Word) -> Result<Option<Span>, Diagnostic> {
    match word.raw.as_str() {
        "sandbox" => Ok(None),
        "insecure" => Ok(Some(word.span)),
        _ => Err(not_one_of("security", word, &["sandbox", "insecure"])),
    }
}

fn not_one_of(flag: &str, word: &Word, values: &[&str]) -> Diagnostic {
    let error = Diagnostic::new(format!("RUN --{flag} cannot be '{}'", word.raw)).at(word.span);
    match closest(&word.raw, values.iter().copied()) {
        Some(value) => error.help(format!("did you mean --{flag}={value}?")),
        None => error.help(format!("its values are {}; variables are not expanded here", values.join(", "))),
    }
}

/// `SHELL ["PROGRAM", "ARGUMENT", …]`
pub(super) fn shell(arguments: Text<'_>) -> Result<Vec<String>, Diagnostic> {
    match arguments.json()? {
        Some(arguments) if !arguments.is_empty() => Ok(arguments),
        _ => Err(Diagnostic::new("SHELL needs a JSON array that is not empty")
            .at(arguments.span())
            .help(r#"write SHELL ["/bin/sh", "-c"]"#)),
    }
}

/// `HEALTHCHECK [FLAG…] CMD COMMAND` or `HEALTHCHECK NONE`
pub(super) fn healthcheck(statement: &Statement<'_>) -> Result<Healthcheck, Diagnostic> {
    let (mut flags, rest) = flags("HEALTHCHECK", statement.arguments, &HEALTHCHECK_FLAGS)?;
    let (form, command) = needed(statement, rest)?.split_first();
    if form.as_str().eq_ignore_ascii_case("none") {
        if !command.is_empty() || form.range().start != statement.arguments.range().start {
            let error = Diagnostic::new("HEALTHCHECK NONE takes neither flags nor arguments");
            return Err(error.at(statement.arguments.span()));
        }
        return Ok(Healthcheck::None);
    }
    if !form.as_str().eq_ignore_ascii_case("cmd") {
        let error = Diagnostic::new(format!("HEALTHCHECK has no form '{}'", form.as_str())).at(form.span());
        return Err(match closest(form.as_str(), ["CMD", "NONE"]) {
            Some(meant) => error.help(format!("did you mean HEALTHCHECK {meant}?")),
            None => error.help("write HEALTHCHECK CMD COMMAND or HEALTHCHECK NONE"),
        });
    }
    let missing = || {
        Diagnostic::new("HEALTHCHECK CMD needs a command")
            .at(statement.span())
            .help("write HEALTHCHECK CMD COMMAND or HEALTHCHECK NONE")
    };
    let command = if command.is_empty() { return Err(missing()) } else { command_line(command)? };
    if command == CommandLine::Exec(Vec::new()) {
        return Err(missing());
    }
    let mut time = |name: &str| flags.take(name).map_or(Ok(None), |word| duration(name, &word));
    Ok(Healthcheck::Check {
        command,
        interval: time("interval")?,
        timeout: time("timeout")?,
        start_period: time("start-period")?,
        start_interval: time("start-interval")?,
        retries: flags.take("retries").map_or(Ok(None), |word| retries(&word))?,
    })
}

fn duration(name: &str, word: &Word) -> Result<Option<i64>, Diagnostic> {
    match parse_duration(&word.raw).map_err(|error| error.at(word.span))? {
        0 => Ok(None),
        duration @ SHORTEST.. => Ok(Some(duration)),
        _ => Err(Diagnostic::new(format!("HEALTHCHECK --{name} cannot be shorter than 1ms"))
            .at(word.span)
            .help("0s means the runtime's default")),
    }
}

fn retries(word: &Word) -> Result<Option<u32>, Diagnostic> {
    match word.raw.parse::<i32>().map(u32::try_from) {
        Ok(Ok(0)) => Ok(None),
        Ok(Ok(number)) => Ok(Some(number)),
        _ => Err(Diagnostic::new("HEALTHCHECK --retries needs a number that is not negative")
            .at(word.span)
            .help("0 means the runtime's default")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dockerfile::InstructionKind;
    use crate::dockerfile::parse::only;

    fn text(text: &str) -> CommandLine {
        CommandLine::Shell(text.to_owned())
    }

    fn exec(arguments: &[&str]) -> CommandLine {
        CommandLine::Exec(arguments.iter().map(|argument| (*argument).to_owned()).collect())
    }

    #[test]
    fn commands_have_two_forms() {
        let cases = [
            ("echo $x  \"a\" ; b  ", text("echo $x  \"a\" ; b")),
            ("a && \\\n    b \\\n# c\n    && d", text("a &&     b     && d")),
            ("[\"a\", \"$x\"]", exec(&["a", "$x"])),
            ("[]", exec(&[])),
            ("['a']", text("['a']")),
            ("[ -f a ] || b", text("[ -f a ] || b")),
            ("-- --version", text("--version")),
        ];
        for (line, command) in cases {
            let run = InstructionKind::Run(command.clone().into());
            assert_eq!(only(&format!("RUN {line}")), Ok(run), "{line}");
            assert_eq!(only(&format!("cmd {line}")), Ok(InstructionKind::Cmd(command.clone())), "{line}");
            assert_eq!(only(&format!("Entrypoint {line}")), Ok(InstructionKind::Entrypoint(command)), "{line}");
        }
    }

    #[test]
    fn commands_of_nothing_are_empty_texts() {
        assert_eq!(only("CMD"), Ok(InstructionKind::Cmd(text(""))));
        assert_eq!(only("entrypoint  "), Ok(InstructionKind::Entrypoint(text(""))));
    }

    #[test]
    fn here_documents_are_the_command_or_follow_it() {
        let cases = [
            ("RUN <<EOF\necho $x\n  b\nEOF", "echo $x\n  b\n"),
            ("RUN <<-EOF\n\ta\n\t\tb\n\tEOF", "a\nb\n"),
            ("RUN cat <<EOF > f\nx\nEOF", "cat <<EOF > f\nx\nEOF"),
            ("RUN cat <<-'A' 3<<B\n\tx\nA\ny\nB", "cat <<-'A' 3<<B\n\tx\nA\ny\nB"),
            ("RUN <<EOF sh \\\n -x\na\nEOF", "<<EOF sh  -x\na\nEOF"),
            ("RUN a <<<EOF", "a <<<EOF"),
        ];
        for (line, command) in cases {
            assert_eq!(only(line), Ok(InstructionKind::Run(text(command).into())), "{line}");
        }
    }

    fn run_of(line: &str) -> Run {
        match only(line) {
            Ok(InstructionKind::Run(run)) => run,
            other => panic!("{line}: {other:?}"),
        }
    }

    #[test]
    fn a_here_document_that_names_its_interpreter_is_a_script() {
        let cases = [
            (
                "RUN <<EOF\n#!/usr/bin/env python3\nprint('$x')\nEOF",
                "/dev/pipes/EOF",
                "#!/usr/bin/env python3\nprint('$x')\n",
            ),
            ("RUN --network=none <<-'py'\n#!/bin/sh\n\ta\n\tpy", "/dev/pipes/py", "#!/bin/sh\na\n"),
        ];
        for (line, path, content) in cases {
            let run = run_of(line);
            assert_eq!(run.command, text(path), "{line}");
            assert_eq!(run.script, Some(Script { path: path.to_owned(), content: content.to_owned() }), "{line}");
        }
        // Beside a command, and where the first line does not begin with the mark, it is the shell's.
        for line in ["RUN sh <<EOF\n#!/bin/sh\nEOF", "RUN <<EOF\n #!/bin/sh\nEOF", "RUN <<A <<B\n#!/bin/sh\nA\nB"] {
            assert_eq!(run_of(line).script, None, "{line}");
        }
    }

    #[test]
    fn a_run_has_flags() {
        let run = run_of(
            "RUN --mount=type=tmpfs,target=/t --network=none --mount=target=/m --security=insecure --device=a --device=b,required x",
        );
        assert_eq!(run.command, text("x"));
        assert_eq!(run.mounts.len(), 2);
        assert_eq!(run.network.map(|(mode, _)| mode), Some(NetworkMode::None));
        assert!(run.insecure.is_some());
        assert_eq!(run.devices.iter().map(|word| word.raw.as_str()).collect::<Vec<_>>(), ["a", "b,required"]);
        assert_eq!(run_of("RUN --security=sandbox x"), text("x").into());
        for (mode, expected) in [("default", NetworkMode::Default), ("host", NetworkMode::Host)] {
            let run = run_of(&format!("RUN --network={mode} x"));
            assert_eq!(run.network.map(|(mode, _)| mode), Some(expected));
        }
    }

    #[test]
    fn wrong_commands_are_refused() {
        let cases = [
            ("RUN", "RUN needs an argument"),
            ("ENTRYPOINT [1]", "a JSON array must hold strings only"),
            ("CMD --x", "CMD has no flag --x"),
            ("RUN --network=nonne a", "RUN --network cannot be 'nonne'"),
            ("RUN --network=$n a", "RUN --network cannot be '$n'"),
            ("RUN --network=None a", "RUN --network cannot be 'None'"),
            ("RUN --network=none --network=none a", "RUN has --network twice"),
            ("RUN --network a", "RUN --network needs a value"),
            ("RUN --security=secure a", "RUN --security cannot be 'secure'"),
            ("RUN --mount a", "RUN --mount needs a value"),
            ("RUN --mout=a a", "RUN has no flag --mout"),
            ("RUN <<a/b\n#!/bin/sh\na/b", "'a/b' cannot be the name of a script: a shell would not take it as it is"),
            ("RUN <<$x\n#!/bin/sh\n$x", "'$x' cannot be the name of a script: a shell would not take it as it is"),
            ("RUN <<EOF\na", "the here-document has no end: no line is 'EOF'"),
            ("SHELL /bin/sh", "SHELL needs a JSON array that is not empty"),
            ("SHELL []", "SHELL needs a JSON array that is not empty"),
        ];
        for (line, message) in cases {
            assert_eq!(only(line), Err(message.to_owned()), "{line}");
        }
        let shell = vec!["a".to_owned(), "-c".to_owned()];
        assert_eq!(only("SHELL [\"a\",\"-c\"]"), Ok(InstructionKind::Shell(shell)));
    }

    #[test]
    fn health_checks_have_options() {
        let bare = |command| Healthcheck::Check {
            command,
            interval: None,
            timeout: None,
            start_period: None,
            start_interval: None,
            retries: None,
        };
        let all = Healthcheck::Check {
            command: exec(&["a", "b"]),
            interval: Some(90_000_000_000),
            timeout: Some(1_000_000),
            start_period: Some(3_000_000_000),
            start_interval: Some(4_000_000_000),
            retries: Some(5),
        };
        let options = "--interval=1m30s --timeout=1ms --start-period=3s \\\n --start-interval=4s --retries=5";
        let cases = [
            ("NONE", Healthcheck::None),
            ("none", Healthcheck::None),
            ("CMD a  $b", bare(text("a  $b"))),
            ("--interval=0s --retries=0 cmd a", bare(text("a"))),
            (&format!("{options} CMD [\"a\", \"b\"]"), all),
        ];
        for (line, check) in cases {
            assert_eq!(only(&format!("HEALTHCHECK {line}")), Ok(InstructionKind::Healthcheck(check)), "{line}");
        }
    }

    #[test]
    fn wrong_health_checks_are_refused() {
        let cases = [
            ("", "HEALTHCHECK needs an argument"),
            ("CMD", "HEALTHCHECK CMD needs a command"),
            ("CMD []", "HEALTHCHECK CMD needs a command"),
            ("RUN a", "HEALTHCHECK has no form 'RUN'"),
            ("NONE a", "HEALTHCHECK NONE takes neither flags nor arguments"),
            ("--retries=1 NONE", "HEALTHCHECK NONE takes neither flags nor arguments"),
            ("--retries=-1 CMD a", "HEALTHCHECK --retries needs a number that is not negative"),
            ("--retries=2147483648 CMD a", "HEALTHCHECK --retries needs a number that is not negative"),
            ("--interval=5 CMD a", "'5' is not a duration"),
            ("--interval=999us CMD a", "HEALTHCHECK --interval cannot be shorter than 1ms"),
            ("--timeout=-1s CMD a", "HEALTHCHECK --timeout cannot be shorter than 1ms"),
            ("--intervall=5s CMD a", "HEALTHCHECK has no flag --intervall"),
        ];
        for (line, message) in cases {
            assert_eq!(only(&format!("HEALTHCHECK {line}")), Err(message.to_owned()), "{line}");
        }
    }
}
