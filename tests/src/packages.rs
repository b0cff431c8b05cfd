//! The Debian packages that the tests need beside a Rust toolchain, installed on first use where that is possible.

use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::sync::OnceLock;

use crate::command::{PATIENCE, capture, command, find, line};
use crate::error::{At, Error, Result};
use crate::{cache, run};

/// A program, and the package that holds it.
const TOOLS: [(&str, &str); 13] = [
    ("runc", "runc"),
    ("skopeo", "skopeo"),
    ("umoci", "umoci"),
    ("busybox", "busybox-static"),
    ("mmdebstrap", "mmdebstrap"),
    ("cc", "build-essential"),
    ("bzip2", "bzip2"),
    ("xz", "xz-utils"),
    ("musl-gcc", "musl-tools"),
    ("valgrind", "valgrind"),
    ("openssl", "openssl"),
    ("strace", "strace"),
    ("ip", "iproute2"),
];

/// Sees to it that every tool is there. The first call of a process may install them; the others cost nothing.
pub fn ensure() -> Result<()> {
    static ENSURED: OnceLock<()> = OnceLock::new();
    if ENSURED.get().is_some() {
        return Ok(());
    }
    let _lock = cache::lock("packages")?;
    let missing: Vec<_> = TOOLS.iter().filter(|(tool, _)| find(tool).is_none()).collect();
    if !missing.is_empty() {
        let tools = missing.iter().map(|(tool, _)| *tool).collect();
        let mut packages: Vec<_> = missing.iter().map(|(_, package)| *package).collect();
        if let Some(reason) = obstacle() {
            return Err(Error::Missing { tools, packages, reason });
        }
        packages.push("ca-certificates");
        apt(&["update", "-q"])?;
        apt(&[&["install", "-q", "-y", "--no-install-recommends"], &packages[..]].concat())?;
    }
    ENSURED.get_or_init(|| ());
    Ok(())
}

/// The registry's program. Where it is not installed, its package is only unpacked into the cache: installing it would
/// start a service on this machine.
pub fn registry() -> Result<PathBuf> {
    match find("docker-registry") {
        Some(program) => Ok(program),
        None => unpacked("docker-registry").map(|root| root.join("usr/bin/docker-registry")),
    }
}

/// Docker's own seccomp profile, in Docker's format, as Debian ships it with Docker's sources.
pub fn seccomp_profile() -> Result<PathBuf> {
    let sources = unpacked("golang-github-docker-docker-dev")?;
    Ok(sources.join("usr/share/gocode/src/github.com/docker/docker/profiles/seccomp/default.json"))
}

/// The files of a package that is not installed, in the cache.
fn unpacked(package: &'static str) -> Result<PathBuf> {
    cache::once(package, "apt-get download", |partial| {
        if find("apt-get").is_none() {
            let reason = "this is not Debian";
            return Err(Error::Missing { tools: vec![package], packages: vec![package], reason });
        }
        let download = || capture(apt_get(&["download", "-q", package]).current_dir(partial), PATIENCE);
        if !download()?.success() {
            // A fresh machine has no package lists yet.
            let _lock = cache::lock("packages")?;
            apt(&["update", "-q"])?;
            download()?.ok(&format!("apt-get download {package}"))?;
        }
        let downloaded: Vec<_> = fs::read_dir(partial).at("list", partial)?.flatten().collect();
        for file in downloaded {
            run("dpkg", ["-x".as_ref(), file.path().as_os_str(), partial.as_os_str()])?;
            fs::remove_file(file.path()).at("remove", file.path())?;
        }
        Ok(())
    })
}

/// Why nothing can be installed from here, where that is so.
fn obstacle() -> Option<&'static str> {
    if find("apt-get").is_none() {
        Some("this is not Debian")
    } else if !rustix::process::geteuid().is_root() {
        Some("this user cannot install packages")
    } else {
        None
    }
}

fn apt(arguments: &[&str]) -> Result<()> {
    let mut command = apt_get(arguments);
    let line = line(&command);
    capture(&mut command, PATIENCE)?.ok(&line).map(drop)
}

fn apt_get(arguments: &[&str]) -> Command {
    let mut command = command("apt-get");
    command.args(arguments).env("DEBIAN_FRONTEND", "noninteractive");
    command
}
