//! Flags about trying again.

use clap::Args;
use yadokari_registry::RetryPolicy;

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
}

impl RetryFlags {
    /// When to try again. More tries have more time.
    pub(super) fn policy(&self) -> RetryPolicy {
        let usual = RetryPolicy::default();
        let again = self.push_retry.max(self.image_download_retry).max(self.image_fs_extract_retry);
        let tries = usual.tries.max(again.saturating_add(1));
        let give_up_after = usual.give_up_after.max(usual.longest.saturating_mul(tries));
        RetryPolicy { tries, give_up_after, ..usual }
    }
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

    #[test]
    fn the_most_tries_that_are_asked_for_are_made_and_have_the_time() {
        let usual = RetryPolicy::default();
        let policy = |words: &[&str]| {
            let line = Line::try_parse_from(["x"].iter().chain(words)).map_err(|error| error.to_string())?;
            let RetryPolicy { tries, give_up_after, .. } = line.flags.policy();
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
}
