//! Layers while other work goes on: they overlap with it, and their bytes do not depend on it.

use std::thread;
use std::time::{Duration, Instant};

use yadokari_tests::{Base, Context, Executor, Result};

use crate::drivers::{PLACES, Place, volume};
use crate::site::{self, printed};

fn place(name: &str) -> Place {
    PLACES.into_iter().find(|place| place.name == name).unwrap()
}

/// Where each driver is used.
const DRIVERS: [&str; 3] = ["docker", "unconfined", "flat"];

#[test]
fn a_layer_is_compressed_while_the_next_command_runs() -> Result<()> {
    let registry = site::registry(&[Base::Busybox])?;
    // Reading it takes a tenth of a second, compressing it seconds.
    let text = "FROM busybox\nRUN seq 1 6000000 > /numbers\nRUN sleep 1; rm /numbers; echo 0 > /numbers; echo over\n";
    let context = Context::new()?.file("Dockerfile", text)?;
    let mut digests = Vec::new();
    for name in DRIVERS {
        let (place, volume) = (place(name), volume()?);
        let mut live = place.container(&context, &volume)?.start()?;
        let job = site::job(&registry, "Dockerfile", &format!("packing/overlap:{name}"));
        let job = job.args(place.words()).args(["--compression-level", "9"]);
        let output = live.exec(job)?.ok(name)?;
        let text = printed(&output);
        let line = |text_of: &str| text.lines().position(|line| line.contains(text_of)).unwrap_or(usize::MAX);
        assert!(line("[stage-0 2/2] RUN") < line("[stage-0 1/2] done"), "{name}: {output}");
        assert!(line("[stage-0 1/2] done") < line("[stage-0 2/2] done"), "{name}: {output}");
        assert_eq!(live.left_behind(place.work_dir())?, "", "{name}");
        digests.push(registry.manifest("packing/overlap", name)?.unwrap_or_default().0);
    }
    assert!(digests.iter().all(|digest| *digest == digests[0]), "{digests:?}");
    Ok(())
}

#[test]
fn what_a_command_makes_is_sent_while_it_is_compressed() -> Result<()> {
    let registry = site::registry(&[Base::Busybox])?;
    let context =
        Context::new()?.file("Dockerfile", "FROM busybox\nRUN dd if=/dev/urandom of=/noise bs=1M count=24\n")?;
    // With a time that was given the layer could be in the registry already, and is looked for first.
    for (epoch, is_sent) in [("", true), (site::EPOCH, false)] {
        let (place, volume) = (place("unconfined"), volume()?);
        let mut live = place.container(&context, &volume)?.start()?;
        let destination = format!("{}/packing/ahead:1", registry.host());
        let job = Executor::job_at(registry.host()).args(["--destination", &destination, "--verbosity", "debug"]);
        let output = live.exec(job.args(place.words()).env("SOURCE_DATE_EPOCH", epoch))?.ok(epoch)?;
        // The registry takes a manifest only when it has the layers that it names.
        let (_, manifest) = registry.manifest("packing/ahead", "1")?.unwrap();
        let layer = manifest["layers"][1]["digest"].as_str().unwrap();
        let says = printed(&output).contains(&format!("{layer} was sent while it was compressed"));
        assert_eq!(says, is_sent, "{output}");
    }
    Ok(())
}

/// Several stages, layers of many blocks and of many files, contents that compress and that do not, links and deletions.
const MANY: &str = "FROM busybox AS one\nWORKDIR /one\nRUN seq 1 300000 > numbers && ln numbers again && echo x > gone\nRUN rm gone; echo y > here\n\
    FROM busybox AS two\nCOPY noise /noise\nRUN cat /noise /noise > /twice\n\
    FROM busybox AS three\nRUN for n in $(seq 1 300); do mkdir -p /many/$n; echo $n > /many/$n/file; done\n\
    FROM one\nCOPY --from=two /twice /noise /two/\nCOPY --from=three /many /many\nRUN rm -r /many/7; cat /two/twice > /end; chmod 600 /two/noise\n";

#[test]
fn threads_drivers_and_the_clock_do_not_show_in_the_digest() -> Result<()> {
    let registry = site::registry(&[Base::Busybox])?;
    let context = Context::new()?.noise("noise", 3 << 20)?.file("Dockerfile", MANY)?;
    let began = Instant::now();
    let mut tags = Vec::new();
    for round in [1, 2] {
        for name in DRIVERS {
            let (place, volume) = (place(name), volume()?);
            let mut live = place.container(&context, &volume)?.start()?;
            for (threads, compression) in [("1", "gzip"), ("2", "gzip"), ("8", "gzip"), ("8", "zstd")] {
                let tag = format!("{compression}-{name}-{threads}-{round}");
                let job = site::job(&registry, "Dockerfile", &format!("packing/many:{tag}"));
                let job = job.args(["--jobs", threads, "--compression", compression]).args(place.words());
                live.exec(job.env("RAYON_NUM_THREADS", threads))?.ok(&tag)?;
                tags.push(tag);
            }
        }
        if round == 1 {
            // The next round is another one by the clock, whatever its unit is.
            thread::sleep(Duration::from_secs(10).saturating_sub(began.elapsed()));
        }
    }
    for (compression, builds) in [("gzip", 18), ("zstd", 6)] {
        let of = tags.iter().filter(|tag| tag.starts_with(compression));
        let digests: Result<Vec<(&String, String)>> =
            of.map(|tag| Ok((tag, registry.manifest("packing/many", tag)?.unwrap_or_default().0))).collect();
        let digests = digests?;
        assert_eq!(digests.len(), builds);
        assert!(digests.iter().all(|(_, digest)| *digest == digests[0].1), "{digests:?}");
    }
    Ok(())
}
