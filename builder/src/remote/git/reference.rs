//! Names of git repositories, as BuildKit reads them: `URL#REF:SUBDIRECTORY` and `URL?ref=REF&subdir=SUBDIRECTORY`.

use std::fmt;

use crate::remote::url;

/// A repository, and what of it is meant.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct GitRef {
    /// The repository's address for git: a URL, or `user@host:path`.
    pub remote: String,
    /// A branch, a tag, a full reference or a commit; the default branch when absent.
    pub reference: Option<String>,
    /// The commit, or the start of it, that the reference must turn out to be.
    pub checksum: Option<String>,
    /// The directory that is meant; the root when absent.
    pub subdirectory: Option<String>,
    /// Whether the `.git` directory stays; what the flag or the build argument says when absent.
    pub keep_git_dir: Option<bool>,
    /// Whether submodules are fetched too.
    pub submodules: bool,
    /// Whether files have the time of the commit, and not that of the checkout.
    pub commit_time: bool,
}

/// What a text is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum GitName {
    /// A repository.
    Repository(GitRef),
    /// `github.com/…` without a scheme: a repository where a context is named, a path everywhere else.
    Ambiguous(GitRef),
    /// Something else.
    Other,
}

/// Reads a text. It is an error where it is a repository for sure, and something is wrong with its options.
pub fn parse(text: &str) -> Result<GitName, String> {
    if let Some(path) = text.strip_prefix("github.com/") {
        let parts = Parts::of(&format!("https://github.com/{path}"));
        return parts.options().map(GitName::Ambiguous);
    }
    let parts = Parts::of(text);
    match url::scheme(&parts.remote) {
        Some("git" | "ssh") => {}
        // Of what is fetched over HTTP, only what ends in .git is a repository.
        Some("http" | "https") if url::decoded(url::path(&parts.remote)).ends_with(".git") => {}
        None if url::is_scp(&parts.remote) => {}
        _ => return Ok(GitName::Other),
    }
    parts.options().map(GitName::Repository)
}

impl fmt::Display for GitRef {
    /// The repository without a password, and what of it is meant.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&url::shown(&self.remote))?;
        match (&self.reference, &self.subdirectory) {
            (None, None) => Ok(()),
            (reference, subdirectory) => {
                write!(f, "#{}", reference.as_deref().unwrap_or_default())?;
                subdirectory.as_ref().map_or(Ok(()), |subdirectory| write!(f, ":{subdirectory}"))
            }
        }
    }
}

/// Whether a text is a whole commit: SHA-1 or SHA-256.
pub(super) fn is_commit(text: &str) -> bool {
    matches!(text.len(), 40 | 64) && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

/// A URL taken apart.
struct Parts {
    remote: String,
    query: Vec<(String, String)>,
    fragment: String,
}

impl Parts {
    fn of(text: &str) -> Self {
        let (rest, fragment) = text.split_once('#').unwrap_or((text, ""));
        let (remote, query) = rest.split_once('?').unwrap_or((rest, ""));
        Self { remote: remote.to_owned(), query: url::query(query), fragment: url::decoded(fragment) }
    }

    fn options(self) -> Result<GitRef, String> {
        let (reference, subdirectory) = self.fragment.split_once(':').unwrap_or((&self.fragment, ""));
        let given = |text: &str| (!text.is_empty()).then(|| text.to_owned());
        let mut this = GitRef {
            remote: self.remote,
            reference: given(reference),
            checksum: None,
            subdirectory: given(subdirectory),
            keep_git_dir: None,
            submodules: true,
            commit_time: false,
        };
        let (mut tag, mut branch, mut by_commit) = (None, None, false);
        for (number, (key, value)) in self.query.iter().enumerate() {
            if self.query[..number].iter().any(|(other, _)| other == key) {
                return Err(format!("the option '{key}' stands there twice"));
            }
            if value.is_empty() && !matches!(key.as_str(), "keep-git-dir" | "submodules" | "fetch-by-commit") {
                return Err(format!("the option '{key}' has no value"));
            }
            match key.as_str() {
                "ref" => agree("reference", &mut this.reference, value)?,
                "subdir" => agree("subdirectory", &mut this.subdirectory, value)?,
                "tag" => tag = Some(value),
                "branch" => branch = Some(value),
                "checksum" | "commit" => agree("commit", &mut this.checksum, value)?,
                "keep-git-dir" => this.keep_git_dir = Some(truth(key, value)?),
                "submodules" => this.submodules = truth(key, value)?,
                "fetch-by-commit" => by_commit = truth(key, value)?,
                "mtime" => {
                    this.commit_time = match value.as_str() {
                        "commit" => true,
                        "checkout" => false,
                        _ => return Err(format!("the option 'mtime' is 'checkout' or 'commit', not '{value}'")),
                    }
                }
                _ => return Err(unknown(key)),
            }
        }
        if tag.is_some() && branch.is_some() {
            return Err("the options 'tag' and 'branch' exclude each other".into());
        }
        for (prefix, name) in [("refs/tags/", tag), ("refs/heads/", branch)] {
            let Some(name) = name else { continue };
            let full = if name.starts_with(prefix) { name.clone() } else { format!("{prefix}{name}") };
            agree("reference", &mut this.reference, &full)?;
        }
        if by_commit {
            let commit = this.checksum.clone().filter(|checksum| is_commit(checksum));
            let commit = commit.ok_or("the option 'fetch-by-commit' needs a whole commit in the option 'checksum'")?;
            this.reference = Some(commit);
        }
        if this.reference.is_none() {
            this.reference.clone_from(&this.checksum);
        }
        Ok(this)
    }
}

/// Gives `place` a value, unless it has another.
fn agree(what: &str, place: &mut Option<String>, value: &str) -> Result<(), String> {
    match place {
        Some(other) if other != value => Err(format!("two values for the {what}: '{other}' and '{value}'")),
        _ => {
            *place = Some(value.to_owned());
            Ok(())
        }
    }
}

/// Go's truth values; an option without a value is on.
fn truth(key: &str, value: &str) -> Result<bool, String> {
    match value {
        "" | "1" | "t" | "T" | "TRUE" | "true" | "True" => Ok(true),
        "0" | "f" | "F" | "FALSE" | "false" | "False" => Ok(false),
        _ => Err(format!("the option '{key}' is true or false, not '{value}'")),
    }
}

fn unknown(key: &str) -> String {
    const KNOWN: &str =
        "ref, branch, tag, commit, checksum, subdir, keep-git-dir, submodules, mtime and fetch-by-commit";
    format!("a git repository has no option '{key}'; it has {KNOWN}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn repository(text: &str) -> Option<GitRef> {
        match parse(text).unwrap_or_else(|error| panic!("{text}: {error}")) {
            GitName::Repository(found) | GitName::Ambiguous(found) => Some(found),
            GitName::Other => None,
        }
    }

    #[test]
    fn repositories_are_told_from_other_urls() {
        let others = [
            "https://example.com/",
            "https://example.com/foo",
            "https://example.com/foo.git/",
            "https://example.com/foo.git.bar",
            "https://github.com/moby/buildkit",
            "custom.xyz/moby/buildkit.git",
            "http://github.com/docker/docker.git:#branch",
            "ftp://example.com/foo.git",
            "./.git",
            "../a@b:c",
            ".git",
            "a/b@c:d",
            "host:path",
        ];
        for text in others {
            assert_eq!(repository(text), None, "{text}");
        }
        let repositories = [
            "https://example.com/foo.git",
            "HTTPS://example.com/foo.git",
            "http://example.com/foo.git",
            "https://foo:bar@github.com/moby/buildkit.git",
            "git://example.com/foo",
            "ssh://git@example.com:22/foo",
            "git@github.com:moby/buildkit",
            "git@bitbucket.org:atlassianlabs/atlassian-docker.git",
        ];
        for text in repositories {
            assert_eq!(repository(text).unwrap().remote, text, "{text}");
        }
        assert!(matches!(parse("github.com/moby/buildkit#v1"), Ok(GitName::Ambiguous(found))
            if found.remote == "https://github.com/moby/buildkit" && found.reference.as_deref() == Some("v1")));
    }

    #[test]
    fn references_and_subdirectories_stand_in_the_fragment_or_the_query() {
        let cases = [
            ("", None, None),
            ("#deadbeef", Some("deadbeef"), None),
            ("#release/1.2", Some("release/1.2"), None),
            ("#baz/qux:quux/quuz", Some("baz/qux"), Some("quux/quuz")),
            ("#:dir", None, Some("dir")),
            ("#a%20b", Some("a b"), None),
            ("?ref=v1.0.0&subdir=/subdir", Some("v1.0.0"), Some("/subdir")),
            ("?subdir=/subdir#v1.0.0", Some("v1.0.0"), Some("/subdir")),
            ("?ref=v1#v1", Some("v1"), None),
            ("?tag=v1.0.0", Some("refs/tags/v1.0.0"), None),
            ("?tag=refs/tags/v1.0.0", Some("refs/tags/v1.0.0"), None),
            ("?branch=v1.0", Some("refs/heads/v1.0"), None),
            ("?branch=a%2Fb+c", Some("refs/heads/a/b c"), None),
            ("?commit=abc", Some("abc"), None),
            ("?checksum=abc#main", Some("main"), None),
        ];
        for (tail, reference, subdirectory) in cases {
            for remote in ["https://example.com/foo.git", "git@example.com:foo.git", "git://example.com/foo"] {
                let found = repository(&format!("{remote}{tail}")).unwrap();
                assert_eq!(found.remote, remote);
                assert_eq!(
                    (found.reference.as_deref(), found.subdirectory.as_deref()),
                    (reference, subdirectory),
                    "{tail}"
                );
            }
        }
    }

    #[test]
    fn options_are_read() {
        let of = |query: &str| repository(&format!("https://example.com/foo.git?{query}")).unwrap();
        assert_eq!(of("checksum=abc#main").checksum.as_deref(), Some("abc"));
        assert_eq!(of("commit=abc").checksum.as_deref(), Some("abc"));
        assert_eq!(
            [of("").keep_git_dir, of("keep-git-dir").keep_git_dir, of("keep-git-dir=0").keep_git_dir],
            [None, Some(true), Some(false)]
        );
        assert_eq!(
            [of("").submodules, of("submodules").submodules, of("submodules=false").submodules],
            [true, true, false]
        );
        assert_eq!(
            [of("").commit_time, of("mtime=commit").commit_time, of("mtime=checkout").commit_time],
            [false, true, false]
        );
        let commit = "0123456789012345678901234567890123456789";
        assert_eq!(of(&format!("fetch-by-commit=true&checksum={commit}#main")).reference.as_deref(), Some(commit));
    }

    #[test]
    fn unknown_and_conflicting_options_are_errors() {
        let cases = [
            ("?invalid=123", "no option 'invalid'"),
            ("?ref=", "'ref' has no value"),
            ("?ref=a&ref=b", "'ref' stands there twice"),
            ("?ref=v1.0.0#v1.2.3", "'v1.2.3' and 'v1.0.0'"),
            ("?ref=v1.0.0&tag=v1.2.3", "'v1.0.0' and 'refs/tags/v1.2.3'"),
            ("?branch=a#b", "two values for the reference"),
            ("?subdir=a#:b", "two values for the subdirectory"),
            ("?checksum=a&commit=b", "two values for the commit"),
            ("?tag=v1.0.0&branch=v1.0", "exclude each other"),
            ("?keep-git-dir=maybe", "true or false"),
            ("?submodules=2", "true or false"),
            ("?mtime=now", "'checkout' or 'commit'"),
            ("?fetch-by-commit=true&checksum=abc", "whole commit"),
        ];
        for (tail, message) in cases {
            let error = parse(&format!("https://example.com/foo.git{tail}")).unwrap_err();
            assert!(error.contains(message), "{tail}: {error}");
        }
    }

    #[test]
    fn messages_hold_no_password() {
        let found = repository("https://user:hunter2@example.com/foo.git#main:dir").unwrap();
        assert_eq!(found.to_string(), "https://example.com/foo.git#main:dir");
    }
}
