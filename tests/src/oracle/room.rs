//! The place of a session: the builders' root, with directories of its own for what they keep.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;

use crate::command::command;
use crate::error::{At, Result};

/// Runs in namespaces of its own, with the root, the room and the registry as arguments, and in the control groups that are
/// told. A daemon is started where its options are told.
const SCRIPT: &str = r#"
set -eu
root=$1 room=$2
for group in ${CGROUPS-}; do echo 0 >"$group/cgroup.procs"; done
mount --bind "$root" "$root"
cd "$root"
mount -t proc proc proc
mount --rbind /sys sys
mount --rbind /dev dev
mount -t tmpfs run run
mount -t tmpfs tmp tmp
mount --bind "$room/share" share
if [ -n "${CONTEXT-}" ]; then mount --bind "$CONTEXT" share/context; fi
mount --bind "$room/docker" var/lib/docker
mount --bind "$room/containers" var/lib/containers
mount --bind "$room/share/registries.conf" etc/containers/registries.conf
pivot_root . oldroot
cd /
hash -r
umount -l /oldroot
# The names of this machine are known without a server.
export PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/root DOCKER_HOST=unix:///run/docker.sock BUILDAH_ISOLATION=chroot
if [ -n "${DAEMON+is there}" ]; then
  dockerd --exec-root /run/docker --host "$DOCKER_HOST" --pidfile /run/docker.pid --bridge=none --iptables=false \
    --ip6tables=false --feature containerd-snapshotter=true --registry-mirror "http://$3" $DAEMON >/share/dockerd.log 2>&1 &
  n=0
  until docker version >/dev/null 2>&1; do
    n=$((n + 1))
    if [ $n = 200 ]; then tail -n 5 /share/dockerd.log >&2; exit 1; fi
    sleep 0.2
  done
fi
. /share/script
"#;

/// Directories that go away with the value. What one session leaves in them the next one finds.
pub(crate) struct Room {
    root: PathBuf,
    host: String,
    directory: TempDir,
}

impl Room {
    pub(super) fn create(root: &Path, host: &str, directory: TempDir) -> Result<Self> {
        for name in ["docker", "containers", "share/context"] {
            fs::create_dir_all(directory.path().join(name)).at("create", directory.path().join(name))?;
        }
        let registries = format!(
            "unqualified-search-registries = [\"docker.io\"]\n[[registry]]\nlocation = \"docker.io\"\n\
             [[registry.mirror]]\nlocation = \"{host}\"\ninsecure = true\n"
        );
        put(&directory.path().join("share/registries.conf"), &registries)?;
        Ok(Self { root: root.to_owned(), host: host.to_owned(), directory })
    }

    /// What a session sees as `/share`.
    pub(crate) fn share(&self) -> PathBuf {
        self.directory.path().join("share")
    }

    /// A session that carries out the lines of `script`, beside a dockerd where `daemon` has options for one, and with
    /// `context` as `/share/context`.
    pub(crate) fn session(&self, script: &str, daemon: Option<&str>, context: Option<&Path>) -> Result<Command> {
        let file = self.directory.path().join("session.sh");
        put(&file, SCRIPT)?;
        put(&self.share().join("script"), script)?;
        let mut unshare = command("unshare");
        unshare.args(["--mount", "--pid", "--fork", "--kill-child", "--propagation", "private", "bash"]);
        unshare.arg(&file).args([&*self.root, self.directory.path()]).arg(&self.host).env_clear();
        unshare.env("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin");
        unshare.envs(daemon.map(|options| ("DAEMON", options)));
        unshare.envs(context.map(|directory| ("CONTEXT", directory)));
        Ok(unshare)
    }
}

pub(super) fn put(path: &Path, text: &str) -> Result<()> {
    fs::write(path, text).at("write", path)
}
