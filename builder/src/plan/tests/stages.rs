//! Which stages are planned, on what, and what is asked for.

use super::*;

fn names(plan: &Plan) -> Vec<&str> {
    plan.stages.iter().map(|stage| stage.name.as_str()).collect()
}

#[test]
fn only_what_the_target_needs_is_planned_and_asked_for() {
    let text = "FROM one AS a\nFROM two AS b\nCOPY --from=a /x /y\nFROM three AS c\nFROM b AS d\n";
    assert_eq!(Bench::new().needs(text), ["one", "two"]);
    let bench = Bench::new().image("one", "{}").image("two", "{}");
    let plan = bench.plan(text);
    assert_eq!(names(&plan), ["a", "b", "d"]);
    assert_eq!(plan.target().base, Base::Stage(1));
    assert_eq!(plan.copies().len(), 0);
}

#[test]
fn everything_is_asked_for_at_once() {
    let text = "FROM one AS a\nCOPY --from=two /x /y\nFROM three AS b\nFROM four\nCOPY --from=a /x /\nCOPY --from=b /x /\nCOPY --from=five /x /\n";
    assert_eq!(Bench::new().needs(text), ["five", "four", "one", "three", "two"]);
}

#[test]
fn a_target_is_a_name_or_a_number() {
    let text = "FROM scratch AS one\nFROM scratch AS two\nFROM scratch\n";
    for (target, expected) in [("one", "one"), ("TWO", "two"), ("1", "two"), ("2", "stage-2")] {
        assert_eq!(names(&Bench::new().target(target).plan(text)), [expected], "{target}");
    }
    let error = Bench::new().target("three").error(text);
    assert_eq!(error, "--target=three: the Dockerfile has no such stage; it has one, two");
}

#[test]
fn stages_are_copied_from_by_name_number_and_image() {
    let bench = Bench::new().image("img:1", "{}");
    let text = "FROM scratch AS a\nFROM scratch AS b\nFROM scratch\nCOPY --from=B /x /\nCOPY --from=0 /x /\nCOPY --from=img:1 /x /\n";
    let plan = bench.plan(text);
    let origins: Vec<&Origin> = plan.copies().into_iter().map(|copy| &copy.from).collect();
    assert_eq!(names(&plan), ["b", "a", "stage-2"]);
    assert_eq!(origins, [&Origin::Stage(0), &Origin::Stage(1), &Origin::Image(image_for("linux/amd64", "img:1"))]);
}

#[test]
fn of_two_stages_of_one_name_the_later_one_before_is_meant() {
    let text = "FROM scratch AS a\nLABEL n=1\nFROM scratch AS a\nLABEL n=2\nFROM a\n";
    assert_eq!(planned(text).config().labels["n"], "2");
}

#[test]
fn later_stages_itself_and_numbers_beyond_are_errors_before_anything_is_asked_for() {
    let cases = [
        ("FROM base AS a\nCOPY --from=b /x /\nFROM scratch AS b\nFROM a\n", "--from=b is a later stage", "2:13"),
        ("FROM base AS a\nCOPY --from=a /x /\n", "--from=a is the stage itself", "2:13"),
        ("FROM base AS a\nCOPY --from=0 /x /\n", "--from=0 is the stage itself", "2:13"),
        ("FROM base\nCOPY --from=7 /x /\n", "--from=7: the Dockerfile has 1 stages", "2:13"),
    ];
    for (text, message, place) in cases {
        let error = Bench::new().error(text);
        assert!(error.contains(message) && error.contains(place) && error.contains('^'), "{error}");
    }
}

#[test]
fn a_stage_on_a_stage_inherits_its_config_and_not_its_triggers() {
    let text = "FROM scratch AS a\nENV A=1\nUSER u\nWORKDIR /w\nONBUILD LABEL l=1\nFROM a AS b\nFROM b\n";
    let plan = planned(text);
    let config = plan.config();
    assert_eq!((config.user.as_str(), config.working_dir.as_str()), ("u", "/w"));
    assert!(config.env.contains(&"A=1".to_owned()));
    assert!(config.on_build.is_empty());
    assert_eq!(config.labels["l"], "1");
    assert_eq!(plan.lines().iter().filter(|line| **line == "LABEL l=1").count(), 1);
}

#[test]
fn triggers_of_an_image_run_first_and_may_name_more_images() {
    let bench = Bench::new()
        .file("f", "")
        .image("base", r#"{"OnBuild":["COPY f /f","COPY --from=more /x /x","RUN <<E\nhello\nE\n","WORKDIR /t"]}"#);
    let text = "FROM base\nRUN own\n";
    assert_eq!(bench.needs(text), ["more"]);
    let plan = bench.image("more", "{}").plan(text);
    let steps: Vec<_> = plan.target().steps.iter().map(|step| (step.text.as_str(), step.span.is_some())).collect();
    let expected = [
        ("COPY f /f", false),
        ("COPY --from=more /x /x", false),
        ("RUN <<E", false),
        ("WORKDIR /t", false),
        ("RUN own", true),
    ];
    assert_eq!(steps, expected);
    assert_eq!(plan.runs()[0].argv[2], "hello\n");
    assert_eq!(plan.runs()[1].workdir, "/t");
    assert!(plan.config().on_build.is_empty());
}

#[test]
fn an_error_in_a_trigger_names_it_and_no_place_of_this_file() {
    let cases = [
        ("COPY none /x", "'none' is not in the build context"),
        ("COPY --chmod=9 . /x", "'9' is not a mode"),
        ("COPY --from=7 /a /x", "--from=7"),
        ("STOPSIGNAL NOPE", "'NOPE' is not a signal"),
        ("ENV A=${B:?no}", "B: no"),
        ("ADD https://example.org/ /x/", "the URL ends in no name"),
        ("NOPE", "unknown instruction"),
    ];
    for (trigger, message) in cases {
        let bench = Bench::new().image("base", &format!(r#"{{"OnBuild":["{trigger}"]}}"#));
        let error = bench.error("FROM base\n");
        assert!(error.starts_with(&format!("ONBUILD trigger of the base image, '{trigger}': ")), "{error}");
        assert!(error.contains(message) && !error.contains('^'), "{error}");
    }
}

#[test]
fn an_error_in_a_stage_that_a_trigger_copies_from_keeps_its_place() {
    let bench = Bench::new().image("base", r#"{"OnBuild":["COPY --from=a /x /x"]}"#);
    let error = bench.error("FROM scratch AS a\nSTOPSIGNAL NOPE\nFROM base\n");
    assert!(error.contains("Dockerfile:2:"), "{error}");
}

#[test]
fn a_base_name_is_expanded_and_must_not_be_empty() {
    let error = Bench::new().error("ARG V\nFROM $V\n");
    assert!(error.contains("empty") && error.contains("Dockerfile:2:6"), "{error}");
}

#[test]
fn a_number_is_a_stage_for_copies_and_an_image_for_from() {
    assert_eq!(Bench::new().needs("FROM scratch AS a\nFROM 0\n"), ["0"]);
    assert_eq!(planned("FROM scratch AS a\nFROM scratch\nCOPY --from=0 /x /\n").stages.len(), 2);
}

#[test]
fn a_mistyped_target_is_answered_with_what_was_meant() {
    let text = "FROM scratch AS builder\nFROM scratch AS runtime\n";
    let error = |target: &str| Bench::new().target(target).error(text);
    assert_eq!(error("biulder"), "--target=biulder: the Dockerfile has no such stage; did you mean builder?");
    assert_eq!(error("7"), "--target=7: the Dockerfile has no such stage; it has builder, runtime");
    assert_eq!(Bench::new().target("x").error("FROM scratch\n"), "--target=x: the Dockerfile has no such stage");
}

#[test]
fn a_mistyped_name_of_a_stage_or_a_common_image_is_recognised() {
    let file = parse(&Source::new("Dockerfile", "FROM scratch AS builder\nFROM biulder\n")).unwrap();
    let cases = [
        ("biulder", Some("builder")),
        ("alpin:3.20", Some("alpine")),
        ("ubunut", Some("ubuntu")),
        ("builder", None),
        ("debian:12", None),
        ("registry.example/app:1", None),
    ];
    for (name, expected) in cases {
        assert_eq!(meant(&file, name).as_deref(), expected, "{name}");
    }
}

#[test]
fn a_stage_takes_all_of_an_images_config_but_its_triggers_and_its_time() {
    let config = r#"{"User":"u","Env":["PATH=/p","A=1"],"Entrypoint":["e"],"Cmd":["c"],"Labels":{"l":"1"},"WorkingDir":"/w",
        "ExposedPorts":{"80/tcp":{}},"Volumes":{"/v":{}},"StopSignal":"SIGTERM","Shell":["s"],"OnBuild":["ENV B=2"],
        "Healthcheck":{"Test":["CMD","h"]},"Hostname":"kept"}"#;
    let plan = Bench::new().image("base", config).plan("FROM base\n");
    let mut expected: crate::image::ContainerConfig = serde_json::from_str(config).unwrap();
    expected.on_build.clear();
    expected.env.push("B=2".into());
    assert_eq!(*plan.config(), expected);
}

#[test]
fn path_is_added_where_the_base_has_none() {
    let path = |config: &str| {
        let plan = Bench::new().image("base", config).plan("FROM base\n");
        plan.config().env.iter().find(|variable| variable.starts_with("PATH=")).cloned().unwrap()
    };
    let default = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
    assert_eq!(path("{}"), default);
    assert_eq!(path(r#"{"Env":["A=1"]}"#), default);
    assert_eq!(path(r#"{"Env":["PATH=/mine"]}"#), "PATH=/mine");
    let plan = planned("FROM scratch\n");
    assert_eq!((plan.config().working_dir.as_str(), plan.config().env.clone()), ("/", vec![default.to_owned()]));
    assert_eq!((plan.target().base.clone(), plan.target().steps.len()), (Base::Scratch, 0));
}

#[test]
fn stages_that_wait_for_an_image_are_looked_at_once_a_round() {
    let stage = |n: usize| format!("FROM scratch AS s{n}\n{}", format!("COPY --from=s{} /x /\n", n - 1).repeat(9));
    let text = format!("FROM base AS s0\n{}", (1..40).map(stage).collect::<String>());
    assert_eq!(Bench::new().needs(&text), ["base"]);
}

#[test]
fn stages_in_a_very_long_row_are_an_error() {
    let row = |n: usize| (1..n).map(|n| format!("FROM s{} AS s{n}\n", n - 1)).collect::<String>();
    assert_eq!(planned(&format!("FROM scratch AS s0\n{}", row(200))).stages.len(), 200);
    let error = Bench::new().error(&format!("FROM scratch AS s0\n{}", row(9_000)));
    assert!(error.contains("more than 300 stages need one another in a row"), "{error}");
}

#[test]
fn what_is_needed_says_where_it_is_named_and_a_trigger_has_no_place() {
    let bench = Bench::new().image("base", r#"{"OnBuild":["COPY --from=more /x /x"]}"#);
    let text = "FROM scratch AS a\nCOPY --from=other /f /f\nFROM base\nCOPY --from=a /f /f\n";
    let Ok(Planned::Needs(needs)) = bench.round(text) else { panic!("nothing is needed") };
    let place = |name: &str| needs.images[&image_for("linux/amd64", name)].map(|span| &text[span.start..span.end]);
    assert_eq!((place("other"), place("more")), (Some("other"), None));
    // What a trigger and the file both name is shown in the file.
    let text = "FROM base\nRUN --mount=from=more,target=/m true\n";
    let Ok(Planned::Needs(needs)) = bench.round(text) else { panic!("nothing is needed") };
    let place = needs.images[&image_for("linux/amd64", "more")];
    assert_eq!(place.map(|span| &text[span.start..span.end]), Some("more"));
}
