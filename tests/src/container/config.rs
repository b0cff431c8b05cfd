//! The runtime's `config.json` for each variant.

use std::path::Path;

use serde_json::{Value, json};

use super::{Container, Job, Variant, seccomp};
use crate::error::Result;

/// What Docker, containerd and CRI-O leave to a container's root by default.
const CAPABILITIES: [&str; 14] = [
    "CAP_AUDIT_WRITE",
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_FOWNER",
    "CAP_FSETID",
    "CAP_KILL",
    "CAP_MKNOD",
    "CAP_NET_BIND_SERVICE",
    "CAP_NET_RAW",
    "CAP_SETFCAP",
    "CAP_SETGID",
    "CAP_SETPCAP",
    "CAP_SETUID",
    "CAP_SYS_CHROOT",
];

/// The first id outside that a user namespace maps, and how many.
pub(crate) const SHIFT: u32 = 100_000;
const IDS: u32 = 65_536;

const MASKED: [&str; 10] = [
    "/proc/acpi",
    "/proc/asound",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/sys/firmware",
];
const READONLY: [&str; 5] = ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"];

/// A mount as the runtime reads it.
pub(crate) struct Bind<'a> {
    pub(crate) source: &'a Path,
    pub(crate) target: &'a str,
    pub(crate) readonly: bool,
}

/// The whole configuration; `binds` are the volumes and the files that a runtime brings.
pub(crate) fn container(of: &Container, first: &Job, root: &Path, binds: &[Bind], cgroup: &str) -> Result<Value> {
    let mut namespaces = vec!["mount", "pid", "ipc", "uts"];
    if Path::new("/sys/fs/cgroup/cgroup.controllers").exists() {
        // Docker gives one where there is only the unified hierarchy; the limits are then at its root.
        namespaces.push("cgroup");
    }
    let mut linux = json!({
        "cgroupsPath": format!("/{cgroup}"), "maskedPaths": MASKED, "readonlyPaths": READONLY,
        "resources": {"devices": [{"allow": false, "access": "rwm"}]},
    });
    if let Some(bytes) = of.memory {
        linux["resources"]["memory"] = json!({"limit": bytes, "swap": bytes});
    }
    if let Some(cpus) = of.cpus {
        linux["resources"]["cpu"] = json!({"quota": cpus * 100_000, "period": 100_000});
    }
    if of.variant == Variant::UserNamespace {
        namespaces.push("user");
        let mapping = json!([{"containerID": 0, "hostID": SHIFT, "size": IDS}]);
        linux["uidMappings"] = mapping.clone();
        linux["gidMappings"] = mapping;
    }
    if of.variant.has_seccomp() {
        linux["seccomp"] = seccomp::profile(of.variant.capabilities())?;
    }
    linux["namespaces"] = namespaces.iter().map(|kind| json!({"type": kind})).collect();
    Ok(json!({
        "ociVersion": "1.0.2", "hostname": "ci", "process": process(of, first), "root": {"path": root},
        "mounts": mounts(of, binds), "linux": linux,
    }))
}

/// A process of the container: its first one, or one that joins later.
pub(crate) fn process(of: &Container, job: &Job) -> Value {
    let held = of.variant.capabilities();
    let mut env: Vec<String> = Vec::new();
    for (name, value) in of.env.iter().chain(&job.env) {
        env.retain(|variable| variable.split('=').next() != Some(name));
        env.push(format!("{name}={value}"));
    }
    let (uid, gid) = of.user;
    json!({
        "args": job.argv, "env": env, "cwd": job.cwd.as_ref().unwrap_or(&of.cwd), "user": {"uid": uid, "gid": gid},
        // A user other than root holds nothing until it runs a set-user-id program.
        "capabilities": {
            "bounding": held,
            "effective": if uid == 0 { held } else { &[] },
            "permitted": if uid == 0 { held } else { &[] },
        },
        "noNewPrivileges": of.variant == Variant::Restricted,
    })
}

impl Variant {
    fn capabilities(self) -> &'static [&'static str] {
        if self == Self::Restricted { &[] } else { &CAPABILITIES }
    }

    fn has_seccomp(self) -> bool {
        matches!(self, Self::Docker | Self::Restricted)
    }
}

fn mounts(of: &Container, binds: &[Bind]) -> Vec<Value> {
    let variant = of.variant;
    let mount = |target: &str, kind: &str, options: &[&str]| {
        let options = [&["nosuid"], options].concat();
        json!({"destination": target, "type": kind, "source": kind, "options": options})
    };
    let mut mounts = vec![
        mount("/proc", "proc", &["noexec", "nodev"]),
        mount("/dev", "tmpfs", &["strictatime", "mode=755", "size=65536k"]),
        mount("/dev/pts", "devpts", &["noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"]),
        mount("/dev/shm", "tmpfs", &["noexec", "nodev", "mode=1777", "size=65536k"]),
        mount("/dev/mqueue", "mqueue", &["noexec", "nodev"]),
    ];
    // The network namespace is the host's, and only its owner may mount a fresh sysfs for it.
    mounts.push(if variant == Variant::UserNamespace {
        json!({"destination": "/sys", "type": "bind", "source": "/sys",
            "options": ["rbind", "ro", "nosuid", "noexec", "nodev"]})
    } else {
        mount("/sys", "sysfs", &["noexec", "nodev", "ro"])
    });
    if variant != Variant::UserNamespace {
        mounts.push(mount("/sys/fs/cgroup", "cgroup", &["noexec", "nodev", "ro"]));
    }
    for (target, bytes) in &of.small {
        mounts.push(mount(target, "tmpfs", &["nodev", "mode=1777", &format!("size={bytes}")]));
    }
    for bind in binds {
        let access = if bind.readonly { "ro" } else { "rw" };
        mounts.push(json!({"destination": bind.target, "type": "bind", "source": bind.source,
            "options": ["rbind", "rprivate", access]}));
    }
    mounts
}
