//! From plans to images whose layers are all where they should be.

use std::cell::OnceCell;

use yadokari_layers::pack;

use crate::execute::{self, Blobs, Done, Executor, Interrupt, choose_driver};
use crate::output::{self, Image, Made, Uploads};
use crate::prepare::Prepared;
use crate::progress::Progress;
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
}

impl<'a> Making<'a> {
    pub(crate) fn new(
        request: &'a Request,
        prepared: &'a Prepared,
        uploads: &'a Uploads<'a>,
        progress: &'a Progress,
        interrupt: &'a Interrupt,
    ) -> Self {
        let (done, probe) = Default::default();
        Self { request, prepared, uploads, progress, interrupt, done, probe }
    }

    /// Executes what is missing until the images are whole. Where a layer of the cache turns out to be missing or wrong,
    /// it is as if the cache had never had it.
    pub(crate) async fn make(&self) -> Result<Made, Error> {
        // A step may be found twice: by its key, and by content. What layers are merged into may be found, too.
        let mut tries: usize = self.prepared.plans.iter().map(|plan| 2 * plan.steps().count() + 1).sum();
        loop {
            match self.attempt().await {
                // Each time there is a layer less that is believed in.
                Err(Error::Stale { .. }) if tries > 0 => tries -= 1,
                result => return result,
            }
        }
    }

    async fn attempt(&self) -> Result<Made, Error> {
        let plans = &self.prepared.plans;
        for plan in plans {
            let upcoming = self.prepared.upcoming(plan, &self.done);
            if upcoming.commands().next().is_some() && self.probe.get().is_none() {
                // Nobody else could have set it in between.
                _ = self.probe.set(choose_driver(&self.request.sandbox, self.progress)?);
            }
            let driver = self.probe.get().and_then(|probe| probe.chosen);
            execute::check(&upcoming, driver, &self.request.secrets, &self.request.agents)?;
        }
        let mut images = tokio::task::block_in_place(|| self.images())?;
        let made = match &self.request.index {
            Some(platforms) => Made::index(images.into_iter().zip(platforms.iter().cloned()).collect()),
            None => Made::image(images.remove(0)),
        };
        self.uploads.complete(&made).await?;
        Ok(made)
    }

    fn images(&self) -> Result<Vec<Image>, Error> {
        let (request, prepared) = (self.request, self.prepared);
        let fetch = prepared.sources.fetcher(self.progress, self.interrupt);
        let blobs = Blobs::new(prepared.work.blobs().to_owned(), &fetch);
        let finished = |finished| self.uploads.send(finished);
        let packs: Vec<pack::Options> = prepared.plans.iter().map(|plan| prepared.pack(plan)).collect();
        let labels: Vec<String> = (0..packs.len()).map(|number| prepared.label(number)).collect();
        let executor = |number: usize| Executor {
            plan: &prepared.plans[number],
            contexts: &prepared.contexts,
            done: &self.done,
            label: &labels[number],
            earlier: prepared.earlier(&prepared.plans[number]),
            fetch: &fetch,
            blobs: &blobs,
            pack: &packs[number],
            squash: request.squash,
            work: &prepared.work,
            sandbox: self.probe.get().map(|probe| (probe, &request.sandbox)),
            secrets: &request.secrets,
            agents: &request.agents,
            network_files: &request.network_files,
            progress: self.progress,
            interrupt: self.interrupt,
            finished: &finished,
        };
        let executors: Vec<Executor<'_>> = (0..packs.len()).map(executor).collect();
        let results = execute::execute(&executors, request.jobs, self.interrupt)?;
        let images = prepared.plans.iter().zip(&packs).zip(results);
        Ok(images.map(|((plan, pack), results)| output::assemble(plan, &results, pack.clamp)).collect())
    }
}
