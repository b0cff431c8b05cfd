//! Instructions that only edit the config.

use super::checks::check_port;
use super::history;
use super::lower::{At, Lowering};
use super::scope::Env;
use crate::dockerfile::{self, CommandLine, Diagnostic, Healthcheck, InstructionKind, Pair, Word, expand_words};
use crate::image::HealthcheckConfig;

impl Lowering {
    pub(super) fn metadata(&mut self, kind: &InstructionKind, at: &At<'_>) -> Result<(), crate::Error> {
        self.check_once(at);
        let created_by = match kind {
            InstructionKind::Env(written) => {
                let pairs = self.pairs(written, at)?;
                let mut image = Env::of_image(&self.config.config.env);
                for ((name, value), pair) in pairs.iter().zip(written) {
                    if name.is_empty() {
                        return Err(Diagnostic::new("the name of a variable is empty").at(pair.key.span).into());
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
                self.check_form(command, at);
                let argv = self.command(command);
                self.has_cmd = true;
                self.config.config.args_escaped = true;
                let created_by = history::quoted_list("CMD", &argv);
                self.config.config.cmd = Some(argv);
                created_by
            }
            InstructionKind::Entrypoint(command) => {
                self.check_form(command, at);
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
                // It leaves no trace in the history.
                self.config.config.on_build.push(onbuild.text.clone());
                return Ok(());
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

    fn pairs(&self, written: &[Pair], at: &At<'_>) -> Result<Vec<(String, String)>, crate::Error> {
        let pair = |pair: &Pair| Ok((self.expand(&pair.key, at)?, self.expand(&pair.value, at)?));
        let pairs = written.iter().map(pair).collect::<Result<Vec<_>, crate::Error>>()?;
        self.check_pairs(written, &pairs, at);
        Ok(pairs)
    }

    fn expose(&mut self, words: &[Word], at: &At<'_>) -> Result<String, crate::Error> {
        // BuildKit sorts what is written, and only then expands and reads it.
        let mut words: Vec<&Word> = words.iter().collect();
        words.sort_by(|one, other| one.raw.cmp(&other.raw));
        let mut ports = Vec::new();
        for word in words {
            for text in expand_words(word, at.escape, &self.env).map_err(|error| error.or_at(word.span))? {
                check_port(&text, word.span, at);
                ports.extend(dockerfile::parse_expose(&text).map_err(|error| error.or_at(word.span))?);
            }
        }
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
}
