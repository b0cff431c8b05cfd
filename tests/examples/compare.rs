//! Builds the workloads of `benches/workloads` with this project, Buildah and BuildKit, and prints a table:
//! `benches/compare` calls it, and `benches/README.md` says what it measures.

use std::path::PathBuf;

use yadokari_tests::compare::{Builder, Plan, Result, Workload, compare, table};

const USAGE: &str = "\
compare [OPTION...]

  --workload NAME       flask, smallfiles, fatruns, biglayer or stages; repeatable; all without it
  --builder NAME        in-place, overlay, buildah or buildkit; repeatable; all without it
  --runs N              how often each is built (3)
  --mode MODE           plain: no cache; cold: an empty cache in the registry (plain)
  --compression NAME    of our layers: gzip or zstd
  --build-arg NAME=VALUE  for all builders; repeatable
  --executable FILE     our executable, static, where it is not to be built from here
  --logs DIRECTORY      where a file for each build with what it printed goes
  --work-dir DIRECTORY  where everything happens (/dev/shm with 8 GB of room, or the target directory)
";

fn main() -> Result<()> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    if words.iter().any(|word| word == "--help") {
        print!("{USAGE}");
        return Ok(());
    }
    let plan = plan(&words)?;
    let measurements = compare(&plan, &mut |measurement| {
        let (workload, builder) = (measurement.workload.name(), measurement.builder.name());
        eprintln!("{workload} {builder}: {:.2} s", measurement.cost.wall.as_secs_f64());
    })?;
    print!("{}", table(&measurements));
    Ok(())
}

fn plan(words: &[String]) -> Result<Plan> {
    let mut plan = Plan {
        workloads: Vec::new(),
        builders: Vec::new(),
        rounds: 3,
        cache: false,
        compression: None,
        arguments: Vec::new(),
        executable: None,
        logs: None,
        place: None,
    };
    let mut words = words.iter();
    while let Some(option) = words.next() {
        let value = words.next().ok_or_else(|| format!("{option} needs a value\n\n{USAGE}"))?;
        match option.as_str() {
            "--workload" => plan.workloads.push(named(&Workload::ALL, value, |workload| workload.name())?),
            "--builder" => plan.builders.push(named(&Builder::ALL, value, |builder| builder.name())?),
            "--runs" => plan.rounds = value.parse()?,
            "--mode" => plan.cache = named(&["plain", "cold"], value, |mode| mode)? == "cold",
            "--compression" => plan.compression = Some(value.clone()),
            "--build-arg" => plan.arguments.push(value.clone()),
            "--executable" => plan.executable = Some(PathBuf::from(value)),
            "--logs" => plan.logs = Some(std::path::absolute(value)?),
            "--work-dir" => plan.place = Some(std::path::absolute(value)?),
            _ => return Err(format!("{option} is no option\n\n{USAGE}").into()),
        }
    }
    if plan.workloads.is_empty() {
        plan.workloads = Workload::ALL.into();
    }
    if plan.builders.is_empty() {
        plan.builders = Builder::ALL.into();
    }
    Ok(plan)
}

fn named<T: Copy>(all: &[T], name: &str, name_of: impl Fn(T) -> &'static str) -> Result<T> {
    let found = all.iter().copied().find(|candidate| name_of(*candidate) == name);
    found.ok_or_else(|| {
        format!("{name} is none of {:?}", all.iter().map(|one| name_of(*one)).collect::<Vec<_>>()).into()
    })
}
