//! How fast a directory is scanned, two snapshots are compared, changes are packed and layers become a directory.
//!
//! `cargo bench -p yadokari-layers [-- scan diff pack materialise]` prints wall times, with as many threads as there are
//! processors, and the instructions that valgrind's callgrind counts, with one. Times are information; the instructions are
//! what `benches/counts.txt` holds and a test compares. `-- --counts` prints that file anew.

mod count;
mod input;
mod meter;

use std::error::Error;
use std::fs::{self, File};
use std::path::Path;

use meter::{Amount, Meter};
use yadokari_layers::materialise::{Source, materialise};
use yadokari_layers::pack::{Options, pack};
use yadokari_layers::scan::scan;
use yadokari_layers::{Layer, Limits, Root, blob_path};

type Result<T, E = Box<dyn Error>> = std::result::Result<T, E>;

/// Prepares below a fresh directory, and measures with the meter.
type Bench = fn(&Path, &mut Meter) -> Result<Amount>;

/// As often is a wall time taken.
const ROUNDS: usize = 7;

const BENCHES: [(&str, Bench); 4] =
    [("scan", bench_scan), ("diff", bench_diff), ("pack", bench_pack), ("materialise", bench_materialise)];

fn main() -> Result<()> {
    // Cargo says --bench to every bench.
    let words: Vec<String> = std::env::args().skip(1).filter(|word| word != "--bench").collect();
    match words.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        [count::ONCE, name] => once(name),
        ["--counts"] => counts(),
        ref names => times(names),
    }
}

/// What valgrind runs: one round. All that prepares it is done by this thread, which is a pool of its own; what is measured
/// has another thread, and the one of the global pool.
fn once(name: &str) -> Result<()> {
    let _pool = rayon::ThreadPoolBuilder::new().num_threads(1).use_current_thread().build()?;
    rayon::ThreadPoolBuilder::new().num_threads(1).build_global()?;
    run(find(name)?, 1).map(drop)
}

fn counts() -> Result<()> {
    println!("{}", count::head()?);
    for (name, _) in BENCHES {
        println!("{name} {}", count::instructions(name)?);
    }
    Ok(())
}

fn times(names: &[&str]) -> Result<()> {
    names.iter().try_for_each(|name| find(name).map(drop))?;
    for (name, bench) in BENCHES.into_iter().filter(|(name, _)| names.is_empty() || names.contains(name)) {
        let (amount, meter) = run(bench, ROUNDS)?;
        let counted = match count::instructions(name) {
            Ok(number) => format!("{number} instructions"),
            Err(error) => format!("instructions not counted: {error}"),
        };
        println!("{name:11} {}; {counted}", meter.summary(amount));
    }
    Ok(())
}

fn find(name: &str) -> Result<Bench> {
    let found = BENCHES.into_iter().find(|(known, _)| *known == name);
    found.map(|(_, bench)| bench).ok_or_else(|| format!("{name} is no bench").into())
}

fn run(bench: Bench, rounds: usize) -> Result<(Amount, Meter)> {
    let place = input::place()?;
    let mut meter = Meter::new(rounds);
    let amount = bench(place.path(), &mut meter)?;
    Ok((amount, meter))
}

fn bench_scan(place: &Path, meter: &mut Meter) -> Result<Amount> {
    let root = input::root(&input::many_files(), &place.join("root"))?;
    let mut entries = 0;
    for _ in meter.rounds() {
        entries = meter.measure(|| scan(&root, None))??.len();
    }
    Ok(Amount::Entries(entries))
}

fn bench_diff(place: &Path, meter: &mut Meter) -> Result<Amount> {
    let path = place.join("root");
    let root = input::root(&input::many_files(), &path)?;
    let before = scan(&root, None)?;
    input::edit(&path)?;
    let after = scan(&root, Some(&before))?;
    for _ in meter.rounds() {
        meter.measure(|| before.diff(&after))?;
    }
    Ok(Amount::Entries(after.len()))
}

fn bench_pack(place: &Path, meter: &mut Meter) -> Result<Amount> {
    let changes = input::of_root(input::project(), &place.join("root"))?;
    for _ in meter.rounds() {
        let blobs = tempfile::tempdir_in(place)?;
        meter.measure(|| pack(&changes, &Options::default(), blobs.path()))??;
    }
    Ok(Amount::Bytes(changes.content_size()))
}

fn bench_materialise(place: &Path, meter: &mut Meter) -> Result<Amount> {
    let mut layers = Vec::new();
    let mut bytes = 0;
    for changes in input::layers() {
        bytes += changes.content_size();
        layers.extend(pack(&changes, &Options::default(), place)?);
    }
    for round in meter.rounds() {
        let directory = place.join(format!("root-{round}"));
        fs::create_dir(&directory)?;
        let root = Root::open(&directory)?;
        let sources = open(&layers, place)?;
        meter.measure(|| materialise(&root, sources))??;
        fs::remove_dir_all(&directory)?;
    }
    Ok(Amount::Bytes(bytes))
}

/// The layers as they come from elsewhere: what they say has to be found out.
fn open(layers: &[Layer], blobs: &Path) -> Result<Vec<Source<'static>>> {
    let open = |layer: &Layer| {
        let blob = Box::new(File::open(blob_path(blobs, &layer.digest))?);
        Ok(Source { blob, digest: layer.digest, diff_id: layer.diff_id, index: None, limits: Limits::NONE })
    };
    layers.iter().map(open).collect()
}
