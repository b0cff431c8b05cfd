//! Builds by the program itself, and what is in their images.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::Value;

/// A build that has ended.
pub(crate) struct Built {
    pub(crate) code: i32,
    /// Everything that was printed.
    pub(crate) text: String,
    /// The paths of all layers: mode, owner, time, and the content, or `-> ` and the link's target.
    pub(crate) files: BTreeMap<String, (String, i64, String)>,
    /// The lines of the history.
    pub(crate) history: Vec<String>,
    directory: tempfile::TempDir,
}

/// A build to come.
#[derive(Default)]
pub(crate) struct Build {
    words: Vec<String>,
    variables: Vec<(&'static str, String)>,
    input: Vec<u8>,
    dockerfile: Option<String>,
}

/// A build of a Dockerfile, with a context that has nothing else.
pub(crate) fn dockerfile(text: impl Into<String>) -> Build {
    Build { dockerfile: Some(text.into()), ..Build::default() }
}

/// A build of a context elsewhere.
pub(crate) fn context(name: &str) -> Build {
    Build::default().words(&["--context", name])
}

impl Build {
    pub(crate) fn words(mut self, words: &[&str]) -> Self {
        self.words.extend(words.iter().map(|word| (*word).to_owned()));
        self
    }

    pub(crate) fn variable(mut self, name: &'static str, value: &str) -> Self {
        self.variables.push((name, value.to_owned()));
        self
    }

    pub(crate) fn input(self, input: impl Into<Vec<u8>>) -> Self {
        Self { input: input.into(), ..self }
    }

    /// A secret by its id.
    pub(crate) fn secret(self, id: &str, value: &str) -> Self {
        let directory = tempfile::tempdir().unwrap().keep();
        std::fs::write(directory.join("secret"), value).unwrap();
        let word = format!("id={id},src={}", directory.join("secret").display());
        self.words(&["--secret", &word])
    }

    /// Runs the build, whatever comes of it. The work directory must be empty afterwards.
    pub(crate) fn run(self) -> Built {
        let directory = tempfile::tempdir().unwrap();
        let of = |name: &str| directory.path().join(name);
        let mut command = Command::new(env!("CARGO_BIN_EXE_yadokari"));
        // The settings of this machine are no part of a test.
        command.env_clear().env("PATH", std::env::var_os("PATH").unwrap_or_default()).env("HOME", of("home"));
        command.arg("build").args(["--no-push", "--oci-layout-path"]).arg(of("out")).arg("--work-dir").arg(of("work"));
        if let Some(text) = &self.dockerfile {
            std::fs::create_dir(of("context")).unwrap();
            std::fs::write(of("context/Dockerfile"), text).unwrap();
            command.arg("--context").arg(of("context"));
        }
        command.args(&self.words).envs(self.variables.iter().map(|(name, value)| (name, value)));
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        // A build that does not read it has ended before.
        _ = child.stdin.take().unwrap().write_all(&self.input);
        let output = child.wait_with_output().unwrap();
        let text = [output.stdout, output.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).concat();
        let left = std::fs::read_dir(of("work"))
            .map_or(0, |entries| entries.flatten().filter(|e| e.file_name() != "lock").count());
        assert_eq!(left, 0, "something is left in the work directory: {text}");
        let mut built = Built {
            code: output.status.code().unwrap_or(-1),
            text,
            files: BTreeMap::new(),
            history: Vec::new(),
            directory,
        };
        if built.code == 0 {
            built.read();
        }
        built
    }

    /// Runs the build, which must succeed.
    pub(crate) fn ok(self) -> Built {
        let built = self.run();
        assert_eq!(built.code, 0, "{}", built.text);
        built
    }

    /// Runs the build, which must fail with a code and with words.
    pub(crate) fn fails(self, code: i32, words: &[&str]) -> Built {
        let built = self.run();
        assert_eq!(built.code, code, "{}", built.text);
        for words in words {
            assert!(built.text.contains(words), "no '{words}' in {}", built.text);
        }
        assert!(!built.text.contains("panicked"), "{}", built.text);
        built
    }
}

impl Built {
    /// Mode and owner of a path, and its content or its target. Empty where there is none.
    pub(crate) fn at(&self, path: &str) -> String {
        self.files
            .get(path)
            .map_or(String::new(), |(head, _, content)| format!("{head} {content}").trim_end().to_owned())
    }

    pub(crate) fn time(&self, path: &str) -> i64 {
        self.files[path].1
    }

    /// The layers, unpacked one on the other.
    pub(crate) fn unpacked(&self) -> PathBuf {
        let root = self.directory.path().join("root");
        for layer in self.layers() {
            let mut archive = tar::Archive::new(&layer[..]);
            archive.set_preserve_permissions(true);
            archive.unpack(&root).unwrap();
        }
        root
    }

    /// Every byte of the image: its blobs, those of layers decompressed.
    pub(crate) fn bytes(&self) -> Vec<u8> {
        let blobs = std::fs::read_dir(self.directory.path().join("out/blobs/sha256")).unwrap();
        blobs.flatten().flat_map(|blob| decompressed(&std::fs::read(blob.path()).unwrap())).collect()
    }

    fn layers(&self) -> Vec<Vec<u8>> {
        let layers = self.manifest()["layers"].as_array().unwrap().clone();
        layers.iter().map(|layer| decompressed(&self.blob(layer))).collect()
    }

    fn read(&mut self) {
        for layer in self.layers() {
            for entry in tar::Archive::new(&layer[..]).entries().unwrap() {
                let mut entry = entry.unwrap();
                let header = entry.header().clone();
                let head = format!("{:o} {}:{}", header.mode().unwrap(), header.uid().unwrap(), header.gid().unwrap());
                let path = entry.path().unwrap().display().to_string();
                let mut content = String::new();
                if let Some(target) = entry.link_name().unwrap() {
                    content = format!("-> {}", target.display());
                } else {
                    let mut bytes = Vec::new();
                    entry.read_to_end(&mut bytes).unwrap();
                    content.push_str(&String::from_utf8_lossy(&bytes));
                }
                let path = path.trim_end_matches('/').to_owned();
                self.files.insert(path, (head, header.mtime().unwrap() as i64, content));
            }
        }
        let config: Value = serde_json::from_slice(&self.blob(&self.manifest()["config"])).unwrap();
        let lines = config["history"].as_array().unwrap().iter();
        self.history = lines.map(|line| line["created_by"].as_str().unwrap_or_default().to_owned()).collect();
    }

    fn manifest(&self) -> Value {
        let index = std::fs::read(self.out().join("index.json")).unwrap();
        let index: Value = serde_json::from_slice(&index).unwrap();
        serde_json::from_slice(&self.blob(&index["manifests"][0])).unwrap()
    }

    fn blob(&self, descriptor: &Value) -> Vec<u8> {
        let digest = descriptor["digest"].as_str().unwrap().replace(':', "/");
        std::fs::read(self.out().join("blobs").join(digest)).unwrap()
    }

    fn out(&self) -> PathBuf {
        Path::new(self.directory.path()).join("out")
    }
}

fn decompressed(bytes: &[u8]) -> Vec<u8> {
    let mut plain = Vec::new();
    yadokari_layers::compress::decoder(bytes).unwrap().read_to_end(&mut plain).unwrap();
    plain
}

/// A layer's or an archive's bytes, compressed.
pub(crate) fn compressed(bytes: &[u8], by: yadokari_layers::Compression) -> Vec<u8> {
    let mut encoder = yadokari_layers::compress::Encoder::new(by, None, Vec::new()).unwrap();
    Write::write_all(&mut encoder, bytes).unwrap();
    encoder.finish().unwrap()
}
