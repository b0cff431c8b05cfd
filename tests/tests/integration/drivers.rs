//! One list of Dockerfiles for every driver and every kind of container: the same bytes, and those that were meant.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use yadokari_tests::{Base, Container, Context, Image, Registry, Result, Variant};

use crate::site::{self, VOLUME, printed};

/// What cannot be the same everywhere: an overlay parts the names of a lower file when one of them is written to or linked
/// again, and the RUN itself sees that. Keeping them together takes `index=on`, which no user namespace can have.
const NOT_ON_AN_OVERLAY: &str = "# not on an overlay";

/// A Dockerfile, and a shell script that finds what it should in a container of the image.
struct Case(&'static str, &'static str);

const CASES: [Case; 15] = [
    // Files come, change and go.
    Case(
        "FROM busybox\nRUN echo one > /new && echo more >> /etc/group && rm /etc/passwd && mkdir -p /a/b/c && echo x > /a/b/c/d",
        "[ $(cat /new) = one ] && tail -n 1 /etc/group | grep -qx more && [ ! -e /etc/passwd ] && [ $(cat /a/b/c/d) = x ]",
    ),
    // What one RUN made the next one removes, replaces or leaves alone.
    Case(
        "FROM busybox\nRUN mkdir -p /d/e && touch /d/e/f /gone /kept\nRUN rm -r /d /gone && echo file > /d\nRUN rm /d && mkdir /d && touch /d/g\nRUN true",
        "[ -d /d ] && [ -e /d/g ] && [ ! -e /d/e ] && [ ! -e /gone ] && [ -e /kept ]",
    ),
    // Directories of the base become files and links, and the other way round.
    Case(
        "FROM busybox\nRUN rm -r /usr && ln -s bin /usr && rm /bin/yes && mkdir /bin/yes && rmdir /var && echo v > /var",
        "[ \"$(readlink /usr)\" = bin ] && [ -d /bin/yes ] && [ $(cat /var) = v ]",
    ),
    // Only the metadata changes.
    Case(
        "FROM busybox\nRUN chmod 4711 /bin/busybox && chown 3:4 /etc/group && chmod 700 /var && touch -d @5 /etc/passwd",
        "[ $(stat -c %a /bin/busybox) = 4711 ] && [ $(stat -c %u:%g /etc/group) = 3:4 ] && [ $(stat -c %a /var) = 700 ] \
         && [ $(stat -c %Y /etc/passwd) = 5 ]",
    ),
    Case(
        "FROM busybox\nRUN echo a > /a && ln /a /b && ln -s a /c && ln -s /nowhere /e && mkfifo /p && ln /bin/busybox /bin/twin",
        "[ $(stat -c %i /a) = $(stat -c %i /b) ] && [ $(readlink /c) = a ] && [ $(readlink /e) = /nowhere ] && [ -p /p ] \
         && [ $(stat -c %i /bin/busybox) = $(stat -c %i /bin/twin) ]",
    ),
    // A file that loses one of its names, and one that is written to under one of them and gets another.
    Case(
        "FROM busybox\nRUN echo a > /a && ln /a /b && ln /a /c\nRUN rm /b",
        "[ $(stat -c %i /a) = $(stat -c %i /c) ] && [ ! -e /b ] && [ $(cat /c) = a ]",
    ),
    Case(
        "# not on an overlay\nFROM busybox\nRUN echo a > /a && ln /a /c\nRUN echo more >> /c\nRUN ln /a /d",
        "[ $(wc -l < /a) = 2 ] && [ $(stat -c %i /a) = $(stat -c %i /c) ] && [ $(stat -c %i /a) = $(stat -c %i /d) ]",
    ),
    // Two stages, and steps of every kind between RUNs.
    Case(
        "FROM busybox AS one\nWORKDIR /w\nRUN echo built > out && chown -R 5:6 /w\nFROM busybox\nCOPY --from=one /w /w\nRUN cat /w/out > /seen\n\
         COPY --chown=7:8 file /w/\nRUN cat /w/file >> /seen && rm /w/file && stat -c %u:%g /w/out >> /seen",
        "[ \"$(echo $(cat /seen))\" = 'built content 5:6' ] && [ ! -e /w/file ] && [ -e /w/out ]",
    ),
    // Linked copies on a root that is there: a file for a directory, a directory for a file and for a link.
    Case(
        "FROM busybox\nRUN mkdir -p /d/e /real && echo f > /f && ln -s real /l\nCOPY --link file /d\nCOPY --link file /f/g\n\
         COPY --link file /l/h\nRUN cat /d /f/g /l/h > /seen && ls /real > /listed",
        "[ $(wc -l < /seen) = 3 ] && [ ! -s /listed ] && [ -f /d ] && [ -d /f ] && [ ! -L /l ] && [ -d /real ]",
    ),
    // User, groups, home, working directory, environment, arguments, shell.
    Case(
        "FROM busybox\nARG GIVEN=arg\nENV SET=env\nRUN mkdir /w && chmod 777 /w\nUSER nobody:daemon\nWORKDIR /w/d\nWORKDIR /w\n\
         RUN echo $(id -u) $(id -g) $HOME $PWD $GIVEN $SET > me\nRUN [\"/bin/sh\", \"-c\", \"echo $0 > zero\", \"exec\"]\n\
         SHELL [\"/bin/sh\", \"-euc\"]\nRUN umask > umask; cat < /dev/null > empty",
        "[ \"$(cat /w/me)\" = '65534 1 / /w arg env' ] && [ $(cat /w/zero) = exec ] && [ $(cat /w/umask) = 0022 ] && [ -e /w/empty ]",
    ),
    // A process that stays behind writes nothing after its RUN.
    Case(
        "FROM busybox\nRUN (sleep 1000 & (sleep 1; echo late > /late) &) && echo done > /done\nRUN ! ps -o args | grep '^sleep 1000'",
        "[ ! -e /late ] && [ $(cat /done) = done ]",
    ),
    // A process that lost its parent is gone when it has ended, for those who wait for that.
    Case(
        "FROM busybox\nRUN (sh -c 'echo $$ > /pid; exec sleep 1' &); n=0; while [ ! -s /pid ] || [ -e /proc/$(cat /pid) ]; \
         do n=$((n + 1)); [ $n -lt 200 ] || exit 1; sleep 0.1; done; echo gone > /pid",
        "[ $(cat /pid) = gone ]",
    ),
    Case(
        "FROM busybox\nRUN <<end\nset -e\necho one > /one\necho two > /two\nend\nRUN echo err >&2 && printf 'no end'",
        "[ $(cat /one) = one ] && [ $(cat /two) = two ]",
    ),
    // What a RUN finds beside its image never enters a layer.
    Case(
        "FROM busybox\nRUN test -s /etc/resolv.conf && test -s /etc/hosts && echo x > /dev/null && ls /proc/self/status /dev/null /dev/urandom && mkdir -p /tmp/x\nRUN rm -r /tmp/x",
        "[ ! -e /tmp/x ]",
    ),
    // From nothing.
    Case(
        "FROM busybox AS b\nFROM scratch\nCOPY --from=b /bin /bin\nRUN [\"/bin/busybox\", \"mkdir\", \"/made\"]\nRUN [\"/bin/touch\", \"/made/file\"]",
        "[ -e /made/file ] && [ ! -e /etc/group ]",
    ),
];

/// Where they are built, and the driver that must be found best or is asked for.
pub(crate) struct Place {
    pub(crate) name: &'static str,
    variant: Variant,
    volume: bool,
    pub(crate) asked: Option<&'static str>,
    pub(crate) driver: &'static str,
}

pub(crate) const PLACES: [Place; 6] = [
    Place { name: "docker", variant: Variant::Docker, volume: false, asked: None, driver: "in-place" },
    Place { name: "unconfined", variant: Variant::Unconfined, volume: true, asked: None, driver: "overlay" },
    Place { name: "bare", variant: Variant::Unconfined, volume: false, asked: None, driver: "overlay" },
    Place { name: "flat", variant: Variant::Unconfined, volume: true, asked: Some("flat"), driver: "flat" },
    Place { name: "flat-bare", variant: Variant::Unconfined, volume: false, asked: Some("flat"), driver: "flat" },
    Place { name: "userns", variant: Variant::UserNamespace, volume: true, asked: None, driver: "overlay" },
];

impl Place {
    pub(crate) fn container(&self, context: &Context, volume: &Context) -> Result<Container> {
        let container = site::container(self.variant, context.path())?;
        Ok(if self.volume { container.volume(volume.path(), VOLUME) } else { container })
    }

    /// What is added to a build's words here.
    pub(crate) fn words(&self) -> Vec<&'static str> {
        let volume = if self.volume { &["--work-dir", VOLUME][..] } else { &[] };
        volume.iter().copied().chain(self.asked.into_iter().flat_map(|driver| ["--driver", driver])).collect()
    }

    /// Where builds work here.
    pub(crate) fn work_dir(&self) -> &'static str {
        if self.volume { VOLUME } else { "/kaniko/work" }
    }
}

/// A directory for a container's volume.
pub(crate) fn volume() -> Result<Context> {
    let volume = Context::new()?;
    fs::set_permissions(volume.path(), fs::Permissions::from_mode(0o777)).unwrap();
    Ok(volume)
}

#[test]
fn every_driver_makes_the_same_layers() -> Result<()> {
    let registry = site::registry(&[Base::Busybox])?;
    let mut context = Context::new()?.file("file", "content\n")?;
    for (n, Case(text, _)) in CASES.iter().enumerate() {
        context = context.file(&format!("Dockerfile.{n}"), format!("{text}\n"))?;
    }
    let mut wrong = Vec::new();
    for place in PLACES {
        let volume = volume()?;
        let mut live = place.container(&context, &volume)?.start()?;
        for (n, Case(text, _)) in CASES.iter().enumerate() {
            if place.driver == "overlay" && text.starts_with(NOT_ON_AN_OVERLAY) {
                continue;
            }
            let (dockerfile, name) = (format!("Dockerfile.{n}"), format!("drivers/c{n}:{}", place.name));
            let output = live.exec(site::job(&registry, &dockerfile, &name).args(place.words()))?;
            if !output.success() || !printed(&output).contains(&format!("sandbox: {}", place.driver)) {
                wrong.push(format!("{} {text}\n{output}", place.name));
            }
        }
        assert_eq!(live.left_behind(place.work_dir())?, "", "{}", place.name);
    }
    for n in 0..CASES.len() {
        wrong.extend(compare(&registry, n)?);
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n\n"));
    Ok(())
}

#[test]
fn what_is_to_be_ignored_is_in_no_layer() -> Result<()> {
    let registry = site::registry(&[Base::Busybox])?;
    let text = "FROM busybox\n\
                RUN mkdir -p /left/deep && echo x > /left/deep/x && echo y > /etc/left && rm /etc/group && echo z > /kept\n\
                RUN test -e /left/deep/x && test -e /etc/left && ! test -e /etc/group\n";
    let context = Context::new()?.file("Dockerfile", text)?;
    for place in PLACES {
        let volume = volume()?;
        let job = site::job(&registry, "Dockerfile", &format!("ignored/app:{}", place.name)).args(place.words());
        let job = job.args(["--ignore-path", "/left", "--ignore-path=/etc/left", "--ignore-path", "/etc/group"]);
        place.container(&context, &volume)?.run(job)?.ok(place.name)?;
        let image = Image::pull(&registry.reference(&format!("ignored/app:{}", place.name)))?;
        assert_eq!(image.manifest()["layers"].as_array().unwrap().len(), 2, "{}", place.name);
        assert_eq!(image.layer_paths(1)?, ["etc/", "kept"], "{}", place.name);
    }
    Ok(())
}

/// What is wrong with the images of a case: they differ, or are not what was meant.
fn compare(registry: &Registry, n: usize) -> Result<Vec<String>> {
    let (repository, Case(text, script)) = (format!("drivers/c{n}"), &CASES[n]);
    let tags = registry.tags(&repository)?;
    let Some(first) = tags.first() else { return Ok(Vec::new()) };
    let digest = |tag: &str| Ok(registry.manifest(&repository, tag)?.unwrap_or_default().0);
    let pull = |tag: &str| Image::pull(&registry.reference(&format!("{repository}:{tag}")));
    let (image, wanted) = (pull(first)?, digest(first)?);
    let mut wrong = Vec::new();
    for tag in &tags[1..] {
        if digest(tag)? != wanted {
            let other = pull(tag)?;
            let difference = image.listing()?.difference(&other.listing()?);
            let layers = [&image, &other].map(|image| layers(image).unwrap_or_default().join("\n"));
            wrong.push(format!("{text}\n{first} is not {tag}: {difference}\n{}\n--\n{}", layers[0], layers[1]));
        }
    }
    let listing = image.listing()?;
    let brought = ["etc/resolv.conf", "etc/hosts", "etc/hostname", ".dockerenv", "dev/null", "proc/self", "kaniko"];
    wrong.extend(brought.into_iter().filter(|path| listing.at(path).is_some()).map(|path| format!("{text}\n{path}")));
    // The image may have lost its own shell.
    let program = image.rootfs()?.join("busybox-of-test");
    fs::copy(Base::Busybox.rootfs()?.join("bin/busybox"), program).unwrap();
    let found = Container::new(image.rootfs()?, Variant::Docker).run(["/busybox-of-test", "sh", "-exc", script])?;
    if !found.success() {
        wrong.push(format!("{text}\n{found}"));
    }
    Ok(wrong)
}

/// The paths of each layer.
fn layers(image: &Image) -> Result<Vec<String>> {
    let count = image.manifest()["layers"].as_array().map_or(0, Vec::len);
    // The base's are the same.
    (1..count).map(|n| Ok(image.layer_paths(n)?.join(" "))).collect()
}

/// A Dockerfile, the exit code and words of the log.
const FAILURES: [(&str, i32, &[&str]); 5] = [
    ("FROM busybox\nRUN echo before; echo reason >&2; exit 7\nRUN echo never", 7, &["before", "reason", "exit code 7"]),
    ("FROM busybox\nRUN nosuchprogram", 127, &["nosuchprogram", "exit code 127"]),
    ("FROM busybox\nRUN [\"/nosuchprogram\"]", 127, &["/nosuchprogram", "exit code 127"]),
    ("FROM busybox\nRUN [\"/etc/group\"]", 126, &["/etc/group", "exit code 126"]),
    ("FROM busybox\nRUN kill -KILL $$", 137, &["exit code 137"]),
];

#[test]
fn a_failing_commands_exit_code_is_ours() -> Result<()> {
    let registry = site::registry(&[Base::Busybox])?;
    let mut context = Context::new()?;
    for (n, (text, ..)) in FAILURES.iter().enumerate() {
        context = context.file(&format!("Dockerfile.{n}"), text)?;
    }
    for place in PLACES.iter().filter(|place| place.asked.is_none()) {
        let volume = volume()?;
        let mut live = place.container(&context, &volume)?.start()?;
        for (n, (text, code, says)) in FAILURES.iter().enumerate() {
            let job = site::job(&registry, &format!("Dockerfile.{n}"), "drivers/failed:1").args(place.words());
            let output = live.exec(job)?;
            assert_eq!(output.code(), *code, "{} {text}: {output}", place.name);
            let text = printed(&output);
            assert!(says.iter().all(|words| text.contains(words)), "{} {output}", place.name);
            assert!(!text.contains("echo never\n[") && !text.contains("panicked"), "{output}");
        }
        assert_eq!(live.left_behind(place.work_dir())?, "", "{}", place.name);
    }
    assert_eq!(registry.tags("drivers/failed")?, [""; 0]);
    Ok(())
}
