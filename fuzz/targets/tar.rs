//! The tar of a layer: read, indexed, and put onto a root, in both ways.
//!
//! The input is text, for checksums and padding would keep a fuzzer from reaching anything. A line is an entry, its parts
//! separated by `|`: the type, the name, the link, fields of the header as `name=value` separated by `,`, and the content.
//! `\n`, `\0` and `\xHH` stand for bytes. An input that begins with a line `raw` is a tar, of which only the checksums
//! are made right.

#![no_main]

use std::collections::BTreeSet;
use std::fs;
use std::io::Cursor;
use std::path::Path;
use std::sync::Arc;

use libfuzzer_sys::fuzz_target;
use yadokari_layers::materialise::{Source, materialise};
use yadokari_layers::{Digest, Index, Kind, Limits, Root, Tree, apply::apply_tar, tar};

fuzz_target!(|bytes: &[u8]| {
    let tar = match bytes.strip_prefix(b"raw\n") {
        Some(raw) => with_checksums(raw.to_vec()),
        None => written(bytes),
    };
    let index = tar::index(&tar[..]);
    if let Ok(index) = &index {
        check_index(index, tar.len());
    }
    check_limits(&tar);
    let directory = tempfile::tempdir().expect("the directory of temporary files is there");
    let (inside, outside) = (directory.path().join("root"), directory.path().join("victim"));
    fs::create_dir_all(inside.join("lower/deep")).expect("a new directory can be made");
    fs::write(inside.join("lower/file"), "lower").expect("a new file can be written");
    fs::write(&outside, "kept").expect("a new file can be written");
    let root = Root::open(&inside).expect("the directory was just made");
    let applied = apply_tar(&tar[..], &Limits::NONE, &root);
    assert_eq!(fs::read_to_string(&outside).expect("the file outside is still there"), "kept");
    assert_eq!(fs::read_dir(directory.path()).expect("it can be listed").count(), 2, "something outside was written");
    let mut found = BTreeSet::new();
    let mut size = 0;
    walk(&inside, &inside, &mut found, &mut size);
    assert!(size <= tar.len() as u64 + 5, "{size} bytes of a tar of {}", tar.len());
    // What is visible is the same whether it is known before or found out on the way.
    if let Ok(index) = &index {
        let fill = |name: &str, index: Option<Arc<Index>>| {
            let at = directory.path().join(name);
            fs::create_dir(&at).expect("a new directory can be made");
            let root = Root::open(&at).expect("the directory was just made");
            let (blob, digest) = (Box::new(Cursor::new(&tar[..])), Digest::of(&tar));
            let filled = materialise(&root, vec![Source { blob, digest, diff_id: digest, index, limits: Limits::NONE }]).ok()?;
            let (mut found, mut size) = (BTreeSet::new(), 0);
            walk(&at, &at, &mut found, &mut size);
            Some((found, size, filled.tree.layers().to_vec()))
        };
        if let (Some(known), Some(found)) = (fill("known", Some(Arc::new(index.clone()))), fill("found", None)) {
            assert_eq!(known, found);
        }
        assert_eq!(fs::read_to_string(&outside).expect("the file outside is still there"), "kept");
        let names = fs::read_dir(directory.path()).expect("it can be listed").count();
        assert_eq!(names, 4, "something outside was written");
    }
    // Where no link leads elsewhere, not even one that a later entry replaces, and the kernel refused nothing, the tree of
    // the indexes is the directory.
    if let (Ok(index), Ok(skipped)) = (index, applied)
        && skipped.is_empty()
        && !has_link(&tar)
    {
        let lower = "5|lower|||\n5|lower/deep|||\n0|lower/file|||lower\n";
        let lower = tar::index(&written(lower.as_bytes())[..]).expect("three good entries");
        let tree = Tree::of([lower.into(), index.into()]);
        let mut expected = BTreeSet::new();
        for (path, _) in tree.iter() {
            // Directories that a layer takes for granted are in no index.
            expected.extend(path.ancestors().filter(|path| !path.is_root()).map(|path| path.as_bytes().to_vec()));
            expected.insert(path.as_bytes().to_vec());
        }
        let found: BTreeSet<_> = found.into_iter().collect();
        let names =
            |set: &BTreeSet<Vec<u8>>| set.iter().map(|name| name.escape_ascii().to_string()).collect::<Vec<_>>();
        let implied = found.difference(&expected).all(|path| inside.join(text(path)).is_dir());
        assert!(expected.is_subset(&found) && implied, "{:?} and not {:?}", names(&found), names(&expected));
    }
});

/// Whether any entry is a symbolic link; also where the entries cannot all be read.
fn has_link(tar: &[u8]) -> bool {
    let mut archive = ::tar::Archive::new(tar);
    let Ok(mut entries) = archive.entries() else { return true };
    entries.any(|entry| entry.map_or(true, |entry| entry.header().entry_type().is_symlink()))
}

fn text(path: &[u8]) -> &Path {
    use std::os::unix::ffi::OsStrExt;
    Path::new(std::ffi::OsStr::from_bytes(path))
}

/// An index is sorted, holds no path twice, and survives its stored form.
fn check_index(index: &Index, size: usize) {
    let records = index.records();
    assert!(records.windows(2).all(|pair| pair[0].0 < pair[1].0));
    let stored = index.encode().expect("an index has a stored form");
    assert_eq!(&Index::decode(&stored, &Limits::NONE).expect("a stored form can be read"), index);
    let files = records.iter().filter_map(|(_, record)| record.entry()).map(|entry| match entry.kind {
        Kind::File { size, .. } => size,
        _ => 0,
    });
    assert!(files.sum::<u64>() <= size as u64);
}

/// Within limits a tar has no more entries and bytes than these say, and it is the first thing beyond them that is refused.
fn check_limits(tar: &[u8]) {
    let limits = Limits { size: 4096, entries: 4 };
    let (mut entries, mut bytes) = (0, 0);
    let read = tar::read(tar, &limits, |_, _, content| {
        entries += 1;
        bytes += std::io::copy(content, &mut std::io::sink()).unwrap_or(0);
        Ok(())
    });
    assert!(entries <= limits.entries && bytes <= limits.size);
    let all = tar::read(tar, &Limits::NONE, |_, _, _| Ok(()));
    assert!(read.is_ok() <= all.is_ok(), "a tar is good only where it is limited");
    assert!(read.is_err() || tar.len() as u64 <= limits.size);
}

fn walk(base: &Path, directory: &Path, found: &mut BTreeSet<Vec<u8>>, size: &mut u64) {
    use std::os::unix::ffi::OsStrExt;
    for entry in fs::read_dir(directory).expect("it can be listed").flatten() {
        let path = entry.path();
        let metadata = fs::symlink_metadata(&path).expect("nobody else removes it");
        found.insert(path.strip_prefix(base).expect("it lies below").as_os_str().as_bytes().to_vec());
        if metadata.is_file() {
            *size += metadata.len() / std::os::unix::fs::MetadataExt::nlink(&metadata);
        }
        if metadata.is_dir() {
            walk(base, &path, found, size);
        }
    }
}

/// The tar that the lines of `input` describe.
fn written(input: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    for line in input.split(|&byte| byte == b'\n').filter(|line| !line.is_empty()).take(32) {
        let mut parts = line.splitn(5, |&byte| byte == b'|').map(unescaped);
        let mut part = || parts.next().unwrap_or_default();
        let (kind, name, link, fields, content) = (part(), part(), part(), part(), part());
        let mut header = ::tar::Header::new_ustar();
        header.set_mode(0o755);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(1_000_000);
        header.set_size(content.len() as u64);
        let block = header.as_mut_bytes();
        put(&mut block[..100], &name);
        put(&mut block[157..257], &link);
        block[156] = kind.first().copied().unwrap_or(b'0');
        for field in fields.split(|&byte| byte == b',') {
            let Some(equals) = field.iter().position(|&byte| byte == b'=') else { continue };
            let range = match &field[..equals] {
                b"mode" => 100..108,
                b"uid" => 108..116,
                b"gid" => 116..124,
                b"size" => 124..136,
                b"mtime" => 136..148,
                b"magic" => 257..265,
                b"major" => 329..337,
                b"minor" => 337..345,
                b"prefix" => 345..500,
                _ => continue,
            };
            block[range.clone()].fill(0);
            put(&mut block[range], &field[equals + 1..]);
        }
        header.set_cksum();
        out.extend_from_slice(header.as_bytes());
        out.extend_from_slice(&content);
        out.resize(out.len().next_multiple_of(512), 0);
    }
    out.extend([0; 1024]);
    out
}

fn put(field: &mut [u8], value: &[u8]) {
    let length = value.len().min(field.len());
    field[..length].copy_from_slice(&value[..length]);
}

fn unescaped(text: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    let mut rest = text;
    while let Some((&byte, tail)) = rest.split_first() {
        rest = tail;
        if byte != b'\\' {
            out.push(byte);
            continue;
        }
        match rest {
            [b'n', tail @ ..] => {
                out.push(b'\n');
                rest = tail;
            }
            [b'0', tail @ ..] => {
                out.push(0);
                rest = tail;
            }
            [b'x', high, low, tail @ ..] => {
                let digit = |byte: u8| char::from(byte).to_digit(16).unwrap_or(0) as u8;
                out.push(digit(*high) * 16 + digit(*low));
                rest = tail;
            }
            _ => out.push(b'\\'),
        }
    }
    out
}

/// `tar` with right checksums, as far as the sizes in its headers lead.
fn with_checksums(mut tar: Vec<u8>) -> Vec<u8> {
    let mut at = 0;
    while let Some(block) = tar.get_mut(at..at + 512) {
        if block.iter().all(|&byte| byte == 0) {
            break;
        }
        let mut header = ::tar::Header::new_old();
        header.as_mut_bytes().copy_from_slice(block);
        header.set_cksum();
        block.copy_from_slice(header.as_bytes());
        let size = header.entry_size().unwrap_or(0).min(1 << 20) as usize;
        at += 512 + size.next_multiple_of(512);
    }
    tar
}
