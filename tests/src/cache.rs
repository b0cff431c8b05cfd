//! Things that take long to make and are kept between test runs: base images, unpacked packages.

use std::fs::{self, File, OpenOptions};
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock};
use sha2::{Digest, Sha256};

use crate::error::{At, Result};
use crate::scratch;

/// The cache directory, in cargo's target directory: `cargo clean` empties it.
pub fn directory() -> Result<PathBuf> {
    let directory = target().join("yadokari-tests");
    fs::create_dir_all(&directory).at("create", &directory)?;
    Ok(directory)
}

/// The directory `name-<hash of recipe>` of the cache, filled by `make` unless it is there already.
///
/// `make` fills a temporary directory that is renamed when it is complete, so nobody ever sees half of it, and a lock
/// per name lets one thread of one process do it. A changed recipe makes it anew and removes what the old one made.
pub fn once(name: &str, recipe: &str, make: impl FnOnce(&Path) -> Result<()>) -> Result<PathBuf> {
    let cache = directory()?;
    let hash: String = Sha256::digest(recipe).iter().take(6).map(|byte| format!("{byte:02x}")).collect();
    let complete = cache.join(format!("{name}-{hash}"));
    let _lock = lock(name)?;
    if complete.is_dir() {
        return Ok(complete);
    }
    for old in fs::read_dir(&cache).at("list", &cache)?.flatten() {
        let is_old =
            old.file_name().to_str().and_then(|n| n.strip_prefix(name)?.strip_prefix('-')).is_some_and(is_hash);
        if is_old {
            fs::remove_dir_all(old.path()).at("remove", old.path())?;
        }
    }
    let partial = scratch::directory()?;
    make(partial.path())?;
    fs::rename(partial.path(), &complete).at("rename", &complete)?;
    Ok(complete)
}

/// A lock named `name` that no other thread or process holds. It is released when the file is dropped.
pub fn lock(name: &str) -> Result<File> {
    let path = directory()?.join(format!("{name}.lock"));
    let file = OpenOptions::new().create(true).truncate(false).write(true).open(&path).at("open", &path)?;
    flock(&file, FlockOperation::LockExclusive).at("lock", &path)?;
    Ok(file)
}

fn is_hash(text: &str) -> bool {
    text.len() == 12 && text.bytes().all(|byte| byte.is_ascii_hexdigit())
}

/// Cargo's target directory: where this very program was built, or failing that, the workspace's own.
pub fn target() -> PathBuf {
    let built_in = std::env::current_exe().ok().and_then(|program| {
        program.ancestors().find(|directory| directory.join("CACHEDIR.TAG").is_file()).map(Path::to_owned)
    });
    built_in.unwrap_or_else(|| crate::workspace().join("target"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn made_once_and_again_when_the_recipe_changes() {
        let name = format!("cache-test-{}", std::process::id());
        let make = |recipe: &str| {
            once(&name, recipe, |partial| fs::write(partial.join("made"), recipe).at("write", partial)).unwrap()
        };
        let first = make("one");
        fs::write(first.join("made"), "kept").unwrap();
        assert_eq!(make("one"), first);
        assert_eq!(fs::read_to_string(first.join("made")).unwrap(), "kept");
        let second = make("two");
        assert!(!first.exists());
        fs::remove_dir_all(second).unwrap();
        fs::remove_file(directory().unwrap().join(format!("{name}.lock"))).unwrap();
    }
}
