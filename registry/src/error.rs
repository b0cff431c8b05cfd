//! What can go wrong between us and the place where an image lives.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use yadokari_layers::{Digest, Mismatch};

/// The result of anything in this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// A failure, sorted by what its reader can do about it. No variant ever holds a secret.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The registry answered 401 or 403: a login is missing, wrong, or may not do this.
    #[error("{operation}: {registry} refused access: {message}")]
    Unauthorized {
        /// The registry's host, or the host of its token server.
        registry: String,
        /// What was tried, with its operand.
        operation: String,
        /// The registry's own words, or its status where it gave none.
        message: String,
    },
    /// Something that had to be there is definitely absent.
    #[error("{what} not found in {store}")]
    NotFound {
        /// The blob or manifest.
        what: String,
        /// The store that was asked.
        store: String,
    },
    /// The registry answered, and said no.
    #[error("{operation}: {url} answered {status}: {message}")]
    Refused {
        /// What was tried, with its operand.
        operation: String,
        /// The address asked, without its query (upload sessions carry secrets there).
        url: String,
        /// The HTTP status.
        status: u16,
        /// The error code of the registry's JSON error body, such as `NAME_UNKNOWN`.
        code: Option<String>,
        /// The registry's own words.
        message: String,
    },
    /// No answer: the name does not resolve, the connection failed or was cut, or nothing came for too long.
    #[error("{operation}: cannot reach {host}: {source}")]
    Unreachable {
        /// What was tried, with its operand.
        operation: String,
        /// The host, with its port where it is not the scheme's own.
        host: String,
        /// The cause.
        source: Failure,
    },
    /// A host that must not be asked was named.
    #[error(
        "{operation}: nothing is asked of {host}, which is none of the build's own hosts; --offline-allow {host} lets it be asked"
    )]
    Offline {
        /// What was to be done, with its operand.
        operation: String,
        /// The host, without its port.
        host: String,
    },
    /// Content is not what its digest or size says.
    #[error("{store}: {mismatch}")]
    Mismatch {
        /// The store that gave or took the content.
        store: String,
        /// What differs.
        #[source]
        mismatch: Mismatch,
    },
    /// A text that is not an image reference.
    #[error("'{text}' is not an image reference: {reason}")]
    Reference {
        /// The text.
        text: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// Something legal that is not carried out here.
    #[error("{what} is not supported")]
    Unsupported {
        /// What was asked for, and where.
        what: String,
    },
    /// A file could not be read or written.
    #[error("{operation} {path}: {source}", path = path.display())]
    Io {
        /// What was tried.
        operation: &'static str,
        /// The file, or a blob's digest.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// A manifest or index that cannot be used.
    #[error("manifest {digest} in {store}: {reason}")]
    Manifest {
        /// The manifest.
        digest: Digest,
        /// Where it came from.
        store: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The registry broke the protocol.
    #[error("{operation}: {url}: {reason}")]
    Protocol {
        /// What was tried, with its operand.
        operation: String,
        /// The address asked, without its query.
        url: String,
        /// What its answer lacks, or says wrongly.
        reason: String,
    },
    /// A configuration value that cannot be used: credentials, certificates, proxies, mirrors.
    #[error("{what}: {reason}")]
    Configuration {
        /// The value's name; never the value, where it is secret.
        what: String,
        /// What is wrong with it.
        reason: String,
    },
}

impl Error {
    /// Whether another source of the same content may do better: a mirror's failure must not end a pull that the
    /// registry itself can serve.
    pub fn worth_another_source(&self) -> bool {
        !matches!(self, Self::Io { .. } | Self::Reference { .. } | Self::Configuration { .. })
    }
}

/// Why no answer came.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// The transport failed.
    #[error("{}", chain(.0))]
    Transport(#[source] reqwest::Error),
    /// No byte went either way for this long.
    #[error("nothing came for {} s", .0.as_secs_f32())]
    Silent(Duration),
    /// What came was next to nothing.
    #[error("only {bytes} bytes came in {} s", .during.as_secs_f32())]
    Slow {
        /// The bytes.
        bytes: u64,
        /// The time in which they came.
        during: Duration,
    },
    /// Plain HTTP and HTTPS were both tried.
    #[error("{first}; {second}")]
    Both {
        /// The failure of the scheme tried first.
        first: Box<Failure>,
        /// The failure of the other.
        second: Box<Failure>,
    },
}

impl Failure {
    /// Whether the same request must fail the same way: a certificate that is not trusted now will not be in a
    /// minute. The TLS library reports all that it refuses as invalid data; everything else may be the network's mood.
    pub(crate) fn is_permanent(&self) -> bool {
        match self {
            Self::Transport(error) => {
                let mut next: Option<&(dyn std::error::Error + 'static)> = Some(error);
                while let Some(cause) = next {
                    // An I/O error in an I/O error is no link of the chain of sources.
                    let mut io = cause.downcast_ref::<io::Error>();
                    while let Some(found) = io {
                        if error.is_connect() && found.kind() == io::ErrorKind::InvalidData {
                            return true;
                        }
                        io = found.get_ref().and_then(|inner| inner.downcast_ref());
                    }
                    next = cause.source();
                }
                false
            }
            Self::Silent(_) | Self::Slow { .. } => false,
            Self::Both { first, second } => first.is_permanent() && second.is_permanent(),
        }
    }
}

/// An error and its causes in one line: reqwest's own text names only the outermost ("error sending request").
fn chain(error: &reqwest::Error) -> String {
    let mut causes = Vec::new();
    let mut next = std::error::Error::source(error);
    while let Some(cause) = next {
        causes.push(cause.to_string());
        next = cause.source();
    }
    // Each level of hyper repeats its cause; the innermost ones carry the facts.
    causes.dedup();
    if causes.is_empty() { "the request could not be made".into() } else { causes.join(": ") }
}
