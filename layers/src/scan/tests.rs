use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;

use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};

use super::snapshot::Listing;
use super::*;
use crate::testing::{is_root, path, temp, write};
use crate::{RelPath, Root};

fn take(root: &Root) -> Snapshot {
    scan(root, None).unwrap()
}

fn paths(names: &[&str]) -> BTreeSet<RelPath> {
    names.iter().map(|name| path(name)).collect()
}

fn candidates(changed: &[&str], deleted: &[&str]) -> Candidates {
    Candidates { changed: paths(changed), deleted: paths(deleted) }
}

fn fill(dir: &Path) {
    for name in ["a/x", "a/y", "a/sub/deep/z", "a-b", "b/x", "c"] {
        write(dir, name, "1234");
    }
    symlink("a", dir.join("l")).unwrap();
}

#[test]
fn every_change_is_a_candidate() {
    type Case = (&'static str, fn(&Path), &'static [&'static str], &'static [&'static str]);
    let cases: &[Case] = &[
        ("nothing", |_| (), &[], &[]),
        ("content", |d| fs::write(d.join("a/x"), "4321").unwrap(), &["a/x"], &[]),
        ("mode", |d| fs::set_permissions(d.join("c"), PermissionsExt::from_mode(0o600)).unwrap(), &["c"], &[]),
        ("new", |d| write(d, "b/n/x", ""), &["b", "b/n", "b/n/x"], &[]),
        ("delete", |d| fs::remove_file(d.join("a/x")).unwrap(), &["a"], &["a/x"]),
        ("delete a tree", |d| fs::remove_dir_all(d.join("a")).unwrap(), &[], &["a"]),
        ("link", |d| fs::hard_link(d.join("c"), d.join("b/c")).unwrap(), &["b", "b/c", "c"], &[]),
        (
            "rename",
            |d| fs::rename(d.join("a/sub"), d.join("b/sub")).unwrap(),
            &["a", "b", "b/sub", "b/sub/deep", "b/sub/deep/z"],
            &["a/sub"],
        ),
        (
            "file to directory",
            |d| {
                fs::remove_file(d.join("c")).unwrap();
                write(d, "c/x", "");
            },
            &["c", "c/x"],
            &[],
        ),
        (
            "directory to file",
            |d| {
                fs::remove_dir_all(d.join("a")).unwrap();
                write(d, "a", "");
            },
            &["a"],
            &[],
        ),
        (
            "recreated",
            |d| {
                fs::remove_dir_all(d.join("a")).unwrap();
                write(d, "a/sub/new", "");
            },
            &["a", "a/sub", "a/sub/new"],
            &["a/sub/deep", "a/x", "a/y"],
        ),
        (
            "symlink",
            |d| {
                fs::remove_file(d.join("l")).unwrap();
                symlink("b", d.join("l")).unwrap();
            },
            &["l"],
            &[],
        ),
    ];
    for (name, change, changed, deleted) in cases {
        let (dir, root) = temp();
        fill(dir.path());
        let before = take(&root);
        assert_eq!(before.len(), 11);
        wait_for_clock(before.newest_ctime());
        change(dir.path());
        let after = take(&root);
        assert_eq!(before.diff(&after), candidates(changed, deleted), "{name}");
        assert_eq!(after.diff(&after.clone()), Candidates::default(), "{name}");
        let again = scan(&root, Some(&before)).unwrap();
        assert_eq!(again.listings, after.listings, "{name}");
        assert_eq!((again.newest, again.mounts), (after.newest, after.mounts), "{name}");
    }
}

#[test]
fn names_in_what_is_the_same_directory_are_not_read_again() {
    let (dir, root) = temp();
    if !walk::tells_names_by_times(&root.open_dir(&RelPath::root()).unwrap()).unwrap() {
        println!("names that are not read again: skipped, since nothing is known of this file system");
        return;
    }
    fill(dir.path());
    let truth = take(&root);
    let mut before = truth.clone();
    // A name that is in neither snapshot can only be found by reading.
    before.listings.insert(path("a"), Listing::new(vec![(b"x".to_vec(), *before.key("a/x").unwrap())]));
    let after = scan(&root, Some(&before)).unwrap();
    assert_eq!(after.listings[&path("a")].len(), 1);
    assert_eq!(after.listings[&path("b")], truth.listings[&path("b")]);
    assert!(after.listings[&path("b")].is_shared_with(&before.listings[&path("b")]), "it is there once");

    wait_for_clock(before.newest_ctime());
    write(dir.path(), "a/new", "");
    assert_eq!(scan(&root, Some(&before)).unwrap().listings[&path("a")].len(), 4);
}

#[test]
fn a_name_that_is_not_to_be_had_has_its_directory_read() {
    let (dir, root) = temp();
    fill(dir.path());
    let mut before = take(&root);
    let key = *before.key("a/x").unwrap();
    before.listings.insert(path("a"), Listing::new(vec![(b"absent".to_vec(), key)]));
    assert_eq!(scan(&root, Some(&before)).unwrap().listings, take(&root).listings);
}

#[test]
fn a_rewrite_with_a_restored_time_is_seen() {
    let (dir, root) = temp();
    for round in 0..100 {
        write(dir.path(), "f", "1234");
        let before = take(&root);
        let entry = root.entry(&path("f")).unwrap().unwrap();
        wait_for_clock(before.newest_ctime());
        fs::write(dir.path().join("f"), "4321").unwrap();
        root.set_times(&path("f"), entry.mtime).unwrap();
        assert_eq!(before.diff(&take(&root)), candidates(&["f"], &[]), "{round}");
    }
}

#[test]
fn a_forgiven_change_is_none_but_what_is_below_still_counts() {
    let (dir, root) = temp();
    fill(dir.path());
    let mut before = take(&root);
    wait_for_clock(before.newest_ctime());
    fs::rename(dir.path().join("a"), dir.path().join("parked")).unwrap();
    fs::rename(dir.path().join("parked"), dir.path().join("a")).unwrap();
    fs::write(dir.path().join("a/x"), "4321").unwrap();
    let after = scan(&root, Some(&before)).unwrap();
    assert_eq!(before.diff(&after), candidates(&["a", "a/x"], &[]));
    before.forgive(&path("a"), &after);
    // Nothing became of this one, and both snapshots share it.
    before.forgive(&path("b/x"), &after);
    before.forgive(&path("absent/x"), &after);
    assert_eq!(before.diff(&after), candidates(&["a/x"], &[]));
}

#[test]
fn mount_points_are_passed_over_and_contents_on_tmpfs_are_read() {
    if !is_root("mount points") {
        return;
    }
    let (dir, root) = temp();
    fill(dir.path());
    let before = take(&root);
    let at = dir.path().join("b");
    if let Err(errno) = mount("tmpfs", &at, "tmpfs", MountFlags::empty(), None) {
        println!("mount points: skipped, since mounting is refused: {errno}");
        return;
    }
    fs::write(at.join("hidden"), "1234").unwrap();
    let after = scan(&root, Some(&before)).unwrap();
    let inside = Root::open(&at).unwrap();
    let (first, again) = (take(&inside), take(&inside));
    unmount(&at, UnmountFlags::DETACH).unwrap();
    assert_eq!(after.len(), before.len() - 2);
    // What the mount covered has come to light in a directory whose times say nothing of it.
    assert_eq!(scan(&root, Some(&after)).unwrap().listings, before.listings);
    assert_eq!(before.diff(&after), Candidates::default());
    assert_eq!(after.diff(&before), Candidates::default());
    let is_hashed = |snapshot: &Snapshot, name| snapshot.key(name).unwrap().content != 0;
    assert!(is_hashed(&first, "hidden") && !is_hashed(&before, "a/x"));
    assert_eq!(first.diff(&again), Candidates::default());
}

#[test]
fn deep_and_wide_directories_are_walked() {
    let (dir, root) = temp();
    let deep = vec!["d"; 500].join("/");
    write(dir.path(), &format!("{deep}/file"), "");
    (0..3000).for_each(|n| fs::create_dir(dir.path().join(n.to_string())).unwrap());
    assert_eq!(take(&root).len(), 3501);
}

#[test]
fn the_clock_passes() {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Realtime);
    let newest = Timestamp { secs: now.tv_sec, nanos: now.tv_nsec as u32 };
    wait_for_clock(newest);
    let then = rustix::time::clock_gettime(rustix::time::ClockId::RealtimeCoarse);
    assert!((then.tv_sec, then.tv_nsec) > (newest.secs, newest.nanos.into()));
    wait_for_clock(Timestamp { secs: i64::MAX, nanos: 0 });
}
