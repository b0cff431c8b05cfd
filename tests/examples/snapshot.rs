//! What a RUN costs that changes one file on a base of 100,000: finding that file, packing it and all around it.

use yadokari_tests::{Base, Context, Executor, Registry, Result, Variant};

/// How many RUNs.
const RUNS: usize = 10;
/// How many files the base holds.
const FILES: u32 = 100_000;
/// Where a filesystem can hold an overlay's upper directory.
const VOLUME: &str = "/volume";

fn main() -> Result<()> {
    let registry = Registry::start()?;
    registry.hold(Base::Files(FILES))?;
    let runs: String = (0..RUNS).map(|n| format!("RUN echo {n} > /srv/changed\n")).collect();
    let context = Context::new()?.file("Dockerfile", format!("FROM files:{FILES}\n{runs}"))?;
    println!("{RUNS} RUNs on {FILES} files, seconds for each; the first one unpacks the base");
    let places = [
        (Variant::Docker, false, "in-place"),
        (Variant::Unconfined, true, "flat"),
        (Variant::Unconfined, true, "overlay"),
    ];
    for (variant, has_volume, driver) in places {
        let volume = Context::new()?;
        let mut job = Executor::job(&registry).args(["--driver", driver, "--destination"]);
        job = job.args([registry.reference(&format!("snapshot/{driver}:1"))]);
        let mut container = Executor::build()?.container(variant).readonly_volume(context.path(), "/workspace");
        if has_volume {
            container = container.volume(volume.path(), VOLUME);
            job = job.args(["--work-dir", VOLUME]);
        }
        let output = container.run(job)?.ok(driver)?;
        let times: Vec<f64> = output.stderr.lines().filter_map(seconds).collect();
        let shown: Vec<_> = times.iter().map(|time| format!("{time:5.2}")).collect();
        let later = &times[1..];
        let mean = later.iter().sum::<f64>() / later.len() as f64;
        println!("{driver:9} {}   mean of the later ones {mean:.2}", shown.join(" "));
    }
    Ok(())
}

/// The time of `[stage-0 2/10] done in 0.21 s, 140 B`.
fn seconds(line: &str) -> Option<f64> {
    line.split_once("] done in ")?.1.split(' ').next()?.parse().ok()
}
