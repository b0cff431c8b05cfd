//! The command line: what was typed becomes a [`Request`]. Arguments, environment and the user's files are read here
//! and nowhere else.

mod args;
mod cache;
mod contexts;
mod credentials;
mod exit;
mod export;
mod gc;
mod kaniko;
mod layers;
mod limits;
mod log;
mod login;
mod naming;
mod offline;
mod outputs;
mod paths;
mod push;
mod registry;
mod retry;
mod runs;
mod scope;
mod secrets;
mod tls;
mod trust;
mod units;
mod warm;

use std::ffi::OsString;
use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::{CommandFactory, FromArgMatches};
use yadokari_registry::{Platform, Reference};

use crate::dockerfile::Source;
use crate::execute::{Interrupt, NetworkFiles};
use crate::lock::Lock;
use crate::output::{self, Destination};
use crate::plan::Options;
use crate::progress::{Progress, Report, View};
use crate::{Built, Error, Request, context, sandbox};

use args::{Build, Cli, Command, Doctor, Environment, Format, Look, Program, epoch};
use contexts::Pending;
use outputs::Reports;
use push::IndexCommand;
use registry::Session;

pub use gc::GcInvocation;
pub use login::LoginInvocation;
pub use push::PushInvocation;
pub use warm::WarmInvocation;

/// What the command line asks for.
pub enum Invocation {
    /// Build an image.
    Build(Box<BuildInvocation>),
    /// Look at a Dockerfile.
    Check(Box<LookInvocation>),
    /// Look at the cache.
    Plan(Box<LookInvocation>),
    /// Say what a build would do.
    DryRun(Box<LookInvocation>),
    /// Say the content hash.
    Key(Box<BuildInvocation>),
    /// Delete what is old.
    Gc(Box<GcInvocation>),
    /// Explain the choice of sandbox driver.
    Doctor(sandbox::Settings),
    /// Push images that are there already.
    Push(Box<PushInvocation>),
    /// Fill a directory with base images.
    Warm(Box<WarmInvocation>),
    /// Keep a login.
    Login(LoginInvocation),
    /// Say this.
    Version(String),
}

/// A build, and what happens around it.
pub struct BuildInvocation {
    /// The build.
    pub request: Request,
    /// Whom to tell.
    pub progress: Arc<Progress>,
    /// What is written when the image is where it should be.
    reports: Reports,
    /// The digests of base images, where they are kept.
    lock: Option<Arc<Lock>>,
    /// The names of `--destination`.
    names: Vec<Reference>,
    /// `--report`
    report: Option<(PathBuf, Report)>,
    /// A context or a Dockerfile that is elsewhere.
    pending: Option<Pending>,
}

/// A look at what a build would be.
pub struct LookInvocation {
    /// The build that it would be.
    build: BuildInvocation,
    format: Format,
}

/// Reads the command line `args`, the program's name first. Called without a subcommand it takes Kaniko's flags, as
/// `build` does.
pub fn parse(args: Vec<OsString>) -> Result<Cli, clap::Error> {
    let known =
        |word: &str| word == "help" || Cli::command().get_subcommands().any(|command| command.get_name() == word);
    let mut words = args;
    let program = words.first().map(|path| Program::of(path)).unwrap_or_default();
    let alone = words.len() == 2;
    match words.get(1).and_then(|word| word.to_str()) {
        Some("--version" | "-V") if alone => words[1] = "version".into(),
        Some("--help" | "-h") if alone => {}
        Some(word) if known(word) => {}
        _ => words.insert(words.len().min(1), program.command().into()),
    }
    let matches = Cli::command().try_get_matches_from(words)?;
    Ok(Cli { program, ..Cli::from_arg_matches(&matches)? })
}

/// Turns arguments into what they mean, with the environment and the user's files at hand.
pub fn interpret(cli: Cli) -> Result<Invocation, Error> {
    match cli.command {
        Command::Version => Ok(Invocation::Version(cli.program.version())),
        Command::Doctor(doctor) => Ok(Invocation::Doctor(doctor_settings(doctor))),
        Command::Check(look) => Ok(Invocation::Check(Box::new(look_invocation(*look, Cache::Unused)?))),
        Command::Plan(look) => Ok(Invocation::Plan(Box::new(look_invocation(*look, Cache::Used)?))),
        Command::Key(build) => Ok(Invocation::Key(Box::new(without_result(*build, Cache::Unused)?))),
        Command::Push(push) => Ok(Invocation::Push(Box::new(push.invocation()?))),
        Command::Index(index) => match index.command {
            IndexCommand::Create(create) => Ok(Invocation::Push(Box::new(create.invocation()?))),
        },
        Command::Warm(warm) => Ok(Invocation::Warm(Box::new(warm.invocation()?))),
        Command::Login(login) => {
            let variable = |name: &str| std::env::var_os(name);
            Ok(Invocation::Login(login.invocation(&mut std::io::stdin(), &variable)?))
        }
        Command::Gc(gc) => Ok(Invocation::Gc(Box::new(gc.invocation()?))),
        Command::Build(build) if build.kaniko.dryrun => {
            let look = LookInvocation { build: without_result(*build, Cache::AsGiven)?, format: Format::Text };
            Ok(Invocation::DryRun(Box::new(look)))
        }
        Command::Build(build) => Ok(Invocation::Build(Box::new(build_invocation(*build, Cache::AsGiven)?))),
    }
}

/// Runs an invocation to its end and gives the exit code.
pub fn run(invocation: Invocation) -> u8 {
    match invocation {
        Invocation::Version(text) => say(&text),
        Invocation::Doctor(settings) => {
            let probe = sandbox::probe(&settings);
            let lines = sandbox::doctor_lines(&probe);
            let code = say(&lines.join("\n"));
            if probe.chosen.is_some() { code } else { crate::ExitCode::Sandbox as u8 }
        }
        Invocation::Check(look) => exit::check(*look),
        Invocation::Plan(look) => exit::plan(*look),
        Invocation::DryRun(look) => exit::dry_run(*look),
        Invocation::Key(build) => exit::key(*build),
        Invocation::Gc(gc) => exit::task(&gc.progress, gc.execute(&say)),
        Invocation::Push(push) => exit::task(&push.progress, push.execute()),
        Invocation::Warm(warm) => exit::task(&warm.progress, warm.execute()),
        Invocation::Login(login) => exit::task(&login.progress, login.execute()),
        Invocation::Build(build) => exit::build(*build),
    }
}

fn say(text: &str) -> u8 {
    match writeln!(std::io::stdout(), "{text}") {
        Ok(()) => 0,
        Err(_) => crate::ExitCode::Io as u8,
    }
}

impl BuildInvocation {
    /// Brings what the request takes from elsewhere.
    async fn prepare(&mut self) -> Result<(), Error> {
        match &mut self.pending {
            Some(pending) => pending.fetch(&mut self.request, &self.progress).await,
            None => Ok(()),
        }
    }

    /// Builds, then writes the files that were asked for.
    async fn execute(self, interrupt: Interrupt) -> Result<Built, Error> {
        // A context that was fetched is there until the build has ended.
        let _pending = self.pending;
        let client = self.request.client.clone();
        let built = crate::build(self.request, Arc::clone(&self.progress), interrupt).await?;
        let names: Vec<Reference> = self.names.iter().map(|name| output::with_key(name, &built.key)).collect();
        self.reports.write(&built.digest, built.described.as_ref(), &names, &client).await?;
        if let Some(lock) = &self.lock {
            let path = || lock.path().to_owned();
            let written = lock.write().map_err(|source| Error::Host { operation: "write", path: path(), source })?;
            if written {
                self.progress.info(&format!("wrote digests of base images to {}", path().display()));
            }
        }
        self.progress.summary(&built.digest, built.layers, built.size);
        Ok(built)
    }
}

fn doctor_settings(doctor: Doctor) -> sandbox::Settings {
    let home = paths::home();
    sandbox::Settings {
        driver: doctor.driver,
        work_dir: given(&doctor.work_dir).unwrap_or_else(|| paths::work_dir(&home)),
        home,
        contexts: Vec::new(),
        kept: Vec::new(),
        force: doctor.force,
        isolated: false,
        hide: Vec::new(),
        gate: sandbox::Gate::default(),
    }
}

/// Whether an invocation uses the cache.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Cache {
    /// Where the flags say so.
    AsGiven,
    /// It does, whether the flags say so or not.
    Used,
    /// It does not, whatever the flags say.
    Unused,
}

/// A look has no result that could go anywhere.
fn without_result(args: Build, cache: Cache) -> Result<BuildInvocation, Error> {
    build_invocation(Build { no_push: true, ..args }, cache)
}

fn look_invocation(look: Look, cache: Cache) -> Result<LookInvocation, Error> {
    let Look { build, format } = look;
    Ok(LookInvocation { build: without_result(build, cache)?, format })
}

fn build_invocation(args: Build, cache: Cache) -> Result<BuildInvocation, Error> {
    args.refuse_what_is_not_carried_out()?;
    let home = paths::home();
    let work_dir = given(&args.work_dir).or_else(|| args.kaniko.work_dir());
    let work_dir = work_dir.unwrap_or_else(|| paths::work_dir(&home));
    // Before anything is read: `/` may still be an image's, and logins hidden from its RUN.
    sandbox::settle([&work_dir, &home]).map_err(Error::Sandbox)?;
    let env = |name: &str| std::env::var(name).ok();
    let is_build = cache == Cache::AsGiven;
    let report = given(&args.report).filter(|_| is_build).map(|path| (path, Report::default()));
    let more = report.iter().map(|(_, report)| Box::new(report.clone()) as Box<dyn View>).collect();
    let progress = Arc::new(if is_build { args.log.progress(&env, more) } else { args.log.aside(&env) });
    args.kaniko.notes(kaniko::variables()).iter().for_each(|note| progress.info(note));
    let (build_args, unset) = args.build_args(&env)?;
    let named_contexts = args.named_contexts()?;
    let more = named_contexts.iter().any(|(_, source)| matches!(source, context::Source::Elsewhere(_)));
    // What is elsewhere is fetched once the build runs; until then its place in the request is empty.
    let (pending, context, dockerfile_path, dockerfile) = match args.places(more, &build_args, &env)? {
        Ok((context, path)) => {
            let dockerfile = contexts::read(&path, path.display().to_string())?;
            (None, context, path, dockerfile)
        }
        Err(pending) => (Some(pending), PathBuf::new(), PathBuf::new(), Source::new("Dockerfile", "")),
    };
    for name in unset {
        progress.warning(&format!("--build-arg {name} has no value: the environment has no {name}"));
    }
    let epoch = epoch(&build_args, &env)?;
    let host = Platform::host();
    let (platforms, is_index) = args.platforms(&build_args)?;
    let platform_is_given = !platforms.is_empty();
    let platforms = if platform_is_given { platforms } else { vec![host.clone()] };
    let directories = named_contexts.iter().filter_map(|(_, source)| source.directory().map(Path::to_owned));
    let here = pending.is_none().then(|| context.clone());
    let contexts = here.into_iter().chain(directories).collect();
    let gate = sandbox::Gate::default();
    let variable = |name: &str| std::env::var_os(name);
    let names = names(&args, pending.is_none().then_some(&*context), &env)?;
    let cache = match cache {
        Cache::AsGiven => args.cache.settings(names.first(), &variable)?,
        Cache::Used => args.cache.used().settings(names.first(), &variable)?,
        Cache::Unused => None,
    };
    let pushed = names.iter().filter(|_| !args.no_push).chain(cache.as_ref().and_then(|cache| cache.place.reference()));
    let pushed: Vec<String> = pushed.map(|name| name.registry().to_owned()).collect();
    let places = cache.iter().flat_map(|cache| cache.also.iter().chain([&cache.place]));
    let named = names.iter().chain(places.filter_map(crate::cache::Place::reference));
    let named: Vec<&str> = named.map(Reference::registry).collect();
    let Session { client, mut hide } = args.registry.session(&pushed, &named, &progress, &gate)?;
    let (secrets, secret_files) = secrets::secrets(&args.secret, &variable, &progress)?;
    hide.extend(secret_files);
    let (pack, reports) = (args.layers.options()?, args.reports.reports(!names.is_empty(), &env)?);
    reports.admitted(&client)?;
    let lock = args.lock.lock()?;
    let destinations = destinations(&args, names.clone())?;
    let save_failed = args.runs.save_failed(&destinations)?;
    let kept = runs::kept(&destinations, cache.as_ref(), args.cache.warm());
    let request = Request {
        dockerfile,
        dockerfile_path,
        options: Options {
            target: args.target()?,
            build_args,
            labels: args.labels()?,
            platform: platforms[0].clone(),
            platform_is_given,
            host,
            epoch,
            reproducible: args.layers.reproducible,
            context_mode: args.context_mode.into(),
            ignored: args.kaniko.ignored()?,
        },
        index: is_index.then_some(platforms),
        named_contexts,
        destinations,
        pushing: args.push.pushing(),
        form: args.form.form(is_index, &pack)?,
        describe: args.reports.describes(),
        pack,
        jobs: args.jobs(),
        squash: args.layers.squash || args.kaniko.single_snapshot,
        limits: args.limits.limits(),
        sandbox: sandbox::Settings {
            driver: args.driver,
            work_dir,
            home,
            contexts,
            kept,
            force: args.force,
            isolated: args.runs.require_isolation,
            hide,
            gate,
        },
        secrets,
        agents: secrets::agents(&args.ssh, &variable)?,
        network_files: network_files(),
        trust: args.trust.authorities()?,
        cache,
        warm: args.cache.warm(),
        lock: lock.clone(),
        skip_existing: args.skip_existing,
        save_failed,
        context,
        client,
    };
    Ok(BuildInvocation { request, progress, reports, lock, names, report, pending })
}

/// A path that was given, and is not empty.
fn given(path: &Option<PathBuf>) -> Option<PathBuf> {
    path.clone().filter(|path| !path.as_os_str().is_empty())
}

/// The names of `--destination`. The repository that is built from may be `here`.
fn names(args: &Build, here: Option<&Path>, env: Environment<'_>) -> Result<Vec<Reference>, Error> {
    let bad = |error: yadokari_registry::Error| Error::Usage { flag: "--destination", message: error.to_string() };
    let source = naming::Source { here, env };
    args.destination.iter().map(|text| output::name(&source.expand(text)?).map_err(bad)).collect()
}

/// Where the image goes, by flags. Without any the command line is wrong.
fn destinations(args: &Build, names: Vec<Reference>) -> Result<Vec<Destination>, Error> {
    let mut destinations = Vec::new();
    if let Some(directory) = given(&args.oci_layout_path) {
        let tag = names.first().and_then(|name| name.tag().map(str::to_owned)).unwrap_or_else(|| "latest".into());
        destinations.push(Destination::Layout { directory, tag });
    }
    if let Some(path) = given(&args.tar_path) {
        destinations.push(Destination::Tarball { path, names: names.clone() });
    }
    let exports = args.export.exports(args.platforms(&[])?.0.len() > 1)?;
    let is_exported = !exports.is_empty();
    destinations.extend(exports.into_iter().map(Destination::Root));
    // Whoever wants files and names no registry wants nothing else.
    if args.no_push || names.is_empty() && is_exported {
        return Ok(destinations);
    }
    if names.is_empty() {
        let message = "give at least one, or --no-push".into();
        return Err(Error::Usage { flag: "--destination", message });
    }
    destinations.extend(names.into_iter().map(Destination::Registry));
    Ok(destinations)
}

fn network_files() -> NetworkFiles {
    let read = |path: &str| fs::read(Path::new(path)).unwrap_or_default();
    let hostname = String::from_utf8_lossy(&read("/proc/sys/kernel/hostname")).trim().to_owned();
    NetworkFiles { resolv_conf: read("/etc/resolv.conf"), hosts: read("/etc/hosts"), hostname }
}

#[cfg(test)]
mod tests;
