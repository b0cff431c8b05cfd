//! A control group, of either version, that says what the processes in it and below it took.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use walkdir::WalkDir;

use crate::error::{At, Error, Result};

const ROOT: &str = "/sys/fs/cgroup";

/// How often memory is looked at.
const PERIOD: Duration = Duration::from_millis(50);

/// A group that is removed with its value, when no process is left in it.
pub(super) struct Group {
    name: String,
    /// Where it is for memory and for processor time: one directory in version 2.
    memory: PathBuf,
    processors: PathBuf,
}

/// Looks at the memory until it is stopped.
pub(super) struct Watch {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<Peak>,
}

/// The most memory that was seen, in bytes.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Peak {
    /// Of the programs that were named.
    pub(super) named: u64,
    /// Of all processes.
    pub(super) all: Option<u64>,
}

impl Group {
    pub(super) fn create() -> Result<Self> {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let name = format!("yadokari-compare-{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let root = Path::new(ROOT);
        let group = if root.join("cgroup.controllers").exists() {
            // Where the group of all processes cannot be told to, memory is not accounted for below it.
            let _ = fs::write(root.join("cgroup.subtree_control"), "+memory");
            Self { memory: root.join(&name), processors: root.join(&name), name }
        } else {
            Self { memory: root.join("memory").join(&name), processors: root.join("cpuacct").join(&name), name }
        };
        for directory in group.leaves() {
            fs::create_dir_all(&directory).at("create", &directory)?;
        }
        Ok(group)
    }

    /// What a runtime is told to make a container's group below.
    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// Where processes go: version 2 wants none in a group that has others below it.
    pub(super) fn leaves(&self) -> Vec<PathBuf> {
        let mut leaves = vec![self.memory.join("session"), self.processors.join("session")];
        leaves.dedup();
        leaves
    }

    /// The processor time until now, of processes that have ended, too.
    pub(super) fn processors(&self) -> Result<Duration> {
        let version_1 = self.processors.join("cpuacct.usage");
        if version_1.exists() {
            let nanos = fs::read_to_string(&version_1).at("read", &version_1)?;
            return Ok(Duration::from_nanos(nanos.trim().parse().unwrap_or_default()));
        }
        let path = self.processors.join("cpu.stat");
        let stat = fs::read_to_string(&path).at("read", &path)?;
        let micros = number(&stat, "usage_usec");
        let missing = || Error::Json { path, detail: "no usage_usec".into() };
        micros.map(Duration::from_micros).ok_or_else(missing)
    }

    /// Looks at the memory from now on. `programs` are what the names of executables begin with.
    pub(super) fn watch(&self, programs: &'static [&'static str]) -> Watch {
        let (memory, stop) = (self.memory.clone(), Arc::new(AtomicBool::new(false)));
        let stopped = Arc::clone(&stop);
        let thread = thread::spawn(move || {
            let mut peak = Peak::default();
            while !stopped.load(Ordering::Relaxed) {
                peak.named = peak.named.max(of_programs(&memory, programs));
                peak.all = peak.all.max(of_all(&memory));
                thread::sleep(PERIOD);
            }
            peak
        });
        Watch { stop, thread }
    }
}

impl Watch {
    pub(super) fn stop(self) -> Peak {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().unwrap_or_default()
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        // Runtimes make it for controllers that are not looked at here, too.
        let hierarchies = fs::read_dir(ROOT).into_iter().flatten().flatten().map(|entry| entry.path());
        for group in hierarchies.chain([ROOT.into()]).map(|hierarchy| hierarchy.join(&self.name)) {
            for directory in WalkDir::new(&group).contents_first(true).into_iter().flatten() {
                if directory.file_type().is_dir() {
                    remove(directory.path());
                }
            }
        }
    }
}

/// Processes that were killed leave a moment later. Where one does not there is nobody to tell, and the group stays.
fn remove(group: &Path) {
    for _ in 0..100 {
        match fs::remove_dir(group) {
            Err(error) if error.raw_os_error() == Some(rustix::io::Errno::BUSY.raw_os_error()) => {
                thread::sleep(Duration::from_millis(20));
            }
            _ => return,
        }
    }
}

/// The anonymous memory of the processes below `group` that run one of `programs`.
fn of_programs(group: &Path, programs: &[&str]) -> u64 {
    let groups = WalkDir::new(group).into_iter().flatten().filter(|entry| entry.file_type().is_dir());
    let lists = groups.filter_map(|entry| fs::read_to_string(entry.path().join("cgroup.procs")).ok());
    let of_process = |process: &str| {
        let directory = Path::new("/proc").join(process);
        let program = fs::read_link(directory.join("exe")).ok()?;
        let name = program.file_name()?.to_str()?;
        let is_named = programs.iter().any(|prefix| name.starts_with(prefix));
        let status = is_named.then(|| fs::read_to_string(directory.join("status")).ok())??;
        number(&status, "RssAnon:").map(|kib| kib << 10)
    };
    lists.map(|list| list.lines().filter_map(of_process).sum::<u64>()).sum()
}

/// The anonymous memory of all processes below `group`.
fn of_all(group: &Path) -> Option<u64> {
    let stat = fs::read_to_string(group.join("memory.stat")).ok()?;
    // The first is version 1's, which counts what is below only there.
    number(&stat, "total_rss").or_else(|| number(&stat, "anon"))
}

/// The number after `key` at the beginning of a line.
fn number(text: &str, key: &str) -> Option<u64> {
    let mut lines = text.lines().map(str::split_whitespace);
    lines.find_map(|mut words| (words.next()? == key).then(|| words.next()?.parse().ok())?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{PATIENCE, capture, command};

    #[test]
    fn a_number_is_the_one_of_its_key() {
        let text = "Name:\tx\nRssAnon:\t     120 kB\ntotal_rss_huge 3\ntotal_rss 5\n";
        assert_eq!(
            ["RssAnon:", "total_rss", "rss", "Name:"].map(|key| number(text, key)),
            [Some(120), Some(5), None, None]
        );
    }

    #[test]
    fn processor_time_and_memory_are_those_of_the_groups_processes() -> Result<()> {
        if !rustix::process::geteuid().is_root() {
            println!("skipped, since only root can make a control group");
            return Ok(());
        }
        let group = Group::create()?;
        let join: String =
            group.leaves().iter().map(|leaf| format!("echo 0 >{}/cgroup.procs; ", leaf.display())).collect();
        let watch = group.watch(&["busybox"]);
        // A pipe into a program that keeps 40 MB until it has seen the end. The kernel brings the group's sums up to date every
        // two seconds, where not much happens.
        let work = "{ busybox head -c 40000000 /dev/zero; sleep 4.5; } | busybox tail -c 40000000 | wc -c";
        capture(command("sh").args(["-c", &format!("{join}{work}")]), PATIENCE)?.ok(work)?;
        let peak = watch.stop();
        assert!((20_000_000..200_000_000).contains(&peak.named), "{peak:?}");
        assert!(peak.all.is_none_or(|all| all >= 20_000_000), "{peak:?}");
        assert!(group.processors()? > Duration::from_millis(2));
        let memory = group.memory.clone();
        drop(group);
        assert!(!memory.exists());
        Ok(())
    }
}
