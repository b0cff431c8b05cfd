//! The root in which a RUN failed, as an image to look at.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use yadokari_layers::Key;
use yadokari_registry::Reference;

use crate::execute::FailedRoot;
use crate::image::{Form, ImageConfig, rfc3339};
use crate::output::{self, Destination, Image, Made, Pushing, Uploads};
use crate::plan::{Op, Plan};
use crate::prepare::Prepared;
use crate::progress::Progress;
use crate::{Error, Request};

/// What labels and annotations say: the instruction, its exit code, and its stage.
const INSTRUCTION: &str = "dev.yadokari.failed.instruction";
const CODE: &str = "dev.yadokari.failed.exit-code";
const STAGE: &str = "dev.yadokari.failed.stage";

/// The shell of images that name none.
const SHELL: &str = "/bin/sh";

/// The roots in which commands failed: those of stages that were worked on at the same time may both be there.
#[derive(Debug, Default)]
pub(crate) struct FailedRoots(Mutex<Vec<FailedRoot>>);

impl FailedRoots {
    /// Takes one.
    pub(crate) fn add(&self, root: FailedRoot) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(root);
    }

    /// The one of the failure that is told.
    fn of(&self, plans: &[Plan], error: &Error) -> Option<FailedRoot> {
        let Error::Run { text, code } = error else { return None };
        let roots = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let is_told = |root: &&FailedRoot| root.code == *code && plans[root.plan].step(root).text == *text;
        roots.iter().find(is_told).cloned()
    }
}

impl Plan {
    fn step(&self, root: &FailedRoot) -> &crate::plan::Step {
        &self.stages[root.stage].steps[root.step]
    }
}

/// Keeps the root in which a build has failed as an image, and says where it is. That it cannot be kept is a warning: the
/// failure of the command is what the build failed of.
pub(crate) async fn save(
    request: &Request,
    prepared: &Prepared,
    roots: &FailedRoots,
    error: &Error,
    progress: &Progress,
) {
    let Some(root) = roots.of(&prepared.plans, error) else { return };
    let plan = &prepared.plans[root.plan];
    let places = places(&request.destinations, &plan.step(&root).key);
    let created = rfc3339(prepared.pack(plan).clamp.unwrap_or_else(crate::clock));
    let made = Made::image(image(plan, &root, created));
    let sent = async {
        // Nobody refused a write before the build, and if somebody does now, that says it.
        let pushing = Pushing { unchecked: true, ..request.pushing };
        let uploads = Uploads::start(&places, &request.client, &prepared.sources, &prepared.work, pushing).await?;
        let sent = match uploads.complete(&made).await {
            Ok(()) => uploads.finish(&made, progress).await.map(drop),
            failed => failed,
        };
        uploads.close().await;
        sent
    };
    match sent.await {
        Ok(()) => places.iter().filter_map(how_to_look).for_each(|line| progress.info(&line)),
        Err(error) => progress.warning(&format!("the root in which it failed cannot be kept: {error}")),
    }
}

/// Where such an image can go: to the repository of the first registry, else to the files that are written besides. Never is it
/// a name that was asked for.
fn places(destinations: &[Destination], key: &Key) -> Vec<Destination> {
    let tag = tag(key);
    let named = |name: &Reference| name.with_tag(&tag).ok();
    let first = destinations.iter().find_map(|destination| match destination {
        Destination::Registry(name) => named(name),
        _ => None,
    });
    if let Some(name) = first {
        return vec![Destination::Registry(name)];
    }
    let files = destinations.iter().filter_map(|destination| match destination {
        Destination::Layout { directory, .. } => {
            Some(Destination::Layout { directory: directory.clone(), tag: tag.clone() })
        }
        Destination::Tarball { path, names } => {
            let name = names.first().and_then(named).or_else(|| format!("localhost/failed:{tag}").parse().ok());
            Some(Destination::Tarball { path: path.with_extension("failed.tar"), names: name.into_iter().collect() })
        }
        Destination::Registry(_) | Destination::Root(_) => None,
    });
    files.collect()
}

/// The tag, which is the same for each try of a step that fails.
fn tag(key: &Key) -> String {
    format!("failed-{}", &key.hex()[..12])
}

/// What to type to look at the image.
fn how_to_look(place: &Destination) -> Option<String> {
    let command = match place {
        Destination::Registry(name) => format!("docker run -it --rm {name}"),
        Destination::Layout { directory, tag } => format!("podman run -it --rm oci:{}:{tag}", directory.display()),
        Destination::Tarball { path, names } => {
            format!("docker load -i {}; docker run -it --rm {}", path.display(), names.first()?)
        }
        Destination::Root(_) => return None,
    };
    Some(format!("the root in which it failed is kept as an image: {command}"))
}

/// The image of a root: a shell with what the command had, save for secrets and mounts.
fn image(plan: &Plan, root: &FailedRoot, created: String) -> Image {
    let (stage, step) = (&plan.stages[root.stage], plan.step(root));
    let said = [(INSTRUCTION, step.text.clone()), (CODE, root.code.to_string()), (STAGE, stage.name.clone())];
    let said: BTreeMap<String, String> = said.into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
    // The lines of the history would be of other layers than there are.
    let mut config = ImageConfig { created: Some(created), history: Vec::new(), ..stage.config.clone() };
    let container = &mut config.config;
    if let Op::Run(run) = &step.op {
        container.env = run.env.iter().map(|(name, value)| format!("{name}={value}")).collect();
        container.user.clone_from(&run.user);
        container.working_dir.clone_from(&run.workdir);
    }
    let shell = container.shell.iter().flatten().next().cloned().unwrap_or_else(|| SHELL.to_owned());
    (container.entrypoint, container.cmd) = (None, Some(vec![shell]));
    (container.healthcheck, container.on_build) = (None, Vec::new());
    container.labels.extend(said.clone());
    output::written(config, root.layers.clone(), &Form { annotations: said, ..Form::default() })
}

#[cfg(test)]
mod tests {
    use yadokari_layers::{Compression, Digest, KeyHasher};

    use super::*;
    use crate::plan::{Base, LayerRef, Run, Stage, Step};

    fn key() -> Key {
        KeyHasher::new("x").finish()
    }

    #[test]
    fn a_failed_root_never_gets_a_name_that_was_asked_for() {
        let name = |text: &str| text.parse::<Reference>().unwrap();
        let tag = tag(&key());
        let layout = Destination::Layout { directory: "d".into(), tag: "1".into() };
        let tarball = |names| Destination::Tarball { path: "d/image.tar".into(), names };
        let registries = ["r.example/app:1", "other.example/app:1"].map(|text| Destination::Registry(name(text)));
        let all = [&[layout.clone(), tarball(vec![])], &registries[..]].concat();
        let first = name(&format!("r.example/app:{tag}"));
        assert_eq!(places(&all, &key()), [Destination::Registry(first.clone())]);
        let files = places(&[layout, tarball(vec![name("r.example/app:1")])], &key());
        let kept = |names| Destination::Tarball { path: "d/image.failed.tar".into(), names };
        assert_eq!(files, [Destination::Layout { directory: "d".into(), tag: tag.clone() }, kept(vec![first.clone()])]);
        let unnamed = places(&[tarball(Vec::new())], &key());
        assert_eq!(unnamed, [kept(vec![name(&format!("localhost/failed:{tag}"))])]);
        assert_eq!(places(&[], &key()), []);
        assert_eq!(tag.len(), 19);
        let lines: Vec<String> = files.iter().chain(&unnamed).filter_map(how_to_look).collect();
        assert!(lines.iter().all(|line| line.contains(&tag)), "{lines:?}");
    }

    #[test]
    fn a_failed_root_is_a_shell_with_what_the_command_had() {
        let layer = |text: &str| LayerRef {
            digest: Digest::of(text),
            size: 1,
            compression: Compression::Gzip,
            diff_id: Digest::of(format!("tar of {text}")),
        };
        let mut config = ImageConfig { os: "linux".into(), architecture: "amd64".into(), ..ImageConfig::default() };
        config.config.env = vec!["LATER=1".into()];
        config.config.entrypoint = Some(vec!["/app".into()]);
        config.config.labels = BTreeMap::from([("mine".into(), "1".into())]);
        config.config.on_build = vec!["RUN x".into()];
        let run = Run {
            argv: vec!["/bin/sh".into(), "-c".into(), "false".into()],
            env: vec![("A".into(), "b".into())],
            proxies: vec![("HTTP_PROXY".into(), "http://user:password@proxy".into())],
            user: "nobody".into(),
            workdir: "/w".into(),
            mounts: Vec::new(),
            secrets: Vec::new(),
            no_network: None,
            hostname: None,
            ignored: Vec::new(),
        };
        let step = Step {
            op: Op::Run(run),
            key: key(),
            layer_key: None,
            inputs: Vec::new(),
            text: "RUN false".into(),
            span: None,
        };
        let stage = Stage {
            name: "build".into(),
            base: Base::Scratch,
            base_key: key(),
            steps: vec![step],
            config,
            history: Vec::new(),
        };
        let plan = Plan { stages: vec![stage], warnings: Vec::new(), findings_are_errors: false, epoch: None };
        let layers = vec![layer("base"), layer("changed")];
        let root = FailedRoot { plan: 0, stage: 0, step: 0, code: 3, layers: layers.clone() };
        let image = image(&plan, &root, rfc3339(0));
        assert_eq!(image.layers, layers);
        let config = ImageConfig::parse(&image.config).unwrap();
        assert_eq!(config.rootfs.diff_ids, layers.iter().map(|layer| layer.diff_id).collect::<Vec<_>>());
        let container = &config.config;
        assert_eq!(
            (&*container.env, &*container.user, &*container.working_dir),
            (&["A=b".to_owned()][..], "nobody", "/w")
        );
        assert_eq!((&container.entrypoint, container.cmd.as_deref()), (&None, Some(&[SHELL.to_owned()][..])));
        assert!(container.on_build.is_empty());
        assert_eq!(container.labels[INSTRUCTION], "RUN false");
        assert_eq!(
            (&*container.labels[CODE], &*container.labels[STAGE], &*container.labels["mine"]),
            ("3", "build", "1")
        );
        let manifest = image.manifest.image().unwrap();
        let annotations = manifest.annotations().clone().unwrap();
        assert_eq!((annotations.len(), &*annotations[INSTRUCTION]), (3, "RUN false"));
        assert!(!String::from_utf8_lossy(&image.config).contains("password"));
        // The failure that is told is the one that is looked for.
        let roots = FailedRoots::default();
        roots.add(root.clone());
        let failure = |code| Error::Run { text: "RUN false".into(), code };
        let plans = [plan];
        assert_eq!(roots.of(&plans, &failure(3)), Some(root));
        assert_eq!(roots.of(&plans, &failure(4)), None);
        assert_eq!(roots.of(&plans, &Error::Abandoned), None);
    }
}
