//! Builds that have too little disk or memory for one of their phases: they end with an error, and nothing else.

use std::path::Path;

use yadokari_tests::{Base, Container, Context, Job, Output, Registry, Result, Variant};

use crate::site::{self, printed};

/// What a phase after the other takes: a base, a copied layer, an executed one, a stage that is copied from.
const DOCKERFILE: &str = "FROM busybox AS made
COPY noise /noise
RUN cat /noise /noise > /twice
FROM busybox
RUN dd if=/dev/urandom of=/gone bs=1M count=2 && rm /gone && touch /new
COPY --from=made /twice /twice
RUN cat /twice > /again
";

/// The bytes of the context, which nothing compresses.
const NOISE: usize = 4 << 20;

/// A registry with the image as it should be, and what it is built from.
struct Scarce {
    registry: Registry,
    context: Context,
    digest: String,
}

impl Scarce {
    fn new() -> Result<Self> {
        let registry = site::registry(&[Base::Busybox])?;
        let context = Context::new()?.noise("noise", NOISE)?.file("Dockerfile", DOCKERFILE)?;
        let mut scarce = Self { registry, context, digest: String::new() };
        scarce
            .container(Variant::Unconfined)?
            .run(scarce.job("whole").args(["--driver", "flat"]))?
            .ok("the reference")?;
        scarce.digest = scarce.registry.manifest("scarce/whole", "1")?.unwrap().0;
        Ok(scarce)
    }

    fn container(&self, variant: Variant) -> Result<Container> {
        site::container(variant, self.context.path())
    }

    fn job(&self, name: &str) -> Job {
        site::job(&self.registry, "Dockerfile", &format!("scarce/{name}:1"))
    }

    /// Whether the build came to its end: then the image is what it should be, and otherwise there is none.
    fn is_whole_or_absent(&self, name: &str, output: &Output) -> Result<bool> {
        assert!(!output.stderr.contains("panicked"), "{name}: {output}");
        let repository = format!("scarce/{name}");
        let pushed = self.registry.manifest(&repository, "1")?.map(|(digest, _)| digest);
        if output.success() {
            assert_eq!(pushed.as_ref(), Some(&self.digest), "{name}: {output}");
            assert_eq!(self.registry.flaws(&repository, "1")?, [""; 0], "{name}");
        } else {
            assert_eq!(pushed, None, "{name}: {output}");
        }
        Ok(output.success())
    }
}

#[test]
fn a_disk_that_fills_up_in_any_phase_ends_the_build_and_nothing_else() -> Result<()> {
    let scarce = Scarce::new()?;
    for driver in ["overlay", "flat"] {
        let (mut failed, mut codes) = (0, Vec::new());
        for megabytes in [1, 2, 4, 6, 8, 12, 16, 20, 28, 40, 80] {
            let mut live = scarce.container(Variant::Unconfined)?.small_volume(megabytes << 20, "/small").start()?;
            let name = format!("{driver}-{megabytes}");
            let output = live.exec(scarce.job(&name).args(["--driver", driver, "--work-dir", "/small"]))?;
            if !scarce.is_whole_or_absent(&name, &output)? {
                failed += 1;
                codes.push(output.code());
                let said = printed(&output);
                assert!(said.contains("No space left on device"), "{name}: {said}");
                assert!(said.contains("--work-dir") || said.contains("is on a disk with "), "{name}: {said}");
            }
            assert_eq!(live.left_behind("/small")?, "", "{name}");
        }
        codes.dedup();
        assert!((4..11).contains(&failed), "{driver}: {failed} of 11 failed");
        assert!(codes.contains(&74) && codes.contains(&1), "the disk was full for us and for a command: {codes:?}");
    }
    Ok(())
}

#[test]
fn a_disk_that_fills_up_under_an_output_leaves_no_part_of_it() -> Result<()> {
    let scarce = Scarce::new()?;
    for (flag, place) in [("--tar-path", "/small/image.tar"), ("--oci-layout-path", "/small/layout")] {
        for megabytes in [1_u64, 4, 6, 80] {
            let container = scarce.container(Variant::Unconfined)?.small_volume(megabytes << 20, "/small");
            let mut live = container.start()?;
            let job = scarce.job("unpushed").args(["--no-push", "--driver", "flat", flag, place]);
            let output = live.exec(job)?;
            let listed = live.exec(["/busybox/sh", "-c", "ls -A /small"])?.text("ls")?;
            if megabytes == 80 {
                output.ok(flag)?;
                assert_eq!(
                    Some(listed.as_str()),
                    Path::new(place).file_name().and_then(|name| name.to_str()),
                    "{flag}"
                );
                continue;
            }
            assert_eq!(output.code(), 74, "{flag} {megabytes}: {output}");
            assert!(output.stderr.contains("No space left on device"), "{flag}: {output}");
            let index =
                live.exec(["/busybox/sh", "-c", "cat /small/layout/index.json 2>/dev/null; true"])?.text("cat")?;
            assert!(!listed.contains("image.tar") && !index.contains(&scarce.digest), "{flag}: {listed}: {index}");
        }
    }
    assert_eq!(scarce.registry.tags("scarce/unpushed")?, [""; 0]);
    Ok(())
}

#[test]
fn too_little_memory_in_any_phase_leaves_no_half_image() -> Result<()> {
    let scarce = Scarce::new()?;
    for (driver, variant) in [("in-place", Variant::Docker), ("overlay", Variant::Unconfined)] {
        let volume = Context::new()?;
        let place = if driver == "overlay" { "/volume" } else { "/kaniko/work" };
        let job = |name: &str| scarce.job(name).args(["--driver", driver, "--work-dir", place]);
        let mut whole = 0;
        for megabytes in [12, 16, 20, 24, 32, 48, 64, 128] {
            let name = format!("memory-{driver}-{megabytes}");
            let container = scarce.container(variant)?.memory(megabytes << 20).volume(volume.path(), "/volume");
            let output = container.run(job(&name))?;
            whole += u32::from(scarce.is_whole_or_absent(&name, &output)?);
        }
        assert!(whole >= 1, "{driver}");
        // What the killed ones left in the volume is no obstacle, and goes.
        let mut live = scarce.container(variant)?.volume(volume.path(), "/volume").start()?;
        let name = format!("memory-{driver}-after");
        let output = live.exec(job(&name))?;
        assert!(scarce.is_whole_or_absent(&name, &output)?, "{output}");
        assert_eq!(live.left_behind("/volume")?, "", "{driver}");
    }
    Ok(())
}
