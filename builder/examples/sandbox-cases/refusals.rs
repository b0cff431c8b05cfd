//! What a RUN cannot have beside its image, whatever links and names say.

use std::path::Path;

use yadokari::sandbox::{MountKind, Network, Run, Worker};

use crate::Case;
use crate::bench::{Bench, Outcome, check, ok, same, shell};
use crate::mounts::{bind, cache_of, file, in_place, memory, message, run, source};

pub(crate) const CASES: &[Case] = &[
    ("mounts: links and names that lead out", attacks),
    ("mounts: what cannot be", refused),
    ("a RUN without a network", no_network),
];

fn attacks(bench: &Bench, worker: &mut Worker) -> Outcome {
    let source = source(bench, worker)?;
    for path in ["../../../../etc/passwd", "ctx/../../../../etc/passwd", "ctx/out", "ctx/climb", "ctx/out/passwd"] {
        let text = message(bench.run(worker, &run("cat /x", vec![bind(source, path, "/x", true)])));
        check(&text, text.contains("there is no '/") && text.contains("'/x'"))?;
    }
    for path in ["ctx/loop", "ctx/file/below"] {
        let text = message(bench.run(worker, &run("true", vec![bind(source, path, "/x", true)])));
        check(&text, text.contains("the mount at '/x'"))?;
    }
    ok(&bench.run(worker, &run("test -f /x/inner", vec![bind(source, "ctx/up", "/x", true)]))?)?;
    let seed = |path: &str| {
        let mut mount = cache_of("evil", "/cache");
        if let MountKind::Cache { seed, .. } = &mut mount.kind {
            *seed = Some((source, path.as_bytes().to_vec()));
        }
        mount
    };
    for path in ["../../../../etc", "ctx/out", "ctx/climb", "ctx/file"] {
        let text = message(bench.run(worker, &run("true", vec![seed(path)])));
        check(&text, text.contains("'/cache'") && (text.contains("there is no") || text.contains("no directory")))?;
    }
    for name in ["../other", "..", "/etc", "a/b", ""] {
        let text = message(bench.run(worker, &run("true", vec![cache_of(name, "/cache")])));
        check(&text, text.contains("is no name of a cache"))?;
    }
    // Links of the image lead nowhere else either.
    ok(&bench.sh(
        worker,
        "ln -s / /root0; ln -s ../../../../etc /data/up; ln -s /proc/self/cwd /magic; ln -s loop /loop",
    )?)?;
    bench.commit(worker)?;
    for target in ["/root0", "/root0/root0", "/data/up/.."] {
        let text = message(bench.run(worker, &run("true", vec![memory(target)])));
        check(&format!("{target}: {text}"), target.ends_with("..") || text.contains("nothing can be mounted over"))?;
    }
    let output =
        bench.run(worker, &run("cat /etc/planted", vec![file("here", "/data/up/planted", false, 0o644, 0)]))?;
    same(&output.stdout.as_str(), &"here")?;
    check("nothing is planted", !Path::new("/etc/planted").exists())?;
    let text = message(bench.run(worker, &run("true", vec![memory("/loop/x")])));
    check(&text, text.contains("/loop/x"))?;
    ok(&bench.sh(worker, "test -f /top")?)?;
    same(&bench.commit(worker)?, &None)
}

fn refused(bench: &Bench, worker: &mut Worker) -> Outcome {
    let source = source(bench, worker)?;
    for (mount, says) in [
        (memory("/"), "nothing can be mounted over"),
        (memory("/a/.."), "nothing can be mounted over"),
        (memory("relative"), "is no absolute path"),
        (bind(source, "ctx", "/top", true), "is a directory, and '/top' is none"),
        (bind(source, "ctx/file", "/data", true), "is no directory, and '/data' is one"),
        (memory("/top/below"), "/top"),
        (bind(source, "absent", "/x", true), "there is no '/absent'"),
    ] {
        let text = message(bench.run(worker, &run("true", vec![mount])));
        check(&format!("{says} in {text}"), text.contains(says) && text.contains("mount at '"))?;
    }
    if in_place(bench) {
        for target in ["/kaniko/x", "/dev", "/proc", "/dev/null"] {
            let text = message(bench.run(worker, &run("true", vec![memory(target)])));
            check(&format!("{target}: {text}"), text.contains("overlay or flat") || text.contains("is none"))?;
        }
    }
    ok(&bench.sh(worker, "test -f /top && test -d /data/deep")?)?;
    same(&bench.commit(worker)?, &None)
}

fn no_network(bench: &Bench, worker: &mut Worker) -> Outcome {
    let run = Run { network: Network::None, ..shell("tail -n +3 /proc/net/dev | wc -l; busybox ifconfig lo") };
    let result = bench.run(worker, &run);
    if in_place(bench) {
        let text = message(result);
        check(&text, text.contains("overlay or flat"))?;
        return ok(&bench.sh(worker, "test -f /top")?);
    }
    let output = result?;
    check(&output.stdout, output.stdout.starts_with("1\n") && output.stdout.contains("UP LOOPBACK"))?;
    check("the next has one", bench.sh(worker, "tail -n +3 /proc/net/dev | wc -l")?.stdout.as_str() != "1\n")
}
