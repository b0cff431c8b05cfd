//! Base images, made on this machine: no test needs an image from the Internet.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::command::{PATIENCE, capture, command, line};
use crate::error::{At, Result};
use crate::layout::{LayerBlob, LayoutWriter, TarWriter, digest};
use crate::settings::Settings;
use crate::{cache, find, packages, run, scratch};

/// A base image. Each is made once and kept in the cache as an OCI layout.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Base {
    /// `/bin/busybox` and a link for each of its applets: 2 MB, one layer.
    Busybox,
    /// Debian's minimal system with certificates and this machine's package settings.
    Debian,
    /// The same with Python, its `venv` and `pip`.
    Python,
    /// Debian with compilers and libraries: some 100,000 entries, 1.7 GB.
    Fat,
    /// Busybox and this many files of some 100 bytes under `/srv`, a hundred in each directory.
    Files(u32),
    /// An index of two platforms, amd64 and arm64: busybox, and `/etc/platform` which says which it is. Both hold the
    /// busybox of this machine.
    Platforms,
    /// Busybox with a config that says something in every field that a Dockerfile can change, but no `PATH`.
    Rich,
    /// Busybox with ONBUILD triggers.
    Triggers,
}

const PATH: &str = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
/// What makes a base fat.
const FAT: &str =
    "ca-certificates,build-essential,libboost1.74-dev,golang-go,openjdk-17-jdk-headless,git,python3-dev,cmake,npm";
/// Counts up when what is made here changes.
const VERSION: u32 = 1;

impl Base {
    /// The name in a registry, the same as the well-known image that this one stands for.
    pub fn name(self) -> String {
        match self {
            Self::Busybox => "library/busybox:latest".to_owned(),
            Self::Debian => "library/debian:bookworm-slim".to_owned(),
            Self::Python => "library/python:3.11-slim".to_owned(),
            Self::Fat => "library/fat:latest".to_owned(),
            Self::Files(count) => format!("library/files:{count}"),
            Self::Platforms => "library/platforms:latest".to_owned(),
            Self::Rich => "library/rich:latest".to_owned(),
            Self::Triggers => "library/triggers:latest".to_owned(),
        }
    }

    /// The OCI layout that holds it, tagged [`TAG`](crate::TAG).
    pub fn layout(self) -> Result<PathBuf> {
        packages::ensure()?;
        let settings = Settings::of_this_machine()?;
        let (name, recipe) = match self {
            Self::Busybox | Self::Platforms | Self::Files(_) | Self::Rich | Self::Triggers => {
                (format!("base-{}", self.word()), String::new())
            }
            Self::Debian | Self::Python | Self::Fat => (format!("base-{}", self.word()), settings.recipe()),
        };
        cache::once(&name, &format!("{VERSION} {recipe}"), |directory| self.make(directory, &settings))
    }

    /// Its root filesystem, unpacked by umoci and kept in the cache: not to be written to.
    pub fn rootfs(self) -> Result<PathBuf> {
        let layout = self.layout()?;
        let name = format!("rootfs-{}", self.word());
        let made = cache::once(&name, &layout.to_string_lossy(), |directory| {
            crate::unpack(&layout, &directory.join("bundle"))
        })?;
        Ok(made.join("bundle/rootfs"))
    }

    fn word(self) -> String {
        match self {
            Self::Busybox => "busybox".to_owned(),
            Self::Debian => "debian".to_owned(),
            Self::Python => "python".to_owned(),
            Self::Fat => "fat".to_owned(),
            Self::Files(count) => format!("files{count}"),
            Self::Platforms => "platforms".to_owned(),
            Self::Rich => "rich".to_owned(),
            Self::Triggers => "triggers".to_owned(),
        }
    }

    fn make(self, directory: &Path, settings: &Settings) -> Result<()> {
        let layout = LayoutWriter::create(directory)?;
        let here = architecture();
        let shell = json!({"Env": [PATH], "Cmd": ["sh"]});
        let image = match self {
            Self::Busybox => layout.image(here, &[busybox(&layout)?], &shell)?,
            Self::Files(count) => layout.image(here, &[busybox(&layout)?, files(&layout, count)?], &shell)?,
            Self::Platforms => {
                let busybox = busybox(&layout)?;
                let image = |architecture| {
                    let layers = [busybox.clone(), marker(&layout, architecture)?];
                    layout.image(architecture, &layers, &shell)
                };
                layout.index(&[image("amd64")?, image("arm64")?])?
            }
            Self::Rich => layout.image(here, &[busybox(&layout)?], &rich())?,
            Self::Triggers => {
                let triggers = ["ENV T=on", "COPY a.txt /triggered/", "RUN echo $T > /ran"];
                let config = json!({"Env": [PATH], "Cmd": ["sh"], "OnBuild": triggers});
                layout.image(here, &[busybox(&layout)?], &config)?
            }
            Self::Debian => debian(&layout, settings, "ca-certificates", &[], "bash")?,
            Self::Python => {
                let hooks = ["--customize-hook=ln -s python3 \"$1/usr/bin/python\""];
                debian(&layout, settings, "ca-certificates,python3,python3-venv,python3-pip", &hooks, "python3")?
            }
            Self::Fat => {
                // Java's packages link manual pages, whose directory Debian's smallest variant lacks.
                let hooks = ["--setup-hook=mkdir -p \"$1/usr/share/man/man1\""];
                debian(&layout, settings, &format!("{FAT},linux-headers-{here}"), &hooks, "bash")?
            }
        };
        layout.finish(image)
    }
}

/// This machine's architecture, as images call it.
pub fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

/// The statically linked busybox of this machine, and the names of its applets.
pub(crate) fn busybox_program() -> Result<(PathBuf, Vec<String>)> {
    packages::ensure()?;
    let program = find("busybox").unwrap_or_else(|| "/bin/busybox".into());
    let listed = run("busybox", ["--list"])?.stdout;
    Ok((program, listed.lines().filter(|name| *name != "busybox").map(str::to_owned).collect()))
}

fn busybox(layout: &LayoutWriter) -> Result<LayerBlob> {
    let (program, applets) = busybox_program()?;
    let binary = fs::read(&program).at("read", &program)?;
    layout.layer(|sink| {
        let mut tar = TarWriter::new(sink);
        tar.directory("bin", 0o755)?;
        tar.file("bin/busybox", 0o755, &binary)?;
        for applet in applets {
            tar.symlink(&format!("bin/{applet}"), "busybox")?;
        }
        for (directory, mode) in [("dev", 0o755), ("etc", 0o755), ("proc", 0o755), ("root", 0o700), ("sys", 0o755)] {
            tar.directory(directory, mode)?;
        }
        tar.file("etc/group", 0o644, b"root:x:0:\ndaemon:x:1:\nnogroup:x:65534:\n")?;
        let users = "root:x:0:0:root:/root:/bin/sh\ndaemon:x:1:1:daemon:/:/bin/false\n\
            nobody:x:65534:65534:nobody:/:/bin/false\n";
        tar.file("etc/passwd", 0o644, users.as_bytes())?;
        tar.directory("tmp", 0o1777)?;
        tar.directory("usr", 0o755)?;
        tar.directory("usr/bin", 0o755)?;
        tar.symlink("usr/bin/env", "../../bin/busybox")?;
        tar.directory("var", 0o755)?;
        tar.finish()
    })
}

fn rich() -> Value {
    json!({
        "User": "daemon", "WorkingDir": "/base", "Env": ["BASE=one", "SHARED=base"],
        "Entrypoint": ["/entry", "point"], "Cmd": ["base", "command"], "StopSignal": "SIGINT",
        "ExposedPorts": {"80/tcp": {}}, "Volumes": {"/base/volume": {}}, "Labels": {"base": "1", "shared": "base"},
        "Healthcheck": {"Test": ["CMD", "base"], "Retries": 2}, "Shell": ["/bin/sh", "-ec"],
    })
}

fn files(layout: &LayoutWriter, count: u32) -> Result<LayerBlob> {
    layout.layer(|sink| {
        let mut tar = TarWriter::new(sink);
        tar.directory("srv", 0o755)?;
        for n in 0..count {
            if n % 100 == 0 {
                tar.directory(&format!("srv/d{:05}", n / 100), 0o755)?;
            }
            let content = format!("file {n}\n").repeat(10);
            tar.file(&format!("srv/d{:05}/f{n:07}.txt", n / 100), 0o644, content.as_bytes())?;
        }
        tar.finish()
    })
}

fn marker(layout: &LayoutWriter, architecture: &str) -> Result<LayerBlob> {
    layout.layer(|sink| {
        let mut tar = TarWriter::new(sink);
        tar.directory("etc", 0o755)?;
        tar.file("etc/platform", 0o644, format!("linux/{architecture}\n").as_bytes())?;
        tar.finish()
    })
}

fn debian(layout: &LayoutWriter, settings: &Settings, include: &str, hooks: &[&str], cmd: &str) -> Result<Value> {
    let scratch = scratch::directory()?;
    let archive = scratch.path().join("debian.tar");
    let include = format!("--include={include}");
    // Device nodes are the container runtime's to make, and a user namespace could not unpack them.
    let fixed = ["--variant=minbase", "--mode=root", "--skip=output/dev", &include, "bookworm"];
    let target = archive.to_string_lossy();
    let mut mmdebstrap = command("mmdebstrap");
    mmdebstrap.args(hooks.iter().chain(&fixed).copied().chain([&*target]));
    // The fat one takes ten minutes on a busy machine.
    let line = line(&mmdebstrap);
    capture(&mut mmdebstrap, PATIENCE * 4)?.ok(&line)?;
    let system = layout.layer(|sink| io::copy(&mut File::open(&archive)?, sink).map(drop))?;
    let layers = [system, layout.layer(|sink: &mut dyn Write| settings.write(TarWriter::new(sink)))?];
    layout.image(architecture(), &layers, &json!({"Env": [PATH], "Cmd": [cmd]}))
}

/// The digest of a file's content.
pub(crate) fn file_digest(path: &Path) -> Result<String> {
    digest(&mut File::open(path).at("open", path)?).at("read", path)
}
