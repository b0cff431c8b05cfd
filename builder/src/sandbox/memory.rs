//! How much memory this container may use.

use std::path::{Path, PathBuf};

use super::mountinfo::Mount;

/// What cgroups of the first version say where there is no limit is the largest number of whole pages.
const UNLIMITED: u64 = 1 << 62;

/// The memory that processes here may still use, as far as it is known: the limit of the container, or what the machine
/// has left.
pub(super) fn available(mounts: &[Mount]) -> Option<u64> {
    let read = |path: &Path| std::fs::read_to_string(path).ok();
    let left = read(Path::new("/proc/meminfo")).and_then(|text| left(&text))?;
    let limit = read(Path::new("/proc/self/cgroup")).and_then(|cgroups| limit(&cgroups, mounts, &read));
    Some(limit.unwrap_or(u64::MAX).min(left))
}

/// What `/proc/meminfo` says is left.
fn left(meminfo: &str) -> Option<u64> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
    let kilobytes: u64 = line.split_whitespace().next()?.parse().ok()?;
    kilobytes.checked_mul(1024)
}

/// The smallest limit of the cgroup that `/proc/self/cgroup` names and of those above it, as far as they can be seen.
/// Version 2 has a hard limit and one above which processes are slowed down until they are below it; that is no less of
/// one for what cannot be given back.
fn limit(cgroups: &str, mounts: &[Mount], read: &dyn Fn(&Path) -> Option<String>) -> Option<u64> {
    let limits = cgroups.lines().filter_map(|line| {
        // Its number, its controllers, and its path, which may hold colons: cgroups(7).
        let mut fields = line.splitn(3, ':').skip(1);
        let (controllers, path) = (fields.next()?, fields.next()?);
        let is_memory = |list: &str| list.split(',').any(|one| one == "memory");
        let is_mounted = |mount: &&Mount| match controllers {
            "" => mount.kind == "cgroup2",
            list => is_memory(list) && mount.kind == "cgroup" && is_memory(&mount.options),
        };
        let mount = mounts.iter().rfind(is_mounted)?;
        directories(mount, Path::new(path)).iter().filter_map(|directory| limit_in(directory, read)).min()
    });
    limits.min()
}

/// The directory of a cgroup, and of those above it, below a mount. A mount may show the hierarchy from some cgroup on
/// only, and one that was made outside of a cgroup namespace names that cgroup by a path which nobody here can resolve:
/// then it is taken for the container's own.
fn directories(mount: &Mount, cgroup: &Path) -> Vec<PathBuf> {
    let below = cgroup.strip_prefix(&mount.root).unwrap_or(Path::new(""));
    mount.point.join(below).ancestors().take_while(|path| path.starts_with(&mount.point)).map(Path::to_owned).collect()
}

/// The smallest of the limits that a cgroup's files state.
fn limit_in(directory: &Path, read: &dyn Fn(&Path) -> Option<String>) -> Option<u64> {
    let single = ["memory.max", "memory.high", "memory.limit_in_bytes"];
    let stated = single.iter().filter_map(|name| read(&directory.join(name))?.trim().parse().ok());
    // Version 1 says here what the cgroups above allow, those that cannot be seen included.
    let inherited = read(&directory.join("memory.stat")).and_then(|stat| {
        let line = stat.lines().find_map(|line| line.strip_prefix("hierarchical_memory_limit "));
        line?.trim().parse().ok()
    });
    stated.chain(inherited).filter(|&limit: &u64| limit < UNLIMITED).min()
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::super::mountinfo::parse;
    use super::*;

    const MIB: u64 = 1 << 20;

    /// The limit where `/proc/self/cgroup` and `/proc/self/mountinfo` say this and files hold that.
    fn limit(cgroups: &str, mountinfo: &[&str], files: &[(&str, &str)]) -> Option<u64> {
        let mounts: Vec<Mount> = mountinfo.iter().map(|line| parse(line.as_bytes()).unwrap()).collect();
        let files: HashMap<&Path, &str> = files.iter().map(|(path, text)| (Path::new(*path), *text)).collect();
        super::limit(cgroups, &mounts, &|path| files.get(path).map(|text| (*text).to_owned()))
    }

    const NONE: &str = "9223372036854771712\n";
    const V1: &str = "35 31 0:32 / /sys/fs/cgroup/memory rw,relatime - cgroup cgroup rw,memory";
    const V2: &str = "35 31 0:32 / /sys/fs/cgroup rw,relatime - cgroup2 cgroup2 rw,nsdelegate";

    #[test]
    fn version_1_is_read_where_the_hosts_hierarchy_is_mounted() {
        let cgroups = "5:devices:/x\n4:memory:/pods/a:b/c\n1:cpu,cpuacct:/\n0::/\n";
        let files = [
            ("/sys/fs/cgroup/memory/pods/a:b/c/memory.limit_in_bytes", NONE),
            ("/sys/fs/cgroup/memory/pods/a:b/memory.limit_in_bytes", "268435456\n"),
            ("/sys/fs/cgroup/memory/pods/memory.limit_in_bytes", "536870912\n"),
            ("/sys/fs/cgroup/memory/memory.limit_in_bytes", NONE),
        ];
        assert_eq!(limit(cgroups, &[V1], &files), Some(256 * MIB));
        assert_eq!(limit(cgroups, &[V1], &files[3..]), None, "the largest number is no limit");
        assert_eq!(limit(cgroups, &[], &files), None);
    }

    #[test]
    fn version_1_is_read_where_only_the_containers_cgroup_is_mounted() {
        let mount = "35 31 0:32 /docker/id /sys/fs/cgroup/memory ro,nosuid - cgroup memory rw,memory";
        let other = "36 31 0:33 /docker/id /sys/fs/cgroup/cpu ro,nosuid - cgroup cpu rw,cpu";
        let files = [
            ("/sys/fs/cgroup/memory/memory.limit_in_bytes", "1073741824\n"),
            ("/sys/fs/cgroup/memory/memory.stat", "cache 5\nhierarchical_memory_limit 268435456\nrss 3\n"),
        ];
        let cgroups = "4:memory:/docker/id\n3:cpu:/docker/id\n";
        assert_eq!(limit(cgroups, &[mount, other], &files[..1]), Some(1024 * MIB));
        assert_eq!(limit(cgroups, &[mount, other], &files), Some(256 * MIB), "a cgroup above allows less");
        assert_eq!(limit(cgroups, &[other], &files), None);
    }

    #[test]
    fn a_cgroup_of_the_container_is_found_below_its_root() {
        let mount = "35 31 0:32 /docker/id /sys/fs/cgroup/memory ro,nosuid - cgroup memory rw,memory";
        let files = [
            ("/sys/fs/cgroup/memory/inner/memory.limit_in_bytes", "134217728\n"),
            ("/sys/fs/cgroup/memory/memory.limit_in_bytes", "268435456\n"),
        ];
        assert_eq!(limit("4:memory:/docker/id/inner\n", &[mount], &files), Some(128 * MIB));
    }

    #[test]
    fn version_2_is_read_with_a_namespace_and_without() {
        let files = [
            ("/sys/fs/cgroup/kubepods/pod/box/memory.max", "max\n"),
            ("/sys/fs/cgroup/kubepods/pod/box/memory.high", "max\n"),
            ("/sys/fs/cgroup/kubepods/pod/memory.max", "268435456\n"),
            ("/sys/fs/cgroup/memory.max", "536870912\n"),
            ("/sys/fs/cgroup/memory.high", "402653184\n"),
        ];
        assert_eq!(limit("0::/kubepods/pod/box\n", &[V2], &files), Some(256 * MIB));
        assert_eq!(limit("0::/\n", &[V2], &files), Some(384 * MIB), "the softer limit is the smaller one");
        assert_eq!(limit("0::/\n", &[V2], &files[..2]), None);
        // The mount is older than the namespace.
        let outside = "35 31 0:32 /../.. /sys/fs/cgroup ro,nosuid - cgroup2 cgroup rw";
        assert_eq!(limit("0::/\n", &[outside], &files), Some(384 * MIB));
    }

    #[test]
    fn where_both_versions_are_mounted_the_one_that_limits_counts() {
        let unified = "41 31 0:38 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw";
        let files = [("/sys/fs/cgroup/memory/a/memory.limit_in_bytes", "268435456\n")];
        assert_eq!(limit("4:memory:/a\n0::/\n", &[V1, unified], &files), Some(256 * MIB));
    }

    #[test]
    fn what_is_left_is_said_in_kilobytes() {
        assert_eq!(left("MemTotal: 9 kB\nMemAvailable:    2048 kB\n"), Some(2 * MIB));
        assert_eq!(left("MemTotal: 9 kB\n"), None);
        let mounts = super::super::mountinfo::mounts().unwrap();
        assert!(available(&mounts).unwrap() > MIB);
    }
}
