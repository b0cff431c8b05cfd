//! Images for other machines, and several in one index.

use std::fs;

use serde_json::{Value, json};
use yadokari_tests::{Base, Context, Image, Result, Variant, architecture};

use crate::site::{self, printed};

const CROSS: &str = "\
FROM --platform=$BUILDPLATFORM busybox AS tool
RUN echo made once > /tool && date +%N >> /tool
FROM platforms
ARG TARGETPLATFORM
ARG BUILDPLATFORM
COPY --from=tool /tool /usr/tool
LABEL for=$TARGETPLATFORM from=$BUILDPLATFORM
";

#[test]
fn one_build_makes_an_index_of_two_platforms() -> Result<()> {
    let registry = site::registry(&[Base::Busybox, Base::Platforms])?;
    let context = Context::new()?.file("Dockerfile", CROSS)?;
    for variant in [Variant::Docker, Variant::Unconfined] {
        let mut live = site::container(variant, context.path())?.open()?;
        let files = ["--oci-layout-path", "/kaniko/layout", "--digest-file", "/kaniko/digest"];
        let job = site::job(&registry, "Dockerfile", "cross/app:1").args(files);
        live.run(job.args(["--platform", "linux/amd64,linux/arm64"]))?.ok("build")?;

        let (digest, index) = registry.manifest("cross/app", "1")?.unwrap();
        assert_eq!(index["mediaType"], "application/vnd.oci.image.index.v1+json");
        assert_eq!(fs::read_to_string(live.path("/kaniko/digest")).unwrap(), digest);
        let layout: Value = serde_json::from_slice(&fs::read(live.path("/kaniko/layout/index.json")).unwrap()).unwrap();
        assert_eq!(layout["manifests"][0]["digest"], *digest);
        let mut copied = Vec::new();
        for (n, wanted) in ["amd64", "arm64"].into_iter().enumerate() {
            let listed = &index["manifests"][n];
            assert_eq!(listed["platform"], json!({"os": "linux", "architecture": wanted}));
            let digest = listed["digest"].as_str().unwrap();
            let image = Image::pull(&registry.reference(&format!("cross/app@{digest}")))?;
            assert_eq!((&image.config()["architecture"], &image.config()["os"]), (&json!(wanted), &json!("linux")));
            let labels = json!({"for": format!("linux/{wanted}"), "from": format!("linux/{}", architecture())});
            assert_eq!(image.config()["config"]["Labels"], labels);
            let platform = fs::read_to_string(image.rootfs()?.join("etc/platform")).unwrap();
            assert_eq!(platform, format!("linux/{wanted}\n"));
            copied.push(image.manifest()["layers"].as_array().unwrap().last().unwrap()["digest"].clone());
        }
        assert_eq!(copied[0], copied[1], "the stage that both copy from was executed once");
    }
    Ok(())
}

#[test]
fn an_image_for_another_machine_needs_no_privilege() -> Result<()> {
    let registry = site::registry(&[Base::Platforms])?;
    let other = if architecture() == "arm64" { "amd64" } else { "arm64" };
    let text = "FROM platforms\nWORKDIR /srv\nCOPY Dockerfile .\n";
    let context = Context::new()?.file("Dockerfile", text)?;
    let job = site::job(&registry, "Dockerfile", "foreign/app:1").args([format!("--customPlatform=linux/{other}")]);
    site::container(Variant::Restricted, context.path())?.run(job)?.ok("build")?;
    let image = Image::pull(&registry.reference("foreign/app:1"))?;
    assert_eq!(image.config()["architecture"], other);
    assert!(image.listing()?.at("srv/Dockerfile").is_some());
    assert_eq!(fs::read_to_string(image.rootfs()?.join("etc/platform")).unwrap(), format!("linux/{other}\n"));
    Ok(())
}

#[test]
fn a_run_for_a_machine_that_nothing_emulates_asks_the_registry_for_nothing() -> Result<()> {
    let registry = site::registry(&[Base::Busybox])?;
    let context = Context::new()?.file("Dockerfile", "FROM busybox AS a\nCOPY Dockerfile /\nRUN true\nFROM a\n")?;
    let asked = || Ok::<_, yadokari_tests::Error>(registry.served()?.len());
    let before = asked()?;
    let job = site::job(&registry, "Dockerfile", "foreign/run:1").args(["--platform=linux/sparc64"]);
    let output = site::container(Variant::Docker, context.path())?.run(job)?;
    let text = printed(&output);
    assert_eq!((output.code(), asked()?), (65, before), "{output}");
    for part in ["Dockerfile:3:1", "^^^^^^^^ binfmt_misc", "a RUN for linux/sparc64", "$BUILDPLATFORM"] {
        assert!(text.contains(part), "no '{part}' in {text}");
    }
    Ok(())
}

#[test]
fn a_step_that_two_stages_share_is_executed_once() -> Result<()> {
    let registry = site::registry(&[Base::Busybox])?;
    let text = "FROM busybox AS a\nRUN date +%N > /n\nFROM busybox AS b\nRUN date +%N > /n\nRUN date +%N > /m\n\
                FROM scratch\nCOPY --from=a /n /a\nCOPY --from=b /n /m /\n";
    let context = Context::new()?.file("Dockerfile", text)?;
    for variant in [Variant::Docker, Variant::Unconfined] {
        let name = format!("same/app:{variant:?}").to_lowercase();
        site::container(variant, context.path())?.run(site::job(&registry, "Dockerfile", &name))?.ok("build")?;
        let image = Image::pull(&registry.reference(&name))?;
        let rootfs = image.rootfs()?;
        let [a, b] = ["a", "n"].map(|path| fs::read_to_string(rootfs.join(path)).unwrap());
        assert_eq!(a, b, "{variant:?}");
    }
    Ok(())
}
