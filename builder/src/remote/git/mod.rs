//! Git repositories: a reference becomes a commit, the commit is fetched without its history, and its tree is written to a
//! directory, with its submodules.

mod choose;
mod reference;
mod submodules;
mod transport;
mod worktree;

use std::fs;
use std::io;
use std::num::NonZeroU32;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use gix::ObjectId;
use gix::protocol::handshake::Ref;
use gix::remote::{
    Direction,
    fetch::{Shallow, Tags},
    ref_map,
};
use tokio::runtime::Handle;
use yadokari_registry::Client;

use super::auth::Login;
use super::url;
use choose::Chosen;
use transport::Network;

pub use reference::{GitName, GitRef, parse};

/// As deep as submodules may nest.
const MAX_DEPTH: usize = 16;

/// A tree on disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Checkout {
    /// The directory that is meant: the subdirectory, where one is named.
    pub path: PathBuf,
    /// The commit.
    pub commit: String,
    /// The annotated tag that leads to it, if one does: its own name for a checksum.
    pub tag: Option<String>,
    /// Whether the `.git` directory is there.
    pub has_git_dir: bool,
}

/// Why a repository cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum GitError {
    /// A request failed.
    #[error("{}", super::words("", .0))]
    Http(Box<yadokari_registry::Error>),
    /// The repository has no such branch, tag or commit.
    #[error("{0}")]
    NoReference(String),
    /// The commit has no such directory.
    #[error("the commit {commit} has no directory '{path}'")]
    NoDirectory {
        /// The commit.
        commit: String,
        /// What was asked for.
        path: String,
    },
    /// A text that names no repository.
    #[error("{0}")]
    Address(String),
    /// No answer.
    #[error("{0}")]
    Unreachable(String),
    /// There is no SSH here.
    #[error(
        "SSH needs the program 'ssh', which is not here ({0}); use https:// and, for a private repository, the secret \
         GIT_AUTH_TOKEN"
    )]
    NoSsh(String),
    /// What came cannot be used, or git's protocol failed.
    #[error("{0}")]
    Protocol(String),
    /// A file of the host.
    #[error("{operation} '{}': {source}", path.display())]
    Host {
        /// What was tried.
        operation: &'static str,
        /// The path.
        path: PathBuf,
        /// The kernel's answer.
        source: io::Error,
    },
    /// A submodule cannot be had.
    #[error("submodule '{path}' ({url}): {source}")]
    Submodule {
        /// Where it goes.
        path: String,
        /// Its address, without a password.
        url: String,
        /// Why.
        source: Box<GitError>,
    },
}

/// One checkout to be made, by a thread that may block.
pub(super) struct Job {
    pub(super) client: Client,
    pub(super) runtime: Handle,
    pub(super) reference: GitRef,
    pub(super) keep_git_dir: bool,
    /// What the secrets say.
    pub(super) login: Option<Login>,
    /// The directory to make.
    pub(super) directory: PathBuf,
    /// Set when nobody waits any more.
    pub(super) stop: Arc<AtomicBool>,
}

impl Checkout {
    /// Whether the commit, or the tag that led to it, is what a checksum says: all of it, or its start.
    pub fn check(&self, checksum: &str) -> Result<(), String> {
        if checksum.is_empty() || !checksum.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return Err(format!(
                "the checksum of a repository is a commit, or the start of one, and '{checksum}' is none"
            ));
        }
        let found = self.tag.iter().chain([&self.commit]);
        if found.clone().any(|found| found.starts_with(checksum)) {
            return Ok(());
        }
        let found: Vec<&str> = found.map(String::as_str).collect();
        Err(format!("the commit is {}, not {checksum}", found.join(" or ")))
    }
}

/// Sets the flag when it is dropped: a future that is given up ends the thread's work.
pub(super) struct StopOnDrop(pub(super) Arc<AtomicBool>);

impl Drop for StopOnDrop {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

impl Job {
    /// Makes the checkout.
    pub(super) fn run(self) -> Result<Checkout, GitError> {
        let remote = self.reference.remote.clone();
        let login = self.login.as_ref().map(|login| (scope(&remote), login.header()));
        let network =
            Network { client: self.client.clone(), runtime: self.runtime.clone(), login, failure: Arc::default() };
        let subdirectory = self.reference.subdirectory.as_deref().map(|path| path.trim_matches('/'));
        let subdirectory = subdirectory.filter(|path| !matches!(*path, "" | "."));
        // As with BuildKit, part of a repository has no use for the whole one's directory.
        let keep = self.keep_git_dir && subdirectory.is_none();
        let repository = Repository { network: &network, stop: &self.stop, remote: &remote, keep };
        let wanted = self.reference.reference.as_deref();
        let (chosen, commit, time) = repository.check_out(&Wanted::Name(wanted), &self.directory, &mut |open| {
            if self.reference.submodules {
                submodules::check_out(&repository, open, &self.directory, 0)
            } else {
                Ok(())
            }
        })?;
        worktree::normalise(&self.directory, self.reference.commit_time.then_some(time))?;
        let path = match subdirectory {
            Some(below) => crate::remote::directory_below(&self.directory, below)
                .ok_or_else(|| GitError::NoDirectory { commit: commit.to_string(), path: below.to_owned() })?,
            None => self.directory,
        };
        let tag = (chosen.id != commit).then(|| chosen.id.to_string());
        Ok(Checkout { path, commit: commit.to_string(), tag, has_git_dir: keep })
    }
}

/// What of a repository is fetched.
enum Wanted<'a> {
    /// What a name leads to, or the default branch.
    Name(Option<&'a str>),
    /// A commit that a submodule is at.
    Commit(ObjectId),
}

/// A repository elsewhere.
struct Repository<'a> {
    network: &'a Network,
    stop: &'a AtomicBool,
    remote: &'a str,
    keep: bool,
}

impl Repository<'_> {
    /// Fetches a commit and writes its tree to `directory`, then does `more` while the objects are there. Gives what the
    /// name led to, the commit and its time.
    fn check_out(
        &self,
        wanted: &Wanted<'_>,
        directory: &Path,
        more: &mut dyn FnMut(&gix::Repository) -> Result<(), GitError>,
    ) -> Result<(Chosen, ObjectId, i64), GitError> {
        let failed = |source| GitError::Host { operation: "make", path: directory.to_owned(), source };
        fs::create_dir_all(directory).map_err(failed)?;
        let kind = gix::create::Kind::WithWorktree;
        let options = gix::open::Options::isolated();
        let open = gix::ThreadSafeRepository::init_opts(directory, kind, gix::create::Options::default(), options);
        let open = open.map_err(|error| self.error("make the repository", &error))?.to_thread_local();
        let chosen = match wanted {
            Wanted::Commit(id) => Chosen { id: *id, name: None },
            Wanted::Name(Some(name)) if reference::is_commit(name) => {
                let id = ObjectId::from_hex(name.as_bytes());
                let id =
                    id.map_err(|_| GitError::Protocol("repositories with SHA-256 are not carried out yet".into()))?;
                Chosen { id, name: None }
            }
            Wanted::Name(name) => choose::choose(&self.references(&open, *name)?, *name)?,
        };
        self.fetch(&open, &chosen)?;
        let object = open.find_object(chosen.id).map_err(|error| self.error("find the commit", &error))?;
        let commit =
            object.peel_to_kind(gix::object::Kind::Commit).map_err(|error| self.error("find the commit", &error))?;
        let commit = commit.into_commit();
        let (id, time) = (commit.id, commit.time().map_or(0, |time| time.seconds));
        worktree::write(&open, &commit, directory, self.stop).map_err(|error| self.error("check out", &error))?;
        more(&open)?;
        if self.keep {
            worktree::finish_git_dir(&open, self.remote, &chosen, id)?;
        } else {
            let git = open.git_dir().to_owned();
            drop(commit);
            fs::remove_dir_all(&git).map_err(|source| GitError::Host { operation: "remove", path: git, source })?;
        }
        Ok((chosen, id, time))
    }

    /// The references that a name may mean.
    fn references(&self, open: &gix::Repository, name: Option<&str>) -> Result<Vec<Ref>, GitError> {
        let name = name.unwrap_or("HEAD");
        let bad = || GitError::NoReference(format!("'{name}' is not the name of a branch, a tag or a commit"));
        let remote = self.remote_of(open, name).map_err(|_| bad())?;
        let connection = remote.to_connection_with_transport(self.network.connect(self.remote)?);
        let connection = connection.with_credentials(|_| Ok(None));
        let (map, _) = connection
            .ref_map(gix::progress::Discard, ref_map::Options::default())
            .map_err(|error| self.error("list the references", &error))?;
        Ok(map.remote_refs)
    }

    /// Fetches one object, and with it the commit that it leads to, without history.
    fn fetch(&self, open: &gix::Repository, chosen: &Chosen) -> Result<(), GitError> {
        let spec = format!("+{}:refs/fetched", chosen.id);
        let remote = self.remote_of(open, &spec).map_err(|error| self.error("name the commit", &error))?;
        let connection = remote.to_connection_with_transport(self.network.connect(self.remote)?);
        let connection = connection.with_credentials(|_| Ok(None));
        let failed = |error: gix::Error| self.error(&format!("fetch {}", chosen.id), &error);
        let prepared = connection.prepare_fetch(gix::progress::Discard, ref_map::Options::default()).map_err(failed)?;
        let shallow = Shallow::DepthAtRemote(NonZeroU32::MIN);
        prepared.with_shallow(shallow).receive(gix::progress::Discard, self.stop).map_err(failed)?;
        Ok(())
    }

    fn remote_of<'r>(&self, open: &'r gix::Repository, spec: &str) -> gix::Result<gix::Remote<'r>> {
        // The address is only a name here: the transport has its own.
        let remote = open.remote_at("https://remote.invalid/")?.with_fetch_tags(Tags::None);
        remote.with_refspecs([spec], Direction::Fetch)
    }

    /// A failure of git's layers: that of the request below them, if there was one.
    fn error(&self, operation: &str, error: &gix::Error) -> GitError {
        match self.network.take_failure() {
            Some(failure) => GitError::Http(Box::new(failure)),
            None => match chain(error) {
                text if text.contains("not our ref") => {
                    GitError::NoReference("the repository has no such commit".into())
                }
                text => GitError::Protocol(format!("{operation}: {text}")),
            },
        }
    }
}

/// An error and its causes in one line.
fn chain(error: &gix::Error) -> String {
    let mut texts: Vec<String> = Vec::new();
    let mut next: Option<&(dyn std::error::Error + 'static)> = Some(error);
    while let Some(cause) = next {
        let text = cause.to_string().split_whitespace().collect::<Vec<_>>().join(" ");
        if !texts.iter().any(|known| known.contains(&text)) {
            texts.push(text);
        }
        next = cause.source();
    }
    texts.join(": ")
}

/// Where a repository's login is sent to: to itself, so that a submodule elsewhere does not get it. One login serves all
/// of GitHub, as with BuildKit.
fn scope(remote: &str) -> String {
    let all = ["https://github.com/", "https://www.github.com/"].into_iter().find(|all| remote.starts_with(all));
    all.unwrap_or(remote).to_owned()
}
