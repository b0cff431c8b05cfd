//! What a destination may say instead of a name: the commit, and the branch or tag, that is built.

use std::fs;
use std::path::{Path, PathBuf};

use super::args::Environment;
use crate::Error;

/// Variables of CI systems that hold the commit, in the order in which they are asked: GitLab's and Woodpecker's, GitHub's,
/// Jenkins', Drone's, Bitbucket's, Buildkite's, CircleCI's.
const COMMITS: [&str; 7] = [
    "CI_COMMIT_SHA",
    "GITHUB_SHA",
    "GIT_COMMIT",
    "DRONE_COMMIT_SHA",
    "BITBUCKET_COMMIT",
    "BUILDKITE_COMMIT",
    "CIRCLE_SHA1",
];

/// Those that hold the name of a branch or tag. What a GitHub pull request is for comes before its own name, a number.
const REFS: [&str; 10] = [
    "CI_COMMIT_REF_NAME",
    "GITHUB_HEAD_REF",
    "GITHUB_REF_NAME",
    "CI_COMMIT_BRANCH",
    "BRANCH_NAME",
    "GIT_BRANCH",
    "DRONE_BRANCH",
    "BITBUCKET_BRANCH",
    "BUILDKITE_BRANCH",
    "CIRCLE_BRANCH",
];

/// As many digits as GitLab's CI_COMMIT_SHORT_SHA has.
const SHORT: usize = 8;

/// As long as a name in the DNS may be, like GitLab's CI_COMMIT_REF_SLUG.
const LONGEST_SLUG: usize = 63;

/// Who says what is built.
pub(super) struct Source<'a> {
    /// The context, where it is a directory: it may be in a repository.
    pub(super) here: Option<&'a Path>,
    /// The variables of a CI system.
    pub(super) env: Environment<'a>,
}

/// A repository's directory, and the one that its work trees have in common.
struct Git {
    own: PathBuf,
    common: PathBuf,
}

impl Source<'_> {
    /// The text with `{sha}`, `{short-sha}` and `{ref-slug}` replaced. `{key}` is left, since the result is not known yet.
    pub(super) fn expand(&self, text: &str) -> Result<String, Error> {
        let mut expanded = text.to_owned();
        for (name, value) in [
            ("{sha}", Self::commit as fn(&Self) -> Option<String>),
            ("{short-sha}", |source| Some(source.commit()?[..SHORT].to_owned())),
            ("{ref-slug}", |source| source.slug()),
        ] {
            if expanded.contains(name) {
                let unknown = || Error::Usage { flag: "--destination", message: unknown(name) };
                expanded = expanded.replace(name, &value(self).ok_or_else(unknown)?);
            }
        }
        Ok(expanded)
    }

    fn variable(&self, name: &str) -> Option<String> {
        (self.env)(name).filter(|value| !value.is_empty())
    }

    fn commit(&self) -> Option<String> {
        let mut given = COMMITS.iter().filter_map(|name| self.variable(name));
        given.find(|value| is_commit(value)).or_else(|| Git::of(self.here?)?.commit())
    }

    fn slug(&self) -> Option<String> {
        let given = || REFS.iter().find_map(|name| self.variable(name));
        // Jenkins names the remote, too.
        let given = || given().map(|name| name.strip_prefix("origin/").unwrap_or(&name).to_owned());
        let name = self.variable("CI_COMMIT_REF_SLUG").or_else(given).or_else(|| Git::of(self.here?)?.branch())?;
        Some(slug(&name)).filter(|slug| !slug.is_empty())
    }
}

fn unknown(name: &str) -> String {
    let (what, variable) = match name {
        "{ref-slug}" => ("branch or tag", REFS[0]),
        _ => ("commit", COMMITS[0]),
    };
    format!(
        "{name}: neither a variable such as {variable} nor a repository around the context says which {what} is built"
    )
}

fn is_commit(text: &str) -> bool {
    matches!(text.len(), 40 | 64) && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

/// A name as GitLab makes it fit for addresses: lower case, with `-` for all but letters and digits, and none at its ends.
/// It is legal in tags and in the names of repositories.
fn slug(name: &str) -> String {
    let fit = |c: char| if c.is_ascii_lowercase() || c.is_ascii_digit() { c } else { '-' };
    let fitting: String = name.to_lowercase().chars().map(fit).take(LONGEST_SLUG).collect();
    fitting.trim_matches('-').to_owned()
}

impl Git {
    /// The repository that a directory is in.
    fn of(directory: &Path) -> Option<Self> {
        let directory = fs::canonicalize(directory).ok()?;
        let marker = directory.ancestors().map(|above| above.join(".git")).find(|marker| marker.exists())?;
        let own = match fs::read_to_string(&marker) {
            // A work tree and a submodule say where it is.
            Ok(text) => marker.parent()?.join(text.strip_prefix("gitdir:")?.trim()),
            Err(_) => marker,
        };
        let common = fs::read_to_string(own.join("commondir"));
        let common = common.map_or_else(|_| own.clone(), |text| own.join(text.trim()));
        Some(Self { own, common })
    }

    /// The branch, unless a commit was checked out by itself.
    fn branch(&self) -> Option<String> {
        let head = fs::read_to_string(self.own.join("HEAD")).ok()?;
        head.trim().strip_prefix("ref:")?.trim().strip_prefix("refs/heads/").map(str::to_owned)
    }

    fn commit(&self) -> Option<String> {
        let head = fs::read_to_string(self.own.join("HEAD")).ok()?;
        let head = head.trim();
        let Some(name) = head.strip_prefix("ref:").map(str::trim) else {
            return Some(head.to_owned()).filter(|head| is_commit(head));
        };
        let loose = [&self.own, &self.common].into_iter().find_map(|place| fs::read_to_string(place.join(name)).ok());
        let packed = || {
            let refs = fs::read_to_string(self.common.join("packed-refs")).ok()?;
            let line = refs.lines().find(|line| line.split(' ').nth(1) == Some(name))?;
            Some(line.split(' ').next()?.to_owned())
        };
        loose.or_else(packed).map(|commit| commit.trim().to_owned()).filter(|commit| is_commit(commit))
    }
}

#[cfg(test)]
mod tests {
    use yadokari_registry::Reference;

    use super::*;

    const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";
    const OTHER: &str = "fedcba9876543210fedcba9876543210fedcba98";

    fn expand(text: &str, here: Option<&Path>, variables: &[(&str, &str)]) -> Result<String, String> {
        let env = |name: &str| variables.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).to_owned());
        Source { here, env: &env }.expand(text).map_err(|error| error.to_string())
    }

    #[test]
    fn names_of_branches_are_legal_as_tags_and_those_that_gitlab_makes() {
        let long = "x".repeat(62);
        for (name, expected) in [
            ("main", "main"),
            ("Feature/ABC_12.x", "feature-abc-12-x"),
            ("-_weird_-", "weird"),
            ("zür", "z-r"),
            ("a--b", "a--b"),
            (&format!("{long}/more"), &long),
            (&format!("{long}yz"), &format!("{long}y")),
        ] {
            assert_eq!(slug(name), expected, "{name}");
            let tag: Reference = format!("r.example/app/{expected}:{expected}").parse().unwrap();
            assert_eq!(tag.tag(), Some(expected));
        }
        assert!(expand("r/x:{ref-slug}", None, &[("CI_COMMIT_REF_NAME", "___")]).is_err());
    }

    #[test]
    fn variables_of_ci_systems_say_what_is_built() {
        let text = "r/{ref-slug}:{short-sha}-{sha}-{key}";
        let all = |slug: &str| Ok(format!("r/{slug}:01234567-{COMMIT}-{{key}}"));
        for (variables, slug) in [
            (&[("CI_COMMIT_SHA", COMMIT), ("CI_COMMIT_REF_NAME", "A/b"), ("CI_COMMIT_REF_SLUG", "a-b-c")][..], "a-b-c"),
            (&[("CI_COMMIT_SHA", COMMIT), ("CI_COMMIT_REF_NAME", "A/b")], "a-b"),
            (&[("GITHUB_SHA", COMMIT), ("GITHUB_REF_NAME", "7/merge"), ("GITHUB_HEAD_REF", "fix")], "fix"),
            (&[("GITHUB_SHA", COMMIT), ("GITHUB_REF_NAME", "v1.2"), ("GITHUB_HEAD_REF", "")], "v1-2"),
            (&[("GIT_COMMIT", COMMIT), ("GIT_BRANCH", "origin/main")], "main"),
            (&[("BUILDKITE_COMMIT", "HEAD"), ("CIRCLE_SHA1", COMMIT), ("CIRCLE_BRANCH", "x")], "x"),
        ] {
            assert_eq!(expand(text, None, variables), all(slug), "{variables:?}");
        }
        assert_eq!(expand("r/x:1", None, &[]), Ok("r/x:1".to_owned()));
        for (name, what) in
            [("{sha}", "which commit"), ("{short-sha}", "CI_COMMIT_SHA"), ("{ref-slug}", "branch or tag")]
        {
            let error = expand(&format!("r/x:{name}"), None, &[]).unwrap_err();
            assert!(error.starts_with(&format!("--destination: {name}: ")) && error.contains(what), "{error}");
        }
    }

    #[test]
    fn a_repository_around_the_context_says_it_where_no_variable_does() {
        let directory = tempfile::tempdir().unwrap();
        let (git, context) = (directory.path().join(".git"), directory.path().join("a/b"));
        let write = |path: &Path, text: &str| {
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        };
        fs::create_dir_all(&context).unwrap();
        let (commit, slug) = (|| expand("{sha}", Some(&context), &[]), || expand("{ref-slug}", Some(&context), &[]));
        write(&git.join("HEAD"), "ref: refs/heads/Fix/1\n");
        assert!(commit().is_err());
        write(
            &git.join("packed-refs"),
            &format!("# pack-refs\n{OTHER} refs/heads/Fix/10\n{COMMIT} refs/heads/Fix/1\n"),
        );
        assert_eq!((commit(), slug()), (Ok(COMMIT.into()), Ok("fix-1".into())));
        write(&git.join("refs/heads/Fix/1"), &format!("{OTHER}\n"));
        assert_eq!(commit(), Ok(OTHER.into()));
        assert_eq!(expand("{sha}", Some(&context), &[("GITHUB_SHA", COMMIT)]), Ok(COMMIT.into()));
        write(&git.join("HEAD"), COMMIT);
        assert_eq!(commit(), Ok(COMMIT.into()));
        assert!(slug().is_err());
        // A work tree elsewhere, whose branch is in the repository that it belongs to.
        let tree = tempfile::tempdir().unwrap();
        let own = git.join("worktrees/t");
        write(&tree.path().join(".git"), &format!("gitdir: {}\n", own.display()));
        write(&own.join("commondir"), "../..\n");
        write(&own.join("HEAD"), "ref: refs/heads/Fix/1\n");
        assert_eq!(expand("{sha}-{ref-slug}", Some(tree.path()), &[]), Ok(format!("{OTHER}-fix-1")));
    }
}
