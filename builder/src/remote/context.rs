//! Contexts that are no directories: repositories, and archives from a URL, a file or the standard input.

use std::fs;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use super::{Fetcher, GitName, GitRef, archive, git, is_url};
use crate::progress::Progress;
use crate::{Error, ExitCode};

/// A context elsewhere.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ContextName {
    /// A repository.
    Git(GitRef),
    /// An archive, or a single Dockerfile.
    Url(String),
    /// An archive in a file.
    Archive(PathBuf),
    /// The standard input: an archive, or, where that is allowed, a single Dockerfile.
    Input {
        /// Whether it may be a Dockerfile.
        dockerfile: bool,
    },
}

/// A context on disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ContextTree {
    /// The directory.
    pub path: PathBuf,
    /// The Dockerfile, where what was fetched is one and nothing else.
    pub dockerfile: Option<PathBuf>,
}

impl ContextName {
    /// Reads the name of a context, as BuildKit does: a repository, or the URL of an archive. `None` where it is a path.
    /// A text like `github.com/owner/repository` is a repository unless there is such a directory.
    pub fn parse(text: &str) -> Result<Option<Self>, String> {
        match git::parse(text)? {
            GitName::Repository(reference) => Ok(Some(Self::Git(reference))),
            GitName::Ambiguous(reference) if !Path::new(text).exists() => Ok(Some(Self::Git(reference))),
            _ if is_url(text) => Ok(Some(Self::Url(text.to_owned()))),
            _ => Ok(None),
        }
    }
}

impl Fetcher {
    /// Brings a context to disk. `keep_git_dir` holds for repositories that do not say it themselves.
    pub async fn context(
        &self,
        name: &ContextName,
        keep_git_dir: bool,
        progress: &Progress,
    ) -> Result<ContextTree, Error> {
        match name {
            ContextName::Git(reference) => {
                let keep = reference.keep_git_dir.unwrap_or(keep_git_dir);
                let checkout = self.repository(reference, keep, progress).await?;
                if let Some(checksum) = &reference.checksum {
                    let checked = checkout.check(checksum);
                    checked.map_err(|reason| wrong(&format!("git repository {reference}"), reason))?;
                }
                Ok(ContextTree { path: checkout.path, dockerfile: None })
            }
            ContextName::Url(text) => {
                let file = self.file(text, progress).await?;
                self.unpacked(&super::url::shown(text), file.path, true)
            }
            ContextName::Archive(path) => self.unpacked(&path.display().to_string(), path.clone(), false),
            ContextName::Input { dockerfile } => {
                let path = self.input()?;
                self.unpacked("the standard input", path, *dockerfile)
            }
        }
    }

    /// A context of what is in a file.
    fn unpacked(&self, name: &str, file: PathBuf, may_be_dockerfile: bool) -> Result<ContextTree, Error> {
        let failed = |source| Error::Context { path: file.clone(), source };
        let path = self.new_directory("context-")?;
        if archive::is_archive(&file)? {
            let unpacked = tokio::task::block_in_place(|| archive::unpack(&file, &self.limits, &path));
            unpacked.map_err(|error| wrong(&format!("build context {name}"), error.to_string()))?;
            return Ok(ContextTree { path, dockerfile: None });
        }
        if may_be_dockerfile && is_text(&file).map_err(failed)? {
            return Ok(ContextTree { path, dockerfile: Some(file) });
        }
        let what = if may_be_dockerfile { "neither a tar archive nor a Dockerfile" } else { "not a tar archive" };
        Err(wrong(&format!("build context {name}"), format!("it is {what}")))
    }
}

/// Whether a file starts as a text does: no byte of it is zero. An HTML page, which servers send in place of files, is
/// one, too, and the parser refuses it with its first line.
fn is_text(file: &Path) -> io::Result<bool> {
    let mut start = Vec::new();
    fs::File::open(file)?.take(1024).read_to_end(&mut start)?;
    Ok(!start.is_empty() && !start.contains(&0))
}

fn wrong(name: &str, reason: String) -> Error {
    Error::Remote { name: name.to_owned(), reason, code: ExitCode::Data, at: None }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn contexts_elsewhere_are_told_from_paths() {
        let name = |text: &str| ContextName::parse(text).unwrap();
        for path in ["/workspace", ".", "dir.git", "github.com", "C:dir"] {
            assert_eq!(name(path), None, "{path}");
        }
        assert!(matches!(name("https://example.com/context.tar.gz"), Some(ContextName::Url(_))));
        for git in ["https://h/a.git#main:dir", "git@h:a", "git://h/a", "ssh://h/a", "github.com/o/r"] {
            assert!(matches!(name(git), Some(ContextName::Git(_))), "{git}");
        }
        assert!(ContextName::parse("https://h/a.git?x=1").is_err());
    }
}
