//! Lines of JSON, for programs. `docs/output.md` has the meaning of the fields, which only grow in number.

use std::collections::HashMap;
use std::io::Write;
use std::time::Duration;

use serde_json::{Map, Value, json};
use yadokari_layers::Digest;

use super::{Direction, Event, LayerContents, Level, Moment, Outcome, StepDone, View};
use crate::sandbox::Stream;

/// The time between two lines about one transfer.
const PERIOD: Duration = Duration::from_secs(1);

/// Writes an object a line.
pub struct JsonLines {
    level: Level,
    out: Box<dyn Write + Send>,
    /// The transfers under way, and when each was reported last.
    reported: HashMap<u64, Duration>,
}

impl JsonLines {
    /// Writes to `out` what `level` lets through.
    pub fn new(level: Level, out: Box<dyn Write + Send>) -> Self {
        Self { level, out, reported: HashMap::new() }
    }

    /// Whether it is too early for another line about a transfer.
    fn is_early(&mut self, event: &Event<'_>, at: &Moment) -> bool {
        match event {
            Event::TransferBegun { id, .. } => _ = self.reported.insert(*id, at.since),
            Event::TransferDone { id, .. } => _ = self.reported.remove(id),
            Event::TransferProgress { id, .. } => {
                let last = self.reported.get(id).copied().unwrap_or_default();
                if at.since < last + PERIOD {
                    return true;
                }
                self.reported.insert(*id, at.since);
            }
            _ => {}
        }
        false
    }
}

impl View for JsonLines {
    fn show(&mut self, event: &Event<'_>, at: &Moment) {
        if event.level() > self.level || self.is_early(event, at) {
            return;
        }
        let (kind, fields) = fields(event);
        let mut object = Map::new();
        object.insert("time".into(), at.rfc3339().into());
        object.insert("level".into(), level(event.level()).into());
        object.insert("event".into(), kind.into());
        if let Some(step) = event.step() {
            object.insert("step".into(), step.into());
        }
        if let Value::Object(fields) = fields {
            object.extend(fields);
        }
        // As Kaniko has it: what a line of text would say.
        if let Some(line) = event.line() {
            object.insert("msg".into(), line.into());
        }
        // There is nobody to tell that nobody listens.
        _ = writeln!(self.out, "{}", Value::Object(object));
    }

    fn wants_reasons(&self) -> bool {
        self.level >= Level::Info
    }
}

/// The levels in Kaniko's words.
fn level(level: Level) -> &'static str {
    match level {
        Level::Error => "error",
        Level::Warn => "warning",
        Level::Info => "info",
        Level::Debug => "debug",
    }
}

/// The kind of an event, and the fields that only this kind has.
fn fields(event: &Event<'_>) -> (&'static str, Value) {
    match event {
        Event::Message { text, .. } => ("message", json!({"text": text})),
        Event::StepBegun { text, key, .. } => ("step-begun", json!({"instruction": text, "key": key.hex()})),
        Event::Output { stream, since, text, .. } => {
            let stream = if *stream == Stream::Stdout { "stdout" } else { "stderr" };
            ("output", json!({"stream": stream, "seconds": secs(since), "text": text}))
        }
        Event::StepDone { done: StepDone { time, layer, is_cached, why }, .. } => {
            let mut fields = json!({"cached": is_cached, "seconds": secs(time)});
            if let Some((digest, size)) = layer {
                fields["layer"] = json!({"digest": digest, "bytes": size});
            }
            if !why.is_empty() {
                fields["why"] = json!(why);
            }
            ("step-done", fields)
        }
        Event::StepFailed { is_stopped, .. } => ("step-failed", json!({"stopped": is_stopped})),
        Event::TransferBegun { id, direction, digest, place, size } => {
            let direction = if *direction == Direction::Download { "download" } else { "upload" };
            let fields = json!({"id": id, "direction": direction, "place": place, "digest": digest, "bytes": size});
            ("transfer-begun", fields)
        }
        Event::TransferProgress { id, done } => ("transfer-progress", json!({"id": id, "done": done})),
        Event::TransferDone { id, outcome, done, time } => {
            ("transfer-done", json!({"id": id, "outcome": ended(*outcome), "done": done, "seconds": secs(time)}))
        }
        Event::Pulled { from, layers, size, time } => {
            ("pulled", json!({"from": from, "layers": layers, "bytes": size, "seconds": secs(time)}))
        }
        Event::Downloaded { url, size, time } => {
            ("downloaded", json!({"url": url, "bytes": size, "seconds": secs(time)}))
        }
        Event::CheckedOut { repository, commit, time } => {
            ("checked-out", json!({"repository": repository, "commit": commit, "seconds": secs(time)}))
        }
        Event::Pushed { name, digest, is_unchanged } => {
            ("pushed", json!({"name": name, "digest": digest, "unchanged": is_unchanged}))
        }
        Event::Image { digest, layers } => ("image", image(digest, layers)),
        Event::Built { digest, layers, size, time } => {
            ("built", json!({"digest": digest, "layers": layers, "bytes": size, "seconds": secs(time)}))
        }
    }
}

fn image(digest: &Digest, layers: &[LayerContents]) -> Value {
    let layers: Vec<Value> = layers.iter().map(|layer| json!({"digest": layer.digest, "bytes": layer.size})).collect();
    json!({"digest": digest, "layers": layers})
}

pub(super) fn ended(outcome: Outcome) -> &'static str {
    match outcome {
        Outcome::Transferred => "transferred",
        Outcome::Linked => "linked",
        Outcome::AlreadyThere => "already-there",
        Outcome::Stopped => "stopped",
    }
}

/// Seconds, to the millisecond.
fn secs(time: &Duration) -> f64 {
    time.as_millis() as f64 / 1e3
}
