//! One instruction after the other, each to an edit of the config and at most one step.
//!
//! RUN is lowered in `run.rs`, COPY and ADD in `copy.rs`, what only edits the config in `metadata.rs`.

use yadokari_layers::{Key, RelPath};

use super::checks::{Findings, Seen, check_secret};
use super::copy::How;
use super::key::Parts;
use super::op::{Mkdir, Op, Origin};
use super::scope::{Env, enters_environment};
use super::stage::{End, From, Planner, own_line};
use super::{Base, HistoryLine, Stage, Step, history, key};
use crate::dockerfile::{ArgDecl, CommandLine, Diagnostic, Instruction, InstructionKind, Span, Word};
use crate::image::ImageConfig;

/// A stage while its instructions are read.
#[derive(Debug)]
pub(super) struct Lowering {
    pub(super) config: ImageConfig,
    /// What expansion and RUN see: ENV and ARG, the later one winning.
    pub(super) env: Env,
    /// The stage's arguments in order of declaration, for the history of RUN.
    pub(super) args: Vec<(String, Option<String>)>,
    pub(super) history: Vec<HistoryLine>,
    pub(super) steps: Vec<Step>,
    /// What the stage starts from, and what it is by now.
    pub(super) base_key: Key,
    pub(super) key: Key,
    /// Whether this stage has a CMD of its own, which an ENTRYPOINT then leaves alone.
    pub(super) has_cmd: bool,
    /// What the checks remember.
    pub(super) seen: Seen,
}

/// What all lowering of one instruction needs.
pub(super) struct At<'i> {
    pub(super) instruction: &'i Instruction,
    pub(super) escape: char,
    pub(super) trigger: bool,
    /// The FROM of the stage.
    pub(super) from: Span,
    pub(super) findings: Findings,
}

impl Lowering {
    /// Starts from an image, or from nothing.
    pub(super) fn new(config: ImageConfig, key: Key) -> Self {
        let env = Env::of_image(&config.config.env);
        Self {
            config,
            env,
            args: Vec::new(),
            history: Vec::new(),
            steps: Vec::new(),
            base_key: key,
            key,
            has_cmd: false,
            seen: Seen::default(),
        }
    }

    /// Starts from another stage. Its arguments stay visible, but where one has the name of a variable of the image,
    /// the variable's value is back.
    pub(super) fn on(below: &Stage, end: &End) -> Self {
        let mut env = end.env.clone();
        for (name, value) in Env::of_image(&below.config.config.env).pairs() {
            env.set(name, value);
        }
        let history = below.history.clone();
        let seen = end.seen.below();
        Self { env, args: end.args.clone(), history, seen, ..Self::new(below.config.clone(), end.key) }
    }

    /// The base's ONBUILD triggers, which its child consumes.
    pub(super) fn take_triggers(&mut self) -> Vec<String> {
        std::mem::take(&mut self.config.config.on_build)
    }

    /// The finished stage, and what it leaves to those that start from it.
    pub(super) fn finish(self, name: String, base: Base) -> (Stage, End) {
        let Self { base_key, steps, config, history, .. } = self;
        let stage = Stage { name, base, base_key, steps, config, history };
        (stage, End { key: self.key, env: self.env, args: self.args, seen: self.seen })
    }

    /// Reads one instruction of stage `number`. False where an image must be fetched first.
    pub(super) fn instruction(
        &mut self,
        planner: &mut Planner<'_>,
        number: usize,
        instruction: &Instruction,
        trigger: bool,
    ) -> Result<bool, crate::Error> {
        let from = planner.file.stages[number].from.span;
        let findings = planner.findings.clone();
        let at = At { instruction, escape: planner.file.escape, trigger, from, findings };
        match &instruction.kind {
            InstructionKind::Run(run) => return self.run(planner, number, run, &at),
            InstructionKind::Copy(copy) => {
                let origin = match &copy.from {
                    Some(from) => planner.origin(From::Copy(from), number)?,
                    None => Some((Origin::Context, None)),
                };
                let Some((from, from_key)) = origin else { return Ok(false) };
                let how = How { parents: copy.parents, unpack: false, unpack_downloads: false };
                self.copy(planner, &copy.transfer, how, (from, from_key), &at)?;
            }
            InstructionKind::Add(add) => {
                let (unpack, unpack_downloads) = (add.unpack.unwrap_or(true), add.unpack.unwrap_or(false));
                let how = How { parents: false, unpack, unpack_downloads };
                self.copy(planner, &add.transfer, how, (Origin::Context, None), &at)?;
            }
            InstructionKind::Workdir(path) => self.workdir(planner, path, &at)?,
            InstructionKind::Arg(declarations) => self.arg(planner, declarations, &at)?,
            kind => self.metadata(kind, &at)?,
        }
        Ok(true)
    }

    /// A command's argv: the shell form is one argument of the shell.
    pub(super) fn command(&self, command: &CommandLine) -> Vec<String> {
        match command {
            CommandLine::Exec(argv) => argv.clone(),
            CommandLine::Shell(text) => {
                let shell = self.config.config.shell.clone();
                let mut argv = shell.unwrap_or_else(|| vec!["/bin/sh".into(), "-c".into()]);
                argv.push(text.clone());
                argv
            }
        }
    }

    fn workdir(&mut self, planner: &mut Planner<'_>, word: &Word, at: &At<'_>) -> Result<(), crate::Error> {
        let written = self.expand(word, at)?;
        self.check_workdir(&written, word, at);
        if written.is_empty() {
            let message =
                format!("WORKDIR is empty once its variables are replaced and stays '{}'", self.workdir_path());
            planner.warn(Diagnostic::warning(message), word.span, at.trigger);
        }
        let path = self.absolute(&written)?;
        // The config says an absolute path as it is written, a trailing slash included.
        let said = if written.starts_with('/') { written } else { path.clone() };
        let created_by = format!("WORKDIR {said}");
        self.config.config.working_dir = said;
        if path == "/" {
            self.line(created_by);
            return Ok(());
        }
        let mkdir = Mkdir { path, owner: self.config.config.user.clone() };
        let parts = key::mkdir(&mkdir);
        self.step(Op::Mkdir(mkdir), parts, created_by, at);
        Ok(())
    }

    /// `path` below the working directory, without `.` and `..`.
    pub(super) fn absolute(&self, path: &str) -> Result<String, crate::Error> {
        let joined = if path.starts_with('/') { path.to_owned() } else { format!("{}/{path}", self.workdir_path()) };
        let clean = RelPath::clamped(joined).map_err(yadokari_layers::Error::from)?;
        Ok(format!("/{clean}"))
    }

    fn workdir_path(&self) -> &str {
        match &self.config.config.working_dir[..] {
            "" => "/",
            path => path,
        }
    }

    fn arg(&mut self, planner: &Planner<'_>, declarations: &[ArgDecl], at: &At<'_>) -> Result<(), crate::Error> {
        let mut declared = Vec::new();
        for declaration in declarations {
            // The name is what is written: only the default is expanded.
            let name = declaration.name.raw.clone();
            check_secret(&name, declaration.name.span, at);
            let default = || declaration.default.as_ref().map(|word| self.expand(word, at)).transpose();
            let value = planner.globals.argument(&name, default)?;
            declared.push((name.clone(), value.clone()));
            if let Some(value) = value.as_ref().filter(|_| enters_environment(&name)) {
                self.env.set(&name, value);
            }
            match self.args.iter_mut().find(|(other, _)| *other == name) {
                Some((_, old)) => *old = value,
                None => self.args.push((name, value)),
            }
        }
        self.line(history::args(&declared));
        Ok(())
    }

    pub(super) fn line(&mut self, created_by: String) {
        self.history.push(own_line(created_by, None));
    }

    pub(super) fn step(&mut self, op: Op, parts: Parts, created_by: String, at: &At<'_>) {
        let span = (!at.trigger).then_some(at.instruction.span);
        self.push(op, parts, created_by, at.instruction.text.clone(), span);
    }

    /// The next step, with its line of history.
    pub(super) fn push(&mut self, op: Op, parts: Parts, created_by: String, text: String, span: Option<Span>) {
        self.history.push(own_line(created_by, Some(self.steps.len())));
        let step = Step::new(op, &self.key, parts, text, span);
        self.key = step.key;
        self.steps.push(step);
    }
}
