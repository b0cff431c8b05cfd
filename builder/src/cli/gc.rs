//! `yadokari gc`: which repositories are tidied up, and by which rules.

use std::sync::Arc;
use std::time::Duration;

use clap::{ArgAction, Args};
use yadokari_registry::{Client, Store};

use super::args::truth;
use super::cache::{place, ttl};
use super::log::LogFlags;
use super::registry::RegistryFlags;
use super::units;
use crate::Error;
use crate::cache::Place;
use crate::cache::gc::{self, ImagePolicy, RecordPolicy, Sweep};
use crate::context::glob::Glob;
use crate::progress::Progress;
use crate::sandbox::Gate;

/// `yadokari gc`
#[derive(Debug, Args)]
pub(super) struct Gc {
    /// Delete old records of this cache: a repository, or an OCI layout directory.
    #[arg(long, value_name = "REGISTRY/REPOSITORY|oci:DIR")]
    cache_repo: Option<String>,
    /// Records of the cache that are older go: 336h, 14d. Without it they are 336h old.
    #[arg(long, value_name = "DURATION", value_parser = ttl)]
    cache_ttl: Option<Duration>,
    /// Of the others the oldest go, until the layers of what stays have no more than this together: 500MB, 10GB.
    #[arg(long, value_name = "SIZE", value_parser = units::size)]
    max_size: Option<u64>,
    /// Delete old images of this repository. It needs --tags and --older-than.
    #[arg(long, value_name = "REGISTRY/REPOSITORY|oci:DIR")]
    image: Option<String>,
    /// Images go whose tags are all like this: `*` is any text, `?` a character, `[a-z]` one of these. Repeatable.
    #[arg(long, value_name = "PATTERN")]
    tags: Vec<String>,
    /// Images go that are older than this: 720h, 30d.
    #[arg(long, value_name = "DURATION", value_parser = units::duration)]
    older_than: Option<Duration>,
    /// But not the newest ones, as many as this.
    #[arg(long, value_name = "N")]
    keep: Option<usize>,
    /// Delete. Without it nothing is.
    #[arg(long, action = ArgAction::Set, num_args = 0..=1, default_missing_value = "true", default_value = "false", value_parser = truth)]
    delete: bool,
    #[command(flatten)]
    registry: RegistryFlags,
    #[command(flatten)]
    log: LogFlags,
}

/// Repositories that are tidied up.
pub struct GcInvocation {
    /// Whom to tell.
    pub progress: Arc<Progress>,
    client: Client,
    tasks: Vec<Task>,
    delete: bool,
}

/// A repository and its rule.
#[derive(Debug, PartialEq, Eq)]
struct Task {
    place: Place,
    rule: Rule,
}

#[derive(Debug, PartialEq, Eq)]
enum Rule {
    Records(RecordPolicy),
    Images(ImagePolicy),
}

impl Gc {
    pub(super) fn invocation(self) -> Result<GcInvocation, Error> {
        let progress = Arc::new(self.log.aside(&|name| std::env::var(name).ok()));
        let tasks = self.tasks()?;
        let places = tasks.iter().filter_map(|task| task.place.reference());
        let changed: Vec<String> = places.map(|name| name.registry().to_owned()).collect();
        let client = self.registry.session(&changed, &[], &progress, &Gate::default())?.client;
        Ok(GcInvocation { progress, client, tasks, delete: self.delete })
    }

    fn tasks(&self) -> Result<Vec<Task>, Error> {
        let usage = |flag, message: &str| Error::Usage { flag, message: message.into() };
        let given = |text: &Option<String>| text.clone().filter(|text| !text.is_empty());
        let (cache, image) = (given(&self.cache_repo), given(&self.image));
        if cache.is_none() && image.is_none() {
            return Err(usage("yadokari gc", "give --cache-repo, --image, or both"));
        }
        let mut tasks = Vec::new();
        match cache {
            Some(cache) => {
                let ttl = self.cache_ttl.map_or_else(|| ttl(""), Ok);
                let ttl = ttl.map_err(|message| usage("--cache-ttl", &message))?;
                let rule = Rule::Records(RecordPolicy { ttl, max_size: self.max_size });
                tasks.push(Task { place: place("--cache-repo", &cache)?, rule });
            }
            None if self.cache_ttl.is_some() => return Err(usage("--cache-ttl", "it needs --cache-repo")),
            None if self.max_size.is_some() => return Err(usage("--max-size", "it needs --cache-repo")),
            None => {}
        }
        let patterns = self.tags.iter().filter(|text| !text.is_empty()).map(|text| Glob::new(text));
        let tags = patterns.collect::<Result<Vec<_>, _>>().map_err(|error| usage("--tags", &error.to_string()))?;
        match (image, self.older_than) {
            (Some(_), None) => return Err(usage("--image", "it needs --older-than: say how old an image must be")),
            (Some(_), Some(_)) if tags.is_empty() => {
                return Err(usage("--image", "it needs --tags: say which tags may go"));
            }
            (Some(image), Some(older_than)) => {
                let rule = Rule::Images(ImagePolicy { tags, older_than, keep: self.keep.unwrap_or(0) });
                tasks.push(Task { place: place("--image", &image)?, rule });
            }
            (None, Some(_)) => return Err(usage("--older-than", "it needs --image")),
            (None, None) if !tags.is_empty() => return Err(usage("--tags", "it needs --image")),
            (None, None) if self.keep.is_some() => return Err(usage("--keep", "it needs --image")),
            (None, None) => {}
        }
        Ok(tasks)
    }
}

impl GcInvocation {
    /// Looks at all repositories, says what would go, and lets it go where that is asked for. `say` prints, and gives the
    /// exit code of that.
    pub(super) async fn execute(&self, say: &dyn Fn(&str) -> u8) -> Result<u8, Error> {
        let mut sweeps = Vec::new();
        for task in &self.tasks {
            let failed = |source| Error::Tidy { store: name(&task.place), source: Box::new(source) };
            let store = gc::open(&task.place, &self.client).map_err(failed)?;
            let sweep = task.rule.look(&*store).await.map_err(|error| tidy(&*store, error))?;
            // What nobody could read is not deleted.
            match say(&sweep.text()) {
                0 => sweeps.push((store, sweep)),
                failed => return Ok(failed),
            }
        }
        let all: usize = sweeps.iter().map(|(_, sweep)| sweep.goes.len()).sum();
        if !self.delete {
            let more = if all == 0 { "" } else { ": give --delete to delete" };
            return Ok(say(&format!("nothing was deleted{more}")));
        }
        let mut gone = 0;
        for (store, sweep) in &sweeps {
            gone += gc::delete(&**store, sweep).await.map_err(|error| tidy(&**store, error))?;
        }
        Ok(say(&format!("deleted {gone} of {all}")))
    }
}

impl Rule {
    async fn look(&self, store: &dyn Store) -> yadokari_registry::Result<Sweep> {
        let now = crate::clock();
        match self {
            Self::Records(policy) => gc::records(store, policy, now).await,
            Self::Images(policy) => gc::images(store, policy, now).await,
        }
    }
}

fn name(place: &Place) -> String {
    match place {
        Place::Registry(reference) => reference.name(),
        Place::Layout(directory) => format!("oci:{}", directory.display()),
    }
}

fn tidy(store: &dyn Store, error: yadokari_registry::Error) -> Error {
    Error::Tidy { store: store.describe(), source: Box::new(error) }
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use clap::Parser;
    use serde_json::json;
    use yadokari_registry::{BlobSource, BytesBlob, Layout, Manifest, Version, media};

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        gc: Gc,
    }

    fn line(words: &str) -> Gc {
        let words = std::iter::once("x").chain(words.split_whitespace());
        Line::try_parse_from(words).unwrap_or_else(|error| panic!("{error}")).gc
    }

    /// What came of it, and what was said.
    async fn run(flags: &str) -> (Result<u8, Error>, Vec<String>) {
        let said = RefCell::new(Vec::new());
        let invocation = GcInvocation {
            progress: Arc::new(Progress::to(crate::progress::Level::Error, Box::new(std::io::sink()))),
            client: Client::new(Default::default()).unwrap(),
            tasks: line(flags).tasks().unwrap(),
            delete: line(flags).delete,
        };
        let say = |text: &str| {
            said.borrow_mut().push(text.to_owned());
            0
        };
        let result = invocation.execute(&say).await;
        (result, said.into_inner())
    }

    #[test]
    fn rules_belong_to_repositories() {
        let tasks =
            line("--cache-repo r.example/app/cache --max-size 10GB --image oci:d --tags a* --tags= --older-than 30d")
                .tasks()
                .unwrap();
        let records = RecordPolicy { ttl: Duration::from_secs(336 * 3600), max_size: Some(10_000_000_000) };
        let older_than = Duration::from_secs(30 * 24 * 3600);
        let images = ImagePolicy { tags: vec![Glob::new("a*").unwrap()], older_than, keep: 0 };
        let expected = [
            Task { place: place("", "r.example/app/cache").unwrap(), rule: Rule::Records(records) },
            Task { place: Place::Layout("d".into()), rule: Rule::Images(images) },
        ];
        assert_eq!(tasks, expected);
        assert_eq!(line("--cache-repo=oci:d --image=").tasks().unwrap().len(), 1);
    }

    #[test]
    fn a_rule_without_its_repository_is_refused() {
        for (words, says) in [
            ("", "give --cache-repo, --image, or both"),
            ("--cache-repo= --image=", "give --cache-repo, --image, or both"),
            ("--image r.example/a --tags *", "--image: it needs --older-than"),
            ("--image r.example/a --older-than 1h", "--image: it needs --tags"),
            ("--image r.example/a --tags= --older-than 1h", "--image: it needs --tags"),
            ("--image r.example/a:1 --tags * --older-than 1h", "--image: 'r.example/a:1' has a tag"),
            ("--image r.example/a --tags [ --older-than 1h", "--tags: the pattern '['"),
            ("--image r.example/a --tags * --older-than 1h --max-size 1GB", "--max-size: it needs --cache-repo"),
            ("--image r.example/a --tags * --older-than 1h --cache-ttl 1h", "--cache-ttl: it needs --cache-repo"),
            ("--cache-repo oci:d --tags *", "--tags: it needs --image"),
            ("--cache-repo oci:d --older-than 1h", "--older-than: it needs --image"),
            ("--cache-repo oci:d --keep 3", "--keep: it needs --image"),
        ] {
            let error = line(words).tasks().unwrap_err();
            assert!(error.to_string().contains(says), "{words}: {error}");
            assert_eq!(error.exit_code(), 2);
        }
    }

    #[tokio::test]
    async fn nothing_is_deleted_unless_it_is_said() {
        let directory = tempfile::tempdir().unwrap();
        let layout = Layout::create(directory.path()).unwrap();
        let config = BytesBlob::new("{}");
        layout.write_blob(&config, None).await.unwrap();
        let text = json!({
            "schemaVersion": 2, "layers": [],
            "config": {"mediaType": media::OCI_CONFIG, "digest": config.digest(), "size": 2},
            "annotations": {
                "dev.yadokari.cache.version": "1", "dev.yadokari.cache.kind": "step",
                "org.opencontainers.image.created": "2001-01-01T00:00:00Z",
            },
        });
        let record = Manifest::new(media::OCI_MANIFEST, text.to_string());
        layout.write_manifest(&Version::Tag("old".into()), &record).await.unwrap();
        let done = async |flags: &str| {
            let (result, said) = run(flags).await;
            assert_eq!(result.unwrap(), 0);
            said
        };
        let flags = format!("--cache-repo oci:{}", directory.path().display());
        let said = done(&flags).await;
        assert!(said[0].contains("1 of 1 records to delete\n  step old: "), "{said:?}");
        assert_eq!(said[1..], ["nothing was deleted: give --delete to delete"]);
        assert_eq!(Store::tags(&layout).await.unwrap(), ["old"]);
        let said = done(&format!("{flags} --delete")).await;
        assert!(said[0].contains("step old: "), "{said:?}");
        assert_eq!(said[1..], ["deleted 1 of 1"]);
        assert_eq!(Store::tags(&layout).await.unwrap(), [""; 0]);
        assert_eq!(done(&flags).await[1..], ["nothing was deleted"]);
    }

    #[tokio::test]
    async fn a_layout_that_is_not_there_is_said_to_be_missing() {
        let (result, said) = run("--cache-repo oci:/no/such").await;
        assert!(result.unwrap_err().to_string().starts_with("tidy up oci:/no/such: "));
        assert!(said.is_empty());
    }
}
