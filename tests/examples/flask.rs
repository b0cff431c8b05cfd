//! The main job from start to end: a Flask application is built in an unprivileged container, pushed to a registry,
//! pulled by others and answers a request.

use std::time::{Duration, Instant};

use yadokari_tests::{Base, Executor, Image, Job, Registry, Request, Result, Variant, fixture, free_address, packages};

fn main() -> Result<()> {
    let start = Instant::now();
    let step = |what: &str| println!("[{:6.1} s] {what}", start.elapsed().as_secs_f64());

    step("looking for runc, skopeo, umoci, busybox and mmdebstrap; what is missing is installed");
    packages::ensure()?;
    step("making the Python base image, once");
    Base::Python.layout()?;
    let registry = Registry::start()?;
    let base = registry.hold(Base::Python)?;
    step(&format!("the registry holds {base}"));
    step("building the executor: static, release; minutes the first time");
    let executor = Executor::build()?;

    let destination = registry.reference("team/flask:1");
    let registry_argument = format!("REGISTRY={}", registry.host());
    let job = Executor::job(&registry).args([
        "--dockerfile",
        "Dockerfile",
        "--build-arg",
        &registry_argument,
        "--destination",
        &destination,
    ]);
    step("building fixtures/flask in a container with Docker's default capabilities and seccomp profile");
    let container = executor.container(Variant::Docker).readonly_volume(fixture("flask"), "/workspace");
    let built = container.run(job)?.ok("/kaniko/executor")?;
    println!("{}{}", built.stdout, built.stderr);
    step(&format!("built and pushed {destination} in {:.1} s", built.elapsed.as_secs_f64()));

    let answer = serve(&Image::pull(&destination)?)?;
    step(&format!("skopeo pulled it, umoci unpacked it, runc runs it, and it answers: {}", answer.trim()));
    Ok(())
}

/// Runs the image on a free port and returns what its first page says.
fn serve(image: &Image) -> Result<String> {
    let address = free_address()?;
    let port = address.rsplit(':').next().unwrap_or_default();
    let mut live = image.container(Variant::Docker)?.env("PORT", port).open()?;
    let mut server = live.launch(Job::new(image.command()))?;
    server.wait_for("Running on")?;
    let answer = Request::get(&address, "/").send_until_answered(Duration::from_secs(30))?;
    Ok(answer.text())
}
