//! Logins, in the formats of Docker's `config.json` and of `containers-auth.json(5)`.
//!
//! Errors and warnings name keys and positions, never values: even a JSON error's text may quote a password.

use std::collections::BTreeMap;
use std::fmt;

use base64::Engine as _;
use base64::alphabet::STANDARD;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use serde::Deserialize;
use zeroize::Zeroizing;

use crate::reference::{DOCKER_HUB, is_hub};
use crate::{Error, Result, Secret};

/// Which login to use for which registry, or for which part of one.
#[derive(Debug, Clone, Default)]
pub struct Credentials {
    entries: Vec<Entry>,
    warnings: Vec<Warning>,
}

/// One way to log in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Login {
    /// A user name and a password, a deploy token or a job token.
    Password {
        /// The user.
        user: String,
        /// The password.
        password: Secret,
    },
    /// An OAuth2 refresh token, exchanged at the registry's token server.
    Identity(Secret),
    /// A token sent to the registry as it is.
    Registry(Secret),
}

/// Something in a configuration that was understood and not carried out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Warning {
    /// A credential helper is configured, and helpers are not run.
    Helper {
        /// The registry that the helper is for; `None` where it is for all.
        registry: Option<String>,
        /// The helper's name, as in `docker-credential-NAME`.
        name: String,
    },
    /// An entry cannot be used.
    Entry {
        /// The entry's key.
        key: String,
        /// What is wrong with it.
        reason: &'static str,
    },
}

#[derive(Debug, Clone)]
struct Entry {
    scope: Scope,
    login: Login,
}

/// A registry's host, and a path in it that a repository must be below; empty for all.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Scope {
    host: String,
    path: String,
}

impl Credentials {
    /// Reads a configuration file's content.
    pub fn parse(config_json: &[u8]) -> Result<Self> {
        let config: Config = serde_json::from_slice(config_json).map_err(|error| Error::Configuration {
            what: "credentials".into(),
            reason: format!("not a Docker configuration: error at line {}, column {}", error.line(), error.column()),
        })?;
        let mut credentials = Self::default();
        for (key, auth) in config.auths.unwrap_or_default() {
            match auth.map_or(Ok(None), Auth::login) {
                Ok(Some(login)) => credentials.add(&key, login),
                // `docker login` leaves an empty entry behind when it hands the login to a helper.
                Ok(None) => {}
                Err(reason) => credentials.warnings.push(Warning::Entry { key, reason }),
            }
        }
        for (registry, name) in config.cred_helpers.unwrap_or_default() {
            credentials.warnings.push(Warning::Helper { registry: Some(registry), name });
        }
        if let Some(name) = config.creds_store.filter(|name| !name.is_empty()) {
            credentials.warnings.push(Warning::Helper { registry: None, name });
        }
        Ok(credentials)
    }

    /// Adds a login for `key`: `host[:port][/path]`, or a URL of these. What was added first wins.
    pub fn add(&mut self, key: &str, login: Login) {
        self.entries.push(Entry { scope: Scope::of(key), login });
    }

    /// Adds what `others` holds; what is here already wins.
    pub fn merge(&mut self, others: Self) {
        self.entries.extend(others.entries);
        self.warnings.extend(others.warnings);
    }

    /// The login for a repository: of all entries whose scope holds it, the one with the longest path.
    pub fn find(&self, registry: &str, repository: &str) -> Option<&Login> {
        let wanted = Scope::of(registry);
        let mut best: Option<&Entry> = None;
        for entry in self.entries.iter().filter(|entry| entry.scope.holds(&wanted.host, repository)) {
            if best.is_none_or(|best| entry.scope.path.len() > best.scope.path.len()) {
                best = Some(entry);
            }
        }
        best.map(|entry| &entry.login)
    }

    /// What was not carried out.
    pub fn warnings(&self) -> &[Warning] {
        &self.warnings
    }

    /// Whether there is no login at all.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }
}

impl fmt::Display for Warning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Helper { registry: Some(registry), name } => {
                write!(f, "the credential helper docker-credential-{name} for {registry} is not run")
            }
            Self::Helper { registry: None, name } => {
                write!(f, "the credential store docker-credential-{name} is not asked")
            }
            Self::Entry { key, reason } => write!(f, "the login for {key} is not used: {reason}"),
        }
    }
}

impl Scope {
    fn of(key: &str) -> Self {
        let key = key.strip_prefix("https://").or_else(|| key.strip_prefix("http://")).unwrap_or(key);
        let (host, path) = key.split_once('/').unwrap_or((key, ""));
        let host = host.to_ascii_lowercase();
        let host = host.strip_suffix(":443").unwrap_or(&host);
        let path = path.trim_matches('/');
        // The version in `https://index.docker.io/v1/` is the API's, not a repository's.
        let path = if matches!(path, "v1" | "v2") { "" } else { path };
        Self { host: if is_hub(host) { DOCKER_HUB.into() } else { host.into() }, path: path.into() }
    }

    fn holds(&self, host: &str, repository: &str) -> bool {
        let below = |rest: &str| rest.is_empty() || rest.starts_with('/');
        self.host == host && (self.path.is_empty() || repository.strip_prefix(&self.path).is_some_and(below))
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Config {
    auths: Option<BTreeMap<String, Option<Auth>>>,
    cred_helpers: Option<BTreeMap<String, String>>,
    creds_store: Option<String>,
}

#[derive(Deserialize)]
struct Auth {
    auth: Option<Secret>,
    username: Option<String>,
    password: Option<Secret>,
    identitytoken: Option<Secret>,
    registrytoken: Option<Secret>,
}

impl Auth {
    fn login(self) -> Result<Option<Login>, &'static str> {
        let given = |secret: Option<Secret>| secret.filter(|secret| !secret.expose().is_empty());
        if let Some(token) = given(self.registrytoken) {
            return Ok(Some(Login::Registry(token)));
        }
        if let Some(token) = given(self.identitytoken) {
            return Ok(Some(Login::Identity(token)));
        }
        let (user, password) = match (given(self.auth), self.username, given(self.password)) {
            (Some(auth), _, _) => decode(&auth)?,
            (None, Some(user), Some(password)) if !user.is_empty() => (user, password),
            (None, user, None) if user.as_deref().unwrap_or_default().is_empty() => return Ok(None),
            _ => return Err("it has a user name or a password, but not both"),
        };
        // Docker's convention for an identity token that had to fit into a user and a password.
        Ok(Some(if user == "<token>" { Login::Identity(password) } else { Login::Password { user, password } }))
    }
}

/// Decodes base64 of `user:password`. Hand-written files lack the padding, or end in a newline.
fn decode(auth: &Secret) -> Result<(String, Secret), &'static str> {
    const LENIENT: GeneralPurpose = GeneralPurpose::new(
        &STANDARD,
        GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
    );
    let bytes = LENIENT.decode(auth.expose().trim()).map(Zeroizing::new).map_err(|_| "its 'auth' is not base64")?;
    let text = std::str::from_utf8(&bytes).map_err(|_| "its 'auth' is not text")?;
    let (user, password) = text.split_once(':').ok_or("its 'auth' holds no colon")?;
    Ok((user.into(), Secret::new(password.trim_end_matches(['\n', '\0']))))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn user(credentials: &Credentials, registry: &str, repository: &str) -> Option<String> {
        match credentials.find(registry, repository)? {
            Login::Password { user, .. } => Some(user.clone()),
            Login::Identity(token) => Some(format!("identity {}", token.expose())),
            Login::Registry(token) => Some(format!("registry {}", token.expose())),
        }
    }

    #[test]
    fn logins_are_found_by_host_port_and_longest_path() {
        let config = r#"{"auths": {
            "https://index.docker.io/v1/": {"auth": "aHViOnB3"},
            "https://Registry.Example/v2/": {"username": "host", "password": "p"},
            "registry.example/team": {"auth": "dGVhbTpwOnc"},
            "registry.example/team/app": {"auth": "YXBwOnB3Cg=="},
            "registry.example:5000": {"identitytoken": "i", "auth": "PHRva2VuPjp4"},
            "[::1]:5000": {"registrytoken": "r"},
            "token.example": {"auth": "PHRva2VuPjp4"},
            "empty.example": {}, "null.example": null
        }}"#;
        let credentials = Credentials::parse(config.as_bytes()).unwrap();
        let table = [
            ("docker.io", "library/alpine", Some("hub")),
            ("registry-1.docker.io", "library/alpine", Some("hub")),
            ("registry.example", "other/app", Some("host")),
            ("registry.example:443", "other/app", Some("host")),
            ("registry.example", "team/x", Some("team")),
            ("registry.example", "teams/x", Some("host")),
            ("registry.example", "team/app", Some("app")),
            ("registry.example", "team/app/cache", Some("app")),
            ("registry.example:5000", "x", Some("identity i")),
            ("[::1]:5000", "x", Some("registry r")),
            ("token.example", "x", Some("identity x")),
            ("registry.example.evil", "x", None),
            ("empty.example", "x", None),
            ("null.example", "x", None),
        ];
        for (registry, repository, expected) in table {
            assert_eq!(user(&credentials, registry, repository).as_deref(), expected, "{registry}/{repository}");
        }
        let password = |repository| match credentials.find("registry.example", repository) {
            Some(Login::Password { password, .. }) => password.expose().to_owned(),
            other => panic!("{other:?}"),
        };
        assert_eq!(password("team/x"), "p:w", "only the first colon separates");
        assert_eq!(password("team/app"), "pw", "a final newline is none of the password");
    }

    #[test]
    fn the_first_of_several_files_wins() {
        let mut credentials =
            Credentials::parse(br#"{"auths": {"a.example": {"username": "1", "password": "p"}}}"#).unwrap();
        let second = br#"{"auths": {"a.example": {"username": "2", "password": "p"}, "b.example": {"auth": "Mjpw"}}}"#;
        credentials.merge(Credentials::parse(second).unwrap());
        assert_eq!(user(&credentials, "a.example", "x").as_deref(), Some("1"));
        assert_eq!(user(&credentials, "b.example", "x").as_deref(), Some("2"));
    }

    #[test]
    fn what_is_not_carried_out_is_named() {
        let config = br#"{"credsStore": "desktop", "credHelpers": {"x.dkr.ecr.example": "ecr-login"},
            "auths": {"bad.example": {"auth": "%%%"}, "half.example": {"username": "u"}}}"#;
        let text: Vec<_> = Credentials::parse(config).unwrap().warnings().iter().map(Warning::to_string).collect();
        assert_eq!(
            text,
            [
                "the login for bad.example is not used: its 'auth' is not base64",
                "the login for half.example is not used: it has a user name or a password, but not both",
                "the credential helper docker-credential-ecr-login for x.dkr.ecr.example is not run",
                "the credential store docker-credential-desktop is not asked",
            ]
        );
    }

    #[test]
    fn secrets_are_never_printed() {
        let good = br#"{"auths": {"a.example": {"username": "u", "password": "hunter2"}}}"#;
        assert!(!format!("{:?}", Credentials::parse(good).unwrap()).contains("hunter2"));
        let bad = br#"{"auths": {"a.example": "hunter2"}}"#;
        let error = Credentials::parse(bad).unwrap_err();
        assert!(!format!("{error} {error:?}").contains("hunter2"), "{error:?}");
    }
}
