//! One stage: its steps in order, each to a layer.

use std::io;
use std::sync::Arc;
use std::time::Instant;

use yadokari_layers::{Content, Entry, Index, Key, Kind, Layer, Tree, pack};

use super::blobs::Blobs;
use super::copy::{Placing, Restyle};
use super::earlier::Outcome;
use super::mounts::{Mounts, with_secrets};
use super::readers::Reached;
use super::transfer::{at, copy_from_context, copy_from_layers, needs_directory, refused};
use super::{Executor, StageResult, users};
use crate::cache::NewStep;
use crate::output::Finished;
use crate::plan::{self, Base, Copy, LayerRef, Mkdir, Op, Origin, Run, Stage, Step};
use crate::progress::{StepDone, bytes};
use crate::sandbox::{self, Exit, LayerFile, Sandbox, Worker};
use crate::space;

/// A stage under way.
pub(super) struct StageRun<'a> {
    executor: &'a Executor<'a>,
    blobs: &'a Blobs<'a>,
    results: &'a [StageResult],
    position: usize,
    stage: &'a Stage,
    /// The position of the step under way.
    number: usize,
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
}

impl<'a> StageRun<'a> {
    pub(super) fn new(
        executor: &'a Executor<'a>,
        blobs: &'a Blobs<'a>,
        results: &'a [StageResult],
        position: usize,
    ) -> Result<Self, crate::Error> {
        let stage = &executor.plan.stages[position];
        let (layers, state) = match &stage.base {
            Base::Scratch => (Vec::new(), stage.base_key),
            Base::Image(name) => (executor.fetch.layers(name), stage.base_key),
            Base::Stage(below) => (results[*below].layers.clone(), results[*below].state.unwrap_or(stage.base_key)),
        };
        let mounts = Mounts::new(executor, blobs, results);
        let (number, tree, worker, applied) = (0, None, None, 0);
        Ok(Self { executor, blobs, results, position, stage, number, layers, state, tree, worker, applied, mounts })
    }

    /// Does the steps. The layers are handed on where `wanted` says that they belong to the image.
    pub(super) fn execute(mut self, wanted: bool) -> Result<StageResult, crate::Error> {
        let mut made = Vec::new();
        let (stage, executor) = (self.stage, self.executor);
        self.reached(0);
        for (number, step) in stage.steps.iter().enumerate() {
            executor.interrupt.check()?;
            self.number = number;
            let name = format!("{}{} {}/{}", executor.label, stage.name, number + 1, stage.steps.len());
            executor.progress.step(&name, &step.text, &step.key);
            let start = Instant::now();
            let (outcome, record, is_cached) =
                self.outcome(&name, step).map_err(|error| self.explained(step, error))?;
            let size = outcome.layer.as_ref().map(|layer| layer.size);
            executor.progress.step_done(&name, StepDone { time: start.elapsed(), size, is_cached });
            made.push(outcome.layer);
            self.layers.extend(outcome.layer);
            self.reached(number + 1);
            if let Some(content) = &outcome.content {
                self.state = plan::state(&self.state, content);
            }
            let layer = outcome.layer;
            if !is_cached {
                if let (Some(layer), Some(index)) = (&layer, &outcome.index) {
                    self.blobs.made(layer, index);
                }
                executor.done.remember(step, executor.pack, outcome);
            }
            // What the cache has is not here, and goes from there where it has to.
            let layer = layer.filter(|_| !is_cached);
            if wanted && layer.is_some() || record.is_some() {
                (executor.finished)(Finished { layer, wanted, record })?;
            }
        }
        if let Some(worker) = self.worker.take() {
            executor.work.retire(worker);
        }
        Ok(StageResult { layers: self.layers, made, state: Some(self.state) })
    }

    /// Says how far this has come: that many steps have read all that they need.
    fn reached(&self, steps: usize) {
        let (layers, applied) = (self.layers.clone(), self.applied);
        let stage = (self.executor.number, self.position);
        self.executor.readers.reached(stage, Reached { steps, layers, applied });
    }

    /// What a step makes, what the cache is to keep of it, and whether the cache had it.
    fn outcome(&mut self, name: &str, step: &Step) -> Result<(Outcome, Option<NewStep>, bool), crate::Error> {
        let executor = self.executor;
        if let Some(done) = executor.done.find(step, executor.pack) {
            return Ok((done, None, false));
        }
        let Some(earlier) = &executor.earlier else {
            return Ok((self.step(name, step)?.into(), None, false));
        };
        if !earlier.covers(step) {
            let outcome = Outcome::from(self.step(name, step)?).with_content(executor.pack);
            return Ok((outcome, None, false));
        }
        if let Some(found) = earlier.find(step) {
            return Ok((found, None, true));
        }
        // What is below may have been made anew, and be what it was before all the same.
        let content = self.content_key(step)?;
        if let Some(found) = content.and_then(|content| earlier.look(&content)) {
            let record = earlier.known(step, &found);
            return Ok((found, record, true));
        }
        let outcome = Outcome::from(self.step(name, step)?).with_content(executor.pack);
        let record = earlier.record(step, content, &outcome);
        Ok((outcome, record, false))
    }

    /// The key of a step by the content of all that it depends on; `None` where it takes what is not there.
    fn content_key(&self, step: &Step) -> Result<Option<Key>, crate::Error> {
        let mut from = Vec::new();
        for taken in step.op.taken() {
            let key = match taken.origin() {
                Origin::Stage(stage) => {
                    let tree = self.blobs.tree(&self.results[*stage].layers)?;
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

    /// A failure that an interrupt caused is an interrupt, and one of a full disk says what it takes.
    fn explained(&self, step: &Step, error: crate::Error) -> crate::Error {
        let error = self.executor.interrupt.check().err().unwrap_or(error);
        let directory = self.worker.as_ref().filter(|_| matches!(error, crate::Error::Sandbox(_)));
        let directory = directory.map_or(self.executor.work.path(), Worker::directory);
        space::explained(error, directory, || matches!(step.op, Op::Run(_)).then(|| self.size()))
    }

    /// How much the layers of the stage are, on the way to a root and in it.
    fn size(&self) -> String {
        let packed = self.layers.iter().map(|layer| layer.size).sum();
        let of = |entry: &Entry| if let Kind::File { size, .. } = entry.kind { size } else { 0 };
        let tree = self.tree.iter().flat_map(Tree::iter);
        let unpacked = tree.map(|(_, found)| of(found.entry)).sum();
        format!("the layers below have {}, and {} unpacked", bytes(packed), bytes(unpacked))
    }

    fn step(&mut self, name: &str, step: &Step) -> Result<Option<Layer>, crate::Error> {
        match &step.op {
            Op::Run(run) => self.run(name, run, step),
            Op::Copy(copy) => self.copy(copy, step),
            Op::Mkdir(mkdir) => self.mkdir(mkdir, step),
        }
    }

    /// The tree of all layers so far.
    fn tree(&mut self) -> Result<&Tree, crate::Error> {
        let tree = self.tree.get_or_insert_default();
        let fresh = &self.layers[tree.layers().len()..];
        self.blobs.indexes(fresh)?.into_iter().for_each(|index| tree.push(index));
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
        Ok(pack::pack(&placing.finish(), self.executor.pack, self.blobs.directory())?)
    }

    fn copy(&mut self, copy: &Copy, step: &Step) -> Result<Option<Layer>, crate::Error> {
        let now = self.executor.now();
        let (blobs, executor, results) = (self.blobs, self.executor, self.results);
        let from = match &copy.from {
            Origin::Context | Origin::Named(_) => None,
            Origin::Nothing => Some(Vec::new()),
            Origin::Stage(position) => Some(results[*position].layers.clone()),
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
                copy_from_context(executor, context, &mut placing, copy, spool.path(), step.span)
            }
            Some(layers) => copy_from_layers(executor, blobs, &mut placing, copy, layers, spool.path(), step.span),
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
        Ok(pack::pack(&placing.finish(), executor.pack, blobs.directory())?)
    }

    fn run(&mut self, name: &str, run: &Run, step: &Step) -> Result<Option<Layer>, crate::Error> {
        let executor = self.executor;
        let identity = users::identity(self.tree()?, &run.user).map_err(|error| at(error, step.span))?;
        let mut env: Vec<(String, String)> = run.proxies.iter().chain(&run.env).cloned().collect();
        if !env.iter().any(|(variable, _)| variable == "HOME") {
            env.push(("HOME".into(), identity.home.clone()));
        }
        let env = with_secrets(env, run, executor.secrets, step.span)?;
        self.worker()?;
        let worker = self.worker.as_mut().expect("it was just made");
        let mounts = self.mounts.ready(worker, run, step.span)?;
        self.reached(self.number + 1);
        let worker = self.worker.as_mut().expect("it was just made");
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
            let directory = self.worker.as_ref().map_or(executor.work.path(), Worker::directory);
            space::suspicion(directory).iter().for_each(|suspicion| executor.progress.warning(suspicion));
            return Err(crate::Error::Run { text: step.text.clone(), code });
        }
        let layer = self.commit()?;
        // It is in the root that it was taken from.
        self.applied += usize::from(layer.is_some());
        Ok(layer)
    }

    /// Packs what the sandbox says has changed, while it says so.
    fn commit(&mut self) -> Result<Option<Layer>, crate::Error> {
        let pipe_failed = |source| yadokari_layers::Error::Stream { operation: "make a pipe for a layer", source };
        let (mut reader, mut writer) = io::pipe().map_err(pipe_failed)?;
        let (options, directory) = (self.executor.pack, self.blobs.directory());
        let worker = self.worker.as_mut().expect("a RUN made it");
        let (committed, packed) = std::thread::scope(|scope| {
            let packing = scope.spawn(move || pack::pack_tar(&mut reader, options, directory));
            let committed = worker.commit(options.clamp, &mut writer);
            drop(writer);
            (committed, packing.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
        });
        // The cause stands on whichever side failed by itself: a broken pipe only says that the other one did.
        match (committed, packed) {
            (Ok(_), packed) => Ok(packed?),
            (Err(_), Err(error)) if error.raw_os_error().is_some() => Err(error.into()),
            (Err(error), _) => Err(error.into()),
        }
    }

    /// The root file system of this stage. It is made of all layers when it is first needed; those that were made without
    /// it since then are put on it when it is needed again.
    fn worker(&mut self) -> Result<&mut Worker, crate::Error> {
        let indexes: Vec<Arc<Index>> = self.tree()?.layers().to_vec();
        let files = layer_files(self.blobs, &self.layers[self.applied..], &indexes[self.applied..])?;
        let warnings = match &mut self.worker {
            Some(worker) => {
                let pushed = files.into_iter().map(|file| worker.push(file)).collect::<Result<Vec<_>, _>>()?;
                pushed.concat()
            }
            None => {
                let (probe, settings) = self.executor.sandbox.expect("a driver was chosen, since a RUN is upcoming");
                let mut worker = Worker::start(probe, settings, &self.stage.name)?;
                self.executor.interrupt.watch(worker.interrupter());
                let warnings = worker.materialise(files)?;
                self.worker = Some(worker);
                warnings
            }
        };
        warnings.iter().for_each(|warning| self.executor.progress.warning(warning));
        self.applied = self.layers.len();
        Ok(self.worker.as_mut().expect("it was just made"))
    }
}

/// The layers, ready to be unpacked.
pub(super) fn layer_files(
    blobs: &Blobs<'_>,
    layers: &[LayerRef],
    indexes: &[Arc<Index>],
) -> Result<Vec<LayerFile>, crate::Error> {
    let _until_opened = blobs.bring(layers)?;
    layers.iter().zip(indexes).map(|(layer, index)| layer_file(blobs, layer, Arc::clone(index))).collect()
}

fn layer_file(blobs: &Blobs<'_>, layer: &LayerRef, index: Arc<Index>) -> Result<LayerFile, crate::Error> {
    Ok(LayerFile { index, blob: blobs.open(layer)? })
}
