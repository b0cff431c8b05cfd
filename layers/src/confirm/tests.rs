//! The same steps on a plain directory and on an overlay mount must give the same layer.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::Path;
use std::process::Command;

use rustix::fs::XattrFlags;
use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};

use super::*;
use crate::apply::apply;
use crate::materialise::{Source, materialise};
use crate::pack::{Options, pack};
use crate::scan::{scan, wait_for_clock};
use crate::testing::{Hostile, is_root, listing, path, source, temp, write};
use crate::upper::{fold, upper};
use crate::{Compression, tar};

/// What a RUN does, and what the layer then says: `x/` is a directory, `-x` a whiteout, `x = y` a hard link.
type Case = (&'static str, fn(&Path), &'static [&'static str]);

const CASES: &[Case] = &[
    ("nothing", |_| (), &[]),
    ("create", |r| write(r, "d/new", "x"), &["d/", "d/new"]),
    ("create deep", |r| write(r, "d/e/f/new", "x"), &["d/", "d/e/", "d/e/f/", "d/e/f/new"]),
    ("same size, time restored", |r| rewrite(r, "d/f", "tnetnoc"), &["d/", "d/f"]),
    ("same content, time restored", |r| rewrite(r, "d/f", "content"), &[]),
    ("append", |r| sh(r, "echo more >> d/f"), &["d/", "d/f"]),
    ("chmod", |r| mode(r, "d/f", 0o600), &["d/", "d/f"]),
    ("chmod to the same", |r| mode(r, "d/f", 0o644), &[]),
    ("chmod a directory", |r| mode(r, "d/sub", 0o700), &["d/", "d/sub/"]),
    ("chmod an implied directory", |r| mode(r, "implied", 0o700), &["implied/"]),
    ("setuid", |r| mode(r, "d/f", 0o4755), &["d/", "d/f"]),
    ("chown", |r| chown(r.join("d/f"), Some(7), Some(70_000)).unwrap(), &["d/", "d/f"]),
    ("chown a link", |r| sh(r, "chown -h 7:8 d/l"), &["d/", "d/l -> f"]),
    ("delete", |r| fs::remove_file(r.join("d/f")).unwrap(), &["d/", "-d/f"]),
    ("delete at the top", |r| fs::remove_file(r.join("top")).unwrap(), &["-top"]),
    ("delete a tree", |r| fs::remove_dir_all(r.join("t")).unwrap(), &["-t"]),
    ("delete and recreate", |r| sh(r, "rm -rf t && mkdir t && echo x > t/new"), &["t/", "t/new", "-t/sub", "-t/x"]),
    (
        "delete and recreate nested",
        |r| sh(r, "rm -rf t && mkdir -p t/sub/deep && echo x > t/sub/deep/new"),
        &["t/", "t/sub/", "t/sub/deep/", "t/sub/deep/new", "-t/sub/deep/z", "-t/sub/y", "-t/x"],
    ),
    ("recreate the same", |r| sh(r, "cp -a t u && rm -rf t && mv u t"), &[]),
    ("file to directory", |r| sh(r, "rm d/f && mkdir d/f && echo x > d/f/g"), &["d/", "d/f/", "d/f/g"]),
    ("directory to file", |r| sh(r, "rm -rf t/sub && echo x > t/sub"), &["t/", "t/sub"]),
    ("directory to link", |r| sh(r, "rm -rf t/sub && ln -s ../d t/sub"), &["t/", "t/sub -> ../d"]),
    ("link to directory", |r| sh(r, "rm d/l && mkdir d/l"), &["d/", "d/l/"]),
    ("link changed", |r| sh(r, "ln -sfn elsewhere d/l"), &["d/", "d/l -> elsewhere"]),
    ("hard link added", |r| sh(r, "ln d/f t/g"), &["d/", "d/f", "t/", "t/g = d/f"]),
    ("hard link added before", |r| sh(r, "ln d/f d/a"), &["d/", "d/a", "d/f = d/a"]),
    ("hard link pair", |r| sh(r, "echo x > n && ln n m"), &["m", "n = m"]),
    ("first name removed", |r| sh(r, "rm h1"), &["-h1"]),
    ("second name removed", |r| sh(r, "rm h2"), &["-h2"]),
    ("hard link broken", |r| sh(r, "cp -p h2 n && mv n h2"), &[]),
    ("rename", |r| sh(r, "mv d/f t/f"), &["d/", "-d/f", "t/", "t/f"]),
    (
        "rename a directory",
        |r| sh(r, "mv t/sub d/moved"),
        &["d/", "d/moved/", "d/moved/deep/", "d/moved/deep/z", "d/moved/y", "t/", "-t/sub"],
    ),
    ("touch a file", |r| sh(r, "touch d/f"), &["d/", "d/f"]),
    ("touch a directory", |r| sh(r, "touch t/sub"), &["t/", "t/sub/"]),
    ("come and go", |r| sh(r, "echo > t/x2 && rm t/x2"), &["t/"]),
    ("open for writing", |r| sh(r, ": >> d/f"), &[]),
    ("capability", |r| capability(&r.join("d/f")), &["d/", "d/f"]),
    ("user attribute on a directory", |r| attribute(&r.join("t/sub"), "user.x", b"1"), &["t/", "t/sub/"]),
    ("empty directory", |r| fs::create_dir(r.join("empty")).unwrap(), &["empty/"]),
    (
        "device",
        |r| sh(r, "mknod d/null c 1 3 && mkfifo d/p"),
        &["d/", "d/null CharDevice { major: 1, minor: 3 }", "d/p Fifo"],
    ),
    ("socket", |r| socket(&r.join("d/s")), &["d/"]),
    ("socket for a file", |r| socket_for(&r.join("top")), &["-top"]),
    ("empty a directory", |r| sh(r, "rm -rf t/sub t/x"), &["t/", "-t/sub", "-t/x"]),
];

fn sh(root: &Path, script: &str) {
    let status = Command::new("sh").arg("-ec").arg(script).current_dir(root).status().unwrap();
    assert!(status.success(), "{script}");
}

fn mode(root: &Path, name: &str, mode: u32) {
    fs::set_permissions(root.join(name), PermissionsExt::from_mode(mode)).unwrap();
}

fn rewrite(root: &Path, name: &str, content: &str) {
    let modified = fs::metadata(root.join(name)).unwrap().modified().unwrap();
    fs::write(root.join(name), content).unwrap();
    fs::File::options().write(true).open(root.join(name)).unwrap().set_modified(modified).unwrap();
}

fn attribute(path: &Path, name: &str, value: &[u8]) {
    rustix::fs::setxattr(path, name, value, XattrFlags::empty()).unwrap();
}

fn capability(path: &Path) {
    attribute(path, "security.capability", &[1, 0, 0, 2, 0, 0x20, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
}

fn socket(path: &Path) {
    drop(std::os::unix::net::UnixListener::bind(path).unwrap());
}

fn socket_for(path: &Path) {
    fs::remove_file(path).unwrap();
    socket(path);
}

fn base() -> Vec<u8> {
    Hostile::default()
        .dir("d")
        .dir("d/e")
        .dir("d/e/f")
        .file("d/f", "content")
        .symlink("d/l", "f")
        .dir("d/sub")
        .dir("t")
        .file("t/x", "x")
        .dir("t/sub")
        .file("t/sub/y", "y")
        .dir("t/sub/deep")
        .file("t/sub/deep/z", "z")
        .file("h1", "linked")
        .hardlink("h2", "h1")
        .file("top", "top")
        .file("implied/file", "i")
        .end()
}

fn tree() -> Tree {
    Tree::of([Arc::new(tar::index(&base()[..]).unwrap())])
}

fn fill(root: &Root) {
    materialise(root, vec![source(&base(), false)]).unwrap();
}

fn shown(changes: &Changes) -> Vec<String> {
    let show = |(path, change): (&RelPath, &Change)| match change {
        Change::Delete => format!("-{path}"),
        Change::Put(entry, _) => match &entry.kind {
            Kind::File { .. } => path.to_string(),
            Kind::Directory => format!("{path}/"),
            Kind::Symlink { target } => format!("{path} -> {}", String::from_utf8_lossy(target)),
            Kind::Hardlink { target } => format!("{path} = {target}"),
            kind => format!("{path} {kind:?}"),
        },
    };
    changes.iter().map(show).collect()
}

/// The digest of the layer. The two states are made at different times, so that new times are clamped.
fn digest(changes: &Changes) -> Option<Digest> {
    let blobs = tempfile::tempdir().unwrap();
    let options = Options { compression: Compression::None, level: None, clamp: Some(2_000_000) };
    pack(changes, &options, blobs.path()).unwrap().map(|layer| layer.digest)
}

/// Runs on a plain directory. The directory is given back as it is afterwards.
fn plain(run: fn(&Path)) -> (tempfile::TempDir, Arc<Root>, Changes) {
    let (dir, root) = temp();
    let root = Arc::new(root);
    fill(&root);
    let before = scan(&root, None).unwrap();
    wait_for_clock(before.newest_ctime());
    run(dir.path());
    let after = scan(&root, Some(&before)).unwrap();
    let changes = confirm(&root, &tree(), &before.diff(&after)).unwrap();
    (dir, root, changes)
}

/// Runs on an overlay mount. Gives the lower and the upper directory back, not mounted any more.
fn overlay(run: fn(&Path), options: &str) -> Option<(tempfile::TempDir, Arc<Root>, Changes)> {
    let dir = tempfile::tempdir().unwrap();
    for name in ["lower", "upper", "work", "merged"] {
        fs::create_dir(dir.path().join(name)).unwrap();
    }
    fill(&Root::open(&dir.path().join("lower")).unwrap());
    let at = |name: &str| dir.path().join(name).display().to_string();
    let data = format!("lowerdir={},upperdir={},workdir={}{options}", at("lower"), at("upper"), at("work"));
    let data = std::ffi::CString::new(data).unwrap();
    let merged = dir.path().join("merged");
    if let Err(errno) = mount("overlay", &merged, "overlay", MountFlags::empty(), Some(&*data)) {
        println!("overlay{options}: skipped, since mounting is refused: {errno}");
        return None;
    }
    let outcome = std::panic::catch_unwind(|| run(&merged));
    // What another test starts has our open files for a moment, between its fork and its exec.
    let mut tries = 0;
    while let Err(errno) = unmount(&merged, UnmountFlags::empty()) {
        assert!(errno == rustix::io::Errno::BUSY && tries < 500, "unmount: {errno}");
        tries += 1;
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
    outcome.unwrap();
    let root = Arc::new(Root::open(&dir.path().join("upper")).unwrap());
    let changes = confirm(&root, &tree(), &upper(&root, &tree()).unwrap()).unwrap();
    Some((dir, root, changes))
}

const OVERLAYS: [&str; 2] = [",redirect_dir=off,metacopy=off,index=off", ",userxattr"];

#[test]
fn a_plain_directory_and_an_overlay_give_the_same_layer() {
    if !is_root("drivers") {
        return;
    }
    for (name, run, expected) in CASES {
        let (_dir, _, changes) = plain(*run);
        assert_eq!(shown(&changes), sorted(expected), "{name}, plain");
        for options in OVERLAYS {
            let Some((_dir, _, overlaid)) = overlay(*run, options) else { continue };
            assert_eq!(shown(&overlaid), sorted(expected), "{name}, overlay{options}");
            assert_eq!(digest(&overlaid), digest(&changes), "{name}, overlay{options}");
        }
    }
}

/// By path, as changes are.
fn sorted(lines: &[&str]) -> Vec<String> {
    let mut lines: Vec<String> = lines.iter().map(|line| (*line).to_owned()).collect();
    lines.sort_by_key(|line| {
        line.trim_start_matches('-').split(' ').next().map(|path| path.trim_end_matches('/').to_owned())
    });
    lines
}

/// Sockets are in no layer; inodes that lost or gained names are as they are.
fn comparable(root: &Root) -> Vec<String> {
    listing(root, false).into_iter().filter(|line| !line.ends_with("socket")).collect()
}

#[test]
fn the_layer_on_top_of_the_base_is_the_state_after_the_run() {
    if !is_root("layers") {
        return;
    }
    for (name, run, _) in CASES.iter().filter(|(name, ..)| *name != "hard link broken") {
        let (_dir, after, changes) = plain(*run);
        let (_copy, copy) = temp();
        fill(&copy);
        apply(&changes, &copy).unwrap();
        assert_eq!(comparable(&copy), comparable(&after), "{name}, applied");

        let (layer, index) = tar::write(&changes, None, Vec::new()).unwrap();
        for is_known in [false, true] {
            let layer = Source { index: Some(Arc::new(index.clone())), ..source(&layer, false) };
            let (_fresh, fresh) = temp();
            materialise(&fresh, vec![source(&base(), is_known), layer]).unwrap();
            assert_eq!(comparable(&fresh), comparable(&after), "{name}, materialised");
        }
    }
}

#[test]
fn a_folded_upper_makes_the_lower_what_the_mount_showed() {
    if !is_root("fold") {
        return;
    }
    for (name, run, _) in CASES {
        let (_dir, after, _) = plain(*run);
        for options in OVERLAYS {
            let Some((dir, upper, _)) = overlay(*run, options) else { continue };
            let lower = Root::open(&dir.path().join("lower")).unwrap();
            fold(&upper, &lower).unwrap();
            let links = |lines: Vec<String>| -> Vec<String> {
                // Linking to a lower file copies it up; the lower's other names stay with the old inode.
                lines.into_iter().map(|line| line.replace(" x2 ", " x1 ")).collect()
            };
            assert_eq!(links(comparable(&lower)), links(comparable(&after)), "{name}, overlay{options}");
            let attributes =
                Command::new("getfattr").args(["-R", "-m", "overlay", "-h"]).arg(dir.path().join("lower")).output();
            assert!(attributes.is_ok_and(|out| out.stdout.is_empty()) || !Path::new("/usr/bin/getfattr").exists());
        }
    }
}

#[test]
fn an_upper_on_another_file_system_is_copied() {
    if !is_root("copy") {
        return;
    }
    let shm = Path::new("/dev/shm");
    let Ok(elsewhere) = tempfile::tempdir_in(shm) else {
        println!("copy: skipped, since there is no /dev/shm");
        return;
    };
    let upper = Root::open(elsewhere.path()).unwrap();
    let (dir, lower) = temp();
    write(elsewhere.path(), "d/a", "linked");
    sh(elsewhere.path(), "ln d/a b && mknod gone c 0 0 && mkdir file && echo x > dir && chmod 640 dir");
    write(dir.path(), "gone/x", "");
    write(dir.path(), "file", "");
    write(dir.path(), "dir/x", "");
    fold(&upper, &lower).unwrap();
    let lines = listing(&lower, false);
    let starts: Vec<&str> = lines.iter().map(|line| line.split(" {").next().unwrap()).collect();
    assert_eq!(
        starts,
        [
            "b 644 0:0 \"linked\" x2",
            "d 755 0:0 Directory",
            "d/a 644 0:0 \"linked\" x2",
            "dir 640 0:0 \"x\\n\" x1",
            "file 755 0:0 Directory",
        ]
    );
}

#[test]
fn whiteouts_in_the_form_of_attributes_are_understood() {
    let (dir, root) = temp();
    write(dir.path(), "t/x", "");
    write(dir.path(), "t/kept", "");
    attribute(&dir.path().join("t"), "user.overlay.opaque", b"x");
    attribute(&dir.path().join("t/x"), "user.overlay.whiteout", b"");
    let found = upper(&root, &tree()).unwrap();
    assert_eq!(found.changed, BTreeSet::from([path("t"), path("t/kept")]));
    assert_eq!(found.deleted, BTreeSet::from([path("t/x")]));
}

#[test]
fn a_redirected_directory_is_refused() {
    let (dir, root) = temp();
    fs::create_dir(dir.path().join("moved")).unwrap();
    attribute(&dir.path().join("moved"), "user.overlay.redirect", b"/t");
    assert!(upper(&root, &tree()).unwrap_err().to_string().contains("'moved'"));
}

#[test]
fn times_beyond_the_clamp_are_equal() {
    let (dir, root) = temp();
    let root = Arc::new(root);
    write(dir.path(), "f", "x");
    mode(dir.path(), "f", 0o644);
    let mut changes = Changes::new();
    let entry = Entry { mtime: Timestamp::from_secs(100), ..root.entry(&path("f")).unwrap().unwrap() };
    changes.put(path("f"), entry, Content::Bytes((*b"x").into()));
    let tree = Tree::of([Arc::new(tar::write(&changes, None, std::io::sink()).unwrap().1)]);
    let candidates = Candidates { changed: [path("f")].into(), ..Default::default() };
    assert_eq!(shown(&confirm(&root, &tree, &candidates).unwrap()), ["f"]);
    assert_eq!(shown(&confirm_clamped(&root, &tree, &candidates, Some(100)).unwrap()), [""; 0]);
}
