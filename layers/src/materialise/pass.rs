//! One pass over a layer: either it is known what of it is visible, or this is found out on the way.

use std::os::fd::AsFd;
use std::sync::Arc;

use super::above::Above;
use super::directories::Directories;
use super::pipe::{Pipe, Slice};
use super::plan::position;
use super::writers::{Content, Job, Writers, stopped};
use crate::digest::Hasher;
use crate::root::Place;
use crate::tar::{self, Body, Indexer, Item};
use crate::{Digest, Entry, Error, Index, IndexBuilder, Kind, Limits, Record, RelPath, Result, Root, Skipped};

/// A file of this size or more is written while it comes, a smaller one as soon as all of it is there.
const LARGE: u64 = 512 * 1024;

/// What became of a layer that was read without knowing what is visible.
#[derive(Debug)]
pub(super) struct Passed {
    pub(super) index: Arc<Index>,
    /// For each record, whether it was put into the root under its own name.
    pub(super) written: Vec<bool>,
}

/// Puts what is visible of layers into the root, the highest layer first, and learns what they say meanwhile.
///
/// What is visible is decided for each path when it comes, by what higher layers said. That is right as long as every path
/// means itself: no symbolic link is where anything passes through, and no layer says twice what a path is. Where that is
/// in doubt nothing is written any more.
pub(super) struct Finder<'a> {
    pub(super) above: Above,
    pub(super) directories: Directories<'a>,
    pub(super) writers: &'a Writers<'a>,
    pub(super) is_in_doubt: bool,
    /// The layer that is read, for errors.
    pub(super) layer: Digest,
}

impl Finder<'_> {
    /// Reads the next layer, which the caller adds to those above. The contents of one that is `known` are not hashed.
    pub(super) fn pass(
        &mut self,
        layer: Digest,
        known: Option<&Arc<Index>>,
        limits: &Limits,
        tar: &mut Pipe,
    ) -> Result<Passed> {
        let mut indexer = Indexer::default();
        self.layer = layer;
        tar.next_layer();
        tar::read_buffered(&mut *tar, limits, |path, item, body| self.take(&mut indexer, known, path, item, body))?;
        let made = indexer.finish();
        let index = match known {
            Some(known) => {
                check(known, &made)?;
                Arc::clone(known)
            }
            None => Arc::new(made),
        };
        let seen = |(path, record): &(RelPath, Record)| {
            record.entry().is_some_and(|entry| !matches!(entry.kind, Kind::Hardlink { .. })) && !self.above.hides(path)
        };
        let written = index.records().iter().map(seen).collect();
        Ok(Passed { index, written })
    }

    fn take(
        &mut self,
        indexer: &mut Indexer,
        known: Option<&Arc<Index>>,
        path: RelPath,
        item: Item,
        body: &mut Body<'_, &mut Pipe>,
    ) -> Result<()> {
        let mut entry = match item {
            Item::Put(entry) => entry,
            marker => {
                indexer.mark(path, marker == Item::Opaque);
                return Ok(());
            }
        };
        let is_hidden = self.above.hides(&path);
        if !indexer.is_plain(&path, &entry)? || self.above.enters(&path, &entry, is_hidden) {
            self.is_in_doubt = true;
        }
        let is_written = !is_hidden && !self.is_in_doubt;
        let mut inline = None;
        match entry.kind {
            Kind::Directory if is_written => self.directories.make(&path)?,
            Kind::Directory | Kind::Hardlink { .. } => {}
            Kind::File { size, .. } => {
                inline = IndexBuilder::wants(&path, size).then(Vec::new);
                let mut hasher = known.is_none().then(Hasher::default);
                let look = |slice: &Slice| {
                    if let Some(hasher) = &mut hasher {
                        hasher.update(slice.bytes());
                    }
                    if let Some(inline) = &mut inline {
                        inline.extend_from_slice(slice.bytes());
                    }
                };
                self.content(is_written, &path, &entry, size, body, look)?;
                entry.kind = Kind::File { size, content: hasher.map(Hasher::finish) };
            }
            _ if is_written => {
                let job = self.job(&path, &entry, Vec::new())?;
                self.writers.write(job)?;
            }
            _ => {}
        }
        indexer.put(path, entry, inline)
    }

    fn job(&mut self, path: &RelPath, entry: &Entry, slices: Vec<Slice>) -> Result<Job> {
        let directory = self.directories.of(path)?;
        Ok(Job {
            directory,
            layer: self.layer,
            path: path.clone(),
            entry: entry.clone(),
            content: Content { slices, more: None },
        })
    }

    /// Passes the content of a file on to `look`, and to a writer.
    fn content(
        &mut self,
        is_written: bool,
        path: &RelPath,
        entry: &Entry,
        size: u64,
        body: &mut Body<'_, &mut Pipe>,
        mut look: impl FnMut(&Slice),
    ) -> Result<()> {
        let large = if is_written && size >= LARGE {
            let job = self.job(path, entry, Vec::new())?;
            Some(self.writers.stream(job)?)
        } else {
            None
        };
        let mut slices = Vec::new();
        while let Some(slice) = next_slice(path, body)? {
            look(&slice);
            match &large {
                Some(large) => large.send(slice).map_err(|_| stopped())?,
                None if is_written => slices.push(slice),
                None => {}
            }
        }
        if is_written && large.is_none() {
            let job = self.job(path, entry, slices)?;
            self.writers.write(job)?;
        }
        Ok(())
    }
}

fn next_slice(path: &RelPath, body: &mut Body<'_, &mut Pipe>) -> Result<Option<Slice>> {
    match body.take_from(|pipe, limit| pipe.slice(limit)) {
        Ok(slice) => Ok(slice.flatten()),
        Err(source) if source.get_ref().is_some_and(|inner| inner.is::<crate::Mismatch>()) => {
            Err(Error::stream("read layer", source))
        }
        Err(source) => Err(Error::Path { operation: "read content of", path: path.clone(), source }),
    }
}

/// Checks that a layer says what its index says, but for the contents.
fn check(known: &Index, found: &Index) -> Result<()> {
    for (path, record) in known.records() {
        let is_there = match (record.entry(), found.get(path).map(Record::entry)) {
            (Some(stated), Some(Some(entry))) => is_same(stated, entry),
            (None, Some(None)) => true,
            _ => false,
        };
        if !is_there {
            return Err(missing(path));
        }
    }
    if known.len() != found.len() {
        let more = found.records().iter().find(|(path, _)| known.get(path).is_none());
        let name = more.map(|(path, _)| path.to_string()).unwrap_or_default();
        return Err(Error::Entry { name, reason: "is in the layer, but not in the layer's index" });
    }
    Ok(())
}

fn missing(path: &RelPath) -> Error {
    Error::Entry { name: path.to_string(), reason: "is in the layer's index, but not in the layer" }
}

/// Writes of a layer whose index is known what `names` says: each record under its name. Records without a name are
/// passed over.
pub(super) fn write(
    root: &Root,
    index: &Index,
    names: &[Option<RelPath>],
    limits: &Limits,
    tar: &mut Pipe,
) -> Result<Vec<Skipped>> {
    let mut directories = Directories::new(root);
    let (mut written, mut skipped) = (vec![false; names.len()], Vec::new());
    let mut next = 0;
    tar.next_layer();
    tar::read_buffered(tar, limits, |path, item, body| {
        let Item::Put(entry) = item else { return Ok(()) };
        // Layers written by us are in the order of the index, others nearly so.
        let expected = index.records().get(next).is_some_and(|(expected, _)| *expected == path);
        let position = if expected { Some(next) } else { position(index, &path) };
        let Some(position) = position else { return Ok(()) };
        next = position + 1;
        let stated = index.records()[position].1.entry();
        if let Some(name) = &names[position]
            && stated.is_some_and(|stated| is_same(stated, &entry))
        {
            let directory = directories.of(name)?;
            let place = Place { dir: directory.as_fd(), name: name.file_name().unwrap_or(b"."), path: name };
            skipped.extend(root.put_at(place, &entry, body)?);
            written[position] = true;
        }
        Ok(())
    })?;
    match names.iter().zip(&written).position(|(name, written)| name.is_some() && !written) {
        Some(position) => Err(missing(&index.records()[position].0)),
        None => Ok(skipped),
    }
}

/// Whether an entry of the tar is the one in the index. It is not when the tar names the path again later.
fn is_same(stated: &Entry, entry: &Entry) -> bool {
    match (&stated.kind, &entry.kind) {
        (Kind::File { size: a, .. }, Kind::File { size: b, .. }) => a == b,
        (a, b) => a == b,
    }
}
