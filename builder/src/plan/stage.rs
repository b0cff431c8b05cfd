//! Which stages are planned, in which order, and what each starts from.

use std::collections::{BTreeMap, BTreeSet};

use yadokari_layers::Key;

use super::checks::{Findings, Seen};
use super::look::{EPOCH, file_epoch, policy};
use super::lower::Lowering;
use super::scope::{Env, Globals, is_predefined, is_without_effect};
use super::{Base, HistoryLine, Images, Options, Plan, Planned, Stage, key};
use crate::context::Context;
use crate::dockerfile::{
    self, Diagnostic, Dockerfile, Instruction, InstructionKind, MountFlag, Policy, Span, Word, closest, expand,
};
use crate::image::{ContainerConfig, ImageConfig};

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

/// Plans the stages that a target needs.
#[derive(Debug)]
pub(super) struct Planner<'a> {
    pub(super) file: &'a Dockerfile,
    pub(super) options: &'a Options,
    pub(super) context: &'a Context,
    pub(super) images: &'a Images,
    pub(super) globals: Globals<'a>,
    /// By the stage's number in the file: its position in `stages`, once it is planned.
    planned: BTreeMap<usize, usize>,
    stages: Vec<Stage>,
    /// How each of `stages` ended.
    ends: Vec<End>,
    pub(super) needs: BTreeSet<String>,
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
        context: &'a Context,
        images: &'a Images,
    ) -> Result<Self, crate::Error> {
        let last = file.stages.last().and_then(|stage| stage.from.name.as_deref());
        let target = options.target.as_deref().or(last);
        let mut globals = Globals::new(&options.build_args, &options.platform, target, options.epoch);
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
        let policy = policy(file, options)?;
        let mut warnings = file.warnings.clone();
        warnings.extend(policy.warnings.iter().cloned());
        Ok(Self {
            file,
            options,
            context,
            images,
            globals,
            planned: BTreeMap::new(),
            stages: Vec::new(),
            ends: Vec::new(),
            needs: BTreeSet::new(),
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
                let labels = self.options.labels.iter().cloned();
                let last = self.stages.last_mut().expect("the target was just planned");
                last.config.config.labels.extend(labels);
                let findings_are_errors = self.policy.findings_are_errors();
                let (warnings, epoch) = (self.admitted(), self.epoch);
                Ok(Planned::Ready(Plan { stages: self.stages, warnings, findings_are_errors, epoch }))
            }
            _ => Ok(Planned::Needs(self.needs)),
        }
    }

    pub(super) fn target(&self) -> Result<usize, crate::Error> {
        let Some(target) = &self.options.target else { return Ok(self.file.stages.len() - 1) };
        self.find(target, self.file.stages.len()).ok_or_else(|| {
            let names: Vec<&str> = self.file.stages.iter().filter_map(|stage| stage.from.name.as_deref()).collect();
            crate::Error::NoSuchTarget { target: target.clone(), stages: names.join(", ") }
        })
    }

    /// The stage among the first `before` that `name` means: by name, the later of two alike, or by number.
    pub(super) fn find(&self, name: &str, before: usize) -> Option<usize> {
        let stages = &self.file.stages[..before];
        let named = |stage: &dockerfile::Stage| {
            stage.from.name.as_deref().is_some_and(|other| other.eq_ignore_ascii_case(name))
        };
        let number = || name.parse().ok().filter(|&number| number < before);
        stages.iter().rposition(named).or_else(number)
    }

    /// Plans the stage of number `number` in the file, unless it is planned already, and gives its position in the
    /// plan; `None` where something must be fetched first.
    pub(super) fn stage(&mut self, number: usize) -> Result<Option<usize>, crate::Error> {
        if let Some(&position) = self.planned.get(&number) {
            return Ok(Some(position));
        }
        let file = self.file;
        let stage = &file.stages[number];
        for instruction in &stage.instructions {
            self.need_what_it_copies(instruction, number)?;
        }
        let Some((base, lowering)) = self.start(number)? else { return Ok(None) };
        let Some(lowering) = self.instructions(lowering, number)? else { return Ok(None) };
        let position = self.stages.len();
        let name = stage.from.name.clone().unwrap_or_else(|| format!("stage-{number}"));
        let (mut stage, end) = lowering.finish(name, base);
        for line in &mut stage.history {
            line.step = line.step.map(|(stage, step)| (if stage == usize::MAX { position } else { stage }, step));
        }
        self.stages.push(stage);
        self.ends.push(end);
        self.planned.insert(number, position);
        Ok(Some(position))
    }

    /// Plans the stage that an instruction of stage `number` copies from, or asks for the image, even where the base is
    /// not known yet: all needs go out at once.
    fn need_what_it_copies(&mut self, instruction: &Instruction, number: usize) -> Result<(), crate::Error> {
        for from in origins(&instruction.kind) {
            match self.earlier(from, number)? {
                Some(stage) => _ = self.stage(stage)?,
                None if from.name() == NOTHING => {}
                None => _ = self.image(from.name(), from.span())?,
            }
        }
        Ok(())
    }

    /// The stage before stage `number` that `from` names; `None` where it names an image. A number is never an image.
    pub(super) fn earlier(&self, from: From<'_>, number: usize) -> Result<Option<usize>, Diagnostic> {
        let name = from.name();
        if let Some(stage) = self.find(name, number) {
            return Ok(Some(stage));
        }
        let all = self.file.stages.len();
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

    /// The image `name`, or `None` and a need.
    pub(super) fn image(&mut self, name: &str, span: Span) -> Result<Option<&'a super::BaseImage>, crate::Error> {
        if name.is_empty() {
            return Err(Diagnostic::new("the name of the image is empty").at(span).into());
        }
        let image = self.images.get(name);
        if image.is_none() {
            self.needs.insert(name.to_owned());
        }
        Ok(image)
    }

    /// What the stage starts from.
    fn start(&mut self, number: usize) -> Result<Option<(Base, Lowering)>, crate::Error> {
        let file = self.file;
        let from = &file.stages[number].from;
        self.check_platform(from)?;
        let name = expand(&from.image, file.escape, self.globals.values())?;
        if name.is_empty() {
            let error = Diagnostic::new("the base name is empty once its variables are replaced").at(from.image.span);
            return Err(error.help("give the ARG a default value before the first FROM, or pass --build-arg").into());
        }
        if let Some(stage) = self.find(&name, number) {
            let Some(position) = self.stage(stage)? else { return Ok(None) };
            return Ok(Some((Base::Stage(position), Lowering::on(&self.stages[position], &self.ends[position]))));
        }
        let (base, config, key) = if name == NOTHING {
            (Base::Scratch, self.empty_config(), key::scratch(&self.options.platform))
        } else {
            let Some(image) = self.image(&name, from.image.span)? else { return Ok(None) };
            self.check_base(from, &name, &image.config);
            (Base::Image(name), image.config.clone(), key::image(&image.manifest))
        };
        let mut env = Env::of_image(&config.config.env);
        if env.value("PATH").is_none() {
            env.set("PATH", DEFAULT_PATH);
        }
        let mut config = config;
        config.config.env = env.to_image();
        Ok(Some((base, Lowering::new(config, key))))
    }

    /// Only this host's platform is carried out; every other is an error, not a wrong image.
    fn check_platform(&self, from: &dockerfile::From) -> Result<(), crate::Error> {
        let Some(word) = &from.platform else { return Ok(()) };
        let wanted = expand(word, self.file.escape, self.globals.values())?;
        let host = &self.options.platform;
        let same = wanted.eq_ignore_ascii_case(&host.to_string())
            || wanted.eq_ignore_ascii_case(&format!("{}/{}", host.os, host.architecture));
        if same {
            return Ok(());
        }
        Err(Diagnostic::not_carried_out(format!("FROM --platform={wanted} on a {host} host"), word.span).into())
    }

    fn empty_config(&self) -> ImageConfig {
        let platform = &self.options.platform;
        ImageConfig {
            architecture: platform.architecture.clone(),
            variant: platform.variant.clone(),
            os: platform.os.clone(),
            config: ContainerConfig { working_dir: "/".into(), ..ContainerConfig::default() },
            ..ImageConfig::default()
        }
    }

    /// Lowers the base's triggers, then the stage's own instructions.
    fn instructions(&mut self, mut lowering: Lowering, number: usize) -> Result<Option<Lowering>, crate::Error> {
        let file = self.file;
        for trigger in lowering.take_triggers() {
            let text = dockerfile::Source::new("ONBUILD", trigger.clone());
            let instruction = dockerfile::parse_instruction(&text)
                .map_err(|error| crate::Error::Trigger { text: trigger.clone(), message: error.to_string() })?;
            // What is copied from is planned first: the errors of another stage are its own, with their place.
            let in_trigger = |error| Self::in_trigger(error, &trigger);
            for from in origins(&instruction.kind) {
                self.earlier(from, number).map_err(|error| in_trigger(error.into()))?;
            }
            self.need_what_it_copies(&instruction, number)?;
            if !lowering.instruction(self, number, &instruction, true).map_err(in_trigger)? {
                return Ok(None);
            }
        }
        for instruction in &file.stages[number].instructions {
            let lowered = lowering.instruction(self, number, instruction, false);
            if !self.or_go_on(lowered)? {
                return Ok(None);
            }
        }
        Ok(Some(lowering))
    }

    /// A trigger stands in the config of its base: the places of its errors mean nothing in this file.
    fn in_trigger(error: crate::Error, trigger: &str) -> crate::Error {
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
