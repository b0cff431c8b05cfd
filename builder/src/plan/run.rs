//! RUN, and what it finds beside the image.

use yadokari_layers::Key;

use super::key::{self, ContextInput, MountInput};
use super::lower::{At, Lowering};
use super::op::{Access, Mount, MountKind, MountSource, Op, Origin, Run, SecretVariable};
use super::stage::{From, NOTHING, Planner};
use super::{Selected, Selection, copy, history, literal};
use crate::dockerfile::{self, Diagnostic, MountFlag, MountOptions, MountType, NetworkMode, Span};

/// The build argument that parts caches which would share a name.
const NAMESPACE: &str = "BUILDKIT_CACHE_MOUNT_NS";

/// The build argument that says a RUN's host name.
const HOSTNAME: &str = "BUILDKIT_SANDBOX_HOSTNAME";

/// Where the client of an agent finds its socket.
const AGENT: &str = "SSH_AUTH_SOCK";

/// What a mount shows, and for a cache, which one it is without what it holds at first.
type Shown = (MountInput, Option<Key>);

/// The mounts of a RUN while they are read, each with what its key depends on.
#[derive(Default)]
struct Mounts {
    mounts: Vec<(Mount, Shown)>,
    secrets: Vec<SecretVariable>,
    /// The targets of agents, in the order in which they are written.
    agents: Vec<String>,
}

impl Lowering {
    /// A command. False where an image must be fetched first.
    pub(super) fn run(
        &mut self,
        planner: &mut Planner<'_>,
        number: usize,
        instruction: &dockerfile::Run,
        at: &At<'_>,
    ) -> Result<bool, crate::Error> {
        refuse_privileges(instruction)?;
        let argv = self.command(&instruction.command);
        if argv.is_empty() {
            let error = Diagnostic::new("RUN [] has no command to execute").at(at.instruction.span);
            return Err(error.help("write the program as the first string").into());
        }
        let declared: Vec<(String, String)> = self
            .args
            .iter()
            .map(|(name, value)| {
                let value = self.env.value(name).map(str::to_owned).or_else(|| value.clone());
                (name.clone(), value.unwrap_or_default())
            })
            .collect();
        let created_by = history::run(&argv, &declared);
        let Some(mounts) = self.mounts(planner, number, instruction, at)? else { return Ok(false) };
        let mut env = self.env.pairs().to_vec();
        if let Some(agent) = mounts.agents.first().filter(|_| self.env.value(AGENT).is_none()) {
            env.push((AGENT.to_owned(), agent.clone()));
        }
        let mut proxies = planner.globals.proxies();
        proxies.retain(|(name, _)| self.env.value(name).is_none());
        let names: Vec<String> = mounts.secrets.iter().map(|secret| secret.name.clone()).collect();
        let secrets = mounts.secrets.clone();
        let (mounts, shown): (Vec<Mount>, Vec<Shown>) = mounts.in_order(planner, at).into_iter().unzip();
        // What `host` means elsewhere is what every RUN has here: the builder's own network.
        let no_network = instruction.network.filter(|(mode, _)| *mode == NetworkMode::None).map(|(_, span)| span);
        let run = Run {
            argv,
            env,
            proxies,
            user: self.config.config.user.clone(),
            workdir: self.absolute("")?,
            mounts,
            secrets,
            no_network,
            hostname: planner.globals.build_arg(HOSTNAME).filter(|name| !name.is_empty()).map(str::to_owned),
            ignored: planner.options.ignored.clone(),
        };
        let parts = key::run(&run, &shown, planner.options.context_mode);
        self.step(Op::Run(run), parts, created_by, at);
        if let Some(step) = self.steps.last_mut() {
            step.text = masked(&step.text, &names);
        }
        Ok(true)
    }

    /// What the flags and the script put beside the image.
    fn mounts(
        &self,
        planner: &mut Planner<'_>,
        number: usize,
        instruction: &dockerfile::Run,
        at: &At<'_>,
    ) -> Result<Option<Mounts>, crate::Error> {
        let mut all = Mounts::default();
        for flag in &instruction.mounts {
            let mut options = flag.read(&mut |word| self.expand(word, at))?;
            for warning in std::mem::take(&mut options.warnings) {
                let span = warning.span.unwrap_or(flag.span);
                planner.warn(warning, span, at.trigger);
            }
            if !self.mount(&mut all, planner, number, flag, options)? {
                return Ok(None);
            }
        }
        if let Some(script) = &instruction.script {
            let kind = MountKind::Script { content: script.content.clone() };
            all.put(script.path.clone(), kind, MountInput::Nothing, at.instruction.span);
        }
        Ok(Some(all))
    }

    /// One mount. False where an image must be fetched first.
    fn mount(
        &self,
        all: &mut Mounts,
        planner: &mut Planner<'_>,
        number: usize,
        flag: &MountFlag,
        options: MountOptions,
    ) -> Result<bool, crate::Error> {
        let read_only = options.read_only;
        let id = options.id.clone();
        let access = |mode| Access {
            mode: options.mode.unwrap_or(mode),
            uid: options.uid.unwrap_or(0),
            gid: options.gid.unwrap_or(0),
        };
        match options.kind {
            MountType::Bind => {
                let Some((source, input)) = self.source(planner, number, flag, &options)? else { return Ok(false) };
                let kind = MountKind::Bind { source, read_only };
                all.put(self.target(flag, &options)?, kind, input, flag.span);
            }
            MountType::Cache => {
                let target = self.target(flag, &options)?;
                let (seed, input) = match options.from {
                    None => (None, MountInput::Nothing),
                    Some(_) => match self.source(planner, number, flag, &options)? {
                        Some((source, input)) => (Some(source).filter(|source| source.from.is_some()), input),
                        None => return Ok(false),
                    },
                };
                let id = id.unwrap_or_else(|| clean(options.target.as_ref().map_or("", |target| &target.raw)));
                let path = options.source.as_ref().map_or("/", |source| &source.raw);
                if let (None, Some(source)) =
                    (&seed, options.source.as_ref().filter(|_| clean(&format!("/{path}")) != "/"))
                {
                    let error = Diagnostic::new(format!("'{path}' does not exist in an empty cache"));
                    return Err(error.at(source.span).help("say with from= what the cache holds at first").into());
                }
                let namespace = planner.globals.build_arg(NAMESPACE).unwrap_or_default();
                let name = |seed| key::cache(namespace, &id, seed, planner.options.context_mode);
                let (name, unseeded) = (name(seed.as_ref().map(|_| &input)), name(None));
                let kind = MountKind::Cache { name, sharing: options.sharing, seed, access: access(0o755), read_only };
                all.mounts.push((Mount { target, kind, span: flag.span }, (input, Some(unseeded))));
            }
            MountType::Tmpfs => {
                let target = self.target(flag, &options)?;
                let kind = match read_only {
                    // Nothing can come into it.
                    true => {
                        let source = MountSource { from: None, path: "/".into(), span: flag.span };
                        MountKind::Bind { source, read_only }
                    }
                    false => MountKind::Tmpfs { size: options.size },
                };
                all.put(target, kind, MountInput::Nothing, flag.span);
            }
            MountType::Secret => {
                let id = id.unwrap_or_default();
                if let Some(name) = &options.env {
                    let (name, required, span) = (name.raw.clone(), options.required, flag.span);
                    all.secrets.push(SecretVariable { name, id: id.clone(), required, span });
                }
                if options.env.is_none() || options.target.is_some() {
                    let name = id.trim_end_matches('/').rsplit('/').next().unwrap_or_default();
                    let target = match options.target {
                        Some(_) => self.target(flag, &options)?,
                        None => self.absolute(&format!("/run/secrets/{name}"))?,
                    };
                    let kind = MountKind::Secret { id, required: options.required, access: access(0o400) };
                    all.put(target, kind, MountInput::Nothing, flag.span);
                }
            }
            MountType::Ssh => {
                let target = match options.target {
                    Some(_) => self.target(flag, &options)?,
                    None => format!("/run/buildkit/ssh_agent.{}", all.agents.len()),
                };
                all.agents.push(target.clone());
                let id = id.unwrap_or_else(|| "default".to_owned());
                let kind = MountKind::Ssh { id, required: options.required, access: access(0o600) };
                all.put(target, kind, MountInput::Nothing, flag.span);
            }
        }
        Ok(true)
    }

    /// Where a mount goes: without a target to the working directory, as with BuildKit.
    fn target(&self, flag: &MountFlag, options: &MountOptions) -> Result<String, crate::Error> {
        let target = self.absolute(options.target.as_ref().map_or("", |target| &target.raw))?;
        if target != "/" {
            return Ok(target);
        }
        Err(match &options.target {
            Some(written) => Diagnostic::new("a mount's target cannot be '/'").at(written.span),
            None => Diagnostic::new(format!("a {} mount needs a target", options.kind.name()))
                .at(flag.span)
                .help("write target=DIRECTORY; without it the mount is at the WORKDIR, which is '/' here"),
        }
        .into())
    }

    /// What is mounted, or what a cache holds at first. `None` where an image must be fetched first.
    fn source(
        &self,
        planner: &mut Planner<'_>,
        number: usize,
        flag: &MountFlag,
        options: &MountOptions,
    ) -> Result<Option<(MountSource, MountInput)>, crate::Error> {
        let (path, span) = match &options.source {
            Some(source) => (source.raw.clone(), source.span),
            None => ("/".to_owned(), flag.span),
        };
        let (origin, from_key) = match options.from.as_ref().map(From::Mount) {
            None => (Origin::Context, None),
            Some(from) => match planner.origin(from, number)? {
                Some(found) => found,
                None => return Ok(None),
            },
        };
        if origin == Origin::Nothing {
            if clean(&format!("/{path}")) != "/" {
                return Err(Diagnostic::new(format!("'{path}' does not exist in {NOTHING}, which is empty"))
                    .at(span)
                    .into());
            }
            return Ok(Some((MountSource { from: None, path, span }, MountInput::Nothing)));
        }
        if let Some(directory) = planner.directory(&origin) {
            let Selection::Found(found) = literal(directory.tree()?, &path)? else {
                return Err(copy::not_in_context(directory, &origin, &path, span));
            };
            let selected = found.into_iter().next().expect("a path that is there is one path");
            let files = directory.hashed(&selected.path, &|_| true)?;
            // Nobody sees the name under which it was selected.
            let selected = Selected { name: None, ..selected };
            let source = MountSource { from: Some(origin), path, span };
            return Ok(Some((source, MountInput::Context(ContextInput { selected, files }))));
        }
        let input = from_key.map_or(MountInput::Nothing, |key| MountInput::Key(key, clean(&format!("/{path}"))));
        Ok(Some((MountSource { from: Some(origin), path, span }, input)))
    }
}

impl Mounts {
    fn put(&mut self, target: String, kind: MountKind, input: MountInput, span: Span) {
        self.mounts.push((Mount { target, kind, span }, (input, None)));
    }

    /// The mounts, each after those that it may lie in. Of two with one target the later holds.
    fn in_order(self, planner: &mut Planner<'_>, at: &At<'_>) -> Vec<(Mount, Shown)> {
        let mut all: Vec<(Mount, Shown)> = Vec::new();
        for (mount, shown) in self.mounts {
            match all.iter_mut().find(|(other, _)| other.target == mount.target) {
                Some(other) => {
                    let message = format!("two mounts have the target '{}'", mount.target);
                    let warning = Diagnostic::warning(message).label("this one counts");
                    planner.warn(warning, mount.span, at.trigger);
                    *other = (mount, shown);
                }
                None => all.push((mount, shown)),
            }
        }
        all.sort_by(|(one, _), (other, _)| one.target.cmp(&other.target));
        all
    }
}

/// What no RUN can be given here is an error, where the RUN is needed.
fn refuse_privileges(instruction: &dockerfile::Run) -> Result<(), Diagnostic> {
    if let Some(span) = instruction.insecure {
        return Err(Diagnostic::new("RUN --security=insecure: the builder has no privileges to give")
            .at(span)
            .label("it runs in an unprivileged container itself")
            .help("leave the flag out where the command can do without, or build on a BuildKit that grants security.insecure"));
    }
    match instruction.devices.first() {
        Some(device) => {
            Err(Diagnostic::new(format!("RUN --device={}: the builder has no CDI devices to give", device.raw))
                .at(device.span)
                .help(
                    "leave the flag out where the command can do without, or build on a BuildKit that has the device",
                ))
        }
        None => Ok(()),
    }
}

/// Go's `path.Clean`.
fn clean(path: &str) -> String {
    let rooted = path.starts_with('/');
    let mut kept: Vec<&str> = Vec::new();
    for component in path.split('/') {
        match component {
            "" | "." => {}
            ".." if kept.last().is_some_and(|last| *last != "..") => _ = kept.pop(),
            ".." if rooted => {}
            component => kept.push(component),
        }
    }
    match (rooted, &kept[..]) {
        (true, _) => format!("/{}", kept.join("/")),
        (false, []) => ".".to_owned(),
        (false, _) => kept.join("/"),
    }
}

/// The instruction as it is shown: `****` where the value of a secret would stand.
fn masked(text: &str, names: &[String]) -> String {
    let is_name = |c: char| c.is_alphanumeric() || c == '_';
    let mut shown = String::new();
    let mut rest = text;
    while let Some(at) = rest.find('$') {
        shown.push_str(&rest[..at]);
        rest = &rest[at..];
        let (name, end) = match rest[1..].strip_prefix('{') {
            Some(inner) => {
                let name = inner.split(|c| !is_name(c)).next().unwrap_or_default();
                (name, inner.find('}').map_or(rest.len(), |close| close + 3))
            }
            None => {
                let name = rest[1..].split(|c| !is_name(c)).next().unwrap_or_default();
                (name, name.len() + 1)
            }
        };
        if names.iter().any(|secret| secret == name) {
            shown.push_str("****");
            rest = &rest[end..];
        } else {
            shown.push('$');
            rest = &rest[1..];
        }
    }
    shown + rest
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_cleaned_as_go_does() {
        let cases = [
            ("", "."),
            ("/", "/"),
            ("/a//b/", "/a/b"),
            ("a/./b", "a/b"),
            ("/../a", "/a"),
            ("../a/../..", "../.."),
            ("a/..", "."),
        ];
        for (path, expected) in cases {
            assert_eq!(clean(path), expected, "{path}");
        }
    }

    #[test]
    fn the_variables_of_secrets_are_shown_as_stars() {
        let names = ["TOKEN".to_owned(), "K".to_owned()];
        let cases = [
            ("RUN echo $TOKEN", "RUN echo ****"),
            ("RUN a ${TOKEN:-x}b \"$K\" $KEY ${KEY} $$ $", "RUN a ****b \"****\" $KEY ${KEY} $$ $"),
            ("RUN é$TOKEN${K", "RUN é********"),
            ("RUN TOKEN", "RUN TOKEN"),
        ];
        for (text, shown) in cases {
            assert_eq!(masked(text, &names), shown, "{text}");
        }
    }
}
