//! Which packages may be compiled, from where, and with which licences.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::sync::OnceLock;
use std::time::Duration;

use yadokari_tests::{Context, Output, Result, capture, command, find, run, workspace};

/// The first time, cargo-deny is compiled.
const LIMIT: Duration = Duration::from_secs(1800);

/// A package at `directory` with an empty library, and `more` in its manifest.
fn package(directory: &Path, name: &str, more: &str) {
    fs::create_dir_all(directory.join("src")).unwrap();
    fs::write(directory.join("src/lib.rs"), "").unwrap();
    let head = format!("[package]\nname = \"{name}\"\nversion = \"0.0.1\"\nedition = \"2024\"\n");
    fs::write(directory.join("Cargo.toml"), format!("{head}{more}\n")).unwrap();
}

/// Holds the policy for the workspace and the fuzz targets, once in a process; after that cargo-deny is there.
fn deny() -> Result<Output> {
    static SAID: OnceLock<Output> = OnceLock::new();
    let run = || capture(&mut Command::new(workspace().join(".ci/deny")), LIMIT).unwrap();
    SAID.get_or_init(run).clone().ok(".ci/deny")
}

#[test]
fn licences_sources_and_bans_hold_for_all_that_is_compiled() -> Result<()> {
    deny().map(drop)
}

#[test]
fn what_the_policy_does_not_allow_is_refused() -> Result<()> {
    deny()?;
    let directory = Context::new()?;
    let root = directory.path();
    let licence = "license = \"Apache-2.0\"";
    let repository = root.join("repository");
    let dependencies = [
        "copyleft = { path = \"copyleft\" }".to_owned(),
        "openssl-sys = { path = \"openssl-sys\" }".to_owned(),
        "twice = { path = \"once\" }".to_owned(),
        format!("again = {{ git = \"file://{}\", package = \"twice\" }}", repository.display()),
        "serde = { path = \"serde\" }".to_owned(),
    ];
    package(
        root,
        "refused",
        &format!("{licence}\n[workspace]\nexclude = [\"serde\"]\n[dependencies]\n{}", dependencies.join("\n")),
    );
    package(&root.join("copyleft"), "copyleft", "license = \"GPL-3.0-only\"");
    package(&root.join("openssl-sys"), "openssl-sys", licence);
    package(&root.join("once"), "twice", licence);
    package(&repository, "twice", licence);
    package(&root.join("serde"), "serde", licence);
    // Either has a build script, where only the second may have one; that has a program in binary form besides.
    for place in [&repository, &root.join("serde")] {
        fs::write(place.join("build.rs"), "fn main() {}").unwrap();
    }
    fs::copy(find("true").unwrap(), root.join("serde/program")).unwrap();
    let git = |arguments: &[&str]| {
        let author = ["-c", "user.name=nobody", "-c", "user.email=nobody@example.com"];
        run("git", [&["-C", &repository.to_string_lossy()], &author[..], arguments].concat())
    };
    git(&["init", "--quiet"])?;
    git(&["add", "--all"])?;
    git(&["commit", "--quiet", "--message", "one"])?;

    let mut cargo_deny = command("cargo-deny");
    cargo_deny.arg("--manifest-path").arg(root.join("Cargo.toml")).arg("--config").arg(workspace().join("deny.toml"));
    cargo_deny.args(["check", "bans", "licenses", "sources"]);
    // What cargo fetches from the repository goes the way of the directory.
    let said = capture(cargo_deny.env("CARGO_HOME", root.join("cargo-home")), LIMIT)?;
    assert!(!said.success(), "{said}");
    let reasons = [
        "error[rejected]",
        "error[banned]",
        "error[duplicate]",
        "error[wildcard]",
        "error[source-not-allowed]",
        "error[build-script-not-allowed]",
        "error[detected-executable]",
    ];
    for reason in reasons {
        assert!(said.stderr.contains(reason), "{reason} is missing: {said}");
    }
    Ok(())
}
