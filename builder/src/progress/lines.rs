//! Plain lines, for logs: a line when a step begins and one when it ends, with its time and the size of its layer; what a
//! command prints; a summary.

use std::io::Write;

use super::{Event, Level, Moment, StepDone, View};

/// How lines look.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Style {
    /// Whether they have colors.
    pub color: bool,
    /// Whether each begins with the time.
    pub timestamp: bool,
}

const RESET: &str = "\u{1b}[0m";
const RED: &str = "\u{1b}[31m";
const GREEN: &str = "\u{1b}[32m";
const YELLOW: &str = "\u{1b}[33m";
const CYAN: &str = "\u{1b}[36m";
const BOLD: &str = "\u{1b}[1m";
const DIM: &str = "\u{1b}[2m";

impl Style {
    /// The line of an event; `None` where other views show it.
    pub fn line(self, event: &Event<'_>, at: &Moment) -> Option<String> {
        let text = event.text()?;
        let line = match (event.step(), self.color) {
            (Some(step), true) => format!("{CYAN}[{step}]{RESET} {}", colored(event, &text)),
            (Some(step), false) => format!("[{step}] {text}"),
            (None, true) => colored(event, &text),
            (None, false) => text,
        };
        Some(if self.timestamp { format!("{} {line}", at.rfc3339()) } else { line })
    }
}

/// A text in the color of its kind, of an error and a warning the heading.
fn colored(event: &Event<'_>, text: &str) -> String {
    let heading = |color| match text.split_once(':') {
        Some((heading, rest)) => format!("{color}{heading}:{RESET}{rest}"),
        None => text.to_owned(),
    };
    let whole = |color| format!("{color}{text}{RESET}");
    match event {
        Event::Message { level: Level::Error, .. } => heading(RED),
        Event::Message { level: Level::Warn, .. } => heading(YELLOW),
        Event::Message { level: Level::Debug, .. } => whole(DIM),
        Event::StepBegun { .. } => whole(BOLD),
        Event::StepDone { done: StepDone { is_cached: true, .. }, .. } | Event::Pushed { is_unchanged: true, .. } => {
            whole(CYAN)
        }
        Event::StepDone { .. } | Event::Pushed { .. } | Event::Built { .. } => whole(GREEN),
        _ => text.to_owned(),
    }
}

/// Writes lines, each whole.
pub struct Lines {
    level: Level,
    style: Style,
    out: Box<dyn Write + Send>,
}

impl Lines {
    /// Writes to `out` what `level` lets through.
    pub fn new(level: Level, style: Style, out: Box<dyn Write + Send>) -> Self {
        Self { level, style, out }
    }
}

impl View for Lines {
    fn show(&mut self, event: &Event<'_>, at: &Moment) {
        if event.level() <= self.level
            && let Some(line) = self.style.line(event, at)
        {
            // There is nobody to tell that nobody listens.
            _ = writeln!(self.out, "{line}");
        }
    }
}
