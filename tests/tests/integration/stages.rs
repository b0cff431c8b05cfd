//! Several stages at once, with commands.

use std::time::Duration;

use yadokari_tests::{Base, Context, Registry, Result};

use crate::drivers::{PLACES, Place, volume};
use crate::site::{self, printed};

/// How many stages wait.
const STAGES: u32 = 4;

/// Tells how urgent a command is.
const NICE: &str = "cut -d' ' -f19 /proc/self/stat";

/// Stages that each wait for two seconds, and one that takes from all of them and has a command of its own: its root is made
/// behind the commands of the others, and its command is as urgent as theirs.
fn waiting() -> String {
    let stage =
        |n| format!("FROM busybox AS s{n}\nCOPY file /file{n}\nRUN sleep 2; echo said by {n}; {NICE} > /made{n}\n");
    let copy = |n| format!("COPY --from=s{n} /made{n} /file{n} /all/\n");
    let stages: String = (0..STAGES).map(stage).collect();
    let copies: String = (0..STAGES).map(copy).collect();
    format!("{stages}FROM busybox\n{copies}RUN {NICE} | cmp - /all/made0 && cat /all/* > /seen\n")
}

fn place(name: &str) -> Place {
    PLACES.into_iter().find(|place| place.name == name).unwrap()
}

fn digest(registry: &Registry, tag: &str) -> Result<String> {
    Ok(registry.manifest("stages/waiting", tag)?.unwrap_or_default().0)
}

#[test]
fn independent_stages_run_at_once_and_in_place_in_turns() -> Result<()> {
    let registry = site::registry(&[Base::Busybox])?;
    let context = Context::new()?.file("file", "content\n")?.file("Dockerfile", waiting())?;
    let one_by_one = Duration::from_secs(2) * STAGES;
    let mut expected = None;
    for (name, jobs) in [("unconfined", "4"), ("unconfined", "1"), ("docker", "4")] {
        let (place, volume, tag) = (place(name), volume()?, format!("{name}-{jobs}"));
        let mut live = place.container(&context, &volume)?.start()?;
        let job = site::job(&registry, "Dockerfile", &format!("stages/waiting:{tag}")).args(["--jobs", jobs]);
        let output = live.exec(job.args(place.words()))?.ok(&tag)?;
        let text = printed(&output);
        assert!(text.contains(&format!("sandbox: {}", place.driver)), "{output}");
        if tag == "unconfined-4" {
            assert!(output.elapsed < one_by_one - Duration::from_secs(2), "{tag}: {output}");
        } else {
            assert!(output.elapsed >= one_by_one, "{tag}: {output}");
        }
        // Whoever says something says who he is.
        for n in 0..STAGES {
            let said: Vec<&str> = text.lines().filter(|line| line.ends_with(&format!("said by {n}"))).collect();
            assert!(matches!(said[..], [line] if line.starts_with(&format!("[s{n} 2/2] "))), "{said:?}\n{output}");
        }
        let found = digest(&registry, &tag)?;
        assert_eq!(expected.get_or_insert_with(|| found.clone()), &found, "{tag}: {output}");
        assert_eq!(live.left_behind(place.work_dir())?, "", "{tag}");
    }
    Ok(())
}

#[test]
fn a_stage_that_fails_ends_the_commands_of_the_others() -> Result<()> {
    let registry = site::registry(&[Base::Busybox])?;
    let text = "FROM busybox AS long\nRUN sleep 100\nFROM busybox AS bad\nRUN sleep 2; exit 7\nFROM busybox AS trap\n\
                RUN trap '' HUP; sleep 100\nFROM busybox\nCOPY --from=long / /a\nCOPY --from=bad / /b\nCOPY --from=trap / /c\n";
    let context = Context::new()?.file("Dockerfile", text)?;
    let place = place("unconfined");
    let volume = volume()?;
    let mut live = place.container(&context, &volume)?.start()?;
    let job = site::job(&registry, "Dockerfile", "stages/failed:1").args(place.words());
    let output = live.exec(job)?;
    assert_eq!(output.code(), 7, "{output}");
    assert!(output.elapsed < Duration::from_secs(40), "{output}");
    let text = printed(&output);
    assert!(text.contains("exit code 7") && !text.contains("given up") && !text.contains("interrupted"), "{output}");
    assert_eq!(live.exec(["/busybox/sh", "-c", "ps -o args | grep '^sleep 100' || true"])?.text("ps")?, "");
    assert_eq!(live.left_behind(place.work_dir())?, "");
    assert_eq!(registry.tags("stages/failed")?, [""; 0]);
    Ok(())
}
