//! Sources of ADD that are elsewhere.

use std::path::PathBuf;

use super::*;
use crate::remote::{Checkout, GitName, RemoteFile, git};

const URL: &str = "https://files.example/a.txt";
const GIT: &str = "https://git.example/r.git";

fn url(text: &str) -> Remote {
    Remote::Url(text.to_owned())
}

fn repository(text: &str, keep: bool) -> Remote {
    match git::parse(text) {
        Ok(GitName::Repository(reference)) => Remote::Git(reference, keep),
        other => panic!("{text}: {other:?}"),
    }
}

fn file(content: &str) -> Fetched {
    let path = PathBuf::from("/downloads/1");
    Fetched::File(RemoteFile { path, digest: Digest::of(content), size: content.len() as u64, mtime: 0 })
}

fn tree(digit: &str, has_git_dir: bool) -> Fetched {
    Fetched::Tree(Checkout { path: "/downloads/2".into(), commit: digit.repeat(40), tag: None, has_git_dir })
}

#[test]
fn all_that_a_target_needs_is_asked_for_at_once() {
    let text = format!(
        "FROM scratch AS unused\nADD https://files.example/unused /\nFROM base AS a\nADD {URL} /\nFROM scratch\n\
         ARG N=2\nADD https://files.example/$N {GIT}#main /x/\nRUN true\nADD {URL} /y\nCOPY --from=a / /\n"
    );
    let needs = Bench::new().needs(&text);
    assert_eq!(needs, ["base", "https://files.example/2", URL, "https://git.example/r.git#main"]);
}

#[test]
fn what_was_fetched_is_a_step() {
    let bench = Bench::new().fetched(url(URL), file("1")).fetched(repository(GIT, false), tree("a", false));
    let plan = bench.plan(&format!("FROM scratch\nADD {URL} {GIT} /x/\n"));
    let [copy] = plan.copies()[..] else { panic!("one step") };
    let fetched: Vec<_> = copy.sources.iter().map(|source| &source.elsewhere.as_ref().unwrap().fetched).collect();
    assert_eq!(fetched, [&file("1"), &tree("a", false)]);
    assert_eq!(plan.lines(), [format!("ADD {URL} {GIT} /x/ # buildkit")]);
}

#[test]
fn keys_follow_contents_and_not_addresses() {
    let key = |source: &str, fetched: Fetched, flags: &str| {
        let remote = match git::parse(source) {
            Ok(GitName::Repository(_)) => repository(source, flags.contains("keep-git-dir")),
            _ => url(source),
        };
        Bench::new().fetched(remote, fetched).keys(&format!("FROM scratch\nADD {flags} {source} /x/\n"))
    };
    let plain = key(URL, file("1"), "");
    assert_eq!(plain, key("http://user:password@mirror.example/b/a.txt?sig=2", file("1"), ""));
    assert_ne!(plain, key(URL, file("2"), ""));
    assert_ne!(plain, key("https://files.example/b.txt", file("1"), ""), "the name is the file's");
    assert_ne!(plain, key(URL, file("1"), "--chmod=644"));
    let git = key(GIT, tree("a", false), "");
    assert_eq!(git, key("git@git.example:r#main", tree("a", false), ""));
    assert_ne!(git, key(GIT, tree("b", false), ""));
    for other in ["?subdir=d", "?submodules=0", "?mtime=commit"] {
        assert_ne!(git, key(&format!("{GIT}{other}"), tree("a", false), ""), "{other}");
    }
    let kept = key(GIT, tree("a", true), "--keep-git-dir");
    assert_ne!(git, kept);
    assert_ne!(kept, key(&format!("{GIT}#main"), tree("a", true), "--keep-git-dir"), "the directory says the branch");
}

#[test]
fn triggers_fetch_too() {
    let bench = Bench::new().image("base", &format!(r#"{{"OnBuild":["ADD --checksum=abc {URL} /x"]}}"#));
    assert_eq!(bench.needs("FROM base\n"), [URL]);
    let bench = bench.fetched(url(URL), file("1"));
    assert!(bench.error("FROM base\n").contains("ADD --checksum=abc"));
    let bench = Bench::new().image("base", &format!(r#"{{"OnBuild":["COPY {URL} /x"]}}"#));
    assert!(bench.error("FROM base\n").contains("cannot be the source of a COPY"));
}

#[test]
fn options_of_repositories_that_make_no_sense_are_errors() {
    for (source, message) in [
        (format!("{GIT}?x=1"), "no option 'x'"),
        (format!("{GIT}?ref=a#b"), "two values for the reference"),
        (format!("{GIT}?tag=a&branch=b"), "exclude each other"),
    ] {
        let error = Bench::new().error(&format!("FROM scratch\nADD {source} /x\n"));
        assert!(error.contains(message) && error.contains("Dockerfile:2:5"), "{error}");
    }
}
