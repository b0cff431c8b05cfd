//! What a RUN finds beside its image, made ready for the sandbox.

use std::collections::BTreeMap;
use std::fs::File;
use std::sync::Arc;

use yadokari_layers::{Compression, Entry, Limits, RelPath, Tree, blob_path, pack};

use super::blobs::Blobs;
use super::copy::{Bytes, Placing, Restyle};
use super::stage::layer_files;
use super::transfer::at;
use super::{Executor, Results, Upcoming};
use crate::context::Context;
use crate::context::ignore::Ignore;
use crate::dockerfile::{Diagnostic, MountSharing, Span};
use crate::plan::{LayerRef, Mount, MountKind, MountSource, Origin, Run, Selected, Selection, literal};
use crate::progress::Voice;
use crate::sandbox::{self, Driver, LayerFile, Sandbox, Sharing, Worker};
use crate::secrets::{Agents, Secrets};

/// Fails where a RUN that has to be executed asks for what there is not: it is better to know before anything runs.
pub fn check(
    upcoming: &Upcoming<'_>,
    driver: Option<Driver>,
    secrets: &Secrets,
    agents: &Agents,
) -> Result<(), crate::Error> {
    for (step, run) in upcoming.commands() {
        if let (Some(span), Some(driver)) = (run.no_network, driver.filter(|driver| !driver.can_isolate_network())) {
            let error = Diagnostic::new(format!("RUN --network=none cannot be promised by the sandbox '{driver}'"));
            let help = "run 'yadokari doctor' to see what a sandbox with namespaces needs here";
            return Err(located(
                error.label("the command would have the builder's network").help(help),
                span,
                step.span,
            ));
        }
        for secret in &run.secrets {
            let value = secrets.get(&secret.id);
            if value.is_none() && secret.required {
                return Err(located(missing("secret", &secret.id, secrets.ids()), secret.span, step.span));
            }
            if let Some(value) = value {
                variable(value, &secret.id).map_err(|error| located(error, secret.span, step.span))?;
            }
        }
        for mount in &run.mounts {
            let error = match &mount.kind {
                MountKind::Secret { id, required: true, .. } if secrets.get(id).is_none() => {
                    missing("secret", id, secrets.ids())
                }
                MountKind::Ssh { id, required: true, .. } if agents.get(id).is_none() => {
                    missing("ssh", id, agents.ids())
                }
                _ => continue,
            };
            return Err(located(error, mount.span, step.span));
        }
    }
    Ok(())
}

/// The error that a secret or an agent is required and not given.
fn missing<'i>(kind: &str, id: &str, given: impl Iterator<Item = &'i str>) -> Diagnostic {
    let given: Vec<&str> = given.collect();
    let write = match (kind, id) {
        ("ssh", "default") => "--ssh default".to_owned(),
        ("ssh", id) => format!("--ssh {id}=SOCKET"),
        (_, id) => format!("--secret id={id},src=FILE or --secret id={id},env=VARIABLE"),
    };
    let others = if given.is_empty() { String::new() } else { format!("; given are {}", given.join(", ")) };
    Diagnostic::new(format!("the {kind} '{id}' is required and was not given")).help(format!("add {write}{others}"))
}

/// The value of a secret as that of an environment variable.
fn variable<'v>(value: &'v [u8], id: &str) -> Result<&'v str, Diagnostic> {
    let text = std::str::from_utf8(value).ok().filter(|text| !text.contains('\0'));
    text.ok_or_else(|| {
        Diagnostic::new(format!("the secret '{id}' cannot be an environment variable: it is not text"))
            .help("leave env= out, and read it from its file")
    })
}

/// An error with the place of an option, where the instruction stands in the Dockerfile and is no trigger.
fn located(error: Diagnostic, option: Span, instruction: Option<Span>) -> crate::Error {
    if instruction.is_some() { error.at(option) } else { error }.into()
}

/// `env` with the secrets that the command has in its environment, which win.
pub(super) fn with_secrets(
    mut env: Vec<(String, String)>,
    run: &Run,
    secrets: &Secrets,
    span: Option<Span>,
) -> Result<Vec<(String, String)>, crate::Error> {
    for secret in &run.secrets {
        let Some(value) = secrets.get(&secret.id) else { continue };
        let value = variable(value, &secret.id).map_err(|error| located(error, secret.span, span))?;
        env.retain(|(name, _)| *name != secret.name);
        env.push((secret.name.clone(), value.to_owned()));
    }
    Ok(env)
}

/// The mounts of a stage: trees that its worker has been given are not given to it again.
pub(super) struct Mounts<'a> {
    executor: &'a Executor<'a>,
    blobs: &'a Blobs<'a>,
    results: &'a Results,
    /// The numbers of trees. One of the context holds what is below a path, one of a stage or an image holds all of it.
    trees: BTreeMap<(Option<Origin>, RelPath), u32>,
}

impl<'a> Mounts<'a> {
    pub(super) fn new(executor: &'a Executor<'a>, blobs: &'a Blobs<'a>, results: &'a Results) -> Self {
        Self { executor, blobs, results, trees: BTreeMap::new() }
    }

    /// What the sandbox needs to know of a command's mounts. Those of secrets and agents that were not given, and need not
    /// be, are not among them.
    pub(super) fn ready(
        &mut self,
        worker: &mut Worker,
        run: &Run,
        span: Option<Span>,
        voice: &Voice<'_>,
    ) -> Result<Vec<sandbox::Mount>, crate::Error> {
        let mut ready = Vec::new();
        let goes_without =
            |what, id| voice.info(&format!("the {what} '{id}' was not given: the command goes without it"));
        for secret in run.secrets.iter().filter(|secret| self.executor.secrets.get(&secret.id).is_none()) {
            goes_without("secret", &secret.id);
        }
        for mount in &run.mounts {
            match (self.kind(worker, mount, span, voice)?, &mount.kind) {
                (Some(kind), _) => ready.push(sandbox::Mount { target: mount.target.clone(), kind }),
                (None, MountKind::Ssh { id, .. }) => goes_without("agent", id),
                (None, MountKind::Secret { id, .. }) => goes_without("secret", id),
                (None, _) => {}
            }
        }
        Ok(ready)
    }

    fn kind(
        &mut self,
        worker: &mut Worker,
        mount: &Mount,
        span: Option<Span>,
        voice: &Voice<'_>,
    ) -> Result<Option<sandbox::MountKind>, crate::Error> {
        let (secrets, agents) = (self.executor.secrets, self.executor.agents);
        Ok(Some(match &mount.kind {
            MountKind::Bind { source, read_only } => {
                let (source, path, _) = self.provide(worker, source, span, voice)?;
                sandbox::MountKind::Bind { source, path, read_only: *read_only }
            }
            MountKind::Cache { name, sharing, seed, access, read_only } => {
                let mut first = None;
                if let Some(seed) = seed {
                    let (tree, path, is_directory) = self.provide(worker, seed, span, voice)?;
                    if !is_directory {
                        let error = Diagnostic::new(format!("'{}' is no directory, as a cache is", seed.path));
                        return Err(located(error, seed.span, span));
                    }
                    first = Some((tree, path));
                }
                sandbox::MountKind::Cache {
                    name: name.hex(),
                    sharing: match sharing {
                        MountSharing::Shared => Sharing::Shared,
                        MountSharing::Private => Sharing::Private,
                        MountSharing::Locked => Sharing::Locked,
                    },
                    seed: first,
                    mode: access.mode,
                    uid: access.uid,
                    gid: access.gid,
                    read_only: *read_only,
                }
            }
            MountKind::Tmpfs { size } => sandbox::MountKind::Tmpfs { size: *size },
            MountKind::Secret { id, access, .. } => {
                let Some(value) = secrets.get(id) else { return Ok(None) };
                let content = value.to_vec().into();
                sandbox::MountKind::File { content, secret: true, mode: access.mode, uid: access.uid, gid: access.gid }
            }
            MountKind::Ssh { id, access, .. } => {
                let Some(agent) = agents.get(id) else { return Ok(None) };
                sandbox::MountKind::Socket {
                    agent: agent.to_owned(),
                    mode: access.mode,
                    uid: access.uid,
                    gid: access.gid,
                }
            }
            MountKind::Script { content } => {
                let content = content.clone().into_bytes().into();
                sandbox::MountKind::File { content, secret: false, mode: 0o755, uid: 0, gid: 0 }
            }
        }))
    }

    /// Gives the worker what is mounted, if it has not been given it before: the number of the tree, the path in it, and
    /// whether a directory is there.
    fn provide(
        &mut self,
        worker: &mut Worker,
        source: &MountSource,
        span: Option<Span>,
        voice: &Voice<'_>,
    ) -> Result<(u32, Vec<u8>, bool), crate::Error> {
        let missing = || {
            let error = Diagnostic::new(format!("'{}' does not exist in what is mounted from", source.path));
            located(error.label("no such file or directory"), source.span, span)
        };
        let find = |tree: &Tree| match literal(tree, &source.path)? {
            Selection::Found(found) => found.into_iter().next().ok_or_else(missing),
            Selection::Missing(_) | Selection::ThroughLink(_) => Err(missing()),
        };
        let layers = match &source.from {
            None => {
                let key = (None, RelPath::root());
                let number = match self.trees.get(&key) {
                    Some(&number) => number,
                    None => self.tree(worker, key, Vec::new(), voice)?,
                };
                return Ok((number, Vec::new(), true));
            }
            Some(origin @ (Origin::Context | Origin::Named(_))) => {
                let context = self.executor.directory(origin);
                let tree = context.tree()?;
                let path = find(tree)?.path;
                let is_directory = tree.is_directory(&path);
                let key = (source.from.clone(), path.clone());
                let number = match self.trees.get(&key) {
                    Some(&number) => number,
                    None => {
                        let layer = self.of_context(context, path, span)?;
                        self.tree(worker, key, vec![layer], voice)?
                    }
                };
                return Ok((number, ROOT.into(), is_directory));
            }
            Some(Origin::Nothing) => Vec::new(),
            Some(Origin::Stage(position)) => self.results.of(*position).layers.clone(),
            Some(Origin::Image(name)) => self.executor.fetch.layers(name),
        };
        let tree = self.blobs.tree(&layers)?;
        let path = find(&tree)?.path;
        let number = self.tree_of_layers(worker, (source.from.clone(), RelPath::root()), &layers, &tree, voice)?;
        Ok((number, path.as_bytes().to_vec(), tree.is_directory(&path)))
    }

    fn tree_of_layers(
        &mut self,
        worker: &mut Worker,
        key: (Option<Origin>, RelPath),
        layers: &[LayerRef],
        tree: &Tree,
        voice: &Voice<'_>,
    ) -> Result<u32, crate::Error> {
        if let Some(&number) = self.trees.get(&key) {
            return Ok(number);
        }
        let indexes = tree.layers().iter().map(|index| Some(Arc::clone(index))).collect();
        let files = layer_files(self.blobs, layers, indexes)?;
        self.tree(worker, key, files, voice)
    }

    fn tree(
        &mut self,
        worker: &mut Worker,
        key: (Option<Origin>, RelPath),
        files: Vec<LayerFile>,
        voice: &Voice<'_>,
    ) -> Result<u32, crate::Error> {
        let (number, filled) = worker.provide(files)?;
        filled.warnings.iter().for_each(|warning| voice.warning(warning));
        self.trees.insert(key, number);
        Ok(number)
    }

    /// What a context has at `path`, as a layer that is on its way nowhere: it belongs to root, and what the ignore file
    /// leaves out is not in it.
    fn of_context(&self, context: &Context, path: RelPath, span: Option<Span>) -> Result<LayerFile, crate::Error> {
        let (nothing, now) = (Tree::new(), self.executor.now());
        let tree = context.tree()?;
        let mut placing = Placing::new(&nothing, Restyle::default(), now);
        let refused = |error| at(error, span);
        if tree.is_directory(&path) {
            let root = RelPath::new(ROOT).map_err(yadokari_layers::Error::from)?;
            let entry = tree.get(&path).map_or_else(|| Entry::directory(0o755, now), |found| found.entry.clone());
            placing.put(&root, entry, yadokari_layers::Content::Empty).map_err(refused)?;
        }
        let (selected, exclude) = (Selected { name: None, path, include: None }, Ignore::default());
        let everything = selected.filter(&exclude);
        let destination = format!("/{ROOT}");
        let bytes = |_, path: &RelPath| Bytes::of_context(context, path);
        placing.copy(tree, &selected, everything, &destination, &bytes).map_err(refused)?;
        // It is read once, from this disk, and right away.
        let options = pack::Options { compression: Compression::None, ..pack::Options::default() };
        let scratch = self.blobs.scratch()?;
        let layer = pack::pack(&placing.finish(), &options, scratch.path())?;
        let layer = layer.expect("it holds what was found at the path");
        // The open file is all that is left of it.
        let path = blob_path(scratch.path(), &layer.digest);
        let blob = File::open(&path).map_err(|source| crate::Error::Host { operation: "open", path, source })?;
        let (digest, diff_id, index) = (layer.digest, layer.diff_id, Some(layer.index));
        Ok(LayerFile { digest, diff_id, index, blob, coming: None, limits: Limits::NONE })
    }
}

/// The name of what is mounted, in the layer that is made for it.
const ROOT: &str = "source";

#[cfg(test)]
mod tests {
    use zeroize::Zeroizing;

    use super::*;
    use crate::plan::SecretVariable;

    fn run(ids: &[(&str, &str)]) -> Run {
        let variable = |&(name, id): &(&str, &str)| SecretVariable {
            name: name.to_owned(),
            id: id.to_owned(),
            required: false,
            span: Span::new(0, 0),
        };
        Run {
            argv: Vec::new(),
            env: Vec::new(),
            proxies: Vec::new(),
            user: String::new(),
            workdir: "/".into(),
            mounts: Vec::new(),
            secrets: ids.iter().map(variable).collect(),
            no_network: None,
            hostname: None,
            ignored: Vec::new(),
        }
    }

    #[test]
    fn the_variable_of_a_secret_wins_over_the_images() {
        let mut secrets = Secrets::default();
        secrets.insert("a", Zeroizing::new(b"value".to_vec()));
        secrets.insert("binary", Zeroizing::new(b"\xff".to_vec()));
        secrets.insert("null", Zeroizing::new(b"a\0b".to_vec()));
        let env = || vec![("A".to_owned(), "image".to_owned()), ("B".to_owned(), "b".to_owned())];
        let found = with_secrets(env(), &run(&[("A", "a"), ("C", "none")]), &secrets, None).unwrap();
        assert_eq!(found, [("B".to_owned(), "b".to_owned()), ("A".to_owned(), "value".to_owned())]);
        for id in ["binary", "null"] {
            let error = with_secrets(env(), &run(&[("A", id)]), &secrets, None).unwrap_err().to_string();
            assert!(error.contains("it is not text") && !error.contains("a\0b"), "{error}");
        }
    }
}
