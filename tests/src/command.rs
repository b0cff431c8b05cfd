//! Programs that the harness calls: found, run with a time limit, their output kept.

use std::ffi::OsStr;
use std::fmt;
use std::fs::File;
use std::io::{Read, Seek};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process_group};

use crate::error::{At, Error, Result};

/// How long a program may take when nobody says otherwise.
pub const PATIENCE: Duration = Duration::from_secs(600);

/// How a command ended, and what it printed.
#[derive(Clone, Debug)]
pub struct Output {
    /// Exit code or signal.
    pub status: ExitStatus,
    /// Standard output, invalid UTF-8 replaced.
    pub stdout: String,
    /// Standard error, likewise.
    pub stderr: String,
    /// From start to end.
    pub elapsed: Duration,
}

impl Output {
    /// The exit code, or 128 and the signal's number, as a shell would say it.
    pub fn code(&self) -> i32 {
        self.status.code().unwrap_or_else(|| 128 + self.status.signal().unwrap_or(0))
    }

    /// Whether it ended with code 0.
    pub fn success(&self) -> bool {
        self.status.success()
    }

    /// The trimmed standard output of a command that succeeded; fails with everything it printed where it did not.
    pub fn text(self, what: &str) -> Result<String> {
        self.ok(what).map(|output| output.stdout.trim().to_owned())
    }

    /// Itself where it succeeded, else an error that shows everything.
    pub fn ok(self, what: &str) -> Result<Self> {
        if self.success() { Ok(self) } else { Err(Error::Command { line: what.to_owned(), output: self }) }
    }
}

impl fmt::Display for Output {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "exit code {} after {:.1} s", self.code(), self.elapsed.as_secs_f64())?;
        for (name, text) in [("stdout", &self.stdout), ("stderr", &self.stderr)] {
            if !text.trim().is_empty() {
                write!(f, "\n--- {name}\n{}", text.trim_end())?;
            }
        }
        Ok(())
    }
}

/// Where programs are. Debian keeps some in sbin, which a plain user's PATH leaves out.
pub fn find(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let sbin = ["/usr/local/sbin", "/usr/sbin", "/sbin"].map(PathBuf::from);
    std::env::split_paths(&path).chain(sbin).map(|dir| dir.join(program)).find(|file| file.is_file())
}

/// A command for `program`, wherever it is.
pub fn command(program: &str) -> Command {
    Command::new(find(program).unwrap_or_else(|| program.into()))
}

/// Runs `program` with `arguments`, which must succeed.
pub fn run<S: AsRef<OsStr>>(program: &str, arguments: impl IntoIterator<Item = S>) -> Result<Output> {
    let mut command = command(program);
    let line = line(command.args(arguments));
    capture(&mut command, PATIENCE)?.ok(&line)
}

/// Runs `command` to its end, however that is, or for `limit`.
pub fn capture(command: &mut Command, limit: Duration) -> Result<Output> {
    Running::start(command)?.wait(limit)
}

/// What a shell would be told to run `command`, near enough for a message.
pub fn line(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    words.map(|word| word.to_string_lossy()).collect::<Vec<_>>().join(" ")
}

/// A program that runs in its own process group, its output going to files: a child that it leaves behind cannot hold
/// up who waits for the end of a pipe.
#[derive(Debug)]
pub struct Running {
    child: Child,
    line: String,
    stdout: File,
    stderr: File,
    started: Instant,
    ended: bool,
}

impl Running {
    /// Starts `command` with nothing on its standard input.
    pub fn start(command: &mut Command) -> Result<Self> {
        Self::start_reading(command, Stdio::null())
    }

    /// Starts `command` with `stdin` as its standard input.
    pub fn start_reading(command: &mut Command, stdin: Stdio) -> Result<Self> {
        let line = line(command);
        let stdout = tempfile::tempfile().at("make a file in", std::env::temp_dir())?;
        let stderr = tempfile::tempfile().at("make a file in", std::env::temp_dir())?;
        let same = |file: &File| file.try_clone().at("duplicate", "an output file");
        command.stdin(stdin).stdout(same(&stdout)?).stderr(same(&stderr)?).process_group(0);
        let started = Instant::now();
        let child = command.spawn().map_err(|source| Error::Start { line: line.clone(), source })?;
        Ok(Self { child, line, stdout, stderr, started, ended: false })
    }

    /// Whether it is still running.
    pub fn is_running(&mut self) -> Result<bool> {
        Ok(self.child.try_wait().at("wait for", &self.line)?.is_none())
    }

    /// Sends `signal` to the process, not to its group.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        rustix::process::kill_process(Pid::from_child(&self.child), signal).at("signal", &self.line)
    }

    /// The most memory that the process has had in RAM so far, in bytes; `None` where it has ended.
    pub fn peak(&self) -> Option<u64> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).ok()?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
        line.trim().strip_suffix(" kB")?.parse::<u64>().ok().map(|kilobytes| kilobytes << 10)
    }

    /// What it has printed so far: standard output, then standard error.
    pub fn printed(&self) -> Result<(String, String)> {
        Ok((text(&self.stdout)?, text(&self.stderr)?))
    }

    /// Waits for the end; after `limit` (counted from the start) kills the whole group.
    pub fn wait(mut self, limit: Duration) -> Result<Output> {
        let mut pause = Duration::from_micros(500);
        loop {
            if let Some(status) = self.child.try_wait().at("wait for", &self.line)? {
                self.ended = true;
                let elapsed = self.started.elapsed();
                let (stdout, stderr) = self.printed()?;
                return Ok(Output { status, stdout, stderr, elapsed });
            }
            if self.started.elapsed() > limit {
                let (stdout, stderr) = self.printed()?;
                let what = format!("'{}' (stdout: {stdout}) (stderr: {stderr})", self.line);
                return Err(Error::Timeout { what, after: limit });
            }
            thread::sleep(pause);
            pause = (pause * 2).min(Duration::from_millis(20));
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if !self.ended && self.child.try_wait().is_ok_and(|status| status.is_none()) {
            // The group may be gone by now; there is nobody left to tell.
            let _ = kill_process_group(Pid::from_child(&self.child), Signal::KILL);
            let _ = self.child.wait();
        }
    }
}

/// The whole of an output file. The writer shares the offset, so the file is opened again to read it.
fn text(file: &File) -> Result<String> {
    use std::os::fd::AsRawFd;
    let path = format!("/proc/self/fd/{}", file.as_raw_fd());
    let mut bytes = Vec::new();
    let mut reader = File::open(&path).at("open", &path)?;
    reader.rewind().and_then(|()| reader.read_to_end(&mut bytes)).at("read", &path)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn output_is_kept_and_the_code_told() {
        let output = capture(command("sh").args(["-c", "echo out; echo err >&2; exit 3"]), PATIENCE).unwrap();
        assert_eq!((output.code(), &*output.stdout, &*output.stderr), (3, "out\n", "err\n"));
        assert!(output.ok("sh").unwrap_err().to_string().contains("exit code 3"));
    }

    #[test]
    fn a_command_that_hangs_is_killed() {
        let error = capture(command("sh").args(["-c", "sleep 60 & wait"]), Duration::from_millis(100)).unwrap_err();
        assert!(matches!(error, Error::Timeout { .. }), "{error}");
    }

    #[test]
    fn a_child_left_behind_does_not_hold_up() {
        let output = capture(command("sh").args(["-c", "sleep 5 & echo done"]), PATIENCE).unwrap();
        assert!(output.elapsed < Duration::from_secs(4));
    }
}
