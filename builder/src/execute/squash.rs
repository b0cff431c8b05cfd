//! The layers that were made on top of the base image, as one.

use std::collections::BTreeMap;
use std::time::Instant;

use yadokari_layers::{Changes, Digest, RelPath, pack, squash};

use super::earlier::Outcome;
use super::{Blobs, Executor, Interrupt, StageResult};
use crate::cache::NewStep;
use crate::output::Finished;
use crate::plan::{LayerRef, squash_key};

/// What several layers have become.
#[derive(Debug, Clone)]
pub struct Merged {
    /// The one layer; `None` where they changed nothing together.
    pub layer: Option<LayerRef>,
    /// What the history says of it, in Docker's words.
    pub comment: String,
}

impl Executor<'_> {
    /// Makes one layer of all that the steps of the target's image made, those of the stages below it included. A single
    /// one is left as it is.
    pub(super) fn merge(&self, results: &mut [StageResult]) -> Result<(), crate::Error> {
        let chain = self.plan.target_chain();
        let made = chain.iter().flat_map(|&position| &results[position].made).flatten().count();
        let Some(target) = results.last_mut().filter(|_| made > 1) else { return Ok(()) };
        let (below, above) = target.layers.split_at(target.layers.len() - made);
        let comment = comment(below, &target.layers);
        let layer = self.merged(below, above)?;
        target.layers.truncate(target.layers.len() - made);
        target.layers.extend(layer);
        target.merged = Some(Merged { layer, comment });
        Ok(())
    }

    /// The layer that the layers `above` make together on those `below`: the cache's, or a new one.
    fn merged(&self, below: &[LayerRef], above: &[LayerRef]) -> Result<Option<LayerRef>, crate::Error> {
        let key = squash_key(below, above);
        let name = format!("{}squash", self.label);
        self.progress.step(&name, &format!("{} layers", above.len()), &key, false);
        let start = Instant::now();
        // The cache keeps no more of it than it keeps of the steps.
        let steps = self.plan.target_chain().into_iter().flat_map(|position| &self.plan.stages[position].steps);
        let earlier = self.earlier.as_ref().filter(|earlier| steps.into_iter().all(|step| earlier.covers(step)));
        let (outcome, record, is_cached): (Outcome, Option<NewStep>, bool) =
            match earlier.and_then(|earlier| earlier.look(&key)) {
                Some(found) => (found, None, true),
                None => {
                    let outcome = self.squash(below, above)?;
                    let record = earlier.and_then(|earlier| earlier.record_merged(&key, &outcome));
                    (outcome, record, false)
                }
            };
        let said = outcome.layer.map(|layer| (layer.digest, layer.size));
        self.progress.step_done(&name, &key, start.elapsed(), said, is_cached);
        // What the cache has goes from there where it has to.
        if !is_cached && (outcome.layer.is_some() || record.is_some()) {
            (self.finished)(Finished { layer: outcome.layer, wanted: true, record })?;
        }
        Ok(outcome.layer)
    }

    fn squash(&self, below: &[LayerRef], above: &[LayerRef]) -> Result<Outcome, crate::Error> {
        let changes = self.blobs.together(below, above, self.interrupt)?;
        let layer = pack::pack(&changes, self.pack, self.blobs.directory())?;
        Ok(Outcome::from(layer).with_content(self.pack))
    }
}

impl Blobs<'_> {
    /// What the layers `above` make together on those `below`. What those below hold is known without their bytes; of the
    /// others each blob is read once, and what is left of its contents waits on the disk.
    pub fn together(
        &self,
        below: &[LayerRef],
        above: &[LayerRef],
        interrupt: &Interrupt,
    ) -> Result<Changes, crate::Error> {
        let all = [below, above].concat();
        let squashed = squash(&self.tree(below)?, &self.indexes(above)?)?;
        let wanted = squashed.wanted();
        let _until_read = self.bring(&wanted.keys().map(|&layer| all[layer]).collect::<Vec<_>>())?;
        let mut spool = self.spool()?;
        let mut contents = BTreeMap::new();
        for (layer, names) in wanted {
            interrupt.check()?;
            contents.insert(layer, self.extract(&all[layer], &names, &mut spool)?);
        }
        let content = |layer: usize, name: &RelPath| contents[&layer][name].clone();
        Ok(squashed.changes(&content))
    }
}

/// What Docker's history says of a merge. Docker names images there; we name stacks of layers, by their chain ids.
fn comment(below: &[LayerRef], all: &[LayerRef]) -> String {
    let all = chain_id(all).expect("there are layers that are merged");
    match chain_id(below) {
        Some(below) => format!("merge {all} to {below}"),
        None => format!("create new from {all}"),
    }
}

/// The chain id of layers, as the image specification defines it.
fn chain_id(layers: &[LayerRef]) -> Option<Digest> {
    layers.iter().map(|layer| layer.diff_id).reduce(|below, layer| Digest::of(format!("{below} {layer}")))
}
