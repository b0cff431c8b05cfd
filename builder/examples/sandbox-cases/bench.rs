//! The image that the cases run in, and what they measure and compare with.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::error::Error as StdError;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use yadokari::sandbox::{
    Commit, Error, Exit, LayerFile, Network, Priority, Probe, Run, Sandbox, Settings, Stream, Worker,
};
use yadokari_layers::{Changes, Content, Digest, Entry, Index, Kind, Limits, Record, RelPath, Timestamp, tar};

pub(crate) type Outcome = Result<(), Box<dyn StdError>>;

/// What the cases share.
pub(crate) struct Bench {
    pub(crate) probe: Probe,
    pub(crate) settings: Settings,
    pub(crate) base: PathBuf,
    pub(crate) index: Arc<Index>,
    pub(crate) hide: PathBuf,
    pub(crate) times: RefCell<Vec<(String, Duration)>>,
}

impl Bench {
    /// A worker whose root holds the base image.
    pub(crate) fn root(&self) -> Result<Worker, Box<dyn StdError>> {
        let began = Instant::now();
        let mut worker = Worker::start(&self.probe, &self.settings, "case")?;
        self.took("start", began);
        let began = Instant::now();
        let warnings = worker.materialise(vec![self.base(Some(Arc::clone(&self.index)))?], Priority::Normal)?.warnings;
        self.took("materialise", began);
        check(&format!("no warnings, but {warnings:?}"), warnings.is_empty())?;
        Ok(worker)
    }

    /// The base image's layer.
    pub(crate) fn base(&self, index: Option<Arc<Index>>) -> Result<LayerFile, Box<dyn StdError>> {
        let digest = Digest::of(std::fs::read(&self.base)?);
        Ok(LayerFile {
            digest,
            diff_id: digest,
            index,
            blob: File::open(&self.base)?,
            coming: None,
            limits: Limits::default(),
        })
    }

    pub(crate) fn sh(&self, worker: &mut Worker, script: &str) -> Result<Output, Error> {
        self.run(worker, &shell(script))
    }

    pub(crate) fn run(&self, worker: &mut Worker, run: &Run) -> Result<Output, Error> {
        let began = Instant::now();
        let (mut stdout, mut stderr) = (Vec::new(), Vec::new());
        let exit = worker.run(run, &mut |stream, bytes| match stream {
            Stream::Stdout => stdout.extend_from_slice(bytes),
            Stream::Stderr => stderr.extend_from_slice(bytes),
        })?;
        self.took("run", began);
        let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
        Ok(Output { exit, stdout: text(stdout), stderr: text(stderr) })
    }

    /// What the next layer says: `path`, `path/` for a directory, `-path` for a whiteout.
    pub(crate) fn commit(&self, worker: &mut Worker) -> Result<Option<BTreeSet<String>>, Error> {
        let began = Instant::now();
        let mut says = None;
        worker.commit(&Commit::default(), &mut |tar| {
            let index = tar::index(tar).map_err(std::io::Error::other)?;
            says = Some(Arc::new(index)).filter(|index| !index.is_empty());
            Ok(says.clone())
        })?;
        self.took("commit", began);
        let Some(index) = says else { return Ok(None) };
        let says = index.records().iter().map(|(path, record)| match record {
            Record::Opaque(_) => format!("{path}!"),
            Record::Put(entry) if entry.is_directory() => format!("{path}/"),
            Record::Delete => format!("-{path}"),
            _ => path.to_string(),
        });
        Ok(Some(says.collect()))
    }

    pub(crate) fn took(&self, what: &str, since: Instant) {
        self.times.borrow_mut().push((what.to_owned(), since.elapsed()));
    }

    pub(crate) fn report(&self) {
        let times = self.times.borrow();
        for what in ["start", "materialise", "run", "commit"] {
            let mut of: Vec<Duration> = times.iter().filter(|(name, _)| name == what).map(|(_, took)| *took).collect();
            of.sort();
            if let (Some(least), Some(median)) = (of.first(), of.get(of.len() / 2)) {
                println!("{what}: {} times, least {least:.1?}, median {median:.1?}", of.len());
            }
        }
    }
}

pub(crate) struct Output {
    pub(crate) exit: Exit,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

pub(crate) fn shell(script: &str) -> Run {
    Run {
        argv: ["/bin/sh", "-c", script].map(str::to_owned).to_vec(),
        env: vec![("PATH".to_owned(), "/bin".to_owned())],
        cwd: "/".to_owned(),
        uid: 0,
        gid: 0,
        groups: Vec::new(),
        resolv_conf: b"nameserver 192.0.2.1\n".to_vec(),
        hosts: b"127.0.0.1 localhost\n".to_vec(),
        hostname: "build".to_owned(),
        mounts: Vec::new(),
        network: Network::Default,
    }
}

pub(crate) fn names(directory: &Path) -> std::io::Result<BTreeSet<String>> {
    std::fs::read_dir(directory)?.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned())).collect()
}

pub(crate) fn check(what: &str, holds: bool) -> Outcome {
    if holds { Ok(()) } else { Err(format!("not so: {what}").into()) }
}

pub(crate) fn same<T: PartialEq + std::fmt::Debug>(found: &T, expected: &T) -> Outcome {
    if found == expected { Ok(()) } else { Err(format!("found {found:?}, expected {expected:?}").into()) }
}

pub(crate) fn ok(output: &Output) -> Outcome {
    match output.exit {
        Exit::Code(0) => Ok(()),
        exit => Err(format!("{exit:?}: {}{}", output.stdout, output.stderr).into()),
    }
}

pub(crate) fn layer(paths: &[&str]) -> Option<BTreeSet<String>> {
    Some(paths.iter().map(|&path| path.to_owned()).collect())
}

/// Writes a layer with busybox, some files, and an `/etc` that has a resolver file of its own.
pub(crate) fn base_layer(path: &Path, busybox: &Path) -> Result<Index, Box<dyn StdError>> {
    let at = Timestamp::from_secs(1_000_000_000);
    let mut changes = Changes::new();
    for directory in ["bin", "data", "data/deep", "etc", "proc", "srv", "tmp"] {
        let mode = if directory == "tmp" { 0o1777 } else { 0o755 };
        changes.put(RelPath::new(directory)?, Entry::directory(mode, at), Content::Empty);
    }
    let size = std::fs::metadata(busybox)?.len();
    let content = Content::Host(busybox.to_owned());
    changes.put(RelPath::new("bin/busybox")?, Entry::file(size, 0o755, at), content);
    // A client for sockets, where we are linked statically.
    let own = std::env::current_exe()?;
    let size = std::fs::metadata(&own)?.len();
    changes.put(RelPath::new("bin/self")?, Entry::file(size, 0o755, at), Content::Host(own));
    for applet in
        "cat chmod chown date dd echo env false grep head hostname id kill ln ls mkdir mkfifo mount mv nslookup \
                   printf ps readlink rm rmdir seq setsid sh sleep stat tail test touch true tty ulimit umount wc yes"
            .split_whitespace()
    {
        let kind = Kind::Symlink { target: b"busybox".to_vec() };
        let entry = Entry { kind, ..Entry::file(0, 0o777, at) };
        changes.put(RelPath::new("bin")?.child(applet.as_bytes())?, entry, Content::Empty);
    }
    for (name, text) in [
        ("data/deep/file", "deep\n"),
        ("data/gone", "gone\n"),
        ("data/old", "old\n"),
        ("data/script", "echo\n"),
        ("etc/group", "root:x:0:\napp:x:1000:\n"),
        ("etc/hosts", "of the image\n"),
        ("etc/passwd", "root:x:0:0::/:/bin/sh\napp:x:1000:1000::/:/bin/sh\n"),
        ("top", "top\n"),
    ] {
        let entry = Entry::file(text.len() as u64, 0o644, at);
        changes.put(RelPath::new(name)?, entry, Content::Bytes(text.as_bytes().into()));
    }
    let kind = Kind::Symlink { target: b"../run/resolver/resolv.conf".to_vec() };
    changes.put(RelPath::new("etc/resolv.conf")?, Entry { kind, ..Entry::file(0, 0o777, at) }, Content::Empty);
    let (_, index) = tar::write(&changes, None, File::create(path)?)?;
    Ok(index)
}

pub(crate) fn small_layer(bench: &Bench, changes: &Changes) -> Result<LayerFile, Box<dyn StdError>> {
    let path = bench.settings.home.join("small.tar");
    let (_, index) = tar::write(changes, None, File::create(&path)?)?;
    let digest = Digest::of("small");
    Ok(LayerFile {
        digest,
        diff_id: digest,
        index: Some(Arc::new(index)),
        blob: File::open(&path)?,
        coming: None,
        limits: Limits::default(),
    })
}

/// The processes that have an argument.
pub(crate) fn processes(argument: &str) -> Vec<u32> {
    let entries = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    let has = |pid: &u32| {
        let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        line.split(|&byte| byte == 0).any(|found| found == argument.as_bytes())
    };
    pids.filter(has).collect()
}
