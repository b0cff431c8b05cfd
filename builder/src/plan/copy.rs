//! COPY and ADD.

use yadokari_layers::{Key, RelPath};

use super::lower::{At, Lowering};
use super::op::{Copy, CopySource, Inline, Op, Origin, Owner};
use super::stage::Planner;
use super::{Mode, Selection, history, key, select};
use crate::context::Context;
use crate::dockerfile::{Diagnostic, InstructionKind, Span, Transfer};

impl Lowering {
    pub(super) fn copy(
        &mut self,
        planner: &Planner<'_>,
        transfer: &Transfer,
        from: Origin,
        from_key: Option<Key>,
        at: &At<'_>,
    ) -> Result<(), crate::Error> {
        let name = at.instruction.kind.name();
        let unpack = matches!(at.instruction.kind, InstructionKind::Add(_));
        let mut sources = Vec::new();
        for word in &transfer.sources {
            let pattern = self.expand(word, at)?;
            if unpack && is_remote(&pattern) {
                return Err(Diagnostic::not_carried_out("ADD of a URL or a git repository", word.span).into());
            }
            if matches!(from, Origin::Context) {
                planner.check_ignored(&pattern, word.span, at);
            }
            sources.push(CopySource { pattern, span: word.span });
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
        let chmod = transfer.chmod.as_ref().zip(chmod_text.as_deref()).map(|(word, text)| {
            let bad = || Diagnostic::new(format!("'{text}' is not a mode")).at(word.span);
            Mode::parse(text).ok_or_else(|| bad().help("write 0 to 7777 in octal digits, or changes as u=rw,go+X"))
        });
        let chmod = chmod.transpose()?;
        let names: Vec<String> = sources.iter().map(|source| source.pattern.clone()).collect();
        let names = [names, inline.iter().map(|inline| format!("<<{}", inline.name)).collect()].concat();
        let owner_text = chown.as_ref().map(|owner| owner.text.as_str());
        let created_by = history::copy(name, owner_text, chmod_text.as_deref(), &names, &written);
        let span = transfer.destination.span;
        let copy = Copy { from, sources, inline, destination, destination_span: span, chown, chmod, unpack };
        let inputs = match from_key {
            Some(key) => key::Inputs::Key(key),
            None => {
                let directory = planner.directory(&copy.from).expect("what has no key is a directory");
                key::Inputs::Context(context_inputs(directory, &copy)?)
            }
        };
        let key = key::copy(&self.key, &copy, &inputs);
        self.step(Op::Copy(copy), key, created_by, at);
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

/// What the words of a COPY from a context select, hashed. A literal path that does not exist fails here, before
/// anything runs.
pub(super) fn context_inputs(context: &Context, copy: &Copy) -> Result<Vec<key::ContextInput>, crate::Error> {
    let mut inputs = Vec::new();
    for source in &copy.sources {
        let tree = context.tree()?;
        let selected = match select(tree, &source.pattern)? {
            Selection::Found(selected) => selected,
            Selection::Missing(path) => {
                return Err(not_in_context(context, &copy.from, &path, source.span));
            }
        };
        for selected in selected {
            let entries = context.hashed(&selected.path)?;
            inputs.push((selected, entries));
        }
    }
    Ok(inputs)
}

/// The error for a path that the context does not hold, or that we may not read.
pub(super) fn not_in_context(context: &Context, origin: &Origin, path: &str, span: Span) -> crate::Error {
    let clean = RelPath::clamped(path).map_err(|error| crate::Error::from(yadokari_layers::Error::from(error)));
    if let Err(error) = clean.and_then(|clean| context.check_readable(&clean)) {
        return error;
    }
    let name = match origin {
        Origin::Named(name) => format!("context '{name}'"),
        _ => "build context".to_owned(),
    };
    let error = Diagnostic::new(format!("'{path}' is not in the {name}"));
    let help = match context.is_ignored(path) {
        true => format!("{} leaves it out", context.ignore_file()),
        false => format!("the context is '{}'", context.path().display()),
    };
    error.at(span).label("no such file or directory").help(help).into()
}

/// Whether a source of ADD is fetched and not copied.
fn is_remote(source: &str) -> bool {
    ["http://", "https://", "git://", "ssh://", "git@"].iter().any(|scheme| source.starts_with(scheme))
}
