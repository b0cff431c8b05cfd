//! Docker's seccomp profile in the runtime specification's words, as dockerd translates it.

use std::fs;

use serde_json::{Value, json};

use crate::error::{At, Error, Result};
use crate::{architecture, packages};

/// Docker's default profile for a process that may hold `capabilities`.
pub(crate) fn profile(capabilities: &[&str]) -> Result<Value> {
    let path = packages::seccomp_profile()?;
    let bytes = fs::read(&path).at("read", &path)?;
    let docker = serde_json::from_slice(&bytes);
    let docker = docker.map_err(|error| Error::Json { path, detail: error.to_string() })?;
    let release = "/proc/sys/kernel/osrelease";
    let kernel = version(&fs::read_to_string(release).at("read", release)?);
    Ok(translate(&docker, capabilities, kernel))
}

fn translate(docker: &Value, capabilities: &[&str], kernel: (u32, u32)) -> Value {
    let holds = |name: &Value| capabilities.iter().any(|capability| name == capability);
    let here = |name: &Value| name == architecture();
    let applies = |rule: &Value| {
        let (includes, excludes) = (&rule["includes"], &rule["excludes"]);
        list(&includes["caps"]).iter().all(holds)
            && !list(&excludes["caps"]).iter().any(holds)
            && (list(&includes["arches"]).is_empty() || list(&includes["arches"]).iter().any(here))
            && !list(&excludes["arches"]).iter().any(here)
            && includes["minKernel"].as_str().is_none_or(|least| version(least) <= kernel)
    };
    let rule = |rule: &Value| {
        let mut translated = json!({"names": rule["names"], "action": rule["action"]});
        for key in ["args", "errnoRet"] {
            // Docker writes null and an empty list where there is nothing to say.
            if !rule[key].is_null() && rule[key] != json!([]) {
                translated[key] = rule[key].clone();
            }
        }
        translated
    };
    let syscalls: Vec<_> = list(&docker["syscalls"]).iter().filter(|r| applies(r)).map(rule).collect();
    let mut translated = json!({
        "defaultAction": docker["defaultAction"], "architectures": architectures(docker), "syscalls": syscalls,
    });
    if !docker["defaultErrnoRet"].is_null() {
        translated["defaultErrnoRet"] = docker["defaultErrnoRet"].clone();
    }
    translated
}

/// This machine's architecture and the ones that its kernel runs beside it.
fn architectures(docker: &Value) -> Vec<Value> {
    let name = if architecture() == "arm64" { "SCMP_ARCH_AARCH64" } else { "SCMP_ARCH_X86_64" };
    let entry = list(&docker["archMap"]).iter().find(|entry| entry["architecture"] == name);
    let beside = entry.map(|entry| list(&entry["subArchitectures"])).unwrap_or_default();
    std::iter::once(json!(name)).chain(beside.iter().cloned()).collect()
}

fn list(value: &Value) -> &[Value] {
    value.as_array().map(Vec::as_slice).unwrap_or_default()
}

/// The first two numbers of a kernel's version.
fn version(text: &str) -> (u32, u32) {
    let mut numbers = text.split(|c: char| !c.is_ascii_digit()).map(|number| number.parse().unwrap_or(0));
    (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_apply_by_capability_architecture_and_kernel() {
        let docker = json!({
            "defaultAction": "SCMP_ACT_ERRNO",
            "archMap": [{"architecture": "SCMP_ARCH_X86_64", "subArchitectures": ["SCMP_ARCH_X86"]}],
            "syscalls": [
                {"names": ["read"], "action": "SCMP_ACT_ALLOW", "args": []},
                {"names": ["mount"], "action": "SCMP_ACT_ALLOW", "includes": {"caps": ["CAP_SYS_ADMIN"]}},
                {"names": ["clone"], "action": "SCMP_ACT_ALLOW", "excludes": {"caps": ["CAP_SYS_ADMIN"]}},
                {"names": ["ptrace"], "action": "SCMP_ACT_ALLOW", "includes": {"minKernel": "4.8"}},
                {"names": ["future"], "action": "SCMP_ACT_ALLOW", "includes": {"minKernel": "40.1"}},
                {"names": ["sync_file_range2"], "action": "SCMP_ACT_ALLOW", "includes": {"arches": ["ppc64le"]}},
            ],
        });
        let translated = translate(&docker, &["CAP_CHOWN"], (6, 1));
        let names: Vec<_> = list(&translated["syscalls"]).iter().filter_map(|rule| rule["names"][0].as_str()).collect();
        assert_eq!(names, ["read", "clone", "ptrace"]);
        assert_eq!(translated["syscalls"][0], json!({"names": ["read"], "action": "SCMP_ACT_ALLOW"}));
    }
}
