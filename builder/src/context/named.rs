//! Contexts beside the main one: `--build-context NAME=VALUE`.
//!
//! A name stands for what it says wherever the Dockerfile names a stage or an image: in FROM, in `--from` and in mounts.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use yadokari_registry::Reference;

use super::Context;
use crate::remote::ContextName;

/// What the value of a `--build-context` says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// A directory.
    Directory(PathBuf),
    /// An image, as FROM would name it: `docker-image://`, `oci-layout://`.
    Image(String),
    /// A repository, or an archive behind a URL. It is a directory once it is fetched.
    Elsewhere(ContextName),
    /// Nothing: `docker-image://scratch`.
    Nothing,
}

impl Source {
    /// Reads the value; the failure says what is wrong with it.
    pub fn parse(value: &str) -> Result<Self, String> {
        if value.is_empty() {
            return Err("it names no directory".into());
        }
        if let Some(name) = ContextName::parse(value)? {
            return Ok(Self::Elsewhere(name));
        }
        let Some((scheme, rest)) = value.split_once(':').filter(|(scheme, _)| is_scheme(scheme)) else {
            return Ok(Self::Directory(value.into()));
        };
        let after_slashes = rest.strip_prefix("//");
        match (scheme, after_slashes.unwrap_or(rest)) {
            ("docker-image", "scratch") => Ok(Self::Nothing),
            ("docker-image", name) => {
                let reference = name.parse::<Reference>().map_err(|error| error.to_string())?;
                Ok(Self::Image(reference.to_string()))
            }
            ("oci-layout", "") => Err("oci-layout:// names no directory".into()),
            ("oci-layout", layout) => Ok(Self::Image(format!("oci:{layout}"))),
            ("target", _) => Err("'target:' names a target of a bake file, and there is none here; a stage of this \
                                  Dockerfile can be named by itself"
                .into()),
            (_, _) if after_slashes.is_some() => Err(format!(
                "there are no contexts from {scheme}://; write a directory, a repository, https://, docker-image:// or \
                 oci-layout://"
            )),
            // A directory may have a colon in its name.
            _ => Ok(Self::Directory(value.into())),
        }
    }
}

impl Source {
    /// The directory, if that is what it is.
    pub fn directory(&self) -> Option<&Path> {
        match self {
            Self::Directory(path) => Some(path),
            Self::Image(_) | Self::Elsewhere(_) | Self::Nothing => None,
        }
    }
}

fn is_scheme(text: &str) -> bool {
    text.starts_with(|c: char| c.is_ascii_alphabetic())
        && text.chars().all(|c| c.is_ascii_alphanumeric() || "+-.".contains(c))
}

/// A named context that can be taken from.
#[derive(Debug)]
pub enum Named {
    /// A directory, less what its own `.dockerignore` leaves out.
    Directory(Box<Context>),
    /// An image.
    Image(String),
    /// Nothing.
    Nothing,
}

/// All contexts of a build.
#[derive(Debug)]
pub struct Contexts {
    main: Context,
    /// By what the name means as an image: `alpine` and `docker.io/library/alpine:latest` are one.
    named: BTreeMap<Reference, (String, Named)>,
}

impl Contexts {
    /// The main context, and others by their names, which have been fetched. Of two of one name the later one counts.
    pub fn open(main: Context, sources: &[(String, Source)]) -> Result<Self, crate::Error> {
        let mut named = BTreeMap::new();
        for (name, source) in sources {
            let value = match source {
                Source::Directory(path) => Named::Directory(Box::new(Context::beside(path)?)),
                Source::Image(image) => Named::Image(image.clone()),
                Source::Elsewhere(_) => {
                    let message = format!("{name}: it has not been fetched");
                    return Err(crate::Error::Usage { flag: "--build-context", message });
                }
                Source::Nothing => Named::Nothing,
            };
            named.insert(key(name)?, (name.clone(), value));
        }
        Ok(Self { main, named })
    }

    /// The main context.
    pub fn main(&self) -> &Context {
        &self.main
    }

    /// What a name of the Dockerfile stands for, if a context has it, and how the command line spells it.
    pub fn named(&self, name: &str) -> Option<(&str, &Named)> {
        let (name, value) = self.named.get(&key(name).ok()?)?;
        Some((name, value))
    }

    /// A named directory.
    pub fn directory(&self, name: &str) -> Option<&Context> {
        match self.named(name)? {
            (_, Named::Directory(context)) => Some(context),
            _ => None,
        }
    }
}

/// The name of a context, which must be one that an image or a stage can have, and neither `context` nor `scratch`.
fn key(name: &str) -> Result<Reference, crate::Error> {
    let refuse = |message: String| crate::Error::Usage { flag: "--build-context", message };
    if name.eq_ignore_ascii_case("context") || name.eq_ignore_ascii_case("scratch") {
        return Err(refuse(format!("'{name}' is reserved and cannot be the name of a context")));
    }
    // Stages are found whatever their case is.
    let reference = name.parse::<Reference>().or_else(|error| name.to_lowercase().parse().map_err(|_| error));
    reference.map_err(|error| refuse(format!("'{name}' cannot be the name of a context: {error}")))
}

impl Context {
    /// Opens a directory beside the main context. Only its own `.dockerignore` says what to leave out.
    fn beside(path: &Path) -> Result<Self, crate::Error> {
        Self::with_ignore_files(path, &[path.join(".dockerignore")])
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn values_are_directories_images_or_nothing() {
        let image = |name: &str| Ok(Source::Image(name.into()));
        let cases = [
            ("dir", Ok(Source::Directory("dir".into()))),
            ("../a:b/c", Ok(Source::Directory("../a:b/c".into()))),
            ("a:b", Ok(Source::Directory("a:b".into()))),
            ("docker-image://alpine", image("docker.io/library/alpine:latest")),
            ("docker-image:alpine:3", image("docker.io/library/alpine:3")),
            ("docker-image://scratch", Ok(Source::Nothing)),
            ("oci-layout://d/e:tag", image("oci:d/e:tag")),
            ("oci-layout:///d", image("oci:/d")),
        ];
        for (value, expected) in cases {
            assert_eq!(Source::parse(value), expected, "{value}");
        }
    }

    #[test]
    fn what_is_no_context_is_refused_by_name() {
        let cases = [
            ("", "it names no directory"),
            ("docker-image://UPPER", "lower case"),
            ("oci-layout://", "names no directory"),
            ("target:other", "'target:' names a target of a bake file"),
            ("s3://bucket", "there are no contexts from s3://"),
            ("https://example.com/a.git?x=1", "x"),
        ];
        for (value, message) in cases {
            let error = Source::parse(value).unwrap_err();
            assert!(error.contains(message), "{value}: {error}");
        }
    }

    #[test]
    fn repositories_and_urls_are_fetched() {
        for value in ["https://example.com/context.tar.gz", "git://example.com/a.git#main:dir", "git@example.com:a.git"]
        {
            let source = Source::parse(value).unwrap();
            assert!(matches!(source, Source::Elsewhere(_)), "{value}: {source:?}");
            let main = tempfile::tempdir().unwrap();
            let main = Context::open(main.path(), Path::new("/none")).unwrap();
            assert!(Contexts::open(main, &[("a".to_owned(), source)]).is_err());
        }
    }

    #[test]
    fn names_are_those_of_images() {
        let main = tempfile::tempdir().unwrap();
        let open = |names: &[&str]| {
            let main = Context::open(main.path(), Path::new("/none")).unwrap();
            let sources: Vec<_> = names.iter().map(|name| ((*name).to_owned(), Source::Nothing)).collect();
            Contexts::open(main, &sources)
        };
        let contexts = open(&["alpine", "registry.example/a/b:1"]).unwrap();
        for name in ["alpine", "alpine:latest", "docker.io/library/alpine", "index.docker.io/library/alpine:latest"] {
            assert_eq!(contexts.named(name).map(|(name, _)| name), Some("alpine"), "{name}");
        }
        assert!(contexts.named("registry.example/a/b:1").is_some() && contexts.named("ALPINE").is_some());
        for name in ["alpine:3", "library", "registry.example/a/b", "scratch", "not a name"] {
            assert!(contexts.named(name).is_none(), "{name}");
        }
        for name in ["context", "Scratch", "a b", "", "a::b"] {
            assert!(open(&[name]).is_err(), "{name}");
        }
    }

    #[test]
    fn a_directory_has_an_ignore_file_of_its_own() {
        let (main, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        fs::write(main.path().join(".dockerignore"), "a\n").unwrap();
        fs::write(other.path().join(".dockerignore"), "b\n.dockerignore\n").unwrap();
        ["a", "b"].iter().for_each(|name| fs::write(other.path().join(name), "").unwrap());
        let open = |path: &Path| {
            let main = Context::open(main.path(), &main.path().join("Dockerfile")).unwrap();
            Contexts::open(main, &[("o".into(), Source::Directory(path.to_owned()))])
        };
        let contexts = open(other.path()).unwrap();
        let tree = contexts.directory("o").unwrap().tree().unwrap();
        assert_eq!(tree.iter().map(|(path, _)| path.to_string()).collect::<Vec<_>>(), ["a"]);
        assert!(open(&other.path().join("none")).unwrap_err().to_string().contains("none"));
        assert!(open(&other.path().join("a")).is_err());
    }
}
