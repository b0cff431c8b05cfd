//! A registry under load, and one that is restarted while it is pushed to.

use std::collections::BTreeSet;
use std::fs;
use std::process::Command;
use std::thread;
use std::time::Duration;

use yadokari_tests::{Context, Executor, Fleet, HeldProxy, PATIENCE, Registry, Result, Running};

use crate::site::{EPOCH, printed};

/// How many executors are started at once here; the example `load` starts more.
const EXECUTORS: usize = 10;

#[test]
fn many_executors_share_a_registry_and_a_cache() -> Result<()> {
    let (registry, program) = (Registry::start()?, Executor::build()?.program());
    let fleet = Fleet::new(&registry, EXECUTORS)?;
    let first = fleet.processes(&program, "first")?;
    assert_eq!(first.troubles(), [""; 0], "{first}");
    let (images, flaws) = fleet.inspect("first")?;
    assert_eq!(flaws, [""; 0]);
    assert_eq!(images.iter().collect::<BTreeSet<_>>().len(), EXECUTORS / 2 + 1, "what has the same files is the same");
    // What they left in the cache is what they built: the same images come of it, for other destinations.
    let again = fleet.processes(&program, "again")?;
    assert_eq!(again.troubles(), [""; 0], "{again}");
    assert_eq!(fleet.inspect("again")?, (images, Vec::new()));
    for (repository, digest) in again.traffic.uploads().into_iter().filter(|(to, _)| to.contains("/again/")) {
        let (_, manifest) = registry.manifest(&repository, "1")?.unwrap_or_default();
        assert_eq!(manifest["config"]["digest"], digest, "{repository}: layers are linked from the cache");
    }
    Ok(())
}

/// Where a push is when its registry dies: the words on the wire, and how many bytes of the request came after them.
const MOMENTS: [(&str, &str, usize); 4] = [
    ("before a layer's session", "POST /v2/restarted/app/blobs/uploads/ ", 0),
    ("at the beginning of a layer", "PUT /v2/restarted/app/blobs/uploads/", 0),
    ("in the middle of a layer", "PUT /v2/restarted/app/blobs/uploads/", 5 << 20),
    ("between the blobs and the manifest", "PUT /v2/restarted/app/manifests/1 ", 0),
];

#[test]
fn a_registry_that_is_restarted_in_mid_push_gets_a_whole_image() -> Result<()> {
    let program = Executor::build()?.program();
    let context = Context::new()?
        .noise("large", 12 << 20)?
        .file("small", "small")?
        .file("Dockerfile", "FROM scratch\nCOPY large /\nCOPY small /\n")?;
    let mut digests = BTreeSet::new();
    for (what, words, behind) in MOMENTS {
        // For a moment nobody is there, or only the next connection is answered.
        for away in [Duration::ZERO, Duration::from_secs(2)] {
            let mut registry = Registry::start()?;
            let proxy = HeldProxy::start(registry.host(), words, behind)?;
            let work = Context::new()?;
            let destination = format!("{}/restarted/app:1", proxy.host());
            let mut command = Command::new(&program);
            command.env_clear().env("HOME", work.path()).env("SOURCE_DATE_EPOCH", EPOCH);
            command.args(["--dockerfile", "Dockerfile", "--destination", &destination, "--context"]);
            command.arg(context.path()).arg("--work-dir").arg(work.path().join("work"));
            let process = Running::start(&mut command)?;
            proxy.wait(Duration::from_secs(60))?;
            let before = registry.served()?;
            assert!(
                !before.iter().any(|served| served.path.contains("/manifests/1") && served.method == "PUT"),
                "{what}"
            );
            registry.stop();
            proxy.release();
            thread::sleep(away);
            registry.restart()?;
            let output = process.wait(PATIENCE)?;
            assert!(output.success(), "{what}, away for {away:?}: {output}");
            assert!(!printed(&output).contains("panicked"), "{output}");
            assert_eq!(registry.flaws("restarted/app", "1")?, [""; 0], "{what}");
            digests.extend(registry.manifest("restarted/app", "1")?.map(|(digest, _)| digest));
            let left: Vec<_> = fs::read_dir(work.path().join("work")).unwrap().flatten().collect();
            assert!(left.iter().all(|entry| entry.file_name() == "lock"), "{what}: {left:?}");
        }
    }
    assert_eq!(digests.len(), 1, "it is the same image however it got there");
    Ok(())
}
