//! Builds without a RUN: as root under Docker's defaults, and as a user without any capability. Both make the same
//! bytes, and umoci unpacks what was meant.

use std::fs;
use std::path::Path;

use yadokari_tests::{Base, Context, Form, Image, Kind, Listing, Packing, Registry, Result, Variant, architecture};

use crate::site;

/// A Dockerfile, and what is at some paths of its image, in the words of [`describe`].
struct Case(&'static str, &'static [(&'static str, &'static str)]);

const CASES: [Case; 21] = [
    Case(
        "FROM scratch\nCOPY *.txt d?r/o* /g/\nCOPY none* /g/",
        &[
            ("g", "0755 0:0 /"),
            ("g/a.txt", "0644 0:0 'a'"),
            ("g/b.txt", "0644 0:0 'b'"),
            ("g/one", "0644 0:0 '1'"),
            ("g/c.md", ""),
        ],
    ),
    Case(
        "FROM busybox AS a\nCOPY a.txt /from/a\nFROM scratch\nCOPY --from=a /from/a /one\nCOPY --from=0 /from /two/\n\
         COPY --from=busybox /etc/group /bin/../etc/passwd /three/",
        &[
            ("one", "0644 0:0 'a'"),
            ("two/a", "0644 0:0 'a'"),
            ("from", ""),
            ("three/group", "0644 0:0 'root:x:0:\\ndaemon:x:1:\\nnogroup:x:65534:\\n'"),
            ("bin", ""),
        ],
    ),
    Case(
        "FROM busybox\nCOPY --chown=nobody:nogroup a.txt /n\nCOPY --chown=daemon a.txt /d\n\
         COPY --chown=7:8 dir /new/dir\nCOPY --chown=9 a.txt /nine\nCOPY a.txt /tmp/",
        &[
            ("n", "0644 65534:65534 'a'"),
            ("d", "0644 1:1 'a'"),
            ("new", "0755 7:8 /"),
            ("new/dir/sub", "0755 7:8 /"),
            ("new/dir/link", "7:8 -> one"),
            ("nine", "0644 9:9 'a'"),
            ("tmp", "1777 0:0 /"),
            ("tmp/a.txt", "0644 0:0 'a'"),
        ],
    ),
    Case(
        "FROM scratch\nCOPY --chmod=0400 a.txt /ro\nCOPY --chmod=751 dir /dir\nCOPY --chmod=4711 a.txt /s\nCOPY tool /",
        &[
            ("ro", "0400 0:0 'a'"),
            ("dir", "0751 0:0 /"),
            ("dir/sub/two", "0751 0:0 '2'"),
            ("dir/link", "0:0 -> one"),
            ("s", "4711 0:0 'a'"),
            ("tool", "6755 0:0 'tool'"),
        ],
    ),
    Case(
        "FROM scratch\nADD arch.tar /t/\nADD arch.tgz /g\nADD arch.tzst /z/\nADD plain.tar /n/\nCOPY arch.tgz /c/\n\
         ADD --chown=3:4 a.txt arch.tar /o/\nADD arch.tbz2 /b/\nADD arch.txz /x/\nADD arch.t* /w/\n\
         ADD --unpack=false arch.txz /u/\nADD --unpack a.txt empty.tar.gz /p/",
        &[
            ("t/in", "0750 0:0 /"),
            ("t/in/file", "0640 0:0 'packed'"),
            ("t/in/link", "0:0 -> file"),
            ("t/tool", "4755 0:0 'tool'"),
            ("g/in/file", "0640 0:0 'packed'"),
            ("z/in/file", "0640 0:0 'packed'"),
            ("n/plain.tar", "0644 0:0 'text'"),
            ("c/in", ""),
            ("o/a.txt", "0644 3:4 'a'"),
            ("b/in/file", "0640 0:0 'packed'"),
            ("x/in/file", "0640 0:0 'packed'"),
            ("x/tool", "4755 0:0 'tool'"),
            ("w/in/file", "0640 0:0 'packed'"),
            ("w/arch.tar", ""),
            ("u/in", ""),
            ("p/a.txt", "0644 0:0 'a'"),
            ("p/empty.tar.gz", "0644 0:0 ''"),
        ],
    ),
    Case(
        "FROM busybox\nCOPY --link a.txt /tmp/\nCOPY --link --chown=7:8 dir /new/dir\nCOPY --link a.txt /bin/busybox/x\n\
         COPY --link <<h b.txt /bin/\nx\nh\nCOPY --link --chmod=600 --chown=daemon a.txt /var/m\nADD --link=false b.txt /b",
        &[
            ("tmp", "0755 0:0 /"),
            ("tmp/a.txt", "0644 0:0 'a'"),
            ("new", "0755 7:8 /"),
            ("new/dir/sub/two", "0644 7:8 '2'"),
            ("bin/busybox/x", "0644 0:0 'a'"),
            ("bin/h", "0644 0:0 'x\\n'"),
            ("bin/sh", "0:0 -> busybox"),
            ("var/m", "0600 1:1 'a'"),
            ("b", "0644 0:0 'b'"),
        ],
    ),
    Case(
        "FROM scratch\nCOPY --parents dir/sub/two a.txt /p/\nCOPY --parents dir/./sub/tw* /q\nCOPY --parents **/two /r\n\
         COPY --parents links/./lib ./out/./one /s/\nCOPY --parents --chown=3:4 --chmod=go= dir/sub /t/\n\
         COPY --parents none*/x /u",
        &[
            ("p/dir/sub/two", "0644 0:0 '2'"),
            ("p/a.txt", "0644 0:0 'a'"),
            ("p/dir/one", ""),
            ("q/sub/two", "0644 0:0 '2'"),
            ("r/dir/sub", "0755 0:0 /"),
            ("r/dir/one", ""),
            ("s/lib", "0:0 -> real"),
            ("s/one", "0644 0:0 '1'"),
            ("t/dir", "0700 3:4 /"),
            ("t/dir/sub/two", "0600 3:4 '2'"),
            ("u", "0755 0:0 /"),
        ],
    ),
    Case(
        "FROM busybox AS a\nCOPY --chown=5:6 dir /dir/\nFROM scratch\nCOPY --exclude=sub --exclude=link dir /e/\n\
         COPY --exclude=**/t?o --exclude=*.txt . /f/\nCOPY --exclude=* --exclude=!sub/two dir /g\n\
         COPY --from=a --exclude=one /dir /h\nCOPY --from=a --parents --exclude=dir/sub dir /i\n\
         ADD --exclude=*.txt a.txt dir /j/",
        &[
            ("e/one", "= e/hard"),
            ("e/sub", ""),
            ("e/link", ""),
            ("f/dir/sub", "0755 0:0 /"),
            ("f/dir/sub/two", ""),
            ("f/a.txt", ""),
            ("f/c.md", "0644 0:0 'c'"),
            ("g/sub/two", "0644 0:0 '2'"),
            ("g/one", ""),
            ("h/hard", "0644 5:6 '1'"),
            ("h/one", ""),
            ("i/dir/one", "= i/dir/hard"),
            ("i/dir/sub", ""),
            ("j/a.txt", "0644 0:0 'a'"),
        ],
    ),
    Case(
        "FROM scratch AS a\nCOPY special /one/\nFROM scratch\nCOPY --from=a /one /two/\nCOPY --link special /three/",
        &[
            ("two/pipe", "Fifo"),
            ("two/sticky", "1777 0:0 /"),
            ("two/suid", "4711 0:0 's'"),
            ("three/pipe", "Fifo"),
            ("three/suid", "4711 0:0 's'"),
        ],
    ),
    Case(
        "FROM scratch\nCOPY [\"a b\", \"c\", \"/d e/\"]\nADD [\"a b\", \"f g\"]\nCOPY --link [\"a b\", \"/h\"]",
        &[
            ("d e/a b", "0644 0:0 'spaces'"),
            ("d e/c", "0644 0:0 'c'"),
            ("f g", "0644 0:0 'spaces'"),
            ("h", "0644 0:0 'spaces'"),
        ],
    ),
    Case(
        "FROM scratch\nCOPY out /o/\nCOPY ptr /p\nCOPY ptr dir /x/\nCOPY dir /d",
        &[
            ("o/hard", "0644 0:0 '1'"),
            ("p", "0644 0:0 'a'"),
            ("x/ptr", "0644 0:0 'a'"),
            ("x/hard", "0644 0:0 '1'"),
            ("d/link", "0:0 -> one"),
        ],
    ),
    Case(
        "FROM scratch\nCOPY links /\nCOPY a.txt /lib/\nCOPY b.txt /abs/x/\nCOPY c.md /file",
        &[
            ("real/a.txt", "0644 0:0 'a'"),
            ("real/x/b.txt", "0644 0:0 'b'"),
            ("lib", "0:0 -> real"),
            ("abs", "0:0 -> /../real"),
            ("file", "0:0 -> real/target"),
            ("real/target", "0644 0:0 'c'"),
        ],
    ),
    Case(
        "FROM busybox AS a\nCOPY dir /h/\nFROM scratch\nCOPY --from=a /h /k\nCOPY dir /l",
        &[("k/hard", "0644 0:0 '1'"), ("k/one", "= k/hard"), ("l/one", "= l/hard")],
    ),
    Case(
        "FROM scratch\nCOPY . /all/\nCOPY *.key /some/",
        &[
            ("all/keep.key", "0644 0:0 'k'"),
            ("all/secret.key", ""),
            ("all/dir/skip", ""),
            ("all/dir/hard", "0644 0:0 '1'"),
            ("some/keep.key", "0644 0:0 'k'"),
            ("some/secret.key", ""),
        ],
    ),
    Case(
        "FROM busybox\nUSER daemon\nWORKDIR /w/x\nUSER 5:6\nWORKDIR y\nCOPY a.txt .\nWORKDIR /tmp",
        &[
            ("w", "0755 1:1 /"),
            ("w/x", "0755 1:1 /"),
            ("w/x/y", "0755 5:6 /"),
            ("w/x/y/a.txt", "0644 0:0 'a'"),
            ("tmp", "1777 0:0 /"),
        ],
    ),
    Case(
        "FROM busybox\nARG who=me\nCOPY <<one <<\"two\" /h/\nhello $who\none\nas $is\ntwo\nCOPY --chmod=755 <<-x /run\n\techo\nx",
        &[("h/one", "0644 0:0 'hello me\\n'"), ("h/two", "0644 0:0 'as $is\\n'"), ("run", "0755 0:0 'echo\\n'")],
    ),
    Case("FROM busybox\nONBUILD COPY a.txt /triggered\nONBUILD WORKDIR /from/base", &[("triggered", ""), ("from", "")]),
    // What the case before pushed.
    Case(
        "FROM ${REGISTRY}/copies/c16:docker\nCOPY b.txt .",
        &[("triggered", "0644 0:0 'a'"), ("from/base/b.txt", "0644 0:0 'b'")],
    ),
    Case(
        "FROM ${REGISTRY}/forms/zstd:1 AS z\nFROM ${REGISTRY}/forms/docker:1\nCOPY --from=z /etc/group /z\nCOPY a.txt /",
        &[
            ("z", "0644 0:0 'root:x:0:\\ndaemon:x:1:\\nnogroup:x:65534:\\n'"),
            ("a.txt", "0644 0:0 'a'"),
            ("bin/sh", "0:0 -> busybox"),
        ],
    ),
    Case(
        "FROM platforms AS p\nFROM ${REGISTRY}/forms/zstd@${DIGEST}\nCOPY --from=p /etc/platform /p\nCOPY a.txt /",
        &[("p", "0644 0:0 'linux/{architecture}\\n'"), ("a.txt", "0644 0:0 'a'"), ("bin/sh", "0:0 -> busybox")],
    ),
    Case(
        "FROM oci:/layout\nCOPY --from=oci:/layout:latest /etc/group /x/\nCOPY a.txt /",
        &[("a.txt", "0644 0:0 'a'"), ("bin/sh", "0:0 -> busybox"), ("x", "0755 0:0 /")],
    ),
];

fn context() -> Result<Context> {
    let mut context = Context::new()?
        .file(".dockerignore", "# keys, but for one\n*.key\n!keep.key\ndir/skip\n")?
        .file("a.txt", "a")?
        .file("b.txt", "b")?
        .file("c.md", "c")?
        .file("keep.key", "k")?
        .file("secret.key", "s")?
        .file("dir/one", "1")?
        .file("dir/sub/two", "2")?
        .file("dir/skip", "skipped")?
        .link("dir/link", "one")?
        .hard_link("dir/hard", "dir/one")?
        .file("tool", "tool")?
        .mode("tool", 0o6755)?
        .link("out", "dir")?
        .link("ptr", "a.txt")?
        .file("links/real/keep", "kept")?
        .link("links/lib", "real")?
        .link("links/abs", "/../real")?
        .link("links/file", "real/target")?
        .archive("arch.tar", Packing::Tar)?
        .archive("arch.tgz", Packing::Gzip)?
        .archive("arch.tzst", Packing::Zstd)?
        .archive("arch.tbz2", Packing::Bzip2)?
        .archive("arch.txz", Packing::Xz)?
        .file("empty.tar.gz", "")?
        .file("a b", "spaces")?
        .file("c", "c")?
        .file("special/suid", "s")?
        .mode("special/suid", 0o4711)?
        .file("special/sticky/keep", "")?
        .mode("special/sticky", 0o1777)?
        .fifo("special/pipe")?
        .file("plain.tar", "text")?;
    for (n, Case(text, _)) in CASES.iter().enumerate() {
        context = context.file(&format!("Dockerfile.{n}"), format!("ARG REGISTRY\nARG DIGEST\n{text}\n"))?;
    }
    Ok(context)
}

/// Mode, owner and content of a path in one line, `/` for a directory, `->` for a link, `=` for another name of a file
/// before it, and nothing for nothing.
fn describe(listing: &Listing, rootfs: &Path, path: &str) -> String {
    let Some(entry) = listing.at(path) else { return String::new() };
    let owner = format!("{}:{}", entry.uid, entry.gid);
    match &entry.kind {
        Kind::Directory => format!("{:04o} {owner} /", entry.mode),
        Kind::Symlink(target) => format!("{owner} -> {}", target.display()),
        Kind::File { same_as: Some(first), .. } => format!("= {}", first.display()),
        Kind::File { .. } => {
            let content = fs::read(rootfs.join(path)).unwrap_or_default();
            format!("{:04o} {owner} '{}'", entry.mode, content.escape_ascii())
        }
        other => format!("{other:?}"),
    }
}

fn registry() -> Result<(Registry, String)> {
    let registry = site::registry(&[Base::Busybox, Base::Platforms])?;
    registry.hold_as(Base::Busybox, Form::Zstd, "forms/zstd:1")?;
    registry.hold_as(Base::Busybox, Form::Docker, "forms/docker:1")?;
    let (digest, _) = registry.manifest("forms/zstd", "1")?.unwrap();
    Ok((registry, digest))
}

#[test]
fn every_form_of_copy_with_and_without_privileges() -> Result<()> {
    let (registry, digest) = registry()?;
    let (context, layout) = (context()?, Base::Busybox.layout()?);
    for (variant, tag) in [(Variant::Docker, "docker"), (Variant::Restricted, "restricted")] {
        let container = site::container(variant, context.path())?.readonly_volume(&layout, "/layout");
        let mut live = container.open()?;
        for (n, Case(text, _)) in CASES.iter().enumerate() {
            let job = site::job(&registry, &format!("Dockerfile.{n}"), &format!("copies/c{n}:{tag}"));
            let job = job.args(["--build-arg".to_owned(), format!("DIGEST={digest}")]);
            live.run(job)?.ok(&format!("case {n} under {variant:?}: {text}"))?;
        }
    }
    let mut wrong = Vec::new();
    for (n, Case(text, expected)) in CASES.iter().enumerate() {
        let repository = format!("copies/c{n}");
        let [docker, restricted] = ["docker", "restricted"].map(|tag| registry.manifest(&repository, tag));
        assert_eq!(docker?.unwrap().0, restricted?.unwrap().0, "case {n}: {text}");
        let image = Image::pull(&registry.reference(&format!("{repository}:restricted")))?;
        let (listing, rootfs) = (image.listing()?, image.rootfs()?);
        for (path, expected) in *expected {
            let found = describe(&listing, &rootfs, path);
            let expected = expected.replace("{architecture}", architecture());
            if found != expected {
                wrong.push(format!("{text}\n  {path}: {found:?}, not {expected:?}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    Ok(())
}
