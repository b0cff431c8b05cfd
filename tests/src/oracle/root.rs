//! The root file system of the other builders.

use std::fs;
use std::path::{Path, PathBuf};

use crate::command::{PATIENCE, capture, command, find};
use crate::error::{At, Result};
use crate::{cache, packages, run};

/// The packages of the builders, and what they need and do not depend on.
const PACKAGES: &str =
    "docker.io,docker-cli,docker-buildx,buildah,netavark,crun,runc,ca-certificates,iptables,mount,bzip2,xz-utils";
const RECIPE: &str = "1";

/// Makes the root, or says why not.
pub(super) fn obtain() -> Result<PathBuf, String> {
    if !rustix::process::geteuid().is_root() {
        return Err("only root can start dockerd: run the tests as root".into());
    }
    let namespaces = ["--mount", "--pid", "--fork", "--mount-proc", "mount", "-t", "tmpfs", "none", "/mnt"];
    if let Err(error) = run("unshare", namespaces) {
        return Err(format!("no mount namespace of one's own here: {error}"));
    }
    packages::ensure().map_err(|error| error.to_string())?;
    let made = cache::once("oracle", &format!("{RECIPE} {PACKAGES}"), make);
    made.map(|directory| directory.join("root"))
        .map_err(|error| format!("Debian sid with Docker and Buildah cannot be had: {error}"))
}

fn make(directory: &Path) -> Result<()> {
    let root = directory.join("root");
    let mut words: Vec<String> = [
        "--mode=root",
        "--variant=essential",
        "--aptopt=Acquire::Check-Valid-Until \"false\"",
        "--aptopt=Apt::Install-Recommends \"false\"",
        "--quiet",
    ]
    .map(str::to_owned)
    .to_vec();
    words.extend([format!("--include={PACKAGES}"), "sid".to_owned(), root.to_string_lossy().into_owned()]);
    words.extend(mirror());
    run("mmdebstrap", words)?;
    for name in ["share", "oldroot", "var/lib/docker", "var/lib/containers"] {
        fs::create_dir_all(root.join(name)).at("create", root.join(name))?;
    }
    // Buildah raises the limits of files and processes, which not every machine allows.
    let limits = "[containers]\ndefault_ulimits = [\"nofile=1024:1024\", \"nproc=1024:1024\"]\n";
    let path = root.join("etc/containers/containers.conf");
    fs::write(&path, limits).at("write", &path)
}

/// Where this machine has its Debian packages from, if it says so.
fn mirror() -> Option<String> {
    find("apt-get")?;
    let words = ["indextargets", "--format", "$(ORIGIN) $(LABEL) $(COMPONENT) $(REPO_URI)", "Created-By: Packages"];
    let listed = capture(command("apt-get").args(words), PATIENCE).ok()?;
    listed.stdout.lines().find_map(|line| line.strip_prefix("Debian Debian main ")).map(str::to_owned)
}
