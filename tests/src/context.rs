//! Build contexts, made in a test: fixtures are text, but links, modes and archives are not.

use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use flate2::Compression;
use flate2::write::GzEncoder;
use tempfile::TempDir;

use crate::error::{At, Result};
use crate::layout::TarWriter;
use crate::numbers::Numbers;
use crate::scratch;

/// A directory of files from the epoch, which goes away with its value.
#[derive(Debug)]
pub struct Context {
    directory: TempDir,
}

/// How an archive is compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Packing {
    /// Not at all.
    Tar,
    /// By gzip.
    Gzip,
    /// By zstd.
    Zstd,
    /// By the program `bzip2`.
    Bzip2,
    /// By the program `xz`.
    Xz,
}

impl Context {
    /// An empty one.
    pub fn new() -> Result<Self> {
        Ok(Self { directory: scratch::directory()? })
    }

    /// The same below `place`.
    pub(crate) fn new_in(place: &Path) -> Result<Self> {
        Ok(Self { directory: scratch::directory_in(place)? })
    }

    /// Adds a file with mode 0644, and the directories above it with mode 0755.
    pub fn file(self, path: &str, content: impl AsRef<[u8]>) -> Result<Self> {
        let file = self.place(path)?;
        fs::write(&file, content).at("write", &file)?;
        self.mode(path, 0o644)
    }

    /// Adds a file of `size` bytes that no compressor makes smaller.
    pub fn noise(self, path: &str, size: usize) -> Result<Self> {
        let words = Numbers::new(0).map(u64::to_le_bytes);
        let bytes: Vec<u8> = words.take(size.div_ceil(8)).flatten().take(size).collect();
        self.file(path, bytes)
    }

    /// Adds a symbolic link.
    pub fn link(self, path: &str, target: &str) -> Result<Self> {
        let link = self.place(path)?;
        symlink(target, &link).at("link", &link)?;
        Ok(self)
    }

    /// Adds another name of the file `first`.
    pub fn hard_link(self, path: &str, first: &str) -> Result<Self> {
        let link = self.place(path)?;
        fs::hard_link(self.path().join(first), &link).at("link", &link)?;
        Ok(self)
    }

    /// Adds a named pipe.
    pub fn fifo(self, path: &str) -> Result<Self> {
        let pipe = self.place(path)?;
        let (kind, mode) = (rustix::fs::FileType::Fifo, rustix::fs::Mode::from_raw_mode(0o644));
        rustix::fs::mknodat(rustix::fs::CWD, &pipe, kind, mode, 0).map_err(io::Error::from).at("make", &pipe)?;
        Ok(self)
    }

    /// Sets the mode of what is at `path`.
    pub fn mode(self, path: &str, mode: u32) -> Result<Self> {
        let file = self.path().join(path);
        fs::set_permissions(&file, fs::Permissions::from_mode(mode)).at("chmod", &file)?;
        Ok(self)
    }

    /// Adds an archive of `in/`, `in/file` with the content `packed`, the link `in/link` to it, and `tool`, set-user-id.
    pub fn archive(self, path: &str, packing: Packing) -> Result<Self> {
        let tar = archive().at("pack", path)?;
        let bytes = match packing {
            Packing::Tar => tar,
            Packing::Gzip => {
                let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
                encoder.write_all(&tar).and_then(|()| encoder.finish()).at("compress", path)?
            }
            Packing::Zstd => zstd::encode_all(&tar[..], 0).at("compress", path)?,
            Packing::Bzip2 => filtered("bzip2", &tar).at("run bzip2 for", path)?,
            Packing::Xz => filtered("xz", &tar).at("run xz for", path)?,
        };
        self.file(path, bytes)
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        self.directory.path()
    }

    fn place(&self, path: &str) -> Result<PathBuf> {
        let place = self.path().join(path);
        let parent = place.parent().unwrap_or(&place);
        fs::create_dir_all(parent).at("create", parent)?;
        Ok(place)
    }
}

/// What a program makes of `bytes`.
fn filtered(program: &str, bytes: &[u8]) -> io::Result<Vec<u8>> {
    let mut child = Command::new(program).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
    let mut input = child.stdin.take().ok_or(io::ErrorKind::BrokenPipe)?;
    // The archive is smaller than a pipe: it can be written before anything is read.
    input.write_all(bytes)?;
    drop(input);
    let output = child.wait_with_output()?;
    if output.status.success() { Ok(output.stdout) } else { Err(io::Error::other(format!("{program} failed"))) }
}

fn archive() -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let mut tar = TarWriter::new(&mut bytes);
    tar.directory("in", 0o750)?;
    tar.file("in/file", 0o640, b"packed")?;
    tar.symlink("in/link", "file")?;
    tar.file("tool", 0o4755, b"tool")?;
    tar.finish()?;
    Ok(bytes)
}
