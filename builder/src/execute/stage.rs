//! One stage: its steps in order, each to a layer.

use std::io;
use std::sync::Arc;
use std::thread::ScopedJoinHandle;

use yadokari_layers::{Changes, Content, Digest, Entry, Index, Key, Layer, Tree, pack};

use super::blobs::Blobs;
use super::copy::{Placing, Restyle};
use super::earlier::{Claim, Claimed};
use super::ending::{Ending, Fresh, Work};
use super::mounts::{Mounts, with_secrets};
use super::schedule::Job;
use super::transfer::{at, copy_from_context, copy_from_layers, needs_directory, refused};
use super::upcoming::{Made, taken_from};
use super::{Executor, PlanRun, Results, StageResult, Upcoming, users};
use crate::plan::{self, Base, Copy, LayerRef, Mkdir, Op, Origin, Run, Stage, Step};
use crate::progress::Voice;
use crate::sandbox::{self, Exit, LayerFile, Sandbox, Worker};

/// A stage under way.
pub(super) struct StageRun<'a> {
    executor: &'a Executor<'a>,
    blobs: &'a Blobs<'a>,
    upcoming: &'a Upcoming<'a>,
    results: &'a Results,
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
        let PlanRun { executor, upcoming, results, .. } = run;
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
            for number in 0..self.stage.steps.len() {
                self.executor.interrupt.check()?;
                let (ending, fresh) = self.step(number, wanted).map_err(|error| self.interrupted_or(error))?;
                // Layers are in order, and one for each stage is compressed while the next step is done.
                self.settle(&mut packing)?;
                match fresh {
                    Fresh::Known(made, record) => {
                        self.reach(made.outcome.content.as_ref());
                        let layer = ending.end(made, record)?;
                        self.take(layer);
                    }
                    Fresh::Made(Work::Layer(layer)) => {
                        let content = layer.as_ref().and_then(|layer| self.content(&layer.index, &layer.diff_id));
                        self.reach(content.as_ref());
                        let layer = ending.made(layer)?;
                        self.take(layer);
                    }
                    Fresh::Made(Work::Packing(layer)) => {
                        let content = self.content(layer.index(), &layer.diff_id());
                        self.reach(content.as_ref());
                        self.packed = Some(Arc::clone(layer.index()));
                        packing = Some(threads.spawn(move || ending.made(Some(layer.finish()?))));
                    }
                }
            }
            self.settle(&mut packing)
        })?;
        if let Some(worker) = self.worker.take() {
            self.executor.work.retire(worker);
        }
        Ok(StageResult { layers: self.layers, made: self.made, state: Some(self.state), merged: None })
    }

    /// Waits for the layer that is being compressed, if there is one.
    fn settle(&mut self, packing: &mut Option<Compressing<'_>>) -> Result<(), crate::Error> {
        let Some(thread) = packing.take() else { return Ok(()) };
        let layer = thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))?;
        self.packed = None;
        self.take(layer);
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

    /// What stands for a layer's content. Without a cache nobody asks.
    fn content(&self, index: &Index, diff_id: &Digest) -> Option<Digest> {
        self.executor.earlier.as_ref().map(|_| plan::content_of(index, diff_id, self.executor.pack.clamp))
    }

    /// Does a step, up to its end.
    fn step(&mut self, number: usize, wanted: bool) -> Result<(Ending<'a>, Fresh), crate::Error> {
        let (executor, step) = (self.executor, &self.stage.steps[number]);
        let name = format!("{}{} {}/{}", executor.label, self.stage.name, number + 1, self.stage.steps.len());
        self.voice = executor.progress.voice(&name);
        self.number = number;
        let turn = self.turn(number, step)?;
        let mut ending = Ending::begin(executor, step, name, wanted);
        let fresh = match turn {
            Turn::Made(made) => Fresh::Known(made, None),
            Turn::Ours(claim) => {
                ending.claim = Some(claim);
                self.make(&mut ending, number)?
            }
        };
        Ok((ending, fresh))
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
                return Ok(Fresh::Known(Made { outcome, is_cached: true }, record));
            }
        }
        Ok(Fresh::Made(match &step.op {
            Op::Run(run) => {
                let packing = self.run(&ending.name, run, step, number + 1 < self.stage.steps.len())?;
                packing.map_or(Work::Layer(None), Work::Packing)
            }
            Op::Copy(copy) => Work::Layer(self.copy(copy, step)?),
            Op::Mkdir(mkdir) => Work::Layer(self.mkdir(mkdir, step)?),
        }))
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

    /// A failure that an interrupt caused is an interrupt.
    fn interrupted_or(&self, error: crate::Error) -> crate::Error {
        self.executor.interrupt.check().err().unwrap_or(error)
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
        let spool = blobs.spool()?;
        let copied = match &from {
            None => {
                let context = executor.directory(&copy.from);
                copy_from_context(&voice, context, &mut placing, copy, spool.path(), step.span)
            }
            Some(layers) => copy_from_layers(&voice, blobs, &mut placing, copy, layers, spool.path(), step.span),
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

    /// Makes a layer. Where there is a root already that commands are still to run in, it is put on that at the same time.
    fn pack(&mut self, changes: &Changes) -> Result<Option<Layer>, crate::Error> {
        let (options, directory) = (self.executor.pack, self.blobs.directory());
        let has_run = self.upcoming.is_to_run(self.position, self.number + 1, None);
        if changes.is_empty() || self.worker.is_none() || !has_run {
            return Ok(pack::pack(changes, options, directory)?);
        }
        let mut packed = Ok(None);
        let pushed = self.worker()?.push_tar(&mut |tar| {
            packed = pack::pack_beside(changes, options, directory, tar);
            match &packed {
                Ok(layer) => Ok(layer.iter().map(|layer| Arc::clone(&layer.index)).next().unwrap_or_default()),
                Err(error) => Err(io::Error::other(error.to_string())),
            }
        });
        match (pushed, packed) {
            (Ok(warnings), packed) => {
                warnings.iter().for_each(|warning| self.voice.warning(warning));
                self.applied += 1;
                Ok(packed?)
            }
            // A pipe that is closed only says that the worker failed, and a tar that ends early that this side did.
            (Err(_), Err(error)) if !error.is_broken_pipe() => Err(error.into()),
            (Err(error), _) => Err(error.into()),
        }
    }

    /// Executes a command. Its layer is taken from the root as fast as it comes when something is to be done `next`.
    fn run(&mut self, name: &str, run: &Run, step: &Step, next: bool) -> Result<Option<pack::Packing>, crate::Error> {
        let executor = self.executor;
        let identity = users::identity(self.tree()?, &run.user).map_err(|error| at(error, step.span))?;
        let mut env: Vec<(String, String)> = run.proxies.iter().chain(&run.env).cloned().collect();
        if !env.iter().any(|(variable, _)| variable == "HOME") {
            env.push(("HOME".into(), identity.home.clone()));
        }
        let env = with_secrets(env, run, executor.secrets, step.span)?;
        self.worker()?;
        let worker = self.worker.as_mut().expect("it was just made");
        let mounts = self.mounts.ready(worker, run, step.span, &self.voice)?;
        let files = executor.network_files.clone();
        let command = sandbox::Run {
            argv: run.argv.clone(),
            env,
            cwd: run.workdir.clone(),
            uid: identity.uid,
            gid: identity.gid,
            groups: identity.groups,
            resolv_conf: files.resolv_conf,
            hosts: files.hosts,
            hostname: run.hostname.clone().unwrap_or(files.hostname),
            mounts,
            network: if run.no_network.is_some() { sandbox::Network::None } else { sandbox::Network::Default },
        };
        let output = executor.progress.output(name);
        let exit = worker.run(&command, &mut |stream, bytes| output.write(stream, bytes))?;
        output.finish();
        let code = match exit {
            Exit::Code(0) => None,
            Exit::Code(code) => Some(u8::try_from(code).unwrap_or(u8::MAX)),
            Exit::Signal(signal) => Some(128_u8.saturating_add(u8::try_from(signal).unwrap_or(0))),
        };
        if let Some(code) = code {
            executor.interrupt.check()?;
            return Err(crate::Error::Run { text: step.text.clone(), code });
        }
        let packing = self.commit(next)?;
        // It is in the root that it was taken from.
        self.applied += usize::from(packing.is_some());
        Ok(packing)
    }

    /// Packs what the sandbox says has changed.
    fn commit(&mut self, ahead: bool) -> Result<Option<pack::Packing>, crate::Error> {
        let (options, directory) = (self.executor.pack, self.blobs.directory());
        let worker = self.worker.as_mut().expect("a RUN made it");
        let mut packed = Ok(None);
        let committed = worker.commit(options.clamp, &mut |tar| {
            packed = pack::pack_tar(tar, options, directory, ahead);
            match &packed {
                Ok(packing) => Ok(packing.as_ref().map(|packing| Arc::clone(packing.index()))),
                Err(error) => Err(io::Error::other(error.to_string())),
            }
        });
        match (committed, packed) {
            (Ok(()), packed) => Ok(packed?),
            // A tar that ends early only says that the worker failed, and a pipe that is closed that this side did.
            (Err(_), Err(error)) if !error.is_end_of_file() => Err(error.into()),
            (Err(error), _) => Err(error.into()),
        }
    }

    /// The root file system of this stage. It is made of all layers when it is first needed; those that were made without
    /// it since then are put on it when it is needed again.
    fn worker(&mut self) -> Result<&mut Worker, crate::Error> {
        if self.worker.is_none() {
            self.make_root()?;
        }
        let applied = self.applied;
        let indexes = self.tree()?.layers()[applied..].iter().map(|index| Some(Arc::clone(index))).collect();
        // What is being packed comes from the root.
        let missing = self.layers.get(applied..).unwrap_or_default();
        let files = layer_files(self.blobs, missing, indexes)?;
        let worker = self.worker.as_mut().expect("it was just made");
        self.applied += files.len();
        for file in files {
            worker.push(file)?.iter().for_each(|warning| self.voice.warning(warning));
        }
        Ok(worker)
    }

    /// Makes the root of all layers so far. What they say need not be known: it is afterwards.
    fn make_root(&mut self) -> Result<(), crate::Error> {
        let known = self.blobs.known(&self.layers);
        let files = layer_files(self.blobs, &self.layers, known.clone())?;
        let (probe, settings) = self.executor.sandbox.expect("a driver was chosen, since a RUN is upcoming");
        let mut worker = Worker::start(probe, settings, &self.stage.name)?;
        self.executor.interrupt.watch(worker.interrupter());
        let filled = worker.materialise(files)?;
        self.worker = Some(worker);
        let unknown = known.iter().map(Option::is_none);
        for ((layer, index), _) in self.layers.iter().zip(&filled.indexes).zip(unknown).filter(|(_, unknown)| *unknown)
        {
            self.blobs.found(layer, index);
        }
        filled.warnings.iter().for_each(|warning| self.voice.warning(warning));
        self.applied = self.layers.len();
        Ok(())
    }
}

/// The layers, ready to be unpacked, each with its index where that is known.
pub(super) fn layer_files(
    blobs: &Blobs<'_>,
    layers: &[LayerRef],
    indexes: Vec<Option<Arc<Index>>>,
) -> Result<Vec<LayerFile>, crate::Error> {
    blobs.fetch(layers)?;
    let file = |(layer, index): (&LayerRef, _)| {
        Ok(LayerFile { digest: layer.digest, diff_id: layer.diff_id, index, blob: blobs.open(layer)? })
    };
    layers.iter().zip(indexes).map(file).collect()
}
