//! Moving in and out, on directories that stand for `/`.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::os::fd::AsFd;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use yadokari_layers::RelPath;

use super::activate::{Filled, clear, fill};
use super::keep::Keep;
use super::park::drain;
use super::relocate::{count, restore};

/// Three directories: what stands for `/`, a stage, and where `/` waits meanwhile.
struct Scene {
    _temporary: tempfile::TempDir,
    live: PathBuf,
    stage: PathBuf,
    hold: PathBuf,
    keep: Keep,
}

impl Scene {
    fn new(pinned: &[&str], mounts: &[&str]) -> Self {
        let temporary = tempfile::tempdir().unwrap();
        let [live, stage, hold] = ["live", "stage", "hold"].map(|name| temporary.path().join(name));
        for path in [&live, &stage, &hold] {
            fs::create_dir(path).unwrap();
        }
        let pinned: Vec<PathBuf> = pinned.iter().map(PathBuf::from).collect();
        let keep = Keep::of(&pinned, mounts.iter().map(Path::new));
        Self { _temporary: temporary, live, stage, hold, keep }
    }

    fn activate(&self) -> Filled {
        let [live, stage, hold] = [&self.live, &self.stage, &self.hold].map(|path| File::open(path).unwrap());
        let mut filled = Filled::default();
        clear(live.as_fd(), hold.as_fd(), &RelPath::root(), &self.keep).unwrap();
        fill(stage.as_fd(), live.as_fd(), &RelPath::root(), &self.keep, &mut filled).unwrap();
        filled
    }

    fn park(&self) -> Vec<RelPath> {
        let [live, stage, hold] = [&self.live, &self.stage, &self.hold].map(|path| File::open(path).unwrap());
        let mut lost = Vec::new();
        drain(live.as_fd(), Some(stage.as_fd()), &RelPath::root(), &self.keep, &mut lost).unwrap();
        restore(hold.as_fd(), live.as_fd()).unwrap();
        lost
    }
}

/// Makes files, and directories for names that end with a slash; all of them old.
fn make(root: &Path, names: &[&str]) {
    for name in names {
        let path = root.join(name.trim_start_matches('/'));
        if name.ends_with('/') {
            fs::create_dir_all(&path).unwrap();
        } else {
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(&path, name).unwrap();
        }
    }
    for (at, path) in walk(root).into_keys().enumerate().collect::<Vec<_>>().into_iter().rev() {
        let old = std::time::UNIX_EPOCH + std::time::Duration::from_secs(1_000_000 + at as u64);
        File::open(root.join(path)).unwrap().set_modified(old).unwrap();
    }
}

/// Everything below a directory, itself included, with mode and time.
fn walk(root: &Path) -> BTreeMap<PathBuf, (u32, i64, i64)> {
    let mut found = BTreeMap::new();
    let mut todo = vec![root.to_owned()];
    while let Some(path) = todo.pop() {
        let metadata = fs::symlink_metadata(&path).unwrap();
        let said = (metadata.mode(), metadata.mtime(), metadata.mtime_nsec());
        found.insert(path.strip_prefix(root).unwrap().to_owned(), said);
        if metadata.is_dir() {
            todo.extend(fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
        }
    }
    found
}

fn names(root: &Path) -> Vec<String> {
    walk(root).into_keys().skip(1).map(|path| path.to_string_lossy().into_owned()).collect()
}

#[test]
fn everything_comes_back_to_the_nanosecond() {
    let scene = Scene::new(&["/kaniko", "/project/ctx"], &["/proc", "/run/secrets"]);
    make(
        &scene.live,
        &["kaniko/bin", "proc/1", "etc/hosts", "run/secrets/token", "run/other", "project/ctx/f", "project/g"],
    );
    make(&scene.stage, &["bin/sh", "etc/passwd", "proc/", "run/lock", "usr/lib/x"]);
    fs::set_permissions(scene.live.join("project"), fs::Permissions::from_mode(0o711)).unwrap();
    let before = (walk(&scene.live), walk(&scene.stage));
    let filled = scene.activate();
    let seen = names(&scene.live);
    for there in ["bin/sh", "etc/passwd", "kaniko/bin", "proc/1", "usr/lib/x", "project/ctx/f"] {
        assert!(seen.iter().any(|name| name == there), "{there} in {seen:?}");
    }
    for gone in ["etc/hosts", "project/g"] {
        assert!(!seen.iter().any(|name| name == gone), "{gone} in {seen:?}");
    }
    assert!(filled.hidden.is_empty());
    assert!(scene.park().is_empty());
    assert_eq!((walk(&scene.live), walk(&scene.stage)), before);
    assert_eq!(names(&scene.hold), Vec::<String>::new());
}

#[test]
fn what_a_run_makes_goes_into_the_image_wherever_it_is() {
    let scene = Scene::new(&["/kaniko", "/project/ctx"], &[]);
    make(&scene.live, &["kaniko/bin", "project/ctx/f"]);
    make(&scene.stage, &["bin/sh"]);
    scene.activate();
    fs::create_dir(scene.live.join("new")).unwrap();
    fs::write(scene.live.join("project/made"), "").unwrap();
    fs::remove_dir_all(scene.live.join("bin")).unwrap();
    scene.park();
    assert_eq!(names(&scene.stage), ["new", "project", "project/made"]);
    assert_eq!(names(&scene.live), ["kaniko", "kaniko/bin", "project", "project/ctx", "project/ctx/f"]);
}

#[test]
fn what_has_no_place_in_the_image_is_named() {
    let scene = Scene::new(&["/project/ctx"], &[]);
    make(&scene.live, &["project/ctx/f"]);
    make(&scene.stage, &["project", "bin/sh"]);
    let hidden: Vec<String> = scene.activate().hidden.iter().map(ToString::to_string).collect();
    assert_eq!(hidden, ["project"]);
    fs::write(scene.live.join("project/made"), "").unwrap();
    let lost: Vec<String> = scene.park().iter().map(ToString::to_string).collect();
    assert_eq!(lost, ["project/made"]);
    assert_eq!(names(&scene.stage), ["bin", "bin/sh", "project"]);
}

#[test]
fn a_link_of_the_image_where_the_container_has_a_mount_waits() {
    let scene = Scene::new(&["/usr/lib/driver/lib.so"], &[]);
    make(&scene.live, &["usr/lib/driver/lib.so"]);
    make(&scene.stage, &["bin/sh", "usr/lib64/theirs"]);
    std::os::unix::fs::symlink("lib64", scene.stage.join("usr/lib")).unwrap();
    let before = names(&scene.stage);
    let hidden: Vec<String> = scene.activate().hidden.iter().map(ToString::to_string).collect();
    assert_eq!(hidden, ["usr/lib"]);
    assert!(scene.live.join("usr/lib/driver/lib.so").is_file() && scene.live.join("usr/lib64/theirs").is_file());
    assert!(scene.park().is_empty());
    assert_eq!(names(&scene.stage), before);
}

#[test]
fn what_an_image_has_in_our_own_directory_waits_and_is_named() {
    let scene = Scene::new(&["/kaniko"], &[]);
    make(&scene.live, &["kaniko/executor"]);
    make(&scene.stage, &["bin/sh", "kaniko/executor", "kaniko/theirs"]);
    let hidden: Vec<String> = scene.activate().hidden.iter().map(ToString::to_string).collect();
    assert_eq!(hidden, ["kaniko"]);
    assert_eq!(names(&scene.live), ["bin", "bin/sh", "kaniko", "kaniko/executor"]);
    assert!(scene.park().is_empty());
    assert_eq!(names(&scene.stage), ["bin", "bin/sh", "kaniko", "kaniko/executor", "kaniko/theirs"]);
}

#[test]
fn a_move_that_stopped_half_way_is_joined() {
    let scene = Scene::new(&[], &[]);
    make(&scene.live, &["usr/lib/a", "var/x"]);
    let before = walk(&scene.live);
    // As an entry-by-entry move leaves it when it is killed.
    let usr = fs::metadata(scene.live.join("usr")).unwrap();
    fs::create_dir(scene.hold.join("usr")).unwrap();
    fs::rename(scene.live.join("usr/lib"), scene.hold.join("usr/lib")).unwrap();
    File::open(scene.hold.join("usr")).unwrap().set_modified(usr.modified().unwrap()).unwrap();
    let root = File::open(&scene.live).unwrap();
    File::open(&scene.hold).unwrap().set_modified(root.metadata().unwrap().modified().unwrap()).unwrap();
    restore(File::open(&scene.hold).unwrap().as_fd(), root.as_fd()).unwrap();
    assert_eq!(walk(&scene.live), before);
}

#[test]
fn counting_stops_at_the_limit_and_passes_over_what_stays() {
    let scene = Scene::new(&[], &[]);
    make(&scene.live, &["a/1", "a/2", "b/3", "c"]);
    let live = File::open(&scene.live).unwrap();
    let counted = |limit, skipped: &str| {
        count(live.as_fd(), &RelPath::root(), limit, &|path| path.as_bytes() == skipped.as_bytes()).unwrap()
    };
    assert_eq!(counted(100, "none"), 6);
    assert_eq!(counted(100, "a"), 3);
    assert!((3..=5).contains(&counted(2, "none")));
}
