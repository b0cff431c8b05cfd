//! From a tree and its layers to a directory.
//!
//! Every visible path is written once, from the layer that holds it; what a later layer replaces or deletes is never
//! written. All directories come first, then the layers pass once each, the lowest first, while the next bytes are
//! decompressed on another thread; owners, modes and times of directories come last, when nothing changes in them any more.

mod pipe;
mod plan;

use std::collections::HashMap;
use std::io::Read;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use plan::Plan;
use rustix::io::Errno;

use crate::root::Place;
use crate::tar::{self, Item};
use crate::{Entry, Error, Index, Kind, Lost, RelPath, Result, Root, Skipped, Tree};

/// The mode of directories that no layer states.
pub(crate) const IMPLIED_MODE: u32 = 0o755;

/// As many directories are kept open.
const OPEN_DIRECTORIES: usize = 256;

/// Fills the fresh and empty `root` with what is visible in `tree`. `blobs` are the compressed layers, the lowest first, one
/// for each layer of the tree; each is read to its end, on another thread. Returns what the kernel refused to this process.
///
/// A visible path that its layer does not hold after all is an error: the index was another layer's.
pub fn materialise(root: &Root, tree: &Tree, blobs: Vec<Box<dyn Read + Send>>) -> Result<Vec<Skipped>> {
    if blobs.len() != tree.layers().len() {
        let source =
            std::io::Error::new(std::io::ErrorKind::InvalidInput, "one blob belongs to each layer of the tree");
        return Err(Error::Stream { operation: "materialise", source });
    }
    let plan = Plan::of(tree)?;
    let mut writer = Writer { root, open: HashMap::new(), skipped: Vec::new() };
    for (path, found) in tree.iter() {
        if found.entry.is_directory() {
            writer.directory(path)?;
        }
    }
    std::thread::scope(|scope| {
        let (mut pipe, decompress) = pipe::pipe(blobs);
        scope.spawn(decompress);
        for (layer, index) in tree.layers().iter().enumerate() {
            writer.layer(index, &plan.layers[layer], pipe.next_layer())?;
        }
        Ok::<_, Error>(())
    })?;
    let mut skipped = writer.skipped;
    for (path, found) in tree.iter().collect::<Vec<_>>().into_iter().rev() {
        if found.entry.is_directory() {
            skipped.extend(root.set_metadata(path, found.entry)?);
        }
    }
    Ok(skipped)
}

struct Writer<'a> {
    root: &'a Root,
    open: HashMap<RelPath, OwnedFd>,
    skipped: Vec<Skipped>,
}

impl Writer<'_> {
    /// The open directory that holds `path`. It is made when no layer states it.
    fn parent(&mut self, path: &RelPath) -> Result<BorrowedFd<'_>> {
        let parent = path.parent().unwrap_or_default();
        if !self.open.contains_key(&parent) {
            let dir = match self.root.parent(path) {
                Err(error) if error.raw_os_error() == Some(Errno::NOENT.raw_os_error()) => {
                    self.root.create_dir_all(&parent, IMPLIED_MODE)?;
                    self.root.parent(path)?
                }
                answer => answer?,
            };
            if self.open.len() >= OPEN_DIRECTORIES {
                self.open.clear();
            }
            self.open.insert(parent.clone(), dir);
        }
        Ok(self.open[&parent].as_fd())
    }

    fn directory(&mut self, path: &RelPath) -> Result<()> {
        let dir = self.parent(path)?;
        let name = path.file_name().unwrap_or(b".");
        rustix::fs::mkdirat(dir, name, rustix::fs::Mode::from_raw_mode(0o700)).map_err(crate::root::at("mkdir", path))
    }

    fn layer(&mut self, index: &Index, wanted: &[Vec<RelPath>], tar: impl Read) -> Result<()> {
        let mut written = vec![false; wanted.len()];
        let mut next = 0;
        tar::read(tar, |path, item, content| {
            let Item::Put(entry) = item else { return Ok(()) };
            // Layers written by us are in the order of the index, others nearly so.
            let expected = index.records().get(next).is_some_and(|(expected, _)| *expected == path);
            let position = if expected { Some(next) } else { position(index, &path) };
            let Some(position) = position else { return Ok(()) };
            next = position + 1;
            let names = &wanted[position];
            let stated = index.records()[position].1.entry();
            if !names.is_empty() && stated.is_some_and(|stated| is_same(stated, &entry)) {
                self.write(names, &entry, content)?;
                written[position] = true;
            }
            Ok(())
        })?;
        let missing = wanted.iter().zip(&written).position(|(names, written)| !names.is_empty() && !written);
        missing.map_or(Ok(()), |position| {
            let name = index.records()[position].0.to_string();
            Err(Error::Entry { name, reason: "is in the layer's index, but not in the layer" })
        })
    }

    /// Writes a file under its first name and links the others to it.
    fn write(&mut self, names: &[RelPath], entry: &Entry, content: &mut dyn Read) -> Result<()> {
        let root = self.root;
        let Some((first, others)) = names.split_first() else { return Ok(()) };
        let place = Place { dir: self.parent(first)?, name: first.file_name().unwrap_or(b"."), path: first };
        let skipped = root.put_at(place, entry, content)?;
        let is_lost = skipped.iter().any(|skipped| skipped.lost == Lost::Device);
        self.skipped.extend(skipped);
        for path in others {
            if is_lost {
                self.skipped.push(Skipped { path: path.clone(), lost: Lost::Device });
                continue;
            }
            let place = Place { dir: self.parent(path)?, name: path.file_name().unwrap_or(b"."), path };
            root.link_at(place, first)?;
        }
        Ok(())
    }
}

fn position(index: &Index, path: &RelPath) -> Option<usize> {
    index.records().binary_search_by(|(other, _)| other.cmp(path)).ok()
}

/// Whether an entry of the tar is the one in the index. It is not when the tar names the path again later.
fn is_same(stated: &Entry, entry: &Entry) -> bool {
    match (&stated.kind, &entry.kind) {
        (Kind::File { size: a, .. }, Kind::File { size: b, .. }) => a == b,
        (a, b) => a == b,
    }
}

#[cfg(test)]
mod tests;
