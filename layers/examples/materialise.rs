//! Measures how fast compressed layers become a directory: `materialise DIRECTORY BLOB...`, the lowest layer first.
//! DIRECTORY is made, and removed, for each of these:
//!
//! - `inflate`: the layers are decompressed, and that is all;
//! - `reference`: one thread decompresses, another writes the same files, without owners, modes, times and digests;
//! - `unknown`: what the layers say is not known before, so contents are hashed;
//! - `known`: it is.

use std::error::Error;
use std::fs::{self, File};
use std::io::{self, BufReader, Read, Write};
use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, sync_channel};
use std::time::Instant;

use yadokari_layers::materialise::{Source, materialise};
use yadokari_layers::{Digest, HashingReader, Index, Limits, Root, compress, tar};

/// The size of the pieces in which everything is read.
const PIECE: usize = 128 * 1024;

/// How often each is done.
const TIMES: usize = 2;

type Done<T> = Result<T, Box<dyn Error>>;

fn main() -> Done<()> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let [directory, blobs @ ..] = &words[..] else {
        return Err("give DIRECTORY BLOB..., the lowest layer first".into());
    };
    let directory = Path::new(directory);
    let size = measure("inflate", None, || blobs.iter().map(inflate).sum::<Done<u64>>())?;
    println!("{:.0} MB of tar", size as f64 / 1e6);
    let known = blobs.iter().map(|blob| describe(blob)).collect::<Done<Vec<_>>>()?;
    for _ in 0..TIMES {
        measure("reference", Some(directory), || reference(blobs, directory))?;
        for (name, is_known) in [("unknown", false), ("known", true)] {
            measure(name, Some(directory), || {
                let layer = |(blob, (diff_id, index)): (&String, &(Digest, Arc<Index>))| {
                    let index = is_known.then(|| Arc::clone(index));
                    let (blob, digest) = (Box::new(File::open(blob)?) as _, *diff_id);
                    Ok(Source { blob, digest, diff_id: *diff_id, index, limits: Limits::default() })
                };
                let layers = blobs.iter().zip(&known).map(layer).collect::<Done<Vec<_>>>()?;
                Ok(materialise(&Root::open(directory)?, layers)?.tree.len())
            })?;
        }
    }
    Ok(())
}

fn measure<T>(name: &str, directory: Option<&Path>, act: impl FnOnce() -> Done<T>) -> Done<T> {
    directory.map(fs::create_dir).transpose()?;
    let (from, ticks) = (Instant::now(), cpu()?);
    let done = act()?;
    let (wall, cpu) = (from.elapsed().as_secs_f64(), (cpu()? - ticks) as f64 / 100.0);
    println!("{name}: {wall:.2} s, {cpu:.2} s of CPU");
    directory.map(fs::remove_dir_all).transpose()?;
    Ok(done)
}

fn inflate(blob: &String) -> Done<u64> {
    let (mut tar, mut buffer, mut size) = (compress::decoder(File::open(blob)?)?, vec![0; PIECE], 0);
    loop {
        match tar.read(&mut buffer)? {
            0 => return Ok(size),
            length => size += length as u64,
        }
    }
}

/// The diff id and the index.
fn describe(blob: &str) -> Done<(Digest, Arc<Index>)> {
    let mut reader = HashingReader::new(compress::decoder(File::open(blob)?)?);
    let index = Arc::new(tar::index(&mut reader)?);
    Ok((reader.finish()?, index))
}

/// Each file of the tars is written as it comes, whatever other layers say.
fn reference(blobs: &[String], directory: &Path) -> Done<()> {
    for blob in blobs {
        std::thread::scope(|scope| {
            let (sender, receiver) = sync_channel(16);
            let mut decoder = compress::decoder(File::open(blob)?)?;
            let inflating = scope.spawn(move || -> io::Result<()> {
                loop {
                    let mut piece = Vec::with_capacity(PIECE);
                    (&mut decoder).take(PIECE as u64).read_to_end(&mut piece)?;
                    if piece.is_empty() || sender.send(piece).is_err() {
                        return Ok(());
                    }
                }
            });
            let pieces = Pieces { receiver, piece: io::Cursor::default() };
            let mut archive = ::tar::Archive::new(BufReader::with_capacity(PIECE, pieces));
            let mut buffer = vec![0; PIECE];
            for entry in archive.entries()? {
                let mut entry = entry?;
                let path = directory.join(entry.path()?);
                if entry.header().entry_type().is_dir() {
                    fs::create_dir_all(&path)?;
                } else if entry.header().entry_type().is_file() {
                    if let Some(parent) = path.parent() {
                        fs::create_dir_all(parent)?;
                    }
                    let mut file = File::create(&path)?;
                    loop {
                        let length = entry.read(&mut buffer)?;
                        if length == 0 {
                            break;
                        }
                        file.write_all(&buffer[..length])?;
                    }
                }
            }
            inflating.join().map_err(|_| "inflating panicked")??;
            Ok::<_, Box<dyn Error>>(())
        })?;
    }
    Ok(())
}

struct Pieces {
    receiver: Receiver<Vec<u8>>,
    piece: io::Cursor<Vec<u8>>,
}

impl Read for Pieces {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            let length = self.piece.read(buffer)?;
            if length > 0 {
                return Ok(length);
            }
            match self.receiver.recv() {
                Ok(piece) => self.piece = io::Cursor::new(piece),
                Err(_) => return Ok(0),
            }
        }
    }
}

/// The hundredths of a second that all threads have computed.
fn cpu() -> Done<u64> {
    let stat = fs::read_to_string("/proc/self/stat")?;
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
    Ok(fields[11].parse::<u64>()? + fields[12].parse::<u64>()?)
}
