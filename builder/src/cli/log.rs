//! The flags about what is said, and where: to a person at a terminal, to GitLab's log, or to a program.

use std::io::{IsTerminal as _, stderr};

use clap::{ArgAction, Args, ValueEnum};

use super::args::{Environment, truth};
use crate::progress::{JsonLines, Level, Lines, Live, Progress, Sections, Style, View};

/// Flags of everything that says how far it is.
#[derive(Debug, Args)]
pub(super) struct LogFlags {
    /// How much is said.
    #[arg(long, short = 'v', default_value = "info", ignore_case = true)]
    pub(super) verbosity: Verbosity,
    /// How it is said: in lines of text, of colored text, or of JSON. Without it that depends on where it goes.
    #[arg(long, value_name = "FORMAT", ignore_case = true)]
    log_format: Option<LogFormat>,
    /// Begin each line with the time.
    #[arg(long, action = ArgAction::Set, num_args = 0..=1, default_missing_value = "true", default_value = "false", value_parser = truth)]
    log_timestamp: bool,
}

/// Kaniko's levels. Those above `error` say no less than it, and `trace` no more than `debug`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum Verbosity {
    Panic,
    Fatal,
    Error,
    #[value(alias = "warning")]
    Warn,
    Info,
    Debug,
    Trace,
}

impl Verbosity {
    pub(super) fn level(self) -> Level {
        match self {
            Self::Panic | Self::Fatal | Self::Error => Level::Error,
            Self::Warn => Level::Warn,
            Self::Info => Level::Info,
            Self::Debug | Self::Trace => Level::Debug,
        }
    }
}

/// Kaniko's formats.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum LogFormat {
    Text,
    Color,
    Json,
}

/// What standard error is.
struct Place<'a> {
    is_terminal: bool,
    env: Environment<'a>,
}

impl Place<'_> {
    fn says(&self, name: &str) -> bool {
        (self.env)(name).is_some_and(|value| !value.is_empty() && value != "false")
    }

    /// Whether a cursor can be moved there.
    fn is_screen(&self) -> bool {
        let term = (self.env)("TERM").unwrap_or_default();
        self.is_terminal && !term.is_empty() && term != "dumb"
    }

    /// Whether somebody looks at it while it is written.
    fn is_watched(&self) -> bool {
        self.is_screen() && !self.says("CI")
    }
}

/// A form of what is said.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Form {
    Lines(Style),
    Sections(Style),
    Live(Style),
    Json,
}

impl LogFlags {
    fn form(&self, place: &Place<'_>) -> Form {
        let color = match self.log_format {
            Some(LogFormat::Json) => return Form::Json,
            Some(LogFormat::Text) => false,
            Some(LogFormat::Color) => true,
            None => place.is_screen() && !place.says("NO_COLOR"),
        };
        let style = Style { color, timestamp: self.log_timestamp };
        if self.verbosity.level() < Level::Info {
            Form::Lines(style)
        } else if place.says("GITLAB_CI") {
            Form::Sections(style)
        } else if self.log_format.is_none() && place.is_watched() {
            Form::Live(style)
        } else {
            Form::Lines(style)
        }
    }

    /// What tells the user how far a build is, and whoever else is to be told.
    pub(super) fn progress(&self, env: Environment<'_>, more: Vec<Box<dyn View>>) -> Progress {
        self.shown_as(self.form(&Place { is_terminal: stderr().is_terminal(), env }), more)
    }

    /// What tells the user what comes up on the way to an answer on standard output.
    pub(super) fn aside(&self, env: Environment<'_>) -> Progress {
        let form = match self.form(&Place { is_terminal: stderr().is_terminal(), env }) {
            Form::Live(style) | Form::Sections(style) => Form::Lines(style),
            form => form,
        };
        self.shown_as(form, Vec::new())
    }

    fn shown_as(&self, form: Form, more: Vec<Box<dyn View>>) -> Progress {
        let (level, out) = (self.verbosity.level(), Box::new(stderr()));
        let view: Box<dyn View> = match form {
            Form::Live(style) => Box::new(Live::new(level, style)),
            Form::Lines(style) => Box::new(Lines::new(level, style, out)),
            Form::Sections(style) => Box::new(Sections::new(level, style, out)),
            Form::Json => Box::new(JsonLines::new(level, out)),
        };
        Progress::with(std::iter::once(view).chain(more).collect())
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        log: LogFlags,
    }

    fn form(flags: &str, is_terminal: bool, variables: &[(&str, &str)]) -> Form {
        let words = std::iter::once("x").chain(flags.split_whitespace());
        let line = Line::try_parse_from(words).unwrap_or_else(|error| panic!("{error}"));
        let env =
            |name: &str| variables.iter().find(|(variable, _)| *variable == name).map(|(_, value)| (*value).to_owned());
        line.log.form(&Place { is_terminal, env: &env })
    }

    const PLAIN: Style = Style { color: false, timestamp: false };
    const COLOR: Style = Style { color: true, timestamp: false };

    #[test]
    fn the_form_of_the_log_follows_flags_and_then_the_place() {
        let (gitlab, xterm) = (("GITLAB_CI", "true"), ("TERM", "xterm"));
        for (flags, is_terminal, variables, expected) in [
            ("", false, &[][..], Form::Lines(PLAIN)),
            ("", false, &[("TERM", "xterm")], Form::Lines(PLAIN)),
            ("", true, &[xterm], Form::Live(COLOR)),
            ("", true, &[xterm, ("NO_COLOR", "1")], Form::Live(PLAIN)),
            ("", true, &[xterm, ("CI", "true")], Form::Lines(COLOR)),
            ("", true, &[xterm, ("CI", "true"), ("NO_COLOR", "1")], Form::Lines(PLAIN)),
            ("", true, &[xterm, gitlab], Form::Sections(COLOR)),
            ("", true, &[("TERM", "dumb")], Form::Lines(PLAIN)),
            ("", true, &[], Form::Lines(PLAIN)),
            ("-v debug", true, &[xterm], Form::Live(COLOR)),
            ("-v error", true, &[xterm], Form::Lines(COLOR)),
            ("--log-format=color", true, &[xterm], Form::Lines(COLOR)),
            ("--log-format=text", true, &[], Form::Lines(PLAIN)),
            ("--log-format color", false, &[("NO_COLOR", "1")], Form::Lines(COLOR)),
            ("--log-format=JSON", true, &[gitlab], Form::Json),
            ("--log-timestamp", false, &[], Form::Lines(Style { timestamp: true, ..PLAIN })),
            ("--log-timestamp=false", false, &[], Form::Lines(PLAIN)),
            ("", false, &[gitlab], Form::Sections(PLAIN)),
            ("--log-format=color", false, &[gitlab], Form::Sections(COLOR)),
            ("-v warn", false, &[gitlab], Form::Lines(PLAIN)),
            ("", false, &[("GITLAB_CI", "")], Form::Lines(PLAIN)),
            (
                "--log-timestamp=1",
                true,
                &[gitlab, ("NO_COLOR", "1")],
                Form::Sections(Style { timestamp: true, ..PLAIN }),
            ),
        ] {
            assert_eq!(form(flags, is_terminal, variables), expected, "{flags} {is_terminal} {variables:?}");
        }
    }
}
