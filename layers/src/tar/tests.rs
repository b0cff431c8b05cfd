use std::collections::BTreeSet;
use std::io::{self, Read, Seek, SeekFrom, Write};

use proptest::prelude::*;

use super::*;
use crate::testing::{Hostile, path};
use crate::{Changes, Content, Digest, Error, Kind, Record, RelPath, Timestamp};

/// What a tar says, one line for each item, or why it is refused.
fn items(tar: &[u8]) -> Result<Vec<String>, String> {
    let mut lines = Vec::new();
    read(tar, &Limits::NONE, |path, item, content| {
        let mut bytes = Vec::new();
        content.read_to_end(&mut bytes).map_err(|source| Error::Stream { operation: "read content", source })?;
        lines.push(match item {
            Item::Delete => format!("-{path}"),
            Item::Opaque => format!("{path}!"),
            Item::Put(entry) => match entry.kind {
                Kind::File { .. } => format!("{path} {:?}", String::from_utf8_lossy(&bytes)),
                Kind::Directory => format!("{path}/"),
                Kind::Symlink { target } => format!("{path} -> {}", String::from_utf8_lossy(&target)),
                Kind::Hardlink { target } => format!("{path} = {target}"),
                kind => format!("{path} {kind:?}"),
            },
        });
        Ok(())
    })
    .map_err(|error| error.to_string())?;
    Ok(lines)
}

#[test]
fn a_file_that_is_not_what_its_entry_says_is_not_written() {
    let written = |content: &str, digest: Option<Digest>| {
        let mut changes = Changes::new();
        let mut entry = Entry::file(content.len() as u64, 0o644, Timestamp::default());
        entry.kind = Kind::File { size: content.len() as u64, content: digest };
        changes.put(path("d/f"), entry, Content::Bytes(content.as_bytes().into()));
        write(&changes, None, Vec::new()).map_err(|error| error.to_string())
    };
    let plain = written("abc", None).unwrap();
    assert_eq!(written("abc", Some(Digest::of("abc"))).unwrap(), plain);
    assert!(written("", Some(Digest::of(""))).is_ok());
    for content in ["abd", ""] {
        let error = written(content, Some(Digest::of("abc"))).unwrap_err();
        assert_eq!(error, "read content of '/d/f': it changed while it was read");
    }
}

#[test]
fn every_kind_of_entry_is_read() {
    let tar = Hostile::default()
        .dir("./")
        .dir("d/")
        .file("/abs//./f", "content")
        .symlink("d/l", "../../outside")
        .hardlink("h", "/d/f")
        .entry(0, b"old/", b"", b"")
        .entry(0, b"oldfile", b"", b"a")
        .entry(b'7', b"contiguous", b"", b"b")
        .entry(b'3', b"null", b"", b"")
        .entry(b'4', b"disk", b"", b"")
        .entry(b'6', b"pipe", b"", b"")
        .file("d/.wh.gone", "")
        .file("d/.wh..wh..opq", "")
        .file(".wh..wh.plnk/7.8", "x")
        .entry(b'g', b"global", b"", b"13 comment=x\n")
        .end();
    let expected = [
        "d/",
        "abs/f \"content\"",
        "d/l -> ../../outside",
        "h = d/f",
        "old/",
        "oldfile \"a\"",
        "contiguous \"b\"",
        "null CharDevice { major: 1, minor: 3 }",
        "disk BlockDevice { major: 1, minor: 3 }",
        "pipe Fifo",
        "-d/gone",
        "d!",
    ];
    assert_eq!(items(&tar).unwrap(), expected);
}

#[test]
fn what_no_layer_may_hold_is_refused_by_name() {
    let tar = Hostile::default;
    let long = format!("SCHILY.xattr.user.x={}", "x".repeat(1 << 20));
    for (tar, complaint) in [
        (tar().file("a/../../b", ""), "entry 'a/../../b': climbs"),
        (tar().dir(".."), "entry '..': climbs"),
        (tar().hardlink("h", "../etc/passwd"), "entry 'h': links to a path that climbs"),
        (tar().hardlink("h", "h"), "entry 'h': is a hard link to no file"),
        (tar().hardlink("h", ""), "entry 'h': is a hard link to no file"),
        (tar().symlink("l", ""), "entry 'l': is a symbolic link to nothing"),
        (tar().file("a/.wh.", ""), "entry 'a/.wh.': is a whiteout of no name"),
        (tar().file("a/.wh..", ""), "entry 'a/.wh..': is a whiteout of no name"),
        (tar().file("a/.wh...", ""), "entry 'a/.wh...': is a whiteout of no name"),
        (tar().file(".wh.a/b", ""), "entry '.wh.a/b': lies below a whiteout"),
        (tar().file(".wh.a/.wh.b", ""), "entry '.wh.a/.wh.b': lies below a whiteout"),
        (tar().file("", "x"), "entry '': is the root"),
        (tar().pax(&["path=a\0b"]).file("x", ""), "entry 'a\\u{0}b': holds a NUL"),
        (tar().entry(b'S', b"sparse", b"", b""), "entry 'sparse': is a sparse file"),
        (tar().pax(&["GNU.sparse.major=1"]).file("sparse", ""), "entry 'sparse': is a sparse file"),
        (tar().entry(b'Z', b"odd", b"", b""), "entry 'odd': has a type"),
        (tar().pax(&["uid=4294967295"]).file("x", ""), "entry 'x': has an owner"),
        (tar().pax(&["uid=-1"]).file("x", ""), "entry 'x': has a number"),
        (tar().pax(&["mtime=soon"]).file("x", ""), "entry 'x': has no valid modification time"),
        (tar().pax(&["size=600"]).file("x", "123"), "unexpected"),
        (tar().pax(&["a=b"]).pax(&["a=b"]).file("x", ""), "two extended headers"),
        (tar().pax(&[&long]).file("x", ""), "larger than 1 MiB"),
        (tar().entry(b'x', b"pax", b"", b"99 path=x\n").file("x", ""), "malformed"),
        (tar().pax(&["path=x"]), "belongs to no entry"),
    ] {
        let error = items(&tar.cut()).unwrap_err();
        assert!(error.contains(complaint), "{complaint}: {error}");
    }
}

#[test]
fn broken_streams_are_errors() {
    let good = Hostile::default().file("a", "content").end();
    for length in [1, 511, 512 + 3, 1023] {
        assert!(items(&good[..length]).is_err(), "{length}");
    }
    let mut bad = good.clone();
    bad[0] ^= 1;
    assert!(items(&bad).unwrap_err().contains("checksum"));
    assert!(items(&Hostile::default().sized("a", 1 << 40, b"short").end()).is_err());
    assert_eq!(items(&[]).unwrap(), Vec::<String>::new());
}

#[test]
fn a_size_of_something_without_content_is_passed_over() {
    // Go's reader does so, and what follows is the next header.
    let mut tar = Hostile::default().dir("d/").cut();
    tar[124..136].copy_from_slice(b"00000001000\0");
    let mut header = tar::Header::new_old();
    header.as_mut_bytes().copy_from_slice(&tar);
    header.set_cksum();
    tar.copy_from_slice(header.as_bytes());
    tar.extend(Hostile::default().file("f", "x").end());
    assert_eq!(items(&tar).unwrap(), ["d/", "f \"x\""]);
}

#[test]
fn extended_headers_say_what_the_plain_one_cannot() {
    let name = format!("{}/{}", "d".repeat(200), "n".repeat(200));
    let tar = Hostile::default()
        .pax(&[
            &format!("path={name}"),
            "uid=3000000",
            "gid=4294967294",
            "mtime=-1.5",
            "SCHILY.xattr.user.a=1\n2",
            "SCHILY.xattr.user.empty=",
            "size=3",
        ])
        .sized("short", 0, b"abc")
        .entry(b'L', b"././@LongLink", b"", format!("{name}-2\0").as_bytes())
        .entry(b'K', b"././@LongLink", b"", format!("{name}-3\0").as_bytes())
        .symlink("short", "short")
        .end();
    let mut seen = Vec::new();
    read(&tar[..], &Limits::NONE, |path, item, _| {
        seen.push((path, item));
        Ok(())
    })
    .unwrap();
    let Item::Put(entry) = &seen[0].1 else { panic!() };
    assert_eq!(seen[0].0, path(&name));
    assert_eq!((entry.uid, entry.gid, entry.mtime.secs, entry.mtime.nanos), (3_000_000, u32::MAX - 1, -2, 500_000_000));
    assert_eq!(entry.xattrs.values().map(|value| &value[..]).collect::<Vec<_>>(), [&b"1\n2"[..], b""]);
    assert_eq!(seen[1].0, path(&format!("{name}-2")));
    let Item::Put(entry) = &seen[1].1 else { panic!() };
    assert_eq!(entry.kind, Kind::Symlink { target: format!("{name}-3").into_bytes() });
}

#[test]
fn an_index_resolves_links_and_refuses_what_it_cannot_tell() {
    let good = Hostile::default()
        .file("a", "x")
        .hardlink("b", "a")
        .hardlink("c", "b")
        .hardlink("low", "elsewhere")
        .file("f", "1")
        .file("f", "22")
        .dir("f/")
        .file("f/g", "")
        .file("f", "333")
        .end();
    let index = index(&good[..]).unwrap();
    let kind = |name| &index.get(&path(name)).unwrap().entry().unwrap().kind;
    assert_eq!(*kind("c"), Kind::Hardlink { target: path("a") });
    assert_eq!(*kind("f"), Kind::File { size: 3, content: Some(Digest::of("333")) });
    assert_eq!(index.get(&path("f/g")), None);
    for (tar, complaint) in [
        (Hostile::default().file("a", "").file("a/b", ""), "'a/b': lies below a file"),
        (Hostile::default().dir("d").hardlink("h", "d"), "'h': is a hard link to a directory"),
        (Hostile::default().file("a", "").hardlink("b", "a").file("a", "x"), "'a': replaces a file"),
    ] {
        let error = super::index(&tar.end()[..]).unwrap_err().to_string();
        assert!(error.contains(complaint), "{complaint}: {error}");
    }
}

#[test]
fn passwd_and_group_are_kept() {
    let tar = Hostile::default().file("etc/passwd", "root").file("etc/shadow", "x").end();
    let index = index(&tar[..]).unwrap();
    assert_eq!(index.inline(&path("etc/passwd")), Some(&b"root"[..]));
    assert_eq!(index.inline(&path("etc/shadow")), None);
}

/// What is written to a pipe, which a file stands for.
fn streamed(changes: &Changes, clamp: Option<i64>) -> Vec<u8> {
    let mut file = tempfile::tempfile().unwrap();
    let mut pipe = Pipe::new(file.try_clone().unwrap().into());
    super::pipe(changes, clamp, &mut pipe).unwrap();
    pipe.flush().unwrap();
    let mut tar = Vec::new();
    file.seek(SeekFrom::Start(0)).unwrap();
    file.read_to_end(&mut tar).unwrap();
    tar
}

#[test]
fn a_large_file_is_sent_as_it_is_and_must_have_its_size() {
    let directory = tempfile::tempdir().unwrap();
    let large = directory.path().join("large");
    let content: Vec<u8> = (0..(1 << 20) + 7).map(|n: u32| (n % 241) as u8).collect();
    std::fs::write(&large, &content).unwrap();
    let changes = |size| {
        let mut changes = Changes::new();
        changes.put(path("a"), Entry::file(size, 0o644, Timestamp::default()), Content::Host(large.clone()));
        changes.put(path("b"), Entry::file(1, 0o644, Timestamp::default()), Content::Bytes((*b"b").into()));
        changes
    };
    let size = content.len() as u64;
    assert!(streamed(&changes(size), None) == write(&changes(size), None, Vec::new()).unwrap().0);
    for (wrong, reason) in [(size - 1, "longer"), (size + 1, "shorter")] {
        let mut pipe = Pipe::new(tempfile::tempfile().unwrap().into());
        let error = super::pipe(&changes(wrong), None, &mut pipe).unwrap_err().to_string();
        assert!(error.contains(reason), "{error}");
    }
}

fn entry(kind: Kind) -> Entry {
    Entry { kind, ..Entry::file(0, 0o644, Timestamp { secs: 1_700_000_000, nanos: 7 }) }
}

fn bytes(content: &str) -> (Entry, Content) {
    let kind = Kind::File { size: content.len() as u64, content: None };
    (entry(kind), Content::Bytes(content.as_bytes().into()))
}

#[test]
fn the_tar_of_changes_is_pinned() {
    let mut changes = Changes::new();
    let mut put = |name: &str, kind| changes.put(path(name), entry(kind), Content::Empty);
    put("dir", Kind::Directory);
    put("dir/link", Kind::Symlink { target: b"/x".to_vec() });
    put("null", Kind::CharDevice { major: 1, minor: 3 });
    put(&format!("dir/{}", "n".repeat(99)), Kind::Directory);
    put(&"n".repeat(150), Kind::Fifo);
    let (file, content) = bytes("content");
    changes.put(path("dir/a"), Entry { uid: 3_000_000, mode: 0o4755, ..file }, content);
    changes.put(path("dir/b"), entry(Kind::Hardlink { target: path("dir/a") }), Content::Empty);
    changes.delete(path("dir/gone"));
    let (tar, index) = write(&changes, Some(1_600_000_000), Vec::new()).unwrap();
    assert_eq!(super::index(&tar[..]).unwrap(), index);
    assert_eq!(index.get(&path("dir")).unwrap().entry().unwrap().mtime, Timestamp::from_secs(1_600_000_000));
    assert_eq!(index.get(&path("dir/gone")), Some(&Record::Delete));
    assert_eq!(Digest::of(&tar).hex(), "e3b28b3e4258019917888d13a9c747440309ce5b08730db8c0c7b50ea5f2cc1f");
}

#[test]
fn the_tar_of_a_layer_says_what_every_engine_understands() {
    let mut changes = Changes::new();
    let (file, content) = bytes(&"\0".repeat(1 << 20));
    changes.put(path("dir"), entry(Kind::Directory), Content::Empty);
    changes.put(path("dir/a"), file, content);
    changes.put(path("dir/b"), entry(Kind::Hardlink { target: path("dir/a") }), Content::Empty);
    changes.delete(path("dir/gone"));
    changes.delete(path("other"));
    // Said twice, it counts once.
    changes.delete(path("dir/gone"));
    changes.put(path("dir"), entry(Kind::Directory), Content::Empty);
    let (tar, _) = write(&changes, None, Vec::new()).unwrap();
    let mut seen = Vec::new();
    for found in ::tar::Archive::new(&tar[..]).entries().unwrap() {
        let found = found.unwrap();
        let header = found.header();
        assert_eq!((header.username_bytes(), header.groupname_bytes()), (Some(&b""[..]), Some(&b""[..])));
        let link = found.link_name_bytes().map(|link| String::from_utf8_lossy(&link).into_owned());
        let name = String::from_utf8_lossy(&found.path_bytes()).into_owned();
        seen.push((name, char::from(header.as_old().linkflag[0]), found.size(), link.unwrap_or_default()));
    }
    let expected = [
        ("dir/", '5', 0, ""),
        ("dir/a", '0', 1 << 20, ""),
        ("dir/b", '1', 0, "dir/a"),
        ("dir/.wh.gone", '0', 0, ""),
        (".wh.other", '0', 0, ""),
    ];
    let expected = expected.map(|(name, kind, size, link)| (name.to_owned(), kind, size, link.to_owned()));
    assert_eq!(seen.into_iter().collect::<BTreeSet<_>>(), BTreeSet::from(expected));
    assert!(tar.len() > 1 << 20, "nothing is left out of a file of zeros");
}

#[test]
fn content_of_another_size_is_refused_by_name() {
    for (size, content) in [(2, "abc"), (4, "abc"), (0, "a")] {
        let mut changes = Changes::new();
        let kind = Kind::File { size, content: None };
        changes.put(path("x"), entry(kind), Content::Bytes(content.as_bytes().into()));
        let error = write(&changes, None, io::sink()).unwrap_err().to_string();
        assert!(error.contains("'/x'"), "{error}");
    }
}

#[test]
fn names_that_mean_a_deletion_are_refused() {
    for name in [".wh.x", "a/.wh.x", ".wh.d/x", ".wh..wh..opq"] {
        let mut changes = Changes::new();
        let (entry, content) = bytes("");
        changes.put(path(name), entry, content);
        assert!(write(&changes, None, io::sink()).is_err(), "{name}");
    }
}

fn any_entry() -> impl Strategy<Value = (Entry, Vec<u8>)> {
    let kind = prop_oneof![
        proptest::collection::vec(any::<u8>(), 0..1500)
            .prop_map(|content| { (Kind::File { size: content.len() as u64, content: None }, content) }),
        Just((Kind::Directory, vec![])),
        "[^\0]{1,200}".prop_map(|target| (Kind::Symlink { target: target.into_bytes() }, vec![])),
        (0..4096_u32, 0..1_048_576_u32).prop_map(|(major, minor)| (Kind::BlockDevice { major, minor }, vec![])),
        Just((Kind::Fifo, vec![])),
    ];
    let xattrs =
        proptest::collection::btree_map("user\\.[a-z]{1,9}", proptest::collection::vec(any::<u8>(), 0..200), 0..3);
    (kind, 0..0o10000_u32, any::<u32>(), 0..u32::MAX, any::<i32>(), xattrs).prop_map(
        |((kind, content), mode, uid, gid, secs, xattrs)| {
            let xattrs = xattrs.into_iter().map(|(name, value)| (name.into_bytes().into(), value.into())).collect();
            let mtime = Timestamp { secs: i64::from(secs) * 8, nanos: 5 };
            (Entry { kind, mode, uid: uid.min(u32::MAX - 1), gid, mtime, xattrs }, content)
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn the_index_of_what_is_written_is_that_of_what_is_read(
        puts in proptest::collection::btree_map("[a-c]/([^/\0.]{1,130}|etc)", any_entry(), 0..12),
        deletes in proptest::collection::btree_set("[d-e]/[^/\0.]{1,120}", 0..4),
        clamp in proptest::option::of(any::<i64>()),
    ) {
        let mut changes = Changes::new();
        let mut first = None;
        for (name, (entry, content)) in puts {
            let path = path(&name);
            if entry.is_file() {
                if let Some(target) = &first {
                    let link = Entry { kind: Kind::Hardlink { target: RelPath::clone(target) }, ..entry.clone() };
                    changes.put(crate::testing::path(&format!("{name}-link")), link, Content::Empty);
                }
                first.get_or_insert(path.clone());
            }
            changes.put(path, entry, Content::Bytes(content.into()));
        }
        deletes.iter().for_each(|name| changes.delete(path(name)));
        let (tar, index) = write(&changes, clamp, Vec::new()).unwrap();
        prop_assert_eq!(tar.len() % 512, 0);
        prop_assert_eq!(&super::index(&tar[..]).unwrap(), &index);
        prop_assert_eq!(index.len(), changes.len());
        prop_assert_eq!(&write(&changes, clamp, Vec::new()).unwrap().0, &tar);
        prop_assert_eq!(stream(&changes, clamp, Vec::new()).unwrap(), tar.clone());
        prop_assert_eq!(streamed(&changes, clamp), tar);
    }

    #[test]
    fn no_bytes_make_the_reader_panic(mut tar in proptest::collection::vec(any::<u8>(), 0..2048), fix in any::<bool>()) {
        if fix && tar.len() >= 512 {
            let mut header = tar::Header::new_old();
            header.as_mut_bytes().copy_from_slice(&tar[..512]);
            header.set_cksum();
            tar[..512].copy_from_slice(header.as_bytes());
        }
        _ = index(&tar[..]);
    }
}
