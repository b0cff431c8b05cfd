//! Two pipelines at the same time, on one cache and one destination.

use std::time::Instant;

use yadokari_tests::{Base, Context, Result, Variant};

use super::{built, warnings};
use crate::site;

/// How often they race.
const ROUNDS: usize = 50;

/// So many rounds share a cache repository. In the first one it is empty.
const SHARED: usize = 5;

/// The first stage is the same for all rounds that share a cache, the last one is each round's own.
const TEXT: &str = "\
FROM busybox AS tool
RUN echo tool > /tool
FROM busybox
ARG ROUND
WORKDIR /w/$ROUND
COPY file /file
COPY --from=tool /tool /
RUN cat /file /tool > /both
";

#[test]
fn two_pipelines_on_one_cache_and_one_destination_make_whole_and_equal_images() -> Result<()> {
    let registry = site::registry(&[Base::Busybox])?;
    let context = Context::new()?.file("Dockerfile", TEXT)?.file("file", "content")?;
    // What a pipeline runs in makes no difference to what it makes.
    let mut first = site::container(Variant::Docker, context.path())?.start()?;
    let mut second = site::container(Variant::Unconfined, context.path())?.start()?;
    let (start, mut wrong) = (Instant::now(), Vec::new());
    for round in 0..ROUNDS {
        let (repository, cache) = (format!("race/app{round}"), format!("race/cache{}", round / SHARED));
        let words = ["--cache=true".to_owned(), format!("--cache-repo={}", registry.reference(&cache))];
        let words = [&words[..], &[format!("--build-arg=ROUND={round}")]].concat();
        let job = || site::job(&registry, "Dockerfile", &format!("{repository}:1")).args(words.clone());
        let racers = [first.spawn(job())?, second.spawn(job())?];
        let mut digests = Vec::new();
        for racer in racers {
            let output = racer.wait()?;
            if !output.success() || !warnings(&output).is_empty() {
                wrong.push(format!("round {round}: {output}"));
            }
            digests.push(built(&output));
        }
        digests.push(registry.manifest(&repository, "1")?.unwrap_or_default().0);
        if round % SHARED == 0 {
            // What no cache has had a part in.
            let name = format!("{repository}-plain");
            let job = site::job(&registry, "Dockerfile", &format!("{name}:1"));
            first.exec(job.args([format!("--build-arg=ROUND={round}")]))?.ok("without the cache")?;
            digests.push(registry.manifest(&name, "1")?.unwrap().0);
        }
        if digests.iter().any(|digest| *digest != digests[0]) {
            wrong.push(format!("round {round}: {digests:?}"));
        }
        wrong.extend(registry.flaws(&repository, "1")?.into_iter().map(|flaw| format!("round {round}: {flaw}")));
    }
    println!("{ROUNDS} races in {:.1} s", start.elapsed().as_secs_f64());
    for cache in 0..ROUNDS / SHARED {
        let cache = format!("race/cache{cache}");
        for tag in registry.tags(&cache)? {
            wrong.extend(registry.flaws(&cache, &tag)?.into_iter().map(|flaw| format!("{cache}:{tag}: {flaw}")));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    Ok(())
}
