//! The page as a whole.

use yadokari_layers::Digest;

use super::html::{Text, lines};
use super::{State, Story, tables, timeline};
use crate::progress::units::{bytes, seconds};
use crate::progress::{Direction, Level};

/// How the page looks. A page has no script: it says so itself, so that none in it would be run.
const STYLE: &str = include_str!("page.css");
const POLICY: &str = "default-src 'none'; style-src 'unsafe-inline'";

/// The page about a build that took so much memory at most.
pub(super) fn page(story: &Story, memory: Option<u64>) -> String {
    let title = title(story);
    let mut page = format!(
        "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta http-equiv=\"Content-Security-Policy\" content=\"{POLICY}\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <title>{title}</title>\n<style>\n{STYLE}</style>\n</head>\n<body>\n",
        title = Text(&title)
    );
    let (class, sign) = if story.built.is_some() { ("good", "✓") } else { ("bad", "✗") };
    page += &format!("<h1 class=\"{class}\"><span class=\"sign\">{sign}</span> {}</h1>\n", Text(&title));
    page += &names(story);
    page += &failures(story);
    page += &facts(story, memory);
    page += "<h2>Time line</h2>\n";
    page += &legend();
    page += &timeline::svg(story);
    page += &tables::steps(story);
    page += &tables::layers(story);
    page += &tables::transfers(story);
    let warnings: Vec<&str> = story.said(Level::Warn).collect();
    if !warnings.is_empty() {
        page += &format!("<h2>Warnings</h2>\n<pre>{}</pre>\n", lines(warnings.iter().flat_map(|text| text.lines())));
    }
    if story.left_out > 0 {
        page += &format!("<p class=\"dim\">{} more things happened than fit here.</p>\n", story.left_out);
    }
    page += concat!("<footer>yadokari ", env!("CARGO_PKG_VERSION"), "</footer>\n</body>\n</html>\n");
    page
}

impl Story {
    fn said(&self, level: Level) -> impl Iterator<Item = &str> {
        self.messages.iter().filter(move |(of, _)| *of == level).map(|(_, text)| text.as_str())
    }

    /// The digest of what was built, or found to be there.
    fn digest(&self) -> Option<Digest> {
        self.built.as_ref().map(|built| built.digest)
    }
}

fn title(story: &Story) -> String {
    let name = story.pushed.first().map(|(name, _, _)| name.as_str());
    match (&story.built, name) {
        (Some(_), Some(name)) => format!("Built {name}"),
        (Some(_), None) => "Built an image".into(),
        (None, _) => "The build failed".into(),
    }
}

/// Every name that the image has now.
fn names(story: &Story) -> String {
    let Some(digest) = story.digest() else { return String::new() };
    let mut list = format!("<p class=\"mono dim\">{digest}</p>\n");
    if story.pushed.len() > 1 || story.pushed.iter().any(|(_, _, is_unchanged)| *is_unchanged) {
        list += "<ul>\n";
        for (name, _, is_unchanged) in &story.pushed {
            let note = if *is_unchanged { " <span class=\"dim\">pointed to it before</span>" } else { "" };
            list += &format!("<li class=\"mono\">{}{note}</li>\n", Text(name));
        }
        list += "</ul>\n";
    }
    list
}

/// What went wrong, and the last words of the command that did.
fn failures(story: &Story) -> String {
    let mut text = String::new();
    for error in story.said(Level::Error) {
        text += &format!("<pre class=\"bad\">{}</pre>\n", lines(error.lines()));
    }
    for step in story.steps.iter().filter(|step| step.state == State::Failed && !step.last.is_empty()) {
        let output = lines(step.last.iter().map(String::as_str));
        text += &format!("<p>The last lines of the output of <b>{}</b>:</p>\n", Text(&step.name));
        text += &format!("<pre>{output}</pre>\n");
    }
    text
}

fn facts(story: &Story, memory: Option<u64>) -> String {
    let count = |state| story.steps.iter().filter(|step| step.state == state).count();
    let mut facts: Vec<(&str, String)> = Vec::new();
    let time = story.built.as_ref().map_or(story.ended, |built| built.time);
    facts.push(("Took", seconds(time)));
    facts.extend(story.began.map(|began| ("Began", began.rfc3339().replace('T', " "))));
    if let Some(built) = &story.built {
        facts.push(("Image", format!("{} in {} layers", bytes(built.size), built.layers)));
    }
    facts.push(("Steps", format!("{} executed, {} cached", count(State::Executed), count(State::Cached))));
    facts.push(("Downloaded", bytes(story.transferred(Direction::Download))));
    facts.push(("Uploaded", bytes(story.transferred(Direction::Upload))));
    facts.extend(memory.map(|memory| ("Peak memory of the builder", bytes(memory))));
    let facts = facts.iter().map(|(name, value)| format!("<div><dt>{name}</dt><dd>{}</dd></div>\n", Text(value)));
    format!("<dl class=\"facts\">\n{}</dl>\n", facts.collect::<String>())
}

fn legend() -> String {
    let kinds = [
        ("executed", "executed"),
        ("cached", "from the cache"),
        ("download", "download"),
        ("upload", "upload"),
        ("failed", "failed"),
        ("stopped", "stopped"),
    ];
    let items = kinds.map(|(class, text)| format!("<li><i class=\"{class}\"></i>{text}</li>"));
    format!("<ul class=\"legend\">{}</ul>\n", items.concat())
}
