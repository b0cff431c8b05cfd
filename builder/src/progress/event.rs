//! What happens in a build, and how each of it is said in one line.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use yadokari_layers::{Digest, Index, Key};

use super::directories::Directories;
use super::units::{bytes, seconds};
use crate::image::rfc3339;
use crate::plan::LayerRef;
use crate::sandbox::Stream;

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

/// When something happened.
#[derive(Debug, Clone, Copy)]
pub struct Moment {
    /// The time since the build began.
    pub since: Duration,
    /// The time of day.
    pub time: SystemTime,
}

impl Moment {
    /// Whole seconds since 1970.
    pub fn unix(&self) -> u64 {
        self.time.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
    }

    /// The time of day in UTC, with milliseconds: `2026-01-02T03:04:05.678Z`.
    pub fn rfc3339(&self) -> String {
        let since = self.time.duration_since(UNIX_EPOCH).unwrap_or_default();
        let whole = rfc3339(i64::try_from(since.as_secs()).unwrap_or(i64::MAX));
        format!("{}.{:03}Z", whole.trim_end_matches('Z'), since.subsec_millis())
    }
}

/// How a step ended.
#[derive(Debug, Clone, Copy)]
pub struct StepDone<'a> {
    /// How long it took.
    pub time: Duration,
    /// Its layer with the compressed size in bytes, if it made one.
    pub layer: Option<(Digest, u64)>,
    /// Whether an earlier build made it.
    pub is_cached: bool,
    /// Why it was executed, as far as somebody asked.
    pub why: &'a [String],
}

/// Where bytes go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    /// From a store.
    Download,
    /// To a store.
    Upload,
}

/// How a transfer ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// All bytes went.
    Transferred,
    /// The store linked the blob from another repository.
    Linked,
    /// The store had the blob.
    AlreadyThere,
    /// It failed, or somebody else's failure stopped it. Who tried it says the reason, or tries something else.
    Stopped,
}

/// What a layer of the finished image holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LayerContents {
    /// The compressed blob.
    pub digest: Digest,
    /// Its size in bytes.
    pub size: u64,
    /// The largest directories; `None` where this build did not learn what the layer holds.
    pub directories: Option<Directories>,
}

impl LayerContents {
    /// The layers of an image, with what each says where that is known.
    pub(crate) fn of(layers: &[LayerRef], indexes: &[Option<Arc<Index>>]) -> Vec<Self> {
        let contents = |(layer, index): (&LayerRef, &Option<Arc<Index>>)| {
            let directories = index.as_deref().map(Directories::of);
            Self { digest: layer.digest, size: layer.size, directories }
        };
        layers.iter().zip(indexes).map(contents).collect()
    }
}

/// Something that happened.
#[derive(Debug, Clone, Copy)]
pub enum Event<'a> {
    /// Something to say, of a step or of the build.
    Message {
        /// For whom.
        level: Level,
        /// The step that says it.
        step: Option<&'a str>,
        /// What is said.
        text: &'a str,
    },
    /// A step begins.
    StepBegun {
        /// Its name: the stage, its number there and how many there are.
        step: &'a str,
        /// The first line of its instruction.
        text: &'a str,
        /// Its key.
        key: &'a Key,
        /// Whether its layer is there already, so that nothing is executed.
        is_made: bool,
    },
    /// The command of a step printed a line.
    Output {
        /// The step.
        step: &'a str,
        /// Where it printed.
        stream: Stream,
        /// The time since the command began.
        since: Duration,
        /// The line, without its end.
        text: &'a str,
    },
    /// A step ended well.
    StepDone {
        /// The step.
        step: &'a str,
        /// How.
        done: StepDone<'a>,
    },
    /// A step did not end well. What ends the build is said as an error.
    StepFailed {
        /// The step.
        step: &'a str,
        /// Whether it was stopped because of something else.
        is_stopped: bool,
    },
    /// A blob is about to be transferred.
    TransferBegun {
        /// The number of the transfer in this build.
        id: u64,
        /// Where it goes.
        direction: Direction,
        /// The blob.
        digest: &'a Digest,
        /// The store, or the image that the blob is of.
        place: &'a str,
        /// Its size in bytes.
        size: u64,
    },
    /// Bytes went.
    TransferProgress {
        /// The transfer.
        id: u64,
        /// How many in all.
        done: u64,
    },
    /// A transfer ended.
    TransferDone {
        /// The transfer.
        id: u64,
        /// How.
        outcome: Outcome,
        /// How many bytes went.
        done: u64,
        /// How long it took.
        time: Duration,
    },
    /// Layers came, of images or of the cache.
    Pulled {
        /// The images.
        from: &'a str,
        /// How many.
        layers: usize,
        /// Their size in bytes.
        size: u64,
        /// How long it took.
        time: Duration,
    },
    /// A file came from a URL.
    Downloaded {
        /// The URL, without its secrets.
        url: &'a str,
        /// Its size in bytes.
        size: u64,
        /// How long it took.
        time: Duration,
    },
    /// A commit of a repository is on disk.
    CheckedOut {
        /// The repository, without its secrets.
        repository: &'a str,
        /// The commit.
        commit: &'a str,
        /// How long it took.
        time: Duration,
    },
    /// A name points to the image.
    Pushed {
        /// The name.
        name: &'a str,
        /// The image.
        digest: &'a Digest,
        /// Whether it did before.
        is_unchanged: bool,
    },
    /// What the layers of an image hold.
    Image {
        /// The digest of its manifest.
        digest: &'a Digest,
        /// The layers, the lowest first.
        layers: &'a [LayerContents],
    },
    /// The build has ended well.
    Built {
        /// The image's digest.
        digest: &'a Digest,
        /// The number of its layers.
        layers: usize,
        /// Their compressed size in bytes.
        size: u64,
        /// How long all of it took.
        time: Duration,
    },
}

impl Event<'_> {
    /// The least level at which it is said.
    pub fn level(&self) -> Level {
        match self {
            Self::Message { level, .. } => *level,
            _ => Level::Info,
        }
    }

    /// The step that it belongs to.
    pub fn step(&self) -> Option<&str> {
        match self {
            Self::Message { step, .. } => *step,
            Self::StepBegun { step, .. }
            | Self::Output { step, .. }
            | Self::StepDone { step, .. }
            | Self::StepFailed { step, .. } => Some(step),
            _ => None,
        }
    }

    /// What a line says, after the name of the step where there is one; `None` where only other views show it.
    pub fn text(&self) -> Option<String> {
        Some(match self {
            Self::Message { level, step, text } => format!("{}{text}", heading(*level, *step, text)),
            Self::StepBegun { text, .. } => (*text).to_owned(),
            Self::Output { since, text, .. } => format!("{:6.2} {text}", since.as_secs_f64()),
            Self::StepDone { done: StepDone { time, layer, is_cached, .. }, .. } => {
                let size = layer.map_or("no change".into(), |(_, size)| bytes(size));
                if *is_cached { format!("cached, {size}") } else { format!("done in {}, {size}", seconds(*time)) }
            }
            Self::Pulled { from, layers, size, time } => {
                format!("pulled {layers} layers of {from}, {}, in {}", bytes(*size), seconds(*time))
            }
            Self::Downloaded { url, size, time } => {
                format!("downloaded {url}: {}, in {}", bytes(*size), seconds(*time))
            }
            Self::CheckedOut { repository, commit, time } => {
                format!("checked out {repository}: commit {commit}, in {}", seconds(*time))
            }
            Self::Pushed { name, digest, is_unchanged } => {
                format!("{} {name} {digest}", if *is_unchanged { "unchanged" } else { "pushed" })
            }
            Self::Built { digest, layers, size, time } => {
                format!("built {digest}: {layers} layers, {}, in {}", bytes(*size), seconds(*time))
            }
            Self::StepFailed { .. }
            | Self::TransferBegun { .. }
            | Self::TransferProgress { .. }
            | Self::TransferDone { .. }
            | Self::Image { .. } => return None,
        })
    }

    /// The whole line.
    pub fn line(&self) -> Option<String> {
        let text = self.text()?;
        Some(match self.step() {
            Some(step) => format!("[{step}] {text}"),
            None => text,
        })
    }
}

/// What a warning or an error begins with. A text of several lines brings its own heading.
fn heading(level: Level, step: Option<&str>, text: &str) -> &'static str {
    match level {
        Level::Warn if step.is_some() || !text.starts_with("warning") => "warning: ",
        Level::Error if !text.starts_with("error") => "error: ",
        _ => "",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_moment_has_milliseconds() {
        let time = UNIX_EPOCH + Duration::from_millis(1_767_323_045_006);
        let moment = Moment { since: Duration::ZERO, time };
        assert_eq!((moment.rfc3339().as_str(), moment.unix()), ("2026-01-02T03:04:05.006Z", 1_767_323_045));
    }
}
