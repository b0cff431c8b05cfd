//! ADD of what was fetched: a file from a URL, or the tree of a repository.

use std::fs::File;

use yadokari_layers::{Content, Entry, Kind, Limits, RelPath, Spool, Timestamp};

use super::copy::{Bytes, Conflict, Placing};
use super::unpack::{Archive, unpack_file};
use crate::context::Context;
use crate::dockerfile::{Diagnostic, Span};
use crate::plan::{Copy, CopySource, Elsewhere, Selected};
use crate::remote::{Fetched, RemoteFile};

/// The mode of a downloaded file, as with BuildKit: whoever wants another says `--chmod`.
const MODE: u32 = 0o600;

/// Why a source cannot be put where it should go.
#[derive(Debug, thiserror::Error)]
pub(super) enum Refusal {
    /// The destination is a directory, and the URL has no name for the file in it.
    #[error("the URL ends in no name for the file, and '{0}' is a directory")]
    NoName(String),
    /// The tree does not allow it.
    #[error(transparent)]
    Conflict(#[from] Conflict),
    /// Something else.
    #[error(transparent)]
    Other(#[from] crate::Error),
}

impl Refusal {
    /// The error at its place: the source, where it has one, or the instruction.
    pub(super) fn at(self, source: &CopySource, span: Option<Span>) -> crate::Error {
        let text = self.to_string();
        let place = match self {
            Self::Other(error) => return error,
            Self::Conflict(Conflict::Layers(error)) => return error.into(),
            Self::Conflict(_) => span,
            Self::NoName(_) => span.and(Some(source.span)),
        };
        let error = Diagnostic::new(text);
        place.map_or(error.clone(), |place| error.at(place)).into()
    }
}

/// Puts a source into the tree.
pub(super) fn copy(
    placing: &mut Placing<'_>,
    copy: &Copy,
    source: &Elsewhere,
    spool: &mut Spool,
    limits: &Limits,
    span: Option<Span>,
) -> Result<(), Refusal> {
    match &source.fetched {
        Fetched::File(file) => {
            let open = || {
                let failed = |source| crate::Error::Host { operation: "open", path: file.path.clone(), source };
                File::open(&file.path).map_err(failed)
            };
            let name = source.remote.to_string();
            let archive = Archive { name: &name, open: &open, digest: Some(file.digest), limits };
            if copy.unpack_downloads && unpack_file(placing, &archive, &copy.destination, spool, span)? {
                return Ok(());
            }
            put(placing, copy, source, file)
        }
        Fetched::Tree(checkout) => {
            let context = Context::whole(&checkout.path)?;
            let root = Selected { name: None, path: RelPath::root(), include: None };
            let bytes = |_, path: &RelPath| Bytes::of_context(&context, path);
            Ok(placing.copy(context.tree()?, &root, root.filter(&copy.exclude), &copy.destination, &bytes)?)
        }
    }
}

fn put(placing: &mut Placing<'_>, copy: &Copy, source: &Elsewhere, file: &RemoteFile) -> Result<(), Refusal> {
    let name = source.remote.file_name();
    if name.is_none() && placing.means_directory(&copy.destination)? {
        return Err(Refusal::NoName(copy.destination.clone()));
    }
    let target = placing.target(&copy.destination, name.as_deref().map(str::as_bytes))?;
    let kind = Kind::File { size: file.size, content: Some(file.digest) };
    let entry = Entry { kind, ..Entry::file(file.size, MODE, Timestamp::from_secs(file.mtime)) };
    Ok(placing.put(&target, entry, Content::Host(file.path.clone()))?)
}
