//! The typed instructions. The plan reads nothing else of a Dockerfile.

use super::{Checks, Diagnostic, MountFlag, Span, Word};

/// A whole Dockerfile.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Dockerfile {
    /// The escape character: `\`, or what the `# escape=` directive says.
    pub escape: char,
    /// The ARG instructions before the first FROM, which only FROM lines see.
    pub global_args: Vec<ArgInstruction>,
    /// The stages in file order; there is at least one.
    pub stages: Vec<Stage>,
    /// Which checks count.
    pub checks: Checks,
    /// What is legal and probably not meant: the findings of all checks that need no more than the text, whether they
    /// count or not, and other warnings.
    pub warnings: Vec<Diagnostic>,
}

/// A stage: a FROM line and what follows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stage {
    /// The FROM line.
    pub from: From,
    /// The instructions in order.
    pub instructions: Vec<Instruction>,
}

/// `FROM [--platform=PLATFORM] IMAGE [AS NAME]`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct From {
    /// The base: an image, an earlier stage, or `scratch`.
    pub image: Word,
    /// The name after AS, in lower case.
    pub name: Option<String>,
    /// The value of `--platform`.
    pub platform: Option<Word>,
    /// The whole line.
    pub span: Span,
    /// The line as written, continuations joined.
    pub text: String,
}

/// An ARG instruction before the first FROM.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ArgInstruction {
    /// The whole instruction.
    pub span: Span,
    /// The instruction as written, continuations joined.
    pub text: String,
    /// What it declares.
    pub declarations: Vec<ArgDecl>,
}

/// An instruction of a stage.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Instruction {
    /// The instruction's lines, here-documents included.
    pub span: Span,
    /// The instruction as written, continuations joined, here-documents left out: for progress and history.
    pub text: String,
    /// What it says.
    pub kind: InstructionKind,
}

/// What an instruction says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum InstructionKind {
    /// RUN
    Run(Run),
    /// COPY
    Copy(Copy),
    /// ADD
    Add(Add),
    /// ENV
    Env(Vec<Pair>),
    /// ARG
    Arg(Vec<ArgDecl>),
    /// WORKDIR
    Workdir(Word),
    /// USER
    User(Word),
    /// CMD
    Cmd(CommandLine),
    /// ENTRYPOINT
    Entrypoint(CommandLine),
    /// EXPOSE: each word may expand to several ports.
    Expose(Vec<Word>),
    /// LABEL
    Label(Vec<Pair>),
    /// VOLUME
    Volume(Vec<Word>),
    /// SHELL: never empty.
    Shell(Vec<String>),
    /// HEALTHCHECK
    Healthcheck(Healthcheck),
    /// STOPSIGNAL
    Stopsignal(Word),
    /// ONBUILD
    Onbuild(Onbuild),
    /// MAINTAINER
    Maintainer(String),
}

impl InstructionKind {
    /// The instruction's name in capitals.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Run(_) => "RUN",
            Self::Copy(_) => "COPY",
            Self::Add(_) => "ADD",
            Self::Env(_) => "ENV",
            Self::Arg(_) => "ARG",
            Self::Workdir(_) => "WORKDIR",
            Self::User(_) => "USER",
            Self::Cmd(_) => "CMD",
            Self::Entrypoint(_) => "ENTRYPOINT",
            Self::Expose(_) => "EXPOSE",
            Self::Label(_) => "LABEL",
            Self::Volume(_) => "VOLUME",
            Self::Shell(_) => "SHELL",
            Self::Healthcheck(_) => "HEALTHCHECK",
            Self::Stopsignal(_) => "STOPSIGNAL",
            Self::Onbuild(_) => "ONBUILD",
            Self::Maintainer(_) => "MAINTAINER",
        }
    }
}

/// A command in one of its two forms.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CommandLine {
    /// One text for the shell, exactly as the shell gets it: continuations are joined, comment lines inside are gone,
    /// nothing is expanded.
    Shell(String),
    /// The JSON form: the program and its arguments. It may be empty.
    Exec(Vec<String>),
}

/// RUN
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Run {
    /// The command. Here-documents are in it already: `RUN <<EOF` alone is its body, and a here-document beside a
    /// command follows the command's line, for the shell to read.
    pub command: CommandLine,
    /// A script that the command executes: the body of `RUN <<NAME` that names its interpreter in its first line.
    pub script: Option<Script>,
    /// `--mount`, in order.
    pub mounts: Vec<MountFlag>,
    /// `--network`, and its place.
    pub network: Option<(NetworkMode, Span)>,
    /// The place of `--security=insecure`.
    pub insecure: Option<Span>,
    /// `--device`, in order.
    pub devices: Vec<Word>,
}

impl std::convert::From<CommandLine> for Run {
    fn from(command: CommandLine) -> Self {
        Self { command, script: None, mounts: Vec::new(), network: None, insecure: None, devices: Vec::new() }
    }
}

/// A file that a RUN executes and that no image holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Script {
    /// Where the command finds it.
    pub path: String,
    /// What it says.
    pub content: String,
}

/// The value of `RUN --network`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NetworkMode {
    /// What a RUN has without the flag.
    Default,
    /// No network but its own loopback.
    None,
    /// The builder's network.
    Host,
}

/// COPY
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Copy {
    /// `--from`: a stage, its number, or an image. Variables are not expanded here, and a `$` is refused.
    pub from: Option<Word>,
    /// `--parents`: the directories above each source are copied too.
    pub parents: bool,
    /// What is copied, and where to.
    pub transfer: Transfer,
}

/// ADD
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Add {
    /// `--checksum`: what a file's digest must be, or a repository's commit.
    pub checksum: Option<Word>,
    /// `--keep-git-dir`: whether a repository's `.git` directory is copied, where it is given.
    pub keep_git_dir: Option<bool>,
    /// `--unpack`: whether archives are unpacked, where it is given.
    pub unpack: Option<bool>,
    /// What is copied, and where to. A source may also be a URL or a git repository.
    pub transfer: Transfer,
}

/// What COPY and ADD have in common.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Transfer {
    /// `--chown`
    pub chown: Option<Word>,
    /// `--chmod`
    pub chmod: Option<Word>,
    /// `--link`: the layer does not depend on what is below it.
    pub link: bool,
    /// `--exclude`: what is left out, as in an ignore file. Variables are not expanded here.
    pub exclude: Vec<Word>,
    /// The source paths, which may be patterns.
    pub sources: Vec<Word>,
    /// The sources given inline. They are copied after `sources`; one of the two lists holds something.
    pub heredocs: Vec<Heredoc>,
    /// The destination.
    pub destination: Word,
}

/// A file whose content stands in the Dockerfile: `COPY <<NAME /destination`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Heredoc {
    /// The word after `<<`, without quotes: the terminator and the file's name.
    pub name: String,
    /// False where a part of the word was quoted: the content is then literal.
    pub expand: bool,
    /// The lines up to the terminator, with the leading tabs already gone where the introducer was `<<-`.
    pub content: String,
    /// The place of the introducer.
    pub span: Span,
}

/// A key and a value of ENV or LABEL. Both are expanded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pair {
    /// The part before `=`.
    pub key: Word,
    /// The part after it.
    pub value: Word,
    /// The old form, `KEY VALUE`.
    pub legacy: bool,
}

/// A name that ARG declares.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ArgDecl {
    /// The name, as it is written.
    pub name: Word,
    /// The default; `ARG name=` has an empty one.
    pub default: Option<Word>,
}

/// HEALTHCHECK
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Healthcheck {
    /// `HEALTHCHECK NONE`: an inherited check is switched off.
    None,
    /// `HEALTHCHECK CMD`. Times are in nanoseconds; an option that is absent or zero means the runtime's default.
    Check {
        /// The command.
        command: CommandLine,
        /// `--interval`
        interval: Option<i64>,
        /// `--timeout`
        timeout: Option<i64>,
        /// `--start-period`
        start_period: Option<i64>,
        /// `--start-interval`
        start_interval: Option<i64>,
        /// `--retries`
        retries: Option<u32>,
    },
}

/// ONBUILD
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Onbuild {
    /// The trigger as the image config stores it: the instruction's text, here-documents included.
    pub text: String,
    /// The same, parsed.
    pub instruction: Box<Instruction>,
}
