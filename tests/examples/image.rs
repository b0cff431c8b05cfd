//! Builds the images that are shipped, with the program that is in them, and pushes them: `image REPOSITORY [FLAG…]`, where
//! the flags are those of `yadokari build`. The repository gets two tags, `latest` and, with a shell, `debug`.

use std::error::Error;
use std::process::Command;

use yadokari_tests::{Executor, workspace};

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let repository =
        arguments.next().ok_or("an argument is needed: the repository, such as registry.example.com/executor")?;
    let flags: Vec<String> = arguments.collect();
    let executor = Executor::build()?;
    for (context, target, tag) in
        [(executor.rootfs(), "executor", "latest"), (executor.debug_rootfs(), "debug", "debug")]
    {
        let destination = format!("{repository}:{tag}");
        let mut build = Command::new(executor.program());
        build.arg("--context").arg(context).arg("--dockerfile").arg(workspace().join("Dockerfile.executor"));
        build.args(["--target", target, "--destination", &destination]).args(&flags);
        if !build.status()?.success() {
            return Err(format!("{destination} is not built").into());
        }
    }
    Ok(())
}
