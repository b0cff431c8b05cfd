//! From instructions to steps, without running anything.
//!
//! [`plan`] walks back from the target to the stages it needs, expands every variable and lowers what remains to three
//! operations: [`Op::Run`], [`Op::Copy`], [`Op::Mkdir`]. All other instructions only edit the image's config. Stages
//! that the target does not need are never looked at, and their base images never asked for.
//!
//! Planning reads the contexts, to hash what COPY takes, and nothing else. What must come from elsewhere is a need: the
//! caller fetches all needs at once and calls again. Two or three rounds do: base images first, then what their ONBUILD
//! triggers name.
//!
//! Every step has its [`Key`] before anything runs. Keys are computed in `key/` and in no other place.

mod checks;
mod copy;
mod history;
mod key;
mod look;
mod lower;
mod metadata;
mod mode;
mod names;
mod op;
mod platform;
mod remote;
mod run;
mod scope;
mod select;
mod stage;

use std::collections::{BTreeMap, BTreeSet};

use yadokari_layers::{Compression, Digest, Key, Layer, RelPath};
use yadokari_registry::Platform;

use crate::context::Contexts;
use crate::dockerfile::{Diagnostic, Dockerfile, Span};
use crate::image::ImageConfig;
use crate::remote::{Fetched, Remote};

pub(crate) use copy::through_link;
pub(crate) use key::image as image_key;
pub use key::{
    Input, content_of, formed_result_key, record_key, result_key, result_key_of_index, squash_key, squashed_result_key,
    state,
};
pub use look::{Checked, check};
pub use mode::Mode;
pub use names::meant;
pub use op::{
    Access, Copy, CopySource, Elsewhere, Inline, Mkdir, Mount, MountKind, MountSource, Op, Origin, Owner, Run,
    SecretVariable, Taken,
};
pub use select::{Filter, Selected, Selection, is_pattern, literal, select, select_with_parents};

/// What the user asked for.
#[derive(Debug, Clone)]
pub struct Options {
    /// `--target`: a stage's name or number; the last stage when absent.
    pub target: Option<String>,
    /// `--build-arg`, in order; a later value wins.
    pub build_args: Vec<(String, String)>,
    /// `--label`, which override LABEL.
    pub labels: Vec<(String, String)>,
    /// The platform that the image is for.
    pub platform: Platform,
    /// Whether the user asked for it; else it is this machine's, and a base image may say better.
    pub platform_is_given: bool,
    /// This machine's platform.
    pub host: Platform,
    /// SOURCE_DATE_EPOCH, in seconds since the Unix epoch.
    pub epoch: Option<i64>,
    /// `--reproducible`: where nothing says what SOURCE_DATE_EPOCH is, no time of the image is later than 1970. Unlike one
    /// that is given this is no argument, which a RUN could see.
    pub reproducible: bool,
    /// What of the modes of the context's files enters keys.
    pub context_mode: ContextMode,
    /// `--ignore-path`: what is at or below these paths never enters a layer.
    pub ignored: Vec<RelPath>,
}

/// What of the modes of the context's files enters keys. The files in the image have their modes in any case.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ContextMode {
    /// What git keeps: whether a file is executable. Two checkouts made under different umasks have the same keys. A mode
    /// that no umask explains, such as 4755 or 0400, counts with all of its bits.
    #[default]
    Git,
    /// All bits.
    Raw,
}

/// What an image is asked for by: a name, and the platform that it is wanted for.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct ImageName {
    /// The name, with all variables expanded.
    pub name: String,
    /// The platform.
    pub platform: Platform,
}

/// An image that a FROM or a `--from` names, as far as planning needs it.
#[derive(Debug, Clone)]
pub struct BaseImage {
    /// The digest of the manifest for the platform.
    pub manifest: Digest,
    /// Its config.
    pub config: ImageConfig,
    /// Its layers, the lowest first.
    pub layers: Vec<LayerRef>,
}

/// A layer by name. Its index is unknown until the blob is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LayerRef {
    /// The compressed blob.
    pub digest: Digest,
    /// Its size in bytes.
    pub size: u64,
    /// How it is compressed.
    pub compression: Compression,
    /// What the config says of the uncompressed tar.
    pub diff_id: Digest,
}

impl From<&Layer> for LayerRef {
    fn from(layer: &Layer) -> Self {
        let Layer { digest, diff_id, size, compression, .. } = *layer;
        Self { digest, size, compression, diff_id }
    }
}

/// The images fetched so far.
pub type Images = BTreeMap<ImageName, BaseImage>;

/// What earlier rounds of planning needed, and is known by now.
#[derive(Debug, Clone, Default)]
pub struct Known {
    /// Images.
    pub images: Images,
    /// What ADD names elsewhere.
    pub remotes: BTreeMap<Remote, Fetched>,
    /// Whether commands of a platform can be executed here.
    pub executes: BTreeMap<Platform, bool>,
}

/// What a round of planning lacks. Nothing of it was [`Known`].
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Needs {
    /// Images to be looked up, and the places that name them; a trigger has none.
    pub images: BTreeMap<ImageName, Option<Span>>,
    /// Files and repositories to be fetched, and the places that name them; a trigger has none.
    pub remotes: BTreeMap<Remote, Option<Span>>,
    /// Platforms to be tried. They come before anything is asked for.
    pub platforms: BTreeSet<Platform>,
}

impl Needs {
    fn is_empty(&self) -> bool {
        self.images.is_empty() && self.remotes.is_empty() && self.platforms.is_empty()
    }
}

/// The outcome of a round of planning.
#[derive(Debug)]
pub enum Planned {
    /// Everything is known.
    Ready(Plan),
    /// Something must be found out first.
    Needs(Needs),
}

/// All that will happen.
#[derive(Debug)]
pub struct Plan {
    /// The stages that the target needs, each after those it needs itself. The target is the last.
    pub stages: Vec<Stage>,
    /// What is legal and probably not meant, in the order of the file: the findings of the checks that count, and others.
    pub warnings: Vec<Diagnostic>,
    /// The Dockerfile, or a build argument, says that a finding fails the build.
    pub findings_are_errors: bool,
    /// SOURCE_DATE_EPOCH: the option, or the default that an ARG before the first FROM gives. With neither it is 0 where
    /// the image is to be reproducible.
    pub epoch: Option<i64>,
}

impl Plan {
    /// The stage whose image is the result.
    pub fn target(&self) -> &Stage {
        self.stages.last().expect("a plan has at least the target's stage")
    }

    /// Whether any step executes a command.
    pub fn has_run(&self) -> bool {
        self.commands().next().is_some()
    }

    /// All commands with the steps that execute them.
    pub fn commands(&self) -> impl Iterator<Item = (&Step, &Run)> {
        self.steps().filter_map(|step| if let Op::Run(run) = &step.op { Some((step, run)) } else { None })
    }

    /// The target and the stages that it starts from, from the target down: their layers are the image's, all others only
    /// serve to copy from.
    pub fn target_chain(&self) -> Vec<usize> {
        let below = |&position: &usize| match self.stages[position].base {
            Base::Stage(below) => Some(below),
            Base::Scratch | Base::Image(_) => None,
        };
        std::iter::successors(Some(self.stages.len() - 1), below).collect()
    }

    /// All steps of all stages.
    pub fn steps(&self) -> impl Iterator<Item = &Step> {
        self.stages.iter().flat_map(|stage| &stage.steps)
    }
}

/// Where a stage starts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Base {
    /// Nothing.
    Scratch,
    /// An image of [`Images`].
    Image(ImageName),
    /// The result of another stage, by its position in [`Plan::stages`].
    Stage(usize),
}

/// A stage that will be executed.
#[derive(Debug)]
pub struct Stage {
    /// What progress lines call it: its name, or its number.
    pub name: String,
    /// Where it starts.
    pub base: Base,
    /// The identity of that.
    pub base_key: Key,
    /// What is done, in order.
    pub steps: Vec<Step>,
    /// The image's config as the instructions leave it. Its `rootfs` is empty, its `history` the base image's.
    pub config: ImageConfig,
    /// One line for each instruction since the base image, those of the stages below included.
    pub history: Vec<HistoryLine>,
}

/// The trace that an instruction leaves in the image's history.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HistoryLine {
    /// The instruction, in BuildKit's words.
    pub created_by: String,
    /// The step that may make a layer: its stage's position in [`Plan::stages`], and its position there.
    pub step: Option<(usize, usize)>,
}

/// One operation.
#[derive(Debug)]
pub struct Step {
    /// What is done.
    pub op: Op,
    /// The identity of its result.
    pub key: Key,
    /// The identity of its layer alone, where that does not depend on what is below: a linked copy. The same layer can
    /// be put on another base.
    pub layer_key: Option<Key>,
    /// What the key is made of besides what is below and the stages and images that files are taken from, in the order in
    /// which it enters the key.
    pub inputs: Vec<Input>,
    /// The instruction as written, for progress.
    pub text: String,
    /// The instruction's place in the Dockerfile; `None` for an ONBUILD trigger, which stands in its base's config.
    pub span: Option<Span>,
}

/// Turns a Dockerfile into a plan, as far as what it needs is known.
pub fn plan(file: &Dockerfile, options: &Options, contexts: &Contexts, known: &Known) -> Result<Planned, crate::Error> {
    stage::Planner::new(file, options, contexts, known)?.plan()
}

#[cfg(test)]
mod tests;
