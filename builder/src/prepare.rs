//! Everything that is known before anything is executed: the plans, and the key of their result.

use std::sync::Arc;

use futures_util::future::join_all;
use yadokari_layers::{Digest, Key, pack};
use yadokari_registry::Platform;

use crate::cache::{Cache, StepInputs};
use crate::context::{Context, Contexts};
use crate::execute::{Done, Earlier, Upcoming, WorkDir};
use crate::image::Form;
use crate::output::Made;
use crate::plan::{Options, Plan, formed_result_key, result_key, result_key_of_index, squashed_result_key};
use crate::progress::Progress;
use crate::sources::Sources;
use crate::{Error, Request, check, dockerfile, look, remote};

/// The plans of a build, for each of its platforms, with what they need.
pub(crate) struct Prepared {
    pub(crate) contexts: Contexts,
    pub(crate) sources: Sources,
    pub(crate) platforms: Vec<Platform>,
    pub(crate) plans: Vec<Plan>,
    pub(crate) cache: Option<Arc<Cache>>,
    /// What tells the target from others, for comparing it with an earlier build.
    pub(crate) target: Digest,
    /// How layers are written. The latest time is each plan's own.
    pack: pack::Options,
    squash: bool,
    form: Form,
    is_index: bool,
    /// Gone last: the plans name files in it.
    pub(crate) work: WorkDir,
}

impl Prepared {
    /// Plans for all platforms, before anything is executed for one.
    pub(crate) async fn new(request: &Request, progress: &Arc<Progress>) -> Result<Self, Error> {
        let file = dockerfile::parse(&request.dockerfile)?;
        let context = Context::open(&request.context, &request.dockerfile_path)?;
        let contexts = Contexts::open(context, &request.named_contexts)?;
        let work = WorkDir::create(&request.sandbox.work_dir)?;
        let secrets = request.secrets.clone();
        let secret = Arc::new(move |name: &str| secrets.text(name));
        let remotes =
            remote::Fetcher::new(request.client.clone(), work.downloads(), secret).with_limits(request.limits);
        let open = |settings| Cache::open(settings, &request.client, Arc::clone(progress)).with_limits(request.limits);
        let cache = request.cache.clone().map(open).map(Arc::new);
        let sources = Sources::new(request.client.clone()).with_cache(cache.clone());
        let sources = sources.with_warm(request.warm.as_deref()).with_progress(Arc::clone(progress));
        let sources = sources.with_lock(request.lock.clone()).with_limits(request.limits);
        let platforms = request.index.clone().unwrap_or_else(|| vec![request.options.platform.clone()]);
        let (mut plans, mut said) = (Vec::new(), Vec::new());
        let mut warn = |warning: &dockerfile::Diagnostic| {
            // Most platforms have the same ones.
            if !said.contains(warning) {
                progress.warning(&warning.render(&request.dockerfile, false));
                said.push(warning.clone());
            }
        };
        for platform in &platforms {
            let options = Options { platform: platform.clone(), ..request.options.clone() };
            let plan = sources.plan(&file, &options, &contexts, &remotes, progress).await;
            // What is found often explains why there is no plan.
            let plan = plan.inspect_err(|_| sources.found(&file, &options, &contexts).iter().for_each(&mut warn))?;
            plan.warnings.iter().for_each(&mut warn);
            check::fail_on_findings(&plan.warnings, plan.findings_are_errors)?;
            plans.push(plan);
        }
        let names: Vec<String> = platforms.iter().map(ToString::to_string).collect();
        let target = format!("{:?}", (request.dockerfile_path.file_name(), &request.options.target, names));
        let (is_index, pack, target) = (request.index.is_some(), request.pack, Digest::of(target));
        let (squash, form) = (request.squash, request.form.clone());
        Ok(Self { contexts, sources, platforms, plans, cache, pack, squash, form, is_index, target, work })
    }

    /// How the layers of a plan are written: the file may say itself what time it is.
    pub(crate) fn pack(&self, plan: &Plan) -> pack::Options {
        pack::Options { clamp: plan.epoch, ..self.pack }
    }

    /// What stands for everything that the result depends on.
    pub(crate) fn key(&self) -> Key {
        let key = |plan: &Plan| {
            let key = result_key(plan, &|image| self.sources.layers(image), &self.pack(plan));
            if self.squash { squashed_result_key(&key) } else { key }
        };
        let key = match (&self.plans[..], self.is_index) {
            ([only], false) => key(only),
            (plans, _) => {
                let keys = plans.iter().zip(&self.platforms).map(|(plan, platform)| (platform.clone(), key(plan)));
                result_key_of_index(&keys.collect::<Vec<_>>())
            }
        };
        if self.form == Form::default() { key } else { formed_result_key(&key, &self.form) }
    }

    /// What earlier builds made of a plan's steps.
    pub(crate) fn earlier(&self, plan: &Plan) -> Option<Earlier<'_>> {
        self.cache.as_ref().map(|cache| Earlier::new(cache, self.pack(plan)))
    }

    /// Asks the cache for all steps at once.
    pub(crate) async fn look_up(&self) {
        let Some(cache) = &self.cache else { return };
        let keys = self.plans.iter().flat_map(|plan| {
            let earlier = Earlier::new(cache, self.pack(plan));
            plan.steps().filter(|step| cache.covers(step)).map(move |step| earlier.key(step))
        });
        cache.look_up(keys.collect::<Vec<_>>()).await;
    }

    /// Asks the cache why steps are going to be executed, where somebody wants to know.
    pub(crate) async fn explain(&self, progress: &Progress) {
        if let Some(cache) = self.cache.as_ref().filter(|_| progress.wants_reasons()) {
            progress.explain(look::reasons_by_key(cache, self).await);
        }
    }

    /// Whether the cache has to do with every step, and so with the image as a whole.
    pub(crate) fn is_covered(&self) -> bool {
        let covers = |step| self.cache.as_ref().is_some_and(|cache| cache.covers(step));
        self.plans.iter().flat_map(Plan::steps).all(covers)
    }

    /// Keeps what the cache does not know yet: the image, and what layers of base images hold.
    pub(crate) async fn keep(&self, key: &Key, made: &Made) {
        let Some(cache) = &self.cache else { return };
        let indexes = self.sources.new_indexes();
        join_all(indexes.iter().map(|(layer, index)| cache.write_index(layer, index))).await;
        if self.is_covered() {
            cache.write_result(key, &self.target, made, &self.inputs()).await;
        }
    }

    /// Ends the use of the cache.
    pub(crate) async fn finish_cache(&self) {
        if let Some(cache) = &self.cache {
            cache.finish().await;
        }
    }

    /// What is still to be done of a plan.
    pub(crate) fn upcoming<'p>(&self, plan: &'p Plan, done: &Done) -> Upcoming<'p> {
        Upcoming::of(plan, &self.pack(plan), done, self.earlier(plan).as_ref())
    }

    /// What all steps depend on, in the order of the plans.
    pub(crate) fn inputs(&self) -> Vec<StepInputs> {
        let mut all = Vec::new();
        for (number, plan) in self.plans.iter().enumerate() {
            for stage in &plan.stages {
                let name = format!("{}{}", self.label(number), stage.name);
                let mut below = stage.base_key;
                for step in &stage.steps {
                    let (stage, text, inputs) = (name.clone(), step.text.clone(), step.inputs.clone());
                    all.push(StepInputs { stage, text, key: step.key, below, inputs });
                    below = step.key;
                }
            }
        }
        all
    }

    /// What the names of stages begin with: the platform, where there are several.
    pub(crate) fn label(&self, plan: usize) -> String {
        if self.platforms.len() > 1 { format!("{} ", self.platforms[plan]) } else { String::new() }
    }
}
