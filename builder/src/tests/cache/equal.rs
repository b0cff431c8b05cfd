//! Whatever was built before with the cache, and whatever was edited since: the image is the one that is made without it.

use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;

use super::*;

/// What is done to a context.
type Edit = fn(&Path);

fn write(root: &Path, name: &str, content: &str) {
    let path = root.join(name);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, content).unwrap();
}

fn start(root: &Path) {
    for (name, content) in [("d/one", "1"), ("d/two", "2"), ("d/deep/three", "3"), ("e/one", "other"), ("f", "f")] {
        write(root, name, content);
    }
    symlink("one", root.join("d/link")).unwrap();
    fs::hard_link(root.join("d/two"), root.join("d/twin")).unwrap();
    write(root, "etc/passwd", "app:x:7:7::/:\n");
    write(root, "etc/group", "app:x:7:\n");
    let mut archive = tar::Builder::new(fs::File::create(root.join("a.tar")).unwrap());
    for (name, content) in [("t/x", "x"), ("t/y", "y")] {
        let mut header = tar::Header::new_ustar();
        header.set_size(content.len() as u64);
        header.set_mode(0o640);
        archive.append_data(&mut header, name, content.as_bytes()).unwrap();
    }
    archive.finish().unwrap();
}

/// Each changes something, and the last takes it back.
const EDITS: [Edit; 9] = [
    |_| {},
    |root| write(root, "d/one", "changed"),
    |root| fs::rename(root.join("d/deep/three"), root.join("d/deep/third")).unwrap(),
    |root| fs::set_permissions(root.join("d/two"), fs::Permissions::from_mode(0o755)).unwrap(),
    |root| write(root, "etc/passwd", "app:x:8:8::/:\n"),
    |root| {
        fs::remove_file(root.join("d/link")).unwrap();
        symlink("two", root.join("d/link")).unwrap();
    },
    |root| write(root, "e/one", "again"),
    |root| {
        fs::remove_file(root.join("d/deep/third")).unwrap();
        write(root, "d/deep/third/below", "b");
    },
    |root| {
        fs::remove_dir_all(root.join("d")).unwrap();
        fs::remove_dir_all(root.join("e")).unwrap();
        start(root);
    },
];

/// Dockerfiles, each a variation of the one before.
const TEXTS: [&str; 14] = [
    "FROM HOST/first:1 AS a\nCOPY d /d\nWORKDIR /w\nFROM HOST/second:1\nCOPY --from=a /d /x\nCOPY f /f\n",
    // What is below differs, and what is copied does not.
    "FROM HOST/first:1 AS a\nCOPY e /e\nCOPY d /d\nWORKDIR /w\nFROM HOST/second:1\nCOPY --from=a /d /x\nCOPY f /f\n",
    "FROM HOST/first:1 AS a\nCOPY e /d\nCOPY d /d\nWORKDIR /w\nFROM HOST/second:1\nCOPY --from=a /d /x\nCOPY f /f\n",
    // The same files, one by one: the names of one file are none any more.
    "FROM HOST/first:1 AS a\nCOPY d /d\nFROM a AS b\nCOPY d/two /d/twin\nFROM HOST/second:1\nCOPY --from=b /d /x\nCOPY f /f\n",
    "FROM HOST/first:1 AS a\nCOPY d /d\nFROM HOST/second:1\nCOPY --link --from=a /d /x\nCOPY --link f /x/f\n",
    "FROM HOST/second:1 AS a\nCOPY d /d\nFROM HOST/first:1\nCOPY --link --from=a /d /x\nCOPY --link f /x/f\nCOPY f /x/f\n",
    "FROM HOST/first:1 AS a\nCOPY etc /etc\nFROM a\nCOPY --chown=app d /d\nWORKDIR /\nUSER app\nWORKDIR /of/app\n",
    "FROM HOST/first:1 AS a\nCOPY e /etc\nCOPY etc /etc\nFROM a\nCOPY --chown=app d /d\nWORKDIR /\nUSER app\nWORKDIR /of/app\n",
    "FROM HOST/first:1 AS a\nCOPY d /d\nFROM scratch\nCOPY --parents --exclude=*/two --from=a /d/deep /d/two /p/\nCOPY --from=a /d/* /q/\n",
    "FROM scratch AS a\nCOPY e /d\nCOPY d /d\nFROM scratch\nCOPY --parents --exclude=*/two --from=a /d/deep /d/two /p/\nCOPY --from=a /d/* /q/\n",
    "FROM HOST/first:1\nADD a.tar /u/\nCOPY --from=HOST/second:1 / /\nCOPY <<E /h\nheredoc\nE\n",
    "FROM HOST/second:1\nADD a.tar /u/\nCOPY --from=HOST/first:1 / /\nCOPY <<E /h\nheredoc\nE\nLABEL a=b\n",
    // Nothing is copied, and a directory is there already.
    "FROM HOST/first:1\nCOPY none* /n/\nCOPY d /d\nWORKDIR /d\nWORKDIR /d/deep\nCOPY d/deep .\n",
    "FROM HOST/first:1\nCOPY d/link d/twin /n/\nCOPY d /d\nCOPY d/link /d/deep\nWORKDIR /d/deep\nCOPY d/deep .\n",
];

#[tokio::test(flavor = "multi_thread")]
async fn a_build_with_a_cache_makes_the_image_of_one_without() {
    let bench = Bench::cached().await;
    let context = bench.directory.path().join("context");
    fs::create_dir(&context).unwrap();
    start(&context);
    let here = |request: &mut Request| request.context.clone_from(&context);
    let (mut cached, mut all) = (0, 0);
    for (number, edit) in EDITS.iter().enumerate() {
        edit(&context);
        // Another one is the first that meets what was edited.
        for text in TEXTS.iter().cycle().skip(3 * number).take(TEXTS.len()) {
            let with = bench.run(text, here).await;
            let without = bench.run(text, |request| {
                here(request);
                request.cache = None;
            });
            assert_eq!(with.built, without.await.built, "edit {number}: {text}\n{}", with.log);
            assert_eq!(with.ignored(), Vec::<&str>::new(), "edit {number}: {text}");
            cached += with.log.matches("] cached").count();
            all += with.log.matches(" done in ").count();
        }
    }
    assert!(cached > 50 && all > 50, "{cached} steps were in the cache, {all} were executed");
}

#[tokio::test(flavor = "multi_thread")]
async fn so_does_a_build_for_several_platforms() {
    let bench = Bench::cached().await.file("c", "c");
    let platforms = ["linux/amd64", "linux/arm64"];
    let mut text =
        "FROM --platform=$BUILDPLATFORM HOST/base:1 AS a\nCOPY a /a\nWORKDIR /w\nFROM HOST/base:1\nARG TARGETARCH\n\
                    COPY --from=a /a /$TARGETARCH\nCOPY --link b /b\n"
            .to_owned();
    for more in ["", "COPY c /c\n", "LABEL of=$TARGETARCH\n", "COPY --from=a /w /w\n"] {
        text.push_str(more);
        let mut digests = Vec::new();
        for cache in [Some(bench.settings()), None, Some(bench.settings())] {
            let mut request = bench.request(&text, &platforms);
            request.cache = cache;
            digests.push(bench.build(request).await.unwrap().digest);
        }
        assert!(digests.windows(2).all(|two| two[0] == two[1]), "{text}: {digests:?}");
    }
}
