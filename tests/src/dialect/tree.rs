//! The file system that the layers of an image make, without unpacking it: what an unpacker needs privileges for, and
//! what the kernel would change, is seen as it is written.

use std::collections::BTreeMap;
use std::io::{self, BufRead, BufReader, Read};

use flate2::read::MultiGzDecoder;

use crate::layout::digest;

/// Paths, without a leading slash, and what is there.
#[derive(Clone, Debug, Default)]
pub struct Tree {
    paths: BTreeMap<String, usize>,
    nodes: Vec<Node>,
}

/// What is at a path, or at several, where it is a file with several names.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Node {
    /// `directory`, `link to x`, `file of 3 bytes, sha256:…`, `device c 1:3`, `fifo`.
    kind: String,
    mode: u32,
    owner: String,
    mtime: String,
    xattrs: BTreeMap<String, String>,
}

/// What was made during the build has no time that could be compared: it is later than this.
const NOW: u64 = 1_735_689_600;

impl Tree {
    /// Puts a layer on it: a tar, compressed or not.
    pub fn apply(&mut self, layer: impl Read) -> io::Result<()> {
        let entries = entries(layer)?;
        for entry in &entries {
            let (parent, name) = entry.path.rsplit_once('/').unwrap_or(("", &entry.path));
            if name == ".wh..wh..opq" {
                self.remove_below(parent);
            } else if let Some(gone) = name.strip_prefix(".wh.") {
                let gone = if parent.is_empty() { gone.to_owned() } else { format!("{parent}/{gone}") };
                self.remove_below(&gone);
                self.paths.remove(&gone);
            }
        }
        for entry in entries {
            if !entry.path.rsplit('/').next().is_some_and(|name| name.starts_with(".wh.")) {
                self.put(entry)?;
            }
        }
        Ok(())
    }

    /// Each path with its attributes by name, in order: `kind`, `mode`, `owner`, `mtime` (`time` of a directory), `xattr …`,
    /// and `names`, where a file has several.
    pub fn fields(&self) -> BTreeMap<&str, BTreeMap<String, String>> {
        let mut names: BTreeMap<usize, Vec<&str>> = BTreeMap::new();
        for (path, node) in &self.paths {
            names.entry(*node).or_default().push(path);
        }
        let fields = |node: usize| {
            let Node { kind, mode, owner, mtime, xattrs } = &self.nodes[node];
            let mut fields = BTreeMap::from([
                ("kind".to_owned(), kind.clone()),
                ("owner".to_owned(), owner.clone()),
                // A directory's is that of its last change, too, and so it has a name of its own.
                (if kind == "directory" { "time" } else { "mtime" }.to_owned(), mtime.clone()),
            ]);
            if !kind.starts_with("link") {
                fields.insert("mode".to_owned(), format!("{mode:04o}"));
            }
            fields.extend(xattrs.iter().map(|(name, value)| (format!("xattr {name}"), value.clone())));
            if names[&node].len() > 1 {
                fields.insert("names".to_owned(), names[&node].join(" "));
            }
            fields
        };
        self.paths.iter().map(|(path, node)| (&**path, fields(*node))).collect()
    }

    fn put(&mut self, entry: Entry) -> io::Result<()> {
        let Entry { path, node, hard } = entry;
        if path.is_empty() {
            return Ok(());
        }
        // An unpacker makes the directories that no layer says.
        let above: Vec<_> = path.match_indices('/').map(|(at, _)| path[..at].to_owned()).collect();
        for parent in above {
            if !self.paths.contains_key(&parent) {
                self.add(parent, Node::implied());
            }
        }
        if node.kind != "directory" {
            self.remove_below(&path);
        }
        match hard {
            Some(first) => {
                let missing = || io::Error::other(format!("{path} is a hard link to {first}, which is not there"));
                let node = *self.paths.get(&first).ok_or_else(missing)?;
                self.paths.insert(path, node);
            }
            None => self.add(path, node),
        }
        Ok(())
    }

    fn add(&mut self, path: String, node: Node) {
        self.paths.insert(path, self.nodes.len());
        self.nodes.push(node);
    }

    fn remove_below(&mut self, directory: &str) {
        let prefix = if directory.is_empty() { String::new() } else { format!("{directory}/") };
        self.paths.retain(|path, _| !path.starts_with(&prefix));
    }
}

impl Node {
    fn implied() -> Self {
        Self {
            kind: "directory".to_owned(),
            mode: 0o755,
            owner: "0:0".to_owned(),
            mtime: "implied".to_owned(),
            xattrs: BTreeMap::new(),
        }
    }
}

struct Entry {
    path: String,
    node: Node,
    /// The other name of a hard link.
    hard: Option<String>,
}

fn entries(layer: impl Read) -> io::Result<Vec<Entry>> {
    let mut layer = BufReader::new(layer);
    let start = layer.fill_buf()?.get(..4).unwrap_or_default().to_owned();
    let plain: Box<dyn Read + '_> = match start[..] {
        [0x1f, 0x8b, ..] => Box::new(MultiGzDecoder::new(layer)),
        [0x28, 0xb5, 0x2f, 0xfd] => Box::new(zstd::Decoder::with_buffer(layer)?),
        _ => Box::new(layer),
    };
    let mut archive = tar::Archive::new(plain);
    archive.entries()?.map(|entry| read(entry?)).collect()
}

fn read(mut entry: tar::Entry<'_, impl Read>) -> io::Result<Entry> {
    let clean = |bytes: &[u8]| {
        let text = String::from_utf8_lossy(bytes).into_owned();
        text.trim_start_matches("./").trim_matches('/').to_owned()
    };
    let path = clean(&entry.path_bytes());
    let path = if path == "." { String::new() } else { path };
    let link = entry.link_name_bytes().map(|name| name.into_owned()).unwrap_or_default();
    let mut xattrs = BTreeMap::new();
    let mut mtime = entry.header().mtime()?;
    for extension in entry.pax_extensions()?.into_iter().flatten() {
        let extension = extension?;
        let key = extension.key().unwrap_or_default();
        if let Some(name) = key.strip_prefix("SCHILY.xattr.") {
            xattrs.insert(name.to_owned(), extension.value_bytes().escape_ascii().to_string());
        } else if key == "mtime" {
            let whole = extension.value().unwrap_or_default().split('.').next().unwrap_or_default();
            mtime = whole.parse().unwrap_or(mtime);
        }
    }
    let header = entry.header().clone();
    let device = |letter| -> io::Result<String> {
        let part = |number: Option<u32>| number.unwrap_or(0);
        Ok(format!("device {letter} {}:{}", part(header.device_major()?), part(header.device_minor()?)))
    };
    let kind = match header.entry_type() {
        tar::EntryType::Directory => "directory".to_owned(),
        tar::EntryType::Symlink => format!("link to {}", String::from_utf8_lossy(&link)),
        tar::EntryType::Char => device('c')?,
        tar::EntryType::Block => device('b')?,
        tar::EntryType::Fifo => "fifo".to_owned(),
        _ => {
            let size = entry.size();
            format!("file of {size} bytes, {}", &digest(&mut entry)?[..19])
        }
    };
    let hard = header.entry_type().is_hard_link().then(|| clean(&link));
    let node = Node {
        kind,
        mode: header.mode()? & 0o7777,
        owner: format!("{}:{}", header.uid()?, header.gid()?),
        mtime: if mtime > NOW { "now".to_owned() } else { mtime.to_string() },
        xattrs,
    };
    Ok(Entry { path, node, hard })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::layout::TarWriter;

    fn layer(write: impl FnOnce(&mut TarWriter<&mut Vec<u8>>)) -> Vec<u8> {
        let mut bytes = Vec::new();
        let mut tar = TarWriter::new(&mut bytes);
        write(&mut tar);
        tar.finish().unwrap();
        bytes
    }

    #[test]
    fn later_layers_replace_and_remove() {
        let mut tree = Tree::default();
        let first = layer(|tar| {
            tar.directory("d", 0o755).unwrap();
            for path in ["d/a", "d/b", "e/f", "g"] {
                tar.file(path, 0o644, path.as_bytes()).unwrap();
            }
        });
        tree.apply(&*first).unwrap();
        assert_eq!(tree.fields()["e"]["time"], "implied");
        let second = layer(|tar| {
            tar.file("d/new", 0o600, b"").unwrap();
            tar.file("d/.wh.a", 0o600, b"").unwrap();
            tar.file("e", 0o600, b"").unwrap();
            tar.file(".wh.g", 0o600, b"").unwrap();
        });
        tree.apply(&*second).unwrap();
        assert_eq!(tree.fields().into_keys().collect::<Vec<_>>(), ["d", "d/b", "d/new", "e"]);
        tree.apply(&*layer(|tar| tar.file("d/.wh..wh..opq", 0o600, b"").unwrap())).unwrap();
        assert_eq!(tree.fields().into_keys().collect::<Vec<_>>(), ["d", "e"]);
    }
}
