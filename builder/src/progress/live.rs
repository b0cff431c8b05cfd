//! A view for a person at a terminal: what is under way stands at the bottom and moves, what is done scrolls away above.
//!
//! The cursor stays visible and the terminal in its usual mode, so there is nothing to restore however the program ends.

mod frame;

use std::sync::mpsc::{self, RecvTimeoutError, SyncSender};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use console::{Term, measure_text_width, strip_ansi_codes, truncate_str};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::units::{bytes, seconds};
use super::{Event, Level, Lines, Moment, StepDone, Style, View};
use frame::{Frame, Moving, NARROWEST, Running};

/// How often the bottom is drawn.
const PERIOD: Duration = Duration::from_millis(100);
/// How many lines of a command that failed are shown.
const LAST_LINES: usize = 20;
/// How many reasons are shown why a step was executed.
const REASONS: usize = 3;

/// Draws on a terminal.
pub struct Live {
    level: Level,
    style: Style,
    /// Shows what is said when all is over.
    lines: Lines,
    screen: Arc<Mutex<Screen>>,
    ticker: Option<(SyncSender<()>, JoinHandle<()>)>,
}

struct Screen {
    frame: Frame,
    bar: ProgressBar,
    size: Box<dyn Fn() -> (usize, usize) + Send>,
}

impl Screen {
    fn draw(&self) {
        if self.frame.origin.is_none() {
            // Nothing has happened: this may still be an error of the command line.
            return;
        }
        self.bar.set_message(self.frame.lines((self.size)()).join("\n"));
    }

    /// A line of which the end is shown whatever the beginning is.
    fn fitted(&self, begin: &str, end: &str) -> String {
        let (_, columns) = (self.size)();
        let room = columns.saturating_sub(measure_text_width(end) + 1);
        format!("{}{end}", truncate_str(begin, room.max(NARROWEST), "…"))
    }
}

impl Live {
    /// Draws on the terminal that standard error is, of what `level` lets through.
    pub fn new(level: Level, style: Style) -> Self {
        let size = || {
            let (rows, columns) = Term::stderr().size();
            (usize::from(rows), usize::from(columns))
        };
        let lines = Lines::new(level, style, Box::new(std::io::stderr()));
        Self::on(level, style, ProgressDrawTarget::stderr(), Box::new(size), lines)
    }

    fn on(
        level: Level,
        style: Style,
        target: ProgressDrawTarget,
        size: Box<dyn Fn() -> (usize, usize) + Send>,
        lines: Lines,
    ) -> Self {
        let bar = ProgressBar::with_draw_target(None, target);
        bar.set_style(ProgressStyle::with_template("{msg}").expect("the template is a constant"));
        let screen = Arc::new(Mutex::new(Screen { frame: Frame::new(style.color), bar, size }));
        let (stop, stopped) = mpsc::sync_channel(1);
        let shared = Arc::clone(&screen);
        let ticker = std::thread::spawn(move || {
            while stopped.recv_timeout(PERIOD) == Err(RecvTimeoutError::Timeout) {
                lock(&shared).draw();
            }
        });
        Self { level, style, lines, screen, ticker: Some((stop, ticker)) }
    }

    /// What scrolls away above.
    fn above(&self, screen: &mut Screen, event: &Event<'_>, at: &Moment) -> Vec<String> {
        let sign = |color: &str, sign: &str| match self.style.color {
            true => format!("\u{1b}[{color}m{sign}\u{1b}[0m"),
            false => sign.to_owned(),
        };
        match event {
            Event::StepBegun { .. } | Event::Output { .. } | Event::Image { .. } => Vec::new(),
            Event::StepDone { step, done } => {
                let text = screen.frame.end(step).map(|step| step.text).unwrap_or_default();
                *(if done.is_cached { &mut screen.frame.cached } else { &mut screen.frame.executed }) += 1;
                let StepDone { time, layer, is_cached, why } = done;
                let size = layer.map_or("no change".into(), |(_, size)| bytes(size));
                let how = if *is_cached { "cached".to_owned() } else { seconds(*time) };
                let sign = if *is_cached { sign("36", "=") } else { sign("32", "✓") };
                let mut lines = vec![screen.fitted(&format!("{sign} [{step}] {text}"), &format!(": {how}, {size}"))];
                lines.extend(why.iter().take(REASONS).map(|reason| format!("    because: {}", harmless(reason))));
                lines
            }
            Event::StepFailed { step, is_stopped } => {
                let Some(ended) = screen.frame.end(step) else { return Vec::new() };
                let time = seconds(at.since.saturating_sub(ended.begin));
                let how = if *is_stopped { "stopped" } else { "failed" };
                let begin = format!("{} [{step}] {}", sign("31", "✗"), ended.text);
                let mut lines = vec![screen.fitted(&begin, &format!(": {how} after {time}"))];
                lines.extend(ended.last.iter().filter(|_| !is_stopped).map(|line| format!("    {line}")));
                lines
            }
            _ => self.style.line(event, at).into_iter().collect(),
        }
    }
}

impl Live {
    /// Leaves what scrolled away, and nothing else.
    fn clear(&mut self) {
        let Some((stop, ticker)) = self.ticker.take() else { return };
        // Whoever waits for a message hears that there will be none.
        drop(stop);
        _ = ticker.join();
        lock(&self.screen).bar.finish_and_clear();
    }
}

impl Drop for Live {
    fn drop(&mut self) {
        self.clear();
    }
}

/// Keeps what stands at the bottom up to date.
fn follow(frame: &mut Frame, event: &Event<'_>, at: &Moment) {
    match event {
        Event::StepBegun { step, text, .. } => {
            let (name, text, begin) = ((*step).to_owned(), harmless(text), at.since);
            frame.steps.push(Running { name, text, begin, last: Default::default() });
        }
        Event::Output { step, text, .. } => {
            let text = harmless(text);
            let step = frame.steps.iter_mut().find(|running| running.name == *step);
            if let Some(step) = step.filter(|_| !text.trim().is_empty()) {
                step.last.push_back(text);
                if step.last.len() > LAST_LINES {
                    step.last.pop_front();
                }
            }
        }
        Event::TransferBegun { id, direction, digest, place, size } => {
            let digest: String = digest.hex().chars().take(12).collect();
            let (what, begin) = (format!("{place} {digest}"), at.since);
            let moving = Moving { direction: *direction, what, size: *size, done: 0, begin };
            frame.transfers.insert(*id, moving);
        }
        Event::TransferProgress { id, done } => {
            frame.transfers.entry(*id).and_modify(|moving| moving.done = *done);
        }
        Event::TransferDone { id, .. } => _ = frame.transfers.remove(id),
        _ => {}
    }
}

impl View for Live {
    fn show(&mut self, event: &Event<'_>, at: &Moment) {
        if event.level() > self.level {
            return;
        }
        if self.ticker.is_none() {
            return self.lines.show(event, at);
        }
        let mut screen = lock(&self.screen);
        screen.frame.origin.get_or_insert_with(|| std::time::Instant::now() - at.since);
        follow(&mut screen.frame, event, at);
        if matches!(event, Event::StepBegun { .. }) {
            // At once, so that it is seen however soon it ends.
            screen.draw();
        }
        let above = self.above(&mut screen, event, at);
        if !above.is_empty() {
            screen.bar.println(above.join("\n"));
        }
    }

    fn finish(&mut self, _at: &Moment) {
        self.clear();
    }

    fn wants_reasons(&self) -> bool {
        true
    }
}

fn lock(screen: &Mutex<Screen>) -> MutexGuard<'_, Screen> {
    screen.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A line of a command as a terminal would leave it, which moves no cursor: the others count on where that is.
fn harmless(line: &str) -> String {
    let line = strip_ansi_codes(line);
    let line = line.trim_end_matches('\r').rsplit('\r').next().unwrap_or_default();
    line.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

#[cfg(test)]
mod tests;
