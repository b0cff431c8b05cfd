//! Which paths of a source the words of COPY and ADD mean.

use yadokari_layers::{RelPath, Tree};

use crate::context::glob;

/// A path that a source word means.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Selected {
    /// The last component as written, or as matched by the pattern: the name under which it is copied. `None` for the
    /// root of the source.
    pub name: Option<Vec<u8>>,
    /// Where it is, with all symbolic links followed inside the source.
    pub path: RelPath,
}

/// The answer to a source word.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Selection {
    /// These paths, sorted. A pattern that matches nothing gives none, which is legal.
    Found(Vec<Selected>),
    /// A literal path, or a link that a pattern matched, that leads nowhere.
    Missing(String),
}

/// Whether a source word is a pattern and not a literal path.
pub fn is_pattern(word: &str) -> bool {
    word.contains(['*', '?', '['])
}

/// The paths of `tree` that `word` means.
///
/// The word starts at the root of the source whether or not it begins with a slash, and `..` cannot leave it.
/// Symbolic links are followed inside the source, the last component's included.
pub fn select(tree: &Tree, word: &str) -> Result<Selection, crate::Error> {
    if !is_pattern(word) {
        return literal(tree, word);
    }
    let pattern = RelPath::clamped(word).map_err(yadokari_layers::Error::from)?;
    let mut matched = vec![Selected { name: None, path: RelPath::root() }];
    for component in pattern.components() {
        let component = String::from_utf8_lossy(component).into_owned();
        let mut next = Vec::new();
        for Selected { path, .. } in matched {
            let directory = tree.resolve(&path)?;
            for name in tree.names(&directory) {
                if matches(&component, &name)? {
                    let path = directory.child(&name).map_err(yadokari_layers::Error::from)?;
                    next.push(Selected { name: Some(name), path });
                }
            }
        }
        matched = next;
    }
    for selected in &mut matched {
        let path = tree.resolve(&selected.path)?;
        let written = std::mem::replace(&mut selected.path, path);
        if !exists(tree, &selected.path) {
            return Ok(Selection::Missing(written.to_string()));
        }
    }
    Ok(Selection::Found(matched))
}

/// The path of `tree` that `word` means, whatever characters it has.
pub fn literal(tree: &Tree, word: &str) -> Result<Selection, crate::Error> {
    let written = RelPath::clamped(word).map_err(yadokari_layers::Error::from)?;
    let path = tree.resolve(&written)?;
    let name = written.file_name().map(<[u8]>::to_vec);
    Ok(match exists(tree, &path) {
        true => Selection::Found(vec![Selected { name, path }]),
        false => Selection::Missing(word.to_owned()),
    })
}

fn exists(tree: &Tree, path: &RelPath) -> bool {
    tree.get(path).is_some() || tree.is_directory(path)
}

fn matches(pattern: &str, name: &[u8]) -> Result<bool, crate::Error> {
    let bad = |_| crate::Error::Pattern { pattern: pattern.to_owned() };
    // A name that is not UTF-8 can match only a star; the lossy form keeps the comparison total.
    glob::go_match(pattern, &String::from_utf8_lossy(name)).map_err(bad)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use yadokari_layers::{Entry, IndexBuilder, Kind, Timestamp};

    use super::*;

    fn tree() -> Tree {
        let mut builder = IndexBuilder::new();
        let at = Timestamp::default();
        for file in ["a.txt", "b.txt", "src/main.rs", "src/lib.rs", "lib/x/one"] {
            builder.put(RelPath::new(file).unwrap(), Entry::file(0, 0o644, at), None);
        }
        for directory in ["src", "lib", "lib/x"] {
            builder.put(RelPath::new(directory).unwrap(), Entry::directory(0o755, at), None);
        }
        let link = Entry { kind: Kind::Symlink { target: b"../../lib/x".to_vec() }, ..Entry::file(0, 0o777, at) };
        builder.put(RelPath::new("link").unwrap(), link.clone(), None);
        let link = Entry { kind: Kind::Symlink { target: b"none".to_vec() }, ..link };
        builder.put(RelPath::new("broken").unwrap(), link, None);
        Tree::of([Arc::new(builder.finish())])
    }

    fn paths(word: &str) -> Option<Vec<String>> {
        match select(&tree(), word).unwrap() {
            Selection::Found(found) => Some(found.into_iter().map(|selected| selected.path.to_string()).collect()),
            Selection::Missing(path) => {
                assert_eq!(path, word);
                None
            }
        }
    }

    #[test]
    fn literal_paths_exist_or_not() {
        assert_eq!(paths("/src/"), Some(vec!["src".into()]));
        assert_eq!(paths("../../a.txt"), Some(vec!["a.txt".into()]));
        assert_eq!(paths("."), Some(vec![String::new()]));
        assert_eq!(paths("none"), None);
    }

    #[test]
    fn patterns_match_each_component() {
        assert_eq!(paths("*.txt"), Some(vec!["a.txt".into(), "b.txt".into()]));
        assert_eq!(paths("s*/ma?n.rs"), Some(vec!["src/main.rs".into()]));
        assert_eq!(paths("*.none"), Some(vec![]));
        assert!(select(&tree(), "[").is_err());
    }

    #[test]
    fn a_pattern_that_matches_a_link_to_nothing_names_it() {
        assert_eq!(paths("sr*"), Some(vec!["src".into()]));
        assert_eq!(select(&tree(), "*ken").unwrap(), Selection::Missing("broken".into()));
    }

    #[test]
    fn links_are_followed_inside_the_source_and_keep_their_name() {
        let Selection::Found(selected) = select(&tree(), "link").unwrap() else { panic!("it exists") };
        assert_eq!(selected[0].path.to_string(), "lib/x");
        assert_eq!(selected[0].name.as_deref(), Some(&b"link"[..]));
        assert_eq!(paths("link/o*"), Some(vec!["lib/x/one".into()]));
    }
}
