//! The Dockerfile front-end beside two other parsers, and under mutated input.
//!
//! The others are oracles, not authorities: where one is known to misread a file, the file is named with the reason.
//! Two escape characters at the end of a line, which parse-dockerfile takes for a continuation, are in no file.

use std::fmt::Write as _;

use parse_dockerfile as other;
use yadokari::dockerfile::{
    CommandLine, Copy, Dockerfile, Healthcheck, Instruction, InstructionKind, Pair, Source, Span, Transfer, Word,
    expand, expand_heredoc, expand_words, parse,
};

const CORPUS: [(&str, &str); 9] = [
    ("python-web", include_str!("dockerfiles/python-web.Dockerfile")),
    ("go-stages", include_str!("dockerfiles/go-stages.Dockerfile")),
    ("debian-packages", include_str!("dockerfiles/debian-packages.Dockerfile")),
    ("node-json", include_str!("dockerfiles/node-json.Dockerfile")),
    ("heredocs", include_str!("dockerfiles/heredocs.Dockerfile")),
    ("mounts", include_str!("dockerfiles/mounts.Dockerfile")),
    ("onbuild", include_str!("dockerfiles/onbuild.Dockerfile")),
    ("escape", include_str!("dockerfiles/escape.Dockerfile")),
    ("odd-layout", include_str!("dockerfiles/odd-layout.Dockerfile")),
];

fn read(name: &str, text: &str) -> Dockerfile {
    let source = Source::new(name, text);
    parse(&source).unwrap_or_else(|error| panic!("{}", error.render(&source, false)))
}

/// White space as one space: the oracles differ in which of it they keep.
fn squeeze(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

fn words(words: &[Word]) -> String {
    words.iter().map(|word| word.raw.as_str()).collect::<Vec<_>>().join(" ")
}

fn command(command: &CommandLine) -> String {
    match command {
        CommandLine::Shell(text) => squeeze(text),
        CommandLine::Exec(arguments) => format!("{arguments:?}"),
    }
}

fn files(flags: &[(&str, &Option<Word>)], transfer: &Transfer) -> String {
    let Transfer { sources, heredocs, destination, .. } = transfer;
    let mut out = String::new();
    for (name, value) in flags {
        if let Some(value) = value {
            let _ = write!(out, "--{name}={} ", value.raw);
        }
    }
    for source in sources {
        let _ = write!(out, "{} ", source.raw);
    }
    for heredoc in heredocs {
        let _ = write!(out, "{:?} ", squeeze(&heredoc.content));
    }
    out + &destination.raw
}

/// An instruction in a form that the oracle's can be brought into.
fn ours(kind: &InstructionKind) -> String {
    let arguments = match kind {
        InstructionKind::Run(run) => match &run.script {
            Some(script) => squeeze(&script.content),
            None => command(&run.command),
        },
        InstructionKind::Cmd(line) | InstructionKind::Entrypoint(line) => command(line),
        InstructionKind::Copy(copy) => {
            let Copy { from, transfer, .. } = copy;
            files(&[("from", from), ("chown", &transfer.chown), ("chmod", &transfer.chmod)], transfer)
        }
        InstructionKind::Add(add) => {
            files(&[("chown", &add.transfer.chown), ("chmod", &add.transfer.chmod)], &add.transfer)
        }
        InstructionKind::Workdir(word) | InstructionKind::User(word) | InstructionKind::Stopsignal(word) => {
            word.raw.clone()
        }
        InstructionKind::Expose(list) | InstructionKind::Volume(list) => words(list),
        InstructionKind::Shell(list) => list.join(" "),
        InstructionKind::Maintainer(name) => name.clone(),
        InstructionKind::Healthcheck(Healthcheck::None) => "NONE".to_owned(),
        InstructionKind::Healthcheck(Healthcheck::Check { command: line, .. }) => command(line),
        InstructionKind::Onbuild(trigger) => ours(&trigger.instruction.kind),
        // The oracle does not take these apart.
        InstructionKind::Env(_) | InstructionKind::Label(_) | InstructionKind::Arg(_) => String::new(),
    };
    format!("{} {arguments}", kind.name())
}

fn everything(file: &Dockerfile) -> Vec<String> {
    let mut out: Vec<String> = file.global_args.iter().map(|_| "ARG ".to_owned()).collect();
    for stage in &file.stages {
        let platform = stage.from.platform.as_ref().map(|word| word.raw.clone());
        out.push(format!("FROM {} {:?} {platform:?}", stage.from.image.raw, stage.from.name));
        out.extend(stage.instructions.iter().map(|instruction| ours(&instruction.kind)));
    }
    out
}

fn strings<'a, 'b: 'a>(list: impl IntoIterator<Item = &'a other::UnescapedString<'b>>) -> String {
    list.into_iter().map(|string| &*string.value).collect::<Vec<_>>().join(" ")
}

/// The oracle leaves continuations and the comments between them in a command.
fn joined(text: &str) -> String {
    let lines = text.lines().filter(|line| !line.trim_start().starts_with('#'));
    let parts = lines.map(|line| line.trim_end().strip_suffix(['\\', '`']).unwrap_or(line));
    squeeze(&parts.collect::<Vec<_>>().join(""))
}

fn their_command(command: &other::Command<'_>, heredocs: &[other::HereDoc<'_>]) -> String {
    match (command, heredocs) {
        (_, [document]) => squeeze(&document.value),
        (other::Command::Shell(text), _) if text.value.contains('\n') => joined(text.value),
        (other::Command::Shell(text), _) => squeeze(text.value),
        (other::Command::Exec(list), _) => {
            format!("{:?}", list.value.iter().map(|string| &*string.value).collect::<Vec<_>>())
        }
        (command, _) => panic!("{command:?}"),
    }
}

fn their_files(options: &[other::Flag<'_>], sources: &[other::Source<'_>], destination: &str) -> String {
    let mut out = String::new();
    for flag in options {
        let value = flag.value.as_ref().map_or("", |value| &value.value);
        let _ = write!(out, "--{}={value} ", flag.name.value);
    }
    for source in sources {
        match source {
            other::Source::Path(path) => {
                let _ = write!(out, "{} ", path.value);
            }
            other::Source::HereDoc(document) => {
                let _ = write!(out, "{:?} ", squeeze(&document.value));
            }
            source => panic!("{source:?}"),
        }
    }
    out + destination
}

fn theirs(instruction: &other::Instruction<'_>) -> String {
    match instruction {
        other::Instruction::From(from) => {
            let name = from.as_.as_ref().map(|(_, name)| name.value.to_lowercase());
            let platform =
                from.options.iter().find_map(|flag| flag.value.as_ref()).map(|value| value.value.to_string());
            format!("FROM {} {name:?} {platform:?}", from.image.value)
        }
        other::Instruction::Run(run) => format!("RUN {}", their_command(&run.arguments, &run.here_docs)),
        other::Instruction::Cmd(cmd) => format!("CMD {}", their_command(&cmd.arguments, &[])),
        other::Instruction::Entrypoint(entrypoint) => {
            format!("ENTRYPOINT {}", their_command(&entrypoint.arguments, &[]))
        }
        other::Instruction::Copy(copy) => {
            format!("COPY {}", their_files(&copy.options, &copy.src, &copy.dest.value))
        }
        other::Instruction::Add(add) => format!("ADD {}", their_files(&add.options, &add.src, &add.dest.value)),
        other::Instruction::Workdir(workdir) => format!("WORKDIR {}", workdir.arguments.value),
        other::Instruction::User(user) => format!("USER {}", user.arguments.value),
        other::Instruction::Stopsignal(signal) => format!("STOPSIGNAL {}", signal.arguments.value),
        other::Instruction::Maintainer(maintainer) => format!("MAINTAINER {}", maintainer.name.value),
        other::Instruction::Expose(expose) => format!("EXPOSE {}", strings(&expose.arguments)),
        other::Instruction::Shell(shell) => format!("SHELL {}", strings(&shell.arguments)),
        other::Instruction::Volume(volume) => match &volume.arguments {
            other::JsonOrStringArray::Json(list) => format!("VOLUME {}", strings(&list.value)),
            other::JsonOrStringArray::String(list) => format!("VOLUME {}", strings(list)),
        },
        other::Instruction::Healthcheck(check) => match &check.arguments {
            other::HealthcheckArguments::None { .. } => "HEALTHCHECK NONE".to_owned(),
            other::HealthcheckArguments::Cmd { arguments, .. } => {
                format!("HEALTHCHECK {}", their_command(arguments, &[]))
            }
            arguments => panic!("{arguments:?}"),
        },
        other::Instruction::Onbuild(trigger) => format!("ONBUILD {}", theirs(&trigger.instruction)),
        other::Instruction::Env(_) => "ENV ".to_owned(),
        other::Instruction::Label(_) => "LABEL ".to_owned(),
        other::Instruction::Arg(_) => "ARG ".to_owned(),
        instruction => panic!("{instruction:?}"),
    }
}

#[test]
fn instructions_are_those_that_parse_dockerfile_reads() {
    for (name, text) in CORPUS {
        let file = other::parse(text).unwrap_or_else(|error| panic!("{name}: {error}"));
        let expected: Vec<String> = file.instructions.iter().map(theirs).collect();
        assert_eq!(everything(&read(name, text)), expected, "{name}");
    }
}

#[test]
fn from_and_run_are_those_that_dockerfile_parser_reads() {
    use dockerfile_parser::Instruction as Theirs;

    for (name, text) in CORPUS {
        // It knows neither here-documents nor the escape directive, no white space around the strings of an array, no
        // dot in the name of a stage, and no flags of RUN.
        if ["heredocs", "escape", "node-json", "odd-layout", "mounts"].contains(&name) {
            continue;
        }
        let file = dockerfile_parser::Dockerfile::parse(text).unwrap_or_else(|error| panic!("{name}: {error}"));
        let mut expected = Vec::new();
        for instruction in &file.instructions {
            match instruction {
                Theirs::From(from) => {
                    let alias = from.alias.as_ref().map(|alias| alias.content.to_lowercase());
                    expected.push(format!("FROM {} {alias:?}", from.image.content));
                }
                Theirs::Run(run) => expected.push(match (run.as_shell(), run.as_exec()) {
                    (Some(text), _) => format!("RUN {}", squeeze(&text.to_string())),
                    (_, Some(list)) => format!("RUN {:?}", list.as_str_vec()),
                    _ => unreachable!("a RUN has one of two forms"),
                }),
                _ => {}
            }
        }
        let mut found = Vec::new();
        for stage in read(name, text).stages {
            found.push(format!("FROM {} {:?}", stage.from.image.raw, stage.from.name));
            let runs = stage.instructions.iter().filter(|instruction| instruction.kind.name() == "RUN");
            found.extend(runs.map(|run| ours(&run.kind)));
        }
        assert_eq!(found, expected, "{name}");
    }
}

/// Numbers that are the same in every run.
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % limit.max(1) as u64) as usize
    }
}

/// What mutations put in: the bytes and words that mean something.
const PIECES: [&str; 37] = [
    "\\",
    "\n",
    "\r\n",
    "\"",
    "'",
    "$",
    "${",
    "}",
    "[",
    "]",
    "<<",
    "<<-EOF",
    "EOF",
    "#",
    "=",
    "--",
    " ",
    "\t",
    ":-",
    "//",
    "`",
    "é",
    "\u{feff}",
    "\0",
    ",",
    "*",
    "RUN ",
    "ONBUILD ",
    "COPY ",
    "FROM ",
    "# escape=`\n",
    "--from=",
    "--mount=type=",
    ",target=",
    "secret,id=",
    "HEALTHCHECK ",
    "NONE",
];

fn mutate(text: &str, numbers: &mut Numbers) -> String {
    let mut bytes = text.as_bytes().to_vec();
    for _ in 0..=numbers.below(6) {
        let at = numbers.below(bytes.len() + 1);
        match numbers.below(4) {
            0 => drop(bytes.drain(at..bytes.len().min(at + numbers.below(20)))),
            1 if at < bytes.len() => bytes[at] = numbers.below(256) as u8,
            2 => bytes.truncate(at.max(1)),
            _ => drop(bytes.splice(at..at, PIECES[numbers.below(PIECES.len())].bytes())),
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// Every word that would be expanded.
fn expandable(instruction: &Instruction) -> Vec<Word> {
    let pair = |pair: &Pair| [pair.key.clone(), pair.value.clone()];
    match &instruction.kind {
        InstructionKind::Env(pairs) | InstructionKind::Label(pairs) => pairs.iter().flat_map(pair).collect(),
        InstructionKind::Copy(copy) => {
            [copy.transfer.sources.clone(), vec![copy.transfer.destination.clone()]].concat()
        }
        InstructionKind::Workdir(word) | InstructionKind::User(word) => vec![word.clone()],
        InstructionKind::Expose(words) => words.clone(),
        InstructionKind::Onbuild(trigger) => expandable(&trigger.instruction),
        _ => Vec::new(),
    }
}

#[test]
fn mutated_files_are_read_or_refused_and_never_panic() {
    let variables = |name: &str| name.len().is_multiple_of(2).then(|| format!("{name} *"));
    let mut numbers = Numbers(0x9e37_79b9_7f4a_7c15);
    let mut accepted = 0;
    for turn in 0..20_000 {
        let text = mutate(CORPUS[turn % CORPUS.len()].1, &mut numbers);
        let source = Source::new("Dockerfile", text);
        let inside = |span: Span| {
            assert!(span.start <= span.end && span.end <= source.text.len(), "{span:?} {:?}", source.text);
        };
        let file = match parse(&source) {
            Ok(file) => file,
            Err(error) => {
                error.span.into_iter().for_each(inside);
                assert!(!error.render(&source, turn % 2 == 0).is_empty());
                continue;
            }
        };
        accepted += 1;
        for instruction in file.stages.iter().flat_map(|stage| &stage.instructions) {
            inside(instruction.span);
            for word in expandable(instruction) {
                inside(word.span);
                for error in
                    [expand(&word, file.escape, &variables).err(), expand_words(&word, file.escape, &variables).err()]
                {
                    error.and_then(|error| error.span).into_iter().for_each(inside);
                }
            }
            if let InstructionKind::Run(run) = &instruction.kind {
                for flag in &run.mounts {
                    match flag.read(&mut |word| Ok(expand(word, file.escape, &variables)?)) {
                        Ok(options) => options.warnings.iter().filter_map(|warning| warning.span).for_each(inside),
                        Err(yadokari::Error::Dockerfile(error)) => error.span.into_iter().for_each(inside),
                        Err(error) => panic!("{error}"),
                    }
                }
            }
            if let InstructionKind::Copy(copy) = &instruction.kind {
                copy.transfer.heredocs.iter().for_each(|heredoc| drop(expand_heredoc(heredoc, &variables)));
            }
        }
    }
    assert!(accepted > 2_000, "only {accepted} mutated files were accepted: the test would see little");
}
