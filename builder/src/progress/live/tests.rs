//! What a person sees on a terminal.

use indicatif::{InMemoryTerm, TermLike};
use yadokari_layers::{Digest, KeyHasher};

use super::*;
use crate::progress::{Direction, Outcome, Progress};
use crate::sandbox::Stream;

fn terminal() -> (InMemoryTerm, Progress) {
    let terminal = InMemoryTerm::new(12, 60);
    let target = ProgressDrawTarget::term_like(Box::new(terminal.clone()));
    let style = Style::default();
    let lines = Lines::new(Level::Info, style, Box::new(Lower(terminal.clone())));
    let live = Live::on(Level::Info, style, target, Box::new(|| (12, 60)), lines);
    (terminal, Progress::with(vec![Box::new(live)]))
}

/// The same terminal, for what is written without drawing.
struct Lower(InMemoryTerm);

impl std::io::Write for Lower {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        let text = String::from_utf8_lossy(bytes).replace('\n', "\r\n");
        self.0.write_str(&text)?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// Waits until the terminal shows a text, and gives all that it shows.
fn shown(terminal: &InMemoryTerm, text: &str) -> String {
    for _ in 0..100 {
        if terminal.contents().contains(text) {
            return terminal.contents();
        }
        std::thread::sleep(PERIOD);
    }
    panic!("no '{text}' on:\n{}", terminal.contents())
}

#[test]
fn steps_move_at_the_bottom_and_scroll_away_when_they_are_done() {
    let (terminal, progress) = terminal();
    let progress = Arc::new(progress);
    let key = KeyHasher::new("key").finish();
    progress.step("build 1/2", "COPY . /src", &key, true);
    progress.step_done("build 1/2", &key, Duration::ZERO, Some((Digest::of("x"), 1_500)), true);
    progress.step("build 2/2", "RUN make", &key, false);
    let output = progress.output("build 2/2");
    output.write(Stream::Stdout, b"cc a.c\n\x1b[31mcc\x1b[2A b.c\x1b[0m\n");
    let transfer = progress.transfer(Direction::Upload, "r.example/app", &Digest::of("x"), 20);
    std::thread::sleep(PERIOD + PERIOD);
    transfer.add(10);
    let text = shown(&terminal, "50 %");
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines[0], "= [build 1/2] COPY . /src: cached, 1.5 kB");
    assert!(lines[2].ends_with(" s  [build 2/2] RUN make"), "{text}");
    assert_eq!((lines[1], lines[3].trim()), ("", "cc b.c"));
    assert!(lines[4].starts_with(" ↑ ━━━━━━━━━━━━────────────  50 %  10 B of 20 B"), "{text}");
    assert!(lines[5].contains("building: 1 running, 0 executed, 1 cached"), "{text}");
    transfer.end(Outcome::Transferred);
    progress.step_done("build 2/2", &key, Duration::from_secs(2), None, false);
    progress.warning("odd");
    progress.finish();
    progress.error("after the end");
    let expected = [
        "= [build 1/2] COPY . /src: cached, 1.5 kB",
        "✓ [build 2/2] RUN make: 2.00 s, no change",
        "warning: odd",
        "error: after the end",
    ];
    assert_eq!(terminal.contents().lines().collect::<Vec<_>>(), expected);
}

#[test]
fn a_failed_step_leaves_the_end_of_its_output() {
    let (terminal, progress) = terminal();
    let key = KeyHasher::new("key").finish();
    progress.step("a 1/1", "RUN make", &key, false);
    progress.step("b 1/1", "RUN wait", &key, false);
    progress.output("a 1/1").write(Stream::Stderr, b"no rule\n");
    progress.output("b 1/1").write(Stream::Stderr, b"waited\n");
    progress.step_failed("a 1/1", false);
    progress.step_failed("b 1/1", true);
    progress.finish();
    let text = terminal.contents();
    let lines: Vec<&str> = text.lines().collect();
    assert!(lines[0].starts_with("✗ [a 1/1] RUN make: failed after 0."), "{text}");
    assert_eq!(lines[1], "    no rule");
    assert!(lines[2].starts_with("✗ [b 1/1] RUN wait: stopped after 0."), "{text}");
    assert_eq!(lines.len(), 3);
}
