//! What a build would find in the cache, and why not: `yadokari plan`.

use std::collections::HashMap;
use std::hash::Hash;

use serde::Serialize;
use yadokari_layers::{Digest, Key};

use super::StepInputs;
use crate::dockerfile::printable;
use crate::plan::Input;
use crate::progress::one_line;

/// What the cache would do for a build.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outlook {
    /// The content hash of the target.
    pub key: Key,
    /// Whether the whole result is there: then no step is looked at by a build.
    pub hit: bool,
    /// The steps, in the order of the plan.
    pub steps: Vec<StepOutlook>,
}

/// What it would do for a step.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StepOutlook {
    /// Its stage, as progress lines call it.
    pub stage: String,
    /// Its number there, from 1.
    pub number: usize,
    /// How many steps the stage has.
    pub of: usize,
    /// The instruction as written.
    pub text: String,
    /// Its line in the Dockerfile, from 1; an ONBUILD trigger has none.
    pub line: Option<usize>,
    /// Its key.
    pub key: Key,
    /// What becomes of it.
    pub state: StepState,
    /// Why it is a miss, a line a reason.
    pub why: Vec<String>,
}

/// What becomes of a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum StepState {
    /// Its result is in the cache.
    Hit,
    /// Its result is looked for and not there: it is executed.
    Miss,
    /// Nothing that is executed needs it.
    NotNeeded,
    /// The flags say that such steps are not cached: it is executed.
    NotCached,
}

impl StepState {
    fn name(self) -> &'static str {
        match self {
            Self::Hit => "hit",
            Self::Miss => "miss",
            Self::NotNeeded => "not needed",
            Self::NotCached => "not cached",
        }
    }

    fn is_executed(self) -> bool {
        matches!(self, Self::Miss | Self::NotCached)
    }
}

/// The exit code where something would be executed: no failure, and no success either.
const SOMETHING_TO_DO: u8 = 1;

/// The most reasons that a step gives.
const REASONS: usize = 10;

impl Outlook {
    /// 0 where a build would execute nothing, else 1.
    pub fn exit_code(&self) -> u8 {
        if self.to_do() == 0 { 0 } else { SOMETHING_TO_DO }
    }

    fn to_do(&self) -> usize {
        if self.hit { 0 } else { self.steps.iter().filter(|step| step.state.is_executed()).count() }
    }

    /// For people: a line a step, its reasons below it, and a summary.
    pub fn text(&self) -> String {
        let mut lines = Vec::new();
        for step in &self.steps {
            let StepOutlook { stage, number, of, text, state, .. } = step;
            lines.push(format!("[{stage} {number}/{of}] {}: {}", state.name(), one_line(text)));
            lines.extend(step.why.iter().map(|reason| format!("    {}", printable(reason))));
        }
        lines.push(match (self.hit, self.to_do(), self.steps.len()) {
            (true, ..) => "the result is in the cache: a build would execute nothing".into(),
            (false, 0, _) => "a build would execute no step".into(),
            (false, todo, all) => format!("a build would execute {todo} of {all} steps"),
        });
        lines.push(format!("content hash {}", self.key));
        lines.join("\n")
    }

    /// For programs. `docs/cache.md` has the meaning of the fields, which only grow in number.
    pub fn json(&self) -> String {
        let steps = self.steps.iter().map(|step| Step {
            stage: &step.stage,
            step: step.number,
            of: step.of,
            instruction: &step.text,
            line: step.line,
            key: step.key.hex(),
            state: step.state,
            why: &step.why,
        });
        let shown = Shown { key: self.key.hex(), hit: self.hit, steps: steps.collect() };
        serde_json::to_string_pretty(&shown).expect("the fields are texts and numbers")
    }
}

#[derive(Serialize)]
struct Shown<'a> {
    key: String,
    hit: bool,
    steps: Vec<Step<'a>>,
}

#[derive(Serialize)]
struct Step<'a> {
    stage: &'a str,
    step: usize,
    of: usize,
    instruction: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    line: Option<usize>,
    key: String,
    state: StepState,
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    why: &'a [String],
}

/// Why a step is a miss: how it differs from the step that it was in the last result.
pub fn explain(old: &StepInputs, new: &StepInputs) -> Vec<String> {
    let changed = differences(&old.inputs, &new.inputs);
    if !changed.is_empty() {
        return changed;
    }
    let reason = match (old.inputs == new.inputs, old.below == new.below, old.key == new.key) {
        (false, _, _) => "the order of its inputs changed",
        (true, false, _) => "what it stands on changed",
        (true, true, false) => "what it takes from another stage or image changed",
        (true, true, true) => "nothing changed: the cache does not have it any more, or never had",
    };
    vec![reason.into()]
}

/// How inputs differ, by their names.
fn differences(old: &[Input], new: &[Input]) -> Vec<String> {
    let (before, after) = (by_name(old), by_name(new));
    let known: HashMap<_, _> = before.iter().copied().collect();
    let wanted: HashMap<_, _> = after.iter().copied().collect();
    let changed = after.iter().filter_map(|(name, value)| match known.get(name) {
        None => Some(format!("{} is new", name.0)),
        Some(other) if other != value => Some(format!("{} changed", name.0)),
        Some(_) => None,
    });
    let gone = before.iter().filter(|(name, _)| !wanted.contains_key(name));
    let mut reasons: Vec<String> = changed.chain(gone.map(|(name, _)| format!("{} is gone", name.0))).collect();
    if reasons.len() > REASONS {
        let more = reasons.len() - REASONS;
        reasons.truncate(REASONS);
        reasons.push(format!("and {more} more"));
    }
    reasons
}

/// The values of inputs. Two words of a COPY may select one file: of the same name the first is compared with the first.
fn by_name(inputs: &[Input]) -> Vec<((&str, usize), &Digest)> {
    let names = numbered(inputs.iter().map(|input| input.name.as_str()));
    names.into_iter().zip(inputs.iter().map(|input| &input.value)).collect()
}

/// For each new step the old one to compare it with, both as (stage, text of the instruction): the one with the same text
/// in the same stage, of several the one that is as many-th; else the one in the same position of the stage, unless that
/// has its step already.
pub fn matching(old: &[(&str, &str)], new: &[(&str, &str)]) -> Vec<Option<usize>> {
    let with_text: HashMap<_, usize> = numbered(old.iter().copied()).into_iter().zip(0..).collect();
    let same = numbered(new.iter().copied());
    let mut matches: Vec<Option<usize>> = same.iter().map(|step| with_text.get(step).copied()).collect();
    let mut taken = vec![false; old.len()];
    matches.iter().flatten().for_each(|&at| taken[at] = true);
    let positions = |steps: &[(&'_ str, &'_ str)]| numbered(steps.iter().map(|step| step.0.to_owned()));
    let in_position: HashMap<_, usize> = positions(old).into_iter().zip(0..).collect();
    for (found, position) in matches.iter_mut().zip(positions(new)) {
        let other = || in_position.get(&position).copied().filter(|&at| !taken[at]);
        *found = found.or_else(other);
    }
    matches
}

/// Each item with its number among its equals.
fn numbered<T: Clone + Eq + Hash>(items: impl Iterator<Item = T>) -> Vec<(T, usize)> {
    let mut seen: HashMap<T, usize> = HashMap::new();
    let mut number = |item: T| {
        let count = seen.entry(item.clone()).or_default();
        *count += 1;
        (item, *count)
    };
    items.map(&mut number).collect()
}

#[cfg(test)]
mod tests {
    use yadokari_layers::KeyHasher;

    use super::*;

    fn inputs(texts: &[&str]) -> Vec<Input> {
        let input = |text: &&str| {
            let (name, value) = text.split_once('=').unwrap();
            Input { name: name.into(), value: Digest::of(value) }
        };
        texts.iter().map(input).collect()
    }

    fn step(number: usize, text: &str, state: StepState, why: &[&str]) -> StepOutlook {
        let why = why.iter().map(|&reason| reason.into()).collect();
        let key = KeyHasher::new(text).finish();
        StepOutlook { stage: "app".into(), number, of: 3, text: text.into(), line: Some(number + 1), key, state, why }
    }

    fn outlook(hit: bool, states: [StepState; 3]) -> Outlook {
        let [copy, run, other] = states;
        let steps = vec![
            step(1, "COPY a /", copy, &[]),
            step(2, "RUN <<E\nmake\nE", run, &["command changed", "file a\u{1b}[2J is new"]),
            StepOutlook { line: None, ..step(3, "RUN c", other, &[]) },
        ];
        Outlook { key: KeyHasher::new("x").finish(), hit, steps }
    }

    #[test]
    fn what_changed_is_said_by_name() {
        let old = inputs(&["command=make", "variable A=1", "file a=x", "file b=x", "file c=x"]);
        let new = inputs(&["command=make -j", "variable A=1", "variable B=2", "file a=y", "file c=x"]);
        let reasons = differences(&old, &new);
        assert_eq!(reasons, ["command changed", "variable B is new", "file a changed", "file b is gone"]);
    }

    #[test]
    fn what_is_around_a_step_is_to_blame_where_its_own_inputs_are_not() {
        let step = |key: &str, below: &str, texts: &[&str]| {
            let [key, below] = [key, below].map(|text| KeyHasher::new(text).finish());
            StepInputs { stage: "a".into(), text: "b".into(), key, below, inputs: inputs(texts) }
        };
        let old = step("key", "below", &["a=1", "b=2"]);
        let why = |key, below, texts: &[&str]| explain(&old, &step(key, below, texts)).join("; ");
        assert_eq!(why("other", "other", &["a=1", "b=3"]), "b changed");
        assert_eq!(why("other", "other", &["b=2", "a=1"]), "the order of its inputs changed");
        assert_eq!(why("other", "other", &["a=1", "b=2"]), "what it stands on changed");
        assert_eq!(why("other", "below", &["a=1", "b=2"]), "what it takes from another stage or image changed");
        assert!(why("key", "below", &["a=1", "b=2"]).starts_with("nothing changed"));
    }

    #[test]
    fn of_inputs_with_one_name_the_first_is_compared_with_the_first() {
        let reasons = differences(&inputs(&["f=1", "f=2"]), &inputs(&["f=1", "f=3", "f=2"]));
        assert_eq!(reasons, ["f changed", "f is new"]);
        assert_eq!(differences(&inputs(&["f=1", "f=1"]), &inputs(&["f=1"])), ["f is gone"]);
    }

    #[test]
    fn there_are_ten_reasons_at_most() {
        let names: Vec<String> = (0..47).map(|number| format!("file {number}=x")).collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        let reasons = differences(&[], &inputs(&names));
        assert_eq!((reasons.len(), reasons[9].as_str(), reasons[10].as_str()), (11, "file 9 is new", "and 37 more"));
        assert_eq!(differences(&[], &inputs(&names[..10])).len(), 10);
    }

    #[test]
    fn steps_are_compared_with_those_of_the_same_text_or_place() {
        let old = [("a", "RUN x"), ("a", "RUN y"), ("a", "RUN x"), ("b", "RUN x")];
        for (new, expected) in [
            (&old[..], &[Some(0), Some(1), Some(2), Some(3)][..]),
            // Something was put between.
            (&[("a", "RUN x"), ("a", "RUN new"), ("a", "RUN y")], &[Some(0), None, Some(1)]),
            // One of them was edited.
            (&[("a", "RUN x"), ("a", "RUN z"), ("a", "RUN x")], &[Some(0), Some(1), Some(2)]),
            (&[("b", "RUN y"), ("c", "RUN x")], &[Some(3), None]),
            (&[("b", "RUN x"), ("b", "RUN x")], &[Some(3), None]),
        ] {
            assert_eq!(matching(&old, new), expected, "{new:?}");
        }
    }

    #[test]
    fn an_outlook_for_people_has_a_line_a_step_and_a_summary() {
        let outlook = outlook(false, [StepState::Hit, StepState::Miss, StepState::NotCached]);
        let lines = [
            "[app 1/3] hit: COPY a /",
            "[app 2/3] miss: RUN <<E …",
            "    command changed",
            "    file a\\u{1b}[2J is new",
            "[app 3/3] not cached: RUN c",
            "a build would execute 2 of 3 steps",
            &format!("content hash {}", outlook.key.hex()),
        ];
        assert_eq!(outlook.text(), lines.join("\n"));
    }

    #[test]
    fn an_outlook_for_programs_is_json() {
        let outlook = outlook(false, [StepState::NotNeeded, StepState::Miss, StepState::NotCached]);
        let json: serde_json::Value = serde_json::from_str(&outlook.json()).unwrap();
        let keys: Vec<String> = outlook.steps.iter().map(|step| step.key.hex()).collect();
        let expected = serde_json::json!({"key": outlook.key.hex(), "hit": false, "steps": [
            {"stage": "app", "step": 1, "of": 3, "instruction": "COPY a /", "line": 2, "key": keys[0], "state": "not-needed"},
            {"stage": "app", "step": 2, "of": 3, "instruction": "RUN <<E\nmake\nE", "line": 3, "key": keys[1],
             "state": "miss", "why": ["command changed", "file a\u{1b}[2J is new"]},
            {"stage": "app", "step": 3, "of": 3, "instruction": "RUN c", "key": keys[2], "state": "not-cached"},
        ]});
        assert_eq!(json, expected);
    }

    #[test]
    fn the_exit_code_says_whether_something_would_be_executed() {
        use StepState::{Hit, Miss, NotCached, NotNeeded};
        for (hit, states, code, summary) in [
            (false, [Hit, Hit, NotNeeded], 0, "a build would execute no step"),
            (false, [Hit, Hit, Miss], 1, "a build would execute 1 of 3 steps"),
            (false, [Hit, Hit, NotCached], 1, "a build would execute 1 of 3 steps"),
            (true, [NotNeeded; 3], 0, "the result is in the cache: a build would execute nothing"),
            (true, [Hit, Hit, Miss], 0, "the result is in the cache: a build would execute nothing"),
        ] {
            let outlook = outlook(hit, states);
            assert_eq!(outlook.exit_code(), code, "{states:?}");
            assert!(outlook.text().contains(summary), "{}", outlook.text());
        }
    }
}
