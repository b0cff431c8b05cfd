//! RUN steps that are refused where they would not be isolated, and the roots of those that fail.

use serde_json::{Value, json};
use yadokari_tests::{Base, Context, Image, Job, Output, Registry, Result, Variant};

use super::places;
use crate::drivers::{Place, volume};
use crate::secrets::{SECRET, nothing_holds_it};
use crate::site::{self, printed};

#[test]
fn a_run_that_would_not_be_isolated_is_refused_where_that_is_asked_for() -> Result<()> {
    let registry = site::registry(&[Base::Busybox])?;
    let context = Context::new()?
        .file("Dockerfile", "FROM busybox\nRUN echo it r''an > /ran; cat /ran\n")?
        .file("Dockerfile.copy", "FROM busybox\nCOPY Dockerfile /\n")?;
    let build = |place: &Place, dockerfile: &str, words: &[&str]| -> Result<Output> {
        let volume = volume()?;
        let job = site::job(&registry, dockerfile, &format!("attacks/required:{}", place.name));
        place.container(&context, &volume)?.run(job.args(place.words()).args(words.iter().copied()))
    };
    let required = "--require-isolation";
    for place in places() {
        let is_isolated = place.driver != "in-place";
        let output = build(place, "Dockerfile", &[required])?;
        let log = printed(&output);
        assert_eq!(output.code(), if is_isolated { 0 } else { 71 }, "{}: {output}", place.name);
        assert_eq!(log.contains("it ran"), is_isolated, "{}: {output}", place.name);
        if is_isolated {
            continue;
        }
        for words in ["--require-isolation: a RUN is to be executed", "in-place (chosen)", "seccomp=unconfined"] {
            assert!(log.contains(words), "'{words}' in {log}");
        }
        assert_eq!(registry.tags("attacks/required")?, [""; 0]);
        // What needs no sandbox is built, and so is what was executed before.
        build(place, "Dockerfile.copy", &[required])?.ok("without a RUN")?;
        build(place, "Dockerfile", &["--cache"])?.ok("without the flag")?;
        let output = build(place, "Dockerfile", &["--cache", required])?.ok("from the cache")?;
        assert!(!printed(&output).contains("sandbox: "), "{output}");
    }
    // A driver that was asked for is no exception.
    let asked = places().find(|place| place.name == "unconfined").unwrap();
    let output = build(asked, "Dockerfile", &[required, "--driver", "in-place"])?;
    assert_eq!((output.code(), printed(&output).contains("it ran")), (71, false), "{output}");
    Ok(())
}

const FAILS: &str = "FROM busybox AS build
ENV A=1
WORKDIR /w
RUN echo kept > /w/kept
COPY file /w/
ARG B=argument
RUN --mount=type=secret,id=token --mount=type=secret,id=token,env=TOKEN --mount=type=cache,target=/c \\
    [ $(cat /run/secrets/token) = $TOKEN ] && touch /c/cached && echo $A $B > changed && rm /etc/group && exit 7
RUN echo never > /never
ENTRYPOINT [\"/never\"]
FROM busybox
COPY --from=build /w /w
";

/// Where an image is said to be that has no annotations.
const ARCHIVE: &str = "an archive";

/// What the image of a failed root holds.
fn is_the_failed_root(image: &Image, place: &str) -> Result<()> {
    let listing = image.listing()?;
    for path in ["w/kept", "w/file", "w/changed"] {
        assert!(listing.at(path).is_some(), "{place}: {path}");
    }
    for path in ["etc/group", "run/secrets", "run", "c", "never", "kaniko"] {
        assert!(listing.at(path).is_none(), "{place}: {path}");
    }
    let config = &image.config()["config"];
    assert_eq!((&config["WorkingDir"], &config["Cmd"]), (&json!("/w"), &json!(["/bin/sh"])), "{config}");
    assert_eq!(
        (&config["Entrypoint"], image.env("A"), image.env("TOKEN")),
        (&Value::Null, Some("1"), None),
        "{config}"
    );
    let mut places = vec![&config["Labels"]];
    // Archives of `docker save` have none.
    places.extend((place != ARCHIVE).then_some(&image.manifest()["annotations"]));
    for said in places {
        let instruction = said["dev.yadokari.failed.instruction"].as_str().unwrap_or_default();
        assert!(instruction.starts_with("RUN --mount=type=secret") && instruction.ends_with("exit 7"), "{said}");
        let [code, stage] = ["exit-code", "stage"].map(|name| &said[format!("dev.yadokari.failed.{name}")]);
        assert_eq!((code, stage), (&json!("7"), &json!("build")));
    }
    let text = image.container(Variant::Docker)?.run(Job::shell("cat changed"))?.text("cat")?;
    assert_eq!(text, "1 argument", "{place}");
    Ok(())
}

#[test]
fn the_root_in_which_a_run_failed_is_kept_under_a_name_of_its_own() -> Result<()> {
    let registry = site::registry(&[Base::Busybox])?;
    let context = Context::new()?.file("Dockerfile", FAILS)?.file("file", "copied")?;
    for place in places() {
        let (volume, repository) = (volume()?, format!("attacks/failed-{}", place.name));
        let job = site::job(&registry, "Dockerfile", &format!("{repository}:1")).args(place.words());
        let job = job.args(["--on-failure=save", "--secret", "id=token,src=/kaniko/token"]);
        let mut live = place.container(&context, &volume)?.file("/kaniko/token", SECRET).start()?;
        let output = live.exec(job.clone())?;
        assert_eq!(output.code(), 7, "{}: {output}", place.name);
        let tags = registry.tags(&repository)?;
        assert!(
            matches!(&tags[..], [tag] if tag.starts_with("failed-") && tag.len() == 19),
            "{}: {tags:?}",
            place.name
        );
        let reference = registry.reference(&format!("{repository}:{}", tags[0]));
        assert!(printed(&output).contains(&format!("docker run -it --rm {reference}")), "{output}");
        is_the_failed_root(&Image::pull(&reference)?, place.name)?;
        // The next try has the same name.
        live.exec(job)?;
        assert_eq!(registry.tags(&repository)?, tags, "{}", place.name);
    }
    nothing_holds_it(&registry.storage());
    into_files(&registry, &context)
}

/// Without a push it is beside the files that would have been written.
fn into_files(registry: &Registry, context: &Context) -> Result<()> {
    let out = volume()?;
    let container = site::container(Variant::Docker, context.path())?.file("/kaniko/token", SECRET);
    let mut live = container.volume(out.path(), "/out").start()?;
    let job = site::job(registry, "Dockerfile", "attacks/none:1").args(["--secret", "id=token,src=/kaniko/token"]);
    let save = ["--on-failure", "save", "--no-push"];
    let nowhere = live.exec(job.clone().args(save))?;
    assert_eq!(nowhere.code(), 2, "{nowhere}");
    let files = ["--tar-path", "/out/image.tar", "--oci-layout-path", "/out/layout"];
    let output = live.exec(job.clone().args(save).args(files))?;
    assert_eq!(output.code(), 7, "{output}");
    assert!(
        !out.path().join("image.tar").exists() && printed(&output).contains("docker load -i /out/image.failed.tar")
    );
    is_the_failed_root(&Image::from_tarball(&out.path().join("image.failed.tar"))?, ARCHIVE)?;
    is_the_failed_root(&Image::from_layout(&out.path().join("layout"))?, "a layout")?;
    assert_eq!(registry.tags("attacks/none")?, [""; 0]);
    // What cannot be kept changes nothing about the failure.
    std::fs::remove_file(out.path().join("image.failed.tar")).unwrap();
    std::fs::create_dir(out.path().join("image.failed.tar")).unwrap();
    let output = live.exec(job.args(save).args(files))?;
    assert_eq!(output.code(), 7, "{output}");
    assert!(printed(&output).contains("cannot be kept: "), "{output}");
    Ok(())
}
