//! What is under way, in lines.

use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, Instant};

use console::truncate_str;

use crate::progress::Direction;
use crate::progress::units::{bytes, seconds};

/// The length of a bar.
const BAR: usize = 24;
/// How many transfers are shown.
const TRANSFERS: usize = 8;
/// On a terminal with fewer columns nothing is drawn.
pub(super) const NARROWEST: usize = 4;
/// Nor on one with fewer rows.
const LOWEST: usize = 5;
const SPINNER: [char; 10] = ['⠋', '⠙', '⠹', '⠸', '⠼', '⠴', '⠦', '⠧', '⠇', '⠏'];

/// What stands at the bottom.
pub(super) struct Frame {
    color: bool,
    /// When the build began.
    pub(super) origin: Option<Instant>,
    pub(super) steps: Vec<Running>,
    pub(super) transfers: BTreeMap<u64, Moving>,
    /// How many steps were executed, and how many were not.
    pub(super) executed: usize,
    pub(super) cached: usize,
}

/// A step under way.
pub(super) struct Running {
    pub(super) name: String,
    pub(super) text: String,
    pub(super) begin: Duration,
    /// The last lines of its command.
    pub(super) last: VecDeque<String>,
}

/// A transfer under way.
pub(super) struct Moving {
    pub(super) direction: Direction,
    pub(super) what: String,
    pub(super) size: u64,
    pub(super) done: u64,
    pub(super) begin: Duration,
}

impl Frame {
    pub(super) fn new(color: bool) -> Self {
        let (origin, steps, transfers, executed, cached) = Default::default();
        Self { color, origin, steps, transfers, executed, cached }
    }

    /// A step is not under way any more.
    pub(super) fn end(&mut self, name: &str) -> Option<Running> {
        let at = self.steps.iter().position(|step| step.name == name)?;
        Some(self.steps.remove(at))
    }

    /// The lines, as many and as long as a terminal of so many rows and columns shows without wrapping or scrolling.
    pub(super) fn lines(&self, (rows, columns): (usize, usize)) -> Vec<String> {
        let now = self.origin.map(|origin| origin.elapsed()).unwrap_or_default();
        self.lines_at(now, rows, columns)
    }

    fn lines_at(&self, now: Duration, rows: usize, columns: usize) -> Vec<String> {
        if columns < NARROWEST || rows < LOWEST {
            return Vec::new();
        }
        let room = rows - LOWEST + 1;
        let most = TRANSFERS.min(room / 2);
        let moving: Vec<String> = self.moving().take(most).map(|moving| self.transfer(moving, now)).collect();
        // Of many steps each has one line; of more than fit the first ones are shown.
        let left = room.saturating_sub(moving.len()).max(1);
        let with_output = self.steps.len() * 2 <= left;
        let mut steps: Vec<String> = self.steps.iter().flat_map(|step| self.step(step, now, with_output)).collect();
        if steps.len() > left {
            let more = steps.len() - left + 1;
            steps.truncate(left - 1);
            steps.push(format!("   and {more} more steps"));
        }
        // A key that is pressed moves the cursor down a line, and then the first line stays on the screen: an empty one.
        let mut lines = vec![String::new()];
        lines.extend(steps);
        lines.extend(moving);
        lines.push(self.summary(now, self.moving().count().saturating_sub(most)));
        // One column less: some terminals wrap when the last one is full.
        lines.iter().map(|line| truncate_str(line, columns.saturating_sub(1), "…").into_owned()).collect()
    }

    fn moving(&self) -> impl Iterator<Item = &Moving> {
        self.transfers.values().filter(|moving| moving.done > 0)
    }

    fn paint(&self, code: &str, text: &str) -> String {
        if self.color { format!("\u{1b}[{code}m{text}\u{1b}[0m") } else { text.to_owned() }
    }

    fn step(&self, step: &Running, now: Duration, with_output: bool) -> Vec<String> {
        let spinner = SPINNER[(now.as_millis() / 100 % SPINNER.len() as u128) as usize].to_string();
        let time = seconds(now.saturating_sub(step.begin));
        let name = self.paint("1", &format!("[{}] {}", step.name, step.text));
        let mut lines = vec![format!(" {} {time:>7}  {name}", self.paint("36", &spinner))];
        let last = step.last.back().filter(|_| with_output);
        lines.extend(last.map(|last| format!("            {}", self.paint("2", last))));
        lines
    }

    fn transfer(&self, moving: &Moving, now: Duration) -> String {
        let Moving { direction, what, size, done, begin } = moving;
        let part = if *size == 0 { 1.0 } else { (*done as f64 / *size as f64).min(1.0) };
        let full = (part * BAR as f64) as usize;
        let bar = format!("{}{}", self.paint("36", &"━".repeat(full)), self.paint("2", &"─".repeat(BAR - full)));
        let sign = if *direction == Direction::Download { "↓" } else { "↑" };
        let time = now.saturating_sub(*begin).as_secs_f64();
        let rate = if time > 0.5 { format!(", {}/s", bytes((*done as f64 / time) as u64)) } else { String::new() };
        format!(" {sign} {bar} {:3.0} %  {} of {}{rate}  {what}", part * 100.0, bytes(*done), bytes(*size))
    }

    fn summary(&self, now: Duration, hidden: usize) -> String {
        let hidden = if hidden > 0 { format!(", {hidden} more transfers") } else { String::new() };
        let Self { steps, executed, cached, .. } = self;
        let counts = format!("{} running, {executed} executed, {cached} cached{hidden}", steps.len());
        self.paint("2", &format!("   {:>7}  building: {counts}", seconds(now)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn running(number: usize) -> Running {
        let last = VecDeque::from(["first".to_owned(), format!("output of {number}")]);
        Running { name: format!("s {number}/9"), text: "RUN make".into(), begin: Duration::from_secs(1), last }
    }

    fn moving(done: u64) -> Moving {
        let (direction, what, begin) = (Direction::Download, "r.example/base 0123".into(), Duration::from_secs(3));
        Moving { direction, what, size: 10_000_000, done, begin }
    }

    #[test]
    fn what_is_under_way_has_times_and_bars() {
        let mut frame = Frame::new(false);
        frame.steps.push(running(1));
        frame.transfers.insert(1, moving(0));
        frame.transfers.insert(2, moving(2_500_000));
        (frame.executed, frame.cached) = (2, 3);
        let expected = [
            "",
            " ⠋  3.00 s  [s 1/9] RUN make",
            "            output of 1",
            " ↓ ━━━━━━──────────────────  25 %  2.5 MB of 10.0 MB, 2.5 MB/s  r.example/base 0123",
            "    4.00 s  building: 1 running, 2 executed, 3 cached",
        ];
        assert_eq!(frame.lines_at(Duration::from_secs(4), 24, 100), expected);
    }

    #[test]
    fn no_terminal_is_too_small() {
        let mut frame = Frame::new(true);
        frame.steps.extend((0..20).map(running));
        (0..20).for_each(|id| _ = frame.transfers.insert(id, moving(1)));
        for (rows, columns) in [(24, 80), (24, 20), (10, 40), (2, 1), (0, 0)] {
            let lines = frame.lines_at(Duration::from_secs(4), rows, columns);
            assert!(lines.len() <= rows, "{rows}: {lines:?}");
            assert!(lines.iter().all(|line| console::measure_text_width(line) <= columns), "{lines:?}");
        }
        let lines = frame.lines_at(Duration::from_secs(4), 24, 80);
        assert!(lines.iter().any(|line| line.contains("and 9 more steps")), "{lines:?}");
    }
}
