//! Many builds in one container, one after the other.

use std::path::Path;

use walkdir::WalkDir;

use crate::error::{At, Error, Result};
use crate::{Base, Context, Executor, Job, Live, Registry, Variant};

/// Where the volume of a container is that has one.
const VOLUME: &str = "/volume";

const GOOD: &str = "FROM busybox AS made
RUN --mount=type=cache,target=/kept --mount=type=secret,id=word test -s /run/secrets/word && echo x > /kept/x && \
 dd if=/dev/zero of=/large bs=1M count=8 2>/dev/null
FROM busybox
ARG N
RUN mkdir /a /b && echo $N > /a/number && rm -r /tmp
COPY --from=made /large /large
";
const FAILS: &str = "FROM busybox\nRUN sleep 1000 & touch /new /tmp/new; (sleep 1000 &) ; exit 3\n";

/// A container in which builds follow each other.
#[derive(Debug)]
pub struct Soak {
    registry: Registry,
    driver: &'static str,
    volume: Context,
    live: Live,
    builds: u32,
    _context: Context,
}

/// What a container holds when no build runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Held {
    /// The files that were written and are still there: below the root, in the volume and in shared memory.
    pub files: usize,
    /// Their bytes.
    pub bytes: u64,
    /// The processes that a build left, and so all descriptors that one could have left.
    pub processes: String,
}

impl Soak {
    /// A container for builds with `driver`.
    pub fn new(driver: &'static str) -> Result<Self> {
        let registry = Registry::start()?;
        registry.hold(Base::Busybox)?;
        let context = Context::new()?.file("good", GOOD)?.file("fails", FAILS)?.file("word", "a secret")?;
        let volume = Context::new()?;
        let variant = if driver == "in-place" { Variant::Docker } else { Variant::Unconfined };
        let container = Executor::build()?.debug_container(variant).readonly_volume(context.path(), "/workspace");
        let live = container.volume(volume.path(), VOLUME).start()?;
        Ok(Self { registry, driver, volume, live, builds: 0, _context: context })
    }

    /// Three builds: one that executes everything, the same from the cache, and one that fails. Returns the most memory that one
    /// of their processes had, in KiB.
    pub fn cycle(&mut self) -> Result<u64> {
        self.builds += 1;
        let n = self.builds;
        let mut most = 0;
        for (dockerfile, fails) in [("good", false), ("good", false), ("fails", true)] {
            let output = self.live.exec(self.job(dockerfile, n))?;
            if output.success() == fails {
                return Err(Error::Command { line: format!("build {n} of {dockerfile}"), output });
            }
            let label = "Maximum resident set size (kbytes): ";
            let peak = output.stderr.lines().find_map(|line| line.trim().strip_prefix(label)?.parse::<u64>().ok());
            // busybox takes the kernel's KiB for pages of 4 KiB.
            most = most.max(peak.map_or(u64::MAX, |peak| peak / 4));
        }
        Ok(most)
    }

    /// What is held now.
    pub fn held(&mut self) -> Result<Held> {
        let processes = self.live.processes()?;
        let shared = self.live.exec(["/busybox/sh", "-c", "ls -A /dev/shm | wc -l"])?.text("ls")?;
        let mut held = Held { files: shared.trim().parse().unwrap_or(usize::MAX), bytes: 0, processes };
        for place in [self.live.written(), self.volume.path().to_owned()] {
            let (files, bytes) = size(&place)?;
            held.files += files;
            held.bytes += bytes;
        }
        Ok(held)
    }

    fn job(&self, dockerfile: &str, n: u32) -> Job {
        let work_dir = if self.driver == "in-place" { "/kaniko/work" } else { VOLUME };
        let destination = self.registry.reference("soak:1");
        let number = format!("N={n}");
        let words = ["--dockerfile", dockerfile, "--driver", self.driver, "--work-dir", work_dir, "--cache"];
        let job = Executor::job(&self.registry).args(words);
        let job = job.args([
            "--destination",
            &destination,
            "--build-arg",
            &number,
            "--secret",
            "id=word,src=/workspace/word",
        ]);
        job.under(["/busybox/busybox", "time", "-v"])
    }
}

fn size(place: &Path) -> Result<(usize, u64)> {
    let (mut files, mut bytes) = (0, 0);
    for found in WalkDir::new(place) {
        let metadata = found.and_then(|found| found.metadata()).map_err(std::io::Error::from).at("list", place)?;
        files += 1;
        bytes += metadata.len();
    }
    Ok((files, bytes))
}
