//! One table of cases against whichever sandbox driver works here, one line for each case.
//!
//! ```text
//! sandbox-cases --home DIR --work DIR --busybox FILE [--driver NAME] [--context DIR] [--only TEXT] [--doctor] [--die] [--died]
//! ```
//!
//! `--die` is killed during a RUN, and `--died` in the same container says whether the next build cleared up.
//!
//! It is meant for throw-away containers: with the in-place driver it moves the contents of `/` about.

mod bench;
mod mounts;
mod refusals;

use std::cell::RefCell;
use std::error::Error as StdError;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bench::{Bench, Outcome, base_layer, check, layer, names, ok, processes, same, shell, small_layer};
use yadokari::sandbox::{self, Driver, Error, Exit, Fault, LayerFile, Priority, Run, Sandbox, Settings, Worker};
use yadokari_layers::{Changes, Content, Digest, Entry, RelPath, Timestamp};

/// A case: its name, and what it does with a fresh root that holds the base image.
type Case = (&'static str, fn(&Bench, &mut Worker) -> Outcome);

const CASES: &[Case] = &[
    ("exit codes and signals", exits),
    ("output is streamed and complete", output),
    ("what changed is what the layer holds", changes),
    ("nothing changed is no layer", nothing),
    ("directories replaced and renamed", directories),
    ("same size, same time, other content", rewrite),
    ("user, groups, environment and directory", identity),
    ("capabilities and limits", privileges),
    ("devices, proc and shared memory", furniture),
    ("resolver files are there and leave no trace", network),
    ("an image without /etc gets none", no_etc),
    ("a copied layer is not part of the commit", push),
    ("what a layer says is found while it is unpacked", found),
    ("twenty steps", many),
    ("a failed RUN, then another", failure),
    ("what a RUN leaves running is killed", leftovers),
    ("the builder cannot be looked into", secrets),
    ("a hidden file is gone and comes back", hidden),
    ("an interrupted RUN", interrupted),
    ("a worker that is killed", killed),
];

fn main() -> ExitCode {
    let args: Vec<_> = std::env::args_os().collect();
    if let Some(code) = sandbox::reexec(&args) {
        return code;
    }
    if let [_, word, path] = &args[..]
        && word == "--connect"
    {
        return if mounts::connect(Path::new(path)).is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE };
    }
    sandbox::sys::harden();
    let text: Vec<String> = args.iter().map(|arg| arg.to_string_lossy().into_owned()).collect();
    match everything(&text) {
        Ok(0) => ExitCode::SUCCESS,
        Ok(failed) => {
            println!("{failed} cases failed");
            ExitCode::FAILURE
        }
        Err(error) => {
            println!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

fn everything(args: &[String]) -> Result<usize, Box<dyn StdError>> {
    let option = |name: &str| args.iter().position(|arg| arg == name).and_then(|at| args.get(at + 1));
    let path = |name: &str| option(name).map(PathBuf::from).ok_or(format!("{name} is missing"));
    let driver = option("--driver").map(|name| name.parse::<Driver>()).transpose()?;
    let home = path("--home")?;
    let hide = home.join("config.json");
    std::fs::write(&hide, "hunter2")?;
    let settings = Settings {
        driver,
        work_dir: path("--work")?,
        home,
        contexts: option("--context").map(PathBuf::from).into_iter().collect(),
        kept: Vec::new(),
        isolated: false,
        force: args.iter().any(|arg| arg == "--force"),
        hide: vec![hide.clone()],
        gate: sandbox::Gate::default(),
    };
    let began = Instant::now();
    let probe = sandbox::probe(&settings);
    println!("probed in {:?}", began.elapsed());
    sandbox::doctor_lines(&probe).iter().for_each(|line| println!("  {line}"));
    if args.iter().any(|arg| arg == "--doctor") {
        return Ok(0);
    }
    let base = settings.home.join("base.tar");
    let index = Arc::new(base_layer(&base, &path("--busybox")?)?);
    let bench = Bench { probe, settings, base, index, hide, times: RefCell::default() };
    if args.iter().any(|arg| arg == "--die") {
        return die(&bench);
    }
    if args.iter().any(|arg| arg == "--died") {
        return mounts::ended(&bench, &mut bench.root()?).map(|()| 0);
    }
    let only = option("--only");
    let mut failed = 0;
    let cases = CASES.iter().chain(mounts::CASES).chain(refusals::CASES);
    for (name, case) in cases.filter(|(name, _)| only.is_none_or(|only| name.contains(only.as_str()))) {
        let began = Instant::now();
        let before = names(Path::new("/"))?;
        let result = bench.root().and_then(|mut worker| case(&bench, &mut worker));
        let took = began.elapsed().as_millis();
        let after = names(Path::new("/"))?;
        let result = result.and_then(|()| check("'/' is what it was", before == after));
        match result {
            Ok(()) => println!("ok     {took:>5} ms  {name}"),
            Err(error) => {
                failed += 1;
                println!("FAILED {took:>5} ms  {name}: {error}");
            }
        }
    }
    let left = names(&bench.settings.work_dir)?;
    println!("left in the work directory: {left:?}");
    bench.report();
    Ok(failed)
}

fn exits(bench: &Bench, worker: &mut Worker) -> Outcome {
    same(&bench.sh(worker, "exit 7")?.exit, &Exit::Code(7))?;
    same(&bench.sh(worker, "kill -9 $$")?.exit, &Exit::Signal(9))?;
    let missing = Run { argv: vec!["no-such-command".into()], ..shell("") };
    let output = bench.run(worker, &missing)?;
    same(&output.exit, &Exit::Code(127))?;
    same(&output.stderr.as_str(), &"yadokari: no-such-command: not found\n")?;
    let plain = Run { argv: vec!["/data/script".into()], ..shell("") };
    same(&bench.run(worker, &plain)?.exit, &Exit::Code(126))?;
    let looked_up = Run { argv: vec!["true".into()], ..shell("") };
    same(&bench.run(worker, &looked_up)?.exit, &Exit::Code(0))?;
    let nowhere = Run { cwd: "/top/below".into(), ..shell("true") };
    let error = bench.run(worker, &nowhere).err().map(|error| error.to_string()).unwrap_or_default();
    check(&error, error.contains("mkdir '/top/below'"))
}

fn output(bench: &Bench, worker: &mut Worker) -> Outcome {
    let output =
        bench.sh(worker, "echo out; echo err >&2; seq 1 100000 | tail -n 1; head -c 3000000 /dev/zero | wc -c")?;
    same(&(output.stdout.as_str(), output.stderr.as_str()), &("out\n100000\n3000000\n", "err\n"))?;
    let output = bench.sh(worker, "yes | head -c 3000000")?;
    same(&output.stdout.len(), &3_000_000)?;
    let mut first = None;
    let began = Instant::now();
    worker.run(&shell("echo now; sleep 1; echo later"), &mut |_, _| {
        first.get_or_insert(began.elapsed());
    })?;
    check("the first line came at once", first.is_some_and(|first| first < Duration::from_millis(700)))?;
    let output = bench.sh(worker, "cat; echo rc=$?")?;
    same(&output.stdout.as_str(), &"rc=0\n")
}

fn changes(bench: &Bench, worker: &mut Worker) -> Outcome {
    ok(&bench.sh(
        worker,
        "echo x >/data/new; echo more >>/data/old; rm /data/gone; mkdir /opt; ln -s a /opt/l; mkfifo /opt/p",
    )?)?;
    let expected = layer(&["data/", "data/new", "data/old", "-data/gone", "opt/", "opt/l", "opt/p"]);
    same(&bench.commit(worker)?, &expected)?;
    ok(&bench.sh(worker, "chmod 600 /top; chown 1000:1000 /data/new; rm -r /data/deep; ln /data/new /data/link")?)?;
    let expected = layer(&["data/", "-data/deep", "data/link", "data/new", "top"]);
    same(&bench.commit(worker)?, &expected)?;
    let output = bench.sh(worker, "cat /data/old; stat -c %u:%a /data/new /top; ls /data /opt")?;
    same(&output.stdout.as_str(), &"old\nmore\n1000:644\n0:600\n/data:\nlink\nnew\nold\nscript\n\n/opt:\nl\np\n")
}

fn nothing(bench: &Bench, worker: &mut Worker) -> Outcome {
    same(&bench.commit(worker)?, &None)?;
    ok(&bench.sh(worker, "cat /data/old >/dev/null; ls -R / >/dev/null 2>&1; echo >/dev/shm/x; true")?)?;
    same(&bench.commit(worker)?, &None)?;
    ok(&bench.sh(worker, "touch /data/x; rm /data/x; touch -d @1000000000 /data")?)?;
    same(&bench.commit(worker)?, &None)
}

fn directories(bench: &Bench, worker: &mut Worker) -> Outcome {
    ok(&bench.sh(worker, "rm -r /data/deep; mkdir /data/deep; echo y >/data/deep/other")?)?;
    same(&bench.commit(worker)?, &layer(&["data/", "data/deep/", "data/deep/other", "-data/deep/file"]))?;
    ok(&bench.sh(worker, "mv /data/deep /moved; rm -r /srv; echo file >/srv; rm /top; mkdir /top")?)?;
    let expected = layer(&["data/", "-data/deep", "moved/", "moved/other", "srv", "top/"]);
    same(&bench.commit(worker)?, &expected)?;
    let output = bench.sh(worker, "cat /moved/other /srv; test -d /top; echo $?; ls -d /data/deep")?;
    same(&output.stdout.as_str(), &"y\nfile\n0\n")
}

fn rewrite(bench: &Bench, worker: &mut Worker) -> Outcome {
    ok(&bench.sh(worker, "printf 'OLD\\n' >/data/old; touch -d @1000000000 /data/old")?)?;
    same(&bench.commit(worker)?, &layer(&["data/", "data/old"]))
}

fn identity(bench: &Bench, worker: &mut Worker) -> Outcome {
    let env = vec![("PATH".to_owned(), "/bin".to_owned()), ("NAME".to_owned(), "a b=c".to_owned())];
    let groups = vec![1000, 2000];
    let run = Run {
        uid: 1000,
        gid: 1000,
        groups,
        cwd: "/data".into(),
        env,
        ..shell("id -u; id -G; env; umask; touch x /tmp/x")
    };
    let output = bench.run(worker, &run)?;
    let mut lines: Vec<&str> = output.stdout.lines().collect();
    lines.sort_unstable();
    let groups = lines.iter().find(|line| line.contains("2000")).copied().unwrap_or_default();
    check(groups, groups == "1000 2000" || groups == "1000 1000 2000")?;
    for expected in ["1000", "NAME=a b=c", "PATH=/bin", "0022", "PWD=/data"] {
        check(&format!("{expected} in {lines:?}"), lines.contains(&expected))?;
    }
    check("no other variable", lines.iter().filter(|line| line.contains('=')).count() <= 5)?;
    check("a user cannot write where only root can", output.stderr.contains("Permission denied"))?;
    same(&bench.commit(worker)?, &layer(&["tmp/", "tmp/x"]))?;
    let output = bench.sh(worker, "stat -c %u:%g /tmp/x")?;
    same(&output.stdout.as_str(), &"1000:1000\n")
}

fn privileges(bench: &Bench, worker: &mut Worker) -> Outcome {
    let output = bench
        .sh(worker, "grep -E 'CapEff|CapBnd|CapPrm|CapInh|CapAmb' /proc/self/status; ulimit -n; ulimit -Hn; tty")?;
    let value = |name: &str| {
        let line = output.stdout.lines().find_map(|line| line.strip_prefix(name));
        line.and_then(|hex| u64::from_str_radix(hex.trim_start_matches(':').trim(), 16).ok())
    };
    const SETPCAP: u64 = 1 << 8;
    for set in ["CapEff", "CapPrm"] {
        let has = value(set).unwrap_or(u64::MAX);
        check(&format!("{set} {has:x}"), has & SETPCAP == 0 && has & !0xa804_25fb == 0 && has != 0)?;
    }
    same(&(value("CapInh"), value("CapAmb")), &(Some(0), Some(0)))?;
    check("no terminal", output.stdout.contains("not a tty"))?;
    check("1024 open files", output.stdout.lines().any(|line| line == "1024"))?;
    let output = bench.sh(worker, "mount -t tmpfs none /tmp || umount /proc")?;
    check("no mount", output.exit != Exit::Code(0))
}

fn furniture(bench: &Bench, worker: &mut Worker) -> Outcome {
    let script = "set -e; echo x >/dev/null; head -c 4 /dev/urandom | wc -c; head -c 4 /dev/zero | wc -c; echo e >/dev/stderr
                  test -r /proc/self/status; test -d /sys/class; test -L /dev/fd; echo s >/dev/shm/s; ls -d /dev/pts /dev/ptmx";
    let output = bench.sh(worker, script)?;
    ok(&output)?;
    same(&output.stdout.as_str(), &"4\n4\n/dev/ptmx\n/dev/pts\n")?;
    same(&bench.commit(worker)?, &None)
}

fn network(bench: &Bench, worker: &mut Worker) -> Outcome {
    let output = bench.sh(worker, "cat /etc/resolv.conf /etc/hosts")?;
    ok(&output)?;
    let expected = "nameserver 192.0.2.1\n127.0.0.1 localhost\n";
    // A directory that cannot be moved keeps the container's own files.
    check(&output.stdout, output.stdout == expected || output.stdout.contains("localhost"))?;
    same(&bench.commit(worker)?, &None)?;
    ok(&bench.sh(worker, "echo app >>/etc/app; echo 1.2.3.4 x >>/etc/hosts")?)?;
    same(&bench.commit(worker)?, &layer(&["etc/", "etc/app"]))?;
    let output = bench.sh(worker, "grep -c 1.2.3.4 /etc/hosts; cat /etc/app")?;
    same(&output.stdout.as_str(), &"0\napp\n")
}

fn no_etc(bench: &Bench, worker: &mut Worker) -> Outcome {
    ok(&bench.sh(worker, "true")?)?;
    bench.commit(worker)?;
    // The image is that of the base; it loses its /etc by a layer.
    let mut changes = Changes::new();
    changes.delete(RelPath::new("etc")?);
    worker.push(small_layer(bench, &changes)?)?;
    let output = bench.sh(worker, "cat /etc/hosts; ls /etc")?;
    check(&output.stderr, output.stdout.contains("localhost") || output.exit != Exit::Code(0))?;
    same(&bench.commit(worker)?, &None)
}

fn push(bench: &Bench, worker: &mut Worker) -> Outcome {
    ok(&bench.sh(worker, "echo 1 >/data/one")?)?;
    bench.commit(worker)?;
    let mut changes = Changes::new();
    let at = Timestamp::from_secs(1_100_000_000);
    changes.put(RelPath::new("app")?, Entry::directory(0o755, at), Content::Empty);
    changes.put(RelPath::new("app/main")?, Entry::file(3, 0o640, at), Content::Bytes(b"hi\n"[..].into()));
    changes.delete(RelPath::new("data/gone")?);
    let warnings = worker.push(small_layer(bench, &changes)?)?;
    check(&format!("no warnings, but {warnings:?}"), warnings.is_empty())?;
    same(&bench.commit(worker)?, &None)?;
    let output = bench.sh(worker, "cat /app/main /data/one; stat -c %a:%Y /app/main; ls /data; echo 2 >/app/two")?;
    same(&output.stdout.as_str(), &"hi\n1\n640:1100000000\ndeep\nold\none\nscript\n")?;
    same(&bench.commit(worker)?, &layer(&["app/", "app/two"]))
}

fn found(bench: &Bench, worker: &mut Worker) -> Outcome {
    let (_, filled) = worker.provide(vec![bench.base(None)?])?;
    check("the index that is found is the layer's", filled.indexes[..] == [Arc::clone(&bench.index)])?;
    let mut fresh = Worker::start(&bench.probe, &bench.settings, "fresh")?;
    let changes = Changes::new();
    let layers = vec![bench.base(None)?, small_layer(bench, &changes)?];
    let filled = fresh.materialise(layers, Priority::Low)?;
    check("the index that is found is the layer's", filled.indexes[0] == bench.index)?;
    same(&bench.sh(&mut fresh, "cat /data/deep/file")?.stdout.as_str(), &"deep\n")?;
    let mut wrong = Worker::start(&bench.probe, &bench.settings, "wrong")?;
    let layer = LayerFile { diff_id: Digest::of("another"), ..bench.base(None)? };
    let fault = wrong.materialise(vec![layer], Priority::Normal).map_or_else(|error| error.fault(), |_| None);
    same(&fault, &Some(Fault::Mismatch))
}

fn many(bench: &Bench, worker: &mut Worker) -> Outcome {
    for step in 0..20 {
        ok(&bench.sh(worker, &format!("echo {step} >/data/step{step}; rm -f /data/step{}", step - 3))?)?;
        let mut expected = vec!["data/".to_owned(), format!("data/step{step}")];
        expected.extend((step >= 3).then(|| format!("-data/step{}", step - 3)));
        same(&bench.commit(worker)?, &Some(expected.into_iter().collect()))?;
    }
    let output = bench.sh(worker, "cat /data/step*; cat /top")?;
    same(&output.stdout.as_str(), &"17\n18\n19\ntop\n")
}

fn failure(bench: &Bench, worker: &mut Worker) -> Outcome {
    same(&bench.sh(worker, "echo partial >/data/partial; exit 3")?.exit, &Exit::Code(3))?;
    ok(&bench.sh(worker, "cat /data/partial >/data/whole")?)?;
    same(&bench.commit(worker)?, &layer(&["data/", "data/partial", "data/whole"]))
}

fn leftovers(bench: &Bench, worker: &mut Worker) -> Outcome {
    let began = Instant::now();
    let script = "for i in 1 2 3 4 5; do setsid sh -c 'trap \"\" TERM HUP; (while :; do echo x >>/data/busy; sleep 0.01; done) &' & done
                  setsid setsid sleep 12345 & sleep 0.2; echo done";
    let output = bench.sh(worker, script)?;
    same(&(output.exit, output.stdout.as_str()), &(Exit::Code(0), "done\n"))?;
    check("it did not wait for them", began.elapsed() < Duration::from_secs(5))?;
    for entry in std::fs::read_dir("/proc")?.flatten() {
        let line = std::fs::read(entry.path().join("cmdline")).unwrap_or_default();
        check("no process is left", !line.windows(5).any(|part| part == b"12345"))?;
    }
    same(&bench.commit(worker)?, &layer(&["data/", "data/busy"]))
}

fn secrets(bench: &Bench, worker: &mut Worker) -> Outcome {
    let own = std::process::id();
    let workers = processes("__yadokari-worker");
    for pid in workers.into_iter().chain([1, own]) {
        let files = ["environ", "mem", "maps", "auxv"].map(|file| format!("head -c 1 /proc/{pid}/{file}"));
        let links = ["root", "cwd", "exe", "fd/0"].map(|name| format!("readlink /proc/{pid}/{name}"));
        for script in files.iter().chain(&links) {
            let output = bench.sh(worker, script)?;
            check(&format!("{script} fails"), output.exit != Exit::Code(0) && output.stdout.is_empty())?;
        }
    }
    let output = bench.sh(worker, &format!("kill -0 {own}"))?;
    check("the builder cannot be signalled", output.exit != Exit::Code(0))
}

fn hidden(bench: &Bench, worker: &mut Worker) -> Outcome {
    let output = bench.sh(worker, &format!("cat {}", bench.hide.display()))?;
    check("the file is gone", output.exit != Exit::Code(0))?;
    same(&std::fs::read_to_string(&bench.hide)?.as_str(), &"hunter2")
}

fn interrupted(bench: &Bench, worker: &mut Worker) -> Outcome {
    let interrupter = worker.interrupter();
    let began = Instant::now();
    let thread = std::thread::spawn(move || {
        std::thread::sleep(Duration::from_millis(300));
        interrupter.interrupt();
    });
    let result = bench.sh(worker, "echo x >/data/x; setsid sleep 54321 & sleep 100");
    let took = began.elapsed();
    thread.join().map_err(|_| "the thread panicked")?;
    check("it says so", matches!(result, Err(Error::Interrupted)))?;
    check("it took no time", took < Duration::from_secs(3))?;
    check("nothing runs any more", processes("54321").is_empty())?;
    check("so does the next call", matches!(bench.sh(worker, "true"), Err(Error::Interrupted)))
}

fn killed(bench: &Bench, worker: &mut Worker) -> Outcome {
    let thread = std::thread::spawn(|| {
        std::thread::sleep(Duration::from_millis(300));
        for pid in processes("__yadokari-worker") {
            let pid = rustix::process::Pid::from_raw(pid as i32);
            pid.map(|pid| rustix::process::kill_process(pid, rustix::process::Signal::KILL));
        }
    });
    let result = bench.sh(worker, "sleep 4");
    thread.join().map_err(|_| "the thread panicked")?;
    check("it says so", matches!(result, Err(Error::Died("worker"))))?;
    let mut next = bench.root()?;
    ok(&bench.sh(&mut next, "test -f /top")?)
}

/// Is killed during a RUN, and its worker with it. The next build has to clear up.
fn die(bench: &Bench) -> Result<usize, Box<dyn StdError>> {
    let mut worker = bench.root()?;
    let own = std::process::id();
    std::thread::spawn(move || {
        std::thread::sleep(Duration::from_millis(500));
        let pids = processes("__yadokari-worker").into_iter().chain([own]);
        for pid in pids.filter_map(|pid| rustix::process::Pid::from_raw(pid as i32)) {
            // The last one is ourselves.
            let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
        }
    });
    bench.run(&mut worker, &mounts::endless())?;
    Ok(1)
}
