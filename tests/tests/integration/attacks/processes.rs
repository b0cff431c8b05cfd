//! Other processes: those of the builder, the container's first one, and the RUN of another stage.

use std::collections::BTreeSet;

use yadokari_tests::{Base, Job, Live, Result, Signal};

use super::{all, came_through, context, isolated, places, tries};
use crate::drivers::{Place, volume};
use crate::in_place::THIEF;
use crate::site::{self, printed};

/// All that the attacker tries of a process.
const ALL: &str = "environ mem maps map_files fd root cwd exe overwrite ns process_vm_readv attach seize pidfd_getfd signal \
                   prlimit priority affinity ioprio oom_score_adj";

const TEXT: &str = "FROM busybox
COPY --chmod=755 attacker /attacker
RUN [\"/attacker\", \"fds\"]
RUN [\"/attacker\", \"look\"]
RUN [\"/attacker\", \"break\"]
RUN [\"/attacker\", \"kill\"]
USER 65534
RUN [\"/attacker\", \"look\"]
RUN [\"/attacker\", \"kill\"]
";

/// A process that is nobody's of the builder, with a secret in its environment.
fn victim() -> Job {
    Job::new(["/busybox/sh", "-c", "victim=1; while sleep 1; do :; done"]).env("TOKEN", SECRET)
}

const SECRET: &str = "planted-in-a-victim";

/// Waits for the victim, and tries everything on it.
fn try_without_a_sandbox(live: &mut Live) -> Result<BTreeSet<String>> {
    let mut victim = live.spawn(victim())?;
    live.exec(["/busybox/sh", "-c", "until ps | grep -q '[v]ictim=1'; do sleep 0.1; done"])?.ok("waiting")?;
    let looked = live.exec(["/workspace/attacker", "look"])?;
    assert!(victim.is_running()?, "{looked}");
    let killed = live.exec(["/workspace/attacker", "kill", "victim=1"])?;
    assert_eq!(victim.wait()?.code(), 137);
    Ok(came_through(&looked, "").union(&came_through(&killed, "")).cloned().collect())
}

/// What comes through in a RUN of root.
fn of_root(place: &Place) -> BTreeSet<String> {
    match place.driver {
        // It is the user whose files these are, and no process of the builder's has another one.
        "in-place" => {
            let all_there_are = ["first", "builder", "worker", "victim", "other"];
            all("oom_score_adj", &all_there_are)
                .union(&all("prlimit", &["first", "victim", "other"]))
                .cloned()
                .collect()
        }
        _ => BTreeSet::new(),
    }
}

#[test]
fn no_run_reads_stops_or_ends_another_process() -> Result<()> {
    let registry = site::registry(&[Base::Busybox])?;
    let context = context()?.file("Dockerfile", TEXT)?;
    for place in places() {
        let volume = volume()?;
        let mut live = place.container(&context, &volume)?.env("TOKEN", SECRET).start()?;

        let mut expected = all(ALL, &["first", "victim"]);
        expected.extend(all("stop kill", &["victim"]));
        if place.name == "docker" {
            // Docker's profile of seccomp refuses these to everybody.
            let refused = all("process_vm_readv pidfd_getfd", &["first", "victim"]);
            expected.retain(|what| !refused.contains(what));
        }
        let control = try_without_a_sandbox(&mut live)?;
        assert!(control.is_superset(&expected), "{}: {control:?}", place.name);

        let _victim = live.spawn(victim())?;
        let job = site::job(&registry, "Dockerfile", &format!("attacks/look:{}", place.name)).args(place.words());
        let output = live.exec(job)?.ok(place.name)?;
        let log = printed(&output);
        assert!(log.contains(&format!("sandbox: {}", place.driver)) && !log.contains(SECRET), "{log}");
        for whom in ["first", "builder", "worker", "victim"] {
            assert!(tries(&output, "3/7]").contains(&format!("no mem of {whom}")), "{whom}: {log}");
        }
        assert_eq!(came_through(&output, "3/7]"), of_root(place), "{}: {log}", place.name);
        for step in ["5/7]", "6/7]", "7/7]"] {
            assert!(tries(&output, step).len() > 4, "{log}");
            assert_eq!(came_through(&output, step), BTreeSet::new(), "{} {step}: {log}", place.name);
        }
    }
    Ok(())
}

#[test]
fn a_run_changes_nothing_of_the_container_and_has_no_descriptor_of_the_builder() -> Result<()> {
    let registry = site::registry(&[Base::Busybox])?;
    let context = context()?.file("Dockerfile", TEXT)?;
    for place in places() {
        let volume = volume()?;
        let job = site::job(&registry, "Dockerfile", &format!("attacks/break:{}", place.name)).args(place.words());
        let output = place.container(&context, &volume)?.run(job)?.ok(place.name)?;
        let log = printed(&output);
        // In place there is no root to get out of.
        let own = if place.driver == "in-place" { all("escape", &["it"]) } else { BTreeSet::new() };
        assert!(tries(&output, "4/7]").len() > 12, "{log}");
        assert_eq!(came_through(&output, "4/7]"), own, "{}: {log}", place.name);
        let lines = log.lines().filter(|line| line.contains("2/7]") && line.contains(" fd "));
        let descriptors: Vec<_> = lines.filter_map(|line| line.split(" fd ").nth(1)).collect();
        assert_eq!(descriptors.len(), 3, "{}: {log}", place.name);
        assert_eq!(descriptors[0], "0 /dev/null", "{}", place.name);
        assert!(descriptors[1].starts_with("1 pipe:") && descriptors[2].starts_with("2 pipe:"), "{descriptors:?}");
    }
    Ok(())
}

/// Two commands at the same time. The first one has a secret, the second one looks for it.
const BESIDE: &str = "FROM busybox AS victim
RUN --mount=type=secret,id=token,env=TOKEN --mount=type=secret,id=token --mount=type=cache,id=meet,target=/meet \\
    cp /run/secrets/token /dev/shm/copy && cp /run/secrets/token /copy && touch /meet/here && \\
    sh -c 'victim=1; for i in $(seq 600); do [ -e /meet/done ] && exit 0; sleep 0.1; done; exit 1' && rm /copy && touch /of-victim
FROM busybox
COPY --chmod=755 attacker thief /
RUN --mount=type=cache,id=meet,target=/meet for i in $(seq 600); do [ -e /meet/here ] && break; sleep 0.1; done; \\
    ps -o args | grep '[v]ictim=1' && /attacker look; sh /thief; cat /dev/shm/*; touch /meet/done
COPY --from=victim /of-victim /
";

#[test]
fn a_run_learns_nothing_of_one_beside_it() -> Result<()> {
    let registry = site::registry(&[Base::Busybox])?;
    let thief = THIEF.replace("plan[t]ed-in", "plan[t]ed-in-a-v");
    let context = context()?.file("Dockerfile", BESIDE)?.file("thief", thief)?;
    for place in isolated() {
        let volume = volume()?;
        let mut live = place.container(&context, &volume)?.file("/kaniko/token", SECRET).start()?;
        // Where nothing is between them, the script finds it.
        let victim = live.spawn(victim())?;
        live.exec(["/busybox/sh", "-c", "until ps | grep -q '[v]ictim=1'; do sleep 0.1; done"])?.ok("waiting")?;
        assert!(printed(&live.exec(["/busybox/sh", "/workspace/thief"])?).contains(SECRET), "{}", place.name);
        victim.signal(Signal::KILL)?;
        victim.wait()?;
        let name = format!("attacks/beside:{}", place.name);
        let job = site::job(&registry, "Dockerfile", &name).args(place.words());
        let output = live.exec(job.args(["--secret", "id=token,src=/kaniko/token"]))?.ok(place.name)?;
        let log = printed(&output);
        assert!(log.contains(" of victim") && !log.contains(SECRET), "{}: {log}", place.name);
        // The shell of its own is there for it, and it may slow down or end whom it shares the user on the machine with.
        let mut came = came_through(&output, "stage-1 2/3]");
        came.retain(|what| !what.ends_with(" of other"));
        let shared = "prlimit priority affinity ioprio oom_score_adj";
        assert_eq!(came, all(shared, &["victim"]), "{}: {log}", place.name);
    }
    Ok(())
}
