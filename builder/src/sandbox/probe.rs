//! Which drivers work here.
//!
//! Nothing is concluded from capabilities, profiles or kernel versions: a trial starts a real worker with a tiny root,
//! runs our own executable in it, and commits what that did. Those facts only make the advice.

use std::io::{self, Read, Write};
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use yadokari_layers::tar;

use super::error::{During, Error, Result, Syscall};
use super::idmap::IdMap;
use super::places::{self, Place};
use super::turn::Turns;
use super::wire::Kind;
use super::{Commit, Driver, Exit, Network, PROBE, Priority, Run, Sandbox, Settings, Stream, doctor, start, sys};
use crate::claim;

/// The directory of caches in the work directory.
const CACHES: &str = "caches";

/// The time that a trial has. It needs some twenty milliseconds.
const LIMIT: Duration = Duration::from_secs(2);

/// Which drivers work here, and what is needed to start the best one.
#[derive(Debug, Clone)]
pub struct Probe {
    /// The driver that will be used, if any works.
    pub chosen: Option<Driver>,
    /// What was found of each driver, the best first.
    pub reports: Vec<Report>,
    pub(super) footing: Option<Footing>,
}

/// What was found of one driver.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    /// The driver.
    pub driver: Driver,
    /// What was found.
    pub verdict: Verdict,
}

/// Whether a driver works.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// It does.
    Usable {
        /// How, in a few words.
        detail: String,
    },
    /// It does not.
    Rejected {
        /// The system call that failed.
        operation: String,
        /// The kernel's error number, where it was the kernel that said no.
        errno: Option<i32>,
        /// The whole message.
        text: String,
        /// What to change to make it work.
        advice: String,
    },
}

/// What a worker stands on.
#[derive(Debug, Clone)]
pub(super) struct Footing {
    /// The sealed copy of our executable.
    pub(super) executable: Arc<OwnedFd>,
    /// Where the stages' directories are.
    pub(super) place: PathBuf,
    /// The maps of the user namespace, where there is one.
    pub(super) ids: Option<IdMap>,
    /// Where the caches are whose files have the ids of this footing.
    pub(super) caches: PathBuf,
    /// The driver.
    pub(super) kind: Kind,
    /// Whose turn it is, where stages have to take turns.
    pub(super) turns: Option<Arc<Turns>>,
    /// What is out of sight during a RUN in place.
    pub(super) hide: Vec<PathBuf>,
}

impl Footing {
    /// What an id of the image is outside of the worker's user namespace.
    pub(super) fn outside(&self, id: u32) -> u32 {
        self.ids.map_or(id, |ids| ids.root().saturating_add(id))
    }
}

/// Finds the best driver by trying the real sequence of each one with a tiny image. What it makes is removed again; with
/// the in-place driver it also puts `/` back if an earlier build was killed.
pub fn probe(settings: &Settings) -> Probe {
    let mut found: Vec<(Driver, Result<(Footing, String)>)> = Vec::new();
    match sys::sealed_executable() {
        Ok(executable) => {
            let executable = Arc::new(executable);
            let flat = flat(settings, &executable);
            let overlay = overlay(settings, &executable, &flat);
            let is_needed = settings.driver.map_or(flat.is_err(), |driver| driver == Driver::InPlace);
            let in_place = in_place(settings, &executable, is_needed);
            found.extend([(Driver::Overlay, overlay), (Driver::Flat, flat), (Driver::InPlace, in_place)]);
        }
        Err(error) => {
            let failure = error.failure();
            found.extend(Driver::ALL.map(|driver| (driver, Err(Error::Remote(failure.clone())))));
        }
    }
    let wanted = |driver: Driver| settings.driver.is_none_or(|pinned| pinned == driver);
    let usable = found.iter().find_map(|(driver, result)| {
        let (footing, _) = result.as_ref().ok().filter(|_| wanted(*driver))?;
        Some((*driver, footing.clone()))
    });
    let reports = found.into_iter().map(|(driver, result)| {
        let verdict = match result {
            Ok((_, detail)) => Verdict::Usable { detail },
            Err(error) => Verdict::Rejected {
                operation: error.operation().unwrap_or("check").to_owned(),
                errno: error.raw_os_error(),
                advice: doctor::advice(driver, &error, settings),
                text: error.to_string(),
            },
        };
        Report { driver, verdict }
    });
    let reports = reports.collect();
    let (chosen, footing) = usable.unzip();
    Probe { chosen, reports, footing }
}

/// Tries the maps of ids in their order, and no user namespace at all where none can be made.
fn flat(settings: &Settings, executable: &Arc<OwnedFd>) -> Result<(Footing, String)> {
    let footing = |ids: Option<IdMap>| Footing {
        executable: Arc::clone(executable),
        place: settings.work_dir.clone(),
        ids,
        caches: caches(settings, ids),
        kind: Kind::Flat { user: ids.is_some() },
        turns: None,
        hide: Vec::new(),
    };
    let mut refused = None;
    for ids in IdMap::ALL {
        match trial(footing(Some(ids))) {
            Ok(footing) => return Ok((footing, format!("{}, a plain directory", describe(Some(ids))))),
            Err(error) => {
                // An id that a container's own namespace does not have is EINVAL already when a directory is given to it.
                let is_map = matches!(error.operation(), Some("write" | "chown"));
                refused.get_or_insert(error);
                if !is_map {
                    break;
                }
            }
        }
    }
    match trial(footing(None)) {
        Ok(footing) => Ok((footing, format!("{}, a plain directory", describe(None)))),
        Err(error) => Err(refused.unwrap_or(error)),
    }
}

/// Tries the places where an upper directory may be. Which maps work is known by then.
fn overlay(
    settings: &Settings,
    executable: &Arc<OwnedFd>,
    flat: &Result<(Footing, String)>,
) -> Result<(Footing, String)> {
    let ids = match flat {
        Ok((footing, _)) => footing.ids,
        Err(error) => return Err(Error::Remote(error.failure())),
    };
    let mut refused = None;
    for Place { directory, tmpfs, detail } in places::for_uppers(settings)? {
        claim::sweep(&directory);
        let footing = Footing {
            executable: Arc::clone(executable),
            place: directory,
            ids,
            caches: caches(settings, ids),
            kind: Kind::Overlay { user: ids.is_some(), tmpfs },
            turns: None,
            hide: Vec::new(),
        };
        match trial(footing) {
            Ok(footing) => return Ok((footing, format!("{}, upper directories {detail}", describe(ids)))),
            Err(error) => refused = Some(error),
        }
    }
    let none = "no file system here can hold an upper directory, and memory is short".to_owned();
    Err(refused.unwrap_or(Error::Foreign(none)))
}

/// Where the caches are of whoever has these ids on disk. In place they are moved about, and are nobody else's.
fn caches(settings: &Settings, ids: Option<IdMap>) -> PathBuf {
    settings.work_dir.join(CACHES).join(match ids {
        Some(IdMap::Shifted) => "shifted",
        Some(IdMap::Range) => "range",
        Some(IdMap::Identity) | None => "own",
    })
}

fn describe(ids: Option<IdMap>) -> &'static str {
    match ids {
        Some(IdMap::Shifted) => "a user namespace with ids of its own",
        Some(IdMap::Range) => "a user namespace with 65,535 ids",
        Some(IdMap::Identity) => "a user namespace with the container's ids",
        None => "the container's user namespace, with CAP_SYS_ADMIN",
    }
}

/// Tries the in-place driver. Where it `is_needed`, `/` is locked and an earlier build's mess cleared up.
fn in_place(settings: &Settings, executable: &Arc<OwnedFd>, is_needed: bool) -> Result<(Footing, String)> {
    let place = places::for_in_place(settings)?;
    let pinned = places::pinned(settings);
    let turns =
        if is_needed { Some(Arc::new(Turns::new(&place, pinned.clone(), settings.gate.clone())?)) } else { None };
    claim::sweep(&place);
    let kind = Kind::InPlace { place: place.clone(), pinned, force: settings.force };
    let caches = settings.work_dir.join(CACHES).join("in-place");
    let executable = Arc::clone(executable);
    let footing = Footing { executable, place, ids: None, caches, kind, turns, hide: Vec::new() };
    let worker = start::start(footing.clone(), "trial", Some(LIMIT))?;
    drop(worker);
    Ok((footing, "the image's files are renamed into '/' for each RUN".to_owned()))
}

/// Runs a worker from beginning to end with a tiny root.
fn trial(footing: Footing) -> Result<Footing> {
    let mut worker = start::start(footing.clone(), "trial", Some(LIMIT))?;
    worker.materialise(Vec::new(), Priority::Normal)?;
    let run = Run {
        argv: vec!["/proc/self/exe".to_owned(), PROBE.to_owned()],
        env: Vec::new(),
        cwd: "/".to_owned(),
        uid: 0,
        gid: 0,
        groups: Vec::new(),
        resolv_conf: Vec::new(),
        hosts: Vec::new(),
        hostname: "yadokari".to_owned(),
        mounts: Vec::new(),
        network: Network::Default,
    };
    let mut said = Vec::new();
    let exit = worker.run(&run, &mut |stream, bytes| {
        if stream == Stream::Stderr {
            said.extend_from_slice(bytes);
        }
    })?;
    // A build for development that is linked dynamically finds no loader in the tiny root. Everything before its exec
    // worked then, and the shipped executable is static.
    if !matches!(exit, Exit::Code(0 | 127)) {
        return Err(Error::Foreign(String::from_utf8_lossy(&said).trim().to_owned())).during("trying a RUN");
    }
    // Where the command was not executed nothing has changed.
    let mut take = |tar: &mut dyn Read| {
        let index = tar::index(tar).map_err(io::Error::other)?;
        Ok((!index.is_empty()).then(|| Arc::new(index)))
    };
    worker.commit(&Commit::default(), &mut take).during("trying a commit")?;
    Ok(footing)
}

/// What a trial runs in its root: what package managers do there.
pub(super) fn inside() -> ExitCode {
    let tried = std::fs::write("/file", "content")
        .on("write", "/file")
        // On an overlay with the wrong kind of attributes, this is EIO.
        .and_then(|()| std::fs::remove_dir_all("/lower").on("rmdir", "a directory of the base"))
        .and_then(|()| std::fs::create_dir("/lower").on("mkdir", "a directory that was removed"))
        .and_then(|()| std::os::unix::fs::chown("/file", Some(1234), Some(1234)).on("chown", "1234:1234"))
        .and_then(|()| std::fs::read("/proc/self/status").on("read", "/proc/self/status"));
    match tried {
        Ok(_) => ExitCode::SUCCESS,
        Err(error) => {
            // The exit code alone says that it failed.
            let _ = writeln!(io::stderr(), "{error}");
            ExitCode::FAILURE
        }
    }
}
