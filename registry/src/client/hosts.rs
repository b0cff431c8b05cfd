//! Which hosts may be asked at all.

use std::collections::BTreeSet;

use super::endpoint::{HUB_HOST, source};
use crate::Result;
use crate::reference::is_hub;

/// Hosts by their names alone: whoever may be asked on one port may be asked on all. A registry's token server often
/// has its host and another port.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Hosts(BTreeSet<String>);

impl Hosts {
    /// Adds the host of a registry or a mirror, `host[:port][/path]`.
    pub fn add(&mut self, text: &str) -> Result<()> {
        let (host, _) = source("host", text)?;
        self.0.insert(name(&host).to_owned());
        Ok(())
    }

    /// Whether a host, `host[:port]`, is one of them.
    pub fn has(&self, host: &str) -> bool {
        self.0.contains(name(&host.to_ascii_lowercase()))
    }
}

/// The host of `host[:port]` without the port, and without the brackets of an IPv6 address. Docker Hub is the host that
/// serves it.
pub(super) fn name(host: &str) -> &str {
    let name = match host.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((address, _)) => address,
        // A second colon makes it an address without brackets.
        None => host.split_once(':').filter(|(_, port)| !port.contains(':')).map_or(host, |(name, _)| name),
    };
    if is_hub(name) { HUB_HOST } else { name }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_are_known_by_their_names_on_any_port() {
        let mut hosts = Hosts::default();
        for text in ["Registry.lan:5050/group/app", "https://mirror.lan/hub", "[fd00::1]:5000", "docker.io"] {
            hosts.add(text).unwrap();
        }
        for host in ["registry.lan", "REGISTRY.lan:443", "mirror.lan", "[fd00::1]", "fd00::1", "registry-1.docker.io"] {
            assert!(hosts.has(host), "{host}");
        }
        for host in ["lan", "x.registry.lan", "registry.lan.x", "auth.docker.io", "fd00::2", "", "quay.io"] {
            assert!(!hosts.has(host), "{host}");
        }
        assert!(hosts.add("a b").is_err());
    }
}
