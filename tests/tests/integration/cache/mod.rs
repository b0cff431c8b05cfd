//! The cache: what it spares, what it never changes, and what becomes of a build when something is wrong with it.

mod chance;
mod damage;
mod hits;
mod options;
mod race;
mod repositories;
mod scopes;
mod signatures;
mod unchanged;

use std::fs;

use yadokari_tests::{Base, Context, Live, Output, Registry, Result, Traffic, Variant};

use crate::site::{self, printed};

/// A command that writes something else each time it is executed. Where a layer is the same as before, its RUN was not.
pub(crate) const CHANCE: &str = "cat /proc/sys/kernel/random/uuid";

/// What begins each line of the log that says what is wrong with the cache.
const WARNING: &str = "warning: cache: ";

/// A registry, a context, and a container under Docker's defaults to build it in.
pub(crate) struct Bench {
    pub(crate) registry: Registry,
    pub(crate) context: Context,
    live: Live,
}

/// A build that succeeded, and what it asked of the bench's registry.
#[derive(Debug)]
pub(crate) struct Build {
    pub(crate) output: Output,
    pub(crate) traffic: Traffic,
}

impl Bench {
    pub(crate) fn new(bases: &[Base]) -> Result<Self> {
        let (registry, context) = (site::registry(bases)?, Context::new()?);
        let live = site::container(Variant::Docker, context.path())?.start()?;
        Ok(Self { registry, context, live })
    }

    /// Writes a file of the context.
    pub(crate) fn write(&self, path: &str, content: &str) {
        fs::write(self.context.path().join(path), content).unwrap();
    }

    /// Builds a Dockerfile with the cache and pushes `name`.
    pub(crate) fn build(&mut self, text: &str, name: &str, words: &[&str]) -> Result<Build> {
        self.build_with(text, name, words, &[])
    }

    /// The same with variables of the environment.
    pub(crate) fn build_with(
        &mut self,
        text: &str,
        name: &str,
        words: &[&str],
        variables: &[(&str, &str)],
    ) -> Result<Build> {
        self.write("Dockerfile", text);
        let mark = self.registry.mark()?;
        let job = site::job(&self.registry, "Dockerfile", name).args(["--cache=true"]).args(words.iter().copied());
        let job = variables.iter().fold(job, |job, (name, value)| job.env(name, *value));
        let output = self.live.exec(job)?.ok(name)?;
        Ok(Build { output, traffic: self.registry.traffic(mark)? })
    }

    /// The digest that a tag points to.
    pub(crate) fn digest(&self, name: &str) -> Result<String> {
        let (repository, tag) = name.rsplit_once(':').unwrap_or((name, "latest"));
        Ok(self.registry.manifest(repository, tag)?.unwrap_or_else(|| panic!("no {name}")).0)
    }

    /// The digests of an image's layers, the lowest first.
    pub(crate) fn layers(&self, name: &str) -> Result<Vec<String>> {
        layers(&self.registry, name)
    }

    /// The tags of a repository and what they point to.
    pub(crate) fn records(&self, repository: &str) -> Result<Vec<(String, String)>> {
        let tags = self.registry.tags(repository)?.into_iter();
        tags.map(|tag| Ok((self.digest(&format!("{repository}:{tag}"))?, tag)))
            .map(|r| r.map(|(d, t)| (t, d)))
            .collect()
    }
}

impl Build {
    /// The lines that say what is wrong with the cache.
    pub(crate) fn warnings(&self) -> Vec<String> {
        warnings(&self.output)
    }

    /// Whether nothing of `layers` came down. What came instead is in the message.
    pub(crate) fn pulled_none_of(&self, layers: &[String]) {
        let pulled: Vec<_> =
            self.traffic.downloads().into_iter().filter(|(_, digest, _)| layers.contains(digest)).collect();
        assert!(pulled.is_empty(), "{pulled:?}\n{}\n{}", self.traffic.lines(), self.output);
    }

    /// Which of `layers` went up, into whatever repository.
    pub(crate) fn pushed_of(&self, layers: &[String]) -> Vec<String> {
        let uploads = self.traffic.uploads().into_iter().map(|(_, digest)| digest);
        uploads.filter(|digest| layers.contains(digest)).collect()
    }
}

/// The digests of an image's layers, the lowest first.
fn layers(registry: &Registry, name: &str) -> Result<Vec<String>> {
    let (repository, tag) = name.rsplit_once(':').unwrap_or((name, "latest"));
    let (_, manifest) = registry.manifest(repository, tag)?.unwrap_or_else(|| panic!("no {name}"));
    let layers = manifest["layers"].as_array().into_iter().flatten();
    Ok(layers.map(|layer| layer["digest"].as_str().unwrap().to_owned()).collect())
}

fn warnings(output: &Output) -> Vec<String> {
    printed(output).lines().filter(|line| line.starts_with(WARNING)).map(str::to_owned).collect()
}

/// The digest that the last line of the log names.
fn built(output: &Output) -> String {
    let text = printed(output);
    let line = text.lines().rev().find_map(|line| line.strip_prefix("built "));
    line.and_then(|line| line.split(':').nth(1)).map(|hex| format!("sha256:{hex}")).unwrap_or_default()
}
