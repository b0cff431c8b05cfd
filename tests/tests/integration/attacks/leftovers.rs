//! Processes that a RUN leaves behind and that do not want to end.

use std::time::Duration;

use yadokari_tests::{Base, Image, Result};

use super::{context, places};
use crate::drivers::volume;
use crate::site::{self, printed};

/// Whether a file that is written to all the time is not any more.
const QUIET: &str = "a=$(wc -c < /late) m=$(md5sum < /mapped); sleep 1; \
                     [ $a -gt 0 ] && [ $a = $(wc -c < /late) ] && [ \"$m\" = \"$(md5sum < /mapped)\" ]";

#[test]
fn what_a_run_leaves_behind_is_dead_before_anything_is_looked_at() -> Result<()> {
    let registry = site::registry(&[Base::Busybox])?;
    let text = format!(
        "FROM busybox\nCOPY --chmod=755 attacker /attacker\nRUN [\"/attacker\", \"stay\", \"2\"]\n\
         RUN {QUIET} && ! (ps -o args | grep '^/attacker') && echo quiet > /seen\n\
         RUN exec >&- 2>&-; sleep 0.2; echo closed > /closed\n"
    );
    let context = context()?.file("Dockerfile", text)?;
    for place in places() {
        let volume = volume()?;
        // Where nobody ends them they go on.
        let mut control = place.container(&context, &volume)?.start()?;
        control.exec(["/busybox/sh", "-c", "/workspace/attacker stay > /dev/null 2>&1"])?.ok("stay")?;
        let quiet = control.exec(["/busybox/sh", "-c", QUIET])?;
        assert_eq!(quiet.code(), 1, "{}: {quiet}", place.name);
        drop(control);

        let name = format!("attacks/stay:{}", place.name);
        let mut live = place.container(&context, &volume)?.start()?;
        let job = site::job(&registry, "Dockerfile", &name).args(place.words()).limit(Duration::from_secs(120));
        let output = live.exec(job)?.ok(place.name)?;
        let log = printed(&output);
        assert!(log.contains(&format!("sandbox: {}", place.driver)) && log.contains("left behind"), "{log}");
        let left = live.exec(["/busybox/sh", "-c", "ps | grep '[/]attacker stay'; true"])?.text("ps")?;
        assert_eq!(left, "", "{}", place.name);
        // The layer of the next command holds what that did.
        let image = Image::pull(&registry.reference(&name))?;
        let layers = [2, 3, 4].map(|layer| image.layer_paths(layer).unwrap_or_default());
        assert_eq!(layers, [vec!["late", "mapped"], vec!["seen"], vec!["closed"]], "{}", place.name);
    }
    Ok(())
}
