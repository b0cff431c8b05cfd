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
    /// Say which source of logins matches for each repository, and why the others do not. It shows no secret.
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
            Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
                self.push(Source::absent(name, "not there"));
            }
            Err(error) => {
                // Another user's home is the usual reason, and its logins were not meant for this one.
                self.progress.warning(&format!("no logins are read from {name}: {error}"));
                self.push(Source::absent(name, error.to_string()));
            }
        }
        // It may be written while the build runs.
        self.found.hide.push(path.to_owned());
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
mod tests {
    use std::collections::BTreeMap;
    use std::os::unix::fs::PermissionsExt;
    use std::sync::Mutex;

    use base64::Engine as _;
    use base64::engine::general_purpose::STANDARD;
    use yadokari_registry::memory::{Auth, Memory, Served, Serving};
    use yadokari_registry::{Client, ClientOptions};

    use super::*;
    use crate::progress::Level;

    /// A password that must never be seen.
    const PLANTED: &str = "planted-hunter2";

    /// A place to look for logins in, and a registry that wants one.
    struct Place {
        directory: tempfile::TempDir,
        variables: BTreeMap<String, String>,
        flags: CredentialFlags,
        served: Served,
    }

    impl Place {
        async fn new() -> Self {
            let auth = Auth::Basic { user: "nobody".into(), password: "x".into() };
            let served = Memory::new().serve_with(Serving { auth, ..Serving::default() }).await.unwrap();
            let (directory, variables) = (tempfile::tempdir().unwrap(), BTreeMap::new());
            Self { directory, variables, flags: CredentialFlags::default(), served }
        }

        fn path(&self, name: &str) -> String {
            self.directory.path().join(name).display().to_string()
        }

        fn set(&mut self, name: &str, value: &str) {
            self.variables.insert(name.into(), value.into());
        }

        fn write(&self, name: &str, text: &str) -> PathBuf {
            let path = self.directory.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(&path, text).unwrap();
            path
        }

        /// A configuration with a login of `user` for the registry.
        fn config(&self, user: &str) -> String {
            let auth = STANDARD.encode(format!("{user}:{PLANTED}"));
            format!(r#"{{"auths": {{"{}": {{"auth": "{auth}"}}}}}}"#, self.served.host())
        }

        fn find(&self, progress: &Progress) -> Result<Logins, Error> {
            let variable = |name: &str| self.variables.get(name).cloned();
            let programs = Programs { path: self.path("bin").into(), ..Programs::default() };
            let (home, found) = (self.directory.path().join("kaniko"), Logins::default());
            let all = self.variables.iter().map(|(name, value)| (name.clone(), Secret::new(value.as_str())));
            Search { variable: &variable, home, programs, progress, found }.run(&self.flags, all.collect())
        }

        /// The user that the registry sees, and all that is said meanwhile.
        async fn ask(&self) -> (Option<String>, String) {
            let said = Arc::new(Mutex::new(Vec::new()));
            let progress = Arc::new(Progress::to(Level::Debug, Box::new(Said(Arc::clone(&said)))));
            let credentials = self.find(&progress).unwrap().credentials;
            let listener = self.flags.listener(&progress);
            let client = Client::new(ClientOptions { credentials, listener, ..ClientOptions::default() }).unwrap();
            let store = client.repository(&format!("{}/team/app", self.served.host()).parse().unwrap());
            store.check_push().await.unwrap_err();
            let user = |given: &str| {
                let pair = STANDARD.decode(given.strip_prefix("Basic ").unwrap()).unwrap();
                String::from_utf8(pair).unwrap().split_once(':').unwrap().0.to_owned()
            };
            let given = self.served.seen().last().and_then(|seen| seen.authorization.as_deref().map(user));
            let said = String::from_utf8(said.lock().unwrap().clone()).unwrap();
            (given, said.replace(&self.served.host(), "HOST").replace(&self.path(""), ""))
        }
    }

    struct Said(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Said {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    /// A place with a login in each source, whose user is the source's number.
    async fn full() -> Place {
        let mut place = Place::new().await;
        place.flags.auth_file = Some(place.write("flag.json", &place.config("1")));
        place.set("DOCKER_AUTH_CONFIG", &place.config("2"));
        place.write("docker/config.json", &place.config("3"));
        place.write("kaniko/.docker/config.json", &place.config("4"));
        place.write("home/.docker/config.json", &place.config("5"));
        place.write("auth.json", &place.config("6"));
        place.write("run/containers/auth.json", &place.config("7"));
        place.write("docker/.dockerconfigjson", &place.config("8"));
        place.set("DOCKER_CONFIG", &place.path("docker"));
        place.set("HOME", &place.path("home"));
        place.set("REGISTRY_AUTH_FILE", &place.path("auth.json"));
        place.set("XDG_RUNTIME_DIR", &place.path("run"));
        let host = place.served.host().replace(['.', ':'], "_");
        place.set(&format!("KANIKO_{host}_USER"), "9");
        place.set(&format!("KANIKO_{host}_PASSWORD"), PLANTED);
        place.set("CI_REGISTRY", &place.served.host());
        place.set("CI_REGISTRY_USER", "10");
        place.set("CI_REGISTRY_PASSWORD", PLANTED);
        place.set("CI_DEPENDENCY_PROXY_SERVER", &place.served.host());
        place.set("CI_DEPENDENCY_PROXY_USER", "11");
        place.set("CI_DEPENDENCY_PROXY_PASSWORD", PLANTED);
        place
    }

    #[tokio::test]
    async fn sources_of_logins_count_in_their_order() {
        let mut place = full().await;
        let host = place.served.host().replace(['.', ':'], "_");
        for number in 1..=12 {
            let (user, said) = place.ask().await;
            assert_eq!(user, (number < 12).then(|| number.to_string()), "{said}");
            let remove = |name: &str| fs::remove_file(place.directory.path().join(name)).unwrap();
            match number {
                1 => place.flags.auth_file = None,
                2 => drop(place.variables.remove("DOCKER_AUTH_CONFIG")),
                3 => remove("docker/config.json"),
                4 => remove("kaniko/.docker/config.json"),
                5 => remove("home/.docker/config.json"),
                6 => remove("auth.json"),
                7 => remove("run/containers/auth.json"),
                8 => remove("docker/.dockerconfigjson"),
                9 => drop(place.variables.remove(&format!("KANIKO_{host}_USER"))),
                10 => drop(place.variables.remove("CI_REGISTRY")),
                _ => drop(place.variables.remove("CI_DEPENDENCY_PROXY_SERVER")),
            }
        }
    }

    #[tokio::test]
    async fn every_file_with_logins_is_hidden_whether_it_is_used_or_not() {
        let place = full().await;
        let hidden = place.find(&Progress::new(Level::Error)).unwrap().hide;
        let files = ["flag.json", "docker/config.json", "kaniko/.docker/config.json", "home/.docker/config.json"];
        for file in files.iter().chain(&["auth.json", "run/containers/auth.json", "docker/.dockerconfigjson"]) {
            assert!(hidden.contains(&place.directory.path().join(file)), "{file}");
        }
    }

    #[tokio::test]
    async fn a_lookup_is_told_with_every_source_and_no_secret() {
        let mut place = full().await;
        place.flags.auth_debug = true;
        place.flags.auth_file = None;
        place.variables.remove("DOCKER_AUTH_CONFIG");
        place.variables.remove("CI_DEPENDENCY_PROXY_SERVER");
        let script = format!("#!/bin/sh\necho {PLANTED} >&2; echo no session; exit 1\n");
        let helper = place.write("bin/docker-credential-broken", &script);
        fs::set_permissions(helper, fs::Permissions::from_mode(0o755)).unwrap();
        let host = place.served.host();
        place.write("docker/config.json", &format!(r#"{{"credHelpers": {{"{host}": "broken"}}}}"#));
        place.write("kaniko/.docker/config.json", &place.config("u").replace(&host, &format!("{host}/other")));
        let (user, said) = place.ask().await;
        assert_eq!(user.as_deref(), Some("5"));
        for line in [
            "warning: docker-credential-broken has no login for HOST: it says: no session",
            "login for HOST/team/app:",
            "  DOCKER_AUTH_CONFIG: not set",
            "  docker/config.json: docker-credential-broken failed: it says: no session",
            "  kaniko/.docker/config.json: only for HOST/other",
            "  home/.docker/config.json: used, entry HOST: a user and a password",
            "  auth.json: not needed, entry HOST",
            "  KANIKO_<HOST>_USER: not needed, the variables",
            "  google: nothing for HOST",
            "  ecr: nothing for HOST",
            "  acr: nothing for HOST",
            "  CI_REGISTRY: not needed, entry HOST",
            "  CI_DEPENDENCY_PROXY_SERVER: not set",
        ] {
            assert!(said.lines().any(|found| found == line), "{line}\nis not in\n{said}");
        }
        assert_eq!(said.matches("login for HOST/team/app").count(), 1, "{said}");
        let base64 = STANDARD.encode(format!("5:{PLANTED}"));
        assert!(!said.contains(PLANTED) && !said.contains(&base64), "{said}");
    }

    #[tokio::test]
    async fn a_job_of_gitlab_needs_no_configuration() {
        let mut place = Place::new().await;
        place.set("CI_REGISTRY", &place.served.host());
        assert_eq!(place.ask().await.0, None);
        place.set("CI_JOB_TOKEN", PLANTED);
        assert_eq!(place.ask().await.0.as_deref(), Some("gitlab-ci-token"));
        place.set("CI_REGISTRY_USER", "deploy");
        place.set("CI_REGISTRY_PASSWORD", PLANTED);
        assert_eq!(place.ask().await.0.as_deref(), Some("deploy"));
        place.set("CI_REGISTRY", "registry.example");
        let (user, said) = place.ask().await;
        assert_eq!(user, None, "it is for its own registry");
        assert!(said.contains("CI_REGISTRY: nothing for HOST"), "{said}");
    }

    #[tokio::test]
    async fn helpers_that_need_no_file_are_chosen_by_a_flag() {
        let mut place = full().await;
        place.variables.retain(|name, _| name.starts_with("KANIKO_") || name.starts_with("CI_"));
        fs::remove_file(place.directory.path().join("kaniko/.docker/config.json")).unwrap();
        place.flags.auth_file = None;
        for (names, expected) in [
            (vec![""], None),
            (vec!["gitlab"], Some("10")),
            (vec!["gitlab", "env"], Some("10")),
            (vec!["env"], Some("9")),
        ] {
            place.flags.credential_helpers = Some(names.iter().map(|&name| name.into()).collect());
            assert_eq!(place.ask().await.0.as_deref(), expected, "{names:?}");
        }
        place.flags.credential_helpers = Some(vec!["quay".into()]);
        assert!(place.ask().await.1.contains("warning: --credential-helpers: nobody knows 'quay'"));
    }

    #[tokio::test]
    async fn a_clouds_helper_is_done_without_where_it_is_not_there() {
        let place = Place::new().await;
        let ecr = "123456789012.dkr.ecr.eu-west-1.amazonaws.com";
        let table = [
            ("ecr-login", "AWS", ecr),
            ("gcr", "Google's metadata server", "gcr.io"),
            ("gcloud", "Google's metadata server", "europe-docker.pkg.dev"),
            ("acr-env", "Azure", "team.azurecr.io"),
            ("pass", "docker-credential-pass", ecr),
        ];
        let progress = Progress::new(Level::Error);
        let search = |variable| Search {
            variable,
            home: PathBuf::new(),
            programs: Programs { path: place.path("bin").into(), ..Programs::default() },
            progress: &progress,
            found: Logins::default(),
        };
        for (name, expected, registry) in table {
            let helper = search(&|_| None).helper(name, Vec::new());
            assert_eq!((helper.name().as_str(), helper.covers(registry)), (expected, true), "{name}");
        }
        let program = place.write("bin/docker-credential-ecr-login", "#!/bin/sh\n");
        fs::set_permissions(program, fs::Permissions::from_mode(0o755)).unwrap();
        assert_eq!(search(&|_| None).helper("ecr-login", Vec::new()).name(), "docker-credential-ecr-login");
    }

    #[tokio::test]
    async fn a_configuration_that_is_none_is_an_error_without_its_content() {
        let mut place = Place::new().await;
        place.set("DOCKER_AUTH_CONFIG", PLANTED);
        let error = place.find(&Progress::new(Level::Error)).unwrap_err().to_string();
        assert!(error.contains("DOCKER_AUTH_CONFIG") && !error.contains(PLANTED), "{error}");
        place.variables.clear();
        place.flags.auth_file = Some(PathBuf::from("/no/such/file"));
        let error = place.find(&Progress::new(Level::Error)).unwrap_err().to_string();
        assert!(error.contains("/no/such/file"), "{error}");
    }
}
