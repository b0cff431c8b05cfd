//! Whatever is wrong, the build ends with a message that says what and where, with the exit code that is documented,
//! without a panic, without a tag and without anything left in the work directory.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpListener;
use std::thread;

use yadokari_tests::{Base, CREDENTIALS, Container, Context, Executor, Live, Output, Registry, Result, Variant};

use crate::site::{self, printed};

/// The documented exit codes.
const USAGE: i32 = 2;
const DATA: i32 = 65;
const NO_INPUT: i32 = 66;
const UNAVAILABLE: i32 = 69;
const IO: i32 = 74;
const NO_PERMISSION: i32 = 77;

/// Where the executor works when it is not told.
const WORK: &str = "/kaniko/work";

/// Fails with `code` and says each of `says`, and nothing else is left of it.
fn refused(what: &str, output: &Output, code: i32, says: &[&str]) {
    let text = printed(output);
    assert_eq!(output.code(), code, "{what}: {output}");
    for words in says {
        assert!(text.contains(words), "{what}: no '{words}' in {output}");
    }
    for trace in ["panicked", "RUST_BACKTRACE", "src/"] {
        assert!(!text.contains(trace), "{what}: {output}");
    }
    assert!(text.contains("error: "), "{what}: {output}");
    assert!(!text.contains("\nbuilt sha256:") && !text.contains("\npushed "), "{what}: {output}");
}

/// One Dockerfile, the code and the words that it ends with.
const DOCKERFILES: [(&str, &str, i32, &[&str]); 9] = [
    ("unknown instruction", "FROM scratch\n\nFORM b\n", DATA, &["Dockerfile.0:3:1", "FORM b", "^^^^", "FROM"]),
    (
        "unknown flag",
        "FROM scratch\nCOPY --chwon=1 file /\n",
        DATA,
        &["Dockerfile.1:2:6", "COPY has no flag --chwon", "^^^^^^^^", "did you mean --chown?"],
    ),
    (
        "missing source",
        "FROM scratch\nCOPY file nowhere /\n",
        DATA,
        &["Dockerfile.2:2:11", "'nowhere' is not in the build context", "^^^^^^^"],
    ),
    ("missing source, ADD", "FROM scratch\nADD gone.tar /\n", DATA, &["Dockerfile.3:2:5", "'gone.tar'", "^^^^^^^^"]),
    (
        "missing source, stage",
        "FROM scratch AS a\nCOPY file /\nFROM scratch\nCOPY --from=a /none /\n",
        DATA,
        &["Dockerfile.4:4:15", "'/none' does not exist", "^^^^^"],
    ),
    ("absent base image", "ARG REGISTRY\nFROM ${REGISTRY}/no/such:1\n", NO_INPUT, &["no/such:1", "not found"]),
    (
        "unknown stage user",
        "FROM busybox\nCOPY --chown=nobody2 file /\n",
        DATA,
        &["Dockerfile.6:2:14", "nobody2", "^^^^^^^"],
    ),
    ("empty", "# nothing\n", DATA, &["Dockerfile.7"]),
    (
        "no destination for several",
        "FROM busybox\nCOPY file * /etc/passwd\n",
        DATA,
        &["Dockerfile.8:2:13", "/etc/passwd", "^^^"],
    ),
];

#[test]
fn a_wrong_dockerfile() -> Result<()> {
    let registry = site::registry(&[Base::Busybox])?;
    let mut context = Context::new()?.file("file", "content")?;
    for (n, (_, text, ..)) in DOCKERFILES.iter().enumerate() {
        context = context.file(&format!("Dockerfile.{n}"), text)?;
    }
    let mut live = site::container(Variant::Docker, context.path())?.start()?;
    for (n, (what, _, code, says)) in DOCKERFILES.into_iter().enumerate() {
        let output = live.exec(site::job(&registry, &format!("Dockerfile.{n}"), "wrong/app:1"))?;
        refused(what, &output, code, says);
        assert_eq!(live.left_behind(WORK)?, "", "{what}");
    }
    assert_eq!(registry.tags("wrong/app")?, [""; 0]);
    Ok(())
}

#[test]
fn a_wrong_command_line() -> Result<()> {
    let registry = Registry::start()?;
    let context = Context::new()?.file("Dockerfile", "FROM scratch\n")?;
    let mut live = site::container(Variant::Docker, context.path())?.start()?;
    let host = registry.host().to_owned();
    let cases: [(&[&str], i32, &[&str]); 9] = [
        (&["--destnation", "a/b:1"], USAGE, &["'--destnation'", "--destination"]),
        (&["--dockerfile", "nowhere"], NO_INPUT, &["Dockerfile '", "nowhere'", "No such file or directory"]),
        (&["--context", "/nowhere"], NO_INPUT, &["/nowhere", "No such file or directory"]),
        (&["--context", "s3://bucket/key"], USAGE, &["--context", "s3://"]),
        (&["--cache=true", "--cache-repo", "a/b:1"], USAGE, &["--cache-repo", "a tag or a digest"]),
        (&["--target", "final"], DATA, &["--target=final", "no such stage"]),
        (&["--destination", "UPPER/case:1"], USAGE, &["--destination", "'UPPER/case:1'"]),
        (&["--label", "novalue"], USAGE, &["--label", "'novalue'"]),
        (&["--driver", "chroot"], USAGE, &["chroot", "overlay, flat and in-place"]),
    ];
    for (words, code, says) in cases {
        let mut all = vec!["/kaniko/executor".to_owned()];
        all.extend(words.iter().map(|word| (*word).to_owned()));
        if !words.contains(&"--destination") {
            all.extend(["--destination".to_owned(), format!("{host}/wrong/app:1")]);
        }
        refused(&words.join(" "), &live.exec(all)?, code, says);
        assert_eq!(live.left_behind(WORK)?, "", "{words:?}");
    }
    let nothing = live.exec(["/kaniko/executor"])?;
    refused("no destination", &nothing, USAGE, &["--destination", "--no-push"]);
    assert_eq!(registry.tags("wrong/app")?, [""; 0]);
    Ok(())
}

#[test]
fn a_refused_login_is_told_before_anything_is_built() -> Result<()> {
    let registry = Registry::with_password()?;
    let (user, _) = CREDENTIALS;
    let wrong = serde_json::json!({"auths": {registry.host(): {"username": user, "password": "not this one"}}});
    let text = "FROM scratch\nCOPY file /\n";
    let from = format!("FROM {}\nCOPY file /\n", registry.hold(Base::Busybox)?);
    let context = Context::new()?.file("file", "x")?.file("Dockerfile.0", text)?.file("Dockerfile.1", from)?;
    for (config, who) in [(serde_json::json!({}), "nobody"), (wrong, "the wrong password")] {
        let container = site::container(Variant::Docker, context.path())?;
        let mut live = container.file("/kaniko/.docker/config.json", config.to_string()).start()?;
        for dockerfile in ["Dockerfile.0", "Dockerfile.1"] {
            let output = live.exec(site::job(&registry, dockerfile, "wrong/app:1"))?;
            refused(who, &output, NO_PERMISSION, &[registry.host(), "refused access", "authentication required"]);
            let text = printed(&output);
            assert!(!text.contains("] COPY") && !text.contains("not this one"), "{who}: {text}");
            assert_eq!(live.left_behind(WORK)?, "", "{who}");
        }
    }
    assert_eq!(registry.tags("wrong/app")?, [""; 0]);
    let container = site::container(Variant::Docker, context.path())?;
    let container = container.file("/kaniko/.docker/config.json", registry.docker_config().to_string());
    container.run(site::job(&registry, "Dockerfile.1", "right/app:1"))?.ok("with the right password")?;
    assert_eq!(registry.tags("right/app")?, ["1"]);
    Ok(())
}

#[test]
fn a_full_disk() -> Result<()> {
    let registry = site::registry(&[Base::Busybox])?;
    let context = Context::new()?
        .noise("large", 12 << 20)?
        .file("Dockerfile.0", "FROM scratch\nCOPY large /\n")?
        .file("Dockerfile.1", "FROM busybox\nRUN head -c 12000000 /dev/urandom | cat > /large || exit 1\n")?;
    for variant in [Variant::Docker, Variant::Unconfined] {
        let mut live = site::container(variant, context.path())?.small_volume(8 << 20, "/small").start()?;
        for dockerfile in ["Dockerfile.0", "Dockerfile.1"] {
            let job = site::job(&registry, dockerfile, "full/app:1").args(["--work-dir", "/small"]);
            let output = live.exec(job)?;
            // A command that cannot write has an exit code of its own.
            let code = if dockerfile == "Dockerfile.0" { IO } else { output.code() };
            refused(dockerfile, &output, code, &["No space left on device"]);
            assert!(output.code() != 0, "{output}");
            assert_eq!(live.left_behind("/small")?, "", "{variant:?} {dockerfile}");
        }
    }
    assert_eq!(registry.tags("full/app")?, [""; 0]);
    Ok(())
}

#[test]
fn a_registry_that_goes_away_in_mid_push() -> Result<()> {
    let mut registry = Registry::start()?;
    let text = "FROM scratch\nCOPY one /\nCOPY two /\nCOPY three /\n";
    let size = 24 << 20;
    let context = Context::new()?
        .noise("one", size)?
        .noise("two", size + 1)?
        .noise("three", size + 2)?
        .file("Dockerfile", text)?;
    let mut live = site::container(Variant::Docker, context.path())?.start()?;
    let mut process = live.spawn(site::job(&registry, "Dockerfile", "gone/app:1"))?;
    // The first upload only asks whether uploading is allowed; the second one is a layer's.
    while registry.served()?.iter().filter(|served| served.method == "POST").count() < 2 {
        assert!(process.is_running()?, "{:?}", process.printed()?);
        thread::yield_now();
    }
    registry.stop();
    let output = process.wait()?;
    refused("a registry that goes away", &output, UNAVAILABLE, &["push to", registry.host(), "cannot reach"]);
    assert_eq!(live.left_behind(WORK)?, "");
    registry.restart()?;
    assert_eq!(registry.tags("gone/app")?, [""; 0]);
    Ok(())
}

#[test]
fn a_registry_that_fails_says_so_in_its_own_words() -> Result<()> {
    let context = Context::new()?.file("file", "x")?.file("Dockerfile", "FROM scratch\nCOPY file /\n")?;
    // Refusing at once, and accepting the upload but not its content.
    for (status, says) in [(400, "the quota of this project is spent"), (500, "the storage caught fire")] {
        let address = failing_registry(status, says);
        let mut live = empty(&context)?;
        let words = ["--dockerfile", "Dockerfile", "--destination"].map(str::to_owned);
        let job = ["/kaniko/executor".to_owned()].into_iter().chain(words).chain([format!("{address}/a/b:1")]);
        let output = live.exec(job.collect::<Vec<_>>())?;
        refused(says, &output, UNAVAILABLE, &["push to", &address, &status.to_string(), says]);
        assert_eq!(live.left_behind(WORK)?, "");
    }
    Ok(())
}

fn empty(context: &Context) -> Result<Live> {
    let container: Container = Executor::build()?.debug_container(Variant::Docker);
    container.readonly_volume(context.path(), "/workspace").start()
}

/// The address of a registry that takes an upload's beginning and answers all that follows with `status` and `says`.
/// It ends with the process.
fn failing_registry(status: u16, says: &str) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let body = serde_json::json!({"errors": [{"code": "UNKNOWN", "message": says}]}).to_string();
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let mut reader = BufReader::new(&stream);
            let mut head = Vec::new();
            for line in reader.by_ref().lines().map_while(std::result::Result::ok) {
                if line.is_empty() {
                    break;
                }
                head.push(line.to_lowercase());
            }
            let length = head.iter().find_map(|line| line.strip_prefix("content-length:")?.trim().parse().ok());
            // The client is not to be cut off in the middle of a body that it still sends.
            let _ = std::io::copy(&mut reader.take(length.unwrap_or(0)), &mut std::io::sink());
            let answer = match head.first().map(|line| line.split(' ').next().unwrap_or_default()) {
                Some("get") => "200 OK\r\nContent-Length: 0\r\n\r\n".to_owned(),
                Some("head") => "404 Not Found\r\nContent-Length: 0\r\n\r\n".to_owned(),
                Some("post") => {
                    "202 Accepted\r\nLocation: /v2/a/b/blobs/uploads/1\r\nContent-Length: 0\r\n\r\n".to_owned()
                }
                Some("delete") => "204 No Content\r\n\r\n".to_owned(),
                _ => format!(
                    "{status} No\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
                    body.len()
                ),
            };
            let _ = (&stream)
                .write_all(format!("HTTP/1.1 {answer}").replacen("\r\n", "\r\nConnection: close\r\n", 1).as_bytes());
        }
    });
    address
}
