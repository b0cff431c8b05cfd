//! Logins as the places hold them where pipelines put them.

use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use yadokari_registry::memory::{Auth, Memory, Served, Serving};
use yadokari_registry::{Client, ClientOptions};

use super::*;
use crate::progress::Level;
use crate::progress::said::Said;

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
        let said = Said::default();
        let progress = Arc::new(Progress::to(Level::Debug, Box::new(said.clone())));
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
        (given, said.text().replace(&self.served.host(), "HOST").replace(&self.path(""), ""))
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
async fn a_place_that_cannot_be_read_ends_no_build() {
    let mut place = Place::new().await;
    // A directory in the file's place cannot be read by anybody, and nothing is below a file.
    fs::create_dir_all(place.directory.path().join("home/.docker/config.json")).unwrap();
    let file = place.write("file", "");
    place.set("HOME", &place.path("home"));
    place.set("XDG_RUNTIME_DIR", &file.display().to_string());
    place.set("REGISTRY_AUTH_FILE", &place.path("gone.json"));
    let (user, said) = place.ask().await;
    assert_eq!(user, None);
    assert!(said.contains("warning: no logins are read from home/.docker/config.json: Is a directory"), "{said}");
    assert!(
        said.contains("\n  file/containers/auth.json: not there\n  ") && said.contains("\n  gone.json: not there\n"),
        "{said}"
    );
    let hidden = place.find(&Progress::new(Level::Error)).unwrap().hide;
    let below = |name: &str| hidden.contains(&place.directory.path().join(name));
    assert_eq!(
        [below("gone.json"), below("home/.docker/config.json"), below("file/containers/auth.json")],
        [true, false, false]
    );
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
    for (names, expected) in
        [(vec![""], None), (vec!["gitlab"], Some("10")), (vec!["gitlab", "env"], Some("10")), (vec!["env"], Some("9"))]
    {
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
