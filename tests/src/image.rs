//! An image, looked at with programs that are not ours.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde_json::Value;
use tempfile::TempDir;

use crate::error::{At, Error, Result};
use crate::layout::TAG;
use crate::{Container, Listing, Variant, run, scratch};

/// A copy of an image in an OCI layout that skopeo wrote, and so has checked every digest of.
#[derive(Debug)]
pub struct Image {
    directory: Arc<TempDir>,
    manifest: Value,
    config: Value,
}

impl Image {
    /// Pulls `reference` from a registry without TLS.
    pub fn pull(reference: &str) -> Result<Self> {
        Self::copy(&format!("docker://{reference}"), &["--src-tls-verify=false"])
    }

    /// Pulls `reference` from a registry without TLS that asks for a user and a password.
    pub fn pull_as(reference: &str, (user, password): (&str, &str)) -> Result<Self> {
        let credentials = format!("--src-creds={user}:{password}");
        Self::copy(&format!("docker://{reference}"), &["--src-tls-verify=false", &credentials])
    }

    /// Reads the only image of an OCI layout directory.
    pub fn from_layout(directory: &Path) -> Result<Self> {
        Self::copy(&format!("oci:{}", directory.display()), &[])
    }

    /// Reads the image of a `docker save` tarball.
    pub fn from_tarball(file: &Path) -> Result<Self> {
        Self::copy(&format!("docker-archive:{}", file.display()), &[])
    }

    /// The manifest, as skopeo converted it to OCI; [`Registry::manifest`](crate::Registry::manifest) shows the
    /// original.
    pub fn manifest(&self) -> &Value {
        &self.manifest
    }

    /// The whole configuration: `config`, `rootfs`, `history` and the rest.
    pub fn config(&self) -> &Value {
        &self.config
    }

    /// The value of a variable in the configuration's environment.
    pub fn env(&self, name: &str) -> Option<&str> {
        let variables = self.config["config"]["Env"].as_array().into_iter().flatten().filter_map(Value::as_str);
        variables.filter_map(|variable| variable.split_once('=')).find(|(n, _)| *n == name).map(|(_, value)| value)
    }

    /// The paths of one layer's tar, in its order, as they are written there.
    pub fn layer_paths(&self, layer: usize) -> Result<Vec<String>> {
        let digest = text(&self.manifest["layers"][layer]["digest"]).replace(':', "/");
        let blob = self.layout().join("blobs").join(digest);
        let listed = run("tar", ["--list".as_ref(), "--auto-compress".as_ref(), "--file".as_ref(), blob.as_os_str()])?;
        Ok(listed.stdout.lines().map(str::to_owned).collect())
    }

    /// The root filesystem, as umoci unpacks it. It goes away with the image and its containers.
    pub fn rootfs(&self) -> Result<PathBuf> {
        let bundle = self.directory.path().join("bundle");
        if !bundle.exists() {
            unpack(&self.unpackable()?, &bundle)?;
        }
        Ok(bundle.join("rootfs"))
    }

    /// Every path of the root filesystem and what it is.
    pub fn listing(&self) -> Result<Listing> {
        Listing::of(&self.rootfs()?)
    }

    /// A container of this image, with its environment, user and working directory.
    pub fn container(&self, variant: Variant) -> Result<Container> {
        let config = &self.config["config"];
        let mut container = Container::new(self.rootfs()?, variant).keep(Arc::clone(&self.directory));
        for variable in config["Env"].as_array().into_iter().flatten().filter_map(Value::as_str) {
            let (name, value) = variable.split_once('=').unwrap_or((variable, ""));
            container = container.env(name, value);
        }
        let (uid, gid) = ids(&self.rootfs()?, text(&config["User"]))?;
        let cwd = Some(text(&config["WorkingDir"])).filter(|cwd| !cwd.is_empty()).unwrap_or("/");
        Ok(container.user(uid, gid).cwd(cwd))
    }

    /// What such a container runs: the entrypoint, then the command.
    pub fn command(&self) -> Vec<String> {
        let list = |name: &str| self.config["config"][name].as_array().cloned().unwrap_or_default();
        list("Entrypoint").iter().chain(&list("Cmd")).map(|word| text(word).to_owned()).collect()
    }

    fn copy(source: &str, arguments: &[&str]) -> Result<Self> {
        let directory = Arc::new(scratch::directory()?);
        let layout = directory.path().join("layout");
        let target = format!("oci:{}:{TAG}", layout.display());
        run("skopeo", ["copy", "--insecure-policy", "-q"].iter().chain(arguments).chain(&[source, &*target]))?;
        let index = json(&layout.join("index.json"))?;
        let blob = |descriptor: &Value| json(&layout.join("blobs").join(text(&descriptor["digest"]).replace(':', "/")));
        let manifest = blob(&index["manifests"][0])?;
        let config = blob(&manifest["config"])?;
        Ok(Self { directory, manifest, config })
    }

    /// The layout, or a copy that umoci can read: it knows no zstd.
    fn unpackable(&self) -> Result<PathBuf> {
        let layers = self.manifest["layers"].as_array();
        if !layers.into_iter().flatten().any(|layer| text(&layer["mediaType"]).ends_with("zstd")) {
            return Ok(self.layout());
        }
        let gzip = self.directory.path().join("gzip");
        let [source, target] = [self.layout(), gzip.clone()].map(|path| format!("oci:{}:{TAG}", path.display()));
        let words = ["copy", "--insecure-policy", "-q", "--dest-compress-format", "gzip", &*source, &*target];
        run("skopeo", words)?;
        Ok(gzip)
    }

    fn layout(&self) -> PathBuf {
        self.directory.path().join("layout")
    }
}

/// Unpacks the one image of `layout` with umoci: its root filesystem is `rootfs` in the new directory `bundle`.
pub(crate) fn unpack(layout: &Path, bundle: &Path) -> Result<()> {
    let image = format!("{}:{TAG}", layout.display());
    run("umoci", ["unpack".as_ref(), "--image".as_ref(), image.as_ref(), bundle.as_os_str()]).map(drop)
}

/// The ids that a `USER` means: numbers, or names in the image's own files.
fn ids(rootfs: &Path, user: &str) -> Result<(u32, u32)> {
    let (user, group) = user.split_once(':').map_or((user, None), |(user, group)| (user, Some(group)));
    let (uid, primary) = match (user, user.parse()) {
        ("", _) => (0, 0),
        (_, Ok(uid)) => (uid, 0),
        (name, Err(_)) => {
            let ids = entry(&rootfs.join("etc/passwd"), name)?;
            (ids[0], ids[1])
        }
    };
    let gid = match group.map(|group| (group, group.parse())) {
        None => primary,
        Some((_, Ok(gid))) => gid,
        Some((name, Err(_))) => entry(&rootfs.join("etc/group"), name)?[0],
    };
    Ok((uid, gid))
}

/// The numbers from the third field on of the line that begins with `name`.
fn entry(file: &Path, name: &str) -> Result<[u32; 2]> {
    let lines = fs::read_to_string(file).at("read", file)?;
    let line = lines.lines().find(|line| line.split(':').next() == Some(name));
    let missing = || Error::Json { path: file.to_owned(), detail: format!("no entry for {name}") };
    let mut fields = line.ok_or_else(missing)?.split(':').skip(2).map(|field| field.parse().unwrap_or(0));
    Ok([fields.next().ok_or_else(missing)?, fields.next().unwrap_or(0)])
}

fn json(path: &Path) -> Result<Value> {
    let bytes = fs::read(path).at("read", path)?;
    serde_json::from_slice(&bytes).map_err(|e| Error::Json { path: path.to_owned(), detail: e.to_string() })
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}
