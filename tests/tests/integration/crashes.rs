//! A builder that is killed loses nothing but its work. The example `crash` kills hundreds.

use std::time::Duration;

use yadokari_tests::{Base, Chance, Context, Crashes, Result, Signal, Variant};

use crate::site;

/// How many builds are killed with each driver.
const ROUNDS: usize = 4;

#[test]
fn a_build_that_was_killed_at_any_moment_is_built_again() -> Result<()> {
    let mut chance = Chance(7);
    for driver in ["in-place", "overlay"] {
        let mut crashes = Crashes::new(driver)?;
        for number in 0..ROUNDS {
            // One in each part of the build.
            let part = (number as f64 + chance.next().unwrap_or_default()) / ROUNDS as f64;
            let after = crashes.takes.mul_f64(part);
            let round = crashes.round(&format!("round-{number}"), after, Duration::ZERO)?;
            assert!(round.wrong.is_empty(), "{driver}, after {after:?}: {}", round.wrong.join("\n"));
        }
        assert_eq!(crashes.leaks()?, [""; 0], "{driver}");
    }
    Ok(())
}

#[test]
fn the_next_build_waits_until_a_killed_one_has_put_everything_back() -> Result<()> {
    let registry = site::registry(&[Base::Busybox])?;
    let stubborn = "FROM busybox\nRUN trap '' TERM; touch /touched; echo waiting; while :; do sleep 1; done\n";
    let context = Context::new()?.file("stubborn", stubborn)?.file("good", "FROM busybox\nRUN touch /new\n")?;
    let config = "{\"auths\": {}}";
    let container = site::container(Variant::Docker, context.path())?.file("/kaniko/.docker/config.json", config);
    let mut live = container.start()?;
    let before = live.own_files()?;
    let mut killed = live.spawn(site::job(&registry, "stubborn", "crashes:1"))?;
    killed.wait_for(" waiting\n")?;
    killed.signal(Signal::KILL)?;
    // What is in `/` is still the image's, and the credentials are away. What is in their place then is not kept.
    assert!(live.path("/touched").exists() && !live.path("/busybox").exists());
    let hidden = live.path("/kaniko/.docker/config.json");
    assert!(!hidden.exists());
    std::fs::write(&hidden, "{\"auths\": false}").unwrap();

    let output = live.exec(site::job(&registry, "good", "crashes:2"))?.ok("the build after it")?;
    assert!(output.elapsed >= Duration::from_secs(5), "{output}");
    assert!(!killed.wait()?.success());
    assert_eq!(before.difference(&live.own_files()?), "");
    assert_eq!(live.left_behind("/kaniko/work")?, "");
    assert_eq!(live.exec(["cat", "/kaniko/.docker/config.json"])?.text("cat")?, config);
    assert_eq!(registry.tags("crashes")?, ["2"]);
    Ok(())
}
