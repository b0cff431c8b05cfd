//! What layers and trees hold, as far as later steps can tell.

use std::collections::HashMap;

use yadokari_layers::{Digest, Entry, Index, Key, KeyHasher, Kind, Part, Record, Tree};

use crate::context::ignore::Ignore;
use crate::plan::select::Selected;

/// What a layer holds, as far as later steps can tell. Where no time is later than `clamp` its bytes are the same
/// whenever it is made, and their digest says it. Elsewhere times are those of the clock, and count for nothing.
pub fn content_of(index: &Index, diff_id: &Digest, clamp: Option<i64>) -> Digest {
    if clamp.is_some() {
        return *diff_id;
    }
    let mut key = KeyHasher::new("layer content");
    key.number(index.len() as u64);
    for (path, record) in index.records() {
        key.bytes(path.as_bytes());
        match record {
            Record::Put(put) => {
                key.bytes("put");
                entry(&mut key, put, None);
            }
            Record::Delete => _ = key.bytes("delete"),
            Record::Opaque(None) => _ = key.bytes("opaque"),
            Record::Opaque(Some(put)) => {
                key.bytes("opaque and put");
                entry(&mut key, put, None);
            }
        }
    }
    key.finish().digest()
}

/// What layers hold together: `content` on top of what `below` stands for, which is a state itself, or what a stage
/// starts from ([`Stage::base_key`](crate::plan::Stage::base_key)).
pub fn state(below: &Key, content: &Digest) -> Key {
    let mut key = KeyHasher::new("state");
    key.digest(&below.digest()).digest(content);
    key.finish()
}

/// What is copied of a tree, or mounted. A file with several names is told from several files.
pub(in crate::plan) fn selected_content(tree: &Tree, all: &[Selected], exclude: &Ignore, clamp: Option<i64>) -> Key {
    let mut key = KeyHasher::new("selected content");
    key.number(all.len() as u64);
    for selected in all {
        let filter = selected.filter(exclude);
        let parts = tree.part(&selected.path, &|below| filter.takes(below));
        key.option(selected.name.as_deref()).number(parts.len() as u64);
        let mut first_names = HashMap::new();
        for (position, Part { below, path, found, is_passage }) in parts.iter().enumerate() {
            let (layer, name, holder) = match tree.content(path) {
                Some((name, holder)) => (holder.layer, name, holder.entry),
                None => (found.layer, *path, found.entry),
            };
            let first = *first_names.entry((layer, name)).or_insert(position);
            key.bytes(below.as_bytes()).number(u64::from(*is_passage)).number(first as u64);
            entry(&mut key, holder, clamp);
        }
    }
    key.finish()
}

/// All that a layer says of a path, with its time where `clamp` says how late that may be.
fn entry(key: &mut KeyHasher, entry: &Entry, clamp: Option<i64>) {
    kind(key, &entry.kind);
    key.number(entry.mode.into()).number(entry.uid.into()).number(entry.gid.into());
    attributes(key, entry);
    key.option(clamp.map(|clamp| entry.mtime.secs.min(clamp).to_le_bytes()));
}

/// The kind of a path, and what belongs to it.
pub(super) fn kind(key: &mut KeyHasher, kind: &Kind) {
    match kind {
        Kind::File { size, content } => {
            key.bytes("file").number(*size).option(content.as_ref().map(Digest::as_bytes));
        }
        Kind::Directory => _ = key.bytes("directory"),
        Kind::Symlink { target } => _ = key.bytes("symlink").bytes(target),
        Kind::Hardlink { target } => _ = key.bytes("hardlink").bytes(target.as_bytes()),
        Kind::CharDevice { major, minor } => _ = key.bytes("char").number((*major).into()).number((*minor).into()),
        Kind::BlockDevice { major, minor } => _ = key.bytes("block").number((*major).into()).number((*minor).into()),
        Kind::Fifo => _ = key.bytes("fifo"),
    }
}

/// The extended attributes of a path.
pub(super) fn attributes(key: &mut KeyHasher, entry: &Entry) {
    key.number(entry.xattrs.len() as u64);
    for (name, value) in &entry.xattrs {
        key.bytes(name).bytes(value);
    }
}
