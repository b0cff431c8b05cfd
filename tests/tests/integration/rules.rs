//! Rules of the sources that no compiler checks.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use yadokari_tests::{run, workspace};

/// The longest source file.
const LINES: usize = 500;

/// The one file with unsafe code.
const UNSAFE: &str = "builder/src/sandbox/sys.rs";

/// The pages that say what each part of the Dockerfile language does, what a cache key is made of, where logins come from, how
/// registries are spoken to, what a build without a way outside does, and what Kaniko had to mend.
const BEHAVIOURS: [&str; 7] = [
    "docs/dockerfile/",
    "docs/cache-keys.md",
    "docs/credentials.md",
    "docs/registry.md",
    "docs/air-gap.md",
    "docs/kaniko-behaviours.md",
    "docs/security/",
];

/// A tracked file, its path from the workspace on.
struct File {
    path: String,
    text: String,
}

/// What git tracks, or failing that, everything but what is built.
fn files() -> Vec<File> {
    let root = workspace();
    let listed = run("git", ["-C".as_ref(), root.as_os_str(), "ls-files".as_ref()]);
    let paths: Vec<PathBuf> = match listed {
        Ok(listed) => listed.stdout.lines().map(PathBuf::from).collect(),
        Err(_) => untracked(&root),
    };
    let read = |path: PathBuf| {
        let bytes = fs::read(root.join(&path)).ok().filter(|_| !is_picture(&path))?;
        let text = String::from_utf8(bytes).unwrap_or_else(|_| panic!("{} is not text", path.display()));
        Some(File { path: path.to_string_lossy().into_owned(), text })
    };
    paths.into_iter().filter_map(read).collect()
}

/// The pictures of the documentation, which alone are no texts.
fn is_picture(path: &Path) -> bool {
    path.parent() == Some(Path::new("docs")) && path.extension().is_some_and(|extension| extension == "png")
}

fn untracked(root: &Path) -> Vec<PathBuf> {
    let skipped = |name: &std::ffi::OsStr| name == "target" || name == ".git";
    let found = walkdir::WalkDir::new(root).into_iter().filter_entry(|entry| !skipped(entry.file_name())).flatten();
    let files = found.filter(|entry| entry.file_type().is_file());
    files.filter_map(|entry| entry.path().strip_prefix(root).ok().map(Path::to_owned)).collect()
}

/// The Rust files, without comments, whose words mean nothing.
fn sources() -> Vec<File> {
    let code = |text: &str| {
        let lines = text.lines().map(|line| if line.trim_start().starts_with("//") { "" } else { line });
        lines.collect::<Vec<_>>().join("\n")
    };
    let sources = files().into_iter().filter(|file| file.path.ends_with(".rs"));
    sources.map(|file| File { text: code(&file.text), ..file }).collect()
}

/// The places where one of `words` stands, in files that `excepted` does not name.
fn places(files: &[File], words: &[&str], excepted: impl Fn(&str) -> bool) -> Vec<String> {
    let mut found = Vec::new();
    for file in files.iter().filter(|file| !excepted(&file.path)) {
        for (number, line) in file.text.lines().enumerate() {
            if words.iter().any(|word| line.contains(word)) {
                found.push(format!("{}:{}: {}", file.path, number + 1, line.trim()));
            }
        }
    }
    found
}

/// This file, which names what it forbids.
fn is_this(path: &str) -> bool {
    path == "tests/tests/integration/rules.rs"
}

/// The names in a section of a crate's `Cargo.toml`.
fn dependencies(member: &str, section: &str) -> Vec<String> {
    let text = fs::read_to_string(workspace().join(member).join("Cargo.toml")).unwrap();
    let mut current = "";
    let mut names = Vec::new();
    for line in text.lines().map(str::trim) {
        if let Some(name) = line.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
            current = name;
        } else if current == section
            && let Some(name) = line.split(['.', '=', ' ']).next().filter(|name| !name.is_empty() && *name != "#")
        {
            names.push(name.to_owned());
        }
    }
    names
}

/// The functions with `#[test]` or a runtime's own form of it.
fn tests(sources: &[File]) -> BTreeSet<&str> {
    let mut names = BTreeSet::new();
    for file in sources {
        let mut is_test = false;
        for line in file.text.lines().map(str::trim).filter(|line| !line.is_empty()) {
            if line.starts_with("#[") {
                is_test |= line.starts_with("#[test]") || line.starts_with("#[tokio::test");
            } else {
                let function = line.strip_prefix("async ").unwrap_or(line).strip_prefix("fn ");
                names.extend(function.filter(|_| is_test).and_then(|rest| rest.split('(').next()));
                is_test = false;
            }
        }
    }
    names
}

/// The bullets of a page, each on one line, with the number of its first.
fn bullets(page: &str) -> Vec<(usize, String)> {
    let mut bullets: Vec<(usize, String)> = Vec::new();
    let mut open = false;
    for (number, line) in page.lines().enumerate() {
        if let Some(text) = line.strip_prefix("- ") {
            bullets.push((number + 1, text.trim_end().to_owned()));
            open = true;
        } else if line.starts_with("  ") && open {
            let (_, bullet) = bullets.last_mut().unwrap();
            bullet.push(' ');
            bullet.push_str(line.trim());
        } else {
            open = false;
        }
    }
    bullets
}

/// The names at the end of a bullet, or `None` where it names none or says something after them.
fn named<'b>(bullet: &'b str) -> Option<Vec<&'b str>> {
    let (_, list) = bullet.rsplit_once(" Tests: ")?;
    let quoted = |name: &'b str| name.strip_prefix('`')?.strip_suffix('`').filter(|name| !name.is_empty());
    list.strip_suffix('.')?.split(", ").map(quoted).collect()
}

#[test]
fn no_source_file_is_long() {
    let counts = files().into_iter().filter(|file| file.path.ends_with(".rs"));
    let long: Vec<_> = counts.map(|file| (file.text.lines().count(), file.path)).filter(|f| f.0 > LINES).collect();
    assert!(long.is_empty(), "more than {LINES} lines: {long:?}");
}

#[test]
fn unsafe_code_is_in_one_file() {
    let words = ["unsafe {", "unsafe fn", "unsafe impl", "unsafe extern", "expect(unsafe_code"];
    // The module's own declaration may say that it, and nothing else, is excepted from the lint.
    let found = places(&sources(), &words, |path| is_this(path) || path == UNSAFE);
    assert!(found.iter().all(|line| line.contains("expect(unsafe_code") && line.starts_with("builder/src/sandbox/")));
    let root = workspace();
    let lints = fs::read_to_string(root.join("Cargo.toml")).unwrap();
    assert!(lints.contains("unsafe_code = \"deny\"") || lints.contains("unsafe_code = \"forbid\""));
    for member in ["layers", "registry", "builder", "tests"] {
        let text = fs::read_to_string(root.join(member).join("Cargo.toml")).unwrap();
        assert!(text.contains("[lints]\nworkspace = true"), "{member} has lints of its own");
    }
}

#[test]
fn dependencies_point_one_way() {
    let forbidden = [
        ("layers", &["yadokari", "yadokari-registry", "tokio", "reqwest", "hyper"][..]),
        ("registry", &["yadokari", "rayon"]),
        ("builder", &["rayon", "reqwest"]),
        // The harness looks at results with programs that are not ours, so it cannot be fooled by ours.
        ("tests", &["yadokari", "yadokari-layers", "yadokari-registry"]),
    ];
    for (member, names) in forbidden {
        let has = dependencies(member, "dependencies");
        assert!(!has.is_empty(), "{member}");
        assert!(!has.iter().any(|name| names.contains(&&**name)), "{member} depends on one of {names:?}");
    }
    assert!(dependencies("layers", "dependencies").contains(&"rayon".to_owned()));
    assert!(dependencies("registry", "dependencies").contains(&"yadokari-layers".to_owned()));
}

#[test]
fn arguments_and_environment_are_read_by_the_command_line_only() {
    let words = ["env::var", "env::args", "env::set_var", "env::remove_var"];
    let found = places(&sources(), &words, |path| {
        let edge = path.starts_with("builder/src/cli/") || path == "builder/src/main.rs";
        edge || path.starts_with("tests/")
            || ["/tests/", "/examples/", "/benches/"].iter().any(|place| path.contains(place))
    });
    assert!(found.is_empty(), "{}", found.join("\n"));
}

#[test]
fn nothing_is_allowed_or_left_to_do() {
    let words = ["#[allow", "#![allow", "todo!(", "unimplemented!(", "dbg!("];
    let found = places(&sources(), &words, is_this);
    assert!(found.is_empty(), "{}", found.join("\n"));
}

#[test]
fn no_path_is_of_one_machine() {
    // What a Dockerfile names is in an image, and some homes are examples.
    let excepted = |path: &str| is_this(path) || path.ends_with("Dockerfile");
    let mut found = places(&files(), &["/work/", "/root/", "/home/"], excepted);
    found.retain(|line| {
        !["/home/ci/", "/home/app", "/tekton/home", ":/root:"].iter().any(|example| line.contains(example))
    });
    assert!(found.is_empty(), "{}", found.join("\n"));
}

#[test]
fn all_tracked_files_are_text_without_control_characters() {
    // An input of a fuzz target may be hostile, as long as it is text.
    for file in files().into_iter().filter(|file| !file.path.starts_with("fuzz/corpus/")) {
        let control = file.text.chars().find(|c| c.is_control() && !matches!(c, '\n' | '\t'));
        assert!(control.is_none(), "{}: {control:?}", file.path);
    }
}

#[test]
fn every_link_of_a_page_leads_to_a_file() {
    let mut wrong = Vec::new();
    for page in files().into_iter().filter(|file| file.path.ends_with(".md")) {
        let directory = workspace().join(Path::new(&page.path).parent().unwrap());
        for link in page.text.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            let target = link.split('#').next().unwrap();
            if !link.contains("://") && !target.is_empty() && !directory.join(target).exists() {
                wrong.push(format!("{}: {link}", page.path));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn pictures_are_small() {
    for entry in fs::read_dir(workspace().join("docs")).unwrap() {
        let entry = entry.unwrap();
        if entry.path().extension().is_some_and(|extension| extension == "png") {
            let size = entry.metadata().unwrap().len();
            assert!(size < 200_000, "{}: {size} bytes", entry.path().display());
        }
    }
}

#[test]
fn every_behaviour_names_its_tests() {
    let (files, sources) = (files(), sources());
    let known = tests(&sources);
    let mut wrong = Vec::new();
    let is_page = |path: &str| path.ends_with(".md") && !path.ends_with("/README.md");
    for place in BEHAVIOURS {
        assert!(files.iter().any(|file| file.path.starts_with(place) && is_page(&file.path)), "{place}");
    }
    let in_place = |path: &str| BEHAVIOURS.iter().any(|place| path.starts_with(place));
    for page in files.iter().filter(|file| is_page(&file.path) && in_place(&file.path)) {
        let bullets = bullets(&page.text);
        assert!(!bullets.is_empty(), "{} has no bullet", page.path);
        for (line, bullet) in &bullets {
            match named(bullet) {
                None => wrong.push(format!("{}:{line}: no list of tests at the end of: {bullet}", page.path)),
                Some(names) => {
                    let missing = names.into_iter().filter(|name| !known.contains(name));
                    wrong.extend(missing.map(|name| format!("{}:{line}: there is no test '{name}'", page.path)));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn bullets_and_the_tests_they_name_are_read_as_written() {
    let page =
        "# Head\n\n- One\n  goes on. Tests: `a`,\n  `b_2`.\n\nText: `c`.\n  more\n- Two. Tests: none.\n- Three.\n";
    let bullets = bullets(page);
    let lines: Vec<usize> = bullets.iter().map(|(line, _)| *line).collect();
    assert_eq!(lines, [3, 9, 10]);
    let names: Vec<_> = bullets.iter().map(|(_, bullet)| named(bullet)).collect();
    assert_eq!(names, [Some(vec!["a", "b_2"]), None, None]);
    let text = "#[test]\nfn one() {}\nfn helper() {}\n#[tokio::test]\n#[expect(x)]\nasync fn two() {}\n";
    let file = File { path: String::new(), text: text.to_owned() };
    assert_eq!(tests(&[file]).into_iter().collect::<Vec<_>>(), ["one", "two"]);
}
