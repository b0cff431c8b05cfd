//! COPY and ADD.

use yadokari_layers::{Key, RelPath, Tree};

use super::key::{ContextInput, Sources};
use super::lower::{At, Lowering};
use super::op::{Copy, CopySource, Elsewhere, Inline, Op, Origin, Owner};
use super::stage::Planner;
use super::{Mode, Selection, history, key, remote, select, select_with_parents};
use crate::context::Context;
use crate::context::ignore::Ignore;
use crate::dockerfile::{Diagnostic, Span, Transfer, Word};

/// In what a COPY or ADD differs from the plain form.
#[derive(Debug, Clone, Copy)]
pub(super) struct How {
    /// `COPY --parents`
    pub(super) parents: bool,
    /// ADD without `--unpack=false`
    pub(super) unpack: bool,
    /// ADD with `--unpack`
    pub(super) unpack_downloads: bool,
}

impl Lowering {
    pub(super) fn copy(
        &mut self,
        planner: &mut Planner<'_>,
        transfer: &Transfer,
        how: How,
        (from, from_key): (Origin, Option<Key>),
        at: &At<'_>,
    ) -> Result<(), crate::Error> {
        let name = at.instruction.kind.name();
        let (mut sources, mut remotes, mut complete) = (Vec::new(), Vec::new(), true);
        for word in &transfer.sources {
            let pattern = self.expand(word, at)?;
            let remote = self.remote(&pattern, word, at)?;
            let mut elsewhere = None;
            if let Some(remote) = remote {
                remotes.push((remote.clone(), word.span));
                elsewhere = planner.fetched(&remote, word, at).map(|fetched| Elsewhere { remote, fetched });
                complete &= elsewhere.is_some();
            } else {
                check_pattern(&pattern, how.parents, word)?;
                if matches!(from, Origin::Context) {
                    planner.check_ignored(&pattern, word.span, at);
                }
            }
            sources.push(CopySource { pattern, span: word.span, elsewhere });
        }
        let mut inline = Vec::new();
        for heredoc in &transfer.heredocs {
            let content = self.expand_heredoc(heredoc, at)?;
            inline.push(Inline { name: heredoc.name.clone(), content });
        }
        let written = self.expand(&transfer.destination, at)?;
        let destination = self.destination(&written)?;
        let chown = transfer.chown.as_ref();
        let chown = chown.map(|word| Ok::<_, crate::Error>(Owner { text: self.expand(word, at)?, span: word.span }));
        let chown = chown.transpose()?.filter(|owner| !owner.text.is_empty());
        let chmod_text = transfer.chmod.as_ref().map(|word| self.expand(word, at)).transpose()?;
        let chmod_text = chmod_text.filter(|text| !text.is_empty());
        let chmod = transfer.chmod.as_ref().zip(chmod_text.as_deref()).map(|(word, text)| {
            let bad = || Diagnostic::new(format!("'{text}' is not a mode")).at(word.span);
            Mode::parse(text).ok_or_else(|| bad().help("write 0 to 7777 in octal digits, or changes as u=rw,go+X"))
        });
        let chmod = chmod.transpose()?;
        let link = links(planner, transfer, chown.as_ref(), chmod.is_some(), at)?;
        let exclude = excluded(planner, &transfer.exclude, at)?;
        remote::check_names(&remotes, &destination)?;
        if !complete {
            // What follows is read all the same, so that everything that is needed is asked for at once.
            return Ok(());
        }
        self.check_remotes(planner, &sources, at)?;
        let names: Vec<String> = sources.iter().map(|source| source.pattern.clone()).collect();
        let names = [names, inline.iter().map(|inline| format!("<<{}", inline.name)).collect()].concat();
        let owner_text = chown.as_ref().map(|owner| owner.text.as_str());
        let created_by = history::copy(name, how.parents, owner_text, chmod_text.as_deref(), &names, &written);
        let How { parents, unpack, unpack_downloads } = how;
        let destination_span = transfer.destination.span;
        let copy = Copy {
            from,
            sources,
            inline,
            destination,
            destination_span,
            chown,
            chmod,
            unpack,
            unpack_downloads,
            parents,
            exclude,
            link,
        };
        let sources = match planner.directory(&copy.from) {
            Some(directory) => Sources::Context(context_inputs(directory, &copy)?),
            None => Sources::Key(from_key),
        };
        let parts = key::copy(&copy, &sources, planner.options.context_mode);
        self.step(Op::Copy(copy), parts, created_by, at);
        Ok(())
    }

    /// The destination, absolute, with the slash or dot that marks a directory kept as a slash.
    fn destination(&self, written: &str) -> Result<String, crate::Error> {
        let path = self.absolute(written)?;
        let is_directory = written.ends_with('/')
            || written.is_empty()
            || written == "."
            || written.ends_with("/.")
            || written == "..";
        Ok(if is_directory && path != "/" { format!("{path}/") } else { path })
    }
}

/// Whether a copy is linked. `--chmod` and `--link` together mean `--chmod` alone, as in BuildKit.
fn links(
    planner: &mut Planner<'_>,
    transfer: &Transfer,
    chown: Option<&Owner>,
    chmod: bool,
    at: &At<'_>,
) -> Result<bool, crate::Error> {
    if !transfer.link {
        return Ok(false);
    }
    if chmod {
        let warning = Diagnostic::warning("--link means nothing beside --chmod");
        planner.warn(warning.help("leave one of them out"), at.instruction.span, at.trigger);
        return Ok(false);
    }
    let is_known = |id: &str| id.is_empty() || id == "root" || id.parse::<u32>().is_ok();
    match chown.filter(|owner| !owner.text.split(':').all(is_known)) {
        Some(owner) => {
            let error = Diagnostic::new(format!("--link cannot look up '{}' for --chown", owner.text));
            Err(error.at(owner.span).help("write numbers: a linked layer does not know the image's /etc/passwd").into())
        }
        None => Ok(true),
    }
}

/// The rules of `--exclude`.
fn excluded(planner: &mut Planner<'_>, words: &[Word], at: &At<'_>) -> Result<Ignore, crate::Error> {
    let mut exclude = Ignore::default();
    for word in words {
        let bad = |error: crate::context::glob::BadPattern| Diagnostic::new(error.to_string()).at(word.span);
        exclude.exclude(&word.raw).map_err(bad)?;
        let mut warn = |message: &str, help: &str| {
            planner.warn(Diagnostic::warning(message).help(help), word.span, at.trigger);
        };
        if word.raw.contains('$') {
            warn("variables are not expanded in --exclude", "write the pattern itself");
        }
        if word.raw.trim().trim_start_matches('!').starts_with('/') {
            warn(
                "--exclude with a leading slash matches nothing",
                "begin the pattern at the copied directory, without a slash",
            );
        }
    }
    Ok(exclude)
}

/// Fails where a source is no pattern that could be compared with names.
fn check_pattern(pattern: &str, parents: bool, word: &Word) -> Result<(), crate::Error> {
    let nothing = Tree::new();
    let selected = if parents { select_with_parents(&nothing, pattern) } else { select(&nothing, pattern) };
    match selected {
        Err(error @ crate::Error::Pattern { .. }) => {
            let help = "close the '[' with a ']', or put a '\\' before it";
            Err(Diagnostic::new(error.to_string()).at(word.span).help(help).into())
        }
        Err(error) => Err(error),
        Ok(_) => Ok(()),
    }
}

/// What each word of a COPY from a context selects, hashed. A literal path that does not exist fails here, before
/// anything runs.
pub(super) fn context_inputs(context: &Context, copy: &Copy) -> Result<Vec<Vec<ContextInput>>, crate::Error> {
    let mut inputs = Vec::new();
    for source in &copy.sources {
        let mut found = Vec::new();
        if source.elsewhere.is_some() {
            inputs.push(found);
            continue;
        }
        let tree = context.tree()?;
        let selected = match copy.select(tree, source)? {
            Selection::Found(selected) => selected,
            Selection::Missing(path) => {
                return Err(not_in_context(context, &copy.from, &path, source.span));
            }
            Selection::ThroughLink(link) => return Err(through_link(&link).at(source.span).into()),
        };
        for selected in selected {
            let filter = selected.filter(&copy.exclude);
            let files = context.hashed(&selected.path, &|below| filter.takes(below))?;
            found.push(ContextInput { selected, files });
        }
        inputs.push(found);
    }
    Ok(inputs)
}

/// The error for a path that the context does not hold, or that we may not read.
pub(super) fn not_in_context(context: &Context, origin: &Origin, path: &str, span: Span) -> crate::Error {
    let clean = match RelPath::clamped(path) {
        Ok(clean) => clean,
        Err(error) => return yadokari_layers::Error::from(error).into(),
    };
    if let Err(error) = context.check_readable(&clean, &|_| true) {
        return error;
    }
    let name = match origin {
        Origin::Named(name) => format!("context '{name}'"),
        _ => "build context".to_owned(),
    };
    let error = Diagnostic::new(format!("'{path}' is not in the {name}"));
    let help = match context.is_ignored(path) {
        true => format!("{} leaves it out", context.ignore_file()),
        false => match context.similar(&clean) {
            Some(meant) => format!("did you mean '{meant}'?"),
            None => format!("the context is '{}'", context.path().display()),
        },
    };
    error.at(span).label("no such file or directory").help(help).into()
}

/// The error of a source of `--parents` that leads through a link.
pub(crate) fn through_link(link: &str) -> Diagnostic {
    Diagnostic::new(format!("'{link}' is a symbolic link, which --parents does not follow"))
        .help(format!("write '{link}/./' to follow it and keep the directories below it"))
}

impl Copy {
    /// What a source means in the tree that is copied from.
    pub(crate) fn select(&self, tree: &Tree, source: &CopySource) -> Result<Selection, crate::Error> {
        match self.parents {
            true => select_with_parents(tree, &source.pattern),
            false => select(tree, &source.pattern),
        }
    }
}
