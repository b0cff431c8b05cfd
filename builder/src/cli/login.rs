//! `yadokari login`: a login is put where builds look for it.

use std::fs;
use std::io::{self, Read, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use clap::{ArgAction, Args};
use serde_json::{Map, Value, json};
use yadokari_registry::Secret;

use super::args::truth;
use super::log::LogFlags;
use super::paths;
use super::secrets::Variables;
use crate::Error;
use crate::progress::Progress;

/// What Docker calls its Hub in the file.
const HUB: &str = "https://index.docker.io/v1/";

/// `yadokari login`
#[derive(Debug, Args)]
pub(super) struct Login {
    /// The registry, or a part of it: HOST[:PORT][/PATH].
    registry: String,
    /// The user.
    #[arg(long, short = 'u', default_value = "", hide_default_value = true)]
    username: String,
    /// The password. Others on the machine can see it; --password-stdin hides it.
    #[arg(long, short = 'p', value_parser = secret, conflicts_with = "password_stdin")]
    password: Option<Secret>,
    /// Read the password from the standard input.
    #[arg(long, action = ArgAction::Set, num_args = 0..=1, default_missing_value = "true", default_value = "false", value_parser = truth)]
    password_stdin: bool,
    #[command(flatten)]
    log: LogFlags,
}

fn secret(text: &str) -> Result<Secret, std::convert::Infallible> {
    Ok(Secret::new(text))
}

/// A login that is kept.
pub struct LoginInvocation {
    /// Whom to tell.
    pub progress: Arc<Progress>,
    file: PathBuf,
    key: String,
    user: String,
    password: Secret,
    /// DOCKER_AUTH_CONFIG is set, and comes before the file.
    is_shadowed: bool,
}

impl Login {
    pub(super) fn invocation(self, input: &mut dyn Read, env: Variables<'_>) -> Result<LoginInvocation, Error> {
        let usage = |flag, message: &str| Error::Usage { flag, message: message.into() };
        let password = match (self.password, self.password_stdin) {
            (Some(password), _) => password,
            (None, true) => {
                let failed = |source| Error::Host { operation: "read", path: "the standard input".into(), source };
                let mut text = String::new();
                input.read_to_string(&mut text).map_err(failed)?;
                let line = text.strip_suffix('\n').unwrap_or(&text);
                Secret::new(line.strip_suffix('\r').unwrap_or(line))
            }
            (None, false) => return Err(usage("yadokari login", "give --password-stdin, or --password")),
        };
        if self.username.is_empty() || password.expose().is_empty() {
            return Err(usage("yadokari login", "it needs a user and a password"));
        }
        if self.username.contains(':') {
            return Err(usage("--username", "no user has a colon in the name"));
        }
        Ok(LoginInvocation {
            progress: Arc::new(self.log.progress(&|name| std::env::var(name).ok(), Vec::new())),
            file: file(env)?,
            key: key(&self.registry).ok_or_else(|| usage("yadokari login", "it needs the name of a registry"))?,
            user: self.username,
            password,
            is_shadowed: env("DOCKER_AUTH_CONFIG").is_some_and(|text| !text.is_empty()),
        })
    }
}

/// The file that builds read: DOCKER_CONFIG's, else the executor's own, else that of the home directory.
fn file(env: Variables<'_>) -> Result<PathBuf, Error> {
    let given = |name: &str| env(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let own = || Some(paths::home()).filter(|home| home.is_dir()).map(|home| home.join(".docker"));
    let home = || given("HOME").map(|home| home.join(".docker"));
    let directory = given("DOCKER_CONFIG").or_else(own).or_else(home);
    let none = || Error::Usage { flag: "yadokari login", message: "neither DOCKER_CONFIG nor HOME is set".into() };
    Ok(directory.ok_or_else(none)?.join("config.json"))
}

/// What the file calls a registry. Its scheme says nothing, and Docker's Hub has a name of its own.
fn key(registry: &str) -> Option<String> {
    let name = registry.trim_start_matches("https://").trim_start_matches("http://").trim_end_matches('/');
    match name {
        "" => None,
        "docker.io" | "index.docker.io" | "registry-1.docker.io" | "index.docker.io/v1" => Some(HUB.to_owned()),
        name => Some(name.to_owned()),
    }
}

impl LoginInvocation {
    /// Keeps the login. Everything else that the file says stays.
    pub(super) async fn execute(&self) -> Result<u8, Error> {
        let failed = |source| Error::Host { operation: "write", path: self.file.clone(), source };
        let before = match fs::read(&self.file) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
            Err(source) => return Err(Error::Host { operation: "read", path: self.file.clone(), source }),
        };
        let auth = STANDARD.encode(format!("{}:{}", self.user, self.password.expose()));
        let (after, helper) = with_login(&before, &self.key, &auth).map_err(|message| {
            let message = format!("{}: {message}", self.file.display());
            Error::Usage { flag: "yadokari login", message }
        })?;
        replace(&self.file, &after).map_err(failed)?;
        self.progress.info(&format!("the login for {} is in {}", self.key, self.file.display()));
        if let Some(helper) = helper {
            self.progress
                .warning(&format!("{}: '{helper}' is asked for this login before the file", self.file.display()));
        }
        if self.is_shadowed {
            self.progress.warning("DOCKER_AUTH_CONFIG is set: builds read it, and not the file");
        }
        Ok(0)
    }
}

/// A configuration with another login, and the helper that it names for this one.
fn with_login(before: &[u8], key: &str, auth: &str) -> Result<(Vec<u8>, Option<String>), String> {
    let mut config: Map<String, Value> = if before.iter().all(u8::is_ascii_whitespace) {
        Map::new()
    } else {
        // The text of an error could quote a password.
        serde_json::from_slice(before)
            .map_err(|error| format!("it is no JSON object: line {}, column {}", error.line(), error.column()))?
    };
    let helper = config.get("credHelpers").and_then(|helpers| helpers.get(key)).or_else(|| config.get("credsStore"));
    let helper = helper.and_then(Value::as_str).filter(|helper| !helper.is_empty()).map(str::to_owned);
    let auths = config.entry("auths").or_insert_with(|| json!({}));
    if auths.is_null() {
        *auths = json!({});
    }
    let Some(auths) = auths.as_object_mut() else { return Err("'auths' is no object".into()) };
    auths.insert(key.to_owned(), json!({ "auth": auth }));
    let text = serde_json::to_vec_pretty(&config).map_err(|error| error.to_string())?;
    Ok((text, helper))
}

/// Replaces a file by one that only its owner may read. A link stays, and what it leads to is replaced.
fn replace(path: &Path, content: &[u8]) -> io::Result<()> {
    let path = fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
    let parent = path.parent().unwrap_or(Path::new("."));
    fs::create_dir_all(parent)?;
    // It is made with mode 0600.
    let mut file = tempfile::NamedTempFile::new_in(parent)?;
    file.write_all(content)?;
    file.persist(&path)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use clap::Parser;
    use yadokari_registry::Config;

    use super::*;

    #[derive(Debug, Parser)]
    struct Line {
        #[command(flatten)]
        login: Login,
    }

    fn invocation(words: &str, input: &str, directory: &Path) -> Result<LoginInvocation, Error> {
        let line = Line::try_parse_from(std::iter::once("x").chain(words.split(' '))).unwrap();
        let env = |name: &str| (name == "DOCKER_CONFIG").then(|| directory.as_os_str().to_owned());
        line.login.invocation(&mut input.as_bytes(), &env)
    }

    fn found(file: &Path, key: &str) -> Option<(String, String)> {
        let logins = Config::parse(&fs::read(file).unwrap()).unwrap().logins;
        match logins.into_iter().find(|(name, _)| name == key)?.1 {
            yadokari_registry::Login::Password { user, password } => Some((user, password.expose().to_owned())),
            other => panic!("{other:?}"),
        }
    }

    #[tokio::test]
    async fn a_login_is_kept_beside_what_the_file_says_and_is_found_by_a_build() {
        let directory = tempfile::tempdir().unwrap();
        let (docker, file) = (directory.path().join("new"), directory.path().join("new/config.json"));
        let pair = |user: &str, password: &str| Some((user.to_owned(), password.to_owned()));
        invocation("r.example:5000 -u ann -p one:two", "", &docker).unwrap().execute().await.unwrap();
        assert_eq!(found(&file, "r.example:5000"), pair("ann", "one:two"));
        fs::write(&file, r#"{"auths":{"r.example":{"auth":"YTpi"}},"proxies":{"x":1}}"#).unwrap();
        fs::set_permissions(&file, fs::Permissions::from_mode(0o644)).unwrap();
        invocation("https://r.example/team/ -u bob --password-stdin", "secret\r\n", &docker)
            .unwrap()
            .execute()
            .await
            .unwrap();
        invocation("docker.io --username=eve --password=p", "", &docker).unwrap().execute().await.unwrap();
        assert_eq!(found(&file, "r.example"), pair("a", "b"));
        assert_eq!(found(&file, "r.example/team"), pair("bob", "secret"));
        assert_eq!(found(&file, HUB), pair("eve", "p"));
        let config: Value = serde_json::from_slice(&fs::read(&file).unwrap()).unwrap();
        assert_eq!(config["proxies"]["x"], 1);
        assert!(config["auths"][HUB].is_object());
        assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(fs::read_dir(&docker).unwrap().count(), 1);
    }

    #[test]
    fn a_login_needs_all_its_parts() {
        let directory = Path::new("/no/such");
        for (words, input, says) in [
            ("r.example -u a", "", "give --password-stdin"),
            ("r.example -p x", "", "a user and a password"),
            ("r.example -u a --password-stdin", "\n", "a user and a password"),
            ("r.example -u a:b -p x", "", "colon"),
            ("https:// -u a -p x", "", "the name of a registry"),
        ] {
            let error = invocation(words, input, directory).err().unwrap();
            assert!(error.to_string().contains(says), "{words}: {error}");
            assert_eq!(error.exit_code(), 2);
        }
        assert!(Line::try_parse_from(["x", "r", "-u", "a", "-p", "b", "--password-stdin"]).is_err());
        let line = Line::try_parse_from(["x", "r", "-u", "a", "-p", "hidden"]).unwrap();
        assert!(!format!("{line:?}").contains("hidden"));
    }

    #[test]
    fn what_stands_before_the_file_is_told_and_what_is_no_configuration_is_left_alone() {
        let helper = |config: &str| with_login(config.as_bytes(), "r.example", "x").map(|(_, helper)| helper);
        assert_eq!(helper(" \n"), Ok(None));
        assert_eq!(helper(r#"{"credsStore":"","auths":null}"#), Ok(None));
        assert_eq!(helper(r#"{"credsStore":"desktop"}"#), Ok(Some("desktop".into())));
        assert_eq!(helper(r#"{"credsStore":"desktop","credHelpers":{"r.example":"ecr"}}"#), Ok(Some("ecr".into())));
        for config in ["[]", r#"{"auths":[]}"#, "{\"auths\": secret"] {
            assert!(helper(config).is_err_and(|error| !error.contains("secret")), "{config}");
        }
    }
}
