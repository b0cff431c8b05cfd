//! Where an image goes and what its config says.

use std::fs;

use serde_json::json;
use yadokari_tests::{Base, Context, Executor, Form, Image, Result, Variant};

use crate::site;

const EVERYTHING: &str = r#"ARG GLOBAL=outside
ARG GIVEN=default
FROM busybox AS base
LABEL inherited=yes changed=before
ENV KEPT=kept CHANGED=before
FROM base
MAINTAINER Somebody <somebody@example.org>
ARG GLOBAL
ARG GIVEN
ARG LATE=default
ARG UNSET
LABEL changed=after spaces="two words" $GLOBAL=name
ENV CHANGED=after-$CHANGED FROM_ARG=$GLOBAL-$GIVEN-$LATE-${UNSET:-none} SAME=$CHANGED
ENV LATE=environment
ENV SEES=$LATE
EXPOSE 80 53/udp 8000-8001
VOLUME /data ["/not/a/list"]
VOLUME ["/list", "/of two"]
SHELL ["/bin/sh", "-ec"]
HEALTHCHECK --interval=5s --timeout=1m30s --retries=2 CMD wget -q localhost
STOPSIGNAL SIGQUIT
ONBUILD RUN echo never
USER nobody:nogroup
WORKDIR /srv
WORKDIR app
ENTRYPOINT ["/bin/echo", "hello"]
CMD the world
"#;

#[test]
fn the_config_says_what_the_instructions_say() -> Result<()> {
    let registry = site::registry(&[Base::Busybox])?;
    let context = Context::new()?.file("Dockerfile", EVERYTHING)?;
    let words =
        ["--build-arg", "GIVEN=given", "--build-arg", "LATE=late", "--label", "flag=1", "--label", "changed=flag"];
    let job = site::job(&registry, "Dockerfile", "config/all:1").args(words);
    site::container(Variant::Docker, context.path())?.run(job)?.ok("build")?;
    let image = Image::pull(&registry.reference("config/all:1"))?;
    let config = &image.config()["config"];
    let expected = [
        (
            "Labels",
            json!({"inherited": "yes", "changed": "flag", "spaces": "two words", "outside": "name", "flag": "1"}),
        ),
        ("ExposedPorts", json!({"80/tcp": {}, "53/udp": {}, "8000/tcp": {}, "8001/tcp": {}})),
        ("Volumes", json!({"/data": {}, "[/not/a/list]": {}, "/list": {}, "/of two": {}})),
        ("Shell", json!(["/bin/sh", "-ec"])),
        (
            "Healthcheck",
            json!({"Test": ["CMD-SHELL", "wget -q localhost"], "Interval": 5_000_000_000_u64,
                "Timeout": 90_000_000_000_u64, "Retries": 2}),
        ),
        ("StopSignal", json!("SIGQUIT")),
        ("OnBuild", json!(["RUN echo never"])),
        ("User", json!("nobody:nogroup")),
        ("WorkingDir", json!("/srv/app")),
        ("Entrypoint", json!(["/bin/echo", "hello"])),
        ("Cmd", json!(["/bin/sh", "-ec", "the world"])),
    ];
    for (name, value) in expected {
        assert_eq!(config[name], value, "{name}");
    }
    let variables = [
        ("KEPT", Some("kept")),
        ("CHANGED", Some("after-before")),
        ("FROM_ARG", Some("outside-given-late-none")),
        // All of one instruction see what was before it.
        ("SAME", Some("before")),
        ("LATE", Some("environment")),
        ("SEES", Some("environment")),
        ("GLOBAL", None),
        ("UNSET", None),
    ];
    for (name, value) in variables {
        assert_eq!(image.env(name), value, "{name}");
    }
    assert_eq!(image.config()["author"], "Somebody <somebody@example.org>");
    assert_eq!(image.config()["created"], "2001-09-09T01:46:40Z");
    let history = image.config()["history"].as_array().unwrap();
    let layers = history.iter().filter(|line| line["empty_layer"] != true).count();
    assert_eq!(layers, image.config()["rootfs"]["diff_ids"].as_array().unwrap().len());
    Ok(())
}

#[test]
fn every_destination_gets_the_same_image() -> Result<()> {
    let registry = site::registry(&[Base::Busybox])?;
    let text = "FROM busybox AS wanted\nCOPY file /wanted\nFROM wanted\nCOPY file /unwanted\n";
    let context = Context::new()?.file("Dockerfile", text)?.file("file", "content")?;
    let second = registry.reference("other/place:2");
    let files =
        ["--oci-layout-path", "/kaniko/layout", "--tar-path", "/kaniko/image.tar", "--digest-file", "/kaniko/digest"];
    for variant in [Variant::Docker, Variant::Restricted] {
        let mut live = site::container(variant, context.path())?.open()?;
        let job = site::job(&registry, "Dockerfile", "one/place:1").args(files);
        live.run(job.args(["--destination", &second, "--target=wanted"]))?.ok("build")?;
        let (digest, _) = registry.manifest("one/place", "1")?.unwrap();
        assert_eq!(registry.manifest("other/place", "2")?.unwrap().0, digest);
        assert_eq!(fs::read_to_string(live.path("/kaniko/digest")).unwrap().trim(), digest);
        let pulled = Image::pull(&second)?;
        let layout = Image::from_layout(&live.path("/kaniko/layout"))?;
        let tarball = Image::from_tarball(&live.path("/kaniko/image.tar"))?;
        assert_eq!(pulled.manifest(), layout.manifest());
        assert_eq!(pulled.config()["rootfs"], tarball.config()["rootfs"]);
        for image in [&pulled, &layout, &tarball] {
            let listing = image.listing()?;
            assert!(listing.at("wanted").is_some() && listing.at("unwanted").is_none(), "{variant:?}");
        }
    }
    Ok(())
}

#[test]
fn without_a_push_only_files_are_written() -> Result<()> {
    let registry = site::registry(&[Base::Busybox])?;
    let context = Context::new()?.file("Dockerfile", "FROM busybox\nCOPY Dockerfile /\n")?;
    let mut live = site::container(Variant::Restricted, context.path())?.open()?;
    let words = ["--no-push", "--oci-layout-path", "/kaniko/layout"];
    live.run(site::job(&registry, "Dockerfile", "no/push:1").args(words))?.ok("build")?;
    assert!(Image::from_layout(&live.path("/kaniko/layout"))?.listing()?.at("Dockerfile").is_some());
    let asked = registry.served()?.into_iter().filter(|served| served.path.starts_with("/v2/no/push")).count();
    assert_eq!(asked, 0);
    assert_eq!(registry.tags("no/push")?, [""; 0]);
    Ok(())
}

#[test]
fn mirrors_and_maps_are_asked_first() -> Result<()> {
    let (mirror, target) = (site::registry(&[Base::Busybox])?, site::registry(&[])?);
    mirror.hold_as(Base::Busybox, Form::Oci, "cache/team/base:3")?;
    let text = "FROM busybox AS one\nFROM registry.invalid/team/base:3\nCOPY --from=one /etc/group /from-one\n";
    let context = Context::new()?.file("Dockerfile", text)?;
    let destination = target.reference("mapped/app:1");
    let map = format!("registry.invalid={}/cache", mirror.host());
    let job = Executor::job(&mirror).args(["--destination", &destination, "--registry-map", &map]);
    site::container(Variant::Docker, context.path())?.run(job)?.ok("build")?;
    let listing = Image::pull(&destination)?.listing()?;
    assert!(listing.at("from-one").is_some() && listing.at("bin/busybox").is_some());
    assert!(mirror.served()?.iter().any(|served| served.path.starts_with("/v2/cache/team/base/manifests/3")));
    Ok(())
}
