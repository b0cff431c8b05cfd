//! The arguments as they are typed.
//!
//! The rules are those of pflag, which Kaniko's callers write for: of a flag given twice the later one holds, lists do not
//! split at commas, and an empty path is none. More is taken than pflag takes: a truth value may follow its flag after a
//! space.

use std::ffi::OsStr;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};

use clap::builder::{OsStringValueParser, TypedValueParser};
use clap::{ArgAction, Args, Parser, Subcommand, ValueEnum};
use yadokari_registry::Platform;

use crate::sandbox::Driver;
use crate::{Error, context};

use super::cache::CacheFlags;
use super::export::ExportFlags;
use super::gc::Gc;
use super::kaniko::KanikoFlags;
use super::layers::LayerFlags;
use super::limits::LimitFlags;
use super::log::LogFlags;
use super::login::Login;
use super::offline::LockFlags;
use super::outputs::{FormFlags, PushFlags, ReportFlags};
use super::push::{Index, Push};
use super::registry::RegistryFlags;
use super::runs::RunFlags;
use super::trust::TrustFlags;
use super::warm::Warm;

/// Builds OCI images from Dockerfiles in unprivileged containers.
#[derive(Debug, Parser)]
#[command(name = "yadokari", disable_version_flag = true, args_override_self = true)]
pub struct Cli {
    #[command(subcommand)]
    pub(super) command: Command,
    /// As what the program was called.
    #[arg(skip)]
    pub(super) program: Program,
}

/// The names that the program has in Kaniko's images, and its own.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) enum Program {
    #[default]
    Yadokari,
    /// Kaniko's builder.
    Executor,
    /// What fills Kaniko's directory of base images.
    Warmer,
}

impl Program {
    /// The program of a path.
    pub(super) fn of(path: &OsStr) -> Self {
        match Path::new(path).file_name().and_then(OsStr::to_str) {
            Some("executor") => Self::Executor,
            Some("warmer") => Self::Warmer,
            _ => Self::Yadokari,
        }
    }

    /// What it does without a subcommand.
    pub(super) fn command(self) -> &'static str {
        if self == Self::Warmer { "warm" } else { "build" }
    }

    /// What it says of its version. Scripts look for Kaniko's words, and for the version whose command line this is.
    pub(super) fn version(self) -> String {
        let own = format!("yadokari {}", env!("CARGO_PKG_VERSION"));
        match self {
            Self::Yadokari => own,
            Self::Executor | Self::Warmer => format!("Kaniko version :  {KANIKO} ({own})"),
        }
    }
}

/// The last version of Kaniko's own, whose command line is taken here.
const KANIKO: &str = "v1.24.0";

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Build an image. This is what the program does without a subcommand, too.
    Build(Box<Build>),
    /// Look at the Dockerfile and build nothing: say what is wrong with it, and what may not be meant.
    Check(Box<Look>),
    /// Look at the cache and build nothing: say which steps a build would find there, and why it would not find the others.
    Plan(Box<Look>),
    /// Print the content hash: that of everything the result depends on, which is legal as a tag.
    Key(Box<Build>),
    /// Delete old records of the cache, and old images. Without --delete it only says what it would delete.
    Gc(Box<Gc>),
    /// Push an image that is in an archive or a layout directory.
    Push(Box<Push>),
    /// Make indexes of images.
    Index(Box<Index>),
    /// Fill a directory with base images, from which builds take their layers with --cache-dir.
    Warm(Box<Warm>),
    /// Keep a login where builds look for it.
    Login(Login),
    /// Say which sandbox drivers work here, why the others do not, and what to change.
    Doctor(Doctor),
    /// Say the version.
    Version,
}

/// `yadokari doctor`
#[derive(Debug, Args)]
pub(super) struct Doctor {
    /// Look at this driver only: overlay, flat or in-place.
    #[arg(long)]
    pub(super) driver: Option<Driver>,
    /// Where stages would be unpacked.
    #[arg(long, value_parser = path())]
    pub(super) work_dir: Option<PathBuf>,
    /// Allow the in-place driver where `/` holds the files of another image.
    #[arg(long, action = ArgAction::Set, num_args = 0..=1, default_missing_value = "true", default_value = "false", value_parser = truth)]
    pub(super) force: bool,
}

/// `yadokari build`, with Kaniko's flags.
#[derive(Debug, Args)]
pub(super) struct Build {
    /// The build context: a directory, an archive (tar://FILE, tar://stdin, https://HOST/FILE), or a git repository
    /// (https://HOST/NAME.git#REFERENCE:DIRECTORY, git://HOST/NAME).
    #[arg(long, short = 'c', default_value = "/workspace/")]
    pub(super) context: String,
    /// Take this directory of the context for the context.
    #[arg(long, value_name = "DIR", default_value = "", value_parser = path())]
    pub(super) context_sub_path: PathBuf,
    /// How a context from git://… is fetched: branch=NAME or recurse-submodules=true. Repeatable.
    #[arg(long, value_name = "OPTION=VALUE")]
    pub(super) git: Vec<String>,
    /// The Dockerfile: a path as it is, or below the context; a URL; - for the standard input.
    #[arg(long, short = 'f', default_value = "Dockerfile", value_parser = path())]
    pub(super) dockerfile: PathBuf,
    /// Push the image under this name. {sha}, {short-sha} and {ref-slug} stand for the commit and the branch or tag that is
    /// built; in the tag, {key} for the content hash that `yadokari key` prints. Repeatable.
    #[arg(long, short = 'd', short_alias = 't', visible_alias = "tag", value_name = "REGISTRY/REPOSITORY:TAG")]
    pub(super) destination: Vec<String>,
    /// Give an ARG a value; without `=` the environment's. Repeatable.
    #[arg(long, value_name = "NAME[=VALUE]")]
    pub(super) build_arg: Vec<String>,
    /// Build this stage, by name or number, instead of the last one. Of several with commas between them, which Kaniko
    /// takes, all have to be the same.
    #[arg(long)]
    pub(super) target: Option<String>,
    /// Give `RUN --mount=type=secret` a value: a file's, or an environment variable's. Repeatable.
    #[arg(long, value_name = "id=ID[,src=FILE|env=VARIABLE]")]
    pub(super) secret: Vec<String>,
    /// Give `RUN --mount=type=ssh` an agent: the socket, or SSH_AUTH_SOCK's. Repeatable.
    #[arg(long, value_name = "default|ID[=SOCKET]")]
    pub(super) ssh: Vec<String>,
    /// Build for this platform and not for this machine's: linux/arm64, or several with commas between them, which make
    /// one index of images. Repeatable. A RUN for another machine needs an emulator.
    #[arg(
        long,
        visible_alias = "custom-platform",
        alias = "customPlatform",
        value_name = "OS/ARCH[/VARIANT]",
        value_delimiter = ','
    )]
    pub(super) platform: Vec<String>,
    /// Let a name of FROM, --from or a mount mean a directory, docker-image://NAME or oci-layout://DIR[:TAG]. Repeatable.
    #[arg(long, value_name = "NAME=VALUE")]
    pub(super) build_context: Vec<String>,
    /// Build only; write what --oci-layout-path and --tar-path say.
    #[arg(long, action = ArgAction::Set, num_args = 0..=1, default_missing_value = "true", default_value = "false", value_parser = truth, env = "KANIKO_NO_PUSH")]
    pub(super) no_push: bool,
    /// Also write the image to an OCI layout directory.
    #[arg(long, value_name = "DIR", value_parser = path())]
    pub(super) oci_layout_path: Option<PathBuf>,
    /// Also write the image to a file that `docker load` reads.
    #[arg(long, visible_alias = "tarPath", value_name = "FILE", value_parser = path())]
    pub(super) tar_path: Option<PathBuf>,
    #[command(flatten)]
    pub(super) export: ExportFlags,
    #[command(flatten)]
    pub(super) reports: ReportFlags,
    #[command(flatten)]
    pub(super) form: FormFlags,
    #[command(flatten)]
    pub(super) push: PushFlags,
    #[command(flatten)]
    pub(super) registry: RegistryFlags,
    #[command(flatten)]
    pub(super) lock: LockFlags,
    /// Add a label to the image. Repeatable.
    #[arg(long, value_name = "NAME=VALUE")]
    pub(super) label: Vec<String>,
    /// Remove what the build left behind. It always does; the flag is accepted for Kaniko's sake.
    #[arg(long, action = ArgAction::Set, num_args = 0..=1, default_missing_value = "true", default_value = "false", value_parser = truth, env = "KANIKO_CLEANUP")]
    pub(super) cleanup: bool,
    /// Run in place even where `/` holds the files of another image.
    #[arg(long, action = ArgAction::Set, num_args = 0..=1, default_missing_value = "true", default_value = "false", value_parser = truth)]
    pub(super) force: bool,
    #[command(flatten)]
    pub(super) layers: LayerFlags,
    #[command(flatten)]
    pub(super) limits: LimitFlags,
    #[command(flatten)]
    pub(super) cache: CacheFlags,
    #[command(flatten)]
    pub(super) kaniko: KanikoFlags,
    #[command(flatten)]
    pub(super) trust: TrustFlags,
    /// What of the context's modes counts: whether a file is executable, as in git, or all of it.
    #[arg(long, default_value = "git")]
    pub(super) context_mode: ContextMode,
    /// Build nothing where the destinations have an image of the same content already: one whose tag holds {key}.
    #[arg(long, action = ArgAction::Set, num_args = 0..=1, default_missing_value = "true", default_value = "false", value_parser = truth)]
    pub(super) skip_existing: bool,
    #[command(flatten)]
    pub(super) log: LogFlags,
    /// Write a page that shows what the build did, and when: its steps, transfers, cache hits and layers.
    #[arg(long, value_name = "FILE", value_parser = path())]
    pub(super) report: Option<PathBuf>,
    /// Use this sandbox driver and no other: overlay, flat or in-place.
    #[arg(long)]
    pub(super) driver: Option<Driver>,
    #[command(flatten)]
    pub(super) runs: RunFlags,
    /// Where layers and stages are kept during the build.
    #[arg(long, value_name = "DIR", value_parser = path())]
    pub(super) work_dir: Option<PathBuf>,
    /// Work on so many stages at once; with 1 in the order of the Dockerfile. The default is the number of CPUs that the
    /// container may use, by its quota, and at least 4, because commands spend much of their time waiting.
    #[arg(long, value_name = "NUMBER")]
    pub(super) jobs: Option<NonZeroUsize>,
}

/// `yadokari check` and `yadokari plan`: the flags are those of `build`, of which those about results have no effect.
#[derive(Debug, Args)]
pub(super) struct Look {
    #[command(flatten)]
    pub(super) build: Build,
    /// How the report is written.
    #[arg(long, default_value = "text")]
    pub(super) format: Format,
}

/// What of a context's modes enters the result.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum ContextMode {
    /// Executable or not.
    Git,
    /// All bits.
    Raw,
}

impl From<ContextMode> for crate::plan::ContextMode {
    fn from(mode: ContextMode) -> Self {
        match mode {
            ContextMode::Git => Self::Git,
            ContextMode::Raw => Self::Raw,
        }
    }
}

/// A form of the report.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum Format {
    /// For people.
    Text,
    /// For programs.
    Json,
}

/// How many stages are worked on at once, however few CPUs there are.
const FEWEST_JOBS: NonZeroUsize = NonZeroUsize::MIN.saturating_add(3);

/// The build argument that decides whether one platform makes an index, too.
const MULTI_PLATFORM: &str = "BUILDKIT_MULTI_PLATFORM";

/// Go's truth values.
pub(super) fn truth(text: &str) -> Result<bool, String> {
    match text {
        "1" | "t" | "T" | "TRUE" | "true" | "True" => Ok(true),
        "0" | "f" | "F" | "FALSE" | "false" | "False" => Ok(false),
        _ => Err("write true or false".into()),
    }
}

/// A path, which may be empty: callers write `--tar-path=$VARIABLE`.
pub(super) fn path() -> impl TypedValueParser<Value = PathBuf> {
    OsStringValueParser::new().map(PathBuf::from)
}

impl Build {
    /// Nothing is silently ignored: what is typed and not carried out yet is an error.
    pub(super) fn refuse_what_is_not_carried_out(&self) -> Result<(), Error> {
        self.kaniko.refuse()
    }

    /// `--target`; an empty one is none. Kaniko splits it at commas, builds all of them and pushes the first.
    pub(super) fn target(&self) -> Result<Option<String>, Error> {
        let text = self.target.as_deref().unwrap_or_default();
        let mut targets = text.split(',').map(str::trim).filter(|target| !target.is_empty());
        let first = targets.next();
        match targets.find(|target| Some(*target) != first) {
            Some(other) => {
                let message = format!("'{text}': one build makes one target; build {other} by a call of its own");
                Err(Error::Usage { flag: "--target", message })
            }
            None => Ok(first.map(str::to_owned)),
        }
    }

    /// `--build-arg`
    pub(super) fn build_args(&self, env: Environment<'_>) -> Result<(Pairs, Vec<String>), Error> {
        build_args(&self.build_arg, env)
    }

    /// `--build-context`
    pub(super) fn named_contexts(&self) -> Result<Vec<(String, context::Source)>, Error> {
        let source = |text: &String| {
            let (name, value) = pair("--build-context", text)?;
            let bad = |message| Error::Usage { flag: "--build-context", message: format!("{name}: {message}") };
            let source = context::Source::parse(&value).map_err(bad)?;
            Ok((name, source))
        };
        self.build_context.iter().map(source).collect()
    }

    /// `--platform`, each once, and whether the result is an index of images: where there are several, or where
    /// BUILDKIT_MULTI_PLATFORM says so.
    pub(super) fn platforms(&self, build_args: &[(String, String)]) -> Result<(Vec<Platform>, bool), Error> {
        let mut platforms: Vec<Platform> = Vec::new();
        for text in self.platform.iter().map(|text| text.trim()).filter(|text| !text.is_empty()) {
            let bad = |error: yadokari_registry::Error| Error::Usage { flag: "--platform", message: error.to_string() };
            let platform = text.parse().map_err(bad)?;
            if !platforms.contains(&platform) {
                platforms.push(platform);
            }
        }
        let given = build_args.iter().rev().find(|(name, value)| name == MULTI_PLATFORM && !value.is_empty());
        let several = platforms.len() > 1;
        let is_index = match given.map(|(_, value)| truth(value)) {
            None => several,
            Some(Ok(is_index)) => is_index,
            Some(Err(message)) => return Err(Error::Usage { flag: MULTI_PLATFORM, message }),
        };
        if several && !is_index {
            let message = "several values of --platform make an index of images".into();
            return Err(Error::Usage { flag: MULTI_PLATFORM, message });
        }
        if several && self.tar_path.as_deref().is_some_and(|path| !path.as_os_str().is_empty()) {
            let message =
                "what `docker load` reads holds one platform; give one --platform, or --oci-layout-path".into();
            return Err(Error::Usage { flag: "--tar-path", message });
        }
        Ok((platforms, is_index))
    }

    /// `--jobs`, or what fits this machine: the standard library knows the quotas of both versions of cgroups.
    pub(super) fn jobs(&self) -> NonZeroUsize {
        let cpus = || std::thread::available_parallelism().unwrap_or(NonZeroUsize::MIN);
        self.jobs.unwrap_or_else(|| cpus().max(FEWEST_JOBS))
    }

    /// `--label`
    pub(super) fn labels(&self) -> Result<Pairs, Error> {
        self.label.iter().map(|text| pair("--label", text)).collect()
    }
}

/// `--build-arg`: a name without a value takes the one that `env` gives. Where that gives none there is none, as with
/// Docker; these names are the second answer.
pub(super) fn build_args(texts: &[String], env: Environment<'_>) -> Result<(Pairs, Vec<String>), Error> {
    let (mut given, mut unset) = (Vec::new(), Vec::new());
    for text in texts {
        if text.contains('=') {
            given.push(pair("--build-arg", text)?);
        } else if text.is_empty() {
            return Err(Error::Usage { flag: "--build-arg", message: "it names no argument".into() });
        } else {
            match env(text) {
                Some(value) => given.push((text.clone(), value)),
                None => unset.push(text.clone()),
            }
        }
    }
    Ok((given, unset))
}

/// SOURCE_DATE_EPOCH: a build argument wins over the environment, and an empty one is none.
pub(super) fn epoch(build_args: &[(String, String)], env: Environment<'_>) -> Result<Option<i64>, Error> {
    let given = build_args.iter().rev().find(|(name, _)| name == "SOURCE_DATE_EPOCH");
    let text = given.map(|(_, value)| value.clone()).or_else(|| env("SOURCE_DATE_EPOCH"));
    let Some(text) = text.filter(|text| !text.is_empty()) else { return Ok(None) };
    let bad = |_| Error::Usage {
        flag: "SOURCE_DATE_EPOCH",
        message: format!("'{text}' is not a number of seconds since 1970"),
    };
    text.parse().map(Some).map_err(bad)
}

/// Names and their values.
pub(super) type Pairs = Vec<(String, String)>;

/// The values of environment variables.
pub(super) type Environment<'a> = &'a dyn Fn(&str) -> Option<String>;

pub(super) fn pair(flag: &'static str, text: &str) -> Result<(String, String), Error> {
    match text.split_once('=') {
        Some((name, value)) if !name.is_empty() => Ok((name.to_owned(), value.to_owned())),
        _ => Err(Error::Usage { flag, message: format!("'{text}' is not of the form NAME=VALUE") }),
    }
}
