//! Ending processes, down to the last one.
//!
//! The worker is a subreaper: whatever a RUN leaves behind, however often it forked and whichever session it opened, in
//! the end becomes a child of the worker. So when the worker has no child any more, nobody writes to the root.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use rustix::io::Errno;
use rustix::process::{Pid, Signal, WaitOptions, WaitStatus};

use super::Exit;
use super::error::{During, Error, Result, Syscall};

/// How long killed processes may take to die. Only one that the kernel itself holds up takes longer than milliseconds.
const PATIENCE: Duration = Duration::from_secs(60);

/// How often children alone are looked for before all processes are.
const HASTE: u32 = 50;

/// Collects every child that has died so far, and how `main` ended if it is among them. Returns false when no child is
/// left.
pub(super) fn collect(main: Option<Pid>, exit: &mut Option<Exit>) -> Result<bool> {
    loop {
        match rustix::process::wait(WaitOptions::NOHANG) {
            Ok(Some((pid, status))) if Some(pid) == main => *exit = ended(status).or(*exit),
            Ok(Some(_)) => {}
            Ok(None) => return Ok(true),
            Err(Errno::CHILD) => return Ok(false),
            Err(Errno::INTR) => {}
            Err(error) => return Err(error).on("wait4", "any child"),
        }
    }
}

fn ended(status: WaitStatus) -> Option<Exit> {
    status.exit_status().map(Exit::Code).or_else(|| status.terminating_signal().map(Exit::Signal))
}

/// Kills every descendant until none is left, and says how `main` ended.
pub(super) fn kill_all(main: Option<Pid>, exit: &mut Option<Exit>) -> Result<()> {
    let since = Instant::now();
    let mut pause = Duration::from_micros(200);
    // One that died meanwhile is what we want; nothing else can be wrong with a signal to our own descendant.
    let kill = |pids: Vec<Pid>| pids.into_iter().for_each(|pid| _ = rustix::process::kill_process(pid, Signal::KILL));
    loop {
        for _ in 0..HASTE {
            if !collect(main, exit)? {
                return Ok(());
            }
            kill(children());
        }
        kill(descendants()?);
        if since.elapsed() > PATIENCE {
            let late = Err(Error::Timeout(PATIENCE.as_secs()));
            return late.during("killing the processes that the RUN left behind");
        }
        std::thread::sleep(pause);
        pause = (pause * 2).min(Duration::from_millis(20));
    }
}

/// The processes that this one has to wait for. The kernel lists them at once, where it was built to: a process that forks
/// and ends, over and over, would always be gone by the time when all of `/proc` was read.
fn children() -> Vec<Pid> {
    let tasks = std::fs::read_dir("/proc/self/task").into_iter().flatten().flatten();
    let lists = tasks.filter_map(|task| std::fs::read_to_string(task.path().join("children")).ok());
    let parse = |list: String| list.split_whitespace().filter_map(|pid| pid.parse().ok()).collect::<Vec<i32>>();
    lists.flat_map(parse).filter_map(Pid::from_raw).collect()
}

/// Every process below this one. A process that forks while we look is found in the next round.
fn descendants() -> Result<Vec<Pid>> {
    let mut children: BTreeMap<i32, Vec<i32>> = BTreeMap::new();
    for entry in std::fs::read_dir("/proc").on("open", "/proc")?.flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
        let Some(parent) = parent_of(pid) else { continue };
        children.entry(parent).or_default().push(pid);
    }
    let mut found = BTreeSet::new();
    let mut todo = vec![rustix::process::getpid().as_raw_nonzero().get()];
    while let Some(pid) = todo.pop() {
        for &child in children.get(&pid).into_iter().flatten() {
            if found.insert(child) {
                todo.push(child);
            }
        }
    }
    Ok(found.into_iter().filter_map(Pid::from_raw).collect())
}

/// The parent of a process: the second field after the name, which stands in parentheses and may itself hold some.
fn parent_of(pid: i32) -> Option<i32> {
    let stat = std::fs::read(format!("/proc/{pid}/stat")).ok()?;
    let name_end = stat.iter().rposition(|&byte| byte == b')')?;
    let rest = std::str::from_utf8(&stat[name_end + 1..]).ok()?;
    rest.split_whitespace().nth(1)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_parent_is_found_behind_any_name() {
        let own = rustix::process::getpid().as_raw_nonzero().get();
        let parent = rustix::process::getppid().map(|pid| pid.as_raw_nonzero().get());
        assert_eq!(parent_of(own), parent);
        assert_eq!(parent_of(i32::MAX), None);
    }

    #[test]
    fn a_child_is_listed() {
        let mut child = std::process::Command::new("sleep").arg("60").spawn().unwrap();
        let listed = children().contains(&Pid::from_child(&child));
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(listed);
    }
}
