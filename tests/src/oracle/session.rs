//! A session of the other builders: all cases in one, two at a time.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::Duration;

use super::{Builder, Verdict, Verdicts};
use crate::command::{capture, command, line};
use crate::dialect::{BaseLayers, Case, File, Snapshot};
use crate::error::{At, Result};
use crate::scratch;

/// How long all the cases may take.
const LIMIT: Duration = Duration::from_secs(900);

/// Runs in namespaces of its own, with the root and the session's directory as arguments. A job is a shell script; it
/// leaves its output and its exit code beside itself.
const SCRIPT: &str = r#"
set -eu
root=$1 session=$2
mount --bind "$root" "$root"
cd "$root"
mount -t proc proc proc
mount --rbind /sys sys
mount --rbind /dev dev
mount -t tmpfs run run
mount -t tmpfs tmp tmp
mount --bind "$session/share" share
mount --bind "$session/docker" var/lib/docker
mount --bind "$session/containers" var/lib/containers
mount --bind "$session/share/registries.conf" etc/containers/registries.conf
pivot_root . oldroot
cd /
hash -r
umount -l /oldroot
# The names of this machine are known without a server.
export PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/root DOCKER_HOST=unix:///run/docker.sock BUILDAH_ISOLATION=chroot
dockerd --exec-root /run/docker --host "$DOCKER_HOST" --pidfile /run/docker.pid --bridge=none --iptables=false \
  --ip6tables=false --feature containerd-snapshotter=true --registry-mirror "http://$3" >/share/dockerd.log 2>&1 &
n=0
until docker version >/dev/null 2>&1; do
  n=$((n + 1))
  if [ $n = 200 ]; then tail -n 5 /share/dockerd.log >&2; exit 1; fi
  sleep 0.2
done
ls /share/jobs/*.sh | xargs -P 3 -n 1 sh -c 'timeout 120 sh "$0" >"$0.log" 2>&1; echo $? >"$0.code"'
"#;

/// Builds `cases` with all builders.
pub(super) fn run(
    root: &Path,
    cases: &[&Case],
    common: &[File],
    bases: &BaseLayers,
    host: &str,
) -> Result<BTreeMap<String, Verdicts>> {
    let session = scratch::directory()?;
    let share = session.path().join("share");
    for name in ["docker", "containers", "share/jobs", "share/out"] {
        fs::create_dir_all(session.path().join(name)).at("create", session.path().join(name))?;
    }
    let registries = format!(
        "unqualified-search-registries = [\"docker.io\"]\n[[registry]]\nlocation = \"docker.io\"\n\
         [[registry.mirror]]\nlocation = \"{host}\"\ninsecure = true\n"
    );
    put(&share.join("registries.conf"), &registries)?;
    for case in cases {
        let context = share.join("cases").join(&case.name);
        fs::create_dir_all(&context).at("create", &context)?;
        fs::set_permissions(&context, fs::Permissions::from_mode(0o755)).at("chmod", &context)?;
        case.write(common, &context)?;
        for &builder in Builder::of(case) {
            put(&job(&share, case, builder), &script(case, builder))?;
        }
    }
    let script = session.path().join("session.sh");
    put(&script, SCRIPT)?;
    let mut unshare = command("unshare");
    unshare.args(["--mount", "--pid", "--fork", "--kill-child", "--propagation", "private", "bash"]);
    unshare.arg(&script).args([root, session.path()]).arg(host).env_clear();
    unshare.env("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin");
    let line = line(&unshare);
    capture(&mut unshare, LIMIT)?.ok(&line)?;
    let mut found = BTreeMap::new();
    for case in cases {
        let verdict = |&builder: &Builder| Ok((builder, verdict(&share, case, builder, bases)?));
        found.insert(case.name.clone(), Builder::of(case).iter().map(verdict).collect::<Result<_>>()?);
    }
    Ok(found)
}

fn verdict(share: &Path, case: &Case, builder: Builder, bases: &BaseLayers) -> Result<Verdict> {
    let job = job(share, case, builder).to_string_lossy().into_owned();
    let code = fs::read_to_string(format!("{job}.code")).unwrap_or_default();
    let out = share.join("out").join(format!("{}.{}", case.name, builder.word()));
    if code.trim() != "0" {
        let log = fs::read(format!("{job}.log")).unwrap_or_default();
        let log = String::from_utf8_lossy(&log).into_owned();
        return Ok(Verdict { snapshot: Snapshot::refused(), log });
    }
    Ok(Verdict { snapshot: Snapshot::of(&out, bases)?, log: String::new() })
}

fn job(share: &Path, case: &Case, builder: Builder) -> std::path::PathBuf {
    share.join("jobs").join(format!("{}.{}.sh", case.name, builder.word()))
}

/// What builds a case.
fn script(case: &Case, builder: Builder) -> String {
    let (name, word) = (&case.name, builder.word());
    let options: Vec<String> = case.options.iter().map(|option| quoted(option)).collect();
    let options = options.join(" ");
    let command = match builder {
        Builder::BuildKit => format!(
            "/usr/libexec/docker/cli-plugins/docker-buildx build --progress=plain --no-cache --provenance=false --network=host \
             --output type=oci,tar=false,compression=uncompressed,dest=/share/out/{name}.{word}"
        ),
        Builder::Buildah => format!(
            "buildah bud --layers=false --format=docker --network=host --identity-label=false --tag=dir:/share/out/{name}.{word}"
        ),
    };
    let file = quoted(&format!("/share/cases/{name}/{}", case.dockerfile));
    format!("cd /share/cases/{name}\nexec {command} {options} --file {file} .\n")
}

fn quoted(word: &str) -> String {
    format!("'{}'", word.replace('\'', "'\\''"))
}

fn put(path: &Path, text: &str) -> Result<()> {
    fs::write(path, text).at("write", path)
}
