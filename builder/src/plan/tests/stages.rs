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
    assert_eq!(origins, [&Origin::Stage(0), &Origin::Stage(1), &Origin::Image("img:1".into())]);
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
        ("ADD https://example.org/x /x", "ADD of a URL"),
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
fn only_this_platform_is_carried_out() {
    for platform in ["linux/amd64", "LINUX/AMD64", "$TARGETPLATFORM"] {
        planned(&format!("FROM --platform={platform} scratch\n"));
    }
    let error = Bench::new().error("FROM --platform=linux/arm64 scratch\n");
    assert!(error.contains("linux/arm64 on a linux/amd64 host"), "{error}");
}
