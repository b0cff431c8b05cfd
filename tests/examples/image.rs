//! Builds the images that are shipped, with the program that is in them, and pushes them: `image REPOSITORY [FLAG…]`, where
//! the flags are those of `yadokari build`. The repository gets two tags, `latest` and, with a shell, `debug`.
//!
//! Their digests, which are printed, follow from the commit, from the programs that compile and link, and for `debug` from
//! Debian's busybox: `docs/security/supply-chain.md` says how to look whether an image is what it says. With `--no-push`
//! nothing is pushed.

use std::error::Error;

use yadokari_tests::{Commit, Executor, Tag, workspace};

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let repository =
        arguments.next().ok_or("an argument is needed: the repository, such as registry.example.com/executor")?;
    let flags: Vec<String> = arguments.collect();
    let commit = Commit::of(&workspace());
    match &commit {
        Some(commit) => println!("commit {}", commit.id),
        None => eprintln!("warning: this is no commit as it was made, so that nobody can build the same images"),
    }
    let executor = Executor::build()?;
    for (tag, name) in [(Tag::Latest, "latest"), (Tag::Debug, "debug")] {
        let destination = format!("{repository}:{name}");
        let mut build = executor.image(tag, commit.as_ref());
        let digest = tempfile::NamedTempFile::new()?;
        build.arg("--destination").arg(&destination).arg("--digest-file").arg(digest.path()).args(&flags);
        if !build.status()?.success() {
            return Err(format!("{destination} is not built").into());
        }
        println!("{destination} {}", std::fs::read_to_string(digest.path())?.trim());
    }
    Ok(())
}
