//! The largest build that little memory has to be enough for: a layer of 2 GiB on a base of 1.75 GB with 100,000 files, in
//! a container with 256 MB. Takes minutes, and 10 GB of disk.

use std::time::Instant;

use yadokari_tests::{Base, Registry, Result, build_within};

/// The container's memory, page cache included.
const MEMORY: u64 = 256 << 20;
/// How many files the base holds, and the megabytes of the largest one.
const FILES: u32 = 100_000;
const BASE: u32 = 1700;
/// The megabytes of the layer.
const LAYER: u32 = 2048;

fn main() -> Result<()> {
    let registry = Registry::start()?;
    registry.hold(Base::Files(FILES))?;
    let text = |base: &str, megabytes| {
        format!("FROM {base}\nRUN dd if=/dev/urandom of=/{megabytes} bs=1M count={megabytes}\nRUN echo > /srv/new\n")
    };
    let base = format!("files:{FILES}");
    build_within(None, &registry, "overlay", &text(&base, BASE), "library/large:1")?.ok("base")?;
    for driver in ["overlay", "flat", "in-place"] {
        let start = Instant::now();
        let output = build_within(Some(MEMORY), &registry, driver, &text("large:1", LAYER), "memory:1")?;
        let output = output.ok(driver)?;
        println!("{driver:9} {:4.0} s  {}", start.elapsed().as_secs_f64(), output.stderr.lines().last().unwrap_or(""));
    }
    Ok(())
}
