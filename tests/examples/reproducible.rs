//! Builds the executor twice, here and from a clone of the commit that is checked out, and compares what comes of it:
//! `reproducible`.
//!
//! The clone is built with other directories for the sources, for what is compiled, for cargo's packages and for temporary files,
//! another home, user, language and time zone, another umask, and one job where the other has as many as there are
//! processors. It begins with nothing compiled. The example ends with a failure, and keeps the clone, where the executables or
//! the images differ. A release build is minutes of work.

use std::error::Error;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::time::Instant;

use rustix::fs::Mode;
use rustix::process::umask;
use yadokari_tests::{Commit, Executor, Libc, PATIENCE, Release, Tag, capture, packages, run, workspace};

/// What a build gave: names, and digests that have to be equal.
type Digests = Vec<(&'static str, String)>;

fn main() -> Result<(), Box<dyn Error>> {
    packages::ensure()?;
    let commit = Commit::of(&workspace()).ok_or("what is checked out is no commit as it was made")?;
    println!("commit {}", commit.id);
    let place = tempfile::tempdir()?;
    let libc = Libc::available();
    let directory = place.path().join("somewhere/else");
    let (source, compiled) = (directory.join("source"), directory.join("compiled"));
    for name in ["home", "cargo", "temporary"] {
        fs::create_dir_all(directory.join(name))?;
    }
    let usual = umask(Mode::from_raw_mode(0o077));
    let to = source.to_string_lossy();
    run("git", ["clone", "--quiet", "--no-hardlinks", &workspace().to_string_lossy(), &to])?;
    run("git", ["-C", &to, "checkout", "--quiet", "--detach", &commit.id])?;
    let elsewhere = varied(Release::new(&source, &compiled, libc), &directory)?;
    let elsewhere = digests(&elsewhere, &commit, &directory.join("assembled"))?;
    umask(usual);
    let here = digests(&Release::here(libc), &commit, &place.path().join("here"))?;

    let mut differ = Vec::new();
    for ((what, one), (_, other)) in here.iter().zip(&elsewhere) {
        let same = one == other;
        println!("{what}: {one} {}", if same { "twice" } else { other });
        differ.extend((!same).then_some(*what));
    }
    if differ.is_empty() {
        return Ok(());
    }
    let kept = place.keep();
    Err(format!("{} are not the same; the clone and its build are in {}", differ.join(", "), kept.display()).into())
}

/// The same release as somebody else would build it.
fn varied(release: Release, directory: &Path) -> Result<Release, Box<dyn Error>> {
    // The packages are the same, by another path.
    let packages = directory.join("cargo");
    for entry in fs::read_dir(cargo_home()?)?.flatten().filter(|entry| entry.file_name() != "bin") {
        symlink(entry.path(), packages.join(entry.file_name()))?;
    }
    let rustup = std::env::var_os("RUSTUP_HOME");
    let rustup = rustup.map_or_else(|| home().map(|home| home.join(".rustup")), |rustup| Ok(rustup.into()))?;
    Ok(release
        .env("HOME", directory.join("home"))
        .env("CARGO_HOME", packages)
        .env("RUSTUP_HOME", rustup)
        .env("TMPDIR", directory.join("temporary"))
        .env("CARGO_BUILD_JOBS", "1")
        .env("USER", "somebody")
        .env("LOGNAME", "somebody")
        .env("LC_ALL", "C.UTF-8")
        .env("TZ", "Asia/Kathmandu"))
}

/// Builds it, and the images of `commit` around it in `directory`.
fn digests(release: &Release, commit: &Commit, directory: &Path) -> Result<Digests, Box<dyn Error>> {
    let started = Instant::now();
    let shipped = release.build()?;
    println!("built in {} s", started.elapsed().as_secs());
    fs::create_dir_all(directory)?;
    let executor = Executor::assemble(&shipped, directory)?;
    let mut digests = Vec::new();
    for (what, path) in [("executable", "executor"), ("bill of materials", "executor.cdx.json")] {
        let said = run("sha256sum", [executor.rootfs().join("kaniko").join(path)])?.stdout;
        digests.push((what, said.split(' ').next().unwrap_or_default().to_owned()));
    }
    for (what, tag) in [("image", Tag::Latest), ("image with a shell", Tag::Debug)] {
        let file = directory.join("digest");
        let mut image = executor.image(tag, Some(commit));
        image.args(["--no-push", "--destination", "example.com/executor", "--digest-file"]).arg(&file);
        capture(&mut image, PATIENCE)?.ok("the build of the image")?;
        digests.push((what, fs::read_to_string(&file)?.trim().to_owned()));
    }
    Ok(digests)
}

fn cargo_home() -> Result<PathBuf, Box<dyn Error>> {
    std::env::var_os("CARGO_HOME").map_or_else(|| Ok(home()?.join(".cargo")), |home| Ok(home.into()))
}

fn home() -> Result<PathBuf, Box<dyn Error>> {
    Ok(std::env::var_os("HOME").ok_or("HOME is not set")?.into())
}
