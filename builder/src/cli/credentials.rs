//! Logins: where they are looked for, in which order. Files and variables are read once, before anything runs.

use std::env;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::{ArgAction, Args};
use yadokari_registry::{Config, Credentials, Listener, Login, Notice, Provider, Secret, Source};

use super::args::{path, truth};
use super::paths;
use crate::Error;
use crate::login::{self, Helper, Programs, Variable, Variables};
use crate::progress::Progress;
use crate::sandbox::Gate;

/// Where logins come from.
#[derive(Debug, Default, Args)]
pub(super) struct CredentialFlags {
    /// Take logins from this file first: Docker's config.json, or containers-auth.json(5).
    #[arg(long, visible_alias = "authfile", value_name = "FILE", value_parser = path())]
    pub(super) auth_file: Option<PathBuf>,
    /// Ask these for logins that no file has, in this order: env (KANIKO_<HOST>_USER), google, ecr, acr, gitlab. Without
    /// the flag all of them, with an empty value none. Repeatable.
    #[arg(long, value_name = "NAME")]
    pub(super) credential_helpers: Option<Vec<String>>,
    /// Say which source of logins matches for each repository, and why the others do not. It shows no secret. Lower levels of
    /// --verbosity than info hide it, like all that is said.
    #[arg(long, action = ArgAction::Set, num_args = 0..=1, default_missing_value = "true", default_value = "false", value_parser = truth)]
    pub(super) auth_debug: bool,
}

/// Logins, and the files to hide while an in-place RUN runs.
#[derive(Debug, Default)]
pub(super) struct Logins {
    pub(super) credentials: Credentials,
    pub(super) hide: Vec<PathBuf>,
}

/// What looks for logins.
struct Search<'a> {
    variable: Variable<'a>,
    /// The executor's own directory.
    home: PathBuf,
    programs: Programs,
    progress: &'a Progress,
    found: Logins,
}

impl CredentialFlags {
    /// All sources of logins there are, best first.
    pub(super) fn load(&self, progress: &Progress, gate: &Gate) -> Result<Logins, Error> {
        let programs = Programs { path: env::var_os("PATH").unwrap_or_default(), gate: gate.clone() };
        let all: Variables = env::vars_os()
            .filter_map(|(name, value)| Some((name.into_string().ok()?, Secret::new(value.into_string().ok()?))))
            .collect();
        let variable = |name: &str| env::var(name).ok().filter(|value| !value.is_empty());
        let found = Logins::default();
        let search = Search { variable: &variable, home: paths::home(), programs, progress, found };
        search.run(self, all)
    }

    /// Who is told of lookups, and of what goes wrong with them.
    pub(super) fn listener(&self, progress: &Arc<Progress>) -> Listener {
        let (progress, loud) = (Arc::clone(progress), self.auth_debug);
        Listener::new(move |notice| match notice {
            Notice::Warning(text) => progress.warning(text),
            Notice::Login(text) if loud => progress.info(text),
            Notice::Login(text) => progress.debug(text),
        })
    }
}

impl Search<'_> {
    fn run(mut self, flags: &CredentialFlags, all: Variables) -> Result<Logins, Error> {
        self.files(flags.auth_file.as_deref())?;
        let all = Arc::new(all);
        let given = flags.credential_helpers.as_deref();
        let helpers = given.map_or(vec!["env", "google", "ecr", "acr", "gitlab"], |names| {
            names.iter().map(|name| name.as_str()).filter(|name| !name.is_empty()).collect()
        });
        for name in ["env", "google", "ecr", "acr", "gitlab"] {
            if !helpers.contains(&name) {
                self.push(Source::absent(name, "turned off by --credential-helpers"));
            }
        }
        for name in helpers {
            match name {
                "env" => self.push(Source::new("KANIKO_<HOST>_USER").asking(None, Arc::<Variables>::clone(&all))),
                "gitlab" => self.gitlab(),
                name => match login::cloud(name, self.variable, &self.programs.gate) {
                    Some(cloud) => self.push(Source::new(name).asking(None, cloud)),
                    None => {
                        self.progress.warning(&format!("--credential-helpers: nobody knows '{name}'; it is not asked"))
                    }
                },
            }
        }
        self.found.hide.extend(login::secret_files(self.variable).into_iter().map(PathBuf::from));
        self.found.hide.sort();
        self.found.hide.dedup();
        Ok(self.found)
    }

    /// The flag, the variable that holds a configuration itself, and the files in the order of Docker and Podman.
    fn files(&mut self, flag: Option<&Path>) -> Result<(), Error> {
        if let Some(path) = flag.filter(|path| !path.as_os_str().is_empty()) {
            let unreadable = |source| Error::Host { operation: "read", path: path.to_owned(), source };
            let bytes = fs::read(path).map_err(unreadable)?;
            self.found.hide.push(path.to_owned());
            self.config(&path.display().to_string(), &bytes)?;
        }
        match (self.variable)("DOCKER_AUTH_CONFIG") {
            Some(text) => self.config("DOCKER_AUTH_CONFIG", text.as_bytes())?,
            None => self.push(Source::absent("DOCKER_AUTH_CONFIG", "not set")),
        }
        let below = |variable: &'static str, path: &'static str| {
            let directory = (self.variable)(variable).map(PathBuf::from);
            directory.map(|directory| directory.join(path)).ok_or(variable)
        };
        let named = below("DOCKER_CONFIG", "config.json");
        let secret = below("DOCKER_CONFIG", ".dockerconfigjson");
        let own = self.home.join(".docker");
        let files = [
            named,
            Ok(own.join("config.json")),
            below("HOME", ".docker/config.json"),
            (self.variable)("REGISTRY_AUTH_FILE").map(PathBuf::from).ok_or("REGISTRY_AUTH_FILE"),
            below("XDG_RUNTIME_DIR", "containers/auth.json"),
            // What Kubernetes makes of a secret with a login that is mounted as it is.
            secret,
            Ok(own.join(".dockerconfigjson")),
        ];
        let mut seen: Vec<PathBuf> = Vec::new();
        for file in files {
            match file {
                Ok(path) if seen.contains(&path) => {}
                Ok(path) => {
                    self.file(&path)?;
                    seen.push(path);
                }
                Err("DOCKER_CONFIG") => {}
                Err(variable) => self.push(Source::absent(variable, "not set")),
            }
        }
        Ok(())
    }

    /// One file, which need not be there. All are hidden, those of which nothing is used, too: whoever wrote them
    /// meant them no less for us alone.
    fn file(&mut self, path: &Path) -> Result<(), Error> {
        let name = path.display().to_string();
        match fs::read(path) {
            Ok(bytes) => {
                self.found.hide.push(path.to_owned());
                return self.config(&name, &bytes);
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                // It may be written while the build runs.
                self.found.hide.push(path.to_owned());
                self.push(Source::absent(name, "not there"));
            }
            Err(error) if error.kind() == io::ErrorKind::NotADirectory => self.push(Source::absent(name, "not there")),
            Err(error) => {
                // Another user's home is the usual reason, and its logins were not meant for this one.
                self.progress.warning(&format!("no logins are read from {name}: {error}"));
                self.push(Source::absent(name, error.to_string()));
            }
        }
        Ok(())
    }

    fn config(&mut self, name: &str, bytes: &[u8]) -> Result<(), Error> {
        let bad =
            |error: yadokari_registry::Error| Error::Usage { flag: "credentials", message: format!("{name}: {error}") };
        let config = Config::parse(bytes).map_err(bad)?;
        for warning in &config.warnings {
            self.progress.warning(&format!("{name}: {warning}"));
        }
        let mut source = Source::new(name);
        let named: Vec<String> = config.helpers.iter().map(|(registry, _)| registry.clone()).collect();
        for (registry, helper) in config.helpers.iter().filter(|(_, helper)| !helper.is_empty()) {
            source = source.asking(Some(registry), self.helper(helper, Vec::new()));
        }
        if let Some(store) = &config.store {
            source = source.asking(None, self.helper(store, named));
        }
        let source = config.logins.into_iter().fold(source, |source, (key, login)| source.with(&key, login));
        self.push(source);
        Ok(())
    }

    /// A helper program, for all but some registries. Those of clouds, which Kaniko's image has, are not needed.
    fn helper(&self, name: &str, except: Vec<String>) -> Arc<dyn Provider> {
        let helper = Helper::new(name, except, &self.programs);
        match login::cloud(name, self.variable, &self.programs.gate) {
            Some(cloud) if !helper.is_there() => cloud,
            _ => Arc::new(helper),
        }
    }

    /// What GitLab gives each job.
    fn gitlab(&mut self) {
        let pair = |user: &str, password: &str| {
            let password = Secret::new((self.variable)(password)?);
            Some(Login::Password { user: (self.variable)(user)?, password })
        };
        let job = || {
            let password = Secret::new((self.variable)("CI_JOB_TOKEN")?);
            Some(Login::Password { user: "gitlab-ci-token".into(), password })
        };
        let registry = pair("CI_REGISTRY_USER", "CI_REGISTRY_PASSWORD").or_else(job);
        let proxy = pair("CI_DEPENDENCY_PROXY_USER", "CI_DEPENDENCY_PROXY_PASSWORD").or_else(job);
        for (variable, login) in [("CI_REGISTRY", registry), ("CI_DEPENDENCY_PROXY_SERVER", proxy)] {
            let source = match ((self.variable)(variable), login) {
                (Some(host), Some(login)) => Source::new(variable).with(&host, login),
                (Some(_), None) => Source::absent(variable, "it comes without a user and a password"),
                (None, _) => Source::absent(variable, "not set"),
            };
            self.push(source);
        }
    }

    fn push(&mut self, source: Source) {
        self.found.credentials.push(source);
    }
}

#[cfg(test)]
mod tests;
