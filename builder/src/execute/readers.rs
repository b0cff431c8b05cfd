//! Which blobs the steps that are still to be done are going to read.

use std::collections::HashSet;
use std::sync::{Mutex, MutexGuard, PoisonError};

use yadokari_layers::{Digest, pack};

use super::earlier::{Done, Earlier, Outcome};
use super::{Fetch, Holders, Upcoming};
use crate::plan::{Base, LayerRef, Op, Origin, Plan, Step};

/// A plan, and what its steps made so far.
#[derive(Clone)]
pub struct Pending<'a> {
    /// The plan.
    pub plan: &'a Plan,
    /// How its layers are written.
    pub pack: pack::Options,
    /// What steps made so far.
    pub done: &'a Done,
    /// What earlier builds made.
    pub earlier: Option<Earlier<'a>>,
    /// Knows the layers of images.
    pub fetch: &'a dyn Fetch,
}

/// How far a stage has come.
#[derive(Debug, Clone)]
pub(super) struct Reached {
    /// How many of its steps have read all that they need.
    pub(super) steps: usize,
    /// How many of its steps have ended.
    pub(super) ended: usize,
    /// The layers of these and of what it is based on, the lowest first.
    pub(super) layers: Vec<LayerRef>,
    /// How many of these are in its root file system.
    pub(super) applied: usize,
}

/// Keeps an eye on the stages of all plans, which may go on side by side, and says to the work directory what of its blobs
/// they are going to read.
pub struct Readers<'a> {
    holders: &'a Holders,
    /// Each with what was to be done of it when this began.
    plans: Vec<(Pending<'a>, Upcoming<'a>)>,
    /// The stages that have begun, for each plan.
    stages: Mutex<Vec<Stages>>,
}

type Stages = Vec<Option<Reached>>;

impl<'a> Readers<'a> {
    /// No stage has begun. What all of them are going to read is awaited from now on.
    pub fn new(holders: &'a Holders, plans: Vec<Pending<'a>>) -> Self {
        let stages = plans.iter().map(Pending::untouched).collect();
        let plans = plans.into_iter().map(|plan| {
            let upcoming = Upcoming::of(plan.plan, &plan.pack, plan.done, plan.earlier.as_ref());
            (plan, upcoming)
        });
        let readers = Self { holders, plans: plans.collect(), stages: Mutex::new(stages) };
        readers.tell(&readers.lock());
        readers
    }

    /// Takes note that a step has ended, whose layer may now leave.
    pub(super) fn ended(&self) {
        self.tell(&self.lock());
    }

    /// Takes note of how far a stage has come: the positions of its plan, and of it in the plan.
    pub(super) fn reached(&self, (plan, stage): (usize, usize), reached: Reached) {
        let mut stages = self.lock();
        stages[plan][stage] = Some(reached);
        // Under the lock, so that what is said last is what is true.
        self.tell(&stages);
    }

    fn tell(&self, stages: &[Stages]) {
        let plans = self.plans.iter().zip(stages);
        self.holders.await_only(plans.flat_map(|((plan, upcoming), stages)| plan.awaited(upcoming, stages)).collect());
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Stages>> {
        self.stages.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Pending<'_> {
    /// The layers that the image has for sure, of those that are there.
    pub fn image(&self) -> Vec<LayerRef> {
        self.layers(self.plan.stages.len() - 1, &self.untouched())
    }

    /// No stage has begun.
    fn untouched(&self) -> Stages {
        vec![None; self.plan.stages.len()]
    }

    /// What the steps still to be done read.
    fn awaited(&self, upcoming: &Upcoming<'_>, stages: &[Option<Reached>]) -> HashSet<Digest> {
        let mut awaited = HashSet::new();
        let needed = self.plan.stages.iter().enumerate().filter(|(position, _)| upcoming.needs(*position));
        for (position, stage) in needed {
            let (passed, applied) = stages[position].as_ref().map_or((0, 0), |at| (at.steps, at.applied));
            // Another stage may have made one since this began.
            let is_ahead = |step: &&Step| self.outcome(step).is_none();
            let ahead: Vec<&Step> = stage.steps[passed..].iter().filter(is_ahead).collect();
            let mut layers = Vec::new();
            for taken in ahead.iter().flat_map(|step| step.op.taken()) {
                match taken.origin() {
                    Origin::Stage(from) => layers.extend(self.layers(*from, stages)),
                    Origin::Image(name) => layers.extend(self.fetch.layers(name)),
                    Origin::Context | Origin::Named(_) | Origin::Nothing => {}
                }
            }
            // A root is filled for the next command with what is not in it by then.
            if ahead.iter().any(|step| matches!(step.op, Op::Run(_))) {
                layers.extend(self.layers(position, stages).split_off(applied));
            }
            awaited.extend(layers.iter().map(|layer| layer.digest));
        }
        awaited
    }

    /// The layers of a stage that are there: those that it has by now, and of its other steps those that were made before.
    fn layers(&self, position: usize, stages: &[Option<Reached>]) -> Vec<LayerRef> {
        let stage = &self.plan.stages[position];
        let (mut layers, ended) = match (&stages[position], &stage.base) {
            (Some(at), _) => (at.layers.clone(), at.ended),
            (None, Base::Scratch) => (Vec::new(), 0),
            (None, Base::Image(name)) => (self.fetch.layers(name), 0),
            (None, Base::Stage(below)) => (self.layers(*below, stages), 0),
        };
        layers.extend(stage.steps[ended..].iter().filter_map(|step| self.outcome(step)?.layer));
        layers
    }

    fn outcome(&self, step: &Step) -> Option<Outcome> {
        let done = self.done.find(step, &self.pack);
        done.or_else(|| self.earlier.as_ref().and_then(|earlier| earlier.find(step)))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::path::Path;

    use yadokari_layers::Compression;
    use yadokari_registry::Platform;

    use super::super::Begun;
    use super::super::earlier::Claimed;
    use super::*;
    use crate::context::{Context, Contexts};
    use crate::dockerfile::{Source, parse};
    use crate::image::ImageConfig;
    use crate::plan::{self, BaseImage, ContextMode, ImageName, Options, Planned};

    /// An image called as its only layer.
    struct Images;

    impl Fetch for Images {
        fn layers(&self, image: &ImageName) -> Vec<LayerRef> {
            vec![layer(&image.name)]
        }

        fn fetch(
            &self,
            _layers: &[LayerRef],
            _directory: &Path,
            _begun: Option<Begun<'_>>,
        ) -> Result<(), crate::Error> {
            Ok(())
        }
    }

    fn layer(name: &str) -> LayerRef {
        LayerRef { digest: Digest::of(name), size: 1, compression: Compression::None, diff_id: Digest::of(name) }
    }

    /// The plan of a Dockerfile whose images are `base` and `tools`.
    fn planned(text: &str) -> Plan {
        let platform: Platform = "linux/amd64".parse().unwrap();
        let image = |name: &str| {
            let (config, manifest) = (ImageConfig::default(), Digest::of(name));
            let name = ImageName { name: name.into(), platform: platform.clone() };
            (name, BaseImage { manifest, config, layers: Vec::new() })
        };
        let images: BTreeMap<_, _> = ["base", "tools"].map(image).into();
        let executes = [(platform.clone(), true)].into();
        let known = plan::Known { images, executes, ..plan::Known::default() };
        let options = Options {
            target: None,
            build_args: Vec::new(),
            labels: Vec::new(),
            host: platform.clone(),
            platform: platform.clone(),
            platform_is_given: false,
            epoch: None,
            reproducible: false,
            context_mode: ContextMode::default(),
            ignored: Vec::new(),
        };
        let directory = tempfile::tempdir().unwrap();
        let context = Context::open(directory.path(), Path::new("none")).unwrap();
        let contexts = Contexts::open(context, &[]).unwrap();
        let file = parse(&Source::new("Dockerfile", text)).unwrap();
        match plan::plan(&file, &options, &contexts, &known).unwrap() {
            Planned::Ready(plan) => plan,
            Planned::Needs(needs) => panic!("{needs:?}"),
        }
    }

    /// What is awaited of these layers when stages have come so far: position, steps, layers, and how many are applied.
    fn awaited(plan: &Plan, done: &Done, reached: &[(usize, usize, &[&str], usize)]) -> Vec<&'static str> {
        let pending = Pending { plan, pack: pack::Options::default(), done, earlier: None, fetch: &Images };
        let mut stages = pending.untouched();
        for &(position, steps, layers, applied) in reached {
            let layers = layers.iter().map(|name| layer(name)).collect();
            stages[position] = Some(Reached { steps, ended: steps, layers, applied });
        }
        // The stages have done since then what they did after the build began.
        let upcoming = Upcoming::of(plan, &pending.pack, &Done::default(), None);
        let awaited = pending.awaited(&upcoming, &stages);
        ["base", "tools", "a", "b", "c"].into_iter().filter(|name| awaited.contains(&Digest::of(name))).collect()
    }

    #[test]
    fn a_root_awaits_its_layers_until_they_are_in_it() {
        let plan = planned("FROM base\nRUN a\nWORKDIR /b\nRUN c\n");
        let awaited = |reached: &[_]| awaited(&plan, &Done::default(), reached);
        assert_eq!(awaited(&[]), ["base"]);
        assert_eq!(awaited(&[(0, 0, &["base"], 0)]), ["base"]);
        assert_eq!(awaited(&[(0, 1, &["base"], 1)]), Vec::<&str>::new(), "the first command runs");
        assert_eq!(awaited(&[(0, 2, &["base", "a", "b"], 2)]), ["b"], "what was made without the root is not in it");
        assert_eq!(awaited(&[(0, 3, &["base", "a", "b"], 3)]), Vec::<&str>::new());
    }

    #[test]
    fn a_stage_without_a_command_awaits_what_it_copies_and_no_base() {
        let plan = planned("FROM base\nCOPY --from=tools /a /a\nWORKDIR /b\n");
        let awaited = |reached: &[_]| awaited(&plan, &Done::default(), reached);
        assert_eq!(awaited(&[]), ["tools"]);
        assert_eq!(awaited(&[(0, 1, &["base", "a"], 0)]), Vec::<&str>::new());
    }

    #[test]
    fn whoever_comes_later_awaits_what_stages_made_before() {
        let plan = planned("FROM base AS one\nRUN a\nFROM one\nWORKDIR /c\nRUN --mount=from=tools,target=/t b\n");
        let awaited = |reached: &[_]| awaited(&plan, &Done::default(), reached);
        assert_eq!(awaited(&[]), ["base", "tools"]);
        let one: (usize, usize, &[&str], usize) = (0, 1, &["base", "a"], 2);
        assert_eq!(awaited(&[one]), ["base", "tools", "a"], "the other stage has a root of its own");
        assert_eq!(awaited(&[one, (1, 1, &["base", "a", "b"], 0)]), ["base", "tools", "a", "b"]);
        assert_eq!(awaited(&[one, (1, 2, &["base", "a", "b"], 3)]), Vec::<&str>::new());
    }

    #[test]
    fn what_another_plan_made_of_a_stage_is_awaited_before_the_stage_begins() {
        let plan = planned("FROM base AS one\nRUN a\nRUN b\nFROM tools\nCOPY --from=one /x /x\n");
        let (done, pack) = (Done::default(), pack::Options::default());
        let made = Outcome { layer: Some(layer("a")), content: None, index: None };
        let Claimed::Here(claim) = done.claim(&plan.stages[0].steps[0], &pack) else { panic!("nobody else is there") };
        claim.remember(made);
        assert_eq!(awaited(&plan, &done, &[]), ["base", "a"]);
        assert_eq!(awaited(&plan, &done, &[(0, 0, &["base"], 0)]), ["base", "a"]);
    }
}
