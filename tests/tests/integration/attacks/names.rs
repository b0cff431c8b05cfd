//! While a command runs in place, `/` is an image's: nothing that the builder does meanwhile may depend on what is there.

use serde_json::json;
use yadokari_tests::{Base, CREDENTIALS, Context, Image, Registry, Result, Variant};

use crate::site::{self, printed};

#[test]
fn a_run_in_place_does_not_decide_where_the_builder_connects() -> Result<()> {
    let mut registry = Registry::with_password()?;
    registry.hold(Base::Busybox)?;
    let port = registry.host().rsplit(':').next().unwrap_or_default().to_owned();
    let host = format!("localhost:{port}");
    // What the first command makes cannot be sent before the second one has changed what the registry's name means. Nobody
    // answers at the other address, so that whoever goes there does not come through in the time that there is.
    let text = format!(
        "FROM {host}/library/busybox\nRUN head -c 1000000 /dev/urandom > /big; echo made; sleep 1\n\
         RUN echo '127.0.0.9 localhost' > /etc/hosts; echo the name is ours; sleep 8\n"
    );
    let context = Context::new()?.file("Dockerfile", text)?;
    let logins = json!({"auths": {&host: {"username": CREDENTIALS.0, "password": CREDENTIALS.1}}});
    let container = site::container(Variant::Docker, context.path())?;
    let mut live = container.file("/kaniko/.docker/config.json", logins.to_string()).start()?;
    let mut build = live.spawn(site::job_at(&host, "Dockerfile", "attacks/names:1"))?;
    build.wait_for(" made\n")?;
    registry.stop();
    build.wait_for(" the name is ours\n")?;
    registry.restart()?;
    let output = build.wait()?.ok("build")?;
    assert!(printed(&output).contains("sandbox: in-place"), "{output}");
    let image = Image::pull_as(&registry.reference("attacks/names:1"), CREDENTIALS)?;
    assert_eq!(image.layer_paths(1)?, ["big"]);
    Ok(())
}

#[test]
fn what_the_builder_writes_while_a_command_runs_in_place_stays_outside_of_the_image() -> Result<()> {
    let registry = site::registry(&[Base::Busybox])?;
    let text = "FROM busybox\nRUN head -c 30000000 /dev/urandom > /one\nRUN ln -s /etc /cache; sleep 3\nRUN echo three > /three\n";
    let context = Context::new()?.file("Dockerfile", text)?;
    let mut live = site::container(Variant::Docker, context.path())?.start()?;
    let job = site::job(&registry, "Dockerfile", "attacks/layout:1");
    let words = ["--no-push", "--oci-layout-path", "/image", "--cache", "--cache-repo", "oci:/records"];
    let output = live.exec(job.args(words))?.ok("build")?;
    assert!(printed(&output).contains("sandbox: in-place"), "{output}");
    let image = Image::from_layout(&live.path("/image"))?;
    let layers = [1, 2, 3].map(|layer| image.layer_paths(layer).unwrap_or_default());
    assert_eq!(layers, [vec!["one"], vec!["cache"], vec!["three"]]);
    assert!(live.path("/records/index.json").is_file());
    Ok(())
}
