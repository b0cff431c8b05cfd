//! `--build-context`: names that mean something else than the Dockerfile says.

use super::*;

fn origins(plan: &Plan) -> Vec<&Origin> {
    plan.copies().into_iter().map(|copy| &copy.from).collect()
}

/// A directory with these files.
fn directory(files: &[(&str, &str)]) -> (tempfile::TempDir, String) {
    let directory = tempfile::tempdir().unwrap();
    files.iter().for_each(|(name, content)| fs::write(directory.path().join(name), content).unwrap());
    let path = directory.path().display().to_string();
    (directory, path)
}

#[test]
fn an_image_takes_the_place_of_another_however_it_is_spelled() {
    let bench = || Bench::new().context("alpine", "docker-image://registry.example/mine:2");
    for name in ["alpine", "alpine:latest", "docker.io/library/alpine"] {
        assert_eq!(bench().needs(&format!("FROM {name}\n")), ["registry.example/mine:2"]);
        let text = format!("FROM scratch\nCOPY --from={name} /x /\n");
        assert_eq!(bench().needs(&text), ["registry.example/mine:2"]);
    }
    assert_eq!(bench().needs("FROM alpine:3\n"), ["alpine:3"]);
}

#[test]
fn a_context_stands_in_for_a_stage_whose_instructions_do_not_matter() {
    let text = "FROM base AS a\nRUN x\nCOPY --from=other /x /\nFROM scratch\nCOPY --from=a /x /\nCOPY --from=0 /y /\n";
    let bench = Bench::new().context("a", "docker-image://img");
    assert_eq!(bench.needs(text), ["docker.io/library/img:latest"]);
    let bench = bench.image("docker.io/library/img:latest", r#"{"Env":["A=1"]}"#);
    let plan = bench.plan(text);
    assert_eq!(plan.stages[0].base, Base::Image(image_for("linux/amd64", "docker.io/library/img:latest")));
    assert!(plan.stages[0].steps.is_empty());
    assert_eq!(origins(&plan), [&Origin::Stage(0), &Origin::Stage(0)]);
    assert!(bench.plan("FROM base AS A\nRUN x\nFROM a\n").config().env.contains(&"A=1".to_owned()));
}

#[test]
fn a_stage_that_is_stood_in_for_may_be_a_later_one() {
    let bench = Bench::new().context("b", "docker-image://scratch");
    let text = "FROM scratch AS a\nCOPY --from=b /x* /\nFROM base AS b\nRUN x\nFROM a\n";
    assert_eq!(bench.plan(text).stages.len(), 3);
    assert!(Bench::new().error(text).contains("--from=b is a later stage"));
}

#[test]
fn what_stands_in_for_a_stage_has_its_platform() {
    let bench = Bench::new().context("a", "docker-image://img").context("c", "docker-image://img");
    let text = "FROM --platform=linux/arm64 base AS a\nFROM scratch\nCOPY --from=a /x /\nCOPY --from=c /x /\n";
    assert_eq!(bench.needs(text), ["docker.io/library/img:latest", "docker.io/library/img:latest for linux/arm64"]);
}

#[test]
fn a_directory_is_copied_from_and_its_content_decides() {
    let (other, path) = directory(&[("f", "1"), ("g", "2")]);
    let bench = Bench::new().file("f", "main").context("other", &path);
    let text = "FROM scratch\nCOPY --from=other f /x/\n";
    assert_eq!(origins(&bench.plan(text)), [&Origin::Named("other".into())]);
    let before = bench.keys(text);
    fs::write(other.path().join("g"), "new").unwrap();
    assert_eq!(bench.keys(text), before);
    fs::write(other.path().join("f"), "new").unwrap();
    assert_ne!(bench.keys(text), before);
}

#[test]
fn what_is_not_in_a_directory_is_said_with_its_name() {
    let (_other, path) = directory(&[("f", "1"), (".dockerignore", "f\n")]);
    let bench = Bench::new().file("f", "main").context("other", &path);
    let error = bench.error("FROM scratch\nCOPY --from=other f /x/\n");
    let expected =
        ["'f' is not in the context 'other'", "Dockerfile:2:19", &format!("{path}/.dockerignore leaves it out")];
    assert!(expected.iter().all(|part| error.contains(part)), "{error}");
}

#[test]
fn a_directory_as_a_base_is_its_files_on_nothing() {
    let (_other, path) = directory(&[("f", "1")]);
    let plan = Bench::new().context("other", &path).plan("FROM other\nLABEL a=b\n");
    let [copy] = plan.copies()[..] else { panic!("one step") };
    assert_eq!((&copy.from, copy.destination.as_str()), (&Origin::Named("other".into()), "/"));
    assert_eq!(plan.target().base, Base::Scratch);
    assert_eq!(plan.lines(), ["FROM other", "LABEL a=b"]);
    assert_eq!((plan.config().working_dir.as_str(), plan.config().env.len()), ("/", 1));
}

#[test]
fn scratch_is_nothing_wherever_it_is_named() {
    let bench = Bench::new().context("empty", "docker-image://scratch");
    assert_eq!(bench.plan("FROM empty\n").target().base, Base::Scratch);
    let plan = bench.plan("FROM scratch\nCOPY --from=scratch /x* /\nCOPY --from=empty /x* /\n");
    assert_eq!(origins(&plan), [&Origin::Nothing, &Origin::Nothing]);
}

#[test]
fn a_layout_is_an_image() {
    let bench = Bench::new().context("base", "oci-layout:///layouts/x:1");
    assert_eq!(bench.needs("FROM base\n"), ["oci:/layouts/x:1"]);
}

#[test]
fn triggers_of_what_stands_in_for_a_stage_run_on_top_of_it() {
    let bench = Bench::new().context("a", "docker-image://img");
    let bench = bench.image("docker.io/library/img:latest", r#"{"OnBuild":["LABEL l=1"]}"#);
    let plan = bench.plan("FROM base AS a\nFROM a\n");
    assert_eq!((plan.config().labels["l"].as_str(), plan.config().on_build.len()), ("1", 0));
}

#[test]
fn a_mount_takes_from_a_context_too() {
    let (other, path) = directory(&[("f", "1"), ("g", "2")]);
    let bench = Bench::new().context("other", &path).context("tools", "docker-image://img");
    let text = "FROM scratch\nRUN --mount=from=other,source=f,target=/m x\n";
    let plan = bench.plan(text);
    let MountKind::Bind { source, .. } = &plan.runs()[0].mounts[0].kind else { panic!("a bind mount") };
    assert_eq!(source.from, Some(Origin::Named("other".into())));
    let before = bench.keys(text);
    fs::write(other.path().join("g"), "new").unwrap();
    assert_eq!(bench.keys(text), before);
    fs::write(other.path().join("f"), "new").unwrap();
    assert_ne!(bench.keys(text), before);
    assert_eq!(bench.needs("FROM scratch\nRUN --mount=from=tools,target=/m x\n"), ["docker.io/library/img:latest"]);
    let error = bench.error("FROM scratch\nRUN --mount=from=other,source=none,target=/m x\n");
    assert!(error.contains("'none' is not in the context 'other'"), "{error}");
}
