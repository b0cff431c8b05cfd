//! Finding what a RUN changed in a plain directory: the drivers without an overlay share it.

use std::collections::BTreeSet;
use std::io::Read;
use std::sync::Arc;

use yadokari_layers::materialise::{Materialised, Seekable, Source, materialise};
use yadokari_layers::tar::Pipe;
use yadokari_layers::{Arriving, Limits, RelPath, Root, Tree, apply, confirm, scan, tar};

use super::error::{During, Result};
use super::files::Watched;
use super::{Commit, LayerFile, Unpacked};

/// A directory, what its layers say, and what it was when somebody last looked.
#[derive(Debug)]
pub(super) struct Walked {
    /// The directory.
    pub(super) root: Arc<Root>,
    /// Everything that it was made of so far.
    pub(super) tree: Tree,
    /// What it was before the first RUN that is not committed. The walk after one RUN is the one before the next.
    before: Option<scan::Snapshot>,
    /// Paths that we touched and that no RUN did.
    forgiven: BTreeSet<RelPath>,
    /// Paths that a RUN touched, whoever else did.
    touched: BTreeSet<RelPath>,
}

impl Walked {
    /// An empty directory.
    pub(super) fn new(root: Root) -> Self {
        Self {
            root: Arc::new(root),
            tree: Tree::new(),
            before: None,
            forgiven: BTreeSet::new(),
            touched: BTreeSet::new(),
        }
    }

    /// Fills the directory.
    pub(super) fn materialise(&mut self, layers: Vec<LayerFile>) -> Result<Unpacked> {
        let (tree, filled) = fill(&self.root, layers).during("unpacking the base image")?;
        self.tree = tree;
        Ok(filled)
    }

    /// Puts a layer on top.
    pub(super) fn push(&mut self, tar: &mut dyn Read, limits: &Limits) -> Result<Vec<String>> {
        self.forget();
        put(&self.root, tar, limits)
    }

    /// Walks the directory, unless that was done after the RUN before.
    pub(super) fn look(&mut self) -> Result<()> {
        if self.before.is_none() {
            self.before = Some(scan::scan(&self.root, None)?);
        }
        Ok(())
    }

    /// Waits until whatever a process does next gets a later time than all that was seen: on kernels whose clock for
    /// files ticks in milliseconds, a change in the tick of the walk would not be found.
    pub(super) fn settle(&self, watched: &Watched) {
        let seen = self.before.as_ref().map(scan::Snapshot::newest_ctime).unwrap_or_default();
        scan::wait_for_clock(seen.max(watched.newest()));
    }

    /// Says of paths that we touched ourselves whether a RUN left them alone.
    pub(super) fn note(&mut self, watched: Vec<(RelPath, bool)>) {
        for (path, untouched) in watched {
            if untouched {
                self.forgiven.insert(path)
            } else {
                self.touched.insert(path)
            };
        }
    }

    /// Writes what changed since the last commit or push.
    pub(super) fn commit(&mut self, commit: &Commit, out: &mut Pipe) -> Result<bool> {
        let Some(mut before) = self.before.take() else { return Ok(false) };
        let after = scan::scan(&self.root, Some(&before))?;
        for path in self.forgiven.difference(&self.touched) {
            before.forgive(path, &after);
        }
        self.forget();
        let candidates = before.diff(&after);
        self.before = Some(after);
        drop(before);
        write(&self.root, &self.tree, candidates, commit, out)
    }

    fn forget(&mut self) {
        self.before = None;
        self.forgiven.clear();
        self.touched.clear();
    }
}

/// Fills an empty root with layers, and says what is in it.
pub(super) fn fill(root: &Root, layers: Vec<LayerFile>) -> Result<(Tree, Unpacked)> {
    let source = |LayerFile { digest, diff_id, index, blob, coming, limits }| {
        let blob: Box<dyn Seekable> = match coming {
            Some(coming) => Box::new(Arriving::new(blob, coming)),
            None => Box::new(blob),
        };
        Source { blob, digest, diff_id, index, limits }
    };
    let Materialised { tree, skipped } = materialise(root, layers.into_iter().map(source).collect())?;
    let filled =
        Unpacked { indexes: tree.layers().to_vec(), warnings: skipped.iter().map(ToString::to_string).collect() };
    Ok((tree, filled))
}

/// Puts a layer on a root.
pub(super) fn put(root: &Root, tar: &mut dyn Read, limits: &Limits) -> Result<Vec<String>> {
    let skipped = apply::apply_tar(tar, limits, root).during("unpacking a layer")?;
    Ok(skipped.iter().map(ToString::to_string).collect())
}

/// Writes the layer of what may have changed. Who reads it indexes it.
pub(super) fn write(
    root: &Arc<Root>,
    tree: &Tree,
    mut candidates: scan::Candidates,
    Commit { clamp, ignored }: &Commit,
    out: &mut Pipe,
) -> Result<bool> {
    if !ignored.is_empty() {
        let counts = |path: &RelPath| !ignored.iter().any(|ignored| path.starts_with(ignored));
        candidates.changed.retain(counts);
        candidates.deleted.retain(counts);
    }
    let changes = confirm::confirm_clamped(root, tree, &candidates, *clamp).during("reading what the RUN changed")?;
    if changes.is_empty() {
        return Ok(false);
    }
    tar::pipe(&changes, *clamp, out).during("writing what the RUN changed")?;
    Ok(true)
}
