//! `--limit-…`: how much layers and archives may hold.

use clap::Args;
use yadokari_layers::{Limit, Limits};

use super::units;

/// What is refused because it is too much. A build that needs more says so.
#[derive(Debug, Clone, Copy, Args)]
pub(super) struct LimitFlags {
    /// Refuse a layer of an image or of the cache, and an archive of ADD or of a context, that unpacks to more than this.
    #[arg(long = Limit::Size.name(), value_name = "SIZE", default_value = "50GB", value_parser = units::size)]
    unpacked_size: u64,
    /// Refuse a layer or an archive that has more entries: files, directories, links. One with a very long name, or with many
    /// attributes, counts as several.
    #[arg(long = Limit::Entries.name(), value_name = "NUMBER", default_value = "1000000")]
    entries: u64,
}

impl LimitFlags {
    /// The limits.
    pub(super) fn limits(&self) -> Limits {
        Limits { size: self.unpacked_size, entries: self.entries }
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        limits: LimitFlags,
    }

    fn limits(words: &[&str]) -> Result<Limits, String> {
        let line = Line::try_parse_from(std::iter::once(&"yadokari").chain(words));
        line.map(|line| line.limits.limits()).map_err(|error| error.to_string())
    }

    #[test]
    fn limits_are_those_of_the_flags_that_errors_name() {
        assert_eq!(limits(&[]), Ok(Limits::default()));
        let both = limits(&["--limit-unpacked-size=2GB", "--limit-entries", "5000"]);
        assert_eq!(both, Ok(Limits { size: 2_000_000_000, entries: 5000 }));
        for words in [["--limit-unpacked-size", "2"], ["--limit-unpacked-size", "-1GB"], ["--limit-entries", "many"]] {
            assert!(limits(&words).is_err(), "{words:?}");
        }
    }
}
