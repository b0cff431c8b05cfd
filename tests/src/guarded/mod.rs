//! A registry as a company's GitLab has it: TLS of an own authority, and a token for every request.

mod tokens;

use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::thread;
use std::time::Duration;

use serde_json::json;
use tempfile::TempDir;

use crate::error::{At, Error, Result};
use crate::{Authority, Container, Context, Registry, Running, http, packages, scratch};
use tokens::Tokens;

pub use tokens::Asked;

/// What a job logs in with: its user, and its token.
pub const LOGIN: (&str, &str) = ("gitlab-ci-token", "glcbt-64_a-jobs-own-token");

/// The only project whose repositories such a login may use.
pub const PROJECT: &str = "group/project";

/// The registry's name, and that of who gives out its tokens.
const NAMES: [&str; 2] = ["registry.gitlab.example", "gitlab.example"];

const SERVICE: &str = "container_registry";
const ISSUER: &str = "gitlab-issuer";

/// A registry, and who gives out its tokens, each by a name of its own.
///
/// Their names are known in containers only: see [`GuardedRegistry::known_in`].
#[derive(Debug)]
pub struct GuardedRegistry {
    /// The same storage without a guard, for whoever fills and inspects it.
    open: Registry,
    tokens: Tokens,
    authority: Authority,
    port: String,
    directory: TempDir,
    // Last, so that it ends first.
    _process: Running,
}

impl GuardedRegistry {
    /// Starts one that holds what `open` holds.
    pub fn before(open: Registry) -> Result<Self> {
        let authority = Authority::obtain()?;
        let tokens = Tokens::start(&authority)?;
        let directory = scratch::directory()?;
        let hosts = NAMES.map(|name| format!("127.0.0.1 {name}\n")).concat();
        let file = directory.path().join("hosts");
        fs::write(&file, format!("127.0.0.1 localhost\n{hosts}")).at("write", &file)?;
        let mut attempts = 0;
        loop {
            let address = http::free_address()?;
            let port = address.rsplit(':').next().unwrap_or_default().to_owned();
            let config = json!({
                "version": "0.1",
                "log": {"level": "error"},
                "storage": {"filesystem": {"rootdirectory": open.storage()}, "delete": {"enabled": true}},
                "http": {
                    "addr": address, "host": format!("https://{}:{port}", NAMES[0]),
                    "tls": {"certificate": authority.file("server.crt"), "key": authority.file("server.key")},
                },
                "auth": {"token": {
                    "realm": format!("https://{}:{}/jwt/auth", NAMES[1], tokens.port()),
                    "service": SERVICE, "issuer": ISSUER, "rootcertbundle": authority.file("tokens.crt"),
                }},
            });
            let file = directory.path().join("config.yml");
            fs::write(&file, config.to_string()).at("write", &file)?;
            let mut process = Running::start(Command::new(packages::registry()?).arg("serve").arg(&file))?;
            match answers(&mut process, &address) {
                Ok(()) => return Ok(Self { open, tokens, authority, port, directory, _process: process }),
                // Somebody else may have taken the port in between.
                Err(_) if attempts < 5 => attempts += 1,
                Err(error) => return Err(error),
            }
        }
    }

    /// Its name and port, `registry.gitlab.example:PORT`.
    pub fn host(&self) -> String {
        format!("{}:{}", NAMES[0], self.port)
    }

    /// Where tokens are asked for.
    pub fn realm(&self) -> String {
        format!("https://{}:{}/jwt/auth", NAMES[1], self.tokens.port())
    }

    /// The same storage, for whoever need not ask.
    pub fn open(&self) -> &Registry {
        &self.open
    }

    /// Where the authority's certificate is.
    pub fn authority(&self) -> PathBuf {
        self.authority.file("ca.crt")
    }

    /// Mounts the file that says where the names are, as every container runtime does, over `/etc/hosts`.
    pub fn known_in(&self, container: Container) -> Container {
        container.readonly_volume(self.directory.path().join("hosts"), "/etc/hosts")
    }

    /// A directory with a `config.json` that logs in here.
    pub fn docker_config(&self) -> Result<Context> {
        let login = json!({"username": LOGIN.0, "password": LOGIN.1});
        Context::new()?.file("config.json", json!({"auths": {self.host(): login}}).to_string())
    }

    /// The tokens that were asked for.
    pub fn asked(&self) -> Vec<Asked> {
        self.tokens.asked()
    }
}

/// Waits until something takes connections at `address`, and `process` is there to do it.
fn answers(process: &mut Running, address: &str) -> Result<()> {
    for _ in 0..500 {
        let answer = std::net::TcpStream::connect(address);
        if !process.is_running()? {
            break;
        }
        if answer.is_ok() {
            return Ok(());
        }
        thread::sleep(Duration::from_millis(20));
    }
    let (out, err) = process.printed()?;
    let detail = format!("the registry did not answer: {out}{err}");
    Err(Error::Http { method: "connect to".into(), address: address.into(), path: String::new(), detail })
}
