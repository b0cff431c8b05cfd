use std::sync::Arc;

use super::*;
use crate::apply::apply_tar;
use crate::testing::{Hostile, is_root, listing, temp};
use crate::{Digest, Mismatch, VerifiedReader, tar};

fn tree(layers: &[Vec<u8>]) -> Tree {
    Tree::of(layers.iter().map(|layer| Arc::new(tar::index(&layer[..]).unwrap())))
}

fn blobs(layers: &[Vec<u8>]) -> Vec<Box<dyn Read + Send>> {
    layers.iter().map(|layer| Box::new(std::io::Cursor::new(layer.clone())) as _).collect()
}

/// Materialising at once makes what putting one layer after the other makes.
fn check(name: &str, layers: Vec<Hostile>) -> Vec<String> {
    let layers: Vec<Vec<u8>> = layers.into_iter().map(Hostile::end).collect();
    let (_a, at_once) = temp();
    materialise(&at_once, &tree(&layers), blobs(&layers)).unwrap();
    let (_b, one_by_one) = temp();
    layers.iter().for_each(|layer| _ = apply_tar(&layer[..], &one_by_one).unwrap());
    let lines = listing(&at_once, true);
    assert_eq!(lines, listing(&one_by_one, true), "{name}");
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
}

#[test]
fn directories_that_no_layer_states_are_made() {
    if !is_root("owners") {
        return;
    }
    let layer = Hostile::default().file("a/b/c", "x").end();
    let (_dir, root) = temp();
    materialise(&root, &tree(std::slice::from_ref(&layer)), blobs(&[layer])).unwrap();
    let lines = listing(&root, false);
    assert!(lines[0].starts_with("a 755 0:0"), "{lines:?}");
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
        let (_dir, root) = temp();
        let blob = encoder.finish().unwrap();
        materialise(&root, &tree(std::slice::from_ref(&layer)), blobs(&[blob])).unwrap();
        assert_eq!(listing(&root, false).len(), 1);
    }
}

#[test]
fn a_layer_that_is_not_the_index_is_an_error() {
    if !is_root("owners") {
        return;
    }
    let stated = Hostile::default().file("a", "x").file("b", "x").end();
    for other in [Hostile::default().file("a", "x"), Hostile::default().file("a", "x").dir("b"), Hostile::default()] {
        let (_dir, root) = temp();
        let error = materialise(&root, &tree(std::slice::from_ref(&stated)), blobs(&[other.end()])).unwrap_err();
        assert!(error.to_string().contains("index"), "{error}");
    }
    let (_dir, root) = temp();
    assert!(materialise(&root, &tree(&[stated]), vec![]).is_err());
}

#[test]
fn a_blob_that_is_another_is_an_error_of_its_own() {
    let layer = Hostile::default().file("a", "x").end();
    let blob = VerifiedReader::new(std::io::Cursor::new(layer.clone()), Digest::of("other"), None);
    let (_dir, root) = temp();
    let error = materialise(&root, &tree(&[layer]), vec![Box::new(blob)]).unwrap_err();
    assert!(matches!(error, Error::Mismatch(Mismatch::Digest { .. })), "{error:?}");
}

#[test]
fn a_link_to_nothing_is_refused() {
    let layer = Hostile::default().hardlink("a", "absent").end();
    let (_dir, root) = temp();
    let error = materialise(&root, &tree(std::slice::from_ref(&layer)), blobs(&[layer])).unwrap_err();
    assert!(error.to_string().contains("'a'"), "{error}");
}
