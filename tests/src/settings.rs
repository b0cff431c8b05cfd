//! How this machine reaches the Internet: what a build step inside a container needs to know to do the same.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Write};
use std::path::PathBuf;

use crate::bases::file_digest;
use crate::error::Result;
use crate::layout::TarWriter;

const BUNDLE: &str = "etc/ssl/certs/ca-certificates.crt";

/// This machine's certificate authorities and pip settings.
#[derive(Clone, Debug)]
pub struct Settings {
    bundle: Option<(PathBuf, String)>,
    pip: BTreeMap<String, String>,
}

impl Settings {
    /// Reads them from where OpenSSL and pip look.
    pub fn of_this_machine() -> Result<Self> {
        let named = ["PIP_CERT", "SSL_CERT_FILE"].into_iter().filter_map(std::env::var_os).map(PathBuf::from);
        let bundle = named.chain([PathBuf::from("/").join(BUNDLE)]).find(|path| path.is_file());
        let bundle = bundle.map(|path| Ok((path.clone(), file_digest(&path)?))).transpose()?;
        Ok(Self { bundle, pip: pip() })
    }

    /// A text that changes when they do.
    pub(crate) fn recipe(&self) -> String {
        format!("{:?} {:?}", self.bundle.as_ref().map(|(_, digest)| digest), self.pip)
    }

    /// Writes them as a layer for a Debian image.
    pub(crate) fn write<W: Write>(&self, mut tar: TarWriter<W>) -> io::Result<()> {
        let mut conf = String::from("[global]\n");
        for (key, value) in &self.pip {
            conf += &format!("{key} = {value}\n");
        }
        for directory in ["etc", "etc/ssl", "etc/ssl/certs"] {
            tar.directory(directory, 0o755)?;
        }
        if let Some((path, _)) = &self.bundle {
            // pip brings its own list of authorities and would not know this machine's.
            conf += &format!("cert = /{BUNDLE}\n");
            tar.file(BUNDLE, 0o644, &fs::read(path)?)?;
        }
        tar.file("etc/pip.conf", 0o644, conf.as_bytes())?;
        tar.finish()
    }
}

/// The proxies of this machine's environment, which every RUN step knows as predefined arguments.
pub fn proxies() -> Vec<(String, String)> {
    let lower = ["http_proxy", "https_proxy", "no_proxy"];
    let names = lower.into_iter().flat_map(|name| [name.to_owned(), name.to_uppercase()]);
    names.filter_map(|name| std::env::var(&name).ok().map(|value| (name, value))).collect()
}

/// The settings that say where packages come from; what is said later wins, the environment last.
fn pip() -> BTreeMap<String, String> {
    let home = std::env::var_os("HOME").map(PathBuf::from).unwrap_or_default();
    let files = ["/etc/pip.conf".into(), home.join(".pip/pip.conf"), home.join(".config/pip/pip.conf")];
    let texts = files.iter().filter_map(|file| fs::read_to_string(file).ok());
    let mut found: BTreeMap<_, _> = texts.flat_map(|text| global(&text)).collect();
    for key in KEYS {
        let variable = format!("PIP_{}", key.to_uppercase().replace('-', "_"));
        found.extend(std::env::var(variable).ok().map(|value| (key.to_owned(), value)));
    }
    found
}

const KEYS: [&str; 5] = ["index-url", "extra-index-url", "trusted-host", "default-timeout", "timeout"];

fn global(text: &str) -> Vec<(String, String)> {
    let mut section = "";
    let mut found = Vec::new();
    for line in text.lines().map(str::trim) {
        if let Some(name) = line.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
            section = name;
        } else if let Some((key, value)) = line.split_once('=').filter(|_| section == "global")
            && KEYS.contains(&key.trim())
        {
            found.push((key.trim().to_owned(), value.trim().to_owned()));
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_global_keys_that_say_where_packages_come_from() {
        let text = "[global]\nindex-url = https://index.test/simple\ncert=/x\n[install]\ntimeout = 3\n";
        assert_eq!(global(text), [("index-url".to_owned(), "https://index.test/simple".to_owned())]);
    }
}
