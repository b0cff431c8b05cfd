//! What the executor is made of, what it says of that, and whether it is the same wherever it is made.

mod papers;
mod policy;
mod reproducible;

use yadokari_tests::{Libc, Release, Result, Shipped, packages};

/// The executable with its papers. The other tests' is the same, so that nothing is compiled again.
fn shipped() -> Result<Shipped> {
    packages::ensure()?;
    Release::here(Libc::available()).build()
}
