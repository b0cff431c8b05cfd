//! The three operations.

use super::Mode;
use crate::dockerfile::Span;
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
}

/// Where copied files come from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// The build context.
    Context,
    /// The result of another stage, by its position in the plan.
    Stage(usize),
    /// An image.
    Image(String),
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
    /// ADD: archives are unpacked.
    pub unpack: bool,
    /// ADD --unpack: downloaded archives are unpacked, too.
    pub unpack_downloads: bool,
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
