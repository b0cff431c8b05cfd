//! What is built. The Dockerfiles are in `benches/workloads`.

use std::fs;

use crate::error::{At, Result};
use crate::numbers::Numbers;
use crate::{Base, Container, Context, Job, Variant, cache, fixture, proxies, run, workspace};

/// A directory of `benches/workloads`, and what it is built from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Workload {
    /// An everyday build: two stages, a virtual environment, COPY from one to the other.
    Flask,
    /// 50,000 small files by COPY, and a RUN that deletes and changes some.
    SmallFiles,
    /// Ten RUNs of one file each on a base of 100,000 entries.
    FatRuns,
    /// One RUN that writes a GiB, or as many MiB as the build argument `MIB` says.
    BigLayer,
    /// Four independent stages of five seconds each.
    Stages,
}

/// The directories of small files, and the files of each.
const DIRECTORIES: usize = 500;
const FILES: usize = 100;

impl Workload {
    /// All of them.
    pub const ALL: [Self; 5] = [Self::Flask, Self::SmallFiles, Self::FatRuns, Self::BigLayer, Self::Stages];

    /// Its name, which is that of its directory.
    pub fn name(self) -> &'static str {
        match self {
            Self::Flask => "flask",
            Self::SmallFiles => "smallfiles",
            Self::FatRuns => "fatruns",
            Self::BigLayer => "biglayer",
            Self::Stages => "stages",
        }
    }

    pub(super) fn bases(self) -> &'static [Base] {
        match self {
            Self::Flask | Self::BigLayer => &[Base::Python],
            Self::SmallFiles => &[Base::Debian],
            Self::FatRuns => &[Base::Fat],
            Self::Stages => &[Base::Busybox],
        }
    }

    /// Puts everything that is built from into `context`.
    pub(super) fn fill(self, mut context: Context) -> Result<Context> {
        let to = context.path().as_os_str().to_owned();
        if self == Self::Flask {
            let from = format!("{}/.", fixture("flask").display());
            run("cp", ["-a".as_ref(), from.as_ref(), &*to])?;
            let wheels = wheels()?;
            run("cp", ["-a".as_ref(), wheels.as_os_str(), &*to])?;
        }
        let from = format!("{}/.", workspace().join("benches/workloads").join(self.name()).display());
        run("cp", ["-a".as_ref(), from.as_ref(), &*to])?;
        if self == Self::SmallFiles {
            let mut numbers = Numbers::new(2);
            for directory in 0..DIRECTORIES {
                for file in 0..FILES {
                    let name = format!("d{directory:03}/f{file:02}.txt");
                    context = context.file(&name, words(&mut numbers))?;
                }
            }
        }
        Ok(context)
    }
}

/// Text of 100 to 2,000 bytes.
fn words(numbers: &mut Numbers) -> String {
    let mut below = |limit: u64| numbers.next().unwrap_or_default() % limit;
    let size = 100 + below(1900) as usize;
    let mut text = String::new();
    while text.len() < size {
        text += &format!("{:x} ", below(2000) * 0x9e37);
    }
    text.truncate(size);
    text
}

/// The packages that the application needs: downloaded once, by the Python that will install them.
fn wheels() -> Result<std::path::PathBuf> {
    let requirements = fixture("flask").join("requirements.txt");
    let recipe = fs::read_to_string(&requirements).at("read", &requirements)?;
    let made = cache::once("wheels", &recipe, |directory| {
        let wheels = directory.join("wheels");
        fs::create_dir(&wheels).at("create", &wheels)?;
        let container = Container::new(Base::Python.rootfs()?, Variant::Unconfined);
        let container = container.volume(&wheels, "/wheels").readonly_volume(&requirements, "/requirements.txt");
        let pip = "python3 -m pip download --quiet --only-binary :all: --dest /wheels --requirement /requirements.txt";
        let job = proxies().into_iter().fold(Job::shell(pip), |job, (name, value)| job.env(&name, value));
        container.run(job)?.ok(pip).map(drop)
    })?;
    Ok(made.join("wheels"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_workload_has_a_dockerfile_that_takes_its_bases_from_the_registry() {
        for workload in Workload::ALL {
            let path = workspace().join("benches/workloads").join(workload.name()).join("Dockerfile");
            let text = fs::read_to_string(path).unwrap();
            let bases: Vec<_> = text.lines().filter_map(|line| line.strip_prefix("FROM ${REGISTRY}/")).collect();
            assert!(!bases.is_empty(), "{text}");
            for base in bases {
                let names = workload.bases().iter().map(|base| base.name());
                assert!(names.into_iter().any(|name| name.starts_with(base.split(' ').next().unwrap())), "{base}");
            }
        }
    }

    #[test]
    fn small_files_are_small_and_the_same_every_time() {
        assert_eq!(words(&mut Numbers::new(2)), words(&mut Numbers::new(2)));
        let mut numbers = Numbers::new(2);
        assert!((0..1000).all(|_| (100..2000).contains(&words(&mut numbers).len())));
    }
}
