//! Where a RUN runs.
//!
//! A [`Worker`] is our own executable in a process of its own. It owns one stage's root file system and does everything
//! that touches it: it unpacks layers, executes commands, and says what they changed. The builder, which holds the
//! credentials and talks to registries, stays outside and speaks to it over a socket.
//!
//! ```text
//!  builder ──socket──► worker (one a stage; in its own namespaces where there are any)
//!     ▲                   └──► launcher ──exec──► the command of the RUN
//!     └───────── pipes: its standard output and error ────┘
//! ```
//!
//! Which kind of root a RUN gets is the [`Driver`]'s business. [`probe()`] finds the best one by trying: it runs the real
//! sequence with a tiny image, and what the kernel refuses there is what [`doctor_lines`] tells the user.
//!
//! The reading order is the dependency order: `error`, `sys`, `channel` and `wire` (how processes talk); `files`, `copy`,
//! `mountinfo`, `memory`, `idmap`, `namespace`, `privileges`, `rootfs`, `launch` and `reap` (how a command gets its surroundings, and
//! its end); `mount`, what a RUN finds beside its image; `engine`, the contract of the drivers, `walk`, `stubs` and
//! `network`, which they share, `overlay`, `flat` and `in_place`; `worker`; then the builder's side, `hide`, `turn`, `start`,
//! `client`, `places`, `probe` and `doctor`; and `foreign`, which stands alone.
//!
//! Deliberately absent: instructions, images, caches of steps and registries.

mod channel;
mod client;
mod copy;
mod doctor;
mod engine;
mod error;
mod files;
mod flat;
mod foreign;
mod hide;
mod idmap;
mod in_place;
mod launch;
mod memory;
mod mount;
mod mountinfo;
mod namespace;
mod network;
mod overlay;
mod places;
mod priority;
mod privileges;
mod probe;
mod reap;
mod rootfs;
mod start;
mod stubs;
pub mod sys;
mod turn;
mod walk;
mod wire;
mod worker;

use std::fmt;
use std::fs::File;
use std::io::{self, Read, Write};
use std::path::PathBuf;
use std::process::ExitCode;
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use yadokari_layers::{Coming, Digest, Index, Limits, RelPath};

pub use client::{Interrupter, Worker};
pub use doctor::doctor_lines;
pub use error::{Error, Failure, Fault, Result};
pub use foreign::executes;
pub use mount::{Mount, MountKind, Network, Secret, Sharing};
pub use priority::Priority;
pub use probe::{Probe, Report, Verdict, probe};
pub use turn::{Gate, Inside, settle};

/// The hidden roles of our executable, as its first argument.
const WORKER: &str = "__yadokari-worker";
const LAUNCHER: &str = "__yadokari-launch";
const PROBE: &str = "__yadokari-probe";

/// A way to give a RUN its root file system, the best first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Driver {
    /// A mount namespace with an overlay: what changed is what the upper directory holds.
    Overlay,
    /// A mount namespace with a plain directory: what changed is found by walking it before and after.
    Flat,
    /// No namespace: the image's top-level entries are renamed into the container's own `/` while a RUN runs.
    InPlace,
}

impl Driver {
    /// All drivers, the best first.
    pub const ALL: [Self; 3] = [Self::Overlay, Self::Flat, Self::InPlace];

    /// Whether a RUN has a root file system of its own, and is kept from the builder's processes by the kernel.
    pub fn is_isolated(self) -> bool {
        self != Self::InPlace
    }

    /// Whether a RUN can be without a network. That the kernel allows it is only known when one is tried.
    pub fn can_isolate_network(self) -> bool {
        self != Self::InPlace
    }
}

impl fmt::Display for Driver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Overlay => "overlay",
            Self::Flat => "flat",
            Self::InPlace => "in-place",
        })
    }
}

/// A word that names no driver.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("no driver '{0}': there are overlay, flat and in-place")]
pub struct UnknownDriver(String);

impl FromStr for Driver {
    type Err = UnknownDriver;

    fn from_str(text: &str) -> Result<Self, UnknownDriver> {
        Self::ALL.into_iter().find(|driver| driver.to_string() == text).ok_or_else(|| UnknownDriver(text.to_owned()))
    }
}

/// What the user decides about sandboxes.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The only driver to consider.
    pub driver: Option<Driver>,
    /// Where stages are unpacked, and where cache directories stay. It is created when it is missing.
    pub work_dir: PathBuf,
    /// The one directory that holds everything of the executor's image. It stays in place while an in-place RUN runs.
    pub home: PathBuf,
    /// The directories of the build contexts, which stay in place too, and in which nothing is written.
    pub contexts: Vec<PathBuf>,
    /// Other directories that the builder reads and writes while commands run. They stay in place as well.
    pub kept: Vec<PathBuf>,
    /// Use the in-place driver even where `/` holds the files of another image.
    pub force: bool,
    /// Execute no command without a root file system of its own, whatever driver was asked for.
    pub isolated: bool,
    /// Credential files that are ours: they are gone while an in-place RUN runs.
    pub hide: Vec<PathBuf>,
    /// Shut while a command runs in place.
    pub gate: Gate,
}

/// A layer whose bytes are in a file.
#[derive(Debug)]
pub struct LayerFile {
    /// The digest of the blob.
    pub digest: Digest,
    /// The digest of the tar in it, which is checked where the index is not known.
    pub diff_id: Digest,
    /// What the layer says, where that is known.
    pub index: Option<Arc<Index>>,
    /// The compressed blob, open for reading and at its start. Where it is all there, its digest has been verified.
    pub blob: File,
    /// What is to come of it yet. Whoever downloads it verifies it.
    pub coming: Option<Coming>,
    /// How much it may hold.
    pub limits: Limits,
}

/// What came of filling a directory with layers.
#[derive(Debug, Clone, Default)]
pub struct Unpacked {
    /// What each of the layers says, whether it was known or has been found.
    pub indexes: Vec<Arc<Index>>,
    /// What does not concern the layers' owners but the user.
    pub warnings: Vec<String>,
}

/// A command to execute.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Run {
    /// The command and its arguments. A command without a slash is looked up in the `PATH` of `env`, inside the root.
    pub argv: Vec<String>,
    /// The whole environment.
    pub env: Vec<(String, String)>,
    /// The working directory inside the root. Where it is missing, it is made, and belongs to root.
    pub cwd: String,
    /// The user.
    pub uid: u32,
    /// The user's group.
    pub gid: u32,
    /// The user's supplementary groups.
    pub groups: Vec<u32>,
    /// What the command finds in `/etc/resolv.conf`. It never enters a layer.
    #[serde(with = "serde_bytes")]
    pub resolv_conf: Vec<u8>,
    /// What the command finds in `/etc/hosts`. It never enters a layer.
    #[serde(with = "serde_bytes")]
    pub hosts: Vec<u8>,
    /// The host name, where the kernel allows a name of its own.
    pub hostname: String,
    /// What it finds beside the image, in the order in which it is mounted.
    pub mounts: Vec<Mount>,
    /// Which network it has.
    pub network: Network,
}

/// Where a command wrote something.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stream {
    /// Its standard output.
    Stdout,
    /// Its standard error.
    Stderr,
}

/// How a command ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Exit {
    /// With an exit code. As in a shell, 127 says that the command was not found and 126 that it cannot be executed.
    Code(i32),
    /// By a signal.
    Signal(i32),
}

/// One stage's root file system. Every driver fulfils this contract; [`Worker`] is how the builder sees them.
///
/// After an error the root is in an undefined state and only good for dropping, save for [`Sandbox::run`], after which
/// it may be used again. After [`Error::Interrupted`] every call returns that.
pub trait Sandbox {
    /// Fills the fresh root with the layers of the base, the lowest first. It is the first call and is made once, with
    /// no layer for a stage `FROM scratch`. RUNs have the priority of the builder whatever that of this is.
    fn materialise(&mut self, layers: Vec<LayerFile>, priority: Priority) -> Result<Unpacked>;

    /// Puts one more layer on the root, as a COPY does. What it changes is not part of the next commit; neither is what
    /// a RUN changed before it without a commit in between. Its index must be known. Returns warnings.
    fn push(&mut self, layer: LayerFile) -> Result<Vec<String>>;

    /// Makes a tree of these layers, the lowest first, for [`MountKind::Bind`] and for what caches hold at first, and gives
    /// its number. It is beside the root, and stays as it is whatever RUNs do, as long as the root does. It may be called
    /// at any time between RUNs, also before [`Sandbox::materialise`].
    fn provide(&mut self, layers: Vec<LayerFile>) -> Result<(u32, Unpacked)>;

    /// Executes a command. Returns when its main process ended and every process that it left behind is dead.
    fn run(&mut self, run: &Run, output: &mut dyn FnMut(Stream, &[u8])) -> Result<Exit>;

    /// The same for a layer that is still being made: `give` writes its uncompressed tar, and returns what it says.
    fn push_tar(&mut self, give: Give<'_>) -> Result<Vec<String>>;

    /// Gives what changed since the last commit or push as the uncompressed tar of a layer to `take`, which reads it to its
    /// end and returns what it says. When nothing changed, there are no bytes, and nothing is returned.
    fn commit(&mut self, commit: &Commit, take: Take<'_>) -> Result<()>;
}

/// How changes become a layer.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Commit {
    /// No time stamp is later than this.
    pub clamp: Option<i64>,
    /// What is at or below these paths is left out.
    pub ignored: Vec<RelPath>,
}

/// What writes the tar of a layer.
pub type Give<'a> = &'a mut dyn FnMut(&mut dyn Write) -> io::Result<Arc<Index>>;

/// What reads the tar of a layer.
pub type Take<'a> = &'a mut dyn FnMut(&mut dyn Read) -> io::Result<Option<Arc<Index>>>;

/// Runs a hidden role of ours if `args` (with the program's name first) asks for one. `main` calls this before anything
/// else, because a process that has threads cannot enter a user namespace.
pub fn reexec(args: &[std::ffi::OsString]) -> Option<ExitCode> {
    match args.get(1)?.to_str()? {
        WORKER => Some(worker::main()),
        LAUNCHER => Some(launch::main()),
        PROBE => Some(probe::inside()),
        _ => None,
    }
}
