//! Layers that mean no good, in every way in which a layer reaches a root.

use std::fs;
use std::io::{Cursor, Write as _};
use std::path::Path;
use std::sync::Arc;

use crate::apply::apply_tar;
use crate::materialise::{self, Source, materialise};
use crate::testing::{Hostile, is_root, listing, path, source};
use crate::{Digest, Error, Limits, Result, Root, Tree, tar};

/// What every root lies beside.
const CANARY: &str = "canary";

/// A new root, and beside it a file that nothing may touch.
fn beside_canary() -> (tempfile::TempDir, Root) {
    let directory = tempfile::tempdir().unwrap();
    fs::write(directory.path().join(CANARY), "kept").unwrap();
    fs::create_dir(directory.path().join("root")).unwrap();
    let root = Root::open(&directory.path().join("root")).unwrap();
    (directory, root)
}

fn check_canary(name: &str, directory: &Path) {
    use std::os::unix::fs::MetadataExt as _;
    let canary = directory.join(CANARY);
    assert_eq!(fs::read_to_string(&canary).unwrap(), "kept", "{name}");
    assert_eq!(fs::metadata(&canary).unwrap().nlink(), 1, "{name}");
    assert_eq!(fs::read_dir(directory).unwrap().count(), 2, "{name}");
}

/// What fills a root.
type Fill<'a> = &'a dyn Fn(&Root) -> Result<Option<Tree>>;

/// What a way to fill a root makes of it: its files, and what the tree says of them.
fn made(name: &str, fill: Fill<'_>) -> Result<Vec<String>, String> {
    let (directory, root) = beside_canary();
    let filled = fill(&root);
    check_canary(name, directory.path());
    let tree = filled.map_err(|error| error.to_string())?;
    let lines: Vec<String> = listing(&root, false).iter().map(|line| without_time(line)).collect();
    for (path, found) in tree.iter().flat_map(Tree::iter) {
        let there = root.entry(path).unwrap().unwrap_or_else(|| panic!("{name}: no '{path}', which the tree has"));
        assert_eq!(there.is_directory(), found.entry.is_directory(), "{name}: {path}");
        assert_eq!((there.mode & 0o7000, there.uid), (found.entry.mode & 0o7000, found.entry.uid), "{name}: {path}");
    }
    Ok(lines)
}

fn without_time(line: &str) -> String {
    line.trim_end_matches(" {}").to_owned()
}

/// Fills roots in all ways, which must come to the same, and returns what that is: the lines of the root, or the error.
fn fate(name: &str, layers: Vec<Hostile>) -> Result<Vec<String>, String> {
    let layers: Vec<Vec<u8>> = layers.into_iter().map(Hostile::end).collect();
    let all = |is_known: bool| -> Vec<Source<'_>> { layers.iter().map(|layer| source(layer, is_known)).collect() };
    let found = made(name, &|root| Ok(Some(materialise(root, all(false))?.tree)));
    let indexed = |layer: &Vec<u8>| {
        let digest = Digest::of(layer);
        materialise::index(&mut Cursor::new(layer), digest, digest, &Limits::default())
    };
    match layers.iter().try_for_each(|layer| indexed(layer).map(drop)) {
        // What is refused is refused alike, whoever reads it.
        Err(error) => assert_eq!(found, Err(error.to_string()), "{name}"),
        Ok(()) => {
            let known = made(name, &|root| Ok(Some(materialise(root, all(true))?.tree)));
            assert_eq!(found, known, "{name}");
        }
    }
    let applied = made(name, &|root| {
        layers.iter().try_for_each(|layer| apply_tar(&layer[..], &Limits::default(), root).map(drop))?;
        Ok(None)
    });
    if let (Ok(found), Ok(applied)) = (&found, &applied) {
        assert_eq!(found, applied, "{name}");
    }
    if let Err(error) = &found {
        let digests = layers.iter().map(|layer| format!("layer {}", Digest::of(layer)));
        assert!(digests.into_iter().any(|digest| error.starts_with(&digest)), "{name}: {error}");
    }
    found
}

fn refused(name: &str, layers: Vec<Hostile>, words: &str) {
    let error = fate(name, layers).expect_err(name);
    assert!(error.contains(words), "{name}: {error}");
}

fn holds(name: &str, layers: Vec<Hostile>, expected: &[&str]) {
    let lines = fate(name, layers).unwrap_or_else(|error| panic!("{name}: {error}"));
    for expected in expected {
        let absent = expected.strip_prefix('-');
        let is_there = |name: &str| lines.iter().any(|line| line.starts_with(name));
        assert_eq!(is_there(absent.unwrap_or(expected)), absent.is_none(), "{name}: {expected}: {lines:?}");
    }
}

fn new() -> Hostile {
    Hostile::default()
}

#[test]
fn names_and_links_that_lead_out_stay_in_the_root_or_are_refused() {
    if !is_root("hostile names") {
        return;
    }
    refused("climbs", vec![new().file("../canary", "x")], "entry '../canary': climbs");
    refused("climbs later", vec![new().dir("a").file("a/../../canary", "x")], "entry 'a/../../canary'");
    refused("climbs in an extended header", vec![new().pax(&["path=../canary"]).file("a", "x")], "entry '../canary'");
    holds("absolute", vec![new().file("/canary", "x")], &["canary "]);
    holds("behind a link upwards", vec![new().symlink("l", "..").file("l/canary", "x")], &["canary 644", "l "]);
    holds("behind an absolute link", vec![new().symlink("l", "/").file("l/canary", "x")], &["canary 644"]);
    holds(
        "behind a chain of links",
        vec![new().symlink("a", "b").symlink("b", "c").symlink("c", "../../..").file("a/canary", "x")],
        &["canary 644"],
    );
    holds("onto a link", vec![new().symlink("l", "../canary").file("l", "x")], &["l 644 0:0 \"x\""]);
    holds(
        "a directory becomes a link, and is written through",
        vec![new().dir("d").file("d/a", "").symlink("d", "..").file("d/canary", "x")],
        &["canary 644", "-d/"],
    );
    holds(
        "the same in three layers",
        vec![new().dir("d"), new().symlink("d", ".."), new().file("d/canary", "x")],
        &["canary 644", "d 777"],
    );
    refused("a loop", vec![new().symlink("a", "b").symlink("b", "a").file("a/x", "")], "a/x'");
    refused("a loop with itself", vec![new().symlink("a", "a"), new().file("a/x", "")], "a/x'");
    refused(
        "a name behind a link that is no directory",
        vec![new().file("f", "").symlink("l", "f").file("l/x", "")],
        "x'",
    );
    holds("a dot in place of a name", vec![new().file("./././a", "")], &["a "]);
}

#[test]
fn hard_links_reach_nothing_outside_and_no_directory() {
    if !is_root("hostile hard links") {
        return;
    }
    refused("climbs", vec![new().hardlink("h", "../canary")], "entry 'h': links to a path that climbs out");
    refused(
        "absolute",
        vec![new().hardlink("h", "/canary")],
        "entry 'h': is a hard link to a file that no layer holds",
    );
    refused("missing", vec![new().hardlink("h", "none")], "entry 'h': is a hard link to a file that no layer holds");
    refused("through a link", vec![new().symlink("l", "..").hardlink("h", "l/canary")], "entry 'h'");
    refused("to a directory", vec![new().dir("d").hardlink("h", "d")], "entry 'h': is a hard link to a directory");
    refused("to a directory below", vec![new().dir("d"), new().hardlink("h", "d")], "entry 'h'");
    refused("to itself", vec![new().hardlink("h", "./h")], "entry 'h': is a hard link to no file");
    refused("to each other", vec![new().hardlink("a", "b").hardlink("b", "a")], "is a hard link to");
    holds(
        "to a symbolic link, which is then replaced",
        vec![new().symlink("s", "../canary").hardlink("h", "s"), new().file("h", "x")],
        &["h 644 0:0 \"x\"", "s 777 0:0 -> ../canary"],
    );
    holds(
        "to what was deleted",
        vec![new().file("a", "1"), new().hardlink("h", "a").file(".wh.a", "")],
        &["h ", "-a "],
    );
    // Later entries count for the index, and the order of a tar for whoever applies one: that may refuse it.
    holds("to a later entry", vec![new().hardlink("h", "z").file("z", "1")], &["h 644 0:0 \"1\" x2"]);
}

#[test]
fn whiteouts_delete_what_lower_layers_hold_and_nothing_else() {
    if !is_root("hostile whiteouts") {
        return;
    }
    for name in [".wh.", ".wh..", ".wh...", "a/.wh.", "a/.wh..", "a/.wh..."] {
        refused(name, vec![new().file(name, "")], "is a whiteout of no name");
    }
    refused("below a whiteout", vec![new().file(".wh.a/b", "")], "lies below a whiteout");
    refused("opaque below a whiteout", vec![new().file(".wh.a/.wh..wh..opq", "")], "lies below a whiteout");
    let lower = || new().dir("d").file("d/x", "1").symlink("l", "d").symlink("up", "..");
    holds("through a link upwards", vec![lower(), new().file("up/.wh.canary", "")], &["up "]);
    holds("opaque, through a link upwards", vec![lower(), new().file("up/.wh..wh..opq", "")], &[]);
    holds("of a link", vec![lower(), new().file(".wh.l", "")], &["d/x", "-l "]);
    holds(
        "of a link with something below it",
        vec![lower(), new().file(".wh.l", "").dir("l").file("l/y", "")],
        &["d/x", "l/y"],
    );
    holds("through a link", vec![lower(), new().file("l/.wh.x", "")], &["-d/x", "l "]);
    holds("of the root's content", vec![lower(), new().file(".wh..wh..opq", "").file("n", "")], &["n ", "-d ", "-l "]);
    holds("of what is not there", vec![new().file(".wh.a", "").file("b/.wh..wh..opq", "")], &[]);
    holds(
        "as a directory, as a link, as a device",
        vec![
            lower().file("e", "").file("f", ""),
            new().dir(".wh.d").symlink(".wh.e", "../canary").entry(b'3', b".wh.f", b"", b""),
        ],
        &["-d ", "-e ", "-f "],
    );
    holds("with a content", vec![lower(), new().file(".wh.d", "ignored")], &["-d "]);
}

#[test]
fn odd_entries_are_made_as_they_are_or_refused() {
    if !is_root("odd entries") {
        return;
    }
    holds("setuid, setgid and sticky", vec![new().moded("s", 0o7755)], &["s 7755"]);
    holds("more bits than a mode has", vec![new().moded("s", 0o177_7644)], &["s 7644"]);
    holds("letters of two kinds", vec![new().file("A", "1").file("a", "2")], &["A ", "a "]);
    holds("one word in two forms", vec![new().file("\u{e9}", "1").file("e\u{301}", "2")], &["\u{e9} ", "e\u{301} "]);
    holds("no UTF-8", vec![new().entry(b'0', b"\xff\xfe", b"", b"1").entry(b'0', b"\xff", b"", b"2")], &["\u{fffd} "]);
    holds(
        "times of long ago and of never",
        vec![new().pax(&["mtime=-9000000000"]).file("a", "").pax(&["mtime=9223372036854775807"]).file("b", "")],
        &["a ", "b "],
    );
    let most = format!("size={}", u64::MAX);
    refused(
        "a size beyond all",
        vec![new().pax(&[&most]).file("a", "")],
        "entry 'a': has a size that no file can have",
    );
    refused("the largest size", vec![new().pax(&["size=9223372036854775807"]).file("a", "")], "entry 'a' is beyond");
    refused("a socket", vec![new().entry(b's', b"a", b"", b"")], "entry 'a': has a type");
    refused("a sparse file", vec![new().pax(&["GNU.sparse.major=1"]).file("a", "")], "entry 'a': is a sparse file");
    let names = |count: usize| format!("path={}", vec!["d"; count].join("/"));
    let lines = fate("deep", vec![new().pax(&[&names(2048)]).file("a", "")]).unwrap();
    assert_eq!(lines.len(), 2048);
    let long = format!("path={}", "d/".repeat(2048));
    refused("a path too long", vec![new().pax(&[&format!("{long}x")]).file("a", "")], "has a name that is longer");
    refused("a name too long", vec![new().pax(&[&format!("path={}", "n".repeat(256))]).file("a", "")], "is longer");
    let link = format!("linkpath={}", "t".repeat(4096));
    refused("a link too long", vec![new().pax(&[&link]).symlink("a", "b")], "entry 'a': is a symbolic link that is");
    // Each name is short enough, and what they mean together is not.
    let deep = names(1500);
    let below = format!("path=l/{}", ["e"; 1500].join("/"));
    let target = format!("linkpath={}", &deep["path=".len()..]);
    let name = deep + "/f";
    let layers = || new().pax(&[&name]).file("a", "").pax(&[&target]).symlink("l", "b").pax(&[&below]).file("c", "");
    let error = made("deep behind a link", &|root| {
        materialise(root, vec![source(&layers().end(), false)]).map(|filled| Some(filled.tree))
    });
    assert!(error.unwrap_err().contains("File name too long"));
}

#[test]
fn devices_are_devices_or_said_to_be_left_out() {
    if !is_root("devices") {
        return;
    }
    let layer = new().entry(b'3', b"null", b"", b"").entry(b'4', b"disk", b"", b"").hardlink("again", "null").end();
    let (directory, root) = beside_canary();
    let filled = materialise(&root, vec![source(&layer, false)]).unwrap();
    check_canary("devices", directory.path());
    for name in ["null", "disk", "again"] {
        let is_there = root.entry(&path(name)).unwrap().is_some();
        let is_skipped = filled.skipped.iter().any(|skipped| skipped.path == path(name));
        assert!(is_there != is_skipped, "{name}");
    }
    let mut large = new().entry(b'3', b"large", b"", b"").cut();
    large[329..337].copy_from_slice(b"0010000\0");
    let mut header = ::tar::Header::new_old();
    header.as_mut_bytes().copy_from_slice(&large);
    header.set_cksum();
    let error = tar::index(&header.as_bytes()[..]).unwrap_err().to_string();
    assert_eq!(error, "entry 'large': has no valid device number");
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

/// Reads a blob in all ways; all must give the same error, which is returned without the name of the layer.
fn blob_error(blob: &[u8], limits: Limits, largest: u64) -> String {
    let digest = Digest::of(blob);
    let open = || Box::new(Cursor::new(blob.to_vec()));
    let error = materialise::index(&mut *open(), digest, digest, &limits).unwrap_err();
    let (directory, root) = beside_canary();
    let source = Source { blob: open(), digest, diff_id: digest, index: None, limits };
    let found = materialise(&root, vec![source]).unwrap_err();
    check_canary("blob", directory.path());
    assert_eq!(found.to_string(), error.to_string());
    assert_eq!((found.layer(), error.layer()), (Some(digest), Some(digest)));
    let size: usize = listing(&root, false).iter().map(String::len).sum();
    assert!(size as u64 <= largest, "{size} bytes were written");
    error.cause().to_string()
}

#[test]
fn a_layer_beyond_its_size_is_refused_before_it_is_on_the_disk() {
    if !is_root("bombs") {
        return;
    }
    let limits = Limits { size: 1 << 20, ..Limits::default() };
    let beyond = "is beyond the 1048576 bytes unpacked that are allowed (--limit-unpacked-size)";
    let zeros = gzip(&vec![0; 1 << 20]);
    // 10 GiB of zeros, as a file: its header says enough.
    let file = new().pax(&["size=10737418240"]).file("bomb", "").cut();
    let blob = [gzip(&file), zeros.repeat(10_240)].concat();
    assert_eq!(blob_error(&blob, limits, 0), format!("entry 'bomb' {beyond}"));
    // As many files, of which a few are small enough.
    let files = (0..100).map(|number| gzip(&new().file(&format!("f{number}"), &"x".repeat(200_000)).cut()));
    let blob: Vec<u8> = files.flatten().collect();
    assert_eq!(blob_error(&blob, limits, 1 << 20), format!("entry 'f5' {beyond}"));
    // As what comes after the end.
    let blob = [gzip(&new().file("f", "x").end()), zeros.repeat(10_240)].concat();
    assert_eq!(blob_error(&blob, limits, 100), format!("what follows the end of the archive {beyond}"));
    // As headers that belong to no entry.
    let comment = gzip(&new().entry(b'g', b"pax", b"", &[b'x'; 100_000]).cut());
    assert_eq!(blob_error(&comment.repeat(1000), limits, 0), format!("the extended header of an entry {beyond}"));
    // The limit itself is allowed.
    let fits = new().file("f", &"x".repeat((1 << 20) - 4 * 512)).end();
    assert_eq!(fits.len(), (1 << 20) - 512);
    tar::read(&fits[..], &limits, |_, _, _| Ok(())).unwrap();
    let less = Limits { size: fits.len() as u64 - 1, ..limits };
    assert!(matches!(tar::read(&fits[..], &less, |_, _, _| Ok(())), Err(Error::Limit { .. })));
}

#[test]
fn a_layer_of_too_many_entries_is_refused() {
    if !is_root("many entries") {
        return;
    }
    let limits = Limits { entries: 100, ..Limits::default() };
    let beyond = "is beyond the 100 entries that are allowed (--limit-entries)";
    let files = |count: usize| (0..count).fold(new(), |tar, number| tar.file(&format!("f{number}"), "")).end();
    assert_eq!(blob_error(&files(101), limits, 100_000), format!("entry 'f100' {beyond}"));
    tar::read(&files(100)[..], &limits, |_, _, _| Ok(())).unwrap();
    // Entries that are never in an index count, and so do attributes.
    let aufs = (0..101).fold(new(), |tar, _| tar.file(".wh..wh.plnk/7.8", "")).end();
    assert!(blob_error(&aufs, limits, 0).contains(beyond));
    let attribute = format!("SCHILY.xattr.user.a={}", "x".repeat(30_000));
    assert_eq!(blob_error(&new().pax(&[&attribute]).file("f", "").end(), limits, 0), format!("entry 'f' {beyond}"));
}

#[test]
fn streams_that_are_cut_or_lie_are_refused_with_their_layer() {
    if !is_root("broken streams") {
        return;
    }
    let words = "some words that do not compress: 8f1e 77aa 0c3d ".repeat(100);
    let whole = new().file("a", "1").file("b", &words).end();
    let limits = Limits::default();
    let packed = gzip(&whole);
    for (name, blob, complaint) in [
        ("a tar that is cut", whole[..1800].to_vec(), "read content of '/b'"),
        ("gzip that is cut", packed[..packed.len() - 20].to_vec(), ""),
        ("rubbish after gzip", [&packed[..], b"rubbish"].concat(), "read layer: "),
        ("gzip in gzip", gzip(&packed.repeat(10)), "the checksum of a header does not match"),
        ("no tar", vec![b'x'; 2000], "the checksum of a header does not match"),
        // A frame that asks for a window of 2 GiB.
        ("zstd with a huge window", vec![0x28, 0xb5, 0x2f, 0xfd, 0, 21 << 3, 1, 0, 0], "too much memory"),
    ] {
        let error = blob_error(&blob, limits, 1000);
        assert!(error.contains(complaint), "{name}: {error}");
    }
    // Members of nothing are no end.
    let blob = [gzip(&[]).repeat(50_000), packed].concat();
    let index = materialise::index(&mut Cursor::new(blob), Digest::of(""), Digest::of(&whole), &limits).unwrap();
    assert_eq!(index.len(), 2);
}

#[test]
fn attributes_that_no_file_can_have_are_said_to_be_left_out() {
    if !is_root("large attributes") {
        return;
    }
    let long = format!("SCHILY.xattr.user.{}=1", "n".repeat(300));
    let large = format!("SCHILY.xattr.user.large={}", "x".repeat(70_000));
    let layer = new().pax(&[&long, &large]).file("f", "content").end();
    let (_directory, root) = beside_canary();
    let filled = materialise(&root, vec![source(&layer, false)]).unwrap();
    assert_eq!(filled.skipped.len(), 2);
    assert_eq!(Arc::as_ref(&filled.tree.layers()[0]).len(), 1);
}
