//! RUN steps against the builder, in every driver: what they read, take hold of, leave behind and change. Each try is made
//! first where nothing holds it back, so that it is known to be one.

mod changes;
mod failures;
mod leftovers;
mod names;
mod processes;

use std::collections::BTreeSet;
use std::fs;

use yadokari_tests::{Context, Output, Result, attacker};

use crate::drivers::{PLACES, Place};
use crate::site::printed;

/// A context with the attacker in it, who can be executed there.
fn context() -> Result<Context> {
    let program = fs::read(attacker()?).unwrap();
    Context::new()?.file("attacker", program)?.mode("attacker", 0o755)
}

/// A container for each driver, and one with a user namespace of its own.
fn places() -> impl Iterator<Item = &'static Place> {
    PLACES.iter().filter(|place| ["docker", "unconfined", "flat", "userns"].contains(&place.name))
}

/// Those of them in which a RUN has a root of its own.
fn isolated() -> impl Iterator<Item = &'static Place> {
    places().filter(|place| place.driver != "in-place")
}

/// What came through, `WHAT of WHOM`, of all that the attacker tried; of a build, in the step that is called so.
fn came_through(output: &Output, step: &str) -> BTreeSet<String> {
    tries(output, step).into_iter().filter_map(|said| Some(said.strip_prefix("got ")?.to_owned())).collect()
}

/// What the attacker said of its tries.
fn tries(output: &Output, step: &str) -> Vec<String> {
    let printed = printed(output);
    let lines = printed.lines().filter(|line| line.contains(step));
    let said = lines.filter_map(|line| line.find("got ").or_else(|| line.find("no ")).map(|at| line[at..].to_owned()));
    said.filter(|said| said.split(' ').count() == 4).collect()
}

/// Lines of words as a set of `WHAT of WHOM`.
fn all(whats: &str, whom: &[&str]) -> BTreeSet<String> {
    whom.iter().flat_map(|whom| whats.split_whitespace().map(move |what| format!("{what} of {whom}"))).collect()
}
