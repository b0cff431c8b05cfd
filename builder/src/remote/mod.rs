//! What comes from the network and is no image: files and git repositories that ADD names, and contexts that are no
//! directories.
//!
//! ```text
//!  text ─parse→ Remote ─fetch→ Fetched: a file, or a directory, below the work directory
//! ```
//!
//! All HTTP goes through the client that registries are spoken to with, so that its proxies and certificate authorities
//! hold here too; the logins of registries are never sent. Private sources have secrets of their own ([`Login`]), which
//! no message, key or layer ever holds.

mod archive;
mod auth;
mod context;
pub mod git;
mod url;

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use tokio::runtime::Handle;
use yadokari_layers::{Digest, Limits};
use yadokari_registry::{Client, Request};

use crate::progress::Progress;
use crate::{Error, ExitCode, space};

pub use auth::{Login, Lookup};
pub use context::{ContextName, ContextTree};
pub use git::{Checkout, GitName, GitRef};
pub(crate) use url::host_name;

/// A source elsewhere.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Remote {
    /// A file.
    Url(String),
    /// A repository, and whether its `.git` directory is wanted.
    Git(GitRef, bool),
}

/// What a source turned out to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fetched {
    /// A file.
    File(RemoteFile),
    /// The tree of a commit.
    Tree(Checkout),
}

/// A downloaded file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RemoteFile {
    /// Where it is.
    pub path: PathBuf,
    /// The digest of its bytes.
    pub digest: Digest,
    /// Their number.
    pub size: u64,
    /// Its time in seconds since 1970: what the server says it was changed last, else 0, as with BuildKit.
    pub mtime: i64,
}

impl Remote {
    /// The name under which a file from this source is stored, where its URL has one.
    pub fn file_name(&self) -> Option<String> {
        match self {
            Self::Url(text) => url::file_name(text),
            Self::Git(..) => None,
        }
    }
}

impl Remote {
    /// The host that is asked for it, without its port.
    pub fn host(&self) -> &str {
        match self {
            Self::Url(text) => host_name(text),
            Self::Git(reference, _) => host_name(&reference.remote),
        }
    }
}

impl std::fmt::Display for Remote {
    /// The source for messages, without a password.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Url(text) => f.write_str(&url::shown(text)),
            Self::Git(reference, _) => write!(f, "{reference}"),
        }
    }
}

/// Whether a text is the URL of a file.
pub fn is_url(text: &str) -> bool {
    text.starts_with("http://") || text.starts_with("https://")
}

/// Fetches sources into one directory.
#[derive(Clone)]
pub struct Fetcher {
    client: Client,
    directory: PathBuf,
    secrets: Arc<Lookup>,
    /// The login for repositories where no secret is one.
    login: Option<Login>,
    /// What archives may hold.
    limits: Limits,
}

impl Fetcher {
    /// Puts what is fetched below `directory`, which must exist and outlive its use. Private sources are asked with the
    /// logins that `secrets` knows.
    pub fn new(client: Client, directory: &Path, secrets: Arc<Lookup>) -> Self {
        Self { client, directory: directory.to_owned(), secrets, login: None, limits: Limits::default() }
    }

    /// The same, with a login for repositories that have no secret.
    pub fn with_login(self, login: Option<Login>) -> Self {
        Self { login, ..self }
    }

    /// The same, with what archives may hold that are contexts.
    pub fn with_limits(self, limits: Limits) -> Self {
        Self { limits, ..self }
    }

    /// Fetches a source.
    pub async fn fetch(&self, remote: &Remote, progress: &Progress) -> Result<Fetched, Error> {
        match remote {
            Remote::Url(text) => Ok(Fetched::File(self.file(text, progress).await?)),
            Remote::Git(reference, keep) => Ok(Fetched::Tree(self.repository(reference, *keep, progress).await?)),
        }
    }

    /// Downloads a file.
    pub async fn file(&self, text: &str, progress: &Progress) -> Result<RemoteFile, Error> {
        let start = std::time::Instant::now();
        let failed = |error: yadokari_registry::Error| of_registry(&url::shown(text), &error);
        let mut request = Request::get(text).map_err(failed)?;
        if let Some(login) = Login::for_url(text, &*self.secrets) {
            request = request.authorization(login.header());
        }
        let (mut file, path) = self.new_file()?;
        let download = self.client.download(&request, &mut file).await.map_err(|error| match &error {
            yadokari_registry::Error::Io { source, .. } if space::is_full(source) => {
                space::full(format!("{}: {error}", url::shown(text)), &self.directory, None)
            }
            _ => failed(error),
        })?;
        progress.downloaded(&url::shown(text), download.size, start.elapsed());
        let mtime = download.last_modified.unwrap_or(0);
        Ok(RemoteFile { path, digest: download.digest, size: download.size, mtime })
    }

    /// Checks a repository out.
    pub async fn repository(&self, reference: &GitRef, keep: bool, progress: &Progress) -> Result<Checkout, Error> {
        let start = std::time::Instant::now();
        let stop = Arc::new(AtomicBool::new(false));
        let _guard = git::StopOnDrop(Arc::clone(&stop));
        let job = git::Job {
            client: self.client.clone(),
            runtime: Handle::current(),
            reference: reference.clone(),
            keep_git_dir: keep,
            login: Login::for_repository(&reference.remote, &*self.secrets).or_else(|| self.login.clone()),
            directory: self.new_directory("git-")?,
            stop,
        };
        let checkout = match tokio::task::spawn_blocking(move || job.run()).await {
            Ok(checkout) => checkout,
            Err(panicked) => std::panic::resume_unwind(panicked.into_panic()),
        };
        let checkout = checkout.map_err(|error| of_git(reference, &error))?;
        progress.checked_out(&reference.to_string(), &checkout.commit, start.elapsed());
        Ok(checkout)
    }

    /// Stores what the standard input holds, and says where.
    pub fn input(&self) -> Result<PathBuf, Error> {
        let (mut file, path) = self.new_file()?;
        let copied = tokio::task::block_in_place(|| std::io::copy(&mut std::io::stdin().lock(), &mut file));
        let operation = "copy the standard input to";
        let failed = |source| Error::Host { operation, path: path.clone(), source };
        copied.map_err(|error| space::explained(failed(error), &self.directory, || None))?;
        Ok(path)
    }

    fn new_file(&self) -> Result<(File, PathBuf), Error> {
        let failed = |source| Error::Host { operation: "make a file in", path: self.directory.clone(), source };
        let file = tempfile::Builder::new().prefix("download-").tempfile_in(&self.directory).map_err(failed)?;
        file.keep().map_err(|error| failed(error.error))
    }

    fn new_directory(&self, prefix: &str) -> Result<PathBuf, Error> {
        let failed = |source| Error::Host { operation: "make a directory in", path: self.directory.clone(), source };
        let directory = tempfile::Builder::new().prefix(prefix).tempdir_in(&self.directory).map_err(failed)?;
        Ok(directory.keep())
    }
}

/// The directory `below` in another, which neither `..` nor links lead out of; `None` where there is none.
pub fn directory_below(directory: &Path, below: &str) -> Option<PathBuf> {
    let root = std::fs::canonicalize(directory).ok()?;
    let clean = yadokari_layers::RelPath::clamped(below).ok()?;
    let path = std::fs::canonicalize(root.join(clean.as_path())).ok()?;
    (path.starts_with(&root) && path.is_dir()).then_some(path)
}

fn of_registry(name: &str, error: &yadokari_registry::Error) -> Error {
    let mut reason = words(name, error);
    if matches!(error, yadokari_registry::Error::Unauthorized { .. }) {
        reason.push_str(&format!("; the secret HTTP_AUTH_TOKEN_{} can hold a token for it", host_name(name)));
    }
    Error::Remote { name: name.to_owned(), reason, code: code(error), at: None }
}

/// A failed request in few words, where `name` was said before.
fn words(name: &str, error: &yadokari_registry::Error) -> String {
    use yadokari_registry::Error;
    match error {
        Error::Refused { url, status, message, .. } if url == name => {
            format!("the server answered {status}: {message}")
        }
        Error::Refused { url, status, message, .. } => format!("{url} answered {status}: {message}"),
        Error::Unauthorized { registry, message, .. } => format!("{registry} refused access: {message}"),
        Error::Unreachable { host, source, .. } => format!("cannot reach {host}: {source}"),
        other => other.to_string(),
    }
}

fn code(error: &yadokari_registry::Error) -> ExitCode {
    match error {
        yadokari_registry::Error::Refused { status: 404 | 410, .. } => ExitCode::NoInput,
        error => crate::error::registry_code(error),
    }
}

fn of_git(reference: &GitRef, error: &git::GitError) -> Error {
    use git::GitError;
    fn of(error: &GitError) -> ExitCode {
        match error {
            GitError::Http(error) => code(error),
            GitError::NoReference(_) | GitError::NoDirectory { .. } => ExitCode::NoInput,
            GitError::Address(_) => ExitCode::Data,
            GitError::Unreachable(_) | GitError::NoSsh(_) => ExitCode::Unavailable,
            GitError::Protocol(_) => ExitCode::Protocol,
            GitError::Host { .. } => ExitCode::Io,
            GitError::Submodule { source, .. } => of(source),
        }
    }
    let mut reason = error.to_string();
    if matches!(error, GitError::Http(error) if matches!(**error, yadokari_registry::Error::Unauthorized { .. })) {
        reason.push_str("; the secret GIT_AUTH_TOKEN can hold a token for it");
    }
    Error::Remote { name: format!("git repository {reference}"), reason, code: of(error), at: None }
}
