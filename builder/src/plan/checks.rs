//! The build checks that need variables, base images or the context.
//!
//! Those of a FROM line look at every stage; the others at the stages that are planned, each instruction at the moment
//! when it is lowered.

use std::borrow::Cow;
use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use yadokari_registry::{Platform, Reference};

use super::Options;
use super::lower::{At, Lowering};
use super::scope::{Env, Globals};
use super::stage::Planner;
use crate::dockerfile::{
    self, Diagnostic, Heredoc, Pair, Rule, Span, Variables, Word, closest, expand, expand_heredoc,
};
use crate::image::ImageConfig;

/// What is found while planning.
#[derive(Debug, Clone, Default)]
pub(super) struct Findings(Rc<RefCell<Vec<Diagnostic>>>);

impl Findings {
    pub(super) fn push(&self, finding: Diagnostic) {
        self.0.borrow_mut().push(finding);
    }

    pub(super) fn take(&self) -> Vec<Diagnostic> {
        self.0.take()
    }
}

/// What the checks remember of a stage.
#[derive(Debug, Clone, Default)]
pub(super) struct Seen {
    cmd: Option<Span>,
    entrypoint: Option<Span>,
    healthcheck: Option<Span>,
    workdir: bool,
}

impl Seen {
    /// What a stage on top of one that saw this begins with.
    pub(super) fn below(&self) -> Self {
        Self { workdir: self.workdir, ..Self::default() }
    }
}

/// How much of a trigger is shown, in characters.
const LONGEST_TRIGGER: usize = 60;

impl At<'_> {
    /// Adds a finding about this instruction. What a trigger does is found at the FROM that brings it.
    pub(super) fn find(&self, rule: Rule, place: Span, message: impl Into<String>, help: Option<String>) {
        let finding = Diagnostic::finding(rule, self.place(self.instruction.span), message).at(self.place(place));
        self.findings.push(self.brought_by(Diagnostic { help, ..finding }));
    }

    /// The finding, with the trigger that it is about.
    fn brought_by(&self, finding: Diagnostic) -> Diagnostic {
        match self.trigger {
            true => {
                let text: String = self.instruction.text.chars().take(LONGEST_TRIGGER).collect();
                finding.label(format!("by its trigger ONBUILD {text}"))
            }
            false => finding,
        }
    }

    /// A place of this file: triggers stand in another.
    pub(super) fn place(&self, span: Span) -> Span {
        if self.trigger { self.from } else { span }
    }
}

/// Variables of which it is known afterwards which ones were used, and which ones missed, each once.
struct Watched<'v> {
    variables: &'v Env,
    used: RefCell<BTreeSet<String>>,
    missed: RefCell<BTreeMap<String, Span>>,
}

impl<'v> Watched<'v> {
    fn new(variables: &'v Env) -> Self {
        Self { variables, used: RefCell::default(), missed: RefCell::default() }
    }

    fn missed(self) -> BTreeMap<String, Span> {
        self.missed.into_inner()
    }
}

impl Variables for Watched<'_> {
    fn get(&self, name: &str) -> Option<Cow<'_, str>> {
        let value = self.variables.get(name)?;
        self.used.borrow_mut().insert(name.to_owned());
        Some(value)
    }

    fn unset(&self, name: &str, at: Span) {
        let mut missed = self.missed.borrow_mut();
        if !missed.contains_key(name) {
            missed.insert(name.to_owned(), at);
        }
    }

    fn names(&self) -> Vec<&str> {
        self.variables.names()
    }
}

/// Arguments that are settings of the builder and no variables.
const SETTINGS: [&str; 2] = ["BUILDKIT_SBOM_SCAN_CONTEXT", "BUILDKIT_SBOM_SCAN_STAGE"];

impl Lowering {
    /// The value of `word`, and a finding for each variable in it that nothing defines. An ARG without a value does.
    pub(super) fn expand(&self, word: &Word, at: &At<'_>) -> Result<String, crate::Error> {
        let watched = Watched::new(&self.env);
        let value = expand(word, at.escape, &watched).map_err(|error| error.or_at(at.instruction.span));
        self.find_missed(watched.missed().into_iter(), at);
        Ok(value?)
    }

    /// The content of an inline file, with the same findings.
    pub(super) fn expand_heredoc(&self, heredoc: &Heredoc, at: &At<'_>) -> Result<String, crate::Error> {
        let watched = Watched::new(&self.env);
        let content = expand_heredoc(heredoc, &watched);
        let missed = watched.missed().into_keys().map(|name| (name, heredoc.span));
        self.find_missed(missed, at);
        Ok(content?)
    }

    fn find_missed(&self, missed: impl Iterator<Item = (String, Span)>, at: &At<'_>) {
        for (name, place) in missed {
            if self.args.iter().any(|(other, _)| *other == name) || SETTINGS.contains(&name.as_str()) {
                continue;
            }
            let help = closest(&name, self.env.names()).map(|meant| format!("did you mean ${meant}?"));
            at.find(Rule::UndefinedVar, place, format!("nothing defines the variable '${name}'"), help);
        }
    }

    /// `ENV key value`, and names of secrets.
    pub(super) fn check_pairs(&self, written: &[Pair], names: &[(String, String)], at: &At<'_>) {
        let instruction = at.instruction.kind.name();
        for (pair, (name, _)) in written.iter().zip(names) {
            if pair.legacy {
                let message = format!("{instruction} is written in the old form, KEY VALUE");
                let help =
                    format!("write {instruction} {}=VALUE, with quotes around a value with spaces", pair.key.raw);
                at.find(Rule::LegacyKeyValueFormat, pair.key.span, message, Some(help));
            }
            if instruction == "ENV" {
                check_secret(name, pair.key.span, at);
            }
        }
    }

    /// A CMD or ENTRYPOINT as text, without a SHELL that says that a shell is meant.
    pub(super) fn check_form(&self, command: &dockerfile::CommandLine, at: &At<'_>) {
        let shell = self.config.config.shell.as_ref().is_some_and(|shell| !shell.is_empty());
        if let dockerfile::CommandLine::Shell(text) = command
            && !shell
        {
            let name = at.instruction.kind.name();
            let message = format!("{name} is text for a shell, which keeps signals from the program");
            let help = match text.starts_with("['") {
                true => "the strings of a JSON array stand in double quotes".to_owned(),
                false => format!("write {name} [\"PROGRAM\", \"ARGUMENT\"], or say with SHELL that a shell is meant"),
            };
            at.find(Rule::JsonArgsRecommended, at.instruction.span, message, Some(help));
        }
    }

    /// An instruction of which only the last one of a stage counts.
    pub(super) fn check_once(&mut self, at: &At<'_>) {
        let name = at.instruction.kind.name();
        let last = match name {
            "CMD" => &mut self.seen.cmd,
            "ENTRYPOINT" => &mut self.seen.entrypoint,
            "HEALTHCHECK" => &mut self.seen.healthcheck,
            _ => return,
        };
        if let Some(earlier) = last.replace(at.place(at.instruction.span)) {
            // The comments that count are those above the later one, which is what was added.
            let message = format!("a later {name} of the stage replaces this one");
            let rule = Rule::MultipleInstructionsDisallowed;
            let finding = Diagnostic::finding(rule, at.place(at.instruction.span), message).at(earlier);
            at.findings.push(at.brought_by(finding.help(format!("take one {name} out"))));
        }
    }

    /// The first WORKDIR of a stage and of those it starts from.
    pub(super) fn check_workdir(&mut self, path: &str, word: &Word, at: &At<'_>) {
        if !self.seen.workdir && !path.starts_with('/') {
            let message = format!("the relative WORKDIR '{path}' depends on the base image");
            let help = "begin with an absolute WORKDIR".to_owned();
            at.find(Rule::WorkdirRelativePath, word.span, message, Some(help));
        }
        self.seen.workdir = true;
    }
}

/// A name of an ARG or ENV one of whose words is that of a secret.
pub(super) fn check_secret(name: &str, place: Span, at: &At<'_>) {
    const SECRET: [&str; 10] =
        ["apikey", "auth", "credential", "credentials", "key", "password", "pword", "passwd", "secret", "token"];
    const HARMLESS: [&str; 3] = ["public", "file", "version"];
    let has = |words: &[&str]| name.split('_').any(|part| words.iter().any(|word| part.eq_ignore_ascii_case(word)));
    if has(&SECRET) && !has(&HARMLESS) {
        let message = format!("'{name}' looks like a secret, which everybody can read in the image");
        let help = "give secrets to the RUN that needs them: RUN --mount=type=secret,id=NAME".to_owned();
        at.find(Rule::SecretsUsedInArgOrEnv, place, message, Some(help));
    }
}

/// A port as it is written.
pub(super) fn check_port(text: &str, place: Span, at: &At<'_>) {
    let (ports, protocol) = text.split_once('/').unwrap_or((text, ""));
    if protocol.chars().any(char::is_uppercase) {
        let message = format!("the protocol of '{text}' has capital letters");
        let help = format!("write {ports}/{}", protocol.to_lowercase());
        at.find(Rule::ExposeProtoCasing, place, message, Some(help));
    }
    if let Some((host, port)) = ports.rsplit_once(':')
        && !matches!(host, "" | ":")
    {
        let message = format!("'{text}' names an address or port of the host, which has no effect");
        at.find(Rule::ExposeInvalidFormat, place, message, Some(format!("write the container's port alone: {port}")));
    }
}

impl Planner<'_> {
    /// The checks of all FROM lines, and their errors: a line that names nothing ends the build whether or not its stage
    /// is needed.
    pub(super) fn check_from_lines(&self) -> Result<(), crate::Error> {
        let file = self.file;
        let declared: Vec<&str> = {
            let global = file.global_args.iter().flat_map(|arg| &arg.declarations);
            global.map(|declaration| declaration.name.raw.as_str()).collect()
        };
        let defaults = self.defaults();
        for (number, stage) in file.stages.iter().enumerate() {
            let from = &stage.from;
            let find = |rule, place, message: String, help| {
                let finding = Diagnostic::finding(rule, from.span, message).at(place);
                self.findings.push(Diagnostic { help, ..finding });
            };
            // The value of a word, and the variables in it.
            let expand_here = |word: &Word| {
                let watched = Watched::new(self.globals.values());
                let value = expand(word, file.escape, &watched);
                let Watched { used, missed, .. } = watched;
                let (used, missed) = (used.into_inner(), missed.into_inner());
                for (name, place) in missed.iter().filter(|(name, _)| !declared.contains(&name.as_str())) {
                    let known = declared.iter().copied().chain(self.globals.values().names());
                    let help = match closest(name, known) {
                        Some(meant) => format!("did you mean ${meant}?"),
                        None => format!("write ARG {name} before the first FROM"),
                    };
                    let message = format!("no ARG before the first FROM declares '${name}'");
                    find(Rule::UndefinedArgInFrom, *place, message, Some(help));
                }
                let names: Vec<String> = used.into_iter().chain(missed.into_keys()).collect();
                value.map(|value| (value, names))
            };
            if let Some(defaults) = &defaults
                && let Ok(name) = expand(&from.image, file.escape, defaults)
                && !names_something(&name)
                && self.find(&name, number).is_none()
            {
                let message = match name.as_str() {
                    "" => format!("without build arguments '{}' names no image", from.image.raw),
                    name => format!("without build arguments '{}' is '{name}', which names no image", from.image.raw),
                };
                let help = "give the ARG before the first FROM a default".to_owned();
                find(Rule::InvalidDefaultArgInFrom, from.image.span, message, Some(help));
            }
            if expand_here(&from.image)?.0.is_empty() {
                let error = Diagnostic::new("the base name is empty once its variables are replaced");
                let help = "give the ARG a default value before the first FROM, or pass --build-arg";
                return Err(error.at(from.image.span).help(help).into());
            }
            let Some(platform) = &from.platform else { continue };
            let (value, names) = expand_here(platform)?;
            if names == ["TARGETPLATFORM"] && self.globals.values().value("TARGETPLATFORM") == Some(&value) {
                let message = format!("--platform={} is the platform that FROM has anyway", platform.raw);
                find(Rule::RedundantTargetPlatform, platform.span, message, Some("take --platform out".to_owned()));
            }
            if names.is_empty() && !self.names_platform(from.name.as_deref().unwrap_or_default(), &value) {
                let message = format!("FROM takes the platform {value}, whatever is built for");
                let architecture = value.rsplit('/').next().unwrap_or_default();
                let help = format!("use $BUILDPLATFORM, or name the stage after its platform: AS build-{architecture}");
                find(Rule::FromPlatformFlagConstDisallowed, platform.span, message, Some(help));
            }
        }
        Ok(())
    }

    /// Whether the name of a stage says that it is for `platform`: by its system or architecture.
    fn names_platform(&self, name: &str, platform: &str) -> bool {
        let host = &self.options.host;
        // The one part that may be missing is the host's.
        let missing = if platform.contains('/') { [None; 2] } else { [Some(&host.os), Some(&host.architecture)] };
        let mut parts = platform.split('/').take(2).chain(missing.into_iter().flatten().map(String::as_str));
        parts.any(|part| !part.is_empty() && name.contains(part))
    }

    /// The arguments before the first FROM as they are without build arguments; `None` where one cannot be expanded.
    fn defaults(&self) -> Option<Env> {
        let mut globals = {
            let Options { platform, host, target, epoch, .. } = self.options;
            Globals::new(&[], platform, host, target.as_deref(), *epoch)
        };
        for declaration in self.file.global_args.iter().flat_map(|arg| &arg.declarations) {
            let name = expand(&declaration.name, self.file.escape, globals.values()).ok()?;
            let default = declaration.default.as_ref();
            let default = default.map(|word| expand(word, self.file.escape, globals.values())).transpose().ok()?;
            globals.define(&name, default);
        }
        Some(globals.values().clone())
    }

    /// A base image for another platform than the one it is taken for.
    pub(super) fn check_base(&self, from: &dockerfile::From, name: &str, wanted: &Platform, image: &ImageConfig) {
        if image.os != wanted.os || image.architecture != wanted.architecture {
            let message = format!("{name} is an image for {}/{}, not for {wanted}", image.os, image.architecture);
            let finding = Diagnostic::finding(Rule::InvalidBaseImagePlatform, from.span, message);
            self.findings.push(finding.at(from.image.span));
        }
    }

    /// A source of COPY or ADD that the ignore file leaves out.
    pub(super) fn check_ignored(&self, source: &str, place: Span, at: &At<'_>) {
        if self.context.leaves_out(source) {
            let message =
                format!("'{source}' is not part of the context: {} leaves it out", self.context.ignore_file());
            at.find(Rule::CopyIgnoredFile, place, message, None);
        }
    }
}

/// Whether a FROM can name this: an image, or `scratch`.
fn names_something(name: &str) -> bool {
    name.starts_with("oci:") || name.parse::<Reference>().is_ok()
}
