//! Paths inside a root.

use std::borrow::Borrow;
use std::cmp::Ordering;
use std::ffi::OsStr;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::Arc;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A path relative to a root: components joined by single slashes, none of them empty, `.`, `..` or with a NUL byte.
///
/// The root itself is the empty path. The order is that of the bytes, in which a directory comes before what it holds.
/// Copies share their bytes: an index and the trees that it is part of hold each path once.
#[derive(Clone, Eq, Default)]
pub struct RelPath(Arc<[u8]>);

/// A name that is no path inside a root.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("path '{}' {reason}", crate::error::printable(path))]
pub struct InvalidPath {
    /// The path.
    pub path: String,
    /// What is wrong with it.
    pub reason: &'static str,
}

impl RelPath {
    /// The root itself.
    pub fn root() -> Self {
        Self::default()
    }

    /// The path that `text` names, whether or not it begins with a slash. Empty and `.` components vanish; `..` is
    /// refused.
    pub fn new(text: impl AsRef<[u8]>) -> Result<Self, InvalidPath> {
        Self::build(text.as_ref(), |path| Err(InvalidPath { path, reason: "climbs with '..'" }))
    }

    /// The path that `text` names when `..` means the parent and the root's parent is the root, as in a chroot. No
    /// symbolic link is looked at.
    pub fn clamped(text: impl AsRef<[u8]>) -> Result<Self, InvalidPath> {
        Self::build(text.as_ref(), |_| Ok(()))
    }

    fn build(text: &[u8], on_parent: impl Fn(String) -> Result<(), InvalidPath>) -> Result<Self, InvalidPath> {
        if is_clean(text) {
            return Ok(Self(text.into()));
        }
        let printable = || String::from_utf8_lossy(text).into_owned();
        if text.contains(&0) {
            return Err(InvalidPath { path: printable(), reason: "holds a NUL byte" });
        }
        let mut components: Vec<&[u8]> = Vec::new();
        for component in text.split(|&byte| byte == b'/') {
            match component {
                b"" | b"." => {}
                b".." => {
                    on_parent(printable())?;
                    components.pop();
                }
                _ => components.push(component),
            }
        }
        Ok(Self(components.join(&b'/').into()))
    }

    /// The bytes, without a leading slash.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// The path for the standard library and the kernel; `.` for the root, since an empty path is none.
    pub fn as_path(&self) -> &Path {
        let bytes: &[u8] = if self.is_root() { b"." } else { &self.0 };
        Path::new(OsStr::from_bytes(bytes))
    }

    /// Whether this is the root itself.
    pub fn is_root(&self) -> bool {
        self.0.is_empty()
    }

    /// The components from the root down.
    pub fn components(&self) -> impl DoubleEndedIterator<Item = &[u8]> {
        self.0.split(|&byte| byte == b'/').filter(|component| !component.is_empty())
    }

    /// The last component; `None` for the root.
    pub fn file_name(&self) -> Option<&[u8]> {
        self.components().next_back()
    }

    /// The directory that holds this path; `None` for the root.
    pub fn parent(&self) -> Option<Self> {
        let name = self.file_name()?;
        let end = (self.0.len() - name.len()).saturating_sub(1);
        Some(Self(self.0[..end].into()))
    }

    /// The directories above this path, the nearest first, without the root.
    pub fn ancestors(&self) -> impl Iterator<Item = Self> {
        std::iter::successors(self.parent(), Self::parent).filter(|path| !path.is_root())
    }

    /// This path with `below` under it.
    pub fn join(&self, below: &Self) -> Self {
        match (self.is_root(), below.is_root()) {
            (true, _) => below.clone(),
            (_, true) => self.clone(),
            _ => Self([&self.0[..], &below.0[..]].join(&b'/').into()),
        }
    }

    /// This path with one more component, which must be a name and not a path.
    pub fn child(&self, name: &[u8]) -> Result<Self, InvalidPath> {
        if name.is_empty() || name.contains(&b'/') || !is_clean(name) {
            let path = Self::new(name).map(|_| String::from_utf8_lossy(name).into_owned())?;
            return Err(InvalidPath { path, reason: "is not the name of a file" });
        }
        Ok(Self(if self.is_root() { name.into() } else { [&self.0[..], name].join(&b'/').into() }))
    }

    /// What is left of this path below `base`: the root when they are the same, `None` when it is not below `base`.
    pub fn strip_prefix(&self, base: &Self) -> Option<Self> {
        if base.is_root() {
            return Some(self.clone());
        }
        match self.0.strip_prefix(&base.0[..])? {
            [] => Some(Self::root()),
            [b'/', rest @ ..] => Some(Self(rest.into())),
            _ => None,
        }
    }

    /// Whether this path is `base` or below it.
    pub fn starts_with(&self, base: &Self) -> bool {
        self.strip_prefix(base).is_some()
    }
}

/// Whether this is a path as it is kept already.
fn is_clean(text: &[u8]) -> bool {
    let is_name = |component: &[u8]| !matches!(component, b"" | b"." | b"..");
    text.is_empty() || (!text.contains(&0) && text.split(|&byte| byte == b'/').all(is_name))
}

/// The order of two byte strings, eight bytes at a time. Paths have long beginnings in common, and musl compares single bytes.
fn compare(a: &[u8], b: &[u8]) -> Ordering {
    let (words, others) = (a.as_chunks::<8>().0, b.as_chunks::<8>().0);
    let mut pairs = words.iter().zip(others);
    match pairs.find(|(word, other)| word != other) {
        Some((word, other)) => u64::from_be_bytes(*word).cmp(&u64::from_be_bytes(*other)),
        None => {
            // Of one of the two there are fewer than eight bytes left.
            let same = 8 * words.len().min(others.len());
            a[same..].cmp(&b[same..])
        }
    }
}

impl PartialEq for RelPath {
    fn eq(&self, other: &Self) -> bool {
        self.0.len() == other.0.len() && (Arc::ptr_eq(&self.0, &other.0) || compare(&self.0, &other.0).is_eq())
    }
}

impl Ord for RelPath {
    fn cmp(&self, other: &Self) -> Ordering {
        compare(&self.0, &other.0)
    }
}

impl PartialOrd for RelPath {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Hash for RelPath {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.0.hash(state);
    }
}

impl Borrow<[u8]> for RelPath {
    fn borrow(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Display for RelPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&String::from_utf8_lossy(&self.0))
    }
}

impl fmt::Debug for RelPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", String::from_utf8_lossy(&self.0))
    }
}

impl Serialize for RelPath {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(&self.0)
    }
}

impl<'de> Deserialize<'de> for RelPath {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_bytes(Clean)
    }
}

/// Reads a path as it is kept.
struct Clean;

impl serde::de::Visitor<'_> for Clean {
    type Value = RelPath;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a clean path")
    }

    fn visit_bytes<E: serde::de::Error>(self, bytes: &[u8]) -> Result<RelPath, E> {
        if is_clean(bytes) { Ok(RelPath(bytes.into())) } else { Err(E::custom("a path that is not clean")) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(text: &str) -> RelPath {
        RelPath::new(text).unwrap()
    }

    #[test]
    fn empty_and_dot_components_vanish_and_parents_are_refused() {
        assert_eq!(path("/a//b/./c/").as_bytes(), b"a/b/c");
        assert_eq!(path("./"), RelPath::root());
        assert!(RelPath::new("a/../b").is_err());
        assert!(RelPath::new("a\0b").is_err());
    }

    #[test]
    fn clamped_paths_stay_in_the_root() {
        assert_eq!(RelPath::clamped("../../etc/./x/../passwd").unwrap(), path("etc/passwd"));
    }

    #[test]
    fn parents_and_ancestors_exclude_the_root() {
        assert_eq!(path("a/b/c").parent(), Some(path("a/b")));
        assert_eq!(path("a").parent(), Some(RelPath::root()));
        assert_eq!(RelPath::root().parent(), None);
        assert_eq!(path("a/b/c").ancestors().collect::<Vec<_>>(), [path("a/b"), path("a")]);
    }

    #[test]
    fn prefixes_end_at_components() {
        assert_eq!(path("a/b").strip_prefix(&path("a")), Some(path("b")));
        assert_eq!(path("ab").strip_prefix(&path("a")), None);
        assert_eq!(path("a").strip_prefix(&path("a")), Some(RelPath::root()));
        assert!(path("a").starts_with(&RelPath::root()));
    }

    #[test]
    fn the_order_is_that_of_the_bytes() {
        let long = "usr/lib/python3/site";
        let mut texts: Vec<String> = (0..=long.len()).map(|end| long[..end].trim_end_matches('/').to_owned()).collect();
        for at in 0..long.len() {
            for other in ["!", "z", "\u{ff}"] {
                texts.push(format!("{}{other}{}", &long[..at], &long[at + 1..]));
            }
        }
        let paths: Vec<RelPath> = texts.iter().map(|text| path(text)).collect();
        for a in &paths {
            for b in &paths {
                assert_eq!(a.cmp(b), a.as_bytes().cmp(b.as_bytes()), "{a} {b}");
                assert_eq!(a == b, a.as_bytes() == b.as_bytes(), "{a} {b}");
            }
        }
    }

    #[test]
    fn a_child_is_one_name() {
        assert_eq!(path("a").child(b"b").unwrap(), path("a/b"));
        for bad in ["", ".", "..", "b/c", "b/"] {
            assert!(path("a").child(bad.as_bytes()).is_err(), "{bad}");
        }
    }
}
