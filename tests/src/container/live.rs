//! A container that exists, and the processes in it.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown, lchown};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use rustix::io::Errno;
use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;
use walkdir::WalkDir;

use super::config::{self, Bind, SHIFT};
use super::{Container, Job, Variant};
use crate::error::{At, Error, Result};
use crate::{Listing, Output, Running, capture, command, packages, run, scratch};

/// A container that ends, with all its processes and mounts, when the value is dropped.
#[derive(Debug)]
pub struct Live {
    container: Container,
    name: String,
    mounted: bool,
    commands: u32,
    directory: TempDir,
}

/// A command that runs in a container.
#[derive(Debug)]
pub struct Process {
    running: Option<Running>,
    pid_file: PathBuf,
    limit: Duration,
}

/// What lists processes, but for its own.
const PROCESSES: &str = "for p in /proc/[0-9]*; do tr '\\0' ' ' < $p/cmdline; echo; done 2>/dev/null \
 | grep -vE '^$|while sleep 3600|^sleep 3600|for p in|^tr |^grep '; true";

/// What a runtime puts into `/etc`, from the host.
const BROUGHT: [&str; 3] = ["hosts", "hostname", "resolv.conf"];

impl Live {
    pub(super) fn open(mut container: Container) -> Result<Self> {
        packages::ensure()?;
        if !rustix::process::geteuid().is_root() {
            return Err(Error::NotRoot);
        }
        let directory = match &container.place {
            Some(place) => scratch::directory_in(place)?,
            None => scratch::directory()?,
        };
        let own = Ownership::of(container.variant);
        if own == Ownership::Shifted {
            container.rootfs = own.copy(&container.rootfs, &directory.path().join("lower"))?;
        }
        for (n, volume) in container.volumes.iter_mut().enumerate() {
            if own != Ownership::Kept {
                volume.source = own.copy(&volume.source, &directory.path().join(format!("volume{n}")))?;
            }
        }
        let name = directory.path().file_name().unwrap_or_default().to_string_lossy().replace('.', "");
        let name = format!("yadokari-{name}");
        let mut live = Self { container, name, mounted: false, commands: 0, directory };
        live.mount()?;
        live.fill()?;
        Ok(live)
    }

    /// Runs `job` as the first process, to its end. The next one finds the files that it left.
    pub fn run(&mut self, job: impl Into<Job>) -> Result<Output> {
        self.launch(job)?.wait()
    }

    /// Runs `job` as the first process.
    pub fn launch(&mut self, job: impl Into<Job>) -> Result<Process> {
        let job = job.into();
        self.configure(&job)?;
        self.runc(&job, &["run", "--bundle", &self.at("").to_string_lossy()])
    }

    /// Starts a shell as the first process, which does nothing.
    pub(super) fn start(&mut self) -> Result<()> {
        let shell = ["/busybox/sh", "/bin/sh"].into_iter().find(|shell| self.path(shell).symlink_metadata().is_ok());
        let job = Job::new([shell.unwrap_or("/bin/sh"), "-c", "while sleep 3600; do :; done"]);
        self.configure(&job)?;
        self.runc(&job, &["run", "--detach", "--bundle", &self.at("").to_string_lossy()])?
            .wait()?
            .ok("runc run --detach")
            .map(drop)
    }

    /// Runs `job` beside the first process, to its end.
    pub fn exec(&mut self, job: impl Into<Job>) -> Result<Output> {
        self.spawn(job)?.wait()
    }

    /// Runs `job` beside the first process.
    pub fn spawn(&mut self, job: impl Into<Job>) -> Result<Process> {
        let job = job.into();
        let file = self.at(&format!("process{}.json", self.commands));
        fs::write(&file, config::process(&self.container, &job).to_string()).at("write", &file)?;
        self.runc(&job, &["exec", "--process", &file.to_string_lossy()])
    }

    /// Where the host finds what is at `inside`, an absolute path: in a volume, or in the root filesystem.
    pub fn path(&self, inside: &str) -> PathBuf {
        let inside = Path::new(inside);
        let volumes = self.container.volumes.iter().filter(|volume| inside.starts_with(&volume.target));
        match volumes.max_by_key(|volume| volume.target.len()) {
            None => self.rootfs().join(inside.strip_prefix("/").unwrap_or(inside)),
            // Joining an empty path would append a slash, which a file does not bear.
            Some(volume) if inside == Path::new(&volume.target) => volume.source.clone(),
            Some(volume) => volume.source.join(inside.strip_prefix(&volume.target).unwrap_or(inside)),
        }
    }

    /// The root filesystem, without what is mounted in it.
    pub fn rootfs(&self) -> PathBuf {
        self.at("merged")
    }

    /// All of the container's own files but what builds write to: every kind, mode, size, content, owner and time. The
    /// executor's own directories keep no time: the work directory comes and goes in one, the credentials in the other.
    pub fn own_files(&self) -> Result<Listing> {
        let mut listing = Listing::of(&self.rootfs())?;
        listing.0.retain(|path, _| !path.starts_with("kaniko/work"));
        for own in ["kaniko", "kaniko/.docker"] {
            listing.0.entry(own.into()).and_modify(|entry| entry.mtime = 0);
        }
        Ok(listing)
    }

    /// What builds left in their work directory: nothing, if all is well, but the lock by which they take turns.
    pub fn left_behind(&mut self, work_dir: &str) -> Result<String> {
        let line = format!("if [ -d {work_dir} ]; then find {work_dir} -mindepth 1 ! -path {work_dir}/lock; fi");
        self.exec(["/busybox/sh", "-c", &line])?.text("find")
    }

    /// The command lines of its processes, but for the shell that waits in it and what that waits with.
    pub fn processes(&mut self) -> Result<String> {
        self.exec(["/busybox/sh", "-c", PROCESSES])?.text("ps")
    }

    /// Only what was written to the root filesystem: the overlay's upper directory.
    pub fn written(&self) -> PathBuf {
        self.at("upper")
    }

    fn at(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn mount(&mut self) -> Result<()> {
        let [lower, upper, work, merged] =
            [self.container.rootfs.clone(), self.written(), self.at("work"), self.rootfs()];
        for directory in [&upper, &work, &merged] {
            fs::create_dir(directory).at("create", directory)?;
        }
        let metadata = fs::metadata(&lower).at("stat", &lower)?;
        chown(&upper, Some(metadata.uid()), Some(metadata.gid())).at("chown", &upper)?;
        fs::set_permissions(&upper, metadata.permissions()).at("chmod", &upper)?;
        let [lower, upper, work] = [lower, upper, work].map(|path| path.to_string_lossy().into_owned());
        let options = format!("lowerdir={lower},upperdir={upper},workdir={work}\0");
        let options = std::ffi::CStr::from_bytes_with_nul(options.as_bytes()).ok();
        mount("overlay", &merged, "overlay", MountFlags::empty(), options).at("mount an overlay on", &merged)?;
        self.mounted = true;
        Ok(())
    }

    /// Puts in the files that the test asked for, and those that a runtime brings.
    fn fill(&self) -> Result<()> {
        let own = Ownership::of(self.container.variant);
        let put = |path: PathBuf, content: &[u8]| {
            fs::write(&path, content).at("write", &path)?;
            own.give(&path)
        };
        for (path, content) in &self.container.files {
            put(self.path(path), content)?;
        }
        if self.container.variant == Variant::Docker {
            put(self.path("/.dockerenv"), b"")?;
        }
        for name in BROUGHT {
            let host = Path::new("/etc").join(name);
            let file = self.at(name);
            fs::write(&file, fs::read(&host).at("read", &host)?).at("write", &file)?;
            if own == Ownership::Shifted {
                own.give(&file)?;
            }
        }
        Ok(())
    }

    fn configure(&self, job: &Job) -> Result<()> {
        let brought = BROUGHT.map(|name| (self.at(name), format!("/etc/{name}")));
        let brought = brought.iter().map(|(source, target)| Bind { source, target, readonly: false });
        let volumes = self.container.volumes.iter();
        let volumes = volumes.map(|v| Bind { source: &v.source, target: &v.target, readonly: v.readonly });
        let binds: Vec<_> = brought.chain(volumes).collect();
        let cgroup = match &self.container.cgroup {
            Some(parent) => format!("{parent}/{}", self.name),
            None => self.name.clone(),
        };
        let config = config::container(&self.container, job, &self.rootfs(), &binds, &cgroup)?;
        fs::write(self.at("config.json"), config.to_string()).at("write", self.at("config.json"))
    }

    fn runc(&mut self, job: &Job, arguments: &[&str]) -> Result<Process> {
        self.commands += 1;
        let pid_file = self.at(&format!("pid{}", self.commands));
        let stdin = match &job.stdin {
            Some(path) => Stdio::from(fs::File::open(path).at("open", path)?),
            None => Stdio::null(),
        };
        let mut runc = self.runc_command();
        if let Some(file) = &self.container.watched {
            let mut strace = command("strace");
            strace.args(["-f", "-qq", "-e", "signal=none", "-e", "trace=connect,sendto,sendmsg,sendmmsg", "-o"]);
            strace.arg(file).arg(runc.get_program()).args(runc.get_args());
            runc = strace;
        }
        runc.args(arguments).arg("--pid-file").arg(&pid_file).arg(&self.name);
        let running = Running::start_reading(&mut runc, stdin)?;
        Ok(Process { running: Some(running), pid_file, limit: job.limit })
    }

    fn runc_command(&self) -> Command {
        let mut runc = command("runc");
        runc.arg("--root").arg(self.at("state"));
        runc
    }
}

impl Drop for Live {
    fn drop(&mut self) {
        // Whatever fails here leaves rubbish behind, but a panic in the middle of another would hide its cause.
        let deleted = capture(self.runc_command().args(["delete", "--force", &self.name]), Duration::from_secs(60));
        if self.mounted {
            let unmounted = unmount(self.rootfs(), UnmountFlags::DETACH);
            if let (Err(error), _) | (_, Err(error)) = (deleted.map(drop), unmounted.at("unmount", self.rootfs())) {
                eprintln!("while cleaning up: {error}");
            }
        }
    }
}

impl Process {
    /// Sends `signal` to the process, whose start it waits for. False where it has ended.
    pub fn signal(&self, signal: Signal) -> Result<bool> {
        let start = Instant::now();
        while start.elapsed() < self.limit {
            if let Some(pid) = self.pid() {
                return match kill_process(pid, signal) {
                    // Whoever started it has yet to notice.
                    Err(Errno::SRCH) => Ok(false),
                    sent => sent.map(|()| true).at("signal the process in", &self.pid_file),
                };
            }
            thread::sleep(Duration::from_millis(2));
        }
        Err(Error::Timeout { what: "the start of a process".into(), after: self.limit })
    }

    /// What it has printed so far: standard output, then standard error.
    pub fn printed(&self) -> Result<(String, String)> {
        self.running.as_ref().map_or(Ok(Default::default()), Running::printed)
    }

    /// Whether it is still running.
    pub fn is_running(&mut self) -> Result<bool> {
        self.running.as_mut().map_or(Ok(false), Running::is_running)
    }

    /// Waits until its standard error or output has `text`.
    pub fn wait_for(&mut self, text: &str) -> Result<()> {
        let start = Instant::now();
        loop {
            let (out, err) = self.printed()?;
            if out.contains(text) || err.contains(text) {
                return Ok(());
            }
            if start.elapsed() > self.limit || !self.is_running()? {
                return Err(Error::Timeout { what: format!("'{text}' in '{out}{err}'"), after: start.elapsed() });
            }
            thread::sleep(Duration::from_millis(5));
        }
    }

    /// Waits for its end.
    pub fn wait(mut self) -> Result<Output> {
        match self.running.take() {
            Some(running) => running.wait(self.limit),
            None => Err(Error::Timeout { what: "a process that has ended".into(), after: Duration::ZERO }),
        }
    }

    fn pid(&self) -> Option<Pid> {
        fs::read_to_string(&self.pid_file).ok()?.trim().parse().ok().and_then(Pid::from_raw)
    }
}

/// Who owns what a container is given.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Ownership {
    /// The same as outside.
    Kept,
    /// The same as outside, seen from within a user namespace.
    Shifted,
    /// The container's one user.
    Given,
}

impl Ownership {
    fn of(variant: Variant) -> Self {
        match variant {
            Variant::Docker | Variant::Unconfined => Self::Kept,
            Variant::UserNamespace => Self::Shifted,
            Variant::Restricted => Self::Given,
        }
    }

    /// A copy of a file or a tree with these owners.
    fn copy(self, source: &Path, target: &Path) -> Result<PathBuf> {
        run("cp", ["-a".as_ref(), source.as_os_str(), target.as_os_str()])?;
        for found in WalkDir::new(target) {
            let found = found.map_err(std::io::Error::from).at("list", target)?;
            self.give(found.path())?;
        }
        Ok(target.to_owned())
    }

    fn give(self, path: &Path) -> Result<()> {
        let metadata = fs::symlink_metadata(path).at("stat", path)?;
        let (uid, gid) = match self {
            Self::Kept => return Ok(()),
            Self::Shifted => (metadata.uid() + SHIFT, metadata.gid() + SHIFT),
            Self::Given => (1000, 1000),
        };
        lchown(path, Some(uid), Some(gid)).at("chown", path)?;
        // A change of owner takes the set-id bits away.
        if metadata.mode() & 0o6000 != 0 && !metadata.is_symlink() {
            fs::set_permissions(path, fs::Permissions::from_mode(metadata.mode() & 0o7777)).at("chmod", path)?;
        }
        Ok(())
    }
}
