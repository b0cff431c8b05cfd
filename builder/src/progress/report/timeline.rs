//! What was done when, as a picture.

use std::time::Duration;

use super::html::{Text, short};
use super::{Direction, Outcome, State, Step, Story, Transfer};
use crate::progress::units::{bytes, seconds};

/// The height of a row in pixels.
const ROW: usize = 24;
/// How many marks of time there are at most.
const MARKS: u32 = 8;
/// How many rows of transfers there are at most: the table has them all.
const TRANSFERS: usize = 60;

/// A row: a heading, or a bar.
struct Row {
    label: String,
    bar: Option<Bar>,
}

struct Bar {
    begin: Duration,
    end: Duration,
    class: &'static str,
    /// What stands beside it.
    note: String,
}

/// The time line of steps by stage, and of transfers.
pub(super) fn svg(story: &Story) -> String {
    let rows = rows(story);
    let total = story.ended.max(Duration::from_millis(1));
    let height = (rows.len() + 1) * ROW + 6;
    let mut svg = format!(
        "<svg class=\"line\" width=\"100%\" height=\"{height}\" role=\"img\" aria-label=\"Time line of steps and transfers\">\n"
    );
    svg += &format!("<svg x=\"36%\" width=\"62%\" height=\"{height}\" class=\"grid\">");
    for mark in marks(total) {
        let at = percent(mark, total);
        svg += &format!(
            "<line x1=\"{at:.3}%\" x2=\"{at:.3}%\" y1=\"{ROW}\" y2=\"{height}\"/><text x=\"{at:.3}%\" y=\"15\">{}</text>",
            label(mark)
        );
    }
    svg += "</svg>\n";
    for (number, row) in rows.iter().enumerate() {
        svg += &drawn(row, (number + 1) * ROW, total);
    }
    svg + "</svg>\n"
}

fn rows(story: &Story) -> Vec<Row> {
    let mut rows = Vec::new();
    for (stage, steps) in story.stages() {
        rows.push(Row { label: format!("Stage {stage}"), bar: None });
        rows.extend(steps.into_iter().map(|step| of_step(step, story.ended)));
    }
    let moved: Vec<&Transfer> = story.transfers.values().filter(|transfer| transfer.done > 0).collect();
    if !moved.is_empty() || !story.fetches.is_empty() {
        rows.push(Row { label: "Transfers".into(), bar: None });
    }
    rows.extend(story.fetches.iter().map(|fetch| {
        let note = seconds(fetch.end.saturating_sub(fetch.begin));
        let bar = Bar { begin: fetch.begin, end: fetch.end, class: "download", note };
        Row { label: format!("↓ {}", fetch.what), bar: Some(bar) }
    }));
    rows.extend(moved.iter().take(TRANSFERS).map(|transfer| of_transfer(transfer, story.ended)));
    if moved.len() > TRANSFERS {
        let label = format!("and {} more, in the table below", moved.len() - TRANSFERS);
        rows.push(Row { label, bar: None });
    }
    rows
}

fn of_step(step: &Step, now: Duration) -> Row {
    let end = step.end.unwrap_or(now);
    let time = seconds(end.saturating_sub(step.begin));
    let (class, note) = match step.state {
        State::Cached => ("cached", "cached".to_owned()),
        State::Executed => ("executed", time),
        State::Failed => ("failed", format!("failed after {time}")),
        State::Stopped | State::Running => ("stopped", format!("stopped after {time}")),
    };
    let number = step.name.rsplit_once(' ').map_or("", |(_, number)| number);
    Row { label: format!("{number} {}", step.text), bar: Some(Bar { begin: step.begin, end, class, note }) }
}

fn of_transfer(transfer: &Transfer, now: Duration) -> Row {
    let (outcome, end) = transfer.end.unwrap_or((Outcome::Stopped, now));
    let (sign, class) = match (outcome, transfer.direction) {
        (Outcome::Stopped, Direction::Download) => ("↓", "stopped"),
        (Outcome::Stopped, Direction::Upload) => ("↑", "stopped"),
        (_, Direction::Download) => ("↓", "download"),
        (_, Direction::Upload) => ("↑", "upload"),
    };
    let label = format!("{sign} {} {}", transfer.place, short(&transfer.digest));
    Row { label, bar: Some(Bar { begin: transfer.begin, end, class, note: bytes(transfer.done) }) }
}

fn drawn(row: &Row, y: usize, total: Duration) -> String {
    let class = if row.bar.is_some() { "label" } else { "heading" };
    let width = if row.bar.is_some() { 35 } else { 100 };
    let label = Text(&row.label);
    let text = format!(
        "<svg y=\"{y}\" width=\"{width}%\" height=\"{ROW}\"><text class=\"{class}\" x=\"2\" y=\"16\">{label}</text></svg>"
    );
    let Some(bar) = &row.bar else { return format!("{text}\n") };
    let (begin, end) = (percent(bar.begin, total), percent(bar.end, total));
    let width = (end - begin).max(0.4);
    // Beside the bar where there is room, else in it.
    let (class, x, anchor, dx) = if end <= 82.0 {
        ("note", begin + width, "start", 5)
    } else if begin >= 18.0 {
        ("note", begin, "end", -5)
    } else {
        ("note in", begin, "start", 6)
    };
    format!(
        "<g><title>{label}: {note}, from {from} to {to}</title>{text}\
         <svg x=\"36%\" y=\"{y}\" width=\"62%\" height=\"{ROW}\" overflow=\"visible\">\
         <rect class=\"{kind}\" x=\"{begin:.3}%\" y=\"4\" width=\"{width:.3}%\" height=\"16\" rx=\"3\"/>\
         <text class=\"{class}\" x=\"{x:.3}%\" dx=\"{dx}\" y=\"16\" text-anchor=\"{anchor}\">{note}</text></svg></g>\n",
        note = Text(&bar.note),
        from = seconds(bar.begin),
        to = seconds(bar.end),
        kind = bar.class,
    )
}

fn percent(time: Duration, total: Duration) -> f64 {
    (time.as_secs_f64() / total.as_secs_f64() * 100.0).min(100.0)
}

/// Round times, from zero on.
fn marks(total: Duration) -> Vec<Duration> {
    let round = [10, 20, 50, 100, 200, 500, 1_000, 2_000, 5_000, 10_000, 30_000, 60_000, 120_000, 300_000, 600_000];
    let mut steps = round.into_iter().map(Duration::from_millis);
    let step = steps.find(|step| *step * MARKS >= total).unwrap_or(total / MARKS);
    (0..=MARKS).map(|number| step * number).take_while(|mark| *mark <= total).collect()
}

/// A time without needless zeros: `0.5 s`, `20 s`, `3 min`.
fn label(time: Duration) -> String {
    let millis = time.as_millis();
    match millis {
        0 => "0".into(),
        _ if millis >= 60_000 && millis.is_multiple_of(60_000) => format!("{} min", millis / 60_000),
        _ => format!("{} s", millis as f64 / 1e3),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn marks_are_round_and_few() {
        for (total, expected) in [
            (Duration::from_millis(70), "0 0.01 s 0.02 s 0.03 s 0.04 s 0.05 s 0.06 s 0.07 s"),
            (Duration::from_millis(3_500), "0 0.5 s 1 s 1.5 s 2 s 2.5 s 3 s 3.5 s"),
            (Duration::from_secs(150), "0 30 s 1 min 90 s 2 min 150 s"),
            (Duration::from_secs(3_700), "0 10 min 20 min 30 min 40 min 50 min 60 min"),
        ] {
            let labels: Vec<String> = marks(total).into_iter().map(label).collect();
            assert_eq!(labels.join(" "), expected, "{total:?}");
        }
        assert_eq!(marks(Duration::from_secs(100_000)).len(), 9);
    }
}
