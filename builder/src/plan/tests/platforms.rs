//! Which platform a stage is for, and what follows from it.

use super::*;

fn arm64() -> Bench {
    Bench::new().platform("linux/arm64")
}

fn platform_of(plan: &Plan) -> String {
    let config = &plan.target().config;
    let variant = config.variant.as_deref().map(|variant| format!("/{variant}")).unwrap_or_default();
    format!("{}/{}{variant}", config.os, config.architecture)
}

fn warnings(plan: &Plan) -> Vec<&str> {
    plan.warnings.iter().map(|warning| warning.message.as_str()).collect()
}

#[test]
fn images_are_asked_for_by_platform() {
    assert_eq!(Bench::new().needs("FROM base\n"), ["base"]);
    assert_eq!(arm64().needs("FROM base\n"), ["base for linux/arm64"]);
    for spelling in ["linux/arm64", "linux/arm64/v8", "linux/aarch64", "Linux/ARM64"] {
        assert_eq!(Bench::new().needs(&format!("FROM --platform={spelling} base\n")), ["base for linux/arm64"]);
    }
    let text = "FROM --platform=$BUILDPLATFORM base AS b\nCOPY --from=tool /x /\nFROM base\nCOPY --from=b /x /\n";
    assert_eq!(arm64().needs(text), ["base", "base for linux/arm64", "tool for linux/arm64"]);
}

#[test]
fn a_platform_may_come_from_any_argument_before_the_first_from() {
    let text = "ARG OS=linux\nARG P=${OS}/arm/v7\nFROM --platform=$P base\n";
    assert_eq!(Bench::new().needs(text), ["base for linux/arm/v7"]);
    assert_eq!(Bench::new().build_arg("P", "s390x").needs(text), ["base for linux/s390x"]);
    assert_eq!(arm64().needs("FROM --platform=${TARGETOS}/$TARGETARCH base\n"), ["base for linux/arm64"]);
    let bench = arm64().build_arg("BUILDPLATFORM", "linux/riscv64");
    assert_eq!(bench.needs("FROM --platform=$BUILDPLATFORM base\n"), ["base for linux/riscv64"]);
}

#[test]
fn arguments_tell_the_wanted_platform_from_the_hosts() {
    let bench = Bench::new().platform("linux/arm/v6").executes("linux/arm/v6", true);
    let text = "FROM scratch\nARG TARGETPLATFORM TARGETOS TARGETARCH TARGETVARIANT TARGETOSVERSION \
                BUILDPLATFORM BUILDOS BUILDARCH BUILDVARIANT\nRUN x\n";
    let plan = bench.plan(text);
    let values = [
        ("TARGETPLATFORM", "linux/arm/v6"),
        ("TARGETOS", "linux"),
        ("TARGETARCH", "arm"),
        ("TARGETVARIANT", "v6"),
        ("TARGETOSVERSION", ""),
        ("BUILDPLATFORM", "linux/amd64"),
        ("BUILDOS", "linux"),
        ("BUILDARCH", "amd64"),
        ("BUILDVARIANT", ""),
    ];
    for (name, value) in values {
        assert_eq!(seen(plan.runs()[0], name), Some(value), "{name}");
    }
}

#[test]
fn a_run_for_another_machine_is_tried_before_any_image_is_asked_for() {
    let text = "FROM base AS a\nRUN x\nFROM other\nCOPY --from=a /x /\n";
    assert_eq!(arm64().needs(text)[2..], ["try linux/arm64"]);
    let error = arm64().executes("linux/arm64", false).error(text);
    let expected =
        ["cannot be executed on this linux/amd64 machine", "Dockerfile:2:1", "^^^^^ binfmt_misc", "--install arm64"];
    assert!(expected.iter().all(|part| error.contains(part)), "{error}");
    assert_eq!(arm64().executes("linux/arm64", true).needs(text), ["base for linux/arm64", "other for linux/arm64"]);
}

#[test]
fn what_this_machine_executes_itself_is_not_tried() {
    let text = "FROM --platform=$BUILDPLATFORM base AS a\nRUN x\nFROM other\nCOPY --from=a /x /\n";
    assert_eq!(arm64().needs(text), ["base", "other for linux/arm64"]);
    assert_eq!(Bench::new().platform("linux/amd64/v3").needs("FROM base\nRUN x\n"), ["base for linux/amd64/v3"]);
    assert_eq!(arm64().needs("FROM base\nCOPY --from=x /y /\nWORKDIR /z\n").len(), 2);
    assert_eq!(arm64().needs("FROM base AS unused\nRUN x\nFROM other\n"), ["other for linux/arm64"]);
}

#[test]
fn a_stage_on_a_stage_has_its_platform() {
    let text = "FROM --platform=linux/s390x base AS a\nFROM a\nRUN x\n";
    assert_eq!(Bench::new().needs(text)[1..], ["try linux/s390x"]);
}

#[test]
fn a_trigger_that_cannot_be_executed_is_an_error() {
    let bench = arm64().image_for("linux/arm64", "base", r#"{"OnBuild":["RUN x"]}"#);
    assert_eq!(bench.needs("FROM base\n"), ["try linux/arm64"]);
    let error = bench.executes("linux/arm64", false).error("FROM base\n");
    assert!(error.starts_with("ONBUILD trigger of the base image, 'RUN x': a RUN for linux/arm64"), "{error}");
}

#[test]
fn the_config_says_the_platform_that_was_asked_for() {
    let scratch = |bench: Bench, from: &str| platform_of(&bench.plan(&format!("{from}\n")));
    assert_eq!(scratch(Bench::new(), "FROM scratch"), "linux/amd64");
    assert_eq!(scratch(Bench::new().platform("linux/arm"), "FROM scratch"), "linux/arm/v7");
    assert_eq!(scratch(Bench::new(), "FROM --platform=linux/s390x scratch"), "linux/s390x");
    let base = |bench: Bench| bench.image_for("linux/arm64", "base", "{}");
    assert_eq!(scratch(base(Bench::new()), "FROM --platform=linux/arm64 base"), "linux/arm64");
    assert_eq!(scratch(base(arm64()), "FROM base"), "linux/arm64");
    // As with BuildKit, what the user asked for beats what a FROM line says.
    assert_eq!(scratch(base(Bench::new().platform("linux/amd64")), "FROM --platform=arm64 base"), "linux/amd64");
}

#[test]
fn a_base_that_is_for_another_platform_is_a_warning() {
    let mut bench = Bench::new().image_for("linux/arm64", "base", "{}");
    let image = bench.known.images.remove(&image_for("linux/arm64", "base")).unwrap();
    bench.known.images.insert(image_for("linux/amd64", "base"), image);
    let plan = bench.plan("FROM base\n");
    assert_eq!(warnings(&plan), ["base is an image for linux/arm64, not for linux/amd64"]);
    assert_eq!(platform_of(&plan), "linux/arm64");
    assert_eq!(platform_of(&bench.platform("linux/amd64").plan("FROM base\n")), "linux/amd64");
}

#[test]
fn a_platform_that_a_stage_cannot_have_is_a_warning() {
    let text = "ARG P=linux/arm64 Q=linux/amd64\nFROM --platform=$P scratch AS a\nFROM --platform=$Q a\n";
    let plan = planned(text);
    let expected = "--platform=linux/amd64 has no effect: the stage that this one starts from is for linux/arm64";
    assert_eq!(warnings(&plan), [expected]);
    assert_eq!(platform_of(&plan), "linux/arm64");
    assert!(planned("FROM scratch AS a\nFROM --platform=$BUILDPLATFORM a\n").warnings.is_empty());
}

#[test]
fn a_wrong_platform_is_an_error_at_its_place() {
    let cases = [
        ("FROM --platform=$NONE scratch", "the platform is empty", "1:17"),
        ("FROM --platform=linux/amd46 scratch", "'amd46' is no architecture", "1:17"),
        ("FROM --platform=linux/a/b/c scratch", "not of the form", "1:17"),
        ("FROM --platform=windows/amd64 base", "an image for windows/amd64 is not carried out yet", "1:17"),
    ];
    for (text, message, place) in cases {
        let error = Bench::new().error(&format!("{text}\n"));
        assert!(error.contains(message) && error.contains(place) && error.contains('^'), "{error}");
    }
    let error = Bench::new().platform("windows/amd64").error("FROM scratch\n");
    assert!(error.contains("windows/amd64 is not carried out") && error.contains("1:1"), "{error}");
}

#[test]
fn platforms_share_the_keys_of_what_they_have_in_common() {
    let text =
        |from: &str| format!("FROM --platform=$BUILDPLATFORM {from} AS b\nRUN x\nFROM scratch\nCOPY --from=b /x /\n");
    let keys = |bench: Bench, text: &str| -> Vec<Key> {
        bench.image("base", "{}").plan(text).steps().map(|s| s.key).collect()
    };
    let (amd64, arm64) = (keys(Bench::new(), &text("base")), keys(arm64(), &text("base")));
    assert_eq!(amd64[0], arm64[0]);
    assert_ne!(amd64[1], arm64[1]);
}
