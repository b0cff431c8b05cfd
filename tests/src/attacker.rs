//! A program that tries what no RUN should be able to do.

use std::fs;
use std::path::PathBuf;

use crate::error::{At, Result};
use crate::{cache, fixture, packages, run};

/// The static program of `fixtures/attacker`, built with musl's compiler.
pub fn attacker() -> Result<PathBuf> {
    packages::ensure()?;
    let source = fixture("attacker").join("attacker.c");
    let text = fs::read_to_string(&source).at("read", &source)?;
    let made = cache::once("attacker", &text, |directory| {
        let words = ["-static", "-O1", "-Wall", "-Wextra", "-Werror", "-o"].map(Into::into);
        let files = [directory.join("attacker").into_os_string(), source.clone().into_os_string()];
        run("musl-gcc", words.into_iter().chain(files)).map(drop)
    })?;
    Ok(made.join("attacker"))
}
