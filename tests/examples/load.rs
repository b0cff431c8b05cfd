//! Twenty executors at once on one registry and one cache repository: as processes that copy, and in containers that execute. Every
//! blob of every image and of every record is read back afterwards. Takes minutes the first time, for the executor; else less than
//! two. An executable that is there already may be named.

use std::path::Path;

use yadokari_tests::{Executor, Fleet, Registry, Result};

const EXECUTORS: usize = 20;

fn main() -> Result<()> {
    let executor = std::env::args().nth(1).map_or_else(Executor::build, |program| Executor::of(Path::new(&program)))?;
    let registry = Registry::start()?;
    let fleet = Fleet::new(&registry, EXECUTORS)?;
    let mut failed = false;
    for name in ["first", "again", "commands", "commands-again"] {
        let round = match name.starts_with("commands") {
            true => fleet.containers(&executor, name)?,
            false => fleet.processes(&executor.program(), name)?,
        };
        println!("{name:15} {round}");
        let (digests, flaws) = fleet.inspect(name)?;
        let images: std::collections::BTreeSet<_> = digests.iter().collect();
        println!("{:15} {} images, {} flaws", "", images.len(), flaws.len());
        let troubles = [round.troubles(), flaws].concat();
        troubles.iter().for_each(|trouble| println!("{trouble}"));
        failed |= !troubles.is_empty() || images.len() != EXECUTORS / 2 + 1;
    }
    assert!(!failed, "see above");
    Ok(())
}
