//! A real registry on a free loopback port: Docker's distribution, the code behind most of them.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::Duration;

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::error::{At, Error, Result};
use crate::http::{self, Request, Response};
use crate::layout::{TAG, digest};
use crate::{Base, Running, Traffic, packages, run, scratch};

/// The user and the password that [`Registry::with_password`] asks for.
pub const CREDENTIALS: (&str, &str) = ("builder", "a password with spaces");

/// [`CREDENTIALS`] as a line of an htpasswd file.
const HTPASSWD: &str = "builder:$2b$05$yadokariyadokariyadokutKjp6q96j1KavIaKKO/nUEMfjDt9CEq\n";

const COPY: [&str; 4] = ["copy", "--insecure-policy", "--quiet", "--all"];

/// A registry that ends, and whose storage goes away, with its value.
#[derive(Debug)]
pub struct Registry {
    process: Option<Running>,
    program: PathBuf,
    host: String,
    directory: TempDir,
    credentials: Option<(&'static str, &'static str)>,
}

/// In what form a base is pushed. The content is the same in all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// OCI media types, gzip layers.
    Oci,
    /// Docker's manifest, version 2 schema 2.
    Docker,
    /// OCI media types, zstd layers.
    Zstd,
}

/// A request that the registry answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Served {
    /// The method.
    pub method: String,
    /// The path, with the query.
    pub path: String,
    /// The status code.
    pub status: u16,
    /// The bytes of the answer's body.
    pub bytes: u64,
}

impl Registry {
    /// Starts an empty registry that asks nobody for anything.
    pub fn start() -> Result<Self> {
        Self::launch(None, scratch::directory()?)
    }

    /// The same, its storage below `place`.
    pub(crate) fn start_in(place: &Path) -> Result<Self> {
        Self::launch(None, scratch::directory_in(place)?)
    }

    /// Starts one that asks for [`CREDENTIALS`].
    pub fn with_password() -> Result<Self> {
        Self::launch(Some(CREDENTIALS), scratch::directory()?)
    }

    /// Its address, `127.0.0.1:PORT`.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// `name`, such as `team/app:1`, with the address in front.
    pub fn reference(&self, name: &str) -> String {
        format!("{}/{name}", self.host)
    }

    /// Pushes a base under its own name, with every platform that it has, and returns the full reference.
    pub fn hold(&self, base: Base) -> Result<String> {
        self.hold_as(base, Form::Oci, &base.name())
    }

    /// Pushes a base in another form and under another name.
    pub fn hold_as(&self, base: Base, form: Form, name: &str) -> Result<String> {
        let reference = self.reference(name);
        let scratch = scratch::directory()?;
        let (mut source, format) = (
            format!("oci:{}:{TAG}", base.layout()?.display()),
            match form {
                Form::Oci | Form::Zstd => "oci",
                Form::Docker => "v2s2",
            },
        );
        if form == Form::Zstd {
            // Not in one step: skopeo would mount the gzip blobs of another repository rather than compress again.
            let recompressed = format!("oci:{}:{TAG}", scratch.path().join("zstd").display());
            run("skopeo", COPY.iter().chain(&["--dest-compress-format", "zstd", &source, &recompressed]))?;
            source = recompressed;
        }
        let target = format!("docker://{reference}");
        let credentials = self.credentials.map(|(user, password)| format!("--dest-creds={user}:{password}"));
        let options = ["--dest-tls-verify=false", "--format", format];
        let words = COPY.iter().chain(&options).copied().chain(credentials.as_deref()).chain([&*source, &*target]);
        run("skopeo", words)?;
        Ok(reference)
    }

    /// Kills it, in the middle of whatever it is doing. Its storage stays.
    pub fn stop(&mut self) {
        self.process = None;
    }

    /// Starts it again where it was, with what it had.
    pub fn restart(&mut self) -> Result<()> {
        self.stop();
        self.process = Some(self.serve()?);
        Ok(())
    }

    /// The tags of a repository; none where there is no such repository.
    pub fn tags(&self, repository: &str) -> Result<Vec<String>> {
        let answer = self.get(&format!("/v2/{repository}/tags/list"))?;
        let list: Value = serde_json::from_slice(&answer.body).unwrap_or_default();
        let tags = list["tags"].as_array().into_iter().flatten();
        let mut tags: Vec<_> = tags.filter_map(|tag| tag.as_str().map(str::to_owned)).collect();
        tags.sort();
        Ok(tags)
    }

    /// The manifest or index that a tag or digest names, and its digest.
    pub fn manifest(&self, repository: &str, tag: &str) -> Result<Option<(String, Value)>> {
        let answer = self.get(&format!("/v2/{repository}/manifests/{tag}"))?;
        let digest = answer.header("docker-content-digest").unwrap_or_default().to_owned();
        let parsed = serde_json::from_slice(&answer.body).ok().filter(|_| answer.status == 200);
        Ok(parsed.map(|manifest| (digest, manifest)))
    }

    /// A blob's content.
    pub fn blob(&self, repository: &str, digest: &str) -> Result<Option<Vec<u8>>> {
        let answer = self.get(&format!("/v2/{repository}/blobs/{digest}"))?;
        Ok((answer.status == 200).then_some(answer.body))
    }

    /// Deletes what a tag names, and so every tag that names the same.
    pub fn forget(&self, repository: &str, tag: &str) -> Result<()> {
        let (digest, _) = self.manifest(repository, tag)?.unwrap_or_default();
        let path = format!("/v2/{repository}/manifests/{digest}");
        let answer = self.authorised(Request::delete(&self.host, &path)).send()?;
        if answer.status == 202 {
            return Ok(());
        }
        let detail = format!("{}: {}", answer.status, answer.text());
        Err(Error::Http { method: "DELETE".into(), address: self.host.clone(), path: path.clone(), detail })
    }

    /// What is wrong with the blobs that a tag's manifest names: they are missing, or not what they should be. Empty where
    /// there is such an image and it is whole.
    pub fn flaws(&self, repository: &str, tag: &str) -> Result<Vec<String>> {
        let Some((_, manifest)) = self.manifest(repository, tag)? else { return Ok(vec![format!("no tag {tag}")]) };
        let layers = manifest["layers"].as_array().into_iter().flatten();
        let named = layers.chain([&manifest["config"]]).filter_map(|blob| blob["digest"].as_str());
        let mut flaws = Vec::new();
        for name in named {
            match self.blob(repository, name)? {
                None => flaws.push(format!("{name} is missing")),
                Some(bytes) => {
                    let found = digest(&mut &bytes[..]).at("hash", name)?;
                    flaws.extend((found != name).then(|| format!("{name} is {found}")));
                }
            }
        }
        Ok(flaws)
    }

    /// A raw GET with the credentials, if it has any, and all the manifest types accepted.
    pub fn get(&self, path: &str) -> Result<Response> {
        let kinds =
            ["vnd.oci.image.manifest.v1", "vnd.oci.image.index.v1"].map(|kind| format!("application/{kind}+json"));
        let docker =
            ["manifest.v2", "manifest.list.v2"].map(|k| format!("application/vnd.docker.distribution.{k}+json"));
        let request = Request::get(&self.host, path).header("Accept", [kinds, docker].concat().join(", "));
        self.authorised(request).send()
    }

    /// Where a stored blob's content is, for tests that spoil it.
    pub fn blob_file(&self, digest: &str) -> PathBuf {
        let hex = digest.strip_prefix("sha256:").unwrap_or(digest);
        let stored = format!("storage/docker/registry/v2/blobs/sha256/{}/{hex}/data", hex.get(..2).unwrap_or_default());
        self.directory.path().join(stored)
    }

    /// The directory in which it keeps everything that was pushed.
    pub fn storage(&self) -> PathBuf {
        self.directory.path().join("storage")
    }

    /// What a Docker client's `config.json` has to say to log in here.
    pub fn docker_config(&self) -> Value {
        match self.credentials {
            Some((user, password)) => json!({"auths": {&self.host: {"username": user, "password": password}}}),
            None => json!({}),
        }
    }

    /// All requests answered since it was last started, oldest first.
    pub fn served(&self) -> Result<Vec<Served>> {
        let Some(process) = &self.process else { return Ok(Vec::new()) };
        let (log, _) = process.printed()?;
        Ok(log.lines().filter_map(served).collect())
    }

    /// How many requests were answered so far: from where [`Registry::traffic`] counts.
    pub fn mark(&self) -> Result<usize> {
        Ok(self.traffic(0)?.0.len())
    }

    /// What was answered since a mark was taken.
    pub fn traffic(&self, mark: usize) -> Result<Traffic> {
        // A line is written when its answer is gone, and so a little after who asked has it.
        thread::sleep(Duration::from_millis(20));
        Ok(Traffic(self.served()?.into_iter().skip(mark).collect()))
    }

    fn authorised<'a>(&self, request: Request<'a>) -> Request<'a> {
        match self.credentials {
            Some((user, password)) => request.password(user, password),
            None => request,
        }
    }

    fn launch(credentials: Option<(&'static str, &'static str)>, directory: TempDir) -> Result<Self> {
        let program = packages::registry()?;
        let mut registry = Self { process: None, program, host: String::new(), directory, credentials };
        let mut attempts = 0;
        loop {
            registry.host = http::free_address()?;
            registry.configure()?;
            attempts += 1;
            match registry.restart() {
                // Somebody else may have taken the port in between.
                Err(Error::Http { .. }) if attempts < 5 => {}
                result => return result.map(|()| registry),
            }
        }
    }

    fn configure(&self) -> Result<()> {
        let directory = self.directory.path();
        let mut config = json!({
            "version": "0.1",
            "log": {"level": "error", "accesslog": {"disabled": false}},
            "storage": {"filesystem": {"rootdirectory": directory.join("storage")}, "delete": {"enabled": true}},
            "http": {"addr": self.host},
        });
        if self.credentials.is_some() {
            let file = directory.join("htpasswd");
            fs::write(&file, HTPASSWD).at("write", &file)?;
            config["auth"] = json!({"htpasswd": {"realm": "yadokari-tests", "path": file}});
        }
        // YAML holds JSON.
        fs::write(self.config(), config.to_string()).at("write", self.config())
    }

    fn config(&self) -> PathBuf {
        self.directory.path().join("config.yml")
    }

    /// Starts the process and waits until it answers.
    fn serve(&self) -> Result<Running> {
        let mut process = Running::start(Command::new(&self.program).arg("serve").arg(self.config()))?;
        for _ in 0..500 {
            // An answer is only ours while our process is there: the port may be somebody else's.
            let answer = Request::get(&self.host, "/v2/").send();
            if !process.is_running()? {
                break;
            }
            if answer.is_ok() {
                return Ok(process);
            }
            thread::sleep(Duration::from_millis(20));
        }
        let (out, err) = process.printed()?;
        let detail = format!("the registry did not answer: {out}{err}");
        Err(Error::Http { method: "GET".into(), address: self.host.clone(), path: "/v2/".into(), detail })
    }
}

/// A line of the access log, in Apache's combined format.
fn served(line: &str) -> Option<Served> {
    let mut quoted = line.split('"');
    let mut request = quoted.nth(1)?.split(' ');
    let (method, path) = (request.next()?.to_owned(), request.next()?.to_owned());
    let mut answer = quoted.next()?.split_whitespace();
    let (status, bytes) = (answer.next()?.parse().ok()?, answer.next()?.parse().unwrap_or(0));
    Some(Served { method, path, status, bytes })
}
