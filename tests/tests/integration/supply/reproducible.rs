//! That the executable, and the image around it, do not depend on where and when they are made.
//!
//! That two builds give one executable takes two builds: the example `reproducible` makes them.

use std::fs::{self, File, FileTimes, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use yadokari_tests::{
    Commit, Context, Executor, PATIENCE, Result, Shipped, Tag, cache, capture, holds, run, workspace,
};

use super::shipped;

/// Directories of this machine that compilers are told of.
fn places() -> Result<Vec<PathBuf>> {
    let cargo = std::env::var_os("CARGO_HOME").map(PathBuf::from);
    let home = std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".cargo"));
    let sysroot = run("rustc", ["--print", "sysroot"])?.stdout;
    let named = [Some(workspace()), Some(cache::target()), cargo, home, Some(PathBuf::from(sysroot.trim()))];
    Ok(named.into_iter().flatten().collect())
}

#[test]
fn the_executable_holds_no_path_of_the_machine_that_built_it() -> Result<()> {
    let program = fs::read(Executor::build()?.program()).unwrap();
    let found: Vec<_> = places()?.into_iter().filter(|place| holds(&program, &place.to_string_lossy())).collect();
    assert!(found.is_empty(), "{found:?}");
    // What stands for them is there: panics say where they are, and C code does.
    for instead in ["/crates/", "/rustc/"] {
        assert!(holds(&program, instead), "{instead}");
    }
    Ok(())
}

/// What is read of an image without a registry: its digest.
fn digest(executor: &Executor, tag: Tag, jobs: &str) -> Result<String> {
    let commit = Commit { id: "0123456789abcdef0123456789abcdef01234567".into(), time: "1700000000".into() };
    let file = Context::new()?;
    let path = file.path().join("digest");
    let mut build = executor.image(tag, Some(&commit));
    build.args(["--no-push", "--jobs", jobs, "--destination", "example.com/executor", "--digest-file"]).arg(&path);
    capture(&mut build, PATIENCE)?.ok("the build of the image")?;
    Ok(fs::read_to_string(path).unwrap())
}

#[test]
fn the_image_of_one_executable_is_the_same_whoever_assembles_it_and_when() -> Result<()> {
    let shipped = shipped()?;
    // As a build under another umask, a day later, would leave it.
    let other = Context::new()?;
    let executable = other.path().join("executor");
    fs::copy(&shipped.executable, &executable).unwrap();
    fs::set_permissions(&executable, Permissions::from_mode(0o700)).unwrap();
    let later = Shipped { executable, ..shipped.clone() };
    let (one, two) = (Context::new()?, Context::new()?);
    let first = Executor::assemble(&shipped, one.path())?;
    let second = Executor::assemble(&later, two.path())?;
    let tomorrow = SystemTime::now() + Duration::from_secs(86_400);
    for entry in walkdir::WalkDir::new(two.path()).into_iter().flatten().filter(|entry| !entry.path_is_symlink()) {
        File::open(entry.path()).unwrap().set_times(FileTimes::new().set_modified(tomorrow)).unwrap();
    }
    for tag in [Tag::Latest, Tag::Debug] {
        let digests = [digest(&first, tag, "1")?, digest(&second, tag, "4")?];
        assert!(digests[0].starts_with("sha256:"), "{digests:?}");
        assert_eq!(digests[0], digests[1], "{tag:?}");
    }
    assert_ne!(digest(&first, Tag::Latest, "1")?, digest(&first, Tag::Debug, "1")?);
    Ok(())
}
