//! What the user sees.
//!
//! Everything that is said is an [`Event`]; a [`View`] shows events, and there may be several: [`Live`] for people at a terminal, [`Lines`] for logs,
//! [`JsonLines`] for programs, [`Sections`] for GitLab's logs, and a [`Report`] as a page. The others write to standard error, so that standard output
//! stays free for results. What commands print has no secrets that we know of: those of `--secret` reach nothing but the
//! RUN that mounts them, and URLs are shown without theirs by whoever says them.

mod directories;
mod event;
mod json;
mod lines;
mod live;
mod output;
mod report;
mod sections;
mod transfer;
mod units;

use std::collections::HashMap;
use std::io::{self, Write};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use yadokari_layers::{Digest, Key};
use yadokari_registry::{Version, Written};

pub use directories::{Directories, Directory};
pub use event::{Direction, Event, LayerContents, Level, Moment, Outcome, StepDone};
pub use json::JsonLines;
pub use lines::{Lines, Style};
pub use live::Live;
pub use output::Output;
pub use report::Report;
pub use sections::Sections;
pub(crate) use transfer::{Transfer, WhileItComes, read_to, write_blob};
pub(crate) use units::{age, bytes, seconds};

/// Shows what happens, somewhere and in some form.
pub trait View: Send {
    /// Shows an event. They come one after the other, in the order in which they happened. What cannot be shown is not an
    /// error: there is nobody to tell that nobody listens.
    fn show(&mut self, event: &Event<'_>, at: &Moment);

    /// Shows what was held back. Nothing comes after this but what is said when all is over.
    fn finish(&mut self, _at: &Moment) {}

    /// Whether it shows why steps are executed, so that somebody has to ask the cache for that.
    fn wants_reasons(&self) -> bool {
        false
    }

    /// Whether it shows what the layers of the image hold.
    fn wants_contents(&self) -> bool {
        false
    }
}

/// Tells the views what happens.
pub struct Progress {
    start: Instant,
    began: SystemTime,
    views: Mutex<Vec<Box<dyn View>>>,
    wants_reasons: bool,
    wants_contents: bool,
    /// Why steps are executed, by their keys.
    reasons: OnceLock<HashMap<Key, Vec<String>>>,
    transfers: AtomicU64,
}

impl Progress {
    /// Shows what happens in all of these views.
    pub fn with(views: Vec<Box<dyn View>>) -> Self {
        let (wants_reasons, wants_contents) =
            (views.iter().any(|view| view.wants_reasons()), views.iter().any(|view| view.wants_contents()));
        let (start, began) = (Instant::now(), SystemTime::now());
        let (reasons, transfers) = Default::default();
        Self { start, began, views: Mutex::new(views), wants_reasons, wants_contents, reasons, transfers }
    }

    /// Writes lines to standard error, of what `level` lets through.
    pub fn new(level: Level) -> Self {
        Self::to(level, Box::new(io::stderr()))
    }

    /// Writes lines to `out`, of what `level` lets through.
    pub fn to(level: Level, out: Box<dyn Write + Send>) -> Self {
        Self::with(vec![Box::new(Lines::new(level, Style::default(), out))])
    }

    /// Tells nobody.
    pub fn silent() -> Self {
        Self::with(Vec::new())
    }

    fn say(&self, event: &Event<'_>) {
        // Under the lock, so that times never go back.
        let mut views = self.views();
        let at = self.now();
        views.iter_mut().for_each(|view| view.show(event, &at));
    }

    /// Shows what is still held back: the last words come after it.
    pub fn finish(&self) {
        let mut views = self.views();
        let at = self.now();
        views.iter_mut().for_each(|view| view.finish(&at));
    }

    fn now(&self) -> Moment {
        let since = self.start.elapsed();
        // Not what the clock says now: it may have been set.
        Moment { since, time: self.began + since }
    }

    fn views(&self) -> MutexGuard<'_, Vec<Box<dyn View>>> {
        self.views.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn message(&self, level: Level, step: Option<&str>, text: &str) {
        // What registries and images say is quoted here and there. Lines and tabs are ours; nothing else moves a cursor.
        let text = text.replace(|c: char| c.is_control() && !matches!(c, '\n' | '\t'), " ");
        self.say(&Event::Message { level, step, text: &text });
    }

    /// Something for whoever looks for the cause of something.
    pub fn debug(&self, text: &str) {
        self.message(Level::Debug, None, text);
    }

    /// Something that everybody wants to know.
    pub fn info(&self, text: &str) {
        self.message(Level::Info, None, text);
    }

    /// Something that may not be meant. A text of several lines brings its own heading.
    pub fn warning(&self, text: &str) {
        self.message(Level::Warn, None, text);
    }

    /// What ended the build.
    pub fn error(&self, text: &str) {
        self.message(Level::Error, None, text);
    }

    /// Whether somebody wants to know why steps are executed.
    pub(crate) fn wants_reasons(&self) -> bool {
        self.wants_reasons && self.reasons.get().is_none()
    }

    /// Takes note of why steps would be executed, by their keys. The first call counts.
    pub(crate) fn explain(&self, reasons: HashMap<Key, Vec<String>>) {
        // Whoever was first knew the same.
        _ = self.reasons.set(reasons);
    }

    /// Whether somebody wants to know what layers hold.
    pub(crate) fn wants_contents(&self) -> bool {
        self.wants_contents
    }

    /// Says what the layers of an image hold.
    pub(crate) fn image(&self, digest: &Digest, layers: &[LayerContents]) {
        self.say(&Event::Image { digest, layers });
    }

    /// A step begins; `is_made` says that its layer is there already.
    pub fn step(&self, name: &str, text: &str, key: &Key, is_made: bool) {
        self.say(&Event::StepBegun { step: name, text: &one_line(text), key, is_made });
        self.message(Level::Debug, Some(name), &format!("key {key}"));
    }

    /// A step ended well, after this time: its layer with the compressed size in bytes, and whether an earlier build made it.
    pub fn step_done(&self, name: &str, key: &Key, time: Duration, layer: Option<(Digest, u64)>, is_cached: bool) {
        let why = self.reasons.get().and_then(|reasons| reasons.get(key)).filter(|_| !is_cached);
        let done = StepDone { time, layer, is_cached, why: why.map_or(&[], Vec::as_slice) };
        self.say(&Event::StepDone { step: name, done });
    }

    /// A step ended, and not well.
    pub fn step_failed(&self, name: &str, is_stopped: bool) {
        self.say(&Event::StepFailed { step: name, is_stopped });
    }

    /// What says what a step has to say.
    pub fn voice(&self, name: &str) -> Voice<'_> {
        Voice { progress: self, name: name.to_owned() }
    }

    /// A blob is about to go from or to a place.
    pub(crate) fn transfer(
        self: &Arc<Self>,
        direction: Direction,
        place: &str,
        digest: &Digest,
        size: u64,
    ) -> Transfer {
        let id = self.transfers.fetch_add(1, Ordering::Relaxed);
        self.say(&Event::TransferBegun { id, direction, digest, place, size });
        Transfer::new(Arc::clone(self), id)
    }

    /// Layers came, of images or of the cache.
    pub fn pulled(&self, from: &str, layers: usize, size: u64, time: Duration) {
        self.say(&Event::Pulled { from, layers, size, time });
    }

    /// A file came from a URL.
    pub fn downloaded(&self, url: &str, size: u64, time: Duration) {
        self.say(&Event::Downloaded { url, size, time });
    }

    /// A commit of a repository is on disk.
    pub fn checked_out(&self, repository: &str, commit: &str, time: Duration) {
        self.say(&Event::CheckedOut { repository, commit, time });
    }

    /// A tag points to the image.
    pub fn pushed(&self, store: &str, version: &Version, digest: &Digest) {
        self.say(&Event::Pushed { name: &named(store, version), digest, is_unchanged: false });
    }

    /// A tag pointed to the image already.
    pub fn unchanged(&self, store: &str, version: &Version, digest: &Digest) {
        self.say(&Event::Pushed { name: &named(store, version), digest, is_unchanged: true });
    }

    /// How the blobs got to their destinations.
    pub fn transfers(&self, written: &[Written]) {
        let count = |kind| written.iter().filter(|&&written| written == kind).count();
        let (uploaded, mounted) = (count(Written::Uploaded), count(Written::Mounted));
        self.debug(&format!(
            "{uploaded} layers uploaded, {mounted} mounted, {} already there",
            count(Written::Already)
        ));
    }

    /// The last line.
    pub fn summary(&self, digest: &Digest, layers: usize, size: u64) {
        self.say(&Event::Built { digest, layers, size, time: self.start.elapsed() });
    }

    /// Where what the command of a step prints goes.
    pub fn output(&self, name: &str) -> Output<'_> {
        Output::new(self, name.to_owned())
    }
}

/// The whole name of what a tag or a digest stands for in a store.
fn named(store: &str, version: &Version) -> String {
    let separator = if matches!(version, Version::Tag(_)) { ":" } else { "@" };
    format!("{store}{separator}{version}")
}

/// Says whose line it is: several stages speak at the same time.
#[derive(Clone)]
pub struct Voice<'a> {
    progress: &'a Progress,
    name: String,
}

impl Voice<'_> {
    /// Something for whoever looks for the cause of something.
    pub fn debug(&self, text: &str) {
        self.progress.message(Level::Debug, Some(&self.name), text);
    }

    /// Something that everybody wants to know.
    pub fn info(&self, text: &str) {
        self.progress.message(Level::Info, Some(&self.name), text);
    }

    /// Something that may not be meant.
    pub fn warning(&self, text: &str) {
        self.progress.message(Level::Warn, Some(&self.name), text);
    }
}

/// The first line of an instruction, and a sign that there is more.
pub(crate) fn one_line(text: &str) -> String {
    let mut lines = text.trim().lines();
    let first = lines.next().unwrap_or_default();
    if lines.next().is_some() { format!("{first} …") } else { first.to_owned() }
}

#[cfg(test)]
pub(crate) mod said;
#[cfg(test)]
mod tests;
