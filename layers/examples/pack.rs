//! Measures how fast the bytes of a file become a blob, and in how much memory:
//! `pack FILE none|gzip|zstd LEVEL|default THREADS TIMES`, where the file is taken as often as TIMES says. For a LEVEL by
//! number it says as well what share that is of the compressor's own speed: as many threads compress the same blocks, which are read
//! before, and nobody reads, hashes, orders or writes anything.

use std::error::Error;
use std::fs::{self, File};
use std::io::{self, Read};
use std::sync::atomic::{AtomicUsize, Ordering};
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
    let (threads, times): (usize, usize) = (threads.parse()?, times.parse()?);
    rayon::ThreadPoolBuilder::new().num_threads(threads).build_global()?;
    let blobs = std::env::temp_dir().join(format!("pack-{}", std::process::id()));
    fs::create_dir(&blobs)?;
    let ((size, blob), wall, cpu) = measured(|| {
        let (mut writer, mut size) = (BlobWriter::create(&blobs, by, number)?, 0);
        for _ in 0..times {
            size += copy(&mut File::open(file)?, &mut writer)?;
        }
        Ok((size, writer.finish()?))
    })?;
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
    if let Some(level) = number {
        let bytes = fs::read(file)?;
        let ((), least, least_cpu) = measured(|| alone(&bytes, by, level, threads, times))?;
        println!(
            "the compressor alone: {:.0} MB/s, {:.0} MB per CPU second, of which this is {:.2}, {:.2}",
            megabytes / least,
            megabytes / least_cpu,
            least / wall,
            least_cpu / cpu
        );
    }
    Ok(())
}

/// What `act` returns, and how many seconds it took, of this clock and of all processors.
fn measured<T>(act: impl FnOnce() -> Result<T, Box<dyn Error>>) -> Result<(T, f64, f64), Box<dyn Error>> {
    let (from, ticks) = (Instant::now(), cpu()?);
    let done = act()?;
    Ok((done, from.elapsed().as_secs_f64(), (cpu()? - ticks) as f64 / 100.0))
}

/// Compresses on threads that do nothing else.
fn alone(bytes: &[u8], by: Compression, level: i32, threads: usize, times: usize) -> Result<(), Box<dyn Error>> {
    let size = if by == Compression::Zstd { 2 << 20 } else { 512 << 10 };
    let blocks: Vec<&[u8]> = std::iter::repeat_n(bytes, times).flat_map(|bytes| bytes.chunks(size)).collect();
    let next = AtomicUsize::new(0);
    let taken = || std::iter::from_fn(|| blocks.get(next.fetch_add(1, Ordering::Relaxed)));
    let work = || -> io::Result<()> {
        let mut output = vec![0; 2 * size];
        match by {
            Compression::None => {}
            Compression::Gzip => {
                let mut deflate = flate2::Compress::new(flate2::Compression::new(level as u32), false);
                for block in taken() {
                    deflate.reset();
                    deflate.compress(block, &mut output, flate2::FlushCompress::Sync).map_err(io::Error::other)?;
                }
            }
            Compression::Zstd => {
                let mut frames = zstd::bulk::Compressor::new(level)?;
                taken().try_for_each(|block| frames.compress_to_buffer(block, &mut output[..]).map(drop))?;
            }
        }
        Ok(())
    };
    std::thread::scope(|scope| {
        let workers: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
        workers.into_iter().try_for_each(|worker| worker.join().expect("a compressor does not panic"))
    })?;
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
