//! What can go wrong in a build, and the exit code that says so.

use std::io;
use std::path::PathBuf;

use crate::dockerfile::{Diagnostic, Span};
use crate::sandbox::Fault;

/// A failed build.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The Dockerfile is wrong, or asks for what is not carried out yet.
    #[error(transparent)]
    Dockerfile(#[from] Diagnostic),
    /// Checks found something, and the Dockerfile says that this is an error.
    #[error("checks found something, and error=true is set: {rules}")]
    Checks {
        /// The names of the checks.
        rules: String,
    },
    /// An ONBUILD trigger of a base image is wrong.
    #[error("ONBUILD trigger of the base image, '{text}': {message}")]
    Trigger {
        /// The trigger.
        text: String,
        /// What is wrong.
        message: String,
    },
    /// `--target` names no stage.
    #[error("--target={target}: the Dockerfile has no such stage{hint}")]
    NoSuchTarget {
        /// What was asked for.
        target: String,
        /// What may have been meant, or the names that exist; or nothing.
        hint: String,
    },
    /// A pattern that no file name could match.
    #[error("'{pattern}' is not a valid pattern")]
    Pattern {
        /// The pattern.
        pattern: String,
    },
    /// The ignore file is wrong.
    #[error("{}:{line}: {message}", path.display())]
    Ignore {
        /// The ignore file.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
        /// What is wrong.
        message: String,
    },
    /// The Dockerfile is missing or unreadable.
    #[error("Dockerfile '{}': {source}", path.display())]
    NoDockerfile {
        /// Where it was looked for.
        path: PathBuf,
        /// The kernel's answer.
        source: io::Error,
    },
    /// The context is missing, or no directory.
    #[error("build context '{}': {source}", path.display())]
    Context {
        /// Where it was looked for.
        path: PathBuf,
        /// The kernel's answer.
        source: io::Error,
    },
    /// A command-line value that cannot be used.
    #[error("{flag}: {message}")]
    Usage {
        /// The flag.
        flag: &'static str,
        /// What is wrong with its value.
        message: String,
    },
    /// A base image, or an image copied from, cannot be had.
    #[error("image '{name}': {source}{}", meant.as_ref().map_or(String::new(), |meant| format!(" (did you mean {meant}?)")))]
    Image {
        /// The image as the Dockerfile names it.
        name: String,
        /// The stage or the image that may have been meant.
        meant: Option<String>,
        /// Why.
        source: Box<yadokari_registry::Error>,
    },
    /// An image must not be asked for, or has to have a digest in the lock of base images and has none.
    #[error(transparent)]
    Barred(Box<Diagnostic>),
    /// The registry has no image with the digest that the lock of base images gives it.
    #[error("image '{name}': {source}; '{}' pins it to {digest}: take its rule out to ask for the tag again", lock.display())]
    Pinned {
        /// The image as the Dockerfile names it.
        name: String,
        /// The file that says so.
        lock: PathBuf,
        /// The digest.
        digest: yadokari_layers::Digest,
        /// Why it cannot be had.
        source: Box<yadokari_registry::Error>,
        /// The place in the Dockerfile that asks for it, where one does.
        at: Option<Span>,
    },
    /// An image has a config or manifest that makes no sense.
    #[error("image '{name}': {reason}")]
    BadImage {
        /// The image as the Dockerfile names it.
        name: String,
        /// What is wrong with it.
        reason: String,
    },
    /// What a URL or a git repository names cannot be had, or is not what it should be.
    #[error("{name}: {reason}")]
    Remote {
        /// The source, without a password.
        name: String,
        /// Why.
        reason: String,
        /// What it means for whoever called.
        code: ExitCode,
        /// The place in the Dockerfile that asks for it, where one does.
        at: Option<Span>,
    },
    /// The result cannot be written where it should go.
    #[error("push to {destination}: {source}")]
    Push {
        /// The destination.
        destination: String,
        /// Why.
        source: Box<yadokari_registry::Error>,
    },
    /// A layer that the cache named cannot be had. The build goes on without it.
    #[error("layer {layer} of the cache cannot be had")]
    Stale {
        /// The layer.
        layer: yadokari_layers::Digest,
    },
    /// A repository that is tidied up.
    #[error("tidy up {store}: {source}")]
    Tidy {
        /// The repository.
        store: String,
        /// Why.
        source: Box<yadokari_registry::Error>,
    },
    /// Layers, roots, files.
    #[error(transparent)]
    Layers(#[from] yadokari_layers::Error),
    /// A file of the host.
    #[error("{operation} '{}': {source}", path.display())]
    Host {
        /// The system call or what it was for.
        operation: &'static str,
        /// The path.
        path: PathBuf,
        /// The kernel's answer.
        source: io::Error,
    },
    /// There is no room for what the build needs while it goes on.
    #[error("{cause}: '{}' is on a full disk{state}; --work-dir names another directory", directory.display())]
    DiskFull {
        /// The directory that the build works in.
        directory: PathBuf,
        /// What is free there, and what is needed.
        state: String,
        /// What could not be written, and the kernel's answer.
        cause: String,
    },
    /// The sandbox failed, not the command in it.
    #[error(transparent)]
    Sandbox(#[from] crate::sandbox::Error),
    /// No driver can execute a RUN here.
    #[error("no sandbox driver works here:\n{0}")]
    NoDriver(String),
    /// The only driver that a RUN could have is one that does not isolate it, and that is not allowed.
    #[error("--require-isolation: a RUN is to be executed, and {driver} does not keep it from the builder:\n{drivers}")]
    NotIsolated {
        /// The driver.
        driver: crate::sandbox::Driver,
        /// What there is to say of all drivers, and what to change.
        drivers: String,
    },
    /// A RUN failed.
    #[error("{text}: exit code {code}")]
    Run {
        /// The instruction.
        text: String,
        /// What it exited with, or 128 and the signal's number.
        code: u8,
    },
    /// A stage ended because another one failed. It is never why a build failed.
    #[error("given up, since another stage failed")]
    Abandoned,
    /// The build was interrupted by a signal.
    #[error("interrupted by signal {0}")]
    Interrupted(i32),
}

/// The exit codes that are ours; a failing RUN's code is its own. They follow BSD's `sysexits.h`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum ExitCode {
    /// The command line is wrong (2, as with every other tool).
    Usage = 2,
    /// The Dockerfile is wrong, or names a file that is not there; or an image is wrong, or holds more than it may.
    Data = 65,
    /// The Dockerfile, the context or an image does not exist.
    NoInput = 66,
    /// A registry cannot be reached, or fails.
    Unavailable = 69,
    /// No sandbox driver works here, or none that may be used; or the sandbox failed.
    Sandbox = 71,
    /// A file cannot be read or written; the disk is full.
    Io = 74,
    /// A registry's answer contradicts itself or a digest.
    Protocol = 76,
    /// A registry refused the login.
    NoPermission = 77,
}

impl Error {
    /// The same, with the place in the Dockerfile that asks for what cannot be had.
    pub(crate) fn asked_for_at(self, place: Option<Span>) -> Self {
        match self {
            Self::Remote { name, reason, code, .. } => Self::Remote { name, reason, code, at: place },
            other => other,
        }
    }

    /// What a place in the Dockerfile has to do with it; `None` where none is known.
    pub fn diagnostic(&self) -> Option<Diagnostic> {
        match self {
            Self::Dockerfile(diagnostic) => Some(diagnostic.clone()),
            Self::Barred(diagnostic) => Some((**diagnostic).clone()),
            Self::Remote { at: Some(span), .. } | Self::Pinned { at: Some(span), .. } => {
                Some(Diagnostic::new(self.to_string()).at(*span))
            }
            _ => None,
        }
    }

    /// The layer that this is about, where it is about one.
    pub(crate) fn layer(&self) -> Option<yadokari_layers::Digest> {
        match self {
            Self::Layers(error) => error.layer(),
            Self::Sandbox(error) => error.layer(),
            _ => None,
        }
    }

    /// The exit code of a build that failed so.
    pub fn exit_code(&self) -> u8 {
        use yadokari_layers::Error as Layers;
        let code = match self {
            Self::Run { code, .. } => return *code,
            Self::Interrupted(signal) => return 128_u8.saturating_add(u8::try_from(*signal).unwrap_or(0)),
            Self::Usage { .. } => ExitCode::Usage,
            Self::Remote { code, .. } => *code,
            Self::Dockerfile(_)
            | Self::Barred(_)
            | Self::Checks { .. }
            | Self::Trigger { .. }
            | Self::NoSuchTarget { .. }
            | Self::Pattern { .. } => ExitCode::Data,
            Self::Ignore { .. } | Self::BadImage { .. } => ExitCode::Data,
            Self::NoDockerfile { .. } | Self::Context { .. } => ExitCode::NoInput,
            Self::Image { source, .. }
            | Self::Pinned { source, .. }
            | Self::Push { source, .. }
            | Self::Tidy { source, .. } => registry_code(source),
            Self::Layers(error) => match error.cause() {
                Layers::Mismatch(_) | Layers::DiffId { .. } => ExitCode::Protocol,
                Layers::Entry { .. } | Layers::Limit { .. } => ExitCode::Data,
                _ => ExitCode::Io,
            },
            Self::Stale { .. } | Self::Abandoned => ExitCode::Unavailable,
            Self::Host { .. } | Self::DiskFull { .. } => ExitCode::Io,
            // The sandbox is where layers are read, and not to blame for them.
            Self::Sandbox(error) => match error.fault() {
                Some(Fault::Mismatch) => ExitCode::Protocol,
                Some(Fault::Entry) => ExitCode::Data,
                Some(Fault::Stream) => ExitCode::Io,
                None => ExitCode::Sandbox,
            },
            Self::NoDriver(_) | Self::NotIsolated { .. } => ExitCode::Sandbox,
        };
        code as u8
    }
}

/// What a failure of a registry, or of another store, means for the exit code.
pub(crate) fn registry_code(error: &yadokari_registry::Error) -> ExitCode {
    use yadokari_registry::Error;
    match error {
        Error::Unauthorized { .. } => ExitCode::NoPermission,
        Error::NotFound { .. } => ExitCode::NoInput,
        Error::Refused { .. } | Error::Unreachable { .. } | Error::Offline { .. } => ExitCode::Unavailable,
        Error::Mismatch { .. } | Error::Protocol { .. } => ExitCode::Protocol,
        Error::Reference { .. } | Error::Unsupported { .. } | Error::Manifest { .. } => ExitCode::Data,
        Error::Io { .. } => ExitCode::Io,
        Error::Configuration { .. } => ExitCode::Usage,
    }
}
