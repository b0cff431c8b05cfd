//! Sources of ADD that are elsewhere: files from URLs, and git repositories.

use yadokari_layers::Digest;

use super::lower::{At, Lowering};
use super::op::{CopySource, Elsewhere};
use super::stage::Planner;
use crate::dockerfile::{Add, Diagnostic, InstructionKind, Span, Word};
use crate::remote::{Fetched, GitName, Remote, git, is_url};

impl Lowering {
    /// What a source names elsewhere; `None` where it is a path.
    pub(super) fn remote(&self, source: &str, word: &Word, at: &At<'_>) -> Result<Option<Remote>, Diagnostic> {
        let parsed = git::parse(source).map_err(|reason| Diagnostic::new(reason).at(word.span))?;
        let InstructionKind::Add(add) = &at.instruction.kind else {
            let what = match parsed {
                GitName::Repository(_) => "a git repository",
                _ if is_url(source) => "a URL",
                _ => return Ok(None),
            };
            let error = Diagnostic::new(format!("{what} cannot be the source of a COPY")).at(word.span);
            return Err(error.help("ADD fetches it"));
        };
        match parsed {
            GitName::Repository(reference) => {
                if let (Some(flag), Some(option)) = (add.keep_git_dir, reference.keep_git_dir)
                    && flag != option
                {
                    let error =
                        "the flag --keep-git-dir and the repository's option keep-git-dir contradict each other";
                    return Err(Diagnostic::new(error).at(word.span));
                }
                let keep = add.keep_git_dir.or(reference.keep_git_dir).unwrap_or(false);
                Ok(Some(Remote::Git(reference, keep)))
            }
            _ if is_url(source) => Ok(Some(Remote::Url(source.to_owned()))),
            _ => Ok(None),
        }
    }

    /// Holds what was fetched against the flags, and the flags against the sources.
    pub(super) fn check_remotes(
        &self,
        planner: &mut Planner<'_>,
        sources: &[CopySource],
        at: &At<'_>,
    ) -> Result<(), crate::Error> {
        let InstructionKind::Add(add) = &at.instruction.kind else { return Ok(()) };
        self.check_checksum(add, sources, at)?;
        self.check_keep_git_dir(planner, add, sources, at);
        Ok(())
    }

    fn check_checksum(&self, add: &Add, sources: &[CopySource], at: &At<'_>) -> Result<(), crate::Error> {
        let flag = match &add.checksum {
            Some(word) => Some((self.expand(word, at)?, word.span)).filter(|(text, _)| !text.is_empty()),
            None => None,
        };
        if let Some((_, span)) = flag {
            let refused = match sources {
                [CopySource { elsewhere: Some(_), .. }] => None,
                [_] => Some("--checksum needs a URL or a git repository"),
                _ => Some("--checksum holds for a single source"),
            };
            if let Some(message) = refused {
                return Err(Diagnostic::new(message).at(span).into());
            }
        }
        for source in sources {
            let Some(Elsewhere { remote, fetched }) = &source.elsewhere else { continue };
            match (remote, fetched) {
                (_, Fetched::File(file)) => {
                    let Some((text, span)) = &flag else { continue };
                    let expected = digest(text).map_err(|error| error.at(*span))?;
                    if file.digest != expected {
                        let error = Diagnostic::new(format!("the file has the digest {}, not {expected}", file.digest));
                        return Err(error.at(*span).label("does not hold").into());
                    }
                }
                (Remote::Git(reference, _), Fetched::Tree(tree)) => {
                    if let (Some((flag, span)), Some(option)) = (&flag, &reference.checksum)
                        && flag != option
                    {
                        let error = format!("the flag --checksum says {flag}, the repository's option {option}");
                        return Err(Diagnostic::new(error).at(*span).into());
                    }
                    let option = reference.checksum.as_ref().map(|text| (text.clone(), source.span));
                    for (text, span) in flag.iter().chain(&option) {
                        let wrong = |reason| Diagnostic::new(reason).at(*span).label("does not hold");
                        tree.check(text).map_err(wrong)?;
                    }
                }
                (Remote::Url(_), Fetched::Tree(_)) => unreachable!("a URL is a file"),
            }
        }
        Ok(())
    }

    fn check_keep_git_dir(&self, planner: &mut Planner<'_>, add: &Add, sources: &[CopySource], at: &At<'_>) {
        let is_git = |source: &CopySource| matches!(&source.elsewhere, Some(Elsewhere { remote: Remote::Git(..), .. }));
        if add.keep_git_dir == Some(true) && !sources.iter().any(is_git) {
            let warning = Diagnostic::warning("--keep-git-dir means nothing where no source is a git repository");
            planner.warn(warning, at.instruction.span, at.trigger);
        }
    }
}

impl Planner<'_> {
    /// What was fetched for a source; `None`, and a need, where it is still to be.
    pub(super) fn fetched(&mut self, remote: &Remote, word: &Word, at: &At<'_>) -> Option<Fetched> {
        let fetched = self.known.remotes.get(remote).cloned();
        if fetched.is_none() {
            self.needs.remotes.insert(remote.clone(), (!at.trigger).then_some(word.span));
        }
        fetched
    }
}

/// A file that goes into a directory needs a name.
pub(super) fn check_names(remotes: &[(Remote, Span)], destination: &str) -> Result<(), Diagnostic> {
    for (remote, span) in remotes {
        if matches!(remote, Remote::Url(_)) && destination.ends_with('/') && remote.file_name().is_none() {
            let error = Diagnostic::new("the URL ends in no name for the file").at(*span);
            return Err(error.help("let the destination end in the file's name, and not in a slash"));
        }
    }
    Ok(())
}

/// The digest of a file, as `--checksum` says it.
fn digest(text: &str) -> Result<Digest, Diagnostic> {
    if ["sha384:", "sha512:"].iter().any(|algorithm| text.starts_with(algorithm)) {
        let error = Diagnostic::new(format!("'{text}': only digests of SHA-256 can be checked"));
        return Err(error.help("write sha256: and the 64 digits that sha256sum prints"));
    }
    let bad = |_| Diagnostic::new(format!("'{text}' is not the digest of a file"));
    text.parse().map_err(bad).map_err(|error| error.help("write sha256: and the 64 digits that sha256sum prints"))
}
