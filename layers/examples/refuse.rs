//! What it takes to refuse a layer: `refuse LAYER UNPACKED-SIZE ENTRIES`, under `/usr/bin/time -v`.
//!
//! `refuse --make zeros FILE` writes a layer of 10 GiB of zeros, and `--make entries FILE NUMBER` one of so many files.

use std::error::Error;
use std::fs::File;
use std::io::{BufWriter, Write};
use std::time::Instant;

use yadokari_layers::materialise::{Source, materialise};
use yadokari_layers::{Compression, Digest, Limits, Root, compress};

/// How much of the zeros is written at once.
const PIECE: usize = 1 << 20;

fn main() -> Result<(), Box<dyn Error>> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    match args.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["--make", "zeros", file] => make(file, |out| {
            // Small files, so that no header says what is coming.
            for number in 0..10 << 10 {
                out.write_all(header(&format!("zeros/{number:06}"), PIECE as u64).as_bytes())?;
                out.write_all(&[0; PIECE])?;
            }
            Ok(())
        }),
        ["--make", "entries", file, number] => {
            let number: u64 = number.parse()?;
            let name =
                |n: u64| format!("usr/share/some-package/{:03}/{:03}/file-{n:07}.txt", n / 10_000, n / 100 % 100);
            make(file, |out| (0..number).try_for_each(|n| out.write_all(header(&name(n), 0).as_bytes())))
        }
        [layer, size, entries] => refuse(layer, Limits { size: size.parse()?, entries: entries.parse()? }),
        _ => Err("refuse LAYER UNPACKED-SIZE ENTRIES, or refuse --make zeros|entries FILE [NUMBER]".into()),
    }
}

fn header(name: &str, size: u64) -> tar::Header {
    let mut header = tar::Header::new_ustar();
    header.as_old_mut().name[..name.len()].copy_from_slice(name.as_bytes());
    header.set_mode(0o644);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    header.set_size(size);
    header.set_cksum();
    header
}

type Out = compress::Encoder<BufWriter<File>>;

fn make(file: &str, write: impl FnOnce(&mut Out) -> std::io::Result<()>) -> Result<(), Box<dyn Error>> {
    let mut out = compress::Encoder::new(Compression::Gzip, Some(6), BufWriter::new(File::create(file)?))?;
    write(&mut out)?;
    out.write_all(&[0; 1024])?;
    out.finish()?.flush()?;
    println!("{} bytes", std::fs::metadata(file)?.len());
    Ok(())
}

fn refuse(layer: &str, limits: Limits) -> Result<(), Box<dyn Error>> {
    let directory = tempfile::tempdir()?;
    let (root, digest) = (Root::open(directory.path())?, Digest::of([]));
    let start = Instant::now();
    let source = Source { blob: Box::new(File::open(layer)?), digest, diff_id: digest, index: None, limits };
    let answer = materialise(&root, vec![source]).map(|filled| filled.tree.len());
    println!(
        "{:.2} s: {}",
        start.elapsed().as_secs_f64(),
        answer.map_or_else(|e| e.to_string(), |n| format!("{n} entries"))
    );
    Ok(())
}
