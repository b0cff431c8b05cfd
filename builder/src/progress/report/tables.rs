//! Steps, layers and transfers as tables.

use super::html::{Text, short};
use super::{Direction, Outcome, State, Step, Story, Transfer};
use crate::progress::LayerContents;
use crate::progress::directories::Directories;
use crate::progress::units::{bytes, seconds};

/// Each step, and why it was executed.
pub(super) fn steps(story: &Story) -> String {
    if story.steps.is_empty() {
        let text = match story.built {
            Some(_) => "No step was looked at: the whole image was there before.",
            None => "No step was begun.",
        };
        return format!("<h2>Steps and the cache</h2>\n<p class=\"dim\">{text}</p>\n");
    }
    let rows: String = story.stages().into_iter().flat_map(|(_, steps)| steps).map(step).collect();
    format!(
        "<h2>Steps and the cache</h2>\n<table>\n<tr><th>Step</th><th>Instruction</th><th>Result</th>\
         <th class=\"number\">Time</th><th class=\"number\">Layer</th><th>Why it was executed</th></tr>\n{rows}</table>\n"
    )
}

fn step(step: &Step) -> String {
    let (class, result) = match step.state {
        State::Cached => ("cached", "cached"),
        State::Executed => ("executed", "executed"),
        State::Failed => ("failed", "failed"),
        State::Stopped | State::Running => ("stopped", "stopped"),
    };
    let time = step.end.map(|end| seconds(end.saturating_sub(step.begin))).unwrap_or_default();
    let layer = match (step.layer, step.state) {
        (Some((_, size)), _) => bytes(size),
        (None, State::Executed | State::Cached) => "no change".into(),
        (None, _) => String::new(),
    };
    let why = match &step.why[..] {
        [] => String::new(),
        [only] => Text(only).to_string(),
        several => {
            let items: String = several.iter().map(|reason| format!("<li>{}</li>", Text(reason))).collect();
            format!("<ul>{items}</ul>")
        }
    };
    format!(
        "<tr><td class=\"name\">{}</td><td><code>{}</code></td><td><span class=\"tag {class}\">{result}</span></td>\
         <td class=\"number\">{time}</td><td class=\"number\">{layer}</td><td>{why}</td></tr>\n",
        Text(&step.name),
        Text(&step.text)
    )
}

/// The layers of each image, and what is in them.
pub(super) fn layers(story: &Story) -> String {
    let mut text = String::new();
    for (digest, layers) in &story.images {
        let largest = layers.iter().map(|layer| layer.size).max().unwrap_or(0);
        text += "<h2>Layers, the lowest first</h2>\n";
        if story.images.len() > 1 {
            text += &format!("<p class=\"mono dim\">{digest}</p>\n");
        }
        text += "<p class=\"dim\">The size is that of the compressed layer, as it is stored and sent. Open a layer for what \
                 is in it.</p>\n";
        text.extend(layers.iter().enumerate().map(|(number, one)| layer(story, number, one, largest)));
    }
    text
}

fn layer(story: &Story, number: usize, layer: &LayerContents, largest: u64) -> String {
    let origin = match story.maker(&layer.digest) {
        Some(step) => format!("<b>{}</b> <code>{}</code>", Text(&step.name), Text(&step.text)),
        None => "<span class=\"dim\">of the base image</span>".into(),
    };
    let contents = match &layer.directories {
        None => "<p class=\"dim\">This build had no need to look into the layer.</p>".into(),
        Some(directories) => directory_table(directories),
    };
    format!(
        "<details><summary><b>{}</b>{}<span>{origin}</span></summary><div><p class=\"mono dim\">{}. {}</p>{contents}</div>\
         </details>\n",
        bytes(layer.size),
        bar(layer.size, largest),
        number + 1,
        layer.digest,
    )
}

fn directory_table(directories: &Directories) -> String {
    let Directories { bytes: all, files, deleted, largest } = directories;
    let deleted = if *deleted > 0 { format!(", {deleted} paths taken away") } else { String::new() };
    let mut text = format!("<p>{files} files, {} unpacked{deleted}</p>", bytes(*all));
    if !largest.is_empty() {
        text += "<table><tr><th>Directory, with all below it</th><th></th><th class=\"number\">Files</th>\
                 <th class=\"number\">Size</th></tr>";
        for directory in largest {
            text += &format!(
                "<tr><td><code>{}</code></td><td>{}</td><td class=\"number\">{}</td><td class=\"number\">{}</td></tr>",
                Text(&directory.path),
                bar(directory.bytes, *all),
                directory.files,
                bytes(directory.bytes),
            );
        }
        text += "</table>";
    }
    text
}

fn bar(part: u64, whole: u64) -> String {
    let width = part as f64 / whole.max(1) as f64 * 100.0;
    format!("<span class=\"bar\"><i style=\"width:{width:.1}%\"></i></span>")
}

/// Each transfer.
pub(super) fn transfers(story: &Story) -> String {
    if story.transfers.is_empty() {
        return String::new();
    }
    // Of what was tried and came to nothing something else became.
    let counts = |transfer: &&Transfer| transfer.done > 0 || !matches!(transfer.end, Some((Outcome::Stopped, _)));
    let rows: String = story.transfers.values().filter(counts).map(|one| transfer(story, one)).collect();
    format!(
        "<h2>Transfers</h2>\n<table>\n<tr><th></th><th>Layer</th><th>Place</th><th>Result</th>\
         <th class=\"number\">Size</th><th class=\"number\">Time</th><th class=\"number\">A second</th></tr>\n{rows}</table>\n"
    )
}

fn transfer(story: &Story, transfer: &Transfer) -> String {
    let direction = match transfer.direction {
        Direction::Download => "download",
        Direction::Upload => "upload",
    };
    let outcome = match transfer.end {
        Some((Outcome::Transferred, _)) => "transferred",
        Some((Outcome::Linked, _)) => "linked there",
        Some((Outcome::AlreadyThere, _)) => "was there",
        Some((Outcome::Stopped, _)) | None => "stopped",
    };
    let maker = story.maker(&transfer.digest);
    let maker = maker.map(|step| format!(" <span class=\"dim\">{}</span>", Text(&step.name))).unwrap_or_default();
    let time = transfer.end.map(|(_, end)| end.saturating_sub(transfer.begin));
    let rate = time.filter(|time| transfer.done > 0 && time.as_millis() >= 10);
    let rate = rate.map(|time| bytes((transfer.done as f64 / time.as_secs_f64()) as u64)).unwrap_or_default();
    format!(
        "<tr><td>{direction}</td><td><code>{}</code>{maker}</td><td class=\"mono\">{}</td><td>{outcome}</td>\
         <td class=\"number\">{}</td><td class=\"number\">{}</td><td class=\"number\">{rate}</td></tr>\n",
        short(&transfer.digest),
        Text(&transfer.place),
        bytes(transfer.size),
        time.map(seconds).unwrap_or_default(),
    )
}
