//! COPY and ADD.

use yadokari_layers::{Key, RelPath};

use super::lower::{At, Lowering};
use super::op::{Copy, CopySource, Elsewhere, Inline, Op, Origin, Owner};
use super::stage::Planner;
use super::{Mode, Selection, history, key, remote, select};
use crate::dockerfile::{Diagnostic, InstructionKind, Transfer, Word, expand_heredoc};

impl Lowering {
    /// Where `--from` points, with the key that stands for it. `None` where an image must be fetched first.
    pub(super) fn origin(
        &self,
        planner: &mut Planner<'_>,
        number: usize,
        from: Option<&Word>,
    ) -> Result<Option<(Origin, Option<Key>)>, crate::Error> {
        let Some(from) = from else { return Ok(Some((Origin::Context, None))) };
        if let Some(stage) = planner.earlier(from, number)? {
            let Some(position) = planner.stage(stage)? else { return Ok(None) };
            return Ok(Some((Origin::Stage(position), Some(planner.key_of(position)))));
        }
        let image = planner.image(&from.raw, from.span)?;
        Ok(image.map(|image| (Origin::Image(from.raw.clone()), Some(key::image(&image.manifest)))))
    }

    pub(super) fn copy(
        &mut self,
        planner: &mut Planner<'_>,
        transfer: &Transfer,
        from: Origin,
        from_key: Option<Key>,
        at: &At<'_>,
    ) -> Result<(), crate::Error> {
        let name = at.instruction.kind.name();
        let unpack = matches!(at.instruction.kind, InstructionKind::Add(_));
        let (mut sources, mut remotes, mut complete) = (Vec::new(), Vec::new(), true);
        for word in &transfer.sources {
            let pattern = self.expand(word, at)?;
            let remote = self.remote(&pattern, word, at)?;
            let mut elsewhere = None;
            if let Some(remote) = remote {
                remotes.push((remote.clone(), word.span));
                elsewhere = planner.fetched(&remote, word, at).map(|fetched| Elsewhere { remote, fetched });
                complete &= elsewhere.is_some();
            }
            sources.push(CopySource { pattern, span: word.span, elsewhere });
        }
        let mut inline = Vec::new();
        for heredoc in &transfer.heredocs {
            let content = expand_heredoc(heredoc, &self.env)?;
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
        remote::check_names(&remotes, &destination)?;
        if complete {
            self.check_remotes(planner, &sources, at)?;
        }
        if !complete {
            // What follows is read all the same, so that everything that is needed is asked for at once.
            return Ok(());
        }
        let names: Vec<String> = sources.iter().map(|source| source.pattern.clone()).collect();
        let names = [names, inline.iter().map(|inline| format!("<<{}", inline.name)).collect()].concat();
        let owner_text = chown.as_ref().map(|owner| owner.text.as_str());
        let created_by = history::copy(name, owner_text, chmod_text.as_deref(), &names, &written);
        let span = transfer.destination.span;
        let unpack_downloads = false;
        let copy =
            Copy { from, sources, inline, destination, destination_span: span, chown, chmod, unpack, unpack_downloads };
        let inputs = match from_key {
            Some(key) => key::Inputs::Key(key),
            None => key::Inputs::Context(context_inputs(planner, &copy)?),
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

/// What the words of a COPY from the context select, hashed. A literal path that does not exist fails here, before
/// anything runs.
fn context_inputs(planner: &Planner<'_>, copy: &Copy) -> Result<Vec<key::ContextInput>, crate::Error> {
    let mut inputs = Vec::new();
    for source in copy.sources.iter().filter(|source| source.elsewhere.is_none()) {
        let tree = planner.context.tree()?;
        let selected = match select(tree, &source.pattern)? {
            Selection::Found(selected) => selected,
            Selection::Missing(path) => {
                let clean = RelPath::clamped(&path).map_err(yadokari_layers::Error::from)?;
                planner.context.check_readable(&clean)?;
                let error = Diagnostic::new(format!("'{path}' is not in the build context"));
                let help = match planner.context.is_ignored(&path) {
                    true => format!("{} leaves it out", planner.context.ignore_file()),
                    false => format!("the context is '{}'", planner.context.path().display()),
                };
                return Err(error.at(source.span).label("no such file or directory").help(help).into());
            }
        };
        for selected in selected {
            let entries = planner.context.hashed(&selected.path)?;
            inputs.push((selected, entries));
        }
    }
    Ok(inputs)
}
