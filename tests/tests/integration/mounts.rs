//! RUN's flags in every kind of container: what a mount shows, what is left of it, and that no attack leaves the root.

use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::os::unix::net::UnixListener;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use yadokari_tests::{Base, Context, Image, Job, Registry, Result};

use crate::drivers::{PLACES, Place, volume};
use crate::site::{self, printed};

/// What a sandbox without namespaces cannot promise: that nothing is written to a mount, its size, a network of one's own
/// and a host name.
const NOT_IN_PLACE: &str = "# not in place\n";

/// A Dockerfile whose commands see what they should, and all paths that its image has and busybox has not.
struct Case(&'static str, &'static [&'static str]);

const CASES: [Case; 17] = [
    // Whom a command runs as.
    Case(
        "FROM busybox
RUN echo u:x:1000:1001::/srv/u:/bin/sh >> /etc/passwd && printf 'g:x:1001:\\nextra:x:7:u,root\\nother:x:8:x\\n' >> /etc/group
RUN [ \"$(id -G)\" = '0 7' ] && [ $HOME = /root ]
USER u
RUN [ $(id -u) = 1000 ] && [ \"$(id -G)\" = '1001 7' ] && [ $HOME = /srv/u ]
USER u:extra
RUN [ $(id -u) = 1000 ] && [ \"$(id -G)\" = 7 ] && [ $HOME = /srv/u ]
USER 4242
RUN [ $(id -u) = 4242 ] && [ \"$(id -G)\" = 0 ] && [ $HOME = / ]
ENV HOME=/set
RUN [ $HOME = /set ]",
        &[],
    ),
    // What a command is: the image's PATH finds it, its ENTRYPOINT has no part in it.
    Case(
        "FROM busybox
ENTRYPOINT [\"/bin/false\"]
ENV PATH=/mine:/bin V=env
ARG A=arg
RUN mkdir /mine && printf '#!/bin/sh\\necho \"$@\" > /said\\n' > /mine/tool && chmod 755 /mine/tool
RUN [\"tool\", \"$V\", \"a  b\"]
RUN [ \"$(cat /said)\" = '$V a  b' ] && [ $V$A = envarg ] && [ $PWD = / ]",
        &["mine", "mine/tool", "said"],
    ),
    // The context, less what is ignored, owned by root; a directory, a file, and what a link leads to.
    Case(
        "FROM busybox
WORKDIR /w
RUN --mount=target=/ctx [ $(cat /ctx/file) = content ] && [ ! -e /ctx/ignored ] && [ $(stat -c %u:%g /ctx/file) = 0:0 ] && \\
    [ -x /ctx/dir/tool ] && [ $(readlink /ctx/dir/link) = tool ] && [ $(cat /ctx/dir/sub/two) = two ]
RUN --mount=source=file,target=/a/b/f [ $(cat /a/b/f) = content ]
RUN --mount=source=/dirlink,target=../etc/x [ $(cat /etc/x/two) = two ]
RUN --mount=type=bind [ $(cat file) = content ]
RUN --mount=src=dir/sub,dst=/var [ $(ls /var) = two ]
RUN [ ! -e /a ] && [ ! -e /ctx ] && [ ! -e /etc/x ] && [ -z \"$(ls -A /w /var | grep -v :)\" ]
RUN --mount=target=/ctx cp /ctx/file /made",
        &["made", "w"],
    ),
    // What is written to it is gone with the RUN.
    Case(
        "FROM busybox
RUN --mount=target=/c,rw [ $(cat /c/file) = content ] && echo spoilt > /c/file && touch /c/new && rm -r /c/dir
RUN --mount=target=/c,readwrite=true [ $(cat /c/file) = content ] && [ ! -e /c/new ] && [ -d /c/dir ] && touch /c/other
RUN --mount=target=/c [ $(cat /c/file) = content ] && [ ! -e /c/other ]",
        &[],
    ),
    Case(
        "# not in place
FROM busybox
RUN --mount=target=/c ! touch /c/new && ! (echo spoilt > /c/file)
RUN --mount=type=cache,target=/c,ro ! touch /c/new
RUN --mount=type=tmpfs,target=/t,ro ! touch /t/new
RUN --mount=type=tmpfs,target=/t,size=64k head -c 60000 /dev/zero > /t/x && ! head -c 70000 /dev/zero > /t/y
RUN --network=none [ $(grep -c : /proc/net/dev) = 1 ] && ip -o link | grep -q LOOPBACK,UP
RUN [ $(hostname) = mounted ]",
        &[],
    ),
    // A stage and an image, with their owners; nothing; and a stage that only a mount names.
    Case(
        "FROM busybox AS stage
RUN mkdir -p /out/d && echo built > /out/f && chown -R 5:6 /out && chmod 750 /out
FROM busybox
RUN --mount=from=stage,source=/out,target=/o [ $(cat /o/f) = built ] && [ \"$(stat -c '%a %u:%g' /o)\" = '750 5:6' ]
RUN --mount=from=0,target=/s,rw echo spoilt > /s/out/f && rm /s/etc/group
RUN --mount=from=stage,target=/s [ $(cat /s/out/f) = built ] && [ -e /s/etc/group ] && [ -e /etc/group ]
RUN --mount=from=busybox,source=bin/busybox,target=/tool/busybox /tool/busybox true
RUN --mount=from=scratch,target=/e [ -d /e ] && [ -z \"$(ls -A /e)\" ]
RUN for p in /o /s /tool /e; do [ ! -e $p ] || exit 1; done",
        &[],
    ),
    // The links of a stage lead nowhere but into the stage.
    Case(
        "FROM busybox AS evil
RUN ln -s / /root-link && ln -s ../../../../../../../.. /climb && mkdir /d && ln -s /root-link/climb /d/up
FROM busybox
RUN --mount=from=evil,source=root-link,target=/s,rw [ -L /s/climb ] && [ ! -e /s/kaniko ] && [ ! -e /s/workspace ] && touch /s/escaped
RUN --mount=from=evil,source=/climb,target=/s [ -L /s/climb ] && [ ! -e /s/kaniko ] && [ ! -e /s/escaped ]
RUN --mount=from=evil,source=d/up/etc,target=/s [ -e /s/group ] && [ ! -e /s/hosts ]
RUN --mount=from=evil,source=../../../../etc,target=/s [ -e /s/group ]
RUN --mount=type=cache,from=evil,source=/climb,target=/s [ -L /s/climb ] && [ ! -e /s/kaniko ] && touch /s/escaped
RUN [ ! -e /escaped ]",
        &[],
    ),
    // The links of the image lead nowhere but into the root.
    Case(
        "FROM busybox
RUN ln -s /../../../elsewhere /k && ln -s ../../../../../../var /v
RUN --mount=type=tmpfs,target=/k/sub touch /k/sub/x && [ -e /elsewhere/sub/x ]
RUN --mount=target=/v/c [ $(cat /var/c/file) = content ]
RUN --mount=type=cache,target=/v/c touch /var/c/x && [ ! -e /v/c/file ]
RUN [ ! -e /elsewhere ] && [ -z \"$(ls -A /var)\" ]",
        &["k", "v"],
    ),
    // A cache is kept from step to step, under its name.
    Case(
        "FROM busybox AS stage
RUN mkdir /out && echo built > /out/f && chown 9 /out/f
FROM busybox
RUN --mount=type=cache,target=/c echo one > /c/f && [ \"$(stat -c '%a %u:%g' /c)\" = '755 0:0' ]
RUN --mount=type=cache,target=/other,id=/c,sharing=locked [ $(cat /other/f) = one ] && echo two > /other/f
RUN --mount=type=cache,target=/c,readonly [ $(cat /c/f) = two ]
RUN [ ! -e /c ] && [ ! -e /other ]
RUN --mount=type=cache,target=/c,id=another [ ! -e /c/f ]
RUN --mount=type=cache,target=/m,mode=0700,uid=7,gid=8,sharing=private [ \"$(stat -c '%a %u:%g' /m)\" = '700 7:8' ]
RUN --mount=type=cache,target=/s,from=stage,source=/out [ $(cat /s/f) = built ] && [ $(stat -c %u /s/f) = 9 ] && echo more >> /s/f
RUN --mount=type=cache,target=/s,from=stage,source=/out [ $(wc -l < /s/f) = 2 ]
RUN --mount=type=cache,target=/one,id=both --mount=type=cache,target=/two,id=both touch /one/f && [ -e /two/f ]",
        &[],
    ),
    // Whatever a cache is called, it is a directory of its own.
    Case(
        "FROM busybox
RUN --mount=type=cache,id=../../../../../../etc,target=/x [ -z \"$(ls -A /x)\" ] && touch /x/escaped
RUN --mount=type=cache,id=/,target=/x [ -z \"$(ls -A /x)\" ] && touch /x/escaped
RUN --mount=type=cache,id=..,target=/x [ -z \"$(ls -A /x)\" ] && touch /x/escaped
RUN --mount=type=cache,target=/x/../../../y [ -z \"$(ls -A /y)\" ] && ln -s / /y/root && ln -s ../../.. /y/climb
RUN --mount=type=cache,target=/y [ -L /y/root ] && [ -L /y/climb ]
RUN [ ! -e /escaped ] && [ ! -e /etc/escaped ] && [ ! -e /x ] && [ ! -e /y ]",
        &[],
    ),
    // An empty directory, also over one of the image.
    Case(
        "FROM busybox
RUN --mount=type=tmpfs,target=/t touch /t/x && [ $(ls -A /t) = x ]
RUN mkdir /full && touch /full/kept
RUN --mount=type=tmpfs,target=/full [ -z \"$(ls -A /full)\" ] && touch /full/gone
RUN --mount=type=tmpfs,target=/t [ -z \"$(ls -A /t)\" ]
RUN [ ! -e /t ] && [ $(ls /full) = kept ]",
        &["full", "full/kept"],
    ),
    // A mount in another, in whatever order they are written.
    Case(
        "FROM busybox
RUN --mount=target=/t/u/c --mount=type=secret,id=token,target=/t/u/s --mount=type=tmpfs,target=/t/u touch /t/u/x && \\
    [ $(cat /t/u/c/file) = content ] && [ -s /t/u/s ] && [ \"$(echo $(ls /t/u))\" = 'c s x' ]
RUN [ ! -e /t ]",
        &[],
    ),
    // Secrets: a file for its owner, a variable, both, or neither.
    Case(
        "FROM busybox
ENV TOKEN=image
RUN --mount=type=secret,id=token [ $(cat /run/secrets/token) = open-sesame ] && \\
    [ \"$(stat -Lc '%a %u:%g' /run/secrets/token)\" = '400 0:0' ]
RUN --mount=type=secret,id=token,env=TOKEN [ $TOKEN = open-sesame ] && [ ! -e /run/secrets ]
RUN --mount=type=secret,id=token,env=OTHER,target=/s [ $(cat /s) = $OTHER ] && [ $TOKEN = image ]
RUN --mount=type=secret,target=/x/variable [ $(cat /x/variable) = from-environment ]
RUN --mount=type=secret,id=token,mode=0440,uid=3,gid=4,target=/s [ \"$(stat -Lc '%a %u:%g' /s)\" = '440 3:4' ]
RUN --mount=type=secret,id=absent --mount=type=secret,id=absent,env=ABSENT [ ! -e /run/secrets ] && [ -z \"${ABSENT+set}\" ]
USER nobody
RUN --mount=type=secret,id=token ! cat /run/secrets/token
RUN --mount=type=secret,id=token,uid=65534 [ $(cat /run/secrets/token) = open-sesame ]
RUN [ $TOKEN = image ] && [ ! -e /run ] && [ ! -e /s ] && [ ! -e /x ]",
        &[],
    ),
    // A script is executed by the interpreter that it names.
    Case(
        "FROM busybox
ENV WHO=world
WORKDIR /w
RUN <<EOF
#!/bin/awk -f
BEGIN { print \"hello\", ENVIRON[\"WHO\"] > \"said\" }
EOF
RUN <<-\"name.sh\"
#!/bin/sh
\t[ $0 = /dev/pipes/name.sh ] && [ -x $0 ] && echo $WHO > mine
\tname.sh
USER nobody
RUN <<EOF
#!/bin/sh
[ \"$(cat said mine)\" = \"$(printf 'hello world\\nworld')\" ] && [ $(id -u) = 65534 ]
EOF
RUN [ ! -e /dev/pipes ]",
        &["w", "w/mine", "w/said"],
    ),
    // In a trigger, and with words of the image.
    Case(
        "FROM busybox AS tools
RUN echo tool > /tool
FROM busybox AS base
ONBUILD RUN --mount=from=tools,source=tool,target=/t/tool [ $(cat /t/tool) = tool ] && touch /triggered
FROM base
ARG TYPE=cache
ENV DIR=/var/x
RUN --mount=type=$TYPE,target=$DIR/${TYPE} [ -d /var/x/cache ]
RUN [ ! -e /var/x ] && [ ! -e /t ]",
        &["triggered"],
    ),
    // The builder's network, by whatever name.
    Case(
        "FROM busybox
RUN --network=default --security=sandbox [ $(grep -c : /proc/net/dev) -ge 1 ]
RUN --network=host [ -s /etc/resolv.conf ]",
        &[],
    ),
    // What the command leaves beside a mount is the image's, and what it does to a mount point is not.
    Case(
        "FROM busybox
RUN mkdir -p /d/point && touch -d @5 /d/point /d
RUN --mount=type=tmpfs,target=/d/point touch /d/point/x && touch /beside
RUN [ $(stat -c %Y /d) = 5 ] && [ -z \"$(ls -A /d/point)\" ]",
        &["beside", "d", "d/point"],
    ),
];

fn context() -> Result<Context> {
    let mut context = Context::new()?
        .file("file", "content\n")?
        .file("dir/tool", "one")?
        .mode("dir/tool", 0o755)?
        .file("dir/sub/two", "two\n")?
        .link("dir/link", "tool")?
        .link("dirlink", "dir/sub")?
        .file("ignored/x", "")?
        .file(".dockerignore", "ignored\n")?;
    for (n, Case(text, _)) in CASES.iter().enumerate() {
        context = context.file(&format!("Dockerfile.{n}"), format!("{text}\n"))?;
    }
    Ok(context)
}

/// A build of a Dockerfile with secrets.
fn job(registry: &Registry, place: &Place, dockerfile: &str, name: &str) -> Job {
    let secrets = ["--secret", "id=token,src=/kaniko/token", "--secret", "id=variable,env=VARIABLE"];
    site::job(registry, dockerfile, name)
        .args(place.words())
        .args(secrets)
        .args(["--build-arg", "BUILDKIT_SANDBOX_HOSTNAME=mounted"])
        .env("VARIABLE", "from-environment")
}

/// One container of each driver.
fn one_of_each_driver() -> impl Iterator<Item = &'static Place> {
    PLACES.iter().filter(|place| ["docker", "unconfined", "flat"].contains(&place.name))
}

#[test]
fn every_mount_in_every_container() -> Result<()> {
    let registry = site::registry(&[Base::Busybox])?;
    let context = context()?;
    let base = paths(&Image::pull(&registry.reference("library/busybox:latest"))?)?;
    let mut wrong = Vec::new();
    for place in &PLACES {
        let volume = volume()?;
        let container = place.container(&context, &volume)?.file("/kaniko/token", "open-sesame");
        let mut live = container.start()?;
        for (n, Case(text, expected)) in CASES.iter().enumerate() {
            if place.driver == "in-place" && text.starts_with(NOT_IN_PLACE) {
                continue;
            }
            let name = format!("mounts/c{n}:{}", place.name);
            let output = live.exec(job(&registry, place, &format!("Dockerfile.{n}"), &name))?;
            if !output.success() || !printed(&output).contains(&format!("sandbox: {}", place.driver)) {
                wrong.push(format!("{} {text}\n{output}", place.name));
                continue;
            }
            let found = paths(&Image::pull(&registry.reference(&name))?)?;
            let new: Vec<&str> = found.difference(&base).map(String::as_str).collect();
            if new != *expected || !base.is_subset(&found) {
                wrong.push(format!("{} {text}\n{new:?} are in the image, not {expected:?}", place.name));
            }
        }
        let escaped =
            live.exec(["/busybox/sh", "-c", "ls -d /escaped /etc/escaped /x /kaniko/escaped 2>/dev/null; true"])?;
        assert_eq!(escaped.stdout, "", "{}", place.name);
        let kept = format!("find {} -mindepth 1 -maxdepth 1 ! -name lock ! -name caches", place.work_dir());
        assert_eq!(live.exec(["/busybox/sh", "-c", &kept])?.text("find")?, "", "{}", place.name);
        assert_eq!(live.exec(["/busybox/cat", "/kaniko/token"])?.text("cat")?, "open-sesame", "{}", place.name);
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n\n"));
    Ok(())
}

/// Every path of an image.
fn paths(image: &Image) -> Result<BTreeSet<String>> {
    Ok(image.listing()?.0.keys().map(|path| path.to_string_lossy().into_owned()).collect())
}

#[test]
fn a_cache_is_there_for_the_next_build() -> Result<()> {
    let registry = site::registry(&[Base::Busybox])?;
    let text = "FROM busybox\nRUN --mount=type=cache,target=/c echo x >> /c/log && wc -l < /c/log > /count\n";
    let context = Context::new()?.file("Dockerfile", text)?;
    for place in one_of_each_driver() {
        let volume = volume()?;
        let mut live = place.container(&context, &volume)?.start()?;
        for (tag, namespace, count) in [("1", "", "1\n"), ("2", "", "2\n"), ("3", "other", "1\n")] {
            let name = format!("mounts/{}:{tag}", place.name);
            let argument = format!("BUILDKIT_CACHE_MOUNT_NS={namespace}");
            let job = site::job(&registry, "Dockerfile", &name).args(place.words()).args(["--build-arg", &argument]);
            live.exec(job)?.ok(place.name)?;
            let image = Image::pull(&registry.reference(&name))?;
            let counted = std::fs::read_to_string(image.rootfs()?.join("count")).unwrap();
            assert_eq!(counted, count, "{} {tag}", place.name);
        }
    }
    Ok(())
}

/// Asks the agent twice, as a client does that connects anew.
const CLIENT: &str = "import os, socket
for _ in range(2):
    client = socket.socket(socket.AF_UNIX)
    client.connect(os.environ['SSH_AUTH_SOCK'])
    client.sendall(b'ping')
    assert client.recv(4) == b'pong'
print(os.environ['SSH_AUTH_SOCK'], 'answers')
";

#[test]
fn an_agent_answers_in_a_run() -> Result<()> {
    let registry = site::registry(&[Base::Python])?;
    let text = "FROM python:3.11-slim
RUN --mount=source=client,target=/client --mount=type=ssh python /client
RUN --mount=source=client,target=/client --mount=type=ssh,id=default,target=/agent/socket,mode=0666,required python /client
USER nobody
RUN --mount=source=client,target=/client --mount=type=ssh,mode=0600,uid=65534 python /client
RUN --mount=type=ssh,id=absent [ ! -e $SSH_AUTH_SOCK ]
RUN [ -z \"${SSH_AUTH_SOCK+set}\" ] && [ ! -e /run/buildkit ] && [ ! -e /agent ]
";
    let context = Context::new()?.file("Dockerfile", text)?.file("client", CLIENT)?;
    for place in one_of_each_driver() {
        let (volume, sockets) = (volume()?, volume()?);
        let listener = UnixListener::bind(sockets.path().join("agent")).unwrap();
        let answered = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&answered);
        std::thread::spawn(move || {
            for mut connection in listener.incoming().flatten() {
                let mut asked = [0; 4];
                // Whoever only looks whether somebody listens asks nothing.
                if connection.read_exact(&mut asked).is_ok() && &asked == b"ping" {
                    count.fetch_add(1, Ordering::SeqCst);
                    connection.write_all(b"pong").unwrap();
                }
            }
        });
        let container = place.container(&context, &volume)?.volume(sockets.path(), "/sockets");
        let name = format!("mounts/agent:{}", place.name);
        let job = site::job(&registry, "Dockerfile", &name).args(place.words()).args(["--ssh", "default"]);
        let output = container.start()?.exec(job.env("SSH_AUTH_SOCK", "/sockets/agent"))?.ok(place.name)?;
        assert!(printed(&output).contains("/agent/socket answers"), "{output}");
        // Two connections of each of the three clients.
        assert_eq!(answered.load(Ordering::SeqCst), 6, "{output}");
    }
    Ok(())
}

/// A Dockerfile, and words of the error that comes before anything runs.
const REFUSED: [(&str, &[&str]); 9] = [
    (
        "FROM busybox\nRUN echo first\nRUN --mount=type=secret,id=toke,required x",
        &["the secret 'toke' is required and was not given", "Dockerfile.0:3:13", "given are token, variable"],
    ),
    (
        "FROM busybox\nRUN echo first\nRUN --mount=type=secret,id=toke,env=T,required x",
        &["the secret 'toke' is required", "Dockerfile.1:3:13"],
    ),
    ("FROM busybox\nRUN --mount=type=ssh,required x", &["the ssh 'default' is required", "add --ssh default"]),
    ("FROM busybox\nRUN --security=insecure x", &["RUN --security=insecure: the builder has no privileges to give"]),
    ("FROM busybox\nRUN --device=x x", &["RUN --device=x: the builder has no CDI devices to give"]),
    (
        "FROM busybox\nRUN --mount=source=ignored/x,target=/t x",
        &["'ignored/x' is not in the build context", "leaves it out"],
    ),
    ("FROM busybox\nRUN --mount=target=/ x", &["a mount's target cannot be '/'", ":2:20"]),
    ("FROM busybox AS a\nRUN --mount=from=a,target=/t x", &["from=a is the stage itself", ":2:18"]),
    (
        "FROM busybox\nRUN --mount=type=bindd,target=/t x",
        &["there is no mount type 'bindd'", "did you mean type=bind?"],
    ),
];

/// A Dockerfile, and words of the error that the step ends with.
const FAILED: [(&str, &[&str]); 3] = [
    (
        "FROM busybox AS a\nFROM busybox\nRUN --mount=from=a,source=/none,target=/t x",
        &["'/none' does not exist in what is mounted from", ":3:27"],
    ),
    (
        "FROM busybox AS a\nRUN ln -s /proc/1/root /link\nFROM busybox\nRUN --mount=from=a,source=/link,target=/t x",
        &["'/link' does not exist in what is mounted from"],
    ),
    (
        "FROM busybox AS a\nFROM busybox\nRUN --mount=type=cache,from=a,source=/etc/group,target=/t x",
        &["'/etc/group' is no directory, as a cache is"],
    ),
];

#[test]
fn what_cannot_be_mounted_is_an_error_with_its_place() -> Result<()> {
    let registry = site::registry(&[Base::Busybox])?;
    let mut context = Context::new()?.file("ignored/x", "")?.file(".dockerignore", "ignored\n")?;
    for (n, (text, _)) in REFUSED.iter().chain(&FAILED).enumerate() {
        context = context.file(&format!("Dockerfile.{n}"), format!("{text}\n"))?;
    }
    context = context.file("Dockerfile.none", "FROM busybox\nRUN echo first\nRUN --network=none x\n")?;
    for place in one_of_each_driver() {
        let volume = volume()?;
        let mut live = place.container(&context, &volume)?.file("/kaniko/token", "open-sesame").start()?;
        for (n, (text, says)) in REFUSED.iter().chain(&FAILED).enumerate() {
            let output = live.exec(job(&registry, place, &format!("Dockerfile.{n}"), "mounts/refused:1"))?;
            let printed = printed(&output);
            assert_eq!(output.code(), 65, "{} {text}: {output}", place.name);
            assert!(says.iter().all(|words| printed.contains(words)), "{} {text}: {output}", place.name);
            assert!(n >= REFUSED.len() || !printed.contains("echo first"), "{} {text}: {output}", place.name);
        }
        if place.driver == "in-place" {
            let output = live.exec(job(&registry, place, "Dockerfile.none", "mounts/refused:1"))?;
            let printed = printed(&output);
            assert_eq!(output.code(), 65, "{output}");
            assert!(printed.contains("RUN --network=none cannot be promised by the sandbox 'in-place'"), "{output}");
            assert!(printed.contains("Dockerfile.none:3:15") && !printed.contains("echo first"), "{output}");
        }
    }
    assert_eq!(registry.tags("mounts/refused")?, [""; 0]);
    Ok(())
}
