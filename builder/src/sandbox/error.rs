//! What can go wrong with a sandbox.

use std::fmt;
use std::io;

use serde::{Deserialize, Serialize};
use yadokari_layers::Digest;

/// The result of working with a sandbox.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// A failed operation. A refused system call carries its operation and operand; each hop on the way up adds one phrase.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A system call failed.
    #[error("{operation} {operand}: {source}")]
    Syscall {
        /// The system call.
        operation: &'static str,
        /// What it was applied to.
        operand: String,
        /// The kernel's answer.
        source: io::Error,
    },
    /// What was being done when something failed.
    #[error("{phase}: {source}")]
    During {
        /// The phrase of this hop.
        phase: String,
        /// The cause.
        source: Box<Error>,
    },
    /// A layer or a root said no.
    #[error(transparent)]
    Layers(#[from] yadokari_layers::Error),
    /// Something failed in the worker or in the launcher.
    #[error("{0}")]
    Remote(Failure),
    /// A process of ours ended without an answer.
    #[error("the {0} ended without an answer")]
    Died(&'static str),
    /// A process of ours said what it should not have said.
    #[error("the {0} spoke out of turn")]
    Protocol(&'static str),
    /// The work was interrupted.
    #[error("interrupted")]
    Interrupted,
    /// Taking the time that it did not have.
    #[error("no answer within {0} s")]
    Timeout(u64),
    /// The root file system of this container is not ours to move.
    #[error("{0}")]
    Foreign(String),
    /// What is asked for cannot be done.
    #[error("{0}")]
    Refused(String),
    /// No driver works here.
    #[error("no way to execute RUN works here:\n  {}", .0.join("\n  "))]
    NoDriver(Vec<String>),
}

/// An error that crossed a process boundary.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// The whole message.
    pub text: String,
    /// The system call at its root, where there is one.
    pub operation: Option<String>,
    /// The kernel's error number, where there is one.
    pub errno: Option<i32>,
    /// What is wrong with a layer, where that is at its root.
    pub fault: Option<Fault>,
    /// The layer that it is about, where it is about one.
    pub layer: Option<Digest>,
}

/// What is wrong with a layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Fault {
    /// It is not the one that the image names.
    Mismatch,
    /// It says what no layer may say.
    Entry,
    /// It cannot be read.
    Stream,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl Error {
    /// The kernel's error number at the root of this error.
    pub fn raw_os_error(&self) -> Option<i32> {
        match self {
            Self::Syscall { source, .. } => source.raw_os_error(),
            Self::During { source, .. } => source.raw_os_error(),
            Self::Layers(error) => error.raw_os_error(),
            Self::Remote(failure) => failure.errno,
            _ => None,
        }
    }

    /// The system call at the root of this error.
    pub fn operation(&self) -> Option<&str> {
        match self {
            Self::Syscall { operation, .. } => Some(operation),
            Self::During { source, .. } => source.operation(),
            Self::Remote(failure) => failure.operation.as_deref(),
            _ => None,
        }
    }

    /// What is wrong with a layer, where that is at the root of this error.
    pub fn fault(&self) -> Option<Fault> {
        use yadokari_layers::Error as Layers;
        match self {
            Self::During { source, .. } => source.fault(),
            Self::Layers(error) => match error.cause() {
                Layers::Mismatch(_) | Layers::DiffId { .. } => Some(Fault::Mismatch),
                Layers::Entry { .. } | Layers::Limit { .. } => Some(Fault::Entry),
                Layers::Stream { .. } => Some(Fault::Stream),
                _ => None,
            },
            Self::Remote(failure) => failure.fault,
            _ => None,
        }
    }

    /// The layer that this error is about, where it is about one.
    pub fn layer(&self) -> Option<Digest> {
        match self {
            Self::During { source, .. } => source.layer(),
            Self::Layers(error) => error.layer(),
            Self::Remote(failure) => failure.layer,
            _ => None,
        }
    }

    /// The same, with the layer that it is about.
    pub(super) fn in_layer(self, layer: Digest) -> Self {
        match self {
            Self::During { phase, source } => Self::During { phase, source: Box::new(source.in_layer(layer)) },
            Self::Layers(error) => Self::Layers(error.in_layer(layer)),
            other => other,
        }
    }

    /// The form that crosses a process boundary.
    pub(super) fn failure(&self) -> Failure {
        Failure {
            text: self.to_string(),
            operation: self.operation().map(str::to_owned),
            errno: self.raw_os_error(),
            fault: self.fault(),
            layer: self.layer(),
        }
    }
}

impl From<Failure> for Error {
    fn from(failure: Failure) -> Self {
        Self::Remote(failure)
    }
}

/// Names the operation and the operand of a system call that failed.
pub(super) trait Syscall<T> {
    /// Says which system call failed, and on what.
    fn on(self, operation: &'static str, operand: impl fmt::Display) -> Result<T>;
}

impl<T, E: Into<io::Error>> Syscall<T> for Result<T, E> {
    fn on(self, operation: &'static str, operand: impl fmt::Display) -> Result<T> {
        self.map_err(|source| Error::Syscall { operation, operand: operand.to_string(), source: source.into() })
    }
}

/// Adds the phrase of one hop.
pub(super) trait During<T> {
    /// Says what was being done.
    fn during(self, phase: impl Into<String>) -> Result<T>;
}

impl<T, E: Into<Error>> During<T> for Result<T, E> {
    fn during(self, phase: impl Into<String>) -> Result<T> {
        self.map_err(|source| Error::During { phase: phase.into(), source: Box::new(source.into()) })
    }
}
