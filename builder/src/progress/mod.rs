//! What the user sees: plain lines, for logs.
//!
//! A line when a step begins and one when it ends, with its time and the size of its layer; what a command prints,
//! indented; a summary. Everything goes to standard error, so that standard output stays free for results.

mod units;

use std::io::{self, Write};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use yadokari_layers::{Digest, Key};
use yadokari_registry::{Version, Written};

use crate::sandbox::Stream;

pub(crate) use units::{age, bytes, seconds};

/// How much is said.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// Errors only.
    Error,
    /// And warnings.
    Warn,
    /// And steps, and what commands print.
    Info,
    /// And keys, digests and decisions.
    Debug,
}

/// How a step ended.
#[derive(Debug, Clone, Copy)]
pub struct StepDone {
    /// How long it took.
    pub time: Duration,
    /// The compressed size of its layer in bytes, if it made one.
    pub size: Option<u64>,
    /// Whether an earlier build made it.
    pub is_cached: bool,
}

/// Writes lines, each whole.
pub struct Progress {
    level: Level,
    start: Instant,
    out: Mutex<Box<dyn Write + Send>>,
}

impl Progress {
    /// Writes to standard error what `level` lets through.
    pub fn new(level: Level) -> Self {
        Self::to(level, Box::new(io::stderr()))
    }

    /// Writes to `out` what `level` lets through.
    pub fn to(level: Level, out: Box<dyn Write + Send>) -> Self {
        Self { level, start: Instant::now(), out: Mutex::new(out) }
    }

    fn line(&self, level: Level, text: &str) {
        if level <= self.level {
            let mut out = self.out.lock().unwrap_or_else(PoisonError::into_inner);
            // There is nobody to tell that nobody listens.
            _ = writeln!(out, "{text}");
        }
    }

    /// Something for whoever looks for the cause of something.
    pub fn debug(&self, text: &str) {
        self.line(Level::Debug, text);
    }

    /// Something that everybody wants to know.
    pub fn info(&self, text: &str) {
        self.line(Level::Info, text);
    }

    /// Something that may not be meant. A text of several lines brings its own heading.
    pub fn warning(&self, text: &str) {
        let heading = if text.starts_with("warning") { "" } else { "warning: " };
        self.line(Level::Warn, &format!("{heading}{text}"));
    }

    /// What ended the build.
    pub fn error(&self, text: &str) {
        let heading = if text.starts_with("error") { "" } else { "error: " };
        self.line(Level::Error, &format!("{heading}{text}"));
    }

    /// A step begins.
    pub fn step(&self, name: &str, text: &str, key: &Key) {
        self.info(&format!("[{name}] {}", one_line(text)));
        self.debug(&format!("[{name}] key {key}"));
    }

    /// A step ended well.
    pub fn step_done(&self, name: &str, done: StepDone) {
        let size = done.size.map_or("no change".into(), bytes);
        match done.is_cached {
            true => self.info(&format!("[{name}] cached, {size}")),
            false => self.info(&format!("[{name}] done in {}, {size}", seconds(done.time))),
        }
    }

    /// What says what a step has to say.
    pub fn voice(&self, name: &str) -> Voice<'_> {
        Voice { progress: self, name: name.to_owned() }
    }

    /// Layers came, of images or of the cache.
    pub fn pulled(&self, from: &str, layers: usize, size: u64, time: Duration) {
        self.info(&format!("pulled {layers} layers of {from}, {}, in {}", bytes(size), seconds(time)));
    }

    /// A file came from a URL.
    pub fn downloaded(&self, url: &str, size: u64, time: Duration) {
        self.info(&format!("downloaded {url}: {}, in {}", bytes(size), seconds(time)));
    }

    /// A commit of a repository is on disk.
    pub fn checked_out(&self, repository: &str, commit: &str, time: Duration) {
        self.info(&format!("checked out {repository}: commit {commit}, in {}", seconds(time)));
    }

    /// A tag points to the image.
    pub fn pushed(&self, store: &str, version: &Version, digest: &Digest) {
        let separator = if matches!(version, Version::Tag(_)) { ":" } else { "@" };
        self.info(&format!("pushed {store}{separator}{version} {digest}"));
    }

    /// A tag pointed to the image already.
    pub fn unchanged(&self, store: &str, version: &Version, digest: &Digest) {
        let separator = if matches!(version, Version::Tag(_)) { ":" } else { "@" };
        self.info(&format!("unchanged {store}{separator}{version} {digest}"));
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
        let time = seconds(self.start.elapsed());
        self.info(&format!("built {digest}: {layers} layers, {}, in {time}", bytes(size)));
    }

    /// Where what the command of a step prints goes.
    pub fn output(&self, name: &str) -> Output<'_> {
        Output { progress: self, name: name.to_owned(), start: Instant::now(), partial: Mutex::default() }
    }
}

/// Says whose line it is: several stages speak at the same time.
#[derive(Clone)]
pub struct Voice<'a> {
    progress: &'a Progress,
    name: String,
}

impl Voice<'_> {
    /// Something that everybody wants to know.
    pub fn info(&self, text: &str) {
        self.progress.info(&format!("[{}] {text}", self.name));
    }

    /// Something that may not be meant.
    pub fn warning(&self, text: &str) {
        self.progress.line(Level::Warn, &format!("[{}] warning: {text}", self.name));
    }
}

/// Cuts what a command prints into lines, each with the seconds since it began.
pub struct Output<'a> {
    progress: &'a Progress,
    name: String,
    start: Instant,
    /// What came of the line under way, of each stream.
    partial: Mutex<[Vec<u8>; 2]>,
}

/// A line longer than this is cut, so that a command without line ends does not fill the memory.
const LONGEST_LINE: usize = 16 << 10;

impl Output<'_> {
    /// Takes what came from one of the streams.
    pub fn write(&self, stream: Stream, bytes: &[u8]) {
        let mut partial = self.partial.lock().unwrap_or_else(PoisonError::into_inner);
        let partial = &mut partial[usize::from(stream == Stream::Stderr)];
        for piece in bytes.split_inclusive(|&byte| byte == b'\n') {
            partial.extend_from_slice(piece);
            if piece.ends_with(b"\n") || partial.len() > LONGEST_LINE {
                self.line(&std::mem::take(partial));
            }
        }
    }

    /// Writes what is left of lines that never ended.
    pub fn finish(&self) {
        for partial in std::mem::take(&mut *self.partial.lock().unwrap_or_else(PoisonError::into_inner)) {
            if !partial.is_empty() {
                self.line(&partial);
            }
        }
    }

    fn line(&self, bytes: &[u8]) {
        let text = String::from_utf8_lossy(bytes);
        let seconds = self.start.elapsed().as_secs_f64();
        self.progress.info(&format!("[{}] {seconds:6.2} {}", self.name, text.trim_end_matches(['\n', '\r'])));
    }
}

/// The first line of an instruction, and a sign that there is more.
pub(crate) fn one_line(text: &str) -> String {
    let mut lines = text.trim().lines();
    let first = lines.next().unwrap_or_default();
    if lines.next().is_some() { format!("{first} …") } else { first.to_owned() }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    #[derive(Clone, Default)]
    struct Buffer(Arc<Mutex<Vec<u8>>>);

    impl Write for Buffer {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn lines(level: Level, act: impl Fn(&Progress)) -> Vec<String> {
        let buffer = Buffer::default();
        act(&Progress::to(level, Box::new(buffer.clone())));
        let bytes = buffer.0.lock().unwrap().clone();
        String::from_utf8(bytes).unwrap().lines().map(str::to_owned).collect()
    }

    #[test]
    fn the_level_decides_what_is_said() {
        let speak = |progress: &Progress| {
            progress.debug("d");
            progress.info("i");
            progress.warning("w");
            progress.error("e");
        };
        assert_eq!(lines(Level::Warn, speak), ["warning: w", "error: e"]);
        assert_eq!(lines(Level::Debug, speak).len(), 4);
    }

    #[test]
    fn what_a_step_says_begins_with_its_name() {
        let speak = |progress: &Progress| {
            progress.voice("s 1/1").info("i");
            progress.voice("s 1/1").warning("w");
        };
        assert_eq!(lines(Level::Warn, speak), ["[s 1/1] warning: w"]);
        assert_eq!(lines(Level::Info, speak), ["[s 1/1] i", "[s 1/1] warning: w"]);
    }

    #[test]
    fn output_is_cut_into_whole_lines() {
        let said = lines(Level::Info, |progress| {
            let output = progress.output("s 1/1");
            output.write(Stream::Stdout, b"ab");
            output.write(Stream::Stderr, b"x\n");
            output.write(Stream::Stdout, b"c\r\nlast");
            output.finish();
        });
        let texts: Vec<&str> = said.iter().map(|line| line.rsplit(' ').next().unwrap()).collect();
        assert_eq!(texts, ["x", "abc", "last"]);
    }
}
