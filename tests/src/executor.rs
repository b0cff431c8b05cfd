//! The executor as it is shipped: one static executable in an otherwise empty root filesystem.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;

use walkdir::WalkDir;

use crate::bases::{busybox_program, file_digest};
use crate::error::{At, Error, Result};
use crate::release::certificates;
use crate::{
    Commit, Container, Job, Libc, Registry, Release, Shipped, Variant, cache, is_static, packages, proxies, workspace,
};

/// The images that are shipped, by their tags.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tag {
    /// The executor and nothing else.
    Latest,
    /// With a shell.
    Debug,
}

/// The executor, built from this workspace.
#[derive(Clone, Debug)]
pub struct Executor {
    directory: PathBuf,
}

/// What anybody may write into: whoever runs the image need not be root.
const OPEN: [&str; 3] = ["kaniko", "kaniko/.docker", "workspace"];

impl Executor {
    /// Builds it, with musl where that can be had: once in a process, and after that without a question to cargo.
    pub fn build() -> Result<Self> {
        static BUILT: Mutex<Option<Executor>> = Mutex::new(None);
        // Whoever panicked while holding the lock has left a value or none.
        let mut built = BUILT.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        match &*built {
            Some(executor) => Ok(executor.clone()),
            None => Ok(built.insert(Self::build_with(Libc::available())?).clone()),
        }
    }

    /// Builds it with one or the other.
    pub fn build_with(libc: Libc) -> Result<Self> {
        packages::ensure()?;
        // The same place in the target directory serves every checkout that shares it.
        let _lock = cache::lock("executor-build")?;
        let shipped = Release::here(libc).build()?;
        let checkout = file_name_of(&workspace());
        Self::around(&shipped.executable, Some(&shipped), &format!("{checkout}-{libc:?}"))
    }

    /// The same around an executable that is there already, and static. There are no papers about it.
    pub fn of(program: &Path) -> Result<Self> {
        packages::ensure()?;
        if !is_static(&fs::read(program).at("read", program)?) {
            return Err(Error::NotStatic { program: program.to_owned() });
        }
        Self::around(program, None, "given")
    }

    /// The root filesystems of `shipped`, in a directory that is empty.
    pub fn assemble(shipped: &Shipped, directory: &Path) -> Result<Self> {
        let directory = directory.to_owned();
        fill(&directory, &shipped.executable, Some(shipped))?;
        Ok(Self { directory })
    }

    /// The executable.
    pub fn program(&self) -> PathBuf {
        self.rootfs().join("kaniko/executor")
    }

    /// The root filesystem of the shipped image.
    pub fn rootfs(&self) -> PathBuf {
        self.directory.join("plain")
    }

    /// The root filesystem of the one with a shell.
    pub fn debug_rootfs(&self) -> PathBuf {
        self.directory.join("debug")
    }

    /// A container of the shipped image: the executor, its directories and certificates, and nothing else.
    pub fn container(&self, variant: Variant) -> Container {
        self.on("plain", variant)
    }

    /// A container of the image for CI systems that need a shell: `/busybox` besides.
    pub fn debug_container(&self, variant: Variant) -> Container {
        self.on("debug", variant)
    }

    /// The executor's command line for a build of `/workspace` whose images come from `registry`, the ones of Docker
    /// Hub included. What is built and where it goes is the caller's to add.
    pub fn job(registry: &Registry) -> Job {
        Self::job_at(registry.host())
    }

    /// The same for a registry by its address.
    pub fn job_at(host: &str) -> Job {
        Job::new([
            "/kaniko/executor",
            "--context",
            "/workspace",
            "--insecure-registry",
            host,
            "--registry-mirror",
            host,
        ])
        .args(proxies().into_iter().flat_map(|(name, value)| ["--build-arg".to_owned(), format!("{name}={value}")]))
    }

    /// The command that builds one of the images that are shipped, as the executable in it does, whoever runs it and when.
    pub fn image(&self, tag: Tag, commit: Option<&Commit>) -> Command {
        let (target, context) = match tag {
            Tag::Latest => ("executor", self.rootfs()),
            Tag::Debug => ("debug", self.debug_rootfs()),
        };
        let mut build = Command::new(self.program());
        build.arg("--context").arg(context).arg("--dockerfile").arg(workspace().join("Dockerfile.executor"));
        build.args(["--target", target]);
        if let Some(commit) = commit {
            build.arg("--label").arg(format!("org.opencontainers.image.revision={}", commit.id));
            build.env("SOURCE_DATE_EPOCH", &commit.time);
        }
        build
    }

    fn around(program: &Path, papers: Option<&Shipped>, name: &str) -> Result<Self> {
        let written = papers.map(|papers| format!("{}{}", papers.materials, papers.licences));
        let recipe = format!("3 {} {}", file_digest(program)?, written.unwrap_or_default());
        let name = format!("executor-{name}").to_lowercase();
        let directory = cache::once(&name, &recipe, |directory| fill(directory, program, papers))?;
        Ok(Self { directory })
    }

    fn on(&self, image: &str, variant: Variant) -> Container {
        Container::new(self.directory.join(image), variant)
            .env("PATH", "/usr/local/bin:/kaniko:/busybox")
            .env("SSL_CERT_DIR", "/kaniko/ssl/certs")
            .env("DOCKER_CONFIG", "/kaniko/.docker/")
            .cwd("/workspace")
    }
}

/// Both root filesystems.
fn fill(directory: &Path, program: &Path, papers: Option<&Shipped>) -> Result<()> {
    plain(&directory.join("plain"), program, papers)?;
    debug(&directory.join("debug"), program, papers)
}

/// The shipped image.
fn plain(root: &Path, program: &Path, papers: Option<&Shipped>) -> Result<()> {
    for directory in ["kaniko/.docker", "kaniko/ssl/certs", "workspace"] {
        let directory = root.join(directory);
        fs::create_dir_all(&directory).at("create", &directory)?;
    }
    fs::copy(program, root.join("kaniko/executor")).at("copy", program)?;
    // Called by this name the program fills a directory with base images.
    symlink("executor", root.join("kaniko/warmer")).at("link", root.join("kaniko/warmer"))?;
    let write = |path: &str, text: &str| fs::write(root.join(path), text).at("write", root.join(path));
    write("kaniko/ssl/certs/ca-certificates.crt", &certificates())?;
    write("kaniko/.docker/config.json", "{}")?;
    if let Some(papers) = papers {
        // Scanners of images know a bill of materials by the end of its name.
        write("kaniko/executor.cdx.json", &papers.materials)?;
        write("kaniko/THIRD-PARTY-LICENSES", &papers.licences)?;
        let licence = workspace().join("LICENSE");
        write("kaniko/LICENSE", &fs::read_to_string(&licence).at("read", &licence)?)?;
    }
    modes(root)
}

/// The same with a shell.
fn debug(root: &Path, program: &Path, papers: Option<&Shipped>) -> Result<()> {
    plain(root, program, papers)?;
    for directory in ["busybox", "bin"] {
        fs::create_dir(root.join(directory)).at("create", root.join(directory))?;
    }
    let (busybox, applets) = busybox_program()?;
    fs::copy(&busybox, root.join("busybox/busybox")).at("copy", &busybox)?;
    for applet in applets {
        symlink("busybox", root.join("busybox").join(&applet)).at("link", &applet)?;
    }
    symlink("/busybox/sh", root.join("bin/sh")).at("link", root.join("bin/sh"))?;
    modes(root)
}

/// Modes that no umask has a part in.
fn modes(root: &Path) -> Result<()> {
    for entry in WalkDir::new(root) {
        let entry = entry.map_err(std::io::Error::from).at("list", root)?;
        let path = entry.path();
        let is_open = OPEN.iter().any(|open| path == root.join(open));
        let is_program = ["executor", "busybox"].iter().any(|name| entry.file_name() == *name);
        let mode = match (entry.file_type().is_dir(), entry.file_type().is_file()) {
            (true, _) if is_open => 0o777,
            (true, _) => 0o755,
            (_, true) if is_program => 0o755,
            (_, true) => 0o644,
            _ => continue,
        };
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).at("chmod", path)?;
    }
    Ok(())
}

fn file_name_of(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}
