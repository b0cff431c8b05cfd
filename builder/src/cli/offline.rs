//! Builds without a way outside: which hosts are asked, and which digests base images have.

use std::fs;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use clap::{ArgAction, Args};
use yadokari_registry::Hosts;

use super::args::{path, truth};
use super::given;
use crate::Error;
use crate::lock::Lock;

/// What is kept from asking others.
#[derive(Debug, Args)]
pub(super) struct OfflineFlags {
    /// Ask no host but those of the registries that other flags name: --destination, --cache-repo, --registry-mirror and
    /// --registry-map. What the Dockerfile takes from elsewhere is an error. A RUN is not kept from anything.
    #[arg(long, action = ArgAction::Set, num_args = 0..=1, default_missing_value = "true", default_value = "false", value_parser = truth)]
    offline: bool,
    /// With --offline, ask this host, too, such as that of a registry's token server. Repeatable.
    #[arg(long, value_name = "HOST")]
    offline_allow: Vec<String>,
}

/// What base images are.
#[derive(Debug, Args)]
pub(super) struct LockFlags {
    /// Take base images by the digests that this file says, and add those that it does not. It is a source policy of
    /// BuildKit's.
    #[arg(long, value_name = "FILE", value_parser = path())]
    lock: Option<PathBuf>,
    /// Refuse base images that the file of --lock has no digest for, and never write it.
    #[arg(long, action = ArgAction::Set, num_args = 0..=1, default_missing_value = "true", default_value = "false", value_parser = truth)]
    locked: bool,
}

impl OfflineFlags {
    /// The hosts that may be asked, where not all may: those of `ours`, each `host[:port][/path]`.
    pub(super) fn hosts<'a>(&'a self, ours: impl Iterator<Item = &'a str>) -> Result<Option<Hosts>, Error> {
        const ALLOW: &str = "--offline-allow";
        let bad = |flag, message: String| Error::Usage { flag, message };
        if !self.offline {
            return match self.offline_allow.iter().find(|host| !host.is_empty()) {
                Some(host) => Err(bad(ALLOW, format!("'{host}': without --offline every host may be asked"))),
                None => Ok(None),
            };
        }
        let mut hosts = Hosts::default();
        let allowed = self.offline_allow.iter().map(|host| (ALLOW, &host[..]));
        for (flag, host) in ours.map(|host| ("--offline", host)).chain(allowed).filter(|(_, host)| !host.is_empty()) {
            hosts.add(host).map_err(|error| bad(flag, error.to_string()))?;
        }
        Ok(Some(hosts))
    }
}

impl LockFlags {
    /// The lock, as its file is now.
    pub(super) fn lock(&self) -> Result<Option<Arc<Lock>>, Error> {
        let bad = |flag, message: String| Error::Usage { flag, message };
        let Some(path) = given(&self.lock) else {
            return if self.locked { Err(bad("--locked", "it needs --lock".into())) } else { Ok(None) };
        };
        let shown = path.display();
        let text = match fs::read_to_string(&path) {
            Ok(text) => Some(text),
            Err(error) if error.kind() == io::ErrorKind::NotFound && self.locked => {
                return Err(bad("--locked", format!("'{shown}' is not there; a build without --locked writes it")));
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(source) => return Err(Error::Host { operation: "read", path: path.clone(), source }),
        };
        let lock = Lock::new(&path, text.as_deref(), self.locked);
        Ok(Some(Arc::new(lock.map_err(|message| bad("--lock", format!("'{shown}': {message}")))?)))
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::super::{Invocation, interpret, parse};
    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        offline: OfflineFlags,
        #[command(flatten)]
        lock: LockFlags,
    }

    fn line(words: &[&str]) -> Line {
        Line::try_parse_from(["x"].iter().chain(words)).unwrap_or_else(|error| panic!("{error}"))
    }

    fn hosts(words: &[&str], ours: &[&str]) -> Result<Option<Hosts>, String> {
        line(words).offline.hosts(ours.iter().copied()).map_err(|error| error.to_string())
    }

    #[test]
    fn hosts_that_may_be_asked_are_ours_and_those_that_are_allowed() {
        assert_eq!(hosts(&[], &["registry.lan"]), Ok(None));
        let words = ["--offline", "--offline-allow", "token.lan", "--offline-allow="];
        let found = hosts(&words, &["registry.lan:5000", "mirror.lan/hub", ""]).unwrap().unwrap();
        for host in ["registry.lan", "mirror.lan", "token.lan"] {
            assert!(found.has(host), "{host}");
        }
        assert!(!found.has("docker.io"));
        assert!(!hosts(&["--offline"], &[]).unwrap().unwrap().has("docker.io"));
        let error = hosts(&["--offline-allow", "token.lan"], &[]).unwrap_err();
        assert_eq!(error, "--offline-allow: 'token.lan': without --offline every host may be asked");
        assert!(hosts(&["--offline", "--offline-allow", "a b"], &[]).unwrap_err().starts_with("--offline-allow: "));
    }

    #[test]
    fn a_build_may_ask_the_registries_that_its_command_line_names() {
        let directory = tempfile::tempdir().unwrap();
        fs::write(directory.path().join("Dockerfile"), "FROM scratch\n").unwrap();
        let client = |flags: &str| {
            let line = format!("executor -c {} {flags}", directory.path().display());
            let words = line.split(' ').map(Into::into).collect();
            match interpret(parse(words).unwrap_or_else(|error| panic!("{error}"))) {
                Ok(Invocation::Build(build)) => build.request.client.clone(),
                Ok(_) => panic!("{line}"),
                Err(error) => panic!("{error}"),
            }
        };
        let flags = "-d a.lan:5000/i:1 --destination=b.lan/i --cache --cache-repo c.lan/cache --cache-from d.lan/cache \
                     --registry-mirror e.lan/hub --registry-map quay.io=f.lan/quay;gcr.io=g.lan";
        let free = client(flags);
        assert!(free.may_ask("docker.io"));
        let kept = client(&format!("{flags} --offline --offline-allow h.lan"));
        for host in ["a.lan", "b.lan", "c.lan", "d.lan", "e.lan", "f.lan", "g.lan", "h.lan"] {
            assert!(kept.may_ask(host), "{host}");
        }
        for host in ["docker.io", "quay.io", "gcr.io", "lan"] {
            assert!(!kept.may_ask(host), "{host}");
        }
        // Nothing is pushed, and where the image would go may be read all the same.
        assert!(client("--offline --no-push -d a.lan/i --registry-mirror e.lan").may_ask("a.lan"));
    }

    #[test]
    fn a_lock_is_read_where_it_is_and_has_to_be_there_when_it_must_be_complete() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("base.lock");
        let lock = |words: &[&str]| line(words).lock.lock().map_err(|error| error.to_string());
        let flag = format!("--lock={}", path.display());
        assert!(lock(&[]).unwrap().is_none() && lock(&["--lock="]).unwrap().is_none());
        assert!(lock(&[&flag]).unwrap().unwrap().admits(&"alpine".parse().unwrap()));
        let error = lock(&[&flag, "--locked"]).unwrap_err();
        assert!(error.starts_with("--locked: '") && error.contains("base.lock' is not there"), "{error}");
        assert_eq!(lock(&["--locked"]).unwrap_err(), "--locked: it needs --lock");
        fs::write(&path, r#"{"rules":[]}"#).unwrap();
        assert!(!lock(&[&flag, "--locked"]).unwrap().unwrap().admits(&"alpine".parse().unwrap()));
        fs::write(&path, r#"{"rules":[{"action":"DENY","selector":{"identifier":"*"}}]}"#).unwrap();
        let error = lock(&[&flag]).unwrap_err();
        assert!(
            error.starts_with("--lock: '") && error.contains("base.lock': rule 1 ('*'): the action DENY"),
            "{error}"
        );
    }
}
