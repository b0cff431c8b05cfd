//! What a probe found, in words.

use super::{Driver, Error, Probe, Settings, Verdict};

/// CAP_SYS_ADMIN's bit.
const SYS_ADMIN: u64 = 1 << 21;

/// One line for each driver: how it works, or which system call failed and what to change.
pub fn doctor_lines(probe: &Probe) -> Vec<String> {
    let lines = probe.reports.iter().map(|report| {
        let mark = if probe.chosen == Some(report.driver) { " (chosen)" } else { "" };
        match &report.verdict {
            Verdict::Usable { detail } => format!("{}{mark}: works: {detail}", report.driver),
            Verdict::Rejected { text, advice, .. } => format!("{}: {text}; {advice}", report.driver),
        }
    });
    lines.collect()
}

/// What to change so that a driver works, as far as the facts of this container tell.
pub(super) fn advice(driver: Driver, error: &Error, settings: &Settings) -> String {
    if let Error::Timeout(_) = error {
        return "the machine is overloaded, or a mount hangs".to_owned();
    }
    if driver == Driver::InPlace {
        return in_place(error);
    }
    let denied = matches!(error.raw_os_error(), Some(libc::EPERM | libc::EACCES));
    let text = error.to_string();
    let facts = Facts::read();
    if denied && text.contains("CLONE_NEW") {
        return match facts.seccomp {
            Some(2) if facts.effective & SYS_ADMIN == 0 => {
                "the seccomp profile forbids it: run with seccomp=unconfined (in Kubernetes seccompProfile: Unconfined), \
                 or with 'hostUsers: false' and CAP_SYS_ADMIN"
            }
            _ => "user namespaces are forbidden here: see the sysctls user.max_user_namespaces, \
                  kernel.unprivileged_userns_clone and kernel.apparmor_restrict_unprivileged_userns",
        }
        .to_owned();
    }
    if denied && error.operation() == Some("write") {
        return "ids cannot be mapped: run as root with CAP_SETUID and CAP_SETGID".to_owned();
    }
    if denied && error.operation() == Some("mount") {
        return match facts.profile.as_deref() {
            Some(profile) => format!("the AppArmor profile '{profile}' forbids mounts: run with apparmor=unconfined"),
            None => "mounts are forbidden here: run with seccomp=unconfined".to_owned(),
        };
    }
    format!("mount a volume (in Kubernetes an emptyDir) at '{}'", settings.work_dir.display())
}

fn in_place(error: &Error) -> String {
    match error.raw_os_error() {
        Some(libc::EROFS) => "the container's root file system must be writable: no readOnlyRootFilesystem".to_owned(),
        Some(libc::EPERM | libc::EACCES) => "run as root".to_owned(),
        Some(libc::EXDEV) => "the work directory must be on the file system of '/'".to_owned(),
        _ => "use the executor's own image, as root and alone in its container; --force overrides this in a container \
              that may be ruined"
            .to_owned(),
    }
}

/// What makes the difference between one container and another. None of it decides anything.
#[derive(Debug, Default)]
struct Facts {
    effective: u64,
    seccomp: Option<u32>,
    profile: Option<String>,
}

impl Facts {
    fn read() -> Self {
        let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
        let field = |name: &str| status.lines().find_map(|line| Some(line.strip_prefix(name)?.trim().to_owned()));
        let profile = std::fs::read_to_string("/proc/self/attr/current").ok();
        let confined = |profile: &String| !profile.is_empty() && !profile.starts_with("unconfined");
        Self {
            effective: field("CapEff:").and_then(|hex| u64::from_str_radix(&hex, 16).ok()).unwrap_or(0),
            seccomp: field("Seccomp:").and_then(|mode| mode.parse().ok()),
            profile: profile.map(|profile| profile.trim_end_matches(['\n', '\0']).to_owned()).filter(confined),
        }
    }
}
