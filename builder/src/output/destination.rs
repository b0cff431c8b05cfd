//! Where an image goes, and the names that depend on what is in it.

use std::path::PathBuf;

use yadokari_layers::Key;
use yadokari_registry::{Error, Reference};

use super::Export;

/// What a user writes for the content hash, in a tag.
const KEY: &str = "{key}";

/// What stands for it in a reference, which can hold no braces, until the hash is known: as long, and nothing's hash.
const STAND_IN: &str = "0000000000000000000000000000000000000000000000000000000000000000";

/// Where an image goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Destination {
    /// A registry, under a tag.
    Registry(Reference),
    /// An OCI layout directory. The tag is the first destination's, or `latest`.
    Layout {
        /// The directory, made where it is missing.
        directory: PathBuf,
        /// The name in its index.
        tag: String,
    },
    /// A tar archive as `docker save` writes it.
    Tarball {
        /// The file, which is replaced.
        path: PathBuf,
        /// What `docker load` calls the image.
        names: Vec<Reference>,
    },
    /// The root file system alone.
    Root(Export),
}

/// Reads the name of a destination, in whose tag `{key}` stands for the content hash. The reference is of no use until
/// [`Destination::with_key`] has put the hash there.
pub fn name(text: &str) -> Result<Reference, Error> {
    let fail = |reason| Error::Reference { text: text.chars().take(300).collect(), reason };
    let reference: Reference = text.replace(KEY, STAND_IN).parse().map_err(|error| match error {
        Error::Reference { reason, .. } => fail(reason),
        other => other,
    })?;
    let elsewhere = reference.name().contains(STAND_IN) || reference.digest().is_some();
    if text.contains(KEY) && elsewhere { Err(fail("{key} stands in tags only")) } else { Ok(reference) }
}

/// Puts the content hash into the names of destinations. Where the image is to be found by it in later builds, each
/// repository of a registry gets it as a tag of its own, too.
pub fn name_by_key(destinations: &mut Vec<Destination>, key: &Key, tag_it: bool) {
    destinations.iter_mut().for_each(|destination| *destination = destination.with_key(key));
    let names = destinations.iter().filter_map(|destination| match destination {
        Destination::Registry(name) => name.with_tag(&key.hex()).ok().map(Destination::Registry),
        Destination::Layout { .. } | Destination::Tarball { .. } | Destination::Root(_) => None,
    });
    let names: Vec<Destination> = names.filter(|_| tag_it).collect();
    for name in names {
        if !destinations.contains(&name) {
            destinations.push(name);
        }
    }
}

impl Destination {
    /// Whether its name depends on the content hash.
    pub fn needs_key(&self) -> bool {
        let needs = |name: &Reference| name.tag().is_some_and(|tag| tag.contains(STAND_IN));
        match self {
            Self::Registry(name) => needs(name),
            Self::Layout { tag, .. } => tag.contains(STAND_IN),
            Self::Tarball { names, .. } => names.iter().any(needs),
            Self::Root(_) => false,
        }
    }

    /// The same, with the content hash where `{key}` was written.
    #[must_use]
    pub fn with_key(&self, key: &Key) -> Self {
        match self {
            Self::Registry(name) => Self::Registry(with_key(name, key)),
            Self::Layout { directory, tag } => {
                Self::Layout { directory: directory.clone(), tag: tag_with_key(tag, key) }
            }
            Self::Tarball { path, names } => {
                Self::Tarball { path: path.clone(), names: names.iter().map(|name| with_key(name, key)).collect() }
            }
            Self::Root(export) => Self::Root(export.clone()),
        }
    }
}

/// The name with the content hash where `{key}` was written in its tag.
pub fn with_key(name: &Reference, key: &Key) -> Reference {
    match name.tag() {
        Some(tag) if tag.contains(STAND_IN) => {
            name.with_tag(&tag_with_key(tag, key)).expect("one tag with 64 digits is as legal as another")
        }
        _ => name.clone(),
    }
}

fn tag_with_key(tag: &str, key: &Key) -> String {
    tag.replace(STAND_IN, &key.hex())
}

#[cfg(test)]
mod tests {
    use yadokari_layers::KeyHasher;

    use super::*;

    #[test]
    fn the_content_hash_stands_where_the_tag_says() {
        let key = KeyHasher::new("x").finish();
        let [plain, templated] = ["r.example/app:1", "r.example/app:v-{key}"].map(|text| name(text).unwrap());
        let put = |name: &Reference| Destination::Registry(name.clone()).with_key(&key);
        let expected: Reference = format!("r.example/app:v-{}", key.hex()).parse().unwrap();
        assert_eq!(put(&templated), Destination::Registry(expected.clone()));
        assert_eq!(put(&plain), Destination::Registry(plain.clone()));
        let tag = templated.tag().unwrap().to_owned();
        let layout = Destination::Layout { directory: "d".into(), tag };
        assert!(layout.needs_key());
        assert_eq!(
            layout.with_key(&key),
            Destination::Layout { directory: "d".into(), tag: format!("v-{}", key.hex()) }
        );
        let tarball = Destination::Tarball { path: "t".into(), names: vec![plain.clone(), templated] };
        assert!(tarball.needs_key());
        let tarball = tarball.with_key(&key);
        assert_eq!(tarball, Destination::Tarball { path: "t".into(), names: vec![plain, expected] });
        assert!(!tarball.needs_key());
    }

    #[test]
    fn the_content_hash_stands_nowhere_else() {
        for text in ["r.example/{key}:1", "r.example/app@sha256:{key}", "{key}"] {
            assert!(name(text).unwrap_err().to_string().contains("{key} stands in tags only"), "{text}");
        }
        let error = name(&format!("r.example/app:{}{{key}}", "x".repeat(65))).unwrap_err().to_string();
        assert!(error.contains("{key}") && error.contains("1 to 128"), "{error}");
        assert!(name("UPPER/case").is_err());
    }
}
