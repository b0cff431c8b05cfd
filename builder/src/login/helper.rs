//! `docker-credential-*` programs, by the protocol of docker-credential-helpers.

use std::ffi::OsString;
use std::io::{Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use rustix::process::{Pid, Signal, kill_process_group};
use serde::Deserialize;
use yadokari_registry::{Client, Lease, Login, Provider, Secret};

use crate::sandbox::Gate;

/// How long a helper may take. Those of clouds ask servers.
const LIMIT: Duration = Duration::from_secs(30);

/// The most that is read of an answer.
const MAX_ANSWER: u64 = 1 << 20;

/// How Docker Hub is called in configurations.
const HUB: &str = "https://index.docker.io/v1/";

/// Where programs are, and when they may run.
#[derive(Debug, Clone, Default)]
pub(crate) struct Programs {
    /// `PATH`
    pub(crate) path: OsString,
    /// While a command runs in place, `/` is an image's and the files with logins are away.
    pub(crate) gate: Gate,
}

/// A helper program.
#[derive(Debug, Clone)]
pub(crate) struct Helper {
    name: String,
    /// Found before anything runs: later a file of an image might have its name.
    program: Option<PathBuf>,
    except: Vec<String>,
    gate: Gate,
    limit: Duration,
}

impl Helper {
    /// The program `docker-credential-NAME` of the directories of PATH, for all registries but `except`.
    pub(crate) fn new(name: &str, except: Vec<String>, programs: &Programs) -> Self {
        let file = format!("docker-credential-{name}");
        let is_program = |path: &PathBuf| {
            path.metadata().is_ok_and(|found| found.is_file() && found.permissions().mode() & 0o111 != 0)
        };
        // A name with a slash would be a path.
        let mut directories = std::env::split_paths(&programs.path).filter(|_| !name.contains('/'));
        let program = directories.find_map(|directory| Some(directory.join(&file)).filter(is_program));
        Self { name: name.into(), program, except, gate: programs.gate.clone(), limit: LIMIT }
    }

    /// Whether there is such a program.
    pub(crate) fn is_there(&self) -> bool {
        self.program.is_some()
    }

    /// Asks for a server's login. It waits until no command runs in place.
    fn get(&self, server: &str) -> Result<Option<Lease>, String> {
        let program = self.program.as_ref().ok_or("no such program is on PATH")?;
        let _ours = self.gate.enter();
        let mut command = Command::new(program);
        command.arg("get").stdin(Stdio::piped()).stdout(Stdio::piped());
        // What it says there for people may hold anything.
        command.stderr(Stdio::null()).process_group(0);
        let mut child = command.spawn().map_err(|error| format!("it cannot be started: {error}"))?;
        let answer = converse(&mut child, server, Instant::now() + self.limit);
        // Whatever it started is of no use without it. One that has ended is gone already.
        if let Ok(id) = i32::try_from(child.id())
            && let Some(group) = Pid::from_raw(id)
        {
            _ = kill_process_group(group, Signal::KILL);
        }
        let status = child.wait().map_err(|error| format!("it cannot be waited for: {error}"))?;
        let answer = answer.ok_or_else(|| format!("it did not answer within {} s", self.limit.as_secs()))?;
        read(&answer, status.success())
    }
}

/// Sends the server's name, and reads to the end of the answer; `None` where that takes too long.
fn converse(child: &mut Child, server: &str, deadline: Instant) -> Option<Secret> {
    if let Some(mut input) = child.stdin.take() {
        // One that does not read it has no use for it.
        _ = writeln!(input, "{server}");
    }
    let output = child.stdout.take()?;
    let (send, receive) = mpsc::sync_channel(1);
    std::thread::spawn(move || {
        let mut bytes = Vec::new();
        let read = output.take(MAX_ANSWER).read_to_end(&mut bytes);
        // An answer that is cut is none: what follows finds no JSON in it.
        let text = read.ok().and_then(|_| String::from_utf8(bytes).ok()).unwrap_or_default();
        _ = send.send(Secret::new(text));
    });
    let answer = receive.recv_timeout(deadline.saturating_duration_since(Instant::now())).ok()?;
    // It may close its output long before it ends.
    while !matches!(child.try_wait(), Ok(Some(_)) | Err(_)) {
        if Instant::now() >= deadline {
            return None;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    Some(answer)
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Answer {
    username: String,
    secret: Secret,
}

/// Reads an answer. Errors are words on the standard output, and some of them mean that there is no login.
fn read(answer: &Secret, is_success: bool) -> Result<Option<Lease>, String> {
    let text = answer.expose().trim();
    if !is_success {
        let no_login =
            ["credentials not found in native keychain", "no credentials server URL", "no credentials username"];
        if no_login.iter().any(|words| text.starts_with(words)) {
            return Ok(None);
        }
        let line: String =
            text.lines().next().unwrap_or_default().chars().filter(|c| !c.is_control()).take(300).collect();
        return Err(if line.is_empty() { "it failed without a word".into() } else { format!("it says: {line}") });
    }
    // The parser's error might quote the secret.
    let answer: Answer = serde_json::from_str(text).map_err(|_| "its answer is not the JSON of a login".to_owned())?;
    if answer.username.is_empty() && answer.secret.expose().is_empty() {
        return Ok(None);
    }
    Ok(Some(Lease { login: Login::new(answer.username, answer.secret), life: None }))
}

#[async_trait]
impl Provider for Helper {
    fn name(&self) -> String {
        format!("docker-credential-{}", self.name)
    }

    fn covers(&self, registry: &str) -> bool {
        let is_hub = |name: &str| registry == "docker.io" && [HUB, "index.docker.io"].contains(&name);
        !self.except.iter().any(|name| name == registry || is_hub(name))
    }

    async fn login(&self, _: &Client, registry: &str) -> Result<Option<Lease>, String> {
        let server = if registry == "docker.io" { HUB } else { registry }.to_owned();
        let helper = self.clone();
        let answer = tokio::task::spawn_blocking(move || helper.get(&server)).await;
        answer.unwrap_or_else(|error| Err(format!("asking it failed: {error}")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A directory with a helper `test` that is this script.
    fn helper(script: &str) -> (tempfile::TempDir, Helper) {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("docker-credential-test");
        std::fs::write(&path, format!("#!/bin/sh\n{script}\n")).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
        let programs = Programs { path: directory.path().into(), ..Programs::default() };
        let helper = Helper::new("test", Vec::new(), &programs);
        (directory, helper)
    }

    fn login(user: &str, password: &str) -> Login {
        Login::Password { user: user.into(), password: Secret::new(password) }
    }

    async fn ask(helper: &Helper, registry: &str) -> Result<Option<Login>, String> {
        let client = Client::new(Default::default()).unwrap();
        Ok(helper.login(&client, registry).await?.map(|lease| lease.login))
    }

    #[tokio::test]
    async fn a_helper_is_asked_for_the_server_on_its_standard_input() {
        let (_directory, helper) = helper(
            r#"read server; echo noise >&2; echo "{\"ServerURL\":\"x\",\"Username\":\"$1 $server\",\"Secret\":\"pw\"}""#,
        );
        let table = [("registry.example:5000", "get registry.example:5000"), ("docker.io", &format!("get {HUB}"))];
        for (registry, user) in table {
            assert_eq!(ask(&helper, registry).await, Ok(Some(login(user, "pw"))), "{registry}");
        }
    }

    #[tokio::test]
    async fn a_user_called_token_means_an_identity_token() {
        let (_directory, helper) = helper(r#"echo '{"Username":"<token>","Secret":"refresh"}'"#);
        assert_eq!(ask(&helper, "r.example").await, Ok(Some(Login::Identity(Secret::new("refresh")))));
    }

    #[tokio::test]
    async fn what_a_helper_does_not_know_is_no_failure() {
        for script in ["echo credentials not found in native keychain; exit 1", r#"echo '{"Username":"","Secret":""}'"#]
        {
            let (_directory, helper) = helper(script);
            assert_eq!(ask(&helper, "r.example").await, Ok(None), "{script}");
        }
    }

    #[tokio::test]
    async fn a_helper_that_fails_says_why_and_shows_no_secret() {
        let table = [
            ("echo no session; echo hunter2 >&2; exit 3", "it says: no session"),
            ("exit 1", "it failed without a word"),
            (r#"echo '{"Username":"u","Secret":"hunter2"'"#, "its answer is not the JSON of a login"),
        ];
        for (script, expected) in table {
            let (_directory, helper) = helper(script);
            assert_eq!(ask(&helper, "r.example").await, Err(expected.to_owned()), "{script}");
        }
        let absent = Helper::new("absent", Vec::new(), &Programs::default());
        assert_eq!(ask(&absent, "r.example").await, Err("no such program is on PATH".to_owned()));
    }

    #[tokio::test]
    async fn a_helper_has_a_time_limit_and_leaves_no_process() {
        let (directory, helper) = helper("sleep 60 & echo $! > \"$(dirname \"$0\")/child\"; wait");
        let helper = Helper { limit: Duration::from_millis(500), ..helper };
        let started = Instant::now();
        assert_eq!(ask(&helper, "r.example").await, Err("it did not answer within 0 s".to_owned()));
        assert!(started.elapsed() < Duration::from_secs(20), "{:?}", started.elapsed());
        let child: i32 = std::fs::read_to_string(directory.path().join("child")).unwrap().trim().parse().unwrap();
        // A process that is dead and not yet collected by its parent has no command line.
        let line = || std::fs::read(format!("/proc/{child}/cmdline")).unwrap_or_default();
        while !line().is_empty() {
            assert!(started.elapsed() < Duration::from_secs(20), "the helper's child goes on");
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    #[tokio::test]
    async fn a_helper_does_not_run_while_a_command_runs_in_place() {
        let (_directory, helper) = helper(r#"echo '{"Username":"u","Secret":"p"}'"#);
        let gate = helper.gate.clone();
        let inside = gate.try_take().unwrap();
        let asking = tokio::spawn({
            let helper = helper.clone();
            async move { ask(&helper, "r.example").await }
        });
        tokio::time::sleep(Duration::from_millis(200)).await;
        assert!(!asking.is_finished());
        drop(inside);
        assert_eq!(asking.await.unwrap(), Ok(Some(login("u", "p"))));
    }

    #[test]
    fn a_store_is_not_asked_for_registries_that_have_a_helper() {
        let except = vec!["r.example".to_owned(), HUB.to_owned()];
        let helper = Helper::new("store", except, &Programs::default());
        let covered = ["r.example", "docker.io", "other.example"].map(|registry| helper.covers(registry));
        assert_eq!(covered, [false, false, true]);
    }
}
