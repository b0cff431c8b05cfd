//! Configurations, in the formats of Docker's `config.json` and of `containers-auth.json(5)`.

use std::collections::BTreeMap;
use std::fmt;

use base64::Engine as _;
use base64::alphabet::STANDARD;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use serde::Deserialize;
use zeroize::Zeroizing;

use super::Login;
use crate::{Error, Result, Secret};

/// What a configuration file holds.
#[derive(Debug, Default)]
pub struct Config {
    /// Logins by `host[:port][/path]` or URL.
    pub logins: Vec<(String, Login)>,
    /// The helper to ask for a registry, as in `docker-credential-NAME`; empty for none.
    pub helpers: Vec<(String, String)>,
    /// The helper to ask for all other registries.
    pub store: Option<String>,
    /// What cannot be used.
    pub warnings: Vec<Warning>,
}

/// An entry of a configuration that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Warning {
    /// The entry's key.
    pub key: String,
    /// What is wrong with it.
    pub reason: &'static str,
}

impl Config {
    /// Reads a configuration file's content. One of nothing but white space holds nothing.
    pub fn parse(config_json: &[u8]) -> Result<Self> {
        if config_json.iter().all(u8::is_ascii_whitespace) {
            return Ok(Self::default());
        }
        let text: Text = serde_json::from_slice(config_json).map_err(|error| Error::Configuration {
            what: "credentials".into(),
            reason: format!("not a Docker configuration: error at line {}, column {}", error.line(), error.column()),
        })?;
        let mut config = Self {
            helpers: text.cred_helpers.unwrap_or_default().into_iter().collect(),
            store: text.creds_store.filter(|name| !name.is_empty()),
            ..Self::default()
        };
        for (key, auth) in text.auths.unwrap_or_default() {
            match auth.map_or(Ok(None), Auth::login) {
                Ok(Some(login)) => config.logins.push((key, login)),
                // `docker login` leaves an empty entry behind when it hands the login to a helper.
                Ok(None) => {}
                Err(reason) => config.warnings.push(Warning { key, reason }),
            }
        }
        Ok(config)
    }
}

impl Login {
    /// A user and a password. Docker's convention for an identity token that has to fit into these is a user `<token>`.
    pub fn new(user: String, password: Secret) -> Self {
        if user == "<token>" { Self::Identity(password) } else { Self::Password { user, password } }
    }
}

impl fmt::Display for Warning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the login for {} is not used: {}", self.key, self.reason)
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Text {
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
        Ok(Some(Login::new(user, password)))
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

    fn user(config: &Config, key: &str) -> Option<String> {
        let (_, login) = config.logins.iter().find(|(known, _)| known == key)?;
        Some(match login {
            Login::Password { user, password } => format!("{user} {}", password.expose()),
            Login::Identity(token) => format!("identity {}", token.expose()),
            Login::Registry(token) => format!("registry {}", token.expose()),
        })
    }

    #[test]
    fn logins_are_read_in_every_form() {
        let config = r#"{"auths": {
            "hub.example": {"auth": "aHViOnB3"},
            "plain.example": {"username": "host", "password": "p"},
            "colon.example": {"auth": "dGVhbTpwOnc"},
            "newline.example": {"auth": "YXBwOnB3Cg=="},
            "identity.example": {"identitytoken": "i", "auth": "PHRva2VuPjp4"},
            "registry.example": {"registrytoken": "r"},
            "token.example": {"auth": "PHRva2VuPjp4"},
            "empty.example": {}, "null.example": null
        }}"#;
        let config = Config::parse(config.as_bytes()).unwrap();
        let table = [
            ("hub.example", Some("hub pw")),
            ("plain.example", Some("host p")),
            ("colon.example", Some("team p:w")),
            ("newline.example", Some("app pw")),
            ("identity.example", Some("identity i")),
            ("registry.example", Some("registry r")),
            ("token.example", Some("identity x")),
            ("empty.example", None),
            ("null.example", None),
        ];
        for (key, expected) in table {
            assert_eq!(user(&config, key).as_deref(), expected, "{key}");
        }
        assert!(Config::parse(b" \n").unwrap().logins.is_empty());
    }

    #[test]
    fn helpers_are_named_and_broken_entries_warned_of() {
        let config = br#"{"credsStore": "desktop", "credHelpers": {"x.dkr.ecr.example": "ecr-login", "y": ""},
            "auths": {"bad.example": {"auth": "%%%"}, "half.example": {"username": "u"}}}"#;
        let config = Config::parse(config).unwrap();
        let helpers = [("x.dkr.ecr.example", "ecr-login"), ("y", "")].map(|(key, name)| (key.into(), name.into()));
        assert_eq!((config.helpers, config.store.as_deref()), (helpers.to_vec(), Some("desktop")));
        let text: Vec<_> = config.warnings.iter().map(Warning::to_string).collect();
        assert_eq!(
            text,
            [
                "the login for bad.example is not used: its 'auth' is not base64",
                "the login for half.example is not used: it has a user name or a password, but not both",
            ]
        );
    }

    #[test]
    fn secrets_are_never_printed() {
        let good = br#"{"auths": {"a.example": {"username": "u", "password": "hunter2"}}}"#;
        assert!(!format!("{:?}", Config::parse(good).unwrap()).contains("hunter2"));
        let bad = br#"{"auths": {"a.example": "hunter2"}}"#;
        let error = Config::parse(bad).unwrap_err();
        assert!(!format!("{error} {error:?}").contains("hunter2"), "{error:?}");
    }
}
