//! What COPY and ADD put into a tree, from a context or from layers.

use std::collections::BTreeMap;

use yadokari_layers::{Content, Limits, RelPath, Spool, Tree};

use super::blobs::Blobs;
use super::copy::{Bytes, Conflict, Placing};
use super::{remote, unpack};
use crate::context::Context;
use crate::dockerfile::{Diagnostic, Span};
use crate::plan::{Copy, CopySource, LayerRef, Selected, Selection, through_link};
use crate::progress::Voice;
use crate::remote::Fetched;

pub(super) fn copy_from_context(
    voice: &Voice<'_>,
    context: &Context,
    placing: &mut Placing<'_>,
    copy: &Copy,
    spool: &mut Spool,
    limits: &Limits,
    span: Option<Span>,
) -> Result<(), crate::Error> {
    // A build that takes nothing from the context does not read it.
    let nothing = Tree::new();
    let tree = if copy.sources.iter().any(|source| source.elsewhere.is_none()) { context.tree()? } else { &nothing };
    let selected = select_all(tree, copy, span)?;
    let several = selected.len() + copy.inline.len() > 1;
    for (source, selected) in &selected {
        if let Some(elsewhere) = &source.elsewhere {
            if several && matches!(elsewhere.fetched, Fetched::File(_)) && !copy.unpack_downloads {
                needs_directory(placing, copy, span)?;
            }
            let copied = remote::copy(placing, copy, elsewhere, spool, limits, span);
            copied.map_err(|refusal| refusal.at(source, span))?;
            continue;
        }
        let archive = copy.unpack && tree.content(&selected.path).is_some_and(|(_, found)| found.entry.is_file());
        if archive && unpack::unpack(placing, context, &selected.path, &copy.destination, spool, limits, span)? {
            for (flag, given) in [("--chmod", copy.chmod.is_some()), ("--exclude", !copy.exclude.is_empty())] {
                if given {
                    voice.warning(&format!("{flag} does not reach into the archive '{}'", selected.path));
                }
            }
            continue;
        }
        if !tree.is_directory(&selected.path) {
            warn_of_exclude(voice, copy, selected);
            if several {
                needs_directory(placing, copy, span)?;
            }
        }
        let filter = selected.filter(&copy.exclude);
        let copied =
            placing.copy(tree, selected, filter, &copy.destination, &|_, path| Bytes::of_context(context, path));
        copied.map_err(|conflict| refused(conflict, span))?;
    }
    Ok(())
}

/// Copies from the layers of a stage or an image. What they say is known from their indexes; only the layers that hold
/// what is copied are read, each once.
pub(super) fn copy_from_layers(
    voice: &Voice<'_>,
    blobs: &Blobs<'_>,
    placing: &mut Placing<'_>,
    copy: &Copy,
    layers: &[LayerRef],
    spool: &mut Spool,
    span: Option<Span>,
) -> Result<(), crate::Error> {
    let tree = blobs.tree(layers)?;
    let selected = select_all(&tree, copy, span)?;
    let several = selected.len() + copy.inline.len() > 1;
    let mut wanted: BTreeMap<usize, Vec<RelPath>> = BTreeMap::new();
    for (_, selected) in &selected {
        let filter = selected.filter(&copy.exclude);
        for part in tree.part(&selected.path, &|below| filter.takes(below)) {
            if let Some((name, found)) = tree.content(part.path)
                && found.entry.is_file()
            {
                wanted.entry(found.layer).or_default().push(name.clone());
            }
        }
    }
    let mut contents = BTreeMap::new();
    for (layer, names) in wanted {
        contents.insert(layer, blobs.extract(&layers[layer], &names, spool)?);
    }
    let content = |layer: usize, name: &RelPath| {
        contents.get(&layer).and_then(|files| files.get(name)).cloned().unwrap_or(Content::Empty)
    };
    for (_, selected) in &selected {
        if !tree.is_directory(&selected.path) {
            warn_of_exclude(voice, copy, selected);
            if several {
                needs_directory(placing, copy, span)?;
            }
        }
        let copied = placing.copy(&tree, selected, selected.filter(&copy.exclude), &copy.destination, &content);
        copied.map_err(|conflict| refused(conflict, span))?;
    }
    Ok(())
}

/// `--exclude` holds below copied directories and not for what is a source itself, which its author may not have meant.
fn warn_of_exclude(voice: &Voice<'_>, copy: &Copy, selected: &Selected) {
    let name = selected.name.as_deref().map(String::from_utf8_lossy).unwrap_or_default();
    if copy.exclude.excludes(&name) {
        let message =
            format!("--exclude holds inside of copied directories only: the source '{}' is copied", selected.path);
        voice.warning(&message);
    }
}

/// What each source selects, in their order. A source elsewhere is one by itself.
fn select_all<'c>(
    tree: &Tree,
    copy: &'c Copy,
    span: Option<Span>,
) -> Result<Vec<(&'c CopySource, Selected)>, crate::Error> {
    let mut all = Vec::new();
    for source in &copy.sources {
        if source.elsewhere.is_some() {
            all.push((source, Selected { name: None, path: RelPath::root(), include: None }));
            continue;
        }
        let refuse = |error: Diagnostic| Err(if span.is_some() { error.at(source.span) } else { error }.into());
        let selected = match copy.select(tree, source)? {
            Selection::Found(selected) => selected,
            Selection::Missing(path) => {
                let error = Diagnostic::new(format!("'{path}' does not exist in what is copied from"));
                return refuse(error.label("no such file or directory"));
            }
            Selection::ThroughLink(link) => return refuse(through_link(&link)),
        };
        all.extend(selected.into_iter().map(|selected| (source, selected)));
    }
    Ok(all)
}

/// A file among several sources needs a directory: one that the destination is marked as, or one that is there by now.
pub(super) fn needs_directory(placing: &Placing<'_>, copy: &Copy, span: Option<Span>) -> Result<(), crate::Error> {
    let destination = &copy.destination;
    if placing.means_directory(destination).map_err(|conflict| refused(conflict, span))? {
        return Ok(());
    }
    let error = Diagnostic::new(Conflict::NeedsDirectory(destination.clone()).to_string());
    let error = error.help(format!("write the destination as '{destination}/'"));
    Err(if span.is_some() { error.at(copy.destination_span) } else { error }.into())
}

/// Something that the Dockerfile asks for and the tree does not allow.
pub(super) fn refused(conflict: Conflict, span: Option<Span>) -> crate::Error {
    match conflict {
        Conflict::Layers(error) => error.into(),
        conflict => at(conflict, span),
    }
}

pub(super) fn at(error: impl std::fmt::Display, span: Option<Span>) -> crate::Error {
    let error = Diagnostic::new(error.to_string());
    span.map_or(error.clone(), |span| error.at(span)).into()
}
