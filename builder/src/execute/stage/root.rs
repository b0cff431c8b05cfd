//! The root file system of a stage: layers go onto it, commands run in it, and what they changed becomes layers.

use std::fs::File;
use std::io::{self, Read};
use std::sync::Arc;
use std::time::{Duration, Instant};

use yadokari_layers::{Changes, Coming, Compression, Entry, Growing, Index, Kind, Layer, Tree, pack};

use super::StageRun;
use crate::execute::blobs::Blobs;
use crate::execute::ending::Ending;
use crate::execute::mounts::with_secrets;
use crate::execute::transfer::at;
use crate::execute::users;
use crate::plan::{LayerRef, Op, Run, Step};
use crate::progress::{bytes, seconds};
use crate::sandbox::{self, Exit, LayerFile, Priority, Sandbox, Worker};
use crate::space;

impl StageRun<'_> {
    /// How the layer of the step under way is written. One that is in no image and in no cache never leaves this machine: it is
    /// compressed as fast as keeps the disk from filling up.
    fn options(&self) -> pack::Options {
        let step = &self.stage.steps[self.number];
        if self.executor.earlier.is_some() || self.of_images.contains(&step.key) {
            return *self.executor.pack;
        }
        pack::Options { compression: Compression::Zstd, level: Some(1), ..*self.executor.pack }
    }

    /// Makes a layer. Where there is a root already that commands are still to run in, it is put on that at the same time.
    pub(super) fn pack(&mut self, changes: &Changes) -> Result<Option<Layer>, crate::Error> {
        let (options, directory) = (&self.options(), self.blobs.directory());
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
    pub(super) fn run(
        &mut self,
        ending: &Ending<'_>,
        run: &Run,
        next: bool,
    ) -> Result<Option<pack::Packing>, crate::Error> {
        let (executor, step) = (self.executor, ending.step);
        let identity = users::identity(self.tree()?, &run.user).map_err(|error| at(error, step.span))?;
        let mut env: Vec<(String, String)> = run.proxies.iter().chain(&run.env).cloned().collect();
        if !env.iter().any(|(variable, _)| variable == "HOME") {
            env.push(("HOME".into(), identity.home.clone()));
        }
        let mut env = with_secrets(env, run, executor.secrets, step.span)?;
        self.worker()?;
        let worker = self.worker.as_mut().expect("it was just made");
        let mut mounts = self.mounts.ready(worker, run, step.span, &self.voice)?;
        if let Some(trust) = executor.trust {
            trust.add_variables(&mut env);
            mounts.extend(trust.mounts());
        }
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
        let output = executor.progress.output(&ending.name);
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
            space::suspicion(directory).iter().for_each(|suspicion| self.voice.warning(suspicion));
            return Err(crate::Error::Run { text: step.text.clone(), code });
        }
        let packing = self.commit(run, next, ending.wanted)?;
        // It is in the root that it was taken from.
        self.applied += usize::from(packing.is_some());
        Ok(packing)
    }

    /// Packs what the sandbox says has changed.
    pub(super) fn commit(
        &mut self,
        run: &Run,
        ahead: bool,
        wanted: bool,
    ) -> Result<Option<pack::Packing>, crate::Error> {
        let (options, directory, begun) = (&self.options(), self.blobs.directory(), self.executor.begun);
        // Its times are those of this build, so that it is a new layer wherever it goes.
        let is_new = wanted && options.clamp.is_none();
        let begun = |layer: &Growing| {
            if is_new {
                begun(layer)
            }
        };
        let worker = self.worker.as_mut().expect("a RUN made it");
        let mut packed = Ok(None);
        let how = sandbox::Commit { clamp: options.clamp, ignored: run.ignored.clone() };
        let mut looked = None;
        let committed = worker.commit(&how, &mut |tar| {
            let mut tar = Timed { tar, since: Instant::now(), until_first: &mut looked };
            packed = pack::pack_tar(&mut tar, options, directory, ahead, &begun);
            match &packed {
                Ok(packing) => Ok(packing.as_ref().map(|packing| Arc::clone(packing.index()))),
                Err(error) => Err(io::Error::other(error.to_string())),
            }
        });
        if let Some(time) = looked {
            self.voice.debug(&format!("changes looked for in {}", seconds(time)));
        }
        match (committed, packed) {
            (Ok(()), packed) => Ok(packed?),
            // A tar that ends early only says that the worker failed, and a pipe that is closed that this side did.
            (Err(_), Err(error)) if !error.is_end_of_file() => Err(error.into()),
            (Err(error), _) => Err(error.into()),
        }
    }

    /// The root file system of this stage. It is made of all layers when it is first needed; those that were made without
    /// it since then are put on it when it is needed again.
    pub(super) fn worker(&mut self) -> Result<&mut Worker, crate::Error> {
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
    pub(super) fn make_root(&mut self) -> Result<(), crate::Error> {
        let awaited = self.upcoming.awaited(self.position, self.number);
        self.job.give_way(&awaited)?;
        let priority = if awaited.is_empty() { Priority::Normal } else { Priority::Low };
        let known = self.blobs.known(&self.layers);
        let (probe, settings) = self.executor.sandbox.expect("a driver was chosen, since a RUN is upcoming");
        let (worker, filled) = self.blobs.bring_beside(&self.layers, |opened| {
            let file = |((layer, index), opened): ((&LayerRef, _), _)| layer_file(self.blobs, layer, index, opened);
            let files = self.layers.iter().zip(known.clone()).zip(opened).map(file).collect();
            let mut worker = Worker::start(probe, settings, &self.stage.name)?;
            self.executor.interrupt.watch(worker.interrupter());
            let filled = worker.materialise(files, priority)?;
            Ok((worker, filled))
        })?;
        self.worker = Some(worker);
        self.job.has_root();
        let unknown = known.iter().map(Option::is_none);
        for ((layer, index), _) in self.layers.iter().zip(&filled.indexes).zip(unknown).filter(|(_, unknown)| *unknown)
        {
            self.blobs.found(layer, index);
        }
        filled.warnings.iter().for_each(|warning| self.voice.warning(warning));
        self.applied = self.layers.len();
        Ok(())
    }

    /// A failure that an interrupt caused is an interrupt, and one of a full disk says what it takes.
    pub(super) fn explained(&self, step: &Step, error: crate::Error) -> crate::Error {
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
}

/// A tar, and how long its first bytes or its end let wait: nothing is written before all changes are known.
struct Timed<'a> {
    tar: &'a mut dyn Read,
    since: Instant,
    until_first: &'a mut Option<Duration>,
}

impl Read for Timed<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.tar.read(buffer);
        self.until_first.get_or_insert_with(|| self.since.elapsed());
        read
    }
}

/// The layers, ready to be unpacked, each with its index where that is known.
pub(in crate::execute) fn layer_files(
    blobs: &Blobs<'_>,
    layers: &[LayerRef],
    indexes: Vec<Option<Arc<Index>>>,
) -> Result<Vec<LayerFile>, crate::Error> {
    let _until_opened = blobs.bring(layers)?;
    let file = |(layer, index)| Ok(layer_file(blobs, layer, index, (blobs.open(layer)?, None)));
    layers.iter().zip(indexes).map(file).collect()
}

fn layer_file(
    blobs: &Blobs<'_>,
    layer: &LayerRef,
    index: Option<Arc<Index>>,
    (blob, coming): (File, Option<Coming>),
) -> LayerFile {
    LayerFile { digest: layer.digest, diff_id: layer.diff_id, index, blob, coming, limits: *blobs.limits() }
}
