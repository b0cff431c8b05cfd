//! The Flask application again, of which nothing changed, or one file of the last stage: the build that a CI system does
//! most often, in a container that has nothing but the registry.

use std::fs;
use std::time::Duration;

use yadokari_tests::{Base, Image, Output, Result, SlowProxy, Variant};

use super::{Build, built, layers, warnings};
use crate::site::{self, printed};
use crate::{flask, site::EPOCH};

/// How long the registry takes to answer, where it is far.
const FAR: Duration = Duration::from_millis(50);

/// Four round trips, and what the build itself may take.
const FAR_LIMIT: f64 = 0.3;

/// A fifth of what BuildKit takes for the same on loopback, which is 0.55 s.
const NEAR_LIMIT: f64 = 0.11;

/// How often the time is taken: other programs run on this machine, too, and the best time is that of the build.
const ATTEMPTS: usize = 5;

/// The seconds that `time -p` measured.
fn seconds(output: &Output) -> f64 {
    let text = printed(output);
    let line = text.lines().find_map(|line| line.strip_prefix("real "));
    line.and_then(|seconds| seconds.trim().parse().ok()).unwrap_or_else(|| panic!("no time in {text}"))
}

#[test]
fn the_flask_application_unchanged_is_eight_requests_and_no_layer_and_a_changed_file_is_one() -> Result<()> {
    let registry = site::registry(&[Base::Python])?;
    let proxy = SlowProxy::start(registry.host(), Duration::ZERO)?;
    let context = flask::context()?;
    let epoch = format!("SOURCE_DATE_EPOCH={EPOCH}");
    // A container of its own for each build: nothing is left of the one before.
    let build = |name: &str| {
        let job = site::job_at(proxy.host(), "Dockerfile.dated", name).args(["--cache=true", "--build-arg", &epoch]);
        let mark = registry.mark()?;
        let job = job.under(["/busybox/time", "-p"]);
        let output = site::container(Variant::Docker, context.path())?.run(job)?.ok(name)?;
        assert_eq!(warnings(&output), [""; 0]);
        Ok::<_, yadokari_tests::Error>(Build { output, traffic: registry.traffic(mark)? })
    };

    let cold = build("team/app:1")?;
    assert!(printed(&cold.output).contains("sandbox: in-place"), "{}", cold.output);
    let digest = built(&cold.output);
    let image = layers(&registry, "team/app:1")?;
    let of_base = layers(&registry, "library/python:3.11-slim")?;
    assert!(of_base.len() < image.len() && image.starts_with(&of_base), "{image:?}");

    for name in ["team/app:1", "team/app:2"] {
        let again = build(name)?;
        let text = format!("{name}\n{}{}", again.traffic.lines(), again.output);
        assert!(again.traffic.0.len() <= 8, "{text}");
        assert_eq!(again.traffic.uploads(), [], "{text}");
        again.pulled_none_of(&image);
        assert!(!printed(&again.output).contains("sandbox: "), "{text}");
        let (repository, tag) = name.split_once(':').unwrap();
        let pushed = registry.manifest(repository, tag)?.unwrap().0;
        assert_eq!([&built(&again.output), &pushed], [&digest, &digest], "{text}");
        let moved: u64 = again.traffic.0.iter().map(|served| served.bytes).sum();
        println!("{name}: {} requests, {moved} bytes of answers", again.traffic.0.len());
    }

    for (delay, limit) in [(FAR, FAR_LIMIT), (Duration::ZERO, NEAR_LIMIT)] {
        proxy.delay(delay);
        let times = (0..ATTEMPTS).map(|_| build("team/app:1").map(|build| seconds(&build.output)));
        let times = times.collect::<Result<Vec<_>>>()?;
        println!("with answers after {delay:?}: {times:?} s");
        let best = times.iter().copied().fold(f64::INFINITY, f64::min);
        assert!(best < limit, "with answers after {delay:?}: {times:?} s, not {limit}");
    }

    let source = fs::read_to_string(context.path().join("app/main.py")).unwrap();
    let changed = source.replace("\"hello\"", "\"goodbye\"");
    assert_ne!(source, changed);
    fs::write(context.path().join("app/main.py"), changed).unwrap();
    let changed = build("team/app:3")?;
    let now = layers(&registry, "team/app:3")?;
    let text = format!("{}{}", changed.traffic.lines(), changed.output);
    assert_eq!(now[..now.len() - 1], image[..image.len() - 1], "{text}");
    assert_eq!(changed.pushed_of(&now), now[now.len() - 1..], "{text}");
    changed.pulled_none_of(&image);
    assert!(!printed(&changed.output).contains("sandbox: "), "{text}");
    // Neither is anything else moved that is as large as a layer: what remains are configs and records.
    for (repository, digest) in changed.traffic.uploads().into_iter().filter(|(_, digest)| !now.contains(digest)) {
        let size = registry.blob(&repository, &digest)?.unwrap().len();
        assert!(size < 64 << 10, "{digest} has {size} bytes\n{text}");
    }
    let answer = flask::answer(&Image::pull(&registry.reference("team/app:3"))?)?;
    assert!(answer.contains("\"goodbye\":\"yadokari, the hermit crab\""), "{answer}");
    Ok(())
}
