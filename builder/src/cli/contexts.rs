//! Where the context and the Dockerfile are, when they are no directory and no file: what `--context`, `--dockerfile` and
//! their kin mean, and how they come to disk before the build begins.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::context;
use crate::dockerfile::Source;
use crate::execute::WorkDir;
use crate::progress::Progress;
use crate::remote::{self, ContextName, Fetcher, GitName, Login, git};
use crate::{Error, Request};

use super::args::{Build, Environment, truth};
use super::paths;

/// The build argument that keeps the `.git` directory of a context.
const KEEP_GIT_DIR: &str = "BUILDKIT_CONTEXT_KEEP_GIT_DIR";

/// Where the context is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum ContextPlace {
    /// Here.
    Directory(PathBuf),
    /// Elsewhere.
    Elsewhere(ContextName),
}

/// Where the Dockerfile is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum DockerfilePlace {
    /// A path as it is, or below the context.
    Path(PathBuf),
    /// A URL.
    Url(String),
    /// The standard input.
    Input,
}

/// What is to be fetched before a build, and what was.
pub(super) struct Pending {
    context: ContextPlace,
    dockerfile: DockerfilePlace,
    sub_path: PathBuf,
    keep_git_dir: bool,
    login: Option<Login>,
    /// Where it is put. It goes away with this.
    work: Option<WorkDir>,
}

impl Build {
    /// `--context`: a directory, or one of the forms of Kaniko and BuildKit.
    pub(super) fn context(&self, env: Environment<'_>) -> Result<ContextPlace, Error> {
        let refuse = |message: String| Error::Usage { flag: "--context", message };
        let directory = |path: &str| Ok(ContextPlace::Directory(path.into()));
        let elsewhere = |name| Ok(ContextPlace::Elsewhere(name));
        match self.context.split_once("://") {
            _ if self.context == "-" => elsewhere(ContextName::Input { dockerfile: true }),
            Some(("dir", path)) => directory(path),
            Some(("tar", "stdin")) => elsewhere(ContextName::Input { dockerfile: false }),
            Some(("tar", path)) => elsewhere(ContextName::Archive(path.into())),
            Some(("git", _)) => elsewhere(ContextName::Git(self.kaniko_git(env)?)),
            Some((scheme @ ("s3" | "gs" | "azblob"), _)) => Err(refuse(format!(
                "contexts from {scheme}:// are not carried out yet; fetch it in a step before, and give its directory"
            ))),
            _ => match ContextName::parse(&self.context).map_err(refuse)? {
                Some(name) => elsewhere(name),
                None => match self.context.split_once("://") {
                    Some((scheme, _)) => Err(refuse(format!("there are no contexts from {scheme}://"))),
                    None => directory(&self.context),
                },
            },
        }
    }

    /// `git://HOST/PATH#REFERENCE#COMMIT` is Kaniko's, and is fetched over HTTPS unless GIT_PULL_METHOD says otherwise.
    fn kaniko_git(&self, env: Environment<'_>) -> Result<git::GitRef, Error> {
        let refuse = |message: String| Error::Usage { flag: "--context", message };
        let (text, commit) = match self.context.split_once('#') {
            Some((_, fragment)) if fragment.contains('#') => {
                let (text, commit) = self.context.rsplit_once('#').unwrap_or((&self.context, ""));
                (text, Some(commit))
            }
            _ => (&self.context[..], None),
        };
        let GitName::Repository(mut reference) = git::parse(text).map_err(refuse)? else {
            return Err(refuse(format!("'{text}' names no repository")));
        };
        let method = env("GIT_PULL_METHOD").filter(|method| !method.is_empty()).unwrap_or_else(|| "https".into());
        if !["https", "http", "git"].contains(&method.as_str()) {
            let message = format!("'{method}' is not https, http or git");
            return Err(Error::Usage { flag: "GIT_PULL_METHOD", message });
        }
        reference.remote = format!("{method}{}", reference.remote.trim_start_matches("git"));
        // Kaniko leaves submodules out unless it is told otherwise.
        reference.submodules = text.contains("submodules") && reference.submodules;
        for option in &self.git {
            let refuse = |message: String| Error::Usage { flag: "--git", message };
            let (key, value) = option.split_once('=').unwrap_or((option, "true"));
            let value = value.trim();
            let is = |value: &str| truth(value).map_err(|error| refuse(format!("{key}: {error}")));
            match key.trim() {
                "branch" if value.is_empty() => {}
                "branch" => _ = reference.reference.get_or_insert_with(|| format!("refs/heads/{value}")),
                "recurse-submodules" => reference.submodules = is(value)?,
                // Only the commit is fetched, whatever they say.
                "single-branch" => _ = is(value)?,
                "depth" if value.parse::<u32>().is_ok() => {}
                "depth" => return Err(refuse(format!("depth is a number, not '{value}'"))),
                "insecure-skip-tls" if !is(value)? => {}
                "insecure-skip-tls" => return Err(refuse("insecure-skip-tls is not carried out yet".into())),
                _ => {
                    return Err(refuse(format!(
                        "there is no option '{key}'; there are branch, single-branch, depth, recurse-submodules and \
                     insecure-skip-tls"
                    )));
                }
            }
        }
        if let Some(commit) = commit.filter(|commit| !commit.is_empty()) {
            reference.reference = Some(commit.to_owned());
        }
        Ok(reference)
    }

    /// `--dockerfile`
    pub(super) fn dockerfile(&self) -> DockerfilePlace {
        match self.dockerfile.to_str() {
            Some("-") => DockerfilePlace::Input,
            Some(text) if remote::is_url(text) => DockerfilePlace::Url(text.to_owned()),
            _ => DockerfilePlace::Path(self.dockerfile.clone()),
        }
    }

    /// What is to be fetched before the build. Without it, the context's directory and the Dockerfile's path. `more` says
    /// that other contexts are elsewhere.
    pub(super) fn places(
        &self,
        more: bool,
        build_args: &[(String, String)],
        env: Environment<'_>,
    ) -> Result<Result<(PathBuf, PathBuf), Pending>, Error> {
        let (context, dockerfile) = (self.context(env)?, self.dockerfile());
        let input = matches!(context, ContextPlace::Elsewhere(ContextName::Input { .. }));
        if input && dockerfile == DockerfilePlace::Input {
            let message = "the standard input holds the context already".into();
            return Err(Error::Usage { flag: "--dockerfile", message });
        }
        if let (ContextPlace::Directory(directory), DockerfilePlace::Path(path)) = (&context, &dockerfile)
            && !more
        {
            let directory = below(directory, &self.context_sub_path)?;
            let path = paths::dockerfile(path, &directory);
            return Ok(Ok((directory, path)));
        }
        let given = build_args.iter().rev().find(|(name, _)| name == KEEP_GIT_DIR).map(|(_, value)| truth(value));
        let variable = |name: &str| env(name).unwrap_or_default();
        let login = match [variable("GIT_TOKEN"), variable("GIT_USERNAME"), variable("GIT_PASSWORD")] {
            [token, ..] if !token.is_empty() => Some(Login::basic(&token, "")),
            [_, user, password] if !user.is_empty() || !password.is_empty() => Some(Login::basic(&user, &password)),
            _ => None,
        };
        Ok(Err(Pending {
            context,
            dockerfile,
            sub_path: self.context_sub_path.clone(),
            keep_git_dir: given == Some(Ok(true)),
            login,
            work: None,
        }))
    }
}

impl Pending {
    /// Fetches what is to be fetched, and completes the request with it.
    pub(super) async fn fetch(&mut self, request: &mut Request, progress: &Progress) -> Result<(), Error> {
        let work = self.work.insert(WorkDir::create(&request.sandbox.work_dir)?);
        let secrets = request.secrets.clone();
        let lookup = Arc::new(move |name: &str| secrets.text(name));
        let fetcher = Fetcher::new(request.client.clone(), work.downloads(), lookup).with_login(self.login.clone());
        let fetcher = fetcher.with_limits(request.limits);
        let mut single = None;
        let directory = match &self.context {
            ContextPlace::Directory(directory) => directory.clone(),
            ContextPlace::Elsewhere(name) => {
                let tree = fetcher.context(name, self.keep_git_dir, progress).await?;
                single = tree.dockerfile;
                tree.path
            }
        };
        request.context = below(&directory, &self.sub_path)?;
        request.sandbox.contexts.push(request.context.clone());
        let (path, name) = match (&self.dockerfile, single) {
            (DockerfilePlace::Url(url), _) => {
                let file = fetcher.file(url, progress).await?;
                (file.path, Some(remote::Remote::Url(url.clone()).to_string()))
            }
            (DockerfilePlace::Input, _) => (fetcher.input()?, Some("-".to_owned())),
            (DockerfilePlace::Path(_), Some(file)) => (file, Some("Dockerfile".to_owned())),
            (DockerfilePlace::Path(path), None) => (paths::dockerfile(path, &request.context), None),
        };
        // The directory of the work has a name of its own each time.
        let shown = || match path.strip_prefix(&request.context) {
            Ok(below) => below.display().to_string(),
            Err(_) => path.display().to_string(),
        };
        request.dockerfile = read(&path, name.unwrap_or_else(shown))?;
        request.dockerfile_path = path;
        for (name, source) in &mut request.named_contexts {
            let context::Source::Elsewhere(place) = source else { continue };
            let tree = fetcher.context(place, self.keep_git_dir, progress).await?;
            if tree.dockerfile.is_some() {
                let message = format!("{name}: what is there is neither a repository nor an archive");
                return Err(Error::Usage { flag: "--build-context", message });
            }
            request.sandbox.contexts.push(tree.path.clone());
            *source = context::Source::Directory(tree.path);
        }
        Ok(())
    }
}

/// Reads a Dockerfile.
pub(super) fn read(path: &Path, name: String) -> Result<Source, Error> {
    let bytes = fs::read(path).map_err(|source| Error::NoDockerfile { path: path.to_owned(), source })?;
    Ok(Source::from_bytes(name, bytes)?)
}

/// `--context-sub-path`
fn below(directory: &Path, sub_path: &Path) -> Result<PathBuf, Error> {
    if sub_path.as_os_str().is_empty() {
        return Ok(directory.to_owned());
    }
    let missing = || Error::Usage {
        flag: "--context-sub-path",
        message: format!("the context has no directory '{}'", sub_path.display()),
    };
    remote::directory_below(directory, &sub_path.to_string_lossy()).ok_or_else(missing)
}

#[cfg(test)]
mod tests {
    use super::super::args::Command;
    use super::super::parse;
    use super::*;

    fn build(line: &str) -> Build {
        let words = line.split(' ').map(Into::into).collect();
        match parse(words).unwrap_or_else(|error| panic!("{line}: {error}")).command {
            Command::Build(build) => *build,
            other => panic!("{other:?}"),
        }
    }

    fn context_with(line: &str, variable: Option<(&str, &str)>) -> Result<ContextPlace, String> {
        let env = |name: &str| variable.filter(|(known, _)| *known == name).map(|(_, value)| value.to_owned());
        build(&format!("executor -d r/i {line}")).context(&env).map_err(|error| error.to_string())
    }

    fn repository(line: &str) -> git::GitRef {
        match context_with(line, None) {
            Ok(ContextPlace::Elsewhere(ContextName::Git(reference))) => reference,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn contexts_are_directories_archives_repositories_or_the_input() {
        let elsewhere = |name| Ok(ContextPlace::Elsewhere(name));
        let cases = [
            ("-c dir:///c", Ok(ContextPlace::Directory("/c".into()))),
            ("-c /c", Ok(ContextPlace::Directory("/c".into()))),
            ("-c tar:///c.tar", elsewhere(ContextName::Archive("/c.tar".into()))),
            ("-c tar://stdin", elsewhere(ContextName::Input { dockerfile: false })),
            ("-c -", elsewhere(ContextName::Input { dockerfile: true })),
            ("-c https://h/c.tar.gz", elsewhere(ContextName::Url("https://h/c.tar.gz".into()))),
        ];
        for (line, expected) in cases {
            assert_eq!(context_with(line, None), expected, "{line}");
        }
        assert_eq!(repository("-c https://h/a.git#main:dir").subdirectory.as_deref(), Some("dir"));
        for scheme in ["s3", "gs", "azblob", "ftp"] {
            let error = context_with(&format!("-c {scheme}://b/k"), None).unwrap_err();
            assert!(error.contains(&format!("{scheme}://")), "{error}");
        }
        assert!(context_with("-c https://h/a.git?x=1", None).unwrap_err().contains("no option 'x'"));
    }

    #[test]
    fn kanikos_repositories_come_over_https_at_a_reference_or_a_commit() {
        let plain = repository("-c git://h/o/r.git");
        assert_eq!((plain.remote.as_str(), plain.reference, plain.submodules), ("https://h/o/r.git", None, false));
        let branch = repository("-c git://h/o/r.git#refs/heads/x");
        assert_eq!(branch.reference.as_deref(), Some("refs/heads/x"));
        let commit = "0123456789012345678901234567890123456789";
        let at = repository(&format!("-c git://h/o/r.git#refs/heads/x#{commit}"));
        assert_eq!(at.reference.as_deref(), Some(commit));
        let told = repository("-c git://h/o/r.git --git branch=y --git recurse-submodules=true --git depth=1");
        assert_eq!((told.reference.as_deref(), told.submodules), (Some("refs/heads/y"), true));
        for (option, message) in
            [("x=1", "no option 'x'"), ("insecure-skip-tls=true", "not carried out"), ("depth=a", "number")]
        {
            let error = context_with(&format!("-c git://h/r.git --git {option}"), None).unwrap_err();
            assert!(error.contains(message), "{error}");
        }
        let over = |method| context_with("-c git://h/r.git", Some(("GIT_PULL_METHOD", method)));
        assert!(
            matches!(over("http"), Ok(ContextPlace::Elsewhere(ContextName::Git(found))) if found.remote == "http://h/r.git")
        );
        assert!(
            matches!(over("git"), Ok(ContextPlace::Elsewhere(ContextName::Git(found))) if found.remote == "git://h/r.git")
        );
        assert!(over("ssh").unwrap_err().contains("GIT_PULL_METHOD"));
    }

    #[test]
    fn dockerfiles_come_from_urls_and_the_input_too() {
        let of = |line: &str| build(&format!("executor {line}")).dockerfile();
        assert_eq!(of("-f https://h/Dockerfile"), DockerfilePlace::Url("https://h/Dockerfile".into()));
        assert_eq!(of("-f -"), DockerfilePlace::Input);
        assert_eq!(of("-f a/b"), DockerfilePlace::Path("a/b".into()));
        let both = build("executor -c - -f - -d r/i").places(false, &[], &|_| None);
        assert!(both.err().unwrap().to_string().contains("holds the context already"));
    }

    #[test]
    fn a_sub_path_stays_in_the_context() {
        let directory = tempfile::tempdir().unwrap();
        fs::create_dir_all(directory.path().join("a/b")).unwrap();
        std::os::unix::fs::symlink("/", directory.path().join("out")).unwrap();
        let root = fs::canonicalize(directory.path()).unwrap();
        assert_eq!(below(directory.path(), Path::new("a/b")).unwrap(), root.join("a/b"));
        assert_eq!(below(directory.path(), Path::new("../a")).unwrap(), root.join("a"));
        for path in ["none", "out", "out/tmp"] {
            let error = below(directory.path(), Path::new(path)).unwrap_err().to_string();
            assert!(error.contains(&format!("no directory '{path}'")), "{error}");
        }
    }
}
