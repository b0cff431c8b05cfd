//! One stage: its steps in order, each to a layer.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;
use std::time::Instant;

use yadokari_layers::{Content, Entry, Index, Layer, RelPath, Tree, pack};

use super::blobs::Blobs;
use super::copy::{Bytes, Conflict, Placing, Restyle};
use super::mounts::{Mounts, with_secrets};
use super::{Executor, StageResult, remote, unpack, users};
use crate::context::Context;
use crate::dockerfile::{Diagnostic, Span};
use crate::plan::{
    Base, Copy, CopySource, LayerRef, Mkdir, Op, Origin, Run, Selected, Selection, Stage, Step, through_link,
};
use crate::progress::StepDone;
use crate::remote::Fetched;
use crate::sandbox::{self, Exit, LayerFile, Sandbox, Worker};

/// A stage under way.
pub(super) struct StageRun<'a> {
    executor: &'a Executor<'a>,
    blobs: &'a Blobs<'a>,
    results: &'a [StageResult],
    stage: &'a Stage,
    /// All layers so far, the lowest first.
    layers: Vec<LayerRef>,
    /// What they say together, once something asked.
    tree: Option<Tree>,
    /// The root file system, once a RUN needed one.
    worker: Option<Worker>,
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
        let layers = match &stage.base {
            Base::Scratch => Vec::new(),
            Base::Image(name) => executor.fetch.layers(name),
            Base::Stage(below) => results[*below].layers.clone(),
        };
        let mounts = Mounts::new(executor, blobs, results);
        Ok(Self { executor, blobs, results, stage, layers, tree: None, worker: None, mounts })
    }

    /// Executes the steps. The layers are handed on where `wanted` says that they belong to the image.
    pub(super) fn execute(mut self, wanted: bool) -> Result<StageResult, crate::Error> {
        let mut made = Vec::new();
        let stage = self.stage;
        for (number, step) in stage.steps.iter().enumerate() {
            self.executor.interrupt.check()?;
            let name = format!("{}{} {}/{}", self.executor.label, stage.name, number + 1, stage.steps.len());
            self.executor.progress.step(&name, &step.text, &step.key);
            let start = Instant::now();
            let layer = match self.executor.done.find(&step.key) {
                Some(layer) => self.apply(layer)?,
                None => self.step(&name, step).map_err(|error| self.interrupted_or(error))?,
            };
            self.executor.done.remember(step.key, layer.as_ref());
            let done = StepDone { time: start.elapsed(), size: layer.as_ref().map(|layer| layer.size) };
            self.executor.progress.step_done(&name, done);
            made.push(layer.as_ref().map(LayerRef::from));
            if let Some(layer) = layer {
                self.layers.push(LayerRef::from(&layer));
                self.blobs.made(&layer);
                if let Some(tree) = &mut self.tree {
                    tree.push(Arc::clone(&layer.index));
                }
                if wanted {
                    (self.executor.finished)(layer)?;
                }
            }
        }
        if let Some(worker) = self.worker.take() {
            self.executor.work.retire(worker);
        }
        Ok(StageResult { layers: self.layers, made })
    }

    /// A failure that an interrupt caused is an interrupt.
    fn interrupted_or(&self, error: crate::Error) -> crate::Error {
        self.executor.interrupt.check().err().unwrap_or(error)
    }

    fn step(&mut self, name: &str, step: &Step) -> Result<Option<Layer>, crate::Error> {
        match &step.op {
            Op::Run(run) => self.run(name, run, step),
            Op::Copy(copy) => {
                let layer = self.copy(copy, step)?;
                self.apply(layer)
            }
            Op::Mkdir(mkdir) => {
                let layer = self.mkdir(mkdir, step)?;
                self.apply(layer)
            }
        }
    }

    /// The tree of all layers so far.
    fn tree(&mut self) -> Result<&Tree, crate::Error> {
        if self.tree.is_none() {
            self.tree = Some(self.blobs.tree(&self.layers)?);
        }
        Ok(self.tree.as_ref().expect("it was just made"))
    }

    /// Keeps a root, where there is one, in step with a layer that was made without it.
    fn apply(&mut self, layer: Option<Layer>) -> Result<Option<Layer>, crate::Error> {
        if let (Some(layer), Some(worker)) = (&layer, &mut self.worker) {
            let file = layer_file(self.blobs, &LayerRef::from(layer), Arc::clone(&layer.index))?;
            let warnings = worker.push(file)?;
            warnings.iter().for_each(|warning| self.executor.progress.warning(warning));
        }
        Ok(layer)
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
        self.commit()
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

    /// The root file system of this stage, made of all layers so far when it is first needed.
    fn worker(&mut self) -> Result<&mut Worker, crate::Error> {
        if self.worker.is_none() {
            let (probe, settings) = self.executor.sandbox.expect("a driver was chosen, since the plan has a RUN");
            let mut worker = Worker::start(probe, settings, &self.stage.name)?;
            self.executor.interrupt.watch(worker.interrupter());
            let indexes: Vec<Arc<Index>> = self.tree()?.layers().to_vec();
            let warnings = worker.materialise(layer_files(self.blobs, &self.layers, &indexes)?)?;
            warnings.iter().for_each(|warning| self.executor.progress.warning(warning));
            self.worker = Some(worker);
        }
        Ok(self.worker.as_mut().expect("it was just made"))
    }
}

/// The layers, ready to be unpacked.
pub(super) fn layer_files(
    blobs: &Blobs<'_>,
    layers: &[LayerRef],
    indexes: &[Arc<Index>],
) -> Result<Vec<LayerFile>, crate::Error> {
    layers.iter().zip(indexes).map(|(layer, index)| layer_file(blobs, layer, Arc::clone(index))).collect()
}

fn layer_file(blobs: &Blobs<'_>, layer: &LayerRef, index: Arc<Index>) -> Result<LayerFile, crate::Error> {
    Ok(LayerFile { index, blob: blobs.open(layer)? })
}

fn copy_from_context(
    executor: &Executor<'_>,
    context: &Context,
    placing: &mut Placing<'_>,
    copy: &Copy,
    spool: &std::path::Path,
    span: Option<Span>,
) -> Result<(), crate::Error> {
    // A build that takes nothing from the context does not read it.
    let nothing = Tree::new();
    let tree = if copy.sources.iter().any(|source| source.elsewhere.is_none()) { context.tree()? } else { &nothing };
    let selected = select_all(tree, copy, span)?;
    let several = selected.len() + copy.inline.len() > 1;
    for (source, selected) in &selected {
        if let Some(elsewhere) = &source.elsewhere {
            if several && matches!(elsewhere.fetched, Fetched::File(_)) && !copy.unpack_downloads {
                needs_directory(placing, copy, span)?;
            }
            let copied = remote::copy(placing, copy, elsewhere, spool, span);
            copied.map_err(|refusal| refusal.at(source, span))?;
            continue;
        }
        let archive = copy.unpack && tree.content(&selected.path).is_some_and(|(_, found)| found.entry.is_file());
        if archive && unpack::unpack(placing, context, &selected.path, &copy.destination, spool, span)? {
            for (flag, given) in [("--chmod", copy.chmod.is_some()), ("--exclude", !copy.exclude.is_empty())] {
                if given {
                    executor.progress.warning(&format!("{flag} does not reach into the archive '{}'", selected.path));
                }
            }
            continue;
        }
        if !tree.is_directory(&selected.path) {
            warn_of_exclude(executor, copy, selected);
            if several {
                needs_directory(placing, copy, span)?;
            }
        }
        let filter = selected.filter(&copy.exclude);
        let copied =
            placing.copy(tree, selected, filter, &copy.destination, &|_, path| Bytes::of_context(context, path));
        copied.map_err(|conflict| refused(conflict, span))?;
    }
    Ok(())
}

/// Copies from the layers of a stage or an image. What they say is known from their indexes; only the layers that hold
/// what is copied are read, each once.
fn copy_from_layers(
    executor: &Executor<'_>,
    blobs: &Blobs<'_>,
    placing: &mut Placing<'_>,
    copy: &Copy,
    layers: &[LayerRef],
    spool: &std::path::Path,
    span: Option<Span>,
) -> Result<(), crate::Error> {
    let tree = blobs.tree(layers)?;
    let selected = select_all(&tree, copy, span)?;
    let several = selected.len() + copy.inline.len() > 1;
    let mut wanted: BTreeMap<usize, Vec<RelPath>> = BTreeMap::new();
    for (_, selected) in &selected {
        let filter = selected.filter(&copy.exclude);
        for part in tree.part(&selected.path, &|below| filter.takes(below)) {
            if let Some((name, found)) = tree.content(part.path)
                && found.entry.is_file()
            {
                wanted.entry(found.layer).or_default().push(name.clone());
            }
        }
    }
    let mut contents = BTreeMap::new();
    for (layer, names) in wanted {
        contents.insert(layer, blobs.extract(&layers[layer], &names, spool)?);
    }
    let content = |layer: usize, name: &RelPath| {
        contents
            .get(&layer)
            .and_then(|files| files.get(name))
            .map_or(Content::Empty, |file| Content::Host(file.clone()))
    };
    for (_, selected) in &selected {
        if !tree.is_directory(&selected.path) {
            warn_of_exclude(executor, copy, selected);
            if several {
                needs_directory(placing, copy, span)?;
            }
        }
        let copied = placing.copy(&tree, selected, selected.filter(&copy.exclude), &copy.destination, &content);
        copied.map_err(|conflict| refused(conflict, span))?;
    }
    Ok(())
}

/// `--exclude` holds below copied directories and not for what is a source itself, which its author may not have meant.
fn warn_of_exclude(executor: &Executor<'_>, copy: &Copy, selected: &Selected) {
    let name = selected.name.as_deref().map(String::from_utf8_lossy).unwrap_or_default();
    if copy.exclude.excludes(&name) {
        let message =
            format!("--exclude holds inside of copied directories only: the source '{}' is copied", selected.path);
        executor.progress.warning(&message);
    }
}

/// What each source selects, in their order. A source elsewhere is one by itself.
fn select_all<'c>(
    tree: &Tree,
    copy: &'c Copy,
    span: Option<Span>,
) -> Result<Vec<(&'c CopySource, Selected)>, crate::Error> {
    let mut all = Vec::new();
    for source in &copy.sources {
        if source.elsewhere.is_some() {
            all.push((source, Selected { name: None, path: RelPath::root(), include: None }));
            continue;
        }
        let refuse = |error: Diagnostic| Err(if span.is_some() { error.at(source.span) } else { error }.into());
        let selected = match copy.select(tree, source)? {
            Selection::Found(selected) => selected,
            Selection::Missing(path) => {
                let error = Diagnostic::new(format!("'{path}' does not exist in what is copied from"));
                return refuse(error.label("no such file or directory"));
            }
            Selection::ThroughLink(link) => return refuse(through_link(&link)),
        };
        all.extend(selected.into_iter().map(|selected| (source, selected)));
    }
    Ok(all)
}

/// A file among several sources needs a directory: one that the destination is marked as, or one that is there by now.
fn needs_directory(placing: &Placing<'_>, copy: &Copy, span: Option<Span>) -> Result<(), crate::Error> {
    let destination = &copy.destination;
    if placing.means_directory(destination).map_err(|conflict| refused(conflict, span))? {
        return Ok(());
    }
    let error = Diagnostic::new(Conflict::NeedsDirectory(destination.clone()).to_string());
    let error = error.help(format!("write the destination as '{destination}/'"));
    Err(if span.is_some() { error.at(copy.destination_span) } else { error }.into())
}

/// Something that the Dockerfile asks for and the tree does not allow.
fn refused(conflict: Conflict, span: Option<Span>) -> crate::Error {
    match conflict {
        Conflict::Layers(error) => error.into(),
        conflict => at(conflict, span),
    }
}

pub(super) fn at(error: impl std::fmt::Display, span: Option<Span>) -> crate::Error {
    let error = Diagnostic::new(error.to_string());
    span.map_or(error.clone(), |span| error.at(span)).into()
}
