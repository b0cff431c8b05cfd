//! The page, read as a browser would.

use std::collections::{BTreeSet, HashMap};

use yadokari_layers::{Entry, IndexBuilder, KeyHasher, RelPath, Timestamp};
use yadokari_registry::Version;

use super::*;
use crate::progress::{Directories, Progress};
use crate::sandbox::Stream;

const HOSTILE: &str = "<script>alert(1)</script>\"' onload='x' &amp; \u{1b}[2J]]>";

/// The page about a build.
fn page(act: impl FnOnce(&Arc<Progress>)) -> String {
    let report = Report::default();
    act(&Arc::new(Progress::with(vec![Box::new(report.clone())])));
    report.page()
}

fn contents(file: &str) -> LayerContents {
    let mut builder = IndexBuilder::new();
    builder.put(RelPath::new(file).unwrap(), Entry::file(10, 0o644, Timestamp::from_secs(0)), None);
    LayerContents { digest: Digest::of(file), size: 10, directories: Some(Directories::of(&builder.finish())) }
}

/// A build whose every text is `word`.
fn story(progress: &Arc<Progress>, word: &str) {
    let key = KeyHasher::new("key").finish();
    let digest = Digest::of("image");
    progress.explain(HashMap::from([(key, vec![word.to_owned(), word.to_owned()])]));
    progress.step(&format!("{word} 1/2"), word, &key, true);
    progress.step_done(&format!("{word} 1/2"), &key, Duration::ZERO, Some((digest, 5)), true);
    progress.step(&format!("{word} 2/2"), word, &key, false);
    progress.step_done(&format!("{word} 2/2"), &key, Duration::ZERO, None, false);
    progress.step("other 1/1", word, &key, false);
    let output = progress.output("other 1/1");
    output.write(Stream::Stdout, word.as_bytes());
    output.finish();
    progress.step_failed("other 1/1", false);
    let transfer = progress.transfer(Direction::Download, word, &digest, 10);
    transfer.add(10);
    transfer.end(Outcome::Transferred);
    progress.transfer(Direction::Upload, word, &digest, 10).end(Outcome::Linked);
    progress.downloaded(word, 10, Duration::ZERO);
    progress.checked_out(word, word, Duration::ZERO);
    progress.warning(word);
    progress.error(word);
    progress.image(&digest, &[contents(&format!("{}/b", word.replace('/', ""))), contents("c")]);
    progress.pushed(word, &Version::Tag(word.into()), &digest);
    progress.unchanged("second", &Version::Tag("1".into()), &digest);
    progress.summary(&digest, 2, 20);
}

/// The names of all elements. Each that is opened is closed, in order; all values are in quotes.
fn elements(page: &str) -> BTreeSet<&str> {
    const EMPTY: [&str; 2] = ["meta", "!doctype"];
    let mut seen = BTreeSet::new();
    let mut open: Vec<&str> = Vec::new();
    for part in page.split('<').skip(1) {
        let (tag, text) = part.split_once('>').unwrap_or_else(|| panic!("no end: {part}"));
        assert!(!text.contains('>') || open.last() == Some(&"style") || tag.starts_with("style"), "{part}");
        if let Some(name) = tag.strip_prefix('/') {
            assert_eq!(open.pop(), Some(name), "{part}");
            continue;
        }
        let name = tag.split([' ', '/']).next().unwrap();
        assert_eq!(tag.matches('"').count() % 2, 0, "{part}");
        let outside: String = tag.split('"').step_by(2).collect();
        assert!(!outside.contains('\''), "{part}");
        seen.insert(name);
        if !EMPTY.contains(&name) && !tag.ends_with('/') {
            open.push(name);
        }
    }
    assert!(open.is_empty(), "{open:?}");
    seen
}

#[test]
fn what_strangers_wrote_is_text_wherever_it_stands() {
    let plain = page(|progress| story(progress, "word"));
    let hostile = page(|progress| story(progress, HOSTILE));
    assert_eq!(elements(&hostile), elements(&plain));
    assert!(!elements(&plain).contains("script"));
    let escaped = html::Text(HOSTILE).to_string();
    let shown = |page: &str, text: &str| page.matches(text).count();
    assert_eq!(shown(&hostile, "alert(1)"), shown(&hostile, "&lt;script&gt;alert(1)"), "{escaped}");
    assert!(shown(&hostile, &escaped) >= 20, "{hostile}");
    assert!(!hostile.contains('\u{1b}'));
}

#[test]
fn the_page_needs_nothing_but_itself() {
    let page = page(|progress| story(progress, "word"));
    for word in ["http:", "https:", "url(", "@import", "src=", "href=", "<script", "<link"] {
        assert!(!page.contains(word), "{word}");
    }
    assert!(page.contains("content=\"default-src 'none'; style-src 'unsafe-inline'\""));
}

#[test]
fn the_page_says_what_was_cached_why_not_and_what_layers_hold() {
    let page = page(|progress| {
        let key = KeyHasher::new("key").finish();
        progress.explain(HashMap::from([(key, vec!["file main.c changed".to_owned()])]));
        progress.step("build 1/1", "RUN make", &key, false);
        let made = contents("usr/bin/program");
        progress.step_done("build 1/1", &key, Duration::ZERO, Some((made.digest, 10)), false);
        let unknown = LayerContents { digest: Digest::of("base"), size: 7, directories: None };
        progress.image(&Digest::of("image"), &[unknown, made]);
        progress.pushed("r.example/app", &Version::Tag("1".into()), &Digest::of("image"));
        progress.summary(&Digest::of("image"), 2, 17);
    });
    for text in [
        "<title>Built r.example/app:1</title>",
        &Digest::of("image").to_string(),
        "<dd>17 B in 2 layers</dd>",
        "<dd>1 executed, 0 cached</dd>",
        "<dt>Peak memory of the builder</dt>",
        "<td>file main.c changed</td>",
        "<span class=\"dim\">of the base image</span>",
        "This build had no need to look into the layer.",
        "<b>build 1/1</b> <code>RUN make</code>",
        "<code>/usr/bin</code>",
        "<p>1 files, 10 B unpacked</p>",
        "Stage build",
    ] {
        assert!(page.contains(text), "{text}: {page}");
    }
}

#[test]
fn the_page_of_a_failed_build_has_the_last_words() {
    let page = page(|progress| {
        progress.step("a 1/1", "RUN false", &KeyHasher::new("key").finish(), false);
        let output = progress.output("a 1/1");
        (0..40).for_each(|number| output.write(Stream::Stdout, format!("line {number};\n").as_bytes()));
        progress.step_failed("a 1/1", false);
        progress.error("RUN false: exit code 1");
    });
    assert!(page.contains("<h1 class=\"bad\"><span class=\"sign\">✗</span> The build failed</h1>"), "{page}");
    assert!(page.contains("<pre class=\"bad\">error: RUN false: exit code 1</pre>"));
    assert!(page.contains("line 39;") && page.contains("line 10;") && !page.contains("line 9;"));
}

#[test]
fn a_page_has_room_for_so_much() {
    let page = page(|progress| (0..MOST + 5).for_each(|number| progress.warning(&format!("warning {number};"))));
    assert!(page.contains("warning 1999;") && !page.contains("warning 2000;"));
    assert!(page.contains("<p class=\"dim\">5 more things happened than fit here.</p>"));
}

#[test]
fn the_peak_of_memory_is_the_kernels_number() {
    let directory = tempfile::tempdir().unwrap();
    let status = directory.path().join("status");
    std::fs::write(&status, "Name:\tx\nVmPeak:\t  99 kB\nVmHWM:\t    4096 kB\nVmRSS:\t 1 kB\n").unwrap();
    assert_eq!(peak_memory(&status), Some(4 << 20));
    std::fs::write(&status, "Name:\tx\n").unwrap();
    assert_eq!(peak_memory(&status), None);
}
