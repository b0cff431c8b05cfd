//! Which stages are planned, in which order, and what each starts from.

use std::collections::BTreeMap;

use yadokari_layers::Key;
use yadokari_registry::Platform;

use super::checks::{Findings, Seen};
use super::look::{EPOCH, file_epoch, policy};
use super::lower::Lowering;
use super::scope::{Env, Globals, is_predefined, is_without_effect};
use super::{Base, HistoryLine, Known, Needs, Options, Plan, Planned, Stage};
use crate::context::{Context, Contexts};
use crate::dockerfile::{
    self, Diagnostic, Dockerfile, Instruction, InstructionKind, MountFlag, Policy, Span, Word, closest, expand,
};

/// What BuildKit gives an image whose base has no `PATH`.
const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// The image that is none: what is mounted from it is empty.
pub(super) const NOTHING: &str = "scratch";

/// What names a stage or an image to take files from.
#[derive(Debug, Clone, Copy)]
pub(super) enum From<'i> {
    /// `COPY --from`
    Copy(&'i Word),
    /// `RUN --mount=from=`
    Mount(&'i Word),
}

impl<'i> From<'i> {
    fn word(self) -> &'i Word {
        match self {
            Self::Copy(word) | Self::Mount(word) => word,
        }
    }

    pub(super) fn name(self) -> &'i str {
        &self.word().raw
    }

    pub(super) fn span(self) -> Span {
        self.word().span
    }

    fn verb(self) -> &'static str {
        if matches!(self, Self::Copy(_)) { "copied" } else { "mounted" }
    }
}

impl std::fmt::Display for From<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let flag = if matches!(self, Self::Copy(_)) { "--from" } else { "from" };
        write!(f, "{flag}={}", self.name())
    }
}

/// The stages and images that an instruction names.
fn origins(kind: &InstructionKind) -> Vec<From<'_>> {
    match kind {
        InstructionKind::Copy(copy) => copy.from.iter().map(From::Copy).collect(),
        InstructionKind::Run(run) => run.mounts.iter().filter_map(MountFlag::from).map(From::Mount).collect(),
        _ => Vec::new(),
    }
}
/// How many stages may stand on, or copy from, one another in a row. Nobody has a tenth of it.
const DEEPEST: usize = 300;

/// Plans the stages that a target needs.
#[derive(Debug)]
pub(super) struct Planner<'a> {
    pub(super) file: &'a Dockerfile,
    pub(super) options: &'a Options,
    pub(super) context: &'a Context,
    pub(super) contexts: &'a Contexts,
    pub(super) known: &'a Known,
    pub(super) globals: Globals<'a>,
    /// By the stage's number in the file: its position in `stages`, or `None` where this round cannot plan it.
    planned: BTreeMap<usize, Option<usize>>,
    /// How many stages are being planned, each for the one before.
    depth: usize,
    /// By the stage's number in the file: its platform, once something asked for it.
    pub(super) platforms: BTreeMap<usize, Platform>,
    stages: Vec<Stage>,
    /// How each of `stages` ended.
    ends: Vec<End>,
    pub(super) needs: Needs,
    /// Whether the instruction that is read is a trigger's, whose places are none of this file.
    pub(super) in_trigger: bool,
    pub(super) warnings: Vec<Diagnostic>,
    pub(super) findings: Findings,
    pub(super) policy: Policy<'a>,
    /// SOURCE_DATE_EPOCH, as it holds for this file.
    epoch: Option<i64>,
    /// Where nothing will be built, errors do not end planning and are kept here.
    pub(super) look: Option<Vec<crate::Error>>,
}

/// What a stage leaves to those that start from it.
#[derive(Debug, Clone)]
pub(super) struct End {
    pub(super) key: Key,
    pub(super) env: Env,
    /// The arguments declared so far.
    pub(super) args: Vec<(String, Option<String>)>,
    pub(super) seen: Seen,
}

impl<'a> Planner<'a> {
    pub(super) fn new(
        file: &'a Dockerfile,
        options: &'a Options,
        contexts: &'a Contexts,
        known: &'a Known,
    ) -> Result<Self, crate::Error> {
        let last = file.stages.last().and_then(|stage| stage.from.name.as_deref());
        let target = options.target.as_deref().or(last);
        let mut globals = Globals::new(&options.build_args, &options.platform, &options.host, target, options.epoch);
        let mut epoch = options.epoch;
        for declaration in file.global_args.iter().flat_map(|arg| &arg.declarations) {
            let name = &declaration.name.raw;
            let is_epoch = name == EPOCH;
            let given = globals.is_given(name) || is_epoch && options.epoch.is_some();
            let default = declaration.default.as_ref().filter(|_| !given);
            let value = default.map(|word| expand(word, file.escape, globals.values())).transpose()?;
            if let (true, Some(word), Some(value)) = (is_epoch, default, &value) {
                epoch = file_epoch(value, word.span)?;
            }
            globals.define(name, value);
        }
        let epoch = epoch.or(options.reproducible.then_some(0));
        let policy = policy(file, options)?;
        let mut warnings = file.warnings.clone();
        warnings.extend(policy.warnings.iter().cloned());
        Ok(Self {
            file,
            options,
            context: contexts.main(),
            contexts,
            known,
            globals,
            planned: BTreeMap::new(),
            depth: 0,
            platforms: BTreeMap::new(),
            stages: Vec::new(),
            ends: Vec::new(),
            needs: Needs::default(),
            in_trigger: false,
            warnings,
            findings: Findings::default(),
            policy,
            epoch,
            look: None,
        })
    }

    /// Plans the target, and with it all that it needs.
    pub(super) fn plan(mut self) -> Result<Planned, crate::Error> {
        self.check_from_lines()?;
        let target = self.target()?;
        match self.stage(target)? {
            Some(_) if self.needs.is_empty() => {
                self.warn_of_unused_arguments();
                let platform = self.platform(target)?;
                let mut config = self.stages.last().expect("the target was just planned").config.clone();
                config.config.labels.extend(self.options.labels.iter().cloned());
                self.settle_platform(&mut config, &platform);
                self.stages.last_mut().expect("it is still there").config = config;
                let findings_are_errors = self.policy.findings_are_errors();
                let (warnings, epoch) = (self.admitted(), self.epoch);
                Ok(Planned::Ready(Plan { stages: self.stages, warnings, findings_are_errors, epoch }))
            }
            _ => Ok(Planned::Needs(self.needs)),
        }
    }

    /// The stage among the first `before` that `name` means: by name, the later of two alike, or by number.
    pub(super) fn find(&self, name: &str, before: usize) -> Option<usize> {
        let number = || name.parse().ok().filter(|&number| number < before);
        self.find_name(name, before).or_else(number)
    }

    /// Plans the stage of number `number` in the file, unless it is planned already, and gives its position in the
    /// plan; `None` where something must be fetched first.
    pub(super) fn stage(&mut self, number: usize) -> Result<Option<usize>, crate::Error> {
        if let Some(&position) = self.planned.get(&number) {
            return Ok(position);
        }
        if self.depth == DEEPEST {
            let error = Diagnostic::new(format!("more than {DEEPEST} stages need one another in a row"));
            return Err(error.at(self.file.stages[number].from.span).into());
        }
        self.depth += 1;
        let in_trigger = std::mem::take(&mut self.in_trigger);
        let planned = self.plan_stage(number);
        self.in_trigger = in_trigger;
        self.depth -= 1;
        let position = planned?;
        self.planned.insert(number, position);
        Ok(position)
    }

    fn plan_stage(&mut self, number: usize) -> Result<Option<usize>, crate::Error> {
        let file = self.file;
        let stage = &file.stages[number];
        let is_replaced = self.stand_in(number).is_some();
        let instructions = if is_replaced { &[] } else { &stage.instructions[..] };
        self.check_commands(instructions, number)?;
        for instruction in instructions {
            self.need_what_it_copies(instruction, number)?;
        }
        let Some((base, mut lowering)) = self.start(number)? else { return Ok(None) };
        if !is_replaced {
            let Some(lowered) = self.instructions(lowering, number)? else { return Ok(None) };
            lowering = lowered;
        }
        let position = self.stages.len();
        let name = stage.from.name.clone().unwrap_or_else(|| format!("stage-{number}"));
        let (mut stage, end) = lowering.finish(name, base);
        for line in &mut stage.history {
            line.step = line.step.map(|(stage, step)| (if stage == usize::MAX { position } else { stage }, step));
        }
        self.stages.push(stage);
        self.ends.push(end);
        Ok(Some(position))
    }

    /// Plans the stage that an instruction of stage `number` copies from, or asks for the image, even where the base is
    /// not known yet: all needs go out at once.
    fn need_what_it_copies(&mut self, instruction: &Instruction, number: usize) -> Result<(), crate::Error> {
        for from in origins(&instruction.kind) {
            self.origin(from, number)?;
        }
        Ok(())
    }

    /// The stage before stage `number` that `from` names; `None` where it names an image. A number is never an image.
    pub(super) fn earlier(&self, from: From<'_>, number: usize) -> Result<Option<usize>, Diagnostic> {
        let name = from.name();
        let all = self.file.stages.len();
        // What stands in for a stage is there from the start.
        let replaced = || self.find_name(name, all).filter(|&stage| self.stand_in(stage).is_some());
        if let Some(stage) = self.find(name, number).or_else(replaced) {
            return Ok(Some(stage));
        }
        let message = match self.find(name, all) {
            Some(later) if later == number => format!("{from} is the stage itself"),
            Some(_) => format!("{from} is a later stage"),
            None if name.bytes().all(|byte| byte.is_ascii_digit()) && !name.is_empty() => {
                format!("{from}: the Dockerfile has {all} stages, counted from 0")
            }
            None => return Ok(None),
        };
        Err(Diagnostic::new(message).at(from.span()).label(format!("only earlier stages can be {} from", from.verb())))
    }

    /// Keeps a warning. A trigger's has no place in this file.
    pub(super) fn warn(&mut self, warning: Diagnostic, span: Span, trigger: bool) {
        self.warnings.push(if trigger { warning } else { warning.at(span) });
    }

    /// What the stage starts from.
    fn start(&mut self, number: usize) -> Result<Option<(Base, Lowering)>, crate::Error> {
        if let Some(below) = self.stage_below(number)? {
            let platform = self.platform(below)?;
            self.check_asked_platform(&self.file.stages[number].from, &platform)?;
            let Some(position) = self.stage(below)? else { return Ok(None) };
            return Ok(Some((Base::Stage(position), Lowering::on(&self.stages[position], &self.ends[position]))));
        }
        let Some((base, mut lowering)) = self.start_from_outside(number)? else { return Ok(None) };
        if lowering.env.value("PATH").is_none() {
            lowering.env.set("PATH", DEFAULT_PATH);
        }
        lowering.config.config.env = lowering.env.to_image();
        Ok(Some((base, lowering)))
    }

    /// Lowers the base's triggers, then the stage's own instructions.
    fn instructions(&mut self, mut lowering: Lowering, number: usize) -> Result<Option<Lowering>, crate::Error> {
        let file = self.file;
        for trigger in lowering.take_triggers() {
            let text = dockerfile::Source::new("ONBUILD", trigger.clone());
            let instruction = dockerfile::parse_instruction(&text)
                .map_err(|error| crate::Error::Trigger { text: trigger.clone(), message: error.to_string() })?;
            // What is copied from is planned first: the errors of another stage are its own, with their place.
            self.in_trigger = true;
            let in_trigger = |error| Self::of_trigger(error, &trigger);
            self.check_commands(std::slice::from_ref(&instruction), number).map_err(in_trigger)?;
            for from in origins(&instruction.kind) {
                self.earlier(from, number).map_err(|error| in_trigger(error.into()))?;
            }
            self.need_what_it_copies(&instruction, number)?;
            if !lowering.instruction(self, number, &instruction, true).map_err(in_trigger)? {
                return Ok(None);
            }
        }
        self.in_trigger = false;
        for instruction in &file.stages[number].instructions {
            let lowered = lowering.instruction(self, number, instruction, false);
            if !self.or_go_on(lowered)? {
                return Ok(None);
            }
        }
        Ok(Some(lowering))
    }

    /// A trigger stands in the config of its base: the places of its errors mean nothing in this file.
    fn of_trigger(error: crate::Error, trigger: &str) -> crate::Error {
        match error {
            crate::Error::Dockerfile(diagnostic) => {
                crate::Error::Trigger { text: trigger.to_owned(), message: diagnostic.to_string() }
            }
            error => error,
        }
    }

    /// The key of a planned stage's result.
    pub(super) fn key_of(&self, position: usize) -> Key {
        self.ends[position].key
    }

    pub(super) fn warn_of_unused_arguments(&mut self) {
        let declared: Vec<&str> = {
            let in_stages = self.file.stages.iter().flat_map(|stage| &stage.instructions).filter_map(|instruction| {
                let InstructionKind::Arg(declarations) = &instruction.kind else { return None };
                Some(declarations)
            });
            let global = self.file.global_args.iter().map(|arg| &arg.declarations);
            in_stages.chain(global).flatten().map(|declaration| declaration.name.raw.as_str()).collect()
        };
        for (name, _) in self.options.build_args.iter().filter(|(name, value)| is_without_effect(name, value)) {
            let message = format!("--build-arg {name} has no effect: what it asks for is not carried out yet");
            self.warnings.push(Diagnostic::warning(message));
        }
        let unused: Vec<&str> = self.options.build_args.iter().map(|(name, _)| name.as_str()).collect();
        let unused: Vec<&str> =
            unused.into_iter().filter(|name| !declared.contains(name) && !is_predefined(name)).collect();
        if !unused.is_empty() {
            let warning = Diagnostic::warning(format!("no ARG takes --build-arg {}", unused.join(", ")));
            let meant = unused.iter().find_map(|name| closest(name, declared.iter().copied()));
            self.warnings.push(match meant {
                Some(meant) => warning.help(format!("did you mean {meant}?")),
                None => warning,
            });
        }
    }
}

/// A line of history whose step belongs to the stage being planned; its position is filled in when it is known.
pub(super) fn own_line(created_by: String, step: Option<usize>) -> HistoryLine {
    HistoryLine { created_by, step: step.map(|step| (usize::MAX, step)) }
}
