//! Flags about trying again.

use std::time::Duration;

use clap::Args;
use yadokari_registry::{RetryPolicy, Timeouts};

use super::units;

/// How often registries are asked again. What they are asked for is never half done, so that one number holds for everything.
#[derive(Debug, Args)]
pub(super) struct RetryFlags {
    /// Try failed requests again at least so often. 4 times is the least.
    #[arg(long, value_name = "NUMBER", default_value_t = 0)]
    push_retry: u32,
    /// The same: pulls and pushes share one client.
    #[arg(long, value_name = "NUMBER", default_value_t = 0)]
    image_download_retry: u32,
    /// The same: what is unpacked fails for no other reason that may go away.
    #[arg(long, value_name = "NUMBER", default_value_t = 0)]
    image_fs_extract_retry: u32,
    /// Try failed requests again until this time is over, such as 90s or 10m, however often that is. A registry may not be
    /// silent for longer, either.
    #[arg(long, value_name = "DURATION", value_parser = deadline)]
    registry_timeout: Option<Duration>,
}

impl RetryFlags {
    /// When to try again. More tries have more time, and who says how much time there is has as many tries as fit, unless he
    /// says their number, too.
    pub(super) fn policy(&self) -> RetryPolicy {
        let usual = RetryPolicy::default();
        let again = self.push_retry.max(self.image_download_retry).max(self.image_fs_extract_retry);
        let tries = match self.registry_timeout {
            Some(_) if again == 0 => u32::MAX,
            _ => usual.tries.max(again.saturating_add(1)),
        };
        let time = usual.give_up_after.max(usual.longest.saturating_mul(tries));
        RetryPolicy { tries, give_up_after: self.registry_timeout.unwrap_or(time), ..usual }
    }

    /// When to stop waiting.
    pub(super) fn timeouts(&self) -> Timeouts {
        let usual = Timeouts::default();
        let Some(most) = self.registry_timeout else { return usual };
        Timeouts { connect: usual.connect.min(most), silence: usual.silence.min(most), commit: most }
    }
}

/// A duration of at least a second: nothing is asked twice in less.
fn deadline(text: &str) -> Result<Duration, String> {
    let duration = units::duration(text)?;
    if duration < Duration::from_secs(1) { Err("it is less than a second".into()) } else { Ok(duration) }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        flags: RetryFlags,
    }

    fn flags(words: &[&str]) -> Result<RetryFlags, String> {
        let line = Line::try_parse_from(["x"].iter().chain(words)).map_err(|error| error.to_string())?;
        Ok(line.flags)
    }

    #[test]
    fn the_most_tries_that_are_asked_for_are_made_and_have_the_time() {
        let usual = RetryPolicy::default();
        let policy = |words: &[&str]| {
            let RetryPolicy { tries, give_up_after, .. } = flags(words)?.policy();
            Ok::<_, String>((tries, give_up_after))
        };
        for (words, tries) in [
            (&[][..], 5),
            (&["--push-retry=3"], 5),
            (&["--push-retry", "9"], 10),
            (&["--push-retry=1", "--image-download-retry=6", "--image-fs-extract-retry=5"], 7),
            (&["--image-fs-extract-retry=7"], 8),
        ] {
            assert_eq!(policy(words).unwrap().0, tries, "{words:?}");
        }
        assert_eq!(policy(&["--push-retry=4"]).unwrap().1, usual.give_up_after);
        assert_eq!(policy(&["--push-retry=99"]).unwrap().1, usual.longest * 100);
        assert!(policy(&["--push-retry=-1"]).is_err());
    }

    #[test]
    fn the_time_that_registries_have_is_said_by_a_flag() {
        let seconds = Duration::from_secs;
        let usual = Timeouts::default();
        // Tries, the time they have, and how long nothing may come: at first, in between, and behind a blob.
        let table = [
            (&[][..], 5, seconds(120), (usual.connect, usual.silence, usual.commit)),
            (&["--registry-timeout=10m"], u32::MAX, seconds(600), (usual.connect, usual.silence, seconds(600))),
            (&["--registry-timeout", "5s"], u32::MAX, seconds(5), (seconds(5), seconds(5), seconds(5))),
            (
                &["--registry-timeout=1h", "--push-retry=9"],
                10,
                seconds(3600),
                (usual.connect, usual.silence, seconds(3600)),
            ),
        ];
        for (words, tries, time, (connect, silence, commit)) in table {
            let flags = flags(words).unwrap();
            let (policy, timeouts) = (flags.policy(), flags.timeouts());
            assert_eq!((policy.tries, policy.give_up_after), (tries, time), "{words:?}");
            assert_eq!((timeouts.connect, timeouts.silence, timeouts.commit), (connect, silence, commit), "{words:?}");
        }
        for wrong in ["0", "999ms", "10", "-5s", "", "soon"] {
            let error = flags(&[&format!("--registry-timeout={wrong}")]).unwrap_err();
            assert!(error.contains("--registry-timeout"), "{error}");
        }
    }
}
