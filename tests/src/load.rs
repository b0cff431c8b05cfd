//! Many executors at once, on one registry and one cache repository.

use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use tempfile::TempDir;

use crate::error::{At, Result};
use crate::{
    Base, Context, Executor, Job, Live, Output, PATIENCE, Process, Registry, Running, Traffic, Variant, scratch,
};

/// Where all of them keep what they made.
const CACHE: &str = "load/cache";

/// A stage that the image takes files from, and layers of several sizes: all that does not execute.
const COPIES: &str = "FROM busybox AS build\nCOPY shared /shared\nCOPY own /own\n\
                      FROM busybox\nWORKDIR /srv\nCOPY --from=build /shared /own ./\nCOPY shared own /etc/load/\n";

/// The same with a command.
const COMMAND: &str = "RUN sha256sum /srv/own > /srv/sum\n";

/// Executors, each with a context of its own. Every other one has the same files and the same destination as its like.
#[derive(Debug)]
pub struct Fleet<'a> {
    registry: &'a Registry,
    contexts: Vec<Context>,
    work: TempDir,
}

/// What came of one build of each of them.
#[derive(Debug)]
pub struct Round {
    /// From the start of the first to the end of the last.
    pub wall: Duration,
    /// The most memory of each, where that was looked at.
    pub peaks: Vec<u64>,
    /// How each ended.
    pub outputs: Vec<Output>,
    /// What the registry was asked for.
    pub traffic: Traffic,
}

impl<'a> Fleet<'a> {
    /// `count` of them, whose base is in `registry` from then on.
    pub fn new(registry: &'a Registry, count: usize) -> Result<Self> {
        registry.hold(Base::Busybox)?;
        let context = |number: usize| {
            let own = if number.is_multiple_of(2) { "the same\n".to_owned() } else { format!("{number}\n") };
            let context = Context::new()?.noise("shared", 2 << 20)?.file("own", own.repeat(50_000))?;
            context.file("Dockerfile", COPIES)?.file("Dockerfile.command", format!("{COPIES}{COMMAND}"))
        };
        let contexts = (0..count).map(context).collect::<Result<_>>()?;
        Ok(Self { registry, contexts, work: scratch::directory()? })
    }

    /// The destination of one of them, of this name for a round: repository and tag.
    fn image(number: usize, name: &str) -> (String, &'static str) {
        let repository = if number.is_multiple_of(2) { "same".to_owned() } else { format!("app-{number}") };
        (format!("load/{name}/{repository}"), "1")
    }

    /// Builds without a command, all at once, each in a process of `program` on this machine.
    pub fn processes(&self, program: &Path, name: &str) -> Result<Round> {
        let (mark, start) = (self.registry.mark()?, Instant::now());
        let begin = |number| Ok((Running::start(&mut self.command(program, number, name)?)?, 0));
        let mut running = (0..self.contexts.len()).map(begin).collect::<Result<Vec<_>>>()?;
        loop {
            let mut left = false;
            for (process, peak) in &mut running {
                *peak = process.peak().unwrap_or(0).max(*peak);
                left |= process.is_running()?;
            }
            if !left {
                break;
            }
            thread::sleep(Duration::from_millis(10));
        }
        let wall = start.elapsed();
        let (peaks, outputs) = running
            .into_iter()
            .map(|(process, peak)| Ok((peak, process.wait(PATIENCE)?)))
            .collect::<Result<Vec<_>>>()?
            .into_iter()
            .unzip();
        Ok(Round { wall, peaks, outputs, traffic: self.registry.traffic(mark)? })
    }

    /// Builds with a command, all at once, each in a container as Docker's.
    pub fn containers(&self, executor: &Executor, name: &str) -> Result<Round> {
        let contain = |context: &Context| {
            executor.debug_container(Variant::Docker).readonly_volume(context.path(), "/workspace").start()
        };
        let mut live = self.contexts.iter().map(contain).collect::<Result<Vec<Live>>>()?;
        let (mark, start) = (self.registry.mark()?, Instant::now());
        let begin = |(number, live): (usize, &mut Live)| {
            let words =
                self.words(number, name).into_iter().chain(["--dockerfile", "Dockerfile.command"].map(str::to_owned));
            let job: Job = Executor::job(self.registry).env("SOURCE_DATE_EPOCH", "1000000000").args(words);
            live.spawn(job)
        };
        let running = live.iter_mut().enumerate().map(begin).collect::<Result<Vec<Process>>>()?;
        let outputs = running.into_iter().map(Process::wait).collect::<Result<Vec<_>>>()?;
        Ok(Round { wall: start.elapsed(), peaks: Vec::new(), outputs, traffic: self.registry.traffic(mark)? })
    }

    /// The digests of the images of a round, and all that is wrong with what is in the registry now: each blob of each image and
    /// of each record of the cache is read.
    pub fn inspect(&self, name: &str) -> Result<(Vec<String>, Vec<String>)> {
        let (mut digests, mut flaws) = (Vec::new(), Vec::new());
        for number in 0..self.contexts.len() {
            let (repository, tag) = Self::image(number, name);
            digests.push(self.registry.manifest(&repository, tag)?.map(|(digest, _)| digest).unwrap_or_default());
            flaws
                .extend(self.registry.flaws(&repository, tag)?.into_iter().map(|flaw| format!("{repository}: {flaw}")));
        }
        let records = self.registry.tags(CACHE)?;
        if records.is_empty() {
            flaws.push("the cache is empty".into());
        }
        for record in records {
            flaws.extend(self.registry.flaws(CACHE, &record)?.into_iter().map(|flaw| format!("{record}: {flaw}")));
        }
        Ok((digests, flaws))
    }

    fn command(&self, program: &Path, number: usize, name: &str) -> Result<Command> {
        let own = self.work.path().join(format!("{name}-{number}"));
        fs::create_dir_all(&own).at("create", &own)?;
        let (context, host) = (self.contexts[number].path(), self.registry.host());
        let mut command = Command::new(program);
        command.env_clear().env("HOME", &own).env("SOURCE_DATE_EPOCH", "1000000000").current_dir(context);
        command.args(["--dockerfile", "Dockerfile", "--insecure-registry", host, "--registry-mirror", host]);
        let paths: [(&str, PathBuf); 2] = [("--context", context.to_owned()), ("--work-dir", own.join("work"))];
        paths.iter().for_each(|(flag, path)| _ = command.arg(flag).arg(path));
        command.args(self.words(number, name));
        Ok(command)
    }

    fn words(&self, number: usize, name: &str) -> Vec<String> {
        let (repository, tag) = Self::image(number, name);
        let (destination, cache) = (self.registry.reference(&repository), self.registry.reference(CACHE));
        ["--destination", &format!("{destination}:{tag}"), "--cache=true", "--cache-repo", &cache]
            .map(str::to_owned)
            .into()
    }
}

impl Round {
    /// What those that failed, or warned of something, have printed.
    pub fn troubles(&self) -> Vec<String> {
        let is_trouble = |output: &&Output| !output.success() || output.stderr.contains("warning: ");
        self.outputs.iter().filter(is_trouble).map(ToString::to_string).collect()
    }
}

impl fmt::Display for Round {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let times: Vec<_> = self.outputs.iter().map(|output| output.elapsed.as_secs_f64()).collect();
        let longest = times.iter().copied().fold(0.0, f64::max);
        write!(f, "{} builds in {:.1} s (the longest {longest:.1} s)", times.len(), self.wall.as_secs_f64())?;
        if let Some(most) = self.peaks.iter().max() {
            write!(f, ", at most {} MB each", most / 1_000_000)?;
        }
        let up = self.traffic.uploads().len();
        write!(f, ", {} requests, {up} blobs sent", self.traffic.0.len())
    }
}
