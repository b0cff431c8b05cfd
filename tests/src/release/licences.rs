//! The licences of what is linked, which most of them want to be given with it.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::fs;
use std::path::{Path, PathBuf};

use walkdir::WalkDir;

use super::{Inventory, Libc, Package};
use crate::error::{At, Error, Result};

/// How the names of files with licences begin.
const NAMES: [&str; 6] = ["LICENSE", "LICENCE", "COPYING", "COPYRIGHT", "NOTICE", "UNLICENSE"];

/// Directories of packages that are not linked.
const ASIDE: [&str; 8] = ["tests", "test", "testdata", "benches", "examples", "doc", "docs", "fuzz"];

const HEAD: &str = "\
The executor has the Apache License 2.0, which is in the file LICENSE beside this one. The packages below are linked into it,
each with the licence that it states; where there is a choice, any of them. Their own words follow, each text once.

The Rust standard library is linked, too: copyright The Rust Project Developers, MIT OR Apache-2.0.
";

const MUSL: &str = "\
So is musl, the C library: copyright 2005-2020 Rich Felker, et al., under the MIT licence, whose words are also those of
packages below.
";

const GLIBC: &str = "\
So is the GNU C library: LGPL-2.1-or-later.
";

/// All of them as one text.
pub(super) fn write(inventory: &Inventory, libc: Libc) -> Result<String> {
    let libc = if libc == Libc::Musl { MUSL } else { GLIBC };
    let mut text = format!("{HEAD}{libc}\n");
    // By its words, whatever the line ends: the first form of a text, and whose it is.
    let mut texts: BTreeMap<String, (usize, String, Vec<String>)> = BTreeMap::new();
    let foreign = || inventory.packages.iter().filter(|package| package.checksum.is_some());
    for package in foreign() {
        let licence = package.licence.as_deref().unwrap_or("see below");
        let title = format!("{} {}", package.name, package.version);
        let found = texts_of(&package.directory)?;
        let own = if found.is_empty() { without(package) } else { String::new() };
        line(&mut text, &format!("{title}: {licence}{own}"));
        for words in found {
            let key = words.split_whitespace().collect::<Vec<_>>().join(" ");
            let next = texts.len();
            let (_, _, owners) = texts.entry(key).or_insert_with(|| (next, words, Vec::new()));
            if !owners.contains(&title) {
                owners.push(title.clone());
            }
        }
    }
    let mut texts: Vec<_> = texts.into_values().collect();
    texts.sort_unstable();
    for (_, words, owners) in texts {
        line(&mut text, &format!("\n{}\n{}:\n\n{}", "=".repeat(80), owners.join(", "), words.trim_end()));
    }
    Ok(text)
}

/// What is said of a package that has no text.
fn without(package: &Package) -> String {
    let by = if package.authors.is_empty() { String::new() } else { format!(", by {}", package.authors.join(", ")) };
    format!("{by} (its package holds no text; the words of its licence are those of others below)")
}

/// The texts of a package, in the order of their paths.
fn texts_of(directory: &Path) -> Result<Vec<String>> {
    let aside = |name: &std::ffi::OsStr| ASIDE.iter().any(|aside| name == *aside);
    let walk = WalkDir::new(directory).sort_by_file_name().into_iter();
    let mut texts = Vec::new();
    for entry in walk.filter_entry(|entry| !entry.file_type().is_dir() || !aside(entry.file_name())) {
        let entry = entry.map_err(|e| Error::Io {
            operation: "list",
            path: PathBuf::from(directory),
            source: e.into_io_error().unwrap_or_else(|| std::io::ErrorKind::Other.into()),
        })?;
        if entry.file_type().is_file() && is_licence(entry.path()) {
            let bytes = fs::read(entry.path()).at("read", entry.path())?;
            texts.push(String::from_utf8_lossy(&bytes).replace('\r', ""));
        }
    }
    Ok(texts)
}

fn is_licence(file: &Path) -> bool {
    let name = file.file_name().unwrap_or_default().to_string_lossy().to_uppercase();
    let is_text = !file.extension().is_some_and(|extension| ["rs", "html", "py", "go"].iter().any(|e| extension == *e));
    let is_in_directory = file.parent().and_then(Path::file_name).is_some_and(|name| name == "LICENSES");
    is_text && (is_in_directory || NAMES.iter().any(|prefix| name.starts_with(prefix)))
}

fn line(text: &mut String, line: &str) {
    writeln!(text, "{line}").expect("a string takes everything");
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scratch;

    #[test]
    fn texts_are_found_by_their_names_and_given_once() {
        let scratch = scratch::directory().unwrap();
        let package = |name: &str, files: &[(&str, &str)]| {
            let directory = scratch.path().join(name);
            for (file, words) in files {
                let file = directory.join(file);
                fs::create_dir_all(file.parent().unwrap()).unwrap();
                fs::write(file, words).unwrap();
            }
            Package {
                name: name.into(),
                version: "1".into(),
                licence: Some("MIT".into()),
                authors: vec!["Somebody".into()],
                checksum: Some("ab".into()),
                directory,
                dependencies: Vec::new(),
            }
        };
        let packages = vec![
            package(
                "a",
                &[("LICENSE-MIT", "Be free.\r\nAnd kind."), ("src/license.rs", "code"), ("tests/LICENSE", "x")],
            ),
            package("b", &[("zstd/COPYING", "Be  free.\nAnd kind.\n"), ("LICENSES/MIT.txt", "Other words.")]),
            package("c", &[("readme", "nothing")]),
        ];
        let text = write(&Inventory { packages, root: 0 }, Libc::Musl).unwrap();
        assert!(text.contains("\na 1: MIT\nb 1: MIT\nc 1: MIT, by Somebody (its package holds no text"), "{text}");
        assert_eq!(text.matches("And kind.").count(), 1);
        assert!(text.contains("\na 1, b 1:\n\nBe free.\nAnd kind.\n"), "{text}");
        assert!(text.contains("\nb 1:\n\nOther words.\n"), "{text}");
        assert!(!text.contains("code") && !text.contains("\nx\n") && !text.contains("nothing\n"), "{text}");
    }
}
