//! Builds through the library against a registry in memory.

use std::io::Write;
use std::num::NonZeroUsize;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::json;
use yadokari::cache::Settings;
use yadokari::dockerfile::Source;
use yadokari::execute::{Interrupt, NetworkFiles};
use yadokari::output::Destination;
use yadokari::plan::{ContextMode, Options};
use yadokari::progress::{Level, Progress};
use yadokari::secrets::{Agents, Secrets};
use yadokari::{Request, sandbox};
use yadokari_layers::{Compression, Digest, compress, pack};
use yadokari_registry::memory::{Seen, Served};
use yadokari_registry::{
    BytesBlob, Client, ClientOptions, Manifest, Memory, Platform, Reference, RetryPolicy, Store, Version, media,
};

use crate::world::World;

/// The time of all builds. Whatever is in a context is newer.
const EPOCH: i64 = 1_000_000_000;

/// A registry, a client and a directory to build in.
pub(crate) struct Bench {
    pub(crate) registry: Memory,
    served: Served,
    client: Client,
    directory: tempfile::TempDir,
}

/// How a build ended.
pub(crate) struct Ended {
    /// The digest, or what is wrong.
    pub(crate) result: Result<Digest, String>,
    /// What it said.
    pub(crate) log: String,
    /// What it asked of the registry.
    pub(crate) seen: Vec<Seen>,
}

impl Bench {
    pub(crate) async fn new(client: Client) -> Self {
        let registry = Memory::new();
        let served = registry.serve().await.unwrap();
        let other = [("etc/passwd", "nobody:x:9:9::/:\n"), ("p", "a file\n"), ("w/x/deep", "other\n")];
        publish(&registry.repository("other"), "other", &other).await;
        // In memory, where there is such a place: on a disk these builds do little but wait for it.
        let directory = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap();
        Self { registry, served, client, directory }
    }

    /// Builds `world`, to `name`. The context and the work directory are new, as they are in a CI job.
    pub(crate) async fn build(&self, world: &World, cache: Option<Settings>, name: &str) -> Ended {
        self.build_as(world, cache, name, |_| {}).await
    }

    /// The same, with something else that is asked for.
    pub(crate) async fn build_as(
        &self,
        world: &World,
        cache: Option<Settings>,
        name: &str,
        edit: impl FnOnce(&mut Request),
    ) -> Ended {
        let label = world.base % 2;
        let content = if world.base % 4 < 2 { "one\n" } else { "another\n" };
        let files =
            [("etc/passwd", "root:x:0:0::/:\nnobody:x:65534:65534::/:\n"), ("p/q/deep", content), ("ptr", "-> p")];
        publish(&self.registry.repository("base"), &label.to_string(), &files).await;
        let place = tempfile::tempdir_in(self.directory.path()).unwrap();
        world.write(&place.path().join("context"));
        let before = self.served.seen().len();
        let log = Log::default();
        let progress = Arc::new(Progress::to(Level::Debug, Box::new(log.clone())));
        let mut request = self.request(world, place.path(), cache, name);
        edit(&mut request);
        let built = yadokari::build(request, progress, Interrupt::default()).await;
        let result = built.map(|built| built.digest).map_err(|error| error.to_string());
        Ended { result, log: log.text(), seen: self.served.seen().split_off(before) }
    }

    /// A directory that stays as long as the registry.
    pub(crate) fn directory(&self) -> &Path {
        self.directory.path()
    }

    /// The repository `name`, as a reference.
    pub(crate) fn reference(&self, name: &str) -> Reference {
        format!("{}/{name}", self.served.host()).parse().unwrap()
    }

    fn request(&self, world: &World, place: &Path, cache: Option<Settings>, name: &str) -> Request {
        let (context, host): (_, Platform) = (place.join("context"), "linux/amd64".parse().unwrap());
        Request {
            dockerfile: Source::new("Dockerfile", world.dockerfile().replace("HOST", &self.served.host())),
            dockerfile_path: context.join("Dockerfile"),
            context: context.clone(),
            named_contexts: Vec::new(),
            options: Options {
                target: None,
                build_args: world.arguments(),
                labels: Vec::new(),
                platform: host.clone(),
                platform_is_given: false,
                host,
                epoch: Some(EPOCH),
                reproducible: false,
                context_mode: if world.raw { ContextMode::Raw } else { ContextMode::Git },
                ignored: Vec::new(),
            },
            index: None,
            destinations: vec![Destination::Registry(self.reference(name))],
            cache,
            skip_existing: false,
            save_failed: false,
            pushing: Default::default(),
            form: Default::default(),
            describe: false,
            warm: None,
            limits: Default::default(),
            lock: None,
            pack: pack::Options { clamp: Some(EPOCH), ..pack::Options::default() },
            jobs: NonZeroUsize::new(4).unwrap(),
            squash: false,
            sandbox: sandbox::Settings {
                driver: None,
                work_dir: place.join("work"),
                home: place.join("home"),
                contexts: vec![context],
                kept: Vec::new(),
                force: false,
                isolated: false,
                hide: Vec::new(),
                gate: sandbox::Gate::default(),
            },
            secrets: Secrets::default(),
            agents: Agents::default(),
            network_files: NetworkFiles::default(),
            trust: None,
            client: self.client.clone(),
        }
    }
}

/// A client of loopback registries.
pub(crate) fn client() -> Client {
    let retry = RetryPolicy { delay: Duration::from_millis(5), ..RetryPolicy::default() };
    Client::new(ClientOptions { retry, ..ClientOptions::default() }).unwrap()
}

/// Pushes an image of one layer as `:1`. A content that begins with an arrow is a link's target.
async fn publish(store: &Memory, label: &str, files: &[(&str, &str)]) {
    let mut tar = tar::Builder::new(Vec::new());
    for (path, content) in files {
        let mut header = tar::Header::new_gnu();
        header.set_mode(0o644);
        header.set_size(content.len() as u64);
        match content.strip_prefix("-> ") {
            Some(target) => {
                header.set_entry_type(tar::EntryType::Symlink);
                header.set_size(0);
                tar.append_link(&mut header, path, target).unwrap();
            }
            None => tar.append_data(&mut header, path, content.as_bytes()).unwrap(),
        }
    }
    let tar = tar.into_inner().unwrap();
    let mut encoder = compress::Encoder::new(Compression::Gzip, None, Vec::new()).unwrap();
    encoder.write_all(&tar).unwrap();
    let layer = BytesBlob::new(encoder.finish().unwrap());
    let config = json!({"architecture": "amd64", "os": "linux", "created": format!("200{label}-01-01T00:00:00Z"),
        "config": {"Labels": {"base": label}}, "rootfs": {"type": "layers", "diff_ids": [Digest::of(&tar)]}});
    let config = BytesBlob::new(config.to_string());
    let mut descriptors = Vec::new();
    for (blob, kind) in [(&config, media::OCI_CONFIG), (&layer, media::OCI_LAYER_GZIP)] {
        store.write_blob(blob, None).await.unwrap();
        let (digest, size) = (Digest::of(blob.bytes()), blob.bytes().len());
        descriptors.push(json!({"mediaType": kind, "digest": digest, "size": size}));
    }
    let manifest = json!({"schemaVersion": 2, "mediaType": media::OCI_MANIFEST, "config": descriptors[0],
        "layers": [descriptors[1]]});
    let manifest = Manifest::new(media::OCI_MANIFEST, manifest.to_string());
    store.write_manifest(&Version::Tag("1".into()), &manifest).await.unwrap();
}

/// What a build says, kept.
#[derive(Debug, Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Log {
    fn text(&self) -> String {
        String::from_utf8_lossy(&self.0.lock().unwrap()).into_owned()
    }
}

impl Write for Log {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}
