use yadokari_tests::{Base, Image, Job, Kind, Result, Variant, architecture, proxies};

#[test]
fn busybox_is_what_it_says() -> Result<()> {
    let image = Image::from_layout(&Base::Busybox.layout()?)?;
    assert_eq!(image.config()["architecture"], architecture());
    assert_eq!(image.command(), ["sh"]);
    let listing = image.listing()?;
    assert_eq!(listing.at("tmp").unwrap().mode, 0o1777);
    assert_eq!(listing.at("bin/sh").unwrap().kind, Kind::Symlink("busybox".into()));
    assert!(image.layer_paths(0)?.contains(&"bin/busybox".to_owned()));
    let output = image.container(Variant::Docker)?.run(["sh", "-c", "echo $PATH"])?;
    assert_eq!(Some(&*output.text("sh")?), image.env("PATH"));
    Ok(())
}

#[test]
fn as_many_files_as_asked_for() -> Result<()> {
    let listing = Image::from_layout(&Base::Files(250).layout()?)?.listing()?;
    let files = listing.0.iter().filter(|(path, entry)| path.starts_with("srv") && entry.kind != Kind::Directory);
    assert_eq!(files.count(), 250);
    Ok(())
}

#[test]
fn python_runs_and_has_no_devices() -> Result<()> {
    let image = Image::from_layout(&Base::Python.layout()?)?;
    let listing = image.listing()?;
    assert!(!listing.0.values().any(|entry| matches!(entry.kind, Kind::Device(..))));
    for variant in [Variant::Docker, Variant::UserNamespace] {
        let output = image.container(variant)?.run(["python", "-c", "import venv, pip, ssl; print(6 * 7)"])?;
        assert_eq!(output.text("python")?, "42");
    }
    Ok(())
}

#[test]
fn pip_reaches_its_index_from_inside() -> Result<()> {
    let mut container = Image::from_layout(&Base::Python.layout()?)?.container(Variant::Docker)?;
    for (name, value) in proxies() {
        container = container.env(&name, value);
    }
    let line = "python -m venv /venv && /venv/bin/pip install -q flask && /venv/bin/flask --version";
    let output = container.run(Job::shell(line))?;
    assert!(output.clone().text("pip")?.contains("Flask"), "{output}");
    Ok(())
}
