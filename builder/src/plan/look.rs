//! What the planner says beside the plan: which warnings count, and all errors where nothing is built.

use std::collections::BTreeSet;

use super::stage::Planner;
use super::{Known, Options};
use crate::context::Context;
use crate::dockerfile::{Diagnostic, Dockerfile, Policy, Span};

/// What a look at a Dockerfile brings that is not going to be built.
#[derive(Debug)]
pub struct Checked {
    /// What is legal and probably not meant, as in a [`Plan`](super::Plan).
    pub warnings: Vec<Diagnostic>,
    /// All errors, in the order in which they were met.
    pub errors: Vec<crate::Error>,
    /// The images without which some stages could not be looked at.
    pub needs: BTreeSet<String>,
}

/// Looks at a Dockerfile as [`plan`](super::plan) does, at every stage where no target is asked for. Errors do not end it.
pub fn check(file: &Dockerfile, options: &Options, context: &Context, known: &Known) -> Checked {
    match Planner::new(file, options, context, known) {
        Ok(planner) => planner.check(),
        Err(error) => Checked::stopped(file, options, error),
    }
}

impl Checked {
    /// What is known of a file that could not be planned at all.
    pub fn stopped(file: &Dockerfile, options: &Options, error: crate::Error) -> Self {
        let mut warnings = file.warnings.clone();
        // Settings that cannot be read are an error of their own, and that of the whole file if it is no other.
        if let Ok(policy) = policy(file, options) {
            warnings.retain(|warning| policy.admits(warning));
        }
        sort(&mut warnings);
        Self { warnings, errors: vec![error], needs: BTreeSet::new() }
    }
}

impl Planner<'_> {
    /// Plans what the target needs, or without a target every stage, as far as what is known and errors let it.
    fn check(mut self) -> Checked {
        let mut errors = Vec::new();
        self.look = Some(Vec::new());
        let stages = self.check_from_lines().and_then(|()| match &self.options.target {
            Some(_) => self.target().map(|target| target..target + 1),
            None => Ok(0..self.file.stages.len()),
        });
        match stages {
            Ok(stages) => {
                for number in stages {
                    let planned = self.stage(number);
                    errors.append(self.look.as_mut().expect("it was put there"));
                    errors.extend(planned.err());
                }
            }
            Err(error) => errors.push(error),
        }
        self.warn_of_unused_arguments();
        // A stage that failed fails again for each stage that needs it.
        let mut seen = BTreeSet::new();
        errors.retain(|error| {
            let place = if let crate::Error::Dockerfile(error) = error { error.span } else { None };
            seen.insert((error.to_string(), place.map(|span| span.start)))
        });
        let needs = std::mem::take(&mut self.needs.images);
        Checked { warnings: self.admitted(), errors, needs }
    }

    /// What became of an instruction; where nothing will be built, an error is kept and the next one follows.
    pub(super) fn or_go_on(&mut self, lowered: Result<bool, crate::Error>) -> Result<bool, crate::Error> {
        match (lowered, &mut self.look) {
            (Err(error), Some(errors)) => {
                errors.push(error);
                Ok(true)
            }
            (lowered, _) => lowered,
        }
    }

    /// All warnings that count, in the order of the file, each once.
    pub(super) fn admitted(&mut self) -> Vec<Diagnostic> {
        let mut warnings = std::mem::take(&mut self.warnings);
        warnings.extend(self.findings.take());
        warnings.retain(|warning| self.policy.admits(warning));
        sort(&mut warnings);
        warnings
    }
}

/// Sorts warnings by their place; those without one come last. Of equal ones the first stays.
fn sort(warnings: &mut Vec<Diagnostic>) {
    warnings.sort_by_key(|warning| warning.span.map_or(usize::MAX, |span| span.start));
    let mut seen = BTreeSet::new();
    warnings.retain(|warning| {
        let place = warning.span.map(|span| (span.start, span.end));
        seen.insert((place, warning.check.map(|check| check.rule), warning.message.clone()))
    });
}

/// The argument that says what time it is.
pub(super) const EPOCH: &str = "SOURCE_DATE_EPOCH";

/// The time that the file's own default of SOURCE_DATE_EPOCH names. An empty one is none.
pub(super) fn file_epoch(value: &str, place: Span) -> Result<Option<i64>, Diagnostic> {
    match value.parse() {
        Ok(epoch) => Ok(Some(epoch)),
        Err(_) if value.is_empty() => Ok(None),
        Err(_) => {
            let error = Diagnostic::new(format!("{EPOCH}={value} is not a number of seconds since 1970")).at(place);
            Err(error.help("taking the time from a context or a stage is not carried out yet: write the number"))
        }
    }
}

/// Which findings count: the build argument says so, else the file.
pub(super) fn policy<'a>(file: &'a Dockerfile, options: &Options) -> Result<Policy<'a>, crate::Error> {
    const ARGUMENT: &str = "BUILDKIT_DOCKERFILE_CHECK";
    let given = options.build_args.iter().rev().find(|(name, _)| name == ARGUMENT);
    file.checks.policy(given.map(|(_, value)| value.as_str())).map_err(|error| match given {
        Some(_) => crate::Error::Usage {
            flag: "--build-arg BUILDKIT_DOCKERFILE_CHECK",
            message: match error.help {
                Some(help) => format!("{}: {help}", error.message),
                None => error.message,
            },
        },
        None => error.into(),
    })
}
