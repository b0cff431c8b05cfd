//! All cases built by everybody, once in a process.

use std::path::Path;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use yadokari_tests::dialect::{self, BaseLayers, Case, Difference, File, Snapshot};
use yadokari_tests::oracle::{Builder, Oracle, Verdicts};
use yadokari_tests::{Base, Context, Executor, Registry, Result, capture, fixture};

use super::{generate, known};

/// The images that cases may start from.
const BASES: [Base; 4] = [Base::Busybox, Base::Rich, Base::Triggers, Base::Platforms];

/// A case, and what everybody made of it.
#[derive(Debug)]
pub(super) struct Outcome {
    pub(super) case: Case,
    pub(super) ours: Snapshot,
    /// Our exit code and what we printed.
    pub(super) code: i32,
    pub(super) log: String,
    pub(super) theirs: Verdicts,
}

/// Those of all cases.
#[derive(Debug)]
pub(super) struct Results {
    pub(super) outcomes: Vec<Outcome>,
    /// Whether `YADOKARI_CASES` chose among the cases.
    pub(super) is_filtered: bool,
}

impl Outcome {
    /// In what our image is not the builder's.
    pub(super) fn differences(&self, builder: Builder) -> Vec<Difference> {
        self.ours.differences(&self.theirs[&builder].snapshot)
    }
}

/// The results, or why there are none.
pub(super) fn results() -> Result<&'static Results, &'static str> {
    static RESULTS: OnceLock<Result<Results, String>> = OnceLock::new();
    let results = RESULTS.get_or_init(|| {
        let oracle = Oracle::obtain()?;
        Ok(build(&oracle).unwrap_or_else(|error| panic!("{error}")))
    });
    results.as_ref().map_err(|reason| &**reason)
}

/// All the cases, written and generated.
pub(super) fn cases() -> Result<Vec<Case>> {
    let mut cases = dialect::cases(&fixture("dialect"))?;
    cases.extend(generate::cases());
    Ok(cases)
}

fn build(oracle: &Oracle) -> Result<Results> {
    let (mut cases, common) = (cases()?, dialect::common(&fixture("dialect"))?);
    let filter = std::env::var("YADOKARI_CASES").ok();
    if let Some(filter) = &filter {
        cases.retain(|case| known::is_like(filter, &case.name));
    }
    let layouts: Vec<_> = BASES.iter().map(|base| base.layout()).collect::<Result<_>>()?;
    let bases = BaseLayers::of(&layouts)?;
    let registry = crate::site::registry(&BASES)?;
    let mut theirs = oracle.build(&cases, &common, &bases, || Ok(registry.host().to_owned()))?;
    let ours = ours(&cases, &common, &bases, &registry)?;
    let outcome = |(case, (ours, code, log)): (Case, (Snapshot, i32, String))| {
        let theirs = theirs.remove(&case.name).unwrap();
        Outcome { case, ours, code, log, theirs }
    };
    Ok(Results { outcomes: cases.into_iter().zip(ours).map(outcome).collect(), is_filtered: filter.is_some() })
}

type Ours = (Snapshot, i32, String);

/// What we make of the cases, two at a time.
fn ours(cases: &[Case], common: &[File], bases: &BaseLayers, registry: &Registry) -> Result<Vec<Ours>> {
    let program = Executor::build()?.program();
    let next = AtomicUsize::new(0);
    let worker = || {
        let mut done = Vec::new();
        loop {
            let number = next.fetch_add(1, Ordering::Relaxed);
            let Some(case) = cases.get(number) else { return Ok(done) };
            done.push((number, one(&program, case, common, bases, registry)?));
        }
    };
    let mut done = thread::scope(|scope| -> Result<Vec<(usize, Ours)>> {
        let workers = [(); 2].map(|()| scope.spawn(worker));
        let parts: Result<Vec<_>> = workers.into_iter().map(|worker| worker.join().unwrap()).collect();
        Ok(parts?.into_iter().flatten().collect())
    })?;
    done.sort_by_key(|(number, _)| *number);
    Ok(done.into_iter().map(|(_, ours)| ours).collect())
}

fn one(program: &Path, case: &Case, common: &[File], bases: &BaseLayers, registry: &Registry) -> Result<Ours> {
    let (context, place) = (Context::new()?, Context::new()?);
    case.write(common, context.path())?;
    let out = place.path().join("out");
    let mut command = std::process::Command::new(program);
    command.current_dir(context.path()).env_clear().env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin");
    command.args(["build", "--no-push", "--driver", "overlay", "--context", ".", "--dockerfile", &case.dockerfile]);
    command.args(["--registry-mirror", registry.host(), "--insecure-registry", registry.host()]);
    command.arg("--work-dir").arg(place.path().join("work")).arg("--oci-layout-path").arg(&out).args(&case.options);
    let output = capture(&mut command, Duration::from_secs(120))?;
    let log = format!("{}{}", output.stdout, output.stderr);
    let snapshot = if output.success() { Snapshot::of(&out, bases)? } else { Snapshot::refused() };
    Ok((snapshot, output.code(), log))
}
