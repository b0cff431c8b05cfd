//! The three operations.

use yadokari_layers::{Key, RelPath, Tree};

use super::{ImageName, Mode, Selection, key, literal};
use crate::context::ignore::Ignore;
use crate::dockerfile::{MountSharing, Span};
use crate::remote::{Fetched, Remote};

/// What a step does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Op {
    /// Execute a command.
    Run(Run),
    /// Put files into the tree: COPY and ADD.
    Copy(Copy),
    /// Make a directory: WORKDIR.
    Mkdir(Mkdir),
}

impl Op {
    /// Whether its layer does not depend on what is below.
    pub fn is_linked(&self) -> bool {
        matches!(self, Self::Copy(Copy { link: true, .. }))
    }

    /// What it takes from stages and images, in the order of their keys in its own.
    pub fn taken(&self) -> Vec<Taken<'_>> {
        match self {
            Self::Run(run) => run.mounts.iter().filter_map(Mount::source).filter_map(Taken::mounted).collect(),
            Self::Copy(copy) => {
                Some(copy).filter(|copy| copy.from.is_layers()).map(Taken::Copied).into_iter().collect()
            }
            Self::Mkdir(_) => Vec::new(),
        }
    }
}

/// What a step takes from a stage or an image.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Taken<'a> {
    /// All that a COPY selects there.
    Copied(&'a Copy),
    /// A path that is mounted, or that a cache begins with.
    Mounted(&'a MountSource, &'a Origin),
}

impl<'a> Taken<'a> {
    fn mounted(source: &'a MountSource) -> Option<Self> {
        let origin = source.from.as_ref().filter(|origin| origin.is_layers())?;
        Some(Self::Mounted(source, origin))
    }

    /// The stage or image.
    pub fn origin(&self) -> &'a Origin {
        match self {
            Self::Copied(copy) => &copy.from,
            Self::Mounted(_, origin) => origin,
        }
    }

    /// What is taken of `tree`, which is that of the stage or image, as a key: it stays the same when the stage is built
    /// anew and what is taken turns out to be what it was. Times count where `clamp` says how late they may be. `None`
    /// where something is not there, which is for the step to complain of.
    pub fn content(&self, tree: &Tree, clamp: Option<i64>) -> Result<Option<Key>, crate::Error> {
        let (mut found, nothing) = (Vec::new(), Ignore::default());
        let selections = match self {
            Self::Copied(copy) => copy.sources.iter().map(|source| copy.select(tree, source)).collect(),
            Self::Mounted(source, _) => literal(tree, &source.path).map(|selection| vec![selection]),
        };
        for selection in selections? {
            match selection {
                Selection::Found(selected) => found.extend(selected),
                Selection::Missing(_) | Selection::ThroughLink(_) => return Ok(None),
            }
        }
        let exclude = if let Self::Copied(copy) = self { &copy.exclude } else { &nothing };
        Ok(Some(key::selected_content(tree, &found, exclude, clamp)))
    }
}

/// A command and all that it sees.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Run {
    /// The program and its arguments.
    pub argv: Vec<String>,
    /// The environment: the image's and the stage's arguments.
    pub env: Vec<(String, String)>,
    /// Proxy settings, which the command sees and which change nothing.
    pub proxies: Vec<(String, String)>,
    /// USER, resolved to numbers when the step runs; empty for root.
    pub user: String,
    /// The working directory, absolute.
    pub workdir: String,
    /// What it finds beside the image. One that lies in another comes after it, and no two have one target.
    pub mounts: Vec<Mount>,
    /// The secrets in its environment.
    pub secrets: Vec<SecretVariable>,
    /// The place of `--network=none`, where the command has no network.
    pub no_network: Option<Span>,
    /// The host name, where it is not the builder's.
    pub hostname: Option<String>,
    /// Paths whose changes, and of what is below them, are left out of its layer.
    pub ignored: Vec<RelPath>,
}

/// Something that a command finds at a path and that no layer holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mount {
    /// Where, absolute.
    pub target: String,
    /// What.
    pub kind: MountKind,
    /// The place of the flag.
    pub span: Span,
}

impl Mount {
    /// What it takes files from: what is mounted, or what a cache holds at first.
    pub fn source(&self) -> Option<&MountSource> {
        match &self.kind {
            MountKind::Bind { source, .. } => Some(source),
            MountKind::Cache { seed, .. } => seed.as_ref(),
            MountKind::Tmpfs { .. } | MountKind::Secret { .. } | MountKind::Ssh { .. } | MountKind::Script { .. } => {
                None
            }
        }
    }
}

/// What a command finds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MountKind {
    /// Files of the context, a stage or an image. What is written to them is lost.
    Bind {
        /// Which.
        source: MountSource,
        /// Whether they can be written to at all.
        read_only: bool,
    },
    /// A directory that outlives the build.
    Cache {
        /// Which: the same for all that share it.
        name: Key,
        /// Who may use it at the same time.
        sharing: MountSharing,
        /// What it holds at first.
        seed: Option<MountSource>,
        /// Its mode at first, and whose it is.
        access: Access,
        /// Whether it can be written to.
        read_only: bool,
    },
    /// An empty directory.
    Tmpfs {
        /// The most bytes that it holds.
        size: Option<u64>,
    },
    /// The value of a secret as a file.
    Secret {
        /// The secret's id.
        id: String,
        /// Whether it is an error that there is none.
        required: bool,
        /// The file's mode, and whose it is.
        access: Access,
    },
    /// The socket of an SSH agent.
    Ssh {
        /// The agent's id.
        id: String,
        /// Whether it is an error that there is none.
        required: bool,
        /// The socket's mode, and whose it is.
        access: Access,
    },
    /// A script of the Dockerfile.
    Script {
        /// What it says.
        content: String,
    },
}

/// A mode and two owners.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Access {
    /// The mode.
    pub mode: u32,
    /// The user.
    pub uid: u32,
    /// The group.
    pub gid: u32,
}

/// A path in something else.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MountSource {
    /// In what; `None` for an empty directory.
    pub from: Option<Origin>,
    /// The path, expanded; `/` for all of it.
    pub path: String,
    /// Its place in the Dockerfile.
    pub span: Span,
}

/// A secret as an environment variable.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SecretVariable {
    /// The variable's name.
    pub name: String,
    /// The secret's id.
    pub id: String,
    /// Whether it is an error that there is none.
    pub required: bool,
    /// The place of the flag.
    pub span: Span,
}

/// Where copied and mounted files come from.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Origin {
    /// The build context.
    Context,
    /// A directory of `--build-context`, by its name there.
    Named(String),
    /// Nothing: `scratch`.
    Nothing,
    /// The result of another stage, by its position in the plan.
    Stage(usize),
    /// An image.
    Image(ImageName),
}

impl Origin {
    /// Whether it is made of layers, and no directory or nothing.
    pub fn is_layers(&self) -> bool {
        matches!(self, Self::Stage(_) | Self::Image(_))
    }
}

/// A source that stands in the Dockerfile itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Inline {
    /// The file's name.
    pub name: String,
    /// Its bytes, expanded.
    pub content: String,
}

/// A path or pattern of COPY or ADD, with its place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CopySource {
    /// The path or pattern, expanded.
    pub pattern: String,
    /// Its place in the Dockerfile.
    pub span: Span,
    /// What was fetched for it, where it names a URL or a repository and no path.
    pub elsewhere: Option<Elsewhere>,
}

/// A source of ADD that was fetched.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Elsewhere {
    /// What the Dockerfile names.
    pub remote: Remote,
    /// What it turned out to be.
    pub fetched: Fetched,
}

impl Elsewhere {
    /// Whether it is a tree of files, and not one file.
    pub fn is_tree(&self) -> bool {
        matches!(self.fetched, Fetched::Tree(_))
    }
}

/// Files put into the tree.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Copy {
    /// Where they come from.
    pub from: Origin,
    /// Which they are.
    pub sources: Vec<CopySource>,
    /// Files given in the Dockerfile.
    pub inline: Vec<Inline>,
    /// Where they go, absolute; a trailing slash is kept, since it says that it is a directory.
    pub destination: String,
    /// Its place in the Dockerfile.
    pub destination_span: Span,
    /// `--chown`: who owns them instead.
    pub chown: Option<Owner>,
    /// `--chmod`: their mode instead.
    pub chmod: Option<Mode>,
    /// Whether archives are unpacked: those of ADD, unless it says `--unpack=false`.
    pub unpack: bool,
    /// ADD --unpack: downloaded archives are unpacked, too.
    pub unpack_downloads: bool,
    /// `--parents`: what is copied keeps the directories above it.
    pub parents: bool,
    /// `--exclude`: what is left out of copied directories.
    pub exclude: Ignore,
    /// `--link`: the layer is made as if nothing were below it, and is the same on every base.
    pub link: bool,
}

/// A directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mkdir {
    /// Where, absolute.
    pub path: String,
    /// Who owns what has to be made: the USER of that moment.
    pub owner: String,
}

/// The value of `--chown`, resolved to numbers against the stage's own passwd and group when the step runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Owner {
    /// `user[:group]`, names or numbers.
    pub text: String,
    /// Its place in the Dockerfile.
    pub span: Span,
}
