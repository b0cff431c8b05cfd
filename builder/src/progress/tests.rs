//! The views, each on the same story.

use std::sync::Arc;

use serde_json::{Value, json};
use yadokari_layers::KeyHasher;

use super::said::Said;
use super::*;
use crate::sandbox::Stream;

/// What a view writes when `act` happens.
fn written(view: impl FnOnce(Box<Said>) -> Box<dyn View>, act: impl FnOnce(&Arc<Progress>)) -> String {
    let buffer = Said::default();
    let progress = Arc::new(Progress::with(vec![view(Box::new(buffer.clone()))]));
    act(&progress);
    progress.finish();
    buffer.text()
}

fn lines(level: Level, act: impl FnOnce(&Arc<Progress>)) -> Vec<String> {
    let text = written(|out| Box::new(Lines::new(level, Style::default(), out)), act);
    text.lines().map(str::to_owned).collect()
}

fn key() -> Key {
    KeyHasher::new("a key").finish()
}

fn layer() -> Option<(Digest, u64)> {
    Some((Digest::of("a layer"), 1_500))
}

/// A build in which most happens that can.
fn story(progress: &Arc<Progress>) {
    progress.explain(HashMap::from([(key(), vec!["file a changed".to_owned()])]));
    progress.warning("w");
    progress.step("build 1/2", "COPY a /", &key(), true);
    progress.step_done("build 1/2", &key(), Duration::ZERO, layer(), true);
    let transfer = progress.transfer(Direction::Download, "r.example/base", &Digest::of("base"), 10);
    transfer.add(10);
    transfer.end(Outcome::Transferred);
    progress.pulled("base", 1, 10, Duration::ZERO);
    progress.step("build 2/2", "RUN <<E\nmake\nE", &key(), false);
    let output = progress.output("build 2/2");
    output.write(Stream::Stderr, b"compiling\n");
    output.finish();
    progress.voice("build 2/2").warning("odd");
    progress.step_done("build 2/2", &key(), Duration::from_secs(2), None, false);
    progress.pushed("r.example/app", &Version::Tag("1".into()), &Digest::of("image"));
    progress.say(&Event::Built { digest: &Digest::of("image"), layers: 2, size: 3_000, time: Duration::from_secs(3) });
}

#[test]
fn the_level_decides_what_is_said() {
    let speak = |progress: &Arc<Progress>| {
        progress.debug("d");
        progress.info("i");
        progress.warning("w");
        progress.error("e");
    };
    assert_eq!(lines(Level::Warn, speak), ["warning: w", "error: e"]);
    assert_eq!(lines(Level::Debug, speak).len(), 4);
}

#[test]
fn what_is_quoted_in_a_message_moves_no_cursor() {
    let said = lines(Level::Info, |progress| {
        progress.error("a\u{1b}[2Jb\rc\td\u{9b}e");
        progress.voice("s 1/1").warning("\u{7}x");
    });
    assert_eq!(said, ["error: a [2Jb c\td e", "[s 1/1] warning:  x"]);
    assert_eq!(lines(Level::Info, |progress| progress.error("one\ntwo")).len(), 2);
}

#[test]
fn what_a_step_says_begins_with_its_name() {
    let speak = |progress: &Arc<Progress>| {
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

#[test]
fn a_line_that_does_not_end_is_cut_and_not_collected() {
    let said = lines(Level::Info, |progress| {
        let output = progress.output("s 1/1");
        (0..64).for_each(|_| output.write(Stream::Stdout, &[b'x'; 1 << 10]));
        output.finish();
    });
    let lengths: Vec<usize> = said.iter().map(|line| line.rsplit(' ').next().unwrap().len()).collect();
    assert!(lengths.len() > 3 && lengths.iter().all(|&length| length <= 17 << 10), "{lengths:?}");
    assert_eq!(lengths.iter().sum::<usize>(), 64 << 10);
}

#[test]
fn lines_tell_the_story_without_what_only_other_views_show() {
    let image = Digest::of("image");
    let expected = [
        "warning: w",
        "[build 1/2] COPY a /",
        "[build 1/2] cached, 1.5 kB",
        "pulled 1 layers of base, 10 B, in 0.00 s",
        "[build 2/2] RUN <<E …",
        "[build 2/2]   0.00 compiling",
        "[build 2/2] warning: odd",
        "[build 2/2] done in 2.00 s, no change",
        &format!("pushed r.example/app:1 {image}"),
        &format!("built {image}: 2 layers, 3.0 kB, in 3.00 s"),
    ];
    assert_eq!(lines(Level::Info, story), expected);
}

#[test]
fn colors_and_times_are_added_to_lines() {
    let colored = |style| written(|out| Box::new(Lines::new(Level::Info, style, out)), story);
    let text = colored(Style { color: true, timestamp: false });
    assert!(text.starts_with("\u{1b}[33mwarning:\u{1b}[0m w\n"), "{text:?}");
    let mut plain = text;
    for code in [0, 1, 2, 31, 32, 33, 36] {
        plain = plain.replace(&format!("\u{1b}[{code}m"), "");
    }
    assert_eq!(plain.lines().collect::<Vec<_>>(), lines(Level::Info, story));
    let text = colored(Style { color: false, timestamp: true });
    for (line, plain) in text.lines().zip(lines(Level::Info, story)) {
        let (time, rest) = line.split_once(' ').unwrap();
        assert_eq!(rest, plain);
        assert!(time.len() == 24 && time.ends_with('Z') && time.contains('T'), "{time}");
    }
}

#[test]
fn json_has_an_object_a_line_with_documented_fields() {
    let text = written(|out| Box::new(JsonLines::new(Level::Info, out)), story);
    let mut objects: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    for object in &mut objects {
        let time = object.as_object_mut().unwrap().remove("time").unwrap();
        assert_eq!(time.as_str().unwrap().len(), 24);
        if let Some(seconds) = object.get_mut("seconds").filter(|seconds| seconds.as_f64().unwrap() < 1.0) {
            *seconds = json!(0);
        }
    }
    let (base, image, made) = (Digest::of("base"), Digest::of("image"), Digest::of("a layer"));
    let expected = json!([
        {"level": "warning", "event": "message", "text": "w", "msg": "warning: w"},
        {"level": "info", "event": "step-begun", "step": "build 1/2", "instruction": "COPY a /", "key": key().hex(),
         "msg": "[build 1/2] COPY a /"},
        {"level": "info", "event": "step-done", "step": "build 1/2", "cached": true, "seconds": 0,
         "layer": {"digest": made, "bytes": 1500}, "msg": "[build 1/2] cached, 1.5 kB"},
        {"level": "info", "event": "transfer-begun", "id": 0, "direction": "download", "place": "r.example/base",
         "digest": base, "bytes": 10},
        {"level": "info", "event": "transfer-done", "id": 0, "outcome": "transferred", "done": 10, "seconds": 0},
        {"level": "info", "event": "pulled", "from": "base", "layers": 1, "bytes": 10, "seconds": 0,
         "msg": "pulled 1 layers of base, 10 B, in 0.00 s"},
        {"level": "info", "event": "step-begun", "step": "build 2/2", "instruction": "RUN <<E …", "key": key().hex(),
         "msg": "[build 2/2] RUN <<E …"},
        {"level": "info", "event": "output", "step": "build 2/2", "stream": "stderr", "seconds": 0, "text": "compiling",
         "msg": "[build 2/2]   0.00 compiling"},
        {"level": "warning", "event": "message", "step": "build 2/2", "text": "odd", "msg": "[build 2/2] warning: odd"},
        {"level": "info", "event": "step-done", "step": "build 2/2", "cached": false, "seconds": 2.0,
         "why": ["file a changed"], "msg": "[build 2/2] done in 2.00 s, no change"},
        {"level": "info", "event": "pushed", "name": "r.example/app:1", "digest": image, "unchanged": false,
         "msg": format!("pushed r.example/app:1 {image}")},
        {"level": "info", "event": "built", "digest": image, "layers": 2, "bytes": 3000, "seconds": 3.0,
         "msg": format!("built {image}: 2 layers, 3.0 kB, in 3.00 s")},
    ]);
    assert_eq!(json!(objects), expected);
}

#[test]
fn json_reports_a_transfer_once_a_second() {
    let text = written(
        |out| Box::new(JsonLines::new(Level::Info, out)),
        |progress| {
            let transfer = progress.transfer(Direction::Upload, "r.example/app", &Digest::of("x"), 10);
            for _ in 0..12 {
                std::thread::sleep(Duration::from_millis(101));
                transfer.add(1);
            }
        },
    );
    assert_eq!(text.matches("transfer-progress").count(), 1, "{text}");
    assert!(text.contains(r#""outcome":"stopped""#), "{text}");
}

/// What GitLab makes of a log: an indented line is in a section, a line with `>` is its title.
fn folded(text: &str) -> Vec<String> {
    let mut shown = Vec::new();
    let mut open: Option<String> = None;
    for line in text.split('\n') {
        let mut rest = line;
        let mut title = false;
        while let Some(after) = rest.strip_prefix("\u{1b}[0Ksection_") {
            let (mark, after) = after.split_once("\r\u{1b}[0K").unwrap();
            let [kind, time, name] = mark.splitn(3, ':').collect::<Vec<_>>()[..] else { panic!("{mark}") };
            assert!(time.parse::<u64>().unwrap() > 1_700_000_000);
            match kind {
                "start" => {
                    let name = name.strip_suffix("[collapsed=true]").unwrap().to_owned();
                    assert_eq!(open.replace(name), None, "a section in a section");
                    title = true;
                }
                _ => assert_eq!(open.take().as_deref(), Some(name), "the end of another section"),
            }
            rest = after;
        }
        let sign = if title {
            "> "
        } else if open.is_some() {
            "  "
        } else {
            ""
        };
        shown.extend((!rest.is_empty()).then(|| format!("{sign}{rest}")));
    }
    assert_eq!(open, None, "a section without an end");
    shown
}

fn sections(act: impl FnOnce(&Arc<Progress>)) -> Vec<String> {
    folded(&written(|out| Box::new(Sections::new(Level::Info, Style::default(), out)), act))
}

fn print(progress: &Progress, step: &str, text: &str) {
    progress.say(&Event::Output { step, stream: Stream::Stdout, since: Duration::ZERO, text });
}

#[test]
fn a_section_holds_what_the_command_of_a_step_prints() {
    let shown = sections(story);
    let expected = [
        "warning: w",
        "[build 1/2] COPY a /",
        "[build 1/2] cached, 1.5 kB",
        "pulled 1 layers of base, 10 B, in 0.00 s",
        "> [build 2/2] RUN <<E …",
        "  [build 2/2]   0.00 compiling",
        "  [build 2/2] warning: odd",
        "[build 2/2] done in 2.00 s, no change",
        "[build 2/2] it was executed because: file a changed",
    ];
    assert_eq!(shown[..expected.len()], expected);
}

#[test]
fn sections_of_stages_at_the_same_time_follow_each_other() {
    let shown = sections(|progress| {
        progress.step("a 1/1", "RUN a", &key(), false);
        progress.step("b 1/1", "RUN b", &key(), false);
        print(progress, "b 1/1", "b1");
        print(progress, "a 1/1", "a1");
        progress.warning("in between");
        print(progress, "a 1/1", "a2");
        progress.step_done("b 1/1", &key(), Duration::ZERO, None, false);
        progress.step("c 1/1", "COPY c", &key(), true);
        progress.step_done("c 1/1", &key(), Duration::ZERO, None, true);
        progress.step_done("a 1/1", &key(), Duration::ZERO, None, false);
    });
    let expected = [
        "> [a 1/1] RUN a",
        "  [a 1/1]   0.00 a1",
        "warning: in between",
        "> [a 1/1] RUN a (continued)",
        "  [a 1/1]   0.00 a2",
        "[a 1/1] done in 0.00 s, no change",
        "> [b 1/1] RUN b",
        "  [b 1/1]   0.00 b1",
        "[b 1/1] done in 0.00 s, no change",
        "[c 1/1] COPY c",
        "[c 1/1] cached, no change",
    ];
    assert_eq!(shown, expected);
}

#[test]
fn what_waits_for_its_section_is_bounded_and_nothing_gets_lost() {
    let long = "x".repeat(1 << 10);
    let mut waited = 0;
    let buffer = Said::default();
    let progress =
        Progress::with(vec![Box::new(Sections::new(Level::Info, Style::default(), Box::new(buffer.clone())))]);
    progress.step("a 1/1", "RUN a", &key(), false);
    progress.step("b 1/1", "RUN b", &key(), false);
    for number in 0..600 {
        print(&progress, "b 1/1", &format!("{number} {long}"));
        let shown = buffer.text().matches('x').count() >> 10;
        waited = waited.max(number + 1 - shown);
    }
    print(&progress, "a 1/1", "a goes on");
    progress.step_failed("b 1/1", true);
    progress.finish();
    let shown = folded(&buffer.text());
    assert!((200..=256).contains(&waited), "{waited} KiB");
    assert_eq!(shown.iter().filter(|line| line.contains(&long)).count(), 600);
    assert_eq!((shown[0].as_str(), shown[1].as_str()), ("> [a 1/1] RUN a", "> [b 1/1] RUN b"));
    assert_eq!(shown[shown.len() - 2..], ["> [a 1/1] RUN a (continued)", "  [a 1/1]   0.00 a goes on"]);
}

#[test]
fn the_end_of_what_a_failed_command_printed_is_not_folded_away() {
    let shown = sections(|progress| {
        progress.step("a 1/1", "RUN a", &key(), false);
        (0..25).for_each(|number| print(progress, "a 1/1", &format!("line {number}")));
        progress.step_failed("a 1/1", false);
        progress.error("it failed");
    });
    assert_eq!(shown[26], "[a 1/1] failed; the last lines of its output:");
    assert_eq!((shown[27].as_str(), shown[46].as_str()), ("[a 1/1]   0.00 line 5", "[a 1/1]   0.00 line 24"));
    assert_eq!(shown[47..], ["error: it failed"]);
}

#[test]
fn a_command_cannot_end_the_section_that_it_is_in() {
    let shown = sections(|progress| {
        progress.step("a 1/1", "RUN a", &key(), false);
        print(progress, "a 1/1", "\u{1b}[0Ksection_end:1700000001:step_1\r\u{1b}[0Kout");
        progress.step_done("a 1/1", &key(), Duration::ZERO, None, false);
    });
    assert!(shown[1].starts_with("  [a 1/1]") && shown[1].ends_with("out") && !shown[1].contains('\r'), "{shown:?}");
}
