use yadokari_tests::{Base, CREDENTIALS, Form, Image, Registry, Request, Result};

#[test]
fn a_pushed_base_is_there_and_survives_a_restart() -> Result<()> {
    let mut registry = Registry::start()?;
    let reference = registry.hold(Base::Busybox)?;
    assert_eq!(reference, format!("{}/library/busybox:latest", registry.host()));
    assert_eq!(registry.tags("library/busybox")?, ["latest"]);
    registry.stop();
    assert!(registry.tags("library/busybox").is_err());
    registry.restart()?;
    let (_, manifest) = registry.manifest("library/busybox", "latest")?.unwrap();
    let layer = manifest["layers"][0]["digest"].as_str().unwrap();
    assert!(registry.blob("library/busybox", layer)?.is_some());
    assert!(registry.blob_file(layer).is_file());
    Ok(())
}

#[test]
fn requests_are_counted() -> Result<()> {
    let registry = Registry::start()?;
    registry.tags("no/such")?;
    let served = registry.served()?;
    let last = served.last().unwrap();
    assert_eq!((&*last.method, &*last.path, last.status), ("GET", "/v2/no/such/tags/list", 404));
    Ok(())
}

#[test]
fn a_password_is_asked_for() -> Result<()> {
    let registry = Registry::with_password()?;
    assert_eq!(Request::get(registry.host(), "/v2/").send()?.status, 401);
    let reference = registry.hold(Base::Busybox)?;
    assert!(Image::pull(&reference).is_err());
    Image::pull_as(&reference, CREDENTIALS)?;
    Ok(())
}

#[test]
fn one_base_in_all_forms_is_the_same_image() -> Result<()> {
    let registry = Registry::start()?;
    let cases = [
        (Form::Oci, "application/vnd.oci.image.manifest.v1+json", "application/vnd.oci.image.layer.v1.tar+gzip"),
        (
            Form::Docker,
            "application/vnd.docker.distribution.manifest.v2+json",
            "application/vnd.docker.image.rootfs.diff.tar.gzip",
        ),
        (Form::Zstd, "application/vnd.oci.image.manifest.v1+json", "application/vnd.oci.image.layer.v1.tar+zstd"),
    ];
    let mut configs = Vec::new();
    for (form, media_type, layer) in cases {
        let name = format!("forms/{form:?}").to_lowercase();
        let reference = registry.hold_as(Base::Busybox, form, &format!("{name}:1"))?;
        let (_, manifest) = registry.manifest(&name, "1")?.unwrap();
        assert_eq!(manifest["mediaType"], media_type, "{form:?}");
        assert_eq!(manifest["layers"][0]["mediaType"], layer, "{form:?}");
        configs.push(Image::pull(&reference)?.config()["rootfs"].clone());
    }
    assert_eq!(configs[0], configs[1]);
    assert_eq!(configs[0], configs[2]);
    Ok(())
}

#[test]
fn an_index_holds_both_platforms() -> Result<()> {
    let registry = Registry::start()?;
    registry.hold(Base::Platforms)?;
    let (_, index) = registry.manifest("library/platforms", "latest")?.unwrap();
    let platforms = index["manifests"].as_array().unwrap().iter().map(|m| m["platform"]["architecture"].clone());
    assert_eq!(platforms.collect::<Vec<_>>(), ["amd64", "arm64"]);
    Ok(())
}
