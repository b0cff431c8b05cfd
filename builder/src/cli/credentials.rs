//! Logins: read once, before anything runs.

use std::env;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use yadokari_registry::Credentials;

use super::paths;
use crate::Error;
use crate::progress::Progress;

/// The logins of the first place that has any, and the files to hide while an in-place RUN runs: `DOCKER_AUTH_CONFIG`
/// holds a config itself; then come `$DOCKER_CONFIG/config.json`, the executor's own
/// `.docker/config.json`, and the home directory's.
pub(super) fn load(progress: &Progress) -> Result<(Credentials, Vec<PathBuf>), Error> {
    let own = paths::home().join(".docker/config.json");
    let named = env::var_os("DOCKER_CONFIG").map(|directory| PathBuf::from(directory).join("config.json"));
    let home = env::var_os("HOME").map(|home| PathBuf::from(home).join(".docker/config.json"));
    let files: Vec<PathBuf> = named.into_iter().chain([own.clone()]).chain(home).collect();
    // All of them: whoever wrote the one that is not read meant it no less for us alone.
    let mut hide = files.clone();
    hide.sort();
    hide.dedup();
    if let Ok(text) = env::var("DOCKER_AUTH_CONFIG")
        && !text.is_empty()
    {
        let credentials = parse(text.as_bytes(), Path::new("DOCKER_AUTH_CONFIG"), progress)?;
        return Ok((credentials, hide));
    }
    for file in files {
        match fs::read(&file) {
            Ok(bytes) => return Ok((parse(&bytes, &file, progress)?, hide)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(source) => return Err(Error::Host { operation: "read", path: file, source }),
        }
    }
    Ok((Credentials::default(), hide))
}

fn parse(bytes: &[u8], from: &Path, progress: &Progress) -> Result<Credentials, Error> {
    if bytes.iter().all(u8::is_ascii_whitespace) {
        return Ok(Credentials::default());
    }
    let bad = |error: yadokari_registry::Error| Error::Usage {
        flag: "credentials",
        message: format!("{}: {error}", from.display()),
    };
    let credentials = Credentials::parse(bytes).map_err(bad)?;
    for warning in credentials.warnings() {
        progress.warning(&format!("{}: {warning}", from.display()));
    }
    Ok(credentials)
}
