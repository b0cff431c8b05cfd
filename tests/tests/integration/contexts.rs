//! `--build-context`: files and images from beside the context.

use std::fs;

use yadokari_tests::{Base, Context, Image, Result, Variant};

use crate::site;

const TEXT: &str = "\
FROM base AS build
RUN echo replaced > /replaced

FROM files AS plain
COPY --from=build /etc/group /group

FROM busybox
COPY --from=files f d/ /files/
COPY --from=plain / /plain/
RUN cat /files/f > /read
RUN --mount=from=files,target=/mounted cat /mounted/f > /from-mount
COPY --from=files f /after
";

#[test]
fn directories_layouts_and_images_take_the_place_of_names() -> Result<()> {
    let registry = site::registry(&[])?;
    registry.hold_as(Base::Busybox, yadokari_tests::Form::Oci, "mine/busybox:7")?;
    // Who filled it may have looked for its layers in other repositories.
    let mark = registry.mark()?;
    let context = Context::new()?.file("Dockerfile", TEXT)?.file("f", "of the main context")?;
    let other = Context::new()?
        .file(".dockerignore", "d/skipped\n.dockerignore\n")?
        .file("f", "of the other")?
        .file("d/in", "in")?
        .file("d/skipped", "skipped")?;
    let layout = Base::Busybox.layout()?;
    for variant in [Variant::Docker, Variant::Unconfined] {
        let container = site::container(variant, context.path())?
            .readonly_volume(other.path(), "/other")
            .readonly_volume(&layout, "/layout");
        let name = format!("contexts/app:{variant:?}").to_lowercase();
        let image = format!("busybox=docker-image://{}", registry.reference("mine/busybox:7"));
        let words = ["--build-context", "files=/other", "--build-context", "build=oci-layout:///layout:latest"];
        let job = site::job(&registry, "Dockerfile", &name).args(words).args(["--build-context", &image]);
        container.run(job)?.ok("build")?;
        let image = Image::pull(&registry.reference(&name))?;
        let (listing, rootfs) = (image.listing()?, image.rootfs()?);
        let read = |path: &str| fs::read_to_string(rootfs.join(path)).unwrap();
        for path in ["files/f", "plain/f", "read", "from-mount", "after"] {
            assert_eq!(read(path), "of the other", "{path}");
        }
        assert!(read("plain/group").starts_with("root:"));
        for path in ["files/in", "plain/d/in"] {
            assert!(listing.at(path).is_some(), "{path}");
        }
        for path in ["files/skipped", "plain/d/skipped", "replaced", "other", "plain/.dockerignore"] {
            assert!(listing.at(path).is_none(), "{path}");
        }
    }
    let served = registry.served()?.split_off(mark);
    let asked: Vec<&str> =
        served.iter().map(|served| &served.path[..]).filter(|path| path.contains("/library/")).collect();
    assert!(asked.is_empty(), "base and busybox are asked for: {asked:?}");
    Ok(())
}
