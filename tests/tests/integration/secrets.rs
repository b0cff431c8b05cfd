//! A secret is for the command that mounts it. Nothing else ever holds it: no layer, no config, no log, no other command,
//! no file that is left.

use std::fs;
use std::io::Read;
use std::path::Path;

use yadokari_tests::{Base, Context, Image, Result, holds};

use crate::drivers::{PLACES, volume};
use crate::in_place::THIEF;
use crate::site::{self, printed};

/// What the thief looks for.
pub(crate) const SECRET: &str = "planted-in-a-secret";

const TEXT: &str = "FROM busybox AS stage
RUN --mount=type=secret,id=token,target=/deep/down/token [ $(cat /deep/down/token | wc -c) = 19 ] && echo stage > /of-stage
FROM busybox
COPY thief /thief
RUN --mount=type=secret,id=token --mount=type=secret,id=token,env=TOKEN [ $(cat /run/secrets/token) = $TOKEN ] && [ ${#TOKEN} = 19 ]
RUN --mount=type=secret,id=token,required,target=/etc/token wc -c < /etc/token > /seen
RUN --mount=type=secret,id=token --mount=from=stage,source=of-stage,target=/s --mount=type=cache,target=/cache \\
    [ $(cat /s) = stage ] && touch /cache/x /run/beside
RUN --mount=type=cache,target=/cache sh /thief > /loot; cat /loot; ls -AR /run /etc >> /loot
USER nobody
RUN sh /thief > /tmp/loot; cat /tmp/loot
";

/// Fails where a file below `directory` holds the secret, as it is or compressed.
pub(crate) fn nothing_holds_it(directory: &Path) {
    let mut count = 0;
    for entry in walkdir::WalkDir::new(directory) {
        let entry = entry.unwrap();
        if !entry.file_type().is_file() {
            continue;
        }
        count += 1;
        let bytes = fs::read(entry.path()).unwrap();
        let mut unpacked = Vec::new();
        if bytes.starts_with(b"\x1f\x8b") {
            flate2::read::MultiGzDecoder::new(&bytes[..]).read_to_end(&mut unpacked).unwrap();
        } else if bytes.starts_with(b"\x28\xb5\x2f\xfd") {
            zstd::Decoder::new(&bytes[..]).unwrap().read_to_end(&mut unpacked).unwrap();
        }
        for bytes in [bytes, unpacked] {
            assert!(!holds(&bytes, SECRET), "{}", entry.path().display());
        }
    }
    assert!(count > 0, "{} is empty", directory.display());
}

#[test]
fn a_secret_is_nowhere_but_in_its_own_run() -> Result<()> {
    let registry = site::registry(&[Base::Busybox])?;
    let context = Context::new()?.file("Dockerfile", TEXT)?.file("thief", THIEF)?;
    for place in PLACES.iter().filter(|place| ["docker", "unconfined", "flat"].contains(&place.name)) {
        let volume = volume()?;
        let container = place.container(&context, &volume)?.file("/kaniko/token", SECRET);
        let mut live = container.start()?;
        let name = format!("secrets/app:{}", place.name);
        let job = site::job(&registry, "Dockerfile", &name).args(place.words());
        let job = job.args(["--secret", "id=token,src=/kaniko/token", "--verbosity", "debug"]);
        let output = live.exec(job)?.ok(place.name)?;
        let log = printed(&output);
        assert!(log.contains(&format!("sandbox: {}", place.driver)) && log.contains("****"), "{log}");
        assert!(!log.contains(SECRET), "{}: {log}", place.name);
        let image = Image::pull(&registry.reference(&name))?;
        assert!(!image.config().to_string().contains(SECRET), "{}", image.config());
        let listing = image.listing()?;
        for path in ["run/secrets", "deep", "etc/token", "cache", "s"] {
            assert!(listing.at(path).is_none(), "{}: {path}", place.name);
        }
        for path in ["run/beside", "seen", "loot", "tmp/loot"] {
            assert!(listing.at(path).is_some(), "{}: {path}", place.name);
        }
        nothing_holds_it(&live.path(place.work_dir()));
        // The file itself is where it was, for the next build.
        assert_eq!(live.exec(["/busybox/cat", "/kaniko/token"])?.text("cat")?, SECRET);
    }
    nothing_holds_it(&registry.storage());
    Ok(())
}

#[test]
fn a_secret_of_the_environment_is_not_in_that_of_a_run() -> Result<()> {
    let registry = site::registry(&[Base::Busybox])?;
    let text = "FROM busybox\nRUN --mount=type=secret,id=TOKEN [ $(wc -c < /run/secrets/TOKEN) = 19 ]\n\
                RUN env > /env && [ -z \"${TOKEN+set}\" ]\n";
    let context = Context::new()?.file("Dockerfile", text)?;
    for place in PLACES.iter().filter(|place| ["docker", "unconfined"].contains(&place.name)) {
        let volume = volume()?;
        let name = format!("secrets/environment:{}", place.name);
        let job = site::job(&registry, "Dockerfile", &name).args(place.words()).args(["--secret", "id=TOKEN"]);
        let output = place.container(&context, &volume)?.start()?.exec(job.env("TOKEN", SECRET))?.ok(place.name)?;
        assert!(!printed(&output).contains(SECRET), "{output}");
    }
    nothing_holds_it(&registry.storage());
    Ok(())
}
