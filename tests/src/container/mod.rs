//! Containers as CI systems make them, run by runc on a root filesystem that is never written to.

mod config;
mod live;
mod seccomp;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tempfile::TempDir;

pub use live::{Live, Process};

use crate::{Output, PATIENCE, Result};

/// Whose containers these are like. The network namespace is that of whoever starts them in all, so that loopback is shared.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Variant {
    /// Docker's and containerd's defaults: root with fourteen capabilities, and Docker's seccomp profile. No
    /// namespace can be made and nothing mounted. GitLab's runner on Docker gives this.
    Docker,
    /// The same without seccomp: a Kubernetes pod that says nothing of security.
    Unconfined,
    /// The same in a user namespace: a pod with `hostUsers: false`.
    UserNamespace,
    /// A pod under the `restricted` standard: uid 1000, no capability, no new privileges, seccomp.
    Restricted,
}

impl Variant {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Docker, Self::Unconfined, Self::UserNamespace, Self::Restricted];
}

/// A container to be.
#[derive(Clone, Debug)]
pub struct Container {
    rootfs: PathBuf,
    variant: Variant,
    volumes: Vec<Volume>,
    small: Vec<(String, u64)>,
    files: Vec<(String, Vec<u8>)>,
    env: Vec<(String, String)>,
    cwd: String,
    user: (u32, u32),
    memory: Option<u64>,
    cpus: Option<u32>,
    place: Option<PathBuf>,
    cgroup: Option<String>,
    kept: Option<Arc<TempDir>>,
    watched: Option<PathBuf>,
}

#[derive(Clone, Debug)]
struct Volume {
    source: PathBuf,
    target: String,
    readonly: bool,
}

impl Container {
    /// A container on `rootfs`, with the environment that Docker gives to an image without one.
    ///
    /// Everything it writes goes to an overlay that is thrown away with it.
    pub fn new(rootfs: impl Into<PathBuf>, variant: Variant) -> Self {
        let id = if variant == Variant::Restricted { 1000 } else { 0 };
        let path = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
        let env = [("PATH", path), ("HOME", "/root")];
        Self {
            rootfs: rootfs.into(),
            variant,
            volumes: Vec::new(),
            small: Vec::new(),
            files: Vec::new(),
            env: env.map(|(name, value)| (name.to_owned(), value.to_owned())).into(),
            cwd: "/".to_owned(),
            user: (id, id),
            memory: None,
            cpus: None,
            place: None,
            cgroup: None,
            kept: None,
            watched: None,
        }
    }

    /// Mounts the file or directory `source` at `target`.
    ///
    /// In a user namespace and under the `restricted` standard the container gets a copy whose owners it can work
    /// with; [`Live::path`] says where it is.
    pub fn volume(self, source: impl Into<PathBuf>, target: &str) -> Self {
        self.mount(source.into(), target, false)
    }

    /// The same, not writable.
    pub fn readonly_volume(self, source: impl Into<PathBuf>, target: &str) -> Self {
        self.mount(source.into(), target, true)
    }

    /// Mounts an empty filesystem in memory, which is full after so many bytes, at `target`.
    pub fn small_volume(mut self, bytes: u64, target: &str) -> Self {
        self.small.push((target.to_owned(), bytes));
        self
    }

    /// Puts a file into the root filesystem before anything runs. Its directory exists.
    pub fn file(mut self, path: &str, content: impl Into<Vec<u8>>) -> Self {
        self.files.push((path.to_owned(), content.into()));
        self
    }

    /// Sets a variable of the environment.
    pub fn env(mut self, name: &str, value: impl Into<String>) -> Self {
        self.env.push((name.to_owned(), value.into()));
        self
    }

    /// Sets the working directory.
    pub fn cwd(mut self, path: &str) -> Self {
        path.clone_into(&mut self.cwd);
        self
    }

    /// Sets the user and the group.
    pub fn user(mut self, uid: u32, gid: u32) -> Self {
        self.user = (uid, gid);
        self
    }

    /// Limits the memory, page cache included; there is no swap.
    pub fn memory(mut self, bytes: u64) -> Self {
        self.memory = Some(bytes);
        self
    }

    /// Limits the processor time to that of so many processors.
    pub fn cpus(mut self, count: u32) -> Self {
        self.cpus = Some(count);
        self
    }

    /// Keeps what it writes below this directory rather than in the cache, where that is a faster file system.
    pub(crate) fn place(mut self, directory: &Path) -> Self {
        self.place = Some(directory.to_owned());
        self
    }

    /// Puts its cgroup below this one.
    pub(crate) fn cgroup(mut self, parent: &str) -> Self {
        self.cgroup = Some(parent.to_owned());
        self
    }

    /// Writes every try of its processes to reach a network into `file`, as `strace` shows them.
    pub fn watched(mut self, file: &Path) -> Self {
        self.watched = Some(file.to_owned());
        self
    }

    /// Runs `job` as its only process, to the end.
    pub fn run(self, job: impl Into<Job>) -> Result<Output> {
        self.open()?.run(job)
    }

    /// Makes it, with nothing running in it: for several [`Live::run`]s on one root filesystem.
    pub fn open(self) -> Result<Live> {
        Live::open(self)
    }

    /// Makes it with a shell as its first process that waits, as a CI job's does, for [`Live::exec`].
    ///
    /// The root filesystem holds `/busybox/sh` or `/bin/sh`.
    pub fn start(self) -> Result<Live> {
        let mut live = self.open()?;
        live.start()?;
        Ok(live)
    }

    /// Keeps the directory that the root filesystem is in for as long as the container.
    pub(crate) fn keep(mut self, directory: Arc<TempDir>) -> Self {
        self.kept = Some(directory);
        self
    }

    fn mount(mut self, source: PathBuf, target: &str, readonly: bool) -> Self {
        self.volumes.push(Volume { source, target: target.to_owned(), readonly });
        self
    }
}

/// A command to run in a container. An array of words is one, too.
#[derive(Clone, Debug)]
pub struct Job {
    argv: Vec<String>,
    env: Vec<(String, String)>,
    cwd: Option<String>,
    stdin: Option<PathBuf>,
    limit: Duration,
}

impl Job {
    /// A command with the container's environment and working directory.
    pub fn new<S: Into<String>>(argv: impl IntoIterator<Item = S>) -> Self {
        let argv = argv.into_iter().map(Into::into).collect();
        Self { argv, env: Vec::new(), cwd: None, stdin: None, limit: PATIENCE }
    }

    /// A line for `/bin/sh`.
    pub fn shell(line: &str) -> Self {
        Self::new(["/bin/sh", "-c", line])
    }

    /// Adds words.
    pub fn args<S: Into<String>>(mut self, words: impl IntoIterator<Item = S>) -> Self {
        self.argv.extend(words.into_iter().map(Into::into));
        self
    }

    /// Puts words before the command: a program that runs it.
    pub fn under<S: Into<String>>(mut self, words: impl IntoIterator<Item = S>) -> Self {
        self.argv.splice(..0, words.into_iter().map(Into::into));
        self
    }

    /// Sets a variable of the environment.
    pub fn env(mut self, name: &str, value: impl Into<String>) -> Self {
        self.env.push((name.to_owned(), value.into()));
        self
    }

    /// Sets the working directory.
    pub fn cwd(mut self, path: &str) -> Self {
        self.cwd = Some(path.to_owned());
        self
    }

    /// Connects standard input to a file.
    pub fn stdin(mut self, file: impl Into<PathBuf>) -> Self {
        self.stdin = Some(file.into());
        self
    }

    /// Ends it with an error after this time.
    pub fn limit(mut self, limit: Duration) -> Self {
        self.limit = limit;
        self
    }
}

impl<S: Into<String>, const N: usize> From<[S; N]> for Job {
    fn from(argv: [S; N]) -> Self {
        Self::new(argv)
    }
}

impl<S: Into<String>> From<Vec<S>> for Job {
    fn from(argv: Vec<S>) -> Self {
        Self::new(argv)
    }
}
