use std::fs;
use std::io::Read;
use std::os::unix::fs::symlink;
use std::path::Path;

use super::*;
use crate::testing::{is_root, listing, path, temp, write};
use crate::{Entry, Kind, Timestamp};

/// Each case runs on the kernel's resolution and on ours.
fn both(case: impl Fn(&Path, &Root)) {
    for walking in [false, true] {
        let (dir, root) = temp();
        let root = if walking { root.walking() } else { root };
        case(dir.path(), &root);
    }
}

fn read(root: &Root, name: &str) -> Option<String> {
    let mut content = String::new();
    root.open_file(&path(name)).ok()?.read_to_string(&mut content).ok()?;
    Some(content)
}

fn file(size: u64) -> Entry {
    Entry::file(size, 0o644, Timestamp::from_secs(1))
}

#[test]
fn links_are_followed_inside_the_root_and_never_out_of_it() {
    both(|dir, root| {
        write(dir, "real/file", "inside");
        write(dir, "etc/passwd", "inside");
        for (link, target) in [
            ("abs", "/real"),
            ("rel", "real"),
            ("up", "../../../../../../etc"),
            ("abs-up", "/../../etc"),
            ("real/back", "../etc"),
            ("chain", "abs"),
            ("dangling", "nowhere"),
            ("loop", "loop"),
            ("self", "."),
        ] {
            symlink(target, dir.join(link)).unwrap();
        }
        for (name, expected) in [
            ("abs/file", Some("inside")),
            ("rel/file", Some("inside")),
            ("up/passwd", Some("inside")),
            ("abs-up/passwd", Some("inside")),
            ("real/back/passwd", Some("inside")),
            ("chain/back/passwd", Some("inside")),
            ("self/self/real/file", Some("inside")),
            ("dangling/file", None),
            ("loop/file", None),
            ("real/file/x", None),
            ("abs", None),
        ] {
            assert_eq!(read(root, name).as_deref(), expected, "{name}");
        }
        assert!(matches!(root.parent(&path("loop/x")), Err(Error::SymlinkLoop(_))));
        assert!(root.open_dir(&path("abs")).is_err());
        assert!(root.open_dir(&path("abs/back")).is_err());
    });
}

#[test]
fn magic_links_lead_nowhere() {
    let (_dir, host) = (Path::new("/proc"), Root::open(Path::new("/proc")).unwrap());
    assert!(host.parent(&path("self/cwd/x")).is_err());
}

#[test]
fn a_fifo_does_not_block_and_a_device_is_not_opened() {
    if !is_root("owners") {
        return;
    }
    both(|dir, root| {
        let fifo = Entry { kind: Kind::Fifo, ..file(0) };
        root.put(&path("fifo"), &fifo, &mut io::empty()).unwrap();
        assert!(root.open_file(&path("fifo")).is_err());
        assert!(root.open_file(&path("absent")).is_err());
        assert!(dir.join("fifo").exists());
    });
}

#[test]
fn directories_are_made_where_they_are_missing() {
    both(|dir, root| {
        fs::create_dir(dir.join("usr")).unwrap();
        symlink("usr", dir.join("lib")).unwrap();
        symlink("nowhere", dir.join("dangling")).unwrap();
        assert_eq!(root.create_dir_all(&path("lib/a/b"), 0o711).unwrap(), [path("lib/a"), path("lib/a/b")]);
        assert_eq!(root.create_dir_all(&path("lib/a/b"), 0o711).unwrap(), []);
        assert_eq!(root.entry(&path("usr/a/b")).unwrap().unwrap().mode, 0o711);
        assert!(root.create_dir_all(&path("dangling/x"), 0o755).is_err());
        assert_eq!(root.create_dir_all(&RelPath::root(), 0o755).unwrap(), []);
    });
}

#[test]
fn put_replaces_whatever_is_in_the_way() {
    if !is_root("owners") {
        return;
    }
    both(|dir, root| {
        write(dir, "outside/file", "kept");
        let kinds = [
            Kind::File { size: 3, content: None },
            Kind::Directory,
            Kind::Symlink { target: b"outside".to_vec() },
            Kind::Fifo,
            Kind::Hardlink { target: path("outside/file") },
        ];
        for before in &kinds {
            for after in &kinds {
                for kind in [before, after] {
                    let entry = Entry { kind: kind.clone(), mode: 0o640, ..file(0) };
                    let content: &[u8] = if entry.is_file() { b"abc" } else { b"" };
                    assert_eq!(root.put(&path("x"), &entry, &mut &content[..]).unwrap(), []);
                    if entry.is_directory() {
                        write(dir, "x/below/file", "");
                    }
                }
                let found = root.entry(&path("x")).unwrap().unwrap();
                match after {
                    Kind::Hardlink { .. } => assert_eq!(read(root, "x").unwrap(), "kept"),
                    Kind::Symlink { .. } => assert_eq!(found, Entry { kind: after.clone(), mode: 0o777, ..file(0) }),
                    Kind::Directory => assert_eq!((found.kind, found.mode), (Kind::Directory, 0o640)),
                    _ => assert_eq!(found, Entry { kind: after.clone(), mode: 0o640, ..file(0) }),
                }
                assert_eq!(read(root, "outside/file").unwrap(), "kept");
                root.remove(&path("x")).unwrap();
            }
        }
    });
}

#[test]
fn a_hard_link_to_itself_keeps_the_file() {
    both(|dir, root| {
        write(dir, "a", "kept");
        let link = Entry { kind: Kind::Hardlink { target: path("a") }, ..file(0) };
        root.put(&path("b"), &link, &mut io::empty()).unwrap();
        root.put(&path("b"), &link, &mut io::empty()).unwrap();
        root.put(&path("a"), &link, &mut io::empty()).unwrap();
        assert_eq!(read(root, "a").unwrap(), "kept");
    });
}

#[test]
fn content_must_have_the_size_of_the_entry() {
    both(|_, root| {
        for (size, content) in [(4, "abc"), (2, "abc"), (0, "a")] {
            let error = root.put(&path("x"), &file(size), &mut content.as_bytes()).unwrap_err();
            assert!(error.to_string().contains("'/x'"), "{error}");
        }
    });
}

#[test]
fn metadata_survives_what_chown_and_chmod_clear() {
    if !is_root("metadata") {
        return;
    }
    both(|_, root| {
        let xattrs = [("user.a", &b"1\n2\0"[..]), ("security.capability", &CAPABILITY)];
        let entry = Entry {
            mode: 0o6755,
            uid: 1234,
            gid: 70_000,
            mtime: Timestamp { secs: -2, nanos: 5 },
            xattrs: xattrs.iter().map(|(k, v)| (k.as_bytes().to_vec().into(), v.to_vec().into())).collect(),
            ..file(1)
        };
        assert_eq!(root.put(&path("x"), &entry, &mut &b"a"[..]).unwrap(), []);
        assert_eq!(root.entry(&path("x")).unwrap().unwrap(), entry);
        let directory = Entry { kind: Kind::Directory, xattrs: Default::default(), ..entry.clone() };
        let dressed = Entry {
            xattrs: entry.xattrs.iter().take(0).map(|(a, b)| (a.clone(), b.clone())).collect(),
            ..directory.clone()
        };
        let attributed =
            Entry { xattrs: [(b"user.b".to_vec().into(), b"x".to_vec().into())].into(), ..directory.clone() };
        for entry in [&attributed, &dressed, &directory] {
            root.put(&path("d"), entry, &mut io::empty()).unwrap();
            assert_eq!(root.entry(&path("d")).unwrap().as_ref(), Some(entry));
        }
        let device = Entry { kind: Kind::CharDevice { major: 1, minor: 3 }, xattrs: Default::default(), ..entry };
        assert_eq!(root.put(&path("null"), &device, &mut io::empty()).unwrap(), []);
        assert_eq!(root.entry(&path("null")).unwrap().unwrap(), device);
        let link = Entry { kind: Kind::Symlink { target: b"nowhere".to_vec() }, mode: 0o777, ..device };
        assert_eq!(root.put(&path("l"), &link, &mut io::empty()).unwrap(), []);
        assert_eq!(root.entry(&path("l")).unwrap().unwrap(), link, "its own owner and time");
    });
}

/// `cap_net_raw=ep`, version 2.
pub(crate) const CAPABILITY: [u8; 20] = [1, 0, 0, 2, 0, 0x20, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];

#[test]
fn attributes_that_the_file_system_refuses_are_reported() {
    if !is_root("owners") {
        return;
    }
    let (_dir, root) = temp();
    let entry = Entry { xattrs: [(b"nonsense.a".to_vec().into(), b"".to_vec().into())].into(), ..file(0) };
    let skipped = root.put(&path("x"), &entry, &mut io::empty()).unwrap();
    assert_eq!(skipped, [Skipped { path: path("x"), lost: Lost::Xattr(b"nonsense.a".to_vec().into()) }]);
}

#[test]
fn remove_takes_trees_and_links_but_not_what_links_lead_to() {
    both(|dir, root| {
        write(dir, "keep/file", "kept");
        write(dir, "gone/deep/er/file", "");
        symlink("../keep", dir.join("gone/link")).unwrap();
        root.remove(&path("gone")).unwrap();
        root.remove(&path("gone")).unwrap();
        root.remove(&path("keep/file/below")).unwrap();
        let lines = listing(root, false);
        assert!(lines.len() == 2 && lines[0].starts_with("keep "), "{lines:?}");
        root.remove(&RelPath::root()).unwrap();
        assert_eq!(listing(root, false), Vec::<String>::new());
    });
}

#[test]
fn sockets_are_absent() {
    let (dir, root) = temp();
    let _socket = std::os::unix::net::UnixListener::bind(dir.path().join("socket")).unwrap();
    assert_eq!(root.entry(&path("socket")).unwrap(), None);
    assert_eq!(root.entry(&path("absent/x")).unwrap(), None);
    assert_eq!(root.entry(&RelPath::root()).unwrap().unwrap().kind, Kind::Directory);
}

#[test]
fn what_is_found_is_inside_whatever_links_say() {
    both(|dir, root| {
        fs::create_dir_all(dir.join("a/b")).unwrap();
        fs::write(dir.join("a/b/f"), "inside").unwrap();
        for (link, target) in [("up", "../../../../a/b/f"), ("abs", "/a/b"), ("out", "/etc/passwd"), ("loop", "loop")] {
            symlink(target, dir.join(link)).unwrap();
        }
        let found = |name: &str| {
            let fd = root.find(&path(name))?;
            let stat = rustix::fs::statat(&fd, "", AtFlags::EMPTY_PATH).unwrap();
            Ok::<_, Error>(stat.st_ino)
        };
        let inode = |name: &str| std::os::unix::fs::MetadataExt::ino(&dir.join(name).metadata().unwrap());
        for name in ["up", "abs/f", "a/b/f"] {
            assert_eq!(found(name).unwrap(), inode("a/b/f"), "{name}");
        }
        assert_eq!(found("abs").unwrap(), inode("a/b"));
        assert_eq!(found("").unwrap(), inode(""));
        for name in ["out", "loop", "a/b/f/g", "absent"] {
            assert!(found(name).is_err(), "{name}");
        }
    });
}
