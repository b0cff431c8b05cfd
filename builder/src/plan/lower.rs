//! One instruction after the other, each to an edit of the config and at most one step.

use yadokari_layers::{Key, RelPath};

use super::op::{Copy, CopySource, Inline, Mkdir, Op, Origin, Owner, Run};
use super::scope::Env;
use super::stage::{End, Planner, own_line};
use super::{Base, HistoryLine, Stage, Step, history, key, select};
use crate::dockerfile::{
    self, ArgDecl, CommandLine, Diagnostic, Healthcheck, Instruction, InstructionKind, Pair, Span, Word, expand,
    expand_heredoc, expand_words,
};
use crate::image::{HealthcheckConfig, ImageConfig};

/// A stage while its instructions are read.
#[derive(Debug)]
pub(super) struct Lowering {
    config: ImageConfig,
    /// What expansion and RUN see: ENV and ARG, the later one winning.
    env: Env,
    /// The stage's arguments in order of declaration, for the history of RUN.
    args: Vec<(String, Option<String>)>,
    history: Vec<HistoryLine>,
    steps: Vec<Step>,
    key: Key,
    /// Whether this stage has a CMD of its own, which an ENTRYPOINT then leaves alone.
    has_cmd: bool,
}

/// What all lowering of one instruction needs.
struct At<'i> {
    instruction: &'i Instruction,
    escape: char,
    trigger: bool,
}

impl Lowering {
    pub(super) fn new(config: ImageConfig, env: Env, key: Key, history: Vec<HistoryLine>) -> Self {
        Self { config, env, args: Vec::new(), history, steps: Vec::new(), key, has_cmd: false }
    }

    /// The base's ONBUILD triggers, which its child consumes.
    pub(super) fn take_triggers(&mut self) -> Vec<String> {
        std::mem::take(&mut self.config.config.on_build)
    }

    /// The finished stage, and what it leaves to those that start from it.
    pub(super) fn finish(self, name: String, base: Base) -> (Stage, End) {
        let stage = Stage { name, base, steps: self.steps, config: self.config, history: self.history };
        (stage, End { key: self.key, env: self.env })
    }

    /// Reads one instruction of stage `number`. False where an image must be fetched first.
    pub(super) fn instruction(
        &mut self,
        planner: &mut Planner<'_>,
        number: usize,
        instruction: &Instruction,
        trigger: bool,
    ) -> Result<bool, crate::Error> {
        let at = At { instruction, escape: planner.file.escape, trigger };
        match &instruction.kind {
            InstructionKind::Run(run) => self.run(planner, &run.command, &at),
            InstructionKind::Copy(copy) => {
                let words = CopyWords {
                    name: "COPY",
                    chown: copy.chown.as_ref(),
                    chmod: copy.chmod.as_ref(),
                    sources: &copy.sources,
                    heredocs: &copy.heredocs,
                    destination: &copy.destination,
                };
                let Some((from, from_key)) = self.origin(planner, number, copy.from.as_ref())? else {
                    return Ok(false);
                };
                self.copy(planner, &words, from, from_key, &at)?;
            }
            InstructionKind::Add(add) => {
                let words = CopyWords {
                    name: "ADD",
                    chown: add.chown.as_ref(),
                    chmod: add.chmod.as_ref(),
                    sources: &add.sources,
                    heredocs: &add.heredocs,
                    destination: &add.destination,
                };
                self.copy(planner, &words, Origin::Context, None, &at)?;
            }
            InstructionKind::Workdir(path) => self.workdir(path, &at)?,
            InstructionKind::Arg(declarations) => self.arg(planner, declarations, &at)?,
            kind => self.metadata(kind, &at)?,
        }
        Ok(true)
    }

    fn run(&mut self, planner: &Planner<'_>, command: &CommandLine, at: &At<'_>) {
        let argv = self.command(command);
        let declared: Vec<(String, String)> = self
            .args
            .iter()
            .map(|(name, value)| {
                let value = self.env.value(name).map(str::to_owned).or_else(|| value.clone());
                (name.clone(), value.unwrap_or_default())
            })
            .collect();
        let created_by = history::run(&argv, &declared);
        let mut proxies = planner.globals.proxies();
        proxies.retain(|(name, _)| self.env.value(name).is_none());
        let run = Run {
            argv,
            env: self.env.pairs().to_vec(),
            proxies,
            user: self.config.config.user.clone(),
            workdir: self.config.config.working_dir.clone(),
        };
        let key = key::run(&self.key, &run);
        self.step(Op::Run(run), key, created_by, at);
    }

    /// A command's argv: the shell form is one argument of the shell.
    fn command(&self, command: &CommandLine) -> Vec<String> {
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

    fn workdir(&mut self, word: &Word, at: &At<'_>) -> Result<(), crate::Error> {
        let path = self.expand(word, at)?;
        if path.is_empty() {
            return Err(Diagnostic::new("WORKDIR needs a path").at(word.span).into());
        }
        let path = self.absolute(&path)?;
        self.config.config.working_dir.clone_from(&path);
        let created_by = format!("WORKDIR {path}");
        if path == "/" {
            self.line(created_by);
            return Ok(());
        }
        let mkdir = Mkdir { path, owner: self.config.config.user.clone() };
        let key = key::mkdir(&self.key, &mkdir);
        self.step(Op::Mkdir(mkdir), key, created_by, at);
        Ok(())
    }

    /// `path` below the working directory, without `.` and `..`.
    fn absolute(&self, path: &str) -> Result<String, crate::Error> {
        let joined = if path.starts_with('/') { path.to_owned() } else { format!("{}/{path}", self.workdir_path()) };
        let clean = RelPath::clamped(joined).map_err(yadokari_layers::Error::from)?;
        Ok(format!("/{clean}"))
    }

    fn workdir_path(&self) -> &str {
        &self.config.config.working_dir
    }

    fn arg(&mut self, planner: &Planner<'_>, declarations: &[ArgDecl], at: &At<'_>) -> Result<(), crate::Error> {
        let mut declared = Vec::new();
        for declaration in declarations {
            let name = self.expand(&declaration.name, at)?;
            let default = declaration.default.as_ref().map(|word| self.expand(word, at)).transpose()?;
            let value = planner.globals.argument(&name, default.clone());
            declared.push((name.clone(), default.or_else(|| value.clone())));
            if let Some(value) = &value {
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

    /// Where `--from` points, with the key that stands for it. `None` where an image must be fetched first.
    fn origin(
        &self,
        planner: &mut Planner<'_>,
        number: usize,
        from: Option<&Word>,
    ) -> Result<Option<(Origin, Option<Key>)>, crate::Error> {
        let Some(from) = from else { return Ok(Some((Origin::Context, None))) };
        if let Some(stage) = planner.find(&from.raw, number) {
            let Some(position) = planner.stage(stage)? else { return Ok(None) };
            return Ok(Some((Origin::Stage(position), Some(planner.key_of(position)))));
        }
        if let Some(later) = planner.find(&from.raw, planner.file.stages.len()) {
            let what = if later == number { "the stage itself" } else { "a later stage" };
            let error = Diagnostic::new(format!("--from={} is {what}", from.raw)).at(from.span);
            return Err(error.label("only earlier stages can be copied from").into());
        }
        let image = planner.image(&from.raw, from.span)?;
        Ok(image.map(|image| (Origin::Image(from.raw.clone()), Some(key::image(&image.manifest)))))
    }

    fn copy(
        &mut self,
        planner: &Planner<'_>,
        words: &CopyWords<'_>,
        from: Origin,
        from_key: Option<Key>,
        at: &At<'_>,
    ) -> Result<(), crate::Error> {
        let unpack = words.name == "ADD";
        let mut sources = Vec::new();
        for word in words.sources {
            let pattern = self.expand(word, at)?;
            if unpack && is_remote(&pattern) {
                return Err(Diagnostic::not_carried_out("ADD of a URL or a git repository", word.span).into());
            }
            sources.push(CopySource { pattern, span: word.span });
        }
        let mut inline = Vec::new();
        for heredoc in words.heredocs {
            let content = expand_heredoc(heredoc, &self.env)?;
            inline.push(Inline { name: heredoc.name.clone(), content });
        }
        let written = self.expand(words.destination, at)?;
        let destination = self.destination(&written)?;
        let chown =
            words.chown.map(|word| Ok::<_, crate::Error>(Owner { text: self.expand(word, at)?, span: word.span }));
        let chown = chown.transpose()?.filter(|owner| !owner.text.is_empty());
        let chmod_text = words.chmod.map(|word| self.expand(word, at)).transpose()?;
        let chmod = words.chmod.zip(chmod_text.as_deref()).map(|(word, text)| mode(text, word.span)).transpose()?;
        let names: Vec<String> = sources.iter().map(|source| source.pattern.clone()).collect();
        let names = [names, inline.iter().map(|inline| format!("<<{}", inline.name)).collect()].concat();
        let owner_text = chown.as_ref().map(|owner| owner.text.as_str());
        let created_by = history::copy(words.name, owner_text, chmod_text.as_deref(), &names, &written);
        let span = words.destination.span;
        let copy = Copy { from, sources, inline, destination, destination_span: span, chown, chmod, unpack };
        let inputs = match from_key {
            Some(key) => key::Inputs::Key(key),
            None => key::Inputs::Context(context_inputs(planner, &copy, at)?),
        };
        let key = key::copy(&self.key, &copy, &inputs);
        self.step(Op::Copy(copy), key, created_by, at);
        Ok(())
    }

    /// The destination, absolute, with the slash or dot that marks a directory kept as a slash.
    fn destination(&self, written: &str) -> Result<String, crate::Error> {
        let path = self.absolute(written)?;
        let is_directory = written.ends_with('/') || written == "." || written.ends_with("/.") || written == "..";
        Ok(if is_directory && path != "/" { format!("{path}/") } else { path })
    }

    fn metadata(&mut self, kind: &InstructionKind, at: &At<'_>) -> Result<(), crate::Error> {
        let created_by = match kind {
            InstructionKind::Env(pairs) => {
                let pairs = self.pairs(pairs, at)?;
                let mut image = Env::of_image(&self.config.config.env);
                for (name, value) in &pairs {
                    if name.is_empty() {
                        return Err(Diagnostic::new("the name of a variable is empty").at(at.instruction.span).into());
                    }
                    image.set(name, value);
                    self.env.set(name, value);
                }
                self.config.config.env = image.to_image();
                history::pairs("ENV", &pairs)
            }
            InstructionKind::Label(pairs) => {
                let pairs = self.pairs(pairs, at)?;
                self.config.config.labels.extend(pairs.iter().cloned());
                history::pairs("LABEL", &pairs)
            }
            InstructionKind::User(word) => {
                self.config.config.user = self.expand(word, at)?;
                format!("USER {}", self.config.config.user)
            }
            InstructionKind::Cmd(command) => {
                let argv = self.command(command);
                self.has_cmd = true;
                self.config.config.args_escaped = true;
                let created_by = history::quoted_list("CMD", &argv);
                self.config.config.cmd = Some(argv);
                created_by
            }
            InstructionKind::Entrypoint(command) => {
                let argv = self.command(command);
                if !self.has_cmd {
                    self.config.config.cmd = None;
                }
                let created_by = history::quoted_list("ENTRYPOINT", &argv);
                self.config.config.entrypoint = Some(argv);
                created_by
            }
            InstructionKind::Expose(words) => self.expose(words, at)?,
            InstructionKind::Volume(words) => self.volume(words, at)?,
            InstructionKind::Shell(argv) => {
                self.config.config.shell = Some(argv.clone());
                history::plain_list("SHELL", argv)
            }
            InstructionKind::Stopsignal(word) => {
                let signal = self.expand(word, at)?;
                dockerfile::validate_stop_signal(&signal).map_err(|error| error.or_at(word.span))?;
                self.config.config.stop_signal = Some(signal.clone());
                format!("STOPSIGNAL {signal}")
            }
            InstructionKind::Healthcheck(check) => self.healthcheck(check),
            InstructionKind::Onbuild(onbuild) => {
                self.config.config.on_build.push(onbuild.text.clone());
                format!("ONBUILD {}", onbuild.text)
            }
            InstructionKind::Maintainer(name) => {
                self.config.author = Some(name.clone());
                format!("MAINTAINER {name}")
            }
            InstructionKind::Run(_)
            | InstructionKind::Copy(_)
            | InstructionKind::Add(_)
            | InstructionKind::Workdir(_)
            | InstructionKind::Arg(_) => unreachable!("these are lowered by functions of their own"),
        };
        self.line(created_by);
        Ok(())
    }

    fn pairs(&self, pairs: &[Pair], at: &At<'_>) -> Result<Vec<(String, String)>, crate::Error> {
        pairs.iter().map(|pair| Ok((self.expand(&pair.key, at)?, self.expand(&pair.value, at)?))).collect()
    }

    fn expose(&mut self, words: &[Word], at: &At<'_>) -> Result<String, crate::Error> {
        let mut ports = Vec::new();
        for word in words {
            for text in expand_words(word, at.escape, &self.env).map_err(|error| at.locate(error))? {
                ports.extend(dockerfile::parse_expose(&text).map_err(|error| error.or_at(word.span))?);
            }
        }
        ports.sort();
        ports.dedup();
        self.config.config.exposed_ports.extend(ports.iter().map(|port| (port.clone(), Default::default())));
        Ok(history::plain_list("EXPOSE", &ports))
    }

    fn volume(&mut self, words: &[Word], at: &At<'_>) -> Result<String, crate::Error> {
        let mut volumes = Vec::new();
        for word in words {
            let volume = self.expand(word, at)?;
            if volume.is_empty() {
                return Err(Diagnostic::new("VOLUME with an empty path").at(word.span).into());
            }
            self.config.config.volumes.insert(volume.clone(), Default::default());
            volumes.push(volume);
        }
        Ok(history::plain_list("VOLUME", &volumes))
    }

    fn healthcheck(&mut self, check: &Healthcheck) -> String {
        let config = match check {
            Healthcheck::None => HealthcheckConfig { test: vec!["NONE".into()], ..Default::default() },
            Healthcheck::Check { command, interval, timeout, start_period, start_interval, retries } => {
                let test = match command {
                    CommandLine::Shell(text) => vec!["CMD-SHELL".into(), text.clone()],
                    CommandLine::Exec(argv) => [vec!["CMD".into()], argv.clone()].concat(),
                };
                HealthcheckConfig {
                    test,
                    interval: interval.unwrap_or_default(),
                    timeout: timeout.unwrap_or_default(),
                    start_period: start_period.unwrap_or_default(),
                    start_interval: start_interval.unwrap_or_default(),
                    retries: retries.unwrap_or_default().into(),
                }
            }
        };
        let created_by = history::healthcheck(&config);
        self.config.config.healthcheck = Some(config);
        created_by
    }

    fn expand(&self, word: &Word, at: &At<'_>) -> Result<String, crate::Error> {
        expand(word, at.escape, &self.env).map_err(|error| at.locate(error))
    }

    fn line(&mut self, created_by: String) {
        self.history.push(own_line(created_by, None));
    }

    fn step(&mut self, op: Op, key: Key, created_by: String, at: &At<'_>) {
        self.history.push(own_line(created_by, Some(self.steps.len())));
        let span = (!at.trigger).then_some(at.instruction.span);
        self.steps.push(Step { op, key, text: at.instruction.text.clone(), span });
        self.key = key;
    }
}

impl At<'_> {
    /// A trigger stands in the config of its base, so the spans of its errors mean nothing in this file.
    fn locate(&self, error: Diagnostic) -> crate::Error {
        if self.trigger {
            let text = self.instruction.text.clone();
            crate::Error::Trigger { text, message: error.to_string() }
        } else {
            error.or_at(self.instruction.span).into()
        }
    }
}

/// COPY and ADD, which differ in little.
struct CopyWords<'a> {
    name: &'static str,
    chown: Option<&'a Word>,
    chmod: Option<&'a Word>,
    sources: &'a [Word],
    heredocs: &'a [dockerfile::Heredoc],
    destination: &'a Word,
}

/// What the words of a COPY from the context select, hashed. A literal path that does not exist fails here, before
/// anything runs.
fn context_inputs(
    planner: &Planner<'_>,
    copy: &Copy,
    at: &At<'_>,
) -> Result<Vec<(select::Selected, Vec<(RelPath, yadokari_layers::Entry)>)>, crate::Error> {
    let mut inputs = Vec::new();
    for source in &copy.sources {
        let tree = planner.context.tree()?;
        let Some(selected) = select(tree, &source.pattern)? else {
            let pattern = &source.pattern;
            let error = Diagnostic::new(format!("'{pattern}' is not in the build context"));
            let help = match planner.context.is_ignored(pattern) {
                true => format!("{} leaves it out", planner.context.ignore_file()),
                false => format!("the context is '{}'", planner.context.path().display()),
            };
            return Err(at.locate(error.at(source.span).label("no such file or directory").help(help)));
        };
        for selected in selected {
            let entries = planner.context.hashed(&selected.path)?;
            inputs.push((selected, entries));
        }
    }
    Ok(inputs)
}

/// The value of `--chmod`: octal digits. The symbolic form is refused by name.
fn mode(text: &str, span: Span) -> Result<u32, crate::Error> {
    let is_octal = !text.is_empty() && text.chars().all(|c| c.is_digit(8));
    match u32::from_str_radix(text, 8) {
        Ok(mode) if is_octal && mode <= 0o7777 => Ok(mode),
        _ if text.contains(['+', '-', '=']) => {
            Err(Diagnostic::not_carried_out(format!("the symbolic mode '{text}'"), span).into())
        }
        _ => Err(Diagnostic::new(format!("'{text}' is not a mode from 0 to 7777")).at(span).into()),
    }
}

/// Whether a source of ADD is fetched and not copied.
fn is_remote(source: &str) -> bool {
    ["http://", "https://", "git://", "ssh://", "git@"].iter().any(|scheme| source.starts_with(scheme))
}
