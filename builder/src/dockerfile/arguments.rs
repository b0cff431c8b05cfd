//! The arguments of every instruction but FROM.

use super::command::{command_line, healthcheck, run, shell};
use super::copy::{add, copy};
use super::flags::{Known, flags};
use super::heredoc::Document;
use super::lines::Line;
use super::suggest::closest;
use super::text::Text;
use super::{ArgDecl, Diagnostic, Instruction, InstructionKind, Onbuild, Pair, Span, Word};

/// Every instruction of the language.
const NAMES: [&str; 18] = [
    "ADD",
    "ARG",
    "CMD",
    "COPY",
    "ENTRYPOINT",
    "ENV",
    "EXPOSE",
    "FROM",
    "HEALTHCHECK",
    "LABEL",
    "MAINTAINER",
    "ONBUILD",
    "RUN",
    "SHELL",
    "STOPSIGNAL",
    "USER",
    "VOLUME",
    "WORKDIR",
];

/// An instruction before its arguments are read: a name and what follows.
#[derive(Clone, Copy)]
pub(super) struct Statement<'l> {
    whole: Text<'l>,
    name: Text<'l>,
    /// What follows the name, flags included.
    pub(super) arguments: Text<'l>,
}

impl<'l> Statement<'l> {
    pub(super) fn new(line: &'l Line) -> Self {
        Self::of(Text::of(line))
    }

    fn of(whole: Text<'l>) -> Self {
        let (name, arguments) = whole.split_first();
        Self { whole, name, arguments }
    }

    /// The name in capitals.
    pub(super) fn name(&self) -> String {
        self.name.as_str().to_ascii_uppercase()
    }

    /// The name as it is written.
    pub(super) fn written(&self) -> &'l str {
        self.name.as_str()
    }

    pub(super) fn is(&self, name: &str) -> bool {
        self.name.as_str().eq_ignore_ascii_case(name)
    }

    pub(super) fn name_span(&self) -> Span {
        self.name.span()
    }

    pub(super) fn span(&self) -> Span {
        self.whole.span()
    }

    /// The text as written, continuations joined.
    pub(super) fn text(&self) -> String {
        self.whole.as_str().to_owned()
    }

    /// Fails where the language has no instruction of this name.
    pub(super) fn known(&self) -> Result<(), Diagnostic> {
        let name = self.name();
        if NAMES.contains(&name.as_str()) {
            return Ok(());
        }
        let error = Diagnostic::new(format!("unknown instruction: {}", self.name.as_str())).at(self.name.span());
        Err(match closest(&name, NAMES) {
            Some(name) => error.help(format!("did you mean {name}?")),
            None => error,
        })
    }

    /// Fails where the instruction cannot be an ONBUILD trigger.
    pub(super) fn is_trigger(&self) -> Result<(), Diagnostic> {
        self.known()?;
        if self.is("ONBUILD") || self.is("FROM") || self.is("MAINTAINER") {
            let error = Diagnostic::new(format!("{} cannot be an ONBUILD trigger", self.name()));
            let help = "a trigger is any instruction but FROM, ONBUILD and MAINTAINER";
            return Err(error.at(self.name.span()).help(help));
        }
        Ok(())
    }

    /// The arguments in which `<<NAME` introduces a here-document, where the instruction takes any.
    pub(super) fn holder_of_documents(&self) -> Option<Text<'l>> {
        let inner = if self.is("ONBUILD") { Self::of(self.arguments) } else { *self };
        let takes_documents = ["RUN", "COPY", "ADD"].iter().any(|name| inner.is(name));
        // A JSON form is plain text for its reader; an array of something else is refused later.
        let plain = || split_flags(inner).is_none_or(|rest| matches!(rest.json(), Ok(None)));
        (takes_documents && plain()).then_some(inner.arguments)
    }
}

/// The arguments without their flags, where the instruction's own flags say nothing against it.
fn split_flags(statement: Statement<'_>) -> Option<Text<'_>> {
    let words = statement.arguments.quoted_words('\\');
    let first = words.iter().find(|word| !word.as_str().starts_with("--"))?;
    let offset = first.range().start - statement.arguments.range().start;
    Some(statement.arguments.slice(offset..statement.arguments.as_str().len()))
}

/// Reads the arguments of an instruction that stands in a stage. `span` is the place of all its lines.
pub(super) fn kind(
    statement: &Statement<'_>,
    documents: &[Document],
    span: Span,
    escape: char,
) -> Result<InstructionKind, Diagnostic> {
    statement.known()?;
    Ok(match statement.name().as_str() {
        "ADD" => InstructionKind::Add(add(statement, documents)?),
        "ARG" => InstructionKind::Arg(arg(statement, escape)?),
        "CMD" => InstructionKind::Cmd(command_line(optional(statement)?)?),
        "COPY" => InstructionKind::Copy(copy(statement, documents)?),
        "ENTRYPOINT" => InstructionKind::Entrypoint(command_line(optional(statement)?)?),
        "ENV" => InstructionKind::Env(pairs(statement, escape)?),
        "EXPOSE" => InstructionKind::Expose(plain(statement)?.words().iter().map(Text::word).collect()),
        "HEALTHCHECK" => InstructionKind::Healthcheck(healthcheck(statement)?),
        "LABEL" => InstructionKind::Label(pairs(statement, escape)?),
        "MAINTAINER" => InstructionKind::Maintainer(plain(statement)?.as_str().to_owned()),
        "ONBUILD" => InstructionKind::Onbuild(onbuild(statement, documents, span, escape)?),
        "RUN" => InstructionKind::Run(run(statement, documents)?),
        "SHELL" => InstructionKind::Shell(shell(plain(statement)?)?),
        "STOPSIGNAL" => InstructionKind::Stopsignal(plain(statement)?.word()),
        "USER" => InstructionKind::User(plain(statement)?.word()),
        "VOLUME" => InstructionKind::Volume(volume(plain(statement)?)?),
        "WORKDIR" => InstructionKind::Workdir(plain(statement)?.word()),
        name => return Err(Diagnostic::new(format!("{name} cannot stand here")).at(statement.name_span())),
    })
}

/// The arguments of an instruction without flags, which must not be empty.
fn plain<'l>(statement: &Statement<'l>) -> Result<Text<'l>, Diagnostic> {
    needed(statement, optional(statement)?)
}

/// The same, where there may be none: BuildKit takes a CMD of nothing for an empty text.
fn optional<'l>(statement: &Statement<'l>) -> Result<Text<'l>, Diagnostic> {
    Ok(flags(&statement.name(), statement.arguments, &[] as &[Known])?.1)
}

/// `arguments`, or the error that the instruction has none.
pub(super) fn needed<'l>(statement: &Statement<'_>, arguments: Text<'l>) -> Result<Text<'l>, Diagnostic> {
    if arguments.is_empty() {
        let name = statement.name();
        let error = Diagnostic::new(format!("{name} needs an argument")).at(statement.span());
        return Err(match usage(&name) {
            Some(usage) => error.help(format!("write {name} {usage}")),
            None => error,
        });
    }
    Ok(arguments)
}

/// The simplest arguments of an instruction.
fn usage(name: &str) -> Option<&'static str> {
    Some(match name {
        "ARG" => "NAME or ARG NAME=DEFAULT",
        "ENV" | "LABEL" => "KEY=VALUE",
        "EXPOSE" => "PORT",
        "HEALTHCHECK" => "CMD COMMAND",
        "MAINTAINER" => "NAME",
        "ONBUILD" => "INSTRUCTION",
        "RUN" => "COMMAND",
        "SHELL" => "[\"/bin/sh\", \"-c\"]",
        "STOPSIGNAL" => "SIGTERM",
        "USER" => "NAME",
        "VOLUME" | "WORKDIR" => "PATH",
        _ => return None,
    })
}

/// `ARG NAME[=DEFAULT] …`
pub(super) fn arg(statement: &Statement<'_>, escape: char) -> Result<Vec<ArgDecl>, Diagnostic> {
    let words = plain(statement)?.quoted_words(escape);
    let declaration = |word: Text<'_>| match word.split_once('=') {
        Some((name, default)) => Ok(ArgDecl { name: key(statement, name)?, default: Some(default.word()) }),
        None => Ok(ArgDecl { name: word.word(), default: None }),
    };
    words.into_iter().map(declaration).collect()
}

/// `KEY=VALUE …`, or the old form `KEY VALUE` with the rest of the line as the value.
fn pairs(statement: &Statement<'_>, escape: char) -> Result<Vec<Pair>, Diagnostic> {
    let arguments = plain(statement)?;
    let words = arguments.quoted_words(escape);
    if words.first().is_some_and(|word| !word.as_str().contains('=')) {
        let (key, value) = arguments.split_first();
        if value.is_empty() {
            return Err(Diagnostic::new(format!("{} needs a value for '{}'", statement.name(), key.as_str()))
                .at(key.span())
                .help(format!("write {}=VALUE", key.as_str())));
        }
        return Ok(vec![Pair { key: key.word(), value: value.word(), legacy: true }]);
    }
    let pair = |word: Text<'_>| match word.split_once('=') {
        Some((name, value)) => Ok(Pair { key: key(statement, name)?, value: value.word(), legacy: false }),
        None => Err(Diagnostic::new(format!("'{}' has no '=': it must be of the form KEY=VALUE", word.as_str()))
            .at(word.span())
            .help("put a value that holds spaces in quotes")),
    };
    words.into_iter().map(pair).collect()
}

fn key(statement: &Statement<'_>, key: Text<'_>) -> Result<Word, Diagnostic> {
    if key.is_empty() {
        let error = Diagnostic::new(format!("{} has a value without a name", statement.name())).at(key.span());
        return Err(error.label("the name belongs here"));
    }
    Ok(key.word())
}

/// `VOLUME PATH …` or `VOLUME ["PATH", …]`
fn volume(arguments: Text<'_>) -> Result<Vec<Word>, Diagnostic> {
    let words = words_or_json(arguments)?.into_iter();
    let words: Vec<Word> = words.map(|word| Word { raw: word.raw.trim().to_owned(), ..word }).collect();
    if words.is_empty() || words.iter().any(|word| word.raw.is_empty()) {
        return Err(Diagnostic::new("VOLUME needs a path, and none may be empty")
            .at(arguments.span())
            .help("write VOLUME PATH"));
    }
    Ok(words)
}

/// The strings of a JSON array, or the words. The strings' place is the array.
pub(super) fn words_or_json(arguments: Text<'_>) -> Result<Vec<Word>, Diagnostic> {
    Ok(match arguments.json()? {
        Some(strings) => strings.into_iter().map(|raw| Word { raw, span: arguments.span() }).collect(),
        None => arguments.words().iter().map(Text::word).collect(),
    })
}

/// `ONBUILD INSTRUCTION`
fn onbuild(statement: &Statement<'_>, documents: &[Document], span: Span, escape: char) -> Result<Onbuild, Diagnostic> {
    let inner = Statement::of(plain(statement)?);
    inner.is_trigger()?;
    let kind = kind(&inner, documents, span, escape)?;
    let mut text = inner.text();
    for document in documents {
        text.push('\n');
        text.push_str(&document.as_written());
    }
    let span = Span::new(inner.span().start, span.end);
    Ok(Onbuild { text, instruction: Box::new(Instruction { span, text: inner.text(), kind }) })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dockerfile::parse::only;

    fn shown(kind: &InstructionKind) -> Vec<String> {
        let pair = |pair: &Pair| format!("{}|{}", pair.key.raw, pair.value.raw);
        let declaration = |arg: &ArgDecl| match &arg.default {
            Some(default) => format!("{}|{}", arg.name.raw, default.raw),
            None => arg.name.raw.clone(),
        };
        match kind {
            InstructionKind::Env(pairs) | InstructionKind::Label(pairs) => pairs.iter().map(pair).collect(),
            InstructionKind::Arg(declarations) => declarations.iter().map(declaration).collect(),
            InstructionKind::Workdir(word) | InstructionKind::User(word) | InstructionKind::Stopsignal(word) => {
                vec![word.raw.clone()]
            }
            InstructionKind::Expose(words) | InstructionKind::Volume(words) => {
                words.iter().map(|word| word.raw.clone()).collect()
            }
            InstructionKind::Maintainer(name) => vec![name.clone()],
            InstructionKind::Onbuild(trigger) => {
                vec![trigger.text.clone(), trigger.instruction.kind.name().to_owned()]
            }
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn arguments_are_split_as_the_instruction_says() {
        let documents = "ONBUILD COPY --from=a <<A <<-B /c/\nx\nA\n\ty\n\tB";
        let cases: [(&str, &[&str]); 27] = [
            ("ENV a=b c=$d", &["a|b", "c|$d"]),
            ("ENV a='b c' d=\"e f\" g=h\\ i", &["a|'b c'", "d|\"e f\"", "g|h\\ i"]),
            ("ENV a= b==c", &["a|", "b|=c"]),
            ("ENV a b  'c' = d", &["a|b  'c' = d"]),
            ("ENV a=b \\\n    c=d", &["a|b", "c|d"]),
            ("LABEL \"a.b\"=\"c\" d=e", &["\"a.b\"|\"c\"", "d|e"]),
            ("LABEL a b c", &["a|b c"]),
            ("ARG a", &["a"]),
            ("ARG a b=1 c= d='e f'", &["a", "b|1", "c|", "d|'e f'"]),
            ("WORKDIR /a b", &["/a b"]),
            ("WORKDIR \"/a\" ", &["\"/a\""]),
            ("USER a:b", &["a:b"]),
            ("STOPSIGNAL $s", &["$s"]),
            ("EXPOSE 80  443/udp $p", &["80", "443/udp", "$p"]),
            ("VOLUME /a  /b", &["/a", "/b"]),
            ("VOLUME [\" /a b\", \"/c \"]", &["/a b", "/c"]),
            ("VOLUME ['/a']", &["['/a']"]),
            ("MAINTAINER A B <c@d>", &["A B <c@d>"]),
            ("ONBUILD RUN a", &["RUN a", "RUN"]),
            ("onbuild  copy a \\\n  b", &["copy a   b", "COPY"]),
            ("ONBUILD RUN <<EOF\na\nEOF", &["RUN <<EOF\na\nEOF", "RUN"]),
            (documents, &["COPY --from=a <<A <<-B /c/\nx\nA\n\ty\nB", "COPY"]),
            ("ONBUILD ENV a=b", &["ENV a=b", "ENV"]),
            ("ONBUILD HEALTHCHECK NONE", &["HEALTHCHECK NONE", "HEALTHCHECK"]),
            ("ONBUILD ARG a", &["ARG a", "ARG"]),
            ("ONBUILD CMD a <<EOF", &["CMD a <<EOF", "CMD"]),
            ("env\ta=b", &["a|b"]),
        ];
        for (line, expected) in cases {
            assert_eq!(shown(&only(line).unwrap()), expected, "{line}");
        }
    }

    #[test]
    fn wrong_arguments_are_refused() {
        let cases = [
            ("ENV", "ENV needs an argument"),
            ("ENV a", "ENV needs a value for 'a'"),
            ("ENV =b", "ENV has a value without a name"),
            ("ENV a=b c", "'c' has no '=': it must be of the form KEY=VALUE"),
            ("LABEL a", "LABEL needs a value for 'a'"),
            ("LABEL a=b c", "'c' has no '=': it must be of the form KEY=VALUE"),
            ("ARG", "ARG needs an argument"),
            ("ARG =b", "ARG has a value without a name"),
            ("WORKDIR", "WORKDIR needs an argument"),
            ("USER", "USER needs an argument"),
            ("STOPSIGNAL", "STOPSIGNAL needs an argument"),
            ("EXPOSE", "EXPOSE needs an argument"),
            ("MAINTAINER", "MAINTAINER needs an argument"),
            ("VOLUME", "VOLUME needs an argument"),
            ("VOLUME []", "VOLUME needs a path, and none may be empty"),
            ("VOLUME [\"\"]", "VOLUME needs a path, and none may be empty"),
            ("VOLUME [1]", "a JSON array must hold strings only"),
            ("USER --x a", "USER has no flag --x"),
            ("ONBUILD", "ONBUILD needs an argument"),
            ("ONBUILD ONBUILD RUN a", "ONBUILD cannot be an ONBUILD trigger"),
            ("ONBUILD from a", "FROM cannot be an ONBUILD trigger"),
            ("ONBUILD MAINTAINER a", "MAINTAINER cannot be an ONBUILD trigger"),
            ("ONBUILD RUNN a", "unknown instruction: RUNN"),
            ("ONBUILD COPY a", "COPY needs a source and a destination"),
            ("ONBUILD RUN --network=no a", "RUN --network cannot be 'no'"),
        ];
        for (line, message) in cases {
            assert_eq!(only(line), Err(message.to_owned()), "{line}");
        }
    }
}
