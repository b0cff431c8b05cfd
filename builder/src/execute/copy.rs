//! COPY, ADD and WORKDIR, worked out on trees: no root file system is needed.

use std::collections::HashMap;

use yadokari_layers::{Changes, Content, Entry, Found, Kind, RelPath, Result, Timestamp, Tree};

use crate::plan::Selected;

/// How copied files differ from their sources.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Restyle {
    /// `--chown`
    pub(super) owner: Option<(u32, u32)>,
    /// `--chmod`
    pub(super) mode: Option<u32>,
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
    /// Several sources need a directory.
    #[error("several sources are copied, and '{0}' is not a directory")]
    NeedsDirectory(String),
    /// Trees and paths.
    #[error(transparent)]
    Layers(#[from] yadokari_layers::Error),
}

/// Collects what one instruction puts into a tree.
#[derive(Debug)]
pub(super) struct Placing<'t> {
    tree: &'t Tree,
    changes: Changes,
    restyle: Restyle,
    /// The time of directories that have to be made on the way.
    now: Timestamp,
}

impl<'t> Placing<'t> {
    /// Starts with nothing put into `tree`.
    pub(super) fn new(tree: &'t Tree, restyle: Restyle, now: Timestamp) -> Self {
        Self { tree, changes: Changes::new(), restyle, now }
    }

    /// The changes. The directories above each are stated too, as they are, for those who unpack this layer alone.
    pub(super) fn finish(mut self) -> Changes {
        let above: Vec<RelPath> = self.changes.iter().flat_map(|(path, _)| path.ancestors()).collect();
        for path in above {
            if self.changes.get(&path).is_none()
                && let Some(found) = self.tree.get(&path)
            {
                self.changes.put(path, found.entry.clone(), Content::Empty);
            }
        }
        self.changes
    }

    /// Whether `path` is a directory by now.
    fn is_directory(&self, path: &RelPath) -> bool {
        match self.changes.get(path) {
            Some(yadokari_layers::Change::Put(entry, _)) => entry.is_directory(),
            Some(yadokari_layers::Change::Delete) => false,
            None => self.tree.is_directory(path),
        }
    }

    /// Makes `path` a directory, and what is missing above it, with mode 0755 unless `--chmod` says otherwise. An
    /// existing directory stays as it is.
    pub(super) fn directory(&mut self, path: &RelPath) -> Result<(), Conflict> {
        if self.is_directory(path) {
            return Ok(());
        }
        if self.changes.get(path).is_some() || self.tree.get(path).is_some() {
            return Err(Conflict::NotDirectory(path.clone()));
        }
        self.directory(&path.parent().unwrap_or_default())?;
        let mut entry = Entry::directory(self.restyle.mode.unwrap_or(0o755), self.now);
        (entry.uid, entry.gid) = self.restyle.owner.unwrap_or_default();
        self.changes.put(path.clone(), entry, Content::Empty);
        Ok(())
    }

    /// Puts one entry at `path`, whose directory is made where it is missing.
    pub(super) fn put(&mut self, path: &RelPath, mut entry: Entry, content: Content) -> Result<(), Conflict> {
        self.directory(&path.parent().unwrap_or_default())?;
        if entry.is_directory() {
            if self.is_directory(path) {
                return Ok(());
            }
            if self.tree.get(path).is_some() {
                return Err(Conflict::NotDirectory(path.clone()));
            }
        } else if self.is_directory(path) {
            return Err(Conflict::IsDirectory(path.clone()));
        }
        if let Some(owner) = self.restyle.owner {
            (entry.uid, entry.gid) = owner;
        }
        if let Some(mode) = self.restyle.mode.filter(|_| !matches!(entry.kind, Kind::Symlink { .. })) {
            entry.mode = mode;
        }
        entry.mtime = entry.mtime.truncated();
        self.changes.put(path.clone(), entry, content);
        Ok(())
    }

    /// Whether a destination is a directory: marked by a slash, or there already.
    pub(super) fn means_directory(&self, destination: &str) -> Result<bool, Conflict> {
        Ok(destination.ends_with('/') || self.is_directory(&self.resolve(destination)?))
    }

    /// Where a destination leads to, through the symbolic links of the tree.
    pub(super) fn resolve(&self, destination: &str) -> Result<RelPath, Conflict> {
        let path = RelPath::clamped(destination).map_err(yadokari_layers::Error::from)?;
        Ok(self.tree.resolve(&path)?)
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

    /// Copies what was selected from another tree: a file to the destination or into it, a directory's contents into
    /// it. `content` opens a file of the source by its layer and its name there.
    pub(super) fn copy(
        &mut self,
        source: &Tree,
        selected: &Selected,
        destination: &str,
        content: &dyn Fn(usize, &RelPath) -> Content,
    ) -> Result<(), Conflict> {
        if !source.is_directory(&selected.path) {
            let target = self.target(destination, selected.name.as_deref())?;
            let Some(found) = source.get(&selected.path) else { return Ok(()) };
            let (layer, from, entry) = plain_file(source, &selected.path, found);
            return self.put(&target, entry, content(layer, &from));
        }
        let target = self.resolve(destination)?;
        self.directory(&target)?;
        let mut first_names: HashMap<(usize, RelPath), RelPath> = HashMap::new();
        for (path, found) in source.below(&selected.path) {
            let below = path.strip_prefix(&selected.path).expect("the walk stays below where it starts");
            let to = target.join(&below);
            let (layer, from, entry) = plain_file(source, path, found);
            if !entry.is_file() {
                self.put(&to, entry, Content::Empty)?;
            } else if let Some(first) = first_names.get(&(layer, from.clone())) {
                self.put(&to, Entry { kind: Kind::Hardlink { target: first.clone() }, ..entry }, Content::Empty)?;
            } else {
                self.put(&to, entry, content(layer, &from))?;
                first_names.insert((layer, from), to);
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
mod tests {
    use std::sync::Arc;

    use yadokari_layers::{Change, IndexBuilder};

    use super::*;
    use crate::plan::select;

    fn path(text: &str) -> RelPath {
        RelPath::new(text).unwrap()
    }

    /// `d/` with mode 0700 and owner 5, `f` a file with mode 0640, `l -> t` a symbolic link, `h = t` a hard link.
    fn tree(lines: &[&str]) -> Tree {
        let mut builder = IndexBuilder::new();
        let at = Timestamp::from_secs(7);
        for line in lines {
            let (name, entry) = if let Some(name) = line.strip_suffix('/') {
                (name, Entry { uid: 5, gid: 5, ..Entry::directory(0o700, at) })
            } else if let Some((name, target)) = line.split_once(" -> ") {
                (name, Entry { kind: Kind::Symlink { target: target.into() }, ..Entry::file(0, 0o777, at) })
            } else if let Some((name, target)) = line.split_once(" = ") {
                (name, Entry { kind: Kind::Hardlink { target: path(target) }, ..Entry::file(0, 0o640, at) })
            } else {
                (*line, Entry::file(3, 0o640, at))
            };
            builder.put(path(name), entry, None);
        }
        Tree::of([Arc::new(builder.finish())])
    }

    fn copied(
        source: &[&str],
        words: &[&str],
        into: &[&str],
        destination: &str,
        restyle: Restyle,
    ) -> Result<Vec<String>, Conflict> {
        let (source, into) = (tree(source), tree(into));
        let mut placing = Placing::new(&into, restyle, Timestamp::from_secs(9));
        for word in words {
            for selected in select(&source, word).unwrap().unwrap() {
                placing.copy(&source, &selected, destination, &|_, _| Content::Empty)?;
            }
        }
        let line = |(path, change): (&RelPath, &Change)| match change {
            Change::Put(Entry { kind: Kind::Hardlink { target }, .. }, _) => format!("{path} = {target}"),
            Change::Put(Entry { mode, uid, .. }, _) => format!("{path} {mode:o} {uid}"),
            Change::Delete => format!("-{path}"),
        };
        Ok(placing.finish().iter().map(line).collect())
    }

    fn plain(source: &[&str], words: &[&str], into: &[&str], destination: &str) -> Vec<String> {
        copied(source, words, into, destination, Restyle::default()).unwrap()
    }

    #[test]
    fn a_file_goes_to_the_destination_or_into_it() {
        assert_eq!(plain(&["f"], &["f"], &[], "/x/y"), ["x 755 0", "x/y 640 0"]);
        assert_eq!(plain(&["f"], &["f"], &[], "/x/y/"), ["x 755 0", "x/y 755 0", "x/y/f 640 0"]);
        assert_eq!(plain(&["f"], &["f"], &["d/"], "/d"), ["d 700 5", "d/f 640 0"]);
    }

    #[test]
    fn a_directorys_contents_are_copied_and_existing_directories_stay() {
        let source = ["s/", "s/sub/", "s/sub/f", "s/top"];
        assert_eq!(plain(&source, &["s"], &[], "/n"), ["n 755 0", "n/sub 700 5", "n/sub/f 640 0", "n/top 640 0"]);
        let existing = plain(&source, &["s"], &["n/", "n/sub/"], "/n");
        assert_eq!(existing, ["n 700 5", "n/sub 700 5", "n/sub/f 640 0", "n/top 640 0"]);
    }

    #[test]
    fn links_of_the_destination_are_followed_inside_the_root() {
        assert_eq!(plain(&["f"], &["f"], &["usr/", "bin -> ../../usr"], "/bin/"), ["usr 700 5", "usr/f 640 0"]);
        assert_eq!(plain(&["f"], &["f"], &["usr/", "g -> usr/h"], "/g"), ["usr 700 5", "usr/h 640 0"]);
    }

    #[test]
    fn hard_links_are_kept_within_one_copy() {
        let source = ["s/", "s/a", "s/b = s/a", "s/c = s/a"];
        assert_eq!(plain(&source, &["s"], &[], "/n"), ["n 755 0", "n/a 640 0", "n/b = n/a", "n/c = n/a"]);
        assert_eq!(plain(&source, &["s/b"], &[], "/n"), ["n 640 0"]);
        let only_links = ["a", "s/", "s/b = a", "s/c = a"];
        assert_eq!(plain(&only_links, &["s"], &[], "/n"), ["n 755 0", "n/b 640 0", "n/c = n/b"]);
    }

    #[test]
    fn owner_and_mode_hold_for_what_is_made_on_the_way_too() {
        let restyle = Restyle { owner: Some((1, 2)), mode: Some(0o705) };
        let lines = copied(&["f"], &["f"], &["e/"], "/e/x/f", restyle).unwrap();
        assert_eq!(lines, ["e 700 5", "e/x 705 1", "e/x/f 705 1"]);
    }

    #[test]
    fn files_and_directories_do_not_replace_each_other() {
        let conflict = |source: &[&str], word, into: &[&str], to| copied(source, &[word], into, to, Restyle::default());
        assert!(matches!(conflict(&["s/", "s/x"], "s", &["d/", "d/x/"], "/d"), Err(Conflict::IsDirectory(_))));
        assert!(matches!(conflict(&["s/", "s/x/"], "s", &["d/", "d/x"], "/d"), Err(Conflict::NotDirectory(_))));
        assert!(matches!(conflict(&["f"], "f", &["d"], "/d/f"), Err(Conflict::NotDirectory(_))));
    }
}
