//! What a RUN may do: limits, capabilities and identity, given up in the one order that works.

use landlock::{CompatLevel, Compatible, Ruleset, RulesetAttr, RulesetCreatedAttr, Scope};
use rustix::process::{Gid, Resource, Rlimit, Uid};
use rustix::thread::{CapabilitySet, CapabilitySets};

use super::Run;
use super::error::{Result, Syscall};

/// Docker's fourteen without CAP_SETPCAP. A root process that lacks even one capability of another process is refused
/// ptrace-class access to it, and with that its memory, environment and descriptors. Nothing that images do needs this
/// one: su, sudo, setcap and package managers work without it, while without CAP_NET_RAW ping could not be executed.
const KEPT: CapabilitySet = CapabilitySet::CHOWN
    .union(CapabilitySet::DAC_OVERRIDE)
    .union(CapabilitySet::FSETID)
    .union(CapabilitySet::FOWNER)
    .union(CapabilitySet::MKNOD)
    .union(CapabilitySet::NET_RAW)
    .union(CapabilitySet::SETGID)
    .union(CapabilitySet::SETUID)
    .union(CapabilitySet::SETFCAP)
    .union(CapabilitySet::NET_BIND_SERVICE)
    .union(CapabilitySet::SYS_CHROOT)
    .union(CapabilitySet::KILL)
    .union(CapabilitySet::AUDIT_WRITE);

/// Open files: a soft limit that programs which close them all in a loop can live with, as Docker's builder sets it.
const OPEN_FILES: (u64, u64) = (1024, 65_536);

/// How much sooner than the builder a RUN is killed when memory runs out.
const OOM_PENALTY: i32 = 500;

/// Sets what needs no privilege: limits, the mask, and who dies first. `/proc` must still be the writable one.
pub(super) fn limit() {
    let now = rustix::process::getrlimit(Resource::Nofile);
    let hard = now.maximum.map_or(OPEN_FILES.1, |hard| hard.min(OPEN_FILES.1));
    let soft = OPEN_FILES.0.min(hard);
    // Lowering a limit is always allowed; the penalty is a courtesy to the builder, which must outlive its RUN.
    let _ = rustix::process::setrlimit(Resource::Nofile, Rlimit { current: Some(soft), maximum: Some(hard) });
    let path = "/proc/self/oom_score_adj";
    let score = std::fs::read_to_string(path).ok().and_then(|text| text.trim().parse::<i32>().ok());
    let _ = std::fs::write(path, (score.unwrap_or(0) + OOM_PENALTY).min(1000).to_string());
    rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o022));
}

/// Keeps the RUN from signalling any process outside of it. `privileged` says that CAP_SYS_ADMIN of our own namespace
/// is there; otherwise Landlock demands no_new_privs, with which sudo does not work for other users than root.
pub(super) fn scope_signals(run: &Run, privileged: bool) {
    if !privileged && run.uid != 0 {
        return;
    }
    // A kernel before 6.12 has no scopes, and one may be without Landlock: it is a second line of defence.
    let ruleset = Ruleset::default().set_compatibility(CompatLevel::BestEffort).scope(Scope::Signal);
    let _ = ruleset
        .and_then(|ruleset| ruleset.create())
        .map(|created| created.no_new_privs(!privileged))
        .and_then(|created| created.restrict_self());
}

/// Becomes the user of the RUN and keeps no capability but the few it may have.
pub(super) fn become_user(run: &Run) -> Result<()> {
    drop_bounding();
    // None are there unless whoever started us raised some.
    let _ = rustix::thread::clear_ambient_capability_set();
    let (uid, gid) = (Uid::from_raw(run.uid), Gid::from_raw(run.gid));
    let groups: Vec<Gid> = run.groups.iter().map(|&group| Gid::from_raw(group)).collect();
    rustix::thread::set_thread_groups(&groups).on("setgroups", format!("{:?}", run.groups))?;
    rustix::thread::set_thread_res_gid(gid, gid, gid).on("setresgid", run.gid)?;
    rustix::thread::set_thread_res_uid(uid, uid, uid).on("setresuid", run.uid)?;
    let have = rustix::thread::capabilities(None).on("capget", "ourselves")?;
    let permitted = have.permitted & KEPT;
    let effective = have.effective & KEPT;
    let sets = CapabilitySets { effective, permitted, inheritable: CapabilitySet::empty() };
    rustix::thread::set_capabilities(None, sets).on("capset", "ourselves")
}

/// Takes all other capabilities out of the bounding set: exec gives root whatever that holds. Without CAP_SETPCAP
/// (CRI-O's default) nothing can be taken out, but then nobody here has CAP_SETPCAP, which is the one that matters.
fn drop_bounding() {
    for number in 0..64 {
        let capability = CapabilitySet::from_bits_retain(1 << number);
        match rustix::thread::capability_is_in_bounding_set(capability) {
            Ok(true) if !KEPT.contains(capability) => {
                let _ = rustix::thread::remove_capability_from_bounding_set(capability);
            }
            Ok(_) => {}
            // EINVAL: the kernel knows no capability of this number, nor any above.
            Err(_) => break,
        }
    }
}
