//! The image that is shipped, built by what is shipped in it.

use std::fs;
use std::path::PathBuf;

use yadokari_tests::{Base, Context, Executor, Image, Job, Registry, Result, Variant, is_static, workspace};

use crate::site;

/// The most that the compressed image may have. Eight are the goal.
const LIMIT: u64 = 15_000_000;

/// A target of `Dockerfile.executor` on its root filesystem, as a release prepares it.
pub(crate) fn build(registry: &Registry, target: &str, rootfs: PathBuf) -> Result<Image> {
    let recipe = fs::read(workspace().join("Dockerfile.executor")).unwrap();
    let container = Executor::build()?.container(Variant::Docker).readonly_volume(rootfs, "/workspace");
    let name = format!("yadokari/{target}:1");
    let job = site::job(registry, "/kaniko/Dockerfile.executor", &name).args(["--target", target]);
    container.file("/kaniko/Dockerfile.executor", recipe).run(job)?.ok(target)?;
    Image::pull(&registry.reference(&name))
}

#[test]
fn the_image_with_a_shell_has_one_that_survives_builds() -> Result<()> {
    let registry = site::registry(&[Base::Busybox])?;
    let image = build(&registry, "debug", Executor::build()?.debug_rootfs())?;
    assert_eq!(image.command(), ["/kaniko/executor"]);
    assert_eq!(image.env("PATH"), Some("/usr/local/bin:/kaniko:/busybox"));
    let context = Context::new()?.file("Dockerfile", "FROM busybox\nRUN rm -r /bin/sh && mkdir /busybox\n")?;
    let mut live = image.container(Variant::Docker)?.readonly_volume(context.path(), "/workspace").start()?;
    for name in ["shell/app:1", "shell/app:2"] {
        live.exec(site::job(&registry, "Dockerfile", name))?.ok(name)?;
        let script = "mkdir -p /x && cat /kaniko/.docker/config.json && printf a:b | base64 && which executor";
        let said = live.exec(["sh", "-c", script])?.text("sh")?;
        assert!(said.ends_with("YTpi\n/kaniko/executor"), "{said}");
    }
    Ok(())
}

#[test]
fn the_executor_builds_its_own_image_which_builds_another() -> Result<()> {
    let registry = site::registry(&[Base::Busybox])?;
    let image = build(&registry, "executor", Executor::build()?.rootfs())?;
    assert!(is_static(&fs::read(image.rootfs()?.join("kaniko/executor")).unwrap()));

    let layers = image.manifest()["layers"].as_array().unwrap().iter();
    let size: u64 = layers.map(|layer| layer["size"].as_u64().unwrap()).sum();
    println!("the executor image has {:.2} MB compressed", size as f64 / 1e6);
    assert!(size < LIMIT, "{size} bytes");

    let config = &image.config()["config"];
    assert_eq!(image.command(), ["/kaniko/executor"]);
    assert_eq!(config["WorkingDir"], "/workspace");
    let expected = [
        ("PATH", "/usr/local/bin:/kaniko"),
        ("HOME", "/root"),
        ("USER", "root"),
        ("SSL_CERT_DIR", "/kaniko/ssl/certs"),
        ("DOCKER_CONFIG", "/kaniko/.docker/"),
    ];
    for (name, value) in expected {
        assert_eq!(image.env(name), Some(value), "{name}");
    }
    let listing = image.listing()?;
    for (path, mode) in [("kaniko", 0o777), ("kaniko/.docker", 0o777), ("kaniko/executor", 0o755), ("workspace", 0o777)]
    {
        assert_eq!(listing.at(path).map(|entry| entry.mode & mode), Some(mode), "{path}");
    }
    assert!(listing.at("kaniko/ssl/certs").is_some());
    let version = image.container(Variant::Restricted)?.run(Job::new(image.command()).args(["version"]))?;
    assert!(version.text("version")?.starts_with("Kaniko version :  v"));
    let warmer = Job::new(["/kaniko/warmer", "--cache-dir", "/kaniko/cache", "--insecure-registry", registry.host()]);
    let warmer = warmer.args(["--image", &registry.hold(Base::Busybox)?]);
    let warmed = image.container(Variant::Docker)?.run(warmer)?.ok("the warmer")?;
    assert!(warmed.stderr.contains("pulled 1 layers of "), "{warmed}");

    let context = Context::new()?.file("Dockerfile", "FROM busybox\nCOPY hello /hello\n")?.file("hello", "world")?;
    for (variant, name) in [(Variant::Docker, "second/app:1"), (Variant::Restricted, "second/app:2")] {
        let container = image.container(variant)?.readonly_volume(context.path(), "/workspace");
        container.run(site::job(&registry, "Dockerfile", name))?.ok(name)?;
        let built = Image::pull(&registry.reference(name))?;
        assert_eq!(fs::read_to_string(built.rootfs()?.join("hello")).unwrap(), "world", "{variant:?}");
    }
    Ok(())
}
