//! Lines in GitLab's collapsible sections, one for what the command of each step prints.
//!
//! Sections are told by their marks in the text, so those of stages that are built at the same time must not be mixed. One
//! step has the log at a time: what the others say waits, up to a limit, and follows when it has ended. Where too much would
//! have to wait, the step that has the most to say gets the log, and the other one goes on in another section later. What
//! belongs to no step is written at once, between two sections.

use std::collections::VecDeque;
use std::io::Write;

use super::{Event, Level, Moment, Style, View};

/// How many bytes of lines may wait.
const HELD: usize = 256 << 10;
/// How many lines of a command that failed are shown outside of its section.
const LAST_LINES: usize = 20;
/// The most characters of each of them.
const LONGEST_LAST_LINE: usize = 500;

/// Writes lines, in sections.
pub struct Sections {
    level: Level,
    style: Style,
    out: Box<dyn Write + Send>,
    /// The steps that have begun and are not written to their end. The first one has the log.
    blocks: VecDeque<Block>,
    /// How many sections there were.
    count: u64,
}

/// What is said of a step.
#[derive(Default)]
struct Block {
    step: String,
    title: String,
    /// Whether there is nothing to execute, and so nothing that would fill a section.
    is_made: bool,
    /// Whether the title was written.
    has_begun: bool,
    /// The name of its section, while that is open.
    section: Option<String>,
    /// What waits.
    lines: Vec<String>,
    /// What comes after the section, once the step has ended.
    end: Option<Vec<String>>,
    /// The end of what its command printed.
    last: VecDeque<String>,
}

impl Block {
    fn held(&self) -> usize {
        self.lines.iter().map(String::len).sum()
    }
}

impl Sections {
    /// Writes to `out` what `level` lets through.
    pub fn new(level: Level, style: Style, out: Box<dyn Write + Send>) -> Self {
        Self { level, style, out, blocks: VecDeque::new(), count: 0 }
    }

    fn write(&mut self, line: &str) {
        // There is nobody to tell that nobody listens.
        _ = writeln!(self.out, "{line}");
    }

    /// Closes the section of the step that has the log, which may go on in another one.
    fn close(&mut self, at: &Moment) {
        if let Some(name) = self.blocks.front_mut().and_then(|block| block.section.take()) {
            // No line of its own: the mark takes the place of what a terminal would show in it.
            _ = write!(self.out, "\u{1b}[0Ksection_end:{}:{name}\r\u{1b}[0K", at.unix());
        }
    }

    /// Opens a section for the step that has the log, unless there is one.
    fn open(&mut self, at: &Moment) {
        let Some(block) = self.blocks.front_mut().filter(|block| block.section.is_none()) else { return };
        self.count += 1;
        let name = format!("step_{}", self.count);
        let title = format!("{}{}", block.title, if block.has_begun { " (continued)" } else { "" });
        (block.has_begun, block.section) = (true, Some(name.clone()));
        self.write(&format!("\u{1b}[0Ksection_start:{}:{name}[collapsed=true]\r\u{1b}[0K{title}", at.unix()));
    }

    /// Writes what the step that has the log has said, and what follows it where that has ended.
    fn advance(&mut self, at: &Moment) {
        while let Some(block) = self.blocks.front_mut() {
            let lines = std::mem::take(&mut block.lines);
            match (block.is_made, block.has_begun) {
                (true, false) => {
                    block.has_begun = true;
                    let title = block.title.clone();
                    self.write(&title);
                }
                (false, false) => self.open(at),
                _ if !lines.is_empty() => self.open(at),
                _ => {}
            }
            lines.iter().for_each(|line| self.write(line));
            let Some(end) = self.blocks.front_mut().and_then(|block| block.end.take()) else { return };
            self.close(at);
            end.iter().for_each(|line| self.write(line));
            self.blocks.pop_front();
        }
    }

    /// Gives the log to the step that has the most to say, where too much waits.
    fn relieve(&mut self, at: &Moment) {
        if self.blocks.iter().map(Block::held).sum::<usize>() <= HELD {
            return;
        }
        let largest = (0..self.blocks.len()).max_by_key(|&at| self.blocks[at].held());
        if let Some(block) = largest.and_then(|largest| {
            self.close(at);
            self.blocks.remove(largest)
        }) {
            self.blocks.push_front(block);
            self.advance(at);
        }
    }

    /// What stands after the section of a step that has ended.
    fn ending(&self, event: &Event<'_>, line: Option<String>, block: &Block) -> Vec<String> {
        match event {
            Event::StepFailed { is_stopped: false, step } if !block.last.is_empty() => {
                let heading = format!("[{step}] failed; the last lines of its output:");
                std::iter::once(heading).chain(block.last.iter().cloned()).collect()
            }
            Event::StepDone { done, step } => {
                let why = done.why.iter().map(|reason| format!("[{step}] it was executed because: {reason}"));
                line.into_iter().chain(why).collect()
            }
            _ => line.into_iter().collect(),
        }
    }
}

impl View for Sections {
    fn show(&mut self, event: &Event<'_>, at: &Moment) {
        if event.level() > self.level {
            return;
        }
        let line = self.style.line(event, at).map(|line| harmless(&line));
        if let Event::StepBegun { step, is_made, .. } = event {
            let (step, title) = ((*step).to_owned(), line.unwrap_or_default());
            // Where a part of the build is done again, its first try has ended somehow.
            let earlier = self.blocks.iter_mut().filter(|block| block.step == step);
            earlier.for_each(|block| _ = block.end.get_or_insert_default());
            self.blocks.push_back(Block { step, title, is_made: *is_made, ..Block::default() });
            self.advance(at);
            return;
        }
        let of_step = event.step().and_then(|step| self.blocks.iter().rposition(|block| block.step == step));
        let Some(number) = of_step else {
            if let Some(line) = line {
                self.close(at);
                self.write(&line);
            }
            return;
        };
        if matches!(event, Event::StepDone { .. } | Event::StepFailed { .. }) {
            let end = self.ending(event, line, &self.blocks[number]);
            self.blocks[number].end = Some(end);
        } else if let Some(line) = line {
            let block = &mut self.blocks[number];
            if matches!(event, Event::Output { .. }) {
                block.last.push_back(line.chars().take(LONGEST_LAST_LINE).collect());
                if block.last.len() > LAST_LINES {
                    block.last.pop_front();
                }
            }
            block.lines.push(line);
        }
        if number == 0 {
            self.advance(at);
        } else {
            self.relieve(at);
        }
    }

    fn finish(&mut self, at: &Moment) {
        self.blocks.iter_mut().for_each(|block| _ = block.end.get_or_insert_default());
        self.advance(at);
    }

    fn wants_reasons(&self) -> bool {
        true
    }
}

/// A line that GitLab does not take for a mark of a section: those need their carriage return.
fn harmless(line: &str) -> String {
    match line.contains("section_start:") || line.contains("section_end:") {
        true => line.replace('\r', ""),
        false => line.to_owned(),
    }
}
