//! What a RUN of one stage can do to what another one is made of.

use yadokari_tests::{Base, Context, Registry, Result};

use super::places;
use crate::drivers::{Place, volume};
use crate::site::{self, printed};

/// Waits for the root of another stage, and spoils it, every blob and every cache.
const SPOIL: &str = "for i in $(seq 100); do g=$(find / -xdev -path '*/base/etc/group'); [ -n \"$g\" ] && break; \
                     sleep 0.05; done; sleep 0.5; for f in $g; do echo spoilt:x:1: >> $f; done; \
                     for f in $(find / -xdev -type f -path '*/blobs/*'); do echo spoilt >> $f; done; \
                     for d in $(find / -xdev -type d -name data); do echo spoilt > $d/spoilt; done";

/// A stage that does this, and one that takes nothing from it but an empty file.
fn text(evil: &str) -> String {
    format!(
        "FROM busybox AS evil\nRUN {evil}; touch /done\nFROM busybox\nRUN --mount=type=cache,target=/c echo one > /one\n\
         COPY --from=evil /done /done\nRUN --mount=type=cache,target=/c cat /etc/group > /seen; ls -A /c >> /seen\n"
    )
}

/// The digest of what was built, or how that failed.
fn build(place: &Place, registry: &Registry, evil: &str, tag: &str) -> Result<Result<String, String>> {
    let (context, volume) = (Context::new()?.file("Dockerfile", text(evil))?, volume()?);
    let job = site::job(registry, "Dockerfile", &format!("attacks/spoil:{tag}")).args(place.words());
    let output = place.container(&context, &volume)?.run(job)?;
    assert!(printed(&output).contains(&format!("sandbox: {}", place.driver)), "{output}");
    let pushed = registry.manifest("attacks/spoil", tag)?;
    Ok(match (output.success(), pushed) {
        (true, Some((digest, _))) => Ok(digest),
        (false, None) => Err(printed(&output)),
        (_, pushed) => panic!("{pushed:?} {output}"),
    })
}

#[test]
fn a_run_changes_nothing_of_another_stage_unless_it_runs_in_place() -> Result<()> {
    let registry = site::registry(&[Base::Busybox])?;
    for place in places() {
        let honest = build(place, &registry, "true", &format!("{}-honest", place.name))?.unwrap();
        let spoilt = build(place, &registry, SPOIL, &format!("{}-spoilt", place.name))?;
        if place.driver == "in-place" {
            // This is what the others hold: here root finds everything, and whatever comes of it is not what was meant.
            assert_ne!(spoilt, Ok(honest));
        } else {
            assert_eq!(spoilt, Ok(honest), "{}", place.name);
        }
    }
    Ok(())
}
