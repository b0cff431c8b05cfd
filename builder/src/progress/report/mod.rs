//! A page that shows what a build did: one file that needs no other, no network and no script.

mod html;
mod page;
mod tables;
mod timeline;

use std::collections::{BTreeMap, VecDeque};
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use yadokari_layers::Digest;

use super::{Direction, Event, LayerContents, Level, Moment, Outcome, View};

/// The most steps, transfers and messages that are remembered of each: a page of more would show nothing.
const MOST: usize = 2_000;
/// How many lines of a command that failed are shown.
const LAST_LINES: usize = 30;
/// The most characters of each of them.
const LONGEST_LINE: usize = 500;

/// Remembers what a build did. Clones are handles to the same report.
#[derive(Clone, Default)]
pub struct Report(Arc<Mutex<Story>>);

impl Report {
    /// The page, as it is now.
    pub fn page(&self) -> String {
        page::page(&self.story(), peak_memory(Path::new("/proc/self/status")))
    }

    fn story(&self) -> MutexGuard<'_, Story> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl View for Report {
    fn show(&mut self, event: &Event<'_>, at: &Moment) {
        self.story().add(event, at);
    }

    fn wants_reasons(&self) -> bool {
        true
    }

    fn wants_contents(&self) -> bool {
        true
    }
}

/// What happened so far.
#[derive(Default)]
struct Story {
    /// When the first thing was said.
    began: Option<Moment>,
    /// When the last one was.
    ended: Duration,
    steps: Vec<Step>,
    /// Which of the steps is the last one of a name.
    by_name: BTreeMap<String, usize>,
    transfers: BTreeMap<u64, Transfer>,
    fetches: Vec<Fetch>,
    /// Warnings and errors.
    messages: Vec<(Level, String)>,
    pushed: Vec<(String, Digest, bool)>,
    images: Vec<(Digest, Vec<LayerContents>)>,
    built: Option<Built>,
    /// How many steps, transfers and messages were too many.
    left_out: usize,
}

/// What came of a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Running,
    Executed,
    Cached,
    Failed,
    Stopped,
}

struct Step {
    name: String,
    text: String,
    begin: Duration,
    end: Option<Duration>,
    state: State,
    layer: Option<(Digest, u64)>,
    why: Vec<String>,
    last: VecDeque<String>,
}

struct Transfer {
    direction: Direction,
    digest: Digest,
    place: String,
    size: u64,
    begin: Duration,
    done: u64,
    end: Option<(Outcome, Duration)>,
}

/// What came from elsewhere and is no layer.
struct Fetch {
    what: String,
    begin: Duration,
    end: Duration,
}

struct Built {
    digest: Digest,
    layers: usize,
    size: u64,
    time: Duration,
}

impl Story {
    fn add(&mut self, event: &Event<'_>, at: &Moment) {
        self.began.get_or_insert(*at);
        self.ended = at.since;
        match event {
            Event::StepBegun { step, text, .. } => self.begin(step, text, at),
            Event::Message { level: level @ (Level::Warn | Level::Error), .. } => {
                let line = event.line().unwrap_or_default();
                if self.has_room(self.messages.len()) {
                    self.messages.push((*level, line));
                }
            }
            Event::Output { step, text, .. } => {
                if let Some(step) = self.step(step) {
                    step.last.push_back(text.chars().take(LONGEST_LINE).collect());
                    if step.last.len() > LAST_LINES {
                        step.last.pop_front();
                    }
                }
            }
            Event::StepDone { step, done } => {
                if let Some(step) = self.step(step) {
                    step.end = Some(at.since);
                    step.state = if done.is_cached { State::Cached } else { State::Executed };
                    (step.layer, step.why) = (done.layer, done.why.to_vec());
                    step.last.clear();
                }
            }
            Event::StepFailed { step, is_stopped } => {
                if let Some(step) = self.step(step) {
                    step.end = Some(at.since);
                    step.state = if *is_stopped { State::Stopped } else { State::Failed };
                }
            }
            Event::TransferBegun { id, direction, digest, place, size } => {
                if self.has_room(self.transfers.len()) {
                    let (direction, digest, place, size) = (*direction, **digest, (*place).to_owned(), *size);
                    let transfer = Transfer { direction, digest, place, size, begin: at.since, done: 0, end: None };
                    self.transfers.insert(*id, transfer);
                }
            }
            Event::TransferDone { id, outcome, done, .. } => {
                if let Some(transfer) = self.transfers.get_mut(id) {
                    (transfer.done, transfer.end) = (*done, Some((*outcome, at.since)));
                }
            }
            Event::Downloaded { time, .. } | Event::CheckedOut { time, .. } => {
                if self.has_room(self.fetches.len()) {
                    let what = event.line().unwrap_or_default();
                    self.fetches.push(Fetch { what, begin: at.since.saturating_sub(*time), end: at.since });
                }
            }
            Event::Pushed { name, digest, is_unchanged } => {
                if self.has_room(self.pushed.len()) {
                    self.pushed.push(((*name).to_owned(), **digest, *is_unchanged));
                }
            }
            Event::Image { digest, layers } => self.images.push((**digest, layers.to_vec())),
            Event::Built { digest, layers, size, time } => {
                self.built = Some(Built { digest: **digest, layers: *layers, size: *size, time: *time });
            }
            Event::Message { .. } | Event::TransferProgress { .. } | Event::Pulled { .. } => {}
        }
    }

    fn begin(&mut self, name: &str, text: &str, at: &Moment) {
        if self.has_room(self.steps.len()) {
            self.by_name.insert(name.to_owned(), self.steps.len());
            let (name, text, state) = (name.to_owned(), text.to_owned(), State::Running);
            let (end, layer, why, last) = Default::default();
            self.steps.push(Step { name, text, begin: at.since, end, state, layer, why, last });
        }
    }

    /// The last step of a name.
    fn step(&mut self, name: &str) -> Option<&mut Step> {
        self.steps.get_mut(*self.by_name.get(name)?)
    }

    /// Whether there is room for one more than so many.
    fn has_room(&mut self, count: usize) -> bool {
        self.left_out += usize::from(count >= MOST);
        count < MOST
    }

    /// The steps by their stages, each in the order in which they began.
    fn stages(&self) -> Vec<(&str, Vec<&Step>)> {
        let mut stages: Vec<(&str, Vec<&Step>)> = Vec::new();
        for step in &self.steps {
            let stage = step.stage();
            match stages.iter_mut().find(|(name, _)| *name == stage) {
                Some((_, steps)) => steps.push(step),
                None => stages.push((stage, vec![step])),
            }
        }
        stages
    }

    /// How much was really transferred in a direction.
    fn transferred(&self, direction: Direction) -> u64 {
        self.transfers.values().filter(|transfer| transfer.direction == direction).map(|transfer| transfer.done).sum()
    }

    /// What made a layer, in this build.
    fn maker(&self, digest: &Digest) -> Option<&Step> {
        self.steps.iter().find(|step| step.layer.is_some_and(|(layer, _)| layer == *digest))
    }
}

impl Step {
    /// The stage, with its platform where there are several.
    fn stage(&self) -> &str {
        self.name.rsplit_once(' ').map_or(&self.name, |(stage, _)| stage)
    }
}

/// The most memory that this process has had at once, in bytes, as the kernel tells it.
fn peak_memory(status: &Path) -> Option<u64> {
    let text = std::fs::read_to_string(status).ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib << 10)
}

#[cfg(test)]
mod tests;
