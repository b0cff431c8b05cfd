//! Dockerfiles, and the plans that they become.

mod arguments;
mod checks;
mod contexts;
mod history;
mod keys;
mod metadata;
mod mounts;
mod platforms;
mod remotes;
mod sources;
mod stages;
mod steps;
mod traps;

use std::fs;

use super::*;
use crate::context::{self, Context, Contexts};
use crate::dockerfile::{Source, parse};

/// A context, the images that exist, and the options of a build.
struct Bench {
    directory: tempfile::TempDir,
    known: Known,
    contexts: Vec<(String, context::Source)>,
    options: Options,
}

impl Bench {
    fn new() -> Self {
        let platform = Platform { os: "linux".into(), architecture: "amd64".into(), variant: None };
        let options = Options {
            target: None,
            build_args: Vec::new(),
            labels: Vec::new(),
            host: platform.clone(),
            platform,
            platform_is_given: false,
            epoch: None,
            reproducible: false,
            context_mode: ContextMode::default(),
            ignored: Vec::new(),
        };
        let directory = tempfile::tempdir().unwrap();
        Self { directory, known: Known::default(), contexts: Vec::new(), options }
    }

    /// Writes a file of the context.
    fn file(self, path: &str, content: &str) -> Self {
        let path = self.directory.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
        self
    }

    /// Makes an image exist, with the `config` object of its config blob.
    fn image(self, name: &str, config: &str) -> Self {
        self.image_for("linux/amd64", name, config)
    }

    /// The same for another platform.
    fn image_for(mut self, platform: &str, name: &str, config: &str) -> Self {
        let name = image_for(platform, name);
        let Platform { os, architecture, .. } = &name.platform;
        let blob = format!(r#"{{"architecture":"{architecture}","os":"{os}","config":{config}}}"#);
        let config = ImageConfig::parse(blob.as_bytes()).unwrap();
        let image = BaseImage { manifest: Digest::of(&blob), config, layers: vec![layer_of(&name.name)] };
        self.known.images.insert(name, image);
        self
    }

    /// Makes what a source names elsewhere be there.
    fn fetched(mut self, remote: Remote, fetched: Fetched) -> Self {
        self.known.remotes.insert(remote, fetched);
        self
    }

    /// Builds for a platform that the user asked for.
    fn platform(mut self, platform: &str) -> Self {
        (self.options.platform, self.options.platform_is_given) = (platform.parse().unwrap(), true);
        self
    }

    /// Says whether commands of a platform are executed here.
    fn executes(mut self, platform: &str, executes: bool) -> Self {
        self.known.executes.insert(platform.parse().unwrap(), executes);
        self
    }

    /// Gives a `--build-context`.
    fn context(mut self, name: &str, value: &str) -> Self {
        self.contexts.push((name.to_owned(), context::Source::parse(value).unwrap()));
        self
    }

    fn build_arg(mut self, name: &str, value: &str) -> Self {
        self.options.build_args.push((name.to_owned(), value.to_owned()));
        self
    }

    fn target(mut self, target: &str) -> Self {
        self.options.target = Some(target.to_owned());
        self
    }

    fn round(&self, text: &str) -> Result<Planned, crate::Error> {
        let file = parse(&Source::new("Dockerfile", text)).unwrap_or_else(|error| panic!("{error}"));
        let context = Context::open(self.directory.path(), &self.directory.path().join("Dockerfile"))?;
        plan(&file, &self.options, &Contexts::open(context, &self.contexts)?, &self.known)
    }

    fn plan(&self, text: &str) -> Plan {
        match self.round(text) {
            Ok(Planned::Ready(plan)) => plan,
            Ok(Planned::Needs(needs)) => panic!("needs {needs:?}"),
            Err(error) => panic!("{error}"),
        }
    }

    /// A look instead of a build.
    fn check(&self, text: &str) -> Checked {
        let file = parse(&Source::new("Dockerfile", text)).unwrap_or_else(|error| panic!("{error}"));
        let context = Context::open(self.directory.path(), &self.directory.path().join("Dockerfile")).unwrap();
        check(&file, &self.options, &Contexts::open(context, &self.contexts).unwrap(), &self.known)
    }

    /// What one round of planning asks for; images for another platform with the platform, and platforms to be tried.
    fn needs(&self, text: &str) -> Vec<String> {
        let needs = match self.round(text).unwrap() {
            Planned::Ready(_) => Needs::default(),
            Planned::Needs(needs) => needs,
        };
        let images = needs.images.into_keys().map(|ImageName { name, platform }| match platform == self.options.host {
            true => name,
            false => format!("{name} for {platform}"),
        });
        let remotes = needs.remotes.keys().map(ToString::to_string);
        images.chain(remotes).chain(needs.platforms.iter().map(|platform| format!("try {platform}"))).collect()
    }

    /// The error of a round, rendered where it has a place.
    fn error(&self, text: &str) -> String {
        match self.round(text) {
            Err(crate::Error::Dockerfile(error)) => error.render(&Source::new("Dockerfile", text), false),
            Err(error) => error.to_string(),
            Ok(planned) => panic!("no error: {planned:?}"),
        }
    }

    fn keys(&self, text: &str) -> Vec<Key> {
        self.plan(text).target().steps.iter().map(|step| step.key).collect()
    }
}

/// A layer that holds what `content` says.
fn layer_of(content: &str) -> LayerRef {
    let (digest, diff_id) = (Digest::of(content), Digest::of(format!("tar of {content}")));
    LayerRef { digest, size: 9, compression: Compression::Gzip, diff_id }
}

/// The image's name, wanted for this platform.
fn image_for(platform: &str, name: &str) -> ImageName {
    ImageName { name: name.to_owned(), platform: platform.parse().unwrap() }
}

impl Plan {
    fn config(&self) -> &crate::image::ContainerConfig {
        &self.target().config.config
    }

    fn lines(&self) -> Vec<&str> {
        self.target().history.iter().map(|line| line.created_by.as_str()).collect()
    }

    fn runs(&self) -> Vec<&Run> {
        self.target().runs()
    }

    fn copies(&self) -> Vec<&Copy> {
        self.target().steps.iter().filter_map(as_copy).collect()
    }
}

impl Stage {
    fn runs(&self) -> Vec<&Run> {
        self.steps.iter().filter_map(as_run).collect()
    }
}

fn as_run(step: &Step) -> Option<&Run> {
    if let Op::Run(run) = &step.op { Some(run) } else { None }
}

fn as_copy(step: &Step) -> Option<&Copy> {
    if let Op::Copy(copy) = &step.op { Some(copy) } else { None }
}

/// The plan of a Dockerfile without context, images or options.
fn planned(text: &str) -> Plan {
    Bench::new().plan(text)
}

/// The value of a variable that a RUN sees.
fn seen<'r>(run: &'r Run, name: &str) -> Option<&'r str> {
    run.env.iter().find(|(other, _)| other == name).map(|(_, value)| value.as_str())
}
