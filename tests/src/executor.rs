//! The executor as it is shipped: one static executable in an otherwise empty root filesystem.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use serde_json::Value;

use crate::bases::{busybox_program, file_digest};
use crate::command::{PATIENCE, capture, command, find, line};
use crate::error::{At, Error, Result};
use crate::{Container, Job, Registry, Variant, cache, packages, proxies, run};

/// What the executable is linked with, always statically.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Libc {
    /// musl: what is shipped.
    Musl,
    /// glibc, where the musl target cannot be had.
    Gnu,
}

/// The executor, built from this workspace.
#[derive(Clone, Debug)]
pub struct Executor {
    directory: PathBuf,
}

const CERTIFICATES: &str = "/etc/ssl/certs/ca-certificates.crt";

impl Executor {
    /// Builds it, with musl where that can be had: once in a process, and after that without a question to cargo.
    pub fn build() -> Result<Self> {
        static BUILT: Mutex<Option<Executor>> = Mutex::new(None);
        // Whoever panicked while holding the lock has left a value or none.
        let mut built = BUILT.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        match &*built {
            Some(executor) => Ok(executor.clone()),
            None => {
                let libc = if Libc::Musl.obtain() { Libc::Musl } else { Libc::Gnu };
                Ok(built.insert(Self::build_with(libc)?).clone())
            }
        }
    }

    /// Builds it with one or the other.
    pub fn build_with(libc: Libc) -> Result<Self> {
        packages::ensure()?;
        // The same place in the target directory serves every checkout that shares it.
        let _lock = cache::lock("executor-build")?;
        let program = libc.build()?;
        let checkout = file_name_of(&crate::workspace());
        Self::around(&program, &format!("{checkout}-{libc:?}"))
    }

    /// The same around an executable that is there already, and static.
    pub fn of(program: &Path) -> Result<Self> {
        packages::ensure()?;
        if !is_static(&fs::read(program).at("read", program)?) {
            return Err(Error::NotStatic { program: program.to_owned() });
        }
        Self::around(program, "given")
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

    fn around(program: &Path, name: &str) -> Result<Self> {
        let recipe = format!("2 {}", file_digest(program)?);
        let directory = cache::once(&format!("executor-{name}").to_lowercase(), &recipe, |directory| {
            plain(&directory.join("plain"), program)?;
            debug(&directory.join("debug"), program)
        })?;
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

impl Libc {
    fn target(self) -> String {
        let libc = if self == Self::Musl { "musl" } else { "gnu" };
        format!("{}-unknown-linux-{libc}", std::env::consts::ARCH)
    }

    /// Whether the toolchain has the target, or could fetch it.
    pub fn obtain(self) -> bool {
        let has = || {
            let sysroot = run(&rustc(), ["--print", "sysroot"]).map(|output| PathBuf::from(output.stdout.trim()));
            sysroot.is_ok_and(|sysroot| sysroot.join("lib/rustlib").join(self.target()).join("lib").is_dir())
        };
        has() || (run("rustup", ["target", "add", &self.target()]).is_ok() && has())
    }

    /// Builds the executable, statically linked.
    fn build(self) -> Result<PathBuf> {
        let target = self.target();
        let directory = cache::target();
        let mut cargo = command(&std::env::var("CARGO").unwrap_or_else(|_| "cargo".into()));
        cargo.current_dir(crate::workspace()).arg("build").args(["--release", "--package", "yadokari"]);
        cargo.args(["--target", &target, "--target-dir"]).arg(&directory);
        match self {
            Self::Musl => cargo.env(format!("CC_{}", target.replace('-', "_")), "musl-gcc"),
            // Only with --target does this spare the build scripts, which are not static.
            Self::Gnu => cargo.env("RUSTFLAGS", "-C target-feature=+crt-static"),
        };
        let line = line(&cargo);
        capture(&mut cargo, PATIENCE * 6)?.ok(&line)?;
        let program = directory.join(target).join("release/yadokari");
        if is_static(&fs::read(&program).at("read", &program)?) {
            Ok(program)
        } else {
            Err(Error::NotStatic { program })
        }
    }
}

fn rustc() -> String {
    std::env::var("RUSTC")
        .ok()
        .or_else(|| find("rustc").map(|path| path.to_string_lossy().into_owned()))
        .unwrap_or_default()
}

/// Whether a 64-bit little-endian ELF file names no interpreter, that is, no dynamic linker.
pub fn is_static(elf: &[u8]) -> bool {
    const INTERPRETER: u32 = 3;
    let bytes = |at: usize, size: usize| elf.get(at..at + size).unwrap_or_default();
    let number = |at, size| bytes(at, size).iter().rev().fold(0_usize, |sum, byte| sum << 8 | usize::from(*byte));
    let (table, size, count) = (number(32, 8), number(54, 2), number(56, 2));
    let kinds = (0..count).map(|n| number(table + n * size, 4));
    elf.starts_with(b"\x7fELF\x02\x01") && count > 0 && !kinds.into_iter().any(|kind| kind == INTERPRETER as usize)
}

/// The shipped image.
fn plain(root: &Path, program: &Path) -> Result<()> {
    for directory in ["kaniko/.docker", "kaniko/ssl/certs", "workspace"] {
        let directory = root.join(directory);
        fs::create_dir_all(&directory).at("create", &directory)?;
    }
    let put = |from: &Path, to: &str| fs::copy(from, root.join(to)).at("copy", from).map(drop);
    put(program, "kaniko/executor")?;
    // Called by this name the program fills a directory with base images.
    symlink("executor", root.join("kaniko/warmer")).at("link", root.join("kaniko/warmer"))?;
    if Path::new(CERTIFICATES).is_file() {
        put(Path::new(CERTIFICATES), "kaniko/ssl/certs/ca-certificates.crt")?;
    }
    let config = root.join("kaniko/.docker/config.json");
    fs::write(&config, Value::Object(serde_json::Map::new()).to_string()).at("write", &config)?;
    for (path, mode) in [("", 0o755), ("kaniko", 0o777), ("kaniko/.docker", 0o777), ("workspace", 0o777)] {
        let path = root.join(path);
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).at("chmod", &path)?;
    }
    Ok(())
}

/// The same with a shell.
fn debug(root: &Path, program: &Path) -> Result<()> {
    plain(root, program)?;
    for directory in ["busybox", "bin"] {
        fs::create_dir(root.join(directory)).at("create", root.join(directory))?;
    }
    let (busybox, applets) = busybox_program()?;
    fs::copy(&busybox, root.join("busybox/busybox")).at("copy", &busybox)?;
    for applet in applets {
        symlink("busybox", root.join("busybox").join(&applet)).at("link", &applet)?;
    }
    symlink("/busybox/sh", root.join("bin/sh")).at("link", root.join("bin/sh"))
}

fn file_name_of(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn busybox_is_static_and_this_test_is_not() {
        packages::ensure().unwrap();
        assert!(is_static(&fs::read(find("busybox").unwrap()).unwrap()));
        assert!(!is_static(&fs::read(std::env::current_exe().unwrap()).unwrap()));
        assert!(!is_static(b"#!/bin/sh\n"));
    }
}
