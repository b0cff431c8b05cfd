//! From plans to images whose layers are all where they should be.

use std::cell::OnceCell;

use yadokari_layers::{Growing, pack};

use crate::execute::{self, Blobs, Done, Executor, FailedRoot, Fetch, Interrupt, Pending, Readers, choose_driver};
use crate::failed::{self, FailedRoots};
use crate::output::{self, Image, Made, Uploads};
use crate::prepare::Prepared;
use crate::progress::{LayerContents, Progress};
use crate::sandbox::Probe;
use crate::{Error, Request};

/// A build under way.
pub(crate) struct Making<'a> {
    request: &'a Request,
    prepared: &'a Prepared,
    uploads: &'a Uploads<'a>,
    progress: &'a Progress,
    interrupt: &'a Interrupt,
    /// What was made so far. It stays when a part of the build has to be done again.
    done: Done,
    /// The driver, once a RUN has to be executed.
    probe: OnceCell<Probe>,
    /// The roots in which commands failed.
    failed: FailedRoots,
}

impl<'a> Making<'a> {
    pub(crate) fn new(
        request: &'a Request,
        prepared: &'a Prepared,
        uploads: &'a Uploads<'a>,
        progress: &'a Progress,
        interrupt: &'a Interrupt,
    ) -> Self {
        let (done, probe, failed) = Default::default();
        Self { request, prepared, uploads, progress, interrupt, done, probe, failed }
    }

    /// Executes what is missing until the images are whole. Where a layer of the cache turns out to be missing or wrong,
    /// it is as if the cache had never had it; one that was made here and cannot be had back is made again.
    pub(crate) async fn make(&self) -> Result<Made, Error> {
        // A step may be found twice: by its key, and by content. What layers are merged into may be found, too. Once, nothing is
        // believed any more of what the cache says of layers.
        let plans = self.prepared.plans.iter();
        let mut tries: usize = plans.map(|plan| 2 * plan.steps().count() + 1).sum::<usize>() + 1;
        loop {
            match self.attempt().await {
                // Each time there is a layer less that is believed in.
                Err(Error::Stale { layer }) if tries > 0 => {
                    self.done.forget(&layer);
                    tries -= 1;
                }
                Err(error) => {
                    failed::save(self.request, self.prepared, &self.failed, &error, self.progress).await;
                    return Err(error);
                }
                made => return made,
            }
        }
    }

    async fn attempt(&self) -> Result<Made, Error> {
        let plans = &self.prepared.plans;
        let fetcher = self.prepared.sources.fetcher(self.progress, self.interrupt);
        for plan in plans {
            let upcoming = self.prepared.upcoming(plan, &self.done);
            if upcoming.commands().next().is_some() && self.probe.get().is_none() {
                // Nobody else could have set it in between.
                _ = self.probe.set(choose_driver(&self.request.sandbox, self.progress)?);
            }
            let driver = self.probe.get().and_then(|probe| probe.chosen);
            execute::check(&upcoming, driver, &self.request.secrets, &self.request.agents)?;
        }
        // What has to be sent in the end is not fetched a second time for that.
        let layers = (0..plans.len()).flat_map(|number| self.pending(number, &fetcher).image());
        let owed = layers.filter(|layer| self.uploads.owes(layer)).map(|layer| layer.digest);
        let _until_sent = self.prepared.work.holders().hold(owed);
        let mut images = tokio::task::block_in_place(|| self.images(&fetcher))?;
        let made = match &self.request.index {
            Some(platforms) => {
                Made::index(images.into_iter().zip(platforms.iter().cloned()).collect(), &self.request.form)
            }
            None => Made::image(images.remove(0)),
        };
        self.uploads.complete(&made).await?;
        Ok(made)
    }

    /// What is known of the steps of a plan.
    fn pending<'s>(&'s self, number: usize, fetch: &'s dyn Fetch) -> Pending<'s> {
        let plan = &self.prepared.plans[number];
        let (pack, earlier) = (self.prepared.pack(plan), self.prepared.earlier(plan));
        Pending { plan, pack, done: &self.done, earlier, fetch }
    }

    fn images(&self, fetch: &dyn Fetch) -> Result<Vec<Image>, Error> {
        let (request, prepared) = (self.request, self.prepared);
        let blobs = Blobs::new(&prepared.work, fetch).with_limits(request.limits);
        let pending = (0..prepared.plans.len()).map(|number| self.pending(number, fetch)).collect();
        let readers = Readers::new(prepared.work.holders(), pending);
        let begun = |layer: &Growing| self.uploads.begin(layer);
        let roots = &self.failed;
        let failed = |root| roots.add(root);
        let failed = request.save_failed.then_some(&failed as &(dyn Fn(FailedRoot) + Sync));
        let finished = |finished| self.uploads.send(finished);
        let packs: Vec<pack::Options> = prepared.plans.iter().map(|plan| prepared.pack(plan)).collect();
        let labels: Vec<String> = (0..packs.len()).map(|number| prepared.label(number)).collect();
        let executor = |number: usize| Executor {
            plan: &prepared.plans[number],
            contexts: &prepared.contexts,
            done: &self.done,
            label: &labels[number],
            earlier: prepared.earlier(&prepared.plans[number]),
            readers: &readers,
            number,
            fetch,
            blobs: &blobs,
            pack: &packs[number],
            squash: request.squash,
            ignored: &request.options.ignored,
            work: &prepared.work,
            sandbox: self.probe.get().map(|probe| (probe, &request.sandbox)),
            secrets: &request.secrets,
            agents: &request.agents,
            network_files: &request.network_files,
            trust: request.trust.as_ref(),
            progress: self.progress,
            interrupt: self.interrupt,
            begun: &begun,
            failed,
            finished: &finished,
        };
        let executors: Vec<Executor<'_>> = (0..packs.len()).map(executor).collect();
        let results = execute::execute(&executors, request.jobs, self.interrupt)?;
        let images = prepared.plans.iter().zip(&packs).zip(results);
        let images: Vec<Image> =
            images.map(|((plan, pack), results)| output::assemble(plan, &results, pack.clamp, &request.form)).collect();
        for image in images.iter().filter(|_| self.progress.wants_contents()) {
            let contents = LayerContents::of(&image.layers, &blobs.known(&image.layers));
            self.progress.image(&image.manifest.digest, &contents);
        }
        Ok(images)
    }
}
