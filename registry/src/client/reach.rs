//! Who may be led where: this machine, and the metadata servers of clouds, are nobody's business but that of whoever names them.
//!
//! A registry, a mirror or a server of files says with redirects, upload sessions and token servers who is asked next. What it
//! names is looked at twice: as a URL, and, since a name may stand for any address, when the name is resolved.

use std::collections::HashSet;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use reqwest::Url;
use reqwest::dns::{Addrs, Name, Resolve, Resolving};

use super::endpoint::host_of;
use super::names::Names;

/// The names of metadata servers that are no address, and that stand for one only within their cloud.
const METADATA_NAMES: [&str; 2] = ["metadata.google.internal", "metadata.goog"];

/// Metadata servers that are not in the blocks of the link that most clouds have them in: those of Alibaba, of Azure's machines, of
/// Oracle's older ones, of Tencent and of Scaleway.
const METADATA_V4: [Ipv4Addr; 5] = [
    Ipv4Addr::new(100, 100, 100, 200),
    Ipv4Addr::new(168, 63, 129, 16),
    Ipv4Addr::new(192, 0, 0, 192),
    Ipv4Addr::new(169, 254, 0, 23),
    Ipv4Addr::new(169, 254, 42, 42),
];

/// Google's.
const METADATA_V6: Ipv6Addr = Ipv6Addr::new(0xfd20, 0xce, 0, 0, 0, 0, 0, 0x254);

/// Whose an address is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Zone {
    /// Anybody's, private networks included: registries and their storage live there.
    Open,
    /// This machine's.
    Machine,
    /// This link's alone. Some container engines have the host there.
    Link,
    /// A metadata server's, which gives whoever asks the machine's own login.
    Metadata,
}

impl Zone {
    /// The zone of a URL, as far as its host tells.
    pub(crate) fn of(url: &Url) -> Self {
        let host = url.host_str().unwrap_or_default().trim_end_matches('.');
        if METADATA_NAMES.contains(&host) {
            return Self::Metadata;
        }
        if host == "localhost" || host.ends_with(".localhost") {
            return Self::Machine;
        }
        address(url).map_or(Self::Open, Self::of_address)
    }

    fn of_address(address: IpAddr) -> Self {
        match plain(address) {
            address if address.is_loopback() || address.is_unspecified() => Self::Machine,
            IpAddr::V4(address) if METADATA_V4.contains(&address) => Self::Metadata,
            IpAddr::V4(address) if matches!(address.octets(), [169, 254, 169 | 170, _]) => Self::Metadata,
            IpAddr::V4(address) if address.is_link_local() => Self::Link,
            // All that Amazon's machines have on their link is in this block.
            IpAddr::V6(address) if address.segments()[..2] == [0xfd00, 0xec2] => Self::Metadata,
            IpAddr::V6(address) if address == METADATA_V6 => Self::Metadata,
            IpAddr::V6(address) if address.is_unicast_link_local() => Self::Link,
            _ => Self::Open,
        }
    }
}

/// The address that a URL has for a host.
fn address(url: &Url) -> Option<IpAddr> {
    url.host_str()?.trim_matches(['[', ']']).parse().ok()
}

/// An address, with IPv4 addresses taken out of their IPv6 disguises: mapped ones, compatible ones, and those behind NAT64.
fn plain(address: IpAddr) -> IpAddr {
    let IpAddr::V6(long) = address.to_canonical() else { return address.to_canonical() };
    let [.., high, low] = long.segments();
    let short = Ipv4Addr::from(u32::from(high) << 16 | u32::from(low));
    match long.segments()[..6] {
        [0x64, 0xff9b, 0, 0, 0, 0] => short.into(),
        [0, 0, 0, 0, 0, 0] if high > 0 => short.into(),
        _ => long.into(),
    }
}

/// Whether a host is this machine itself, to which plain HTTP is as safe as anything.
pub(crate) fn is_loopback(url: &Url) -> bool {
    // Not every system takes 0.0.0.0 for this machine.
    let is_unspecified = address(url).is_some_and(|address| plain(address).is_unspecified());
    Zone::of(url) == Zone::Machine && !is_unspecified
}

/// Refuses to be led from `base` to a place that is not its business; a host may lead to itself.
pub(crate) fn may_lead(base: &Url, next: &Url) -> Result<(), String> {
    match Zone::of(next) {
        Zone::Open => Ok(()),
        _ if next.host_str() == base.host_str() => Ok(()),
        Zone::Machine if Zone::of(base) == Zone::Machine => Ok(()),
        Zone::Machine => Err(format!("the local address {}", host_of(next))),
        Zone::Link | Zone::Metadata => {
            Err(format!("{}, which is an address of this link or of a metadata server", host_of(next)))
        }
    }
}

/// The resolver of all clients. It drops the addresses that a name must not stand for.
#[derive(Debug, Default)]
pub(crate) struct Reach {
    /// Hosts that were named by whoever started us, and may be this machine or on its link.
    named: Mutex<HashSet<String>>,
    /// Hosts that may be anything: proxies, and the metadata servers that logins are asked of.
    free: Mutex<HashSet<String>>,
    /// Whether somebody who was named is this machine: then others may be, too, such as its token server.
    inside: AtomicBool,
}

impl Reach {
    /// Lets a host be this machine or on its link, since it was not another host that named it.
    pub(crate) fn name(&self, url: &Url) {
        if Zone::of(url) == Zone::Machine {
            self.inside.store(true, Ordering::Relaxed);
        }
        insert(&self.named, url);
    }

    /// Lets a host be anything.
    pub(crate) fn free(&self, url: &Url) {
        insert(&self.free, url);
    }

    /// Those addresses of a name that it may stand for, or why there are none.
    fn choose(&self, name: &str, addresses: Vec<SocketAddr>) -> io::Result<Vec<SocketAddr>> {
        if has(&self.free, name) {
            return Ok(addresses);
        }
        let zone = |address: &SocketAddr| Zone::of_address(address.ip());
        let is_named = has(&self.named, name);
        if is_named && addresses.iter().any(|address| zone(address) == Zone::Machine) {
            self.inside.store(true, Ordering::Relaxed);
        }
        let first = addresses.first().copied();
        let may = |address: &SocketAddr| match zone(address) {
            Zone::Open => true,
            Zone::Machine => self.inside.load(Ordering::Relaxed),
            Zone::Link => is_named,
            Zone::Metadata => false,
        };
        let chosen: Vec<_> = addresses.into_iter().filter(may).collect();
        match first {
            Some(first) if chosen.is_empty() => {
                let text = format!("{name} is {}, where nobody is led by its name", first.ip());
                // The kind that says that trying again is pointless.
                Err(io::Error::new(io::ErrorKind::InvalidData, text))
            }
            _ => Ok(chosen),
        }
    }
}

/// What a client resolves names with: how they are looked up, and where they may lead.
#[derive(Debug, Clone, Default)]
pub(crate) struct Resolver(pub(crate) Arc<Reach>, pub(crate) Names);

impl Resolve for Resolver {
    fn resolve(&self, name: Name) -> Resolving {
        let Self(reach, names) = self.clone();
        Box::pin(async move {
            let found = names.look_up(name.as_str()).await?;
            let chosen = reach.choose(name.as_str(), found)?;
            Ok(Box::new(chosen.into_iter()) as Addrs)
        })
    }
}

fn insert(hosts: &Mutex<HashSet<String>>, url: &Url) {
    let host = url.host_str().unwrap_or_default().to_owned();
    hosts.lock().unwrap_or_else(PoisonError::into_inner).insert(host);
}

fn has(hosts: &Mutex<HashSet<String>>, name: &str) -> bool {
    hosts.lock().unwrap_or_else(PoisonError::into_inner).contains(name)
}

#[cfg(test)]
mod tests {
    use super::super::names::Surroundings;
    use super::*;

    fn url(host: &str) -> Url {
        format!("https://{host}/x").parse().unwrap()
    }

    /// What a metadata server is called, in all its disguises.
    const METADATA: [&str; 21] = [
        "169.254.169.254",
        "169.254.170.2",
        "2852039166",
        "0xa9.0376.0xa9fe",
        "169.254.169.254.",
        "[::ffff:169.254.169.254]",
        "[::169.254.169.254]",
        "[64:ff9b::169.254.169.254]",
        "169.254.0.23",
        "169.254.42.42",
        "[fd00:ec2::254]",
        "[fd00:ec2::23]",
        "[fd20:ce::254]",
        "100.100.100.200",
        "[::ffff:100.100.100.200]",
        "168.63.129.16",
        "192.0.0.192",
        "metadata.google.internal",
        "METADATA.google.internal.",
        "metadata.goog",
        "%31%36%39.254.169.254",
    ];

    #[test]
    fn nobody_is_led_to_a_metadata_server_from_anywhere() {
        for host in METADATA {
            assert_eq!(Zone::of(&url(host)), Zone::Metadata, "{host}");
            for base in ["registry.example", "10.0.0.1", "localhost:5000", "127.0.0.1", "169.254.20.10"] {
                let refused = may_lead(&url(base), &url(host)).unwrap_err();
                assert!(refused.contains("of a metadata server"), "{base} to {host}: {refused}");
            }
        }
    }

    #[test]
    fn nobody_is_led_to_this_link() {
        for host in ["169.254.20.10", "[fe80::1]", "[64:ff9b::169.254.1.2]"] {
            for base in ["registry.example", "10.0.0.1", "localhost:5000"] {
                assert!(may_lead(&url(base), &url(host)).is_err(), "{base} to {host}");
            }
            assert!(may_lead(&url(host), &url(host)).is_ok(), "{host}");
        }
    }

    #[test]
    fn only_who_is_on_this_machine_leads_to_it() {
        let machine = [
            "localhost",
            "localhost.",
            "x.localhost",
            "127.0.0.1",
            "127.1",
            "[::1]",
            "[::ffff:127.9.9.9]",
            "0.0.0.0",
            "[::]",
        ];
        for host in machine {
            assert!(may_lead(&url("registry.example"), &url(host)).is_err(), "{host}");
            assert!(may_lead(&url("localhost:5000"), &url(host)).is_ok(), "{host}");
            assert!(may_lead(&url(host), &url(host)).is_ok(), "{host}");
        }
        for host in ["storage.example", "10.0.0.7", "192.168.1.1", "[fd00::1]", "[2001:db8::1]", "100.64.0.1"] {
            assert!(may_lead(&url("registry.example"), &url(host)).is_ok(), "{host}");
        }
    }

    #[test]
    fn a_name_stands_for_no_metadata_server_and_not_for_this_machine_unless_it_was_named() {
        let (open, machine, metadata) = ("10.0.0.7:0", "127.0.0.1:0", "169.254.169.254:0");
        let choose = |reach: &Reach, name: &str, of: &[&str]| {
            let addresses = of.iter().map(|address| address.parse().unwrap()).collect();
            let chosen = reach.choose(name, addresses).map_err(|error| error.to_string())?;
            Ok::<_, String>(chosen.iter().map(ToString::to_string).collect::<Vec<_>>())
        };
        let reach = Reach::default();
        reach.name(&url("registry.example"));
        for name in ["evil.example", "registry.example"] {
            let refused = choose(&reach, name, &[metadata]).unwrap_err();
            assert_eq!(refused, format!("{name} is 169.254.169.254, where nobody is led by its name"));
            assert_eq!(choose(&reach, name, &[metadata, open, "[fd00:ec2::254]:0"]).unwrap(), [open]);
        }
        assert!(choose(&reach, "evil.example", &[machine]).is_err());
        // Where Podman has the host of its containers.
        assert!(choose(&reach, "evil.example", &["169.254.1.2:0"]).is_err());
        assert_eq!(choose(&reach, "registry.example", &["169.254.1.2:0"]).unwrap(), ["169.254.1.2:0"]);
        assert_eq!(choose(&reach, "evil.example", &[machine, open]).unwrap(), [open]);
        assert_eq!(choose(&reach, "nobody.example", &[]).unwrap(), [""; 0], "a name without addresses is no offence");
        // A registry on this machine has its token server there.
        assert_eq!(choose(&reach, "registry.example", &[machine]).unwrap(), [machine]);
        assert_eq!(choose(&reach, "auth.example", &[machine]).unwrap(), [machine]);
        let reach = Reach::default();
        reach.name(&url("localhost:5000"));
        assert_eq!(choose(&reach, "auth.example", &[machine]).unwrap(), [machine]);
        reach.free(&url("metadata.google.internal"));
        assert_eq!(choose(&reach, "metadata.google.internal", &[metadata]).unwrap(), [metadata]);
    }

    #[tokio::test]
    async fn names_are_looked_at_when_they_are_resolved() {
        let resolver = Resolver::default();
        let resolve = || resolver.resolve("localhost".parse().unwrap());
        assert!(resolve().await.is_err());
        resolver.0.name(&url("localhost"));
        assert!(resolve().await.unwrap().next().is_some());
    }

    #[tokio::test]
    async fn names_are_looked_up_as_the_client_is_told_to_and_looked_at_then() {
        struct Files(Arc<AtomicBool>);
        impl Surroundings for Files {
            fn try_within(&self, look: &mut dyn FnMut()) -> bool {
                self.0.store(true, Ordering::SeqCst);
                look();
                true
            }
        }
        let asked = Arc::new(AtomicBool::new(false));
        let resolver = Resolver(Arc::default(), Names::within(Files(Arc::clone(&asked))));
        assert!(resolver.resolve("localhost".parse().unwrap()).await.is_err());
        assert!(asked.load(Ordering::SeqCst));
    }
}
