use std::io::{Cursor, Write as _};

use proptest::prelude::*;

use super::*;
use crate::apply::apply_tar;
use crate::testing::{Hostile, is_root, listing, source, temp};
use crate::{Arrival, Mismatch, VerifiedReader, tar};

/// Fills a directory with layers, of which `known` says whether the index is known.
fn fill(layers: &[Vec<u8>], known: impl Fn(usize) -> bool) -> Result<(Vec<String>, Materialised)> {
    let (_dir, root) = temp();
    let sources = layers.iter().enumerate().map(|(number, layer)| source(layer, known(number)));
    let materialised = materialise(&root, sources.collect())?;
    Ok((listing(&root, true), materialised))
}

/// Fills a directory with layers that come in small pieces.
fn fill_as_they_come(layers: &[Vec<u8>]) -> (Vec<String>, Materialised) {
    let (_dir, root) = temp();
    let materialised = std::thread::scope(|scope| {
        let sources = layers.iter().map(|layer| {
            let file = tempfile::tempfile().unwrap();
            let (mut arrival, arriving) = Arrival::begin(file, layer.len() as u64).unwrap();
            scope.spawn(move || layer.chunks(700).for_each(|piece| arrival.write_all(piece).unwrap()));
            Source { blob: Box::new(arriving), ..source(layer, false) }
        });
        materialise(&root, sources.collect()).unwrap()
    });
    (listing(&root, true), materialised)
}

/// Materialising at once, with indexes or without, of what is there or comes meanwhile, makes what putting one layer after the other makes.
fn check(name: &str, layers: Vec<Hostile>) -> Vec<String> {
    let layers: Vec<Vec<u8>> = layers.into_iter().map(Hostile::end).collect();
    let (_b, one_by_one) = temp();
    layers.iter().for_each(|layer| _ = apply_tar(&layer[..], &Limits::NONE, &one_by_one).unwrap());
    let lines = listing(&one_by_one, true);
    assert_eq!(fill_as_they_come(&layers).0, lines, "{name}, as they come");
    for (known, which) in [(0, "none known"), (1, "every other known"), (2, "all known")] {
        let (found, materialised) = fill(&layers, |number| (number + known) % 2 == 1 || known == 2).unwrap();
        assert_eq!(found, lines, "{name}, {which}");
        for (index, layer) in materialised.tree.layers().iter().zip(&layers) {
            assert_eq!(**index, tar::index(&layer[..]).unwrap(), "{name}, {which}");
        }
    }
    lines
}

#[test]
fn at_once_and_one_by_one_are_the_same() {
    let new = Hostile::default;
    if !is_root("materialise") {
        return;
    }
    check("nothing", vec![]);
    check(
        "every kind",
        vec![
            new()
                .dir("d")
                .file("d/f", "x")
                .symlink("d/l", "f")
                .hardlink("h", "d/f")
                .entry(b'6', b"p", b"", b"")
                .entry(b'3', b"null", b"", b"")
                .dir("d/empty"),
        ],
    );
    check(
        "replaced and deleted",
        vec![
            new().dir("a").file("a/x", "1").file("a/y", "1").dir("b").file("b/x", "1").file("c", "1"),
            new().dir("a").file("a/x", "2").file("a/.wh.y", "").file("b", "file").dir("c").file("c/x", "2"),
            new().file(".wh.a", "").file("b", "again"),
        ],
    );
    check(
        "opaque and recreated",
        vec![
            new().dir("a").file("a/x", "1").dir("b").file("b/x", "1"),
            new().dir("a").file("a/.wh..wh..opq", "").file("a/y", "2").file(".wh.b", "").dir("b").file("b/y", "2"),
        ],
    );
    check(
        "merged usr",
        vec![
            new().dir("usr").dir("usr/lib").symlink("lib", "usr/lib").file("usr/lib/a", "1"),
            new().file("lib/b", "2").file("lib/.wh.a", "").dir("lib/c"),
        ],
    );
    check(
        "merged usr in one layer",
        vec![new().dir("usr").dir("usr/lib").symlink("lib", "usr/lib").file("lib/a", "1").hardlink("lib/b", "lib/a")],
    );
    check("named twice", vec![new().file("a", "first").file("b", "x").file("a", "second").symlink("b", "a")]);
    check("directory, file, directory", vec![new().dir("a").file("a/x", "").file("a", "f").dir("a").file("a/y", "")]);
    check(
        "links to a target that is shadowed",
        vec![new().file("a", "content").hardlink("b", "a").hardlink("c", "b"), new().file(".wh.a", "")],
    );
    check(
        "links to a target that is replaced",
        vec![new().file("a", "content").hardlink("b", "a"), new().file("a", "other")],
    );
    check(
        "links to a lower layer",
        vec![
            new().dir("d").file("d/a", "content"),
            new().hardlink("b", "d/a"),
            new().hardlink("c", "b").file("d/.wh.a", ""),
        ],
    );
    check("links before their file in the order of names", vec![new().file("z", "content").hardlink("a", "z")]);
    check(
        "a link of which the file is shadowed, and one of which it is not",
        vec![new().file("a", "content").hardlink("b", "a"), new().file("z", "").file(".wh.b", "").hardlink("c", "z")],
    );
    check(
        "a link where a directory was, and a directory where a link was",
        vec![
            new().dir("a").file("a/x", "1").dir("real").symlink("b", "real"),
            new().symlink("a", "real").dir("b").file("b/y", "2"),
        ],
    );
    check(
        "deleted twice",
        vec![new().dir("a").file("a/x", "1"), new().file(".wh.a", ""), new().dir("a").file("a/y", "")],
    );
    check(
        "everything is hidden",
        vec![new().dir("a").file("a/x", "1").file("b", "1"), new().file(".wh..wh..opq", "").file("c", "2")],
    );
}

/// Names that meet each other often, and all kinds.
fn item() -> impl Strategy<Value = (u8, String, String)> {
    let name = || "[abl](/[abl]){0,2}";
    (0..8_u8, name(), name())
}

fn built(items: &[(u8, String, String)]) -> Vec<u8> {
    let add = |tar: Hostile, (kind, name, other): &(u8, String, String)| match kind {
        0 => tar.symlink(name, &format!("/{other}")),
        1 => tar.hardlink(name, other),
        2 | 3 => tar.dir(name),
        4 => {
            let (above, last) = name.rsplit_once('/').map_or(("", &name[..]), |(above, last)| (above, last));
            tar.file(&format!("{above}/.wh.{last}"), "")
        }
        5 => tar.file(&format!("{name}/.wh..wh..opq"), ""),
        _ => tar.file(name, other),
    };
    items.iter().fold(Hostile::default(), add).end()
}

/// Directories that no layer states have a time of their own.
fn untimed(lines: Vec<String>) -> Vec<String> {
    lines.iter().map(|line| line.split(" @").next().unwrap_or_default().to_owned()).collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]

    #[test]
    fn what_is_found_on_the_way_is_what_would_be_planned(
        stack in prop::collection::vec(prop::collection::vec(item(), 0..7), 1..4),
        known in 0..8_u8,
    ) {
        let layers: Vec<Vec<u8>> = stack.iter().map(|items| built(items)).collect();
        // What no index tells the truth of is no layer.
        if layers.iter().all(|layer| tar::index(&layer[..]).is_ok()) {
            let strip = |(lines, filled): (Vec<String>, Materialised)| (untimed(lines), filled.tree.layers().to_vec());
            let planned = fill(&layers, |_| true).map(strip).ok();
            let found = fill(&layers, |number| known >> number & 1 == 1).map(strip).ok();
            prop_assert_eq!(found, planned);
        }
    }

    #[test]
    fn without_symbolic_links_it_is_what_one_layer_after_the_other_makes(
        stack in prop::collection::vec(prop::collection::vec(item(), 0..7), 1..4),
    ) {
        let layers: Vec<Vec<u8>> =
            stack.iter().map(|items| built(&items.iter().filter(|item| item.0 != 0).cloned().collect::<Vec<_>>())).collect();
        let is_layer = layers.iter().all(|layer| tar::index(&layer[..]).is_ok());
        if let Some((lines, _)) = is_layer.then(|| fill(&layers, |_| false).ok()).flatten() {
            let (_dir, root) = temp();
            let applied = layers.iter().try_for_each(|layer| apply_tar(&layer[..], &Limits::NONE, &root).map(drop));
            if applied.is_ok() {
                let (lines, applied) = (untimed(lines), untimed(listing(&root, true)));
                let is_implied = |line: &&String| line.ends_with("755 0:0 Directory");
                let more = |a: &[String], b: &[String]| a.iter().filter(|line| !b.contains(line)).cloned().collect::<Vec<_>>();
                prop_assert_eq!(more(&lines, &applied), Vec::<String>::new());
                // Directories that were implied by what is gone are there no more.
                prop_assert!(more(&applied, &lines).iter().all(|line| is_implied(&line)), "{lines:?} {applied:?}");
            }
        }
    }
}

#[test]
fn what_lies_below_a_file_is_refused() {
    let layers = [Hostile::default().file("a", "").end(), Hostile::default().file("a/b/c", "").end()];
    for known in [false, true] {
        let error = fill(&layers, |_| known).unwrap_err();
        assert!(error.to_string().contains("'a/b/c'"), "{error}");
    }
}

#[test]
fn directories_that_no_layer_states_are_made() {
    if !is_root("owners") {
        return;
    }
    let layer = Hostile::default().file("a/b/c", "x").end();
    for is_known in [false, true] {
        let (lines, _) = fill(std::slice::from_ref(&layer), |_| is_known).unwrap();
        assert!(lines[0].starts_with("a 755 0:0"), "{lines:?}");
    }
}

#[test]
fn compressed_layers_are_read() {
    if !is_root("owners") {
        return;
    }
    use std::io::Write;
    let layer = Hostile::default().file("f", "content").end();
    for compression in [crate::Compression::Gzip, crate::Compression::Zstd] {
        let mut encoder = crate::compress::Encoder::new(compression, None, Vec::new()).unwrap();
        encoder.write_all(&layer).unwrap();
        let blob = encoder.finish().unwrap();
        for is_known in [false, true] {
            let (_dir, root) = temp();
            let blob = Box::new(Cursor::new(blob.clone()));
            materialise(&root, vec![Source { blob, ..source(&layer, is_known) }]).unwrap();
            assert_eq!(listing(&root, false).len(), 1);
        }
    }
}

#[test]
fn large_files_are_whole() {
    if !is_root("owners") {
        return;
    }
    let size = 3_000_000;
    let content: String = (0..size).map(|at| char::from(b'a' + (at % 23) as u8)).collect();
    let layers = [Hostile::default().file("a", &content).file("b", &content[1..]).file("c", "").end()];
    for is_known in [false, true] {
        let (dir, root) = temp();
        materialise(&root, vec![source(&layers[0], is_known)]).unwrap();
        let read = |name: &str| std::fs::read_to_string(dir.path().join(name)).unwrap();
        assert!(read("a") == content && read("b") == content[1..] && read("c").is_empty());
    }
}

#[test]
fn a_layer_that_is_not_the_index_is_an_error() {
    if !is_root("owners") {
        return;
    }
    let stated = Hostile::default().file("a", "x").file("b", "x").end();
    let unknown = Hostile::default().file("c", "x").end();
    for other in [Hostile::default().file("a", "x"), Hostile::default().file("a", "x").dir("b"), Hostile::default()] {
        let other = other.end();
        let (_dir, root) = temp();
        let wrong = || Source { blob: Box::new(Cursor::new(other.clone())), ..source(&stated, true) };
        let error = materialise(&root, vec![wrong()]).unwrap_err();
        assert!(error.to_string().contains("index"), "{error}");
        let error = materialise(&root, vec![wrong(), source(&unknown, false)]).unwrap_err();
        assert!(error.to_string().contains("index"), "{error}");
    }
}

#[test]
fn a_layer_with_another_diff_id_is_refused() {
    let layers = [Hostile::default().file("a", "x").end(), Hostile::default().file("b", "x").end()];
    let (_dir, root) = temp();
    let wrong = Source { diff_id: Digest::of("other"), ..source(&layers[0], false) };
    let error = materialise(&root, vec![wrong, source(&layers[1], false)]).unwrap_err();
    assert!(matches!(error, Error::DiffId { found, .. } if found == Digest::of(&layers[0])), "{error:?}");
}

/// A blob that is verified while it is read, or gives up in its midst.
struct Broken<R>(R);

impl<R: Read> Read for Broken<R> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        self.0.read(buffer)
    }
}

impl<R> Seek for Broken<R> {
    fn seek(&mut self, _: std::io::SeekFrom) -> std::io::Result<u64> {
        Ok(0)
    }
}

#[test]
fn a_blob_that_is_another_is_an_error_of_its_own() {
    let layer = Hostile::default().file("a", "x").end();
    for is_known in [false, true] {
        let blob = VerifiedReader::new(Cursor::new(layer.clone()), Digest::of("other"), None);
        let (_dir, root) = temp();
        let source = Source { blob: Box::new(Broken(blob)), ..source(&layer, is_known) };
        let error = materialise(&root, vec![source]).unwrap_err();
        assert!(matches!(error, Error::Mismatch(Mismatch::Digest { .. })), "{error:?}");
    }
}

#[test]
fn a_blob_that_ends_early_is_an_error_that_is_not_a_writers() {
    let content = "x".repeat(2_000_000);
    let layer = Hostile::default().file("small", "x").file("large", &content).end();
    let (_dir, root) = temp();
    let blob = Box::new(Cursor::new(layer[..1_000_000].to_vec()));
    let error = materialise(&root, vec![Source { blob, ..source(&layer, false) }]).unwrap_err();
    assert!(matches!(error.cause(), Error::Path { operation: "read content of", .. }), "{error:?}");
}

#[test]
fn a_writer_that_fails_ends_everything() {
    let mut layer = Hostile::default();
    for number in 0..2_000 {
        layer = layer.file(&format!("{number}"), "x");
    }
    // Nothing can be made in a directory that was removed.
    let (dir, root) = temp();
    std::fs::remove_dir(dir.path()).unwrap();
    let error = materialise(&root, vec![source(&layer.end(), false)]).unwrap_err();
    assert!(matches!(error.cause(), Error::Path { operation: "create", .. }), "{error:?}");
}

#[test]
fn a_link_to_nothing_is_refused() {
    let layer = Hostile::default().hardlink("a", "absent").end();
    for is_known in [false, true] {
        let (_dir, root) = temp();
        let error = materialise(&root, vec![source(&layer, is_known)]).unwrap_err();
        assert!(error.to_string().contains("'a'"), "{error}");
    }
}
