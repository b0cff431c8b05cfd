//! Flags about the cache, and what they mean together.

use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;
use std::time::Duration;

use clap::{ArgAction, Args};
use yadokari_registry::Reference;
use zeroize::Zeroizing;

use super::args::{path, truth};
use super::secrets::Variables;
use super::{scope, units};
use crate::Error;
use crate::cache::{Place, Settings};

/// Kaniko's place for base images.
pub(super) const WARM: &str = "/cache";

/// Kaniko's two weeks.
const TTL: &str = "336h";

/// The variable with the key that records are signed with. RUN steps have the image's environment and not ours, and
/// what hides the builder's memory from them hides its environment, too.
const KEY: &str = "YADOKARI_CACHE_KEY";

/// Which cache is used, and how. Without `--cache` or `--cache-from` these have no effect.
#[derive(Debug, Clone, Args)]
pub(super) struct CacheFlags {
    /// Take from a registry what earlier builds made, and leave there what this one makes.
    #[arg(long, action = ArgAction::Set, num_args = 0..=1, default_missing_value = "true", value_parser = truth)]
    pub(super) cache: Option<bool>,
    /// Where the cache is: a repository, or an OCI layout directory. Without it, `cache` below the first destination's
    /// repository.
    #[arg(long, value_name = "REGISTRY/REPOSITORY|oci:DIR")]
    cache_repo: Option<String>,
    /// Take layers of base images from this directory where `yadokari warm` has put them. It may be missing.
    #[arg(long, value_name = "DIR", default_value = WARM, value_parser = path())]
    cache_dir: PathBuf,
    /// Look for what is not in the cache here, too, and write nothing here. Repeatable. Without --cache these are the
    /// whole cache, and nothing is written; --cache=false turns them off.
    #[arg(long, value_name = "REGISTRY/REPOSITORY|oci:DIR")]
    cache_from: Vec<String>,
    /// Use nothing of the cache that is older: 336h, 1h30m, 14d. With 0 nothing is used, and everything written anew.
    #[arg(long, value_name = "DURATION", default_value = TTL, value_parser = ttl)]
    cache_ttl: Duration,
    /// Use the cache and write nothing to it.
    #[arg(long, action = ArgAction::Set, num_args = 0..=1, default_missing_value = "true", default_value = "false", value_parser = truth)]
    no_push_cache: bool,
    /// Whether the layers of COPY and ADD are cached.
    #[arg(long, action = ArgAction::Set, num_args = 0..=1, default_missing_value = "true", default_value = "true", value_parser = truth)]
    cache_copy_layers: bool,
    /// Whether those of RUN and WORKDIR are.
    #[arg(long, action = ArgAction::Set, num_args = 0..=1, default_missing_value = "true", default_value = "true", value_parser = truth)]
    cache_run_layers: bool,
    /// The part of the cache that is read and written, and another that is read, too. Parts do not see one another. On
    /// GitLab it is the branch, and the default branch is read; elsewhere all builds share one without a name.
    #[arg(long, value_name = "NAME[:ALSO-READ]")]
    cache_scope: Option<String>,
}

/// A value of `--cache-ttl`; an empty one is none.
pub(super) fn ttl(text: &str) -> Result<Duration, String> {
    units::duration(if text.is_empty() { TTL } else { text })
}

/// A repository without a tag, or an OCI layout directory.
pub(super) fn place(flag: &'static str, text: &str) -> Result<Place, Error> {
    let refuse = |message: String| Err(Error::Usage { flag, message });
    if let Some(directory) = text.strip_prefix("oci:") {
        return match directory {
            "" => refuse("oci: needs a directory behind it".into()),
            directory => Ok(Place::Layout(directory.into())),
        };
    }
    if text.contains('=') {
        let named = text.split(',').find_map(|part| part.trim().strip_prefix("ref="));
        let instead = named.map_or("REGISTRY/REPOSITORY or oci:DIR".to_owned(), |name| {
            // What buildx takes has a tag, and ours has none.
            let slash = name.rfind('/').unwrap_or(0);
            name[slash..].find([':', '@']).map_or(name, |tag| &name[..slash + tag]).to_owned()
        });
        return refuse(format!("'{text}' is of a form of buildx that is not known here; write {flag} {instead}"));
    }
    let reference: Reference = match text.parse() {
        Ok(reference) => reference,
        Err(error) => return refuse(yadokari_registry::Error::to_string(&error)),
    };
    // What has no tag yet can be given one.
    if format!("{text}:tag").parse::<Reference>().is_err() {
        return refuse(format!("'{text}' has a tag or a digest; write the repository alone: {}", reference.name()));
    }
    Ok(Place::Registry(reference))
}

impl CacheFlags {
    /// The same, with `--cache` where neither it nor `--cache-from` says which cache is used.
    pub(super) fn used(&self) -> Self {
        let is_given = self.cache.is_none() && self.cache_from.iter().any(|text| !text.is_empty());
        Self { cache: (!is_given).then_some(true), no_push_cache: true, ..self.clone() }
    }

    /// `--cache-dir`, with or without a cache.
    pub(super) fn warm(&self) -> Option<PathBuf> {
        super::given(&Some(self.cache_dir.clone()))
    }

    /// The cache of a build whose first destination is `first`, where it has one.
    pub(super) fn settings(&self, first: Option<&Reference>, env: Variables<'_>) -> Result<Option<Settings>, Error> {
        let from = self.cache_from.iter().filter(|text| !text.is_empty());
        let mut also = from.map(|text| place("--cache-from", text)).collect::<Result<Vec<_>, _>>()?;
        let (place, write) = match self.cache {
            Some(false) => return Ok(None),
            None if also.is_empty() => return Ok(None),
            None => (also.remove(0), false),
            Some(true) => (self.own(first)?, !self.no_push_cache),
        };
        also.retain(|other| *other != place);
        let text = |name: &str| env(name).and_then(|value| value.into_string().ok());
        Ok(Some(Settings {
            place,
            also,
            ttl: self.cache_ttl,
            write,
            copies: self.cache_copy_layers,
            runs: self.cache_run_layers,
            scopes: scope::scopes(self.cache_scope.as_deref(), &text)?,
            key: env(KEY).filter(|key| !key.is_empty()).map(|key| Zeroizing::new(key.into_vec())),
        }))
    }

    /// `--cache-repo`, or what stands for it.
    fn own(&self, first: Option<&Reference>) -> Result<Place, Error> {
        let usage = |message: String| Error::Usage { flag: "--cache-repo", message };
        match (self.cache_repo.as_deref().filter(|text| !text.is_empty()), first) {
            (Some(text), _) => place("--cache-repo", text),
            (None, Some(first)) => {
                // The tag has no meaning, and places with different ones would not be equal.
                let place = first.child("cache").and_then(|repository| repository.with_tag("latest"));
                place.map(Place::Registry).map_err(|error| usage(error.to_string()))
            }
            (None, None) => Err(usage(
                "without --destination the cache needs a place: give a repository, or oci: and a directory".into(),
            )),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::ffi::OsString;

    use clap::Parser;

    use super::*;
    use crate::cache::Scopes;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        flags: CacheFlags,
    }

    fn settings_in(words: &[&str], first: Option<&str>, env: Variables<'_>) -> Result<Option<Settings>, String> {
        let line = Line::try_parse_from(["x"].iter().chain(words)).map_err(|error| error.to_string())?;
        let first = first.map(|text| text.parse::<Reference>().unwrap());
        line.flags.settings(first.as_ref(), env).map_err(|error| error.to_string())
    }

    fn settings(words: &[&str]) -> Result<Option<Settings>, String> {
        settings_in(words, Some("r.example/app:1"), &|_| None)
    }

    fn on(words: &[&str]) -> Settings {
        settings(words).unwrap().unwrap()
    }

    fn registry(text: &str) -> Place {
        place("--x", text).unwrap()
    }

    #[test]
    fn the_cache_is_below_the_first_destination_and_has_everything_in_it() {
        let settings = on(&["--cache"]);
        assert_eq!(settings.place, registry("r.example/app/cache"));
        assert!(
            settings.also.is_empty() && settings.write && settings.copies && settings.runs && settings.key.is_none()
        );
        assert_eq!((settings.ttl, settings.scopes), (Duration::from_secs(14 * 24 * 3600), Scopes::default()));
    }

    #[test]
    fn without_the_flag_nothing_else_counts() {
        for words in [
            &[][..],
            &["--cache=false"],
            &["--cache-repo=not a repository", "--cache-ttl=6h", "--no-push-cache"],
            &["--cache-run-layers=true", "--cache-copy-layers", "--cache-repo="],
            &["--cache=false", "--cache-from=r.example/a"],
        ] {
            assert!(settings(words).unwrap().is_none(), "{words:?}");
        }
    }

    #[test]
    fn what_is_given_holds_and_what_is_empty_is_not_given() {
        let settings = on(&[
            "--cache=true",
            "--cache-repo=oci:/dir",
            "--cache-from=r.example/a",
            "--cache-from=oci:/dir",
            "--cache-from=",
            "--cache-ttl=1.5h",
            "--no-push-cache",
            "--cache-copy-layers=false",
            "--cache-run-layers=false",
            "--cache-scope=mine:main",
        ]);
        assert_eq!(settings.place, Place::Layout("/dir".into()));
        assert_eq!(settings.also, [registry("r.example/a")]);
        assert_eq!(settings.ttl, Duration::from_secs(5400));
        assert!(!settings.write && !settings.copies && !settings.runs);
        assert_eq!(settings.scopes, Scopes { own: Some("mine".into()), also: Some("main".into()) });
        let empty = on(&["--cache", "--cache-repo=", "--cache-ttl=", "--cache-scope="]);
        assert_eq!((empty.place, empty.scopes), (registry("r.example/app/cache"), Scopes::default()));
        assert_eq!(empty.ttl, Duration::from_secs(14 * 24 * 3600));
    }

    #[test]
    fn places_to_read_are_a_cache_that_is_not_written() {
        let settings = on(&["--cache-from=r.example/a", "--cache-from=r.example/b", "--cache-repo=r.example/c"]);
        assert_eq!((settings.place, settings.write), (registry("r.example/a"), false));
        assert_eq!(settings.also, [registry("r.example/b")]);
        assert_eq!(on(&["--cache", "--cache-from=r.example/a"]).place, registry("r.example/app/cache"));
    }

    #[test]
    fn a_look_at_the_cache_has_one_whatever_is_said_of_it() {
        for (words, place) in [
            (&[][..], "r.example/app/cache"),
            (&["--cache=false"], "r.example/app/cache"),
            (&["--cache-repo=r.example/c"], "r.example/c"),
            (&["--cache-from=r.example/a"], "r.example/a"),
        ] {
            let line = Line::try_parse_from(["x"].iter().chain(words)).unwrap_or_else(|error| panic!("{error}"));
            let first: Reference = "r.example/app:1".parse().unwrap();
            let settings = line.flags.used().settings(Some(&first), &|_| None).unwrap().unwrap();
            assert_eq!(settings.place, registry(place), "{words:?}");
        }
    }

    #[test]
    fn a_cache_without_a_place_says_what_to_give() {
        let error = settings_in(&["--cache"], None, &|_| None).unwrap_err();
        assert!(error.starts_with("--cache-repo: without --destination"), "{error}");
        assert!(settings_in(&["--cache", "--cache-repo=oci:d"], None, &|_| None).is_ok());
    }

    #[test]
    fn a_place_is_a_repository_or_a_directory() {
        for text in ["r.example:5000/a/b", "localhost:5000/x", "alpine"] {
            assert!(matches!(place("--x", text), Ok(Place::Registry(_))), "{text}");
        }
        let digest = format!("r.example/a@sha256:{}", "0".repeat(64));
        for (text, says) in [
            ("r.example/a:1", "a tag or a digest; write the repository alone: r.example/a"),
            (&digest, "a tag or a digest; write the repository alone: r.example/a"),
            ("localhost:5000", "a tag or a digest; write the repository alone: docker.io/library/localhost"),
            ("r.example/A", "a repository is in lower case"),
            ("oci:", "oci: needs a directory behind it"),
            ("type=registry,ref=r.example:5000/a:c", "write --cache-from r.example:5000/a"),
            ("type=registry,ref=r.example:5000/a", "write --cache-from r.example:5000/a"),
            ("type=gha", "write --cache-from REGISTRY/REPOSITORY or oci:DIR"),
        ] {
            let error = place("--cache-from", text).unwrap_err().to_string();
            assert!(error.starts_with("--cache-from: ") && error.ends_with(says), "{error}");
        }
    }

    #[test]
    fn the_key_is_the_environments_and_is_not_shown() {
        let key = |value: &'static [u8]| {
            let env = move |name: &str| (name == KEY).then(|| OsString::from_vec(value.to_vec()));
            settings_in(&["--cache"], Some("r.example/app"), &env).unwrap().unwrap()
        };
        let settings = key(b"from \xff env");
        assert_eq!(settings.key.as_deref().map(Vec::as_slice), Some(&b"from \xff env"[..]));
        let shown = format!("{settings:?}");
        assert!(!shown.contains(&format!("{:?}", b"from")[1..10]) && shown.contains("***"), "{shown}");
        assert!(key(b"").key.is_none());
    }

    #[test]
    fn a_ttl_is_a_duration() {
        assert!(settings(&["--cache", "--cache-ttl=2 weeks"]).unwrap_err().contains("336h"));
        assert_eq!(on(&["--cache", "--cache-ttl=0"]).ttl, Duration::ZERO);
    }
}
