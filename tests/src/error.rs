//! What can go wrong while a test prepares or inspects: never what the builder under test answers, which is an
//! [`Output`](crate::Output).

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::Output;

/// A failure of the harness, with the operation and its operand.
#[derive(thiserror::Error)]
pub enum Error {
    /// A system call on a path.
    #[error("{operation} {}: {source}", path.display())]
    Io {
        /// What was tried, as a verb.
        operation: &'static str,
        /// On what.
        path: PathBuf,
        /// The kernel's answer.
        source: io::Error,
    },
    /// A command that could not be started.
    #[error("start '{line}': {source}")]
    Start {
        /// The command line.
        line: String,
        /// Why it did not start.
        source: io::Error,
    },
    /// A command that had to succeed and did not.
    #[error("'{line}': {output}")]
    Command {
        /// The command line.
        line: String,
        /// How it ended, and what it printed.
        output: Output,
    },
    /// Something that took too long and was killed.
    #[error("{what}: no end after {} s", after.as_secs())]
    Timeout {
        /// The command line, or what was waited for.
        what: String,
        /// The time that it had.
        after: Duration,
    },
    /// Programs that are not there and cannot be installed from here.
    #[error("{} not found, and {reason}: install the Debian packages {} and try again", tools.join(", "), packages.join(" "))]
    Missing {
        /// The programs.
        tools: Vec<&'static str>,
        /// The packages that hold them.
        packages: Vec<&'static str>,
        /// Why the harness does not install them itself.
        reason: &'static str,
    },
    /// An executable that needs a dynamic linker, which an empty image does not have.
    #[error("{}: not statically linked", program.display())]
    NotStatic {
        /// The executable.
        program: PathBuf,
    },
    /// A container was asked for by a user who cannot make one.
    #[error("containers are made by root: run the tests as root")]
    NotRoot,
    /// JSON that does not parse or does not have the expected form.
    #[error("{}: not the expected JSON: {detail}", path.display())]
    Json {
        /// The file.
        path: PathBuf,
        /// The parser's message, or what was missing.
        detail: String,
    },
    /// A case that is not written as cases are, or that cannot be made.
    #[error("{place}: {detail}")]
    Case {
        /// The file and the line.
        place: String,
        /// What is wrong with it.
        detail: String,
    },
    /// An HTTP exchange that broke off, or an answer that is not HTTP.
    #[error("{method} http://{address}{path}: {detail}")]
    Http {
        /// The method.
        method: String,
        /// Host and port.
        address: String,
        /// The path.
        path: String,
        /// What happened.
        detail: String,
    },
}

/// The result of everything in the harness.
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl fmt::Debug for Error {
    /// The same text as `Display`: it is what a test that returns an error prints.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Names the operation and the path of an I/O error.
pub(crate) trait At<T> {
    /// Turns the error into an [`Error::Io`].
    fn at(self, operation: &'static str, path: impl AsRef<Path>) -> Result<T>;
}

impl<T, E: Into<io::Error>> At<T> for std::result::Result<T, E> {
    fn at(self, operation: &'static str, path: impl AsRef<Path>) -> Result<T> {
        self.map_err(|source| Error::Io { operation, path: path.as_ref().to_owned(), source: source.into() })
    }
}
