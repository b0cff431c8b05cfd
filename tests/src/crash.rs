//! Builds that are killed at any moment, and what is there afterwards.

use std::thread;
use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::error::Result;
use crate::{Base, CREDENTIALS, Container, Context, Executor, Job, Listing, Live, Output, Registry, Variant, holds};

/// Two stages, a cache, files that are made, changed, moved and removed, and pauses in which something can happen.
const DOCKERFILE: &str = "FROM busybox AS made
RUN --mount=type=cache,target=/kept test ! -e /kaniko/.docker/config.json; echo x >> /kept/runs; \
 mkdir /large && for n in 1 2 3 4; do dd if=/bin/busybox of=/large/$n bs=64k 2>/dev/null; done; usleep 100000
FROM busybox
COPY Dockerfile /first
RUN test ! -e /kaniko/.docker/config.json && rm -r /usr && mv /tmp /temporary && chmod 700 /etc && usleep 100000
COPY --from=made /large /large
RUN echo mine > /etc/mine && ln /first /second && usleep 50000
";

/// Where the volume of a container is that has one.
const VOLUME: &str = "/volume";

/// A build that is killed again and again, in one container that stays.
#[derive(Debug)]
pub struct Crashes {
    registry: Registry,
    driver: &'static str,
    volume: Context,
    context: Context,
    live: Live,
    /// What the container was like before the first build.
    before: Listing,
    /// The image's manifest.
    digest: String,
    /// How long the whole build takes.
    pub takes: Duration,
}

/// What came of killing one build.
#[derive(Debug)]
pub struct Killed {
    /// Whether it had not ended by itself.
    pub was_killed: bool,
    /// Whether it had pushed its tag.
    pub had_tag: bool,
    /// Everything that is not as it should be.
    pub wrong: Vec<String>,
}

impl Crashes {
    /// Builds once with `driver`, undisturbed.
    pub fn new(driver: &'static str) -> Result<Self> {
        let registry = Registry::with_password()?;
        registry.hold(Base::Busybox)?;
        let (volume, context) = (Context::new()?, Context::new()?.file("Dockerfile", DOCKERFILE)?);
        let mut live = container(driver, &registry, &context, &volume)?.start()?;
        let (before, start) = (live.own_files()?, Instant::now());
        live.exec(job(driver, &registry, "whole"))?.ok("a build that nobody disturbs")?;
        let takes = start.elapsed();
        let digest = registry.manifest("crash/whole", "1")?.map(|(digest, _)| digest).unwrap_or_default();
        Ok(Self { registry, driver, volume, context, live, before, digest, takes })
    }

    /// Kills a build after some time, and builds again: in the same container, at once or after `pause`, and in a fresh one. The
    /// `name` is new in each round, so that nothing is cached but by the build that is killed.
    pub fn round(&mut self, name: &str, after: Duration, pause: Duration) -> Result<Killed> {
        let mut wrong = Vec::new();
        let mut build = self.live.spawn(job(self.driver, &self.registry, name))?;
        thread::sleep(after);
        let was_killed = build.is_running()? && build.signal(Signal::KILL)?;
        let had_tag = self.registry.manifest(&repository(name), "1")?.is_some();
        if had_tag {
            self.whole(name, "the killed build's image", &mut wrong)?;
        }
        thread::sleep(pause);
        let again = self.live.exec(job(self.driver, &self.registry, name))?;
        self.came_through(&again, name, "the same container", &mut wrong)?;
        // This waits for its workers, too, and the build after it had to come to terms with them.
        wrong.extend(panics(&build.wait()?));
        let mut fresh = container(self.driver, &self.registry, &self.context, &self.volume)?.start()?;
        let again = fresh.exec(job(self.driver, &self.registry, name))?;
        self.came_through(&again, name, "a fresh container", &mut wrong)?;
        drop(fresh);
        self.is_tidy(&mut wrong)?;
        Ok(Killed { was_killed, had_tag, wrong })
    }

    /// Where the planted password is that no build may write down: files of the container but the one that brought it, the volume,
    /// and what the registry keeps.
    pub fn leaks(&self) -> Result<Vec<String>> {
        let mut leaks = Vec::new();
        for place in [self.live.written(), self.volume.path().to_owned(), self.registry.storage()] {
            for found in walkdir::WalkDir::new(&place).into_iter().flatten() {
                let is_ours = found.path().ends_with("kaniko/.docker/config.json");
                let bytes = if found.file_type().is_file() { std::fs::read(found.path()) } else { Ok(Vec::new()) };
                if !is_ours && bytes.is_ok_and(|bytes| holds(&bytes, CREDENTIALS.1)) {
                    leaks.push(found.path().display().to_string());
                }
            }
        }
        Ok(leaks)
    }

    fn came_through(&self, output: &Output, name: &str, place: &str, wrong: &mut Vec<String>) -> Result<()> {
        wrong.extend(panics(output));
        if output.success() {
            self.whole(name, place, wrong)
        } else {
            wrong.push(format!("in {place}: {output}"));
            Ok(())
        }
    }

    fn whole(&self, name: &str, place: &str, wrong: &mut Vec<String>) -> Result<()> {
        let repository = repository(name);
        let found = self.registry.manifest(&repository, "1")?.map(|(digest, _)| digest);
        if found.as_ref() != Some(&self.digest) {
            wrong.push(format!("{place}: the image is {found:?} and not {}", self.digest));
        }
        wrong.extend(self.registry.flaws(&repository, "1")?.into_iter().map(|flaw| format!("{place}: {flaw}")));
        Ok(())
    }

    /// The container is as before the first build, and nothing runs in it or lies about.
    fn is_tidy(&mut self, wrong: &mut Vec<String>) -> Result<()> {
        let difference = self.before.difference(&self.live.own_files()?);
        let left = self.live.left_behind(work_dir(self.driver))?;
        let left: Vec<&str> = left.lines().filter(|path| !path.contains("/caches")).collect();
        let running = self.live.processes()?;
        let found = [("changed", difference), ("left behind", left.join("\n")), ("running", running)];
        wrong.extend(
            found.into_iter().filter(|(_, text)| !text.is_empty()).map(|(what, text)| format!("{what}: {text}")),
        );
        Ok(())
    }
}

fn repository(name: &str) -> String {
    format!("crash/{name}")
}

fn panics(output: &Output) -> Option<String> {
    output.stderr.contains("panicked").then(|| format!("a panic: {output}"))
}

fn work_dir(driver: &str) -> &'static str {
    if driver == "overlay" { VOLUME } else { "/kaniko/work" }
}

fn container(driver: &str, registry: &Registry, context: &Context, volume: &Context) -> Result<Container> {
    let variant = if driver == "in-place" { Variant::Docker } else { Variant::Unconfined };
    let container = Executor::build()?.debug_container(variant).readonly_volume(context.path(), "/workspace");
    let container = container.file("/kaniko/.docker/config.json", registry.docker_config().to_string());
    Ok(if driver == "overlay" { container.volume(volume.path(), VOLUME) } else { container })
}

fn job(driver: &str, registry: &Registry, name: &str) -> Job {
    let destination = registry.reference(&format!("{}:1", repository(name)));
    let cache = registry.reference(&format!("crash/{name}/cache"));
    let words = ["--driver", driver, "--work-dir", work_dir(driver), "--destination", &destination];
    Executor::job(registry).env("SOURCE_DATE_EPOCH", "1000000000").args(words).args(["--cache", "--cache-repo", &cache])
}

/// Numbers that look random and are the same each time, from 0 up to 1.
#[derive(Debug)]
pub struct Chance(pub u64);

impl Iterator for Chance {
    type Item = f64;

    /// The generator is SplitMix64 (Steele, Lea and Flood, 2014).
    fn next(&mut self) -> Option<f64> {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        Some(((mixed ^ (mixed >> 31)) >> 11) as f64 / (1u64 << 53) as f64)
    }
}
