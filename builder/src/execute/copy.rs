//! COPY, ADD and WORKDIR, worked out on trees: no root file system is needed.

use std::collections::{BTreeMap, HashMap};

use yadokari_layers::{
    Changes, Content, Digest, Entry, Found, Kind, Part, RelPath, Result, Timestamp, Tree, follow_links,
};

use crate::context::Context;
use crate::plan::{Filter, Mode, Selected};

/// How copied files differ from their sources.
#[derive(Debug, Clone, Default)]
pub(super) struct Restyle {
    /// `--chown`
    pub(super) owner: Option<(u32, u32)>,
    /// `--chmod`
    pub(super) mode: Option<Mode>,
}

/// Why files cannot be put where they should go.
#[derive(Debug, thiserror::Error)]
pub(super) enum Conflict {
    /// Something in the way is no directory.
    #[error("'/{0}' exists and is not a directory")]
    NotDirectory(RelPath),
    /// A directory is in the way of a file.
    #[error("'/{0}' is a directory and cannot be replaced by a file")]
    IsDirectory(RelPath),
    /// A hard link of an archive names nothing that could have two names.
    #[error("'/{name}' is a hard link to '/{first}', which is no file")]
    NoFirstName {
        /// The link.
        name: RelPath,
        /// What it should be another name of.
        first: RelPath,
    },
    /// Several sources need a directory.
    #[error("several sources are copied, and '{0}' is not a directory")]
    NeedsDirectory(String),
    /// Trees and paths.
    #[error(transparent)]
    Layers(#[from] yadokari_layers::Error),
}

/// The bytes of a file that is copied.
pub(super) struct Bytes {
    content: Content,
    /// What they must be, where the tree does not say it.
    digest: Option<Digest>,
}

impl From<Content> for Bytes {
    fn from(content: Content) -> Self {
        Self { content, digest: None }
    }
}

impl Bytes {
    /// Those of a file of a context, which must still be what they were when the step's key was computed.
    pub(super) fn of_context(context: &Context, path: &RelPath) -> Self {
        Self { content: context.content(path), digest: context.known_digest(path) }
    }

    /// The bytes, and the entry as it says what they must be.
    fn of(self, mut entry: Entry) -> (Entry, Content) {
        if let (Kind::File { content, .. }, Some(digest)) = (&mut entry.kind, self.digest) {
            *content = Some(digest);
        }
        (entry, self.content)
    }
}

/// Collects what one instruction puts into a tree.
#[derive(Debug)]
pub(super) struct Placing<'t> {
    tree: &'t Tree,
    /// What is put where: names of one inode are hard links of each other.
    names: BTreeMap<RelPath, usize>,
    inodes: Vec<(Entry, Content)>,
    /// Whether a directory of the tree has been replaced, which hides what the tree has below it.
    replaced: bool,
    restyle: Restyle,
    /// The time of directories that have to be made on the way.
    now: Timestamp,
}

impl<'t> Placing<'t> {
    /// Starts with nothing put into `tree`.
    pub(super) fn new(tree: &'t Tree, restyle: Restyle, now: Timestamp) -> Self {
        Self { tree, names: BTreeMap::new(), inodes: Vec::new(), replaced: false, restyle, now }
    }

    /// The changes. The directories above each are stated too, as they are, for those who unpack this layer alone. Of the
    /// names of a file the first one holds it, in whatever order they came.
    pub(super) fn finish(self) -> Changes {
        let mut changes = Changes::new();
        let mut first_names: HashMap<usize, &RelPath> = HashMap::new();
        for (path, &inode) in &self.names {
            let (entry, content) = self.inodes[inode].clone();
            match first_names.get(&inode) {
                Some(&first) if entry.is_file() => {
                    let kind = Kind::Hardlink { target: first.clone() };
                    changes.put(path.clone(), Entry { kind, ..entry }, Content::Empty);
                }
                _ => changes.put(path.clone(), entry, content),
            }
            first_names.entry(inode).or_insert(path);
        }
        for path in self.names.keys().flat_map(RelPath::ancestors) {
            if changes.get(&path).is_none()
                && let Some(found) = self.tree.get(&path)
            {
                changes.put(path, found.entry.clone(), Content::Empty);
            }
        }
        changes
    }

    /// What `path` is by now; `None` too where it is a directory that nothing states.
    fn entry(&self, path: &RelPath) -> Option<&Entry> {
        match self.names.get(path) {
            Some(&inode) => Some(&self.inodes[inode].0),
            None if self.is_hidden(path) => None,
            None => self.tree.get(path).map(|found| found.entry),
        }
    }

    /// Whether `path` is a directory by now.
    fn is_directory(&self, path: &RelPath) -> bool {
        match self.entry(path) {
            Some(entry) => entry.is_directory(),
            None => !self.is_hidden(path) && self.tree.is_directory(path),
        }
    }

    /// Whether something above `path` is no directory any more.
    fn is_hidden(&self, path: &RelPath) -> bool {
        let is_other =
            |above: &RelPath| self.names.get(above).is_some_and(|&inode| !self.inodes[inode].0.is_directory());
        self.replaced && path.ancestors().any(|above| is_other(&above))
    }

    fn insert(&mut self, path: RelPath, entry: Entry, content: Content) -> usize {
        self.inodes.push((entry, content));
        self.names.insert(path, self.inodes.len() - 1);
        self.inodes.len() - 1
    }

    /// Makes `path` a directory, and what is missing above it, with mode 0755 unless `--chmod` says otherwise. An
    /// existing directory stays as it is.
    pub(super) fn directory(&mut self, path: &RelPath) -> Result<(), Conflict> {
        self.make(path, self.restyle.owner, self.restyle.mode.as_ref().map_or(0o755, Mode::of_new_directory))
    }

    /// The same for the destination of an archive, which `--chmod` does not reach.
    pub(super) fn directory_for_archive(&mut self, path: &RelPath) -> Result<(), Conflict> {
        self.make(path, self.restyle.owner, 0o755)
    }

    fn make(&mut self, path: &RelPath, owner: Option<(u32, u32)>, mode: u32) -> Result<(), Conflict> {
        if self.is_directory(path) {
            return Ok(());
        }
        if self.entry(path).is_some() {
            return Err(Conflict::NotDirectory(path.clone()));
        }
        self.make(&path.parent().unwrap_or_default(), owner, mode)?;
        let mut entry = Entry::directory(mode, self.now);
        (entry.uid, entry.gid) = owner.unwrap_or_default();
        self.insert(path.clone(), entry, Content::Empty);
        Ok(())
    }

    /// A directory on the way to what is copied of a directory, which is not copied as a whole. It is made as it is in
    /// the source; one that exists takes the mode and keeps its owner.
    fn passage(&mut self, path: &RelPath, entry: &Entry) -> Result<(), Conflict> {
        let restyled = self.restyled(entry.clone(), self.restyle.mode.as_ref());
        if !self.is_directory(path) {
            self.check_kind(path, true)?;
            self.insert(path.clone(), restyled, Content::Empty);
        } else if let Some(existing) = self.entry(path).filter(|existing| existing.mode != restyled.mode) {
            let entry = Entry { mode: restyled.mode, ..existing.clone() };
            self.insert(path.clone(), entry, Content::Empty);
        }
        Ok(())
    }

    /// Gives a directory the time of the one whose contents were copied into it.
    fn date(&mut self, path: &RelPath, mtime: Timestamp) {
        let mtime = mtime.truncated();
        match self.names.get(path) {
            Some(&inode) => self.inodes[inode].0.mtime = mtime,
            None => {
                let entry = self.tree.get(path).map(|found| Entry { mtime, ..found.entry.clone() });
                if let Some(entry) = entry {
                    self.insert(path.clone(), entry, Content::Empty);
                }
            }
        }
    }

    /// Puts one entry at `path`, whose directory is made where it is missing. A directory that exists keeps what it holds
    /// and takes the entry's mode and owner.
    pub(super) fn put(&mut self, path: &RelPath, entry: Entry, content: Content) -> Result<(), Conflict> {
        self.put_inode(path, entry, content).map(|_| ())
    }

    fn put_inode(&mut self, path: &RelPath, entry: Entry, content: Content) -> Result<usize, Conflict> {
        self.directory(&path.parent().unwrap_or_default())?;
        self.check_kind(path, entry.is_directory())?;
        Ok(self.insert(path.clone(), self.restyled(entry, self.restyle.mode.as_ref()), content))
    }

    /// Files and directories do not take each other's place.
    fn check_kind(&self, path: &RelPath, directory: bool) -> Result<(), Conflict> {
        match (directory, self.is_directory(path)) {
            (true, false) if self.entry(path).is_some() => Err(Conflict::NotDirectory(path.clone())),
            (false, true) => Err(Conflict::IsDirectory(path.clone())),
            _ => Ok(()),
        }
    }

    fn restyled(&self, mut entry: Entry, mode: Option<&Mode>) -> Entry {
        if let Some(owner) = self.restyle.owner {
            (entry.uid, entry.gid) = owner;
        }
        if let Some(mode) = mode.filter(|_| !matches!(entry.kind, Kind::Symlink { .. })) {
            entry.mode = mode.apply(entry.mode, entry.is_directory());
        }
        entry.mtime = entry.mtime.truncated();
        entry
    }

    /// Puts an entry of an archive, as unpacking does: links among its directories are followed, what is in the way is
    /// replaced, `--chmod` does not reach it, and directories that the archive does not state are root's.
    pub(super) fn unpack(&mut self, name: &RelPath, entry: Entry, content: Content) -> Result<(), Conflict> {
        let path = self.unpacked_path(name)?;
        if entry.is_directory() {
            if self.names.contains_key(&path) && !self.is_directory(&path) && self.tree.is_directory(&path) {
                // The layer could not say that the directory lost what it held in between.
                return Err(Conflict::NotDirectory(path));
            }
        } else {
            self.replace_directory(&path);
        }
        let entry = self.restyled(entry, None);
        self.insert(path, entry, content);
        Ok(())
    }

    /// Gives the file `first`, of an archive or of the tree, one more name.
    pub(super) fn link(&mut self, name: &RelPath, first: &RelPath) -> Result<(), Conflict> {
        let first = self.follow(first, false)?;
        let path = self.unpacked_path(name)?;
        if path == first {
            return Ok(());
        }
        let entry = match self.entry(&first) {
            Some(entry) if !entry.is_directory() => entry.clone(),
            _ => return Err(Conflict::NoFirstName { name: path, first }),
        };
        self.replace_directory(&path);
        match self.names.get(&first) {
            Some(&inode) => _ = self.names.insert(path, inode),
            None if matches!(entry.kind, Kind::Symlink { .. }) => _ = self.insert(path, entry, Content::Empty),
            None => {
                let kind = Kind::Hardlink { target: first };
                self.insert(path, Entry { kind, ..entry }, Content::Empty);
            }
        }
        Ok(())
    }

    fn unpacked_path(&mut self, name: &RelPath) -> Result<RelPath, Conflict> {
        let path = self.follow(name, false)?;
        self.make(&path.parent().unwrap_or_default(), None, 0o755)?;
        Ok(path)
    }

    /// Forgets what was put below `path`, which becomes a file.
    fn replace_directory(&mut self, path: &RelPath) {
        if self.is_directory(path) {
            self.names.retain(|name, _| name == path || !name.starts_with(path));
            self.replaced = true;
        }
    }

    /// Whether a destination is a directory: marked by a slash, or there already.
    pub(super) fn means_directory(&self, destination: &str) -> Result<bool, Conflict> {
        Ok(destination.ends_with('/') || self.is_directory(&self.resolve(destination)?))
    }

    /// Where a destination leads to, through the symbolic links that are there by now.
    pub(super) fn resolve(&self, destination: &str) -> Result<RelPath, Conflict> {
        let path = RelPath::clamped(destination).map_err(yadokari_layers::Error::from)?;
        self.follow(&path, true)
    }

    /// Like [`Tree::resolve`], with what was put into the tree.
    fn follow(&self, path: &RelPath, last: bool) -> Result<RelPath, Conflict> {
        let link = |here: &RelPath| match &self.entry(here)?.kind {
            Kind::Symlink { target } => Some(&target[..]),
            _ => None,
        };
        Ok(follow_links(path, last, link)?)
    }

    /// Where a source goes: its own name below a destination that is a directory, else the destination itself.
    pub(super) fn target(&self, destination: &str, name: Option<&[u8]>) -> Result<RelPath, Conflict> {
        let path = self.resolve(destination)?;
        match name {
            Some(name) if self.means_directory(destination)? => {
                Ok(path.child(name).map_err(yadokari_layers::Error::from)?)
            }
            _ => Ok(path),
        }
    }

    /// Copies what was selected from another tree: a file to the destination or into it, of a directory's contents what
    /// `filter` takes into it. `bytes` opens a file of the source by its layer and its name there.
    pub(super) fn copy<B: Into<Bytes>>(
        &mut self,
        source: &Tree,
        selected: &Selected,
        filter: Filter<'_>,
        destination: &str,
        bytes: &dyn Fn(usize, &RelPath) -> B,
    ) -> Result<(), Conflict> {
        if !source.is_directory(&selected.path) {
            let target = self.target(destination, selected.name.as_deref())?;
            let Some(found) = source.get(&selected.path) else { return Ok(()) };
            let (layer, from, entry) = plain_file(source, &selected.path, found);
            let (entry, content) = bytes(layer, &from).into().of(entry);
            return self.put(&target, entry, content);
        }
        let target = self.resolve(destination)?;
        self.directory(&target)?;
        if let Some(found) = source.get(&selected.path) {
            self.date(&target, found.entry.mtime);
        }
        let mut inodes: HashMap<(usize, RelPath), usize> = HashMap::new();
        // A directory on the way that no layer states is made like any other that is missing.
        for Part { below, path, found, is_passage } in source.part(&selected.path, &|below| filter.takes(below)) {
            let to = target.join(&below);
            if is_passage {
                self.passage(&to, found.entry)?;
                continue;
            }
            if below.is_root() {
                continue;
            }
            let (layer, from, entry) = plain_file(source, path, found);
            if !entry.is_file() {
                self.put(&to, entry, Content::Empty)?;
            } else if let Some(&inode) = inodes.get(&(layer, from.clone())) {
                self.directory(&to.parent().unwrap_or_default())?;
                self.check_kind(&to, false)?;
                self.names.insert(to, inode);
            } else {
                let (entry, content) = bytes(layer, &from).into().of(entry);
                let inode = self.put_inode(&to, entry, content)?;
                inodes.insert((layer, from), inode);
            }
        }
        Ok(())
    }
}

/// The entry of a path, and the layer and name that hold its bytes: a hard link stands for the file that it names.
fn plain_file(tree: &Tree, path: &RelPath, found: Found<'_>) -> (usize, RelPath, Entry) {
    match tree.content(path) {
        Some((name, holder)) => (holder.layer, name.clone(), holder.entry.clone()),
        None => (found.layer, path.clone(), found.entry.clone()),
    }
}

#[cfg(test)]
mod tests;
