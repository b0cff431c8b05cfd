//! Which paths of a source the words of COPY and ADD mean.

use yadokari_layers::{Kind, RelPath, Tree};

use crate::context::glob::{BadPattern, Glob};
use crate::context::ignore::Ignore;

/// A path that a source word means.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Selected {
    /// The last component as written, or as matched by the pattern: the name under which it is copied. `None` for the
    /// root of the source, and where only what is below counts.
    pub name: Option<Vec<u8>>,
    /// Where it is, with all symbolic links followed inside the source.
    pub path: RelPath,
    /// `--parents`: of this directory only what matches is copied, with the directories in between.
    pub include: Option<Glob>,
}

/// The answer to a source word.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Selection {
    /// These paths, sorted. A pattern that matches nothing gives none, which is legal.
    Found(Vec<Selected>),
    /// A literal path, or a link that a pattern matched, that leads nowhere.
    Missing(String),
    /// A literal path of `--parents` that leads through this symbolic link, whose directories it cannot keep.
    ThroughLink(String),
}

/// What is copied of a directory: what `include` matches, less what `exclude` does.
#[derive(Debug, Clone, Copy)]
pub struct Filter<'a> {
    /// Everything, where there is none.
    pub include: Option<&'a Glob>,
    /// The rules of `--exclude`.
    pub exclude: &'a Ignore,
}

impl Filter<'_> {
    /// Whether a path is copied. It is relative to the copied directory, which itself always is.
    pub fn takes(&self, below: &RelPath) -> bool {
        if below.is_root() || self.takes_all() {
            return true;
        }
        // A name that is not UTF-8 can match only wildcards; the lossy form keeps the comparison total.
        let below = below.to_string();
        self.include.is_none_or(|include| include.matches_or_above(&below)) && !self.exclude.excludes(&below)
    }

    /// Whether nothing is left out.
    pub fn takes_all(&self) -> bool {
        self.include.is_none() && self.exclude.is_empty()
    }
}

impl Selected {
    /// What is copied of this path, where it is a directory.
    pub fn filter<'a>(&'a self, exclude: &'a Ignore) -> Filter<'a> {
        Filter { include: self.include.as_ref(), exclude }
    }
}

/// Whether a source word is a pattern and not a literal path.
pub fn is_pattern(word: &str) -> bool {
    word.contains(['*', '?', '['])
}

/// The paths of `tree` that `word` means.
///
/// The word starts at the root of the source whether or not it begins with a slash, and `..` cannot leave it.
/// Symbolic links are followed inside the source up to the first wildcard, and where the word ends: in between, a
/// pattern is compared with what a walk meets, and walks do not follow links.
pub fn select(tree: &Tree, word: &str) -> Result<Selection, crate::Error> {
    if !is_pattern(word) {
        return literal(tree, word);
    }
    let (start, pattern) = split(word)?;
    let start_path = tree.resolve(&start)?;
    if !exists(tree, &start_path) {
        return Ok(Selection::Missing(start.to_string()));
    }
    let mut matched = vec![(None, start_path)];
    for component in pattern {
        let mut next = Vec::new();
        for (_, directory) in matched {
            for name in tree.names(&directory) {
                if component.matches(&String::from_utf8_lossy(&name)) {
                    let path = directory.child(&name).map_err(yadokari_layers::Error::from)?;
                    next.push((Some(name), path));
                }
            }
        }
        matched = next;
    }
    let mut found = Vec::new();
    for (name, written) in matched {
        let path = tree.resolve(&written)?;
        if !exists(tree, &path) {
            return Ok(Selection::Missing(written.to_string()));
        }
        found.push(Selected { name, path, include: None });
    }
    Ok(Selection::Found(found))
}

/// The directories of `tree` from which `word` is copied with the directories above it: those before the first `/./`,
/// or the root. `**` reaches over slashes in what follows.
///
/// Links are followed in what comes before `/./`, and only there: what follows names what is made at the destination.
pub fn select_with_parents(tree: &Tree, word: &str) -> Result<Selection, crate::Error> {
    let (start, pattern) = word.split_once("/./").unwrap_or(("", word));
    let below = RelPath::clamped(pattern).map_err(yadokari_layers::Error::from)?;
    let include = match below.is_root() {
        true => None,
        false => Some(Glob::with_double_stars(&below.to_string()).map_err(bad)?),
    };
    let mut found = match select(tree, start)? {
        Selection::Found(found) => found,
        missing => return Ok(missing),
    };
    found.retain(|selected| tree.is_directory(&selected.path));
    let must_exist = !is_pattern(word);
    if must_exist && found.is_empty() {
        return Ok(Selection::Missing(word.to_owned()));
    }
    for selected in &mut found {
        let path = selected.path.join(&below);
        if must_exist && !exists(tree, &path) {
            let is_link =
                |above: &RelPath| tree.get(above).is_some_and(|found| matches!(found.entry.kind, Kind::Symlink { .. }));
            let link = path.ancestors().filter(is_link).last();
            return Ok(match link.filter(|_| tree.resolve(&path).is_ok_and(|path| exists(tree, &path))) {
                Some(link) => Selection::ThroughLink(link.to_string()),
                None => Selection::Missing(word.to_owned()),
            });
        }
        selected.name = None;
        selected.include.clone_from(&include);
    }
    Ok(Selection::Found(found))
}

/// The part of a pattern before its first wildcard, and the rest.
fn split(word: &str) -> Result<(RelPath, Vec<Glob>), crate::Error> {
    let path = RelPath::clamped(word).map_err(yadokari_layers::Error::from)?;
    let components: Vec<String> =
        path.components().map(|component| String::from_utf8_lossy(component).into_owned()).collect();
    let first = components.iter().position(|component| is_pattern(component)).unwrap_or(components.len());
    let start = RelPath::new(components[..first].join("/")).map_err(yadokari_layers::Error::from)?;
    let pattern: Result<Vec<Glob>, _> = components[first..].iter().map(|component| Glob::new(component)).collect();
    Ok((start, pattern.map_err(bad)?))
}

fn bad(BadPattern(pattern): BadPattern) -> crate::Error {
    crate::Error::Pattern { pattern }
}

/// The path of `tree` that `word` means, whatever characters it has.
pub fn literal(tree: &Tree, word: &str) -> Result<Selection, crate::Error> {
    let written = RelPath::clamped(word).map_err(yadokari_layers::Error::from)?;
    let path = tree.resolve(&written)?;
    let name = written.file_name().map(<[u8]>::to_vec);
    Ok(match exists(tree, &path) {
        true => Selection::Found(vec![Selected { name, path, include: None }]),
        false => Selection::Missing(word.to_owned()),
    })
}

fn exists(tree: &Tree, path: &RelPath) -> bool {
    tree.get(path).is_some() || tree.is_directory(path)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use yadokari_layers::{Entry, IndexBuilder, Timestamp};

    use super::*;

    fn tree() -> Tree {
        let mut builder = IndexBuilder::new();
        let at = Timestamp::default();
        for file in ["[b]", "a.txt", "b.txt", "src/main.rs", "src/lib.rs", "lib/x/one"] {
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
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn literal_paths_exist_or_not() {
        assert_eq!(paths("/src/"), Some(vec!["src".into()]));
        assert_eq!(paths("../../a.txt"), Some(vec!["a.txt".into()]));
        assert_eq!(paths("src/../../b.txt"), Some(vec!["b.txt".into()]));
        assert_eq!(paths("."), Some(vec![String::new()]));
        assert_eq!(paths("none"), None);
    }

    #[test]
    fn patterns_match_each_component() {
        assert_eq!(paths("*.txt"), Some(vec!["a.txt".into(), "b.txt".into()]));
        assert_eq!(paths("s*/ma?n.rs"), Some(vec!["src/main.rs".into()]));
        assert_eq!(paths("/../[ab].tx[^a-s]"), Some(vec!["a.txt".into(), "b.txt".into()]));
        assert_eq!(paths("\\a*"), Some(vec!["a.txt".into()]));
        assert_eq!(paths("\\[b]"), Some(vec!["[b]".into()]));
        assert_eq!(paths("**/one"), Some(vec![]), "a double star is a star");
        assert_eq!(paths("*.none"), Some(vec![]));
        assert!(select(&tree(), "[").is_err());
    }

    #[test]
    fn the_literal_start_of_a_pattern_must_exist() {
        assert_eq!(select(&tree(), "none/*/x").unwrap(), Selection::Missing("none".into()));
        assert_eq!(paths("non*/x"), Some(vec![]));
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
        assert_eq!(paths("li*"), Some(vec!["lib".into(), "lib/x".into()]));
        assert_eq!(paths("lin*/one"), Some(vec![]), "a walk does not follow links");
    }

    /// For each place, what is taken below it.
    fn with_parents(word: &str) -> Vec<String> {
        let tree = tree();
        let Selection::Found(found) = select_with_parents(&tree, word).unwrap() else { panic!("{word}") };
        let exclude = Ignore::default();
        let taken = |selected: &Selected| {
            let below = tree.below(&selected.path).map(|(path, _)| path.strip_prefix(&selected.path).unwrap());
            let below: Vec<String> =
                below.filter(|below| selected.filter(&exclude).takes(below)).map(|below| below.to_string()).collect();
            format!("{}: {}", selected.path, below.join(" "))
        };
        found.iter().map(taken).collect()
    }

    #[test]
    fn parents_are_kept_from_the_root_or_from_the_dot_on() {
        let cases: [(&str, &[&str]); 14] = [
            ("src/main.rs", &[": src/main.rs"]),
            ("/src/main.rs", &[": src/main.rs"]),
            ("../src//main.rs", &[": src/main.rs"]),
            ("./src/", &[": src src/lib.rs src/main.rs"]),
            ("src/./main.rs", &["src: main.rs"]),
            ("lib/./x/./one", &["lib: x/one"]),
            ("src/*.rs", &[": src/lib.rs src/main.rs"]),
            ("**/one", &[": lib/x/one"]),
            ("lib/**", &[": lib/x lib/x/one"]),
            ("[ls]*/./*.rs", &["lib: ", "lib/x: ", "src: lib.rs main.rs"]),
            ("link/./one", &["lib/x: one"]),
            ("li*/none", &[": "]),
            ("non*/./x", &[]),
            ("lib/x/./", &["lib/x: one"]),
        ];
        for (word, expected) in cases {
            assert_eq!(with_parents(word), expected, "{word}");
        }
    }

    #[test]
    fn parents_of_what_is_missing_or_behind_a_link_are_an_error() {
        let select = |word| select_with_parents(&tree(), word).unwrap();
        for word in ["none", "src/none", "src/./none", "none/./x", "a.txt/./x", "a.txt/x", "link/none"] {
            let expected = if word == "none/./x" { "none" } else { word };
            assert_eq!(select(word), Selection::Missing(expected.into()));
        }
        assert_eq!(select("link/one"), Selection::ThroughLink("link".into()));
        assert!(matches!(select("link"), Selection::Found(_)), "the link itself is copied");
    }
}
