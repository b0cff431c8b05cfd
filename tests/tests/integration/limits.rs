//! Containers with little memory, and small disks.

use yadokari_tests::{Base, Context, Registry, Result, Variant, build_within};

use crate::site::{self, printed};

/// What a small runner gives to a job, page cache included.
const MEMORY: u64 = 256 << 20;

/// A layer that has no place in it, and a base whose names alone take a tenth of it. The example `memory` builds a larger
/// one.
const LAYER: u32 = 600;
const FILES: u32 = 100_000;

#[test]
fn a_large_layer_on_a_large_base_is_built_in_little_memory() -> Result<()> {
    let registry = Registry::start()?;
    registry.hold(Base::Files(FILES))?;
    for driver in ["overlay", "in-place"] {
        let name = format!("limits/{driver}");
        // The second RUN is executed while the layer of the first one is sent.
        let text = format!(
            "FROM files:{FILES}\nRUN dd if=/dev/urandom of=/large bs=1M count={LAYER}\nRUN rm /large && echo > /srv/new\n"
        );
        build_within(Some(MEMORY), &registry, driver, &text, &format!("{name}:1"))?.ok(driver)?;
        let (_, manifest) = registry.manifest(&name, "1")?.unwrap();
        let size = manifest["layers"][2]["size"].as_u64().unwrap();
        assert!(size > u64::from(LAYER) << 20, "{driver}: {manifest}");
    }
    Ok(())
}

#[test]
fn a_work_directory_that_fills_up_is_said_with_what_it_takes() -> Result<()> {
    let registry = site::registry(&[Base::Busybox, Base::Files(10_000)])?;
    let context = Context::new()?
        .file("root", "FROM files:10000\nRUN true\n")?
        .file("run", "FROM busybox\nRUN dd if=/dev/zero of=/x bs=1M count=64\n")?;
    for driver in ["overlay", "flat"] {
        let mut live =
            site::container(Variant::Unconfined, context.path())?.small_volume(16 << 20, "/small").start()?;
        let mut build = |dockerfile: &str| {
            let job = site::job(&registry, dockerfile, "limits:small").args(["--driver", driver]);
            live.exec(job.args(["--work-dir", "/small"]))
        };
        let root = build("root")?;
        assert_eq!(root.code(), 74, "{driver}: {}", printed(&root));
        for part in
            ["No space left on device", "is on a full disk, ", " are free there; the layers below have ", "--work-dir"]
        {
            assert!(root.stderr.contains(part), "{driver}: '{part}' is not in {}", root.stderr);
        }
        // What the command says of it is its own affair, and so is its exit code.
        let run = build("run")?;
        assert_eq!(run.code(), 1, "{driver}: {}", printed(&run));
        assert!(run.stderr.contains("is on a disk with ") && run.stderr.contains("which may be why"), "{}", run.stderr);
        assert_eq!(live.left_behind("/small")?, "");
    }
    Ok(())
}
