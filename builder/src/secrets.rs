//! What a RUN may see and an image must never hold: secrets by their id, and SSH agents.
//!
//! Values are wiped from memory when they are dropped, and no debug output shows them.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};

use yadokari_registry::Secret;
use zeroize::Zeroizing;

use crate::csv;

/// The most bytes that a secret has, as with BuildKit.
pub const LARGEST: usize = 500 << 10;

/// The secrets of a build, by id.
#[derive(Clone, Default)]
pub struct Secrets(BTreeMap<String, Zeroizing<Vec<u8>>>);

impl Secrets {
    /// The value of the secret `id`, if there is one.
    pub fn get(&self, id: &str) -> Option<&[u8]> {
        self.0.get(id).map(|value| &value[..])
    }

    /// The value of the secret `id` as a text, if there is one and it is.
    pub fn text(&self, id: &str) -> Option<Secret> {
        std::str::from_utf8(self.get(id)?).ok().map(Secret::new)
    }

    /// Keeps a value under `id`, in place of an earlier one.
    pub fn insert(&mut self, id: impl Into<String>, value: Zeroizing<Vec<u8>>) {
        self.0.insert(id.into(), value);
    }

    /// The ids that have a value.
    pub fn ids(&self) -> impl Iterator<Item = &str> {
        self.0.keys().map(String::as_str)
    }
}

impl fmt::Debug for Secrets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.0.keys()).finish()
    }
}

/// Where the sockets of SSH agents are, by id.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Agents(BTreeMap<String, PathBuf>);

impl Agents {
    /// The socket of the agent `id`.
    pub fn get(&self, id: &str) -> Option<&Path> {
        self.0.get(id).map(PathBuf::as_path)
    }

    /// Keeps a socket under `id`, in place of an earlier one.
    pub fn insert(&mut self, id: impl Into<String>, socket: PathBuf) {
        self.0.insert(id.into(), socket);
    }

    /// The ids that have a socket.
    pub fn ids(&self) -> impl Iterator<Item = &str> {
        self.0.keys().map(String::as_str)
    }
}

/// Where the value of a secret comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    /// A file.
    File(PathBuf),
    /// An environment variable.
    Variable(String),
}

/// A secret as the command line names it: `id=ID[,src=PATH|env=VARIABLE][,type=file|env]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SecretSpec {
    /// What RUN calls it.
    pub id: String,
    /// Where its value is.
    pub place: Place,
}

impl SecretSpec {
    /// Reads `text`, or says what is wrong with it. What has neither a file nor a variable is the variable that is called
    /// like it, if `is_variable` knows one, else the file.
    pub fn parse(text: &str, is_variable: &dyn Fn(&str) -> bool) -> Result<Self, String> {
        let fields = csv::fields(text).map_err(|error| format!("'{text}': {}", error.message))?;
        let (mut id, mut source, mut variable, mut kind) = (None, None, None, None);
        for field in fields {
            let Some((key, value)) = field.text.split_once('=') else {
                return Err(format!("'{}' is not of the form KEY=VALUE", field.text));
            };
            match key.to_lowercase().as_str() {
                "id" => id = Some(value.to_owned()),
                "src" | "source" => source = Some(value.to_owned()).filter(|source| !source.is_empty()),
                "env" => variable = Some(value.to_owned()).filter(|variable| !variable.is_empty()),
                "type" if ["file", "env"].contains(&value) => kind = Some(value.to_owned()),
                "type" => return Err(format!("there is no type '{value}': the types are file and env")),
                _ => return Err(format!("there is no key '{key}': the keys are id, src, source, env and type")),
            }
        }
        let id = id.filter(|id| !id.is_empty()).ok_or_else(|| format!("'{text}' has no id: write id=NAME"))?;
        let place = match (kind.as_deref(), source, variable) {
            (_, Some(_), Some(_)) => return Err(format!("'{text}' has both src and env: write one of them")),
            (Some("file"), None, Some(_)) => return Err(format!("'{text}' has env, and type=file: leave one out")),
            (Some("env"), source, variable) => Place::Variable(variable.or(source).unwrap_or_else(|| id.clone())),
            (_, None, Some(variable)) => Place::Variable(variable),
            (_, Some(source), None) => Place::File(source.into()),
            (None, None, None) if is_variable(&id) => Place::Variable(id.clone()),
            (_, None, None) => Place::File(id.clone().into()),
        };
        Ok(Self { id, place })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_comes_from_a_file_or_from_the_environment() {
        let file = |path: &str| Place::File(path.into());
        let variable = |name: &str| Place::Variable(name.to_owned());
        let cases = [
            ("id=a", "a", file("a")),
            ("id=HOME", "HOME", variable("HOME")),
            ("type=file,id=HOME", "HOME", file("HOME")),
            ("id=a,src=/f", "a", file("/f")),
            ("ID=a,Source=f", "a", file("f")),
            ("type=file,id=a,src=f", "a", file("f")),
            ("type=file,id=a", "a", file("a")),
            ("id=a,env=V", "a", variable("V")),
            ("id=a,type=env", "a", variable("a")),
            ("id=a,type=env,env=V", "a", variable("V")),
            ("id=a,type=env,src=V", "a", variable("V")),
            (r#"id=a,"src=b,c""#, "a", file("b,c")),
            ("id=a,src=x=y", "a", file("x=y")),
        ];
        for (text, id, place) in cases {
            assert_eq!(
                SecretSpec::parse(text, &|name| name == "HOME"),
                Ok(SecretSpec { id: id.to_owned(), place }),
                "{text}"
            );
        }
    }

    #[test]
    fn wrong_secrets_are_refused() {
        let cases = [
            ("", "'' is not of the form KEY=VALUE"),
            ("a", "'a' is not of the form KEY=VALUE"),
            ("src=f", "'src=f' has no id: write id=NAME"),
            ("id=,src=f", "'id=,src=f' has no id: write id=NAME"),
            ("id=a,type=vault", "there is no type 'vault': the types are file and env"),
            ("id=a,path=f", "there is no key 'path': the keys are id, src, source, env and type"),
            ("id=a,src=f,env=V", "'id=a,src=f,env=V' has both src and env: write one of them"),
            ("id=a,type=file,env=V", "'id=a,type=file,env=V' has env, and type=file: leave one out"),
            ("id=a,\"src=f", "'id=a,\"src=f': a quoted field has no end, or goes on after it"),
        ];
        for (text, message) in cases {
            assert_eq!(SecretSpec::parse(text, &|_| false), Err(message.to_owned()), "{text}");
        }
    }

    #[test]
    fn values_are_not_shown() {
        let mut secrets = Secrets::default();
        secrets.insert("token", Zeroizing::new(b"hunter2".to_vec()));
        assert_eq!(secrets.get("token"), Some(&b"hunter2"[..]));
        assert_eq!(secrets.get("other"), None);
        assert_eq!(format!("{secrets:?}"), "{\"token\"}");
    }
}
