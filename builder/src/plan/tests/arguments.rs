//! ARG, ENV and `--build-arg`: which value wins where.

use super::*;

/// What a RUN at the end of `FROM scratch` and these lines sees of `name`.
fn value(bench: &Bench, text: &str, name: &str) -> Option<String> {
    let plan = bench.plan(&format!("{text}\nRUN x\n"));
    seen(plan.runs().last().unwrap(), name).map(str::to_owned)
}

#[test]
fn the_later_of_arg_and_env_wins_and_a_build_arg_beats_a_default() {
    let bench = Bench::new().build_arg("G", "given");
    let cases = [
        ("FROM scratch\nARG V=1", "V", Some("1")),
        ("FROM scratch\nARG V", "V", None),
        ("FROM scratch\nARG V=", "V", Some("")),
        ("FROM scratch\nARG V=1\nENV V=2", "V", Some("2")),
        ("FROM scratch\nENV V=2\nARG V=1", "V", Some("1")),
        ("FROM scratch\nENV V=2\nARG V", "V", Some("2")),
        ("FROM scratch\nARG G=1", "G", Some("given")),
        ("FROM scratch\nENV G=2\nARG G", "G", Some("given")),
        ("FROM scratch\nARG G\nENV G=2", "G", Some("2")),
        ("FROM scratch", "G", None),
        ("FROM scratch\nARG A=1 B=$A", "B", Some("1")),
        ("FROM scratch\nENV A=bye\nENV A=hi D=$A", "D", Some("bye")),
    ];
    for (text, name, expected) in cases {
        assert_eq!(value(&bench, text, name).as_deref(), expected, "{text}");
    }
}

#[test]
fn global_arguments_are_seen_by_from_lines_and_by_those_who_ask() {
    let bench = Bench::new().build_arg("G", "given");
    let cases = [
        ("ARG V=1\nFROM scratch", "V", None),
        ("ARG V=1\nFROM scratch\nARG V", "V", Some("1")),
        ("ARG V=1\nFROM scratch\nARG V=2", "V", Some("2")),
        ("ARG G=1\nARG W=$G-w\nFROM scratch\nARG W", "W", Some("given-w")),
        ("ARG V=1\nFROM scratch AS a\nARG V\nFROM a", "V", Some("1")),
        ("ARG V=1\nFROM scratch AS a\nARG V\nFROM scratch", "V", None),
    ];
    for (text, name, expected) in cases {
        assert_eq!(value(&bench, text, name).as_deref(), expected, "{text}");
    }
    let bench = Bench::new().image("debian:12", "{}");
    assert_eq!(
        bench.plan("ARG V=12\nFROM debian:$V\n").target().base,
        Base::Image(image_for("linux/amd64", "debian:12"))
    );
}

#[test]
fn a_stage_on_top_sees_the_variable_again_that_an_argument_hid() {
    let text = "FROM scratch AS a\nENV V=env\nARG V=arg\nRUN x\nFROM a";
    let bench = Bench::new();
    assert_eq!(value(&bench, text, "V").as_deref(), Some("env"));
    assert_eq!(value(&bench, &format!("{text}\nARG V"), "V").as_deref(), Some("env"));
    assert_eq!(value(&bench, &format!("{text}\nARG V=new"), "V").as_deref(), Some("new"));
}

#[test]
fn an_argument_never_enters_the_image() {
    assert_eq!(planned("FROM scratch\nARG A=1\nARG PATH=/p\n").config().env.len(), 1);
    assert!(planned("FROM scratch\nARG PATH=/p\n").config().env[0].starts_with("PATH=/usr/local/sbin"));
}

#[test]
fn a_default_that_is_overridden_is_not_expanded() {
    let bench = Bench::new().build_arg("A", "1").build_arg("B", "2");
    let text = "ARG A=${Z:?give-it}\nFROM scratch\nARG B=${Z:?give-it}";
    assert_eq!(value(&bench, text, "B").as_deref(), Some("2"));
    assert!(Bench::new().error(&format!("{text}\n")).contains("Z: give-it"));
}

#[test]
fn platforms_are_automatic_arguments() {
    let cases = [
        ("TARGETPLATFORM", "linux/amd64"),
        ("TARGETOS", "linux"),
        ("TARGETARCH", "amd64"),
        ("TARGETVARIANT", ""),
        ("TARGETOSVERSION", ""),
        ("BUILDPLATFORM", "linux/amd64"),
        ("BUILDOS", "linux"),
        ("BUILDARCH", "amd64"),
        ("BUILDVARIANT", ""),
        ("BUILDOSVERSION", ""),
        ("TARGETSTAGE", "default"),
    ];
    for (name, expected) in cases {
        assert_eq!(value(&Bench::new(), "FROM scratch", name), None, "{name}");
        let text = format!("FROM scratch\nARG {name}");
        assert_eq!(value(&Bench::new(), &text, name).as_deref(), Some(expected), "{name}");
        let bench = Bench::new().build_arg(name, "mine");
        assert_eq!(value(&bench, &text, name).as_deref(), Some("mine"), "{name}");
    }
}

#[test]
fn the_target_stage_is_the_one_asked_for_or_the_last() {
    let text = "FROM scratch AS first\nARG TARGETSTAGE\nRUN x\nFROM first AS last\n";
    let stage = |plan: Plan| seen(plan.stages[0].runs()[0], "TARGETSTAGE").map(str::to_owned);
    assert_eq!(stage(planned(text)).as_deref(), Some("last"));
    assert_eq!(stage(Bench::new().target("first").plan(text)).as_deref(), Some("first"));
}

#[test]
fn proxies_reach_commands_in_both_cases_and_leave_no_trace() {
    let text = "FROM scratch\nRUN x\n";
    let bench = Bench::new().build_arg("HTTP_PROXY", "h").build_arg("no_proxy", "n");
    let plan = bench.plan(text);
    let expected = [("HTTP_PROXY", "h"), ("http_proxy", "h"), ("NO_PROXY", "n"), ("no_proxy", "n")];
    let expected: Vec<_> = expected.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    assert_eq!(plan.runs()[0].proxies, expected);
    assert_eq!(plan.lines(), ["RUN /bin/sh -c x # buildkit"]);
    assert!(plan.warnings.is_empty());
    assert_eq!(bench.keys(text), Bench::new().keys(text));
    for name in ["HTTPS_PROXY", "FTP_PROXY", "ALL_PROXY", "http_proxy", "Http_Proxy"] {
        let plan = Bench::new().build_arg(name, "p").plan(text);
        let mut names: Vec<_> = plan.runs()[0].proxies.iter().map(|(name, _)| name.as_str()).collect();
        names.sort_unstable();
        assert_eq!(names, [name.to_ascii_uppercase(), name.to_ascii_lowercase()], "{name}");
        assert!(plan.warnings.is_empty(), "{name}");
    }
    let declared = "FROM scratch\nARG HTTP_PROXY\nRUN x\n";
    assert_eq!(bench.plan(declared).lines()[1], "RUN |1 HTTP_PROXY=h /bin/sh -c x # buildkit");
    assert_ne!(bench.keys(declared), Bench::new().keys(declared));
}

#[test]
fn a_build_arg_that_nothing_takes_is_warned_of() {
    let warnings = |bench: Bench, text| -> Vec<String> {
        bench.plan(text).warnings.into_iter().map(|warning| warning.message).collect()
    };
    let bench = || Bench::new().build_arg("A", "1").build_arg("B", "2").build_arg("BUILDKIT_SYNTAX", "r.example/x");
    assert_eq!(warnings(bench(), "FROM scratch\nARG A\n"), ["no ARG takes --build-arg B"]);
    let plan = Bench::new().build_arg("VERSOIN", "1").plan("FROM scratch\nARG VERSION\n");
    assert_eq!(plan.warnings[0].help.as_deref(), Some("did you mean VERSION?"));
    assert!(warnings(bench(), "ARG A\nFROM scratch AS unused\nARG B\nFROM scratch\n").is_empty());
}

#[test]
fn arguments_of_buildkit_without_effect_say_so() {
    let warnings = |name: &str, value: &str| -> Vec<String> {
        let plan = Bench::new().build_arg(name, value).plan("FROM scratch\n");
        plan.warnings.into_iter().map(|warning| warning.message).collect()
    };
    for name in ["INLINE_CACHE", "SANDBOX_HOSTNAME", "SBOM_SCAN_CONTEXT", "SBOM_SCAN_STAGE"] {
        let name = format!("BUILDKIT_{name}");
        let expected = format!("--build-arg {name} has no effect: what it asks for is not carried out yet");
        assert_eq!(warnings(&name, "1"), [expected]);
        assert!(warnings(&name, "false").is_empty() && warnings(&name, "").is_empty());
    }
    for name in ["SYNTAX", "MULTI_PLATFORM", "CACHE_MOUNT_NS", "CONTEXT_KEEP_GIT_DIR", "DOCKERFILE_CHECK"] {
        assert!(warnings(&format!("BUILDKIT_{name}"), "").is_empty(), "{name}");
    }
    assert_eq!(warnings("BUILDKIT_NOTHING", "1"), ["no ARG takes --build-arg BUILDKIT_NOTHING"]);
}

#[test]
fn a_scanners_argument_is_no_variable_of_a_run() {
    let text = "FROM scratch\nARG BUILDKIT_SBOM_SCAN_STAGE=true";
    assert_eq!(value(&Bench::new(), text, "BUILDKIT_SBOM_SCAN_STAGE"), None);
}

#[test]
fn an_argument_wins_over_a_variable_of_the_base() {
    let bench = Bench::new().image("base", r#"{"Env":["V=base"]}"#).build_arg("G", "given");
    assert_eq!(value(&bench, "FROM base", "V").as_deref(), Some("base"));
    assert_eq!(value(&bench, "FROM base\nARG V=arg", "V").as_deref(), Some("arg"));
    assert_eq!(value(&bench, "FROM base\nARG V=arg\nENV V=env", "V").as_deref(), Some("env"));
    assert_eq!(value(&bench, "FROM base\nENV G=env\nARG G=arg", "G").as_deref(), Some("given"));
}

#[test]
fn the_name_of_an_argument_is_what_is_written() {
    let text = "ARG N=X\nFROM scratch\nARG N\nARG $N=1";
    assert_eq!(value(&Bench::new(), text, "X"), None);
    assert_eq!(planned(&format!("{text}\n")).lines().last().copied(), Some("ARG $N=1"));
}

#[test]
fn the_epoch_is_a_build_argument_or_a_global_default() {
    let epoch = |bench: Bench, text: &str| bench.plan(text).epoch;
    let text = "ARG DAY=86400\nARG SOURCE_DATE_EPOCH=$DAY\nFROM scratch\n";
    assert_eq!(epoch(Bench::new(), "FROM scratch\n"), None);
    assert_eq!(epoch(Bench::new(), "FROM scratch\nARG SOURCE_DATE_EPOCH=5\n"), None);
    assert_eq!(epoch(Bench::new(), "ARG SOURCE_DATE_EPOCH\nFROM scratch\n"), None);
    assert_eq!(epoch(Bench::new(), text), Some(86_400));
    let mut bench = Bench::new();
    bench.options.epoch = Some(7);
    assert_eq!(epoch(bench.build_arg("SOURCE_DATE_EPOCH", "7"), text), Some(7));
    let mut bench = Bench::new();
    bench.options.epoch = Some(7);
    assert_eq!(value(&bench, "FROM scratch\nARG SOURCE_DATE_EPOCH", "SOURCE_DATE_EPOCH").as_deref(), Some("7"));
    assert_eq!(epoch(bench, text), Some(7), "the environment's, which is no build argument");
    for value in ["context", "build", "yesterday"] {
        let error = Bench::new().error(&format!("ARG SOURCE_DATE_EPOCH={value}\nFROM scratch AS build\n"));
        assert!(error.contains(&format!("SOURCE_DATE_EPOCH={value}")) && error.contains("Dockerfile:1:"), "{error}");
    }
}

#[test]
fn a_reproducible_image_has_an_epoch_that_no_instruction_sees() {
    let reproducible = |mut bench: Bench| {
        bench.options.reproducible = true;
        bench
    };
    let (global, local) = ("ARG SOURCE_DATE_EPOCH=5\nFROM scratch\n", "FROM scratch\nARG SOURCE_DATE_EPOCH");
    assert_eq!(reproducible(Bench::new()).plan("FROM scratch\n").epoch, Some(0));
    assert_eq!(reproducible(Bench::new()).plan("ARG SOURCE_DATE_EPOCH=\nFROM scratch\n").epoch, Some(0));
    assert_eq!(reproducible(Bench::new()).plan(global).epoch, Some(5));
    let mut given = reproducible(Bench::new());
    given.options.epoch = Some(7);
    assert_eq!(given.plan(global).epoch, Some(7));
    assert_eq!(value(&given, local, "SOURCE_DATE_EPOCH").as_deref(), Some("7"));
    assert_eq!(value(&reproducible(Bench::new()), local, "SOURCE_DATE_EPOCH"), None);
    let keys = |bench: Bench| {
        let plan = bench.plan(&format!("{local}\nRUN x\nWORKDIR /w\n"));
        plan.steps().map(|step| step.key).collect::<Vec<_>>()
    };
    assert_eq!(keys(reproducible(Bench::new())), keys(Bench::new()), "no step depends on it");
}

/// What each instruction makes of `$V` and of `$N`, which holds a name.
#[test]
fn variables_are_expanded_where_the_language_says() {
    let plan = |line: &str| {
        let bench = Bench::new().file("f", "").file("$V", "").image("v", "{}");
        bench.plan(&format!("FROM scratch AS first\nENV V=v N=f S=SIGINT P='1 2'\n{line}\n"))
    };
    let expanded = [
        ("ADD $N /$V", "ADD f /v # buildkit"),
        ("COPY --chown=${N:+1} --chmod=${N:+600} $N /$V", "COPY --chown=1 --chmod=600 f /v # buildkit"),
        ("COPY [\"$N\", \"/$V\"]", "COPY f /v # buildkit"),
        ("ENV $N=$V", "ENV f=v"),
        ("ENV $N $V", "ENV f=v"),
        ("EXPOSE $P 3", "EXPOSE [1/tcp 2/tcp 3/tcp]"),
        ("LABEL $N=$V", "LABEL f=v"),
        ("STOPSIGNAL $S", "STOPSIGNAL SIGINT"),
        ("USER $V:$N", "USER v:f"),
        ("VOLUME /$V", "VOLUME [/v]"),
        ("VOLUME [\"/$V\"]", "VOLUME [/v]"),
        ("WORKDIR /$V", "WORKDIR /v"),
        ("ARG A=$V", "ARG A=v"),
        ("ONBUILD LABEL $N=$V\nFROM first", "LABEL f=v"),
    ];
    let literal = [
        ("CMD [\"$V\"]", "CMD [\"$V\"]"),
        ("ENTRYPOINT $V", "ENTRYPOINT [\"/bin/sh\" \"-c\" \"$V\"]"),
        ("HEALTHCHECK CMD $V", "HEALTHCHECK &{[\"CMD-SHELL\" \"$V\"] \"0s\" \"0s\" \"0s\" \"0s\" '\\x00'}"),
        ("MAINTAINER $V", "MAINTAINER $V"),
        ("RUN [\"$V\"]", "RUN $V # buildkit"),
        ("RUN <<E\n$V\nE", "RUN /bin/sh -c $V\n # buildkit"),
        ("SHELL [\"$V\"]", "SHELL [$V]"),
    ];
    for (line, expected) in expanded.into_iter().chain(literal) {
        assert_eq!(plan(line).lines().last().copied(), Some(expected), "{line}");
    }
    assert!(plan("ONBUILD LABEL a=$V").config().on_build == ["LABEL a=$V"]);
    let bench = Bench::new().image("v", "{}");
    assert_eq!(
        bench.plan("ARG V=v\nFROM --platform=${V:+linux/amd64} $V\n").target().base,
        Base::Image(image_for("linux/amd64", "v"))
    );
}
