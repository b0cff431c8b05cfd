//! What a build would find in the cache, without building.

use std::collections::HashMap;
use std::sync::Arc;

use yadokari_layers::Key;

use crate::cache::{Cache, Outlook, StepInputs, StepOutlook, StepState, explain, matching};
use crate::execute::Done;
use crate::plan::Plan;
use crate::prepare::Prepared;
use crate::progress::Progress;
use crate::{Error, Request};

/// Looks at the cache as a build would, and builds nothing. What follows a step that would be executed may be found by content
/// later, when the outcome is known; here it is a miss.
pub async fn look_ahead(request: &Request, progress: &Arc<Progress>) -> Result<Outlook, Error> {
    let prepared = Prepared::new(request, progress).await?;
    let key = prepared.key();
    let mut hit = false;
    let mut last = None;
    if let Some(cache) = &prepared.cache {
        hit = prepared.is_covered() && cache.result(&key).await.is_some();
        prepared.look_up().await;
        last = cache.last(&prepared.target).await;
    }
    let inputs = prepared.inputs();
    let states = prepared.plans.iter().flat_map(|plan| states(&prepared, plan));
    let reasons = reasons(last.as_deref(), &inputs);
    let mut steps = Vec::new();
    for (((state, number, of, line), new), why) in states.zip(&inputs).zip(reasons) {
        let line = line.map(|at: usize| request.dockerfile.line(at));
        let why = if state == StepState::Miss { why } else { Vec::new() };
        let (stage, text, key) = (new.stage.clone(), new.text.clone(), new.key);
        steps.push(StepOutlook { stage, number, of, text, line, key, state, why });
    }
    Ok(Outlook { key, hit, steps })
}

/// The content hash of what a build would make.
pub async fn content_key(request: &Request, progress: &Arc<Progress>) -> Result<Key, Error> {
    Ok(Prepared::new(request, progress).await?.key())
}

/// Why each step would be executed if it is, by its key.
pub(crate) async fn reasons_by_key(cache: &Cache, prepared: &Prepared) -> HashMap<Key, Vec<String>> {
    let last = cache.last(&prepared.target).await;
    let inputs = prepared.inputs();
    let reasons = reasons(last.as_deref(), &inputs);
    let steps = prepared.plans.iter().flat_map(Plan::steps);
    let is_cached = steps.map(|step| cache.covers(step));
    let mut by_key = HashMap::new();
    for ((step, why), is_cached) in inputs.iter().zip(reasons).zip(is_cached) {
        let why = if is_cached { why } else { vec!["the flags say that such steps are not cached".to_owned()] };
        by_key.entry(step.key).or_insert(why);
    }
    by_key
}

/// What becomes of each step of a plan, its number and their number in its stage, and where it begins in the Dockerfile.
fn states(prepared: &Prepared, plan: &Plan) -> Vec<(StepState, usize, usize, Option<usize>)> {
    let upcoming = prepared.upcoming(plan, &Done::default());
    let earlier = prepared.earlier(plan);
    let mut states = Vec::new();
    for (position, stage) in plan.stages.iter().enumerate() {
        for (number, step) in stage.steps.iter().enumerate() {
            let is_cached = earlier.as_ref().is_some_and(|earlier| earlier.covers(step));
            let state = match (upcoming.needs(position), upcoming.is_made(position, number)) {
                (false, _) => StepState::NotNeeded,
                (true, true) => StepState::Hit,
                (true, false) if is_cached => StepState::Miss,
                (true, false) => StepState::NotCached,
            };
            states.push((state, number + 1, stage.steps.len(), step.span.map(|span| span.start)));
        }
    }
    states
}

/// Why each step would be a miss, against what was built last.
fn reasons(last: Option<&[StepInputs]>, new: &[StepInputs]) -> Vec<Vec<String>> {
    let Some(last) = last else {
        return vec![vec!["the cache does not know a build of this target".to_owned()]; new.len()];
    };
    let names = [last, new].map(|steps| steps.iter().map(StepInputs::name).collect::<Vec<_>>());
    let matches = matching(&names[0], &names[1]);
    let reasons = matches.into_iter().zip(new).map(|(found, new)| match found {
        Some(at) => explain(&last[at], new),
        None => vec!["the instruction is new".to_owned()],
    });
    reasons.collect()
}
