//! Measures how fast the bytes of a file become a blob, and in how much memory:
//! `pack FILE none|gzip|zstd LEVEL|default THREADS TIMES`, where the file is taken as often as TIMES says.

use std::error::Error;
use std::fs::{self, File};
use std::io::{self, Read};
use std::time::Instant;

use yadokari_layers::{BlobWriter, Compression};

fn main() -> Result<(), Box<dyn Error>> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let [file, compression, level, threads, times] = &words[..] else {
        return Err("give FILE none|gzip|zstd LEVEL|default THREADS TIMES".into());
    };
    let by = match compression.as_str() {
        "none" => Compression::None,
        "gzip" => Compression::Gzip,
        "zstd" => Compression::Zstd,
        other => return Err(format!("{other} is no compression").into()),
    };
    let number = if level == "default" { None } else { Some(level.parse()?) };
    rayon::ThreadPoolBuilder::new().num_threads(threads.parse()?).build_global()?;
    let blobs = std::env::temp_dir().join(format!("pack-{}", std::process::id()));
    fs::create_dir(&blobs)?;
    let (from, ticks) = (Instant::now(), cpu()?);
    let mut writer = BlobWriter::create(&blobs, by, number)?;
    let mut size = 0;
    for _ in 0..times.parse()? {
        size += copy(&mut File::open(file)?, &mut writer)?;
    }
    let blob = writer.finish()?;
    let (wall, cpu) = (from.elapsed().as_secs_f64(), (cpu()? - ticks) as f64 / 100.0);
    fs::remove_dir_all(&blobs)?;
    let megabytes = size as f64 / 1e6;
    println!(
        "{compression} {level} threads {threads}: {:.0} MB/s, {:.0} MB per CPU second, ratio {:.3}, {} {}",
        megabytes / wall,
        megabytes / cpu,
        size as f64 / blob.size as f64,
        peak()?,
        &blob.digest.hex()[..12],
    );
    Ok(())
}

fn copy(from: &mut File, to: &mut BlobWriter) -> io::Result<u64> {
    let (mut buffer, mut size) = (vec![0; 128 * 1024], 0);
    loop {
        let length = from.read(&mut buffer)?;
        if length == 0 {
            return Ok(size);
        }
        io::Write::write_all(to, &buffer[..length])?;
        size += length as u64;
    }
}

/// The hundredths of a second that all threads have computed.
fn cpu() -> Result<u64, Box<dyn Error>> {
    let stat = fs::read_to_string("/proc/self/stat")?;
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
    Ok(fields[11].parse::<u64>()? + fields[12].parse::<u64>()?)
}

/// The peak of the memory, as the kernel says it.
fn peak() -> io::Result<String> {
    let status = fs::read_to_string("/proc/self/status")?;
    Ok(status.lines().find(|line| line.starts_with("VmHWM")).unwrap_or_default().split_whitespace().collect())
}
