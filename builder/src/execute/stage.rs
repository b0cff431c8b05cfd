//! One stage: its steps in order, each to a layer.

mod failed;
mod root;

use std::collections::HashSet;
use std::sync::Arc;
use std::thread::ScopedJoinHandle;

use yadokari_layers::{Content, Digest, Entry, Index, Key, Layer, Tree};

use super::blobs::Blobs;
use super::copy::{Placing, Restyle};
use super::earlier::{Claim, Claimed};
use super::ending::{Ending, Fresh};
use super::mounts::Mounts;
use super::readers::Reached;
use super::schedule::Job;
use super::transfer::{at, copy_from_context, copy_from_layers, needs_directory, refused};
use super::upcoming::{Made, taken_from};
use super::{Executor, PlanRun, Results, StageResult, Upcoming, users};
use crate::plan::{self, Base, Copy, LayerRef, Mkdir, Op, Origin, Stage, Step};
use crate::progress::{Voice, one_line};
use crate::sandbox::Worker;

pub use failed::FailedRoot;
pub(super) use root::layer_files;

/// A stage under way.
pub(super) struct StageRun<'a> {
    executor: &'a Executor<'a>,
    blobs: &'a Blobs<'a>,
    upcoming: &'a Upcoming<'a>,
    results: &'a Results,
    of_images: &'a HashSet<Key>,
    job: &'a Job<'a>,
    position: usize,
    stage: &'a Stage,
    /// What says what the step under way has to say.
    voice: Voice<'a>,
    /// All layers so far, the lowest first.
    layers: Vec<LayerRef>,
    /// What stands for all that they hold.
    state: Key,
    /// What they said together when something asked last.
    tree: Option<Tree>,
    /// The root file system, once a RUN needed one.
    worker: Option<Worker>,
    /// How many of the layers are in it.
    applied: usize,
    /// What RUN steps mounted so far.
    mounts: Mounts<'a>,
    /// What each step made so far.
    made: Vec<Option<LayerRef>>,
    /// The step under way.
    number: usize,
    /// What the topmost layer says, while it is not one of `layers` because it is still being compressed.
    packed: Option<Arc<Index>>,
}

/// The thread on which the layer of a step is compressed, and the step ended.
type Compressing<'t> = ScopedJoinHandle<'t, Result<Option<LayerRef>, crate::Error>>;

/// What is to be done about a step when it is the next one.
enum Turn<'a> {
    /// Nothing: it is made.
    Made(Made),
    /// It is to be executed here. What it takes files from is there.
    Ours(Claim<'a>),
}

impl<'a> StageRun<'a> {
    /// Begins a stage. The one that it is based on must be done.
    pub(super) fn new(run: &'a PlanRun<'a>, job: &'a Job<'a>, position: usize) -> Self {
        let PlanRun { executor, upcoming, results, of_images, .. } = run;
        let stage = &executor.plan.stages[position];
        let (layers, state) = match &stage.base {
            Base::Scratch => (Vec::new(), stage.base_key),
            Base::Image(name) => (executor.fetch.layers(name), stage.base_key),
            Base::Stage(below) => {
                let below = results.of(*below);
                (below.layers.clone(), below.state.unwrap_or(stage.base_key))
            }
        };
        let mounts = Mounts::new(executor, executor.blobs, results);
        let voice = executor.progress.voice("");
        let blobs = executor.blobs;
        let (tree, worker, applied, made, number, packed) = Default::default();
        Self {
            executor,
            blobs,
            upcoming,
            results,
            of_images,
            job,
            position,
            stage,
            voice,
            layers,
            state,
            tree,
            worker,
            applied,
            mounts,
            made,
            number,
            packed,
        }
    }

    /// Does the steps. The layers are handed on where `wanted` says that they belong to the image.
    pub(super) fn execute(mut self, wanted: bool) -> Result<StageResult, crate::Error> {
        std::thread::scope(|threads| {
            let mut packing = None;
            self.reached(0);
            for (number, step) in self.stage.steps.iter().enumerate() {
                self.executor.interrupt.check()?;
                let (ending, fresh) = self.step(number, wanted).map_err(|error| {
                    let error = self.failed(number, error);
                    self.keep_root(&error, &mut packing);
                    error
                })?;
                // Layers are in order, and one for each stage is compressed while the next step is done.
                self.settle(&mut packing)?;
                match fresh {
                    Fresh::Known(known) => {
                        let (made, record) = *known;
                        self.reach(made.outcome.content.as_ref());
                        let layer = ending.end(made, record)?;
                        self.take(layer);
                    }
                    Fresh::Layer(layer) => {
                        layer.iter().try_for_each(|layer| self.refuse_ignored(&layer.index, step))?;
                        let content = layer.as_ref().and_then(|layer| self.content(&layer.index, &layer.diff_id));
                        self.reach(content.as_ref());
                        let layer = ending.made(layer, content)?;
                        self.take(layer);
                    }
                    Fresh::Packing(layer) => {
                        self.refuse_ignored(layer.index(), step)?;
                        let content = self.content(layer.index(), &layer.diff_id());
                        self.reach(content.as_ref());
                        self.packed = Some(Arc::clone(layer.index()));
                        packing = Some(threads.spawn(move || ending.made(Some(layer.finish()?), content)));
                    }
                }
                self.reached(number + 1);
            }
            self.settle(&mut packing)
        })?;
        if let Some(worker) = self.worker.take() {
            self.executor.work.retire(worker);
        }
        Ok(StageResult { layers: self.layers, made: self.made, state: Some(self.state), merged: None })
    }

    /// Says how far this has come: that many steps have read all that they need.
    fn reached(&self, steps: usize) {
        // What is still being compressed is in the root and not among the layers.
        let (layers, applied) = (self.layers.clone(), self.applied.min(self.layers.len()));
        let reached = Reached { steps, ended: self.made.len(), layers, applied };
        self.executor.readers.reached((self.executor.number, self.position), reached);
    }

    /// Waits for the layer that is being compressed, if there is one.
    fn settle(&mut self, packing: &mut Option<Compressing<'_>>) -> Result<(), crate::Error> {
        let Some(thread) = packing.take() else { return Ok(()) };
        let ended = thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        let layer = ended.map_err(|error| self.failed(self.made.len(), error))?;
        self.packed = None;
        self.take(layer);
        self.reached(self.number);
        Ok(())
    }

    /// The next step has made this.
    fn take(&mut self, layer: Option<LayerRef>) {
        self.made.push(layer);
        self.layers.extend(layer);
    }

    /// The stage holds this as well.
    fn reach(&mut self, content: Option<&Digest>) {
        if let Some(content) = content {
            self.state = plan::state(&self.state, content);
        }
    }

    /// Fails where a layer says something of a path that is to be left out. A command's changes of it are left out already, and what
    /// an instruction itself puts there is a contradiction.
    fn refuse_ignored(&self, index: &Index, step: &Step) -> Result<(), crate::Error> {
        for ignored in self.executor.ignored {
            if let Some((path, _)) = index.records().iter().find(|(path, _)| path.starts_with(ignored)) {
                let message =
                    format!("'{}' puts something at /{path}, which is to be in no layer", one_line(&step.text));
                return Err(crate::Error::Usage { flag: "--ignore-path", message });
            }
        }
        Ok(())
    }

    /// What stands for a layer's content. Without a cache nobody asks.
    fn content(&self, index: &Index, diff_id: &Digest) -> Option<Digest> {
        self.executor.earlier.as_ref().map(|_| plan::content_of(index, diff_id, self.executor.pack.clamp))
    }

    /// Does a step, up to its end.
    fn step(&mut self, number: usize, wanted: bool) -> Result<(Ending<'a>, Fresh), crate::Error> {
        let (executor, step) = (self.executor, &self.stage.steps[number]);
        let name = self.name(number);
        self.voice = executor.progress.voice(&name);
        self.number = number;
        let turn = self.turn(number, step)?;
        let mut ending = Ending::begin(executor, step, name, wanted, matches!(turn, Turn::Made(_)));
        let fresh = match turn {
            Turn::Made(made) => Fresh::Known(Box::new((made, None))),
            Turn::Ours(claim) => {
                ending.claim = Some(claim);
                self.make(&mut ending, number)?
            }
        };
        Ok((ending, fresh))
    }

    /// What progress calls a step.
    fn name(&self, number: usize) -> String {
        format!("{}{} {}/{}", self.executor.label, self.stage.name, number + 1, self.stage.steps.len())
    }

    /// Says that a step has failed, and explains why.
    fn failed(&self, number: usize, error: crate::Error) -> crate::Error {
        let error = self.explained(&self.stage.steps[number], error);
        let is_stopped = matches!(error, crate::Error::Abandoned | crate::Error::Interrupted(_));
        self.executor.progress.step_failed(&self.name(number), is_stopped);
        error
    }

    /// Waits until a step is made, or can be made here.
    fn turn(&mut self, number: usize, step: &Step) -> Result<Turn<'a>, crate::Error> {
        let (executor, job) = (self.executor, self.job);
        job.check()?;
        if let Some(made) = self.upcoming.made(self.position, number) {
            return Ok(Turn::Made(made.clone()));
        }
        let taken = taken_from(step);
        let earlier = executor.earlier.as_ref();
        if self.worker.is_none() && !job.is_given(&taken) && self.upcoming.is_to_run(self.position, number, earlier) {
            // There is time to unpack what is below it.
            self.worker()?;
        }
        // Whoever has the right to execute a step waits for nobody, so that no two wait for each other.
        job.wait_for(&taken)?;
        loop {
            match executor.done.claim(step, executor.pack) {
                Claimed::Made(outcome) => return Ok(Turn::Made(Made { outcome, is_cached: false })),
                Claimed::Here(claim) => return Ok(Turn::Ours(claim)),
                Claimed::Elsewhere => job.lend(|| executor.done.wait(step, executor.pack))?,
            }
        }
    }

    /// What a step comes to that is not known to be made.
    fn make(&mut self, ending: &mut Ending<'a>, number: usize) -> Result<Fresh, crate::Error> {
        let step = ending.step;
        if let Some(earlier) = self.executor.earlier.as_ref().filter(|earlier| earlier.covers(step)) {
            // What is below may have been made anew, and be what it was before all the same.
            ending.by_content = self.content_key(step)?;
            if let Some(outcome) = ending.by_content.and_then(|content| earlier.look(&content)) {
                let record = earlier.known(step, &outcome);
                return Ok(Fresh::Known(Box::new((Made { outcome, is_cached: true }, record))));
            }
        }
        Ok(match &step.op {
            Op::Run(run) => {
                let packing = self.run(ending, run, number + 1 < self.stage.steps.len())?;
                packing.map_or(Fresh::Layer(None), Fresh::Packing)
            }
            Op::Copy(copy) => Fresh::Layer(self.copy(copy, step)?),
            Op::Mkdir(mkdir) => Fresh::Layer(self.mkdir(mkdir, step)?),
        })
    }

    /// The key of a step by the content of all that it depends on; `None` where it takes what is not there.
    fn content_key(&self, step: &Step) -> Result<Option<Key>, crate::Error> {
        let mut from = Vec::new();
        for taken in step.op.taken() {
            let key = match taken.origin() {
                Origin::Stage(stage) => {
                    let tree = self.blobs.tree(&self.results.of(*stage).layers)?;
                    taken.content(&tree, self.executor.pack.clamp)?
                }
                // An image is known by its content without being read.
                Origin::Image(name) => Some(plan::image_key(&name.platform, &self.executor.fetch.layers(name))),
                Origin::Context | Origin::Named(_) | Origin::Nothing => None,
            };
            let Some(key) = key else { return Ok(None) };
            from.push(key);
        }
        Ok(Some(step.content_key(&self.state, &from)))
    }

    /// The tree of all layers so far.
    fn tree(&mut self) -> Result<&Tree, crate::Error> {
        // A RUN is going to have the layers unpacked; what they say is found on the way.
        let has_run = self.upcoming.is_to_run(self.position, self.number, None);
        if has_run && self.worker.is_none() && self.blobs.known(&self.layers).contains(&None) {
            self.make_root()?;
        }
        let tree = self.tree.get_or_insert_default();
        let fresh = self.layers.get(tree.layers().len()..).unwrap_or_default();
        self.blobs.indexes(fresh)?.into_iter().for_each(|index| tree.push(index));
        if tree.layers().len() == self.layers.len() {
            self.packed.iter().for_each(|index| tree.push(Arc::clone(index)));
        }
        Ok(tree)
    }

    fn mkdir(&mut self, mkdir: &Mkdir, step: &Step) -> Result<Option<Layer>, crate::Error> {
        let now = self.executor.now();
        let tree = self.tree()?;
        let owner = users::owner(tree, &mkdir.owner).map_err(|error| at(error, step.span))?;
        let restyle = Restyle { owner: Some(owner), mode: None };
        let mut placing = Placing::new(tree, restyle, now);
        let path = placing.resolve(&mkdir.path).map_err(|conflict| refused(conflict, step.span))?;
        placing.directory(&path).map_err(|conflict| refused(conflict, step.span))?;
        let changes = placing.finish();
        self.pack(&changes)
    }

    fn copy(&mut self, copy: &Copy, step: &Step) -> Result<Option<Layer>, crate::Error> {
        let now = self.executor.now();
        let (blobs, executor, results, voice) = (self.blobs, self.executor, self.results, self.voice.clone());
        let from = match &copy.from {
            Origin::Context | Origin::Named(_) => None,
            Origin::Nothing => Some(Vec::new()),
            Origin::Stage(position) => Some(results.of(*position).layers.clone()),
            Origin::Image(name) => Some(executor.fetch.layers(name)),
        };
        // A linked copy is made as if nothing were below it, and what is below need not even be fetched for it.
        let nothing = Tree::new();
        let tree = if copy.link { &nothing } else { self.tree()? };
        let owner = copy
            .chown
            .as_ref()
            .map(|owner| users::owner(tree, &owner.text).map_err(|error| at(error, step.span.and(Some(owner.span)))));
        let restyle = Restyle { owner: owner.transpose()?, mode: copy.chmod.clone() };
        let mut placing = Placing::new(tree, restyle, now);
        let mut spool = blobs.spool()?;
        let copied = match &from {
            None => {
                let context = executor.directory(&copy.from);
                copy_from_context(&voice, context, &mut placing, copy, &mut spool, blobs.limits(), step.span)
            }
            Some(layers) => copy_from_layers(&voice, blobs, &mut placing, copy, layers, &mut spool, step.span),
        };
        copied?;
        for inline in &copy.inline {
            if copy.inline.len() + copy.sources.len() > 1 {
                needs_directory(&placing, copy, step.span)?;
            }
            let target = placing.target(&copy.destination, Some(inline.name.as_bytes()));
            let target = target.map_err(|conflict| refused(conflict, step.span))?;
            let entry = Entry::file(inline.content.len() as u64, 0o644, now);
            let content = Content::Bytes(inline.content.as_bytes().into());
            placing.put(&target, entry, content).map_err(|conflict| refused(conflict, step.span))?;
        }
        let changes = placing.finish();
        self.pack(&changes)
    }
}
