//! What RUN steps made, merged. Nothing is executed: what they made is said to be done.

use yadokari_layers::{Changes, Content, Digest, Index};

use super::super::earlier::{Claimed, Outcome};
use super::*;
use crate::image::ImageConfig;
use crate::plan::BaseImage;

/// A base image of these layers.
struct Based(Vec<LayerRef>);

impl Fetch for Based {
    fn layers(&self, _image: &ImageName) -> Vec<LayerRef> {
        self.0.clone()
    }

    fn fetch(&self, layers: &[LayerRef], directory: &Path, _begun: Option<Begun<'_>>) -> Result<(), crate::Error> {
        assert!(layers.iter().all(|layer| yadokari_layers::blob_path(directory, &layer.digest).exists()));
        Ok(())
    }
}

fn path(text: &str) -> RelPath {
    RelPath::new(text).unwrap()
}

/// `d/` is a directory, `f=x` a file and its content, `h<f` a hard link, `-p` a deletion.
fn changes(lines: &[&str]) -> Changes {
    let mut changes = Changes::new();
    let now = Timestamp::from_secs(EPOCH);
    for line in lines {
        if let Some(gone) = line.strip_prefix('-') {
            changes.delete(path(gone));
        } else if let Some(directory) = line.strip_suffix('/') {
            changes.put(path(directory), Entry::directory(0o755, now), Content::Empty);
        } else if let Some((link, first)) = line.split_once('<') {
            let kind = Kind::Hardlink { target: path(first) };
            changes.put(path(link), Entry { kind, ..Entry::file(0, 0o644, now) }, Content::Empty);
        } else {
            let (file, content) = line.split_once('=').unwrap();
            let entry = Entry::file(content.len() as u64, 0o644, now);
            changes.put(path(file), entry, Content::Bytes(content.as_bytes().into()));
        }
    }
    changes
}

/// Builds a Dockerfile on a base image, whose RUN steps made these layers, each once it is its turn. Gives the layers with
/// what they say, the comment on the merge, and what was handed on.
fn build(
    text: &str,
    base: &[&str],
    runs: &[&[&str]],
    squash: bool,
) -> (Vec<Arc<Index>>, Option<String>, Vec<Finished>) {
    let directory = tempfile::tempdir().unwrap();
    let work = WorkDir::create(directory.path()).unwrap();
    let options = pack::Options { compression: Compression::None, level: None, clamp: Some(EPOCH) };
    let pack = |lines: &[&str]| pack::pack(&changes(lines), &options, work.blobs()).unwrap();
    let base: Vec<LayerRef> = pack(base).iter().map(LayerRef::from).collect();
    let config = ImageConfig { os: "linux".into(), architecture: "amd64".into(), ..ImageConfig::default() };
    let found = BaseImage { manifest: Digest::of("base"), config, layers: base.clone() };
    let bench = Bench::new(&[]);
    let (contexts, plan) = bench.plan(&Source::new("Dockerfile", text), Some(&found)).unwrap();
    let done = Done::default();
    for ((step, _), lines) in plan.commands().zip(runs) {
        let Claimed::Here(claim) = done.claim(step, &options) else { panic!("each step is another one") };
        claim.remember(Outcome::from(pack(lines)));
    }
    assert_eq!(plan.commands().count(), runs.len());
    let finished = Mutex::new(Vec::new());
    let fetch = Based(base);
    let interrupt = Interrupt::default();
    let pending = Pending { plan: &plan, pack: options, done: &done, earlier: None, fetch: &fetch };
    let executor = Executor {
        plan: &plan,
        contexts: &contexts,
        done: &done,
        label: "",
        earlier: None,
        readers: &Readers::new(work.holders(), vec![pending]),
        number: 0,
        fetch: &fetch,
        blobs: &Blobs::new(&work, &fetch),
        pack: &options,
        squash,
        ignored: &[],
        work: &work,
        sandbox: None,
        secrets: &Secrets::default(),
        agents: &Agents::default(),
        network_files: &NetworkFiles::default(),
        trust: None,
        progress: &Progress::to(Level::Warn, Box::new(Said::default())),
        interrupt: &interrupt,
        begun: &|_| (),
        failed: None,
        finished: &|what| {
            finished.lock().unwrap().push(what);
            Ok(())
        },
    };
    let result = execute(&[executor], NonZeroUsize::MIN, &interrupt).unwrap().remove(0).pop().unwrap();
    let blobs = Blobs::new(&work, &fetch);
    let indexes = result.layers.iter().map(|layer| blobs.index(layer).unwrap()).collect();
    (indexes, result.merged.map(|merged| merged.comment), finished.into_inner().unwrap())
}

/// What each layer says.
fn lines(index: &Index) -> Vec<String> {
    let line = |(path, record): &(RelPath, yadokari_layers::Record)| match record.entry() {
        Some(Entry { kind: Kind::Directory, .. }) => format!("{path}/"),
        Some(Entry { kind: Kind::Hardlink { target }, .. }) => format!("{path}<{target}"),
        Some(_) => path.to_string(),
        None => format!("-{path}"),
    };
    index.records().iter().map(line).collect()
}

const BASE: [&str; 6] = ["d/", "d/f=1", "d/g=2", "h=3", "i<h", "t=4"];

#[test]
fn what_commands_made_and_deleted_is_merged_across_stages() {
    let text = "FROM base AS below\nRUN one\nRUN two\nFROM below\nRUN three\nRUN four\n";
    let runs: [&[&str]; 4] = [
        &["d/", "d/new=content", "-d/f", "x=1", "y<x"],
        &["d/", "-d/new", "t=changed"],
        &["-x", "-h"],
        &["d=a file", "z=late"],
    ];
    let (plain, comment, handed_on) = build(text, &BASE, &runs, false);
    assert_eq!((plain.len(), comment, handed_on.len()), (5, None, 4));
    assert!(handed_on.iter().all(|finished| finished.wanted));
    let (squashed, comment, handed_on) = build(text, &BASE, &runs, true);
    assert_eq!(squashed.len(), 2);
    assert_eq!(squashed[0], plain[0], "the base's layer stays");
    assert_eq!(lines(&squashed[1]), ["d", "-h", "t", "y", "z"]);
    let flat = |layers: &[Arc<Index>]| {
        let tree = Tree::of(layers.iter().cloned());
        tree.iter().map(|(path, _)| (path.clone(), tree.content(path).unwrap().1.entry.clone())).collect::<Vec<_>>()
    };
    assert_eq!(flat(&squashed), flat(&plain));
    assert!(comment.unwrap().starts_with("merge sha256:"));
    // The layers that were merged go nowhere.
    assert_eq!(handed_on.len(), 1);
    assert!(handed_on[0].wanted && handed_on[0].layer.is_some());
}

#[test]
fn a_stage_that_is_only_copied_from_is_not_merged() {
    let text = "FROM base AS other\nRUN one\nRUN two\nFROM base\nRUN three\nCOPY --from=other /x /y\n";
    let runs: [&[&str]; 3] = [&["x=1"], &["-t"], &["d/", "-d/f"]];
    let (squashed, _, _) = build(text, &BASE, &runs, true);
    assert_eq!(lines(&squashed[1]), ["d/", "-d/f", "y"]);
}
