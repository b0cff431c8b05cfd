//! Under Docker's defaults a RUN has the container's own `/`. Afterwards everything is as it was, however the build
//! ended, and what a RUN sees in between holds no credential.

use std::path::Path;

use yadokari_tests::{Base, CREDENTIALS, Context, Image, Listing, Live, Registry, Result, Signal, Variant, holds};

use crate::site::{self, printed};

/// What differs from `before`, and whether the shell, the programs and the mounts of the container still do.
fn is_as_before(live: &mut Live, before: &Listing, when: &str) -> Result<()> {
    assert_eq!(before.difference(&live.own_files()?), "", "{when}");
    let script =
        "test -s /etc/resolv.conf && test -s /etc/hosts && test -d /proc/1 && test -c /dev/null && echo $(ls -A /)";
    let seen = live.exec(["/bin/sh", "-c", script])?.text(when)?;
    assert!(
        seen.starts_with(".dockerenv bin busybox dev etc kaniko proc") && seen.ends_with("sys workspace"),
        "{when}: {seen}"
    );
    assert_eq!(live.left_behind("/kaniko/work")?, "", "{when}");
    Ok(())
}

const GOOD: &str = "FROM busybox
RUN echo mine > /etc/mine && mkdir /new && rm /bin/sh && ln /bin/busybox /bin/sh && echo x > /tmp/x
COPY Dockerfile.good /copied
RUN mv /new /newer && chmod 700 /etc && echo nameserver >> /etc/group && rm -r /var
";
const FAILS: &str = "FROM busybox\nRUN rm -r /usr && echo spoilt > /etc/spoilt && mkdir /workspace2 && exit 3\n";
const HANGS: &str = "FROM busybox\nRUN touch /touched /etc/touched && trap '' HUP; echo waiting; sleep 60 & sleep 60\n";
const IGNORES: &str = "FROM busybox\nRUN trap '' TERM; touch /touched; echo waiting; while :; do sleep 1; done\n";

#[test]
fn the_containers_own_root_is_as_before_after_every_end() -> Result<()> {
    let registry = site::registry(&[Base::Busybox])?;
    let texts = [("good", GOOD), ("fails", FAILS), ("hangs", HANGS), ("ignores", IGNORES)];
    let context = texts
        .iter()
        .try_fold(Context::new()?, |context, (name, text)| context.file(&format!("Dockerfile.{name}"), text))?;
    let mut live = site::container(Variant::Docker, context.path())?.start()?;
    let before = live.own_files()?;
    is_as_before(&mut live, &before, "before anything")?;

    let good = |live: &mut Live, n: u32, when: &str| -> Result<()> {
        let output = live.exec(site::job(&registry, "Dockerfile.good", &format!("place/good:{n}")))?.ok(when)?;
        assert!(printed(&output).contains("sandbox: in-place"), "{output}");
        assert_eq!(
            registry.manifest("place/good", "1")?.unwrap().0,
            registry.manifest("place/good", &n.to_string())?.unwrap().0
        );
        is_as_before(live, &before, when)
    };
    good(&mut live, 1, "after a build")?;
    good(&mut live, 2, "after a second build")?;

    let failed = live.exec(site::job(&registry, "Dockerfile.fails", "place/bad:1"))?;
    assert_eq!(failed.code(), 3, "{failed}");
    is_as_before(&mut live, &before, "after a failed RUN")?;
    good(&mut live, 3, "after a build after a failed RUN")?;

    let cases = [("hangs", Signal::TERM, 143), ("hangs", Signal::INT, 130), ("ignores", Signal::TERM, 143)];
    for (n, (name, signal, code)) in (4..).zip(cases) {
        let mut build = live.spawn(site::job(&registry, &format!("Dockerfile.{name}"), "place/bad:1"))?;
        // The line that shows the instruction holds the word, too; what the command prints stands alone.
        build.wait_for(" waiting\n")?;
        build.signal(signal)?;
        let output = build.wait()?;
        assert_eq!(output.code(), code, "{name}: {output}");
        assert!(output.elapsed.as_secs() < 40, "{name}: {output}");
        let when = format!("after {signal:?} while a RUN {name}");
        is_as_before(&mut live, &before, &when)?;
        let left = live.exec(["/busybox/sh", "-c", "ps | grep -c '[s]leep 60$'; true"])?.text("ps")?;
        assert_eq!(left, "0", "{when}");
        good(&mut live, n, &format!("after a build {when}"))?;
    }
    assert_eq!(registry.tags("place/bad")?, [""; 0]);
    let listing = Image::pull(&registry.reference("place/good:1"))?.listing()?;
    for (path, is) in [
        ("etc/mine", true),
        ("newer", true),
        ("new", false),
        ("var", false),
        ("copied", true),
        ("kaniko", false),
        ("busybox", false),
    ] {
        assert_eq!(listing.at(path).is_some(), is, "{path}");
    }
    Ok(())
}

/// Planted in the environment of the container's first process and of the executor.
const PLANTED: &str = "planted-in-the-environment";

/// Looks everywhere for what a RUN must not find. It must not say itself what it looks for.
pub(crate) const THIEF: &str = r#"for p in /proc/[0-9]* /proc/self; do
  for f in environ cmdline; do echo "== $p/$f"; tr '\0' '\n' < $p/$f; done
  while read -r range rights rest; do
    case $rights in rw*) ;; *) continue ;; esac
    start=$((0x${range%-*} / 4096)); end=$((0x${range#*-} / 4096))
    [ $((end - start)) -gt 4096 ] && end=$((start + 4096))
    dd if=$p/mem bs=4096 skip=$start count=$((end - start)) 2>/dev/null | strings | grep -E "plan[t]ed-in|password wi[t]h|YnVpbGR[l]cjph"
  done < $p/maps
done 2>&1
ls -la /kaniko /kaniko/.docker 2>&1
cat /kaniko/.docker/config.json 2>&1
find / -xdev -type f ! -path '/proc/*' -exec grep -hE "plan[t]ed-in|password wi[t]h|YnVpbGR[l]cjph" {} + 2>/dev/null
env
true
"#;

/// The password in all the forms that it could be seen in.
fn secrets() -> [&'static str; 3] {
    // The last one is the beginning of `builder:a` in base64, as a login is sent.
    [PLANTED, CREDENTIALS.1, "YnVpbGRlcjph"]
}

#[test]
fn a_run_finds_no_password() -> Result<()> {
    let registry = Registry::with_password()?;
    let base = registry.hold(Base::Busybox)?;
    let text = format!(
        "FROM {base}\nCOPY thief /thief\nRUN sh /thief > /loot; cat /loot\nUSER nobody\nRUN sh /thief > /tmp/loot; cat /tmp/loot\n"
    );
    let context = Context::new()?.file("Dockerfile", text)?.file("thief", THIEF)?;
    let container = site::container(Variant::Docker, context.path())?
        .env("REGISTRY_PASSWORD", PLANTED)
        .file("/kaniko/.docker/config.json", registry.docker_config().to_string());
    let mut live = container.start()?;

    // Without a sandbox around it the script finds all but what is only sent.
    let control = printed(&live.exec(["/busybox/sh", "/workspace/thief"])?);
    assert!(control.contains(PLANTED) && control.contains(CREDENTIALS.1), "{control}");

    let output = live.exec(site::job(&registry, "Dockerfile", "thief/app:1"))?.ok("build")?;
    let log = printed(&output);
    assert!(log.contains("sandbox: in-place") && log.contains("== /proc/1/environ"), "{log}");
    for secret in secrets() {
        assert!(!log.contains(secret), "'{secret}' in {log}");
    }
    let image = Image::pull_as(&registry.reference("thief/app:1"), CREDENTIALS)?;
    let rootfs = image.rootfs()?;
    assert!(rootfs.join("loot").metadata().is_ok_and(|loot| loot.len() > 500));
    for path in image.listing()?.0.keys() {
        let bytes = read(&rootfs.join(path));
        let found = secrets().into_iter().find(|secret| path != Path::new("thief") && holds(&bytes, secret));
        assert_eq!(found, None, "{}", path.display());
    }
    assert!(secrets().iter().all(|secret| !image.config().to_string().contains(secret)));
    // The file is back for the next build.
    let config = live.exec(["cat", "/kaniko/.docker/config.json"])?.text("cat")?;
    assert_eq!(config, registry.docker_config().to_string());
    Ok(())
}

fn read(path: &Path) -> Vec<u8> {
    let is_file = path.symlink_metadata().is_ok_and(|metadata| metadata.is_file());
    if is_file { std::fs::read(path).unwrap_or_default() } else { Vec::new() }
}
