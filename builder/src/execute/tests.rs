//! Whole builds without a RUN: from a Dockerfile and a context to layers, and what they say.

mod stages;

use std::fs;
use std::io::{Read as _, Write};
use std::os::unix::fs::{PermissionsExt, chown, symlink};
use std::path::Path;
use std::sync::{Arc, Mutex};

use rustix::fs::{XattrFlags, setxattr};
use yadokari_layers::{Compression, Entry, Kind, RelPath, Tree};
use yadokari_registry::Platform;

use super::*;
use crate::context::Contexts;
use crate::dockerfile::{Source, parse};
use crate::plan::{BaseImage, ContextMode, ImageName, Known, Options, Planned, plan};
use crate::progress::Level;
use crate::progress::said::Said;

mod disk;
mod squash;

/// The SOURCE_DATE_EPOCH of all builds here.
const EPOCH: i64 = 1_000_000_000;

pub(super) struct NothingToFetch;

impl Fetch for NothingToFetch {
    fn layers(&self, _image: &ImageName) -> Vec<LayerRef> {
        Vec::new()
    }

    fn fetch(&self, _layers: &[LayerRef], _directory: &Path, _begun: Option<Begun<'_>>) -> Result<(), crate::Error> {
        Ok(())
    }
}

/// A context that is built from.
struct Bench(tempfile::TempDir);

/// What is not the same in all builds here.
struct Setting<'s> {
    jobs: usize,
    /// What every image is that the file names.
    image: Option<BaseImage>,
    fetch: &'s dyn Fetch,
    ignored: &'s [RelPath],
    /// Happens when the keys are known and nothing has been executed yet.
    edit: &'s dyn Fn(),
    finished: &'s (dyn Fn(&WorkDir, Finished) -> Result<(), crate::Error> + Sync),
}

impl Default for Setting<'_> {
    fn default() -> Self {
        Self { jobs: 1, image: None, fetch: &NothingToFetch, ignored: &[], edit: &|| (), finished: &|_, _| Ok(()) }
    }
}

/// A finished build.
struct Built {
    work: WorkDir,
    _parent: tempfile::TempDir,
    layers: Vec<LayerRef>,
    /// What was warned of.
    messages: String,
}

impl Bench {
    fn new(files: &[(&str, &str)]) -> Self {
        let bench = Self(tempfile::tempdir().unwrap());
        for (path, content) in files {
            let path = bench.path(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(&path, content).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
        }
        bench
    }

    fn path(&self, path: &str) -> std::path::PathBuf {
        self.0.path().join(path)
    }

    fn try_build(&self, text: &str) -> Result<Built, String> {
        self.try_build_so(text, &Setting::default())
    }

    fn try_build_so(&self, text: &str, setting: &Setting<'_>) -> Result<Built, String> {
        let source = Source::new("Dockerfile", text);
        let rendered = |error: crate::Error| match error {
            crate::Error::Dockerfile(error) => error.render(&source, false),
            error => error.to_string(),
        };
        let (contexts, plan) = self.plan(&source, setting.image.as_ref()).map_err(rendered)?;
        (setting.edit)();
        let (parent, messages) = (tempfile::tempdir().unwrap(), Said::default());
        let work = WorkDir::create(parent.path()).unwrap();
        let (interrupt, done) = (Interrupt::default(), Done::default());
        let options = pack::Options { compression: Compression::None, level: None, clamp: Some(EPOCH) };
        let pending = Pending { plan: &plan, pack: options, done: &done, earlier: None, fetch: setting.fetch };
        let executor = Executor {
            plan: &plan,
            contexts: &contexts,
            done: &done,
            label: "",
            earlier: None,
            readers: &Readers::new(work.holders(), vec![pending]),
            number: 0,
            fetch: setting.fetch,
            blobs: &Blobs::new(&work, setting.fetch),
            pack: &options,
            squash: false,
            ignored: setting.ignored,
            work: &work,
            sandbox: None,
            secrets: &Secrets::default(),
            agents: &Agents::default(),
            network_files: &NetworkFiles::default(),
            trust: None,
            progress: &Progress::to(Level::Warn, Box::new(messages.clone())),
            interrupt: &interrupt,
            begun: &|_| (),
            failed: None,
            finished: &|done| (setting.finished)(&work, done),
        };
        let jobs = NonZeroUsize::new(setting.jobs).unwrap();
        let layers = execute(&[executor], jobs, &interrupt).map_err(rendered)?.remove(0).pop().unwrap().layers;
        Ok(Built { work, _parent: parent, layers, messages: messages.text() })
    }

    fn plan(&self, source: &Source, image: Option<&BaseImage>) -> Result<(Contexts, Plan), crate::Error> {
        let file = parse(source)?;
        let context = Context::open(self.0.path(), Path::new("none"))?;
        let platform = Platform { os: "linux".into(), architecture: "amd64".into(), variant: None };
        let contexts = Contexts::open(context, &[])?;
        let options = Options {
            target: None,
            build_args: Vec::new(),
            labels: Vec::new(),
            host: platform.clone(),
            platform,
            platform_is_given: false,
            epoch: Some(EPOCH),
            reproducible: false,
            context_mode: ContextMode::default(),
            ignored: Vec::new(),
        };
        let mut known = Known::default();
        loop {
            let needs = match plan(&file, &options, &contexts, &known)? {
                Planned::Ready(plan) => return Ok((contexts, plan)),
                Planned::Needs(needs) => needs,
            };
            let image = image.expect("nothing is fetched here");
            known.images.extend(needs.images.into_keys().map(|name| (name, image.clone())));
        }
    }

    fn build(&self, text: &str) -> Built {
        self.try_build(text).unwrap_or_else(|error| panic!("{error}"))
    }

    /// What is in the image that the instructions make of nothing.
    fn made(&self, instructions: &str) -> Vec<String> {
        self.build(&format!("FROM scratch\n{instructions}\n")).lines()
    }

    fn error(&self, instructions: &str) -> String {
        match self.try_build(&format!("FROM scratch\n{instructions}\n")) {
            Ok(built) => panic!("no error: {:?}", built.lines()),
            Err(error) => error,
        }
    }
}

impl Built {
    fn tree(&self) -> Tree {
        Blobs::new(&self.work, &NothingToFetch).tree(&self.layers).unwrap()
    }

    /// Path, mode, owner, and `/` of a directory, the content of a file or the target of a link.
    fn lines(&self) -> Vec<String> {
        let blobs = Blobs::new(&self.work, &NothingToFetch);
        let tree = self.tree();
        let line = |path: &RelPath| {
            let (name, found) = tree.content(path).unwrap();
            let what = match &found.entry.kind {
                Kind::Directory => "/".to_owned(),
                Kind::Symlink { target } => format!("-> {}", target.escape_ascii()),
                Kind::File { .. } => {
                    let mut spool = blobs.spool().unwrap();
                    let files = blobs.extract(&self.layers[found.layer], std::slice::from_ref(name), &mut spool);
                    let mut content = Vec::new();
                    files.unwrap()[name].open().unwrap().read_to_end(&mut content).unwrap();
                    format!("'{}'", content.escape_ascii())
                }
                kind => format!("{kind:?}"),
            };
            let Entry { mode, uid, gid, .. } = found.entry;
            format!("{path} {mode:o} {uid}:{gid} {what}")
        };
        tree.iter().map(|(path, _)| line(path)).collect()
    }
}

#[test]
fn several_sources_need_a_directory() {
    let bench = Bench::new(&[("a", "1"), ("b", "2"), ("d/x", "3"), ("e/y", "4")]);
    for line in ["COPY a b /t", "COPY [ab] /t", "ADD a d /t", "COPY a <<E /t\nx\nE", "COPY <<E <<F /t\nx\nE\ny\nF"] {
        let error = bench.error(line);
        assert!(error.contains("several sources are copied, and '/t' is not a directory"), "{line}: {error}");
        assert!(error.contains("write the destination as '/t/'") && error.contains("Dockerfile:2:"), "{error}");
    }
    let both = ["t 755 0:0 /", "t/a 644 0:0 '1'", "t/b 644 0:0 '2'"];
    assert_eq!(bench.made("COPY a b /t/"), both);
    assert_eq!(bench.made("WORKDIR /t\nCOPY a b /t"), both, "a directory that is there needs no slash");
    assert_eq!(bench.made("COPY [a] /t"), ["t 644 0:0 '1'"], "a pattern with one match is one source");
    assert_eq!(bench.made("ADD d a /t").len(), 3, "a directory before the files makes one of the destination");
    assert_eq!(bench.made("COPY d e /t"), ["t 755 0:0 /", "t/x 644 0:0 '3'", "t/y 644 0:0 '4'"]);
}

#[test]
fn a_stage_that_lacks_a_source_is_an_error_with_its_place() {
    let bench = Bench::new(&[("f", "1"), ("d/x", "2")]);
    let error = |line: &str| bench.try_build(&format!("FROM scratch AS a\nCOPY . /\nFROM scratch\n{line}\n")).err();
    for line in ["COPY --from=a /none /", "COPY --from=a /f none* /none /x/", "COPY --from=a --parents /d/none /"] {
        let error = error(line).unwrap();
        assert!(
            error.contains("none' does not exist in what is copied from") && error.contains("Dockerfile:4:"),
            "{error}"
        );
    }
    assert!(error("COPY --from=a /none* /").is_none());
}

#[test]
fn a_copy_from_a_stage_keeps_what_it_finds() {
    let bench = Bench::new(&[("f", "1"), ("d/x", "2"), ("d/y", "3")]);
    symlink("x", bench.path("d/l")).unwrap();
    let first = "FROM scratch AS a\nCOPY --chown=3:4 --chmod=4640 f /f\nCOPY --chown=5:6 d /k/\n";
    let lines = bench.build(&format!("{first}FROM scratch\nCOPY --from=a / /all/\n")).lines();
    let expected = [
        "all 755 0:0 /",
        "all/f 4640 3:4 '1'",
        "all/k 755 5:6 /",
        "all/k/l 777 5:6 -> x",
        "all/k/x 644 5:6 '2'",
        "all/k/y 644 5:6 '3'",
    ];
    assert_eq!(lines, expected);
    let some = "FROM scratch\nCOPY --from=a --parents --exclude=k/y k/x k/y /some/\nCOPY --from=a --exclude=x /k /n\n";
    let lines = bench.build(&format!("{first}{some}")).lines();
    let expected = [
        "n 755 0:0 /",
        "n/l 777 5:6 -> x",
        "n/y 644 5:6 '3'",
        "some 755 0:0 /",
        "some/k 755 5:6 /",
        "some/k/x 644 5:6 '2'",
    ];
    assert_eq!(lines, expected);
}

#[test]
fn owners_are_looked_up_in_the_stage_that_is_copied_to() {
    let bench = Bench::new(&[("f", "1"), ("p", "app:x:7:8::/:\n"), ("g", "apps:x:9:\n"), ("q", "app:x:1:1::/:\n")]);
    let base = "COPY p /etc/passwd\nCOPY g /etc/group\n";
    let owner = |chown: &str| {
        let other = format!("FROM scratch AS o\nCOPY q /etc/passwd\nCOPY f /f\nFROM scratch\n{base}");
        let lines = bench.build(&format!("{other}COPY --from=o --chown={chown} /f /x/f\n")).lines();
        lines[lines.len() - 2..].iter().map(|line| line.split(' ').nth(2).unwrap().to_owned()).collect::<Vec<_>>()
    };
    for (chown, expected) in [("app", "7:8"), ("app:apps", "7:9"), ("5", "5:5"), ("5:apps", "5:9"), ("app:3", "7:3")] {
        assert_eq!(owner(chown), [expected, expected], "{chown}: the file, and the directory made for it");
    }
    for (chown, message) in [("web", "user 'web' is not in the image's /etc/passwd"), ("app:web", "group 'web'")] {
        let error = bench.error(&format!("{base}COPY --chown={chown} f /x"));
        assert!(error.contains(message) && error.contains("Dockerfile:4:14"), "{error}");
    }
}

#[test]
fn here_documents_are_roots_and_take_the_flags() {
    let bench = Bench::new(&[("f", "1")]);
    let lines = bench.made("ARG V=v\nCOPY <<a <<\"b\" <<-'c' /h/\n$V \\$V \"x\"\na\n$V\nb\n\t\ty\n\tc");
    let expected = ["h 755 0:0 /", "h/a 644 0:0 'v $V \\\"x\\\"\\n'", "h/b 644 0:0 '$V\\n'", "h/c 644 0:0 'y\\n'"];
    assert_eq!(lines, expected);
    let lines = bench.made("COPY --chmod=u+x,go= --chown=3:4 <<a /h\nx\na");
    assert_eq!(lines, ["h 700 3:4 'x\\n'"]);
    let lines = bench.made("COPY --link --chown=3 <<a f /h/\nx\na\nCOPY --parents --exclude=a <<a /p/q\ny\na");
    let expected = ["h 755 3:3 /", "h/a 644 3:3 'x\\n'", "h/f 644 3:3 '1'", "p 755 0:0 /", "p/q 644 0:0 'y\\n'"];
    assert_eq!(lines, expected);
}

#[test]
fn the_escape_character_of_here_documents_is_always_a_backslash() {
    let bench = Bench::new(&[]);
    let text = "# escape=`\nFROM scratch\nENV V=v\nCOPY <<A `\n /h\n`$V \\$V `\nx\\\ny\nA\n";
    assert_eq!(bench.build(text).lines(), ["h 644 0:0 '`v $V `\\nx\\ny\\n'"]);
}

#[test]
fn a_linked_layer_is_the_same_on_every_base() {
    let bench = Bench::new(&[("f", "1"), ("d/x", "2")]);
    let last = |text: &str| bench.build(&format!("FROM scratch\n{text}\n")).layers.pop().unwrap().digest;
    let bases = ["WORKDIR /other", "COPY --chmod=700 --chown=9 d /app/", "COPY --chmod=711 f /app/sub/y"];
    let copies = ["f /app/sub/", "--chown=3:4 d /app", "--parents d/x /app/", "--exclude=x d /app", "<<E /app/e\n\nE"];
    for copy in copies {
        let linked = bases.map(|base| last(&format!("{base}\nCOPY --link {copy}")));
        assert!(linked.iter().all(|digest| *digest == linked[0]), "{copy}");
    }
    let plain = bases.map(|base| last(&format!("{base}\nCOPY f /app/sub/")));
    assert_ne!(plain[1], plain[2], "what is copied plainly states the directories of the base");
}

#[test]
fn a_linked_copy_replaces_what_is_in_its_way() {
    let bench = Bench::new(&[("f", "1"), ("d/x", "2"), ("links/real/old", "3")]);
    symlink("real", bench.path("links/l")).unwrap();
    let base = "COPY links /\nCOPY --chmod=700 --chown=9 d /d/\nCOPY f /f\n";
    let lines = bench.made(&format!("{base}COPY --link f /l/\nCOPY --link f /d/y\nCOPY --link d /f\nCOPY d /l\n"));
    let expected = [
        "d 755 0:0 /",
        "d/x 700 9:9 '2'",
        "d/y 644 0:0 '1'",
        "f 755 0:0 /",
        "f/x 644 0:0 '2'",
        "l 755 0:0 /",
        "l/f 644 0:0 '1'",
        "l/x 644 0:0 '2'",
        "real 755 0:0 /",
        "real/old 644 0:0 '3'",
    ];
    assert_eq!(lines, expected);
    assert_eq!(bench.made(&format!("{base}COPY --link f /d\n"))[0], "d 644 0:0 '1'");
    // Beside --chmod it is a plain copy: the link is followed, and the directory keeps its mode and owner.
    let lines = bench.made(&format!("{base}COPY --link --chmod=600 f /l/\nCOPY --link --chmod=600 f /d/\n"));
    assert!(lines.contains(&"real/f 600 0:0 '1'".to_owned()) && lines[0] == "d 700 9:9 /", "{lines:?}");
    assert_eq!(bench.made("COPY --link none* /x/"), [""; 0]);
}

/// A tar of two files, whose own directory has mode 0700.
fn archive(name: &str) -> Vec<u8> {
    let mut builder = ::tar::Builder::new(Vec::new());
    let mut header = ::tar::Header::new_ustar();
    header.set_entry_type(::tar::EntryType::Directory);
    header.set_mode(0o700);
    header.set_size(0);
    builder.append_data(&mut header, "./", &b""[..]).unwrap();
    let mut header = ::tar::Header::new_ustar();
    header.set_mode(0o640);
    header.set_uid(3);
    header.set_gid(4);
    header.set_size(2);
    builder.append_data(&mut header, name, &b"in"[..]).unwrap();
    builder.into_inner().unwrap()
}

#[test]
fn archives_are_unpacked_unless_add_says_otherwise() {
    let bench = Bench::new(&[("f", "1")]);
    fs::write(bench.path("a.tar"), archive("in")).unwrap();
    fs::write(bench.path("b.tar"), archive("other")).unwrap();
    let lines = bench.made("ADD --chmod=711 f /old/\nADD *.tar f /old/");
    let expected = ["old 711 0:0 /", "old/f 644 0:0 '1'", "old/in 640 3:4 'in'", "old/other 640 3:4 'in'"];
    assert_eq!(lines, expected, "the destination keeps its mode");
    assert_eq!(bench.made("ADD --chown=7:8 a.tar /new"), ["new 755 7:8 /", "new/in 640 7:8 'in'"]);
    let as_it_is = |text: &str| {
        let built = bench.build(&format!("FROM scratch\n{text}\n"));
        let paths: Vec<String> = built.tree().iter().map(|(path, _)| path.to_string()).collect();
        paths
    };
    assert_eq!(as_it_is("ADD --unpack=false a.tar /x/"), ["x", "x/a.tar"]);
    assert_eq!(as_it_is("ADD --unpack=false a.tar /x"), ["x"]);
    assert_eq!(as_it_is("COPY a.tar /x"), ["x"]);
    assert_eq!(bench.made("ADD --unpack f /x"), ["x 644 0:0 '1'"], "what is no archive is copied");
    let messages = bench.build("FROM scratch\nADD --chmod=600 --exclude=in a.tar /x\n").messages;
    assert!(messages.contains("--chmod does not reach into the archive 'a.tar'"), "{messages}");
    assert!(messages.contains("--exclude does not reach into the archive 'a.tar'"), "{messages}");
}

#[test]
fn a_file_that_changes_after_its_key_was_computed_is_an_error() {
    let other = archive("other");
    let bench = Bench::new(&[("d/a", "one"), ("d/b", "two")]);
    let file = |path: &str| bench.path(path);
    fs::hard_link(file("d/a"), file("d/c")).unwrap();
    fs::hard_link(file("d/a"), file("link")).unwrap();
    let changed = |line: &str, path: &str, bytes: &[u8]| {
        fs::write(file("x.tar"), archive("name")).unwrap();
        fs::write(file(path), "one").unwrap();
        let edit = || fs::write(file(path), bytes).unwrap();
        match bench.try_build_so(&format!("FROM scratch\n{line}\n"), &Setting { edit: &edit, ..Setting::default() }) {
            Ok(built) => built.lines().join("\n"),
            Err(error) => error,
        }
    };
    let message = |path| format!("read content of '/{path}': it changed while it was read");
    assert_eq!(changed("COPY d/a /x", "d/a", b"two"), message("x"));
    assert_eq!(changed("COPY d /x", "d/a", b"two"), message("x/a"));
    assert_eq!(changed("COPY link /x", "d/a", b"two"), message("x"), "under its first name, which is not copied");
    assert_eq!(changed("ADD d/a /x", "d/a", b"two"), message("x"));
    assert_eq!(changed("COPY --link d/a /x", "d/a", b"two"), message("x"));
    assert_eq!(changed("COPY d/b /x", "d/a", b"two"), "x 644 0:0 'two'", "nothing else matters");
    assert!(changed("COPY d/a /x", "d/a", b"longer").contains("became longer"));
    let error = changed("ADD x.tar /x/", "x.tar", &other);
    assert!(error.contains("changed while it was read"), "{error}");
}

#[test]
fn an_exclude_that_names_a_source_itself_is_warned_of() {
    let bench = Bench::new(&[("home.txt", "1"), ("home.md", "2")]);
    let built = bench.build("FROM scratch\nCOPY --exclude=*.txt hom* /x/\n");
    assert_eq!(built.lines().len(), 3);
    assert_eq!(
        built.messages,
        "[stage-0 1/1] warning: --exclude holds inside of copied directories only: the source 'home.txt' is copied\n"
    );
    let built = bench.build("FROM scratch\nCOPY --exclude=*.txt . /x/\n");
    assert_eq!((built.lines().len(), built.messages.as_str()), (2, ""));
}

#[test]
fn attributes_of_the_context_and_of_stages_are_kept() {
    let bench = Bench::new(&[("f", "1")]);
    let file = bench.path("f");
    chown(&file, Some(77), Some(88)).unwrap();
    // The permitted and inheritable sets of a file that may open raw sockets.
    let capability = [&[1, 0, 0, 2, 0, 0x20][..], &[0; 14]].concat();
    let (all, none) = (fs::Permissions::from_mode(0o6711), XattrFlags::empty());
    fs::set_permissions(&file, all).unwrap();
    setxattr(&file, "security.capability", &capability, none).unwrap();
    setxattr(&file, "user.note", b"mine", none).unwrap();
    setxattr(&file, "trusted.note", b"not mine", none).unwrap();
    let built = bench.build("FROM scratch AS a\nCOPY f /f\nFROM scratch\nCOPY f /one\nCOPY --from=a /f /two\n");
    assert_eq!(built.lines(), ["one 6711 0:0 '1'", "two 6711 0:0 '1'"]);
    for path in ["one", "two"] {
        let tree = built.tree();
        let entry = tree.get(&RelPath::new(path).unwrap()).unwrap().entry;
        let xattrs: Vec<_> = entry.xattrs.iter().map(|(name, value)| (&name[..], &value[..])).collect();
        assert_eq!(xattrs, [(&b"security.capability"[..], &capability[..]), (b"user.note", b"mine")], "{path}");
        assert_eq!(entry.mtime.secs, EPOCH, "the file is younger than SOURCE_DATE_EPOCH");
    }
}

#[test]
fn what_is_made_now_is_never_later_than_the_epoch() {
    let cases = [(100, None, 100), (100, Some(7), 7), (100, Some(200), 100)];
    for (clock, epoch, expected) in cases {
        assert_eq!(made_at(clock, epoch), Timestamp::from_secs(expected));
    }
}

#[test]
fn an_instruction_that_puts_something_where_no_layer_may_is_an_error() {
    let bench = Bench::new(&[("f", "1")]);
    let build = |text: &str| {
        let ignored = ["a/b", "c"].map(|path| RelPath::new(path).unwrap());
        bench.try_build_so(text, &Setting { ignored: &ignored, ..Setting::default() }).map(|built| built.layers.len())
    };
    for (text, path) in [("COPY f /a/b", "/a/b"), ("COPY f /c/d/", "/c"), ("WORKDIR /a/b/e", "/a/b")] {
        let error = build(&format!("FROM scratch\n{text}\n")).unwrap_err();
        assert!(error.starts_with(&format!("--ignore-path: '{text}' puts something at {path}")), "{error}");
    }
    assert_eq!(build("FROM scratch\nCOPY f /a/bc\nCOPY f /d/c\n"), Ok(2));
}
