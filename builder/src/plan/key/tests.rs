use yadokari_layers::{Compression, Entry, Index, IndexBuilder, Kind, RelPath, Timestamp, Tree, pack};

use super::*;
use crate::context::Hashed;
use crate::context::ignore::Ignore;
use crate::dockerfile::MountSharing;
use crate::image::{Form, Format, ImageConfig};
use crate::plan::op::{Access, Copy, Mkdir, Mount, MountKind, Run};
use crate::plan::select::Selected;
use crate::plan::{
    Base, ContextMode, CopySource, HistoryLine, ImageName, MountSource, Origin, Owner, Plan, SecretVariable, Stage,
    Taken,
};

/// What a mount shows, and which cache it is.
type Shown = (MountInput, Option<Key>);

fn span() -> Span {
    Span::new(0, 0)
}

fn path(text: &str) -> RelPath {
    RelPath::new(text).unwrap()
}

fn linux() -> Platform {
    Platform { os: "linux".into(), architecture: "amd64".into(), variant: None }
}

fn layer(text: &str) -> LayerRef {
    let (digest, diff_id) = (Digest::of(text), Digest::of(format!("tar of {text}")));
    LayerRef { digest, size: 9, compression: Compression::Gzip, diff_id }
}

fn base() -> Key {
    image(&linux(), &[layer("one"), layer("two")])
}

fn sample_run() -> Run {
    Run {
        argv: vec!["/bin/sh".into(), "-c".into(), "make".into()],
        env: vec![("PATH".into(), "/bin".into())],
        proxies: Vec::new(),
        user: String::new(),
        workdir: "/".into(),
        mounts: Vec::new(),
        secrets: Vec::new(),
        no_network: None,
        hostname: None,
        ignored: Vec::new(),
    }
}

fn mounting_run() -> (Run, Vec<Shown>) {
    let access = Access { mode: 0o755, uid: 1, gid: 2 };
    let source = |from| MountSource { from, path: "/a".into(), span: span() };
    let other = || MountInput::Key(image(&linux(), &[layer("other")]), "/a".into());
    let cache = |seed| cache("ns", "id", seed, ContextMode::Git);
    let (name, unseeded) = (cache(Some(&other())), Some(cache(None)));
    let (sharing, seed) = (MountSharing::Locked, Some(source(Some(Origin::Stage(0)))));
    let (id, required) = (String::from("id"), true);
    let context = MountInput::Context(found(0o644, 0));
    let kinds = [
        (MountKind::Bind { source: source(Some(Origin::Context)), read_only: true }, (context, None)),
        (MountKind::Cache { name, sharing, seed, access, read_only: false }, (other(), unseeded)),
        (MountKind::Tmpfs { size: Some(5) }, (MountInput::Nothing, None)),
        (MountKind::Secret { id: id.clone(), required, access }, (MountInput::Nothing, None)),
        (MountKind::Ssh { id: id.clone(), required, access }, (MountInput::Nothing, None)),
        (MountKind::Script { content: "#!/bin/sh\n".into() }, (MountInput::Nothing, None)),
    ];
    let mut run = sample_run();
    let mut all = Vec::new();
    for (number, (kind, shown)) in kinds.into_iter().enumerate() {
        run.mounts.push(Mount { target: format!("/m{number}"), kind, span: span() });
        all.push(shown);
    }
    run.secrets = vec![SecretVariable { name: "TOKEN".into(), id, required, span: span() }];
    (run.no_network, run.hostname) = (Some(span()), Some("host".into()));
    (run, all)
}

fn run_step((run, shown): (Run, Vec<Shown>)) -> Step {
    let parts = super::run(&run, &shown, ContextMode::Git);
    Step::new(Op::Run(run), &base(), parts, String::new(), None)
}

fn sample_copy() -> Copy {
    Copy {
        from: Origin::Context,
        sources: vec![CopySource { pattern: "a".into(), span: span(), elsewhere: None }],
        inline: Vec::new(),
        destination: "/app/".into(),
        destination_span: span(),
        chown: None,
        chmod: None,
        unpack: false,
        unpack_downloads: false,
        parents: false,
        exclude: Ignore::default(),
        link: false,
    }
}

/// The file `a` of a context.
fn found(mode: u32, secs: i64) -> ContextInput {
    let mut entry = Entry::file(3, mode, Timestamp::from_secs(secs));
    entry.kind = Kind::File { size: 3, content: Some(Digest::of("abc")) };
    let selected = Selected { name: Some(b"a".to_vec()), path: path("a"), include: None };
    ContextInput { selected, files: vec![Hashed { below: RelPath::root(), entry, is_passage: false }] }
}

fn copy_step_of(copy: Copy, found: ContextInput, mode: ContextMode) -> Step {
    let parts = super::copy(&copy, &Sources::Context(vec![vec![found]]), mode);
    Step::new(Op::Copy(copy), &base(), parts, String::new(), None)
}

fn copy_step(copy: Copy) -> Step {
    copy_step_of(copy, found(0o644, 0), ContextMode::Git)
}

fn copy_from_image() -> Step {
    let mut copy =
        Copy { from: Origin::Stage(0), chown: Some(Owner { text: "1:2".into(), span: span() }), ..sample_copy() };
    copy.exclude.exclude("*.md").unwrap();
    let parts = super::copy(&copy, &Sources::Key(Some(base())), ContextMode::Git);
    Step::new(Op::Copy(copy), &base(), parts, String::new(), None)
}

fn mkdir_step() -> Step {
    let mkdir = Mkdir { path: "/app".into(), owner: "app".into() };
    let parts = super::mkdir(&mkdir);
    Step::new(Op::Mkdir(mkdir), &base(), parts, String::new(), None)
}

/// An index with something of everything.
fn sample_index(secs: i64) -> Index {
    let at = Timestamp::from_secs(secs);
    let mut builder = IndexBuilder::new();
    builder.put(path("d"), Entry::directory(0o755, at), None);
    let mut file = Entry { uid: 5, gid: 6, ..Entry::file(3, 0o4755, at) };
    file.kind = Kind::File { size: 3, content: Some(Digest::of("abc")) };
    file.xattrs.insert(b"user.x".to_vec().into(), b"1".to_vec().into());
    builder.put(path("d/f"), file.clone(), None);
    builder.put(path("d/g"), Entry { kind: Kind::Hardlink { target: path("d/f") }, ..file.clone() }, None);
    builder.put(path("d/l"), Entry { kind: Kind::Symlink { target: b"f".to_vec() }, ..file.clone() }, None);
    builder.put(path("d/n"), Entry { kind: Kind::CharDevice { major: 1, minor: 3 }, ..file.clone() }, None);
    builder.put(path("d/p"), Entry { kind: Kind::Fifo, ..file }, None);
    builder.delete(path("gone"));
    builder.opaque(path("o"));
    builder.finish()
}

/// A plan of two steps on the image `base`.
fn sample_plan() -> Plan {
    let name = ImageName { name: "base".into(), platform: linux() };
    let config = ImageConfig { os: "linux".into(), architecture: "amd64".into(), ..ImageConfig::default() };
    let line = |text: &str, step| HistoryLine { created_by: text.into(), step };
    let history = vec![line("RUN make", Some((0, 0))), line("ENV A=1", None), line("WORKDIR /app", Some((0, 1)))];
    let steps = vec![run_step((sample_run(), Vec::new())), mkdir_step()];
    let (name, base) = ("stage-0".to_owned(), Base::Image(name));
    let stage = Stage { name, base, base_key: self::base(), steps, config, history };
    Plan { stages: vec![stage], warnings: Vec::new(), findings_are_errors: false, epoch: None }
}

fn sample_form() -> Form {
    Form { annotations: [("name".to_owned(), "value".to_owned())].into(), ..Form::default() }
}

fn result_of(plan: &Plan, layers: &[LayerRef], pack: &pack::Options) -> Key {
    result_key(plan, &|name| if name.name == "base" { layers.to_vec() } else { Vec::new() }, pack)
}

#[test]
fn keys_are_pinned() {
    let linked = copy_step(Copy { link: true, ..sample_copy() });
    let mounting = run_step(mounting_run());
    let options = pack::Options { compression: Compression::Zstd, level: Some(3), clamp: Some(7) };
    let content = content_of(&sample_index(1), &Digest::of("tar"), None);
    let mut keys = vec![
        ("nothing", scratch(&linux())),
        ("image", base()),
        ("run", run_step((sample_run(), Vec::new())).key),
        ("run with mounts", mounting.key),
        ("mkdir", mkdir_step().key),
        ("copy", copy_step(sample_copy()).key),
        ("copy with parents", copy_step(Copy { parents: true, ..sample_copy() }).key),
        ("copy of raw modes", copy_step_of(sample_copy(), found(0o640, 0), ContextMode::Raw).key),
        ("copy from a stage", copy_from_image().key),
        ("linked copy", linked.key),
        ("layer of a linked copy", linked.stored_under()),
        ("content of a run", mounting.content_key(&scratch(&linux()), &[base()])),
        ("content of a linked copy", linked.content_key(&base(), &[])),
        ("record", record_key(&base(), &pack::Options::default())),
        ("record with options", record_key(&base(), &options)),
        ("state", state(&base(), &content)),
        ("result", result_of(&sample_plan(), &[layer("one"), layer("two")], &options)),
        ("result of an index", result_key_of_index(&[(linux(), base())])),
        ("squashed result", squashed_result_key(&base())),
        ("formed result", formed_result_key(&base(), &sample_form())),
        ("squash", squash_key(&[layer("one")], &[layer("two"), layer("three")])),
    ];
    let tree = Tree::of([std::sync::Arc::new(sample_index(1))]);
    let mut copy = sample_copy();
    (copy.from, copy.sources[0].pattern) = (Origin::Stage(0), "d".into());
    keys.push(("taken", Taken::Copied(&copy).content(&tree, None).unwrap().unwrap()));
    keys.push(("taken with times", Taken::Copied(&copy).content(&tree, Some(5)).unwrap().unwrap()));
    let mut text: String = keys.iter().map(|(name, key)| format!("{key} {name}\n")).collect();
    text.push_str(&format!("{} content of a layer\n", content.hex()));
    assert_eq!(text, include_str!("../../../tests/golden/keys.txt"));
}

#[test]
fn inputs_have_the_names_of_what_they_are() {
    let names = |step: &Step| step.inputs.iter().map(|input| input.name.clone()).collect::<Vec<_>>();
    let expected = [
        "command",
        "variable PATH",
        "user",
        "working directory",
        "host name",
        "network",
        "mount /m0",
        "file a",
        "mount /m1",
        "mount /m2",
        "mount /m3",
        "mount /m4",
        "mount /m5",
        "secret id",
    ];
    assert_eq!(names(&run_step(mounting_run())), expected);
    assert_eq!(names(&copy_step(sample_copy())), ["destination", "file a"]);
    assert_eq!(names(&copy_from_image()), ["destination", "owner", "source a", "exclude"]);
    assert_eq!(names(&mkdir_step()), ["destination", "owner"]);
}

#[test]
fn a_key_is_made_of_what_is_below_the_operation_its_inputs_and_what_it_takes_from() {
    let step = run_step(mounting_run());
    let key = |below: &Key, inputs: &[Input], from: &[Key]| super::step("step", &step.op, Some(below), inputs, from);
    let from = [image(&linux(), &[layer("other")])];
    assert_eq!(key(&base(), &step.inputs, &from), step.key);
    let mut renamed = step.inputs.clone();
    renamed.iter_mut().for_each(|input| input.name.clear());
    assert_eq!(key(&base(), &renamed, &from), step.key, "names are for people");
    let others = [
        key(&scratch(&linux()), &step.inputs, &from),
        key(&base(), &step.inputs[1..], &from),
        key(&base(), &step.inputs, &[]),
        key(&base(), &step.inputs, &[base()]),
        super::step("content", &step.op, Some(&base()), &step.inputs, &from),
        super::step("step", &mkdir_step().op, Some(&base()), &step.inputs, &from),
        super::step("step", &step.op, None, &step.inputs, &from),
    ];
    assert!(others.iter().all(|other| *other != step.key));
}

#[test]
fn the_attributes_of_a_file_count() {
    let key = |value: Option<&[u8]>| {
        let mut found = found(0o644, 0);
        let xattrs = &mut found.files[0].entry.xattrs;
        xattrs.extend(value.map(|value| (b"security.capability".to_vec().into(), value.to_vec().into())));
        copy_step_of(sample_copy(), found, ContextMode::Git).key
    };
    let all = std::collections::BTreeSet::from([key(None), key(Some(b"")), key(Some(b"1"))]);
    assert_eq!((all.len(), key(Some(b"1"))), (3, key(Some(b"1"))));
}

#[test]
fn proxies_change_no_key() {
    let mut other = sample_run();
    other.proxies.push(("HTTP_PROXY".into(), "http://proxy".into()));
    assert_eq!(run_step((sample_run(), Vec::new())).key, run_step((other, Vec::new())).key);
}

#[test]
fn what_changes_no_result_of_a_mount_changes_no_key() {
    let all = run_step(mounting_run()).key;
    let mut other = mounting_run();
    for mount in &mut other.0.mounts {
        match &mut mount.kind {
            MountKind::Cache { sharing, .. } => *sharing = MountSharing::Private,
            MountKind::Secret { required, .. } | MountKind::Ssh { required, .. } => *required = false,
            _ => {}
        }
        mount.span = Span::new(7, 9);
    }
    other.0.secrets[0].required = false;
    other.1[0].0 = MountInput::Context(found(0o600, 5));
    assert_eq!(run_step(other).key, all);
    let mut executable = mounting_run();
    executable.1[0].0 = MountInput::Context(found(0o755, 0));
    assert_ne!(run_step(executable).key, all);
}

#[test]
fn a_content_key_does_not_know_how_what_is_below_came_about() {
    let below = state(&base(), &Digest::of("content"));
    let mut mounting = mounting_run();
    let step = run_step(mounting_run());
    // The stage that is mounted was built in another way, and so the cache that begins with it is another one.
    for (mount, (shown, _)) in mounting.0.mounts.iter_mut().zip(&mut mounting.1) {
        if let MountInput::Key(key, _) = shown {
            *key = scratch(&linux());
        }
        if let MountKind::Cache { name, .. } = &mut mount.kind {
            *name = cache("ns", "id", Some(shown), ContextMode::Git);
        }
    }
    let other = run_step(mounting);
    assert_ne!(other.key, step.key);
    let content = |step: &Step, from| step.content_key(&below, &[from]);
    assert_eq!(content(&other, base()), content(&step, base()));
    assert_ne!(content(&step, base()), content(&step, below));
    assert_ne!(step.content_key(&base(), &[base()]), content(&step, base()));
    let linked = copy_step(Copy { link: true, ..sample_copy() });
    assert_eq!(linked.content_key(&below, &[]), linked.content_key(&base(), &[]));
    assert_ne!(linked.content_key(&below, &[]), linked.stored_under());
}

#[test]
fn what_a_layer_holds_is_all_but_its_times() {
    let diff_id = Digest::of("tar");
    let content = |index: &Index, clamp| content_of(index, &diff_id, clamp);
    let all = content(&sample_index(1), None);
    assert_eq!(content(&sample_index(2), None), all);
    assert_eq!(content(&sample_index(1), Some(0)), diff_id);
    let edits: [&dyn Fn(&mut Entry); 6] = [
        &|entry| entry.mode = 0o755,
        &|entry| entry.uid = 0,
        &|entry| entry.gid = 0,
        &|entry| entry.xattrs.clear(),
        &|entry| entry.kind = Kind::File { size: 3, content: Some(Digest::of("abd")) },
        &|entry| entry.kind = Kind::Symlink { target: b"abc".to_vec() },
    ];
    for (number, edit) in edits.into_iter().enumerate() {
        let mut builder = IndexBuilder::new();
        for (path, record) in sample_index(1).records() {
            match record.entry() {
                Some(entry) => {
                    let mut entry = entry.clone();
                    if path.as_bytes() == b"d/f" {
                        edit(&mut entry);
                    }
                    builder.put(path.clone(), entry, None);
                }
                None if path.as_bytes() == b"o" => builder.opaque(path.clone()),
                None => builder.delete(path.clone()),
            }
        }
        assert_ne!(content(&builder.finish(), None), all, "{number}");
    }
    let one = |fill: fn(&mut IndexBuilder)| {
        let mut builder = IndexBuilder::new();
        fill(&mut builder);
        content(&builder.finish(), None)
    };
    let gone = one(|builder| builder.delete(path("d")));
    let opaque = one(|builder| builder.opaque(path("d")));
    let put = one(|builder| builder.put(path("d"), Entry::directory(0o755, Timestamp::default()), None));
    let both = one(|builder| {
        builder.opaque(path("d"));
        builder.put(path("d"), Entry::directory(0o755, Timestamp::default()), None);
    });
    let all = std::collections::BTreeSet::from([gone, opaque, put, both]);
    assert_eq!(all.len(), 4);
}

#[test]
fn a_record_is_of_one_way_to_write_layers() {
    let default = pack::Options::default();
    let options = [
        default,
        pack::Options { compression: Compression::Zstd, ..default },
        pack::Options { compression: Compression::None, ..default },
        pack::Options { level: Some(3), ..default },
        pack::Options { clamp: Some(3), ..default },
        pack::Options { clamp: Some(4), ..default },
    ];
    let records: std::collections::BTreeSet<Key> =
        options.iter().map(|options| record_key(&base(), options)).chain([base()]).collect();
    assert_eq!(records.len(), options.len() + 1);
}

#[test]
fn a_result_depends_on_all_that_its_bytes_do() {
    let (layers, pack) = ([layer("one"), layer("two")], pack::Options::default());
    let all = result_of(&sample_plan(), &layers, &pack);
    let edited = |edit: fn(&mut Plan)| {
        let mut plan = sample_plan();
        edit(&mut plan);
        result_of(&plan, &layers, &pack)
    };
    let other_bytes = LayerRef { digest: Digest::of("other"), ..layer("two") };
    let others = [
        edited(|plan| _ = plan.stages[0].config.config.labels.insert("l".into(), "1".into())),
        edited(|plan| plan.stages[0].config.created = Some("2001-01-01T00:00:00Z".into())),
        edited(|plan| plan.stages[0].history[1].created_by = "ENV A=2".into()),
        edited(|plan| plan.stages[0].steps[1].key = base()),
        edited(|plan| plan.stages[0].steps.reverse()),
        edited(|plan| _ = plan.stages[0].steps.pop()),
        edited(|plan| plan.epoch = Some(1)),
        result_of(&sample_plan(), &layers[..1], &pack),
        result_of(&sample_plan(), &[layer("one"), other_bytes], &pack),
        result_of(&sample_plan(), &layers, &pack::Options { compression: Compression::Zstd, ..pack }),
        result_of(&sample_plan(), &layers, &pack::Options { clamp: Some(0), ..pack }),
        squashed_result_key(&all),
        formed_result_key(&all, &sample_form()),
        formed_result_key(&all, &Form { format: Format::Docker, ..Form::default() }),
        formed_result_key(&all, &Form { index_annotations: sample_form().annotations, ..Form::default() }),
    ];
    let different: std::collections::BTreeSet<Key> = others.into_iter().chain([all]).collect();
    assert_eq!(different.len(), others.len() + 1);
    let unchanged = edited(|plan| {
        plan.stages[0].name = "other".into();
        plan.stages[0].steps[0].text = "other".into();
        plan.warnings.push(crate::dockerfile::Diagnostic::warning("other"));
    });
    assert_eq!(unchanged, all);
    let arm = Platform { architecture: "arm64".into(), ..linux() };
    let index = |images: &[(Platform, Key)]| result_key_of_index(images);
    assert_ne!(index(&[(linux(), all)]), index(&[(arm.clone(), all)]));
    assert_ne!(index(&[(linux(), all), (arm.clone(), all)]), index(&[(arm, all), (linux(), all)]));
}

#[test]
fn a_squashed_layer_depends_on_what_is_below_and_on_what_it_is_made_of() {
    let [one, two, three] = ["one", "two", "three"].map(layer);
    let all = squash_key(&[one], &[two, three]);
    let others = [
        squash_key(&[], &[one, two, three]),
        squash_key(&[one, two], &[three]),
        squash_key(&[three], &[two, one]),
        squash_key(&[one], &[three, two]),
        squash_key(&[one], &[two]),
    ];
    assert_eq!(others.into_iter().chain([all]).collect::<std::collections::BTreeSet<Key>>().len(), 6);
    let compressed = LayerRef { digest: Digest::of("other"), compression: Compression::Zstd, size: 1, ..two };
    assert_eq!(squash_key(&[one], &[compressed, three]), all);
}

/// What is taken of a tree of these files, each with what it is and its time.
fn taken(files: &[(&str, Kind, i64)], pattern: &str, clamp: Option<i64>) -> Option<Key> {
    let mut builder = IndexBuilder::new();
    for (name, kind, secs) in files {
        let entry = Entry { kind: kind.clone(), ..Entry::directory(0o755, Timestamp::from_secs(*secs)) };
        builder.put(path(name), entry, None);
    }
    let mut copy = Copy { from: Origin::Stage(0), ..sample_copy() };
    copy.sources[0].pattern = pattern.into();
    copy.exclude.exclude("left").unwrap();
    let tree = Tree::of([std::sync::Arc::new(builder.finish())]);
    let copied = Taken::Copied(&copy).content(&tree, clamp).unwrap();
    let mount = MountSource { from: Some(Origin::Stage(0)), path: pattern.into(), span: span() };
    let origin = Origin::Stage(0);
    let mounted = Taken::Mounted(&mount, &origin).content(&tree, clamp).unwrap();
    assert_eq!(copied, mounted);
    copied
}

#[test]
fn what_is_taken_counts_and_nothing_beside_it() {
    let file = |text: &str| Kind::File { size: text.len() as u64, content: Some(Digest::of(text)) };
    let link = |target: &str| Kind::Hardlink { target: path(target) };
    let with = |name, kind: Kind, secs| {
        taken(&[("a", Kind::Directory, 1), ("a/f", file("x"), 1), ("b", file("y"), 1), (name, kind, secs)], "a", None)
    };
    let all = with("a/g", file("x"), 1);
    assert_eq!(with("a/g", file("x"), 2), all, "its time");
    assert_ne!(with("a/g", file("z"), 1), all, "its content");
    assert_ne!(with("a/h", file("x"), 1), all, "its name");
    assert_ne!(with("a/g", link("a/f"), 1), all, "that it has two names");
    let plain = with("b", file("y"), 1);
    assert_eq!(with("b", file("z"), 1), plain, "what is beside it");
    let times = |secs, clamp| taken(&[("a", file("x"), secs)], "a", Some(clamp));
    assert_eq!((times(8, 5), times(9, 9)), (times(9, 5), times(9, 9)));
    assert_ne!(times(8, 9), times(9, 9));
    assert_eq!(taken(&[("a", file("x"), 1)], "none", None), None);
    // A link to a file of one's own directory is that file by another name, wherever it comes first.
    let elsewhere = |text| taken(&[("a", Kind::Directory, 1), ("0", file(text), 1), ("a/f", link("0"), 1)], "a", None);
    assert_ne!(elsewhere("x"), elsewhere("y"));
}
