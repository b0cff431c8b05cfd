//! A network that has a registry and nothing else. What a build tries to reach is what its system calls say.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::os::fd::AsFd as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::Duration;

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use serde_json::json;
use yadokari_tests::{
    Authority, Base, Context, Executor, Form, Image, Job, Output, Registry, Result, Running, Variant, find,
    free_address, packages,
};

use crate::site;

/// The registry's name, which nobody outside of the containers knows.
const NAME: &str = "registry.lan";

/// Who is asked for names, and never answers.
const RESOLVER: &str = "192.0.2.1:53";

/// A network namespace with loopback and a registry on it, with TLS of an authority of its own. It serves what `open` holds,
/// which is outside.
struct Island {
    open: Registry,
    address: String,
    files: Context,
    process: Running,
    pid: u32,
}

impl Island {
    fn new(open: Registry) -> Result<Self> {
        packages::ensure()?;
        // What is downloaded on first use cannot be in there.
        packages::seccomp_profile()?;
        let files = Context::new()?.file("hosts", format!("127.0.0.1 localhost\n127.0.0.1 {NAME}\n"))?;
        let resolver = RESOLVER.trim_end_matches(":53");
        let files = files.file("resolv.conf", format!("nameserver {resolver}\noptions timeout:1 attempts:1\n"))?;
        let authority = Authority::obtain()?;
        let address = free_address()?;
        let config = json!({
            "version": "0.1",
            "log": {"level": "error"},
            "storage": {"filesystem": {"rootdirectory": open.storage()}},
            "http": {"addr": address, "tls": {
                "certificate": authority.file("server.crt"), "key": authority.file("server.key"),
            }},
        });
        let files = files.file("config.yml", config.to_string())?;
        let mut server = Command::new("unshare");
        let line = "\"$0\" link set lo up && echo $$ > \"$1\" && shift && exec \"$@\"";
        server.args(["--net", "sh", "-c", line]).arg(find("ip").unwrap_or_default());
        server
            .arg(files.path().join("pid"))
            .arg(packages::registry()?)
            .arg("serve")
            .arg(files.path().join("config.yml"));
        let mut process = Running::start(&mut server)?;
        let mut pid = 0;
        for _ in 0..500 {
            let text = fs::read_to_string(files.path().join("pid")).unwrap_or_default();
            pid = text.trim().parse().unwrap_or(0);
            if pid != 0 || !process.is_running()? {
                break;
            }
            thread::sleep(Duration::from_millis(20));
        }
        assert!(pid != 0, "the registry did not start: {:?}", process.printed()?);
        let island = Self { open, address, files, process, pid };
        let address = island.address.clone();
        let answers = island.inside(move || {
            (0..500).any(|_| {
                thread::sleep(Duration::from_millis(20));
                std::net::TcpStream::connect(&address).is_ok()
            })
        });
        assert!(answers, "the registry did not answer: {:?}", island.process.printed()?);
        Ok(island)
    }

    /// Does something in the namespace, with all that it starts.
    fn inside<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        let namespace = File::open(format!("/proc/{}/ns/net", self.pid)).unwrap();
        thread::scope(|scope| {
            let thread = scope.spawn(move || {
                move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network)).unwrap();
                work()
            });
            thread.join().unwrap()
        })
    }

    /// The registry as the builds know it.
    fn host(&self) -> String {
        format!("{NAME}:{}", self.address.rsplit(':').next().unwrap())
    }

    /// Builds `/workspace` in here, and says where it tried to connect to, or whom it asked for a name.
    fn build(
        &self,
        variant: Variant,
        context: &Path,
        lock: &Path,
        words: &[&str],
    ) -> Result<(Output, BTreeSet<String>)> {
        let watch: PathBuf = self.files.path().join("strace");
        let container = Executor::build()?.debug_container(variant).readonly_volume(context, "/workspace");
        let container = container
            .readonly_volume(self.files.path().join("hosts"), "/etc/hosts")
            .readonly_volume(self.files.path().join("resolv.conf"), "/etc/resolv.conf")
            .volume(lock, "/locks")
            .file("/kaniko/ssl/certs/company.crt", fs::read(Authority::obtain()?.file("ca.crt")).unwrap())
            .watched(&watch);
        let job = Job::new(["/kaniko/executor", "--context", "/workspace"]).args(words.iter().copied());
        let output = self.inside(|| container.run(job.env("SOURCE_DATE_EPOCH", site::EPOCH)))?;
        Ok((output, tried(&fs::read_to_string(&watch).unwrap())))
    }
}

/// The addresses, `ADDRESS:PORT`, that the calls of a trace name. Sockets of other kinds than the internet's are not looked at.
fn tried(trace: &str) -> BTreeSet<String> {
    let between = |text: &str, from: &str, to: &str| -> Option<String> {
        let (_, rest) = text.split_once(from)?;
        rest.split_once(to).map(|(inner, _)| inner.to_owned())
    };
    let mut found = BTreeSet::new();
    for part in trace.split("{sa_family=AF_INET").skip(1) {
        let port = between(part, "htons(", ")");
        let address = match part.strip_prefix('6') {
            Some(part) => between(part, "inet_pton(AF_INET6, \"", "\""),
            None => between(part, "inet_addr(\"", "\""),
        };
        // What cannot be read is found, and no address.
        found.insert(format!("{}:{}", address.unwrap_or_default(), port.unwrap_or_default()));
    }
    found
}

#[test]
fn addresses_are_read_from_a_trace() {
    let trace = r#"
7 connect(9, {sa_family=AF_INET, sin_port=htons(5000), sin_addr=inet_addr("127.0.0.1")}, 16) = -1 EINPROGRESS
8 sendto(3, "x"..., 31, MSG_NOSIGNAL, {sa_family=AF_INET, sin_port=htons(53), sin_addr=inet_addr("10.0.0.2")}, 16 <unfinished ...>
7 connect(9, {sa_family=AF_INET6, sin6_port=htons(443), sin6_flowinfo=htonl(0), inet_pton(AF_INET6, "fd00::1", &sin6_addr), sin6_scope_id=0}, 28) = 0
7 connect(9, {sa_family=AF_UNIX, sun_path="/run/x"}, 110) = 0
9 sendto(4, [{nlmsg_len=20}], 20, 0, {sa_family=AF_NETLINK, nl_pid=0}, 12) = 20
"#;
    assert_eq!(tried(trace).into_iter().collect::<Vec<_>>(), ["10.0.0.2:53", "127.0.0.1:5000", "fd00::1:443"]);
    assert!(tried("").is_empty());
}

#[test]
fn a_build_without_a_way_outside_tries_none() -> Result<()> {
    let island = Island::new(site::registry(&[Base::Busybox])?)?;
    let text = "FROM docker.io/library/busybox\nRUN echo made > /made\nCOPY Dockerfile /copied\n";
    let context = Context::new()?.file("Dockerfile", text)?;
    let locks = Context::new()?;
    let (host, own) = (island.host(), BTreeSet::from([island.address.clone()]));
    let flags =
        ["--offline", "--lock=/locks/base.lock", "--skip-default-registry-fallback", "--registry-mirror", &host];
    let build = |variant, name: &str, more: &[&str]| {
        let destination = format!("--destination={host}/{name}");
        island.build(variant, context.path(), locks.path(), &[&flags[..], &[&destination], more].concat())
    };

    let (output, asked) = build(Variant::Unconfined, "team/app:1", &[])?;
    output.ok("the build that writes the lock")?;
    assert_eq!(asked, own);
    let (first, _) = island.open.manifest("team/app", "1")?.unwrap();
    let (base, _) = island.open.manifest("library/busybox", "latest")?.unwrap();
    let lock = fs::read_to_string(locks.path().join("base.lock")).unwrap();
    assert!(lock.contains(&format!("docker-image://docker.io/library/busybox:latest@{base}")), "{lock}");

    // The tag moves, and the lock holds: in place, too, where GitLab's own runners build.
    island.open.hold_as(Base::Busybox, Form::Docker, "library/busybox:latest")?;
    assert_ne!(island.open.manifest("library/busybox", "latest")?.unwrap().0, base);
    for (variant, name) in [(Variant::Unconfined, "team/app:2"), (Variant::Docker, "team/app:3")] {
        let (output, asked) = build(variant, name, &["--locked"])?;
        output.ok("the build by the lock")?;
        assert_eq!(asked, own, "{variant:?}");
        let (_, tag) = name.split_once(':').unwrap();
        assert_eq!(island.open.manifest("team/app", tag)?.unwrap().0, first, "{variant:?}");
    }
    assert_eq!(fs::read_to_string(locks.path().join("base.lock")).unwrap(), lock);
    let listing = Image::pull(&island.open.reference("team/app:3"))?.listing()?;
    assert!(listing.at("made").is_some() && listing.at("copied").is_some() && listing.at("bin/busybox").is_some());

    // What is outside is refused without a try, and tried where nothing forbids it: the watch sees that.
    let elsewhere = Context::new()?.file("Dockerfile", "FROM quay.io/team/base:1\n")?;
    let destination = format!("--destination={host}/team/other:1");
    let refused = [&flags[..], &[&destination]].concat();
    let (output, asked) = island.build(Variant::Docker, elsewhere.path(), locks.path(), &refused)?;
    let said = site::printed(&output);
    assert!(!output.success() && said.contains("Dockerfile:1:6") && said.contains("is at quay.io"), "{said}");
    assert_eq!(asked, BTreeSet::new());
    let (output, asked) = island.build(Variant::Docker, elsewhere.path(), locks.path(), &[&destination])?;
    assert!(!output.success() && site::printed(&output).contains("quay.io"), "{output}");
    assert!(asked.contains(RESOLVER), "{asked:?}");
    Ok(())
}
