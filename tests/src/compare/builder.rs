//! Who builds, and how each is told to.

use std::fs;
use std::path::Path;
use std::time::Duration;

use super::group::Group;
use super::{Cost, Plan, Result};
use crate::command::{capture, line};
use crate::error::At;
use crate::oracle::Oracle;
use crate::{Executor, Output, Registry, Variant, scratch};

/// How long a build may take.
const LIMIT: Duration = Duration::from_secs(3600);

/// Where our container has a volume.
const VOLUME: &str = "/volume";

/// Who builds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Builder {
    /// Ours in a container with Docker's defaults.
    InPlace,
    /// Ours in a container with Kubernetes' defaults, with a volume.
    Overlay,
    /// Buildah as root, with chroot isolation.
    Buildah,
    /// The BuildKit in Docker's daemon, as root.
    BuildKit,
}

/// One build.
pub(super) struct Build<'a> {
    pub(super) plan: &'a Plan,
    pub(super) place: &'a Path,
    pub(super) registry: &'a Registry,
    pub(super) context: &'a Path,
    pub(super) builder: Builder,
}

impl Builder {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::InPlace, Self::Overlay, Self::Buildah, Self::BuildKit];

    /// Its name on the command line and in the table.
    pub fn name(self) -> &'static str {
        match self {
            Self::InPlace => "in-place",
            Self::Overlay => "overlay",
            Self::Buildah => "buildah",
            Self::BuildKit => "buildkit",
        }
    }

    /// Whether it is this project.
    pub fn is_ours(self) -> bool {
        matches!(self, Self::InPlace | Self::Overlay)
    }

    /// What the names of its own executables begin with; those of RUNs do not.
    fn programs(self) -> &'static [&'static str] {
        match self {
            Self::InPlace | Self::Overlay => &["executor", "memfd:yadokari"],
            Self::Buildah => &["buildah", "memfd:"],
            Self::BuildKit => &["docker", "containerd", "runc", "memfd:"],
        }
    }
}

impl Build<'_> {
    /// Builds and pushes, and looks whether the registry has the image. The output is that of a whole session, where the
    /// builder runs in one.
    pub(super) fn carry_out(&self, ours: Option<&Executor>, others: Option<&Oracle>) -> Result<(Cost, Output)> {
        let group = Group::create()?;
        let built = match (self.builder, ours, others) {
            (Builder::InPlace | Builder::Overlay, Some(executor), _) => self.ours(&group, executor),
            (Builder::Buildah | Builder::BuildKit, _, Some(oracle)) => self.others(&group, oracle),
            _ => Err("the builder was not made".into()),
        }?;
        match self.registry.manifest(&self.repository(), "1")? {
            Some(_) => Ok(built),
            None => Err(format!("{} did not push {}", self.builder.name(), self.repository()).into()),
        }
    }

    fn ours(&self, group: &Group, executor: &Executor) -> Result<(Cost, Output)> {
        let mut job =
            Executor::job(self.registry).limit(LIMIT).args(["--dockerfile", "Dockerfile", "--verbosity", "debug"]);
        job = job.args(["--driver", self.builder.name(), "--destination", &self.destination()]);
        for argument in self.arguments() {
            job = job.args(["--build-arg", &argument]);
        }
        if self.plan.cache {
            job = job.args(["--cache=true", "--cache-repo", &self.cache()]);
        }
        if let Some(compression) = &self.plan.compression {
            job = job.args(["--compression", compression]);
        }
        let variant = if self.builder == Builder::Overlay { Variant::Unconfined } else { Variant::Docker };
        let mut container = executor.container(variant).place(self.place).cgroup(group.name());
        let volume = scratch::directory_in(self.place)?;
        if self.builder == Builder::Overlay {
            container = container.volume(volume.path(), VOLUME);
            job = job.args(["--work-dir", VOLUME]);
        }
        let mut live = container.readonly_volume(self.context, "/workspace").open()?;
        let watch = group.watch(self.builder.programs());
        let output = live.run(job);
        let peak = watch.stop();
        let output = output?.ok(self.builder.name())?;
        let processors = group.processors()?;
        let cost = Cost { wall: output.elapsed, processors, own_memory: peak.named, all_memory: peak.all };
        Ok((cost, output))
    }

    fn others(&self, group: &Group, oracle: &Oracle) -> Result<(Cost, Output)> {
        let room = oracle.room(self.registry.host(), scratch::directory_in(self.place)?)?;
        // What a RUN does belongs to the build: its group is to be below this one.
        let options = format!("--exec-opt native.cgroupdriver=cgroupfs --cgroup-parent /{}/steps", group.name());
        let daemon = (self.builder == Builder::BuildKit).then_some(&*options);
        let mut session = room.session(&self.script(), daemon, Some(self.context))?;
        let leaves: Vec<_> = group.leaves().iter().map(|leaf| leaf.to_string_lossy().into_owned()).collect();
        session.env("CGROUPS", leaves.join(" "));
        let watch = group.watch(self.builder.programs());
        let line = line(&session);
        let output = capture(&mut session, LIMIT);
        let peak = watch.stop();
        let output = output?.ok(&line)?;
        let processors = group.processors()?;
        let path = room.share().join("times");
        let times = fs::read_to_string(&path).at("read", &path)?;
        let times: Vec<f64> = times.split_whitespace().filter_map(|time| time.parse().ok()).collect();
        let [begin, end] = times[..] else { return Err(format!("{}: not two times", path.display()).into()) };
        let wall = Duration::try_from_secs_f64(end - begin)?;
        Ok((Cost { wall, processors, own_memory: peak.named, all_memory: peak.all }, output))
    }

    /// What is measured of a session, between two looks at the clock.
    fn script(&self) -> String {
        let arguments: Vec<_> = self.arguments().iter().map(|argument| format!("--build-arg '{argument}'")).collect();
        let (arguments, destination, cache) = (arguments.join(" "), self.destination(), self.cache());
        let build = match self.builder {
            Builder::Buildah => {
                let layers = if self.plan.cache {
                    format!("--layers --cache-from {cache} --cache-to {cache}")
                } else {
                    "--layers=false".to_owned()
                };
                format!(
                    "buildah --storage-driver overlay bud --isolation chroot --network host --tls-verify=false --format oci \
                     {layers} {arguments} --tag {destination} . &&
                     buildah --storage-driver overlay push --quiet --tls-verify=false {destination} docker://{destination}"
                )
            }
            // As --push does, but without unpacking the image into the daemon's store, which takes long and serves nobody.
            _ => format!(
                "docker buildx build --progress=plain --provenance=false --network=host {arguments} \
                 --output type=image,name={destination},push=true,store=false ."
            ),
        };
        format!("cd /share/context\nbegin=$EPOCHREALTIME\n{build}\necho $begin $EPOCHREALTIME >/share/times\n")
    }

    fn arguments(&self) -> Vec<String> {
        let mut arguments = self.plan.arguments.clone();
        arguments.push(format!("REGISTRY={}", self.registry.host()));
        arguments
    }

    /// Each builder's own: nobody finds what another one has pushed.
    fn repository(&self) -> String {
        format!("bench/{}", self.builder.name())
    }

    fn destination(&self) -> String {
        self.registry.reference(&format!("{}:1", self.repository()))
    }

    fn cache(&self) -> String {
        self.registry.reference(&format!("cache/{}", self.builder.name()))
    }
}
