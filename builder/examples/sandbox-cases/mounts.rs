//! What a RUN finds beside its image: the same cases for every driver.

use std::io::{Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::time::Duration;

use yadokari::sandbox::{Driver, Error, Exit, Mount, MountKind, Run, Sandbox, Sharing, Worker};
use yadokari_layers::{Changes, Content, Entry, Kind, RelPath, Timestamp};

use crate::Case;
use crate::bench::{Bench, Outcome, check, layer, ok, processes, same, shell, small_layer};

pub(crate) const CASES: &[Case] = &[
    ("mounts: every type, and no trace", every_type),
    ("mounts: writes to a bind are discarded", binds),
    ("mounts: one in another, in order", nested),
    ("mounts: what a RUN does beside them is its own", beside),
    ("mounts: where the image removed what was there", whiteouts),
    ("mounts: a cache outlives its worker", cache),
    ("mounts: a cache twice, seeded, with an owner", cache_twice),
    ("mounts: a cache and a secret of a worker that is killed", killed),
    ("mounts: a secret is on no disk and gone afterwards", secret),
    ("mounts: a failed RUN, and one that is interrupted", failed),
    ("mounts: a tmpfs and its size", tmpfs),
    ("mounts: a socket", socket),
];

/// What nothing but a secret holds.
const WORD: &str = "correct-horse-battery-staple";

pub(crate) fn bind(source: u32, path: &str, target: &str, read_only: bool) -> Mount {
    let kind = MountKind::Bind { source, path: path.as_bytes().to_vec(), read_only };
    Mount { target: target.to_owned(), kind }
}

pub(crate) fn cache_of(name: &str, target: &str) -> Mount {
    let (name, sharing) = (name.to_owned(), Sharing::Locked);
    let kind = MountKind::Cache { name, sharing, seed: None, mode: 0o755, uid: 0, gid: 0, read_only: false };
    Mount { target: target.to_owned(), kind }
}

pub(crate) fn memory(target: &str) -> Mount {
    Mount { target: target.to_owned(), kind: MountKind::Tmpfs { size: None } }
}

pub(crate) fn file(text: &str, target: &str, secret: bool, mode: u32, id: u32) -> Mount {
    let content = text.as_bytes().to_vec().into();
    Mount { target: target.to_owned(), kind: MountKind::File { content, secret, mode, uid: id, gid: id } }
}

pub(crate) fn run(script: &str, mounts: Vec<Mount>) -> Run {
    Run { mounts, ..shell(script) }
}

/// A tree with a context in it, and links that lead everywhere.
pub(crate) fn source(bench: &Bench, worker: &mut Worker) -> Result<u32, Box<dyn std::error::Error>> {
    let at = Timestamp::from_secs(1_000_000_000);
    let mut changes = Changes::new();
    for directory in ["ctx", "ctx/sub", "one"] {
        changes.put(RelPath::new(directory)?, Entry::directory(0o755, at), Content::Empty);
    }
    for (name, text) in [("ctx/file", "source\n"), ("ctx/sub/inner", "inner\n"), ("one/file", "one\n")] {
        let entry = Entry { uid: 1000, ..Entry::file(text.len() as u64, 0o640, at) };
        changes.put(RelPath::new(name)?, entry, Content::Bytes(text.as_bytes().into()));
    }
    for (name, target) in [
        ("ctx/absolute", "/ctx/file"),
        ("ctx/up", "../../../../ctx/sub"),
        ("ctx/out", "/etc"),
        ("ctx/climb", "../../../../../../../../etc/passwd"),
        ("ctx/loop", "loop"),
    ] {
        let kind = Kind::Symlink { target: target.as_bytes().to_vec() };
        changes.put(RelPath::new(name)?, Entry { kind, ..Entry::file(0, 0o777, at) }, Content::Empty);
    }
    let (number, filled) = worker.provide(vec![small_layer(bench, &changes)?])?;
    check(&format!("no warnings, but {:?}", filled.warnings), filled.warnings.is_empty())?;
    Ok(number)
}

pub(crate) fn in_place(bench: &Bench) -> bool {
    bench.probe.chosen == Some(Driver::InPlace)
}

/// The message of what must fail.
pub(crate) fn message(result: Result<crate::bench::Output, Error>) -> String {
    result.map_or_else(|error| error.to_string(), |output| format!("{:?} {}", output.exit, output.stderr))
}

fn every_type(bench: &Bench, worker: &mut Worker) -> Outcome {
    let source = source(bench, worker)?;
    let mounts = vec![
        bind(source, "ctx", "/src", true),
        bind(source, "/ctx/file", "/top", true),
        bind(source, "ctx/absolute", "/data/deep/new/dir/file", true),
        bind(source, "ctx/sub", "/data/deep", true),
        cache_of("every", "/var/cache/app"),
        memory("/data/scratch"),
        file(WORD, "/run/secrets/id", true, 0o400, 1000),
        file("#!/bin/sh\necho script $0 $1\n", "/dev/pipes/EOF", false, 0o755, 0),
    ];
    let script = "set -e; cat /src/file /top /src/sub/inner; ls /data/deep; stat -c %u:%a /src/file
        echo x >/var/cache/app/x; echo y >/data/scratch/y; cat /data/scratch/y; stat -L -c %u:%g:%a /run/secrets/id
        /dev/pipes/EOF arg; stat -c %Y /data; cat /run/secrets/id; stat -c %a /data/scratch";
    let output = bench.run(worker, &run(script, mounts.clone()))?;
    ok(&output)?;
    let expected = format!(
        "source\nsource\ninner\ninner\n1000:640\ny\n1000:1000:400\nscript /dev/pipes/EOF arg\n1000000000\n{WORD}1777\n"
    );
    same(&output.stdout, &expected)?;
    same(&bench.commit(worker)?, &None)?;
    let script = "cat /top; ls / /data /data/deep; stat -c %Y / /data /data/deep /data/deep/file | tail -n 3; test ! -e /dev/pipes";
    let output = bench.sh(worker, script)?;
    ok(&output)?;
    for gone in ["src", "var", "scratch", "new", "sub", "inner"] {
        check(&format!("{gone} is gone: {}", output.stdout), !output.stdout.lines().any(|line| line == gone))?;
    }
    check(&output.stdout, output.stdout.starts_with("top\n") && output.stdout.contains("/data/deep:\nfile\n"))?;
    check(&output.stdout, output.stdout.ends_with("\n1000000000\n1000000000\n1000000000\n"))?;
    same(&bench.commit(worker)?, &None)?;
    // A user sees only what is his.
    let user = Run { uid: 1000, gid: 1000, ..run("cat /run/secrets/id /src/file", mounts.clone()) };
    same(&bench.run(worker, &user)?.stdout, &format!("{WORD}source\n"))?;
    let other = Run { uid: 2000, gid: 2000, ..run("cat /run/secrets/id || cat /src/file", mounts) };
    check("another user is refused", bench.run(worker, &other)?.stdout.is_empty())?;
    same(&bench.commit(worker)?, &None)
}

fn binds(bench: &Bench, worker: &mut Worker) -> Outcome {
    let source = source(bench, worker)?;
    let script = "set -e; echo more >>/src/file; rm -r /src/sub; echo new >/src/new; chmod 700 /src; echo w >>/top
        cat /src/file /top; ls /src";
    let mounts = || vec![bind(source, "ctx", "/src", false), bind(source, "one/file", "/top", false)];
    let output = bench.run(worker, &run(script, mounts()))?;
    ok(&output)?;
    same(&output.stdout.as_str(), &"source\nmore\none\nw\nabsolute\nclimb\nfile\nloop\nnew\nout\nup\n")?;
    let output = bench.run(worker, &run("cat /src/file /top; stat -c %a /src; cat /src/sub/inner", mounts()))?;
    same(&output.stdout.as_str(), &"source\none\n755\ninner\n")?;
    same(&bench.commit(worker)?, &None)?;
    let mounts = || vec![bind(source, "ctx", "/src", true), bind(source, "one/file", "/top", true)];
    let output = bench
        .run(worker, &run("echo x >/src/x; echo x >>/top; rm -f /src/file; mount -o remount,rw /src", mounts()))?;
    if !in_place(bench) {
        check(&output.stderr, output.stderr.matches("Read-only file system").count() == 3)?;
    }
    let output = bench.run(worker, &run("ls /src; cat /src/file /top", mounts()))?;
    same(&output.stdout.as_str(), &"absolute\nclimb\nfile\nloop\nout\nsub\nup\nsource\none\n")?;
    same(&bench.sh(worker, "cat /top")?.stdout.as_str(), &"top\n")?;
    same(&bench.commit(worker)?, &None)
}

fn nested(bench: &Bench, worker: &mut Worker) -> Outcome {
    let source = source(bench, worker)?;
    let mounts = vec![
        memory("/a"),
        bind(source, "ctx", "/a/b", true),
        cache_of("nested", "/a/b/cache/deep"),
        file(WORD, "/a/b/cache/deep/secret", true, 0o444, 0),
        bind(source, "ctx", "/data", true),
        memory("/data/deep/more"),
        // Over what is mounted, and through a link of the image.
        bind(source, "one", "/data/sub", true),
        file("last", "/a/b/file", false, 0o444, 0),
    ];
    let script =
        "set -e; cat /a/b/sub/inner /a/b/cache/deep/secret /data/file /data/sub/file /a/b/file; ls -d /data/deep/more
        echo x >/a/b/cache/deep/x; echo x >/data/deep/more/x";
    let output = bench.run(worker, &run(script, mounts.clone()))?;
    ok(&output)?;
    same(&output.stdout, &format!("inner\n{WORD}source\none\nlast/data/deep/more\n"))?;
    let again = run("cat /a/b/cache/deep/x; ls /data/deep/more; ls /a/b", mounts);
    let output = bench.run(worker, &again)?;
    same(&output.stdout.as_str(), &"x\nabsolute\ncache\nclimb\nfile\nloop\nout\nsub\nup\n")?;
    // The other way round the first is hidden.
    let mounts = vec![file(WORD, "/a/b", true, 0o444, 0), memory("/a")];
    same(&bench.run(worker, &run("ls -A /a", mounts))?.stdout.as_str(), &"")?;
    let output = bench.sh(worker, "cat /data/old; ls /a; ls /data/deep")?;
    same(&output.stdout.as_str(), &"old\nfile\n")?;
    same(&bench.commit(worker)?, &None)
}

fn beside(bench: &Bench, worker: &mut Worker) -> Outcome {
    let source = source(bench, worker)?;
    let mounts = || vec![bind(source, "ctx", "/data/made/src", true), memory("/data/made/tmp"), memory("/tmp/in")];
    ok(&bench.run(worker, &run("echo own >/data/made/own; echo t >/tmp/t; echo u >/tmp/in/u", mounts()))?)?;
    same(&bench.commit(worker)?, &layer(&["data/", "data/made/", "data/made/own", "tmp/", "tmp/t"]))?;
    ok(&bench.run(worker, &run("rm /data/made/own; touch -d @1000000000 /top; chmod 700 /data/made", mounts()))?)?;
    same(&bench.commit(worker)?, &layer(&["data/", "data/made/", "-data/made/own"]))?;
    let output = bench.sh(worker, "ls -A /data/made /tmp; stat -c %a /data/made /tmp")?;
    same(&output.stdout.as_str(), &"/data/made:\n\n/tmp:\nt\n700\n1777\n")
}

fn whiteouts(bench: &Bench, worker: &mut Worker) -> Outcome {
    ok(&bench.sh(worker, "rm -r /data/deep /srv; rm /top; mkdir /srv; ln -s /data/gone2 /link; ln -s srv /h")?)?;
    bench.commit(worker)?;
    let mounts = || {
        vec![
            memory("/data/deep/x/y"),
            file("f", "/top", false, 0o644, 0),
            memory("/srv/z"),
            memory("/link"),
            memory("/h/w"),
        ]
    };
    let script = "set -e; ls -d /data/deep/x/y /srv/z /data/gone2 /srv/w; cat /top; stat -c %a /srv; echo n >/srv/z/n";
    let output = bench.run(worker, &run(script, mounts()))?;
    ok(&output)?;
    same(&output.stdout.as_str(), &"/data/deep/x/y\n/data/gone2\n/srv/w\n/srv/z\nf755\n")?;
    same(&bench.commit(worker)?, &None)?;
    ok(&bench.run(worker, &run("echo n >/srv/n", mounts()))?)?;
    same(&bench.commit(worker)?, &layer(&["srv/", "srv/n"]))?;
    let output = bench.sh(worker, "ls /srv; ls -d /data/deep /top /data/gone2; test -L /link")?;
    same(&(output.stdout.as_str(), output.exit), &("n\n", Exit::Code(0)))
}

fn cache(bench: &Bench, worker: &mut Worker) -> Outcome {
    let mounts = || vec![cache_of("kept", "/srv/.cache")];
    ok(&bench
        .run(worker, &run("mkdir -p /srv/.cache/d; echo kept >/srv/.cache/d/f; chown 5:6 /srv/.cache/d", mounts()))?)?;
    same(&bench.commit(worker)?, &None)?;
    let read = "cat /srv/.cache/d/f; stat -c %u:%g /srv/.cache/d";
    same(&bench.run(worker, &run(read, mounts()))?.stdout.as_str(), &"kept\n5:6\n")?;
    same(&bench.sh(worker, "ls /srv")?.stdout.as_str(), &"")?;
    let mut other = bench.root()?;
    let mut read_only = cache_of("kept", "/elsewhere");
    if let MountKind::Cache { read_only, .. } = &mut read_only.kind {
        *read_only = true;
    }
    let script = "cat /elsewhere/d/f; echo x >/elsewhere/x && echo written";
    let output = bench.run(&mut other, &run(script, vec![read_only]))?;
    let expected = if in_place(bench) { "kept\nwritten\n" } else { "kept\n" };
    same(&output.stdout.as_str(), &expected)?;
    // As far as a RUN may remove a mount at all, what was in it is what is lost.
    bench.run(&mut other, &run("rm -rf /srv", mounts()))?;
    same(&bench.run(&mut other, &run("ls -A /srv/.cache; echo again >/srv/.cache/f", mounts()))?.stdout.as_str(), &"")?;
    same(&bench.run(worker, &run("cat /srv/.cache/f", mounts()))?.stdout.as_str(), &"again\n")?;
    same(&bench.commit(&mut other)?, &None)
}

fn cache_twice(bench: &Bench, worker: &mut Worker) -> Outcome {
    let source = source(bench, worker)?;
    let name = "twice".to_owned();
    let seed = Some((source, b"ctx/up/..".to_vec()));
    let sharing = Sharing::Shared;
    let kind = MountKind::Cache { name, sharing, seed, mode: 0o2750, uid: 1000, gid: 2000, read_only: false };
    let mounts =
        || ["/one", "/two/deep"].map(|target| Mount { target: target.to_owned(), kind: kind.clone() }).to_vec();
    let script = "stat -c %u:%g:%a /one; cat /two/deep/file /one/sub/inner; echo x >/one/x; cat /two/deep/x; stat -c %u /one/file";
    let output = bench.run(worker, &run(script, mounts()))?;
    same(&output.stdout.as_str(), &"1000:2000:2750\nsource\ninner\nx\n1000\n")?;
    ok(&bench.run(worker, &run("rm /one/file && chmod 700 /one", mounts()))?)?;
    let output = bench.run(worker, &run("stat -c %u:%g:%a /one; ls /two/deep", mounts()))?;
    same(&output.stdout.as_str(), &"1000:2000:700\nabsolute\nclimb\nloop\nout\nsub\nup\nx\n")?;
    same(&bench.commit(worker)?, &None)
}

fn killed(bench: &Bench, worker: &mut Worker) -> Outcome {
    let mounts =
        || vec![cache_of("killed", "/data/cache"), file(WORD, "/run/secrets/id", true, 0o400, 0), memory("/x/y")];
    ok(&bench.run(worker, &run("echo first >/data/cache/first", mounts()))?)?;
    let thread = std::thread::spawn(|| {
        std::thread::sleep(Duration::from_millis(500));
        for pid in processes("__yadokari-worker") {
            let pid = rustix::process::Pid::from_raw(pid as i32);
            pid.map(|pid| rustix::process::kill_process(pid, rustix::process::Signal::KILL));
        }
    });
    let result = bench.run(worker, &run("echo second >/data/cache/second; sleep 4", mounts()));
    thread.join().map_err(|_| "the thread panicked")?;
    check("it says so", matches!(result, Err(Error::Died("worker"))))?;
    no_secrets(bench)?;
    let mut next = bench.root()?;
    let output = bench.run(&mut next, &run("ls /data/cache; ls /x/y", mounts()))?;
    same(&output.stdout.as_str(), &"first\nsecond\n")?;
    same(&bench.commit(&mut next)?, &None)
}

/// That no file of the builder's, and none in memory, holds the secret.
fn no_secrets(bench: &Bench) -> Outcome {
    let mut todo = vec![bench.settings.work_dir.clone(), bench.settings.home.clone()];
    while let Some(path) = todo.pop() {
        for entry in std::fs::read_dir(path).into_iter().flatten().flatten() {
            let Ok(kind) = entry.file_type() else { continue };
            if kind.is_dir() {
                todo.push(entry.path());
            } else if kind.is_file() && entry.metadata()?.len() < 100_000 {
                let bytes = std::fs::read(entry.path()).unwrap_or_default();
                let found = bytes.windows(WORD.len()).any(|part| part == WORD.as_bytes());
                check(&format!("no secret in {}", entry.path().display()), !found)?;
            }
        }
    }
    for memory in ["/dev/shm", "/dev", "/run"] {
        let names = crate::bench::names(Path::new(memory)).unwrap_or_default();
        check(&format!("{memory} is clean"), !names.iter().any(|name| name.starts_with(".yadokari-")))?;
    }
    Ok(())
}

fn secret(bench: &Bench, worker: &mut Worker) -> Outcome {
    let mounts = vec![file(WORD, "/run/secrets/id", true, 0o400, 0), file(WORD, "/etc/app/key", true, 0o444, 0)];
    let mut seen = Ok(());
    let mut output = Vec::new();
    worker.run(&run("cat /run/secrets/id /etc/app/key; sleep 0.3", mounts), &mut |_, bytes| {
        output.extend_from_slice(bytes);
        // While the RUN runs: what is in memory only is not looked for.
        if seen.is_ok() {
            seen = no_disk(bench);
        }
    })?;
    seen?;
    same(&String::from_utf8_lossy(&output).into_owned(), &WORD.repeat(2))?;
    no_secrets(bench)?;
    let output = bench.sh(worker, "ls -d /run/secrets /etc/app")?;
    check(&output.stdout, output.stdout.is_empty())?;
    same(&bench.commit(worker)?, &None)
}

/// That no file below the work directory or in `/run` and `/etc` holds the secret now.
fn no_disk(bench: &Bench) -> Outcome {
    let mut todo: Vec<PathBuf> = vec![bench.settings.work_dir.clone()];
    if in_place(bench) {
        todo.extend(["/etc".into(), "/run".into()]);
    }
    while let Some(path) = todo.pop() {
        for entry in std::fs::read_dir(path).into_iter().flatten().flatten() {
            let Ok(kind) = entry.file_type() else { continue };
            if kind.is_dir() {
                todo.push(entry.path());
            } else if kind.is_file() && entry.metadata()?.len() < 100_000 {
                let bytes = std::fs::read(entry.path()).unwrap_or_default();
                let found = bytes.windows(WORD.len()).any(|part| part == WORD.as_bytes());
                check(&format!("no secret in {}", entry.path().display()), !found)?;
            }
        }
    }
    Ok(())
}

fn failed(bench: &Bench, worker: &mut Worker) -> Outcome {
    let source = source(bench, worker)?;
    let mounts = || {
        let secret = file(WORD, "/run/secrets/id", true, 0o400, 0);
        vec![bind(source, "ctx", "/data", false), cache_of("failed", "/data/sub"), secret, memory("/x/y/z")]
    };
    same(
        &bench.run(worker, &run("echo kept >/data/sub/kept; echo x >/x/y/own; exit 3", mounts()))?.exit,
        &Exit::Code(3),
    )?;
    no_secrets(bench)?;
    let output = bench.sh(worker, "cat /data/old; ls /x/y; ls -d /run/secrets")?;
    same(&output.stdout.as_str(), &"old\nown\n")?;
    same(&bench.commit(worker)?, &layer(&["x/", "x/y/", "x/y/own"]))?;
    let interrupter = worker.interrupter();
    let thread = std::thread::spawn(move || {
        std::thread::sleep(Duration::from_millis(300));
        interrupter.interrupt();
    });
    let result = bench.run(worker, &run("echo more >/data/sub/more; sleep 100", mounts()));
    thread.join().map_err(|_| "the thread panicked")?;
    check("it says so", matches!(result, Err(Error::Interrupted)))?;
    no_secrets(bench)?;
    let mut next = bench.root()?;
    let output = bench.run(&mut next, &run("ls /cache", vec![cache_of("failed", "/cache")]))?;
    same(&output.stdout.as_str(), &"kept\nmore\n")
}

fn tmpfs(bench: &Bench, worker: &mut Worker) -> Outcome {
    let mount = || vec![Mount { target: "/data/t".to_owned(), kind: MountKind::Tmpfs { size: Some(1 << 20) } }];
    let script = "dd if=/dev/zero of=/data/t/x bs=1M count=2 2>/dev/null && echo written";
    let output = bench.run(worker, &run(script, mount()))?;
    if in_place(bench) {
        same(&output.stdout.as_str(), &"written\n")?;
        check(&output.stderr, output.stderr.contains("has no size"))?;
    } else {
        same(&output.stdout.as_str(), &"")?;
    }
    same(&bench.run(worker, &run("ls /data/t", mount()))?.stdout.as_str(), &"")?;
    same(&bench.commit(worker)?, &None)
}

fn socket(bench: &Bench, worker: &mut Worker) -> Outcome {
    let agent = bench.settings.home.join("agent");
    let kind = |mode| MountKind::Socket { agent: agent.clone(), mode, uid: 1000, gid: 1000 };
    let mounts = |mode| vec![Mount { target: "/run/agent/ssh.0".to_owned(), kind: kind(mode) }];
    let text = message(bench.run(worker, &run("true", mounts(0o600))));
    check(&text, text.contains(&agent.display().to_string()))?;
    let listener = UnixListener::bind(&agent)?;
    let serving = std::thread::spawn(move || {
        // The first only asks whether somebody is there.
        for stream in listener.incoming().take(3).flatten() {
            let (mut stream, mut text) = (stream, [0; 4]);
            if stream.read_exact(&mut text).is_ok() {
                let _ = stream.write_all(format!("{} pong", String::from_utf8_lossy(&text)).as_bytes());
            }
        }
    });
    let script =
        "stat -c %u:%g:%a /run/agent/ssh.0; test -S /run/agent/ssh.0 && /bin/self --connect /run/agent/ssh.0; true";
    let user = Run { uid: 1000, gid: 1000, ..run(script, mounts(0o600)) };
    let output = bench.run(worker, &user)?;
    if output.stderr.contains("not found") || output.stderr.contains("No such file") {
        println!("       not static: no client in the root");
        same(&output.stdout.as_str(), &"1000:1000:600\n")?;
    } else {
        same(&output.stdout.as_str(), &"1000:1000:600\nping pong\n")?;
    }
    drop(UnixStream::connect(&agent));
    drop(UnixStream::connect(&agent));
    serving.join().map_err(|_| "the thread panicked")?;
    std::fs::remove_file(&agent)?;
    same(&bench.sh(worker, "ls -d /run/agent")?.stdout.as_str(), &"")?;
    same(&bench.commit(worker)?, &None)
}

/// A RUN that says a word to a cache, has a secret and never ends.
pub(crate) fn endless() -> Run {
    let mounts =
        vec![cache_of("died", "/srv/.cache"), file(WORD, "/run/secrets/id", true, 0o400, 0), memory("/data/t")];
    run("echo survivor >/srv/.cache/word; sleep 100", mounts)
}

/// What is left of an [`endless`] RUN whose builder and worker were killed.
pub(crate) fn ended(bench: &Bench, worker: &mut Worker) -> Outcome {
    no_secrets(bench)?;
    let output = bench.run(worker, &run("cat /cache/word", vec![cache_of("died", "/cache")]))?;
    same(&output.stdout.as_str(), &"survivor\n")
}

/// Talks to a socket from inside of a root.
pub(crate) fn connect(path: &Path) -> std::io::Result<()> {
    let mut stream = UnixStream::connect(path)?;
    stream.write_all(b"ping")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    println!("{answer}");
    Ok(())
}
