//! From plans to images whose layers are all where they should be.

use std::cell::OnceCell;

use crate::execute::{self, Done, Executor, Interrupt, choose_driver};
use crate::output::{self, Image, Made, Uploads};
use crate::plan::Plan;
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
        let images: Result<Vec<Image>, Error> =
            (0..plans.len()).map(|number| tokio::task::block_in_place(|| self.image(number, &plans[number]))).collect();
        let mut images = images?;
        let made = match &self.request.index {
            Some(platforms) => Made::index(images.into_iter().zip(platforms.iter().cloned()).collect()),
            None => Made::image(images.remove(0)),
        };
        self.uploads.complete(&made).await?;
        Ok(made)
    }

    fn image(&self, number: usize, plan: &Plan) -> Result<Image, Error> {
        let pack = self.prepared.pack(plan);
        let executor = Executor {
            plan,
            contexts: &self.prepared.contexts,
            done: &self.done,
            label: &self.prepared.label(number),
            earlier: self.prepared.earlier(plan),
            fetch: &self.prepared.sources.fetcher(self.progress, self.interrupt),
            pack: &pack,
            squash: self.request.squash,
            work: &self.prepared.work,
            sandbox: self.probe.get().map(|probe| (probe, &self.request.sandbox)),
            secrets: &self.request.secrets,
            agents: &self.request.agents,
            network_files: &self.request.network_files,
            progress: self.progress,
            interrupt: self.interrupt,
            finished: &|finished| self.uploads.send(finished),
        };
        Ok(output::assemble(plan, &executor.execute()?, pack.clamp))
    }
}
